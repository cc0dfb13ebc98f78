--- The lines of the log (tell.lua) that are worth having beside a bar or lines of progress.
local tell = require "moonbird.exec.backfill.tell"

local M = {}

-- What the bar says itself, and what is only news where there is none.
local LEFT_OUT = { batch = true }

--- Writes an event to the log unless the progress tells it.
---@param job moonbird.backfill.job
---@param event moonbird.backfill.event
function M.event(job, event)
  local waits = event.kind == "stopped" or event.kind == "resume" and job.target.name ~= "global"
    or event.kind == "start" and job.target.name ~= "global"
  if not LEFT_OUT[event.kind] and not waits and not (event.kind == "throttle" and job.run.report.options.live) then
    tell.event(job, event)
  end
end

return M
