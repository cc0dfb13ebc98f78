--- The examples of the documentation: finds them in a page, runs them in a throwaway project, compares.
--
-- In a page, in this order of appearance:
--   <!-- file: migrations/0001_x.sql -->     the fenced block after it is written to that file
--   <!-- project: NAME -->                   from here on: a new, empty project folder
--   ```console                               lines "$ COMMAND" are run by sh, what follows is their output
-- `$ cd DIR` holds for what comes after it. A line "..." stands for any lines. Output is stdout and stderr
-- together; a command that a kill ended prints "Killed". What differs from run to run (times, durations,
-- hashes, process numbers, hosts, versions of PostgreSQL, the folder) is masked before comparing.
--
-- tests/spec/docs_spec.lua runs the pages; `moonbird-lua docs/generate.lua --examples` writes the real
-- output into them.
local fs = require "moonbird.core.fs"
local process = require "moonbird.core.process"
local sys = require "moonbird.core.sys"

local M = {}

--- What readers see instead of the throwaway folder.
M.HOME = "/home/ada"

--- The pages with examples.
M.PAGES = {
  "README.md", "docs/guide/tour.md", "docs/guide/lua-migrations.md", "docs/guide/sql-migrations.md",
  "docs/guide/policies.md", "docs/guide/configuration.md", "docs/guide/tenants.md", "docs/guide/fleet.md",
  "docs/guide/data-migrations.md",
  "docs/reference/db.md", "docs/reference/journal.md",
}

local TIMEOUT_MS = 60000

-- Reading ------------------------------------------------------------------------------------------------

---@class docs.item
---@field kind "file"|"project"|"command"
---@field line integer line of the page where it stands
---@field path? string of a file
---@field text? string of a file
---@field command? string
---@field expected? string[] lines of output as the page has them
---@field first? integer line of the page where the output starts
---@field last? integer line where it ends (first - 1 when there is none)

local function split(text)
  local lines = {}
  for line in (text:gsub("\n$", "") .. "\n"):gmatch("([^\n]*)\n") do
    lines[#lines + 1] = line
  end
  return lines
end

local function read_console(items, lines, from, to)
  local item
  for i = from, to do
    local command = lines[i]:match("^%$ (.*)$")
    if command then
      item = { kind = "command", line = i, command = command, expected = {}, first = i + 1, last = i }
      items[#items + 1] = item
    else
      assert(item, "output without a command in line " .. i)
      item.expected[#item.expected + 1] = lines[i]
      item.last = i
    end
  end
end

--- The examples of a page.
---@param text string the page
---@return docs.item[]
function M.read(text)
  local lines, items, i = split(text), {}, 1
  local file
  while i <= #lines do
    local line = lines[i]
    file = line:match("^<!%-%- file: (%S+) %-%->$") or file
    local project = line:match("^<!%-%- project: (%S+) %-%->$")
    if project then
      items[#items + 1] = { kind = "project", line = i, path = project }
    end
    local fence, language = line:match("^(```+)(%w*)")
    if fence then
      local stop = i + 1
      while lines[stop] ~= fence do
        stop = stop + 1
        assert(lines[stop], "a block is not closed; it starts in line " .. i)
      end
      if file then
        items[#items + 1] = { kind = "file", line = i, path = file,
          text = table.concat(lines, "\n", i + 1, stop - 1) .. "\n" }
        file = nil
      elseif language == "console" then
        read_console(items, lines, i + 1, stop - 1)
      end
      i = stop
    end
    i = i + 1
  end
  return items
end

-- Masking ------------------------------------------------------------------------------------------------

