--- moonbird deploy: what a pipeline runs before a release. Waits for the server, holds every rule against what
-- is true there, applies what is expand, and sees that nothing is left; anything else ends it with an error.
local apply = require "moonbird.exec.apply"
local artifact_of = require "moonbird.exec.artifact"
local await = require "moonbird.exec.await"
local checking = require "moonbird.cli.checking"
local duration = require "moonbird.util.duration"
local error_ = require "moonbird.core.error"
local plan = require "moonbird.plan.plan"
local project = require "moonbird.cli.project"
local task = require "moonbird.core.task"
local text = require "moonbird.util.text"
local up = require "moonbird.cli.command.up"

local M = {}

local WAIT_MS = 60000

--- Nothing that should be there may be missing, and nothing changed.
local function verify(target, entries, to)
  local ok, err = target:refresh()
  if not ok then
    return nil, err
  end
  local comparison = plan.compare(entries, target.state)
  local held = {}
  for _, item in ipairs(target.held or {}) do
    held[item.migration.version] = true
  end
  local left = {}
  for _, entry in ipairs(comparison.pending) do
    if not held[entry.version] and not (to and entry.version > to) then
      left[#left + 1] = { file = entry.file, message = entry.id .. " is still pending" }
    end
  end
  for _, item in ipairs(comparison.changed) do
    left[#left + 1] = { file = item.entry.file, message = item.entry.id .. " was changed after it was applied" }
  end
  if #left > 0 then
    return nil, error_.new("pending", "the database is not where the files want it", { problems = left,
      hint = "another runner at work? `moonbird status` tells" })
  end
  return { applied = #comparison.applied, pending = #comparison.pending, missing = #comparison.missing }
end

local function work(args, report, artifact, conf, gate)
  return function(run, target, entries)
    run.gate = gate
    run.backfill = require("moonbird.exec.backfill.control").settings({ restart = args.restart, adopt = args.adopt,
      observer = require("moonbird.report.backfill").new(report, require "moonbird.exec.backfill.quiet") })
    if artifact then
      artifact:where(conf, run, target.session:parameter("server_version"))
    end
    if conf.tenants then
      return require("moonbird.cli.fleet").up(args, report, run, target, entries, gate)
    end
    local started = task.now()
    local done, err, so_far = apply.run(target, entries, "up", { to = args.to, allow = gate.allow,
      backfills = args.backfills or function(migration)
        return require("moonbird.exec.backfill.run").small(target, migration)
      end })
    local result = { target = target.name, run = run.id, steps = up.done_data(so_far or done or {}),
      held = up.held_data(target) }
    if not done then
      return result, err
    end
    result.status, err = verify(target, entries, args.to)
    if err then
      return result, err
    end
    report:print(("deployed: %s applied in %s, %d held back"):format(text.count(#done, "migration"),
      duration.format(task.now() - started), #result.held))
    return result
  end
end

local function deploy(args, report, artifact)
  local conf, gate, err, refused = up.gate(args)
  if conf and artifact then
    artifact:where(conf)
  end
  if not gate then
    return nil, err, refused
  end
  args.gate = gate
  if conf.url.kind ~= "embedded" then
    local bound = conf.timeouts.run and conf.timeouts.run > 0 and conf.timeouts.run or nil
    local wait = args.wait == 0 and math.huge or args.wait or WAIT_MS -- 0 is no limit, as everywhere
    local limit = math.min(wait, bound or math.huge)
    local waited
    waited, err = await.server(conf.url.params, limit, report)
    if not waited then
      return nil, err
    end
    if bound then
      conf.timeouts.run = math.max(1, bound - waited) -- the bound is on all of it
    end
  end
  return project.with_target(args, report, { config = conf, files = true },
    work(args, report, artifact, conf, gate))
end

local function inputs_of(args)
  return { command = "deploy", environment = args.env, allow_contract = args.allow_contract or false,
    allow_breaking = args.allow_breaking or false, emergency = args.emergency, to = args.to,
    url_given = args.url ~= nil, timeout_ms = args.timeout, lock_timeout_ms = args.lock_timeout,
    lock_wait_ms = args.lock_wait, statement_timeout_ms = args.statement_timeout, wait_ms = args.wait }
end

--- Deploys.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  local entered, err = project.enter(args)
  if not entered then
    return nil, err
  end
  local artifact
  if args.artifact then
    artifact, err = artifact_of.new(args.artifact, report, inputs_of(args))
    if not artifact then
      checking.write(args, report, checking.broken(err))
      return nil, err
    end
  end
  local ok, result, failed, outcome = xpcall(deploy, function(raised)
    local caught = error_.from(raised, type(raised) == "string" and "internal" or nil)
    caught.traceback = caught.traceback or debug.traceback(nil, 2)
    return caught
  end, args, artifact or report, artifact)
  if not ok then
    result, failed = nil, result
  end
  outcome = outcome or args.gate and args.gate:outcome()
  if not outcome or failed and outcome.checked == 0 and #outcome.findings == 0 then
    outcome = checking.broken(failed) -- nothing was looked at: not the same as nothing found
  end
  result = result or {}
  result.policy = checking.data(outcome)
  if artifact then
    artifact.data.policy = result.policy
  end
  local _, unwritten = checking.write(args, report, outcome)
  failed = failed or unwritten
  if artifact then
    local why = artifact:conclude(result, failed)
    failed = failed or why
  end
  return result, failed
end

return M
