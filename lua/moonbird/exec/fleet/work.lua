--- A worker at an open wave: tenants through its slots, or the one item that is the global target.
local error_ = require "moonbird.core.error"
local global_ = require "moonbird.exec.tenants.global"
local member_of = require "moonbird.exec.fleet.member"
local one = require "moonbird.exec.tenants.one"
local queue_of = require "moonbird.exec.fleet.queue"
local stage_of = require "moonbird.exec.tenants.stage"
local stages_of = require "moonbird.exec.fleet.stages"
local survey_of = require "moonbird.exec.tenants.survey"
local waves_of = require "moonbird.exec.tenants.waves"

local M = {}

--- The tenant of a name.
local function finder(self)
  if not self.by_name then
    self.by_name = {}
    for _, tenant in ipairs(self.context.survey.tenants) do
      self.by_name[tenant.name] = tenant
    end
  end
  local by_name = self.by_name
  return function(name)
    local tenant = by_name[name]
    if not tenant then
      return nil, error_.new("config", ("the source does not list \"%s\" any more"):format(name))
    end
    return tenant
  end
end

--- Takes tenants of a wave until none is left for this worker.
---@param self moonbird.fleet.member
---@param view table the run's place, of link:turn()
---@return moonbird.error? err what stopped the worker; failures of tenants are told to the rows
function M.on_tenants(self, view)
  local context, wave = self.context, self.row.stages[view.stage].waves[view.wave]
  local stage, err = stages_of.prepare(self, view.stage)
  if not stage then
    return err
  end
  local counts
  counts, err = self:call("counts", self.name, view.stage, view.wave)
  if not counts then
    return err
  end
  if self.told_stage ~= view.stage then
    self.told_stage = view.stage
    local count = 0
    for _, each in ipairs(self.row.stages[view.stage].waves) do
      count = count + each.count
    end
    context.report:stage_started(stage, count)
  end
  local jobs = context.options.jobs or context.survey.settings.jobs
  local queue = queue_of.new { link = self.link, stage = view.stage, wave = view.wave, jobs = jobs, counts = counts,
    find = finder(self) }
  context.report:wave_started(wave, queue, view.waves)
  local _, stopped = stage_of.run_wave {
    queue = queue, pool = context.survey.pool, stage = stage, gate = context.options.gate, report = context.report,
    attempts = context.survey.settings.attempts, jobs = jobs, shared = true, prepare = survey_of.prepare,
    record_failure = waves_of.recorder(context.survey, stage.direction),
  }
  queue:give_back_ready()
  self.link.want, self.link.receive, self.link.on_counts = nil, nil, nil
  context.report:wave_ended(wave, queue)
  self.finished = self.finished + queue.finished
  return stopped or self.link.lost
end

--- The global target is one item: one worker has it, the others wait.
---@param self moonbird.fleet.member
---@param view table the run's place, of link:turn()
---@return moonbird.error? err what stopped the worker
function M.on_global(self, view)
  local link, context, item = self.link, self.context, nil
  link.stage, link.wave, link.held = view.stage, view.wave, {}
  link.want = function()
    return 1
  end
  link.receive = function(answer)
    item = item or answer.items[1]
    link.want = nil
  end
  local ok, err = link:turn()
  link.want, link.receive = nil, nil
  if not ok then
    return err
  elseif not item then
    return member_of.wait()
  end
  local migrations
  err = stages_of.look(self, view.stage)
  if not err then
    migrations, err = stages_of.migrations(self, context.global, view.stage)
  end
  err = err or global_.run(context, migrations)
  local result = { stage = view.stage, place = item.place, state = "done" }
  if err then
    local attempts = item.attempts + 1
    result.attempts, result.code, result.sqlstate, result.error = attempts, err.code, err.sqlstate, err.message
    result.migration, result.file, result.line, result.kind = err.migration, err.file, err.line, err.code
    if err.code == "interrupted" or err.code == "timeout" then
      result.state, result.attempts = "waiting", item.attempts
    elseif one.retryable(err) and attempts < context.survey.settings.attempts then
      context.report.report:log("warn", ("global: attempt %d: %s; again later"):format(attempts, err.message))
      result.state, result.delay_ms, err = "waiting", 1000 * attempts, nil
    else
      result.state = "failed"
    end
  end
  self.looked = nil -- it may have made tenants
  link:tell(result)
  if err and result.state == "waiting" then
    return err -- what is told is told on leaving
  end
  local _, lost = link:turn()
  self.own_error = err
  return lost
end

return M
