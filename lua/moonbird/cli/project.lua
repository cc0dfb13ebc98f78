--- What commands share: the configuration, the registry, the database of this invocation.
local bootstrap = require "moonbird.exec.bootstrap"
local config = require "moonbird.config.config"
local error_ = require "moonbird.core.error"
local fingerprint = require "moonbird.core.fingerprint"
local fs = require "moonbird.core.fs"
local run = require "moonbird.exec.run"
local session = require "moonbird.core.session"
local target = require "moonbird.exec.target"
local task = require "moonbird.core.task"
local text = require "moonbird.util.text"
local without_tenants = require "moonbird.cli.without_tenants"

local M = {}

local CLUSTER_DIR = ".moonbird/pg"

--- Said where there is nothing to show or do because nothing was written yet.
M.NO_MIGRATIONS = "there are no migrations yet: `moonbird new NAME` writes one"

--- Goes where -C DIR says, once.
---@param args table
---@return true|nil
---@return moonbird.error? err
function M.enter(args)
  if args.dir then
    local ok, message = fs.chdir(args.dir)
    if not ok then
      return nil, error_.new("usage", ("cannot enter \"%s\": %s"):format(args.dir, message))
    end
    args.entered, args.dir = args.dir, nil
  end
  return true
end

-- Loaded when moonbird.lua has the section only.
local SECTIONS = {
  backfill = function()
    return require("moonbird.migration.backfill").options
  end,
}

--- Loads the configuration for the flags given; goes where -C DIR says. Flags about tenants are refused where there
--- are none.
---@param args table
---@return moonbird.config|nil
---@return moonbird.error? err
function M.config(args)
  local ok, err = M.enter(args)
  if not ok then
    return nil, err
  end
  local conf
  conf, err = config.load {
    environment = args.env,
    url = args.url,
    flags = { timeouts = {
      lock = args.lock_timeout, statement = args.statement_timeout, lock_wait = args.lock_wait,
      run = args.command ~= "wait" and args.timeout or nil,
    } },
    sections = SECTIONS,
  }
  err = err or without_tenants.refusal(conf, args)
  return not err and conf or nil, err
end

--- Scans the migration folders; names and duplicates are checked, files are read, none is parsed.
---@param conf moonbird.config
---@return table[]|nil entries
---@return moonbird.error? err
function M.entries(conf)
  local registry = require "moonbird.migration.registry"
  local entries, problems = registry.scan(conf.migrations, { root = conf.dir })
  if not entries then
    return nil, problems
  elseif #problems > 0 then
    -- What is wrong inside the files is listed with it: one run tells all.
    local _, err = registry.load_all(entries, nil, problems)
    return nil, err
  end
  return entries
end

--- The folder of the embedded cluster.
---@param conf moonbird.config
---@return string
function M.cluster_dir(conf)
  return conf.url.dir or text.join_path(conf.dir, CLUSTER_DIR)
end

---@class moonbird.database
---@field params table libpq keywords
---@field handle table|nil the embedded cluster in use

-- What a superuser's SQL can do to the machine (COPY ... TO PROGRAM, files of the server's user) is not for files
-- that a stranger wrote. CREATEROLE would be enough for that, too: before 16 such a role could make itself a member
-- of pg_execute_server_program.
local PLAIN_ROLE = "moonbird_ci"

--- Gives a throwaway cluster a database that an ordinary role owns -> err.
local function restrict(database)
  local admin, err = session.open(database.params, { application_name = "moonbird/setup" })
  if not admin then
    return err
  end
  for _, statement in ipairs { ("create role %s login"):format(PLAIN_ROLE),
    ("create database %s owner %s"):format(PLAIN_ROLE, PLAIN_ROLE) } do
    err = err or select(2, admin:query(statement))
  end
  admin:close()
  database.params.user, database.params.dbname = PLAIN_ROLE, PLAIN_ROLE
  return err
end

