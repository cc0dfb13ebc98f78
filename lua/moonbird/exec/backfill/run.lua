--- A migration's backfill, from its first row to the journal's `apply`.
--
-- Its `up`, when it has one, runs first, in one transaction with the journal's event "start". Then the state is
-- made (or found: it goes on), workers run batches, what is left is counted, and the last transaction writes "done"
-- and the event "apply". The target's lock is held for the first and the last transaction only: other migrations
-- may be applied meanwhile, and several processes may work on the same backfill.
local begin = require "moonbird.exec.backfill.begin"
local chunks_of = require "moonbird.exec.backfill.chunks"
local core = require "moonbird.core.backfill"
local error_ = require "moonbird.core.error"
local failpoint = require "moonbird.core.failpoint"
local failure = require "moonbird.exec.backfill.failure"
local job_of = require "moonbird.exec.backfill.job"
local key_of = require "moonbird.exec.backfill.key"
local rows = require "moonbird.exec.backfill.rows"
local standby = require "moonbird.exec.standby"
local task = require "moonbird.core.task"
local text = require "moonbird.util.text"
local transactional = require "moonbird.exec.transactional"
local verify = require "moonbird.exec.backfill.verify"
local worker_of = require "moonbird.exec.backfill.worker"

local M = {}

-- Milliseconds: how long a batch under way may take when the run is to end; between tries to reach the server; and for
-- reaching it when there is only a note to leave.
local GRACE, RETRY, PARTING = 3000, 500, 5000

local UNIQUE_VIOLATION = "23505"

-- Passes over a table without a key: rows that others change may move behind the cursor.
local PASSES = 5

-- Of the garbage collector, in percent: rows are garbage when they are written, the server's answers hang on objects of
-- Lua's heap without being in it, and a small heap stays in the caches.
local PAUSE = 150

-- The target's own session ---------------------------------------------------------------------------------

--- Sleeps before the next try; nil and why when it is time to stop. Whoever has a budget has stopped already.
local function rest(job, budget)
  if budget then
    return task.sleep(RETRY)
  end
  job:check()
  if job.stopping then
    return nil, job.stopping
  end
  local slept, stop = task.sleep(RETRY)
  if not slept then
    job:stop(stop, "paused")
  end
  return slept, stop
end

--- Runs `fn` on the target's session, which may have been lost while the workers were at work. Ends when the time of
--- the run is over.
---@param budget? integer milliseconds for reaching the server, whatever the time of the run is; default the option
---       `reconnect`
local function insist(job, fn, budget)
  local target = job.target
  local till = task.now() + (budget or job.options.reconnect)
  while true do
    local err
    if target.session.doomed then
      err = select(2, target:reconnect()) or standby.refusal(target.session, target.run.params)
    end
    local result, second
    if not err then
      result, err, second = fn()
    end
    if err == nil or failure.kind(err) ~= "lost" or failure.hopeless(err) or task.now() >= till then
      return result, err, second
    end
    local slept, stop = rest(job, budget)
    if not slept then
      return nil, stop
    end
    target.session.doomed = target.session.doomed or err
  end
end

-- Working --------------------------------------------------------------------------------------------------

--- Waits for a task to end; a request to stop lets the batches under way finish, for a while.
local function await(job, tasks, one)
  repeat
    local _, err = one:join()
    if err and not one:done() then -- this task was asked to stop
      job:stop(err, "paused")
      local again = job.killer ~= nil
      job.killer = job.killer or task.spawn(function()
        if task.sleep(GRACE) then
          for _, other in ipairs(tasks) do
            other:cancel()
          end
        end
      end)
      for _, other in ipairs(again and tasks or {}) do -- a second time: at once
        other:cancel()
      end
    elseif err then
      job:stop(err, "failed")
    end
  until one:done()
end

