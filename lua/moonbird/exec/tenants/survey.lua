--- What there is: the tenants, their databases, what each has applied, and which files are theirs.
local bootstrap = require "moonbird.exec.bootstrap"
local error_ = require "moonbird.core.error"
local literal = require "moonbird.core.literal"
local pool_of = require "moonbird.exec.tenants.pool"
local registry = require "moonbird.migration.registry"
local resolve = require "moonbird.tenants.resolve"
local select_ = require "moonbird.tenants.select"
local standby = require "moonbird.exec.standby"
local state_of = require "moonbird.exec.tenants.state"
local target_of = require "moonbird.exec.target"
local task = require "moonbird.core.task"
local url_of = require "moonbird.config.url"

---@class moonbird.tenants.survey
---@field run moonbird.run
---@field settings moonbird.tenants.settings
---@field all moonbird.tenant[] every tenant, each with `database`
---@field tenants moonbird.tenant[] those chosen
---@field databases moonbird.tenants.database[] of those chosen
---@field pool moonbird.tenants.pool
local M = {}
M.__index = M

-- Tenants of one database whose states are read in one go.
local BATCH = 20000

--- libpq's keywords for a database that a tenant names.
local function params_of(run, where)
  if not where then
    return run.params
  elseif where.url then
    local parsed, err = url_of.parse(where.url)
    if not parsed or parsed.kind ~= "postgres" then
      return nil, err or error_.new("config", "a tenant's url must be a postgresql:// one")
    end
    return parsed.params
  end
  local params = {}
  for key, value in pairs(run.params) do
    params[key] = value
  end
  params.dbname, params.host = where.dbname or params.dbname, where.host or params.host
  if where.host then
    params.hostaddr = nil
  end
  return params
end

local function server_of(params)
  return ("%s:%s"):format(params.host or "", params.port or "")
end

