--- moonbird history
local clean = require "moonbird.report.clean"
local duration = require "moonbird.util.duration"
local error_ = require "moonbird.core.error"
local json = require "moonbird.core.json"
local project = require "moonbird.cli.project"
local style = require "moonbird.report.style"
local tenants = require "moonbird.cli.tenants.common"
local times = require "moonbird.report.times"
local text = require "moonbird.util.text"

local M = {}

local WORDS = { apply = "applied", revert = "reverted", fail = "failed", start = "started", unit = "unit",
  baseline = "baseline", repair = "repaired", pin = "pinned", unpin = "unpinned",
  script = "ran" }

--- What an auditor asks for: why it was let through.
local function excuses(detail)
  local list = {}
  if detail.emergency then
    list[1] = "emergency: " .. detail.emergency
  end
  for _, item in ipairs(detail.waivers or {}) do
    list[#list + 1] = ("waived %s: %s"):format(item.rule, item.reason)
  end
  if detail.backfill then
    list[#list + 1] = require("moonbird.report.backfill").totals(detail.backfill)
  end
  return table.concat(list, "; ")
end

--- The reason that was given, and what else is to be said.
local function said(detail)
  local list, more = {}, excuses(detail)
  list[#list + 1] = detail.script
  list[#list + 1] = detail.reason
  list[#list + 1] = more ~= "" and more or nil
  return table.concat(list, "; ")
end

local function unit_note(row)
  if row.event == "pin" then
    return ("to %d: %s"):format(row.detail.to, row.detail.reason)
  end
  if row.event ~= "unit" then
    return row.error or (row.detail and said(row.detail)) or ""
  end
  return ("%d %s%s"):format(row.detail.unit, row.outcome, row.detail.statement and (": " .. row.detail.statement)
    or "")
end

local function print_rows(report, rows)
  local out = report.out
  local colours = { fail = out.red, apply = out.green, revert = out.yellow }
  local lines, named = {}, false
  for _, row in ipairs(rows) do
    named = named or row.target ~= "global"
  end
  for i, row in ipairs(rows) do
    local colour = colours[row.event] or out.dim
    local line = {
      times.human(row.finished_at), colour(WORDS[row.event]),
      row.id or row.version_text or "", row.duration_ms and duration.format(row.duration_ms) or "",
      row.applied_by .. (row.host and ("@" .. row.host) or ""),
      row.git_commit and row.git_commit:sub(1, 10) or "-", clean.line(unit_note(row)),
    }
    if named then
      table.insert(line, 2, row.target)
    end
    lines[i] = line
  end
  report:write(style.columns(lines))
end

--- The names of a survey's tenants, by their database.
local function rows_of_tenants(run, survey, limit)
  local rows = {}
  for _, database in ipairs(survey.databases) do
    local names = {}
    for i, tenant in ipairs(database.tenants) do
      names[i] = tenant.name
    end
    local list, err
    if names[1] then
      list, err = survey:with_session(database, function(session)
        return run.journal:history(session, names, limit)
      end)
      if not list then
        return nil, err
      end
      table.move(list, 1, #list, #rows + 1, rows)
    end
    survey:leave() -- one connection at a time
  end
  if #survey.databases > 1 then
    table.sort(rows, function(a, b)
      if a.finished_at ~= b.finished_at then
        return a.finished_at > b.finished_at
      end
      return a.seq > b.seq
    end)
  end
  return table.move(rows, 1, math.min(limit, #rows), 1, {})
end

--- The events of chosen tenants. One that is no tenant any more is found by its name in the journal.
local function of_tenants(args, run, target, settings, limit)
  local rows, err = tenants.with_survey(args, run, target, settings, nil, function(survey)
    return rows_of_tenants(run, survey, limit)
  end)
  if not rows and (err.code == "usage" or err.code == "config") and args.tenant and #args.tenant > 0 then
    local gone, failed = run.journal:history(target.session, args.tenant, limit)
    if gone and gone[1] then
      return gone
    end
    err = failed or err
  end
  return rows, err
end

--- Checks every chain of the database, and of those that the chosen tenants have of their own.
---@return { label?: string, target: string, ordinal: integer, problem: string }[]|nil
---@return moonbird.error? err
local function problems_of(args, run, target, settings)
  local problems, err = run.journal:verify(target.session)
  if not problems or not settings then
    return problems, err
  end
  return tenants.with_survey(args, run, target, settings, nil, function(survey)
    for _, database in ipairs(survey.databases) do
      local list, failure = {}, nil
      if database.key ~= "" then -- else it is the one that was checked
        list, failure = survey:with_session(database, function(session)
          return run.journal:verify(session)
        end)
      end
      if not list then
        return nil, failure
      end
      for _, problem in ipairs(list) do
        problem.label = database.label
        problems[#problems + 1] = problem
      end
      survey:leave() -- one connection at a time
    end
    return problems
  end)
end

--- Checks the chains.
local function verify(args, report, run, target, settings)
  local problems, failure = problems_of(args, run, target, settings)
  if not problems then
    return nil, failure
  elseif #problems > 0 then
    local list = {}
    for i, problem in ipairs(problems) do
      list[i] = { message = ("%starget %s, event %d: %s"):format(problem.label
        and ("database %s, "):format(problem.label) or "", problem.target, problem.ordinal, problem.problem) }
    end
    return nil, error_.new("journal", ("the journal was tampered with: %s"):format(text.count(#problems, "row")),
      { problems = list, hint = "compare with a backup; find out who can disable the journal's triggers" })
  end
  report:write("every row follows from the one before it\n")
  return { verified = true }
end

--- Shows the journal, or checks its chain.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  local conf, settings, err = tenants.configured(args)
  if err then
    return nil, err
  end
  return project.with_target(args, report, { config = conf }, function(run, target)
    if args.verify then
      return verify(args, report, run, target, settings)
    end
    local rows, failure
    if tenants.some(args) then
      rows, failure = of_tenants(args, run, target, settings, args.limit or 20)
    else
      rows, failure = run.journal:history(target.session, nil, args.limit or 20)
    end
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
