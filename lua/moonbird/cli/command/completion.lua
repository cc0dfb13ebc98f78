--- moonbird completion bash|zsh|fish
local completion = require "moonbird.cli.completion"
local spec = require "moonbird.cli.spec"

local M = {}

--- Prints a completion script.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  local script, err = completion.script(args.shell, { name = "moonbird", options = spec.GLOBAL,
    commands = spec.COMMANDS })
  if not script then
    return nil, err
  end
  report:write(script)
  return { script = script }
end

return M
