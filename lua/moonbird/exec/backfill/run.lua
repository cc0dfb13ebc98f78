--- A migration's backfill, from its first row to the journal's `apply`.
--
-- Its `up`, when it has one, runs first, in one transaction with the journal's event "start". Then the state is
-- made (or found: it goes on), workers run batches, what is left is counted, and the last transaction writes "done"
-- and the event "apply". The target's lock is held for the first and the last transaction only: other migrations
-- may be applied meanwhile, and several processes may work on the same backfill.
local chunks_of = require "moonbird.exec.backfill.chunks"
local core = require "moonbird.core.backfill"
local definition_of = require "moonbird.migration.backfill"
local error_ = require "moonbird.core.error"
local failpoint = require "moonbird.core.failpoint"
local job_of = require "moonbird.exec.backfill.job"
local key_of = require "moonbird.exec.backfill.key"
local retry = require "moonbird.exec.retry"
local rows = require "moonbird.exec.backfill.rows"
local task = require "moonbird.core.task"
local text = require "moonbird.util.text"
local transactional = require "moonbird.exec.transactional"
local verify = require "moonbird.exec.backfill.verify"
local worker_of = require "moonbird.exec.backfill.worker"

local M = {}

-- Milliseconds: how long a batch under way may take when the run is to end; and between tries to reach the server.
local GRACE, RETRY = 3000, 500
local RETRIES = 60

-- Passes over a table without a key: rows that others change may move behind the cursor.
local PASSES = 5

-- The target's own session ---------------------------------------------------------------------------------

--- Runs `fn` on the target's session, which may have been lost while the workers were at work.
local function insist(target, fn)
  for i = 1, RETRIES do
    local ok, err
    if target.session.doomed then
      ok, err = target:reconnect()
    end
    local result, second
    if err == nil then
      result, err, second = fn()
      if err == nil or worker_of.kind(err) ~= "lost" then
        return result, err, second
      end
    elseif worker_of.kind(err) ~= "lost" then
      return nil, err
    end
    if i == RETRIES then
      return ok and nil, err
    end
    local slept, stop = task.sleep(RETRY)
    if not slept then
      return nil, stop
    end
    if not target.session.doomed then
      target.session.doomed = err
    end
  end
end

-- Beginning ------------------------------------------------------------------------------------------------

--- The journal's open start of this backfill.
local function started(target, step)
  for _, row in ipairs(target.state.open) do
    if row.version == step.migration.version and row.event == "start" and row.direction == "up" then
      return row
    end
  end
end

--- Runs `up` and journals the start, in one transaction.
local function start(target, step, timeouts)
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

--- Makes the state with its chunks, behind the target's door, so that of two runners one does.
local function create(target, step, store, known)
  local def, migration = step.migration.backfill, step.migration
  local place, err = key_of.find(target, target.session, def)
  if not place then
    return nil, err
  end
  local options = definition_of.settle(def, nil, target.run.config.backfill)
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
    return found -- another runner was faster
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

--- The state to work from: found or made.
local function state_of(target, step, store, settings)
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
  if not state or state.status == "done" or settings.restart and not settings.restarted[name] then
    state, err = create(target, step, store, state)
    settings.restarted[name] = state ~= nil
    return state, err
  elseif state.want == "cancel" then
    return nil, error_.new("backfill", "the backfill was cancelled", { migration = step.migration.id,
      hint = "--restart begins anew" })
  elseif state.code ~= code and not settings.adopt then
    return nil, changed_code(step, state)
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

-- Working --------------------------------------------------------------------------------------------------

--- Runs the workers to their end. A request to stop lets the batches under way finish, for a while.
local function work(job)
  local tasks = {}
  job.workers = {}
  for i = 1, job.options.workers do
    job.workers[i] = worker_of.new(job, i)
  end
  for i, worker in ipairs(job.workers) do
    tasks[i] = task.spawn(worker.run, worker)
  end
  local killer
  for _, one in ipairs(tasks) do
    repeat
      local _, err = one:join()
      if err and not one:done() then -- this task was asked to stop
        job:stop(err, "paused")
        if killer then -- a second time: at once
          for _, other in ipairs(tasks) do
            other:cancel()
          end
        else
          killer = task.spawn(function()
            if task.sleep(GRACE) then
              for _, other in ipairs(tasks) do
                other:cancel()
              end
            end
          end)
        end
      elseif err then
        job:stop(err, "failed")
      end
    until one:done()
  end
  if killer then
    killer:cancel()
  end
