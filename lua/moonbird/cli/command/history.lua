--- moonbird history
local duration = require "moonbird.util.duration"
local error_ = require "moonbird.core.error"
local json = require "moonbird.core.json"
local project = require "moonbird.cli.project"
local style = require "moonbird.report.style"
local times = require "moonbird.report.times"
local text = require "moonbird.util.text"

local M = {}

local WORDS = { apply = "applied", revert = "reverted", fail = "failed", start = "started", unit = "unit",
  baseline = "baseline", repair = "repaired" }

local function unit_note(row)
  if row.event ~= "unit" then
    return row.error or (row.detail and row.detail.reason) or ""
  end
  return ("%d %s%s"):format(row.detail.unit, row.outcome, row.detail.statement and (": " .. row.detail.statement)
    or "")
end

local function print_rows(report, rows)
  local out = report.out
  local colours = { fail = out.red, apply = out.green, revert = out.yellow }
  local lines = {}
  for _, row in ipairs(rows) do
    local colour = colours[row.event] or out.dim
    lines[#lines + 1] = {
      times.human(row.finished_at), colour(WORDS[row.event]),
      row.id or row.version_text or "", row.duration_ms and duration.format(row.duration_ms) or "",
      row.applied_by .. (row.host and ("@" .. row.host) or ""),
      row.git_commit and row.git_commit:sub(1, 10) or "-", unit_note(row),
    }
  end
  report:write(style.columns(lines))
end

--- Shows the journal, or checks its chain.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  return project.with_target(args, report, {}, function(run, target)
    if args.verify then
      local problems, failure = run.journal:verify(target.session)
      if not problems then
        return nil, failure
      end
      if #problems > 0 then
        local list = {}
        for i, problem in ipairs(problems) do
          list[i] = { message = ("target %s, event %d: %s"):format(problem.target, problem.ordinal,
            problem.problem) }
        end
        return nil, error_.new("journal", ("the journal was tampered with: %s"):format(
          text.count(#problems, "row")), { problems = list,
          hint = "compare with a backup; find out who can disable the journal's triggers" })
      end
      report:write("every row follows from the one before it\n")
      return { verified = true }
    end
    local rows, failure = run.journal:history(target.session, nil, args.limit or 20)
    if not rows then
      return nil, failure
    end
    if #rows == 0 then
      report:write("nothing was done here yet\n")
    end
    print_rows(report, rows)
    return { events = json.array(rows) }
  end)
end

return M
