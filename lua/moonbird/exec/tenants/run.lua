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
---@field steps? integer at most so many versions
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
  local unknown, wanted = false, {}
  for _, tenant in ipairs(survey.tenants) do
    if not tenant.failed then
      unknown = unknown or tenant.state == nil
      wanted[#wanted + 1] = tenant
    end
  end
  if unknown then
    return entries
  end
  local states, list = histories(wanted), {}
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
  local changed = one.changed(stage, tenant.state)
  if changed then
    return "late", changed
  elseif highest > newest then
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
    if tenant.failed then -- in an earlier stage: it is not jumped ahead
      out.failed = (out.failed or 0) + 1
    elseif not state then
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
    max_failures = wave.canary and not options.keep_going and 0 or most, -- a canary that fails has done its work
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
  local waiting = table.move(wave.tenants, 1, #wave.tenants, 1, {}) -- the queue takes it apart
  local queue = queue_of.new(waiting, budget_of(context, wave), context.failures)
  context.report:wave_started(wave, queue, count)
  local _, err = stage_of.run_wave {
    queue = queue, pool = survey.pool, stage = stage, gate = options.gate, report = context.report,
    attempts = survey.settings.attempts, jobs = options.jobs or survey.settings.jobs, prepare = survey_of.prepare,
    record_failure = recorder(survey, stage.direction),
  }
  local _, flush_err = survey:flush()
  for _, tenant in ipairs(wave.tenants) do
    if tenant.finished and tenant.steps and not context.migrated[tenant.name] then
      context.migrated[tenant.name] = true
      context.finished = context.finished + 1
    end
  end
  for _, failure in ipairs(queue.failures) do
    context.failed[failure.tenant.name] = true
  end
  table.move(queue.failures, 1, #queue.failures, #context.failures + 1, context.failures)
  local left = queue:left()
  table.move(left, 1, #left, #context.left + 1, context.left)
  context.report:wave_ended(wave, queue)
  context.halted = context.halted or queue.halted
  return err or flush_err
end

--- The waves, each with those of its tenants that have something to do. Who is in which is decided over all tenants,
--- so that a run made again has the same canaries.
---@param context table
---@param tenants moonbird.tenant[] that have something to do
---@return table[]? waves none is empty
---@return moonbird.error? err
function M.waves(context, tenants)
  local options, settings = context.options, context.survey.settings
  local shares = options.canary or (options.deploy and settings.deploy_canary) or settings.canary or {}
  local all, err = select_.waves(context.survey.tenants, shares, context.survey.all)
  if not all then
    return nil, err
  end
  local wanted, waves = {}, {}
  for _, tenant in ipairs(tenants) do
    wanted[tenant] = true
  end
  for _, wave in ipairs(all) do
    local own = {}
    for _, tenant in ipairs(wave.tenants) do
      own[#own + 1] = wanted[tenant] and tenant or nil
    end
    wave.tenants = own
    waves[#waves + 1] = own[1] and wave or nil
  end
  return waves
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

--- Sorts the tenants for a stage, and notes those that are not run; with their states whole where somebody is.
local function look_over(context, stage)
  local survey = context.survey
  local out = M.sort_out(context, stage)
  if #out.behind + #out.late > 0 and survey.partial then
    local ok, err = survey:read_states() -- now it matters where each one's chain ends
    if not ok then
      return nil, err
    end
    out = M.sort_out(context, stage)
  end
  context.pinned, context.ahead = out.pinned, out.ahead
  for _, tenant in ipairs(out.late) do
    tenant.failed, context.failed[tenant.name] = true, true
    context.failures[#context.failures + 1] = { tenant = tenant, err = tenant.why }
  end
  return out
end

--- Runs a stage over the tenants -> err.
local function run_tenant_stage(context, migrations)
  local options = context.options
  local stage = M.make_stage(context, migrations, "up")
  local out, failed = look_over(context, stage)
  if failed then
    return failed
  elseif #out.behind == 0 then
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

--- A version that somebody named has to be somewhere: a file, or applied to any chosen target.
local function unknown(context)
  local to = context.options.to
  if not to or context.target.state.applied[to] then
    return nil
  end
  for _, entry in ipairs(context.entries) do
    if entry.version == to then
      return nil
    end
  end
  for _, state in ipairs(histories(context.survey.tenants)) do
    if state.applied[to] then
      return nil
    end
  end
  return error_.new("usage", ("there is no migration %d"):format(to), { hint = "`moonbird status` lists them" })
end

--- The pending global migrations, and what is held back.
local function pending_global(context)
  local err = unknown(context)
  if err then
    return nil, err
  end
  local entries, to = {}, context.options.to
  for _, entry in ipairs(context.global) do
    local wanted = not to or entry.version <= to or context.target.state.applied[entry.version]
    entries[#entries + 1] = wanted and entry or nil
  end
  local steps, comparison
  steps, err, comparison = apply.plan_up(context.target, entries, { allow = context.options.allow,
    allow_out_of_order = context.options.allow_out_of_order })
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
    ok, err = survey:read_states { quick = true }
  end
  if not ok then
    return err
  end
  local global, own = survey:split(context.entries, context.target.state)
  if not global then
    return own
  end
  context.global, context.own = global, own
  for _, tenant in ipairs(survey.tenants) do
    tenant.failed = context.failed[tenant.name]
  end
end

--- What a run keeps.
---@param run moonbird.run
---@param target moonbird.target the global one
---@param entries table[] the registry
---@param options moonbird.tenants.options
---@return table context done, failures, left, finished, current, pinned, ahead, held, halted, survey
function M.context(run, target, entries, options)
  return { run = run, target = target, entries = entries, options = options, report = options.report,
    done = {}, failures = {}, left = {}, finished = 0, current = 0, pinned = {}, ahead = {}, held = {},
    migrated = {}, failed = {} }
end

--- The version of the last of the first so many migrations.
local function last_of(global, tenant, count)
  local versions = {}
  for _, list in ipairs { global, tenant } do
    for _, migration in ipairs(list) do
      versions[#versions + 1] = migration.version
    end
  end
  table.sort(versions)
  return versions[math.min(count, #versions)] or 0
end

local function upto(migrations, limit)
  local list = {}
  for _, migration in ipairs(migrations) do
    list[#list + 1] = (not limit or migration.version <= limit) and migration or nil
  end
  return list
end

--- Lists the tenants and tells what is pending. Changes nothing. context.survey is to be closed.
---@param context table
---@param settings moonbird.tenants.settings
---@return table[]? global pending global migrations, in order
---@return table[]|moonbird.error tenant migrations that some tenant lacks, in order; or what went wrong
function M.look(context, settings)
  local global, tenant
  local err = look(context, settings)
  context.held = {}
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
  if context.options.steps and not context.limit then -- decided once: a later look has less pending
    context.limit = last_of(global, tenant, context.options.steps - #context.done)
  end
  return upto(global, context.limit), upto(tenant, context.limit)
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

--- The global target's session served as a slot meanwhile, and may be gone -> err.
local function revive(target)
  if not target.session.doomed and target.session:state() ~= "closed" then
    return nil
  end
  local ok, err = target:reconnect()
  if ok then
    ok, err = target:refresh()
  end
  return not ok and err or nil
end

--- Tenants with nothing to do.
local function count_current(context)
  local others = context.finished + #context.pinned + #context.ahead
  for name in pairs(context.failed) do
    others = others + (context.migrated[name] and 0 or 1)
  end
  for _, tenant in ipairs(context.left) do
    others = others + (context.migrated[tenant.name] and 0 or 1)
  end
  context.current = math.max(0, #context.survey.tenants - others)
end

--- Runs stages until there is nothing to do, planning anew after each global one: it may have made tenants.
local function run_stages(context, settings, global, tenant)
  local options = context.options
  local some = (options.tenant and #options.tenant > 0) or (options.exclude and #options.exclude > 0)
  while true do
    local stages = stages_of.make(global, tenant)
    local at = 1
    if #tenant == 0 then -- no stage looks at them
      local _, err = look_over(context, M.make_stage(context, {}, "up"))
      if err then
        return err
      end
    elseif stages[1].scope == "tenant" then
      at = 2
      local err = run_tenant_stage(context, stages[1].migrations)
      if err or context.halted then
        return err
      end
    end
    local stage = stages[at]
    if not stage or barrier_closed(context, tenant) then
      return nil
    elseif some then
      return stages[at + 1] and barred(stage.migrations[1]) or nil
    end
    local err = context.run:expired() or task.take_cancel() or revive(context.target)
      or run_global_stage(context, stage.migrations)
    if err then
      return err
    end
    global, tenant = M.look(context, settings)
    if not global then
      return tenant
    end
  end
end

--- In a new environment a source may be made by a migration (the table that tenants.query reads): applies the
--- pending global ones that come before every tenant migration.
---@return true|moonbird.error|nil err nil: something was applied; true: there is nothing to apply
local function make_sources(context)
  local target, only, any = context.target, {}, false
  local ok, err = target:refresh()
  if not ok then
    return err
  end
  local global = {}
  for _, entry in ipairs(context.entries) do
    local row = target.state.applied[entry.version]
    local migration = not row and registry.load(entry)
    if migration and migration.scope == "tenant" then
      break
    end
    global[#global + 1] = entry
    if migration then
      only[entry.version], any = true, true
    end
  end
  if not any then
    return true
  end
  local done, failed, so_far = apply.run(target, global, "up", { only = only, allow = context.options.allow,
    allow_out_of_order = context.options.allow_out_of_order })
  table.move(done or so_far, 1, #(done or so_far), #context.done + 1, context.done)
  if not done then
    return failed
  end
  return #done == 0 or nil
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
  if not global and not context.survey then
    err = make_sources(context)
    if err then
      return context, err == true and tenant or err
    end
    global, tenant = M.look(context, settings)
  end
  if not global then
    return context, tenant
  end
  context.report:begin(context.survey, context)
  if options.fleet then
    return context, options.fleet(context, stages_of.make(global, tenant))
  end
  err = run_stages(context, settings, global, tenant)
  count_current(context)
  return context, err
end

-- The parts of a stage that a worker of a fleet (exec/fleet) does in its own order.
M.budget_of, M.recorder, M.global_stage, M.barred = budget_of, recorder, run_global_stage, barred
M.look_over = look_over

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
  local halted = context.halted and (context.halted:find("^at ") and "stopped " or "stopped: ") .. context.halted
  return error_.new("tenants", ("%d of %s failed%s"):format(failed, text.count(total, "tenant"),
    left > 0 and (", %d not run"):format(left) or ""), { detail = halted })
end

return M
