--- A stage over tenants: its steps; waves of tenants through slots, retries at the back of the wave.
--
-- Tenants wait as names; a coroutine and a connection exist only while one of `jobs` slots is free, so memory is
-- one small table for each tenant and no more.
local apply = require "moonbird.exec.apply"
local error_ = require "moonbird.core.error"
local failpoint = require "moonbird.core.failpoint"
local one = require "moonbird.exec.tenants.one"
local pace_of = require "moonbird.exec.tenants.pace"
local plan = require "moonbird.plan.plan"
local task = require "moonbird.core.task"

local M = {}

-- Retries: full jitter below a bound that doubles, milliseconds.
local FIRST_DELAY = 200
local MAX_DELAY = 30000

-- How long a server that does not answer is waited for.
local SERVER_MS = 60000

-- A lock that a tenant can't have is tried again later; meanwhile others go on.
local LOCK_TIMEOUT = 1000

---@class moonbird.tenants.database
---@field key string names the database
---@field server string names the server
---@field label string for application_name
---@field run moonbird.run with this database's params
---@field unflushed boolean|nil committed without waiting for the disk

---@class moonbird.tenants.stage
---@field direction "up"|"down"
---@field steps moonbird.step[] in the order to run
---@field all table[] every tenant migration with a file: version, checksum, id, file
---@field timeouts fun(step: moonbird.step): table

---@class moonbird.tenants.wave
---@field tenants table[]
---@field budget moonbird.tenants.budget
---@field name string

--- Makes the steps of a tenant stage.
---@param context table run, survey, own: of moonbird.tenants.context
---@param migrations table[] loaded, in the order to run
---@param direction "up"|"down"
---@return moonbird.tenants.stage
function M.make(context, migrations, direction)
  local run, settings = context.run, context.survey.settings
  local steps = plan.steps(migrations, direction, "tenants", 0)
  for _, step in ipairs(steps) do
    step.durable = false -- one flush at the end of each wave
  end
  return {
    -- A changed file stops an up; a down is what may be needed to mend it.
    direction = direction, steps = steps, all = direction == "up" and context.own or {},
    timeouts = function(step)
      local timeouts = apply.timeouts(run, step.migration)
      if settings.lock_timeout then
        timeouts.lock = settings.lock_timeout
      elseif run.config.origins["timeouts.lock"] == "default" and not step.migration.timeouts.lock then
        timeouts.lock = LOCK_TIMEOUT
      end
      return timeouts
    end,
  }
end

