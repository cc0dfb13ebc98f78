--- Runs steps on a target, one after the other: the lock, the retries, the journal of failures, and going
-- on from what other runners did meanwhile.
local error_ = require "moonbird.core.error"
local config = require "moonbird.config.config"
local bootstrap = require "moonbird.exec.bootstrap"
local duration = require "moonbird.util.duration"
local plan = require "moonbird.plan.plan"
local registry = require "moonbird.migration.registry"
local standby = require "moonbird.exec.standby"
local task = require "moonbird.core.task"

-- Modules that only a step needs are required where it runs: "nothing to do" is the most frequent run, and
-- loading them takes longer than asking the database.
local M = {}

local QUERY_CANCELED = "57014"

-- Server defaults that decide how a step may be sent; read when the first step runs.
local function read_server(target)
  local result, err = target.session:query([[
    select current_setting('default_transaction_isolation') as isolation,
           current_setting('default_transaction_read_only') as read_only,
           (extract(epoch from current_setting('deadlock_timeout')::interval) * 1000)::int as deadlock_ms,
           pg_is_in_recovery() as standby, pg_backend_pid() as pid]])
  if not result then
    return nil, err
  end
  local row = result:row(1)
  if row.standby then
    return nil, standby.error(target.run.params)
  end
  -- A pipeline's implicit transaction takes the defaults; where they are unusual we say BEGIN ourselves.
  target.awaited_only = row.isolation ~= "read committed" or row.read_only == "on"
  -- A pooler invents the pid it tells; session settings would go to anybody's connection there.
  target.pooled = row.pid ~= target.session:pid()
  target.deadlock_timeout = row.deadlock_ms
  return true
end

--- The time limits of a step: flag, migration, environment, in that order.
---@param run moonbird.run
---@param migration table
---@return { lock: integer, statement: integer, lock_total: integer } milliseconds
function M.timeouts(run, migration)
  local timeouts = config.timeouts(run.config, migration)
  timeouts.lock_total = run.config.timeouts.lock_total
  return timeouts
end

--- Journals a failure; the reason the run ends is more important than whether this works.
local function record_failure(target, step, err)
  if err.code == "locked" or err.code == "history_moved" or target.session.doomed then
    return
  end
  local ok, why = target:append {
    event = "fail", outcome = "failed",
    version = step.migration.version, version_text = step.migration.version_text,
    id = step.migration.id, name = step.migration.name, direction = step.direction,
    checksum = step.migration.checksum, plan = step.plan, sqlstate = err.sqlstate, error = err.message,
    phase = step.migration.phase, scope = step.migration.scope,
  }
  if not ok then
    target.run.report:log("debug", "the failure could not be journaled: " .. tostring(why), step)
  end
end

--- A step in one transaction, the whole of it again while a lock is in its way.
local function retry_step(target, step, timeouts)
  local run = target.run
  return require("moonbird.exec.retry").run({
    lock = timeouts.lock,
    total = timeouts.lock_total,
    deadlock_timeout = target.deadlock_timeout,
    blocked = function(failure, attempt, lock)
      run.report:blocked(step, failure, attempt, lock, run.monitor:last_blockers())
    end,
  }, function(lock)
    return run.monitor:watch(step, target.session:pid(), function()
      return require("moonbird.exec.transactional").attempt(target, step,
        { lock = lock, statement = timeouts.statement })
    end)
  end)
end

--- What to do about a statement that was canceled for its time: the limit is ours, the server does not know whence.
local function more_time(step, err, limit)
  if err.sqlstate ~= QUERY_CANCELED or limit == 0 or step.migration.backfill then -- batches have their own limit
    return nil
  end
  local lua = step.migration.file:find("%.lua$") ~= nil
  return ("statements may take %s here (timeouts.statement); %s in the file gives those of this migration more"):format(
    duration.format(limit), lua and "timeouts = { statement = \"5m\" }" or "`-- timeouts: statement=5m`")
end

--- Runs one step to its end: waits for the target's lock, retries lock timeouts.
---@param target moonbird.target
---@param step moonbird.step
---@param budget { left: integer }
---@return true|nil
---@return moonbird.error? err
function M.step(target, step, budget)
  local run = target.run
  local timeouts = M.timeouts(run, step.migration)
  while true do
    local ok, err
    if step.direction == "up" and step.migration.backfill then
      ok, err = require("moonbird.exec.backfill.run").attempt(target, step, timeouts)
    elseif step.transactional then
      ok, err = retry_step(target, step, timeouts)
    else
      ok, err = run.monitor:watch(step, target.session:pid(), function()
        return require("moonbird.exec.nontransactional").attempt(target, step, timeouts)
      end)
    end
    if ok then
      return true
    end
    if err.code ~= "locked" then
      err.blockers = err.sqlstate == "55P03" and run.monitor:last_blockers() or nil
      return nil, error_.with(err, { migration = step.migration.id, target = target.name,
        file = step.migration.file, hint = more_time(step, err, timeouts.statement) })
    end
    ok, err = target:wait_for_lock(budget)
    if not ok then
      return nil, err
    end
  end
