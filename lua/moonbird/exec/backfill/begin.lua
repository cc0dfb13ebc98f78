--- How a backfill begins: the migration's `up` and the journal's event "start" in one transaction, then the state with
--- its chunks in another; or what an earlier run made of both is found.
local chunks_of = require "moonbird.exec.backfill.chunks"
local definition_of = require "moonbird.migration.backfill"
local error_ = require "moonbird.core.error"
local failpoint = require "moonbird.core.failpoint"
local job_of = require "moonbird.exec.backfill.job"
local json = require "moonbird.core.json"
local key_of = require "moonbird.exec.backfill.key"
local retry = require "moonbird.exec.retry"
local sql = require "moonbird.core.sql"
local transactional = require "moonbird.exec.transactional"

local M = {}

--- The journal's open start of this backfill: its `up` is done.
---@param target moonbird.target
---@param step moonbird.step
---@return table|nil row
function M.started(target, step)
  for _, row in ipairs(target.state.open) do
    if row.version == step.migration.version and row.event == "start" and row.direction == "up" then
      return row
    end
  end
end

--- Runs `up` and journals the start, in one transaction, unless that was done.
---@param target moonbird.target
---@param step moonbird.step
---@param timeouts { lock: integer, statement: integer, lock_total: integer }
---@return true|nil
---@return moonbird.error? err
function M.start(target, step, timeouts)
  if M.started(target, step) then
    return true
  end
  local begun = setmetatable({ transactional = true, durable = true, shared = {} }, { __index = step })
  begun.done_event = function()
    local event = transactional.done_event(target, step)
    event.event, event.applies, event.outcome = "start", nil, "started"
    event.detail = event.detail or {}
    event.detail.kind = "backfill"
    return event
  end
  local ok, err = retry.run({
    lock = timeouts.lock, total = timeouts.lock_total, deadlock_timeout = target.deadlock_timeout or 1000,
    blocked = function(failure, attempt, lock)
      target.run.report:blocked(step, failure, attempt, lock)
    end,
  }, function(lock)
    return transactional.attempt(target, begun, { lock = lock, statement = timeouts.statement })
  end)
  failpoint("backfill.started")
  return ok, err
end

--- An error for a `set` that writes a column of the key: a row that gets another one may be met twice, or never. What
--- the parser does not know is not looked into.
local function moves_key(def, place)
  local tree = def.set and not place.key.ctid and sql.parse("update t set " .. def.set .. "\n")
  local first = tree and json.decode(tree).stmts[1]
  local update = first and first.stmt and first.stmt.UpdateStmt
  local written = {}
  for _, item in ipairs(update and update.targetList or {}) do
    written[item.ResTarget and item.ResTarget.name or ""] = true
  end
  for _, name in ipairs(place.key.columns) do
    if written[name] then
      return error_.new("backfill", ("\"set\" writes the key column \"%s\""):format(name), { hint =
        "a row that gets another key may be met twice, or never; walk along another unique key: key = { ... }" })
    end
  end
end

