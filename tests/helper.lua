--- What the specs share: tasks in busted's blocks, folders, databases, the real binary, an audit of leaks.
--
-- Loaded by `busted --helper=tests.helper` (see .busted), before the spec files, so that all files of a
-- process use one copy of it and one throwaway cluster. Whatever is made here has an owner: the test that
-- made it (the default; made in before_each counts too), or with `scope = "file"` the spec file. At the
-- owner's end it is released in reverse order. After each file the audit fails the run when a connection,
-- a child process, the current folder or the environment is not as it was.
--
-- Environment: MOONBIRD_BIN (the binary to test; default: next to the interpreter), MOONBIRD_PG_BIN
-- (server programs), MOONBIRD_TEST_FULL=1 (long matrices), MOONBIRD_TEST_GC=1 (collect garbage all the
-- time), MOONBIRD_TEST_KEEP=1 (leave temporary folders and databases), MOONBIRD_TEST_TIMES (a file that gets a
-- line with the seconds of each spec file).
local cluster = require "moonbird.core.cluster"
local error_ = require "moonbird.core.error"
local fs = require "moonbird.core.fs"
local process = require "moonbird.core.process"
local session = require "moonbird.core.session"
local sys = require "moonbird.core.sys"
local task = require "moonbird.core.task"

local M = {}

--- Whether the long variants of the tests were asked for (`tests/run --full`).
M.full = sys.getenv("MOONBIRD_TEST_FULL") == "1"

local KEEP = sys.getenv("MOONBIRD_TEST_KEEP") == "1"
local BIN = sys.getenv("MOONBIRD_BIN")

if sys.getenv("MOONBIRD_TEST_GC") == "1" then
  -- A cycle begins as soon as one has ended, and each step does a lot of it.
  collectgarbage("incremental", 1, 1000, 4)
end

-- Tasks ------------------------------------------------------------------------------------------------

--- Runs `fn` as a task until it has ended; other tasks that it starts run meanwhile. Raises what it raises.
---@param fn function
---@param ... any
---@return any ...
function M.run(fn, ...)
  local args = table.pack(...)
  local result
  local _, err = task.run(function()
    -- Not task.run's own handler: it would turn busted's failure objects into engine errors.
    result = table.pack(xpcall(fn, function(raised)
      if type(raised) == "string" then
        return debug.traceback(raised, 2)
      end
      return raised
    end, table.unpack(args, 1, args.n)))
  end)
  if not result then
    error(err, 0)
  elseif not result[1] then
    error(result[2], 0)
  end
  return table.unpack(result, 2, result.n)
end

--- For busted's it, before_each, after_each, setup and teardown: a function that runs `fn` as a task, so
--- that it may wait (queries, processes, sleeps).
---@param fn function
---@return function
function M.async(fn)
  return function(...)
    return M.run(fn, ...)
  end
end

--- Waits until `fn` gives something true; fails the test when that does not happen.
---@param what string for the failure: "the lock is held"
---@param fn fun(): any, any what is waited for, and what there is instead, for the failure
---@param seconds? number default 20
---@return any what fn gave
function M.eventually(what, fn, seconds)
  local deadline = sys.monotonic() + (seconds or 20)
  while true do
    local got, instead = fn()
    if got then
      return got
    elseif sys.monotonic() > deadline then
      error(("it did not happen in %g s: %s%s"):format(seconds or 20, what,
        instead ~= nil and " (but: " .. tostring(instead) .. ")" or ""), 2)
    end
    task.sleep(10)
  end
end

-- Owners -----------------------------------------------------------------------------------------------

local owned = { test = {}, file = {} }

