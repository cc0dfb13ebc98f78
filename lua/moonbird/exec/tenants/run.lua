--- A run over the global target and its tenants: stages in the order of versions, each tenant stage in waves.
local apply = require "moonbird.exec.apply"
local context_of = require "moonbird.exec.tenants.context"
local global_ = require "moonbird.exec.tenants.global"
local patiently = require "moonbird.exec.tenants.patiently"
local pending = require "moonbird.exec.tenants.pending"
local plan = require "moonbird.plan.plan"
local stage_of = require "moonbird.exec.tenants.stage"
local stages_of = require "moonbird.plan.stages"
local task = require "moonbird.core.task"
local verdicts = require "moonbird.exec.tenants.verdicts"
local verify_of = require "moonbird.exec.tenants.verify"
local waves_of = require "moonbird.exec.tenants.waves"

local M = {}

--- Notes what is not begun when a run ends before a stage: who lacks something of it or of those behind it.
local function leave(context, stages, from)
  local noted = {}
  for _, tenant in ipairs(context.left) do
    noted[tenant.name] = true
  end
  for i = from, #stages do
    if stages[i].scope == "global" then
      context.global_left = true
    else
      local out = verdicts.sort_out(context, stage_of.make(context, stages[i].migrations, "up"))
      for _, tenant in ipairs(out.behind) do
        if not noted[tenant.name] and not context.failed[tenant.name] then
          noted[tenant.name] = true
          table.insert(context.left, tenant)
        end
      end
    end
  end
end

--- The policy looks at all stages before the first is begun, and again at each when it is its turn: a run that is
--- refused half-way would leave everybody between two versions -> err.
local function vet(context, stages)
  local gate, migrations = context.options.gate, {}
  for _, stage in ipairs(stages) do
    if stage.scope == "tenant" or not context.some then
      table.move(stage.migrations, 1, #stage.migrations, #migrations + 1, migrations)
    end
  end
  if not gate or #stages < 2 or #migrations == 0 then
    return nil
  end
  local target = context.target
  local err = gate:before(target, plan.steps(migrations, "up", target.name, target.head), context.entries)
  if err then
    leave(context, stages, 1)
  end
  return err
end

--- Runs a stage over the tenants -> err.
local function run_tenant_stage(context, migrations)
  local options = context.options
  local stage = stage_of.make(context, migrations, "up")
  local out, failed = verdicts.look_over(context, stage)
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
  return waves_of.run(context, stage, out.behind)
end

--- Runs stages until there is nothing to do, planning anew after each global one: it may have made tenants.
local function run_stages(context, settings, global, tenant)
  while true do
    local stages = stages_of.make(global, tenant)
    local at = 1
    if #tenant == 0 then -- no stage looks at them
      local _, err = verdicts.look_over(context, stage_of.make(context, {}, "up"))
      if err then
        return err
      end
    elseif stages[1].scope == "tenant" then
      at = 2
      local err = run_tenant_stage(context, stages[1].migrations)
      if err or context.halted then
        leave(context, stages, 1)
        return err
      end
    end
    local stage = stages[at]
    if not stage then
      return nil
    elseif global_.held_up(context, tenant) then
      leave(context, stages, at)
      return nil
    elseif context.some then
      return stages[at + 1] and global_.barred(stage.migrations[1]) or nil
    end
    local err = context.run:expired() or task.take_cancel() or global_.revive(context.target)
      or global_.run(context, stage.migrations)
    if err then
      leave(context, stages, at)
      return err
    end
    global, tenant = pending.look(context, settings)
    if not global then
      return tenant
    end
  end
end

--- What `up` would do, stage by stage. Changes nothing. context.survey is to be closed.
---@param context moonbird.tenants.context its options with `every_state`
---@param settings moonbird.tenants.settings
---@return table[]? stages { scope, migrations }, those of tenants with `stage`, `out` (of sort_out), `waves`
---@return moonbird.error? err
function M.plan(context, settings)
  local global, tenant = pending.look(context, settings)
  if not global then
    return nil, tenant
  end
  local stages = stages_of.make(global, tenant)
  for _, item in ipairs(stages) do
    if item.scope == "tenant" then
      local err
      item.stage = stage_of.make(context, item.migrations, "up")
      item.out = verdicts.sort_out(context, item.stage)
      item.waves, err = waves_of.make(context, item.out.behind)
      if not item.waves then
        return nil, err
      end
    end
  end
  return stages
end

--- After a deployment all is read again. Tenants that were made meanwhile are taken in, once -> err.
local function verify(context, settings)
  if context.halted or #context.failures + #context.left > 0 then
    return nil
  end
  if not context.known then
    context.known = {}
    for _, tenant in ipairs(context.survey.tenants) do
      context.known[tenant.name] = true
    end
  end
  local err, made
  context.status, err, made = verify_of.check(context, settings)
  if not made then
    return err
  end
  local global, tenant = pending.look(context, settings)
  if not global then
    return tenant
  end
  err = run_stages(context, settings, global, tenant)
  if not err and #context.failures + #context.left == 0 then
    context.status, err = verify_of.check(context, settings)
  end
  return err
end

--- Applies what is pending, on the global target and on the tenants.
---@param run moonbird.run
---@param target moonbird.target the global one
---@param entries table[] the registry
---@param settings moonbird.tenants.settings
---@param options moonbird.tenants.options
---@return moonbird.tenants.context context
---@return moonbird.error? err what ended the run early; failures of tenants are no such thing
function M.up(run, target, entries, settings, options)
  local context = context_of.new(run, target, entries, options)
  local ok, err = patiently(run, function()
    return require("moonbird.exec.bootstrap").ensure(target, { left = run.lock_wait })
  end)
  if not ok then
    return context, err
  end
  local closing <close> = context_of.closing(context) -- luacheck: ignore
  local function look()
    return pending.look(context, settings)
  end
  local global, tenant = patiently(run, look)
  if not global and not context.survey then
    err = global_.make_sources(context)
    if err then
      return context, err
    end
    global, tenant = patiently(run, look)
  end
  if not global then
    return context, tenant
  end
  apply.tell_held(run, context)
  context.report:begin(context.survey, context)
  local stages = stages_of.make(global, tenant)
  err = vet(context, stages)
  if not err and options.fleet then
    err = options.fleet(context, stages)
  elseif not err then
    err = run_stages(context, settings, global, tenant)
  end
  if not err and options.deploy then
    err = verify(context, settings)
  end
  if not context.fleet then -- a fleet's counts are those of its rows
    context_of.count_current(context)
  end
  return context, err
end

return M
