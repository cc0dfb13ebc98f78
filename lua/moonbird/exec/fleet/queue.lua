--- The tenants of a wave as a worker of a fleet sees them: claimed from the rows of the control database, told to
-- them. The methods are those of exec/tenants/queue.lua.
--
-- A few items are claimed ahead of the slots, so that no slot waits for the control database; as many as are done
-- in a fifth of a second, none where a tenant takes longer. A failure is told before its slot takes another tenant,
-- and the budget is counted in that very statement: each slot of the fleet can fail once more after the run was
-- halted, never twice.
local local_queue = require "moonbird.exec.tenants.queue"
local task = require "moonbird.core.task"

---@class moonbird.fleet.queue: moonbird.tenants.queue
local M = {}
M.__index = M

local AHEAD_MS = 200 -- of work that is claimed before a slot is free
local MOST_AHEAD = 32
local STALE_MS = 1000 -- what was claimed so long ago and not begun is given back
local POLL_MS = 250

---@class moonbird.fleet.queue.options
---@field link moonbird.fleet.link
---@field stage integer
---@field wave integer
---@field jobs integer
---@field counts table of fleet:counts
---@field find fun(name: string): table?, moonbird.error? the tenant of that name

--- Makes the queue of a wave.
---@param options moonbird.fleet.queue.options
---@return moonbird.fleet.queue
function M.new(options)
  local counts, link = options.counts, options.link
  local self = setmetatable({ link = link, stage = options.stage, wave = options.wave, jobs = options.jobs,
    find = options.find, places = {}, ready = {}, asking = 0, average = nil,
    total = counts.waiting + counts.running, waiting = counts.waiting + counts.running, running = 0, finished = 0,
    failures = {} }, M)
  link.stage, link.wave, link.held, link.counted = options.stage, options.wave, {}, task.now()
  link.want = function()
    return self:wanted()
  end
  link.receive = function(view)
    self:receive(view)
  end
  link.on_counts = function(shared)
    self.waiting = shared.waiting + math.max(0, shared.running - self.running)
  end
  return self
end

--- How many items the next turn asks for.
---@return integer
function M:wanted()
  if self.halted or self.over then
    return 0
  end
  local ahead = self.average and self.average > 0 and self.average < AHEAD_MS
    and math.min(MOST_AHEAD, self.jobs * AHEAD_MS // self.average) or 0
  return math.max(0, self.asking + ahead - #self.ready)
end

--- Takes in what a turn said.
---@param view table
function M:receive(view)
  local now = task.now()
  for _, item in ipairs(view.items) do
    item.at = now
    self.ready[#self.ready + 1] = item
  end
  if view.status ~= "running" or view.stage ~= self.stage or view.wave ~= self.wave or view.gate then
    self.over = true
    self:give_back_ready()
  elseif #view.items == 0 and not view.open then
    self.over = #self.ready == 0 or nil
  elseif #view.items == 0 and self.asking > 0 then
    self.quiet = now + math.floor(math.min(view.next_ms and math.max(view.next_ms, 10) or POLL_MS, POLL_MS)
      * (0.75 + 0.5 * math.random()))
  end
end

function M:give_back_ready()
  for _, item in ipairs(self.ready) do
    self.link:tell { stage = self.stage, place = item.place, state = "waiting", attempts = item.attempts }
  end
  self.ready = {}
end

local function begin(self, item)
  local tenant, err = self.find(item.tenant)
  if not tenant then
    return nil, err
  end
  tenant.attempts = item.attempts
  tenant.stale = tenant.stale or item.claims > 1 or nil -- somebody has been at it
  tenant.began = task.now()
  self.places[tenant] = item.place
  self.waiting, self.running = math.max(0, self.waiting - 1), self.running + 1
  return tenant
end

--- The next tenant.
---@return table? tenant nil: none now
---@return integer? wait milliseconds until one may be there; nil: it is over for this slot
function M:take()
  while true do
    local now, first = task.now(), self.ready[1]
    if first and (now - first.at > STALE_MS or not self.link:alive()) then
      self:give_back_ready()
      first = nil
    end
    if self.halted or self.link.lost then
      self:give_back_ready()
      return nil
    elseif first then
      table.remove(self.ready, 1)
      local tenant, err = begin(self, first)
      if tenant then
        return tenant
      end
      self:report(first.place, "failed", { name = first.tenant }, err)
    elseif self.over then
      return nil
    elseif self.quiet and now < self.quiet then
      return nil, self.quiet - now
    else
      self.asking = self.asking + 1
      local view, err = self.link:turn()
      self.asking = self.asking - 1
      if not view then
        if err.code ~= "interrupted" and err.code ~= "timeout" then
          self.link.lost = self.link.lost or err
        end
        self:halt(err.message)
      end
    end
  end
end

--- Tells that an item failed for good, and waits until that is counted.
---@param place integer
---@param state "failed"|"ahead"
---@param tenant table
---@param err moonbird.error
function M:report(place, state, tenant, err)
  self.failures[#self.failures + 1] = state == "failed" and { tenant = tenant, err = err } or nil
  self.link:tell { stage = self.stage, place = place, state = state, attempts = tenant.attempts, code = err.code,
    sqlstate = err.sqlstate, migration = err.migration, file = err.file, line = err.line,
    kind = local_queue.kind(err), error = err.message, ms = tenant.began and task.now() - tenant.began }
  local _, lost = self.link:turn()
  if lost and lost.code ~= "interrupted" and lost.code ~= "timeout" then
    self.link.lost = self.link.lost or lost
  end
end

local function take_off(self, tenant)
  local place = self.places[tenant]
  self.places[tenant] = nil
  self.running = self.running - 1
  return place
end

--- A tenant is where it should be.
---@param tenant table
---@param steps integer
function M:done(tenant, steps)
  local place, ms = take_off(self, tenant), task.now() - tenant.began
  self.finished = self.finished + 1
  self.average = self.average and (self.average * 7 + ms) // 8 or ms
  self.link:tell { stage = self.stage, place = place, state = "done", steps = steps, ms = ms }
end

--- A tenant has failed for good.
---@param tenant table
---@param err moonbird.error
function M:failed(tenant, err)
  self:report(take_off(self, tenant), "failed", tenant, err)
end

--- A tenant is left alone: a newer release has been there.
---@param tenant table
---@param err moonbird.error
function M:ahead(tenant, err)
  self:report(take_off(self, tenant), "ahead", tenant, err)
end

--- A tenant is tried again later, by whoever is free then.
---@param tenant table
---@param err moonbird.error
---@param delay integer milliseconds
function M:later(tenant, err, delay)
  self.waiting = self.waiting + 1
  self.link:tell { stage = self.stage, place = take_off(self, tenant), state = "waiting", attempts = tenant.attempts,
    delay_ms = delay, code = err.code, sqlstate = err.sqlstate, error = err.message }
end

--- Gives a tenant back untouched.
---@param tenant table
function M:give_back(tenant)
  self.waiting = self.waiting + 1
  self.link:tell { stage = self.stage, place = take_off(self, tenant), state = "waiting", attempts = tenant.attempts }
end

--- This worker takes no more. The run goes on without it.
---@param reason string
function M:halt(reason)
  self.halted = self.halted or reason
end

--- What is left is known to the shared rows.
---@return table[]
function M.left()
  return {}
end

return M
