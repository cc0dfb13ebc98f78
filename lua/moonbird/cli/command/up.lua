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

--- Runs or rehearses one direction.
---@param args table
---@param report moonbird.reporter
---@param direction "up"|"down"
---@return table|nil result
---@return moonbird.error? err
function M.go(args, report, direction)
  local options = { to = args.to, steps = args.steps, allow_out_of_order = args.allow_out_of_order }
  local function idle(run, target)
    report:print("nothing to do: the database is up to date")
    return { target = target.name, run = run.id, steps = json.array {} }
  end
  return project.with_target(args, report, {
    files = true,
    idle = direction == "up" and not args.dry_run and not args.to and idle or nil,
  }, function(run, target, entries)
    if args.dry_run then
      return require("moonbird.exec.rehearse").run(target, entries, direction, options)
    end
    local started = task.now()
    local done, failure, so_far = require("moonbird.exec.apply").run(target, entries, direction, options)
    local result = { target = target.name, run = run.id, steps = M.done_data(so_far or done) }
    if not done then
      return result, failure
    end
    if #done == 0 then
      report:print(direction == "up" and "nothing to do: the database is up to date"
        or next(target.state.applied) and "nothing to take back"
        or "nothing to take back: no migration is applied")
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
