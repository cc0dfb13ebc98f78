--- moonbird wait
local error_ = require "moonbird.core.error"
local project = require "moonbird.cli.project"
local session = require "moonbird.core.session"
local task = require "moonbird.core.task"

local M = {}

local POLL_MS, DEFAULT_MS = 250, 60000

--- Waits until the server accepts connections. Asks without logging in: a missing database (which `create`
--- makes) or a wrong password is not a server that is down.
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
  if database.handle then -- it was started, and waited for, just now
    database.handle:release()
    report:print("the server accepts connections")
    return { waited_ms = 0 }
  end
  local started = task.now()
  local limit = args.timeout or DEFAULT_MS
  local told = false
  while true do
    local up, failure = session.ping(database.params)
    if up then
      report:print("the server accepts connections")
      return { waited_ms = task.now() - started }
    elseif failure.code == "interrupted" then
      return nil, failure
    elseif task.now() - started >= limit then
      return nil, error_.with(failure, { hint = ("gave up after %d s"):format(limit // 1000) })
    end
    if not told then
      report:log("info", "waiting for the server: " .. failure.message)
      told = true
    end
    local ok
    ok, failure = task.sleep(POLL_MS)
    if not ok then
      return nil, failure
    end
  end
end

return M
