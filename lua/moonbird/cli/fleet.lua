--- What `up` and `deploy` share where there are tenants: the options of the command line, and what is told.
local context_of = require "moonbird.exec.tenants.context"
local run_of = require "moonbird.exec.tenants.run"
local settings_of = require "moonbird.tenants.settings"
local tenants = require "moonbird.cli.tenants.common"
local tenants_report = require "moonbird.report.tenants"
local url_of = require "moonbird.config.url"

local M = {}

-- What of the command line is said again by the command that does what is left. Not: which tenants (it names
-- them), the canaries (they are done or failed), the URL (it may hold a password).
local SAID_AGAIN = { "env", "to", "allow_contract", "allow_breaking", "allow_out_of_order", "emergency", "jobs",
  "max_failures", "keep_going", "backfills", "lock_wait", "lock_timeout", "statement_timeout", "timeout", "artifact" }
local MILLISECONDS = { lock_wait = true, lock_timeout = true, statement_timeout = true, timeout = true }

local function quoted(value)
  local word = tostring(value)
  return word:find("[^%w_.,:/=@%%+-]") and "'" .. word:gsub("'", "'\\''") .. "'" or word
end

--- The options given, as words of a command line.
---@param args table
---@return string[]
function M.words(args)
  local words = { args.entered and "-C " .. quoted(args.entered) or nil }
  for _, key in ipairs(SAID_AGAIN) do
    local value = args[key]
    local option = "--" .. key:gsub("_", "-")
    if value == true then
      words[#words + 1] = option
    elseif value then
      words[#words + 1] = ("%s %s"):format(option, quoted(MILLISECONDS[key] and value .. "ms" or value))
    end
  end
  return words
end

--- The options that a process needs to join the run of this one, as words of a command line.
local function plan_words(args)
  local words = M.words(args)
  for _, key in ipairs { "tenant", "exclude" } do
    for _, value in ipairs(args[key] or {}) do
      words[#words + 1] = ("--%s %s"):format(key, quoted(value))
    end
  end
  if args.shard then
    words[#words + 1] = "--shard " .. args.shard
  end
  return words
end

--- The control database as it was given; not with a password.
local function control_word(args)
  local shown = args.control and url_of.redact(args.control) == args.control
  return shown and "--control " .. quoted(args.control) or nil
end

local function fleet_data(context)
  local fleet = context.fleet
  return fleet and { run = fleet.run, status = fleet.status, reason = fleet.reason, plan = fleet.plan,
    mine = fleet.mine, made = fleet.made } or nil
end

--- Which backfills a run does: those that `deploy` finds short, on the global target; a fleet leaves those of tenants,
--- which have to take turns, to `backfill run`.
---@param args table
---@param target moonbird.target
---@return "inline"|"skip"|"only"|fun(migration: table): boolean|nil
function M.backfills(args, target)
  if args.backfills or args.command ~= "deploy" and not args.fleet then
    return args.backfills
  end
  return function(migration)
    return migration.scope ~= "tenant"
      and (args.command ~= "deploy" or require("moonbird.exec.backfill.run").small(target, migration))
  end
end

--- Applies what is pending on the global target and its tenants.
---@param args table
---@param report moonbird.reporter
---@param run moonbird.run
---@param target moonbird.target
---@param entries table[]
---@param gate moonbird.gate
---@return table|nil
---@return moonbird.error? err
function M.up(args, report, run, target, entries, gate)
  local up = require "moonbird.cli.command.up"
  local settings, err = settings_of.read(run.config)
  if not settings then
    return nil, err
  end
  local options
  options, err = tenants.rollout(args)
  if not options then
    return nil, err
  end
  local fleet = nil
  if args.fleet then
    fleet, err = require("moonbird.cli.fleet_runs").join(args, settings)
    if not fleet then
      return nil, err
    end
  end
  local told = tenants_report.new(report)
  if args.artifact then
    told = require("moonbird.exec.artifact_tenants").new(report, told)
  end
  options.allow, options.allow_out_of_order = gate.allow, args.allow_out_of_order
  options.deploy, options.report, options.gate, options.fleet = args.command == "deploy", told, gate, fleet
  options.backfills = M.backfills(args, target)
  local context
  context, err = run_of.up(run, target, entries, settings, options)
  context.words = M.words(args)
  context.chosen = #(args.tenant or {}) > 0 or #(args.exclude or {}) > 0 or args.shard ~= nil
  if context.fleet then
    context.fleet.words, context.fleet.control = plan_words(args), control_word(args)
  end
  if context.survey then
    told:summary(context)
  end
  return { target = target.name, run = run.id, steps = up.done_data(context.done), held = up.held_data(target),
    tenants = tenants_report.data(context), fleet = fleet_data(context), status = context.status },
    err or context_of.failure(context)
end

return M
