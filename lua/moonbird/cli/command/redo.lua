--- moonbird redo: down, then up again, the same migrations.
local apply = require "moonbird.exec.apply"
local error_ = require "moonbird.core.error"
local plan = require "moonbird.plan.plan"
local project = require "moonbird.cli.project"
local registry = require "moonbird.migration.registry"
local tenants = require "moonbird.cli.tenants.common"
local up = require "moonbird.cli.command.up"

local M = {}

--- Why the way back up would be refused: asked before anything is taken back.
local function refuse(target, entries, steps, gate)
  local comparison = plan.compare(entries, target.state)
  local redone, files = {}, {}
  for _, item in ipairs(plan.select_down(comparison, { steps = steps })) do
    redone[item.row.version] = true
    files[#files + 1] = item.entry
  end
  local migrations, err = registry.load_all(files)
  if not migrations then
    return err
  end
  local _, held = plan.hold_back(migrations, { allow = gate.allow })
  if held[1] then
    return error_.new("policy", ("%s is %s: it would not be applied again"):format(held[1].migration.id,
      held[1].reason), { migration = held[1].migration.id, file = held[1].migration.file,
        hint = "say so with " .. held[1].flags })
  end
  local others = {}
  for _, item in ipairs(comparison.changed) do
    others[#others + 1] = not redone[item.row.version] and item or nil
  end
  comparison.changed = others
  err = plan.refusal(comparison, { allow_out_of_order = true })
  if not err and #migrations > 0 then
    err = gate:before(target, plan.steps(migrations, "up", target.name, target.head), entries)
  end
  return err
end

--- Takes back and applies again.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  local conf, settings, gate, err = tenants.gated(args)
  if err then
    return nil, err
  elseif settings then
    return require("moonbird.cli.tenants.down").run(args, report, conf, settings, gate, true)
  end
  return project.with_target(args, report, { config = conf, files = true }, function(run, target, entries)
    run.gate = gate
    local refusal = refuse(target, entries, args.steps or 1, gate)
    if refusal then
      return nil, refusal
    end
    local down, failure, so_far = apply.run(target, entries, "down", { steps = args.steps or 1 })
    if not down then
      return { target = target.name, run = run.id, steps = up.done_data(so_far) }, failure
    end
    -- Only what was taken back: other pending migrations stay pending.
    local only = {}
    for _, item in ipairs(down) do
      only[item.step.migration.version] = true
    end
    local ok
    ok, failure = target:refresh()
    if not ok then
      return nil, failure
    end
    local again
    again, failure, so_far = apply.run(target, entries, "up", { only = only, allow_out_of_order = true,
      allow = gate.allow })
    local steps = up.done_data(down)
    for _, step in ipairs(up.done_data(again or so_far)) do
      steps[#steps + 1] = step
    end
    if #down == 0 then
      report:print("nothing to redo: no migration is applied")
    end
    return { target = target.name, run = run.id, steps = steps }, failure
  end)
end

return M
