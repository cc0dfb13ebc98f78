--- Lock timeouts: a ladder of short waits with pauses between, the whole transaction anew each time.
--
-- A short lock_timeout keeps our place in the lock queue from blocking everybody behind us. But a wait
-- shorter than deadlock_timeout never evicts autovacuum (the server cancels it only then), so every third
-- rung is longer than that (measured: research on 15.18). The sum of all waits is bounded.
local task = require "moonbird.core.task"

local M = {}

local RETRYABLE = { ["55P03"] = true, ["40P01"] = true, ["40001"] = true }

-- Milliseconds. First waits are short, then doubled up to the step's lock timeout.
local FIRST_RUNG = 200
local EVICT_MARGIN = 300
local MAX_PAUSE = 2000

--- Whether a failed attempt may be made again.
---@param err moonbird.error
---@return boolean
function M.retryable(err)
  return RETRYABLE[err.sqlstate or ""] or false
end

--- The lock_timeout of an attempt.
---@param attempt integer from 1
---@param limit integer longest ordinary wait, ms; 0: no bound is wanted
---@param deadlock_timeout integer the server's, ms
---@return integer ms
function M.rung(attempt, limit, deadlock_timeout)
  if limit == 0 then
    return 0
  end
  if attempt % 3 == 0 then
    return math.max(limit, deadlock_timeout + EVICT_MARGIN)
  end
  return math.min(limit, FIRST_RUNG << math.min(attempt - 1, 12))
end

---@class moonbird.retry.options
---@field lock integer longest ordinary wait, ms
---@field total integer ms that all waits may take, 0: no bound
---@field deadlock_timeout integer the server's, ms
---@field blocked fun(err: moonbird.error, attempt: integer, lock: integer) told of each retry
---@field random? fun(): number for tests

--- Runs `attempt(lock_ms)` until it works, fails for another reason, or the lock budget is spent.
---@param options moonbird.retry.options
---@param attempt fun(lock_ms: integer): true|nil, moonbird.error?
---@return true|nil
---@return moonbird.error? err
function M.run(options, attempt)
  local random = options.random or math.random
  local started = task.now()
  local n = 0
  while true do
    n = n + 1
    local lock = M.rung(n, options.lock, options.deadlock_timeout)
    local ok, err = attempt(lock)
    if ok or not M.retryable(err) then
      return ok, err
    end
    local spent = task.now() - started
    if options.total > 0 and spent >= options.total then
      err.attempts = n
      err.hint = err.hint or ("gave up after %d attempts in %.1f s; raise timeouts.lock_total, or end who blocks")
        :format(n, spent / 1000)
      return nil, err
    end
    options.blocked(err, n, lock)
    local pause = math.floor(math.min(MAX_PAUSE, 50 << math.min(n, 8)) * random()) + 10
    ok, err = task.sleep(pause)
    if not ok then
      return nil, err
    end
  end
end

return M
