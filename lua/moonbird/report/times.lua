--- Points in time as text.
local sys = require "moonbird.core.sys"

local M = {}

local function format(pattern, ms)
  local t = sys.utc(ms / 1000)
  return pattern:format(t.year, t.month, t.day, t.hour, t.min, t.sec)
end

--- For machines: "2026-11-21T03:49:04Z".
---@param ms integer|nil milliseconds since 1970
---@return string|nil
function M.iso(ms)
  return ms and format("%04d-%02d-%02dT%02d:%02d:%02dZ", ms)
end

--- For people: "2026-11-21 03:49:04 UTC", from what iso() or the journal gives.
---@param iso string|nil
---@return string|nil
function M.human(iso)
  return iso and (iso:gsub("T", " "):gsub("%.%d+", ""):gsub("Z$", " UTC"))
end

return M
