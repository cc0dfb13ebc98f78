--- A tenant stage in waves: who is in which, what each may lose, what stands between two of them.
local error_ = require "moonbird.core.error"
local one = require "moonbird.exec.tenants.one"
local queue_of = require "moonbird.exec.tenants.queue"
local select_ = require "moonbird.tenants.select"
local settings_of = require "moonbird.tenants.settings"
local stage_of = require "moonbird.exec.tenants.stage"
local survey_of = require "moonbird.exec.tenants.survey"
local task = require "moonbird.core.task"

local M = {}

-- Equal errors at the same statement that stop a canary.
local SAME_IN_CANARY = 3

--- How many tenants the whole run may lose.
local function most_failures(context)
  local share = context.options.max_failures or context.survey.settings.max_failures
  return context.options.keep_going and math.huge or settings_of.count(share, #context.survey.tenants)
end

--- What a wave may lose before no more of it are begun.
---@param context moonbird.tenants.context
---@param wave table of M.make
---@return moonbird.tenants.budget
function M.budget(context, wave)
  local settings, options = context.survey.settings, context.options
  return {
    -- a canary that fails has done its work
    max_failures = wave.canary and not options.keep_going and 0 or most_failures(context),
    max_consecutive = options.keep_going and math.huge or settings.max_consecutive,
    same_error = wave.canary and SAME_IN_CANARY or nil,
  }
end

--- Asks what is configured whether the tenants that are done are well -> err.
local function ask_health(context)
  local health = context.survey.settings.health
  if health then
    return select(2, require("moonbird.exec.tenants.health").check(context, health))
  end
end

--- What stands between two waves: a pause, a check, a person.
local function pass_gate(context, wave, next_wave)
  local settings = context.survey.settings
  context.report:wave_done(wave, next_wave)
  if settings.soak > 0 then
    local ok, err = task.sleep(settings.soak)
    if not ok then
      return nil, err
    end
  end
  local err = ask_health(context)
  if err then
    return nil, err
  end
  if settings.gate == "manual" then
    return nil, error_.new("pending", ("%s is done; the next waits for a person"):format(wave.name),
      { hint = "look at the tenants, then run the same command again: it goes on behind what is done" })
  end
  return true
end

--- What journals the failures of steps under their tenants.
---@param survey moonbird.tenants.survey
---@param direction "up"|"down"
---@return fun(tenant: moonbird.tenant, err: moonbird.error)
function M.recorder(survey, direction)
  return function(tenant, err)
    if err.code == "locked" or err.code == "history_moved" or err.code == "connection_lost" or not err.migration then
      return
    end
    local run = tenant.database.run
    local ok, why = survey:with_session(tenant.database, function(session)
      local head = tenant.state and tenant.state.head or 0
      local version = err.migration:match("^%d+")
      return run.journal:append(session, tenant.name, head, run:event {
        event = "fail", outcome = "failed", version = math.tointeger(tonumber(version)), version_text = version,
        id = err.migration, direction = direction, sqlstate = err.sqlstate, error = err.message, scope = "tenant" })
    end)
    if not ok then
      run.report:log("warn", ("%s: the failure could not be journaled: %s"):format(tenant.name, tostring(why)))
    end
  end
end

--- What was not begun when a run ends in the middle of a stage.
local function leave(context, waves, from)
  for i = from, #waves do
    table.move(waves[i].tenants, 1, #waves[i].tenants, #context.left + 1, context.left)
  end
end

--- Runs tenants of a wave through slots -> err.
local function run_plain(context, stage, wave, tenants, count)
  local options, survey = context.options, context.survey
  local queue = queue_of.new(tenants, M.budget(context, wave), context.failures) -- it takes the list apart
  context.report:wave_started(wave, queue, count)
  local _, err = stage_of.run_wave {
    queue = queue, pool = survey.pool, stage = stage, gate = options.gate, report = context.report,
    attempts = survey.settings.attempts, jobs = options.jobs or survey.settings.jobs, prepare = survey_of.prepare,
    record_failure = M.recorder(survey, stage.direction),
  }
  local _, flush_err = survey:flush()
  for _, failure in ipairs(queue.failures) do
    context.failed[failure.tenant.name] = true
  end
  table.move(queue.failures, 1, #queue.failures, #context.failures + 1, context.failures)
  table.move(queue.passed, 1, #queue.passed, #context.ahead + 1, context.ahead)
  local left = queue:left()
  table.move(left, 1, #left, #context.left + 1, context.left)
  context.report:wave_ended(wave, queue)
  context.halted = context.halted or queue.halted
  return err or flush_err
end

--- Runs one backfill over tenants of a wave, which take turns -> err.
local function run_backfill(context, stage, wave, tenants)
  local options, survey, said = context.options, context.survey, context.run.backfill or {}
  local record = M.recorder(survey, stage.direction)
  local turns, err = require("moonbird.exec.backfill.tenants").run(survey, stage, tenants, {
    jobs = options.jobs or survey.settings.jobs, settings = { restart = said.restart, adopt = said.adopt },
    observer = said.observer, gate = options.gate, report = context.run.report })
  for _, failure in ipairs(turns.failures) do
    context.failed[failure.tenant.name] = true
    context.failures[#context.failures + 1] = failure
    record(failure.tenant, failure.err)
  end
  table.move(turns.left, 1, #turns.left, #context.left + 1, context.left)
  local most = M.budget(context, wave).max_failures
  if #context.failures > most then
    context.halted = context.halted or (most == 0 and "at the first failure" or ("more than %d failed"):format(most))
  end
  return err
end

--- The tenants of a wave that a part of the stage is for: none that has failed, or that lacks nothing of it.
local function for_part(context, wave, part)
  local list = {}
  for _, tenant in ipairs(wave.tenants) do
    local lacks = not tenant.state or #one.lacking(part, tenant) > 0
    list[#list + 1] = lacks and not context.failed[tenant.name] and tenant or nil
  end
  return list
end

local function run_wave(context, stage, wave, count)
  local parts, err = stage_of.parts(stage), nil
  for _, part in ipairs(parts) do
    local tenants = for_part(context, wave, part)
    if #tenants > 0 then
      err = (part.backfill and run_backfill or run_plain)(context, part, wave, tenants, count)
    end
    if err or context.halted then
      break
    end
  end
  local left = {}
  for _, tenant in ipairs(context.left) do
    left[tenant] = true
  end
  for _, tenant in ipairs(wave.tenants) do
    local well = not left[tenant] and not context.failed[tenant.name]
    if well and tenant.finished and tenant.steps and not context.migrated[tenant.name] then
      context.migrated[tenant.name] = true
      context.finished = context.finished + 1
    end
  end
  return err
end

--- The waves, each with those of its tenants that have something to do. Who is in which is decided over all tenants,
--- so that a run made again has the same canaries.
---@param context moonbird.tenants.context
---@param tenants moonbird.tenant[] that have something to do
---@return table[]? waves none is empty; `behind_canary`: a canary before it has nothing to do, an earlier run did it
---@return moonbird.error? err
function M.make(context, tenants)
  local options, settings = context.options, context.survey.settings
  local shares = options.canary or (options.deploy and settings.deploy_canary) or settings.canary or {}
  local all, err = select_.waves(context.survey.tenants, shares, context.survey.all)
  if not all then
    return nil, err
  end
  local wanted, waves, behind = {}, {}, false
  for _, tenant in ipairs(tenants) do
    wanted[tenant] = true
  end
  for _, wave in ipairs(all) do
    local own = {}
    for _, tenant in ipairs(wave.tenants) do
      own[#own + 1] = wanted[tenant] and tenant or nil
    end
    behind = behind or wave.canary and #wave.tenants > 0 and not own[1]
    wave.tenants, wave.behind_canary = own, behind
    waves[#waves + 1] = own[1] and wave or nil
  end
  return waves
end

--- Runs tenants through a stage, wave by wave.
---@param context moonbird.tenants.context
---@param stage moonbird.tenants.stage
---@param tenants moonbird.tenant[]
---@return moonbird.error? err
function M.run(context, stage, tenants)
  local waves, err = M.make(context, tenants)
  if not waves then
    return err
  end
  local failed, most = #context.failures, most_failures(context)
  if failed > most then -- tenants that can't be begun as they are: refused files, late migrations
    context.halted = ("%s before the first was begun"):format(most == 0 and "tenants failed"
      or ("more than %d failed"):format(most))
    leave(context, waves, 1)
    return nil
  end
  if waves[1] and waves[1].behind_canary then -- the run that did the canaries may have ended at this very check
    err = ask_health(context)
    if err then
      leave(context, waves, 1)
      return err
    end
  end
  for i, wave in ipairs(waves) do
    err = run_wave(context, stage, wave, #waves)
    if not err and not context.halted and waves[i + 1] then
      local _
      _, err = pass_gate(context, wave, waves[i + 1])
    end
    if err or context.halted then
      leave(context, waves, i + 1)
      return err
    end
  end
end

return M
