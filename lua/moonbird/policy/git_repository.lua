--- Running git on a repository: its top folder, where the migrations are in it, its branches and commits.
--
-- The repository may be a pull request's, whose author must gain nothing by it. So no program that the
-- repository names is run (file system monitors, hooks, external and text-converting diffs), no folder of it is
-- taken for a bare repository, names are never options or patterns, and nothing is written or fetched. Runs
-- inside a task.
local error_ = require "moonbird.core.error"
local fs = require "moonbird.core.fs"
local process = require "moonbird.core.process"
local text_util = require "moonbird.util.text"

local M = {}

-- Of a child's output the last MiB is kept.
local CAPTURED = 1024 * 1024

local SAFE = { "--no-pager", "--literal-pathspecs", "-c", "safe.bareRepository=explicit", "-c", "core.fsmonitor=false",
  "-c", "core.hooksPath=/dev/null", "-c", "diff.external=", "-c", "diff.autoRefreshIndex=false",
  "-c", "core.untrackedCache=false" }

-- A hook or `git rebase --exec` sets some of these for its own purpose; the folder says which repository it is.
local ENVIRONMENT = { LC_ALL = "C", GIT_OPTIONAL_LOCKS = "0", GIT_TERMINAL_PROMPT = "0", GIT_PAGER = "cat",
  GIT_NO_LAZY_FETCH = "1", GIT_EXTERNAL_DIFF = false, GIT_DIFF_OPTS = false, GIT_DIR = false, GIT_WORK_TREE = false,
  GIT_INDEX_FILE = false, GIT_PREFIX = false, GIT_OBJECT_DIRECTORY = false, GIT_NAMESPACE = false,
  GIT_COMMON_DIR = false, GIT_LITERAL_PATHSPECS = false, GIT_GLOB_PATHSPECS = false, GIT_NOGLOB_PATHSPECS = false,
  GIT_ICASE_PATHSPECS = false, GIT_TRACE = false, GIT_REPLACE_REF_BASE = false, GIT_NO_REPLACE_OBJECTS = "1",
  GIT_SHALLOW_FILE = false }

local function first_line(text)
  return (text:match("^%s*([^\n]*)") or ""):gsub("^fatal: ", "")
end

local function failed(err, cwd)
  if err.errno == "ENOENT" and fs.stat(cwd) then
    return error_.new("usage", "the program git is needed to compare with a base branch, and is not there", {
      hint = "install git, or leave out --base", no_git = true })
  end
  return err
end

