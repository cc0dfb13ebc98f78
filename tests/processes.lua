--- What specs ask the system about processes.
local fs = require "moonbird.core.fs"

local M = {}

--- Whether a process is there. A zombie is not, nor one that the kernel has begun to take away: both have given their
--- memory back, and with it their command line.
---@param pid integer
---@return boolean
function M.alive(pid)
  return (fs.read(("/proc/%d/cmdline"):format(pid)) or "") ~= ""
end

--- Whether a process was stopped by a signal and waits for SIGCONT.
---@param pid integer
---@return boolean
function M.stopped(pid)
  return (fs.read(("/proc/%d/stat"):format(pid)) or ""):match("%) (%a)") == "T"
end

return M
