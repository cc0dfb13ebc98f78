--- moonbird policy: lists and explains the rules, runs their tests, shows waivers and the facts rules see.
local checking = require "moonbird.cli.checking"
local clean = require "moonbird.report.clean"
local error_ = require "moonbird.core.error"
local findings_of = require "moonbird.report.findings"
local json = require "moonbird.core.json"
local lua_value = require "moonbird.util.lua_value"
local nearest = require "moonbird.util.nearest"
local project = require "moonbird.cli.project"
local sorted = require "moonbird.util.sorted"
local style = require "moonbird.report.style"

local M = {}

-- Rules ----------------------------------------------------------------------------------------------------------

--- A rule as this environment sets it.
local function rule_data(rule, settings)
  local setting = settings.rules[rule.id]
  local options = {}
  for name, option in pairs(rule.options or {}) do
    options[name] = option.default
    if setting and setting.options[name] ~= nil then
      options[name] = setting.options[name]
    end
  end
  return { id = rule.id, group = rule.group, title = rule.title,
    severity = setting and setting.off and "off" or setting and setting.severity or rule.severity,
    default_severity = rule.severity, source = rule.file or "built in", options = next(options) and options or nil,
    needs = json.array(rule.needs or {}), moments = json.array(rule.moments or { "check", "before" }),
    hard = rule.hard or false, gate = rule.gate or false }
end

local function severity_colour(out, severity)
  return severity == "error" and out.red or severity == "warning" and out.yellow or severity == "off" and out.dim
    or out.cyan
end

