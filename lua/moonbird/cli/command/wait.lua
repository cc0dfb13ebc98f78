--- moonbird wait
local await = require "moonbird.exec.await"
local project = require "moonbird.cli.project"

local M = {}

local DEFAULT_MS = 60000

--- Waits until the server accepts connections.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  local conf, err = project.config(args)
  if not conf then
    return nil, err
  end
  local database
  database, err = project.database(conf, report)
  if not database then
    return nil, err
  end
  local waited = 0
  if database.handle then -- it was started, and waited for, just now
    database.handle:release()
  else
    waited, err = await.server(database.params, args.timeout or DEFAULT_MS, report)
  end
  if not waited then
    return nil, err
  end
  report:print("the server accepts connections")
  return { waited_ms = waited }
end

return M
