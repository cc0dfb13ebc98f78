--- A new tenant: its schema, and all that the others have, in one transaction where the migrations allow it.
--
-- Where the others are is what most of them have applied. The first tenant of all gets what `up` would apply.
local apply = require "moonbird.exec.apply"
local error_ = require "moonbird.core.error"
local failpoint = require "moonbird.core.failpoint"
local pins = require "moonbird.exec.tenants.pins"
local plan = require "moonbird.plan.plan"
local position = require "moonbird.core.position"
local registry = require "moonbird.migration.registry"
local sql = require "moonbird.core.sql"
local state_of = require "moonbird.exec.tenants.state"
local survey_of = require "moonbird.exec.tenants.survey"
local target_of = require "moonbird.exec.target"
local transactional = require "moonbird.exec.transactional"

local M = {}

-- What the others have -----------------------------------------------------------------------------------

--- The history that most tenants have; nil when none has any.
local function most_common(survey, name)
  local counts, best = {}, nil
  for _, tenant in ipairs(survey.tenants) do
    local state = tenant.state
    if state and tenant.name ~= name and next(state.applied) and not pins.of(state) then
      counts[state.applied] = (counts[state.applied] or 0) + 1
      best = best and counts[best] >= counts[state.applied] and best or state.applied
    end
  end
  return best
end

local function by_version(a, b)
  return a.version < b.version
end

