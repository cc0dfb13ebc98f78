--- How far a wave of tenants is: a line that is drawn anew on a terminal, a line every few seconds elsewhere, events
-- with --json. It is told by the clock, not when something happens: of a wave that stands, too.
local duration = require "moonbird.util.duration"
local style_of = require "moonbird.report.style"
local sys = require "moonbird.core.sys"
local task = require "moonbird.core.task"

---@class moonbird.report.tenant_progress
local M = {}
M.__index = M

local LIVE_MS = 100
local LINE_MS = 5000
local TICK_MS = 250 -- on a terminal; elsewhere each LINE_MS
local SLOW_MS = 1000 -- a tenant that takes longer is named
local BAR = 24
local LEAST_BAR = 5

--- Makes the progress of a report.
---@param report moonbird.reporter
---@param event fun(fields: table) takes what is told to machines
---@return moonbird.report.tenant_progress
function M.new(report, event)
  return setmetatable({ report = report, event = event, running = {}, told = 0 }, M)
end

--- A tenant is run.
---@param tenant table
function M:started(tenant)
  self.running[tenant] = task.now()
  self:tell()
end

--- A tenant is not run any more.
---@param tenant table
function M:ended(tenant)
  self.running[tenant] = nil
  self:tell()
end

--- A wave begins.
---@param queue moonbird.tenants.queue
function M:begin(queue)
  self.queue, self.began, self.running = queue, task.now(), {}
  local pause = self.report.options.live and TICK_MS or LINE_MS
  self.ticker = task.spawn(function()
    while task.sleep(pause) do
      self:tell()
    end
  end)
end

--- The wave is over.
function M:finish()
  self.ticker:cancel()
  while not self.ticker:done() do
    self.ticker:join()
  end
  self.running = {}
  self.report:finish()
end

local function slowest(self)
  local who, since
  for tenant, started in pairs(self.running) do
    if not since or started < since then
      who, since = tenant, started
    end
  end
  return who, since
end

local function numbers(self)
  local queue = self.queue
  local elapsed = math.max(1, task.now() - self.began)
  local rate = queue.finished * 1000 / elapsed
  local left = queue.waiting + queue.running
  return { done = queue.finished, failed = #queue.failures, running = queue.running, waiting = queue.waiting,
    total = queue.total, rate = rate, eta_ms = rate > 0 and math.floor(left / rate * 1000) or nil }
end

--- The parts of a line, the least needed of them nil when there is no room.
local function words(n, slow)
  local waiting, rate = (", %d waiting"):format(n.waiting), (", %.0f/s"):format(n.rate)
  local left = n.eta_ms and (", %s left"):format(duration.format(n.eta_ms)) or ""
  local head = ("%d/%d done%s, %d running"):format(n.done, n.total,
    n.failed > 0 and (", %d failed"):format(n.failed) or "", n.running)
  return { head .. waiting .. rate .. left .. slow, head .. rate .. left .. slow, head .. left .. slow, head .. slow }
end

--- The line for a terminal: as much as fits, and a bar in the room that is left.
local function fitted(n, slow, columns)
  local text
  for _, candidate in ipairs(words(n, slow)) do
    text = candidate
    if style_of.width(text) + LEAST_BAR + 1 < columns then
      break
    end
  end
  local bar = math.min(BAR, columns - style_of.width(text) - 2)
  if bar < LEAST_BAR then
    return text
  end
  local filled = n.total > 0 and math.min(bar, n.done * bar // n.total) or 0
  return ("%s%s %s"):format(("█"):rep(filled), ("░"):rep(bar - filled), text)
end

--- Tells how far it is, unless that was told a moment ago.
function M:tell()
  local now, live = task.now(), self.report.options.live
  if now - self.told < (live and LIVE_MS or LINE_MS) then
    return
  end
  self.told = now
  local n = numbers(self)
  local who, since = slowest(self)
  local slow = who and now - since > SLOW_MS and (", %s for %s"):format(who.name, duration.format(now - since)) or ""
  if live then
    self.report:live(fitted(n, slow, sys.columns(2) or 80))
  elseif now - self.began >= LINE_MS then
    self.report:log("info", words(n, slow)[1])
  end
  n.rate = math.floor(n.rate * 10 + 0.5) / 10
  n.slowest, n.slowest_ms = who and who.name or nil, who and now - since or nil
  self.event(n)
end

return M