--- Registers what is to be called (in a task) at the end of the test or of the file.
---@param release fun()
---@param options? { scope?: "test"|"file" }
function M.defer(release, options)
  local list = assert(owned[options and options.scope or "test"], "scope is \"test\" or \"file\"")
  list[#list + 1] = release
end

local function release_all(scope)
  local list = owned[scope]
  owned[scope] = {}
  if #list == 0 then
    return nil
  end
  local first
  M.run(function()
    for i = #list, 1, -1 do
      local ok, err = pcall(list[i])
      first = first or (not ok and err) or nil
    end
  end)
  return first
end

-- Folders ----------------------------------------------------------------------------------------------

--- A new folder that any user may enter (as root the server runs as somebody else).
---@param options? { scope?: "test"|"file" }
---@return string path
function M.tmpdir(options)
  local base = sys.getenv("MOONBIRD_TEST_TMP") or "/tmp"
  local dir = fs.realpath(assert(fs.tempdir(base .. "/moonbird-test-")))
  assert(fs.chmod(dir, 493)) -- 0755
  if not KEEP then
    M.defer(function()
      fs.remove_tree(dir)
    end, options)
  end
  return dir
end

--- A project folder with these files.
---@param files table<string, string> path below the project (such as "migrations/001_a.sql") -> text
---@param options? { scope?: "test"|"file" }
---@return string path
function M.project(files, options)
  local dir = M.tmpdir(options)
  assert(fs.mkdir(dir .. "/migrations"))
  M.write(dir, files)
  return dir
end

--- Writes files below a folder, with the folders they need.
---@param dir string
---@param files table<string, string> path below `dir` -> text
function M.write(dir, files)
  for path, text in pairs(files) do
    local parent = path:match("^(.*)/[^/]*$")
    if parent then
      assert(fs.mkdir(dir .. "/" .. parent))
    end
    assert(fs.write(dir .. "/" .. path, text))
  end
end

-- Databases --------------------------------------------------------------------------------------------

local shared, admin
local numbers = 0

--- The throwaway cluster that all tests of this process share (fsync off). Do not stop it: a test that
--- stops or kills a server opens one of its own, `cluster.open { temp = true }`.
---@return moonbird.cluster cluster with params (libpq keywords), url, socket_dir, port
function M.cluster()
  if not shared then
    shared = assert(cluster.open { temp = true })
  end
  return shared
end

local function admin_session()
  if not admin then
    admin = assert(session.open(M.cluster().params, { application_name = "moonbird-tests" }))
  end
  return admin
end

-- One statement of the helper's own session. Tasks that run side by side take turns.
local admin_busy = false
local function administer(sql)
  while admin_busy do
    task.sleep(2)
  end
  admin_busy = true
  local ok, result, err = pcall(function()
    return admin_session():query(sql)
  end)
  admin_busy = false
  if not ok then
    error(result, 0)
  end
  return result, err
end

---@class tests.database
---@field name string
---@field params table<string, string> libpq keywords
---@field url string for `moonbird -u`
local Database = {}
Database.__index = Database

-- Fails with the server's message, position and all.
local function demand(result, err, sql)
  if err then
    error(("%s [%s]\n%s"):format(error_.is(err) and err.message or tostring(err), err.sqlstate or err.code, sql), 3)
  end
  return result
end

--- The database's own session of the test; opened at its first use.
---@return moonbird.session
function Database:session()
  if not self.own then
    self.own = assert(session.open(self.params, { application_name = "moonbird-tests" }))
  end
  return self.own
end

--- One more session, closed at the test's end. Several make a test of locks.
---@param options? table as of session.open
---@return moonbird.session
function Database:connect(options)
  local made = assert(session.open(self.params, options or { application_name = "moonbird-tests" }))
  self.sessions[#self.sessions + 1] = made
  return made
end

--- Rows of one statement, parameters bound.
---@param sql string
---@param ... any parameters ($1, ...)
---@return table[] rows by column name
function Database:query(sql, ...)
  local result, err = self:session():query(sql, { ... }, select("#", ...))
  demand(result, err, sql)
  local rows = result:rows()
  result:close()
  return rows
end

--- The first column of the first row, or nil.
---@param sql string
---@param ... any parameters
---@return any
function Database:value(sql, ...)
  local result, err = self:session():query(sql, { ... }, select("#", ...))
  demand(result, err, sql)
  local value = result:value(1, 1)
  result:close()
  return value
end

--- The first column of all rows.
---@param sql string
---@param ... any parameters
---@return any[]
function Database:values(sql, ...)
  local result, err = self:session():query(sql, { ... }, select("#", ...))
  demand(result, err, sql)
  local list = {}
  for i = 1, result:count() do
    list[i] = result:value(i, 1)
  end
  result:close()
  return list
end

--- Runs one or many statements without parameters.
---@param sql string
function Database:exec(sql)
  local results, err = self:session():simple(sql)
  demand(results, err, sql)
end

--- Closes the sessions that tests opened. The database stays.
function Database:disconnect()
  if self.own then
    self.own:close()
    self.own = nil
  end
  for _, one in ipairs(self.sessions) do
    one:close()
  end
  self.sessions = {}
end

--- Disconnects and drops the database, with whoever is connected to it.
function Database:drop()
  self:disconnect()
  local _, err = administer(('drop database if exists "%s" with (force)'):format(self.name))
  demand(nil, err, "drop database")
end

--- A fresh database on the shared cluster.
---@param options? { scope?: "test"|"file", template?: tests.database }
---@return tests.database
function M.database(options)
  numbers = numbers + 1
  local name = ("t%d_%d"):format(numbers, sys.pid())
  local sql = ('create database "%s"'):format(name)
  if options and options.template then
    options.template:disconnect()
    sql = sql .. (' template "%s"'):format(options.template.name)
  end
  local _, err = administer(sql)
  demand(nil, err, sql)
  local params = {}
  for k, v in pairs(M.cluster().params) do
    params[k] = v
  end
  params.dbname = name
  local self = setmetatable({
    name = name,
    params = params,
    url = M.cluster().url:gsub("/[^/?]*%?", "/" .. name .. "?"),
    sessions = {},
  }, Database)
  M.defer(function()
    if KEEP then
      self:disconnect()
    else
      self:drop()
    end
  end, options)
  return self
end

-- The binary -------------------------------------------------------------------------------------------

--- The binary under test.
---@return string path
function M.bin()
  return BIN or (fs.realpath("/proc/self/exe"):gsub("[^/]*$", "moonbird"))
end

-- Nothing of the tester's own surroundings may decide a test.
local HIDDEN = { "DATABASE_URL", "MIGRATION_TIMEOUT_SECONDS", "NO_COLOR", "MOONBIRD_FAILPOINT",
  "MOONBIRD_FAILPOINT_TRACE", "PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGPASSWORD", "PGSERVICE",
  "PGOPTIONS", "PGSSLMODE", "PGPASSFILE", "PGSERVICEFILE", "PGAPPNAME" }

local function child_spec(args, options)
  local env = {}
  for _, name in ipairs(HIDDEN) do
    env[name] = false
  end
  for name, value in pairs(options.env or {}) do
    env[name] = value
  end
  local all = {}
  if options.db then
    all = { "-u", options.db.url }
  end
  for _, arg in ipairs(args) do
    all[#all + 1] = arg
  end
  return {
    file = options.bin or M.bin(), args = all, env = env, cwd = options.cwd, stdin = options.stdin,
    detached = options.detached,
  }
end

--- Runs the real binary to its end.
---@param args string[]
---@param options? table cwd; env (name -> value, or false to take it away); stdin (text); timeout (seconds,
---  default 60: then it is killed and the test fails); db (a tests.database: adds -u URL); bin
---@return table result { status, signal, stdout, stderr }
function M.moonbird(args, options)
  options = options or {}
  local child <close> = assert(process.spawn(child_spec(args, options)))
  local seconds = options.timeout or 60
  local result, err = child:wait(math.tointeger(seconds * 1000 // 1))
  if result == false then
    child:kill("KILL")
    result = child:wait()
    error(("moonbird %s did not end in %g s\nstdout: %s\nstderr: %s"):format(table.concat(args, " "), seconds,
      result and result.stdout, result and result.stderr), 2)
  elseif not result then
    error(err, 0)
  end
  if result.stderr:find("Sanitizer", 1, true) or result.stderr:find("runtime error:", 1, true) then
    error("moonbird " .. table.concat(args, " ") .. ": " .. result.stderr, 2)
  end
  return result
end

--- As moonbird(), and fails the test with all the output unless the exit status is 0.
---@param args string[]
---@param options? table as of moonbird(); status (expected instead of 0)
---@return table result
function M.ok(args, options)
  local result = M.moonbird(args, options)
  local wanted = options and options.status or 0
  if result.status ~= wanted then
    error(("moonbird %s: status %s (%s), expected %d\nstdout: %s\nstderr: %s"):format(table.concat(args, " "),
      result.status, result.signal or "no signal", wanted, result.stdout, result.stderr), 2)
  end
  return result
end

--- Starts the real binary and goes on. It is killed at the test's end if it still runs.
---@param args string[]
---@param options? table as of moonbird()
---@return userdata child pid(), kill([signal]), wait([ms]) -> result or false, close_stdin()
function M.spawn(args, options)
  local child = assert(process.spawn(child_spec(args, options or {})))
  M.defer(function()
    child:close()
  end)
  return child
end

-- Audit ------------------------------------------------------------------------------------------------

local before, began

local function note_time(file)
  local path = sys.getenv("MOONBIRD_TEST_TIMES")
  if path then
    local log <close> = assert(io.open(path, "a"))
    assert(log:write(("%7.1f %s\n"):format(sys.monotonic() - began, file)))
  end
end

local function children()
  local list = {}
  for pid in (fs.read(("/proc/self/task/%d/children"):format(sys.pid())) or ""):gmatch("%d+") do
    list[pid] = (fs.read("/proc/" .. pid .. "/cmdline") or ""):gsub("%z", " ")
  end
  return list
end

local function take_stock()
  return { cwd = fs.cwd(), env = sys.environ(), children = children() }
end

--- Connections to the shared cluster that are not ours to keep.
local function strangers()
  local result = assert(administer([[
    select coalesce(string_agg(format('%s: %s (%s)', datname, application_name, state), ', '), '')
    from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()]]))
  local text = result:value(1, 1)
  result:close()
  return text
end

local function audit()
  local problems = {}
  if fs.cwd() ~= before.cwd then
    problems[#problems + 1] = "the current folder was changed to " .. tostring(fs.cwd())
    fs.chdir(before.cwd)
  end
  local env = sys.environ()
  for name, value in pairs(before.env) do
    if env[name] ~= value then
      problems[#problems + 1] = ("the environment's %s was changed"):format(name)
      sys.setenv(name, value)
    end
  end
  for name in pairs(env) do
    if before.env[name] == nil then
      problems[#problems + 1] = ("%s was left in the environment"):format(name)
      sys.setenv(name, nil)
    end
  end
  -- What nobody refers to any more is closed by its finalizer, which is no leak.
  collectgarbage()
  collectgarbage()
  M.run(function()
    if admin then
      local left
      for _ = 1, 100 do
        left = strangers()
        if left == "" then
          break
        end
        task.sleep(50)
      end
      if left ~= "" then
        problems[#problems + 1] = "connections were left open: " .. left
      end
    end
    local left
    for _ = 1, 100 do
      left = nil
      for pid, command in pairs(children()) do
        if not before.children[pid] and not (shared and command:find(shared.dir, 1, true)) then
          left = ("process %s was left: %s"):format(pid, command:sub(1, 200))
        end
      end
      if not left then
        break
      end
      task.sleep(50)
    end
    problems[#problems + 1] = left
  end)
  return problems
end

-- Subscribing needs busted; tests/layering.lua and the like load this file without it.
local ok, busted = pcall(require, "busted")
if ok and busted.subscribe then
  busted.subscribe({ "file", "start" }, function()
    before, began = take_stock(), sys.monotonic()
    return nil, true
  end)
  busted.subscribe({ "test", "end" }, function()
    local err = release_all("test")
    if err then
      error(err, 0)
    end
    return nil, true
  end)
  busted.subscribe({ "file", "end" }, function(file)
    local err = release_all("test") or release_all("file")
    local problems = audit()
    note_time(file.name)
    if err or #problems > 0 then
      error(err or "leak audit: " .. table.concat(problems, "; "), 0)
    end
    return nil, true
  end)
end

return M