end

--- Plans one more pass over the table, for rows that are left.
local function again(job)
  local place, err = key_of.find(job.target, job.target.session, job.def, job.state)
  local chunks
  if place then
    job.place = place
    chunks, err = chunks_of.plan(job.target, job.target.session, place, job.options.workers)
  end
  if not chunks then
    return nil, err
  end
  job.texts = {}
  return job.store:next_pass(job.target.session, job.state, chunks)
end

local function totals(job)
  local list, err = job.store:progress(job.target.session, job.state.target, job.state.version)
  if not list then
    return nil, err
  end
  return list[1]
end

local function left_error(job, left, known)
  local message = ("%s%s of %s still match its where"):format(left.more and "more than " or "",
    text.count(left.rows - known, "row"), job.place.name)
  return error_.new("backfill", message, { hint = job.place.key.ctid
    and "others change the rows as fast as they are done; pause them, or give the table a key"
    or "rows that came after the start are not waited for: add a trigger or a default that covers new rows first, "
      .. "then run again; if `set` or the transform leaves rows that match, mend `where`" })
end

--- Walks until nothing is left -> totals.
local function walk(job)
  local target = job.target
  while true do
    work(job)
    if job.stopping then
      return nil, job.stopping
    end
    failpoint("backfill.walked")
    job:emit { kind = "verify" }
    local left, err = insist(target, function()
      return verify.count(job, target.session)
    end)
    if err then
      return nil, err
    end
    local sum
    sum, err = insist(target, function()
      return totals(job)
    end)
    if not sum then
      return nil, err
    end
    local known = left and left.recorded + sum.pass_skipped or 0
    if not left or left.rows <= known then
      return sum, nil, left
    elseif not (job.place.key.ctid and job.state.pass < PASSES or job.all_done) then
      job.outcome = "failed"
      return nil, left_error(job, left, known)
    end
    -- A run that found all chunks done was started for what an earlier one left.
    job.all_done = false
    job:emit { kind = "pass", rows = left.rows - known }
    local ok
    ok, err = insist(target, function()
      return again(job)
    end)
    if not ok then
      return nil, err
    end
  end
end

-- The end --------------------------------------------------------------------------------------------------

--- Journals that the version is applied, with the totals; the state says done in the same transaction.
local function finish(job, sum, left)
  local target, step, version = job.target, job.step, job.state.version
  local head = target.head
  while true do
    local event = transactional.done_event(target, step)
    event.detail = event.detail or {}
    event.detail.backfill = { rows = sum.rows_seen, changed = sum.rows_changed, skipped = sum.rows_skipped,
      batches = sum.batches, errors = sum.errors, passes = sum.pass, busy_ms = math.floor(sum.busy_ms),
      left = left and left.rows or nil }
    local began, err = target.session:query(("select max(started_at)::text from %s.journal where target = $1 "
      .. "and version = $2 and event = 'start'"):format(target.run.journal.quoted), { target.name, version })
    if not began then
      return nil, err
    end
    event.started_at = began:value(1, 1)
    local ok
    ok, err = transactional.begin(target, { lock = 0, statement = 0 }, true)
    if ok then
      failpoint("backfill.before_done")
      local results
      results, err = target.session:batch {
        job.store:status_item(target.name, version, { status = "done" }),
        target.run.journal:record_item(target.name, target.head + 1, event),
        { "commit" },
      }
      failpoint("backfill.done")
      ok = results ~= nil
    end
    if ok then
      target.head = target.head + 1
      step.moved = target.head ~= head + 1
      target.unflushed = false
      return true
    end
    target.session:rollback()
    if err.code == "locked" then
      local budget = { left = target.run.lock_wait or 60000 }
      ok, err = target:wait_for_lock(budget)
      if not ok then
        return nil, err
      end
    elseif err.code ~= "history_moved" then
      return nil, err
    end
    -- Others applied migrations meanwhile, or finished this one.
    ok, err = target:refresh()
    if not ok then
      return nil, err
    elseif target.state.applied[version] then
      step.moved = true
      return true
    end
  end
