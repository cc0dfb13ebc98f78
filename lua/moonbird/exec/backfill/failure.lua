--- What a failed statement of a backfill means: what the worker does next depends on it.
local core = require "moonbird.core.backfill"
local duration = require "moonbird.util.duration"
local error_ = require "moonbird.core.error"

local M = {}

local TRANSIENT = { ["55P03"] = true, ["40P01"] = true, ["40001"] = true, ["57014"] = true }
local LOST = { ["57P01"] = true, ["57P02"] = true, ["57P03"] = true, ["53300"] = true }

-- Classes of SQLSTATE that no row is to blame for: syntax and names, what is not supported or not allowed here, a
-- full disk, defects.
local FATAL = { ["42"] = true, ["0A"] = true, ["25"] = true, ["26"] = true, ["3D"] = true, ["3F"] = true,
  ["53"] = true, ["54"] = true, ["58"] = true, ["XX"] = true }
local DEFECTS = { internal = true, sandbox = true, limit = true, transaction = true, backfill = true, checksum = true }

--- What a failure is about.
---@param err moonbird.error
---@return "stop"|"lost"|"moved"|"held"|"transient"|"fatal"|"row"
function M.kind(err)
  local state = err.sqlstate or ""
  if err.code == "interrupted" or err.code == "timeout" or err.code == "unfinished" then
    return "stop"
  elseif state == "08P01" then
    return "fatal" -- the protocol was violated: the next connection would not do better
  elseif err.code == "connection_lost" or err.code == "connect" or LOST[state] or state:sub(1, 2) == "08" then
    return "lost"
  elseif state == core.MOVED then
    return "moved"
  elseif state == core.HELD then
    return "held"
  elseif TRANSIENT[state] then
    return "transient"
  elseif FATAL[state:sub(1, 2)] or DEFECTS[err.code] then
    return "fatal"
  end
  return "row"
end

--- Whether a connection that failed would fail the next time, too: it leads to a standby, or the database was dropped.
--- libpq gives no SQLSTATE for that; where the server speaks another language the time for reconnecting ends it.
---@param err moonbird.error
---@return boolean
function M.hopeless(err)
  if err.code == "connect" then
    return (err.message or ""):find('database ".*" does not exist') ~= nil
  end
  return err.code == "standby"
end

--- The end of waiting for a server.
---@param err moonbird.error of the last attempt
---@param ms integer the option `reconnect`
---@return moonbird.error
function M.gone(err, ms)
  return error_.with(err, { hint = ("the server did not come back in %s (option reconnect); run it again: it goes on "
    .. "from here"):format(duration.format(ms)) })
end

return M
