--- What stands between two waves of a fleet's run: a pause, then a check that one of the workers makes.
local member_of = require "moonbird.exec.fleet.member"
local task = require "moonbird.core.task"

local M = {}

--- Waits at a gate, or passes it for all where this worker is the one that does.
---@param self moonbird.fleet.member
---@param view table the run's place, of link:turn(): stage, wave, gate_ms
---@return moonbird.error? err what stopped the worker; a check that failed is told to the rows
function M.pass(self, view)
  local settings = self.context.survey.settings
  if view.gate_ms > 0 then
    local _, err = task.sleep(math.min(view.gate_ms, 1000))
    return err
  end
  local mine, err = false, nil
  if settings.health or not self.row.settings.health then
    mine, err = self:call("take_gate", self.link.worker, view.stage, view.wave)
  end
  if mine then
    local waves, refusal = self.row.stages[view.stage].waves, nil
    self.context.report:wave_done(waves[view.wave], waves[view.wave + 1])
    if self.row.settings.health then
      local ok, why = require("moonbird.exec.tenants.health").check(self.context, settings.health)
      if not ok and (why.code == "interrupted" or why.code == "timeout") then
        return why
      end
      refusal = not ok and why.message or nil
    end
    mine, err = self:call("pass_gate", self.link.worker, view.stage, view.wave, refusal)
  end
  if mine == false then
    err = member_of.wait()
  end
  return err
end

return M