--- Parts a stage where backfills are in it: what is none runs first, in waves as ever; then each backfill over all
--- tenants, which take turns. Contracts may need the backfills before them: these are done first.
---@param stage moonbird.tenants.stage
---@return moonbird.tenants.stage[] parts those of a backfill have one step and `backfill`
function M.parts(stage)
  local parts, plain, fills = {}, {}, {}
  local function add(steps, backfill)
    parts[#parts + 1] = setmetatable({ steps = steps, backfill = backfill }, { __index = stage })
  end
  local function flush()
    if plain[1] then
      add(plain, false)
    end
    for _, step in ipairs(fills) do
      add({ step }, true)
    end
    plain, fills = {}, {}
  end
  for _, step in ipairs(stage.steps) do
    if step.migration.phase == "contract" and fills[1] then
      flush()
    end
    local list = step.migration.backfill and stage.direction == "up" and fills or plain
    list[#list + 1] = step
  end
  flush()
  return parts
end

local function delay_of(attempt)
  return math.floor(math.random() * math.min(MAX_DELAY, FIRST_DELAY << math.min(attempt, 8))) + 10
end

--- Gets a session, runs the tenant, gives the session back.
local function run_tenant(context, tenant)
  local database = tenant.database
  local session, err = context.pool:take(database)
  if not session then
    return nil, err
  end
  tenant.session = session
  local ok
  ok, err = context.prepare(database, session)
  local done
  if ok then
    done, err = one.attempt(database, tenant, context.stage, session, context.gate)
  end
  session, tenant.session = tenant.session, nil
  context.pool:give(database, session)
  return done, err
end

--- Errors that use up no attempt, for a while: another runner holds the tenant's lock (as long as --lock-wait says),
--- the server is away (SERVER_MS from when it was first seen), it has not enough for all that run beside each other.
local function patient(context, tenant, started, err)
  local now = task.now()
  if one.server_short(err) then
    local beside, slower = context.pace:short(started)
    if slower then
      context.report:fewer(tenant, err, context.pace.limit)
    end
    if beside and err.code ~= "connect" then
      return true
    end
  end
  if err.code == "locked" then
    tenant.locked_until = tenant.locked_until or now + tenant.database.run.lock_wait
    return now < tenant.locked_until
  elseif one.server_away(err) then
    local away = context.away[tenant.database.server]
    if not away then
      away = now
      context.away[tenant.database.server] = away
      context.report:server_away(tenant, err, SERVER_MS)
    end
    return now - away < SERVER_MS
  end
  return false
end

local function settle(context, tenant, started, done, err)
  local queue, report = context.queue, context.report
  if not err then
    tenant.finished = true
    context.pace:good()
    context.away[tenant.database.server] = nil
    queue:done(tenant, done)
    report:tenant_done(tenant, done, task.now() - started)
    return
  end
  if err.code == "interrupted" or err.code == "timeout" then
    context.stopped = context.stopped or err
    queue:give_back(tenant)
    queue:halt("interrupted")
    return
  end
  if err.code == "ahead" then -- a newer release was there first: that is no failure, and nothing to do
    queue:ahead(tenant, err)
    report:tenant_ahead(tenant, err)
    return
  end
  if patient(context, tenant, started, err) then
    queue:later(tenant, err, delay_of(2))
    report:tenant_waits(tenant)
    return
  end
  tenant.attempts = (tenant.attempts or 0) + 1
  if one.retryable(err) and tenant.attempts < context.attempts then
    local delay = delay_of(tenant.attempts)
    queue:later(tenant, err, delay)
    report:tenant_retried(tenant, err, tenant.attempts, delay)
    return
  end
  queue:failed(tenant, err)
  report:tenant_failed(tenant, err)
  if context.record_failure then
    context.record_failure(tenant, err)
  end
end

local function run_one(context, tenant)
  local started, pace = task.now(), context.pace
  pace.running = pace.running + 1
  context.report:tenant_started(tenant)
  failpoint("tenant.begin")
  local ok, done, err = xpcall(run_tenant, function(raised)
    return error_.from(raised, type(raised) == "string" and "internal" or nil)
  end, context, tenant)
  if not ok then
    done, err = nil, done
    context.pool:abandon(tenant)
  end
  settle(context, tenant, started, done, err)
  pace.running = pace.running - 1
end

local function slot(context)
  while not context.stopped do
    local tenant, wait = nil, pace_of.PAUSE_MS
    if context.pace:enter() then
      tenant, wait = context.queue:take()
      if tenant then
        run_one(context, tenant)
      end
      context.pace:leave()
    end
    if not tenant and wait then
      local ok, err = task.sleep(wait)
      if not ok then
        context.stopped = context.stopped or err
        context.queue:halt("interrupted")
      end
    elseif not tenant then
      return
    end
  end
end

--- Runs one wave to its end. The caller's own cancellation reaches the slots.
---@param context table queue, pool, stage, gate, report, attempts, jobs, shared (others run tenants, too),
---       prepare(database, session)
---@return true|nil
---@return moonbird.error? err interrupted or out of time; failures of tenants are in the queue
function M.run_wave(context)
  context.away, context.pace = {}, pace_of.new(context.jobs, context.shared)
  local each = 1
  for _, step in ipairs(context.stage.steps) do
    each = step.transactional and each or 2
  end
  context.pool:expect(context.jobs * each, each)
  local slots = {}
  for i = 1, math.max(1, math.min(context.jobs, context.queue.total)) do
    slots[i] = task.spawn(slot, context)
  end
  local cancelled
  for _, job in ipairs(slots) do
    local _, err
    repeat
      _, err = job:join()
      if err and not job:done() then -- this task was asked to stop: the slots are, and then waited for
        cancelled = cancelled or err
        context.stopped = cancelled
        context.queue:halt("interrupted")
        for _, other in ipairs(slots) do
          other:cancel(err.code)
        end
      end
    until job:done()
    if err and err ~= cancelled and not context.stopped then
      context.stopped = err
    end
  end
  if cancelled or context.stopped then
    return nil, cancelled or context.stopped
  end
  return true
end

return M
