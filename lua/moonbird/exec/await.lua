--- Waits until a server accepts connections.
local error_ = require "moonbird.core.error"
local session = require "moonbird.core.session"
local task = require "moonbird.core.task"

local M = {}

local POLL_MS = 250
local PING_S = 5

--- Waits. Asks without logging in: a missing database (which `create` makes) or a wrong password is not a
--- server that is down.
---@param params table<string, string> libpq keywords
---@param limit integer milliseconds, 0: no limit
---@param report moonbird.reporter told once that it waits
---@return integer? waited milliseconds
---@return moonbird.error? err
function M.server(params, limit, report)
  local started, told = task.now(), false
  local deadline = limit > 0 and started + limit or math.huge
  while true do
    local left = math.max(1000, math.min(deadline - task.now(), PING_S * 1000)) // 1000
    local up, failure = session.ping(params, left)
    if up then
      return task.now() - started
    elseif failure.code == "interrupted" then
      return nil, failure
    elseif task.now() >= deadline then
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
