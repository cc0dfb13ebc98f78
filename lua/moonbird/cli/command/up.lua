--- up, and what down and redo share with it: run steps, tell what was done.
local duration = require "moonbird.util.duration"
local json = require "moonbird.core.json"
local project = require "moonbird.cli.project"
local task = require "moonbird.core.task"
local text = require "moonbird.util.text"

local M = {}

--- The steps done, as data.
---@param done table[]
---@return table[]
function M.done_data(done)
  local list = json.array {}
  for i, item in ipairs(done) do
    local migration = item.step.migration
    list[i] = { version = migration.version, id = migration.id, file = migration.file,
      direction = item.step.direction, duration_ms = item.duration_ms }
  end
  return list
end

--- The configuration and the policy's gate for a command that changes a database.
---@param args table
---@return moonbird.config|nil
---@return moonbird.gate|nil
---@return moonbird.error? err
---@return moonbird.policy.outcome? outcome where the policy refused the command itself
function M.gate(args)
  local conf, err = project.config(args)
  if not conf then
    return nil, nil, err
  end
  local gate, outcome
  gate, err, outcome = require("moonbird.exec.gate").open(conf, { command = args.command, emergency = args.emergency,
    allow_contract = args.allow_contract, allow_breaking = args.allow_breaking, strict = args.command == "deploy" })
  return conf, gate, err, outcome
end

--- What a run held back, as data.
---@param target moonbird.target
---@return table[]
function M.held_data(target)
  local list = json.array {}
  for i, item in ipairs(target.held or {}) do
    list[i] = { version = item.migration.version, id = item.migration.id, file = item.migration.file,
      reason = item.reason, flags = item.flags }
  end
  return list
end

local function nothing_done(direction, target, entries)
  if direction == "down" then
    return next(target.state.applied) and "nothing to take back"
      or "nothing to take back: no migration is applied"
  elseif #(target.held or {}) > 0 then
    return "nothing else to do"
  elseif #entries == 0 and not next(target.state.applied) then
    return "nothing to do: " .. project.NO_MIGRATIONS
  end
  return "nothing to do: the database is up to date"
end

--- Runs or rehearses one direction.
---@param args table
---@param report moonbird.reporter
---@param direction "up"|"down"
---@return table|nil result
---@return moonbird.error? err
function M.go(args, report, direction)
  local conf, gate, err = M.gate(args)
  if not gate then
    return nil, err
  elseif args.fleet and (not conf.tenants or args.dry_run) then
    return nil, require("moonbird.cli.fleet_runs").refused(args)
  end
  local options = { to = args.to, steps = args.steps, allow_out_of_order = args.allow_out_of_order,
    allow = gate.allow, backfills = args.backfills }
  local function idle(run, target)
    report:print("nothing to do: the database is up to date")
    return { target = target.name, run = run.id, steps = json.array {} }
  end
  return project.with_target(args, report, {
    config = conf,
    files = true,
    idle = direction == "up" and not args.dry_run and not args.to and not conf.tenants and idle or nil,
  }, function(run, target, entries)
    run.gate = gate
    run.backfill = require("moonbird.exec.backfill.control").settings({ restart = args.restart, adopt = args.adopt,
      observer = require("moonbird.report.backfill").new(report, require "moonbird.exec.backfill.quiet") })
    if conf.tenants and direction == "up" and args.dry_run then
      return require("moonbird.cli.tenants.rehearse").run(args, report, run, target, entries, gate)
    elseif conf.tenants and direction == "up" then
      return require("moonbird.cli.fleet").up(args, report, run, target, entries, gate)
    end
    if args.dry_run then
      return require("moonbird.exec.rehearse").run(target, entries, direction, options)
    end
    local started = task.now()
    local done, failure, so_far = require("moonbird.exec.apply").run(target, entries, direction, options)
    local result = { target = target.name, run = run.id, steps = M.done_data(so_far or done),
      held = M.held_data(target) }
    if not done then
      return result, failure
    end
    if #done == 0 then
      report:print(nothing_done(direction, target, entries))
    else
      report:print(("%s %s in %s"):format(direction == "up" and "applied" or "reverted",
        text.count(#done, "migration"), duration.format(task.now() - started)))
    end
    return result
  end)
end

--- moonbird up
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  return M.go(args, report, "up")
end

return M
