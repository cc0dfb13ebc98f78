--- Dry run: the transactional migrations, run in one transaction on the target, printed, rolled back.
--
-- What can't be rehearsed (steps without a transaction, and what comes after them) is listed. Nothing is
-- made on the server, not even the journal.
local apply = require "moonbird.exec.apply"
local error_ = require "moonbird.core.error"
local json = require "moonbird.core.json"
local text = require "moonbird.util.text"
local transactional = require "moonbird.exec.transactional"

local M = {}

local function timeouts(target)
  return { lock = target.run.config.timeouts.lock, statement = 0 }
end

--- Behind the door; waits while another runner holds the target's lock.
local function enter_locked(target)
  local budget = { left = target.run.lock_wait }
  while true do
    local ok, err = transactional.begin(target, timeouts(target), true)
    if ok or err.code ~= "locked" then
      return ok, err
    end
    target.session:rollback()
    ok, err = target:wait_for_lock(budget)
    if not ok then
      return nil, err
    end
  end
end

--- Opens the transaction all steps are rehearsed in; behind the door where there is one.
---@param target moonbird.target
---@return true|nil
---@return moonbird.error? err code "history_moved" where another runner was at work since the target's state was read
function M.begin(target)
  if target.state.exists then
    return enter_locked(target)
  end
  local results, err = target.session:batch {
    { "begin isolation level read committed read write" },
    target:settings_item(timeouts(target), true),
  }
  return results and true, err
end

--- Takes another target into the transaction that is open.
---@param target moonbird.target on the same session
---@return true|nil
---@return moonbird.error? err
function M.enter(target)
  local results, err = target.session:batch { target.state.exists and target:enter_item(timeouts(target), true)
    or target:settings_item(timeouts(target), true) }
  return results and true, err
end

--- What the end of a transaction would do: deferred constraints speak up, settings and role go back.
local function leave(target)
  local failure = transactional.unfit(target)
  if failure then
    return nil, failure
  end
  local results, err = target.session:batch {
    { "set constraints all immediate" },
    { "reset session authorization" }, { "reset role" }, { "reset all" },
    target:settings_item(timeouts(target), true),
  }
  return results and true, err
end

--- Tells what a backfill would walk over, in the transaction of the rehearsal: what came before it is there.
---@return table? item
---@return moonbird.error? err
local function tell_backfill(target, step)
  local def, session, report = step.migration.backfill, target.session, target.run.report
  local ok, err = session:query "savepoint moonbird_backfill"
  if not ok then
    return nil, err
  end
  local item = { id = step.migration.id, table = def.table }
  local place, problem = require("moonbird.exec.backfill.key").find(target, session, def)
  if not place then
    return nil, problem
  end
  item.rows = 0
  for _, leaf in ipairs(place.leaves) do
    item.rows = item.rows + require("moonbird.exec.backfill.chunks").estimate(leaf)
  end
  report:print(("    backfill of %s by %s: about %s, in batches of its own transactions; not rehearsed"):format(
    place.name, place.key.ctid and "ctid" or table.concat(place.key.columns, ", "), text.count(item.rows, "row")))
  ok, err = session:query "rollback to savepoint moonbird_backfill"
  return ok and item, err
end

--- Whether a step is a backfill whose `up` was run: only batches are left.
local function begun(target, step)
  return step.migration.backfill and step.direction == "up"
    and require("moonbird.exec.backfill.begin").started(target, step)
end

--- Rehearses one transactional step in the transaction that is open.
---@param target moonbird.target
---@param step moonbird.step
---@param title string what is printed above its statements
---@return true|nil
---@return moonbird.error? err
---@return { id: string, table: string, rows: integer }? backfill what it would walk over
function M.step(target, step, title)
  local report, gate = target.run.report, target.run.gate
  report:show_statements(true)
  report:print(report.out.bold("-- " .. title))
  if gate then
    gate:attach(target, step)
  end
  local ok, err, backfill = true, nil, nil
  if not begun(target, step) then
    ok, err = transactional.run_body(target, step)
  end
  if ok and step.vet then
    err = step.vet()
    ok = err == nil
  end
  if ok then
    ok, err = leave(target)
  end
  report:show_statements(false)
  if ok and step.migration.backfill and step.direction == "up" then
    backfill, err = tell_backfill(target, step)
    ok = backfill ~= nil
  end
  return ok, err, backfill
end

--- Parts steps into those that can be rehearsed, up to the first without a transaction, and the others with why.
---@param steps moonbird.step[]
---@param blocked_by? string an earlier step that can't be rehearsed
---@return moonbird.step[] can
---@return { id: string, reason: string }[] others
function M.part(steps, blocked_by)
  local can, others = {}, json.array {}
  for _, step in ipairs(steps) do
    local id = step.migration.id
    if blocked_by then
      others[#others + 1] = { id = id, reason = "it comes after " .. blocked_by }
    elseif not step.transactional then
      blocked_by = id
      others[#others + 1] = { id = id, reason = "it has no transaction" }
    else
      can[#can + 1] = step
    end
  end
  return can, others
end

--- An error of a rehearsal: it changed nothing.
---@param err moonbird.error
---@return moonbird.error
function M.failure(err)
  return error_.with(err, { hint = "this was a dry run; nothing was changed" })
end

--- Rehearses a direction.
---@param target moonbird.target
---@param entries table[]
---@param direction "up"|"down"
---@param options table as apply.run's
---@return table|nil result
---@return moonbird.error? err
function M.run(target, entries, direction, options)
  local report = target.run.report
  local planner = direction == "up" and apply.plan_up or apply.plan_down
  local steps, err, comparison = planner(target, entries, options)
  if not steps then
    return nil, err
  end
  local result = { target = target.name, dry_run = true, rehearsed = json.array {} }
  target.held = comparison.held
  apply.tell_held(target.run, comparison)
  if #steps == 0 then
    result.not_rehearsed = json.array {}
    report:print(#(comparison.held or {}) > 0 and "nothing else to do" or "nothing to do")
    return result
  end
  local gate = target.run.gate
  err = gate and gate:before(target, steps, entries)
  if err then
    return nil, err
  end
  local can
  can, result.not_rehearsed = M.part(steps)
  local ok
  ok, err = M.begin(target)
  if not ok and err.code == "history_moved" then -- while it waited for another runner
    target.session:rollback()
    ok, err = target:refresh()
    if ok then
      return M.run(target, entries, direction, options)
    end
  end
  if not ok then
    return nil, err
  end
  for _, step in ipairs(can) do
    local backfill
    ok, err, backfill = M.step(target, step, ("%s (%s)"):format(step.migration.id, direction))
    err = err and error_.with(err, { migration = step.migration.id, file = step.migration.file })
    if backfill then
      result.backfills = result.backfills or json.array {}
      table.insert(result.backfills, backfill)
    end
    if not ok then
      break
    end
    result.rehearsed[#result.rehearsed + 1] = { id = step.migration.id }
  end
  target.session:rollback()
  if not ok then
    return result, M.failure(err)
  end
  for _, item in ipairs(result.not_rehearsed) do
    report:print(report.out.yellow("not rehearsed: ") .. item.id .. ": " .. item.reason)
  end
  report:print(("rehearsed %s; everything was rolled back"):format(text.count(#result.rehearsed, "migration")))
  return result
end

return M
