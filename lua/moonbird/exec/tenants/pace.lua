--- How many tenants are run at once: as many as there are slots, and fewer while the server has not enough of what they
--- share (its table of locks, its memory, its connections). Halved when it says so, one more after some that went well.
local task = require "moonbird.core.task"

---@class moonbird.tenants.pace
---@field limit integer tenants at the same time, at most
---@field running integer tenants that are run now
local M = {}
M.__index = M

-- How long a slot that may not begin waits before it looks again.
M.PAUSE_MS = 20
-- How long a process of a fleet that runs one at a time, none of which goes well, thinks that it is because of the
-- others.
M.SHARED_MS = 60000

--- Begins at full pace.
---@param jobs integer
---@param shared? boolean other processes run tenants, too
---@return moonbird.tenants.pace
function M.new(jobs, shared)
  return setmetatable({ limit = jobs, most = jobs, admitted = 0, running = 0, well = 0, slowed = 0,
    shared = shared or false }, M)
end

--- Whether a slot may take a tenant; leave() is to follow.
---@return boolean
function M:enter()
  if self.admitted >= self.limit then
    return false
  end
  self.admitted = self.admitted + 1
  return true
end

--- A slot that entered has done with its tenant, or found none.
function M:leave()
  self.admitted = self.admitted - 1
end

--- A tenant went well.
function M:good()
  self.well, self.alone_since = self.well + 1, nil
  if self.limit < self.most and self.well >= 2 * self.limit then
    self.limit, self.well = self.limit + 1, 0
  end
end

--- The server had not enough for a tenant. Those that began together count once.
---@param started integer task.now() when the tenant began
---@return boolean beside others of this run: later or with fewer it may do, so it is no attempt of the tenant's own
---@return boolean slower the pace was lowered just now
function M:short(started)
  local beside = self.running > 1
  local slower = beside and started >= self.slowed and self.limit > 1
  if slower then
    self.limit, self.slowed = math.max(1, math.min(self.limit, self.running) // 2), task.now()
  end
  self.well = 0
  if self.shared and not beside then
    self.alone_since = self.alone_since or task.now()
    beside = task.now() - self.alone_since < M.SHARED_MS
  end
  return beside, slower
end

return M
