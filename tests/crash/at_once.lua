--- Many rounds of a crash test side by side.
local task = require "moonbird.core.task"

local M = {}

--- Runs `round(n)` for each n from `first` to `last`, all at once; fails with what went wrong in each of them.
---@param first integer
---@param last integer
---@param name fun(n: integer): string what a failure's message calls the round
---@param round fun(n: integer)
function M.rounds(first, last, name, round)
  local tasks, problems = {}, {}
  for n = first, last do
    tasks[#tasks + 1] = task.spawn(function()
      local ok, err = pcall(round, n)
      if not ok then
        problems[#problems + 1] = ("%s: %s"):format(name(n), type(err) == "table" and err.message or tostring(err))
      end
    end)
  end
  for _, one in ipairs(tasks) do
    one:join()
  end
  if #problems > 0 then
    error(table.concat(problems, "\n"), 2)
  end
end

return M
