--- The policy engine: settings, facts that are missing, the project's own rules in their sandbox, the view they
--- get, waivers, and that the same input gives the same findings.
local builtin = require "moonbird.policy.builtin"
local engine = require "moonbird.policy.engine"
local helper = require "tests.helper"
local project = require "moonbird.policy.project"
local registry = require "moonbird.migration.registry"
local settings_of = require "moonbird.policy.settings"
local sys = require "moonbird.core.sys"
local view_of = require "moonbird.policy.view"
local waiver_of = require "moonbird.policy.waiver"

local HEAD = "-- description: Made up for the test of the engine\n-- phase: expand\n-- scope: global\n"
  .. "-- compatibility: backward_compatible\n"

--- A loaded migration. A text without marks is the body of its up.
local function migration(version, text, kind)
  kind = kind or "sql"
  if kind == "sql" and not text:find("-- migrate:up", 1, true) then
    text = HEAD .. "-- migrate:up\n" .. text .. "\n-- migrate:down\nselect 1;\n"
  end
  local id = version .. "_m"
  local loaded, problems = registry.load { version = version, version_text = tostring(version), name = "m", kind = kind,
    id = id, file = "migrations/" .. id .. "." .. kind, text = text, checksum = sys.sha256(text) }
  assert(loaded, problems and problems[1] and problems[1].message)
  return loaded
end

local function settings(policy, rules)
  local result, err = settings_of.read({ dir = ".", policy = policy }, rules)
  assert(result, tostring(err))
  return result
end

--- A rule that reports every statement of a verb.
local function rule(fields)
  local made = { id = "made-up", group = "test", severity = "error", title = "made up",
    check = function(ctx)
      for _, st in ipairs(ctx.statements) do
        if st.verb == "drop" then
          ctx:report("a drop", { at = st })
        end
      end
    end }
  for key, value in pairs(fields or {}) do
    made[key] = value
  end
  return made
end

local function run(rules, migrations, options)
  options = options or {}
  local all = { rules = rules, settings = settings(options.policy, rules), migrations = migrations, moment = "check",
    now = "2025-06-15" }
  for key, value in pairs(options) do
    all[key] = value
  end
  all.policy = nil
  return engine.run(all)
end

local DROP = "create table t (i int);\ndrop table users;"

