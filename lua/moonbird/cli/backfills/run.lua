--- moonbird backfill run: a job of its own that does backfills, for as long as it may.
local apply = require "moonbird.exec.apply"
local control = require "moonbird.exec.backfill.control"
local error_ = require "moonbird.core.error"
local json = require "moonbird.core.json"
local places = require "moonbird.cli.backfills.places"
local plan = require "moonbird.plan.plan"
local project = require "moonbird.cli.project"
local registry = require "moonbird.migration.registry"
local report_of = require "moonbird.report.backfill"
local task = require "moonbird.core.task"
local tenants = require "moonbird.cli.tenants.common"
local text = require "moonbird.util.text"
local up = require "moonbird.cli.command.up"

local M = {}

--- Which backfills the words mean -> set of versions; nil for all.
local function wanted(words, entries)
  local set = {}
  for _, word in ipairs(words) do
    local entry, err = places.entry(word, entries)
    if not entry then
      return nil, err
    end
    set[entry.version] = true
  end
  return #words > 0 and set or nil
end

--- Parts the backfills that may run from those that wait for an older migration.
local function choose(entries, target, only)
  local migrations, err = registry.load_all(plan.compare(entries, target.state).pending)
  if not migrations then
    return nil, err
  end
  local blocker = {}
  local chosen, own, waiting = {}, {}, {}
  for _, migration in ipairs(migrations) do
    local tenant = migration.scope == "tenant"
    if migration.backfill and (not only or only[migration.version]) then
      if tenant then
        own[#own + 1] = migration -- each tenant's own history decides
      elseif blocker.global then
        waiting[#waiting + 1] = { file = migration.file, message = ("%s waits for %s, which is not applied"):format(
          migration.id, blocker.global.id) }
      else
        chosen[#chosen + 1] = migration
      end
    elseif not migration.backfill and not tenant and migration.phase ~= "contract" then
      blocker.global = blocker.global or migration
    end
  end
  return chosen, own, waiting
end

local function waits(waiting)
  return error_.new("pending", ("%s for an older migration"):format(text.count(#waiting, "backfill waits",
    "backfills wait")), { problems = waiting, hint = "`moonbird up --backfills skip` applies what is not a backfill" })
end

--- Runs those of the global target.
local function run_global(target, entries, chosen, gate)
  local only = {}
  for _, migration in ipairs(chosen) do
    only[migration.version] = true
  end
  if #chosen == 0 then
    return {}
  end
  -- What is older and not asked for is not "out of order" here: it was looked at already.
  return apply.run(target, entries, "up", { only = only, allow = gate.allow, allow_out_of_order = true,
    backfills = "only" })
end

--- Tenants that lack a backfill, and those that lack something before it.
local function lacking(survey, migration, all)
  local ready, behind = {}, {}
  for _, tenant in ipairs(survey.tenants) do
    local applied = tenant.state and tenant.state.applied or {}
    local missing
    for _, other in ipairs(all) do
      if other.version < migration.version and not other.backfill and other.phase ~= "contract"
        and not applied[other.version] then
        missing = missing or other
      end
    end
    if tenant.state and applied[migration.version] then
      tenant.only = nil
    elseif missing then
      behind[#behind + 1] = { message = ("%s: %s waits for %s, which is not applied"):format(tenant.name, migration.id,
        missing.id) }
    else
      tenant.only = { [migration.version] = true }
      ready[#ready + 1] = tenant
    end
  end
  return ready, behind
end

--- Runs those of tenants, one backfill after the other, each over all of them.
local function run_tenants(args, report, run, target, entries, own, settings, gate)
  local stage_of = require "moonbird.exec.tenants.stage"
  local turns = require "moonbird.exec.backfill.tenants"
  return tenants.with_survey(args, run, target, settings, nil, function(survey)
    local ok, err = tenants.ensure_journal(run, target)
    if ok then
      ok, err = survey:read_states { alone = true }
    end
    if not ok then
      return nil, err
    end
    local _, tenant_entries = survey:split(entries, target.state)
    local all
    all, err = registry.load_all(tenant_entries)
    if not all then
      return nil, err
    end
    local result = { done = json.array {}, failed = json.array {}, left = json.array {},
      waiting = json.array {} }
    local observer = report_of.new(report, require "moonbird.exec.backfill.quiet")
    for _, migration in ipairs(own) do
      local ready, behind = lacking(survey, migration, all)
      table.move(behind, 1, #behind, #result.waiting + 1, result.waiting)
      local stage = stage_of.make({ run = run, survey = survey, own = tenant_entries }, { migration }, "up")
      err = #ready > 0 and gate:before(target, stage.steps, entries) or nil
      if err then
        return nil, err
      end
      local context
      context, err = turns.run(survey, stage, ready, { jobs = args.jobs or settings.jobs, until_ = args.until_,
        settings = { restart = args.restart, adopt = args.adopt }, observer = observer, gate = gate, report = report })
      for _, tenant in ipairs(context.finished) do
        result.done[#result.done + 1] = { tenant = tenant.name, migration = migration.id }
      end
      for _, item in ipairs(context.failures) do
        result.failed[#result.failed + 1] = { tenant = item.tenant.name, migration = migration.id,
          error = item.err.message, sqlstate = item.err.sqlstate }
      end
      for _, tenant in ipairs(context.left) do
        result.left[#result.left + 1] = { tenant = tenant.name, migration = migration.id }
      end
      report:print(("%s: done on %s%s%s"):format(migration.id, text.count(#context.finished, "tenant"),
        #context.failures > 0 and (", failed on %d"):format(#context.failures) or "",
        #context.left > 0 and (", %d left"):format(#context.left) or ""))
      if err then
        return result, err
      end
    end
    return result
  end)
end

local function tenant_outcome(result)
  if #result.failed > 0 then
    return error_.new("tenants", ("%s failed"):format(text.count(#result.failed, "tenant")),
      { hint = "mend what the messages name and run again: the others' work is kept" })
  elseif #result.left > 0 then
    return error_.new("unfinished", ("the time for the backfill is over and work remains on %s"):format(
      text.count(#result.left, "tenant")), { hint = "run it again: it goes on from here" })
  elseif #result.waiting > 0 then
    return waits(result.waiting)
  end
end

local function work(args, report, run, target, entries, gate)
  local settings, err = tenants.settings(run.config, args)
  if err then
    return nil, err
  end
  local only
  only, err = wanted(args.words, entries)
  if err then
    return nil, err
  end
  local chosen, own, waiting = choose(entries, target, only)
  if not chosen then
    return nil, own
  end
  if tenants.some(args) then
    chosen, waiting = {}, {}
  end
  run.gate = gate
  run.backfill = control.settings({ restart = args.restart, adopt = args.adopt, workers = args.workers,
    max_runtime = args.max_runtime, observer = report_of.new(report, require "moonbird.exec.backfill.quiet") })
  args.until_ = args.max_runtime and task.now() + args.max_runtime or nil
  local done, failure, so_far = run_global(target, entries, chosen, gate)
  local result = { target = target.name, run = run.id, steps = up.done_data(so_far or done or {}) }
  if not done then
    return result, failure
  end
  if settings and #own > 0 then
    result.tenants, failure = run_tenants(args, report, run, target, entries, own, settings, gate)
    failure = failure or tenant_outcome(result.tenants)
  elseif #own > 0 then
    failure = select(2, tenants.settings(run.config, args, true))
  end
  if not failure and #waiting > 0 then
    failure = waits(waiting)
  end
  if not failure and #chosen + #own == 0 then
    report:print(only and "nothing to do: it is done" or "nothing to do: no backfill is pending")
  elseif not failure and #done > 0 then
    report:print(("%s done"):format(text.count(#done, "backfill")))
  end
  return result, failure
end

--- Runs what is pending of the backfills.
---@param args table words: versions; max_runtime, workers, restart, adopt, jobs, tenant, exclude
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err code "unfinished" (75) when its time is over and work remains
function M.run(args, report)
  local conf, gate, err = up.gate(args)
  if not gate then
    return nil, err
  end
  return project.with_target(args, report, { config = conf, files = true }, function(run, target, entries)
    return work(args, report, run, target, entries, gate)
  end)
end

return M
