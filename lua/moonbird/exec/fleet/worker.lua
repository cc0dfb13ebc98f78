--- A worker of a fleet: makes or joins a run, and does what its rows say is next until the run has ended.
--
-- Every worker goes round the same loop and sees the same row; whoever finds a wave empty advances it, whoever
-- finds a stage over opens the next, each by a statement that does nothing when another was faster. No worker is
-- special, so any may be killed at any moment.
local gate = require "moonbird.exec.fleet.gate"
local global_ = require "moonbird.exec.tenants.global"
local member_of = require "moonbird.exec.fleet.member"
local outcome = require "moonbird.exec.fleet.outcome"
local patiently = require "moonbird.exec.tenants.patiently"
local stage_of = require "moonbird.exec.tenants.stage"
local stages_of = require "moonbird.exec.fleet.stages"
local task = require "moonbird.core.task"
local verdicts = require "moonbird.exec.tenants.verdicts"
local work = require "moonbird.exec.fleet.work"

local M = {}

local function wait_paused(self, view)
  if not self.told_paused then
    self.context.report.report:log("warn", ("the run %s is paused (%s); waiting for `moonbird run resume %s`"):format(
      self.name, view.reason, self.name))
  end
  self.told_paused = true
  return member_of.wait()
end

--- Does what is next -> whether the run has ended, err.
local function step(self)
  local view, err = self.link:turn()
  if not view or member_of.ENDED[view.status] then
    return view ~= nil, err
  end
  if self.row.stage ~= view.stage or self.row.wave ~= view.wave then
    local row
    row, err = self:read_row()
    if not row then
      return false, err
    end
    view.stage, view.wave = row.stage, row.wave
  end
  if view.status == "paused" then
    return false, wait_paused(self, view)
  end
  self.told_paused = nil
  if view.gate then
    return false, gate.pass(self, view)
  elseif view.stage > 0 and view.wave > 0 and view.open then
    local go_on = self.row.stages[view.stage].scope == "global" and work.on_global or work.on_tenants
    return false, go_on(self, view)
  elseif view.wave < #(view.stage > 0 and self.row.stages[view.stage].waves or {}) then
    local _
    _, err = self:call("next_wave", self.name, view.stage, view.wave)
    return false, err
  end
  return false, stages_of.open_next(self, view.stage)
end

--- Why a run is not begun or joined: asked before anything of it is written.
local function refusal(context, stages)
  for _, stage in ipairs(stages) do
    if context.some and stage.scope == "global" then
      return global_.barred(stage.migrations[1])
    end
  end
  if #stages == 0 or stages[#stages].scope == "global" and #stages == 1 then
    local _, err = patiently(context.run, function()
      return verdicts.look_over(context, stage_of.make(context, {}, "up")) -- no stage looks at them
    end)
    return err
  elseif stages[1].scope == "tenant" then -- or a run would be left behind
    return stages_of.vet(context, stage_of.make(context, stages[1].migrations, "up"))
  end
end

--- Goes round until the run has ended -> err.
local function work_on(self)
  self.looked = self.made and 1 or nil
  local over, err = member_of.ENDED[self.row.status], nil
  while not over and not err do
    err = task.take_cancel() or self.context.run:expired()
    if not err then
      over, err = step(self)
    end
  end
  return err or outcome.read(self)
end

---@class moonbird.fleet.options
---@field name string of the run
---@field control? string URL
---@field lease? integer milliseconds

--- Works on a run until it has ended.
---@param context moonbird.tenants.context
---@param stages moonbird.stage[] what is to be done, as this process sees it; the run's maker decides
---@param options moonbird.fleet.options
---@return moonbird.error? err what ended this worker, not the run; or that the run is refused
function M.go(context, stages, options)
  local control, err = member_of.control(context.run, options.control)
  err = err or refusal(context, stages)
  if err then
    return err
  end
  local self = member_of.new(context, control, options)
  err = self:enter(stages) or work_on(self)
  local failed = self.link:close()
  return err or self.own_error or failed
end

return M
