--- Points in time as text.
local sys = require "moonbird.core.sys"

local M = {}

--- "2026-11-21 03:49:04 UTC".
---@param ms integer|nil milliseconds since 1970
---@return string|nil
function M.iso(ms)
  if not ms then
    return nil
  end
  local t = sys.utc(ms / 1000)
  return ("%04d-%02d-%02d %02d:%02d:%02d UTC"):format(t.year, t.month, t.day, t.hour, t.min, t.sec)
end

return M
