--- What a worker waits for between batches: a time, somebody's "resume", the throttle. Each wait looks whether the
-- backfill is to end or its time is over, so that none of them outlasts it.
local error_ = require "moonbird.core.error"
local task = require "moonbird.core.task"

local M = {}

-- Milliseconds between looks.
local POLL = 200

--- Sleeps, but not past the end of the backfill.
---@param job moonbird.backfill.job
---@param ms integer
---@return true|nil
---@return moonbird.error? err when the task was cancelled
function M.pause(job, ms)
  local till = task.now() + ms
  while true do
    job:check()
    local left = till - task.now()
    if left <= 0 or job.stopping then
      return true
    end
    local ok, err = task.sleep(math.min(left, POLL))
    if not ok then
      return nil, err
    end
  end
end

--- Says in the state that it is paused, once for all workers and whatever becomes of a connection.
local function begin_pause(worker)
  local job = worker.job
  if job.paused then
    return true
  end
  job.paused = true
  job:emit { kind = "paused", worker = worker.index }
  local ok, err = job.store:set_status(worker.session, job.state.target, job.state.version, { status = "paused" })
  job.paused = ok
  return ok, err
end

--- Says in the state that it works again, where it said that it is paused.
local function end_pause(worker)
  local job = worker.job
  if job.throttle and job.throttle.resumed then
    job.throttle:resumed()
  end
  if not job.paused then
    return true
  end
  local ok, err = job.store:set_status(worker.session, job.state.target, job.state.version, { status = "running" })
  if ok and job.paused then -- else another worker was faster
    job.paused = nil
    job:emit { kind = "resumed", worker = worker.index }
  end
  return ok, err
end

--- Somebody said "pause" or "cancel" in another terminal, or works with other code: waits for "run".
---@param worker moonbird.backfill.worker
---@return true|nil
---@return moonbird.error? err
function M.hold(worker)
  local job, session = worker.job, worker.session
  while not job.stopping do
    local state, err = job.store:find(session, job.state.target, job.state.version)
    if not state then
      return nil, err or error_.new("backfill", "the backfill's state is gone")
    elseif state.code ~= job.state.code then
      return nil, error_.new("checksum", "another run works on this backfill with other code",
        { hint = "what was committed stays; run it again with the file that the other run has" })
    elseif state.want == "cancel" then
      job:stop(error_.new("backfill", "the backfill was cancelled",
        { hint = "what was committed stays; --restart begins anew" }), "cancelled")
      return true
    elseif state.want == "run" then
      return end_pause(worker)
    end
    local ok
    ok, err = begin_pause(worker)
    if ok then
      ok, err = M.pause(job, POLL)
    end
    if not ok then
      return nil, err
    end
  end
  return true
end

--- Waits until the throttle lets one batch through, or the backfill is to end. Who was let through says when the batch
--- has ended (throttle:ended).
---@param job moonbird.backfill.job
---@return true|nil
---@return moonbird.error? err
function M.throttled(job)
  local throttle = job.throttle
  while throttle and not job.stopping do
    local level, reason, wait = throttle:verdict()
    job:throttled(level, reason)
    local ok, err = true, nil
    if level == "stop" then
      ok, err = M.pause(job, POLL)
    elseif level == "slow" and (wait or 0) > 0 then
      ok, err = M.pause(job, wait)
    end
    if not ok then
      return nil, err
    elseif level ~= "stop" and not job.stopping then
      local admitted, why = throttle:admit()
      if admitted then
        return true
      elseif why then
        job:throttled("stop", why)
      end
    end
  end
  return true
end

return M
