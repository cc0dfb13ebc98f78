--- moonbird down
local tenants = require "moonbird.cli.tenants.common"
local up = require "moonbird.cli.command.up"

local M = {}

--- Takes migrations back.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  local _, settings, err = tenants.configured(args)
  if err then
    return nil, err
  elseif not settings then
    return up.go(args, report, "down")
  end
  local conf, gate
  conf, gate, err = up.gate(args)
  if not gate then
    return nil, err
  end
  return require("moonbird.cli.tenants.down").run(args, report, conf, settings, gate)
end

return M
