--- moonbird redo: down, then up again, the same migrations.
local apply = require "moonbird.exec.apply"
local error_ = require "moonbird.core.error"
local plan = require "moonbird.plan.plan"
local project = require "moonbird.cli.project"
local registry = require "moonbird.migration.registry"
local tenants = require "moonbird.cli.tenants.common"
local up = require "moonbird.cli.command.up"

local M = {}

--- Why the way back up would be refused: asked before anything is taken back -> err, and the versions that were asked
--- for.
local function refuse(target, entries, steps, gate)
  local comparison = plan.compare(entries, target.state)
  local redone, files = {}, {}
  for _, item in ipairs(plan.select_down(comparison, { steps = steps })) do
    redone[item.row.version] = true
    files[#files + 1] = item.entry
  end
  local migrations, err = registry.load_all(files)
  if not migrations then
    return err, redone
  end
  local _, held = plan.hold_back(migrations, { allow = gate.allow })
  if held[1] then
    return error_.new("policy", ("%s is %s: it would not be applied again"):format(held[1].migration.id,
      held[1].reason), { migration = held[1].migration.id, file = held[1].migration.file,
        hint = "say so with " .. held[1].flags }), redone
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
  return err, redone
end

--- A gate that lets nothing be taken back but what was looked at: when the history moves meanwhile the way down is
--- planned anew, and its newest may be what is not applied again, such as a contract.
local function only_vetted(gate, redone, applied)
  local guard = setmetatable({}, { __index = gate })
  function guard.before(self, target, steps, entries)
    for _, step in ipairs(steps) do
      local migration = step.migration
      if step.direction == "down" and not redone[migration.version] then
        return error_.new("history_moved", applied[migration.version]
          and "another run has taken back meanwhile what was to be done again"
          or ("another run applied %s meanwhile, which is the newest now"):format(migration.id),
          { hint = "look at `moonbird status` before you run it again" })
      end
    end
    return gate.before(self, target, steps, entries)
  end
  return guard
end

--- What a redo that ended early leaves undone, told with the error: running it again would take back what is below.
local function leave_word(err, args, down, again)
  local back, missing = {}, {}
  for _, item in ipairs(again) do
    back[item.step.migration.version] = true
  end
  for _, item in ipairs(down) do
    local migration = item.step.migration
    missing[#missing + 1] = not back[migration.version] and migration.id or nil
  end
  if not missing[1] then
    return err
  end
  local flags = (args.allow_contract and " --allow-contract" or "")
    .. (args.allow_breaking and " --allow-breaking" or "")
  err.hint = ("%s%s %s taken back and not applied again: `moonbird up%s` applies %s again"):format(
    err.hint and err.hint .. "; " or "", table.concat(missing, ", "), #missing == 1 and "is" or "are", flags,
    #missing == 1 and "it" or "them")
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
    local refusal, redone = refuse(target, entries, args.steps or 1, gate)
    if refusal then
      return nil, refusal
    end
    run.gate = only_vetted(gate, redone, target.state.applied)
    local down, failure, so_far = apply.run(target, entries, "down", { steps = args.steps or 1 })
    if not down then
      return { target = target.name, run = run.id, steps = up.done_data(so_far) },
        leave_word(failure, args, so_far, {})
    end
    -- Only what was taken back: other pending migrations stay pending.
    local only = {}
    for _, item in ipairs(down) do
      only[item.step.migration.version] = true
    end
    local ok
    ok, failure = target:refresh()
    if not ok then
      return nil, leave_word(failure, args, down, {})
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
    return { target = target.name, run = run.id, steps = steps },
      failure and leave_word(failure, args, down, again or so_far)
  end)
end

return M
