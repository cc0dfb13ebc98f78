--- moonbird status
local duration = require "moonbird.util.duration"
local error_ = require "moonbird.core.error"
local json = require "moonbird.core.json"
local plan = require "moonbird.plan.plan"
local project = require "moonbird.cli.project"
local style = require "moonbird.report.style"
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

local function collect(target, entries)
  local comparison = plan.compare(entries, target.state)
  local open = open_by_version(target.state)
  local changed, late, items = {}, {}, json.array {}
  for _, item in ipairs(comparison.changed) do
    changed[item.row.version] = true
  end
  for _, entry in ipairs(comparison.out_of_order) do
    late[entry.version] = true
  end
  for _, item in ipairs(comparison.applied) do
    local row, entry = item.row, item.entry
    items[#items + 1] = {
      version = row.version, id = entry and entry.id or row.id or row.version_text, file = entry and entry.file,
      state = open[row.version] and open[row.version].started and "interrupted" or not entry and "missing"
        or changed[row.version] and "changed" or "applied",
      how = row.event, applied_at = times.iso(row.finished_ms), duration_ms = row.duration_ms,
      applied_by = row.applied_by, phase = row.phase, scope = row.scope,
    }
  end
  for _, entry in ipairs(comparison.pending) do
    local left = open[entry.version]
    items[#items + 1] = {
      version = entry.version, id = entry.id, file = entry.file,
      state = left and left.started and "interrupted" or late[entry.version] and "late" or "pending",
      failed = left and left.failed and {
        at = times.iso(left.failed.finished_ms), sqlstate = left.failed.sqlstate, error = left.failed.error,
      } or nil,
    }
  end
  table.sort(items, function(a, b)
    return a.version < b.version
  end)
  return comparison, items
end

local NOTES = {
  changed = "the file was changed after it was applied",
  missing = "applied, but its file is gone",
  late = "older than what is applied; needs --allow-out-of-order",
  interrupted = "a run died inside it; the same command goes on",
}

local function print_items(report, items)
  local out = report.out
  local colours = { applied = out.green, pending = out.yellow, changed = out.red, missing = out.red,
    late = out.red, interrupted = out.red }
  local rows = {}
  for _, item in ipairs(items) do
    local note = NOTES[item.state] or ""
    if item.failed then
      note = ("last failed %s: %s"):format(times.human(item.failed.at), item.failed.error or "")
    end
    rows[#rows + 1] = { colours[item.state](item.state), item.id, times.human(item.applied_at) or "",
      item.duration_ms and out.dim(duration.format(item.duration_ms)) or "", note }
  end
  report:write(style.columns(rows))
end

--- Shows what is applied and what is pending. Changes nothing.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  return project.with_target(args, report, { files = true, full = true }, function(_, target, entries)
    local comparison, items = collect(target, entries)
    local drift = #comparison.changed + #comparison.missing + (plan.half_reverted(target.state) and 1 or 0)
    print_items(report, items)
    if #items > 0 then
      report:write("\n")
    end
    report:write(("Applied: %d\nPending: %d\n"):format(#comparison.applied, #comparison.pending))
    local result = { target = target.name, migrations = items, applied = #comparison.applied,
      pending = #comparison.pending, changed = #comparison.changed, missing = #comparison.missing }
    if args.exit_code and #comparison.pending + drift > 0 then
      result.exit_status = error_.status(error_.new("pending", ""))
    end
    return result
  end)
end

return M
