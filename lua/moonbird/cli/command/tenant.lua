--- moonbird tenant: what there is to do with tenants besides migrating them. One module per action.
local actions = require "moonbird.cli.actions"
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
end

local function module(action)
  return require("moonbird.cli.tenants." .. (action == "unpin" and "pin" or action))
end

--- Does it.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  return actions.run(args, report, { misused = misused, only = ONLY, module = module })
end

return M
