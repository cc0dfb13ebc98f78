--- moonbird's own policy rules: the cases in tests/policy/, the rules' examples and their documentation. Each rule
-- is taken away once, and made to find everything once, to see that its cases notice.
local builtin = require "moonbird.policy.builtin"
local case = require "moonbird.policy.case"
local engine = require "moonbird.policy.engine"
local fs = require "moonbird.core.fs"

local CASES = "tests/policy"
local PAGE = "docs/reference/policy.md"

local DOCUMENTS = { "ADR-0068", "ADR-002", "ADR 0007", "Migration Playbook", "Database Migration Strategy" }

--- The document of a seed, and the sentence: `DOCUMENT: sentence` or `DOCUMENT: title: "sentence"`.
local function read_seed(seed)
  for _, document in ipairs(DOCUMENTS) do
    if seed:sub(1, #document + 1) == document .. ":" then
      return document, seed:match(": \"(.*)\"$") or seed:sub(#document + 3)
    end
  end
end

local rules = builtin.rules()

local function load_cases()
  local by_rule, files = {}, {}
  for _, listed in ipairs(assert(fs.list(CASES))) do
    if listed.name:find("%.lua$") then
      local path = CASES .. "/" .. listed.name
      files[path] = assert(dofile(path), path)
      by_rule[listed.name:gsub("%.lua$", "")] = files[path]
    end
  end
  return by_rule, files
end

local cases, case_files = load_cases()

--- Runs a rule's cases with some list of rules.
local function failures(rule, with, only_first)
  local list = {}
  for _, kind in ipairs { "flagged", "clean" } do
    for _, item in ipairs(cases[rule.id] and cases[rule.id][kind] or {}) do
      local passed, why = case.judge(item, with, rule.id, kind == "flagged")
      if not passed then
        list[#list + 1] = ("%s, %s case \"%s\": %s"):format(rule.id, kind, item.name, why)
        if only_first then
          return list
        end
      end
    end
  end
  return list
end

--- The list of rules with one of them exchanged, or (replacement nil) left out.
local function rules_with(rule, replacement)
  local list = {}
  for _, other in ipairs(rules) do
    if other ~= rule then
      list[#list + 1] = other
    else
      list[#list + 1] = replacement
    end
  end
  return list
end

local function changed(rule, changes)
  local copy = {}
  for key, value in pairs(rule) do
    copy[key] = value
  end
  for key, value in pairs(changes) do
    copy[key] = value or nil
  end
  return copy
end

--- An example as a case. What it needs besides its text (options, tenants, ledger, ...) stands beside it, what
-- only one of the two needs in `bad_with` and `good_with`; what it completes is there.
local function example_case(rule, kind)
  local item, text, known = { name = "example of " .. rule.id }, rule.examples[kind], {}
  for key, value in pairs(rule.examples) do
    if key ~= "bad" and key ~= "good" then
      item[key] = value
    end
  end
  for key, value in pairs(rule.examples[kind .. "_with"] or {}) do
    item[key] = value
  end
  local others = {}
  for name, content in pairs(item.others or {}) do
    others[name], known[name:match("^%d+")] = content, true
  end
  item.others = others
  item[text:find("-- migrate:up", 1, true) and "sql" or "lua"] = text
  for version in text:gmatch("completes[%s:=]*{?%s*(%d+)") do
    if tonumber(version) < 20250601120000 and not known[version] then
      item.others[version .. "_before.sql"] = "create table made_up (id bigint primary key);"
    end
  end
  return item
end

local function shown(findings)
  local lines = {}
  for i, finding in ipairs(findings) do
    lines[i] = ("%s:%s: %s [%s]"):format(finding.file, finding.line, finding.message, finding.rule)
  end
  return table.concat(lines, "\n")
end

describe("the built-in policy rules", function()
  it("have ids of their own, and say what they are for", function()
    local seen = {}
    assert.is_true(#rules >= 36, #rules .. " rules")
    for _, rule in ipairs(rules) do
      assert.is_nil(seen[rule.id], rule.id .. " is there twice")
      seen[rule.id] = true
      assert.is_truthy(rule.id:match("^[a-z][a-z0-9-]*$"), rule.id)
      for _, key in ipairs { "title", "explain", "fix", "group" } do
        assert.is_true(type(rule[key]) == "string" and rule[key]:find("%S") ~= nil, rule.id .. " has no " .. key)
      end
      assert.is_true(#rule.explain > 80, rule.id .. " explains too little")
      assert.is_truthy(({ error = true, warning = true, info = true })[rule.severity], rule.id)
      assert.is_true(type(rule.seeds) == "table" and #rule.seeds > 0, rule.id .. " names no seed")
      for _, seed in ipairs(rule.seeds) do
        assert.is_truthy(read_seed(seed), ("%s: \"%s\" names no decision record"):format(rule.id, seed))
      end
      for name, option in pairs(rule.options or {}) do
        assert.is_truthy(option.default ~= nil and option.help, ("%s: the option %s says too little"):format(rule.id,
          name))
      end
    end
  end)

  it("have three cases that are found and three that are clean, or more", function()
    for path, file in pairs(case_files) do
      assert.equal(CASES .. "/" .. tostring(file.rule) .. ".lua", path)
    end
    local names = {}
    for _, rule in ipairs(rules) do
      names[rule.id] = true
      local file = cases[rule.id]
      assert.is_table(file, "there is no " .. CASES .. "/" .. rule.id .. ".lua")
      for _, kind in ipairs { "flagged", "clean" } do
        assert.is_true(#(file[kind] or {}) >= 3, ("%s has less than three %s cases"):format(rule.id, kind))
        local seen = {}
        for _, item in ipairs(file[kind]) do
          assert.is_string(item.name, rule.id)
          assert.is_nil(seen[item.name], ("%s: two cases \"%s\""):format(rule.id, item.name))
          seen[item.name] = true
        end
      end
    end
    for path, file in pairs(case_files) do
      assert.is_true(names[file.rule] or false, path .. ": there is no such rule")
    end
  end)

  for _, rule in ipairs(rules) do
    describe(rule.id, function()
      it("finds what its cases say, and nothing else", function()
        local failed = failures(rule, rules)
        assert(#failed == 0, table.concat(failed, "\n"))
      end)

      it("is missed when it is taken away", function()
        assert.is_true(#failures(rule, rules_with(rule, nil), true) > 0)
      end)

      it("is caught when it finds something everywhere", function()
        local everywhere = changed(rule, { check = function(ctx)
          ctx:report("found")
        end })
        assert.is_true(#failures(rule, rules_with(rule, everywhere), true) > 0)
        if rule.applies then
          everywhere.applies = nil
          assert.is_true(#failures(rule, rules_with(rule, everywhere), true) > 0)
        end
      end)

      it("is missed when it is silent about what it looks at", function()
        local silent = changed(rule, { check = function() end })
        assert.is_true(#failures(rule, rules_with(rule, silent), true) > 0)
      end)

      it("has a bad example that it finds, and a good one that no rule minds", function()
        assert.is_table(rule.examples, "it has no examples")
        assert.is_string(rule.examples.bad)
        assert.is_string(rule.examples.good)
        if rule.examples.run then
          return
        end
        local findings = case.run(example_case(rule, "bad"), rules, rule.id)
        assert(#case.of_rule(findings, rule.id) > 0, "the bad example is not found; only:\n" .. shown(findings))
        local _, outcome = case.run(example_case(rule, "good"), rules, rule.id)
        local errors = engine.errors(outcome)
        assert(#errors == 0, "the good example is not good:\n" .. shown(errors))
      end)
    end)
  end

  it("stop by error only: an environment that has nothing to protect yet lowers one", function()
    local item = { name = "early", sql = "drop table users;", moment = "before" }
    local _, outcome = case.run(item, rules)
    assert.equal("expand-breaking", engine.errors(outcome, true)[1].rule)
    item.rules = { ["expand-breaking"] = "warning" }
    _, outcome = case.run(item, rules)
    assert.are.same({}, engine.errors(outcome, true))
    assert.is_true(#case.of_rule(outcome.findings, "expand-breaking") > 0)
  end)
end)

--- Rows of the page's tables: { document, sentence, by, tests, line }.
local function read_page()
  local rows, document, checked, line_number = {}, nil, false, 0
  for line in (assert(fs.read(PAGE)) .. "\n"):gmatch("([^\n]*)\n") do
    line_number = line_number + 1
    local heading = line:match("^### (.*)$")
    if heading then
      document = heading
    elseif line:match("^## ") then
      document = nil
    end
    local cells = {}
    for cell in line:gsub("\\|", "\1"):gmatch("|%s*([^|]-)%s*%f[|]") do
      cells[#cells + 1] = (cell:gsub("\1", "|"))
    end
    if document and #cells == 3 then
      if cells[1] == "sentence" then
        checked = true
      elseif not cells[1]:match("^%-+$") then
        rows[#rows + 1] = { document = document, sentence = cells[1], by = cells[2], tests = cells[3],
          line = line_number }
      end
    end
  end
  return rows, checked
end

describe("the table of the decision records", function()
  local rows = read_page()
  local known = {}
  for _, rule in ipairs(rules) do
    known[rule.id] = rule
  end
  local commands = {}
  for _, command in ipairs(require("moonbird.cli.spec").COMMANDS) do
    commands[command.name] = true
  end

  it("has rows for each document", function()
    local seen = {}
    for _, row in ipairs(rows) do
      seen[row.document] = (seen[row.document] or 0) + 1
    end
    for _, document in ipairs(DOCUMENTS) do
      assert.is_true((seen[document] or 0) >= 10, document)
    end
  end)

  it("names rules, commands and tests that are there", function()
    for _, row in ipairs(rows) do
      local where = ("%s:%d"):format(PAGE, row.line)
      for word in row.by:gmatch("`([^`]*)`") do
        local command = word:match("^moonbird (%a+)")
        if command then
          assert.is_true(commands[command] or false, ("%s: there is no command %s"):format(where, command))
        else
          assert.is_truthy(known[word], ("%s: there is no rule %s"):format(where, word))
          local test = CASES .. "/" .. word .. ".lua"
          assert.is_truthy(row.tests:find("`" .. test .. "`", 1, true), ("%s: the test %s is missing"):format(where,
            test))
        end
      end
      local any = false
      for path in row.tests:gmatch("`([^`]*)`") do
        any = true
        assert.is_truthy(fs.stat(path), ("%s: there is no file %s"):format(where, path))
      end
      assert.is_true(any, where .. " names no test")
    end
  end)

  it("has every rule", function()
    local named = {}
    for _, row in ipairs(rows) do
      for word in row.by:gmatch("`([^`]*)`") do
        named[word] = true
      end
    end
    for _, rule in ipairs(rules) do
      assert.is_true(named[rule.id] or false, rule.id .. " is not in the table")
    end
  end)

  it("has the sentences that rules quote, with the rule", function()
    local function plain(text)
      return (text:lower():gsub("[^%w]+", " "):gsub("^ ", ""):gsub(" $", ""))
    end
    local missing = {}
    for _, rule in ipairs(rules) do
      for _, seed in ipairs(rule.seeds) do
        local document, sentence = read_seed(seed)
        local found = false
        for _, row in ipairs(rows) do
          found = found or (row.document == document and row.by:find("`" .. rule.id .. "`", 1, true) ~= nil
            and (plain(row.sentence):find(plain(sentence), 1, true) ~= nil))
        end
        if not found then
          missing[#missing + 1] = ("%s quotes \"%s\", which has no row with it"):format(rule.id, seed)
        end
      end
    end
    assert(#missing == 0, table.concat(missing, "\n"))
  end)
end)