--- Makes the database reachable: starts the embedded cluster when the URL says so.
---@param conf moonbird.config
---@param report moonbird.reporter
---@return moonbird.database|nil
---@return moonbird.error? err
function M.database(conf, report)
  if conf.url.kind ~= "embedded" then
    return { params = conf.url.params }
  end
  local cluster = require "moonbird.core.cluster" -- only here: most runs have a server of their own
  local handle, err = cluster.open {
    dir = not conf.url.temp and M.cluster_dir(conf) or nil,
    temp = conf.url.temp,
    log = function(message)
      report:log("info", message)
    end,
  }
  if not handle then
    return nil, err
  end
  local params = {}
  for k, v in pairs(handle.params) do
    params[k] = tostring(v)
  end
  params.dbname = conf.url.dbname or params.dbname
  local database = { params = params, handle = handle }
  if conf.plain_role and conf.url.temp then
    err = restrict(database)
    if err then
      handle:release()
      return nil, err
    end
  end
  return database
end

local function folders(conf)
  local list = {}
  for i, dir in ipairs(conf.migrations) do
    list[i] = text.join_path(conf.dir, dir)
  end
  return list
end

local function caught(raised)
  local e = error_.from(raised, type(raised) == "string" and "internal" or nil)
  e.traceback = e.traceback or debug.traceback(nil, 2)
  return e
end

---@class moonbird.project.options
---@field config? moonbird.config where it is loaded already
---@field files? boolean scan the migrations and hand them over
---@field full? boolean as target.open's
---@field idle? fun(run: moonbird.run, target: moonbird.target): table called in place of `work` when the target is
---       exactly where the files want it

--- Runs `work(run, target, entries)` on the database, closing everything afterwards. The connection is made
--- while the files are read.
---@param args table
---@param report moonbird.reporter
---@param options moonbird.project.options
---@param work fun(run: moonbird.run, target: moonbird.target, entries?: table[]): table|nil, moonbird.error|nil
---@return table|nil result
---@return moonbird.error? err
function M.with_target(args, report, options, work)
  local conf, err = options.config
  if not conf then
    conf, err = M.config(args)
  end
  if not conf then
    return nil, err
  end
  local entries
  if options.files and conf.url.kind == "embedded" then
    entries, err = M.entries(conf) -- no cluster is made for files that are broken
    if not entries then
      return nil, err
    end
  end
  local database
  database, err = M.database(conf, report)
  if not database then
    return nil, err
  end
  local this = run.new {
    command = args.command, config = conf, params = database.params, report = report, dir = conf.dir,
    timeout_ms = conf.timeouts.run,
  }
  this.lock_wait = conf.timeouts.lock_wait > 0 and conf.timeouts.lock_wait or math.huge -- 0 is no limit, as everywhere
  local opening = task.spawn(target.open, this, { full = options.full, known = options.idle and bootstrap.known() })
  local hash
  if options.idle then
    hash, err = fingerprint.folders(folders(conf))
  elseif options.files and not entries then
    task.sleep(0) -- lets the connection begin
    entries, err = M.entries(conf)
  end
  local goal, open_err = opening:join()
  err = err or open_err
  local result
  if goal and not err and options.idle then
    if hash and hash == goal.fingerprint then
      work = options.idle
    else
      if not entries then
        entries, err = M.entries(conf)
      end
      if not err then
        local _
        _, err = goal:refresh()
      end
    end
  end
  if goal and not err and options.files then
    err = goal.state and goal:too_new(bootstrap.known())
  end
  -- main.c stops the collector for the start. A script that streams rows makes little but garbage: marking
  -- the engine's own objects at every doubling would take a quarter of its time. With tenants those objects are
  -- many, and four times of them is memory that the machine has a use for.
  collectgarbage("setpause", conf.tenants and 200 or 400)
  collectgarbage("restart")
  if goal and not err then
    local ok, first, second = xpcall(task.within, caught, this:time_left(), function()
      return work(this, goal, entries)
    end)
    if ok then
      result, err = first, second
    else
      err = first
    end
  end
  if goal then
    goal:close()
  end
  if this.monitor then
    this.monitor:close()
  end
  if database.handle then
    local released, release_err = database.handle:release()
    if not released and not err then
      err = release_err
    end
  end
  return result, err
end

return M