--- The files of a history, unchanged.
local function files_of(applied, entries)
  local known, list, problems = {}, {}, {}
  for _, entry in ipairs(entries) do
    known[entry.version] = entry
  end
  local changed = false
  for version, row in pairs(applied) do
    local entry = known[version]
    list[#list + 1] = entry
    if not entry then
      problems[#problems + 1] = { version = version,
        message = ("%s is applied to the other tenants, but its file is gone"):format(row.id or row.version_text) }
    elseif row.checksum and row.checksum ~= entry.checksum then
      changed = true
      problems[#problems + 1] = { version = version, file = entry.file,
        message = ("%s was changed after it was applied to the other tenants"):format(entry.id) }
    end
  end
  if #problems > 0 then
    table.sort(problems, by_version)
    return nil, error_.new(changed and "checksum" or "migration_file",
      "the new tenant would not be like the others", { problems = problems,
        hint = "restore the files from version control" })
  end
  table.sort(list, by_version)
  return list
end

--- What `up` would apply to a tenant that has nothing.
local function pending(global, own, global_state, allow)
  local border
  for _, entry in ipairs(global) do
    if not global_state.applied[entry.version] then
      border = border and math.min(border, entry.version) or entry.version
    end
  end
  local list = {}
  for _, entry in ipairs(own) do
    list[#list + 1] = (not border or entry.version < border) and entry or nil
  end
  local migrations, err = registry.load_all(list)
  if not migrations then
    return nil, err
  end
  return (plan.hold_back(migrations, { allow = allow }))
end

--- The migrations that a new tenant needs.
---@param survey moonbird.tenants.survey with the states of those that share a database
---@param name string
---@param entries table[]
---@param target moonbird.target the global one
---@param allow table
---@return table[]? migrations loaded, in order
---@return boolean|moonbird.error alike whether the others have exactly these; or what is wrong
function M.migrations(survey, name, entries, target, allow)
  local global, own = survey:split(entries, target.state)
  if not global then
    return nil, own
  end
  local applied = most_common(survey, name)
  if not applied then
    local list, err = pending(global, own, target.state, allow)
    return list, err or false
  end
  local files, err = files_of(applied, entries)
  if not files then
    return nil, err
  end
  local migrations
  migrations, err = registry.load_all(files)
  return migrations, err or true
end

-- Doing it -------------------------------------------------------------------------------------------------

local function create_schema(schema)
  return { "create schema " .. sql.ident(schema) }
end

--- What an earlier tenant of that name left in the journal is no longer so: its schema is gone.
local function forget(target, items)
  local versions = {}
  for version in pairs(target.state.applied) do
    versions[#versions + 1] = version
  end
  table.sort(versions)
  for _, version in ipairs(versions) do
    local row = target.state.applied[version]
    items[#items + 1] = target.run.journal:record_item(target.name, target.head + 1, target.run:event {
      event = "repair", applies = false, outcome = "done", version = version, version_text = row.version_text,
      id = row.id, phase = row.phase, scope = row.scope,
      detail = { action = "mark reverted", reason = "the tenant is added anew: its schema did not exist" } })
    target.head = target.head + 1
  end
  target.state.applied = {}
end

-- Items that are sent together, and whose statement each is.
local Batch = {}
Batch.__index = Batch

local function new_batch(target)
  return setmetatable({ target = target, items = {}, places = {} }, Batch)
end

function Batch:add(item, step, st)
  self.items[#self.items + 1] = item
  self.places[#self.items] = st and { step = step, st = st } or nil
end

function Batch:send()
  if #self.items == 0 then
    return true
  end
  local _, err = self.target.session:batch(self.items)
  local place = err and err.index and self.places[err.index]
  if place then
    local step = place.step
    position.locate(transactional.demote(err), { text = step.body.text, first = place.st.first,
      file = step.migration.file, origin_line = step.body.origin_line })
    error_.with(err, { migration = step.migration.id, file = step.migration.file })
  end
  self.items, self.places = {}, {}
  return err == nil or nil, err
end

local function record(batch, target, step)
  batch:add(target.run.journal:record_item(target.name, target.head + 1, transactional.done_event(target, step)))
  target.head = target.head + 1
end

--- Settings of a step, where they are others than those of the one before it.
local function settle(batch, target, step, before)
  local timeouts = apply.timeouts(target.run, step.migration)
  if timeouts.lock ~= before.lock or timeouts.statement ~= before.statement then
    batch:add(target:settings_item(timeouts, true))
  end
  return timeouts
end

local function add_plain(batch, target, step)
  for _, block in ipairs(step.body.blocks) do
    for _, st in ipairs(block.statements) do
      batch:add({ step.body.text:sub(st.first, st.last) }, step, st)
      target.run.report:statement(step, step.body.text, st)
    end
  end
  record(batch, target, step)
end

local function run_awaited(batch, target, step, timeouts)
  local ok, err = batch:send()
  if ok then
    ok, err = transactional.run_body(target, step)
  end
  if ok then
    err = transactional.unfit(target) or step.vet and step.vet()
    ok = err == nil
  end
  if not ok then
    return nil, error_.with(err, { migration = step.migration.id, file = step.migration.file })
  end
  for _, text in ipairs { "reset session authorization", "reset role", "reset all" } do
    batch:add({ text })
  end
  batch:add(target:settings_item(timeouts, true))
  record(batch, target, step)
  return true
end

--- Runs steps in one transaction; `first`: behind the making of the schema. Where all are plain SQL it is one
--- round trip.
local function run_together(target, steps, first)
  local whole = not target.awaited_only
  for _, step in ipairs(steps) do
    whole = whole and transactional.pipelined(target, step.body)
  end
  local batch = new_batch(target)
  if not whole then
    batch:add({ "begin isolation level read committed read write" })
  end
  local timeouts = steps[1] and apply.timeouts(target.run, steps[1].migration) or { lock = 0, statement = 0 }
  batch:add(target:enter_item(timeouts, true, first))
  if first then
    batch:add(create_schema(target.schema))
    forget(target, batch.items)
  end
  local ok, err = true, nil
  for _, step in ipairs(steps) do
    timeouts = settle(batch, target, step, timeouts)
    if transactional.pipelined(target, step.body) then
      add_plain(batch, target, step)
    else
      ok, err = run_awaited(batch, target, step, timeouts)
    end
    if not ok then
      break
    end
  end
  if ok and not whole then
    batch:add({ "commit" })
  end
  if ok then
    failpoint("tenant.add.send")
    ok, err = batch:send()
    failpoint("tenant.add.sent")
  end
  if not ok then
    target.session:rollback()
  end
  return ok, err
end

--- The steps in runs: those of a transaction together, each other one alone.
local function parts_of(steps)
  local parts = { { transactional = true } }
  for _, step in ipairs(steps) do
    local last = parts[#parts]
    local together = step.transactional and not step.migration.backfill -- that has transactions of its own
    if not together or not last.transactional then
      last = { transactional = together }
      parts[#parts + 1] = last
    end
    last[#last + 1] = step
  end
  return parts
end

local function vetted(target, steps, options)
  local gate = options.gate
  if not gate or options.alike or #steps == 0 then
    return nil -- the others have them already
  end
  local err = gate:before(target, steps, options.entries)
  local before = target.state.applied
  target.state.applied = {}
  for _, step in ipairs(err and {} or steps) do
    err = gate:step(target, step)
    if err then
      break
    end
    apply.note_applied(target, step)
  end
  target.state.applied = before
  return err
end

local function run_parts(target, steps, report)
  local parts = parts_of(steps)
  for i, part in ipairs(parts) do
    local ok, err
    if part.transactional then
      ok, err = run_together(target, part, i == 1)
    else
      ok, err = apply.once(target, part[1], apply.timeouts(target.run, part[1].migration))
    end
    if not ok then
      if i > 1 then
        err.detail = "the schema and what came before it stay"
        err.hint = err.hint or ("when it is mended, `moonbird up --tenant %s` goes on"):format(target.name)
      end
      return nil, error_.with(err, { target = target.name })
    end
    for _, step in ipairs(part) do
      apply.note_applied(target, step)
    end
  end
  report.transactions = #parts
  return true
end

local EXISTS = "select exists (select from pg_namespace where nspname = $1)"

--- Makes a tenant's schema and brings it to where the others are.
---@param survey moonbird.tenants.survey
---@param tenant moonbird.tenant with `database`
---@param migrations table[] loaded, in order
---@param options { gate?: moonbird.gate, alike: boolean, entries: table[] }
---@return { steps: integer, transactions: integer }|nil
---@return moonbird.error? err
function M.run(survey, tenant, migrations, options)
  local database = tenant.database
  return survey:with_session(database, function(session)
    local result, err = session:query(EXISTS, { tenant.schema })
    if not result then
      return nil, err
    elseif result:value(1, 1) then
      return nil, error_.new("usage", ("the schema \"%s\" is there already"):format(tenant.schema),
        { hint = ("if it is to be a tenant: `moonbird up --tenant %s`"):format(tenant.name) })
    end
    local ok, states
    ok, err = survey_of.prepare(database, session)
    if ok then
      states, err = state_of.read(database.run.journal, session, { tenant.name })
    end
    if not states then
      return nil, err
    end
    local state = states[tenant.name] or state_of.empty()
    local target = target_of.adopt(database.run, { name = tenant.name, schema = tenant.schema, vars = tenant.vars,
      shared = database.shared,
      session = session, state = state })
    target.pooled, target.awaited_only = database.pooled, database.awaited_only
    target.deadlock_timeout = database.deadlock_timeout
    local steps = plan.steps(migrations, "up", tenant.name, target.head)
    err = vetted(target, steps, options)
    if err then
      return nil, err
    end
    local told = { steps = #steps }
    ok, err = run_parts(target, steps, told)
    return ok and told, err
  end)
end

return M
