--- The check between two waves: SQL that must give true, or a function(db) that must return true, on the database
-- of the global target.
local db = require "moonbird.core.db"
local error_ = require "moonbird.core.error"
local sandbox = require "moonbird.core.sandbox"

local M = {}

local function refused(what)
  return error_.new("tenants", "the health check between two waves says no" .. (what and ": " .. what or ""),
    { hint = "look at the tenants that are done; the same command goes on behind them" })
end

--- Asks.
---@param context moonbird.tenants.context
---@param health string|function
---@return true|nil
---@return moonbird.error? err
function M.check(context, health)
  local run = context.run
  local session, err = run:connect("health")
  if not session then
    return nil, err
  end
  local answer
  if type(health) == "string" then
    local result
    result, err = session:query(health)
    answer = result and result:value(1, 1)
  else
    local handle = db.new { session = session, script = true, target = { name = "global", vars = {} },
      log = function(level, message)
        run.report:log(level, message)
      end }
    local ok, value, why = sandbox.run { fn = health, args = { handle }, name = "moonbird.lua" }
    if ok then
      answer, err = value, not value and type(why) == "string" and refused(why) or nil
    else
      err = value
    end
  end
  session:close()
  if err then
    return nil, err
  elseif answer ~= true then
    return nil, refused()
  end
  return true
end

return M
