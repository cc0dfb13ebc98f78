--- A server that replays another's WAL takes no writes, whatever is tried and however often.
local error_ = require "moonbird.core.error"

local M = {}

--- That the server can't be written.
---@param params table libpq keywords that led there
---@return moonbird.error code "standby"
function M.error(params)
  local host = params.host or params.hostaddr
  local place = host and (" at %s%s"):format(host, params.port and ":" .. params.port or "") or ""
  return error_.new("standby", ("the server%s is a standby and can't be written"):format(place),
    { hint = "give the URL of the primary, or add target_session_attrs=read-write" })
end

--- The error for a session on a standby; costs no query. A pooler may keep to itself what the server reports: then it
--- is found later, by what is asked of the server or by what the server refuses.
---@param session moonbird.session
---@param params table libpq keywords it was opened with
---@return moonbird.error? err
function M.refusal(session, params)
  return session:parameter("in_hot_standby") == "on" and M.error(params) or nil
end

return M
