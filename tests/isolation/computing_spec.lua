--- Lua that computes without ever waiting lets no event loop turn; a signal ends it all the same.
-- The same on every server.
local fs = require "moonbird.core.fs"
local helper = require "tests.helper"

local async = helper.async

-- From the signal to the exit, in milliseconds: 2 s are promised, sanitizers are slower.
local PROMISED = 4000

-- Of the process, in hundredths of a second: the start needs less, so what computes after it is the script.
local BUSY = 250

local HEAD = 'description = "It computes for ever.", irreversible = "a test",'

--- CPU time a process has used in user mode, in hundredths of a second.
local function used(pid)
  local stat = fs.read(("/proc/%d/stat"):format(pid)) or ""
  return tonumber(stat:match("%) %S+ %S+ %S+ %S+ %S+ %S+ %S+ %S+ %S+ %S+ %S+ (%d+)")) or 0
end

--- Signals the program when it has computed for a while -> its result.
local function stop(args, options)
  local child = helper.spawn(args, options)
  helper.eventually("the script computes", function()
    return used(child:pid()) > BUSY
  end, 30)
  child:kill(options.signal or "TERM")
  local result = child:wait(PROMISED)
  assert.is_truthy(result, "it goes on")
  assert.are.equal(130, result.status, result.stdout .. result.stderr)
  assert.is_truthy(result.stderr:find("interrupted", 1, true), result.stderr)
  return result
end

--- As many as it takes until the limits of each have let it compute long enough.
local function migrations(text)
  local files = {}
  for n = 1, 60 do
    files[("migrations/%03d_one.%s"):format(n, text:find("^%-%-") and "sql" or "lua")] = text
  end
  return files
end

describe("Lua that computes for ever is ended by a signal", function()
  it("in a migration, which is rolled back", async(function()
    local db = helper.database()
    local dir = helper.project { ["migrations/001_loop.lua"] = "return { " .. HEAD .. [[
      up = function(db) db:exec("create table made (i int)") while true do end end }]] }
    stop({ "up" }, { db = db, cwd = dir })
    assert.is_false(db:value "select exists (select from pg_class where relname = 'made')")
    assert.are.equal(0, db:value "select count(*) from pg_stat_activity where application_name like 'moonbird/%'")
  end))

  it("in a migration that catches every error, by SIGINT", async(function()
    local dir = helper.project { ["migrations/001_loop.lua"] = "return { " .. HEAD .. [[
      up = function() while true do pcall(function() while true do end end) end end }]] }
    stop({ "up" }, { db = helper.database(), cwd = dir, signal = "INT" })
  end))

  it("while a file is loaded, and not as a mistake in it", async(function()
    local dir = helper.project (migrations "while true do end")
    local result = stop({ "check" }, { cwd = dir })
    assert.is_nil(result.stdout:find("errors? in", 1), result.stdout)
  end))

  it("in a rule, and not as a finding", async(function()
    local files = migrations "-- migrate:up\nselect 1;\n-- migrate:down\nselect 1;\n"
    files["policies/loop.lua"] = 'return { { id = "loop", check = function() while true do end end } }'
    local dir = helper.project(files)
    local result = stop({ "check" }, { cwd = dir })
    assert.is_nil(result.stdout:find('"loop" failed', 1, true), result.stdout)
  end))
end)
