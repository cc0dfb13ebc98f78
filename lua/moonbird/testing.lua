--- Tests of policy rules in plain busted: `busted --lua=$(which moonbird-lua)`, then in a spec
--
--   local testing = require "moonbird.testing"
--   testing.rules("policies")
--   it("wants an owner", function()
--     testing.flagged({ sql = "create table t (id int primary key);" }, "owner-named")
--     testing.clean({ sql = "create table t (id int primary key);", header = { owner = "team" } }, "owner-named")
--   end)
--
-- A case is a table as in policies/*_test.lua: see docs/guide/policies.md.
local builtin = require "moonbird.policy.builtin"
local case_of = require "moonbird.policy.case"
local project = require "moonbird.policy.project"

local M = {}

-- The rules of the project under test; none until rules() was called.
local own = {}

local function all()
  local list = table.move(builtin.rules(), 1, #builtin.rules(), 1, {})
  return table.move(own, 1, #own, #list + 1, list)
end

--- Loads a project's rules; the other functions use them from then on. Raises what is wrong with them.
---@param dir string the folder of rules, such as "policies"
---@return moonbird.policy.rule[] rules of the folder
function M.rules(dir)
  local taken = {}
  for _, rule in ipairs(builtin.rules()) do
    taken[rule.id] = true
  end
  local rules, err = project.rules(".", dir, taken)
  if not rules then
    error(tostring(err), 2)
  end
  own = rules
  return rules
end

local function known(rule_id, level)
  for _, rule in ipairs(all()) do
    if rule.id == rule_id then
      return
    end
  end
  error(("there is no rule \"%s\"; testing.rules(\"policies\") loads those of a project"):format(tostring(rule_id)),
    level + 1)
end

--- Runs all rules over a case.
---@param case moonbird.policy.case
---@param rule_id? string the rule whose `options` the case sets
---@return moonbird.policy.finding[] findings
function M.check(case, rule_id)
  local ok, findings = pcall(case_of.run, case, all(), rule_id)
  if not ok then
    error(tostring(findings), 2)
  end
  return findings
end

local function judge(case, rule_id, flagged)
  known(rule_id, 3)
  local passed, why = case_of.judge(case, all(), rule_id, flagged)
  if not passed then
    error(("%s%s: %s"):format(rule_id, case.name and (" (%s)"):format(case.name) or "", why), 3)
  end
end

--- Fails unless the rule finds what the case says: `line`, `message` (a pattern), `severity`.
---@param case moonbird.policy.case
---@param rule_id string
function M.flagged(case, rule_id)
  judge(case, rule_id, true)
end

--- Fails when the rule finds something, or was not checked for lack of facts.
---@param case moonbird.policy.case
---@param rule_id string
function M.clean(case, rule_id)
  judge(case, rule_id, false)
end

return M
