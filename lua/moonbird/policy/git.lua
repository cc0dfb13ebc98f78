--- What git knows of the migrations: what the base branch has, and what changed since this branch left it.
--
-- Files of the working tree are compared themselves, those git was not told of too. See git_repository.lua for
-- how git is run. Runs inside a task.
local error_ = require "moonbird.core.error"
local ledger = require "moonbird.policy.ledger"
local name_of = require "moonbird.migration.name"
local repository_of = require "moonbird.policy.git_repository"
local text_util = require "moonbird.util.text"

local M = {}

local demand, open, resolve, merge_base = repository_of.demand, repository_of.open, repository_of.resolve,
  repository_of.merge_base

M.default_base = repository_of.default_base
M.short = repository_of.short

-- Files -------------------------------------------------------------------------------------------------------

-- Whether a file in a folder of migrations is of interest: migrations, however named, and the ledger.
local function of_interest(name)
  return name == ledger.FILE or name_of.split(name) ~= nil or name:lower():match("^%d.*%.sql$") ~= nil
    or name:lower():match("^%d.*%.lua$") ~= nil
end

--- The path in the repository -> the file as shown to people; nil when it is not directly in a folder.
local function shown_of(repository, path)
  local parent, name = path:match("^(.*)/([^/]*)$")
  if not parent then
    parent, name = "", path
  end
  for _, place in ipairs(repository.places) do
    if place.path == parent then
      return text_util.join_path(place.shown, name), name
    end
  end
end

