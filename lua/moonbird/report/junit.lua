--- A policy outcome as JUnit XML, for CI systems that show tests. What an outcome is: report/findings.lua.
--
-- A suite for each group of rules. A rule that found nothing is one passed test; a rule that found something is
-- one test for each file, failed when there is an unwaived error, else passed with the findings as its output;
-- a rule whose facts were not at hand is skipped.
local clean = require "moonbird.report.clean"

local M = {}

---@class moonbird.junit.test
---@field name string
---@field class? string
---@field file? string
---@field line? integer
---@field failure? { message: string, text: string }
---@field skipped? string
---@field output? string

local function attributes(pairs_of)
  local parts = {}
  for _, pair in ipairs(pairs_of) do
    if pair[2] ~= nil then
      parts[#parts + 1] = (' %s="%s"'):format(pair[1], clean.xml(tostring(pair[2])))
    end
  end
  return table.concat(parts)
end

local function test_lines(test, suite, lines)
  local head = "    <testcase" .. attributes { { "classname", test.class or suite }, { "name", test.name },
    { "time", "0" }, { "file", test.file }, { "line", test.line } }
  if not test.failure and not test.skipped and not test.output then
    lines[#lines + 1] = head .. "/>"
    return
  end
  lines[#lines + 1] = head .. ">"
  if test.failure then
    lines[#lines + 1] = ("      <failure%s>%s</failure>"):format(attributes { { "message", test.failure.message },
      { "type", "policy" } }, clean.xml(test.failure.text))
  elseif test.skipped then
    lines[#lines + 1] = ("      <skipped%s/>"):format(attributes { { "message", test.skipped } })
  end
  if test.output then
    lines[#lines + 1] = ("      <system-out>%s</system-out>"):format(clean.xml(test.output))
  end
  lines[#lines + 1] = "    </testcase>"
end

--- A file of suites.
---@param suites { name: string, tests: moonbird.junit.test[] }[]
---@return string
function M.document(suites)
  local lines, totals = {}, { tests = 0, failures = 0, skipped = 0 }
  for _, suite in ipairs(suites) do
    local own = { failures = 0, skipped = 0 }
    local body = {}
    for _, test in ipairs(suite.tests) do
      own.failures = own.failures + (test.failure and 1 or 0)
      own.skipped = own.skipped + (test.skipped and not test.failure and 1 or 0)
      test_lines(test, suite.name, body)
    end
    lines[#lines + 1] = ("  <testsuite%s>"):format(attributes { { "name", suite.name }, { "tests", #suite.tests },
      { "failures", own.failures }, { "errors", 0 }, { "skipped", own.skipped }, { "time", "0" } })
    table.move(body, 1, #body, #lines + 1, lines)
    lines[#lines + 1] = "  </testsuite>"
    totals.tests = totals.tests + #suite.tests
    totals.failures = totals.failures + own.failures
    totals.skipped = totals.skipped + own.skipped
  end
  table.insert(lines, 1, '<?xml version="1.0" encoding="UTF-8"?>')
  table.insert(lines, 2, ("<testsuites%s>"):format(attributes { { "name", "moonbird" }, { "tests", totals.tests },
    { "failures", totals.failures }, { "errors", 0 }, { "skipped", totals.skipped }, { "time", "0" } }))
  lines[#lines + 1] = "</testsuites>"
  return table.concat(lines, "\n") .. "\n"
end

local function describe(finding)
  local where = finding.file and ("%s:%s: "):format(finding.file, finding.line or 1) or ""
  return ("%s%s: %s%s%s"):format(where, finding.severity, finding.message,
    finding.excerpt and "\n    | " .. finding.excerpt or "", finding.fix and "\n    fix: " .. finding.fix or "")
end

--- The test of one rule and one file.
local function test_of(rule, file, findings)
  local errors, open, said = 0, 0, {}
  local first
  for _, finding in ipairs(findings) do
    local text = describe(finding)
    if finding.waived then
      text = text .. ("\n    waived until %s: %s"):format(finding.waived.expires or "?", finding.waived.reason or "?")
    else
      open = open + 1
      if finding.severity == "error" then
        errors = errors + 1
        first = first or finding
      end
    end
    said[#said + 1] = text
  end
  local text = table.concat(said, "\n")
  local test = { name = ("%s: %s"):format(rule, file ~= "" and file or "project"),
    file = file ~= "" and file or nil, line = (first or findings[1]).line }
  if first then
    test.failure = { message = first.message .. (errors > 1 and (" (and %d more)"):format(errors - 1) or ""),
      text = text }
  else
    test.output = text
    test.skipped = open == 0 and "waived" or nil
  end
  return test
end

local function tests_of_rule(rule, outcome, by_rule, unchecked)
  local tests, files, by_file = {}, {}, {}
  for _, finding in ipairs(by_rule[rule.id] or {}) do
    local file = finding.file or ""
    if not by_file[file] then
      by_file[file] = {}
      files[#files + 1] = file
    end
    table.insert(by_file[file], finding)
  end
  for _, file in ipairs(files) do
    tests[#tests + 1] = test_of(rule.id, file, by_file[file])
  end
  if unchecked[rule.id] then
    tests[#tests + 1] = { name = rule.id .. " (not checked)",
      skipped = ("not checked: needs %s"):format(table.concat(unchecked[rule.id], ", ")) }
  elseif #tests == 0 then
    tests[1] = { name = ("%s: %d migrations"):format(rule.id, outcome.checked) }
  end
  return tests
end

--- The file for an outcome.
---@param outcome moonbird.policy.outcome
---@return string
function M.text(outcome)
  local by_rule, unchecked, rules, known = {}, {}, {}, {}
  for _, rule in ipairs(outcome.rules) do
    rules[#rules + 1] = rule
    known[rule.id] = true
  end
  for _, finding in ipairs(outcome.findings) do
    by_rule[finding.rule] = by_rule[finding.rule] or {}
    table.insert(by_rule[finding.rule], finding)
    if not known[finding.rule] then
      known[finding.rule] = true
      rules[#rules + 1] = { id = finding.rule, group = finding.group }
    end
  end
  for _, entry in ipairs(outcome.unchecked) do
    unchecked[entry.rule] = unchecked[entry.rule] or {}
    table.insert(unchecked[entry.rule], entry.needs)
  end
  local suites, by_group = {}, {}
  for _, rule in ipairs(rules) do
    local group = rule.group or "project"
    if not by_group[group] then
      by_group[group] = { name = "moonbird." .. group, tests = {} }
      suites[#suites + 1] = by_group[group]
    end
    local tests = tests_of_rule(rule, outcome, by_rule, unchecked)
    table.move(tests, 1, #tests, #by_group[group].tests + 1, by_group[group].tests)
  end
  if outcome.failure then
    suites[#suites + 1] = { name = "moonbird.run", tests = { { name = "the run",
      failure = { message = outcome.failure.message, text = outcome.failure.message } } } }
  end
  return M.document(suites)
end

return M
