--- moonbird repair: settles what only a person can decide, by adding an event that says who and why.
local plan = require "moonbird.plan.plan"
local error_ = require "moonbird.core.error"
local project = require "moonbird.cli.project"
local up = require "moonbird.cli.command.up"

local M = {}

local function find(list, version)
  for _, item in ipairs(list) do
    if (item.version or item.row.version) == version then
      return item
    end
  end
end

--- The event to add, or why not.
local function decide(args, target, entries)
  local version = args.version
  local comparison = plan.compare(entries, target.state)
  local row = target.state.applied[version]
  local entry = find(entries, version)
  local about = entry or row
  if not about then
    return nil, error_.new("usage", ("there is no migration %d"):format(version),
      { hint = "`moonbird status` lists them" })
  end
  local event = { event = "repair", outcome = "done", version = version, version_text = about.version_text,
    id = about.id, name = about.name, phase = row and row.phase, scope = row and row.scope,
    detail = { reason = args.reason, emergency = args.emergency } }
  if args.accept then
    if not find(comparison.changed, version) then
      return nil, error_.new("usage", ("%s has not changed since it was applied"):format(about.id))
    end
    event.applies, event.checksum = true, entry.checksum
    event.detail.action, event.detail.was = "accept", row.checksum
  elseif args.mark == "applied" then
    if not entry then
      return nil, error_.new("usage", ("%s has no file to mark as applied"):format(about.id))
    end
    event.applies, event.checksum, event.detail.action = true, entry.checksum, "mark applied"
  elseif args.mark == "reverted" then
    event.applies, event.detail.action = false, "mark reverted"
  else
    local open = false
    for _, item in ipairs(target.state.open) do
      open = open or item.version == version
    end
    if not open then
      return nil, error_.new("usage", ("nothing is left open of %s"):format(about.id))
    end
    event.applies, event.detail.action = row ~= nil, "clear"
    event.checksum = row and row.checksum
  end
  return event
end

--- Repairs.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  local chosen = (args.accept and 1 or 0) + (args.mark and 1 or 0) + (args.clear and 1 or 0)
  if not args.version or chosen ~= 1 then
    return nil, error_.new("usage", "repair wants a version and one of --accept, --mark applied|reverted, --clear",
      { hint = "`moonbird status` shows what is wrong, `moonbird help repair` what each does" })
  elseif not args.reason or args.reason == "" then
    return nil, error_.new("usage", "repair wants --reason \"why\": it is journaled")
  end
  local conf, gate, refused = up.gate(args)
  if not gate then
    return nil, refused
  end
  return project.with_target(args, report, { config = conf, files = true, full = true }, function(_, target, entries)
    if not target.state.exists then
      return nil, error_.new("usage", "this database has no journal to repair", { hint = "run `moonbird up`" })
    end
    local event, failure = decide(args, target, entries)
    if not event then
      return nil, failure
    end
    local ok
    ok, failure = target:append(event)
    if not ok then
      return nil, failure
    end
    report:print(("%s %s: %s"):format(report.out.green("repaired"), event.id or event.version_text,
      event.detail.action))
    return { version = event.version, id = event.id, action = event.detail.action }
  end)
end

return M
