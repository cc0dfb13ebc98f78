--- A run over the global target and its tenants: stages in the order of versions, each tenant stage in waves.
local apply = require "moonbird.exec.apply"
local error_ = require "moonbird.core.error"
local one = require "moonbird.exec.tenants.one"
local plan = require "moonbird.plan.plan"
local queue_of = require "moonbird.exec.tenants.queue"
local registry = require "moonbird.migration.registry"
local select_ = require "moonbird.tenants.select"
local settings_of = require "moonbird.tenants.settings"
local stage_of = require "moonbird.exec.tenants.stage"
local stages_of = require "moonbird.plan.stages"
local survey_of = require "moonbird.exec.tenants.survey"
local task = require "moonbird.core.task"
local text = require "moonbird.util.text"

local M = {}

-- A lock that a tenant can't have is tried again later; meanwhile others go on.
local LOCK_TIMEOUT = 1000

-- Equal errors at the same statement that stop a canary.
local SAME_IN_CANARY = 3

---@class moonbird.tenants.options
---@field to? integer
---@field allow table contract, breaking
---@field allow_out_of_order? boolean
---@field tenant? string[]
---@field exclude? string[]
---@field shard? string
---@field jobs? integer
---@field canary? table[] shares
---@field max_failures? { count?: integer, percent?: number }
---@field keep_going? boolean
---@field deploy? boolean the defaults of `deploy`
---@field report moonbird.report.tenants
---@field gate? moonbird.gate
---@field every_state? boolean read the states of all tenants first, also of those in databases of their own
---@field fleet? fun(context: table, stages: moonbird.stage[]): moonbird.error? does it with other processes

