--- How much of the time batches may run, so that other sessions get the processor when they want it. Pure: no
--- database, no clock.
--
-- A connection of ours sleeps on the server, 2 ms again and again, and tells how long that was (sample.lua): every
-- session whose turn it is waits as we do. What is longer than usual is late: by more than the limit, and by half as
-- much again as the latest 1 in 100 of the sleeps in which no batch was under way. If a share p of the sleeps with a
-- batch ends late, and q of the others, batches that run for a share d of the time make d (p - q) of all late. So
-- d = GOAL / (p - q).
--
-- What is known fades, and at first nothing is: then BELIEVED stands for p. The unknown is tried with little.
local duration = require "moonbird.util.duration"

local M = {}
M.__index = M

-- Of all wake-ups, those that may be late because of us. A transaction of two statements waits for its turn about five
-- times (its client, its backend, the commit's write): 1 in 1000 of them makes 1 in 200 transactions late, and
-- about as many of the latest 1 in 100 are so anyway.
local GOAL = 0.001

-- What is believed before anything was seen: so many probes, of which this share was late.
local BELIEVED, PROBES = 0.1, 2

-- Milliseconds after which what was seen counts for 1/e.
local FADES = 30000

-- What is usual: of the last so many sleeps without a batch, at least so many, looked at every so many.
local LAST, FEWEST, EVERY = 2000, 100, 250
-- The usual sleep (timers have their own idea of 2 ms), the late ones, and how much more is later than those.
local USUAL, LATE, AGAIN = 0.25, 0.99, 1.5

--- The smallest share of the time.
M.LEAST = 0.01

---@class moonbird.backfill.probe a sleep on the server
---@field from number milliseconds, when it began
---@field took number milliseconds

---@class moonbird.backfill.delay
---@field limit number milliseconds from which a sleep is late at the earliest
---@field usual number|nil milliseconds of a sleep
---@field late_by number|nil milliseconds from which it is late
---@field busy { late: number, total: number } sleeps while a batch was under way
---@field idle { late: number, total: number }
---@field lasts number[] how long the last ones without a batch were, the oldest overwritten
---@field seen integer of them

---@param limit number milliseconds
---@return moonbird.backfill.delay
function M.new(limit)
  return setmetatable({ limit = limit, busy = { late = 0, total = 0 }, idle = { late = 0, total = 0 }, lasts = {},
    seen = 0 }, M)
end

--- Takes into account how long a sleep without a batch was.
local function learn(self, took)
  self.lasts[self.seen % LAST + 1] = took
  self.seen = self.seen + 1
  if self.seen == FEWEST or self.seen % EVERY == 0 then
    local sorted = table.move(self.lasts, 1, #self.lasts, 1, {})
    table.sort(sorted)
    self.usual = sorted[math.ceil(#sorted * USUAL)]
    self.late_by = math.max(self.limit, AGAIN * (sorted[math.ceil(#sorted * LATE)] - self.usual))
  end
end

--- Takes sleeps.
---@param now number milliseconds
---@param probes moonbird.backfill.probe[]
---@param was_busy fun(from: number, to: number): boolean whether a batch was under way between two moments
function M:take(now, probes, was_busy)
  local kept = math.exp(((self.taken or now) - now) / FADES)
  self.taken = now
  for _, counts in ipairs { self.busy, self.idle } do
    counts.late, counts.total = counts.late * kept, counts.total * kept
  end
  for _, probe in ipairs(probes) do
    local busy = was_busy(probe.from + math.min(probe.took, self.usual or 0), probe.from + probe.took)
    if not busy then
      learn(self, probe.took)
    end
    if self.usual then
      local counts = busy and self.busy or self.idle
      counts.total = counts.total + 1
      counts.late = counts.late + (probe.took > self.usual + self.late_by and 1 or 0)
    end
  end
end

--- Shares of sleeps that end late.
---@return number p while a batch runs
---@return number q otherwise
function M:late()
  local busy, idle = self.busy, self.idle
  return (busy.late + BELIEVED * PROBES) / (busy.total + PROBES), idle.late / (idle.total + PROBES)
end

--- What is known, for people.
---@return string
function M:describe()
  if self.busy.total < FEWEST then
    return "looks how others at work bear it"
  end
  local p, q = self:late()
  return ("others wait longer than %s for the processor in %.1f%% of the cases while a batch runs, in %.1f%% otherwise")
    :format(duration.format(self.late_by), p * 100, q * 100)
end

--- The share of the time that batches may take.
---@return number from LEAST to 1
function M:share()
  local p, q = self:late()
  return math.max(M.LEAST, GOAL / math.max(p - q, GOAL))
end

return M
