--- down and redo where there are tenants.
local context_of = require "moonbird.exec.tenants.context"
local down_of = require "moonbird.exec.tenants.down"
local fleet = require "moonbird.cli.fleet"
local json = require "moonbird.core.json"
local project = require "moonbird.cli.project"
local tenants = require "moonbird.cli.tenants.common"
local tenants_report = require "moonbird.report.tenants"
local text = require "moonbird.util.text"
local up = require "moonbird.cli.command.up"

local M = {}

--- Says what would be taken back, where -> as data.
local function rehearse(report, context)
  local list = json.array {}
  for _, item in ipairs(context.stages) do
    for _, migration in ipairs(item.migrations) do
      local count = 0
      for _, tenant in ipairs(item.tenants or {}) do
        count = count + (tenant.state.applied[migration.version] and 1 or 0)
      end
      report:print(("would take back %s on %s"):format(migration.id, item.scope == "global" and "the global target"
        or text.count(count, "tenant")))
      list[#list + 1] = { version = migration.version, id = migration.id, scope = item.scope,
        tenants = item.scope == "tenant" and count or nil }
    end
  end
  if #list == 0 then
    report:print("nothing to take back")
  end
  return { plan = list }
end

--- The options of the command that does what is left. A down goes on to where this one was to end; a redo that has to
--- be made again takes as many as this one, where it only has to apply again it is an `up`.
local function words_of(args, context, redo)
  local words = fleet.words(setmetatable({ to = not redo and context.floor or nil }, { __index = args }))
  if redo and context.command ~= "up" and args.steps then
    words[#words + 1] = ("--steps %d"):format(args.steps)
  end
  return words
end

--- Takes back, or does again.
---@param args table
---@param report moonbird.reporter
---@param conf moonbird.config
---@param settings moonbird.tenants.settings
---@param gate moonbird.gate
---@param redo? boolean
---@return table|nil
---@return moonbird.error? err
function M.run(args, report, conf, settings, gate, redo)
  local options, err = tenants.rollout(args)
  if not options then
    return nil, err
  end
  return project.with_target(args, report, { config = conf, files = true }, function(run, target, entries)
    run.gate = gate
    local told = tenants_report.new(report)
    options.gate, options.allow, options.report, options.dry_run = gate, gate.allow, told, args.dry_run
    local context, failure = (redo and down_of.redo or down_of.down)(run, target, entries, settings, options)
    if failure and not context.stages then
      return nil, failure
    elseif args.dry_run and not failure then
      local result = rehearse(report, context)
      result.target, result.dry_run = target.name, true
      told:groups_told(context)
      return result, context_of.failure(context)
    end
    context.words = words_of(args, context, redo)
    if context.survey then
      if not failure and #context.stages == 0 and #context.failures == 0 then
        report:print(redo and "nothing to redo: no migration is applied" or "nothing to take back")
      else
        told:summary(context)
      end
    end
    return { target = target.name, run = run.id, steps = up.done_data(context.done),
      tenants = tenants_report.data(context) }, failure or context_of.failure(context)
  end)
end

return M
