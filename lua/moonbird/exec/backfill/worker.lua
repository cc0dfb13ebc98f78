--- A worker: a connection of its own that leases a chunk and runs batches on it until there is none left.
--
-- What a failure means (failure.lua) decides what follows. The connection went: a new one, and the chunk's row tells
-- what was committed. A lock, a deadlock, a conflict, a time limit: half the rows, a pause, again. Anything else is the
-- rows' fault: the batch is tried again, then halved until the row is found.
local batch = require "moonbird.exec.backfill.batch"
local error_ = require "moonbird.core.error"
local failpoint = require "moonbird.core.failpoint"
local failure = require "moonbird.exec.backfill.failure"
local key_of = require "moonbird.exec.backfill.key"
local standby = require "moonbird.exec.standby"
local task = require "moonbird.core.task"
local waits = require "moonbird.exec.backfill.waits"

---@class moonbird.backfill.worker
---@field job moonbird.backfill.job
---@field name string
---@field session moonbird.session|nil
---@field gone boolean|nil the server did not come back
---@field surplus boolean|nil there are to be fewer workers
---@field bad integer|nil a row that can't be changed is among the next so many
---@field naming boolean|nil the next row failed: its batch is tried once more so that its key is known
local M = {}
M.__index = M

-- Milliseconds.
local POLL = 200 -- between looks at a chunk that somebody else has locked
local RECONNECT_FIRST, RECONNECT_MOST = 100, 5000
local BACKOFF_FIRST, BACKOFF_MOST = 20, 2000
local ASIDE = 5000
-- Failed attempts in a row at a lock after which another chunk is taken.
local PATIENCE = 6
-- Connections lost in a row, without a batch in between, that are not taken for somebody's restart any more.
local LOSSES = 12

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

--- Opens a session that can write.
local function open(self)
  local run, name = self.job.run, ("%s/backfill-%d"):format(self.job.target.name, self.index)
  local session, err = run:connect(name)
  if session and session:parameter("default_transaction_read_only") == "on" then
    session:close()
    session, err = run:connect(name, "-c default_transaction_read_only=off")
  end
  err = err or standby.refusal(session, run.params)
  if session and err then
    session:close()
  end
  return not err and session or nil, err
end

--- A session that works: a new one when there is none, or it was lost. Tries for as long as the option `reconnect`
--- says: a server that is restarted comes back.
local function connect(self)
  local job = self.job
  if self.session and not self.session.doomed then
    return true
  end
  self:close()
  local started, wait = task.now(), RECONNECT_FIRST
  while true do
    local session, err = open(self)
    if session then
      self.session = session
      return true
    elseif failure.kind(err) == "stop" or failure.hopeless(err) or not job.connected then
      self.gone = true
      return nil, err
    elseif task.now() - started >= job.options.reconnect then
      self.gone = true
      return nil, failure.gone(err, job.options.reconnect)
    end
    job:emit { kind = "reconnect", worker = self.index, error = err, pause = wait }
    local ok
    ok, err = waits.pause(job, wait)
    if not ok then
      return nil, err
    elseif job.stopping then
      return nil, job.stopping
    end
    wait = math.min(RECONNECT_MOST, wait * 2)
  end
end

--- The connection went: a new one.
local function lost(self, err)
  self.losses = self.losses + 1
  self.job:emit { kind = "lost", worker = self.index, error = err }
  self:close()
  if self.losses > LOSSES then
    self.gone = true
    return nil, err
  end
  local ok, why = waits.pause(self.job, math.min(RECONNECT_MOST, RECONNECT_FIRST << self.losses))
  if not ok then
    return nil, why
  end
  ok, why = connect(self)
  if ok and self.job.paused then -- lost in a pause: somebody has to take "paused" off the state
    ok, why = waits.hold(self)
    if not ok and failure.kind(why) == "lost" then
      return lost(self, why)
    end
  end
  return ok, why
end

--- Closes the connection.
function M:close()
  if self.session then
    self.session:close()
    self.session = nil
  end
end