local function database_of(self, where)
  local key = where and where.key or ""
  local known = self.by_key[key]
  if known then
    return known
  end
  local params, err = params_of(self.run, where)
  if not params then
    return nil, err
  end
  local database = {
    key = key, server = server_of(params), label = params.dbname or "tenants",
    shared = self.settings.shared,
    run = where and setmetatable({ params = params }, { __index = self.run }) or self.run, tenants = {},
  }
  self.by_key[key] = database
  self.databases[#self.databases + 1] = database
  return database
end

-- Server defaults that decide how a step may be sent.
local FACTS = [[
  select current_setting('default_transaction_isolation') as isolation,
         current_setting('default_transaction_read_only') as read_only,
         (extract(epoch from current_setting('deadlock_timeout')::interval) * 1000)::int as deadlock_ms,
         pg_is_in_recovery() as standby, pg_backend_pid() as pid,
         (select system_identifier::text from pg_control_system()) as system]]

local function read_facts(database, session)
  local result, err = session:query(FACTS)
  if not result then
    return nil, err
  end
  local row = result:row(1)
  if row.standby then
    return nil, standby.error(database.run.params)
  end
  database.awaited_only = row.isolation ~= "read committed" or row.read_only == "on"
  database.pooled = row.pid ~= session:pid()
  database.deadlock_timeout, database.system = row.deadlock_ms, row.system
  return true
end

--- Gets a database ready on first use: what it is, and its journal. Slots that come meanwhile wait.
---@param database moonbird.tenants.database
---@param session moonbird.session
---@return true|nil
---@return moonbird.error? err
function M.prepare(database, session)
  while database.preparing do
    local ok, err = task.sleep(5)
    if not ok then
      return nil, err
    end
  end
  if database.ready then
    return true
  end
  database.preparing = true
  -- Also where something is raised: those that wait for it would wait for ever.
  local prepared <close> = setmetatable({}, { __close = function() -- luacheck: ignore
    database.preparing = false
  end })
  local ok, err = read_facts(database, session)
  if ok and not database.global then -- the global target's journal is ensured already
    local state
    -- A database of one tenant: what is asked of its journal is asked for the tenant, whose state this is.
    local only = #database.tenants == 1 and database.tenants[1] or nil
    state, err = database.run.journal:read(session, only and only.name or target_of.JOURNAL)
    ok = state and true
    if only and state and state.exists and state.format == bootstrap.known() then
      only.state = only.state or state
      database.ready = true
      return true
    end
    if ok then
      local target = target_of.adopt(database.run, { name = "global", session = session, state = state })
      ok, err = bootstrap.ensure(target, { left = database.run.lock_wait })
    end
  end
  database.ready = ok or nil
  return ok, err
end

--- Runs `work(session)` on a session of a database.
---@param database moonbird.tenants.database
---@param work fun(session: moonbird.session): any, moonbird.error?
---@return any
---@return moonbird.error? err
function M:with_session(database, work)
  local session, err = self.pool:take(database)
  if not session then
    return nil, err
  end
  local result
  result, err = work(session)
  self.pool:give(database, session)
  return result, err
end

--- Asks the sources. Sessions for it are closed again.
local function list_tenants(self, options)
  local opened, last = {}, nil
  local function open(where)
    local key = where and where.key or ""
    if not opened[key] then
      if last and last ~= "" then -- one at a time, beside the project's own database
        opened[last]:leave()
        opened[last] = nil
      end
      last = nil
      local params, err = params_of(self.run, where)
      if not params then
        return nil, err
      end
      local run = where and setmetatable({ params = params }, { __index = self.run }) or self.run
      opened[key], err = run:connect("tenants")
      if not opened[key] then
        return nil, err
      end
      last = key
    end
    return opened[key]
  end
  if options.session then
    opened[""] = options.session
  end
  local env = {}
  local tenants, err = resolve.all(self.settings, { open = open, dir = self.run.config.dir, env = env,
    check_schemas = options.check_schemas })
  for _, session in pairs(opened) do
    if session ~= options.session then
      session:leave()
    end
  end
  return tenants, err
end

--- Lists the tenants and picks those that are meant. Reads no state.
---@param run moonbird.run
---@param settings moonbird.tenants.settings
---@param options table session?, tenant?, exclude?, shard?, check_schemas? (as select.pick and resolve.all take them)
---@return moonbird.tenants.survey?
---@return moonbird.error? err
function M.open(run, settings, options)
  local self = setmetatable({ run = run, settings = settings, by_key = {}, databases = {},
    pool = pool_of.new { per_database = settings.per_database, per_server = settings.per_server } }, M)
  local all, err = list_tenants(self, options)
  if not all then
    return nil, err
  end
  self.all = all
  self.tenants, err = select_.pick(all, options)
  if not self.tenants then
    return nil, err
  end
  for _, tenant in ipairs(self.tenants) do
    tenant.database, err = database_of(self, tenant.where)
    if not tenant.database then
      return nil, error_.with(err, { target = tenant.name })
    end
    table.insert(tenant.database.tenants, tenant)
  end
  local global = self.by_key[""]
  if global and options.session then
    global.global = true
    self.pool:lend(global, options.session)
  elseif options.session then
    self.pool:reserve(server_of(run.params))
  end
  return self
end

--- Gives a tenant that no source has listed yet its database.
---@param tenant moonbird.tenant
---@return true|nil
---@return moonbird.error? err
function M:adopt(tenant)
  local err
  tenant.database, err = database_of(self, tenant.where)
  return tenant.database and true, err
end

--- Gives all tenants of a database the one state that they have -> true; nil when they differ.
local function alike(self, database, session)
  local names = {}
  for i, tenant in ipairs(database.tenants) do
    names[i] = tenant.name
  end
  local state, err = state_of.uniform(database.run.journal, session, names)
  if not state then
    return nil, err
  end
  for _, tenant in ipairs(database.tenants) do
    tenant.state = state
  end
  self.partial = true
  return true
end

--- Reads the states of the tenants that share a database; one that has a database of its own is read when a slot
--- first connects to it.
---@param options? { alone?: boolean, quick?: boolean } alone: also those; quick: where all tenants of a database are
---       alike one state will do, without a head: `partial` says so
---@return true|nil
---@return moonbird.error? err
function M:read_states(options)
  options = options or {}
  self.partial = false
  for _, database in ipairs(self.databases) do
    if #database.tenants > 1 or database.key == "" or options.alone then
      local ok, err = self:with_session(database, function(session)
        if options.quick then
          local state, failed = alike(self, database, session)
          if state or failed then
            return state, failed
          end
        end
        for from = 1, #database.tenants, BATCH do
          local names = {}
          for i = from, math.min(#database.tenants, from + BATCH - 1) do
            names[#names + 1] = database.tenants[i].name
          end
          local states, failed = state_of.read(database.run.journal, session, names)
          if not states then
            return nil, failed
          end
          for i = from, math.min(#database.tenants, from + BATCH - 1) do
            local tenant = database.tenants[i]
            tenant.state = states[tenant.name] or state_of.empty()
          end
        end
        return true
      end)
      -- A database that refuses is its tenants' failure, when their turn comes.
      if not ok and (database.key == "" or err.code ~= "connect") then
        return nil, err
      end
    end
  end
  return true
end

--- Which files are tenants': from the journal where it knows the very file, else from the file.
---@param entries table[] the registry
---@param state table the global target's
---@return table[]? global entries
---@return table[]|moonbird.error tenant entries, or what is wrong with the files
function M:split(entries, state)
  local known, seen = {}, {}
  local function learn(applied)
    if not seen[applied] then
      seen[applied] = true
      for version, row in pairs(applied) do
        if row.scope then
          known[version] = { checksum = row.checksum, scope = row.scope }
        end
      end
    end
  end
  learn(state.applied)
  for _, tenant in ipairs(self.tenants) do
    if tenant.state then
      learn(tenant.state.applied)
    end
  end
  local global, own, problems = {}, {}, {}
  for _, entry in ipairs(entries) do
    local row = known[entry.version]
    local scope = row and row.checksum == entry.checksum and row.scope
    if not scope then
      local migration, wrong = registry.load(entry)
      if migration then
        scope = migration.scope
      else
        table.move(wrong, 1, #wrong, #problems + 1, problems)
      end
    end
    table.insert(scope == "tenant" and own or global, entry)
  end
  if #problems > 0 then
    return nil, registry.error(problems)
  end
  return global, own
end

-- How long a server that went away is waited for when only the flush is left, and between two tries.
local FLUSH_MS, FLUSH_PAUSE_MS = 60000, 500

--- Tries until it works, fails for another reason than the connection, or the time is over -> err.
local function retried(work)
  local until_ = task.now() + FLUSH_MS
  while true do
    local err = work()
    if not err or (err.code ~= "connect" and err.code ~= "connection_lost") or task.now() >= until_ then
      return err
    end
    local ok, stopped = task.sleep(FLUSH_PAUSE_MS)
    if not ok then
      return stopped
    end
  end
end

--- Waits for the disk where a database has commits that did not: after it, what was told is kept.
---@return true|nil
---@return moonbird.error? err
function M:flush()
  -- The log is the server's, not the database's: one flush for each server, where a session is open if possible.
  local flushed = {}
  for _, database in ipairs(self.databases) do
    if database.unflushed and not flushed[database.system] then
      local other = self.pool:open_of(database.system) or database
      local err = retried(function()
        local _, failed = self:with_session(other, function(session)
          return session:query("select pg_logical_emit_message(true, 'moonbird', 'flush')")
        end)
        return failed
      end)
      if err then
        return nil, err
      end
      flushed[database.system] = true
    end
  end
  for _, database in ipairs(self.databases) do
    database.unflushed = nil
  end
  return true
end

--- Names as an array for SQL.
---@param tenants moonbird.tenant[]
---@return string
function M.names(tenants)
  local names = {}
  for i, tenant in ipairs(tenants) do
    names[i] = tenant.name
  end
  return literal.array(names)
end

--- Closes every session, where others may be opened after it.
function M:leave()
  self.pool:leave()
end

--- Closes every session, at the end.
function M:close()
  self.pool:close()
end

return M
