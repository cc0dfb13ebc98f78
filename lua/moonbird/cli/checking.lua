--- What `check`, `ci`, `deploy` and `policy` share: the rules of a project, a run of them over its files, and the
-- outputs of what they found (cli/outputs.lua). What an outcome is: report/findings.lua.
local builtin = require "moonbird.policy.builtin"
local engine = require "moonbird.policy.engine"
local error_ = require "moonbird.core.error"
local findings_of = require "moonbird.report.findings"
local fs = require "moonbird.core.fs"
local git = require "moonbird.policy.git"
local ledger = require "moonbird.policy.ledger"
local outcomes = require "moonbird.cli.outcomes"
local outputs = require "moonbird.cli.outputs"
local project_rules = require "moonbird.policy.project"
local registry = require "moonbird.migration.registry"
local settings_of = require "moonbird.policy.settings"
local sys = require "moonbird.core.sys"
local text_util = require "moonbird.util.text"

local M = {}

-- What a file that can't be read is a finding of; not in the list of rules, for it can't be switched off.
M.UNREADABLE = {
  id = "unreadable", group = "registry", severity = "error", hard = true,
  title = "a migration file can be read",
  explain = "What can't be read can't be applied, and nothing is known of what it would do.",
}

--- All rules of a project, and how this environment sets them.
---@param conf moonbird.config
---@return moonbird.policy.rule[]?
---@return moonbird.policy.settings|moonbird.error settings or error
function M.rules(conf)
  local rules, taken = {}, { [M.UNREADABLE.id] = true }
  for i, rule in ipairs(builtin.rules()) do
    rules[i], taken[rule.id] = rule, true
  end
  local raw = conf.policy or {}
  local own, err = project_rules.rules(conf.dir, type(raw.dir) == "string" and raw.dir or project_rules.DIR, taken)
  if not own then
    return nil, err
  end
  table.move(own, 1, #own, #rules + 1, rules)
  local settings
  settings, err = settings_of.read(conf, rules)
  if not settings then
    return nil, err
  end
  return rules, settings
end

local function today()
  local t = sys.utc()
  return ("%04d-%02d-%02d"):format(t.year, t.month, t.day)
end

local function problem_finding(problem)
  local file = problem.file
  return { rule = M.UNREADABLE.id, group = M.UNREADABLE.group, severity = "error", hard = true,
    message = problem.message, fix = problem.hint, file = file, line = problem.line or file and 1 or nil,
    column = problem.column }
end

--- Takes every file apart. What can't be is a finding, and stays in the registry as far as its name tells.
local function load_all(entries, problems)
  local findings, migrations, known = {}, {}, {}
  for _, problem in ipairs(problems or {}) do
    findings[#findings + 1] = problem_finding(problem)
  end
  for i, entry in ipairs(entries) do
    local migration, own = registry.load(entry)
    if migration then
      migrations[#migrations + 1] = migration
    else
      for _, problem in ipairs(own) do
        local finding = problem_finding(problem)
        finding.version, finding.migration = entry.version, entry.id
        findings[#findings + 1] = finding
      end
    end
    known[i] = migration or entry
  end
  return migrations, known, findings
end

--- The scan's problems without those that the rule about versions tells better.
local function without_duplicates(problems, settings)
  local setting, list = settings.rules["version-unique"], {}
  for _, problem in ipairs(problems) do
    if not problem.duplicate or setting and setting.off then
      list[#list + 1] = problem
    end
  end
  return list
end

-- Which files -----------------------------------------------------------------------------------------------

local function plain_path(path)
  local parts = {}
  for part in path:gmatch("[^/]+") do
    if part == ".." and #parts > 0 and parts[#parts] ~= ".." then
      parts[#parts] = nil
    elseif part ~= "." then
      parts[#parts + 1] = part
    end
  end
  return (path:sub(1, 1) == "/" and "/" or "") .. table.concat(parts, "/")
end

--- The migrations that FILES name: as shown, or by any path that leads there.
---@param entries moonbird.migration.entry[]
---@param problems table[] of files that are no entries
---@param files string[]
---@return table<string, true>? shown files
---@return moonbird.error? err code "usage"
local function wanted_files(entries, problems, files)
  local by_path, by_real = {}, nil
  for _, entry in ipairs(entries) do
    by_path[plain_path(entry.file)] = entry.file
  end
  for _, problem in ipairs(problems) do
    if problem.file then
      by_path[plain_path(problem.file)] = problem.file
    end
  end
  local set = {}
  for _, file in ipairs(files) do
    local shown = by_path[plain_path(file)]
    local real = not shown and fs.realpath(file)
    if real then
      if not by_real then
        by_real = {}
        for _, entry in ipairs(entries) do
          by_real[fs.realpath(entry.path) or ""] = entry.file
        end
      end
      shown = by_real[real]
    end
    if not shown then
      return nil, error_.new("usage", ("\"%s\" is no migration of this project"):format(file), {
        hint = "FILES are migrations in the folders of moonbird.lua; without any, all are checked" })
    end
    set[shown] = true
  end
  return set
end

-- Running --------------------------------------------------------------------------------------------------------

local function filtered(list, known, wanted)
  local kept = {}
  for _, item in ipairs(list) do
    -- What is in no migration (moonbird.lua, the ledger) is everybody's.
    if not item.file or not known[item.file] or wanted[item.file] then
      kept[#kept + 1] = item
    end
  end
  return kept
end

--- The ledgers of all folders as one; nil when no folder has one. A broken one (branches that disagree, say) is a
--- problem like that of any other file.
local function read_ledgers(conf, problems)
  local all
  for _, folder in ipairs(conf.migrations) do
    local own, err = ledger.read(text_util.join_path(conf.dir, folder))
    if err and err.code ~= "migration_file" then
      return nil, err
    elseif err then
      problems[#problems + 1] = { file = err.file, line = err.line, message = err.message, hint = err.hint }
    end
    for name, checksum in pairs(own or {}) do
      all = all or {}
      all[name] = checksum
    end
    all = all or own
  end
  return all
end

local function run_facts_of(options, settings)
  return options.run_facts or { command = options.args.command, ci = false,
    allow = { contract = settings.allow_contract, breaking = settings.allow_breaking } }
end

---@class moonbird.checking.options
---@field args table base (a git ref), files
---@field conf moonbird.config
---@field report moonbird.reporter
---@field entries? moonbird.migration.entry[] as scanned; scanned here when missing
---@field problems? table[] that the scan found, with `entries`
---@field moment? string default "check"
---@field history? table
---@field live? table
---@field step? table
---@field run_facts? table what rules see as ctx.run
---@field recorded? table<integer, table> version to { up = entries, down = entries }: what Lua functions sent

--- Runs the rules over the project's files.
---@param options moonbird.checking.options
---@return moonbird.policy.outcome? outcome with `files`, `versions`, `errors` (number of unwaived ones)
---@return moonbird.error? err when the rules could not be run at all
function M.run(options)
  -- main.c stops the collector for the start; here every file makes garbage of many times its size.
  collectgarbage("restart")
  local conf, args = options.conf, options.args
  local rules, settings = M.rules(conf)
  if not rules then
    return nil, settings
  end
  local protected, err = settings_of.protected(conf)
  if err then
    return nil, err
  end
  local entries, problems = options.entries, options.problems or {}
  if not entries then
    entries, problems = registry.scan(conf.migrations, { root = conf.dir })
    if not entries then
      return nil, problems
    end
  end
  local wanted
  if args.files and #args.files > 0 then
    wanted, err = wanted_files(entries, problems, args.files)
    if not wanted then
      return nil, err
    end
  end
  local ledgers, git_facts
  problems = table.move(problems, 1, #problems, 1, {})
  ledgers, err = read_ledgers(conf, problems)
  if err then
    return nil, err
  end
  local base = args.base or (type(conf.git) == "table" and conf.git.base) or nil
  if base then
    git_facts, err = git.read { dir = conf.dir, folders = conf.migrations, base = base }
    if not git_facts then
      return nil, err
    end
  end
  local migrations, all, unreadable = load_all(entries, without_duplicates(problems, settings))
  local subjects, by_file = {}, {}
  for _, migration in ipairs(migrations) do
    migration.recorded = options.recorded and options.recorded[migration.version] or nil
    if not wanted or wanted[migration.file] then
      subjects[#subjects + 1] = migration
    end
  end
  for _, item in ipairs(all) do
    by_file[item.file] = item
  end
  local outcome = engine.run {
    rules = rules, settings = settings, migrations = subjects, registry = all, moment = options.moment or "check",
    environment = { name = conf.environment, protected = protected }, run = run_facts_of(options, settings),
    history = options.history, live = options.live, git = git_facts, ledger = ledgers, step = options.step,
    tenants = M.tenants(conf), now = today(), limits = conf.limits,
  }
  table.move(unreadable, 1, #unreadable, #outcome.findings + 1, outcome.findings)
  table.insert(outcome.rules, 1, M.UNREADABLE)
  if wanted then
    local known = {}
    for _, list in ipairs { all, problems } do
      for _, item in ipairs(list) do
        known[item.file or ""] = true
      end
    end
    outcome.findings = filtered(outcome.findings, known, wanted)
    outcome.opaque = filtered(outcome.opaque, known, wanted)
  end
  table.sort(outcome.findings, engine.in_order)
  outcome.files, outcome.versions = {}, {}
  for i, item in ipairs(all) do
    outcome.versions[i] = item.version
    if not wanted or wanted[item.file] then
      outcome.files[#outcome.files + 1] = item.file
    end
  end
  outcome.checked = #outcome.files
  return outcomes.complete(outcome, function(file)
    return by_file[file] and by_file[file].text
  end)
end

--- The tenants as rules see them; nil where there are none, or where only a database tells.
---@param conf moonbird.config
---@return { schemas: string[], key?: string }?
function M.tenants(conf)
  local raw = conf.tenants
  if type(raw) ~= "table" then
    return nil
  end
  local schemas = {}
  for _, name in ipairs(type(raw.schemas) == "table" and raw.schemas or raw) do
    schemas[#schemas + 1] = type(name) == "string" and name or nil
  end
  return { schemas = schemas, key = type(raw.key) == "string" and raw.key or nil }
end

--- An outcome that says no more than why there is none, for the outputs of a run that broke off.
---@param err moonbird.error
---@return moonbird.policy.outcome
function M.broken(err)
  return { findings = {}, unchecked = {}, opaque = {}, waivers = {}, rules = {}, files = {}, versions = {},
    checked = 0, failure = { message = tostring(err) } }
end

--- The error that stops a command; nil when nothing does.
---@param outcome moonbird.policy.outcome
---@return moonbird.error?
function M.error(outcome)
  if outcome.errors == 0 then
    return nil
  end
  local migrations, count = {}, 0
  for _, file in ipairs(outcome.files) do
    migrations[file] = true
  end
  for _, finding in ipairs(engine.errors(outcome)) do
    if migrations[finding.file] then
      migrations[finding.file] = false
      count = count + 1
    end
  end
  return error_.new("policy", ("%s in %s"):format(text_util.count(outcome.errors, "policy error"),
    count > 0 and text_util.count(count, "migration") or "the project"))
end

--- The outcome as data for --json, see report/findings.lua.
---@param outcome moonbird.policy.outcome
---@return table
function M.data(outcome)
  return findings_of.data(outcomes.complete(outcome))
end

--- Writes what was asked for, see cli/outputs.lua.
---@param args table
---@param report moonbird.reporter
---@param outcome moonbird.policy.outcome
---@return true|nil
---@return moonbird.error? err
function M.write(args, report, outcome)
  return outputs.write(args, report, outcomes.complete(outcome))
end

return M
