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

--- The transaction all steps are rehearsed in; behind the door where there is one.
local function begin(target)
  if target.state.exists then
    return transactional.begin(target, { lock = target.run.config.timeouts.lock, statement = 0 }, true)
  end
  local results, err = target.session:batch {
    { "begin isolation level read committed read write" },
    target:settings_item({ lock = target.run.config.timeouts.lock, statement = 0 }, true),
  }
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
    target:settings_item({ lock = target.run.config.timeouts.lock, statement = 0 }, true),
  }
  return results and true, err
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
  local result = { target = target.name, dry_run = true, rehearsed = json.array {},
    not_rehearsed = json.array {} }
  target.held = comparison.held
  apply.tell_held(target.run, comparison)
  if #steps == 0 then
    report:print(#(comparison.held or {}) > 0 and "nothing else to do" or "nothing to do")
    return result
  end
  local gate = target.run.gate
  err = gate and gate:before(target, steps, entries)
  if err then
    return nil, err
  end
  local ok
  ok, err = begin(target)
  if not ok then
    return nil, err
  end
  local blocked_by
  for _, step in ipairs(steps) do
    local id = step.migration.id
    if not step.transactional then
      blocked_by = blocked_by or id
      result.not_rehearsed[#result.not_rehearsed + 1] = { id = id, reason = "it has no transaction" }
    elseif blocked_by then
      result.not_rehearsed[#result.not_rehearsed + 1] = { id = id, reason = "it comes after " .. blocked_by }
    else
      report:show_statements(true)
      report:print(report.out.bold("-- " .. id .. " (" .. direction .. ")"))
      if gate then
        gate:attach(target, step)
      end
      ok, err = transactional.run_body(target, step)
      if ok and step.vet then
        err = step.vet()
        ok = err == nil
      end
      if ok then
        ok, err = leave(target)
      end
      if not ok then
        break
      end
      result.rehearsed[#result.rehearsed + 1] = { id = id }
    end
  end
  report:show_statements(false)
  target.session:rollback()
  if not ok then
    return result, error_.with(err, { hint = "this was a dry run; nothing was changed" })
  end
  for _, item in ipairs(result.not_rehearsed) do
    report:print(report.out.yellow("not rehearsed: ") .. item.id .. ": " .. item.reason)
  end
  report:print(("rehearsed %s; everything was rolled back"):format(text.count(#result.rehearsed, "migration")))
  return result
end

return M
