--- Where every tenant stands: its newest version, what it lacks, what is wrong with it.
--
-- Tenants with the same history are judged once. Of tenants in databases of their own a few are asked at a time,
-- and no connection is kept.
local core = require "moonbird.core.backfill"
local one = require "moonbird.exec.tenants.one"
local pins = require "moonbird.exec.tenants.pins"
local plan = require "moonbird.plan.plan"
local registry = require "moonbird.migration.registry"
local state_of = require "moonbird.exec.tenants.state"
local task = require "moonbird.core.task"
local words = require "moonbird.report.backfill".words

local M = {}

---@alias moonbird.tenants.standing
---| "current"|"behind"|"pinned"|"failed"|"interrupted"|"running"|"changed"|"missing"|"late"|"ahead"|"unreachable"
---| "backfill"

---@class moonbird.tenants.row
---@field name string
---@field state moonbird.tenants.standing
---@field version? integer newest applied
---@field behind integer migrations that `up` would apply
---@field beyond integer migrations that its pin keeps away
---@field pin? { to: integer, reason: string }
---@field note? string

---@class moonbird.tenants.overview
---@field rows moonbird.tenants.row[] by name
---@field held table<integer, string> pending versions that `up` holds back, and the flags that let them through
---@field backfills { tenants: integer, rows: integer, rows_estimated: integer } begun and not done: how many tenants
---       have such, the rows they have looked at and about how many there are

