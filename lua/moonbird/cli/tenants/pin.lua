--- moonbird tenant pin, moonbird tenant unpin
local error_ = require "moonbird.core.error"
local pins = require "moonbird.exec.tenants.pins"
local tenants = require "moonbird.cli.tenants.common"

local M = {}

local function known(entries, version)
  for _, entry in ipairs(entries) do
    if entry.version == version then
      return true
    end
  end
  return version == 0
end

local function refuse(args, entries)
  if args.to and not known(entries, args.to) then
    return error_.new("usage", ("there is no migration %d"):format(args.to), { hint = "`moonbird status` lists them" })
  end
end

local function usage(args)
  if args.action == "pin" and not args.to then
    return error_.new("usage", "tenant pin wants --to VERSION: the newest that the tenant may have")
  elseif not (args.reason or ""):find("%S") then
    return error_.new("usage", ("tenant %s wants --reason \"why\": it is journaled"):format(args.action))
  end
end

--- Pins a tenant, or takes its pin away.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  local err = usage(args)
  if err then
    return nil, err
  end
  return tenants.with_target(args, report, true, function(run, target, settings, entries)
    local failure = refuse(args, entries)
    if failure then
      return nil, failure
    end
    return tenants.with_survey({}, run, target, settings, nil, function(survey)
      local tenant, was
      tenant, failure = pins.find(survey, args.name)
      if tenant then
        local _
        _, failure = tenants.ensure_journal(run, target)
      end
      if not failure then
        was, failure = pins.set(survey, tenant, args.to, args.reason)
      end
      if not was then
        return nil, failure
      end
      local out = report.out
      report:print(args.to and ("%s %s to %d%s"):format(out.green("pinned"), args.name, args.to,
        was.to and was.to ~= args.to and (" (was %d)"):format(was.to) or "")
        or ("%s %s (was %d)"):format(out.green("unpinned"), args.name, was.to))
      return { action = args.action, tenant = args.name, to = args.to, was = was.to, reason = args.reason }
    end)
  end)
end

return M