local function list(_, report, _, rules, settings)
  local result = { rules = json.array {} }
  local rows, group = {}, nil
  local function flush()
    if #rows > 0 then
      report:write(style.columns(rows, "  "))
    end
    rows = {}
  end
  for i, rule in ipairs(rules) do
    local data = rule_data(rule, settings)
    result.rules[i] = data
    if data.group ~= group then
      flush()
      group = data.group
      report:write((i > 1 and "\n" or "") .. report.out.bold(clean.line(group)) .. "\n")
    end
    local notes = {}
    for _, name in ipairs(sorted.keys(data.options or {})) do
      notes[#notes + 1] = ("%s = %s"):format(name, lua_value.text(data.options[name]))
    end
    local origin = rule.file and clean.line(rule.file) or ""
    rows[#rows + 1] = { severity_colour(report.out, data.severity)(data.severity), rule.id, clean.line(rule.title),
      report.out.dim(clean.line(table.concat(notes, ", "))), report.out.dim(origin) }
  end
  flush()
  return result
end

local function find_rule(rules, id)
  local known = {}
  for _, rule in ipairs(rules) do
    if rule.id == id then
      return rule
    end
    known[rule.id] = true
  end
  return nil, error_.new("usage", ("there is no policy rule \"%s\""):format(id),
    { hint = nearest.hint(id, known, "`moonbird policy list` shows them") })
end

local function indented(text)
  return "    " .. clean.visible(text):gsub("\n+$", ""):gsub("\n", "\n    "):gsub("\n +\n", "\n\n") .. "\n"
end

local function needs_text(data)
  local parts = {}
  if #data.needs > 0 then
    parts[#parts + 1] = "needs " .. table.concat(data.needs, ", ")
  end
  if data.hard then
    parts[#parts + 1] = "can't be waived"
  end
  if data.gate then
    parts[#parts + 1] = "stops up and down too"
  end
  return table.concat(parts, "; ")
end

local function write_explanation(report, rule, data)
  local out = report.out
  report:write(("%s: %s\n"):format(out.bold(rule.id), clean.line(rule.title)))
  local severity = severity_colour(out, data.severity)(data.severity)
  if data.severity ~= data.default_severity then
    severity = ("%s here (%s by default)"):format(severity, data.default_severity)
  end
  local rows = { { "severity", severity }, { "group", clean.line(data.group) }, { "from", clean.line(data.source) },
    { "looked at", table.concat(data.moments, ", ") } }
  local more = needs_text(data)
  if more ~= "" then
    rows[#rows + 1] = { "besides", more }
  end
  report:write(style.columns(rows, "  ") .. "\n")
  report:write(clean.visible(rule.explain):gsub("\n+$", "") .. "\n")
  if rule.fix then
    report:write(("\nfix: %s\n"):format(clean.visible(rule.fix)))
  end
  local names = sorted.keys(rule.options or {})
  if #names > 0 then
    report:write("\noptions, in moonbird.lua: policy.rules[\"" .. rule.id .. "\"]\n")
    local option_rows = {}
    for i, name in ipairs(names) do
      local value, default = data.options[name], rule.options[name].default
      local shown = lua_value.text(value)
      if lua_value.text(default) ~= shown then
        shown = ("%s (default %s)"):format(shown, lua_value.text(default))
      end
      option_rows[i] = { clean.line(name), clean.line(shown), clean.line(tostring(rule.options[name].help or "")) }
    end
    report:write(style.columns(option_rows, "  "))
  end
  local examples = rule.examples or {}
  for _, pair in ipairs { { "bad", "flagged" }, { "good", "clean" } } do
    local example, with = examples[pair[1]], examples[pair[1] .. "_with"]
    if type(example) == "string" then
      local file = type(with) == "table" and type(with.file) == "string" and with.file
      report:write(("\n%s%s:\n%s"):format(pair[2], file and (" (%s)"):format(clean.line(file)) or "",
        indented(example)))
    end
  end
  if #(rule.seeds or {}) > 0 then
    report:write("\nfrom:\n")
    for _, seed in ipairs(rule.seeds) do
      report:write("  " .. clean.line(seed) .. "\n")
    end
  end
end

local function explain(args, report, _, rules, settings)
  if not args.subject then
    return nil, error_.new("usage", "policy explain takes the id of a rule",
      { hint = "`moonbird policy list` shows them" })
  end
  local rule, err
  if args.subject == checking.UNREADABLE.id then
    rule = checking.UNREADABLE
  else
    rule, err = find_rule(rules, args.subject)
  end
  if not rule then
    return nil, err
  end
  local data = rule_data(rule, settings)
  write_explanation(report, rule, data)
  data.explain, data.fix = clean.utf8(rule.explain), rule.fix and clean.utf8(rule.fix)
  data.seeds = json.array(table.move(rule.seeds or {}, 1, #(rule.seeds or {}), 1, {}))
  data.examples = json.array {}
  for _, kind in ipairs { "bad", "good" } do
    local example = (rule.examples or {})[kind]
    if type(example) == "string" then
      data.examples[#data.examples + 1] = { kind = kind, text = clean.utf8(example) }
    end
  end
  return { rule = data }
end

-- Tests ----------------------------------------------------------------------------------------------------------

local function test_suites(outcome)
  local suites, by_rule = {}, {}
  for _, test in ipairs(outcome.tests) do
    local suite = by_rule[test.rule]
    if not suite then
      suite = { name = test.rule, tests = {} }
      by_rule[test.rule] = suite
      suites[#suites + 1] = suite
    end
    suite.tests[#suite.tests + 1] = { name = ("%s: %s"):format(test.kind, test.name), file = test.file,
      failure = not test.passed and { message = test.why, text = test.why } or nil }
  end
  return suites
end

local function write_tests(report, outcome)
  local order, by_rule = {}, {}
  for _, test in ipairs(outcome.tests) do
    local entry = by_rule[test.rule]
    if not entry then
      entry = { passed = 0, failed = {} }
      by_rule[test.rule] = entry
      order[#order + 1] = test.rule
    end
    if test.passed then
      entry.passed = entry.passed + 1
    else
      entry.failed[#entry.failed + 1] = test
    end
  end
  local out = report.out
  for _, id in ipairs(order) do
    local entry = by_rule[id]
    local colour = #entry.failed > 0 and out.red or out.green
    report:write(("%s  %d passed, %d failed\n"):format(colour(clean.line(id)), entry.passed, #entry.failed))
    for _, test in ipairs(entry.failed) do
      report:write(("  %s: %s \"%s\": %s\n"):format(clean.line(test.file), test.kind, clean.line(test.name),
        clean.visible(test.why or ""):gsub("\n", "\n    ")))
    end
  end
  for _, id in ipairs(outcome.untested) do
    report:write(("%s the rule %s has no test that flags something and one that finds nothing\n"):format(
      out.yellow("warning:"), id))
  end
  report:write(("%d passed, %d failed\n"):format(outcome.passed, outcome.failed))
end

local function test(args, report, conf)
  local fs = require "moonbird.core.fs"
  local text_util = require "moonbird.util.text"
  local raw = conf.policy or {}
  local dir = args.subject or (type(raw.dir) == "string" and raw.dir) or nil
  if dir then
    dir = text_util.join_path((dir:gsub("(.)/+$", "%1")))
    local found = fs.stat(text_util.join_path(conf.dir, dir))
    if not found or found.type ~= "dir" then
      return nil, error_.new("usage", ("there is no folder \"%s\""):format(dir))
    end
  end
  local chosen = setmetatable({ policy = { dir = dir } }, { __index = conf })
  local rules, err = checking.rules(chosen)
  if not rules then
    return nil, err
  end
  local outcome
  outcome, err = require("moonbird.policy.tests").run(conf.dir, dir or require("moonbird.policy.project").DIR, rules)
  if not outcome then
    return nil, err
  end
  if #outcome.tests == 0 and #outcome.untested == 0 then
    report:write("no rules of its own, and no tests\n")
  else
    write_tests(report, outcome)
  end
  local result = { tests = json.array {}, passed = outcome.passed, failed = outcome.failed,
    untested = json.array(outcome.untested) }
  for i, item in ipairs(outcome.tests) do
    result.tests[i] = { rule = clean.utf8(item.rule), file = clean.utf8(item.file), kind = item.kind,
      name = clean.utf8(item.name), passed = item.passed, why = item.why and clean.utf8(item.why) }
  end
  if args.junit then
    local text = require("moonbird.report.junit").document(test_suites(outcome))
    err = require("moonbird.cli.outputs").write_file(args.junit, text)
  end
  if outcome.failed > 0 then
    if err then
      report:log("error", err.message)
    end
    err = error_.new("script", ("%d of the policy's tests failed"):format(outcome.failed))
  end
  return result, err
end

-- Waivers --------------------------------------------------------------------------------------------------------

local function waivers(args, report, conf)
  local outcome, err = checking.run { args = args, conf = conf, report = report }
  if not outcome then
    return nil, err
  end
  local result, rows = { waivers = json.array {} }, {}
  local colours = { used = report.out.green, unused = report.out.yellow, renewed = report.out.dim }
  for i, item in ipairs(outcome.waivers) do
    result.waivers[i] = findings_of.waiver_data(item)
    local note = item.problem or item.reason or ""
    if item.ticket then
      note = note .. (" (%s)"):format(item.ticket)
    end
    rows[i] = { (colours[item.state] or report.out.red)(item.state), clean.line(item.rule or "?"),
      item.expires and "until " .. clean.line(item.expires) or "no end",
      clean.line(item.file or "?") .. (item.line and ":" .. item.line or ""), clean.line(note) }
  end
  report:write(#rows > 0 and style.columns(rows) or "no waivers\n")
  return result
end

M.ACTIONS = {
  list = list,
  explain = explain,
  test = test,
  waivers = waivers,
  facts = function(args, report, conf)
    return require("moonbird.cli.policy_facts").run(args, report, conf)
  end,
}

--- Runs one of the actions.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  local conf, err = project.config(args)
  if not conf then
    return nil, err
  end
  local action = M.ACTIONS[args.action]
  if args.subject and (args.action == "list" or args.action == "waivers") then
    return nil, error_.new("usage", ("policy %s takes no argument"):format(args.action))
  end
  if action ~= list and action ~= explain then
    return action(args, report, conf)
  end
  local rules, settings = checking.rules(conf)
  if not rules then
    return nil, settings
  end
  return action(args, report, conf, rules, settings)
end

return M
