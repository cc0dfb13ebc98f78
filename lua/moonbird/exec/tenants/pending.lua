--- What is pending: on the global target, and anywhere among the tenants.
local apply = require "moonbird.exec.apply"
local error_ = require "moonbird.core.error"
local plan = require "moonbird.plan.plan"
local registry = require "moonbird.migration.registry"
local survey_of = require "moonbird.exec.tenants.survey"

local M = {}

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
    allow_out_of_order = context.options.allow_out_of_order, backfills = context.options.backfills })
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
  local runnable, held = plan.hold_back(migrations, { allow = context.options.allow,
    backfills = context.options.backfills })
  table.move(held, 1, #held, #context.held + 1, context.held)
  return runnable
end

--- Lists the tenants, reads their states, tells their files from the global ones -> err.
local function look(context, settings)
  local options = context.options
  if context.survey then
    context.survey:leave()
  end
  local survey, err = survey_of.open(context.run, settings, { session = context.target.session,
    tenant = options.tenant, exclude = options.exclude, shard = options.shard })
  if not survey then
    return err
  end
  context.survey = survey
  local ok
  if options.every_state then
    ok, err = require("moonbird.exec.tenants.overview").read(survey, options.every_state == "quick")
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
---@param context moonbird.tenants.context
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

return M