end

--- Keeps what is known of the target's state in step with what was committed.
---@param target moonbird.target
---@param step moonbird.step
function M.note_applied(target, step)
  local migration = step.migration
  target.state.applied[migration.version] = step.direction == "up" and { version = migration.version,
    version_text = migration.version_text, id = migration.id, checksum = migration.checksum, applies = true,
    phase = migration.phase, ordinal = target.head, applied_ordinal = target.head } or nil
end

--- Runs one step once: no waiting for the target's lock, no second attempt.
---@param target moonbird.target
---@param step moonbird.step
---@param timeouts { lock: integer, statement: integer, lock_total: integer }
---@return true|nil
---@return moonbird.error? err
function M.once(target, step, timeouts)
  if step.direction == "up" and step.migration.backfill then
    return require("moonbird.exec.backfill.run").attempt(target, step, timeouts)
  elseif step.transactional then
    return require("moonbird.exec.transactional").attempt(target, step, timeouts)
  end
  return require("moonbird.exec.nontransactional").attempt(target, step, timeouts)
end

local function run_steps(target, steps, budget, done)
  local gate = target.run.gate
  for _, step in ipairs(steps) do
    local err = target.run:expired() or task.take_cancel() or gate and gate:step(target, step)
    if err then
      return nil, err
    end
    target.run.report:step_started(step)
    local started = task.now()
    local ok
    ok, err = M.step(target, step, budget)
    local took = task.now() - started
    if not ok then
      if err.code == "history_moved" or err.code == "unfinished" then -- neither is a failure
        return nil, err
      end
      target.run.report:step_failed(step, err, took, step.transactional
        or require("moonbird.exec.units").whole(step.body))
      record_failure(target, step, err)
      return nil, err
    end
    target.run.report:step_done(step, took)
    done[#done + 1] = { step = step, duration_ms = took }
    M.note_applied(target, step)
    err = gate and gate:after(target, step, took)
    if not err and step.moved then -- while the backfill ran others applied migrations: plan again
      err = error_.new("history_moved", "the history moved on while a backfill ran")
    end
    if err then
      return nil, err
    end
  end
  local err = task.take_cancel()
  return err == nil, err
end

--- Loads those that are late: a contract that was held back is not refused for being older.
local function excuse_contracts(comparison)
  if #comparison.out_of_order > 0 then
    local late, err = registry.load_all(comparison.out_of_order)
    if not late then
      return nil, err
    end
    plan.excuse_contracts(comparison, late)
  end
  return true
end

--- What `up` would do now. `comparison.held` tells what it holds back.
---@param target moonbird.target
---@param entries table[] the registry
---@param options { to?: integer, steps?: integer, allow_out_of_order?: boolean, allow?: table }
---@return moonbird.step[]|nil
---@return moonbird.error? err
---@return moonbird.comparison|nil
function M.plan_up(target, entries, options)
  local comparison = plan.compare(entries, target.state)
  local ok, err = excuse_contracts(comparison)
  err = err or plan.unknown(options.to, comparison, false) or plan.half_reverted(target.state)
    or plan.refusal(comparison, options)
  if not ok or err then
    return nil, err
  end
  local migrations
  migrations, err = registry.load_all(plan.select_up(comparison, options))
  if not migrations then
    return nil, err
  end
  migrations, comparison.held = plan.hold_back(migrations, options)
  return plan.steps(migrations, "up", target.name, target.head), nil, comparison
end

--- What `down` would do now.
---@param target moonbird.target
---@param entries table[]
---@param options { to?: integer, steps?: integer }
---@return moonbird.step[]|nil
---@return moonbird.error? err
---@return moonbird.comparison|nil
function M.plan_down(target, entries, options)
  local comparison = plan.compare(entries, target.state)
  local unknown = plan.unknown(options.to, comparison, true)
  if unknown then
    return nil, unknown
  end
  local chosen, versions = {}, {}
  for i, item in ipairs(plan.select_down(comparison, options)) do
    versions[i] = item.row.version
    if not item.entry then
      return nil, error_.new("migration_file", ("%s is applied, but its file is gone"):format(
        item.row.id or item.row.version_text),
        { hint = "restore the file from version control; its down is needed" })
    end
    chosen[i] = item.entry
  end
  local err = plan.half_applied(target.state, versions)
  if err then
    return nil, err
  end
  local migrations
  migrations, err = registry.load_all(chosen)
  if not migrations then
    return nil, err
  end
  -- load_all sorts by version; a down goes newest application first.
  local by_version = {}
  for _, migration in ipairs(migrations) do
    by_version[migration.version] = migration
  end
  local ordered = {}
  for i, entry in ipairs(chosen) do
    local migration = by_version[entry.version]
    if not migration.down then
      return nil, error_.new("irreversible", ("%s has no down%s"):format(migration.id,
        migration.irreversible and (": " .. migration.irreversible) or ""),
        { file = migration.file, migration = migration.id })
    end
    ordered[i] = migration
  end
  return plan.steps(ordered, "down", target.name, target.head), nil, comparison
end

-- How many migrations without a file are named; the rest is counted.
local NAMED = 5

--- Says once which applied migrations have no file any more.
local function tell_missing(run, comparison)
  local missing = comparison.missing
  if #missing == 0 or run.told_missing then
    return
  end
  run.told_missing = true
  local names = {}
  for i = 1, math.min(#missing, NAMED) do
    names[i] = missing[i].id or missing[i].version_text
  end
  run.report:log("warn", ("applied, but the file is gone: %s%s"):format(table.concat(names, ", "),
    #missing > NAMED and (" and %d more"):format(#missing - NAMED) or ""))
end

--- Says once what is held back.
---@param run moonbird.run
---@param comparison { held?: table[] } of plan.hold_back
function M.tell_held(run, comparison)
  local held = comparison.held or {}
  if #held == 0 or run.told_held then
    return
  end
  run.told_held = true
  for i = 1, math.min(#held, NAMED) do
    local item = held[i]
    run.report:print(("%s %s (%s): %s applies it"):format(run.report.out.yellow("held back"), item.migration.id,
      item.reason, item.flags))
  end
  if #held > NAMED then
    run.report:print(("and %d more are held back"):format(#held - NAMED))
  end
end

--- Waits while a run is inside a step that what is to be done would stand on, or take from below it.
local function await_other(target, direction, budget)
  local half = direction == "up" and plan.half_reverted or plan.begun
  if not half(target.state) then
    return true
  end
  local ok, err = target:wait_until_free(nil, budget)
  if not ok then
    return nil, err
  end
  return target:refresh()
end

--- Holds steps against the policy before anything is touched -> err. A plan made anew may have others.
local function vet(target, steps, entries, vetted)
  local gate, new = target.run.gate, false
  for _, step in ipairs(steps) do
    new = new or not vetted[step.migration.version]
    vetted[step.migration.version] = true
  end
  return gate and new and gate:before(target, steps, entries) or nil
end

--- Runs a direction to its end on a target, re-planning when another runner changes the history.
---@param target moonbird.target
---@param entries table[]
---@param direction "up"|"down"
---@param options { to?: integer, steps?: integer, allow_out_of_order?: boolean }
---@return table[]|nil done { step, duration_ms } of this run
---@return moonbird.error? err
---@return table[] done also when it failed: what was committed before
function M.run(target, entries, direction, options)
  local run = target.run
  local budget = { left = run.lock_wait }
  local done = {}
  local planner = direction == "up" and M.plan_up or M.plan_down
  local wanted = options.steps or (direction == "down" and not options.to and 1) or nil
  local ok, err
  local vetted = {} -- versions the policy has looked at, as far as files tell
  while true do
    local left = { to = options.to, steps = wanted and wanted - #done,
      only = options.only, allow_out_of_order = options.allow_out_of_order, allow = options.allow,
      backfills = options.backfills }
    if not target.state.exists then
      -- Files are read and checked before anything is made on the server.
      local early_steps, early = planner(target, entries, left)
      early = early or vet(target, early_steps, entries, vetted)
      if early then
        return nil, early, done
      end
    end
    ok, err = bootstrap.ensure(target, budget)
    if ok then
      ok, err = await_other(target, direction, budget)
    end
    if not ok then
      break
    end
    local steps, comparison
    steps, err, comparison = planner(target, entries, left)
    if not steps then
      ok = nil
      break
    end
    tell_missing(run, comparison)
    M.tell_held(run, comparison)
    target.held = comparison.held
    run.report:plan(target, steps)
    if #steps == 0 then
      ok = true
      break
    end
    err = vet(target, steps, entries, vetted)
    if err then
      ok = nil
      break
    end
    if not target.deadlock_timeout then
      ok, err = read_server(target)
      if not ok then
        break
      end
    end
    run.monitor = run.monitor or require("moonbird.exec.monitor").new(run)
    local planned = target.head
    ok, err = run_steps(target, steps, budget, done)
    if ok or err.code ~= "history_moved" then
      break
    end
    run.report:log("info", "another runner changed the history; planning again")
    local moved = err
    ok, err = target:refresh()
    if not ok then
      break
    elseif target.head == planned then
      ok, err = nil, moved -- nothing moved: going round again would change nothing
      break
    end
  end
  local flushed, flush_err = true, nil
  if not target.session.doomed then
    flushed, flush_err = target:flush()
  end
  if not ok then
    return nil, err, done
  elseif not flushed then
    return nil, flush_err, done
  end
  return done, nil, done
end

return M
