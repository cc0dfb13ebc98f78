--- What a deployment's diagnostics say of tenants: the stages and waves, every tenant that was done in brief,
--- everything else in full. It stands between the run and what tells people (report/tenants), as the artifact does
-- for steps.
--
-- It is bounded: a tenant that is done is one short row, equal errors are written once, and a tenant's tries are the
-- last few.
local failure = require "moonbird.report.failure"
local forward = require "moonbird.util.forward"
local json = require "moonbird.core.json"
local task = require "moonbird.core.task"
local url_of = require "moonbird.config.url"

---@class moonbird.artifact.tenants
---@field data table what stands in the artifact under "tenants"
local M = {}

local MOST_TRIES = 5 -- kept of one tenant
local MOST_TEXT = 2000 -- bytes of an error's message: a statement may be quoted in it

-- What is not noted goes on as it is.
local mt = { __index = forward.to(M, "told") }

--- Begins.
---@param artifact moonbird.artifact
---@param told moonbird.report.tenants
---@return moonbird.artifact.tenants
function M.new(artifact, told)
  local data = { total = 0, stages = json.array {}, waves = json.array {}, errors = json.array {},
    exceptions = json.array {}, done = json.array {} }
  artifact.data.tenants = data
  return setmetatable({ artifact = artifact, told = told, data = data, entries = {}, errors = {}, began = task.now() },
    mt)
end

local function cut(text)
  text = url_of.redact(text or "")
  return #text > MOST_TEXT and text:sub(1, MOST_TEXT) .. "…" or text
end

--- The place of an error among those that are written; equal ones have one.
local function error_of(self, err)
  local data = failure.data(err)
  data.target, data.schema_name = nil, nil -- these are the tenant's
  for key, value in pairs(data) do
    data[key] = type(value) == "string" and cut(value) or value
  end
  local key = json.encode(data)
  if not self.errors[key] then
    table.insert(self.data.errors, data)
    self.errors[key] = #self.data.errors
  end
  return self.errors[key]
end

--- The entry of a tenant that something is to be said of.
local function entry_of(self, tenant)
  local entry = self.entries[tenant.name]
  if not entry then
    entry = { tenant = tenant.name, outcome = "waiting" }
    self.entries[tenant.name] = entry
    table.insert(self.data.exceptions, entry)
  end
  return entry
end

---@param survey moonbird.tenants.survey
---@param context moonbird.tenants.context
function M:begin(survey, context)
  self.data.total = #survey.tenants
  self.told:begin(survey, context)
end

---@param stage moonbird.tenants.stage
---@param count integer
function M:stage_started(stage, count)
  local ids = json.array {}
  for i, step in ipairs(stage.steps) do
    ids[i] = step.migration.id
  end
  table.insert(self.data.stages, { migrations = ids, tenants = count })
  self.artifact:save()
  self.told:stage_started(stage, count)
end

---@param wave table
---@param queue moonbird.tenants.queue
---@param count integer
function M:wave_started(wave, queue, count)
  self.wave = { stage = #self.data.stages, name = wave.name, tenants = queue.total, after_ms = task.now() - self.began,
    outcome = "running" }
  table.insert(self.data.waves, self.wave)
  self.artifact:save()
  self.told:wave_started(wave, queue, count)
end

---@param tenant table
---@param steps integer
---@param ms integer
function M:tenant_done(tenant, steps, ms)
  if self.entries[tenant.name] then -- it was tried before
    local entry = self.entries[tenant.name]
    entry.outcome, entry.steps, entry.ms = "done", (entry.steps or 0) + steps, ms
  else
    table.insert(self.data.done, json.array { tenant.name, steps, ms })
  end
  self.artifact:save()
  self.told:tenant_done(tenant, steps, ms)
end

---@param tenant table
---@param err moonbird.error
---@param attempt integer
---@param delay integer
function M:tenant_retried(tenant, err, attempt, delay)
  local entry = entry_of(self, tenant)
  entry.tries = entry.tries or json.array {}
  if #entry.tries == MOST_TRIES then
    table.remove(entry.tries, 1)
  end
  table.insert(entry.tries, { attempt = attempt, after_ms = task.now() - self.began, error = error_of(self, err) })
  self.artifact:save()
  self.told:tenant_retried(tenant, err, attempt, delay)
end

---@param tenant table
---@param err moonbird.error
function M:tenant_failed(tenant, err)
  local entry = entry_of(self, tenant)
  entry.outcome, entry.error, entry.attempts = "failed", error_of(self, err), tenant.attempts
  self.artifact:save()
  self.told:tenant_failed(tenant, err)
end

---@param wave table
---@param queue moonbird.tenants.queue
function M:wave_ended(wave, queue)
  local own = self.wave
  own.outcome, own.duration_ms = queue.halted and "halted" or "done", task.now() - self.began - own.after_ms
  own.done, own.failed, own.waiting, own.reason = queue.finished, #queue.failures, queue.waiting, queue.halted
  self.artifact:save()
  self.told:wave_ended(wave, queue)
end

--- The end: those that nothing was told of yet, and those that other processes of a fleet met.
---@param context moonbird.tenants.context
function M:summary(context)
  for _, item in ipairs(context.failures) do
    local entry = entry_of(self, item.tenant)
    entry.outcome, entry.error = "failed", error_of(self, item.err)
  end
  for outcome, list in pairs { not_run = context.left, pinned = context.pinned, ahead = context.ahead } do
    for _, tenant in ipairs(list) do
      entry_of(self, tenant).outcome = outcome
    end
  end
  self.data.current, self.data.stopped = context.current, context.halted
  table.sort(self.data.exceptions, function(a, b)
    return a.tenant < b.tenant
  end)
  self.artifact:save()
  self.told:summary(context)
end

return M
