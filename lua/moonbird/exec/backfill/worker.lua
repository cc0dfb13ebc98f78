--- A worker: a connection of its own that leases a chunk and runs batches on it until there is none left.
--
-- What a failure means decides what follows. The connection went: a new one, and the chunk's row tells what was
-- committed. A lock, a deadlock, a conflict, a time limit: half the rows, a pause, again. Anything else is the
-- rows' fault: the batch is tried again, then halved until the row is found.
local batch = require "moonbird.exec.backfill.batch"
local core = require "moonbird.core.backfill"
local error_ = require "moonbird.core.error"
local failpoint = require "moonbird.core.failpoint"
local key_of = require "moonbird.exec.backfill.key"
local task = require "moonbird.core.task"

---@class moonbird.backfill.worker
---@field job moonbird.backfill.job
---@field name string
---@field session moonbird.session|nil
---@field bad integer|nil a row that can't be changed is among the next so many
local M = {}
M.__index = M

-- Milliseconds.
local POLL = 200 -- between looks at a chunk that somebody else has locked, at a pause, at a throttle
local RECONNECT_FIRST, RECONNECT_MOST, RECONNECT_TOTAL = 100, 5000, 600000
local BACKOFF_FIRST, BACKOFF_MOST = 20, 2000
local ASIDE = 5000
-- Failed attempts in a row at a lock after which another chunk is taken.
local PATIENCE = 6
-- Connections lost in a row, without a batch in between, that are not taken for somebody's restart any more.
local LOSSES = 12

local TRANSIENT = { ["55P03"] = true, ["40P01"] = true, ["40001"] = true, ["57014"] = true }
local LOST = { ["57P01"] = true, ["57P02"] = true, ["57P03"] = true, ["53300"] = true }

-- Classes of SQLSTATE that no row is to blame for: syntax and names, what is not supported or not allowed here, a
-- full disk, defects.
local FATAL = { ["42"] = true, ["0A"] = true, ["25"] = true, ["26"] = true, ["3D"] = true, ["3F"] = true,
  ["53"] = true, ["54"] = true, ["58"] = true, ["XX"] = true }
local DEFECTS = { internal = true, sandbox = true, limit = true, transaction = true, backfill = true }

--- What a failure is about.
---@param err moonbird.error
---@return "stop"|"lost"|"moved"|"held"|"transient"|"fatal"|"row"
function M.kind(err)
  local state = err.sqlstate or ""
  if err.code == "interrupted" or err.code == "timeout" then
    return "stop"
  elseif state == "08P01" then
    return "fatal" -- the protocol was violated: the next connection would not do better
  elseif err.code == "connection_lost" or err.code == "connect" or LOST[state] or state:sub(1, 2) == "08" then
    return "lost"
  elseif state == core.MOVED then
    return "moved"
  elseif state == core.HELD then
    return "held"
  elseif TRANSIENT[state] then
    return "transient"
  elseif FATAL[state:sub(1, 2)] or DEFECTS[err.code] then
    return "fatal"
  end
  return "row"
end

---@param job moonbird.backfill.job
---@param index integer
---@return moonbird.backfill.worker
function M.new(job, index)
  return setmetatable({ job = job, index = index, name = ("%s/%d"):format(job.run.id:sub(1, 12), index),
    transient = 0, losses = 0 }, M)
end

