--- moonbird tenant: what there is to do with tenants besides migrating them. One module per action.
local error_ = require "moonbird.core.error"

local M = {}

-- Actions that are about one tenant.
local ONE = { add = true, pin = true, unpin = true }

-- What each option is for.
local ONLY = { schema = { add = true }, label = { add = true }, to = { pin = true },
  reason = { pin = true, unpin = true }, html = { matrix = true }, exit_code = { status = true, drift = true },
  all = { status = true } }

local function misused(args)
  if ONE[args.action] and (args.name or "") == "" then
    return error_.new("usage", ("tenant %s wants a tenant's name"):format(args.action))
  elseif args.name and not ONE[args.action] then
    return error_.new("usage", ("tenant %s takes no name"):format(args.action), { hint = "choose with --tenant" })
  elseif ONE[args.action] and (#args.tenant > 0 or #args.exclude > 0) then
    return error_.new("usage", ("tenant %s is about one tenant: --tenant and --exclude have no place")
      :format(args.action))
  end
  for key, actions in pairs(ONLY) do
    local value = args[key]
    if value and value ~= 0 and not (type(value) == "table" and #value == 0) and not actions[args.action] then
      return error_.new("usage", ("--%s does not belong to tenant %s"):format(key:gsub("_", "-"), args.action))
    end
  end
end

--- Does it.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  local err = misused(args)
  if err then
    return nil, err
  end
  local action = args.action == "unpin" and "pin" or args.action
  return require("moonbird.cli.tenants." .. action).run(args, report)
end

return M
