--- What the commands share where there are tenants: their settings, the chosen ones, where these stand.
local error_ = require "moonbird.core.error"
local overview_of = require "moonbird.exec.tenants.overview"
local project = require "moonbird.cli.project"
local settings_of = require "moonbird.tenants.settings"
local standby = require "moonbird.exec.standby"
local survey_of = require "moonbird.exec.tenants.survey"
local up = require "moonbird.cli.command.up"
local without_tenants = require "moonbird.cli.without_tenants"

local M = {}

--- Whether only some tenants are meant, and so the global target is not.
---@param args table
---@return boolean
function M.some(args)
  return (args.tenant ~= nil and #args.tenant > 0) or (args.exclude ~= nil and #args.exclude > 0)
end

--- The tenants' settings.
---@param conf moonbird.config
---@param args table
---@param needed? boolean the command is about tenants
---@return moonbird.tenants.settings? settings nil without err: there are no tenants
---@return moonbird.error? err
function M.settings(conf, args, needed)
  if conf.tenants == nil then
    return nil, needed and without_tenants.error() or without_tenants.refusal(conf, args)
  end
  return settings_of.read(conf)
end

--- The configuration and the tenants' settings of it.
---@param args table
---@param needed? boolean the command is about tenants
---@return moonbird.config?
---@return moonbird.tenants.settings? settings nil without err: there are no tenants
---@return moonbird.error? err
function M.configured(args, needed)
  local conf, err = project.config(args)
  if not conf then
    return nil, nil, err
  end
  local settings
  settings, err = M.settings(conf, args, needed)
  return conf, settings, err
end

--- The same with the policy's gate, for a command that changes a database.
---@param args table
---@param needed? boolean the command is about tenants
---@return moonbird.config?
---@return moonbird.tenants.settings? settings nil without err: there are no tenants
---@return moonbird.gate?
---@return moonbird.error? err
function M.gated(args, needed)
  local conf, gate, err = up.gate(args)
  if not gate then
    return nil, nil, nil, err
  end
  local settings
  settings, err = M.settings(conf, args, needed)
  return conf, settings, gate, err
end

--- The opening of a command that is about tenants and changes no schema: runs `work` on the global target.
---@param args table
---@param report moonbird.reporter
---@param files boolean scan the migrations and hand them over
---@param work fun(run: moonbird.run, target: moonbird.target, settings: moonbird.tenants.settings, entries?: table[]):
---       table|nil, moonbird.error|nil
---@return table|nil
---@return moonbird.error? err
function M.with_target(args, report, files, work)
  local conf, settings, err = M.configured(args, true)
  if err then
    return nil, err
  end
  return project.with_target(args, report, { config = conf, files = files }, function(run, target, entries)
    return work(run, target, settings, entries)
  end)
end

--- Opens a survey of the chosen tenants, hands it to `work(survey)`, closes it.
---@param args table tenant, exclude
---@param run moonbird.run
---@param target moonbird.target
---@param settings moonbird.tenants.settings
---@param options table|nil further options of survey.open
---@param work fun(survey: moonbird.tenants.survey): table|nil, moonbird.error|nil
---@return table|nil
---@return moonbird.error? err
function M.with_survey(args, run, target, settings, options, work)
  local picked = { session = target.session, tenant = args.tenant, exclude = args.exclude }
  for key, value in pairs(options or {}) do
    picked[key] = value
  end
  local survey, err = survey_of.open(run, settings, picked)
  if not survey then
    return nil, err
  end
  local closing <close> = setmetatable({}, { __close = function() -- luacheck: ignore
    survey:close()
  end })
  return work(survey)
end

--- Makes sure that the journal is there, for commands that write to it.
---@param run moonbird.run
---@param target moonbird.target the global one
---@return true|nil
---@return moonbird.error? err
function M.ensure_journal(run, target)
  local err = standby.refusal(target.session, run.params)
  if err then
    return nil, err
  end
  return require("moonbird.exec.bootstrap").ensure(target, { left = run.lock_wait })
end

--- What the policy lets an `up` of this configuration do.
---@param conf moonbird.config
---@param args table
---@return { contract: boolean, breaking: boolean }
function M.allow(conf, args)
  local raw = conf.policy or {}
  return { contract = args.allow_contract or raw.allow_contract == true,
    breaking = args.allow_breaking or raw.allow_breaking == true }
end

--- Shares of tenants as --canary says them.
---@param values? string[]
---@return table[]?
function M.shares(values)
  if not values or #values == 0 then
    return nil
  end
  local list = {}
  for i, value in ipairs(values) do
    list[i] = settings_of.share(value) or { name = value }
  end
  return list
end

--- The options of a run over tenants, from the command line.
---@param args table
---@return moonbird.tenants.options?
---@return moonbird.error? err
function M.rollout(args)
  local max_failures = args.max_failures and settings_of.share(args.max_failures)
  if args.max_failures and not max_failures then
    return nil, error_.new("usage", ("--max-failures wants a number or a percentage, not \"%s\"")
      :format(args.max_failures))
  end
  return { to = args.to, steps = args.steps, tenant = args.tenant, exclude = args.exclude, shard = args.shard,
    jobs = args.jobs, canary = M.shares(args.canary), max_failures = max_failures, keep_going = args.keep_going }
end

--- Reads the states of the chosen tenants, and tells their files from the global ones.
---@param survey moonbird.tenants.survey
---@param target moonbird.target
---@param entries table[]
---@return table[]? global
---@return table[]|moonbird.error own those of tenants, or what went wrong
function M.read(survey, target, entries)
  local ok, err = overview_of.read(survey)
  if not ok then
    return nil, err
  end
  return survey:split(entries, target.state)
end

--- Where the chosen tenants stand.
---@param survey moonbird.tenants.survey
---@param target moonbird.target
---@param entries table[]
---@param allow table
---@return moonbird.tenants.overview?
---@return table[]|moonbird.error global the global entries, or what went wrong
---@return table[]? own those of tenants
function M.overview(survey, target, entries, allow)
  local global, own = M.read(survey, target, entries)
  if not global then
    return nil, own
  end
  return overview_of.make(survey, own, { allow = allow, entries = entries }), global, own
end

return M
