--- moonbird init
local json = require "moonbird.core.json"
local project = require "moonbird.cli.project"
local scaffold = require "moonbird.cli.scaffold"

local M = {}

--- Tells what a scaffold made and left alone.
---@param report moonbird.reporter
---@param result moonbird.scaffold.result
function M.tell(report, result)
  for _, path in ipairs(result.created) do
    report:print(report.out.green("created ") .. path)
  end
  for _, path in ipairs(result.kept) do
    report:print(report.out.dim("kept    ") .. path)
  end
  for _, note in ipairs(result.notes) do
    report:log("info", note)
  end
end

--- Makes a project.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  local ok, err = project.enter(args)
  if not ok then
    return nil, err
  end
  local result
  result, err = scaffold.init(args.folder or ".")
  if not result then
    return nil, err
  end
  M.tell(report, result)
  local there = args.folder and args.folder ~= "." and ("cd %s && "):format(args.folder) or ""
  report:print(("next: %smoonbird new create_users"):format(there))
  return { created = json.array(result.created), kept = json.array(result.kept) }
end

return M
