--- Stands where `up` has its gate while ci runs: rules are held against what is true, nothing is stopped, and Lua
-- functions are recorded. Only the first time each: what comes after that is the same again.
local recorder = require "moonbird.exec.recorder"

---@class moonbird.ci.judge
---@field gate moonbird.gate the rules, and what they said
---@field report moonbird.reporter made by M.quiet
---@field recorded table<integer, table> version to { up, down }: filled here
local M = {}
M.__index = M

--- Makes it.
---@param gate moonbird.gate
---@param report moonbird.reporter made by M.quiet
---@param recorded table<integer, table>
---@return moonbird.ci.judge
function M.new(gate, report, recorded)
  return setmetatable({ gate = gate, report = report, recorded = recorded, judged = {} }, M)
end

--- What the rules find stops nothing here; that they could not be run does.
---@param err moonbird.error? of the gate
function M.heed(err)
  if err and err.code ~= "policy" then
    error(err, 0)
  end
end

--- See gate.
function M.before()
  return nil -- all were looked at when it began
end

--- See gate. Never stops.
---@param target moonbird.target
---@param step moonbird.step
function M:step(target, step)
  local version = step.migration.version
  local recorded = self.recorded[version] or {}
  self.first = step.direction == "up" and not self.judged[version]
  if self.first then
    self.judged[version] = true
    self.report.silent = true
    M.heed(self.gate:step(target, step))
    self.report.silent = false
  end
  step.vet = nil
  if step.body.kind == "function" and not recorded[step.direction] then
    step.begin_recording = function() -- anew for every attempt
      step.recorder = recorder.new { file = step.migration.file, source = step.migration.text }
      return step.recorder
    end
  else
    step.begin_recording = nil
  end
end

--- See gate. Never stops.
---@param target moonbird.target
---@param step moonbird.step
---@param took integer
function M:after(target, step, took)
  if step.recorder then
    local version = step.migration.version
    self.recorded[version] = self.recorded[version] or {}
    self.recorded[version][step.direction] = step.recorder.entries
    if step.recorder.truncated then
      self.report:log("warn", "not everything that its function sent was kept for the policy to look at", step)
    end
  end
  if self.first then
    self.report.silent = true
    M.heed(self.gate:after(target, step, took))
    self.report.silent = false
  end
end

--- A reporter without what the engine tells of each step: every migration runs three times. What the server and
--- the scripts say is shown unless `again` is set; nothing is while `silent` is.
---@param report moonbird.reporter
---@return moonbird.reporter
function M.quiet(report)
  local own = { silent = false, again = false }
  function own.print() end
  function own:log(level, ...)
    if not self.silent and not (self.again and (level == "info" or level == "notice")) then
      report:log(level, ...)
    end
  end
  return setmetatable(own, { __index = report, __newindex = report })
end

return M