--- Calls `work(session, database)` for databases, a few at a time; closes each session again: one connection for
--- each of thousands would not fit.
---@param survey moonbird.tenants.survey
---@param databases moonbird.tenants.database[]
---@param work fun(session: moonbird.session, database: moonbird.tenants.database): any, moonbird.error?
---@param failed fun(database: moonbird.tenants.database, err: moonbird.error)
---@return true|nil
---@return moonbird.error? err interrupted or out of time
function M.each(survey, databases, work, failed)
  local next_one, slots, stopped = 1, {}, nil
  local function ask(database)
    local session, err = survey.pool:take(database)
    if session then
      local _
      _, err = work(session, database)
      survey.pool:drop(database, session)
    end
    if err then
      stopped = stopped or (err.code == "interrupted" or err.code == "timeout") and err or nil
      failed(database, err)
    end
  end
  for i = 1, math.min(survey.settings.jobs, #databases) do
    slots[i] = task.spawn(function()
      while databases[next_one] and not stopped do
        next_one = next_one + 1
        ask(databases[next_one - 1])
      end
    end)
  end
  for _, slot in ipairs(slots) do
    local _, err = slot:join()
    stopped = stopped or err
  end
  return not stopped or nil, stopped
end

local function is_backfill(row)
  return row.event == "start" and row.detail and row.detail.kind == "backfill"
end

--- The tenants of a database that are in the middle of something -> their names; whether some are in a backfill.
local function begun(database)
  local names, backfill = {}, false
  for _, tenant in ipairs(database.tenants) do
    for _, row in ipairs(tenant.state and tenant.state.open or {}) do
      if is_backfill(row) then
        backfill = true
      elseif row.event == "start" and names[#names] ~= tenant.name then
        names[#names + 1] = tenant.name
      end
    end
  end
  return names, backfill
end

--- How far the tenants' backfills are: one query for a database where some have begun, none for the others. A role that
--- may not look at them is told, no more.
local function read_backfills(session, database)
  local by_target = {}
  local rows, err = core.new(database.run.journal):unfinished(session)
  if not rows and not err.sqlstate then
    return nil, err
  elseif not rows then
    database.run.report:log("warn", "where the backfills are can't be read: " .. tostring(err))
  end
  for _, row in ipairs(rows or {}) do
    by_target[row.target] = by_target[row.target] or {}
    by_target[row.target][row.version] = row
  end
  for _, tenant in ipairs(database.tenants) do
    tenant.backfills = by_target[tenant.name]
  end
  return true
end

--- What else is to be known of tenants that are in the middle of something.
local function read_begun(session, database, names, backfill)
  if #names > 0 then
    local busy, err = database.run.journal:busy(session, names)
    if not busy then
      return nil, err
    end
    for _, tenant in ipairs(database.tenants) do
      tenant.busy = busy[tenant.name]
    end
  end
  if backfill then
    return read_backfills(session, database)
  end
  return true
end

local function read_alone(session, database)
  local names = {}
  for i, tenant in ipairs(database.tenants) do
    names[i] = tenant.name
  end
  local states, err = state_of.read(database.run.journal, session, names)
  for _, tenant in ipairs(database.tenants) do
    tenant.state = states and (states[tenant.name] or state_of.empty())
  end
  if not states then
    return nil, err
  end
  return read_begun(session, database, begun(database))
end

--- Reads the states of all chosen tenants. One whose database can't be asked gets `unreachable` in place of a state.
---@param survey moonbird.tenants.survey
---@param quick? boolean as survey:read_states
---@return true|nil
---@return moonbird.error? err
function M.read(survey, quick)
  local ok, err = survey:read_states { quick = quick }
  if not ok then
    return nil, err
  end
  local waiting = {}
  for _, database in ipairs(survey.databases) do
    local names, backfill = begun(database)
    if database.tenants[1] and not database.tenants[1].state then
      waiting[#waiting + 1] = database
    elseif #names > 0 or backfill then
      ok, err = survey:with_session(database, function(session)
        return read_begun(session, database, names, backfill)
      end)
      if not ok then
        return nil, err
      end
    end
  end
  return M.each(survey, waiting, read_alone, function(database, failed)
    for _, tenant in ipairs(database.tenants) do
      tenant.unreachable = failed
    end
  end)
end

--- The histories that differ from each other.
local function histories(tenants)
  local seen, list = {}, {}
  for _, tenant in ipairs(tenants) do
    local applied = tenant.state and tenant.state.applied
    if applied and not seen[applied] then
      seen[applied] = true
      list[#list + 1] = applied
    end
  end
  return list
end

--- The tenant migrations that somebody lacks: those that `up` holds back, and the contracts.
local function pending(tenants, own, allow)
  local held, contracts, list = {}, {}, histories(tenants)
  for _, entry in ipairs(own) do
    for _, applied in ipairs(list) do
      if not applied[entry.version] then
        local migration = registry.load(entry) -- one that can't be read is held by nothing
        local reason, flags
        if migration then
          reason, flags = plan.held(migration, allow)
        end
        held[entry.version] = reason and flags or nil
        contracts[entry.version] = migration and migration.phase == "contract" or nil
        break
      end
    end
  end
  return held, contracts
end

--- What the files say of a history.
local function against_files(context, applied, pin)
  local row = { behind = 0, beyond = 0, lacked = {} }
  for version in pairs(applied) do
    row.version = math.max(row.version or version, version)
  end
  local files = {}
  for _, entry in ipairs(context.own) do
    files[entry.version] = true
    local there = applied[entry.version]
    if there then
      if there.checksum and there.checksum ~= entry.checksum then
        row.changed = row.changed or entry.id
      end
    elseif not context.held[entry.version] then
      if pin and entry.version > pin.to then
        row.beyond = row.beyond + 1
      else
        row.behind = row.behind + 1
        row.lacked[entry.version] = true
        if row.version and entry.version < row.version and not context.contracts[entry.version] then
          row.late = row.late or entry.id
        end
      end
    end
  end
  local newest = context.own[#context.own] and context.own[#context.own].version or -1
  for version, known in pairs(applied) do
    if version > newest then
      row.ahead = true
    elseif not files[version] and not context.others[version] then
      row.missing = row.missing or known.id or known.version_text
    end
  end
  return row
end

--- What is left open of a version that still matters.
local function open_of(state, judged)
  local failed, started, backfill
  for _, row in ipairs(state.open) do
    local matters = row.version and (judged.lacked[row.version] or state.applied[row.version])
    if matters and row.event == "fail" then
      failed = row
    elseif matters and is_backfill(row) then
      backfill = row
    elseif matters and row.event == "start" then
      started = row
    end
  end
  return failed, started, backfill
end

local function stand(tenant, state, judged, pin)
  local row = { name = tenant.name, version = judged.version, behind = judged.behind, beyond = judged.beyond,
    pin = pin }
  local failed, started, backfill = open_of(state, judged)
  if judged.ahead then
    row.state, row.note = "ahead", "a newer release has been here"
  elseif judged.changed then
    row.state, row.note = "changed", judged.changed .. " was changed after it was applied"
  elseif started and tenant.busy then
    row.state, row.note = "running", ("%s is at %d (pid %d)"):format(tenant.busy.application, started.version,
      tenant.busy.pid)
  elseif failed then
    row.state, row.note = "failed", ("%d: %s"):format(failed.version, failed.error or failed.sqlstate or "failed")
  elseif started then
    row.state, row.note = "interrupted", ("a run died inside %d; the same command goes on"):format(started.version)
  elseif backfill then
    local at = tenant.backfills and tenant.backfills[backfill.version]
    row.state = at and at.status == "failed" and "failed" or "backfill"
    row.note = at and ("%s %s"):format(at.id, words(at)) or "in the middle of " .. backfill.version
  elseif judged.late then
    row.state, row.note = "late", judged.late .. " is older than what is applied; needs --allow-out-of-order"
  elseif judged.behind > 0 then
    row.state = "behind"
  elseif judged.missing then
    row.state, row.note = "missing", judged.missing .. " is applied, but its file is gone"
  elseif pin then
    row.state, row.note = "pinned", ("to %d: %s"):format(pin.to, pin.reason)
  else
    row.state = "current"
  end
  return row
end

--- Sums up what tenants have begun and not done.
local function sum_backfills(tenants)
  local sum = { tenants = 0, rows = 0, rows_estimated = 0 }
  for _, tenant in ipairs(tenants) do
    sum.tenants = sum.tenants + (tenant.backfills and 1 or 0)
    for _, row in pairs(tenant.backfills or {}) do
      sum.rows, sum.rows_estimated = sum.rows + row.rows_seen, sum.rows_estimated + row.rows_estimated
    end
  end
  return sum
end

--- Judges tenants whose states are read.
---@param survey moonbird.tenants.survey
---@param own table[] entries of tenant migrations
---@param options { allow: table, entries: table[] } entries: the whole registry
---@return moonbird.tenants.overview
function M.make(survey, own, options)
  local others = {}
  for _, entry in ipairs(options.entries) do
    others[entry.version] = true
  end
  local held, contracts = pending(survey.tenants, own, options.allow)
  local context = { own = own, held = held, contracts = contracts, others = others }
  local known, rows = {}, {}
  for i, tenant in ipairs(survey.tenants) do
    local state = tenant.state
    if not state then
      rows[i] = { name = tenant.name, state = "unreachable", behind = 0, beyond = 0,
        note = tenant.unreachable and tenant.unreachable.message or nil }
    else
      local pin = pins.of(state)
      local judged = not pin and known[state.applied]
      if not judged then
        judged = against_files(context, state.applied, pin)
        known[state.applied] = not pin and judged or known[state.applied]
      end
      rows[i] = stand(tenant, state, judged, pin)
    end
  end
  return { rows = rows, held = held, backfills = sum_backfills(survey.tenants) }
end

--- The tenants of a stage in groups: those that have the same to do.
---@param stage moonbird.tenants.stage
---@param tenants moonbird.tenant[]
---@return { steps: moonbird.step[], tenants: moonbird.tenant[] }[] the largest first
function M.groups(stage, tenants)
  local by_key, list = {}, {}
  for _, tenant in ipairs(tenants) do
    local steps = tenant.state and one.lacking(stage, tenant) or stage.steps
    local ids = {}
    for i, step in ipairs(steps) do
      ids[i] = step.migration.id
    end
    local key = table.concat(ids, " ")
    if not by_key[key] then
      by_key[key] = { steps = steps, tenants = {} }
      list[#list + 1] = by_key[key]
    end
    table.insert(by_key[key].tenants, tenant)
  end
  table.sort(list, function(a, b)
    if #a.tenants ~= #b.tenants then
      return #a.tenants > #b.tenants
    end
    return a.tenants[1].name < b.tenants[1].name
  end)
  return list
end

return M
