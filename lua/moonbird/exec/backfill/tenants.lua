--- A backfill over many tenants: slots take turns with them, so that none is finished before each has begun and a large
-- one does not keep the others waiting.
--
-- First every tenant begins: its `up`, its state and its chunks are made, no batch is run. Then a slot takes the
-- tenant that has waited longest, runs batches for SLICE, and puts it back at the end. A turn is a run of the backfill
-- whose time is over (run.lua, code "unfinished"), so what holds for one that is started again holds for it. One
-- sampler watches each server for all of them. A tenant that fails is left out; the others go on.
local core = require "moonbird.core.backfill"
local error_ = require "moonbird.core.error"
local one = require "moonbird.exec.tenants.one"
local signals = require "moonbird.exec.backfill.signals"
local survey_of = require "moonbird.exec.tenants.survey"
local task = require "moonbird.core.task"

local M = {}

-- Milliseconds: a turn; how long a tenant is left alone that is paused from elsewhere, or failed for a moment.
local SLICE, LATER = 1000, 500

-- Attempts at a tenant whose connection or lock fails.
local ATTEMPTS = 5

---@class moonbird.backfill.tenants
---@field waiting table[] tenants, the one that waits longest first
---@field finished table[]
---@field failures { tenant: table, err: moonbird.error }[]
---@field left table[] tenants with work that remains

--- What a tenant's turn is told (run.backfill): begin only, or run batches for a while.
local function settings_of(context, tenant)
  local settings = context.settings
  local begin = not tenant.begun
  local left = context.until_ and context.until_ - task.now() or math.huge
  local turn = { restart = settings.restart, adopt = settings.adopt, observer = context.observer,
    restarted = context.restarted, one_worker = true, max_runtime = math.max(1, math.min(SLICE, left)) }
  function turn.throttle(job)
    tenant.begun = true
    if begin then
      job:stop(error_.new("unfinished", "it has begun"), "paused")
      return nil
    end
    return signals.throttle(job)
  end
  return turn
end

--- A tenant's database for one turn: the run is told what the turn is.
local function database_of(database, settings)
  local run = setmetatable({ backfill = settings }, { __index = database.run })
  return setmetatable({ run = run }, { __index = database, __newindex = database })
end

--- Whether somebody has said that the tenant's backfill is to wait.
local function paused(context, database, session, tenant)
  local state = core.new(database.run.journal):find(session, tenant.name, context.stage.steps[1].migration.version)
  return state and state.want == "pause"
end

--- One turn -> "done", "again" or "later"; or nil and an error.
local function turn(context, tenant)
  local survey, database = context.survey, tenant.database
  local session, err = survey.pool:take(database)
  if not session then
    return nil, err
  end
  tenant.session = session
  local ok, result
  ok, err = survey_of.prepare(database, session)
  if ok and tenant.begun and paused(context, database, session, tenant) then
    result = "later"
  elseif ok then
    tenant.stale = true -- another runner may have been at it since
    local done
    done, err = one.attempt(database_of(database, settings_of(context, tenant)), tenant, context.stage, session,
      context.gate)
    if done and not err then
      result = "done"
    elseif err.code == "unfinished" then
      result, err = "again", nil
    end
  end
  session, tenant.session = tenant.session, nil
  survey.pool:give(database, session)
  return result, err
end

local function fail(context, tenant, err)
  context.failures[#context.failures + 1] = { tenant = tenant, err = err }
  tenant.failed = true
  context.report:log("error", ("%s: %s"):format(tenant.name, tostring(err)))
end

local function put_back(context, tenant, ms)
  tenant.not_before = ms and task.now() + ms or nil
  table.insert(context.waiting, tenant)
end

--- Takes in what a turn came to.
local function settle(context, tenant, result, err)
  if result == "done" then
    tenant.finished = true
    context.finished[#context.finished + 1] = tenant
    context.ended[#context.ended + 1] = tenant.name
  elseif result then
    tenant.attempts = 0
    put_back(context, tenant, result == "later" and LATER or nil)
  elseif err.code == "interrupted" or err.code == "timeout" then
    context.stopped = context.stopped or err
    put_back(context, tenant)
  else
    tenant.attempts = (tenant.attempts or 0) + 1
    if one.retryable(err) and tenant.attempts < ATTEMPTS then
      put_back(context, tenant, LATER * tenant.attempts)
    else
      fail(context, tenant, err)
    end
  end
end

--- The tenant that has waited longest: none that has begun while others have not.
local function take(context)
  local now = task.now()
  local unbegun = false
  for _, tenant in ipairs(context.waiting) do
    unbegun = unbegun or not tenant.begun
  end
  for i, tenant in ipairs(context.waiting) do
    if (not tenant.not_before or tenant.not_before <= now) and not (unbegun and tenant.begun)
      and (unbegun or context.beginning == 0) then
      return table.remove(context.waiting, i)
    end
  end
end

local function slot(context)
  while not context.stopped do
    if context.until_ and task.now() >= context.until_ then
      return
    end
    local tenant = take(context)
    if tenant then
      local begins = not tenant.begun
      context.beginning = context.beginning + (begins and 1 or 0)
      context.running = context.running + 1
      local ok, result, err = xpcall(turn, function(raised)
        return error_.from(raised, type(raised) == "string" and "internal" or nil)
      end, context, tenant)
      context.running = context.running - 1
      context.beginning = context.beginning - (begins and 1 or 0)
      if not ok then
        result, err = nil, result
        context.survey.pool:abandon(tenant)
      end
      settle(context, tenant, result, err)
    elseif #context.waiting == 0 and context.running == 0 then
      return
    else
      local ok, err = task.sleep(20)
      if not ok then
        context.stopped = context.stopped or err
        return
      end
    end
  end
end

local function run_slots(context)
  local slots = {}
  for i = 1, math.max(1, math.min(context.jobs, #context.waiting)) do
    slots[i] = task.spawn(slot, context)
  end
  for _, job in ipairs(slots) do
    repeat
      local _, err = job:join()
      if err and not job:done() then -- this task was asked to stop: batches under way end first
        context.stopped = context.stopped or err
        for _, other in ipairs(slots) do
          other:cancel(err.code)
        end
      elseif err then
        context.stopped = context.stopped or err
      end
    until job:done()
  end
end

--- Runs one backfill over tenants.
---@param survey moonbird.tenants.survey with states read
---@param stage moonbird.tenants.stage of this one migration
---@param tenants table[] that lack it
---@param options { jobs: integer, until_?: integer, settings: table, observer?: table, gate?: moonbird.gate,
---       report: moonbird.reporter }
---@return moonbird.backfill.tenants
---@return moonbird.error? err what ended it early; failures of tenants are no such thing
function M.run(survey, stage, tenants, options)
  local context = { survey = survey, stage = stage, jobs = options.jobs, until_ = options.until_,
    settings = options.settings, observer = options.observer, gate = options.gate, report = options.report,
    waiting = table.move(tenants, 1, #tenants, 1, {}), finished = {}, failures = {}, ended = {}, restarted = {},
    running = 0, beginning = 0 }
  for _, tenant in ipairs(tenants) do
    tenant.begun, tenant.attempts, tenant.not_before = nil, nil, nil
  end
  survey.pool:expect(options.jobs * 2, 2)
  local releases = {}
  for _, database in ipairs(survey.databases) do
    releases[#releases + 1] = signals.keep(database.run)
  end
  run_slots(context)
  for _, release in ipairs(releases) do
    release()
  end
  context.left = context.waiting
  local flushed, err = survey:flush()
  if context.stopped then
    return context, context.stopped
  end
  return context, not flushed and err or nil
end

return M