--- Makes the state with its chunks, behind the target's door, so that of two runners one does -> state; false where
--- the other one did.
local function create(target, step, store, settings, known)
  local def, migration = step.migration.backfill, step.migration
  local place, err = key_of.find(target, target.session, def)
  if not place then
    return nil, err
  end
  err = moves_key(def, place)
  if err then
    return nil, err
  end
  local options = job_of.options(def, nil, target.run, settings)
  local chunks, estimate
  chunks, err, estimate = chunks_of.plan(target, target.session, place, options.workers)
  if not chunks then
    return nil, err
  end
  local ok
  ok, err = transactional.begin(target, { lock = 0, statement = 0 }, true)
  if not ok then
    return nil, err
  end
  local found
  found, err = store:find(target.session, target.name, migration.version)
  if err == nil and found and (not known or found.run ~= known.run or found.code ~= known.code) then
    target.session:rollback()
    return false
  end
  local facts = target.run.facts
  local items = err and {} or store:create_items({ target = target.name, version = migration.version,
    id = migration.id, mode = def.mode, code = definition_of.code(def, migration.checksum), relation = place.name,
    key_columns = place.key.ctid and {} or place.key.columns, key_types = place.key.ctid and {} or place.key.types,
    rows_estimated = estimate, durable = options.durable, run = target.run.id, host = facts.host,
    os_user = facts.os_user }, chunks)
  items[#items + 1] = { "commit" }
  failpoint("backfill.before_create")
  local results
  if err == nil then
    results, err = target.session:batch(items)
  end
  failpoint("backfill.created")
  if not results then
    target.session:rollback()
    return nil, err
  end
  return store:find(target.session, target.name, migration.version)
end

local function changed_code(step, state)
  return error_.new("checksum", ("the backfill of %s was changed after a part of it was done"):format(
    step.migration.id), { file = step.migration.file, migration = step.migration.id,
    hint = ("restore the file; or --adopt to go on with the new code from where run %s came to, or --restart to begin "
      .. "anew"):format(state.run:sub(1, 8)) })
end

local function other_walk(step, message, hint)
  return error_.new("backfill", message, { file = step.migration.file, migration = step.migration.id, hint = hint
    or "restore the file and go on, or --restart to begin anew" })
end

--- Whether new code can go on where the old came to: the chunks that are there must be its own, too -> error.
local function adoptable(target, step, state)
  local def = step.migration.backfill
  local place, err = key_of.find(target, target.session, def, state)
  if not place then
    return err
  elseif place.name ~= state.relation then
    return other_walk(step, ("the new code walks over %s, and the backfill began on %s"):format(place.name,
      state.relation))
  elseif def.key and table.concat(def.key, "\0") ~= table.concat(state.key_columns, "\0") then
    return other_walk(step, ("the new code walks along (%s), and the backfill began along %s"):format(
      table.concat(def.key, ", "), state.key_columns[1] and "(" .. table.concat(state.key_columns, ", ") .. ")"
      or "no key"))
  elseif place.key.ctid and not def.where then
    return other_walk(step, ("the backfill walks over %s without a key, and the new code has no `where`"):format(
      place.name), key_of.NEEDS_WHERE)
  end
  return moves_key(def, place)
end

--- Whether a backfill failed before it did anything: whatever the code says now, nothing was done by another.
local function untouched(target, store, state)
  if state.status ~= "failed" then
    return false
  end
  local list, err = store:progress(target.session, state.target, state.version)
  if not list then
    return nil, err
  end
  local sum = list[1]
  return sum ~= nil and sum.rows_seen == 0 and sum.batches == 0 and sum.errors == 0
end

--- The state to work from: found or made.
---@param target moonbird.target
---@param step moonbird.step
---@param store moonbird.backfill.store
---@param settings moonbird.backfill.settings
---@return moonbird.backfill.state|nil
---@return moonbird.error? err
function M.state(target, step, store, settings)
  local state, err = store:find(target.session, target.name, step.migration.version)
  if state == nil then
    return nil, err
  end
  local code = definition_of.code(step.migration.backfill, step.migration.checksum)
  if state and state.status == "done" then
    local ok
    ok, err = target:refresh()
    if not ok then
      return nil, err
    elseif target.state.applied[step.migration.version] then
      return nil, error_.new("history_moved", "another runner finished the backfill meanwhile")
    end
  end
  local name = target.name .. "/" .. step.migration.version_text
  settings.restarted = settings.restarted or {}
  local mended = false
  if state and state.code ~= code and state.status ~= "done" then
    mended, err = untouched(target, store, state)
    if mended == nil then
      return nil, err
    end
  end
  if not state or state.status == "done" or mended or settings.restart and not settings.restarted[name] then
    state, err = create(target, step, store, settings, state)
    settings.restarted[name] = state ~= nil
    if state == false then
      return M.state(target, step, store, settings) -- what it made is looked at like any other
    end
    return state, err
  elseif state.want == "cancel" then
    return nil, error_.new("backfill", "the backfill was cancelled", { migration = step.migration.id,
      hint = "--restart begins anew" })
  elseif state.code ~= code then
    err = not settings.adopt and changed_code(step, state) or adoptable(target, step, state)
    if err then
      return nil, err
    end
  end
  local facts = target.run.facts
  local ok
  ok, err = store:set_status(target.session, target.name, step.migration.version, { status = "running",
    run = target.run.id, host = facts.host, os_user = facts.os_user, code = code })
  if not ok then
    return nil, err
  end
  state.resumed, state.code = true, code
  return state
end

return M
