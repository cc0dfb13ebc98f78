--- moonbird down
local project = require "moonbird.cli.project"
local tenants = require "moonbird.cli.tenants.common"
local up = require "moonbird.cli.command.up"

local M = {}

--- Takes migrations back.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  local conf, settings, gate, err
  conf, err = project.config(args)
  if conf then
    settings, err = tenants.settings(conf, args)
  end
  if err then
    return nil, err
  elseif not settings then
    return up.go(args, report, "down")
  end
  conf, gate, err = up.gate(args)
  if not gate then
    return nil, err
  end
  return require("moonbird.cli.tenants.down").run(args, report, conf, settings, gate)
end

return M
