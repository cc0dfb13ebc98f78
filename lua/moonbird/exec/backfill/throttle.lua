--- Whether a backfill may go on: decides from a sample of the server what the next batch is to do. Pure: samples and
--- the time are handed in (signals.lua takes them).
--
-- Each signal says ok, slow or stop; the worst one counts, with its reason. A signal with a limit says stop at the
-- limit and slow from a half of it on. It has to fall well below before it says less (hysteresis), so that a value
-- that wavers around a limit doesn't make the backfill waver.
--
-- slow: the size of batches is halved and does not grow (size.lua), and there is a pause between them. It doubles from
-- sample to sample, up to what the signal asks for, and shrinks by steps when the signal says ok again. stop: no
-- batch; the next look is a little later each time. Nothing ever fails because the server is busy.
local duration = require "moonbird.util.duration"
local limits = require "moonbird.migration.backfill_limits"
local server_of = require "moonbird.exec.backfill.server"
local size = require "moonbird.util.size"

---@class moonbird.backfill.decision
---@field level "ok"|"slow"|"stop"
---@field reason string|nil
---@field signals moonbird.backfill.signal[] all that are not ok, worst first
local M = {}
M.__index = M

---@class moonbird.backfill.signal
---@field name string lag lag_time retained archive wal_rate blocked active snapshot vacuum between throttle delay
---       server
---@field subject string|nil which standby, slot ...
---@field level "ok"|"slow"|"stop"
---@field share number value by limit
---@field reason string

-- Shares of the limit: from where a signal says slow, and where it has to be below to say less again.
local SLOW, STOP_ENDS, SLOW_ENDS = 0.5, 0.7, 0.35

-- Milliseconds between batches.
local PAUSE_FIRST, PAUSE_MOST, PAUSE_STEP = 100, 5000, 250
-- Of PAUSE_MOST, where a signal has no limit to be near to.
local MILD = 0.05

-- Milliseconds: between samples; the longest while it says stop; how old a sample may be.
M.INTERVAL, M.LONGEST, M.STALE = 1000, 5000, 5000

local RANK = { ok = 0, slow = 1, stop = 2 }

---@param options table as settled
---@param server? moonbird.backfill.server what backfills of the same server share; default one of its own
---@return moonbird.backfill.decision
function M.new(options, server)
  local self = setmetatable({ level = "ok", signals = {}, was = {}, pause = 0, looks = 0, stops = 0,
    history = {}, server = server or server_of.new() }, M)
  self:configure(options)
  return self
end

--- Takes other limits. They count from the next look on.
---@param options table
function M:configure(options)
  self.options = options
  self.windows = options.between and options.between ~= "" and limits.windows(options.between) or nil
  self.ignored = {}
  for name in (options.ignore_standbys or ""):gmatch("[^,]+") do
    self.ignored[name] = true
  end
end

-- Signals -------------------------------------------------------------------------------------------------

local bytes = size.format

local function time(ms)
  return duration.format(math.floor(ms))
end

