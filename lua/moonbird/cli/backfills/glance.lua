--- What the commands about migrations say of those that are backfills: how far one is that has begun.
local core = require "moonbird.core.backfill"
local tell = require "moonbird.report.backfill"

local M = {}

--- The backfills of a target that have begun and are not applied, by version.
---@param target moonbird.target
---@return table<integer, table> rows of the view backfill_progress; none where they can't be read
function M.open(target)
  local begun = false
  for _, row in ipairs(target.state.open) do
    begun = begun or row.event == "start"
  end
  local found = {}
  if not begun then
    return found
  end
  local rows, err = core.new(target.run.journal):progress(target.session, target.name)
  if not rows then
    target.run.report:log("warn", "where the backfills are can't be read: " .. tostring(err))
  end
  for _, row in ipairs(rows or {}) do
    found[row.version] = row.status ~= "done" and row or nil
  end
  return found
end

--- Where a backfill is, in words: "running, 43%".
M.words = tell.words

--- The same as data.
M.data = tell.data

return M
