--- Commands of several actions, a module for each: `tenant add`, `backfill run`.
local error_ = require "moonbird.core.error"

local M = {}

--- The error of an option that was given to an action it is not for.
local function misplaced(args, only)
  for key, actions in pairs(only) do
    local value = args[key]
    local given = value and not (type(value) == "table" and #value == 0)
    if given and not actions[args.action] then
      return error_.new("usage", ("--%s does not belong to %s %s"):format(key:gsub("_", "-"), args.command,
        args.action))
    end
  end
end

---@class moonbird.cli.actions
---@field misused fun(args: table): moonbird.error? what is wrong besides
---@field only table<string, table<string, boolean>> by option: the actions it is for; others are for all
---@field module fun(action: string): table the module whose `run(args, report)` does it

--- Does the action of a command.
---@param args table
---@param report moonbird.reporter
---@param command moonbird.cli.actions
---@return table|nil
---@return moonbird.error? err
function M.run(args, report, command)
  local err = command.misused(args) or misplaced(args, command.only)
  if err then
    return nil, err
  end
  return command.module(args.action).run(args, report)
end

return M
