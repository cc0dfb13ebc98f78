--- up --dry-run where there are tenants.
local apply = require "moonbird.exec.apply"
local context_of = require "moonbird.exec.tenants.context"
local error_ = require "moonbird.core.error"
local json = require "moonbird.core.json"
local rehearse = require "moonbird.exec.tenants.rehearse"
local settings_of = require "moonbird.tenants.settings"
local tenants = require "moonbird.cli.tenants.common"
local tenants_report = require "moonbird.report.tenants"
local text = require "moonbird.util.text"
local up = require "moonbird.cli.command.up"

local M = {}

local function names_of(list)
  local names = json.array {}
  for i, tenant in ipairs(list) do
    names[i] = tenant.name
  end
  return names
end

--- Rehearses what is pending, on the global target and on the first tenant of each group that lacks the same.
---@param args table
---@param report moonbird.reporter
---@param run moonbird.run
---@param target moonbird.target
---@param entries table[]
---@param gate moonbird.gate
---@return table|nil
---@return moonbird.error? err
function M.run(args, report, run, target, entries, gate)
  local settings, err = settings_of.read(run.config)
  local options
  if settings then
    options, err = tenants.rollout(args)
  end
  if not options then
    return nil, err
  end
  local told = tenants_report.new(report)
  options.allow, options.allow_out_of_order, options.every_state = gate.allow, args.allow_out_of_order, true
  options.report, options.gate, options.backfills = told, gate, args.backfills
  local context = context_of.new(run, target, entries, options)
  local closing <close> = context_of.closing(context) -- luacheck: ignore
  local result
  result, err = rehearse.run(context, settings)
  if not result then
    return nil, err
  end
  apply.tell_held(run, context)
  told:groups_told(context)
  result.held = up.held_data(target)
  result.tenants = { total = #context.survey.tenants, failed = #context.failures,
    failures = tenants_report.groups_data(context), pinned = names_of(context.pinned), ahead = names_of(context.ahead) }
  if not err and #context.failures > 0 then
    err = error_.new("tenants", ("%s would fail"):format(text.count(#context.failures, "tenant")),
      { hint = "this was a dry run; nothing was changed" })
  end
  return result, err or context_of.failure(context)
end

return M