--- Runs the workers to their end. There may be more of them while they work: somebody changes the limit.
local function work(job)
  collectgarbage("setpause", PAUSE)
  local tasks, awaited = {}, 0
  job.workers = {}
  function job.grow()
    for i = 1, job.stopping and 0 or job.options.workers do
      local worker = job.workers[i]
      if not worker or worker.ended and worker.surplus then
        job.workers[i] = worker_of.new(job, i)
        tasks[#tasks + 1] = task.spawn(worker_of.run, job.workers[i])
      end
    end
  end
  job.grow()
  while awaited < #tasks do
    awaited = awaited + 1
    await(job, tasks, tasks[awaited])
  end
  job.grow = nil
  if job.killer then
    job.killer:cancel()
    job.killer = nil
  end
end

--- Looks the table up as it is now: partitions come and go while the backfill works.
local function look_anew(job)
  local place, err = key_of.find(job.target, job.target.session, job.def, job.state, job.options.lock_timeout)
  if place then
    job.place, job.texts = place, {}
  end
  return place, err
end

--- Plans one more pass over the table, for rows that are left.
local function again(job)
  local place, err = look_anew(job)
  local chunks, ok
  if place then
    chunks, err = chunks_of.plan(job.target, job.target.session, place, job.options.workers,
      job.options.lock_timeout)
  end
  if not chunks then
    return nil, err
  end
  ok, err = job.store:next_pass(job.target.session, job.state, chunks)
  if not ok and err.sqlstate == UNIQUE_VIOLATION then
    return job.target.session:rollback() or true -- another process was faster: walk() goes over to its pass
  end
  return ok, err
end

local function totals(job)
  local list, err = job.store:progress(job.target.session, job.state.target, job.state.version)
  if not list then
    return nil, err
  elseif not list[1] then
    return nil, error_.new("backfill", "the backfill's state is gone")
  end
  return list[1]
end

--- Counts what still matches, in the table as it is now.
local function count_left(job, sum)
  local place, err = look_anew(job)
  if not place then
    return nil, err
  end
  return verify.count(job, job.target.session, sum.pass_skipped + sum.errors)
end

--- Does what reads the table, again and again while it is locked.
---@param what string for the log, where it has to wait
local function unlocked(job, what, fn)
  local told = false
  while true do
    local result, err = insist(job, fn)
    if err == nil or failure.kind(err) ~= "transient" then
      return result, err
    end
    job.target.session:rollback()
    if not told then
      job.run.report:log("info", ("%s has to wait: %s"):format(what, tostring(err)), job.step)
      told = true
    end
    local slept, stop = rest(job)
    if not slept then
      return nil, stop
    end
  end
end

--- Rows left that this run does not know of -> integer, "more than that". Those that the transform left alone are known
--- by their number only, so they can't be among the rows that came above the walk's end: it never met those.
local function unknown(left, sum)
  if not left then
    return 0, false
  end
  local known = left.recorded + sum.pass_skipped
  return left.beyond + math.max(0, left.rows - left.beyond - known), left.more
end

local function left_error(job, rows_left, more)
  local message = ("%s%s of %s still match its where"):format(more and "more than " or "",
    text.count(rows_left, "row"), job.place.name)
  return error_.new("backfill", message, { hint = job.place.key.ctid
    and "others change the rows as fast as they are done; pause them, or give the table a key"
    or "rows that came after the start are not waited for: add a trigger or a default that covers new rows first, "
      .. "then run again; if `set` or the transform leaves rows that match, mend `where`" })
end

--- Works until all chunks of the pass are done, and of the pass that another process began meanwhile -> totals.
local function work_through(job)
  while true do
    work(job)
    if job.stopping then
      return nil, job.stopping
    end
    failpoint("backfill.walked")
    local sum, err = insist(job, function()
      return totals(job)
    end)
    if not sum then
      return nil, err
    elseif sum.pass == job.state.pass and sum.chunks_done == sum.chunks then
      return sum
    end
    if sum.pass ~= job.state.pass then
      job.state.pass = sum.pass
      local place
      place, err = unlocked(job, "the next pass", function()
        return look_anew(job)
      end)
      if not place then
        return nil, err
      end
    end
  end
end

--- Walks until nothing is left -> totals, and what the verify found.
local function walk(job)
  while true do
    local sum, err = work_through(job)
    if not sum then
      return nil, err
    end
    job:emit { kind = "verify" }
    local left
    left, err = unlocked(job, "the count of what is left", function()
      return count_left(job, sum)
    end)
    if err then
      return nil, err
    end
    local rows_left, more = unknown(left, sum)
    if rows_left == 0 and not more then
      return sum, nil, left
    elseif not (job.place.key.ctid and job.state.pass < PASSES or job.all_done) then
      job.outcome = "failed"
      return nil, left_error(job, rows_left, more)
    end
    -- A run that found all chunks done was started for what an earlier one left.
    job.all_done = false
    job:emit { kind = "pass", rows = rows_left }
    local ok
    ok, err = unlocked(job, "the next pass", function()
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
  local head, budget = target.head, { left = target.run.lock_wait or 60000 }
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
      results, err = target.session:batch { job.store:done_item(job.state) }
      if results and results[1]:affected() == 0 then
        target.session:rollback()
        return nil, error_.new("backfill", "another run began the backfill anew",
          { hint = "run it again: it goes on from where that one came to" })
      end
      if results then
        results, err = target.session:batch {
          target.run.journal:record_item(target.name, target.head + 1, event),
          { "commit" },
        }
      end
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
      job:check()
      if job.stopping then
        return nil, job.stopping
      end
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

--- What the state is to say of an error.
local function ending(err, outcome)
  local status = outcome or failure.kind(err) == "stop" and "paused" or "failed"
  if status == "failed" then
    return { status = status, sqlstate = err.sqlstate, error = err.message }
  end
  return { status = status }
end

--- Says why it stopped, for whoever looks; not while another process works on it, with this code or other.
local function leave(job, err)
  local state, fields = job.state, ending(err, job.outcome)
  job:emit { kind = "stopped", error = err, status = fields.status }
  if err.code == "checksum" then
    return
  end
  local ok, why = insist(job, function()
    return job.store:leave(job.target.session, state, fields, job.run.id)
  end, failure.kind(err) == "lost" and 0 or PARTING)
  if not ok then
    job.run.report:log("debug", "where the backfill stopped could not be noted: " .. tostring(why), job.step)
  end
end

local function run_job(job)
  local sum, err, left = walk(job)
  if not sum then
    leave(job, err)
    return nil, err
  end
  local ok
  ok, err = insist(job, function()
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
    for _, name in ipairs(place.key.ctid and {} or place.key.columns) do
      job.columns[name].key = true
    end
  end
  return job
end

-- Goes for a key of whoever only wants to know the table.
local NO_KEY = { key_columns = {}, key_types = {} }

--- An error for columns that the table does not have: said before a state is made that the mended file would not fit.
local function lacking(target, def)
  if def.mode ~= "rows" then
    return nil
  end
  local place, err = key_of.find(target, target.session, def, NO_KEY)
  if not place then
    return err
  end
  local columns
  columns, err = rows.columns(target, target.session, place)
  return err or rows.missing(def, columns, place)
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
  local begun, why = begin.start(target, step, timeouts)
  if not begun then
    return nil, why
  end
  local err = lacking(target, step.migration.backfill)
  if err then
    return nil, err
  end
  local state
  state, err = begin.state(target, step, store, settings)
  if not state then
    return nil, err
  end
  local job
  job, err = M.job(target, step, store, state, settings)
  if not job then
    store:leave(target.session, state, ending(err), target.run.id)
    return nil, err
  end
  local sum
  sum, err = totals(job)
  if not sum then
    leave(job, err)
    return nil, err
  end
  job.all_done = state.resumed and sum.chunks_done == sum.chunks
  job:emit { kind = state.resumed and "resume" or "start", chunks = sum.chunks, chunks_done = sum.chunks_done,
    rows = state.resumed and sum.rows_seen or state.rows_estimated }
  if settings.throttle then
    job.throttle, err = settings.throttle(job)
    if err then
      leave(job, err)
      return nil, err
    end
  end
  local closing <close> = setmetatable({}, { __close = function() -- luacheck: ignore
    if job.throttle and job.throttle.close then
      job.throttle:close()
    end
  end })
  return run_job(job)
end

return M