--- Adds a signal that has a limit.
local function limited(self, found, name, subject, value, limit, reason, slow)
  if not value or not limit or limit <= 0 then
    return
  end
  local key, share = name .. "\0" .. (subject or ""), value / limit
  local was = RANK[self.was[key] or "ok"]
  local level = "ok"
  if share >= 1 or was == 2 and share >= STOP_ENDS then
    level = "stop"
  elseif share >= (slow or SLOW) or was >= 1 and share >= (slow or SLOW) * SLOW_ENDS / SLOW then
    level = "slow"
  end
  found.was[key] = level
  if level ~= "ok" then
    found[#found + 1] = { name = name, subject = subject, level = level, share = share, reason = reason }
  end
end

local function plain(found, name, level, reason, share)
  found[#found + 1] = { name = name, level = level, reason = reason, share = share or (level == "stop" and 1 or 0) }
end

--- How long ago the primary was where a standby is now, by earlier samples: the server's own answer stays as it was
--- while nothing is replayed, and is NULL when nothing was for some time.
local function behind_ms(self, sample, lsn)
  local since
  for i = #self.history, 1, -1 do
    local old = self.history[i]
    if old.lsn <= lsn then
      break
    end
    since = old.at
  end
  return since and sample.at - since or 0
end

local function remember(self, sample)
  if not sample.lsn then
    return
  end
  local history = self.history
  local last = history[#history]
  if not last or sample.lsn > last.lsn then
    history[#history + 1] = { lsn = sample.lsn, at = sample.at }
    if #history > 900 then
      table.remove(history, 1)
    end
  end
end

local function standbys(self, sample, found)
  local options = self.options
  self.lag = nil
  for _, one in ipairs(sample.standbys or {}) do
    if not self.ignored[one.name] and one.bytes then
      if one.bytes > (self.lag or -1) then
        self.lag, self.lag_of = one.bytes, one.name
      end
      limited(self, found, "lag", one.name, math.max(0, one.bytes), options.max_lag,
        ("standby %s is %s behind (limit %s)"):format(one.name, bytes(one.bytes), bytes(options.max_lag or 0)))
      -- Nothing to replay is no lag, whatever the clock of the last replay says.
      local ms = one.bytes > 0 and math.max(one.ms or 0, behind_ms(self, sample, sample.lsn - one.bytes)) or 0
      limited(self, found, "lag_time", one.name, ms, options.max_lag_time,
        ("standby %s is %s behind (limit %s)"):format(one.name, time(ms), time(options.max_lag_time or 0)))
    end
  end
end

local function wal(self, sample, found)
  local options = self.options
  for _, slot in ipairs(sample.slots or {}) do
    if not self.ignored[slot.name] then
      limited(self, found, "retained", slot.name, slot.bytes, options.max_retained,
        ("slot %s keeps %s of WAL (limit %s)"):format(slot.name, bytes(slot.bytes), bytes(options.max_retained or 0)))
    end
  end
  if sample.archive then
    limited(self, found, "archive", nil, sample.archive.files, options.max_archive,
      ("the archiver is %d files behind (limit %d)%s"):format(sample.archive.files, options.max_archive or 0,
        sample.archive.failing and ", its command fails" or ""))
  end
  local last = self.last
  if sample.lsn and last and last.lsn and sample.at > last.at then
    local rate = (sample.lsn - last.lsn) * 1000 / (sample.at - last.at)
    limited(self, found, "wal_rate", nil, rate, options.max_wal_rate,
      ("the server writes %s of WAL a second (limit %s)"):format(bytes(rate), bytes(options.max_wal_rate or 0)))
  end
end

local function sessions(self, sample, found)
  local options = self.options
  local blocked = sample.blocked
  if blocked and blocked.count > 0 then
    limited(self, found, "blocked", nil, blocked.count, options.max_blocked,
      ("%d %s for our locks (%s; limit %d)"):format(blocked.count, blocked.count == 1 and "session waits"
        or "sessions wait", blocked.who or "?", options.max_blocked or 0), 1 / math.max(1, options.max_blocked or 1))
  end
  limited(self, found, "active", nil, sample.active, options.max_active,
    ("%d active backends (limit %d)"):format(sample.active or 0, options.max_active or 0))
  if sample.snapshot then
    limited(self, found, "snapshot", nil, sample.snapshot.ms, options.max_snapshot,
      ("%s has had a transaction open for %s (limit %s): no dead row goes meanwhile"):format(sample.snapshot.who,
        time(sample.snapshot.ms), time(options.max_snapshot or 0)))
  end
  if options.yield_to_vacuum ~= false and sample.vacuum then
    if sample.vacuum == "wraparound" then
      plain(found, "vacuum", "stop", "an autovacuum against wraparound works on the table")
    else
      plain(found, "vacuum", "slow", "an autovacuum works on the table", SLOW + (1 - SLOW) * MILD)
    end
  end
end

local function clock(minutes)
  return ("%02d:%02d"):format(minutes // 60, minutes % 60)
end

--- Whether a minute of the day is in one of the windows.
---@param windows { from: integer, to: integer }[]
---@param minute number
---@return boolean
function M.within(windows, minute)
  for _, window in ipairs(windows) do
    local after, before = minute >= window.from, minute < window.to
    if window.from < window.to and (after and before) or window.from > window.to and (after or before)
      or window.to == 0 and after then
      return true
    end
  end
  return false
end

--- Others get the processor late. What follows is not a pause of the signal's own, but a rest after each batch
--- (rest), reckoned from the batch's time.
local function delay(self, found)
  if self:rests() then
    local limit = self.options.max_delay
    plain(found, "delay", "slow", ("%s: batches take %.0f%% of the time (option max_delay)"):format(
      self.server:delay(limit):describe(), self.server:share(limit) * 100), SLOW)
  end
end

local function window(self, sample, found)
  local zone = self.options.time_zone or ""
  if not self.windows then
    return
  end
  local minute = sample.minutes and sample.minutes[zone]
  if not minute then
    plain(found, "between", "stop", ("the server does not tell the time%s, to run between %s only"):format(
      zone ~= "" and " in " .. zone or "", self.options.between), 2)
  elseif not M.within(self.windows, minute) then
    plain(found, "between", "stop", ("it is %s%s, and it is to run between %s only"):format(
      clock(math.floor(minute)), zone ~= "" and " in " .. zone or "", self.options.between), 2)
  end
end

local function own_function(sample, found)
  local answer = sample.answer
  if answer and answer.level ~= "ok" then
    plain(found, "throttle", answer.level, answer.reason, answer.level == "stop" and 1 or 0.75)
  end
end

-- Deciding ------------------------------------------------------------------------------------------------

local function pace(self, worst)
  if worst and worst.level == "slow" and worst.name ~= "delay" then
    local wanted = PAUSE_MOST * math.max(MILD, math.min(1, (worst.share - SLOW) / (1 - SLOW)))
    self.pause = math.min(wanted, math.max(PAUSE_FIRST, self.pause * 2))
  elseif not worst or worst.name == "delay" then
    self.pause = math.max(0, self.pause - PAUSE_STEP)
  end
end

--- WAL that a batch makes, at most, as far as samples tell: others' is in it, which errs to the safe side.
local function learn(self, sample)
  local last = self.last
  if sample.lsn and last and last.lsn and self.server.whole > 0 then
    local each = (sample.lsn - last.lsn) / self.server.whole
    self.per_batch = math.max(each, (self.per_batch or 0) * 0.9)
  end
end

--- Takes a sample of the server.
---@param sample table at (ms), lsn (bytes), standbys { name, bytes, ms }[], slots { name, bytes }[],
---       archive { files, failing }, vacuum "plain"|"wraparound", blocked { count, who }, active, snapshot { ms, who },
---       minutes { [zone] = minute of the day }, answer { level, reason } of the own function. nil: not known.
function M:look(sample)
  remember(self, sample)
  learn(self, sample)
  local found = { was = {} }
  standbys(self, sample, found)
  wal(self, sample, found)
  sessions(self, sample, found)
  window(self, sample, found)
  own_function(sample, found)
  delay(self, found)
  self.was, found.was = found.was, nil
  table.sort(found, function(a, b)
    if a.level ~= b.level then
      return RANK[a.level] > RANK[b.level]
    end
    return a.share > b.share
  end)
  local worst = found[1]
  self.signals = found
  self.level, self.reason = worst and worst.level or "ok", worst and worst.reason or nil
  self.reason_before = self.reason or self.reason_before
  pace(self, worst)
  self.stops = self.level == "stop" and self.stops + 1 or 0
  self.last, self.blind_since = sample, nil
  self.looks = self.looks + 1
end

--- Sampling failed: what was known holds, for a while.
---@param message string
---@param now integer milliseconds
function M:blind(message, now)
  self.problem, self.blind_since = message, self.blind_since or now
end

--- How long sampling has failed.
---@param now integer milliseconds
---@return integer milliseconds
function M:unseen(now)
  return self.blind_since and now - self.blind_since or 0
end

--- Milliseconds from one sample to the next.
---@return integer
function M:interval()
  return math.min(M.LONGEST, M.INTERVAL + (self.stops > 5 and (self.stops - 5) * 250 or 0))
end

--- Whether one more batch could take a standby over its limit before anybody sees it: then it has to be the only one,
--- and a sample is wanted that was begun after the batch before. What was let through since the last sample or was
--- under way then counts as not seen; one batch more is reckoned with, because no two are of the same size.
---@return boolean
function M:near()
  local limit = self.options.max_lag or 0
  if limit <= 0 or not self.lag then
    return false
  end
  local unseen = self.server:unsampled()
  return self.lag >= limit * SLOW or not self.per_batch and unseen > 0
    or self.lag + (self.per_batch or 0) * (unseen + 2) > limit
end

--- Whether batches rest, so that others get the processor when they want it.
---@return boolean
function M:rests()
  return self.server:crowded(self.options.max_delay)
end

--- How long the next batch has to wait for that.
---@param now integer milliseconds
---@return number milliseconds, after which is to be asked again; 0: it may begin
function M:rest(now)
  return self.server:wait(now, self.options.max_delay)
end

--- What the next batch is to do.
---@param now integer milliseconds
---@return "ok"|"slow"|"stop" level
---@return string|nil reason
---@return integer|nil pause for "slow"
function M:verdict(now)
  local age = self.last and now - self.last.at or math.huge
  if age > math.max(M.STALE, self:interval() * 2) then
    return "stop", ("the server has not been seen for %s%s"):format(self.last and time(age) or "the whole run",
      self.problem and ": " .. self.problem or "")
  elseif self.level == "stop" then
    return "stop", self.reason
  end
  if self.level == "slow" then
    return "slow", self.reason, math.floor(self.pause)
  elseif self.pause > 0 then
    return "slow", "recovers: " .. (self.reason_before or "?"), math.floor(self.pause)
  end
  return "ok"
end

return M