--- A line without what differs from run to run.
---@param line string
---@return string
function M.mask(line)
  line = line:gsub("%s+$", "")
  line = line:gsub("%d%d%d%d%-%d%d%-%d%d[T ]%d%d:%d%d:%d%d[%.%d]*Z?( ?U?T?C?)", function(zone)
    return "<time>" .. (zone == " " and " " or "")
  end)
  line = line:gsub("%f[%w]%d%d%d%d%d%d%d%d%d%d%d%d%d%d%f[^%d]", "<version>")
  line = line:gsub("%f[%w]%x%x%x%x%x%x%x%x%x*%f[%W]", function(word)
    return (word:find("%d") or #word > 11) and "<hash>" or nil
  end)
  line = line:gsub("%f[%w]%d+m %d+s%f[%W]", "<took>"):gsub("%f[%w]%d+%.?%d*m?s%f[%W]", "<took>")
  line = line:gsub("pid %d+", "pid <n>"):gsub("backend %d+", "backend <n>")
  line = line:gsub("%f[%w][%w_]+@[%w][%w_.-]*", "<who>")
  line = line:gsub("on %S+ left off", "on <host> left off")
  line = line:gsub("PostgreSQL %d+%.?%d*", "PostgreSQL <n>")
  -- Columns are as wide as what was masked.
  return (line:gsub("(%S)  +", "%1  "))
end

--- Compares lines of output.
---@param expected string[] may hold "..." for any lines
---@param actual string[]
---@return boolean
function M.same(expected, actual)
  local function match(e, a)
    while expected[e] do
      if expected[e] == "..." then
        for skip = a, #actual + 1 do
          if match(e + 1, skip) then
            return true
          end
        end
        return false
      elseif not actual[a] or M.mask(expected[e]) ~= M.mask(actual[a]) then
        return false
      end
      e, a = e + 1, a + 1
    end
    return actual[a] == nil
  end
  return match(1, 1)
end

-- Running ------------------------------------------------------------------------------------------------

-- Nothing of whoever runs this may decide what an example prints.
local HIDDEN = { "DATABASE_URL", "MIGRATION_TIMEOUT_SECONDS", "NO_COLOR", "MOONBIRD_ENV", "MOONBIRD_FAILPOINT",
  "MOONBIRD_FAILPOINT_TRACE", "PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGPASSWORD", "PGSERVICE", "PGOPTIONS",
  "PGSSLMODE", "PGPASSFILE", "PGSERVICEFILE", "PGAPPNAME", "GITHUB_SHA", "CI_COMMIT_SHA", "BUILDKITE_COMMIT",
  "CIRCLE_SHA1", "GIT_COMMIT", "GITHUB_RUN_ID", "CI_PIPELINE_ID", "BUILDKITE_BUILD_ID", "CIRCLE_WORKFLOW_ID",
  "BUILD_TAG", "BUILD_ID", "CI", "GITHUB_STEP_SUMMARY", "GITHUB_BASE_REF", "GITHUB_ACTIONS", "GIT_DIR", "LUA_PATH" }

-- Commits of examples are Ada's, whatever the machine's own git is told.
local GIT = { GIT_CONFIG_GLOBAL = "/dev/null", GIT_CONFIG_NOSYSTEM = "1", GIT_AUTHOR_NAME = "Ada",
  GIT_AUTHOR_EMAIL = "ada@example.org", GIT_COMMITTER_NAME = "Ada", GIT_COMMITTER_EMAIL = "ada@example.org" }

---@class docs.runner
---@field root string throwaway folder that stands for M.HOME
---@field cwd string
---@field bin string path of the binary
local Runner = {}
Runner.__index = Runner

--- A runner whose projects are folders below `root`.
---@param root string an existing folder
---@param bin string the moonbird binary
---@return docs.runner
function M.runner(root, bin)
  return setmetatable({ root = root, cwd = root, bin = bin, projects = {} }, Runner)
end

local function sh(self, command)
  local env = { PATH = self.bin:match("^(.*)/[^/]*$") .. ":" .. (sys.getenv("PATH") or "") }
  for _, name in ipairs(HIDDEN) do
    env[name] = false
  end
  for name, value in pairs(GIT) do
    env[name] = value
  end
  local child <close> = assert(process.spawn {
    file = "/bin/sh", args = { "-c", "exec 2>&1; " .. command }, env = env, cwd = self.cwd,
  })
  local result = child:wait(TIMEOUT_MS)
  if not result then
    child:kill("KILL")
    child:wait()
    error(("%q did not end in %d s"):format(command, TIMEOUT_MS // 1000), 0)
  end
  return result
end

--- Does what an item says.
---@param item docs.item
---@return string[]|nil lines of output of a command
---@return integer? status
function Runner:run(item)
  if item.kind == "project" then
    self.cwd = self.root .. "/" .. item.path
    assert(fs.mkdir(self.cwd))
    self.projects[self.cwd] = true
    return nil
  elseif item.kind == "file" then
    local path = self.cwd .. "/" .. item.path
    assert(fs.mkdir((path:match("^(.*)/[^/]*$"))))
    assert(fs.write(path, item.text))
    return nil
  end
  local folder = item.command:match("^cd (%S+)$")
  if folder then
    self.cwd = assert(fs.realpath(self.cwd .. "/" .. folder))
    self.projects[self.cwd] = true
    return {}, 0
  end
  local result = sh(self, item.command)
  local text = result.stdout:gsub("\27%[[%d;]*[mK]", ""):gsub("\r", "")
  local at = 1
  while true do -- the folder's name has characters that are magic in patterns
    local first, last = text:find(self.root, at, true)
    if not first then
      break
    end
    text = text:sub(1, first - 1) .. M.HOME .. text:sub(last + 1)
    at = first + #M.HOME
  end
  -- Shells say it in their own words.
  local killed = result.signal == "KILL" or result.signal == "SIGKILL" or result.status == 137
  if killed then
    text = text:gsub("[^\n]*Killed[^\n]*\n$", "") .. "Killed\n"
  end
  return text == "" and {} or split(text), killed and 137 or result.status
end

--- Ends the servers that examples started.
function Runner:close()
  for folder in pairs(self.projects) do
    if fs.stat(folder .. "/.moonbird/pg") then
      self.cwd = folder
      sh(self, "moonbird cluster stop; moonbird cluster destroy --yes")
    end
  end
end

return M