--- The names of the other workers of this process that are at work.
local function others(self)
  local list = {}
  for _, worker in ipairs(self.job.workers) do
    if worker ~= self and not worker.ended then
      list[#list + 1] = worker.name
    end
  end
  return list
end

--- A session that works: a new one when there is none, or it was lost. Tries for some minutes: a server that is
--- restarted comes back.
local function connect(self)
  local job = self.job
  if self.session and not self.session.doomed then
    return true
  end
  self:close()
  local started, pause = task.now(), RECONNECT_FIRST
  while true do
    local name = ("%s/backfill-%d"):format(job.target.name, self.index)
    local session, err = job.run:connect(name)
    if session and session:parameter("default_transaction_read_only") == "on" then
      session:close()
      session, err = job.run:connect(name, "-c default_transaction_read_only=off")
    end
    if session then
      self.session = session
      return true
    elseif M.kind(err) == "stop" then
      return nil, err
    elseif not job.connected or task.now() - started > RECONNECT_TOTAL then
      return nil, err
    end
    job:emit { kind = "reconnect", worker = self.index, error = err, pause = pause }
    local ok
    ok, err = task.sleep(pause)
    if not ok then
      return nil, err
    elseif job.stopping then
      return nil, job.stopping
    end
    pause = math.min(RECONNECT_MOST, pause * 2)
  end
end

--- The connection went: a new one.
local function lost(self, err)
  self.losses = self.losses + 1
  self.job:emit { kind = "lost", worker = self.index, error = err }
  self:close()
  if self.losses > LOSSES then
    return nil, err
  end
  local ok, why = task.sleep(math.min(RECONNECT_MOST, RECONNECT_FIRST << self.losses))
  if not ok then
    return nil, why
  end
  return connect(self)
end

--- Closes the connection.
function M:close()
  if self.session then
    self.session:close()
    self.session = nil
  end
end

--- Sleeps, but not past the end of the backfill.
local function pause(self, ms)
  local till = task.now() + ms
  while not self.job.stopping do
    local left = till - task.now()
    if left <= 0 then
      return true
    end
    local ok, err = task.sleep(math.min(left, POLL))
    if not ok then
      return nil, err
    end
  end
  return true
end

--- Somebody said "pause" or "cancel" in another terminal: waits for "run".
local function hold(self)
  local job, told = self.job, false
  while not job.stopping do
    local state, err = job.store:find(self.session, job.state.target, job.state.version)
    if not state then
      return nil, err or error_.new("backfill", "the backfill's state is gone")
    elseif state.want == "cancel" then
      job:stop(error_.new("backfill", "the backfill was cancelled",
        { hint = "what was committed stays; --restart begins anew" }), "cancelled")
      return true
    elseif state.want == "run" then
      if told then
        job:emit { kind = "resumed", worker = self.index }
        return job.store:set_status(self.session, job.state.target, job.state.version, { status = "running" })
      end
      return true
    end
    if not told then
      told = true
      job:emit { kind = "paused", worker = self.index }
      local ok
      ok, err = job.store:set_status(self.session, job.state.target, job.state.version, { status = "paused" })
      if not ok then
        return nil, err
      end
    end
    local ok
    ok, err = task.sleep(POLL)
    if not ok then
      return nil, err
    end
  end
  return true
end

--- What the throttle says: waits while it says "stop".
local function throttled(self)
  local job = self.job
  local throttle = job.throttle
  while throttle and not job.stopping do
    local level, reason, wait = throttle:verdict()
    job:throttled(level, reason)
    if level ~= "stop" then
      if level == "slow" and (wait or 0) > 0 then
        return pause(self, wait)
      end
      return true
    end
    local ok, err = task.sleep(POLL)
    if not ok then
      return nil, err
    end
  end
  return true
end

--- Rows of the next batch: while a bad row is looked for, half of those it must be among.
local function rows_of(self)
  local n = self.job.size:current()
  if self.bad then
    return math.max(1, math.min(n, self.bad // 2))
  end
  return n
end

--- Takes a batch that worked into the account.
local function settle(self, chunk, result, n)
  local job = self.job
  chunk.cur, chunk.done = result.cur, result.done
  self.transient, self.tried, self.losses = 0, 0, 0
  if self.bad then
    self.bad = self.bad - n
    if self.bad <= 0 then
      self.bad = nil -- it went well after all
    end
  else
    job.size:worked(result.ms, result.seen, result.bytes)
  end
  job:counted(self, chunk, result)
end

--- A batch failed because of its rows. Gives an error when that is the end.
local function blame(self, chunk, n, err)
  local job = self.job
  self.tried = (self.tried or 0) + 1
  if self.tried <= job.options.retries and not self.bad and err.code ~= "script" then
    job:emit { kind = "retry", worker = self.index, error = err, rows = n }
    return pause(self, BACKOFF_FIRST)
  end
  if n > 1 then
    self.bad = n
    job:emit { kind = "split", worker = self.index, error = err, rows = n }
    return true
  end
  self.bad, self.tried = nil, 0
  local result, why = batch.pass_over(job, self.session, chunk, err)
  if result then
    chunk.cur, chunk.done = result.cur, result.done
    job:counted(self, chunk, result)
    job:emit { kind = "error", worker = self.index, error = err, key = why, relation = chunk.relation }
    return true
  elseif result == nil then
    return nil, why
  end
  local shown = key_of.show(job.place.key, why)
  if not err.message:find("the row with", 1, true) then
    err.message = ("the row with %s: %s"):format(shown, err.message)
  end
  err.key = why
  return nil, error_.with(err, { hint = "mend the row or the backfill and run again: it goes on from here; or let "
    .. "rows be passed over with options = { max_errors = N }" })
end

--- Decides what follows from a failed batch -> true to go on with the chunk, "next" for another one, nil and an
--- error for the end.
local function failed(self, chunk, n, err)
  local job, kind = self.job, M.kind(err)
  if kind == "stop" or kind == "fatal" then
    return nil, err
  elseif kind == "lost" then
    local ok, why = lost(self, err)
    return ok and "next", why -- the chunk's row tells what was committed
  elseif kind == "moved" then
    return "next"
  elseif kind == "held" then
    return hold(self)
  elseif kind == "transient" and not (n == 1 and err.sqlstate == "57014" and self.transient >= 3) then
    self.transient = self.transient + 1
    job.size:failed()
    if n <= job.options.min and not self.bad then
      self.bad = n -- below the least size, too: one row is locked, others are not
    elseif self.bad then
      self.bad = math.max(2, n)
    end
    job:emit { kind = "blocked", worker = self.index, error = err, rows = n, attempt = self.transient }
    if self.transient % PATIENCE == 0 then
      local ok, why = job.store:put_aside(self.session, job.state, chunk, ASIDE)
      return ok and "next", why
    end
    local most = math.min(BACKOFF_MOST, BACKOFF_FIRST << math.min(self.transient, 8))
    return pause(self, most // 2 + math.random(most))
  end
  return blame(self, chunk, n, err)
end

--- Runs batches on a chunk until it is done, somebody else has it, or the backfill stops.
local function work(self, chunk)
  local job = self.job
  self.bad, self.tried = nil, 0
  while not chunk.done and not job.stopping do
    local ok, err = throttled(self)
    if ok and job.stopping then
      return true
    end
    local n = rows_of(self)
    local result
    if ok then
      result, err = batch.run(job, self.session, chunk, n)
    end
    if result then
      settle(self, chunk, result, n)
      job:limit(result.limits)
    elseif not ok then
      return nil, err
    else
      ok, err = failed(self, chunk, n, err)
      if not ok then
        return nil, err
      elseif ok == "next" then
        return true
      end
    end
    job:check()
  end
  return true
end

--- Finds something to do -> chunk; or false when nothing is left for this worker.
local function next_chunk(self)
  local job = self.job
  while not job.stopping do
    failpoint("backfill.lease")
    local chunk, err = job.store:lease(self.session, job.state, self.name, others(self))
    if chunk or err then
      return chunk, err
    end
    local left
    left, err = job.store:left(self.session, job.state, others(self))
    if not left then
      return nil, err
    elseif left.free == 0 then
      return false
    end
    -- Locked: by another process, or by what a killed one had sent. Or put aside for a while.
    local ok
    ok, err = pause(self, math.max(POLL, math.min(left.wait_ms, 2000)))
    if not ok then
      return nil, err
    end
    job:check()
  end
  return false
end

local function go(self)
  local job = self.job
  local ok, err = connect(self)
  if not ok then
    return nil, err
  end
  job.connected = true
  while not job.stopping do
    local chunk
    chunk, err = next_chunk(self)
    if chunk then
      job:emit { kind = "chunk", worker = self.index, ordinal = chunk.ordinal, relation = chunk.relation }
      err = select(2, work(self, chunk))
    elseif chunk == false then
      return true
    end
    if err then
      if M.kind(err) ~= "lost" then
        return nil, err
      end
      ok, err = lost(self, err)
      if not ok then
        return nil, err
      end
    end
  end
  return true
end

--- Works until there is nothing left to do; stops the whole backfill when it can't go on.
function M:run()
  local ok, done, err = xpcall(go, function(raised)
    local caught = error_.from(raised, type(raised) == "string" and "internal" or nil)
    caught.traceback = caught.traceback or debug.traceback(nil, 2)
    return caught
  end, self)
  if not ok then
    done, err = nil, done
  end
  if not done then
    self.job:stop(err, "failed")
  end
  if self.session then
    self.session:rollback()
    if not self.session.doomed then
      self.job.store:release(self.session, self.job.state, self.name)
    end
  end
  self.ended = true
  self:close()
end

return M
