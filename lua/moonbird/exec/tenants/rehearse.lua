--- Dry run where there are tenants: what is pending, in the order of its stages, run, printed and rolled back. Tenants
--- that lack the same are a group; the first of each stands for all of them.
--
-- In the project's own database all of it is one transaction, so a tenant's migration finds what a global one before it
-- made. A tenant with a database of its own is rehearsed in a transaction there.
local error_ = require "moonbird.core.error"
local json = require "moonbird.core.json"
local one = require "moonbird.exec.tenants.one"
local plan = require "moonbird.plan.plan"
local rehearse = require "moonbird.exec.rehearse"
local run_of = require "moonbird.exec.tenants.run"
local target_of = require "moonbird.exec.target"
local text = require "moonbird.util.text"

local M = {}

---@class moonbird.tenants.rehearsal.group
---@field tenant moonbird.tenant that stands for the others
---@field count integer
---@field names string[]
---@field lacks table<table, moonbird.step[]> by stage
---@field result table what is told of it
---@field blocked? string the migration without a transaction that it came to

--- The tenants that have something to do, by what that is; the largest group first.
local function groups_of(stages)
  local keys, lacks = {}, {}
  for at, item in ipairs(stages) do
    for _, tenant in ipairs(item.out and item.out.behind or {}) do
      if tenant.state then
        local parts = { keys[tenant] or "", at .. ":" }
        local steps = one.lacking(item.stage, tenant)
        for i, step in ipairs(steps) do
          parts[i + 2] = step.migration.id
        end
        keys[tenant] = table.concat(parts, " ")
        lacks[tenant] = lacks[tenant] or {}
        lacks[tenant][item] = steps
      end
    end
  end
  local by_key, list = {}, {}
  for tenant, key in pairs(keys) do
    local group = by_key[key]
    if not group then
      group = { lacks = lacks[tenant], tenant = tenant, names = {} }
      by_key[key], list[#list + 1] = group, group
    end
    group.names[#group.names + 1] = tenant.name
    if tenant.name < group.tenant.name then
      group.tenant = tenant
    end
  end
  table.sort(list, function(a, b)
    if #a.names ~= #b.names then
      return #a.names > #b.names
    end
    return a.tenant.name < b.tenant.name
  end)
  for _, group in ipairs(list) do
    table.sort(group.names)
    group.result = { tenant = group.tenant.name, tenants = #group.names, rehearsed = json.array {},
      not_rehearsed = json.array {} }
  end
  return list
end

local function adopt(group, session, state)
  local tenant = group.tenant
  local target = target_of.adopt(tenant.database.run, { name = tenant.name, schema = tenant.schema,
    vars = tenant.vars, shared = tenant.database.shared, session = session, state = state })
  target.pooled = tenant.database.pooled
  return target
end

--- The steps of a group in a stage -> err.
local function run_steps(group, item, target)
  local can, others = rehearse.part(group.lacks[item] or {}, group.blocked)
  for _, step in ipairs(can) do
    local ok, err = rehearse.step(target, one.own(step), ("%s (up) on %s%s"):format(step.migration.id,
      group.tenant.name, #group.names > 1 and (", for %s"):format(text.count(#group.names, "tenant")) or ""))
    if not ok then
      return error_.with(err, { migration = step.migration.id, file = step.migration.file, target = group.tenant.name })
    end
    table.insert(group.result.rehearsed, step.migration.id)
  end
  if others[1] then
    group.blocked = group.blocked or others[1].id
    table.move(others, 1, #others, #group.result.not_rehearsed + 1, group.result.not_rehearsed)
  end
end

--- A group within the transaction that is open: its failure is undone, the others go on -> err that ends it all.
local function run_inside(context, group, item)
  local session = context.target.session
  local _, err = session:query "savepoint moonbird_rehearsal"
  if err then
    return err
  end
  local state = setmetatable({ exists = context.target.state.exists }, { __index = group.tenant.state })
  local target = adopt(group, session, state)
  local ok, failure = rehearse.enter(target)
  if ok then
    failure = run_steps(group, item, target)
  end
  if session.doomed then
    return session.doomed
  end
  if failure then
    group.failed = failure
    _, err = session:query "rollback to savepoint moonbird_rehearsal"
  else
    _, err = session:query "release savepoint moonbird_rehearsal"
  end
  return err
end

--- A group in a database of its own: all its stages in one transaction there.
local function run_apart(context, group, stages)
  local database = group.tenant.database
  return context.survey:with_session(database, function(session)
    local state, err = database.run.journal:read(session, group.tenant.name)
    if not state then
      return nil, err
    end
    local target = adopt(group, session, state)
    local ok
    ok, err = rehearse.begin(target)
    for _, item in ipairs(stages) do
      if ok and item.scope == "tenant" then
        err = run_steps(group, item, target)
        ok = err == nil
      end
    end
    session:rollback()
    return ok, err
  end)
end

--- The stages in the project's own database, in one transaction -> err.
local function run_stages(context, stages, groups, result)
  local blocked
  local ok, err = rehearse.begin(context.target)
  if not ok then
    return err
  end
  for _, item in ipairs(stages) do
    if item.scope == "global" then
      local steps = {}
      for i, migration in ipairs(item.migrations) do
        steps[i] = item.steps[migration.version]
      end
      local can, others = rehearse.part(steps, blocked)
      for _, step in ipairs(can) do
        ok, err = rehearse.step(context.target, step, step.migration.id .. " (up)")
        if not ok then
          return error_.with(err, { migration = step.migration.id, file = step.migration.file })
        end
        result.rehearsed[#result.rehearsed + 1] = { id = step.migration.id }
      end
      blocked = blocked or others[1] and others[1].id
      table.move(others, 1, #others, #result.not_rehearsed + 1, result.not_rehearsed)
    end
    for _, group in ipairs(groups) do
      if item.scope == "tenant" and group.tenant.database.global and not group.failed then
        group.blocked = group.blocked or blocked -- it may need what that makes
        err = run_inside(context, group, item)
        if err then
          return err
        end
      end
    end
  end
end

--- What the policy says of all of it, and the steps of the global migrations -> err.
local function vet(context, stages)
  local gate = context.options.gate
  for _, item in ipairs(stages) do
    local steps = item.stage and item.stage.steps or plan.steps(item.migrations, "up", context.target.name,
      context.target.head)
    item.steps = {}
    for _, step in ipairs(steps) do
      item.steps[step.migration.version] = step
    end
    local err = gate and #steps > 0 and gate:before(context.target, steps, context.entries)
    if err then
      return err
    end
  end
end

--- Notes the tenants that are not rehearsed, and those that would fail as they are.
local function sort_others(context, stages, result)
  local seen = {}
  for _, item in ipairs(stages) do
    for _, kind in ipairs { "pinned", "ahead" } do
      for _, tenant in ipairs(item.out and item.out[kind] or {}) do
        if not seen[tenant] then
          seen[tenant] = true
          table.insert(context[kind], tenant)
        end
      end
    end
    for _, tenant in ipairs(item.out and item.out.late or {}) do
      if not seen[tenant] then
        seen[tenant] = true
        context.failures[#context.failures + 1] = { tenant = tenant, err = tenant.why }
      end
    end
  end
  for _, tenant in ipairs(context.survey.tenants) do
    if tenant.unreachable then
      context.failures[#context.failures + 1] = { tenant = tenant, err = tenant.unreachable }
    end
  end
  result.not_rehearsed = json.array {}
end

local function tell(context, groups, result)
  local report = context.run.report
  local function lacking(items, prefix)
    for _, item in ipairs(items) do
      report:print(("%s%s%s: %s"):format(report.out.yellow "not rehearsed: ", item.id, prefix, item.reason))
    end
  end
  lacking(result.not_rehearsed, "")
  result.groups = json.array {}
  for i, group in ipairs(groups) do
    result.groups[i] = group.result
    lacking(group.result.not_rehearsed, " on " .. group.tenant.name)
    if group.failed then
      group.result.error = require("moonbird.report.failure").data(group.failed)
      for _, name in ipairs(group.names) do
        context.failures[#context.failures + 1] = { tenant = { name = name }, err = group.failed }
      end
    end
  end
  local tenants = 0
  for _, group in ipairs(groups) do
    tenants = tenants + #group.names
  end
  if #result.rehearsed + #result.not_rehearsed + #groups == 0 then
    report:print("nothing to do")
    return
  end
  report:print(("rehearsed %s, and %s as %s; everything was rolled back"):format(
    text.count(#result.rehearsed, "global migration"), text.count(tenants, "tenant"), text.count(#groups, "group")))
end

--- Rehearses what `up` would do.
---@param context moonbird.tenants.context its options with `every_state`; its survey is to be closed
---@param settings moonbird.tenants.settings
---@return table? result rehearsed, not_rehearsed (global), groups { tenant, tenants, rehearsed, not_rehearsed, error }
---@return moonbird.error? err what keeps it from being rehearsed at all, or a failing global migration; failures of
---        tenants are in the context
function M.run(context, settings)
  local stages, err = run_of.plan(context, settings)
  if not stages then
    return nil, err
  end
  err = vet(context, stages)
  if err then
    return nil, err
  end
  local result = { target = context.target.name, dry_run = true, rehearsed = json.array {} }
  sort_others(context, stages, result)
  local groups = groups_of(stages)
  if #stages > 0 then
    err = run_stages(context, stages, groups, result)
    context.target.session:rollback()
  end
  for _, group in ipairs(groups) do
    if not err and not group.tenant.database.global then
      local _
      _, group.failed = run_apart(context, group, stages)
    end
  end
  if err then
    return result, rehearse.failure(err)
  end
  tell(context, groups, result)
  return result
end

return M