end

--- Says why it stopped, for whoever looks.
local function leave(job, err)
  local state = job.state
  local fields = { status = job.outcome or "failed" }
  if fields.status == "failed" then
    fields.sqlstate, fields.error = err.sqlstate, err.message
  end
  job:emit { kind = "stopped", error = err, status = fields.status }
  local ok, why = insist(job.target, function()
    return job.store:set_status(job.target.session, state.target, state.version, fields)
  end)
  if not ok then
    job.run.report:log("debug", "where the backfill stopped could not be noted: " .. tostring(why), job.step)
  end
end

local function run_job(job)
  local target = job.target
  local sum, err, left = walk(job)
  if not sum then
    leave(job, err)
    return nil, err
  end
  local ok
  ok, err = insist(target, function()
    return finish(job, sum, left)
  end)
  if not ok then
    leave(job, err)
    return nil, err
  end
  job:emit { kind = "done", rows = sum.rows_seen, changed = sum.rows_changed, batches = sum.batches,
    skipped = sum.rows_skipped, errors = sum.errors }
  return true
end

--- The job of a backfill whose state is there.
---@param target moonbird.target
---@param step moonbird.step
---@param store moonbird.backfill.store
---@param state moonbird.backfill.state
---@param settings moonbird.backfill.settings
---@return moonbird.backfill.job|nil
---@return moonbird.error? err
function M.job(target, step, store, state, settings)
  local def = step.migration.backfill
  local place, err = key_of.find(target, target.session, def, state)
  if not place then
    return nil, err
  end
  local job = job_of.new { target = target, step = step, store = store, state = state, place = place,
    settings = settings }
  if def.mode == "rows" then
    job.columns, err = rows.columns(target, target.session, place)
    err = err or rows.missing(def, job.columns, place)
    if err then
      return nil, err
    end
  end
  return job
end

-- Rows up to which a backfill does not count as long.
M.SMALL = 10000

--- Whether a backfill's table is so small that `deploy` need not leave it for later. Where the table is not there
--- yet the migrations of this very run make it.
---@param target moonbird.target
---@param migration table with its backfill
---@return boolean
function M.small(target, migration)
  local place = key_of.find(target, target.session, migration.backfill)
  local rows_there = 0
  for _, leaf in ipairs(place and place.leaves or {}) do
    rows_there = rows_there + chunks_of.estimate(leaf)
  end
  return rows_there <= M.SMALL
end

--- Runs a migration's backfill, or goes on with it.
---@param target moonbird.target
---@param step moonbird.step
---@param timeouts { lock: integer, statement: integer, lock_total: integer }
---@return true|nil
---@return moonbird.error? err code "unfinished" when it is to be gone on with later
function M.attempt(target, step, timeouts)
  local settings = target.run.backfill or {}
  local store = core.new(target.run.journal)
  if not started(target, step) then
    local begun, why = start(target, step, timeouts)
    if not begun then
      return nil, why
    end
  end
  local state, err = state_of(target, step, store, settings)
  if not state then
    return nil, err
  end
  local job
  job, err = M.job(target, step, store, state, settings)
  if not job then
    return nil, err
  end
  local sum
  sum, err = totals(job)
  if not sum then
    return nil, err
  end
  job.all_done = state.resumed and sum.chunks_done == sum.chunks
  job:emit { kind = state.resumed and "resume" or "start", chunks = sum.chunks, chunks_done = sum.chunks_done,
    rows = state.resumed and sum.rows_seen or state.rows_estimated }
  if settings.throttle then
    job.throttle, err = settings.throttle(job)
    if err then
      return nil, err
    end
  end
  local ok
  ok, err = run_job(job)
  if job.throttle and job.throttle.close then
    job.throttle:close()
  end
  return ok, err
end

return M
