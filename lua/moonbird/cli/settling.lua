--- What baseline and repair share: events that a person adds to the journal, behind the target's lock, on the global
--- target or on each of the chosen tenants.
local bootstrap = require "moonbird.exec.bootstrap"
local context_of = require "moonbird.exec.tenants.context"
local error_ = require "moonbird.core.error"
local registry = require "moonbird.migration.registry"
local state_of = require "moonbird.exec.tenants.state"
local target_of = require "moonbird.exec.target"
local task = require "moonbird.core.task"
local tenants = require "moonbird.cli.tenants.common"
local tenants_report = require "moonbird.report.tenants"
local text = require "moonbird.util.text"

local M = {}

--- Whether tenants are meant, and so the global target is not.
---@param args table
---@return boolean
function M.of_tenants(args)
  return tenants.some(args) or args.all_tenants == true
end

--- Whose a migration is where there are tenants.
---@param entry table
---@return "global"|"tenant"|nil
---@return moonbird.error? err
function M.scope(entry)
  local migration, problems = registry.load(entry)
  if not migration then
    return nil, registry.error(problems)
  end
  return migration.scope == "tenant" and "tenant" or "global"
end

--- All events or none, behind the door.
local function append(target, events)
  local items = { target.run.journal:enter_item(target.name, target.head) }
  for i, event in ipairs(events) do
    items[i + 1] = target.run.journal:record_item(target.name, target.head + i, target.run:event(event))
  end
  return target.session:batch(items)
end

--- Adds the events that `make` says, which it is asked anew whenever the history moved meanwhile. Waits for the
--- target's lock as other commands do.
---@param target moonbird.target
---@param budget { left: integer } milliseconds to wait, counted down
---@param make fun(target: moonbird.target): table[]|nil, moonbird.error|nil
---@return table[]|nil events
---@return moonbird.error? err
function M.write(target, budget, make)
  while true do
    local events, err = make(target)
    if not events or #events == 0 then
      return events, err
    end
    local ok
    ok, err = append(target, events)
    if ok then
      target.head = target.head + #events
      return events
    elseif err.code == "locked" then
      ok, err = target:wait_for_lock(budget)
    end
    if not ok and err.code ~= "history_moved" then
      return nil, err
    end
    local moved, head = err, target.head
    ok, err = target:refresh()
    if not ok then
      return nil, err
    elseif moved and target.head == head then
      return nil, moved -- nothing moved: trying again would change nothing
    end
  end
end

--- The same on one tenant.
local function write_tenant(database, tenant, session, budget, make)
  local target = target_of.adopt(database.run, { name = tenant.name, schema = tenant.schema, vars = tenant.vars,
    shared = database.shared, session = session, state = state_of.empty() })
  local ok, err = target:refresh()
  if not ok then
    return nil, err
  end
  return M.write(target, budget, make)
end

---@class moonbird.cli.settling
---@field make fun(target: moonbird.target): table[]|nil, moonbird.error|nil the events; an error of code "usage" says
---       why there is nothing to do on this one
---@field print fun(tenant: string, events: table[])
---@field done string what is said of a tenant at the end: "repaired"
---@field idle string what of those that there was nothing to do for
---@field words string[] the command line without the tenants

--- Adds events to the chosen tenants, one after the other -> what there was nothing to do for.
local function each(context, survey, work)
  local budget, idle = { left = context.run.lock_wait }, {}
  survey.pool:expect(1, 1) -- databases of their own: one connection at a time
  for i, tenant in ipairs(survey.tenants) do
    local err = task.take_cancel() or context.run:expired()
    if err then
      table.move(survey.tenants, i, #survey.tenants, #context.left + 1, context.left)
      return idle, err
    end
    local events
    events, err = survey:with_session(tenant.database, function(session)
      local ok, failed = survey.prepare(tenant.database, session)
      if not ok then
        return nil, failed
      end
      return write_tenant(tenant.database, tenant, session, budget, work.make)
    end)
    if events and #events > 0 then
      context.finished = context.finished + 1
      context.migrated[tenant.name] = true
      work.print(tenant.name, events)
    elseif events or err.code == "usage" then
      idle[#idle + 1] = { tenant = tenant, err = err }
    else
      context.failed[tenant.name] = true
      context.failures[#context.failures + 1] = { tenant = tenant, err = error_.with(err, { target = tenant.name }) }
    end
  end
  return idle
end

local function summary(report, told, context, idle, work)
  told:groups_told(context)
  local parts = { ("%s %s"):format(text.count(context.finished, "tenant"), work.done) }
  parts[#parts + 1] = idle > 0 and ("%d %s"):format(idle, work.idle) or nil
  parts[#parts + 1] = #context.failures > 0 and ("%d failed"):format(#context.failures) or nil
  parts[#parts + 1] = #context.left > 0 and ("%d not run"):format(#context.left) or nil
  report:print(table.concat(parts, ", "))
  if #context.failures + #context.left > 0 then
    report:print("to go on: " .. tenants_report.retry_command(context))
  end
end

--- Adds events to each of the chosen tenants.
---@param args table
---@param report moonbird.reporter
---@param run moonbird.run
---@param target moonbird.target the global one
---@param entries table[]
---@param settings moonbird.tenants.settings
---@param work moonbird.cli.settling
---@return table|nil
---@return moonbird.error? err
function M.tenants(args, report, run, target, entries, settings, work)
  return tenants.with_survey(args, run, target, settings, nil, function(survey)
    local ok, err = tenants.ensure_journal(run, target)
    if not ok then
      return nil, err
    end
    local told = tenants_report.new(report)
    local context = context_of.new(run, target, entries, { report = told, tenant = args.tenant,
      exclude = args.exclude })
    context.survey, context.words, context.chosen = survey, work.words, true
    local idle
    idle, err = each(context, survey, work)
    local none = context.finished + #context.failures + #context.left == 0
    if none and idle[1] and idle[1].err then -- what was asked for is nowhere to do
      return nil, error_.with(idle[1].err, { target = idle[1].tenant.name })
    end
    context.current = #idle
    summary(report, told, context, #idle, work)
    return { tenants = tenants_report.data(context) }, err or context_of.failure(context)
  end)
end

--- Adds events to the global target.
---@param run moonbird.run
---@param target moonbird.target
---@param make fun(target: moonbird.target): table[]|nil, moonbird.error|nil
---@return table[]|nil events
---@return moonbird.error? err
function M.global(run, target, make)
  local budget = { left = run.lock_wait }
  local ok, err = bootstrap.ensure(target, budget)
  if not ok then
    return nil, err
  end
  return M.write(target, budget, make)
end

--- The error of a version that belongs to another kind of target than the one that was named.
---@param id string
---@param scope "global"|"tenant" its own
---@param words string[] the command line without the tenants
---@return moonbird.error code "usage"
function M.elsewhere(id, scope, words)
  local command = "moonbird " .. table.concat(words, " ")
  if scope == "global" then
    return error_.new("usage", ("%s is global: no tenant has it"):format(id),
      { migration = id, hint = ("without tenants: `%s`"):format(command) })
  end
  return error_.new("usage", ("%s is of tenants: the global target does not have it"):format(id),
    { migration = id, hint = ("`%s --all-tenants`, or --tenant NAME for one"):format(command) })
end

return M
