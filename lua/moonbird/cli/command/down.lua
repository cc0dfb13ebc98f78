--- moonbird down
local up = require "moonbird.cli.command.up"

local M = {}

--- Takes migrations back.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  return up.go(args, report, "down")
end

return M
