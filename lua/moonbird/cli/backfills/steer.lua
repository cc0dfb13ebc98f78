--- Looking at backfills and steering them from another terminal.
local control = require "moonbird.exec.backfill.control"
local definition_of = require "moonbird.migration.backfill"
local error_ = require "moonbird.core.error"
local json = require "moonbird.core.json"
local places = require "moonbird.cli.backfills.places"
local plan = require "moonbird.plan.plan"
local project = require "moonbird.cli.project"
local registry = require "moonbird.migration.registry"
local standby = require "moonbird.exec.standby"
local tell = require "moonbird.report.backfill"
local tenants = require "moonbird.cli.tenants.common"
local text = require "moonbird.util.text"

local M = {}

--- The migrations with a backfill that the global target has not applied.
local function pending_of(entries, target)
  local migrations, err = registry.load_all(plan.compare(entries, target.state).pending)
  if not migrations then
    return nil, err
  end
  local list = {}
  for _, migration in ipairs(migrations) do
    list[#list + 1] = migration.backfill and migration or nil
  end
  return list
end

local function list(args, report, run, target, entries)
  local rows, begun = {}, {}
  local ok, err = places.each(args, run, target, nil, function(_, found)
    table.move(found, 1, #found, #rows + 1, rows)
    return true
  end)
  if not ok then
    return nil, err
  end
  for _, row in ipairs(rows) do
    begun[row.version] = true
  end
  local pending
  pending, err = pending_of(entries, target)
  if not pending then
    return nil, err
  end
  for _, migration in ipairs(tenants.some(args) and {} or pending) do
    if not begun[migration.version] then
      rows[#rows + 1] = { id = migration.id, version = migration.version, status = "pending", want = "run",
        target = migration.scope == "tenant" and "tenants" or "global", relation = migration.backfill.table }
    end
  end
  tell.list(report, rows)
  local data = json.array {}
  for i, row in ipairs(rows) do
    data[i] = tell.data(row)
  end
  return { backfills = data }
end

--- Calls `work(place, row)` for each backfill that the name means -> how many; none is an error.
local function each_row(args, run, target, entries, work)
  local name, count = args.words[1], 0
  local files, ok, err
  files, err = places.files(name, entries)
  err = files and control.ambiguous(name, files) or not files and err or nil
  if err then
    return nil, err
  end
  ok, err = places.each(args, run, target, name, function(place, rows)
    local several = control.ambiguous(name, rows) -- their files may be gone
    if several then
      return nil, several
    end
    for _, row in ipairs(rows) do
      local good, failed = work(place, row)
      if not good then
        return nil, failed
      end
      count = count + 1
    end
    return true
  end)
  if not ok then
    return nil, err
  elseif count == 0 then
    local all = {}
    ok, err = places.each(args, run, target, nil, function(_, rows)
      table.move(rows, 1, #rows, #all + 1, all)
      return true
    end)
    return nil, not ok and err or control.unknown(name, all, entries)
  end
  return count
end

local function show(args, report, run, target, entries)
  local data = json.array {}
  local ok, err = each_row(args, run, target, entries, function(place, row)
    local errors, failed = place.store:errors(place.session, row.target, row.version)
    if not errors then
      return nil, failed
    end
    if data[1] then
      report:write("\n")
    end
    tell.show(report, row, errors)
    data[#data + 1] = tell.data(row)
    data[#data].error_rows = json.array(errors)
    return true
  end)
  return ok and { backfills = data }, err
end

local SAYS = { pause = "paused: its batch under way ends first; `moonbird backfill resume` goes on",
  resume = "goes on where it is at work; else `moonbird backfill run` takes it up",
  cancel = "cancelled: what was committed stays" }

local function steer(args, report, run, target, entries)
  local data, refused = json.array {}, {}
  local ok, err = each_row(args, run, target, entries, function(place, row)
    -- Of many tenants' some may be done: those are left alone.
    if row.status == "done" and row.target ~= "global" and not tenants.some(args) then
      return true
    end
    local done, failed = control.steer(place.store, place.session, row, args.action, run.facts)
    local name = row.id .. (row.target ~= "global" and " of " .. row.target or "")
    if done then
      report:print(("%s %s"):format(name, SAYS[args.action]))
      data[#data + 1] = { target = row.target, id = row.id, version = row.version, action = args.action }
    elseif failed.code ~= "backfill" then
      return nil, failed
    else
      refused[#refused + 1] = { name = name, err = failed } -- the other tenants' are steered all the same
    end
    return true
  end)
  if not ok or not refused[1] then
    return ok and { backfills = data }, err
  elseif #data == 0 or tenants.some(args) then
    return { backfills = data }, refused[1].err
  end
  for _, one in ipairs(refused) do
    report:log("warn", ("%s is left alone: %s"):format(one.name, one.err.message))
  end
  return { backfills = data }
end

--- The bounds of a batch's size: of two that exclude one another the one that is said now counts, the other follows.
--- (A `max` below the least size takes that along by itself.)
local function lift(limits, row, entries, run)
  local step = places.step(entries, row)
  if not step or not limits.min or limits.min == json.null then
    return limits
  end
  local all = {}
  for _, source in ipairs { row.limits or {}, limits } do
    for name, value in pairs(source) do
      all[name] = value
    end
  end
  local options = definition_of.settle(step.migration.backfill, all, run.config.backfill)
  if options.min <= options.max then
    return limits
  elseif limits.max and limits.max ~= json.null then
    return nil, error_.new("usage", ("min=%d is more than max=%d"):format(options.min, options.max))
  end
  local lifted = { max = limits.min }
  for name, value in pairs(limits) do
    lifted[name] = lifted[name] or value
  end
  return lifted
end

local function throttle(args, report, run, target, entries)
  local said, err = control.limits(table.move(args.words, 2, #args.words, 1, {}))
  if not said then
    return nil, err
  end
  local data = json.array {}
  local ok
  ok, err = each_row(args, run, target, entries, function(place, row)
    if said.workers and row.target ~= "global" then
      return nil, error_.new("usage", "tenants take turns with one worker each: workers is no limit of theirs",
        { hint = "--jobs of `moonbird backfill run` says how many are worked on at the same time" })
    end
    local limits, failed = lift(said, row, entries, run)
    local done
    if limits then
      done, failed = place.store:set_limits(place.session, row.target, row.version, limits)
    end
    if not done then
      return nil, failed
    end
    report:print(("%s%s: %s%s; it counts from its next batch on"):format(row.id, row.target ~= "global" and " of "
      .. row.target or "", table.concat(args.words, " ", 2), limits.max ~= said.max and " max=" .. limits.max or ""))
    data[#data + 1] = { target = row.target, id = row.id, version = row.version, limits = limits }
    return true
  end)
  return ok and { backfills = data }, err
end

--- The job of a backfill that has begun, without running it.
local function job_of(place, row, entries)
  local target, err = places.target(place, row)
  if not target then
    return nil, err
  end
  local step
  step, err = places.step(entries, row)
  if not step then
    return nil, err
  end
  local state
  state, err = place.store:find(place.session, row.target, row.version)
  if not state then
    return nil, err
  end
  local job
  job, err = require("moonbird.exec.backfill.run").job(target, step, place.store, state, {})
  return job, err, state
end

local function retry_errors(args, report, run, target, entries)
  local data = json.array {}
  local failed_rows = 0
  local ok, err = each_row(args, run, target, entries, function(place, row)
    local job, failed, state = job_of(place, row, entries)
    if not job then
      return nil, failed
    elseif state.code ~= definition_of.code(job.def, job.step.migration.checksum) and state.status ~= "done" then
      return nil, error_.new("checksum", ("the backfill of %s was changed after a part of it was done"):format(row.id),
        { hint = "`moonbird backfill run --adopt` goes on with the new code" })
    end
    local sum
    sum, failed = require("moonbird.exec.backfill.retry").run(job, place.session, function(item, why)
      if why then
        report:log("warn", ("%s: still fails: %s"):format(item.key, why.message), job.step)
      end
    end)
    if not sum then
      return nil, failed
    end
    report:print(("%s: %s tried again, %d mended, %d left"):format(row.id, text.count(sum.tried, "row"), sum.mended,
      sum.left))
    failed_rows = failed_rows + sum.left
    sum.target, sum.id, sum.version = row.target, row.id, row.version
    data[#data + 1] = sum
    return true
  end)
  if ok and failed_rows > 0 then
    err = error_.new("backfill", ("%s still can't be changed"):format(text.count(failed_rows, "row")),
      { hint = "`moonbird backfill show` names them" })
  end
  return ok and { backfills = data }, err
end

local function verify(args, report, run, target, entries)
  local data, left_rows = json.array {}, 0
  local ok, err = each_row(args, run, target, entries, function(place, row)
    local job, failed = job_of(place, row, entries)
    if not job then
      return nil, failed
    end
    local left
    left, failed = require("moonbird.exec.backfill.verify").count(job, place.session)
    if failed then
      return nil, failed
    end
    local item = { target = row.target, id = row.id, version = row.version, rows = left and left.rows,
      more = left and left.more, recorded = left and left.recorded, skipped = row.pass_skipped }
    if not left then
      report:print(("%s: it has no where: only its cursor tells what is done (%d%%)"):format(row.id,
        math.floor(row.share * 100)))
    else
      report:print(("%s: %s%s still match its where%s"):format(row.id, left.more and "more than " or "",
        text.count(left.rows, "row"), left.recorded > 0 and (", %d of them passed over"):format(left.recorded) or "")
        .. (row.pass_skipped > 0 and ("; its transform left %d alone"):format(row.pass_skipped) or ""))
      left_rows = left_rows + math.max(0, left.rows - left.recorded - row.pass_skipped)
    end
    data[#data + 1] = item
    return true
  end)
  if ok and left_rows > 0 then
    err = error_.new("backfill", "rows are left that it should have changed",
      { hint = "rows that came later need a trigger or a default; else run the backfill (on)" })
  end
  return ok and { backfills = data }, err
end

--- The global target, or the first chosen tenant.
local function explain(args, report, run, target, entries)
  local entry, step, err
  entry, err = places.entry(args.words[1], entries)
  if entry then
    step, err = places.step(entries, entry)
  end
  if not step then
    return nil, err
  end
  local function go(on)
    local found, failed = require("moonbird.exec.backfill.explain").run(on, step)
    if not found then
      return nil, require("moonbird.exec.backfill.explain").excuse(failed, step)
    end
    tell.explain(report, found)
    return found
  end
  if step.migration.scope ~= "tenant" then
    return go(target)
  end
  local settings
  settings, err = tenants.settings(run.config, args, true)
  if not settings then
    return nil, err
  end
  return tenants.with_survey(args, run, target, settings, nil, function(survey)
    local tenant = survey.tenants[1]
    if not tenant then
      return nil, error_.new("usage", "there is no tenant to explain it for")
    end
    return survey:with_session(tenant.database, function(session)
      local on, failed = places.target({ run = tenant.database.run, session = session, survey = survey },
        { target = tenant.name })
      if not on then
        return nil, failed
      end
      return go(on)
    end)
  end)
end

local ACTIONS = { list = list, show = show, pause = steer, resume = steer, cancel = steer, throttle = throttle,
  ["retry-errors"] = retry_errors, verify = verify, explain = explain }

-- What a standby can answer as well.
local READS = { list = true, show = true, verify = true, explain = true }

--- Does it.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  local conf, gate, err
  if args.action == "retry-errors" then -- it changes rows
    conf, gate, err = require("moonbird.cli.command.up").gate(args)
    conf = gate and conf
  else
    conf, err = project.config(args)
  end
  if not conf then
    return nil, err
  end
  return project.with_target(args, report, { config = conf, files = true }, function(run, target, entries)
    local result, failed = nil, not READS[args.action] and standby.refusal(target.session, run.params) or nil
    if not failed then
      result, failed = ACTIONS[args.action](args, report, run, target, entries)
    end
    return result or nil, failed
  end)
end

return M
