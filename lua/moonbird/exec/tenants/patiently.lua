--- Does what reads or begins something, again and again where other runs hold all the locks that the server has room
--- for (53200), as long as one would wait for a lock.
local task = require "moonbird.core.task"

-- Milliseconds between tries.
local PAUSE = 500

---@generic T, U
---@param run moonbird.run
---@param fn fun(): T?, U? nil and an error where it failed
---@return T?
---@return U?
return function(run, fn)
  local deadline = task.now() + run.lock_wait
  while true do
    local result, err = fn()
    if result or not err or err.sqlstate ~= "53200" or task.now() >= deadline then
      return result, err
    end
    run.report:log("info", "the server is out of locks (53200); trying again")
    local ok, why = task.sleep(PAUSE // 2 + math.random(PAUSE))
    if not ok then
      return nil, why
    end
  end
end
