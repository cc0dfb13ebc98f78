--- Where backfills may be: the journal of the project's database, with the tenants that share it, and the databases of
--- tenants that have their own.
local control = require "moonbird.exec.backfill.control"
local core = require "moonbird.core.backfill"
local error_ = require "moonbird.core.error"
local plan = require "moonbird.plan.plan"
local registry = require "moonbird.migration.registry"
local state_of = require "moonbird.exec.tenants.state"
local target_of = require "moonbird.exec.target"
local tenants = require "moonbird.cli.tenants.common"

local M = {}

---@class moonbird.backfill.place_of_state
---@field run moonbird.run
---@field store moonbird.backfill.store
---@field session moonbird.session
---@field survey moonbird.tenants.survey|nil

--- Leaves out what was done and has been taken back since: it is as if it had not begun. What is applied is read after
--- the rows, so that one that ends meanwhile is not taken for such a one.
local function without_reverted(place, rows)
  local done, names = {}, {}
  for _, row in ipairs(rows) do
    if row.status == "done" and not done[row.target] then
      done[row.target] = true
      names[#names + 1] = row.target
    end
  end
  local states, err = {}, nil
  if names[1] then
    states, err = state_of.read(place.run.journal, place.session, names)
  end
  if not states then
    return nil, err
  end
  local kept = {}
  for _, row in ipairs(rows) do
    local state = states[row.target]
    kept[#kept + 1] = (row.status ~= "done" or state and state.applied[row.version]) and row or nil
  end
  return kept
end

local function chosen(args, list)
  if not tenants.some(args) then
    return nil
  end
  local set = {}
  for _, tenant in ipairs(list) do
    set[tenant.name] = tenant
  end
  return set
end

--- Calls `work(place, rows)` for each journal with the backfills there that a name means and the options choose.
---@param args table tenant, exclude
---@param run moonbird.run
---@param target moonbird.target the global one
---@param name? string
---@param work fun(place: table, rows: table[]): true|nil, moonbird.error?
---@return true|nil
---@return moonbird.error? err
function M.each(args, run, target, name, work)
  local settings, err = tenants.settings(run.config, args)
  if err then
    return nil, err
  end
  local function visit(place, targets)
    local rows, failed = control.find(place.store, place.session, name, targets)
    if rows then
      rows, failed = without_reverted(place, rows)
    end
    if not rows then
      return nil, failed
    end
    return work(place, rows)
  end
  local here = { run = run, store = core.new(run.journal), session = target.session, target = target }
  if not settings then
    return visit(here)
  end
  local done
  done, err = tenants.with_survey(args, run, target, settings, nil, function(survey)
    here.survey = survey
    local ok, failed = visit(here, chosen(args, survey.tenants))
    for _, database in ipairs(ok and survey.databases or {}) do
      if ok and database.key ~= "" then
        ok, failed = survey:with_session(database, function(session)
          return visit({ run = database.run, store = core.new(database.run.journal), session = session,
            database = database, survey = survey })
        end)
      end
    end
    return ok, failed
  end)
  return done, err
end

--- The target of a backfill's state, on the session of its place.
---@param place table
---@param row table target, ...
---@return moonbird.target|nil
---@return moonbird.error? err
function M.target(place, row)
  local spec = { name = row.target, session = place.session }
  for _, tenant in ipairs(place.survey and place.survey.tenants or {}) do
    if tenant.name == row.target then
      spec.schema, spec.vars, spec.shared = tenant.schema, tenant.vars, tenant.database.shared
    end
  end
  local err
  spec.state, err = place.run.journal:read(place.session, row.target)
  if not spec.state then
    return nil, err
  end
  return target_of.adopt(place.run, spec)
end

--- The files with a backfill that a word means.
---@param word string
---@param entries table[]
---@return table[]|nil migrations
---@return any err the error; else a file that the word means, too, and that has no backfill
function M.files(word, entries)
  local files = {}
  for _, entry in ipairs(entries) do
    files[#files + 1] = control.matches(entry, word) and entry or nil
  end
  local migrations, err = registry.load_all(files)
  if not migrations then
    return nil, err
  end
  local found = {}
  for _, migration in ipairs(migrations) do
    found[#found + 1] = migration.backfill and migration or nil
  end
  return found, files[1]
end

--- The one backfill that a word means.
---@param word string
---@param entries table[]
---@return table|nil migration
---@return moonbird.error? err
function M.entry(word, entries)
  local found, other = M.files(word, entries)
  if not found then
    return nil, other
  elseif found[1] then
    local err = control.ambiguous(word, found)
    return not err and found[1] or nil, err
  elseif other then
    return nil, error_.new("usage", ("%s has no backfill"):format(other.id),
      { hint = "`moonbird up` applies it; `moonbird backfill list` names backfills" })
  end
  return nil, control.unknown(word, {}, nil)
end

--- The step of a backfill's file.
---@param entries table[]
---@param row { version: integer, id: string }
---@return moonbird.step|nil
---@return moonbird.error? err
function M.step(entries, row)
  for _, entry in ipairs(entries) do
    if entry.version == row.version then
      local migration, problems = registry.load(entry)
      if not migration then
        return nil, registry.error(problems)
      elseif not migration.backfill then
        break
      end
      return plan.steps({ migration }, "up", row.target or "global", 0)[1]
    end
  end
  return nil, error_.new("usage", ("%s is no backfill, or its file is gone"):format(row.id
    or tostring(row.version)))
end

return M
