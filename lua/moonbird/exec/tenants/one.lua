--- What one tenant does in a stage: the migrations it lacks, each in its own transaction behind the tenant's door.
local apply = require "moonbird.exec.apply"
local error_ = require "moonbird.core.error"
local pins = require "moonbird.exec.tenants.pins"
local plan = require "moonbird.plan.plan"
local remedy = require "moonbird.plan.remedy"
local state_of = require "moonbird.exec.tenants.state"
local target_of = require "moonbird.exec.target"
local task = require "moonbird.core.task"

local M = {}

-- Errors that another try may not meet again: locks, serialization, connections, a server that restarts.
local RETRYABLE = { ["55P03"] = true, ["40P01"] = true, ["40001"] = true, ["53300"] = true, ["53200"] = true,
  ["26000"] = true, ["57P01"] = true, ["57P02"] = true, ["57P03"] = true }
local CODES = { locked = true, history_moved = true, connection_lost = true, connect = true }

--- Whether a tenant may be tried again after this error.
---@param err moonbird.error
---@return boolean
function M.retryable(err)
  local state = err.sqlstate or ""
  if RETRYABLE[state] or state:sub(1, 2) == "08" then
    return true
  end
  -- "connect" also stands for a refused password or a database that is not there: no use trying again
  return CODES[err.code] and (state == "" or state:sub(1, 2) == "MB") or false
end

-- What a server says, or what is said of it, that will be otherwise soon whatever tenant asks.
local AWAY = { "starting up", "shutting down", "recovery mode", "too many clients", "connection slots",
  "too many connections" }

--- Whether an error is about the server and not about the tenant: it is down, or full.
---@param err moonbird.error
---@return boolean
function M.server_away(err)
  if err.code ~= "connect" then
    return false
  end
  for _, words in ipairs(AWAY) do
    if err.message:find(words, 1, true) then
      return true
    end
  end
  return not err.message:find("FATAL:", 1, true) -- refused, timed out: nobody answered
end

-- What a server says when it has not enough for all that is done at once.
local SHORT = { "too many clients", "connection slots", "too many connections" }

--- Whether an error says that fewer at a time may do: the table of locks, the memory, the connections are used up.
---@param err moonbird.error
---@return boolean
function M.server_short(err)
  if err.sqlstate == "53200" or err.sqlstate == "53300" then
    return true
  end
  for _, words in ipairs(err.code == "connect" and SHORT or {}) do
    if err.message:find(words, 1, true) then
      return true
    end
  end
  return false
end

--- The tenant's own view of the stage's steps: a recording and its like are nobody else's.
---@param step moonbird.step
---@return moonbird.step
function M.own(step)
  return setmetatable({ shared = step }, { __index = step })
end

local function copy(applied)
  local result = {}
  for version, row in pairs(applied) do
    result[version] = row
  end
  return result
end

