--- moonbird new
local init = require "moonbird.cli.command.init"
local json = require "moonbird.core.json"
local project = require "moonbird.cli.project"
local scaffold = require "moonbird.cli.scaffold"

local M = {}

--- Writes a migration from a template.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  local conf, err = project.config(args)
  if not conf then
    return nil, err
  end
  local result
  result, err = scaffold.new { name = args.name, dir = conf.dir, dirs = conf.migrations, sql = args.sql,
    sequential = args.sequential }
  if not result then
    return nil, err
  end
  init.tell(report, result)
  if result.ledger then
    report:print(report.out.dim("ledger  ") .. result.ledger)
  end
  report:print("next: write in it what it does, then moonbird check --update && moonbird up")
  return { created = json.array(result.created), version = result.version, name = result.name,
    ledger = result.ledger }
end

return M