--- Rows of the next batch: while a bad row is looked for, half of those it must be among.
local function rows_of(self)
  local n = self.job.size:current()
  if self.bad then
    return self.naming and 1 or math.max(1, math.min(n, self.bad // 2))
  end
  return n
end

--- Takes a batch that worked into the account.
local function settle(self, chunk, result, n)
  local job = self.job
  chunk.cur, chunk.done = result.cur, result.done
  self.transient, self.tried, self.losses, self.naming = 0, 0, 0, nil
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

--- A row can't be changed: it is passed over. Gives an error when that is the end.
local function pass_over(self, chunk, key, err)
  local job = self.job
  self.bad, self.naming, self.tried = nil, nil, 0
  local result, why = batch.pass_over(job, self.session, chunk, key, err)
  if result == "other" then -- the row was deleted or moved meanwhile: the one that follows is tried like any
    return true
  elseif result then
    chunk.cur, chunk.done = result.cur, result.done
    job:counted(self, chunk, result)
    job:emit { kind = "error", worker = self.index, error = err, key = key, relation = chunk.relation }
    return true
  elseif result == nil then
    return nil, why
  end
  if not err.message:find("the row with", 1, true) then
    err.message = ("the row with %s: %s"):format(key_of.show(job.place.key, key), err.message)
  end
  err.key = key
  return nil, error_.with(err, { hint = "mend the row and run again, or the backfill and run with --adopt: it goes on "
    .. "from here; or let rows be passed over with options = { max_errors = N }" })
end

--- A batch failed because of its rows. Gives an error when that is the end.
---@param key string|nil of the one row it had, where that is known
local function blame(self, chunk, n, err, key)
  local job = self.job
  self.tried = (self.tried or 0) + 1
  if self.tried <= job.options.retries and not self.bad and err.code ~= "script" then
    job:emit { kind = "retry", worker = self.index, error = err, rows = n }
    return waits.pause(job, BACKOFF_FIRST)
  end
  if n > 1 then
    self.bad = n
    job:emit { kind = "split", worker = self.index, error = err, rows = n }
    return true
  end
  if key then
    return pass_over(self, chunk, key, err)
  elseif self.naming then -- it failed although no row was there
    return nil, err
  end
  self.bad, self.naming = 1, true
  return true
end

--- Decides what follows from a failed batch -> true to go on with the chunk, "next" for another one, nil and an
--- error for the end.
local function failed(self, chunk, n, err, key)
  local job, kind = self.job, failure.kind(err)
  if kind == "stop" or kind == "fatal" then
    return nil, err
  elseif kind == "lost" then
    local ok, why = lost(self, err)
    return ok and "next", why -- the chunk's row tells what was committed
  elseif kind == "moved" then
    return "next"
  elseif kind == "held" then
    return waits.hold(self)
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
    return waits.pause(job, most // 2 + math.random(most))
  end
  return blame(self, chunk, n, err, key)
end

--- Whether somebody has lowered the number of workers below this one's.
local function surplus(self)
  self.surplus = self.index > self.job.options.workers
  return self.surplus
end

--- Runs one batch that the throttle has let through -> result, or nil when there was none, an error, and the key of
--- the row where that is to be known.
local function try(self, chunk, n)
  local job = self.job
  local result, err, key = batch.run(job, self.session, chunk, n, self.naming)
  if job.throttle then
    job.throttle:ended()
  end
  return result, err, key
end

--- Runs batches on a chunk until it is done, somebody else has it, or the backfill stops.
local function work(self, chunk)
  local job = self.job
  self.bad, self.naming, self.tried = nil, nil, 0
  while not chunk.done and not job.stopping and not surplus(self) do
    local ok, err = waits.throttled(job)
    if not ok then
      return nil, err
    elseif job.stopping then
      return true
    end
    local n = rows_of(self)
    local result, key
    result, err, key = try(self, chunk, n)
    if result then
      settle(self, chunk, result, n)
      job:limit(result.limits)
    else
      ok, err = failed(self, chunk, n, err, key)
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
    ok, err = waits.pause(job, math.max(POLL, math.min(left.wait_ms, 2000)))
    if not ok then
      return nil, err
    end
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
  while not job.stopping and not surplus(self) do
    local chunk
    chunk, err = next_chunk(self)
    if chunk then
      job:emit { kind = "chunk", worker = self.index, ordinal = chunk.ordinal, relation = chunk.relation }
      err = select(2, work(self, chunk))
    elseif chunk == false then
      return true
    end
    if err then
      if self.gone or failure.kind(err) ~= "lost" then
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

--- Whether the others go on without this worker, which got no connection: there may be as many as the server or the
--- role allows. They take over its chunk once it has ended; the last one that gets none ends the backfill.
local function dispensable(self, err)
  if not self.gone or failure.kind(err) ~= "lost" or failure.hopeless(err) or self.losses > LOSSES
    or #others(self) == 0 then
    return false
  end
  self.job.run.report:log("warn", ("worker %d got no connection and ends, the others go on: %s"):format(self.index,
    err.message), self.job.step)
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
  if not done and not dispensable(self, err) then
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
