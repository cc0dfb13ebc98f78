--- Taking back over the global target and its tenants, and doing the same again: the stages of an `up` in reverse.
local apply = require "moonbird.exec.apply"
local context_of = require "moonbird.exec.tenants.context"
local error_ = require "moonbird.core.error"
local global_ = require "moonbird.exec.tenants.global"
local one = require "moonbird.exec.tenants.one"
local overview = require "moonbird.exec.tenants.overview"
local plan = require "moonbird.plan.plan"
local registry = require "moonbird.migration.registry"
local remedy = require "moonbird.plan.remedy"
local stage_of = require "moonbird.exec.tenants.stage"
local stages_of = require "moonbird.plan.stages"
local survey_of = require "moonbird.exec.tenants.survey"
local task = require "moonbird.core.task"
local waves_of = require "moonbird.exec.tenants.waves"

local M = {}

---@class moonbird.tenants.down.options: moonbird.tenants.options
---@field steps? integer of the distinct versions that are applied on any chosen target
---@field to? integer stays applied itself
---@field dry_run? boolean say what would be done

local function each_history(context, take)
  if not context.some then
    take(context.target.state.applied, "global")
  end
  local seen = {}
  for _, tenant in ipairs(context.survey.tenants) do
    local applied = tenant.state and tenant.state.applied
    if applied and not seen[applied] then
      seen[applied] = true
      take(applied, "tenant")
    end
  end
end