--- The steps of a stage that a tenant has to do: what it lacks, up to its pin; or what it has, when taking back.
---@param stage moonbird.tenants.stage
---@param tenant table with its state; `only`: a set of versions, others are left alone
---@return moonbird.step[]
---@return { to: integer, reason: string }? pin what keeps it from doing more
function M.lacking(stage, tenant)
  local list, held = {}, nil
  local pin = stage.direction == "up" and pins.of(tenant.state) or nil
  for _, step in ipairs(stage.steps) do
    local version = step.migration.version
    local there = tenant.state.applied[version] ~= nil
    if there == (stage.direction == "down") and not (tenant.only and not tenant.only[version]) then
      if pin and version > pin.to then
        held = pin
      else
        list[#list + 1] = step
      end
    end
  end
  return list, held
end

--- What stops a tenant whatever it lacks, as it does a single database: an applied migration whose file is another one
--- now; one that is half taken back, where more is to be applied, or half applied, where what it stands on is to be
--- taken back.
---@param stage moonbird.tenants.stage
---@param state table
---@return moonbird.error?
function M.refusal(stage, state)
  for _, step in ipairs(stage.all) do
    local row = state.applied[step.version]
    if row and row.checksum and row.checksum ~= step.checksum then
      return error_.new("checksum", ("%s was changed after it was applied"):format(step.id), { migration = step.id,
        file = step.file, hint = "restore the file, or accept the change: "
          .. remedy.accept_tenants(step.version_text) })
    end
  end
  if stage.direction == "up" then
    return plan.half_reverted(state)
  end
  local versions = {}
  for i, step in ipairs(stage.steps) do
    versions[i] = step.migration.version
  end
  return plan.half_applied(state, versions)
end

--- A tenant that somebody has migrated since it was decided what to take back: that would be from the middle.
---@param stage moonbird.tenants.stage
---@param before table<integer, table>|nil what was applied then
---@param state table
---@return moonbird.error?
local function overtaken(stage, before, state)
  for version, row in pairs(stage.direction == "down" and before and state.applied or {}) do
    if not before[version] then
      return error_.new("out_of_order", ("%s was applied since it was decided what to take back"):format(row.id
        or version), { hint = "run again: the newest goes first" })
    end
  end
end

--- A tenant whose history was read only now, and that a newer release has been at.
local function ahead(stage, state)
  local newest = stage.direction == "up" and stage.all[#stage.all]
  for version in pairs(newest and state.applied or {}) do
    if version > newest.version then
      return error_.new("ahead", ("it is at %d, newer than these files know"):format(version),
        { hint = "a newer release has been here; deploy that one, or a newer" })
    end
  end
end

--- Keeps what is known of a tenant in step with its target, which may have read the journal anew in between: a step
--- without a transaction does, to see what an interrupted one left.
local function keep_in_step(tenant, target)
  local state, read = tenant.state, target.state
  if read ~= state then
    -- A history that others have moved is no longer the one that the hash names.
    state.hash = read.head == state.head and state.hash or nil
    state.applied, state.open = read.applied, read.open
    target.state = state
  end
  state.head = target.head
end

--- Notes a step that is committed: what an earlier run left open of it is settled by that.
local function note_done(tenant, target, step)
  apply.note_applied(target, step)
  local open = {}
  for _, row in ipairs(tenant.state.open) do
    open[#open + 1] = row.version ~= step.migration.version and row or nil
  end
  tenant.state.open = open
end

--- Runs one tenant to the end of the stage, once.
---@param database moonbird.tenants.database
---@param tenant table
---@param stage moonbird.tenants.stage
---@param session moonbird.session
---@param gate? moonbird.gate
---@return integer|nil done number of steps committed
---@return moonbird.error? err
function M.attempt(database, tenant, stage, session, gate)
  local state, unknown = tenant.state, nil
  local before = state and state.applied
  if not state or tenant.stale then
    unknown = true
    local states, err = state_of.read(database.run.journal, session, { tenant.name })
    if not states then
      return nil, err
    end
    state = states[tenant.name] or state_of.empty()
    tenant.state, tenant.stale = state, nil
  end
  local err = M.refusal(stage, state) or unknown and (ahead(stage, state) or overtaken(stage, before, state))
  if err then
    return nil, error_.with(err, { target = tenant.name })
  end
  local steps = M.lacking(stage, tenant)
  if #steps == 0 then
    return 0
  end
  state.applied = copy(state.applied)
  local target = target_of.adopt(database.run, { name = tenant.name, schema = tenant.schema, vars = tenant.vars,
      shared = database.shared,
    session = session, state = state })
  target.pooled, target.awaited_only = database.pooled, database.awaited_only
  target.prepares = not database.pooled and #database.tenants > 1
  target.deadlock_timeout = database.deadlock_timeout
  for i, shared in ipairs(steps) do
    local step = M.own(shared)
    err = task.take_cancel() or database.run:expired() or gate and gate:step(target, step)
    if err then
      return i - 1, error_.with(err, { target = tenant.name, migration = step.migration.id })
    end
    local ok
    local started = task.now()
    ok, err = apply.once(target, step, stage.timeouts(step))
    tenant.session = target.session -- a lost one may have been opened anew
    keep_in_step(tenant, target)
    if not ok then
      tenant.stale = true -- what is committed is read again before the next try
      return i - 1, error_.with(err, { target = tenant.name, migration = step.migration.id,
        file = step.migration.file })
    end
    note_done(tenant, target, step)
    -- Still one name for one history: those that began with the same one and did the same since share it.
    state.hash = state.hash and ("%s %s %d"):format(state.hash, step.direction, step.migration.version)
    tenant.steps = (tenant.steps or 0) + 1
    database.unflushed = database.unflushed or target.unflushed
    -- What a step leaves behind is asked of every tenant only where everything is: by `deploy`.
    err = gate and (gate.strict or step.vet) and gate:after(target, step, task.now() - started) or nil
    if err then
      return i, error_.with(err, { target = tenant.name })
    end
  end
  return #steps
end

return M
