--- moonbird ci: proves all migrations on an empty database: checked, rehearsed, applied, taken back, applied again.
local artifact_of = require "moonbird.exec.artifact"
local checking = require "moonbird.cli.checking"
local clean = require "moonbird.report.clean"
local duration = require "moonbird.util.duration"
local error_ = require "moonbird.core.error"
local failure = require "moonbird.report.failure"
local findings_of = require "moonbird.report.findings"
local git = require "moonbird.policy.git"
local json = require "moonbird.core.json"
local project = require "moonbird.cli.project"
local prover = require "moonbird.exec.ci"
local registry = require "moonbird.migration.registry"
local sys = require "moonbird.core.sys"
local text = require "moonbird.util.text"

local M = {}

local NAMES = 5 -- of migrations, in one line
local WIDTH = 14 -- of a stage's name

local function now()
  return math.floor(sys.monotonic() * 1000 + 0.5)
end

-- What is told --------------------------------------------------------------------------------------------------

local function listed(items)
  local names = {}
  for i = 1, math.min(#items, NAMES) do
    names[i] = type(items[i]) == "table" and items[i].id or items[i]
  end
  return table.concat(names, ", ") .. (#items > NAMES and (" and %d more"):format(#items - NAMES) or "")
end

local SUMMARIES = {
  apply = function(stage)
    local said = { ("%s applied"):format(text.count(stage.applied, "migration")) }
    said[#said + 1] = stage.contract > 0 and ("%d of them contract"):format(stage.contract) or nil
    said[#said + 1] = ("%d rehearsed before (expand dry-run)"):format(stage.rehearsed)
    said[#said + 1] = stage.not_tried and ("%d not tried"):format(stage.not_tried) or nil
    return table.concat(said, ", ")
  end,
  undo = function(stage)
    return ("%s taken back and applied again"):format(text.count(stage.undone, "migration"))
  end,
  ["second apply"] = function()
    return "nothing to do"
  end,
  status = function(stage)
    return ("%d applied, %d pending, the journal's hash chain %s"):format(stage.applied, stage.pending,
      stage.chain and "is whole" or "is broken")
  end,
}

local function difference_line(item)
  local function short(definition)
    local line = clean.line((definition:gsub("%s+", " ")))
    return #line > 120 and line:sub(1, (utf8.offset(line, 0, 118) or 118) - 1) .. "..." or line
  end
  local key = clean.line(item.key)
  if not item.before then
    return ("%s: it was not there before%s"):format(key, item.after ~= "" and " (" .. short(item.after) .. ")" or "")
  elseif not item.after then
    return ("%s: it is gone%s"):format(key, item.before ~= "" and " (" .. short(item.before) .. ")" or "")
  end
  return ("%s: it was \"%s\", it is \"%s\""):format(key, short(item.before), short(item.after))
end

local function indented(block, by)
  return (block:gsub("\n+$", ""):gsub("[^\n]+", by .. "%0")) .. "\n"
end

--- Shows a stage; failures also with --quiet.
local function tell(args, report, stage)
  local out = report.out
  local github = args.github and require "moonbird.report.github"
  local function write(said)
    if github then -- a server's words must not be taken for commands
      said = github.shield(said):gsub("%f[^\n\0](%s*)::", "%1| ::")
    end
    report:write(said)
  end
  local mark = stage.skipped and out.yellow "-" or stage.ok and out.green "✓" or out.red "✗"
  local said = stage.summary or stage.skipped and "skipped: " .. stage.skipped
    or not stage.ok and stage.name == "second apply" and "something to do" or SUMMARIES[stage.name](stage)
  local line = ("%s %s%s%s  %s"):format(mark, stage.name, (" "):rep(WIDTH - #stage.name), said,
    out.dim(duration.format(stage.duration_ms)))
  if stage.ok or stage.skipped then
    report:print(line)
  else
    write(line .. "\n")
  end
  if stage.not_rehearsed and #stage.not_rehearsed > 0 then
    report:print(("    %s%s"):format(out.yellow "not rehearsed, without a transaction: ", listed(stage.not_rehearsed)))
  end
  if stage.irreversible and #stage.irreversible > 0 then
    report:print(("    %s%s"):format(out.yellow(("%d without a way back: "):format(#stage.irreversible)),
      listed(stage.irreversible)))
  end
  for _, problem in ipairs(stage.problems) do
    write(("    %s%s\n"):format(problem.migration and out.bold(problem.migration) .. ": " or "",
      clean.line(problem.message)))
    if problem.cause_ then
      write(indented(clean.visible(failure.text(problem.cause_, out)), "      "))
    end
    for _, item in ipairs(problem.differences or {}) do
      write("      " .. difference_line(item) .. "\n")
    end
    if problem.more then
      write(("      and %d more\n"):format(problem.more))
    end
  end
end

--- A stage as data.
local function stage_data(stage)
  local data = {}
  for key, value in pairs(stage) do
    data[key] = value
  end
  data.summary, data.spent_, data.problems = nil, nil, json.array {}
  for i, problem in ipairs(stage.problems) do
    local copy = {}
    for key, value in pairs(problem) do
      copy[key] = key ~= "cause_" and value or nil
    end
    data.problems[i] = copy
  end
  return data
end

-- Policy --------------------------------------------------------------------------------------------------------

local function policy_stage(outcome, took)
  local counts = findings_of.count(outcome)
  return { name = "policy", ok = counts.errors == 0, duration_ms = took, summary = findings_of.summary(outcome),
    migrations = outcome.checked, errors = counts.errors, warnings = counts.warnings, notes = counts.notes,
    waived = counts.waived, problems = json.array {} }
end

local function key_of(item)
  return table.concat({ item.rule or "", item.file or "", tostring(item.line), item.message or "" }, "\0")
end

--- Adds what the rules found while the migrations ran, with the journal and the database at hand.
local function add_seen(outcome, seen)
  local known, used, ran = {}, {}, {}
  for _, finding in ipairs(outcome.findings) do
    known[key_of(finding)] = true
  end
  for _, finding in ipairs(seen.findings) do
    if not known[key_of(finding)] then
      known[key_of(finding)] = true
      table.insert(outcome.findings, finding)
    end
  end
  -- A waiver of what shows only there is not unused, and what was looked at there is not unchecked.
  for _, item in ipairs(seen.waivers) do
    used[(item.file or "") .. "\0" .. tostring(item.line)] = item.state == "used" or nil
  end
  for _, item in ipairs(outcome.waivers) do
    if item.state == "unused" and used[(item.file or "") .. "\0" .. tostring(item.line)] then
      item.state = "used"
    end
  end
  for i = #outcome.findings, 1, -1 do
    local finding = outcome.findings[i]
    if finding.rule == "waiver" and finding.severity == "warning"
      and used[(finding.file or "") .. "\0" .. tostring(finding.line)] then
      table.remove(outcome.findings, i)
    end
  end
  for _, need in ipairs { "history", "live", "step" } do
    ran[need] = true
  end
  for _, entry in ipairs(seen.unchecked) do
    ran[entry.rule .. " " .. entry.needs] = false
  end
  for i = #outcome.unchecked, 1, -1 do
    local entry = outcome.unchecked[i]
    if ran[entry.needs] and ran[entry.rule .. " " .. entry.needs] ~= false then
      table.remove(outcome.unchecked, i)
    end
  end
  table.sort(outcome.findings, function(a, b)
    if (a.file or "") ~= (b.file or "") then
      return (a.file or "") < (b.file or "")
    elseif (a.line or 0) ~= (b.line or 0) then
      return (a.line or 0) < (b.line or 0)
    end
    return key_of(a) < key_of(b)
  end)
  outcome.complete = nil -- excerpts and fingerprints are made anew
  outcome.errors = findings_of.count(outcome).errors
end

--- The policy over the files again, with what the functions were seen to do.
local function judged(args, conf, report, proof)
  local outcome, err = checking.run { args = args, conf = conf, report = report, moment = "check",
    recorded = proof.recorded }
  if not outcome then
    return nil, err
  end
  add_seen(outcome, proof.gate:outcome())
  return outcome
end

-- The command ---------------------------------------------------------------------------------------------------

local function merged_files(args, conf)
  if not args.base then
    return nil
  end
  local facts, err = git.read { dir = conf.dir, folders = conf.migrations, base = args.base }
  return facts and facts.merged, err
end

local function prove(args, report, conf, state)
  local merged, err = merged_files(args, conf)
  if err then
    return nil, err
  end
  return project.with_target(args, report, { config = conf, files = true }, function(run, target, entries)
    local refused = prover.refusal(target)
    if refused then
      return nil, refused
    end
    local migrations
    migrations, err = registry.load_all(entries)
    if not migrations then
      return nil, err
    end
    if state.artifact then
      state.artifact:where(conf, run, target.session:parameter("server_version"))
    end
    return prover.prove(target, entries, { config = conf, order = prover.order(migrations, merged),
      undo = not args.no_undo, told = function(stage)
        state.stages[#state.stages + 1] = stage
        tell(args, report, stage)
      end })
  end)
end

--- The error that the stages make: those of migrations come before those of the policy.
local function verdict(stages, outcome)
  local failed, problems = {}, {}
  for _, stage in ipairs(stages) do
    if not stage.ok and not stage.skipped and stage.name ~= "policy" then
      failed[#failed + 1] = stage.name
      for _, problem in ipairs(stage.problems) do
        problems[#problems + 1] = { file = problem.file, message = ("%s%s"):format(problem.message,
          problem.error and ": " .. clean.line(problem.error.message) or "") }
      end
    end
  end
  if #failed > 0 then
    return error_.new("migration", ("not proved: %s in %s"):format(text.count(#problems, "problem"),
      table.concat(failed, ", ")), { problems = problems })
  end
  return checking.error(outcome)
end

local function last_line(stages, took)
  local by_name = {}
  for _, stage in ipairs(stages) do
    by_name[stage.name] = stage
  end
  local undo, applied = by_name.undo, by_name.apply.applied
  local said = undo.skipped and ("ci: %s checked and applied, not taken back"):format(text.count(applied, "migration"))
    or undo.undone == applied
    and ("ci: %s checked, applied, taken back and applied again"):format(text.count(applied, "migration"))
    or ("ci: %s checked and applied, %d taken back and applied again"):format(text.count(applied, "migration"),
      undo.undone)
  return ("%s in %s"):format(said, duration.format(took))
end

local function ci(args, report, state)
  local conf, err = project.config(setmetatable({ url = args.url or "embedded:?temp" }, { __index = args }))
  if not conf then
    return nil, err
  end
  conf.plain_role = not args.superuser
  local started = now()
  local outcome
  outcome, err = checking.run { args = args, conf = conf, report = report, moment = "check" }
  if not outcome then
    return nil, err
  end
  local policy = policy_stage(outcome, now() - started)
  state.stages[1], state.outcome = policy, outcome
  tell(args, report, policy)
  local proof
  proof, err = prove(args, report, conf, state)
  if not proof then
    return nil, err
  end
  local judging = now()
  outcome, err = judged(args, conf, report, proof)
  if not outcome then
    return nil, err
  end
  local final = policy_stage(outcome, policy.duration_ms + now() - judging)
  final.recorded = next(proof.recorded) ~= nil
  if final.summary ~= policy.summary then
    final.summary = "with what was seen in the run: " .. final.summary
    tell(args, report, final)
  end
  state.stages[1], state.outcome = final, outcome
  err = verdict(state.stages, outcome)
  if not err then
    state.last = last_line(state.stages, now() - started)
  end
  return true, err
end

--- Whether the policy's own summary would only repeat its stage.
local function says_nothing(outcome)
  local counts = findings_of.count(outcome)
  return counts.errors + counts.warnings + counts.notes + #outcome.opaque + #outcome.unchecked == 0
end

local function inputs_of(args)
  return { command = "ci", environment = args.env, base = args.base, url_given = args.url ~= nil,
    no_undo = args.no_undo or false }
end

--- Proves the migrations.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err "policy" when only the policy failed
function M.run(args, report)
  local entered, err = project.enter(args)
  if not entered then
    return nil, err
  end
  local state = { stages = {} }
  if args.artifact then
    state.artifact, err = artifact_of.new(args.artifact, report, inputs_of(args))
    if not state.artifact then
      checking.write(args, report, checking.broken(err))
      return nil, err
    end
  end
  local ok, _, failed = xpcall(ci, function(raised)
    local caught = error_.from(raised, type(raised) == "string" and "internal" or nil)
    caught.traceback = caught.traceback or debug.traceback(nil, 2)
    return caught
  end, args, report, state)
  if not ok then
    failed = _
  end
  local result = { stages = json.array {} }
  for i, stage in ipairs(state.stages) do
    result.stages[i] = stage_data(stage)
  end
  local outcome = state.outcome or checking.broken(failed)
  if state.outcome then
    result.policy = checking.data(outcome)
  end
  if failed and failed.code ~= "policy" then
    if state.outcome and #outcome.findings > 0 then
      report:write(findings_of.text(outcome, report.out, args.verbose > 0))
    end
    local said = { tostring(failed) }
    for _, problem in ipairs(failed.problems or {}) do
      said[#said + 1] = ("%s%s"):format(problem.file and problem.file .. ": " or "", problem.message)
    end
    outcome.failure = { message = table.concat(said, "\n") } -- the files that CI systems read say it too
  end
  local shown = setmetatable({ quiet = args.quiet or says_nothing(outcome) }, { __index = args })
  local written, unwritten = checking.write(shown, report, outcome)
  if not written and failed then
    report:log("error", unwritten.message)
  end
  failed = failed or unwritten
  if not failed then
    report:print(state.last)
  end
  if state.artifact then
    err = state.artifact:conclude(result, failed)
    failed = failed or err
  end
  return result, failed
end

return M