--- The versions to take back, newest first -> versions, and on which kind of target each is applied.
local function choose(context)
  local there, versions = {}, {}
  each_history(context, function(applied, scope)
    for version, row in pairs(applied) do
      if not there[version] then
        there[version] = { id = row.id or row.version_text }
        versions[#versions + 1] = version
      end
      there[version][scope] = true
    end
  end)
  table.sort(versions, function(a, b)
    return a > b
  end)
  local to, options = context.options.to, context.options
  local known = to == nil or to == 0 or there[to] ~= nil
  for _, entry in ipairs(known and {} or context.entries) do
    known = known or entry.version == to
  end
  if not known then
    return nil, error_.new("usage", ("version %d is not applied"):format(to),
      { hint = "`moonbird status` lists them; --to 0 takes everything back" })
  end
  local chosen, most = {}, options.steps or to and math.huge or 1
  for _, version in ipairs(versions) do
    if #chosen < most and (not to or version > to) then
      chosen[#chosen + 1] = version
    end
  end
  context.floor = math.max(to or 0, versions[#chosen + 1] or 0)
  return chosen, there
end

--- The migrations of versions, each with a way back -> by version.
local function load(context, versions, there)
  local entries, by_version = {}, {}
  for _, entry in ipairs(context.entries) do
    by_version[entry.version] = entry
  end
  for i, version in ipairs(versions) do
    entries[i] = by_version[version]
    if not entries[i] then
      return nil, error_.new("migration_file", ("%s is applied, but its file is gone"):format(there[version].id),
        { hint = "restore the file from version control; its down is needed" })
    end
  end
  local migrations, err = registry.load_all(entries)
  if not migrations then
    return nil, err
  end
  local loaded = {}
  for _, migration in ipairs(migrations) do
    if not migration.down then
      return nil, error_.new("irreversible", ("%s has no down%s"):format(migration.id,
        migration.irreversible and (": " .. migration.irreversible) or ""),
        { file = migration.file, migration = migration.id })
    end
    loaded[migration.version] = migration
  end
  return loaded
end

local function reversed(list)
  local result = {}
  for i, item in ipairs(list) do
    result[#list + 1 - i] = item
  end
  return result
end

--- An error when a tenant's half applied migration stands on a global one that is to be taken back. What stands on its
--- own is the tenant's failure (one.lua).
local function stood_on(context, versions, there)
  local global = {}
  for _, version in ipairs(versions) do
    global[#global + 1] = there[version].global and version or nil
  end
  for _, tenant in ipairs(context.survey.tenants) do
    local err = tenant.state and plan.half_applied(tenant.state, global)
    if err then
      return error_.with(err, { target = tenant.name })
    end
  end
end

--- An error when the global target's journal says that it has what is a tenant's: taken back there, it would be in the
--- project's own schema, where nobody knows what is called the same.
local function strays(loaded, versions, there)
  for _, version in ipairs(versions) do
    local migration = loaded[version]
    if there[version].global and migration.scope == "tenant" then
      return error_.new("journal", ("%s is of tenants, but journaled as applied to the global target"):format(
        migration.id), { migration = migration.id, file = migration.file, hint = "nothing was taken back; "
          .. remedy.repair(migration.version_text, "--mark reverted") .. " takes that back in the journal alone" })
    end
  end
end

--- The stages to take back, in the order to do so: { scope, migrations, stage, tenants }.
local function plan_stages(context)
  local versions, there = choose(context)
  if not versions then
    return nil, there
  end
  local err = stood_on(context, versions, there)
  if err then
    return nil, err
  end
  local loaded
  loaded, err = load(context, versions, there)
  err = err or strays(loaded, versions, there)
  if err then
    return nil, err
  end
  local global, tenant = {}, {}
  for _, version in ipairs(reversed(versions)) do
    local migration = loaded[version]
    global[#global + 1] = there[version].global and migration or nil
    tenant[#tenant + 1] = there[version].tenant and migration or nil
  end
  local stages = reversed(stages_of.make(global, tenant))
  for _, item in ipairs(stages) do
    item.up = item.migrations
    item.migrations = reversed(item.migrations)
    if item.scope == "tenant" then
      item.stage = stage_of.make(context, item.migrations, "down")
      item.tenants = {}
      for _, one_tenant in ipairs(context.survey.tenants) do
        if one_tenant.state and #one.lacking(item.stage, one_tenant) > 0 then
          table.insert(item.tenants, one_tenant)
        end
      end
    end
  end
  return stages
end

--- Every step is held against the policy before the first is run.
local function refused(context, stages, direction)
  local gate = context.options.gate
  for _, item in ipairs(gate and stages or {}) do
    local migrations = direction == "up" and item.up or item.migrations
    local err = gate:before(context.target, plan.steps(migrations, direction, context.target.name,
      context.target.head), context.entries)
    if err then
      return err
    end
  end
end

local function run_global(context, item, direction)
  local only = {}
  for _, migration in ipairs(item.migrations) do
    only[migration.version] = true
  end
  local err = global_.revive(context.target)
  if not err and direction == "up" then
    err = select(2, context.target:refresh())
  end
  if err then
    return err
  end
  local done, so_far
  done, err, so_far = apply.run(context.target, context.entries, direction, { only = only,
    steps = direction == "down" and #item.migrations or nil, allow = context.options.allow, allow_out_of_order = true })
  for _, step in ipairs(done or so_far or {}) do
    context.done[#context.done + 1] = step
  end
  return err
end

local function run_stages(context, stages, direction)
  for _, item in ipairs(stages) do
    local err = context.run:expired() or task.take_cancel()
    if err then
      return err
    elseif #context.failures + #context.left > 0 then
      context.held_up = true -- what stands below a failed tenant stays
      return nil
    elseif item.scope == "global" then
      err = run_global(context, item, direction)
    elseif #item.tenants > 0 then
      context.report:stage_started(item.stage, #item.tenants)
      -- A copy: the queue empties the list that it is given.
      err = waves_of.run(context, item.stage, table.move(item.tenants, 1, #item.tenants, 1, {}))
    end
    if err then
      return err
    end
  end
end

local function begin(run, target, entries, settings, options)
  local context = context_of.new(run, target, entries, options)
  local survey, err = survey_of.open(run, settings, { session = target.session, tenant = options.tenant,
    exclude = options.exclude, shard = options.shard })
  if not survey then
    return context, err
  end
  context.survey = survey
  local ok
  ok, err = overview.read(survey)
  if not ok then
    return context, err
  end
  for _, tenant in ipairs(survey.tenants) do
    if not tenant.state then
      context.failures[#context.failures + 1] = { tenant = tenant, err = tenant.unreachable }
    end
  end
  local global, own = survey:split(entries, target.state)
  if not global then
    return context, own
  end
  context.global, context.own = global, own
  return context
end

--- Hands a context with its stages to `work`, and closes the survey.
local function with_stages(run, target, entries, settings, options, verb, work)
  local context, err = begin(run, target, entries, settings, options)
  local closing <close> = context_of.closing(context) -- luacheck: ignore
  if err then
    return context, err
  end
  context.stages, err = plan_stages(context)
  if not context.stages then
    return context, err
  end
  context.verb = verb
  if #context.failures > 0 then
    if not options.keep_going and not options.dry_run then
      context.halted = "their state is not known; leave them out with --exclude, or say --keep-going"
      return context
    end
    context.unknown, context.failures = context.failures, {}
  end
  context.report:begin(context.survey, context)
  err = work(context)
  table.move(context.unknown or {}, 1, #(context.unknown or {}), #context.failures + 1, context.failures)
  return context, err
end

--- Takes back the newest migration that is applied anywhere (or more) on all chosen targets that have it.
---@param run moonbird.run
---@param target moonbird.target the global one
---@param entries table[] the registry
---@param settings moonbird.tenants.settings
---@param options moonbird.tenants.down.options
---@return moonbird.tenants.context context with its stages
---@return moonbird.error? err what ended it early; failures of tenants are no such thing
function M.down(run, target, entries, settings, options)
  return with_stages(run, target, entries, settings, options, "taken back", function(context)
    local err = refused(context, context.stages, "down")
    if err or options.dry_run then
      return err
    end
    return run_stages(context, context.stages, "down")
  end)
end

--- Changed files other than those that are done again: they would stop the way back up.
local function changed(context, redone)
  local err
  each_history(context, function(applied, scope)
    for _, entry in ipairs(context.entries) do
      local row = applied[entry.version]
      if row and row.checksum and row.checksum ~= entry.checksum and not redone[entry.version] then
        err = err or error_.new("checksum", ("%s was changed after it was applied"):format(entry.id),
          { migration = entry.id, file = entry.file,
            hint = "restore the file, or accept the change: " .. (scope == "global"
              and remedy.accept { entry.version_text } or remedy.accept_tenants(entry.version_text)) })
      end
    end
  end)
  return err
end

--- Why what is taken back would not be applied again; asked before anything is.
local function one_way(context)
  local redone = {}
  for _, item in ipairs(context.stages) do
    for _, migration in ipairs(item.migrations) do
      redone[migration.version] = true
      local reason, flags = plan.held(migration, context.options.allow)
      if reason then
        return error_.new("policy", ("%s is %s: it would not be applied again"):format(migration.id, reason),
          { migration = migration.id, file = migration.file, hint = "say so with " .. flags })
      end
    end
  end
  return changed(context, redone)
end

--- The way up again, also where the way down ended early: nobody is left without what they had.
local function again(context)
  local up = setmetatable({ failures = {}, left = {}, finished = 0, migrated = {}, failed = {},
    options = setmetatable({ canary = {}, keep_going = true }, { __index = context.options }) }, { __index = context })
  local stages = reversed(context.stages)
  for _, item in ipairs(stages) do
    item.migrations = item.up
    if item.scope == "tenant" then
      item.stage = stage_of.make(up, item.up, "up")
      item.stage.all = {}
      local list = {}
      for _, tenant in ipairs(item.tenants) do
        tenant.attempts, tenant.finished = nil, nil
        if #one.lacking(item.stage, tenant) > 0 then
          list[#list + 1] = tenant
        end
      end
      item.all, item.tenants = item.tenants, list
    end
  end
  local err
  for _, item in ipairs(stages) do
    if item.scope == "global" then
      err = run_global(up, item, "up")
    elseif #item.tenants > 0 then
      up.report:stage_started(item.stage, #item.tenants)
      err = waves_of.run(up, item.stage, item.tenants)
    end
    if err then
      break
    end
  end
  for _, key in ipairs { "failures", "left" } do
    table.move(up[key], 1, #up[key], #context[key] + 1, context[key])
  end
  for name in pairs(up.failed) do
    context.failed[name] = true
  end
  context.finished, context.migrated = up.finished, up.migrated
  return err
end

--- What a redo that ends on its way down leaves: who has been taken back is to be done again, nobody has been; those
--- that were not begun have all they had.
local function leave_taken_back(context)
  context.finished, context.migrated, context.left = 0, {}, {}
  context.global_left = #context.done > 0
  local seen = {}
  for _, item in ipairs(context.stages) do
    for _, tenant in ipairs(item.tenants or {}) do
      local lacks = #one.lacking(setmetatable({ direction = "up" }, { __index = item.stage }), tenant) > 0
      if (lacks or tenant.stale) and not seen[tenant] and not context.failed[tenant.name] then
        seen[tenant] = true
        table.insert(context.left, tenant)
      end
    end
  end
end

--- Whether somebody that a redo failed on lacks now what it had: an `up` gives it back. Where nobody does there is
--- nothing to apply, and the redo itself is to be made again.
local function lacking_again(context)
  local failed = {}
  for _, failure in ipairs(context.failures) do
    failed[failure.tenant] = true
  end
  for _, item in ipairs(context.stages) do
    for _, tenant in ipairs(item.all or {}) do
      if failed[tenant] and (#one.lacking(item.stage, tenant) > 0) then
        return true
      end
    end
  end
  return #context.left > 0 or context.global_left
end

--- Takes back and applies again, on the same targets the same migrations.
---@param run moonbird.run
---@param target moonbird.target
---@param entries table[]
---@param settings moonbird.tenants.settings
---@param options moonbird.tenants.down.options
---@return table context
---@return moonbird.error? err
function M.redo(run, target, entries, settings, options)
  return with_stages(run, target, entries, settings, options, "done again", function(context)
    local err = one_way(context) or refused(context, context.stages, "down") or refused(context, context.stages, "up")
    if err then
      return err
    end
    for _, item in ipairs(context.stages) do
      for _, tenant in ipairs(item.tenants or {}) do
        tenant.only = tenant.only or {}
        for _, step in ipairs(one.lacking(item.stage, { state = tenant.state })) do
          tenant.only[step.migration.version] = true
        end
      end
    end
    err = run_stages(context, context.stages, "down")
    if err and (err.code == "interrupted" or err.code == "timeout") then
      leave_taken_back(context)
      context.command = "up"
      return err
    end
    err = again(context) or err
    context.command = lacking_again(context) and "up" or nil
    return err
  end)
end

return M