describe("settings of rules", function()
  local one = migration(1, DROP)

  local function severity(setting, fields)
    local outcome = run({ rule(fields) }, { one }, { policy = { rules = { ["made-up"] = setting } } })
    return outcome.findings[1] and outcome.findings[1].severity, outcome
  end

  it("leave the rule's severity, or set it", function()
    assert.equal("error", (severity(nil)))
    assert.equal("warning", (severity(nil, { severity = "warning" })))
    for _, wanted in ipairs { "error", "warning", "info" } do
      assert.equal(wanted, (severity(wanted)))
      assert.equal(wanted, (severity({ severity = wanted }, { severity = "info" })))
    end
  end)

  it("switch a rule off, so that it is not run at all", function()
    for _, off in ipairs { "off", false, { severity = "off" } } do
      local found, outcome = severity(off, { check = function()
        error("it was run")
      end })
      assert.is_nil(found)
      assert.equal(0, #outcome.rules)
    end
  end)

  it("bound what a finding says of itself", function()
    local function says(wanted)
      return { check = function(ctx)
        ctx:report("x", { severity = wanted })
      end }
    end
    assert.equal("info", (severity(nil, says "info")))
    assert.equal("warning", (severity("warning", says "error")))
    assert.equal("info", (severity("warning", says "info")))
    assert.equal("error", (severity(nil, says "fatal")))
  end)

  it("fill in options", function()
    local with = { options = { max = { default = 3, type = "integer" }, words = { default = {}, type = "list" } },
      check = function(ctx)
        ctx:report(("%d %s"):format(ctx.options.max, table.concat(ctx.options.words, ",")))
      end }
    local _, outcome = severity(nil, with)
    assert.equal("3 ", outcome.findings[1].message)
    _, outcome = severity({ max = 7, words = { "a", "b" } }, with)
    assert.equal("7 a,b", outcome.findings[1].message)
  end)

  it("with mistakes are refused, all at once", function()
    local rules = { rule { options = { max = { default = 3, type = "integer" }, list = { default = {}, type = "list" } } } }
    for _, policy in ipairs {
      { rules = { ["made-down"] = "off" } }, { rules = { ["made-up"] = "fatal" } }, { rules = { ["made-up"] = true } },
      { rules = { ["made-up"] = { maximum = 3 } } }, { rules = { ["made-up"] = { max = "3" } } },
      { rules = { ["made-up"] = { max = 3.5 } } }, { rules = { ["made-up"] = { list = "a" } } },
      { rules = { ["made-up"] = { list = { 1 } } } }, { rules = { ["made-up"] = { severity = "fatal" } } },
      { rules = { [1] = "made-up" } }, { rules = "all" }, { enforce_after = "last year" }, { enforce_after = -1 },
      { waivers = "none" }, { waivers = { { rule = "made-up" } } }, { waivers = { "made-up" } }, { up = "some" },
      { allow_contract = "yes" }, { allow_breaking = 1 }, { dir = 7 }, { allow_contracts = true },
    } do
      local result, err = settings_of.read({ dir = ".", policy = policy }, rules)
      assert.is_nil(result, require("moonbird.core.json").encode(policy))
      assert.equal("config", err.code)
    end
    local _, err = settings_of.read({ dir = ".", policy = { up = "some", dri = "x", rules = { ["made-pu"] = "off" } } },
      rules)
    assert.equal(3, #err.problems)
    assert.is_truthy(tostring(err.problems[1].hint):find("dir", 1, true))
  end)

  it("leave merged migrations in peace up to enforce_after, but for what is about the history", function()
    local rules = { rule { group = "shape" }, rule { id = "ledger-like", group = "immutability", check = function(ctx)
      ctx:report("seen")
    end } }
    local list = { migration(20250101000000, DROP), migration(20250201000000, DROP) }
    for _, value in ipairs { 20250101000000, "20250101000000" } do
      local outcome = run(rules, list, { policy = { enforce_after = value } })
      local seen = {}
      for i, finding in ipairs(outcome.findings) do
        seen[i] = finding.rule .. " " .. finding.version
      end
      assert.same({ "ledger-like 20250101000000", "ledger-like 20250201000000", "made-up 20250201000000" }, seen)
    end
  end)

  it("do not call a waiver in a migration before enforce_after superfluous", function()
    local old = migration(1, "-- moonbird:allow made-up until=2026-01-01 reason=\"it was so\"\ndrop table users;")
    local outcome = run({ rule { group = "shape" } }, { old }, { policy = { enforce_after = 5 } })
    assert.are_not.equal("unused", outcome.waivers[1].state)
  end)
end)

describe("facts that are missing", function()
  local one, two = migration(1, DROP), migration(2, DROP)

  for _, need in ipairs { "history", "git", "live", "step" } do
    it(("make a rule unchecked, never passed: %s"):format(need), function()
      local ran = 0
      local rules = { rule { needs = { need }, check = function()
        ran = ran + 1
      end } }
      local outcome = run(rules, { one, two })
      assert.same({ { rule = "made-up", needs = need, count = 2 } }, { outcome.unchecked[1] })
      assert.equal(1, #outcome.unchecked)
      assert.equal(0, ran)
      outcome = run(rules, { one, two }, { [need] = { applied = {} } })
      assert.equal(0, #outcome.unchecked)
      assert.equal(2, ran)
    end)
  end

  it("are told of where the rule applies only", function()
    local outcome = run({ rule { needs = { "history" }, applies = function(ctx)
      return ctx.migration.version == 2
    end } }, { one, two })
    assert.equal(1, outcome.unchecked[1].count)
  end)

  it("of a Lua function: a recording", function()
    local function lua()
      return migration(3, "return { up = function(db) db:exec('drop table users') end, down = 'select 1' }", "lua")
    end
    local rules = { rule { needs = { "recording" } } }
    local outcome = run(rules, { lua(), one })
    assert.same({ rule = "made-up", needs = "recording", count = 1 }, outcome.unchecked[1])
    assert.equal(1, #outcome.findings) -- of the .sql file, whose statements are known
    assert.equal(1, #outcome.opaque)
    local recorded = lua()
    recorded.recorded = { up = { { text = "drop table users", line = 1, params = {}, reads = {} } } }
    outcome = run(rules, { recorded })
    assert.equal(0, #outcome.unchecked)
    assert.equal(0, #outcome.opaque)
    assert.equal("migrations/3_m.lua", outcome.findings[1].file)
    assert.equal(1, outcome.findings[1].line)
  end)

  it("of SQL that can't be parsed here are visible", function()
    local outcome = run({ rule() }, { migration(4, "create table t (i int);\nfrobnicate the table users;") })
    assert.equal(1, #outcome.opaque)
    assert.is_true(outcome.opaque[1].unparsed)
    assert.equal(7, outcome.opaque[1].line)
  end)
end)

describe("waivers", function()
  local SHAPE = { rule() }

  local function outcome_of(words, options)
    return run(SHAPE, { migration(1, words .. "\ndrop table users;") }, options)
  end

  it("excuse a finding, which stays to be seen", function()
    local outcome = outcome_of "-- moonbird:allow made-up until=2025-06-15 reason=\"nobody has rows\" ticket=X-1"
    assert.equal(1, #outcome.findings)
    assert.equal("nobody has rows", outcome.findings[1].waived.reason)
    assert.equal("X-1", outcome.findings[1].waived.ticket)
    assert.equal("used", outcome.waivers[1].state)
    assert.same({}, engine.errors(outcome))
  end)

  it("that can't be used excuse nothing", function()
    for words, state in pairs {
      ["made-up until=2025-06-14 reason=\"nobody\""] = "expired",
      ["made-up reason=\"nobody\""] = "broken",
      ["made-up until=2025-12-31"] = "broken",
      ["made-up until=2025-12-31 reason=\"\""] = "broken",
      ["made-up until=2025-12-31 reason=nobody of=us"] = "broken",
      ["made-down until=2025-12-31 reason=\"nobody\""] = "unknown",
    } do
      local outcome = outcome_of("-- moonbird:allow " .. words)
      assert.equal(state, outcome.waivers[1].state, words)
      assert.equal(1, #engine.errors(outcome), words)
    end
  end)

  it("of a hard rule excuse nothing", function()
    local outcome = run({ rule { hard = true } }, { migration(1,
      "-- moonbird:allow made-up until=2025-12-31 reason=\"nobody\"\ndrop table users;") })
    assert.equal("hard", outcome.waivers[1].state)
    assert.equal(1, #engine.errors(outcome))
  end)

  it("cover a statement, or from the head the file", function()
    local text = "%s-- migrate:up\n%sdrop table a;\ndrop table b;\n-- migrate:down\n%sdrop table c;\n"
    local words = "-- moonbird:allow made-up until=2025-12-31 reason=\"nobody\"\n"
    local function waived(...)
      local list = {}
      for i, finding in ipairs(run(SHAPE, { migration(1, HEAD .. text:format(...)) }).findings) do
        list[i] = finding.waived ~= nil
      end
      return list
    end
    assert.same({ true, true }, waived(words, "", ""))
    assert.same({ true, false }, waived("", words, ""))
    assert.same({ false, false }, waived("", "", words))
  end)

  it("of another migration do not reach this one", function()
    local outcome = run(SHAPE, { migration(1,
      "-- moonbird:allow made-up until=2025-12-31 reason=\"nobody\"\nselect 1;"), migration(2, "drop table users;") })
    assert.equal(1, #engine.errors(outcome))
  end)

  it("of moonbird.lua renew one that is over", function()
    local function policy(expires, version)
      return { policy = { waivers = { { migration = version or 1, rule = "made-up", expires = expires,
        reason = "still nobody" } } } }
    end
    local words = "-- moonbird:allow made-up until=2025-01-01 reason=\"nobody\""
    local outcome = outcome_of(words, policy "2025-12-31")
    assert.same({}, engine.errors(outcome))
    assert.equal("still nobody", outcome.findings[1].waived.reason)
    assert.equal("renewed", outcome.waivers[1].state)
    assert.equal("used", outcome.waivers[2].state)
    outcome = outcome_of(words, policy "2025-06-14")
    assert.equal(1, #engine.errors(outcome))
    assert.equal("expired", outcome.waivers[2].state)
    outcome = outcome_of(words, policy("2025-12-31", 7))
    assert.equal(1, #engine.errors(outcome))
  end)

  it("of moonbird.lua for a migration that is nowhere are told", function()
    local outcome = run(SHAPE, { migration(1, "select 1;") }, { policy = { waivers = { { migration = 99,
      rule = "made-up", expires = "2025-12-31", reason = "a slip of the pen" } } } })
    assert.equal(1, #outcome.waivers)
    assert.is_true(outcome.waivers[1].state ~= "used")
  end)

  it("end on their last day", function()
    local item = waiver_of.of_table({ rule = "made-up", reason = "nobody", expires = "2025-06-15" }, { file = "x" })
    assert.is_nil(item.problem)
    for now, count in pairs { ["2025-06-15"] = 0, ["2025-06-16"] = 1 } do
      assert.equal(count, #engine.errors(outcome_of(
        "-- moonbird:allow made-up until=2025-06-15 reason=\"nobody\"", { now = now })))
    end
  end)
end)

describe("a project's own rules", function()
  --- The rules of these files, or nil and the error.
  local function load(files, taken)
    local list = {}
    for name, text in pairs(files) do
      list["policies/" .. name] = text
    end
    return project.rules(helper.project(list), "policies", taken)
  end

  --- Findings of one file of rules over one migration.
  local function findings(text, options, list)
    local rules = assert(load { ["own.lua"] = text })
    local outcome = run(rules, list or { migration(1, DROP) }, options)
    return outcome.findings, outcome
  end

  it("are loaded with what they leave out", helper.async(function()
    local rules = assert(load { ["b.lua"] = "return { { id = 'b1', check = function() end },"
      .. " { id = 'b2', severity = 'info', check = function() end } }",
      ["a.lua"] = "return { id = 'a', check = function() end }", ["empty.lua"] = "return {}",
      ["a_test.lua"] = "return { rule = 'a' }", ["notes.txt"] = "no Lua" })
    local ids = {}
    for i, item in ipairs(rules) do
      ids[i] = item.id
    end
    assert.same({ "a", "b1", "b2" }, ids)
    assert.equal("error", rules[1].severity)
    assert.equal("policies/a.lua", rules[1].file)
    assert.same({}, assert(project.rules(helper.tmpdir(), "policies")))
  end))

  it("that are broken are refused with the file", helper.async(function()
    local check = "check = function() end"
    for _, text in ipairs { "return {", "return nil", "return 7", "return 'a'", "return { 1 }", "error('broken')",
      "return { id = 'x' }", "return { " .. check .. " }", "return { id = 'X y', " .. check .. " }",
      "return { id = 7, " .. check .. " }", "return { id = 'x', check = 'later' }",
      "return { id = 'x', severity = 'fatal', " .. check .. " }", "return { id = 'x', neds = {}, " .. check .. " }",
      "return { id = 'x', needs = 'live', " .. check .. " }", "return { id = 'x', needs = { 'files' }, " .. check .. " }",
      "return { id = 'x', moments = { 'later' }, " .. check .. " }",
      "return { id = 'x', per = 'file', " .. check .. " }",
      "return { id = 'x', hard = 'yes', " .. check .. " }", "return { id = 'x', options = { max = 3 }, " .. check .. " }",
      "return { id = 'x', last = true, " .. check .. " }", "return { id = 'x', file = '/etc/passwd', " .. check .. " }",
      "return { { id = 'x', " .. check .. " }, { id = 'x', " .. check .. " } }", "while true do end",
      "local t = {} while true do t[#t + 1] = ('x'):rep(1000000) .. #t end",
      "return setmetatable({}, { __index = { id = 'x' } })",
      "return os.getenv('HOME')", "return io.open('/etc/passwd')", "return { id = 'made-by-us', " .. check .. " }",
      "return { id = 'x', 'y', " .. check .. " }", "return (function() return coroutine.yield() end)()" } do
      local rules, err = load({ ["own.lua"] = text }, { ["made-by-us"] = true })
      assert.is_nil(rules, text)
      assert.equal("config", err.code, text)
      assert.equal("policies/own.lua", err.file, text)
    end
  end))

  it("of two files have ids of their own", helper.async(function()
    local text = "return { id = 'same', check = function() end }"
    local rules, err = load { ["a.lua"] = text, ["b.lua"] = text }
    assert.is_nil(rules)
    assert.is_truthy(tostring(err):find("policies/a.lua", 1, true))
    assert.equal("policies/b.lua", err.file)
  end))

  it("may share functions, from their own folder only", helper.async(function()
    local dir = helper.project { ["policies/lib/words.lua"] = "return { id = 'shared' }",
      ["policies/own.lua"] = "local w = require 'lib.words' return { id = w.id, check = function() end }",
      ["secret.lua"] = "return { id = 'stolen' }" }
    local rules, err = project.rules(dir, "policies")
    assert(rules, tostring(err))
    assert.equal("shared", rules[1].id)
    for _, name in ipairs { "secret", "..secret", "lib...secret", "../secret", "/etc/passwd", "moonbird.core.fs" } do
      helper.write(dir, { ["policies/own.lua"] = ("local w = require '%s' return { id = w.id, check = function() end }")
        :format(name) })
      rules, err = project.rules(dir, "policies")
      assert.is_nil(rules, name)
      assert.equal("config", err.code)
    end
  end))

  it("find things, with place and options", helper.async(function()
    local found = findings([[
return { id = "own", options = { word = { default = "users", type = "string" } },
  check = function(ctx)
    for _, st in ipairs(ctx.statements) do
      if st.name == ctx.options.word then
        ctx:report("touches " .. st.name, { at = st, fix = "don't" })
      end
    end
  end }
]])
    assert.equal(1, #found)
    assert.equal("touches users", found[1].message)
    assert.equal("migrations/1_m.sql", found[1].file)
    assert.equal(7, found[1].line)
    assert.equal("don't", found[1].fix)
    assert.equal("drop table users", found[1].statement)
  end))

  it("that fail are findings, which can't be waived", helper.async(function()
    for text, message in pairs {
      ["error('it is broken')"] = "it is broken",
      ["error({ message = 'as a table' })"] = "as a table",
      ["error({ 7 })"] = "with a table instead of a message",
      ["error(nil)"] = "nil",
      ["error(setmetatable({}, { __tostring = function() while true do end end }))"] = "",
      ["local x = nil; x.y = 1"] = "nil",
      ["while true do end"] = "instructions",
      ["while true do pcall(function() while true do end end) end"] = "instructions",
      ["local t = {} while true do t[#t + 1] = ('x'):rep(1 << 20) .. #t end"] = "memory",
      ["coroutine.yield()"] = "",
      ["ctx:report(7)"] = "takes a message",
      ["ctx:report()"] = "takes a message",
      ["ctx.report('x')"] = "takes a message",
      ["ctx:report('x', { at = 'line 7' })"] = "statement",
      ["ctx.migration.phase = 'contract'"] = "read-only",
      ["ctx.statements[1] = nil"] = "read-only",
      ["ctx.statements[1].text = 'select 1'"] = "read-only",
      ["ctx.registry.by_version[1] = nil"] = "read-only",
      ["table.remove(ctx.statements)"] = "read-only",
      ["table.sort(ctx.statements, function(a, b) return a.line > b.line end)"] = "read-only",
      ["setmetatable(ctx, {})"] = "",
      ["rawset(ctx, 'migration', nil)"] = "",
      ["rawset(ctx.statements, 1, nil)"] = "",
      ["rawset(ctx.migration, 'phase', 'contract')"] = "",
      ["os.exit(0)"] = "os",
      ["io.open('/etc/passwd')"] = "io",
      ["require('moonbird.core.fs')"] = "",
      ["debug.getregistry()"] = "debug",
    } do
      local found, outcome = findings(("return { id = 'own', severity = 'info', check = function(ctx)\n%s\nend }")
        :format(text), nil, { migration(1,
          "-- moonbird:allow own until=2025-12-31 reason=\"it is broken\"\n" .. DROP) })
      assert.equal(1, #found, text)
      assert.is_truthy(found[1].message:find("the rule \"own\" failed", 1, true), text .. ": " .. found[1].message)
      assert.is_truthy(found[1].message:find(message, 1, true), text .. ": " .. found[1].message)
      assert.equal("error", found[1].severity, text)
      assert.is_nil(found[1].waived, text)
      assert.equal("policies/own.lua", found[1].file, text)
      assert.equal(1, #engine.errors(outcome))
    end
  end))

  it("that fail in applies are findings too, and the next rule is run", helper.async(function()
    local found = findings [[
return {
  { id = "a", applies = function() error("no") end, check = function(ctx) ctx:report("unseen") end },
  { id = "b", check = function(ctx) ctx:report("seen") end },
}
]]
    assert.equal(2, #found)
    assert.equal("b", found[1].rule)
    assert.is_truthy(found[2].message:find("\"a\" failed", 1, true))
  end))

  it("report what they like and get what is of the right type", helper.async(function()
    local found = findings [[
return { id = "own", check = function(ctx)
  ctx:report("a", { at = { line = "7", column = 1.5, file = 7 }, fix = {}, severity = 9 })
  ctx:report("b", "no table")
  ctx:report("c", { at = { line = 3, column = 2 } })
  ctx:report("d", setmetatable({}, { __index = function() error("touched") end }))
  ctx:report("e", { at = setmetatable({}, { __index = function() error("touched") end }) })
  ctx:report("f", ctx.statements[1])
end }
]]
    assert.equal(6, #found)
    local by_message = {}
    for _, finding in ipairs(found) do
      by_message[finding.message] = finding
    end
    assert.is_nil(by_message.a.line)
    assert.is_nil(by_message.a.column)
    assert.equal("migrations/1_m.sql", by_message.a.file)
    assert.equal("error", by_message.a.severity)
    assert.is_nil(by_message.a.fix)
    assert.equal(3, by_message.c.line)
    assert.equal(2, by_message.c.column)
  end))

  it("can't report a place that no output can hold", helper.async(function()
    local found = findings [[
return { id = "own", check = function(ctx)
  ctx:report("a", { at = { line = -5, column = 0 } })
  ctx:report("b", { at = { line = 0 } })
end }
]]
    for _, finding in ipairs(found) do
      assert.is_true(finding.line == nil or finding.line >= 1)
      assert.is_true(finding.column == nil or finding.column >= 1)
    end
  end))

  it("can't drown a run in findings", helper.async(function()
    local found = findings "return { id = 'own', check = function(ctx) while true do ctx:report('x') end end }"
    assert.is_true(#found <= 2000, #found .. " findings")
    found = findings [[
return { id = "own", check = function(ctx)
  local long = ("x"):rep(1 << 20)
  for i = 1, 500 do ctx:report(long .. i) end
end }
]]
    local size = 0
    for _, finding in ipairs(found) do
      size = size + #finding.message
    end
    assert.is_true(size < 16 << 20, size .. " bytes")
  end))

  it("see nothing that another rule has left behind", helper.async(function()
    local found = findings [[
local left
return {
  { id = "a", check = function(ctx)
    pcall(function() ctx.left = "here" end)
    pcall(rawset, ctx, "left", "here")
    pcall(rawset, ctx, "statements", {})
    pcall(rawset, ctx.migration, "version", 99)
    pcall(rawset, ctx.statements, 1, nil)
    pcall(table.insert, ctx.statements, {})
  end },
  { id = "b", check = function(ctx)
    ctx:report(("%s %d %d"):format(tostring(ctx.left), ctx.migration.version, #ctx.statements))
  end },
}
]]
    assert.equal("nil 1 2", found[1].message)
  end))

  it("of another file have globals of their own", helper.async(function()
    local rules = assert(load { ["a.lua"] = "leak = 'here' return { id = 'a', check = function() string_leak = 1 end }",
      ["b.lua"] = "return { id = 'b', check = function(ctx) ctx:report(tostring(rawget(_G, 'leak'))) end }" })
    assert.equal("nil", run(rules, { migration(1, DROP) }).findings[1].message)
  end))

  it("are not handed what the engine works with", helper.async(function()
    local found = findings [[
return { id = "own", check = function(ctx)
  local functions = {}
  local function walk(name, value, depth)
    if type(value) == "function" then
      functions[#functions + 1] = name
    elseif type(value) == "table" and depth < 4 then
      for key, item in pairs(value) do
        walk(name .. "." .. tostring(key), item, depth + 1)
      end
    elseif type(value) == "userdata" or type(value) == "thread" then
      functions[#functions + 1] = name .. " (" .. type(value) .. ")"
    end
  end
  walk("ctx", ctx, 0)
  table.sort(functions)
  ctx:report(table.concat(functions, " "))
end }
]]
    assert.equal("ctx.report", found[1].message)
  end))

  it("can't have the migration's function called with what the engine works with", helper.async(function()
    local lua = migration(3, [[
return { up = function(db) db.kind, db.stolen = "sql", true end, down = "select 1" }
]], "lua")
    findings([[
return { id = "own", check = function(ctx)
  local function walk(value, depth)
    for _, key in ipairs { "loaded_", "up", "fn" } do
      pcall(function()
        if type(value[key]) == "function" then
          value[key](value)
        elseif type(value[key]) == "table" and depth < 4 then
          walk(value[key], depth + 1)
        end
      end)
    end
  end
  walk(ctx.migration, 0)
end }
]], nil, { lua })
    assert.equal("function", lua.up.kind)
    assert.is_nil(lua.up.stolen)
  end))
end)

describe("the view of a rule", function()
  local original = { list = { "a", "b", { deep = { 1, 2, 3 } } }, name = "x", count = 3, nothing = false }
  function original.greet(self, word)
    return word .. " " .. self.name, { made = true }
  end

  it("reads as the table behind it", function()
    local view = view_of.of(original)
    assert.equal("x", view.name)
    assert.is_false(view.nothing)
    assert.equal(3, #view.list)
    assert.equal("b", view.list[2])
    assert.equal(2, view.list[3].deep[2])
    local seen = {}
    for i, item in ipairs(view.list[3].deep) do
      seen[i] = item
    end
    assert.same({ 1, 2, 3 }, seen)
    local keys = {}
    for key, item in pairs(view) do
      keys[#keys + 1] = key
      assert.equal(type(original[key]), type(item))
    end
    table.sort(keys)
    assert.same({ "count", "list", "name", "nothing" }, keys) -- functions are not shown
    assert.equal("a", (table.unpack(view.list)))
    assert.equal("1,2,3", table.concat(view.list[3].deep, ","))
    assert.is_nil(view.missing)
    assert.is_nil(next(view))
  end)

  it("is the same for the same table", function()
    local view = view_of.of(original)
    assert.is_true(view.list == view.list)
    assert.equal(original.list, view_of.original(view.list))
    assert.equal(7, view_of.original(7))
    local plain = {}
    assert.equal(plain, view_of.original(plain))
  end)

  it("keeps the methods of objects, and what they give is a view too", function()
    assert.is_nil(view_of.of(original).greet)
    local view = view_of.of(original, { [original] = true })
    local text, made = view:greet "hello"
    assert.equal("hello x", text)
    assert.is_true(made.made)
    assert.has_error(function()
      made.made = false
    end)
  end)

  it("can't be written, nor its metatable changed", function()
    local view = view_of.of(original)
    for _, write in ipairs {
      function() view.name = "y" end, function() view.new = 1 end, function() view.list[1] = "z" end,
      function() view.list[3].deep[4] = 4 end, function() table.insert(view.list, "c") end,
      function() table.remove(view.list) end, function() setmetatable(view, {}) end,
      function() view.greet = nil end,
    } do
      assert.is_false((pcall(write)))
    end
    assert.is_false(getmetatable(view))
    assert.same({ "a", "b", { deep = { 1, 2, 3 } } }, original.list)
    assert.equal("x", original.name)
  end)

  it("shows what is made when it is first asked for", function()
    local view = view_of.of(setmetatable({}, { __index = function(_, key)
      return key == "later" and { 1 } or nil
    end }))
    assert.equal(1, view.later[1])
    assert.is_nil(view.never)
  end)
end)

describe("the same input", function()
  it("gives the same findings in the same order, twice", function()
    local rules = builtin.rules()
    local list = {}
    for i = 1, 12 do
      list[i] = migration(20250101000000 + i, ("create table t%d (id int, other_id int references t%d (id));\n"
        .. "create index i%d on users (a);\nupdate users set a = %d;\ngrant all on users to public;\n"
        .. "alter table users drop column c%d;"):format(i, i - 1, i, i, i))
    end
    local function shown()
      local lines = {}
      local outcome = run(rules, list)
      for i, finding in ipairs(outcome.findings) do
        lines[i] = ("%s:%s:%s %s %s %s"):format(finding.file, finding.line, finding.column, finding.severity, finding.rule,
          finding.message)
      end
      for _, item in ipairs(outcome.unchecked) do
        lines[#lines + 1] = ("%s %s %d"):format(item.rule, item.needs, item.count)
      end
      return lines
    end
    local first = shown()
    assert.is_true(#first > 40)
    assert.same(first, shown())
    for i = #list, 2, -1 do -- in another order
      local j = (i * 7) % i + 1
      list[i], list[j] = list[j], list[i]
    end
    table.sort(list, function(a, b)
      return a.version < b.version
    end)
    assert.same(first, shown())
  end)

  it("at another moment runs the rules of that moment", function()
    local rules = { rule { id = "always", moments = { "check", "before", "after" } }, rule { id = "default" },
      rule { id = "late", moments = { "after" } } }
    local function ids(moment)
      local seen = {}
      for i, finding in ipairs(run(rules, { migration(1, DROP) }, { moment = moment }).findings) do
        seen[i] = finding.rule
      end
      return table.concat(seen, " ")
    end
    assert.equal("always default", ids "check")
    assert.equal("always default", ids "before")
    assert.equal("always late", ids "after")
  end)

  it("a direction down is looked at by its own statements", function()
    local two = migration(1, HEAD .. "-- migrate:up\nselect 1;\n-- migrate:down\ndrop table users;\n")
    assert.equal(0, #run({ rule() }, { two }).findings)
    local found = run({ rule() }, { two }, { direction = "down" }).findings
    assert.equal(1, #found)
    assert.equal(8, found[1].line)
  end)
end)