--- The files in the folders at a commit: shown -> name.
local function files_at(repository, commit)
  local set = {}
  for _, place in ipairs(repository.places) do
    local args = { "ls-tree", "-z", "--name-only", "--full-tree", commit }
    if place.path ~= "" then
      table.move({ "--", place.path .. "/" }, 1, 2, #args + 1, args)
    end
    local output, err = demand(repository.top, table.unpack(args))
    if not output then
      return nil, err
    end
    for path in output:gmatch("%Z+") do
      local shown, name = shown_of(repository, path)
      if shown and of_interest(name) then
        set[shown] = name
      end
    end
  end
  return set
end

local function pathspecs(repository)
  local list = { "--" }
  for _, place in ipairs(repository.places) do
    if place.path == "" then
      return {} -- all of the repository
    end
    list[#list + 1] = place.path
  end
  return list
end

local STATUS = { A = "added", D = "deleted", R = "renamed", C = "added", M = "modified", T = "modified",
  U = "modified" }

--- `git diff --raw -z` -> { status, path, from, hash, file (no link) }.
local function parse_raw(output)
  local fields, list, i = {}, {}, 1
  for field in output:gmatch("(%Z*)%z") do
    fields[#fields + 1] = field
  end
  while fields[i] do
    local before, after, hash, letter = fields[i]:match("^:(%d+) (%d+) (%x+) %x+ (%u)%d*$")
    if not hash then
      return nil, error_.new("io", "git diff answered something unexpected", { detail = fields[i] })
    elseif letter == "R" or letter == "C" then
      list[#list + 1] = { status = STATUS[letter], from = letter == "R" and fields[i + 1] or nil,
        path = fields[i + 2], hash = hash }
      i = i + 3
    else
      list[#list + 1] = { status = STATUS[letter] or "modified", path = fields[i + 1], hash = hash,
        file = letter == "M" and before:sub(1, 3) == "100" and after:sub(1, 3) == "100" }
      i = i + 2
    end
  end
  return list
end

local function untracked(repository)
  local output, err = demand(repository.top, "ls-files", "-z", "--others", table.unpack(pathspecs(repository)))
  if not output then
    return nil, err
  end
  local list = {}
  for path in output:gmatch("%Z+") do
    local shown, name = shown_of(repository, path)
    if shown and of_interest(name) then
      list[#list + 1] = path
    end
  end
  return list
end

--- What git would call the content of files of the working tree: path -> hash.
local function hashes_of(repository, paths)
  local hashes = {}
  for from = 1, #paths, 500 do
    local args = { "hash-object", "--" }
    table.move(paths, from, math.min(from + 499, #paths), 3, args)
    local output, err = demand(repository.top, table.unpack(args))
    if not output then
      return nil, err
    end
    local i = from
    for hash in output:gmatch("%x+") do
      hashes[paths[i]] = hash
      i = i + 1
    end
  end
  return hashes
end

--- Takes out what only looks changed: a file that was touched, or may be executed now. Git itself would note that
-- in its index, and nothing is written here.
local function drop_untouched(repository, list)
  local paths, kept = {}, {}
  for _, item in ipairs(list) do
    if item.file and shown_of(repository, item.path) then
      paths[#paths + 1] = item.path
    end
  end
  local hashes, err = hashes_of(repository, paths)
  if not hashes then
    return nil, err
  end
  for _, item in ipairs(list) do
    if hashes[item.path] ~= item.hash or not item.file then
      kept[#kept + 1] = item
    end
  end
  return kept
end

--- Finds files that were moved without telling git: a deleted one whose content is in an untracked one.
local function pair_moved(repository, list, paths)
  local deleted, moved = {}, {}
  for _, item in ipairs(list) do
    if item.status == "deleted" then
      deleted[item.hash] = item
    end
  end
  local hashes, err = hashes_of(repository, next(deleted) and paths or {})
  if not hashes then
    return nil, err
  end
  for _, path in ipairs(paths) do
    local item = hashes[path] and deleted[hashes[path]]
    if item then
      item.status, item.from, item.path = "renamed", item.path, path
      deleted[hashes[path]], moved[path] = nil, true
    end
  end
  return moved
end

--- What changed from a commit to the working tree.
local function changes_since(repository, commit)
  local args = { "diff", "--raw", "-z", "-M", "--no-abbrev", "--no-color", "-O/dev/null", "--no-ext-diff",
    "--no-textconv", "--ignore-submodules=all", commit }
  local specs = pathspecs(repository)
  table.move(specs, 1, #specs, #args + 1, args)
  local output, err = demand(repository.top, table.unpack(args))
  if not output then
    return nil, err
  end
  local list, paths, moved
  list, err = parse_raw(output)
  if not list then
    return nil, err
  end
  list, err = drop_untouched(repository, list)
  if not list then
    return nil, err
  end
  paths, err = untracked(repository)
  if not paths then
    return nil, err
  end
  moved, err = pair_moved(repository, list, paths)
  if not moved then
    return nil, err
  end
  for _, path in ipairs(paths) do
    if not moved[path] then
      list[#list + 1] = { status = "added", path = path }
    end
  end
  return list
end

--- Git's paths -> files as shown, what is of no interest left out, in order, each file once.
local function as_shown(repository, list)
  local changes, seen = {}, {}
  for _, item in ipairs(list) do
    local file, name = shown_of(repository, item.path)
    local from, from_name
    if item.from then
      from, from_name = shown_of(repository, item.from)
    end
    local status = item.status
    if status == "renamed" and not from then
      status = "added" -- it came from elsewhere
    elseif status == "renamed" and not file then
      file, name = item.path, from_name -- it left for elsewhere
    end
    local key = status .. "\0" .. (file or "")
    if file and not seen[key] and (of_interest(name) or (from_name and of_interest(from_name))) then
      seen[key] = true
      changes[#changes + 1] = { status = status, file = file, from = status == "renamed" and from or nil }
    end
  end
  table.sort(changes, function(a, b)
    if a.file ~= b.file then
      return a.file < b.file
    end
    return a.status < b.status
  end)
  return changes
end

local function versions_of(files)
  local list = {}
  for file, name in pairs(files) do
    local digits, rest = name_of.split(name)
    if digits then
      list[#list + 1] = { version = math.tointeger(tonumber(digits)), version_text = digits, file = file,
        name = rest }
    end
  end
  table.sort(list, function(a, b)
    if a.version ~= b.version then
      return a.version < b.version
    end
    return a.file < b.file
  end)
  return list
end

---@class moonbird.policy.git
---@field base string for people: "origin/main"
---@field merge_base string the commit where this branch left it
---@field base_versions { version: integer, version_text: string, file: string, name: string }[] on the base's tip
---@field merged table<string, true> files at the merge base
---@field changes { status: "modified"|"deleted"|"renamed"|"added", file: string, from?: string }[] from the merge
---       base to the working tree
---@field ledger_in_base boolean

--- Compares the migrations with a base branch.
---@param options { dir: string, folders: string[], base: string }
---@return moonbird.policy.git? facts
---@return moonbird.error? err code "usage" or "io"
function M.read(options)
  local repository, err = open(options)
  if not repository then
    return nil, err
  end
  local facts = { base = M.short(options.base) }
  local tip, tip_files, merged, changes
  tip, err = resolve(repository.top, options.base)
  if not tip then
    return nil, err
  end
  facts.merge_base, err = merge_base(repository.top, tip, facts.base)
  if not facts.merge_base then
    return nil, err
  end
  tip_files, err = files_at(repository, tip)
  if not tip_files then
    return nil, err
  end
  merged, err = files_at(repository, facts.merge_base)
  if not merged then
    return nil, err
  end
  changes, err = changes_since(repository, facts.merge_base)
  if not changes then
    return nil, err
  end
  facts.base_versions = versions_of(tip_files)
  facts.merged, facts.ledger_in_base = {}, false
  for file, name in pairs(merged) do
    if name == ledger.FILE then
      facts.ledger_in_base = true
    else
      facts.merged[file] = true
    end
  end
  facts.changes = as_shown(repository, changes)
  return facts
end

---@class moonbird.policy.git_files
---@field files table<string, "merged"|"committed"> the migrations of HEAD and of the base branch. "merged": the base
---       branch has it, or had it when this branch left it. Without a base nothing is known to be merged.
---@field base? string the base, as git.default_base gives it
---@field versions string[] the base's versions, as text
---@field tracked table<string, true> files that git knows of in the working tree

--- Which files are committed, and which of them others have already.
---@param options { dir: string, folders: string[], base?: string } base: default git.default_base's
---@return moonbird.policy.git_files? nil outside a repository, or with an error
---@return moonbird.error? err
function M.head_files(options)
  local repository, err = open(options)
  if not repository then
    return nil, not err.none and err or nil
  end
  local result = { files = {}, versions = {}, tracked = {} }
  result.base, err = options.base, nil
  if not result.base then
    result.base, err = M.default_base(options)
  end
  if err then
    return nil, err
  end
  local commits = {}
  local head_commit
  head_commit, err = repository_of.head(repository.top)
  if err then
    return nil, err
  end
  if head_commit then
    commits[#commits + 1] = { head_commit, "committed" }
  end
  if result.base then
    local tip
    tip, err = resolve(repository.top, result.base)
    if not tip then
      return nil, err
    end
    commits[#commits + 1] = { tip, "merged", tip = true }
    local parted = head_commit and merge_base(repository.top, tip, result.base)
    if parted and parted ~= tip then -- in a shallow clone there may be none; the tip says most
      commits[#commits + 1] = { parted, "merged" }
    end
  end
  for _, commit in ipairs(commits) do
    local at, failure = files_at(repository, commit[1])
    if not at then
      return nil, failure
    end
    for file, name in pairs(at) do
      result.files[file] = commit[2]
      local digits = commit.tip and name_of.split(name)
      if digits then
        result.versions[#result.versions + 1] = digits
      end
    end
  end
  local output
  output, err = demand(repository.top, "ls-files", "-z", "--cached", table.unpack(pathspecs(repository)))
  if not output then
    return nil, err
  end
  for path in output:gmatch("%Z+") do
    local shown = shown_of(repository, path)
    if shown then
      result.tracked[shown] = true
    end
  end
  table.sort(result.versions)
  return result
end

return M