--- The distinct histories of the tenants, so that what is asked of a history is asked once.
local function histories(tenants)
  local seen, list = {}, {}
  for _, tenant in ipairs(tenants) do
    local key = tenant.state and (tenant.state.hash or tenant.state.applied)
    if key and not seen[key] then
      seen[key] = true
      list[#list + 1] = tenant.state
    end
  end
  return list
end

--- Versions of tenant migrations that somebody may lack; all of them when a tenant's state is not known yet.
local function lacked(survey, entries)
  local unknown = false
  for _, tenant in ipairs(survey.tenants) do
    unknown = unknown or tenant.state == nil
  end
  if unknown then
    return entries
  end
  local states, list = histories(survey.tenants), {}
  for _, entry in ipairs(entries) do
    for _, state in ipairs(states) do
      if not state.applied[entry.version] then
        list[#list + 1] = entry
        break
      end
    end
  end
  return list
end

--- A tenant that a newer release has been at: an older one keeps its hands off.
local function newest_of(entries)
  return entries[#entries] and entries[#entries].version or -1
end

--- What stops a tenant before anything is done to it: a newer release, its pin, migrations that come late.
local function judge(tenant, stage, newest, options)
  local highest = -1
  for version in pairs(tenant.state.applied) do
    highest = math.max(highest, version)
  end
  local steps, pin = one.lacking(stage, tenant)
  if highest > newest then
    return "ahead", highest
  elseif #steps == 0 then
    return pin and "pinned" or "current", pin
  end
  for _, step in ipairs(steps) do
    if step.migration.version < highest and step.migration.phase ~= "contract" and not options.allow_out_of_order then
      return "late", error_.new("out_of_order", ("%s is pending, but %d is applied already"):format(step.migration.id,
        highest), { migration = step.migration.id, target = tenant.name,
        hint = "give it a newer version, or run with --allow-out-of-order" })
    end
  end
  return "behind"
end

--- Sorts tenants by what is to be done with them in a stage; asks once for each different history.
---@param context table
---@param stage moonbird.tenants.stage
---@return table out lists behind, pinned, ahead, late; the number of current ones
function M.sort_out(context, stage)
  local survey, newest, options = context.survey, newest_of(context.own), context.options
  local verdicts = {}
  local out = { behind = {}, pinned = {}, ahead = {}, late = {}, current = 0 }
  for _, tenant in ipairs(survey.tenants) do
    local state = tenant.state
    if not state then
      table.insert(out.behind, tenant)
    else
      local plain = #state.open == 0 and state.hash
      local verdict = plain and verdicts[plain]
      if not verdict then
        verdict = { judge(tenant, stage, newest, options) }
        if plain then
          verdicts[plain] = verdict
        end
      end
      if verdict[1] == "current" then
        out.current = out.current + 1
      else
        tenant.why = verdict[2]
        table.insert(out[verdict[1]], tenant)
      end
    end
  end
  return out
end

local function budget_of(context, wave)
  local settings, options = context.survey.settings, context.options
  local share = options.max_failures or settings.max_failures
  local most = options.keep_going and math.huge or settings_of.count(share, #context.survey.tenants)
  return {
    max_failures = wave.canary and not options.keep_going and 0 or most,
    max_consecutive = options.keep_going and math.huge or settings.max_consecutive,
    same_error = wave.canary and SAME_IN_CANARY or nil,
  }
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
  if settings.health then
    local ok, err = require("moonbird.exec.tenants.health").check(context, settings.health)
    if not ok then
      return nil, err
    end
  end
  if settings.gate == "manual" then
    return nil, error_.new("pending", ("%s is done; the next waits for a person"):format(wave.name),
      { hint = "look at the tenants, then run the same command again: it goes on behind what is done" })
  end
  return true
end

--- The failures of the steps are journaled under their tenants.
local function recorder(survey, direction)
  return function(tenant, err)
    if err.code == "locked" or err.code == "history_moved" or err.code == "connection_lost" or not err.migration then
      return
    end
    survey:with_session(tenant.database, function(session)
      local run = tenant.database.run
      local head = tenant.state and tenant.state.head or 0
      local version = err.migration:match("^%d+")
      return run.journal:append(session, tenant.name, head, run:event {
        event = "fail", outcome = "failed", version = math.tointeger(tonumber(version)), version_text = version,
        id = err.migration, direction = direction, sqlstate = err.sqlstate, error = err.message, scope = "tenant" })
    end)
  end
end

--- What was not begun when a run ends in the middle of a stage.
local function leave(context, waves, from)
  for i = from, #waves do
    table.move(waves[i].tenants, 1, #waves[i].tenants, #context.left + 1, context.left)
  end
end

local function run_wave(context, stage, wave, count)
  local options, survey = context.options, context.survey
  local queue = queue_of.new(wave.tenants, budget_of(context, wave), context.failures)
  context.report:wave_started(wave, queue, count)
  local _, err = stage_of.run_wave {
    queue = queue, pool = survey.pool, stage = stage, gate = options.gate, report = context.report,
    attempts = survey.settings.attempts, jobs = options.jobs or survey.settings.jobs, prepare = survey_of.prepare,
    record_failure = recorder(survey, stage.direction),
  }
  local _, flush_err = survey:flush()
  context.finished = context.finished + queue.finished
  table.move(queue.failures, 1, #queue.failures, #context.failures + 1, context.failures)
  local left = queue:left()
  table.move(left, 1, #left, #context.left + 1, context.left)
  context.report:wave_ended(wave, queue)
  context.halted = context.halted or queue.halted
  return err or flush_err
end

--- The waves of tenants that have something to do.
---@param context table
---@param tenants moonbird.tenant[]
---@return table[]? waves
---@return moonbird.error? err
function M.waves(context, tenants)
  local options, settings = context.options, context.survey.settings
  return select_.waves(tenants, options.canary or (options.deploy and settings.deploy_canary) or settings.canary or {})
end

--- Runs tenants through a stage, wave by wave.
---@param context table
---@param stage moonbird.tenants.stage
---@param tenants moonbird.tenant[]
---@return moonbird.error? err
function M.run_waves(context, stage, tenants)
  local waves, err = M.waves(context, tenants)
  if not waves then
    return err
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

--- Makes the steps of a tenant stage.
---@param context table
---@param migrations table[] loaded, in the order to run
---@param direction "up"|"down"
---@return moonbird.tenants.stage
function M.make_stage(context, migrations, direction)
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

--- Runs a stage over the tenants -> err.
local function run_tenant_stage(context, migrations)
  local options = context.options
  local stage = M.make_stage(context, migrations, "up")
  local out = M.sort_out(context, stage)
  context.current = math.max(context.current, out.current)
  context.pinned, context.ahead = out.pinned, out.ahead
  for _, tenant in ipairs(out.late) do
    context.failures[#context.failures + 1] = { tenant = tenant, err = tenant.why }
  end
  if #out.behind == 0 then
    return nil
  end
  local err = options.gate and options.gate:before(context.target, stage.steps, context.entries)
  if err then
    return err
  end
  context.report:stage_started(stage, #out.behind)
  return M.run_waves(context, stage, out.behind)
end

--- Whether the failures so far may hold up what is global: those of migrations with barrier = false do not.
local function barrier_closed(context, migrations)
  if #context.left > 0 then
    return true
  end
  local open = {}
  for _, migration in ipairs(migrations) do
    open[migration.id] = migration.barrier == false
  end
  for _, failure in ipairs(context.failures) do
    if not open[failure.err.migration or ""] then
      return true
    end
  end
  return false
end

local function run_global_stage(context, migrations)
  local only = {}
  for _, migration in ipairs(migrations) do
    only[migration.version] = true
  end
  local options = context.options
  local done, err, so_far = apply.run(context.target, context.global, "up", { only = only, allow = options.allow,
    allow_out_of_order = options.allow_out_of_order })
  for _, item in ipairs(done or so_far) do
    context.done[#context.done + 1] = item
  end
  return err
end

--- The pending global migrations, and what is held back.
local function pending_global(context)
  local steps, err, comparison = apply.plan_up(context.target, context.global, { to = context.options.to,
    allow = context.options.allow, allow_out_of_order = context.options.allow_out_of_order })
  if not steps then
    return nil, err
  end
  local list = {}
  for i, step in ipairs(steps) do
    list[i] = step.migration
  end
  context.held = comparison.held
  return list
end

local function pending_tenant(context)
  local entries, to = {}, context.options.to
  for _, entry in ipairs(lacked(context.survey, context.own)) do
    if not to or entry.version <= to then
      entries[#entries + 1] = entry
    end
  end
  local migrations, err = registry.load_all(entries)
  if not migrations then
    return nil, err
  end
  local runnable, held = plan.hold_back(migrations, { allow = context.options.allow })
  table.move(held, 1, #held, #context.held + 1, context.held)
  return runnable
end

local function barred(global)
  return error_.new("pending", ("%s is global and not applied: tenants wait for it"):format(global.id),
    { migration = global.id, hint = "run `moonbird up` without --tenant and --exclude first" })
end

--- Lists the tenants, reads their states, tells their files from the global ones -> err.
local function look(context, settings)
  local options = context.options
  if context.survey then
    context.survey:close()
  end
  local survey, err = survey_of.open(context.run, settings, { session = context.target.session,
    tenant = options.tenant, exclude = options.exclude, shard = options.shard })
  if not survey then
    return err
  end
  context.survey = survey
  local ok
  if options.every_state then
    ok, err = require("moonbird.exec.tenants.overview").read(survey)
  else
    ok, err = survey:read_states()
  end
  if not ok then
    return err
  end
  local global, own = survey:split(context.entries, context.target.state)
  if not global then
    return own
  end
  context.global, context.own = global, own
end

--- What a run keeps.
---@param run moonbird.run
---@param target moonbird.target the global one
---@param entries table[] the registry
---@param options moonbird.tenants.options
---@return table context done, failures, left, finished, current, pinned, ahead, held, halted, survey
function M.context(run, target, entries, options)
  return { run = run, target = target, entries = entries, options = options, report = options.report,
    done = {}, failures = {}, left = {}, finished = 0, current = 0, pinned = {}, ahead = {}, held = {} }
end

--- Lists the tenants and tells what is pending. Changes nothing. context.survey is to be closed.
---@param context table
---@param settings moonbird.tenants.settings
---@return table[]? global pending global migrations, in order
---@return table[]|moonbird.error tenant migrations that some tenant lacks, in order; or what went wrong
function M.look(context, settings)
  local global, tenant
  local err = look(context, settings)
  if not err then
    global, err = pending_global(context)
  end
  if not err then
    tenant, err = pending_tenant(context)
  end
  if err then
    return nil, err
  end
  context.target.held = context.held
  return global, tenant
end

--- What `up` would do, stage by stage. Changes nothing. context.survey is to be closed.
---@param context table its options with `every_state`
---@param settings moonbird.tenants.settings
---@return table[]? stages { scope, migrations }, those of tenants with `stage`, `out` (of sort_out), `waves`
---@return moonbird.error? err
function M.plan(context, settings)
  local global, tenant = M.look(context, settings)
  if not global then
    return nil, tenant
  end
  local stages = stages_of.make(global, tenant)
  for _, item in ipairs(stages) do
    if item.scope == "tenant" then
      local err
      item.stage = M.make_stage(context, item.migrations, "up")
      item.out = M.sort_out(context, item.stage)
      item.waves, err = M.waves(context, item.out.behind)
      if not item.waves then
        return nil, err
      end
    end
  end
  return stages
end

--- Applies what is pending, on the global target and on the tenants.
---@param run moonbird.run
---@param target moonbird.target the global one
---@param entries table[] the registry
---@param settings moonbird.tenants.settings
---@param options moonbird.tenants.options
---@return table context as M.context makes it
---@return moonbird.error? err what ended the run early; failures of tenants are no such thing
function M.up(run, target, entries, settings, options)
  local context = M.context(run, target, entries, options)
  local some = (options.tenant and #options.tenant > 0) or (options.exclude and #options.exclude > 0)
  local ok, err = require("moonbird.exec.bootstrap").ensure(target, { left = run.lock_wait })
  if not ok then
    return context, err
  end
  local closing <close> = setmetatable({}, { __close = function() -- luacheck: ignore
    if context.survey then
      context.survey:close()
    end
  end })
  local global, tenant = M.look(context, settings)
  if not global then
    return context, tenant
  end
  context.report:begin(context.survey, context)
  local stages = stages_of.make(global, tenant)
  if options.fleet then
    return context, options.fleet(context, stages)
  end
  for _, stage in ipairs(stages) do
    err = run:expired() or task.take_cancel()
    if not err and stage.scope == "global" then
      if some then
        return context, barred(stage.migrations[1])
      end
      if barrier_closed(context, tenant) then
        break
      end
      err = run_global_stage(context, stage.migrations) or look(context, settings) -- it may make tenants
    elseif not err then
      err = run_tenant_stage(context, stage.migrations)
    end
    if err then
      return context, err
    elseif context.halted then
      break
    end
  end
  return context
end

-- The parts of a stage that a worker of a fleet (exec/fleet) does in its own order.
M.budget_of, M.recorder, M.global_stage, M.barred = budget_of, recorder, run_global_stage, barred

--- The error of a run whose tenants failed; nil when none did.
---@param context table of M.up
---@return moonbird.error?
function M.failure(context)
  local failed, left = #context.failures, #context.left
  if failed == 0 and left == 0 then
    if #context.ahead > 0 then
      return error_.new("ahead", ("%s at a newer version than these files know: %s"):format(
        text.count(#context.ahead, "tenant is", "tenants are"), context.ahead[1].name), {
        hint = "a newer release has been here; deploy that one, or a newer" })
    end
    return nil
  end
  local total = #context.survey.tenants
  return error_.new("tenants", ("%d of %s failed%s"):format(failed, text.count(total, "tenant"),
    left > 0 and (", %d not run"):format(left) or ""), { detail = context.halted and "stopped: " .. context.halted })
end

return M
