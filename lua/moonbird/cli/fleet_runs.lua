--- Runs of a fleet on the command line: --fleet of `up` and `deploy`, and `run list|show|pause|resume|cancel`.
local clean = require "moonbird.report.clean"
local duration = require "moonbird.util.duration"
local error_ = require "moonbird.core.error"
local fleet_of = require "moonbird.core.fleet"
local json = require "moonbird.core.json"
local outcome = require "moonbird.exec.fleet.outcome"
local project = require "moonbird.cli.project"
local settings_of = require "moonbird.tenants.settings"
local style = require "moonbird.report.style"
local sys = require "moonbird.core.sys"
local tenants_report = require "moonbird.report.tenants"
local text = require "moonbird.util.text"
local times = require "moonbird.report.times"

local M = {}

local NAMED = 10 -- tenants named of each group of equal errors
local STATES = { "done", "failed", "running", "waiting", "pinned", "ahead" }

--- What makes `up` work on a run.
---@param args table
---@param settings moonbird.tenants.settings
---@return (fun(context: table, stages: table[]): moonbird.error?)|nil
---@return moonbird.error? err
function M.join(args, settings)
  local ok, err = require("moonbird.exec.fleet.identity").name(args.fleet)
  if not ok then
    return nil, err
  end
  return function(context, stages)
    return require("moonbird.exec.fleet.worker").go(context, stages,
      { name = args.fleet, control = args.control or settings.control, lease = settings.lease })
  end
end

--- The error of --fleet where there is nothing to share.
---@param args table
---@return moonbird.error
function M.refused(args)
  return error_.new("usage", args.dry_run and "--fleet and --dry-run exclude one another"
    or "--fleet shares tenants, and moonbird.lua has no source of them",
    { hint = not args.dry_run and "set `tenants`, see the guide to tenants" or nil })
end

local function need(row, name)
  if row == false then
    return error_.new("fleet", ("there is no run \"%s\""):format(name), { hint = "see `moonbird run list`" })
  end
end

local function list(fleet, session, report)
  local rows, err = fleet:list(session)
  if not rows then
    return nil, err
  end
  local lines, data = {}, json.array {}
  for i, row in ipairs(rows) do
    lines[i] = { clean.line(row.name), row.status, text.count(row.done, "tenant") .. " done", row.failed .. " failed",
      row.left .. " left", text.count(row.workers, "worker"), times.human(row.made_at), duration.format(row.took_ms) }
    data[i] = row
  end
  if #rows == 0 then
    report:print("no runs")
  else
    report:write(style.columns(lines))
  end
  return { runs = data }
end

