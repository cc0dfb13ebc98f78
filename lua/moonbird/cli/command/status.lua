--- moonbird status
local duration = require "moonbird.util.duration"
local error_ = require "moonbird.core.error"
local glance = require "moonbird.cli.backfills.glance"
local json = require "moonbird.core.json"
local plan = require "moonbird.plan.plan"
local project = require "moonbird.cli.project"
local registry = require "moonbird.migration.registry"
local remedy = require "moonbird.plan.remedy"
local style = require "moonbird.report.style"
local tenants = require "moonbird.cli.tenants.common"
local times = require "moonbird.report.times"

local M = {}

--- What an interrupted or failed run left open, by version.
local function open_by_version(state)
  local open = {}
  for _, row in ipairs(state.open) do
    if row.version then
      open[row.version] = open[row.version] or {}
      if row.event == "fail" then
        open[row.version].failed = row
      elseif row.event == "start" then
        open[row.version].started = row
      end
    end
  end
  return open
end

--- The pending migrations that `up` holds back here, by version, and the pending contracts; a file that can't be
--- read is none of them.
local function held_versions(conf, comparison)
  local raw = conf.policy or {}
  local allow = { contract = raw.allow_contract == true, breaking = raw.allow_breaking == true }
  local held, contracts = {}, {}
  for _, entry in ipairs(comparison.pending) do
    local migration = registry.load(entry)
    local reason, flags
    if migration then
      reason, flags = plan.held(migration, allow)
      contracts[#contracts + 1] = migration
    end
    held[entry.version] = reason and { reason = reason, flags = flags } or nil
  end
  return held, contracts
end

local function who_is_at_work(target)
  local busy, err = target.run.journal:busy(target.session, { target.name })
  if not busy then
    target.run.report:log("warn", "who is at work can't be read: " .. tostring(err))
  end
  return busy or {}
end

local function last_failure(row)
  return ("last failed %s: %s"):format(times.human(times.iso(row.finished_ms)), row.error or "")
end

--- What versions are that were begun and have not ended, by version: { state, note }; "running" while somebody is at
--- it. Those of backfills are told otherwise.
local function begun_versions(target, open, backfills)
  local begun, busy = {}, nil
  for version, left in pairs(open) do
    if left.started and not backfills[version] then
      busy = busy or who_is_at_work(target)
      local holder = busy[target.name]
      begun[version] = holder and { state = "running", note = ("%s is at it (pid %d, on %s)"):format(
          holder.application, holder.pid, holder.client) }
        or { state = "interrupted", note = (left.failed and last_failure(left.failed) or "a run died inside it")
          .. "; the same command goes on" }
    end
  end
  return begun
end

--- What was begun, has not ended and is nowhere else: nothing but the journal knows of it. Appended to `items`
--- -> how many.
local function add_without_file(items, state, begun)
  local known, before = {}, #items
  for _, item in ipairs(items) do
    known[item.version] = true
  end
  for _, row in ipairs(state.open) do
    local at = row.event == "start" and not known[row.version] and begun[row.version]
    if at then
      known[row.version] = true
      items[#items + 1] = { version = row.version, id = row.id or row.version_text, state = at.state,
        note = at.state == "running" and at.note or "half done, and its file is gone: restore it, or settle it with "
          .. remedy.repair(row.version_text, "--mark reverted") }
    end
  end
  return #items - before
end

local NOTHING = {}

local function collect(target, entries)
  local comparison = plan.compare(entries, target.state)
  local open = open_by_version(target.state)
  local held, contracts = held_versions(target.run.config, comparison)
  local backfills = glance.open(target)
  local begun = begun_versions(target, open, backfills)
  local changed, late, items = {}, {}, json.array {}
  for _, item in ipairs(comparison.changed) do
    changed[item.row.version] = true
  end
  plan.excuse_contracts(comparison, contracts)
  for _, entry in ipairs(comparison.out_of_order) do
    late[entry.version] = true
  end
  for _, item in ipairs(comparison.applied) do
    local row, entry = item.row, item.entry
    local at = begun[row.version] or NOTHING
    items[#items + 1] = {
      version = row.version, id = entry and entry.id or row.id or row.version_text, file = entry and entry.file,
      state = at.state or not entry and "missing" or changed[row.version] and "changed" or "applied",
      note = at.note, how = row.event, applied_at = times.iso(row.finished_ms), duration_ms = row.duration_ms,
      applied_by = row.applied_by, phase = row.phase, scope = row.scope,
    }
  end
  for _, entry in ipairs(comparison.pending) do
    local left, backfill, at = open[entry.version], backfills[entry.version], begun[entry.version] or NOTHING
    items[#items + 1] = {
      version = entry.version, id = entry.id, file = entry.file, backfill = backfill and glance.data(backfill),
      note = backfill and glance.words(backfill) or at.note or left and left.failed and last_failure(left.failed),
      state = backfill and "backfill" or at.state or held[entry.version] and "held"
        or late[entry.version] and "late" or "pending",
      held = held[entry.version],
      failed = left and left.failed and {
        at = times.iso(left.failed.finished_ms), sqlstate = left.failed.sqlstate, error = left.failed.error,
      } or nil,
    }
  end
  local lost = add_without_file(items, target.state, begun)
  table.sort(items, function(a, b)
    return a.version < b.version
  end)
  local count = 0
  for _ in pairs(held) do
    count = count + 1
  end
  return comparison, items, count, lost
end

local NOTES = {
  changed = "the file was changed after it was applied",
  missing = "applied, but its file is gone",
  late = "older than what is applied; needs --allow-out-of-order",
}

local function print_items(report, items)
  local out = report.out
  local colours = { applied = out.green, pending = out.yellow, changed = out.red, missing = out.red,
    late = out.red, interrupted = out.red, running = out.yellow, held = out.dim, backfill = out.yellow }
  local rows = {}
  for _, item in ipairs(items) do
    local note = item.note or NOTES[item.state] or ""
    if item.state == "held" then
      note = ("%s: %s applies it"):format(item.held.reason, item.held.flags)
    end
    item.note = nil
    rows[#rows + 1] = { colours[item.state](item.state), item.id, times.human(item.applied_at) or "",
      item.duration_ms and out.dim(duration.format(item.duration_ms)) or "", note }
  end
  report:write(style.columns(rows))
end

--- The global target: shows it -> its data, and whether something is to be done. `all`: those of tenants, too.
local function show(report, target, entries, all)
  local comparison, items, held, lost = collect(target, entries)
  local drift = #comparison.changed + #comparison.missing + lost + (plan.half_reverted(target.state) and 1 or 0)
  print_items(report, items)
  report:write(#items > 0 and "\n" or (#all > 0 and "no global migrations" or project.NO_MIGRATIONS) .. "\n\n")
  local pending = #comparison.pending - held
  report:write(("Applied: %d\nPending: %d\n"):format(#comparison.applied, pending))
  if held > 0 then
    report:write(("Held back: %d\n"):format(held))
  end
  return { target = target.name, migrations = items, applied = #comparison.applied,
    pending = pending, held = held, changed = #comparison.changed, missing = #comparison.missing },
    pending + drift > 0
end

--- The same and the tenants; only these where some are named.
local function show_tenants(args, report, run, target, entries, settings)
  return tenants.with_survey(args, run, target, settings, nil, function(survey)
    local overview, global = tenants.overview(survey, target, entries, tenants.allow(run.config, args))
    if not overview then
      return nil, global
    end
    local result, open = { target = target.name }, false
    if not tenants.some(args) then
      result, open = show(report, target, global, entries)
    end
    local report_of = require "moonbird.report.overview"
    report_of.print(report, overview, args.all)
    result.tenants = report_of.data(overview, args.all)
    return result, nil, open or report_of.open(overview)
  end)
end

--- Shows what is applied and what is pending. Changes nothing.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  local conf, settings, err = tenants.configured(args)
  if err then
    return nil, err
  end
  return project.with_target(args, report, { config = conf, files = true, full = true }, function(run, target, entries)
    local result, failure, open
    if settings then
      result, failure, open = show_tenants(args, report, run, target, entries, settings)
    else
      result, open = show(report, target, entries, entries)
    end
    if result and args.exit_code and open then
      result.exit_status = error_.status(error_.new("pending", ""))
    end
    return result, failure
  end)
end

return M
