--- Backfills that are killed while they work.
local helper = require "tests.helper"
local sys = require "moonbird.core.sys"

local M = {}

--- Rows that committed batches have seen.
---@param db tests.database
---@return integer
function M.seen(db)
  return db:value "select coalesce(sum(rows_seen), 0)::bigint from moonbird.backfill_chunk"
end

-- Waits until more rows were seen than before; false when the process ended without.
local function goes_on(child, db, before)
  local deadline = sys.monotonic() + 60
  while M.seen(db) == before do
    if child:wait(2) then
      return false
    elseif sys.monotonic() > deadline then
      error("the backfill stands still", 3)
    end
  end
  return true
end

--- Runs `up` to its end, whatever it takes: it is killed with SIGKILL each time after it was seen to go on, at a moment
--- nobody chose, until it was killed so often. The last run is left alone.
---@param options { db: tests.database, cwd: string, kills: integer, later: integer } later: milliseconds that a run may
---  have, at most, after it went on
---@return integer kills fewer where it came to its end before
function M.kill(options)
  local kills = 0
  local before = M.seen(options.db)
  while kills < options.kills do
    local child = helper.spawn({ "up" }, { db = options.db, cwd = options.cwd })
    if goes_on(child, options.db, before) then
      child:wait(math.random(0, options.later))
      child:kill("KILL")
    end
    local result = child:wait()
    if result.signal ~= "KILL" and result.signal ~= "SIGKILL" then
      assert(result.status == 0, result.stderr)
      return kills
    end
    kills = kills + 1
    before = M.seen(options.db)
  end
  helper.ok({ "up" }, { db = options.db, cwd = options.cwd, timeout = 120 })
  return kills
end

return M
