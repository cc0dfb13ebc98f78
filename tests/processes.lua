--- What specs ask the system about processes.
local fs = require "moonbird.core.fs"

local M = {}

--- Whether a process is there and no zombie.
---@param pid integer
---@return boolean
function M.alive(pid)
  local stat = fs.read(("/proc/%d/stat"):format(pid))
  return stat ~= nil and stat:match("%) (%a)") ~= "Z"
end

return M
