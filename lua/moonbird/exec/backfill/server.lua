--- What all backfills of a server share: which batches are under way and when some were, whether others are at work
--- there, and how late they get their turn. Pure: no database, the time is handed in.
local delay = require "moonbird.exec.backfill.delay"

local M = {}
M.__index = M

-- Milliseconds for which it is remembered when batches ran, and the longest rest after one.
local MEMORY, REST = 2000, 5000

-- The share of the time from which on batches run as they come, but for a silence now and then, that there is something
-- to compare with: so many milliseconds out of so many.
local FREE, SILENCE, EVERY = 0.9, 300, 5000

-- Milliseconds after the first batch of a spell in which others may join it.
local JOIN = 5

-- Others are at work when as many sessions, on an average of the last samples, were just asked something: some hundred
-- requests a second, or one session that does not end for some seconds. Whoever looks now and then, even many times
-- a second, is no reason to give way. The weight of a sample, and of the first.
local OTHERS, NEWEST, FIRST = 0.7, 0.25, 0.5

---@class moonbird.backfill.server
---@field issued integer let through since the last sample was begun
---@field unseen integer let through before it, of which nobody knows yet what the standbys make of them
---@field flight integer under way
---@field open integer at the last sample: those that were under way, whose WAL it may not have seen
---@field closed integer ended since the last sample was begun
---@field whole integer at least so many began and ended between the last two samples: their WAL is all in between
---@field spells { from: integer, to: integer }[] when batches ran, the latest last
---@field since integer|nil when the first of those that are under way began
---@field others number|nil sessions of others at work, smoothed over samples
---@field delays table<number, moonbird.backfill.delay> by limit
---@field unmeasured boolean|nil how late others are can't be seen

---@return moonbird.backfill.server nothing is known of it
function M.new()
  return setmetatable({ issued = 0, unseen = 0, flight = 0, open = 0, closed = 0, whole = 0, spells = {},
    delays = {} }, M)
end

--- A sample begins: what is let through from now on it may not see, and until it is known the one before counts.
function M:sampling()
  self.whole = math.max(0, self.closed - self.open)
  self.unseen = self.unseen + self.issued + self.open
  self.issued, self.closed, self.open = 0, 0, self.flight
end

--- What a sample saw is known.
function M:sampled()
  self.unseen = 0
end

--- How many batches there may be that no sample has seen.
---@return integer
function M:unsampled()
  return self.unseen + self.issued + self.open
end

--- A sample saw so many sessions of others at work.
---@param count integer|nil not known: nobody
function M:seen(count)
  local before = self.others or 0
  self.others = before + (self.others and NEWEST or FIRST) * ((count or 0) - before)
end

--- Whether somebody else is at work.
---@return boolean
function M:shared()
  return (self.others or 0) >= OTHERS
end

--- What is known of waits longer than a limit.
---@param limit number milliseconds
---@return moonbird.backfill.delay
function M:delay(limit)
  self.delays[limit] = self.delays[limit] or delay.new(limit)
  return self.delays[limit]
end

--- Takes sleeps (delay.lua).
---@param now number milliseconds
---@param probes moonbird.backfill.probe[]
function M:probed(now, probes)
  for _, known in pairs(self.delays) do
    known:take(now, probes, function(from, to)
      return self:was_busy(from, to)
    end)
  end
end

--- Nothing can be seen: the server does not let us.
function M:blind()
  self.unmeasured = true
end

--- Whether it is looked how late others are because of batches.
---@param limit number|nil milliseconds that they may be; 0 or nil: nobody asks
---@return boolean
function M:watched(limit)
  return limit ~= nil and limit > 0 and self:shared() and not self.unmeasured
end

--- The share of the time that batches may take: all of it while nobody else is at work.
---@param limit number|nil milliseconds that others may be late
---@return number
function M:share(limit)
  return self:watched(limit) and self:delay(limit):share() or 1
end

--- Whether batches are held back.
---@param limit number|nil milliseconds that others may be late
---@return boolean
function M:crowded(limit)
  return self:share(limit) < FREE
end

--- When batches have rested after the last spell of them, so that they take no more than a share of the time.
local function rested(self, share)
  local last = self.spells[#self.spells]
  return last and last.to + math.min(REST, math.max(1, last.to - last.from) * (1 / share - 1)) or 0
end

--- How long the next batch has to wait, so that others get the processor when they want it. Batches of several workers
--- begin together and rest together.
---@param now integer milliseconds
---@param limit number|nil milliseconds that others may be late
---@return number milliseconds, after which is to be asked again; 0: it may begin
function M:wait(now, limit)
  if not self:watched(limit) then
    return 0
  end
  local share = self:delay(limit):share()
  if share >= FREE then
    return math.max(0, SILENCE - now % EVERY)
  elseif self.since then
    return now - self.since < JOIN and 0 or 1
  end
  return math.max(0, rested(self, share) - now)
end

--- A batch is let through.
---@param now integer milliseconds
function M:began(now)
  if self.flight == 0 then
    self.since = now
  end
  self.issued, self.flight = self.issued + 1, self.flight + 1
end

--- A batch that was let through has ended, whatever came of it.
---@param now integer milliseconds
function M:ended(now)
  self.flight, self.closed = self.flight - 1, self.closed + 1
  if self.flight == 0 then
    local spells = self.spells
    spells[#spells + 1] = { from = self.since, to = now }
    while spells[1].to < now - MEMORY and spells[2] do
      table.remove(spells, 1)
    end
    self.since = nil
  end
end

--- Whether a batch was under way between two moments of the last seconds.
---@param from number milliseconds
---@param to number milliseconds
---@return boolean
function M:was_busy(from, to)
  if self.since and to >= self.since then
    return true
  end
  for i = #self.spells, 1, -1 do
    local spell = self.spells[i]
    if from > spell.to then
      return false
    elseif to >= spell.from then
      return true
    end
  end
  return false
end

return M
