--- The tenants of a wave that wait for a slot, and what became of the others; when to stop admitting.
--
-- Slots ask `take`, and answer with one of `done`, `ahead`, `failed` and `later`. A fleet's queue (exec/fleet) has
-- the same methods over the rows of a control database.
local task = require "moonbird.core.task"

---@class moonbird.tenants.queue
---@field total integer
---@field waiting integer
---@field running integer
---@field finished integer
---@field failures table[] { tenant, err }
---@field passed table[] tenants that a newer release was found to have been at
---@field halted string|nil why no more are admitted
local M = {}
M.__index = M

---@class moonbird.tenants.budget
---@field max_failures integer failed tenants that are still borne; math.huge for any number
---@field max_consecutive integer failures in a row, with nothing done between, that halt
---@field same_error integer|nil equal errors at the same place that halt (in a canary)

--- Makes a queue.
---@param tenants table[] in the order to begin with
---@param budget moonbird.tenants.budget
---@param before? table[] failures of earlier waves: the budget is the run's
---@return moonbird.tenants.queue
function M.new(tenants, budget, before)
  return setmetatable({
    ready = tenants, head = 1, -- taken from the front
    put_off = {}, -- { tenant, at }, soonest first
    total = #tenants, waiting = #tenants, running = 0, finished = 0,
    failures = {}, passed = {}, earlier = #(before or {}), consecutive = 0, alike = {}, budget = budget,
  }, M)
end

--- The next tenant.
---@return table? tenant nil: none now
---@return integer? wait milliseconds until one may be there; nil: it is over for this slot
function M:take()
  if self.halted then
    return nil
  end
  local tenant = self.ready[self.head]
  if tenant then
    self.ready[self.head] = false
    self.head = self.head + 1
  else
    local first = self.put_off[1]
    if not first then
      return nil -- one that runs may come back: the slot that has it takes it up again
    end
    local wait = first.at - task.now()
    if wait > 0 then
      return nil, math.min(wait, 250)
    end
    table.remove(self.put_off, 1)
    tenant = first.tenant
  end
  self.waiting, self.running = self.waiting - 1, self.running + 1
  return tenant
end

--- A tenant is where it should be.
---@param _ table
function M:done(_)
  self.running, self.finished, self.consecutive = self.running - 1, self.finished + 1, 0
end

--- What makes two errors the same one: the SQLSTATE and the place of the statement.
---@param err moonbird.error
---@return string
function M.kind(err)
  return table.concat({ err.sqlstate or err.code, err.file or "", tostring(err.line or "") }, " ")
end

--- A tenant has failed for good.
---@param tenant table
---@param err moonbird.error
function M:failed(tenant, err)
  self.running = self.running - 1
  if (tenant.attempts or 1) == 1 then -- those that were tried again stand together at the end of a wave
    self.consecutive = self.consecutive + 1
  end
  self.failures[#self.failures + 1] = { tenant = tenant, err = err }
  local kind, budget = M.kind(err), self.budget
  self.alike[kind] = (self.alike[kind] or 0) + 1
  if #self.failures + self.earlier > budget.max_failures then
    self:halt(budget.max_failures == 0 and "at the first failure"
      or ("more than %d failed"):format(budget.max_failures))
  elseif self.consecutive >= budget.max_consecutive then
    self:halt(("%d failed in a row"):format(self.consecutive))
  elseif budget.same_error and self.alike[kind] >= budget.same_error then
    self:halt(("%d failed with the same error in the canary"):format(self.alike[kind]))
  end
end

--- A tenant is left alone: a newer release has been there.
---@param tenant table
---@param _ moonbird.error
function M:ahead(tenant, _)
  self.running = self.running - 1
  self.passed[#self.passed + 1] = tenant
end

--- A tenant is tried again later, behind the others.
---@param tenant table
---@param _ moonbird.error
---@param delay integer milliseconds
function M:later(tenant, _, delay)
  self.running, self.waiting = self.running - 1, self.waiting + 1
  local item = { tenant = tenant, at = task.now() + delay }
  local at = #self.put_off + 1
  while at > 1 and self.put_off[at - 1].at > item.at do
    at = at - 1
  end
  table.insert(self.put_off, at, item)
end

--- Gives a tenant back untouched: the run ends before its turn.
---@param tenant table
function M:give_back(tenant)
  self.running, self.waiting = self.running - 1, self.waiting + 1
  table.insert(self.put_off, 1, { tenant = tenant, at = 0 })
end

--- Admits no more.
---@param reason string
function M:halt(reason)
  self.halted = self.halted or reason
end

--- The tenants that were not begun, or were to be tried again.
---@return table[]
function M:left()
  local list = table.move(self.ready, self.head, #self.ready, 1, {})
  for _, item in ipairs(self.put_off) do
    list[#list + 1] = item.tenant
  end
  return list
end

return M
