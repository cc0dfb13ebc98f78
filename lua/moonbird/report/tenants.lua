--- What is told while tenants are migrated, and at the end: a live line on a terminal, a line every few seconds
-- elsewhere, events with --json; errors grouped by what they are.
local duration = require "moonbird.util.duration"
local json = require "moonbird.core.json"
local progress_of = require "moonbird.report.tenant_progress"
local sys = require "moonbird.core.sys"
local task = require "moonbird.core.task"
local text = require "moonbird.util.text"

---@class moonbird.report.tenants
local M = {}
M.__index = M

local NAMED = 5 -- tenants named of each group of equal errors

local function event(self, name, fields)
  if self.report.options.json then
    fields.event = name
    sys.write(2, json.encode(fields) .. "\n")
  end
end

--- Makes a report on top of a reporter.
---@param report moonbird.reporter
---@return moonbird.report.tenants
function M.new(report)
  local self = setmetatable({ report = report, began = task.now() }, M)
  self.progress = progress_of.new(report, function(numbers)
    event(self, "progress", numbers)
  end)
  return self
end

--- A run begins.
---@param survey moonbird.tenants.survey
---@param context table
function M:begin(survey, context)
  self.context, self.total = context, #survey.tenants
end

---@param stage moonbird.tenants.stage
---@param count integer
function M:stage_started(stage, count)
  local ids = {}
  for i, step in ipairs(stage.steps) do
    ids[i] = step.migration.id
  end
  self.report:print(("%s%s on %s"):format(stage.direction == "down" and "taking back " or "",
    #ids <= 3 and table.concat(ids, ", ") or text.count(#ids, "migration"), text.count(count, "tenant")))
end

---@param wave table
---@param queue moonbird.tenants.queue
---@param count integer waves there are
function M:wave_started(wave, queue, count)
  event(self, "wave", { wave = wave.name, tenants = queue.total })
  if count > 1 then
    self.report:print(self.report.out.dim(("%s: %s"):format(wave.name, text.count(queue.total, "tenant"))))
  end
  self.progress:begin(queue)
end

---@param tenant table
function M:tenant_started(tenant)
  self.progress:started(tenant)
end

---@param tenant table
---@param steps integer
---@param ms integer
function M:tenant_done(tenant, steps, ms)
  self.progress:ended(tenant)
  if self.report.level >= 4 then
    self.report:log("debug", ("%s: %s in %s"):format(tenant.name, text.count(steps, "migration"), duration.format(ms)))
  end
  event(self, "done", { tenant = tenant.name, steps = steps, duration_ms = ms })
end

--- A tenant is put off for a reason that is told otherwise.
---@param tenant table
function M:tenant_waits(tenant)
  self.progress:ended(tenant)
end

---@param tenant table
---@param err moonbird.error
---@param attempt integer
---@param delay integer
function M:tenant_retried(tenant, err, attempt, delay)
  self.progress:ended(tenant)
  self.report:log("warn", ("%s: attempt %d: %s; again in %s or later"):format(tenant.name, attempt, err.message,
    duration.format(delay)))
  event(self, "retry", { tenant = tenant.name, attempt = attempt, sqlstate = err.sqlstate, error = err.message })
end

---@param tenant table
---@param err moonbird.error
---@param ms integer how long it is waited for
function M:server_away(tenant, err, ms)
  self.report:log("warn", ("%s: the server does not take it: %s; trying again for %s"):format(tenant.name, err.message,
    duration.format(ms)))
  event(self, "server_away", { tenant = tenant.name, error = err.message })
end

---@param tenant table
---@param err moonbird.error
function M:tenant_failed(tenant, err)
  self.progress:ended(tenant)
  self.report:log("error", ("%s: %s"):format(tenant.name, tostring(err)))
  event(self, "failed", { tenant = tenant.name, sqlstate = err.sqlstate, code = err.code, error = err.message,
    migration = err.migration })
end

--- The server has not enough for all at once.
---@param tenant table
---@param err moonbird.error
---@param limit integer tenants at a time from now on
function M:fewer(tenant, err, limit)
  self.report:log("warn", ("%s: %s%s; %s at a time for now"):format(tenant.name, err.message,
    err.sqlstate and (" (%s)"):format(err.sqlstate) or "", text.count(limit, "tenant")))
  event(self, "fewer", { tenant = tenant.name, sqlstate = err.sqlstate, error = err.message, jobs = limit })
end

--- A newer release was there first.
---@param tenant table
---@param err moonbird.error
function M:tenant_ahead(tenant, err)
  self.progress:ended(tenant)
  self.report:log("warn", ("%s: left alone: %s"):format(tenant.name, err.message))
  event(self, "ahead", { tenant = tenant.name })
end

---@param wave table
---@param queue moonbird.tenants.queue
function M:wave_ended(wave, queue)
  self.progress:finish()
  event(self, "wave_done", { wave = wave.name, done = queue.finished, failed = #queue.failures,
    waiting = queue.waiting })
end

---@param wave table
---@param next_wave table
function M:wave_done(wave, next_wave)
  self.report:log("debug", ("%s is done; %s is next"):format(wave.name, next_wave.name))
end

--- What makes errors one group: SQLSTATE, place, and the message without its numbers and names.
local function group_key(err)
  local message = err.message:gsub('"[^"]*"', '"…"'):gsub("%d+", "N")
  return table.concat({ err.sqlstate or err.code, err.migration or "", tostring(err.line or ""), message }, "\0")
end

--- Failures in groups, the largest first.
---@param failures table[]
---@return table[] groups { err, tenants }
function M.groups(failures)
  local by_key, list = {}, {}
  for _, failure in ipairs(failures) do
    local key = group_key(failure.err)
    local group = by_key[key]
    if not group then
      group = { err = failure.err, tenants = {} }
      by_key[key], list[#list + 1] = group, group
    end
    group.tenants[#group.tenants + 1] = failure.tenant.name
  end
  for _, group in ipairs(list) do
    table.sort(group.tenants)
  end
  table.sort(list, function(a, b)
    if #a.tenants ~= #b.tenants then
      return #a.tenants > #b.tenants
    end
    return a.tenants[1] < b.tenants[1]
  end)
  return list
end

local function quoted(word)
  return word:find("[^%w_.,:/=@%%+-]") and "'" .. word:gsub("'", "'\\''") .. "'" or word
end

--- The command that does what is left.
---@param context table
---@return string
function M.retry_command(context)
  local fleet = context.fleet
  if fleet then -- what makes the run's plan has to be said again
    if not fleet.resumable then
      return nil
    end
    local control = fleet.control and " " .. fleet.control or ""
    return table.concat({ "moonbird run resume", quoted(fleet.run) .. control, "&& moonbird", context.run.command,
      "--fleet", quoted(fleet.run) .. control, table.unpack(fleet.words) }, " ")
  end
  local names = {}
  local words = { "moonbird", context.command or context.run.command, table.unpack(context.words or {}) }
  for _, failure in ipairs(context.failures) do
    names[#names + 1] = failure.tenant.name
  end
  for _, tenant in ipairs(context.left) do
    names[#names + 1] = tenant.name
  end
  table.sort(names)
  if (#names > 50 or context.global_left) and not context.chosen then
    return table.concat(words, " ") -- all were meant, and what is done is skipped
  end
  for _, name in ipairs(names) do
    words[#words + 1] = "--tenant " .. quoted(name)
  end
  return table.concat(words, " ")
end

--- Who failed of what, for people.
---@param context table
function M:groups_told(context)
  local report, out = self.report, self.report.out
  for _, group in ipairs(M.groups(context.failures)) do
    local names = table.concat(group.tenants, ", ", 1, math.min(NAMED, #group.tenants))
    report:print(("%s %s: %s"):format(out.red(text.count(#group.tenants, "tenant") .. " failed"),
      group.err.migration or "", tostring(group.err)))
    if group.err.hint then
      report:print("    hint: " .. group.err.hint)
    end
    report:print(("    %s%s"):format(names, #group.tenants > NAMED
      and (" and %d more"):format(#group.tenants - NAMED) or ""))
  end
end

--- The end report for people.
---@param context table
function M:summary(context)
  local report = self.report
  self:groups_told(context)
  local parts = { ("%s %s"):format(text.count(context.finished, "tenant"), context.verb or "migrated") }
  local function add(count, what)
    if count > 0 then
      parts[#parts + 1] = ("%d %s"):format(count, what)
    end
  end
  add(context.current, "up to date")
  add(#context.failures, "failed")
  add(#context.left, "not run")
  add(#context.pinned, "pinned")
  add(#context.ahead, "ahead of these files")
  report:print(("%s in %s"):format(table.concat(parts, ", "), duration.format(task.now() - self.began)))
  if #context.failures + #context.left > 0 and M.retry_command(context) then
    report:print("to go on: " .. M.retry_command(context))
  end
end

local function names_of(list)
  local names = json.array {}
  for i, tenant in ipairs(list) do
    names[i] = tenant.name
  end
  return names
end

--- Who failed of what, as data.
---@param context table
---@return table[]
function M.groups_data(context)
  local groups = json.array {}
  for i, group in ipairs(M.groups(context.failures)) do
    groups[i] = { error = group.err.message, code = group.err.code, sqlstate = group.err.sqlstate,
      hint = group.err.hint, detail = group.err.detail,
      migration = group.err.migration, file = group.err.file, line = group.err.line, count = #group.tenants,
      tenants = json.array(group.tenants) }
  end
  return groups
end

--- The end report as data.
---@param context table
---@return table
function M.data(context)
  local failed = #context.failures + #context.left > 0
  return { total = context.survey and #context.survey.tenants or 0, migrated = context.finished,
    current = context.current, failed = #context.failures,
    groups = M.groups_data(context), not_run = names_of(context.left),
    pinned = names_of(context.pinned), ahead = names_of(context.ahead), stopped = context.halted,
    retry = failed and M.retry_command(context) or nil,
    connections = context.survey and context.survey.pool.most or 0 }
end

return M
