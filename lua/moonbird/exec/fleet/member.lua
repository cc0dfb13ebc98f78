--- A worker's place in a run of a fleet: how it makes or joins the run, asks its rows, keeps what it has seen.
local error_ = require "moonbird.core.error"
local fleet_of = require "moonbird.core.fleet"
local identity = require "moonbird.exec.fleet.identity"
local json = require "moonbird.core.json"
local link_of = require "moonbird.exec.fleet.link"
local task = require "moonbird.core.task"
local url_of = require "moonbird.config.url"

---@class moonbird.fleet.member
---@field context moonbird.tenants.context
---@field link moonbird.fleet.link
---@field fleet moonbird.fleet
---@field name string the run's
---@field row table the run as last read
---@field made? boolean this process made the run
---@field finished integer tenants that this process finished
---@field looked? integer the stage that the tenants were last looked at for
---@field planned? table what was pending then: global, tenant
---@field by_name? table<string, moonbird.tenant> the tenants of that look
---@field stage? moonbird.tenants.stage that is ready, with its number `at`
---@field told_stage? integer the stage that the report was told of
---@field told_paused? boolean
---@field own_error? moonbird.error of the global stage, where this process ran it
local M = {}
M.__index = M

local LEASE_MS = 15000
local POLL_MS = 300

--- Statuses in which nothing more is done.
M.ENDED = { done = true, failed = true, halted = true, cancelled = true }

--- The run with the control database's connection.
---@param run moonbird.run
---@param url? string
---@return moonbird.run?
---@return moonbird.error? err
function M.control(run, url)
  if not url then
    return run
  end
  local parsed, err = url_of.parse(url)
  if not parsed or parsed.kind ~= "postgres" then
    return nil, err or error_.new("usage", "--control wants a postgresql:// URL")
  end
  return setmetatable({ params = parsed.params }, { __index = run })
end

-- Results of a database are told only when they are on its disk. Where it is the control database itself, the
-- statement that tells them brings them there.
local function flusher(self, control)
  return function()
    for _, database in ipairs(self.context.survey.databases) do
      local params = database.run.params
      local same = params.host == control.params.host and params.port == control.params.port
        and params.dbname == control.params.dbname
      if database.unflushed and not same then
        database.unflushed = nil
        local _, err = self.context.survey:with_session(database, function(session)
          return session:query("select pg_logical_emit_message(true, 'moonbird', 'flush')")
        end)
        if err then
          database.unflushed = true
          return nil, err
        end
      end
    end
    return true
  end
end

--- A member that has not entered yet. Opens nothing; to be closed by `member.link:close()`.
---@param context moonbird.tenants.context
---@param control moonbird.run of M.control
---@param options moonbird.fleet.options
---@return moonbird.fleet.member
function M.new(context, control, options)
  local fleet = fleet_of.new(context.run.journal.schema)
  local self = setmetatable({ context = context, fleet = fleet, name = options.name, finished = 0, row = {},
    link = link_of.new(control, fleet, options.name, options.lease or LEASE_MS) }, M)
  self.link.flush = flusher(self, control)
  return self
end

--- Calls a method of the fleet's rows on the control database.
---@param method string of moonbird.fleet
---@param ... any its arguments behind the session
---@return any ... what it returns; nil, err where it failed
function M:call(method, ...)
  local args = table.pack(...)
  return self.link:call(function(session)
    return self.fleet[method](self.fleet, session, table.unpack(args, 1, args.n))
  end)
end

--- Waits a moment for what other workers do.
---@return moonbird.error? err interrupted or out of time
function M.wait()
  local _, err = task.sleep(POLL_MS)
  return err
end

--- Reads the run's row.
---@return table? row
---@return moonbird.error? err also that there is none
function M:read_row()
  local row, err = self:call("read", self.name)
  if row == false then
    return nil, error_.new("fleet", ("there is no run \"%s\""):format(self.name))
  end
  self.row = row
  return row, err
end

--- Stages as they stand in the row.
---@param stages moonbird.stage[]
---@return table[]
function M.as_data(stages)
  local list = json.array {}
  for i, stage in ipairs(stages) do
    local versions = json.array {}
    for j, migration in ipairs(stage.migrations) do
      versions[j] = migration.version
    end
    list[i] = { scope = stage.scope, versions = versions }
  end
  return list
end

local function settings_of(context)
  local settings = context.survey.settings
  return { soak_ms = settings.soak, health = settings.health ~= nil, manual = settings.gate == "manual" }
end

--- Makes the run of that name, or joins it.
---@param stages moonbird.stage[] what is to be done, as this process sees it; the run's maker decides
---@return moonbird.error? err
function M:enter(stages)
  local context = self.context
  local mine = identity.of(context.entries, context.options)
  local list = M.as_data(stages)
  if #context.ahead > 0 and (#list == 0 or (#list == 1 and list[1].scope == "global")) then
    -- Nothing is lacked by anybody; those that are ahead are still to be told.
    list[#list + 1] = { scope = "tenant", versions = json.array {} }
  end
  local made, err = self:call("make", { name = self.name, plan = mine.plan, newest = mine.newest, files = mine.files,
    stages = list, settings = settings_of(context),
    command = context.run.command, engine = context.run.facts.engine, host = context.run.facts.host })
  if made == nil then
    return err
  end
  local row
  row, err = self:read_row()
  err = err or identity.refusal(row, mine)
  if err then
    return err
  end
  self.made = made
  if not M.ENDED[row.status] then
    local _
    _, err = self:call("join", self.link.worker)
    self.link.joined = err == nil
    if not err then
      self.link:keep_alive()
    end
  end
  local word = made and "made" or M.ENDED[row.status] and "found" or "joined"
  context.report.report:print(("%s the run %s (%s)"):format(word, self.name, row.status))
  return err
end

return M
