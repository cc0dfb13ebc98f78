--- Tasks: coroutines that the scheduler resumes when what they wait for is there.
--
-- A call that waits (a query, a sleep) looks synchronous; other tasks run meanwhile. Every body runs in
-- an xpcall inside its coroutine, so that clean-up which waits itself (ROLLBACK) works while unwinding.
local native = require "moonbird.native.task"
local error_ = require "moonbird.core.error"

local M = {}

--- The light userdata that engine waits yield.
M.SENTINEL = native.SENTINEL

---@class moonbird.task
---@field private handle userdata
local Task = {}
Task.__index = Task

local function handler(raised)
  local err = error_.from(raised, type(raised) == "string" and "internal" or nil)
  err.traceback = err.traceback or debug.traceback(nil, 2)
  return err
end

--- Starts a task; it first runs in the next turn of the scheduler.
---@param fn function
---@param ... any arguments
---@return moonbird.task
function M.spawn(fn, ...)
  local args = table.pack(...)
  local self = setmetatable({ joiners = {} }, Task)
  self.handle = native.spawn(function()
    self.result = table.pack(xpcall(fn, handler, table.unpack(args, 1, args.n)))
    for _, joiner in ipairs(self.joiners) do
      joiner:wake()
    end
  end)
  return self
end

--- Whether the task has ended.
---@return boolean
function Task:done()
  return self.result ~= nil
end

--- Waits for the task's end.
---@return any ... what the body returned; or nil, err when it raised or the waiting task was cancelled
function Task:join()
  while not self.result do
    self.joiners[#self.joiners + 1] = M.current()
    local ok, err = native.park()
    if not ok then
      return nil, err
    end
  end
  if self.result[1] then
    return table.unpack(self.result, 2, self.result.n)
  end
  return nil, self.result[2]
end

--- Asks the task to stop: its present or next wait ends with an error of that code.
---@param code? "interrupted"|"timeout"
function Task:cancel(code)
  if not self.result then
    self.handle:cancel(code or "interrupted")
  end
end

--- Ends the task's present or next park().
function Task:wake()
  self.handle:wake()
end

--- Waits until somebody calls wake() on this task.
---@return true|nil
---@return moonbird.error? err when the task is cancelled
function M.park()
  return native.park()
end

--- The handle of the running task (with :wake() and :cancel()).
---@return userdata
function M.current()
  return native.current()
end

--- Sleeps.
---@param ms integer milliseconds
---@return true|nil
---@return moonbird.error? err when the task is cancelled
function M.sleep(ms)
  return native.sleep(ms)
end

--- The error of a request to stop that no wait has taken yet; nil when there is none. Ask between pieces of
--- work: a request that comes when the last wait of a piece is already answered is still there.
---@return moonbird.error|nil
function M.take_cancel()
  return native.take_cancel()
end

--- Milliseconds of the monotonic clock, as of the present turn.
---@return integer
function M.now()
  return native.now()
end

--- Waits for SIGINT or SIGTERM.
---@return "SIGINT"|"SIGTERM"|nil
---@return moonbird.error? err when the task is cancelled
function M.wait_signal()
  return native.wait_signal()
end

--- Whether the caller runs inside a task.
---@return boolean
function M.in_task()
  return native.in_task()
end

--- Turns the scheduler until `done()` is true. For the main program, outside any task; tasks that still
--- wait then are abandoned when the program ends.
---@param done fun(): boolean
function M.turn_until(done)
  while not done() do
    native.turn()
  end
end

--- Runs `fn` as a task and turns the scheduler until it has ended.
---@param fn function
---@param ... any
---@return any ... what fn returned, or nil, err
function M.run(fn, ...)
  local root = M.spawn(fn, ...)
  M.turn_until(function()
    return root.result ~= nil
  end)
  if root.result[1] then
    return table.unpack(root.result, 2, root.result.n)
  end
  return nil, root.result[2]
end

--- Runs `fn`, cancelling the running task with code "timeout" if it is not done after `ms`.
---@param ms integer|nil nil: no bound
---@param fn function
---@return any ... what fn returns
function M.within(ms, fn)
  if not ms then
    return fn()
  end
  local me = M.current()
  local timer = M.spawn(function()
    if native.sleep(ms) then
      me:cancel("timeout")
    end
  end)
  local result = table.pack(pcall(fn))
  timer:cancel()
  if not result[1] then
    error(result[2], 0)
  end
  return table.unpack(result, 2, result.n)
end

return M
