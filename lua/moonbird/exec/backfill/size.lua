--- How many rows the next batch takes. Pure: no database, no clock.
--
-- The time a row costs is smoothed (weight ALPHA for the newest batch), which gives the size that would take the
-- target time. The next size goes half of the way there, as a factor (its square root), by no more than half
-- down or half up in one step. A batch that failed halves the size; it grows again only after CLEAN batches in a
-- row. A batch may not take more memory than BUDGET either.
--
-- A client that wants a row of the batch under way waits for its end, so the target gives way: each sample of the
-- server that finds somebody waiting for us halves it, each that finds nobody gives a tenth back. It settles where
-- waiting is rarely seen, however long a batch the options allow.
local M = {}
M.__index = M

local ALPHA = 0.4
local MOST_DOWN, MOST_UP = 0.5, 1.5
local CLEAN = 5

-- What a sample makes of the target's share; the smallest one, and the first: nobody knows yet who will wait.
local GIVE_WAY, COME_BACK, LEAST, FIRST = 0.5, 1.1, 1 / 32, 1 / 8

--- Rows of the first batch, where the bounds let it.
M.START = 1000

--- Bytes that the rows of one batch may take in memory.
M.BUDGET = 4 << 20

---@class moonbird.backfill.size
---@field target number milliseconds a batch is to take
---@field min integer
---@field max integer
---@field n number
---@field cost number|nil smoothed milliseconds of a row
---@field clean integer batches that worked since the last failure
---@field share number of the target, after giving way to those who waited
---@field slow boolean a throttle asked for small batches: they don't grow

---@param options { target: number, min: integer, max: integer, start?: integer }
---@return moonbird.backfill.size
function M.new(options)
  local self = setmetatable({ clean = CLEAN, slow = false, share = FIRST }, M)
  self:configure(options)
  self.n = math.max(self.min, math.min(self.max, options.start or M.START))
  return self
end

--- Changes the bounds or the target; what is not named stays.
---@param options { target?: number, min?: integer, max?: integer }
function M:configure(options)
  self.target = options.target or self.target
  self.min, self.max = options.min or self.min, options.max or self.max
  if self.min > self.max then -- the one that was said last counts
    if options.max then
      self.min = self.max
    else
      self.max = self.min
    end
  end
  self.n = self.n and math.max(self.min, math.min(self.max, self.n))
end

--- Rows the next batch may take.
---@return integer
function M:current()
  return math.tointeger(math.floor(self.n))
end

--- A batch worked.
---@param ms number it took
---@param rows integer it looked at
---@param bytes? integer its rows took in memory
function M:worked(ms, rows, bytes)
  if rows < 1 then
    return
  end
  local cost = math.max(ms, 0.01) / rows
  self.cost = self.cost and self.cost + ALPHA * (cost - self.cost) or cost
  self.clean = self.clean + 1
  local factor = math.sqrt(self.target * self.share / self.cost / self.n)
  factor = math.max(MOST_DOWN, math.min(MOST_UP, factor))
  -- A batch that ended early (the chunk did) says what a row costs, and nothing about larger ones.
  if factor > 1 and (self.clean < CLEAN or self.slow or rows < self.n / 2) then
    factor = 1
  end
  local n = math.max(self.min, math.min(self.max, self.n * factor))
  if bytes and bytes > 0 then
    n = math.min(n, M.BUDGET / (bytes / rows)) -- below the least size, too
  end
  self.n = math.max(1, n)
end

--- A batch met a lock, a deadlock, a conflict or its time limit.
function M:failed()
  self.clean = 0
  self.n = math.max(self.min, math.floor(self.n / 2))
end

--- A sample of the server was taken.
---@param waiting boolean somebody waits for a lock of ours
function M:sampled(waiting)
  self.share = math.max(LEAST, math.min(1, self.share * (waiting and GIVE_WAY or COME_BACK)))
end

--- The server is busy: half the rows, and no growing until it is not.
---@param slow boolean
function M:throttled(slow)
  if slow then
    self.n = math.max(self.min, math.floor(self.n / 2))
  end
  self.slow = slow
end

return M
