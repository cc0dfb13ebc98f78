--- moonbird baseline VERSION
local json = require "moonbird.core.json"
local plan = require "moonbird.plan.plan"
local project = require "moonbird.cli.project"
local registry = require "moonbird.migration.registry"
local remedy = require "moonbird.plan.remedy"
local settling = require "moonbird.cli.settling"
local tenants = require "moonbird.cli.tenants.common"
local text = require "moonbird.util.text"

local M = {}

--- The pending migrations up to the version, in parts: those of the kind of target that is meant, and others.
---@param scope? "global"|"tenant" nil: there are no tenants, all are meant
local function pending(args, target, entries, scope)
  local comparison = plan.compare(entries, target.state)
  local migrations, err = registry.load_all(plan.select_up(comparison, { to = args.version }))
  if not migrations then
    return nil, err
  end
  local own, others = {}, {}
  for _, migration in ipairs(migrations) do
    local mine = not scope or (migration.scope == "tenant") == (scope == "tenant")
    table.insert(mine and own or others, migration)
  end
  return own, others
end

local function events_of(args, migrations)
  local events = {}
  local detail = (args.reason or args.emergency) and { reason = args.reason, emergency = args.emergency } or nil
  for i, migration in ipairs(migrations) do
    events[i] = {
      event = "baseline", applies = true, outcome = "done", version = migration.version,
      version_text = migration.version_text, id = migration.id, name = migration.name,
      phase = migration.phase, scope = migration.scope, compatibility = migration.compatibility,
      checksum = migration.checksum, detail = detail,
    }
  end
  return events
end

local function words_of(args, version)
  return { "baseline", version, "--reason", args.reason and remedy.quoted(args.reason) or '"..."' }
end

--- Why the version can't be the global target's: it is of tenants, whose schemas a global `down` must not touch.
local function refuse(args, target, entries)
  for _, entry in ipairs(entries) do
    if entry.version == args.version then
      local scope, err = settling.scope(entry)
      if scope ~= "tenant" then
        return err
      end
      err = settling.elsewhere(entry.id, scope, words_of(args, entry.version_text))
      local global = pending(args, target, entries, "global")
      if global and global[1] then
        err.hint = ("%s; the global ones before it: `moonbird %s`"):format(err.hint,
          table.concat(words_of(args, global[#global].version_text), " "))
      end
      return err
    end
  end
end

local function say(report, migrations, where)
  for _, event in ipairs(migrations) do
    report:print(("%s %s%s"):format(report.out.green("baseline"), event.id, where or ""))
  end
end

local function marked(events)
  local list = json.array {}
  for i, event in ipairs(events) do
    list[i] = { version = event.version, id = event.id }
  end
  return list
end

local function unknown(args, target, entries)
  return plan.unknown(args.version, plan.compare(entries, target.state), false)
end

--- On the global target.
local function global(args, report, run, target, entries, settings)
  local others = {}
  local events, failure = settling.global(run, target, function()
    local err = unknown(args, target, entries) or settings and refuse(args, target, entries)
    if err then
      return nil, err
    end
    local own
    own, others = pending(args, target, entries, settings and "global")
    if not own then
      return nil, others
    end
    return events_of(args, own)
  end)
  if not events then
    return nil, failure
  end
  say(report, events)
  report:print(("%s marked as applied; nothing was run"):format(text.count(#events, "migration")))
  if others[1] then
    report:print(("%s of tenants not among them: `moonbird %s --all-tenants`"):format(text.count(#others,
      "migration is", "migrations are"), table.concat(words_of(args, others[#others].version_text), " ")))
  end
  return { target = target.name, marked = marked(events) }
end

--- On each of the chosen tenants.
local function of_tenants(args, report, run, target, entries, settings)
  local err = unknown(args, target, entries)
  if err then
    return nil, err
  end
  local result, failure = settling.tenants(args, report, run, target, entries, settings, {
    done = "marked; nothing was run", idle = "up to date", words = { table.unpack(words_of(args,
      tostring(args.version)), 2) },
    make = function(tenant)
      local own, wrong = pending(args, tenant, entries, "tenant")
      return own and events_of(args, own), not own and wrong or nil
    end,
    print = function(name, events)
      say(report, events, " on " .. name)
    end,
  })
  return result, failure
end

--- Journals every pending migration up to a version as being there already; runs nothing.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  local conf, settings, _, err = tenants.gated(args)
  if err then
    return nil, err
  end
  return project.with_target(args, report, { config = conf, files = true }, function(run, target, entries)
    local work = settings and settling.of_tenants(args) and of_tenants or global
    return work(args, report, run, target, entries, settings)
  end)
end

return M
