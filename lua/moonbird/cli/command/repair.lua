--- moonbird repair: settles what only a person can decide, by adding an event that says who and why.
local error_ = require "moonbird.core.error"
local plan = require "moonbird.plan.plan"
local project = require "moonbird.cli.project"
local remedy = require "moonbird.plan.remedy"
local settling = require "moonbird.cli.settling"
local tenants = require "moonbird.cli.tenants.common"

local M = {}

local function find(list, version)
  for _, item in ipairs(list) do
    if (item.version or item.row and item.row.version) == version then -- a pin has none
      return item
    end
  end
end

--- The version's entry, if it has a file; its row, if it is applied; what it left open.
local function look(args, target, entries)
  return find(entries, args.version), target.state.applied[args.version], find(target.state.open, args.version)
end

-- What each action does to the event, or why it can't.
local ACTIONS = {}

function ACTIONS.accept(event, target, entry, row)
  if not row or not entry or not find(plan.compare({ entry }, target.state).changed, event.version) then
    return error_.new("usage", ("%s has not changed since it was applied"):format(event.id))
  end
  event.applies, event.checksum = true, entry.checksum
  event.detail.action, event.detail.was = "accept", row.checksum
end

function ACTIONS.applied(event, _, entry)
  if not entry then
    return error_.new("usage", ("%s has no file to mark as applied"):format(event.id))
  end
  event.applies, event.checksum, event.detail.action = true, entry.checksum, "mark applied"
end

function ACTIONS.reverted(event)
  event.applies, event.detail.action = false, "mark reverted"
end

function ACTIONS.clear(event, _, _, row, open)
  if not open then
    return error_.new("usage", ("nothing is left open of %s"):format(event.id))
  end
  event.applies, event.detail.action = row ~= nil, "clear"
  event.checksum = row and row.checksum
end

--- The event to add, or why not.
local function decide(args, target, entries, scope)
  local version = args.version
  local entry, row, open = look(args, target, entries)
  local about = entry or row or open -- half applied, and its file is gone
  if not about then
    return nil, error_.new("usage", ("there is no migration %d"):format(version),
      { hint = "`moonbird status` lists them" })
  end
  local event = { event = "repair", outcome = "done", version = version, version_text = about.version_text,
    id = about.id, name = about.name, phase = row and row.phase, scope = row and row.scope or scope,
    detail = { reason = args.reason, emergency = args.emergency } }
  local err = ACTIONS[args.accept and "accept" or args.mark or "clear"](event, target, entry, row, open)
  return not err and event or nil, err
end

local function words_of(args, version)
  return { version, args.accept and "--accept" or args.mark and "--mark " .. args.mark or "--clear", "--reason",
    remedy.quoted(args.reason) }
end

--- Why the version is not to be written to this kind of target: what is a tenant's on the global one would be taken
--- back there, in the project's own schema. What is there already may be marked as not being there.
local function misplaced(args, target, entries, scope)
  local entry, row = look(args, target, entries)
  if not entry or (scope == "global" and row and args.mark == "reverted") then
    return nil
  end
  local own, err = settling.scope(entry)
  if own and own ~= scope then
    return settling.elsewhere(entry.id, own, { "repair", table.unpack(words_of(args, entry.version_text)) })
  end
  return err
end

local function say(report, event, where)
  report:print(("%s %s%s: %s"):format(report.out.green("repaired"), event.id or event.version_text, where or "",
    event.detail.action))
end

--- On the global target.
local function global(args, report, run, target, entries, settings)
  if not target.state.exists then
    return nil, error_.new("usage", "this database has no journal to repair", { hint = "run `moonbird up`" })
  end
  local events, failure = settling.global(run, target, function()
    local err = settings and misplaced(args, target, entries, "global")
    local event
    if not err then
      event, err = decide(args, target, entries, settings and "global")
    end
    return event and { event }, err
  end)
  if not events then
    return nil, failure
  end
  local event = events[1]
  say(report, event)
  return { version = event.version, id = event.id, action = event.detail.action }
end

--- Whether a tenant is already what it is to be marked as.
local function marked(args, target, entries)
  local entry, row, open = look(args, target, entries)
  if open or not args.mark then
    return false
  end
  return args.mark == "reverted" and not row or row ~= nil and entry ~= nil and row.checksum == entry.checksum
    and args.mark == "applied"
end

--- On each of the chosen tenants.
local function of_tenants(args, report, run, target, entries, settings)
  local err = misplaced(args, target, entries, "tenant")
  if err then
    return nil, err
  end
  local result, failure = settling.tenants(args, report, run, target, entries, settings, {
    done = "repaired", idle = "had nothing to repair", words = words_of(args, tostring(args.version)),
    make = function(tenant)
      if marked(args, tenant, entries) then
        return {}
      end
      local event, wrong = decide(args, tenant, entries, "tenant")
      return event and { event }, wrong
    end,
    print = function(name, events)
      say(report, events[1], " on " .. name)
    end,
  })
  if result then
    result.version = args.version
    result.action = args.accept and "accept" or args.mark and "mark " .. args.mark or "clear"
  end
  return result, failure
end

local function usage(args)
  local chosen = (args.accept and 1 or 0) + (args.mark and 1 or 0) + (args.clear and 1 or 0)
  if not args.version or chosen ~= 1 then
    return error_.new("usage", "repair wants a version and one of --accept, --mark applied|reverted, --clear",
      { hint = "`moonbird status` shows what is wrong, `moonbird help repair` what each does" })
  elseif not args.reason or args.reason == "" then
    return error_.new("usage", "repair wants --reason \"why\": it is journaled")
  end
end

--- Repairs.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  local err = usage(args)
  if err then
    return nil, err
  end
  local conf, settings, _
  conf, settings, _, err = tenants.gated(args)
  if err then
    return nil, err
  end
  return project.with_target(args, report, { config = conf, files = true, full = true }, function(run, target, entries)
    local work = settings and settling.of_tenants(args) and of_tenants or global
    return work(args, report, run, target, entries, settings)
  end)
end

return M
