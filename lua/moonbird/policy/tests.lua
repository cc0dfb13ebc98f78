--- The runner of a project's tests of rules: policies/*_test.lua, each returning a table of cases (or a list of
-- them), see policy/case.lua.
local case_of = require "moonbird.policy.case"
local error_ = require "moonbird.core.error"
local project = require "moonbird.policy.project"
local text_util = require "moonbird.util.text"

local M = {}

---@class moonbird.policy.test
---@field rule string
---@field file string
---@field kind "flagged"|"clean"
---@field name string
---@field passed boolean
---@field why? string what was expected and what was found

---@class moonbird.policy.tests
---@field tests moonbird.policy.test[]
---@field passed integer
---@field failed integer
---@field untested string[] rules of the project that no case flags, or none leaves clean

local KEYS = { rule = "string", flagged = "table", clean = "table" }

--- What is wrong with a table of cases; nil when it can be run.
local function problem_of(suite)
  if type(suite) ~= "table" then
    return "the file must return { rule = \"...\", flagged = { ... }, clean = { ... } }, or a list of such tables"
  elseif type(suite.rule) ~= "string" then
    return "a table of cases needs the id of its \"rule\""
  end
  for key, value in pairs(suite) do
    if not KEYS[key] then
      return ("a table of cases has no key \"%s\""):format(tostring(key))
    elseif type(value) ~= KEYS[key] then
      return ("\"%s\" must be a %s"):format(key, KEYS[key])
    end
  end
  for _, kind in ipairs { "flagged", "clean" } do
    for key, case in pairs(suite[kind] or {}) do
      if math.type(key) ~= "integer" or type(case) ~= "table" then
        return ("\"%s\" must be a list of cases"):format(kind)
      end
    end
  end
end

local function run_suite(result, suite, file, rules, known, seen)
  local function add(kind, name, passed, why)
    result.tests[#result.tests + 1] = { rule = suite.rule, file = file, kind = kind, name = name, passed = passed,
      why = not passed and why or nil }
    local count = passed and "passed" or "failed"
    result[count] = result[count] + 1
  end
  if not known[suite.rule] then
    add("flagged", "the rule", false, ("there is no rule \"%s\""):format(suite.rule))
    return
  end
  for _, kind in ipairs { "flagged", "clean" } do
    for i, case in ipairs(suite[kind] or {}) do
      local name = type(case.name) == "string" and case.name or "case " .. i
      add(kind, name, case_of.judge(case, rules, suite.rule, kind == "flagged"))
      seen[suite.rule] = seen[suite.rule] or {}
      seen[suite.rule][kind] = true
    end
  end
end

local function suites_of(value)
  if type(value) == "table" and value.rule == nil and (#value > 0 or next(value) == nil) then
    return value
  end
  return { value }
end

--- Runs the tests of a folder of rules.
---@param root string folder of moonbird.lua
---@param shown string the folder of rules, below it
---@param rules moonbird.policy.rule[] all rules, those of the folder too
---@return moonbird.policy.tests?
---@return moonbird.error? err code "config": a file that can't be run
function M.run(root, shown, rules)
  local result = { tests = {}, passed = 0, failed = 0, untested = {} }
  local known, seen = {}, {}
  for _, rule in ipairs(rules) do
    known[rule.id] = rule
  end
  local dir = text_util.join_path(root, shown)
  local _, names = project.files(dir)
  for _, name in ipairs(names) do
    local file = text_util.join_path(shown, name)
    local value, err = project.load(dir, shown, name)
    if err then
      return nil, err
    end
    for _, suite in ipairs(suites_of(value)) do
      local problem = problem_of(suite)
      if problem then
        return nil, error_.new("config", problem, { file = file })
      end
      run_suite(result, suite, file, rules, known, seen)
    end
  end
  for _, rule in ipairs(rules) do
    local own = seen[rule.id] or {}
    if rule.file and not (own.flagged and own.clean) then
      result.untested[#result.untested + 1] = rule.id
    end
  end
  return result
end

return M
