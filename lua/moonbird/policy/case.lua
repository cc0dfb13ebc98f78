--- Tests of rules as tables: a migration's text and made-up facts in, findings out. Users' policies/*_test.lua
-- and the tests of moonbird's own rules have this one format. See docs/guide/policies.md.
local engine = require "moonbird.policy.engine"
local error_ = require "moonbird.core.error"
local registry = require "moonbird.migration.registry"
local settings_of = require "moonbird.policy.settings"
local sys = require "moonbird.core.sys"

local M = {}

local DEFAULT_NAME = "20250601120000_case"

---@class moonbird.policy.case
---@field name string
---@field sql? string a whole .sql migration, or only the statements of its up
---@field lua? string a whole Lua migration
---@field file? string its file name
---@field down? string statements of down, for a bare `sql`
---@field header? table<string, string|boolean> head lines for a bare `sql`; false takes one away
---@field others? table<string, string> further files of the registry
---@field recorded? { up?: table[], down?: table[] } what its Lua functions send
---@field ledger? table<string, string|true>|false file name to checksum; true: as the file is; false: none
---@field history? table
---@field git? table
---@field live? table
---@field environment? table
---@field run? table
---@field tenants? table
---@field step? table
---@field moment? "check"|"before"|"after"
---@field direction? "up"|"down"
---@field options? table of the rule under test
---@field rules? table settings of further rules, as policy.rules in moonbird.lua
---@field now? string default "2025-06-15"
---@field line? integer of the finding
---@field message? string pattern in the finding's message
---@field severity? string of the finding

-- The head that a bare body gets: one that no rule finds anything in.
local HEAD = { { "description", "Made up for the test of a rule" }, { "phase", "expand" }, { "scope", "global" },
  { "compatibility", "backward_compatible" } }

local function whole_sql(text, case)
  if text:find("-- migrate:up", 1, true) then
    return text
  end
  local header, lines, seen = case.header or {}, {}, {}
  for _, pair in ipairs(HEAD) do
    local value = header[pair[1]]
    seen[pair[1]] = true
    if value ~= false then
      lines[#lines + 1] = ("-- %s: %s"):format(pair[1], value or pair[2])
    end
  end
  local further = {}
  for key, value in pairs(header) do
    if not seen[key] and key ~= "transaction" and value then
      further[#further + 1] = ("-- %s: %s"):format(key, tostring(value))
    end
  end
  table.sort(further)
  table.move(further, 1, #further, #lines + 1, lines)
  local option = header.transaction == false and " transaction:false" or ""
  lines[#lines + 1] = "-- migrate:up" .. option
  lines[#lines + 1] = text
  lines[#lines + 1] = "-- migrate:down" .. option
  lines[#lines + 1] = case.down or "drop table if exists made_up;"
  return table.concat(lines, "\n") .. "\n"
end

local function fail(message, file)
  error(error_.new("script", message, { file = file }), 0)
end

local function load(name, text)
  local digits, rest, kind = name:match("^(%d+)_(.*)%.(%a+)$")
  if not digits or (kind ~= "sql" and kind ~= "lua") then
    fail(("\"%s\" is no name for a migration (VERSION_name.sql or .lua)"):format(name), name)
  end
  local migration, problems = registry.load { version = math.tointeger(tonumber(digits)), version_text = digits,
    name = rest, kind = kind, id = digits .. "_" .. rest, file = "migrations/" .. name, text = text,
    checksum = sys.sha256(text) }
  if not migration then
    local first = problems[1]
    fail("the migration of the case can't be loaded: " .. first.message, ("%s:%d"):format(first.file, first.line or 1))
  end
  return migration
end

--- The file's name and whole text.
local function source_of(case)
  local text = case.sql and whole_sql(case.sql, case) or case.lua
  if not text then
    fail(("the case \"%s\" has neither sql nor lua"):format(case.name or "?"))
  end
  return case.file or DEFAULT_NAME .. (case.sql and ".sql" or ".lua"), text
end

local function ledger_of(case, migrations)
  if case.ledger == false then
    return nil
  end
  local ledger = {}
  for _, migration in ipairs(migrations) do
    ledger[migration.file:match("[^/]*$")] = migration.checksum
  end
  for name, value in pairs(case.ledger or {}) do
    if value ~= true then
      ledger[name] = value or nil
    end
  end
  return ledger
end

local function history_of(case, migrations)
  local given = case.history
  if not given then
    return nil
  end
  local by_version = {}
  for _, migration in ipairs(migrations) do
    by_version[migration.version] = migration
  end
  local applied, newest = {}, nil
  for key, value in pairs(given.applied or {}) do
    local version = type(value) == "table" and value.version or type(value) == "table" and key or value
    local known = by_version[version] or {}
    local row = type(value) == "table" and value or {}
    applied[version] = { version = version, id = row.id or known.id or tostring(version),
      phase = row.phase or known.phase or "expand", checksum = row.checksum or known.checksum }
    newest = (not newest or version > newest) and version or newest
  end
  return { target = given.target or "global", exists = true, newest = newest, applied = applied,
    backfills = given.backfills or {} }
end

--- Made-up live facts: tables in place of questions to a server.
local function live_of(given)
  if not given then
    return nil
  end
  local function answer(kind)
    return function(_, schema, name)
      local all = given[kind] or {}
      return all[(schema and schema .. "." or "") .. name] or all[name]
    end
  end
  return { relation = answer("relations"), indexes = function(self, schema, name)
    return answer("indexes")(self, schema, name) or {}
  end, columns = answer("columns"), query = function(_, text)
    return (given.queries or {})[text] or {}
  end }
end

local function settings_for(case, rules, rule_id)
  local policy = { rules = {} }
  for id, value in pairs(case.rules or {}) do
    policy.rules[id] = value
  end
  if case.options and rule_id then
    policy.rules[rule_id] = case.options
  end
  local settings, err = settings_of.read({ dir = ".", policy = policy }, rules)
  if not settings then
    error(err, 0)
  end
  return settings
end

local function filled_run(run)
  run = run or {}
  return { command = run.command or "check", ci = run.ci or false, emergency = run.emergency,
    allow = run.allow or {} }
end

--- Runs a case.
---@param case moonbird.policy.case
---@param rules moonbird.policy.rule[] all of them; the case sees every finding
---@param rule_id? string the rule under test, whose options the case sets
---@return moonbird.policy.finding[] findings of the case's own file, and those of no file
---@return moonbird.policy.outcome outcome
function M.run(case, rules, rule_id)
  local name, text = source_of(case)
  local migrations = { load(name, text) }
  for other, content in pairs(case.others or {}) do
    migrations[#migrations + 1] = load(other, other:match("%.sql$") and whole_sql(content, {}) or content)
  end
  local subject = migrations[1]
  subject.recorded = case.recorded
  table.sort(migrations, function(a, b)
    return a.version < b.version or (a.version == b.version and a.file < b.file)
  end)
  local live = live_of(case.live)
  local outcome = engine.run {
    rules = rules, settings = settings_for(case, rules, rule_id),
    migrations = { subject }, registry = migrations, moment = case.moment or "check",
    direction = case.direction, environment = case.environment, run = filled_run(case.run),
    history = history_of(case, migrations), git = case.git, live = live, ledger = ledger_of(case, migrations),
    tenants = case.tenants, step = case.step, now = case.now or "2025-06-15",
  }
  return outcome.findings, outcome
end

--- Findings of one rule.
---@param findings moonbird.policy.finding[]
---@param rule_id string
---@return moonbird.policy.finding[]
function M.of_rule(findings, rule_id)
  local list = {}
  for _, finding in ipairs(findings) do
    if finding.rule == rule_id and not finding.waived then
      list[#list + 1] = finding
    end
  end
  return list
end

local function describe(finding)
  return ("%s:%s: %s[%s]: %s"):format(finding.file or "?", finding.line or "?", finding.severity, finding.rule,
    finding.message)
end

--- Whether a case came out as it says.
---@param case moonbird.policy.case
---@param rules moonbird.policy.rule[]
---@param rule_id string
---@param flagged boolean the rule is to find something
---@return boolean passed
---@return string? why not
function M.judge(case, rules, rule_id, flagged)
  local ok, findings, outcome = pcall(M.run, case, rules, rule_id)
  if not ok then
    return false, tostring(findings)
  end
  local own = M.of_rule(findings, rule_id)
  if not flagged then
    for _, entry in ipairs(outcome.unchecked) do
      if entry.rule == rule_id then
        return false, ("the rule was not checked: it needs %s"):format(entry.needs)
      end
    end
    return #own == 0, own[1] and "found although it is clean: " .. describe(own[1])
  end
  if #own == 0 then
    for _, entry in ipairs(outcome.unchecked) do
      if entry.rule == rule_id then
        return false, ("the rule was not checked: it needs %s"):format(entry.needs)
      end
    end
    return false, "the rule found nothing"
  end
  for _, finding in ipairs(own) do
    if (not case.line or finding.line == case.line) and (not case.severity or finding.severity == case.severity)
      and (not case.message or finding.message:find(case.message)) then
      return true
    end
  end
  return false, ("no finding is as expected (line %s, message %s, severity %s); found %s"):format(
    tostring(case.line), tostring(case.message), tostring(case.severity), describe(own[1]))
end

return M
