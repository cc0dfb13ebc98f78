--- Finds PostgreSQL's server programs on this machine.
--
-- A folder counts only if initdb, pg_ctl and postgres are all in it. MOONBIRD_PG_BIN, when set, is the
-- only place looked at; else pg_config's folder, the folders of PATH, /usr/lib/postgresql/*/bin.
local error_ = require "moonbird.core.error"
local fs = require "moonbird.core.fs"
local server = require "moonbird.core.cluster_server"
local sys = require "moonbird.core.sys"

local M = {}

local PROGRAMS = { "initdb", "pg_ctl", "postgres" }
local DEBIAN = "/usr/lib/postgresql"

---@class moonbird.binaries
---@field bin string folder
---@field version string "15.18"
---@field major integer
---@field initdb string path
---@field pg_ctl string path
---@field postgres string path

--- Name of the first server program that a folder lacks, or nil.
local function lacks(dir)
  for _, name in ipairs(PROGRAMS) do
    local path = dir .. "/" .. name
    local st = fs.stat(path)
    if not (st and st.type == "file" and fs.access(path, "x")) then
      return name
    end
  end
end

local known = {} -- folder -> binaries; programs do not change while a run lasts

--- Asks the server program for its version.
local function examine(dir)
  if known[dir] then
    return known[dir]
  end
  local postgres = dir .. "/postgres"
  local result, err = server.run_briefly { file = postgres, args = { "-V" } }
  if not result then
    return nil, error_.new("cluster", err.message, { cause = err, hint = "MOONBIRD_PG_BIN names another folder" })
  end
  local major, minor = result.stdout:match("PostgreSQL%) (%d+)%.?(%d*)")
  if not major then
    local said = (result.stderr .. result.stdout):match("[^\n]+") or "nothing"
    return nil,
      error_.new("cluster", ('"%s -V" did not tell a version: %s'):format(postgres, said), {
        hint = "the installation is broken (a missing library?); name another folder in MOONBIRD_PG_BIN",
      })
  end
  known[dir] = {
    bin = dir,
    version = minor ~= "" and major .. "." .. minor or result.stdout:match("%) (%S+)"),
    major = math.tointeger(tonumber(major)),
    initdb = dir .. "/initdb",
    pg_ctl = dir .. "/pg_ctl",
    postgres = postgres,
  }
  return known[dir]
end

local function path_folders()
  local dirs = {}
  for dir in (sys.getenv("PATH") or ""):gmatch("[^:]+") do
    if dir:sub(1, 1) == "/" then
      dirs[#dirs + 1] = dir
    end
  end
  return dirs
end

--- The folder that the pg_config of PATH names, or nil.
local function pg_config_folder()
  for _, dir in ipairs(path_folders()) do
    if fs.access(dir .. "/pg_config", "x") then
      local result = server.run_briefly { file = dir .. "/pg_config", args = { "--bindir" } }
      return result and result.status == 0 and result.stdout:match("^(/[^\n]*)") or nil
    end
  end
end

--- Debian's versioned folders, the highest version first.
local function debian_folders()
  local dirs = {}
  for _, entry in ipairs(fs.list(DEBIAN) or {}) do
    local major = tonumber(entry.name)
    if major then
      dirs[#dirs + 1] = { major = major, bin = ("%s/%s/bin"):format(DEBIAN, entry.name) }
    end
  end
  table.sort(dirs, function(a, b)
    return a.major > b.major
  end)
  for i, dir in ipairs(dirs) do
    dirs[i] = dir.bin
  end
  return dirs
end

--- Complete folders in order of preference, each once.
local function candidates()
  local list, seen = {}, {}
  local function add(dir)
    if dir and not seen[dir] and not lacks(dir) then
      seen[dir] = true
      list[#list + 1] = dir
    end
  end
  add(pg_config_folder())
  for _, dir in ipairs(path_folders()) do
    add(dir)
  end
  for _, dir in ipairs(debian_folders()) do
    add(dir)
  end
  return list
end

local function missing()
  return error_.new("cluster", "PostgreSQL's programs initdb, pg_ctl and postgres were not found", {
    hint = "install them (Debian, Ubuntu: `apt-get install postgresql`), or name their folder in MOONBIRD_PG_BIN",
  })
end

--- Finds the server programs; waits, so only inside a task.
---@param major? integer prefer this major version; the best other one is returned when there is none
---@return moonbird.binaries|nil
---@return moonbird.error? err code "cluster"
function M.find(major)
  local told = sys.getenv("MOONBIRD_PG_BIN")
  if told and told ~= "" then
    local lacking = lacks(told)
    if lacking then
      return nil,
        error_.new("cluster", ('MOONBIRD_PG_BIN names "%s", where there is no program "%s"'):format(told, lacking), {
          hint = "it must be the folder with initdb, pg_ctl and postgres, such as /usr/lib/postgresql/15/bin",
        })
    end
    return examine(fs.realpath(told))
  end
  local best, why
  for _, dir in ipairs(candidates()) do
    local found, err = examine(dir)
    if found and (not major or found.major == major) then
      return found
    end
    best, why = best or found, why or err
  end
  if best then
    return best
  end
  return nil, why or missing()
end

return M
