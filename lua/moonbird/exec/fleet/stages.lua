--- The stages of a fleet's run, as any worker opens them: looking at tenants, making waves and items, what comes next.
local global_ = require "moonbird.exec.tenants.global"
local member_of = require "moonbird.exec.fleet.member"
local patiently = require "moonbird.exec.tenants.patiently"
local pending = require "moonbird.exec.tenants.pending"
local registry = require "moonbird.migration.registry"
local stage_of = require "moonbird.exec.tenants.stage"
local stages_of = require "moonbird.plan.stages"
local verdicts = require "moonbird.exec.tenants.verdicts"
local waves_of = require "moonbird.exec.tenants.waves"

local M = {}

--- The migrations of a stage.
---@param self moonbird.fleet.member
---@param entries table[] where they are
---@param at integer the stage
---@return table[]? migrations loaded
---@return moonbird.error? err
function M.migrations(self, entries, at)
  local wanted, list = {}, {}
  for _, version in ipairs(self.row.stages[at].versions) do
    wanted[version] = true
  end
  for _, entry in ipairs(entries) do
    if wanted[entry.version] then
      list[#list + 1] = entry
    end
  end
  return registry.load_all(list)
end

--- Looks at the tenants again: stages before, or those who made the run, may have made or changed some. Done
--- once for a stage.
---@param self moonbird.fleet.member
---@param at integer the stage
---@return moonbird.error? err
function M.look(self, at)
  if self.looked == at then
    return nil
  end
  local context = self.context
  if context.target.session.doomed then
    local ok, err = context.target:reconnect()
    if not ok then
      return err
    end
  end
  local ok, err = patiently(context.run, function()
    return context.target:refresh()
  end)
  local failed, global, tenant = nil, nil, nil
  if ok then
    failed, err = self:call("items", self.name, "{failed}")
  end
  for _, item in ipairs(failed or {}) do
    if item.stage < at then
      context.failed[item.tenant] = true -- it is not jumped ahead
    end
  end
  if failed then
    global, tenant = patiently(context.run, function()
      return pending.look(context, context.survey.settings)
    end)
    err = not global and tenant or nil
  end
  if global then
    self.planned = { global = global, tenant = tenant }
    self.looked = at
    self.by_name = nil
  end
  return err
end

--- The policy's word on a stage.
---@param context moonbird.tenants.context
---@param stage moonbird.tenants.stage
---@return moonbird.error? err
function M.vet(context, stage)
  local gate = context.options.gate
  return gate and gate:before(context.target, stage.steps, context.entries)
end

--- Gets a tenant stage ready, once.
---@param self moonbird.fleet.member
---@param at integer the stage
---@return moonbird.tenants.stage?
---@return moonbird.error? err
function M.prepare(self, at)
  if self.stage and self.stage.at == at then
    return self.stage
  end
  local context = self.context
  local err = M.look(self, at)
  if err then
    return nil, err
  end
  local ok
  if context.survey.partial then
    ok, err = patiently(context.run, function()
      return context.survey:read_states() -- where each tenant's history ends
    end)
    if not ok then
      return nil, err
    end
  end
  local migrations
  migrations, err = M.migrations(self, context.own, at)
  if not migrations then
    return nil, err
  end
  local stage = stage_of.make(context, migrations, "up")
  stage.at = at
  if at > 1 then -- the first was vetted before the run was made
    err = M.vet(context, stage)
    if err then
      return nil, err
    end
  end
  self.stage = stage
  return stage
end

--- A wave as it stands in the row, with its budget.
local function wave_data(context, wave)
  local budget = waves_of.budget(context, wave)
  local function bounded(n)
    return n ~= math.huge and n or nil
  end
  return { name = wave.name, canary = wave.canary, count = #wave.tenants, max_failures = bounded(budget.max_failures),
    max_consecutive = bounded(budget.max_consecutive), same_error = budget.same_error }
end

--- The waves and items of a tenant stage.
local function part(self, at)
  local context = self.context
  local stage, err = M.prepare(self, at)
  if not stage then
    return nil, err
  end
  local out, waves
  out, err = patiently(context.run, function()
    return verdicts.look_over(context, stage)
  end)
  if not out then
    return nil, err
  end
  waves, err = waves_of.make(context, out.behind)
  if not waves then
    return nil, err
  end
  local list, items = {}, {}
  for i, wave in ipairs(#out.behind > 0 and waves or {}) do
    list[i] = wave_data(context, wave)
    for _, tenant in ipairs(wave.tenants) do
      items[#items + 1] = { wave = i, tenant = tenant.name, state = "waiting" }
    end
  end
  for _, tenant in ipairs(out.late) do
    items[#items + 1] = { wave = 0, tenant = tenant.name, state = "failed", code = tenant.why.code,
      migration = tenant.why.migration, error = tenant.why.message }
  end
  for _, state in ipairs { "pinned", "ahead" } do
    for _, tenant in ipairs(out[state]) do
      items[#items + 1] = { wave = 0, tenant = tenant.name, state = state }
    end
  end
  return list, items
end

--- Whether failures of this stage hold up what is global behind it.
local function barred(self, at)
  local failures, err = self:call("items", self.name, "{failed}")
  if not failures or #failures == 0 then
    return nil, err
  end
  local migrations
  migrations, err = M.migrations(self, self.context.own, at)
  if not migrations then
    return nil, err
  end
  local closes = global_.barrier(migrations)
  for _, failure in ipairs(failures) do
    if closes(failure.migration) then
      return "tenants failed, and what is global waits for them"
    end
  end
end

--- What is to be done behind the stage `at`. What is global may have made tenants, which lack more than others.
local function plan_behind(self, at)
  local row = self.row
  if at == 0 or row.stages[at].scope ~= "global" then
    return table.move(row.stages, at + 1, #row.stages, 1, {})
  end
  self.looked = self.looked == at + 1 and self.planned and self.looked or nil
  local err = M.look(self, at + 1)
  if err then
    return nil, err
  end
  return member_of.as_data(stages_of.make(self.planned.global, self.planned.tenant))
end

--- The stage `at` is over: opens the next, or ends the run.
---@param self moonbird.fleet.member
---@param at integer 0: none is open yet
---@return moonbird.error? err
function M.open_next(self, at)
  local tail, err = plan_behind(self, at)
  if not tail then
    return err
  end
  local reason
  if tail[1] and tail[1].scope == "global" and at > 0 then
    reason, err = barred(self, at)
  end
  if err then
    return err
  elseif not tail[1] or reason then
    local _, failed = self:call("finish", self.name, at, reason)
    return failed
  elseif tail[1].scope == "global" then
    local _, failed = self:call("open_stage", self.name, at, tail,
      { { name = "global", count = 1, max_failures = 0 } }, { { wave = 1, tenant = "global", state = "waiting" } })
    return failed
  end
  table.move(tail, 1, #tail, at + 1, self.row.stages)
  self.stage = nil
  local waves, items = part(self, at + 1)
  if not waves then
    return items
  end
  local _, failed = self:call("open_stage", self.name, at, tail, waves, items)
  self.row.stage = nil -- what became of it is read again
  return failed
end

return M