local function print_place(report, row)
  if row.stage == 0 then
    return
  end
  local stage = row.stages[row.stage]
  local wave = (stage.waves or {})[row.wave]
  report:print(("stage %d of %d (%s), %s"):format(row.stage, #row.stages, stage.scope == "global" and "global"
    or text.count(#stage.versions, "migration") .. " on tenants", wave and ("wave %d of %d (%s)"):format(row.wave,
    #stage.waves, clean.line(wave.name)) or "nothing to do"))
end

local function print_counts(report, row)
  local parts, total = {}, 0
  for _, state in ipairs(STATES) do
    local n = row.counts[state]
    if n then
      parts[#parts + 1] = ("%d %s"):format(n, state)
      total = total + n
    end
  end
  report:print(("%s: %s"):format(text.count(total, "item"), #parts > 0 and table.concat(parts, ", ") or "none yet"))
end

local function print_workers(report, row)
  local lines = {}
  for i, worker in ipairs(row.alive) do
    lines[i] = { "  " .. clean.line(worker.host or "?"), "pid " .. (worker.pid or "?"),
      text.count(worker.running, "item"), "since " .. times.human(worker.joined_at) }
  end
  report:print(#lines == 0 and "no worker is alive" or text.count(#lines, "worker") .. " alive")
  if #lines > 0 then
    report:write(style.columns(lines))
  end
end

local function show(fleet, session, report, name)
  local row, err = fleet:show(session, name)
  err = err or need(row, name)
  if err then
    return nil, err
  end
  local items
  items, err = fleet:items(session, name, "{failed}")
  if not items then
    return nil, err
  end
  local failures, groups = {}, json.array {}
  for i, item in ipairs(items) do
    failures[i] = { tenant = { name = item.tenant }, err = outcome.error(item) }
  end
  report:print(("%s: %s%s, %s, %s by %s%s"):format(clean.line(name), row.status,
    row.reason and " (" .. clean.line(row.reason) .. ")" or "", duration.format(row.took_ms), row.command,
    clean.line(row.made_by), row.host and "@" .. clean.line(row.host) or ""))
  report:print(("plan %s, %s up to %d"):format(row.plan:sub(1, 16), text.count(row.files, "file"), row.newest))
  print_place(report, row)
  print_counts(report, row)
  if not row.ended_at then
    print_workers(report, row)
  end
  for i, group in ipairs(tenants_report.groups(failures)) do
    report:print(("%s %s: %s"):format(report.out.red(text.count(#group.tenants, "tenant") .. " failed"),
      group.err.migration or "", clean.line(tostring(group.err))))
    report:print(("    %s%s"):format(table.concat(group.tenants, ", ", 1, math.min(NAMED, #group.tenants)),
      #group.tenants > NAMED and (" and %d more"):format(#group.tenants - NAMED) or ""))
    groups[i] = { error = group.err.message, code = group.err.code, sqlstate = group.err.sqlstate,
      migration = group.err.migration, count = #group.tenants, tenants = json.array(group.tenants) }
  end
  row.parts, row.settings, row.met, row.finished = nil, nil, nil, nil
  row.workers, row.alive, row.groups = json.array(row.alive), nil, groups
  return { run = row }
end

--- Who says so, for the reason in the row.
local function by(word)
  return ("%s by %s on %s"):format(word, sys.user(), sys.hostname())
end

local function why_not(fleet, session, name, word)
  local row, err = fleet:read(session, name)
  return err or need(row, name) or error_.new("fleet", ("the run \"%s\" is %s: it can't be %s"):format(name,
    row.status, word))
end

local function pause(fleet, session, report, name)
  local row, err = fleet:pause(session, name, by "paused")
  if not row then
    return nil, err or why_not(fleet, session, name, "paused")
  end
  report:print(("%s: paused; what runs now is finished, `moonbird run resume %s` goes on"):format(name, name))
  return { run = name, status = "paused" }
end

local function resume(fleet, session, report, name)
  local row, err = fleet:resume(session, name)
  if not row or not row.again then
    return nil, err or why_not(fleet, session, name, "resumed")
  end
  report:print(("%s: running%s"):format(name, row.again > 0 and (", %s once more"):format(
    text.count(row.again, "failed tenant")) or ""))
  report:print("workers that still wait go on; else start some: the same command with --fleet " .. name)
  return { run = name, status = "running", again = row.again }
end

local function cancel(fleet, session, report, name)
  local row, err = fleet:cancel(session, name, by "cancelled")
  if not row then
    return nil, err or why_not(fleet, session, name, "cancelled")
  end
  report:print(("%s: cancelled; what runs now is finished"):format(name))
  return { run = name, status = "cancelled" }
end

local ACTIONS = { list = list, show = show, pause = pause, resume = resume, cancel = cancel }

--- Looks at runs, and steers them.
---@param args table script: the word; script_args: the run
---@param report moonbird.reporter
---@param conf moonbird.config
---@return table|nil
---@return moonbird.error? err
function M.run(args, report, conf)
  local word, name = args.script, args.script_args[1]
  if (word == "list") == (name ~= nil) or #args.script_args > 1 then
    return nil, error_.new("usage", word == "list" and "run list takes no argument"
      or ("run %s wants the name of one run"):format(word), { hint = "see `moonbird run list`" })
  end
  local settings, err = settings_of.read(conf)
  local control = args.control or settings and settings.control
  if err then
    return nil, err
  elseif control then
    args.url = control
    conf, err = project.config(args)
    if not conf then
      return nil, err
    end
  end
  return project.with_target(args, report, { config = conf }, function(run, target)
    return ACTIONS[word](fleet_of.new(run.journal.schema), target.session, report, name)
  end)
end

return M