-- With more output than a capture keeps, once more into a file.
local function run_into_file(spec)
  local dir, message = fs.tempdir("moonbird-git-")
  if not dir then
    return nil, error_.new("io", message)
  end
  local path = dir .. "/output"
  local args = table.move(spec.args, 1, #spec.args, 4, { "-c", 'exec git "$@" >"$0"', path })
  local result, err = process.run { file = "/bin/sh", args = args, env = spec.env, cwd = spec.cwd }
  if result then
    result.stdout, message = fs.read(path)
    if not result.stdout then
      result, err = nil, error_.new("io", message)
    end
  end
  fs.remove_tree(dir)
  return result, err
end

--- Runs git.
---@param cwd string folder to run it in
---@param ... string the command and its arguments
---@return { status?: integer, signal?: string, stdout: string, stderr: string }?
---@return moonbird.error? err
local function git(cwd, ...)
  local args = table.move(SAFE, 1, #SAFE, 1, {})
  local more = { ... }
  table.move(more, 1, #more, #args + 1, args)
  local spec = { file = "git", args = args, env = ENVIRONMENT, cwd = cwd }
  local result, err = process.run(spec)
  if not result then
    return nil, failed(err, cwd)
  elseif #result.stdout >= CAPTURED then
    return run_into_file(spec)
  end
  return result
end

--- Runs a git command that does not fail in a sound repository.
---@param cwd string
---@param ... string
---@return string? stdout
---@return moonbird.error? err code "io"
function M.demand(cwd, ...)
  local result, err = git(cwd, ...)
  if not result then
    return nil, err
  elseif result.status ~= 0 then
    return nil, error_.new("io", ("git %s failed: %s"):format((...), result.status and first_line(result.stderr)
      or "ended by " .. tostring(result.signal)), { detail = text_util.trim(result.stderr) })
  end
  return result.stdout
end

-- The repository --------------------------------------------------------------------------------------------

--- The top folder of the working tree; nil and an error (with `none` where there is no repository).
local function top_of(dir)
  local result, err = git(dir, "rev-parse", "--show-toplevel")
  if not result then
    return nil, err
  elseif result.status == 0 then
    local top = result.stdout:gsub("\n$", "")
    if top ~= "" then
      return top
    end
  end
  local said = result.stderr
  if said:find("dubious ownership", 1, true) or said:find("safe.directory", 1, true) then
    return nil, error_.new("usage", "git does not trust the repository: its files belong to another user", {
      hint = ("git config --global --add safe.directory %s"):format(
        said:match("dubious ownership in repository at '([^']+)'") or fs.realpath(dir) or dir) })
  elseif said:find("safe.bareRepository", 1, true) or said:find("bare repository", 1, true) then
    return nil, error_.new("usage", ("the folder \"%s\" looks like a bare repository, which is not used"):format(dir))
  elseif said:find("not a git repository", 1, true) then
    return nil, error_.new("usage", ("\"%s\" is not in a git repository"):format(dir), { none = true,
      hint = "run it in a clone, or leave out --base" })
  end
  return nil, error_.new("io", "git can't read the repository: " .. first_line(said))
end

--- Takes "." and ".." out of an absolute path.
local function normal(path)
  local parts = {}
  for part in path:gmatch("[^/]+") do
    if part == ".." then
      parts[#parts] = nil
    elseif part ~= "." then
      parts[#parts + 1] = part
    end
  end
  return "/" .. table.concat(parts, "/")
end

--- Where the folders are in the repository: the path as written and, where links lead elsewhere, as it is.
--- Both, because a link put in a folder's place must not hide what was in the folder.
---@return { shown: string, path: string }[]? paths below the top folder, "" for itself
local function places(top, dir, folders)
  local list, known = {}, {}
  local start = fs.realpath(dir) or dir
  for _, folder in ipairs(folders) do
    local written = normal(text_util.join_path(start, folder))
    local found
    for _, path in ipairs { written, fs.realpath(written) or written } do
      local below = path == top and "" or path:sub(1, #top + 1) == top .. "/" and path:sub(#top + 2)
      if below then
        found = true
        if not known[below] then
          known[below] = true
          list[#list + 1] = { shown = folder, path = below }
        end
      end
    end
    if not found then
      return nil, error_.new("usage", ("the migrations folder \"%s\" is not in the repository \"%s\"")
        :format(folder, top))
    end
  end
  return list
end

---@class moonbird.policy.git_repository
---@field top string its top folder
---@field places { shown: string, path: string }[] the migration folders: as people know them, below `top`

--- Finds the repository of a folder.
---@param options { dir: string, folders?: string[] }
---@return moonbird.policy.git_repository?
---@return moonbird.error? err `none` is set outside a repository
function M.open(options)
  local top, err = top_of(options.dir)
  if not top then
    return nil, err
  end
  local list
  list, err = places(top, options.dir, options.folders or {})
  if not list then
    return nil, err
  end
  return { top = top, places = list }
end

-- Base --------------------------------------------------------------------------------------------------------

local function is_shallow(top)
  local result = git(top, "rev-parse", "--is-shallow-repository")
  return result and result.stdout:find("^true") ~= nil
end

local FETCH = "fetch the whole history (in GitHub Actions: `fetch-depth: 0` of actions/checkout; else "
  .. "`git fetch --unshallow`)"

--- The full names of the branches and tags that a short name could mean.
local function refs_named(top, name)
  local list = {}
  for _, prefix in ipairs { "refs/heads/", "refs/remotes/", "refs/tags/" } do
    local ref = prefix .. name
    local result = git(top, "show-ref", "--verify", "--quiet", "--", ref)
    if result and result.status == 0 then
      list[#list + 1] = ref
    end
  end
  return list
end

--- The commit of a branch, tag or commit as a person writes it.
---@param top string
---@param base string
---@return string? commit
---@return moonbird.error? err code "usage"
function M.resolve(top, base)
  if base == "" or base:sub(1, 1) == "-" or base:find("[%z\1-\32]") then
    return nil, error_.new("usage", ("\"%s\" is no name of a branch or commit"):format(base))
  end
  local refs = refs_named(top, base)
  if #refs > 1 then
    -- A pull request's branch may be called "origin/main".
    return nil, error_.new("usage", ("\"%s\" is the name of several things: %s"):format(base,
      table.concat(refs, ", ")), { hint = "write the one that is meant in full" })
  end
  local result, err = git(top, "rev-parse", "--verify", "--quiet", "--end-of-options", base .. "^{commit}")
  if not result then
    return nil, err
  end
  local commit = result.status == 0 and result.stdout:match("^(%x+)\n$")
  if commit then
    return commit
  end
  return nil, error_.new("usage", ("there is no branch or commit \"%s\" here"):format(base),
    { hint = is_shallow(top) and FETCH or ("is it fetched? `git fetch origin`, then name it as in `git branch -a`") })
end

--- Where a commit's history and HEAD's parted.
---@param top string
---@param commit string
---@param base string its name for people
---@return string? commit
---@return moonbird.error? err code "usage"
function M.merge_base(top, commit, base)
  local result, err = git(top, "merge-base", "HEAD", commit)
  if not result then
    return nil, err
  end
  local found = result.status == 0 and result.stdout:match("^(%x+)")
  if found then
    return found
  elseif is_shallow(top) then
    return nil, error_.new("usage", ("the clone is shallow: it does not reach back to where \"%s\" and HEAD parted")
      :format(base), { hint = FETCH })
  elseif result.status == 1 then
    return nil, error_.new("usage", ("\"%s\" and HEAD have no commit in common"):format(base))
  end
  return nil, error_.new("usage", "git finds no commit to compare with: " .. first_line(result.stderr),
    { hint = "is there a commit yet?" })
end

--- HEAD's commit.
---@param top string
---@return string? commit nil before the first one
---@return moonbird.error? err
function M.head(top)
  local result, err = git(top, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
  if not result then
    return nil, err
  end
  return result.status == 0 and result.stdout:match("^(%x+)") or nil
end

--- A ref's name for people.
---@param base string
---@return string
function M.short(base)
  return (base:gsub("^refs/remotes/", ""):gsub("^refs/heads/", ""))
end

--- The branch that others merge into: what origin/HEAD points to, else origin/main or origin/master; in a
--- repository that knows no branch of an origin, main or master. As a full name, which no branch of a pull
--- request can be taken for.
---@param options { dir: string }
---@return string? ref such as "refs/remotes/origin/main"; nil when there is none, or outside a repository
---@return moonbird.error? err when git could not say
function M.default_base(options)
  local top, err = top_of(options.dir)
  if not top then
    return nil, not err.none and err or nil
  end
  local head
  head, err = git(top, "symbolic-ref", "--quiet", "refs/remotes/origin/HEAD")
  if not head then
    return nil, err
  end
  local names = { head.status == 0 and head.stdout:match("^(refs/remotes/origin/[^\n]+)") or nil }
  for _, name in ipairs { "refs/remotes/origin/main", "refs/remotes/origin/master" } do
    names[#names + 1] = name
  end
  local remote
  remote, err = M.demand(top, "for-each-ref", "--count=1", "--format=%(refname)", "refs/remotes/origin/")
  if not remote then
    return nil, err
  elseif remote == "" then
    names[#names + 1] = "refs/heads/main"
    names[#names + 1] = "refs/heads/master"
  end
  for _, name in ipairs(names) do
    local result
    result, err = git(top, "rev-parse", "--verify", "--quiet", "--end-of-options", name .. "^{commit}")
    if not result then
      return nil, err
    elseif result.status == 0 then
      return name
    end
  end
end

return M
