-- moonbird policy: list, explain, test, waivers, facts; and moonbird.testing in plain busted.
-- The same on every server.
local fs = require "moonbird.core.fs"
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local outputs = require "tests.outputs"
local process = require "moonbird.core.process"
local texts = require "tests.texts"
local async = helper.async
local has = texts.has

local HEAD = "-- description: This migration is made up for a test of the command\n-- phase: expand\n-- scope: global\n"
  .. "-- compatibility: backward_compatible\n"

local RULE = [[
return { id = "no-cats", group = "taste", severity = "warning", title = "no table is called cats",
  explain = "Cats are not data.", fix = "call it felines", seeds = { "House rule 1: no cats" },
  options = { word = { default = "cats", type = "string", help = "what is not liked" } },
  examples = { bad = "-- migrate:up\ncreate table cats (i int);\n-- migrate:down\ndrop table cats;\n" },
  check = function(ctx)
    for _, st in ipairs(ctx.statements) do
      if st.name == ctx.options.word then
        ctx:report("the table is called " .. st.name, { at = st })
      end
    end
  end }
]]

local TESTS = [[
return { rule = "no-cats",
  flagged = {
    { name = "a table of cats", sql = "create table cats (i int);", line = 6, message = "called cats" },
    { name = "as configured", sql = "create table dogs (i int);", options = { word = "dogs" } },
  },
  clean = { { name = "dogs", sql = "create table dogs (i int);" } } }
]]

describe("moonbird policy", function()
  local dir

  before_each(async(function()
    dir = helper.project {}
  end))

  local function policy(status, ...)
    return helper.ok({ "policy", ... }, { cwd = dir, status = status, env = { DATABASE_URL = "postgres:///x?host=/nowhere" } })
  end

  local function policy_json(status, ...)
    return json.decode(policy(status, "--json", ...).stdout)
  end

  describe("list", function()
    it("shows every rule with its severity here, its group, title, options and origin", async(function()
      helper.write(dir, { ["policies/cats.lua"] = RULE, ["moonbird.lua"] = [[return {
        policy = { rules = { ["dml-where"] = "off", ["no-cats"] = { severity = "error", word = "tigers" } } },
        environments = { strict = { policy = { rules = { ["dml-where"] = "warning" } } } } }]] })
      local text = policy(0, "list").stdout
      has(text, "\nshape\n")
      has(text, "\ntaste\n  error  no-cats  no table is called cats  word = \"tigers\"  policies/cats.lua\n")
      assert.truthy(text:find("\n  off +dml%-where "), text)
      assert.truthy(policy(0, "list", "-e", "strict").stdout:find("\n  warning +dml%-where "))
      local by_id = {}
      for _, rule in ipairs(policy_json(0, "list").rules) do
        by_id[rule.id] = rule
      end
      assert.equal("off", by_id["dml-where"].severity)
      assert.equal("built in", by_id["dml-where"].source)
      assert.same({ "error", "warning", "policies/cats.lua", "tigers", "taste" }, { by_id["no-cats"].severity,
        by_id["no-cats"].default_severity, by_id["no-cats"].source, by_id["no-cats"].options.word, by_id["no-cats"].group })
    end))

    it("takes no argument, and refuses broken settings", async(function()
      policy(2, "list", "x")
      policy(2)
      policy(2, "frobnicate")
      helper.write(dir, { ["moonbird.lua"] = "return { policy = { rules = { nonsense = 'off' } } }" })
      has(policy(2, "list").stderr, "nonsense")
    end))
  end)

  describe("explain", function()
    it("tells everything about each rule there is", async(function()
      for _, rule in ipairs(policy_json(0, "list").rules) do
        local text = policy(0, "explain", rule.id).stdout
        has(text, rule.id .. ": ")
        local told = policy_json(0, "explain", rule.id).rule
        assert.is_true(#told.explain > 80, rule.id)
        assert.is_true(#told.seeds > 0, rule.id .. " names no seed")
        assert.is_true(#told.examples > 0, rule.id .. " has no examples")
      end
      has(policy(0, "explain", "unreadable").stdout, "can't be waived")
    end))

    it("shows examples, seeds, options and what is set here", async(function()
      helper.write(dir, { ["policies/cats.lua"] = RULE, ["moonbird.lua"] = [[return {
        policy = { rules = { ["no-cats"] = { severity = "error", word = "tigers" } } } }]] })
      local text = policy(0, "explain", "no-cats").stdout
      for _, part in ipairs { "no-cats: no table is called cats", "error here (warning by default)", "policies/cats.lua",
        "Cats are not data.\n", "\nfix: call it felines\n", "\n  word  \"tigers\" (default \"cats\")  what is not liked\n",
        "\nflagged:\n    -- migrate:up\n    create table cats (i int);\n", "\nfrom:\n  House rule 1: no cats\n" } do
        has(text, part)
      end
    end))

    it("hints at the rule that was meant", async(function()
      has(policy(2, "explain", "dml-were").stderr, "dml-where")
      has(policy(2, "explain").stderr, "takes the id of a rule")
    end))
  end)

  describe("test", function()
    it("runs the cases beside the rules", async(function()
      helper.write(dir, { ["policies/cats.lua"] = RULE, ["policies/cats_test.lua"] = TESTS })
      has(policy(0, "test").stdout, "no-cats  3 passed, 0 failed\n3 passed, 0 failed\n")
      has(policy(0, "test", "policies/").stdout, "3 passed, 0 failed\n")
      local answer = policy_json(0, "test", "--junit", "out/j.xml")
      assert.equal(3, answer.passed)
      assert.same({ "no-cats", "flagged", "a table of cats", true }, { answer.tests[1].rule, answer.tests[1].kind,
        answer.tests[1].name, answer.tests[1].passed })
      local root = outputs.xml(assert(fs.read(dir .. "/out/j.xml")))
      assert.same({ "3", "0" }, { root.attributes.tests, root.attributes.failures })
    end))

    it("says what was expected and what was found", async(function()
      helper.write(dir, { ["policies/cats.lua"] = RULE, ["policies/cats_test.lua"] = [[
return { { rule = "no-cats",
  flagged = { { name = "wrong line", sql = "create table cats (i int);", line = 99 },
    { name = "nothing there", sql = "select 1;" }, { name = "no text" } },
  clean = { { name = "cats", sql = "create table cats (i int);" }, { sql = "select 1;" } } },
  { rule = "no-such-rule", clean = {} } }]] })
      local text = policy(1, "test", "--junit", "j.xml").stdout
      for _, part in ipairs { "no-cats  1 passed, 4 failed", "policies/cats_test.lua: flagged \"wrong line\": ", "line 99",
        "flagged \"nothing there\": the rule found nothing", "clean \"cats\": found although it is clean: ",
        "neither sql nor lua", "there is no rule \"no-such-rule\"", "\n1 passed, 5 failed\n" } do
        has(text, part)
      end
      local root = outputs.xml(assert(fs.read(dir .. "/j.xml")))
      assert.same({ "6", "5" }, { root.attributes.tests, root.attributes.failures })
      local answer = policy_json(1, "test")
      assert.is_false(answer.ok)
      assert.equal(5, answer.failed)
      assert.truthy(answer.tests[1].why:find("line 99", 1, true))
    end))

    it("warns of rules without tests", async(function()
      helper.write(dir, { ["policies/cats.lua"] = RULE })
      has(policy(0, "test").stdout, "warning: the rule no-cats has no test")
      assert.same({ "no-cats" }, policy_json(0, "test").untested)
      helper.write(dir, { ["policies/cats_test.lua"] = "return { rule = 'no-cats', clean = { { sql = 'select 1;' } } }" })
      assert.same({ "no-cats" }, policy_json(0, "test").untested)
    end))

    it("runs the folder it is given, also for rules that are off", async(function()
      helper.write(dir, { ["rules/cats.lua"] = RULE, ["rules/cats_test.lua"] = TESTS })
      has(policy(0, "test").stdout, "no rules of its own")
      has(policy(0, "test", "rules").stdout, "3 passed, 0 failed\n")
      has(policy(2, "test", "nowhere").stderr, "there is no folder \"nowhere\"")
      helper.write(dir, { ["moonbird.lua"] = "return { policy = { dir = 'rules', rules = { ['no-cats'] = 'off' } } }" })
      has(policy(0, "test").stdout, "3 passed, 0 failed\n")
    end))

    it("refuses files that are no tests", async(function()
      helper.write(dir, { ["policies/cats.lua"] = RULE })
      for text, said in pairs { ["return {"] = "cats_test.lua", ["return 1"] = "must return", ["return { flagged = {} }"] = "needs the id",
        ["return { rule = 'no-cats', bad = {} }"] = "no key \"bad\"", ["return { rule = 'no-cats', clean = 1 }"] = "must be a table",
        ["return { rule = 'no-cats', clean = { 'x' } }"] = "list of cases", ["while true do end"] = "cats_test.lua" } do
        helper.write(dir, { ["policies/cats_test.lua"] = text })
        has(policy(2, "test").stderr, said)
      end
    end))
  end)

  it("waivers shows all of them with what became of each", async(function()
    local function waived(up)
      return HEAD .. "-- migrate:up\n" .. up .. "\n-- migrate:down\ndrop table if exists t;\n"
    end
    local allow = "-- moonbird:allow dml-where until=%s reason=\"%s\"\n"
    helper.write(dir, {
      ["migrations/001_a.sql"] = waived(allow:format("2999-01-31", "three rows") .. "update users set a = 1;"),
      ["migrations/002_b.sql"] = waived(allow:format("2999-01-31", "not needed") .. "select 1;"),
      ["migrations/003_c.sql"] = waived(allow:format("2020-01-31", "long ago") .. "update users set a = 1;"),
      ["migrations/004_d.sql"] = waived("-- moonbird:allow no-such until=2999-01-31 reason=\"why not\"\nselect 1;"),
      ["migrations/005_e.sql"] = waived("-- moonbird:allow dml-where\nselect 1;"),
      ["migrations/006_f.sql"] = waived("update users set a = 1;"),
      ["moonbird.lua"] = [[return { policy = { waivers = {
        { migration = 6, rule = "dml-where", reason = "agreed with ops", expires = "2999-01-31", ticket = "T-9" } } } }]],
    })
    local text = policy(0, "waivers").stdout
    for _, pattern in ipairs { "used +dml%-where +until 2999%-01%-31 +migrations/001_a%.sql:6 +three rows",
      "unused +dml%-where .*002_b%.sql:6", "expired +dml%-where +until 2020%-01%-31 +migrations/003_c", "unknown +no%-such ",
      "broken +dml%-where +no end +migrations/005_e", "used +dml%-where .*moonbird%.lua.* agreed with ops %(T%-9%)" } do
      assert.truthy(text:find(pattern), pattern .. "\n" .. text)
    end
    local states = {}
    for _, item in ipairs(policy_json(0, "waivers").waivers) do
      states[item.version] = item.state
    end
    assert.same({ ["1"] = "used", ["2"] = "unused", ["3"] = "expired", ["4"] = "unknown", ["5"] = "broken", ["6"] = "used" },
      states)
    assert(fs.remove_tree(dir .. "/migrations"))
    assert(fs.mkdir(dir .. "/migrations"))
    has(policy(0, "waivers").stdout, "there is no migration 6")
    helper.write(dir, { ["moonbird.lua"] = "return {}" })
    has(policy(0, "waivers").stdout, "no waivers")
  end))

  describe("facts", function()
    it("prints what rules see of a file, wherever it is", async(function()
      helper.write(dir, { ["moonbird.lua"] = "return {}", ["elsewhere/007_x.sql"] = HEAD
        .. "-- migrate:up transaction:false\ncreate table cats (id int);\ncreate index concurrently i on public.dogs (a, b);\n-- migrate:down\ndrop table cats;\n" })
      local facts = json.decode(policy(0, "facts", "elsewhere/007_x.sql").stdout)
      assert.same({ "7", "expand", "007_x.sql" }, { facts.version, facts.phase, facts.base_name })
      local table_, index = facts.up.statements[1], facts.up.statements[2]
      assert.same({ "create", "table", "cats", true, 6 }, { table_.verb, table_.kind, table_.name, table_.new, table_.line })
      assert.same({ "create", "index", true, { "a", "b" } }, { index.verb, index.kind, index.concurrently, index.columns })
      assert.equal("drops table cats", facts.down.statements[1].destroys)
      assert.is_nil(table_.tree)
      facts = policy_json(0, "facts", "elsewhere/007_x.sql", "--tree").facts
      assert.equal("table", type(facts.up.statements[1].tree.CreateStmt))
      has(policy(0, "facts", "elsewhere/007_x.sql").stdout, "\"schemas\":\t[]")
    end))

    it("of Lua and of what can't be parsed", async(function()
      helper.write(dir, { ["migrations/001_a.lua"] = "return { up = function(db) end, down = 'drop tabel x' }" })
      local facts = policy_json(0, "facts", "migrations/001_a.lua").facts
      assert.same({ "function", true }, { facts.up.kind, facts.up.opaque })
      assert.is_false(facts.down.statements[1].parsed)
      assert.is_string(facts.down.statements[1].problem)
    end))

    it("refuses what is no migration", async(function()
      helper.write(dir, { ["migrations/001_a.sql"] = "select 1;", ["x.txt"] = "x" })
      policy(2, "facts")
      policy(2, "facts", "nowhere.sql")
      has(policy(2, "facts", "x.txt").stderr, "is no migration")
      has(policy(2, "facts", "migrations/001_a.sql").stderr, "001_a.sql:1")
    end))
  end)
end)

describe("moonbird.testing", function()
  it("tests rules in plain busted", async(function()
    local dir = helper.project { ["policies/cats.lua"] = RULE, ["cats_spec.lua"] = [[
local testing = require "moonbird.testing"
testing.rules("policies")
describe("cats", function()
  it("are found", function()
    testing.flagged({ sql = "create table cats (i int);", line = 6 }, "no-cats")
    testing.clean({ sql = "create table dogs (i int);" }, "no-cats")
    testing.flagged({ sql = "update t set a = 1;" }, "dml-where")
    assert.equal("no-cats", testing.check({ sql = "create table cats (i int);" })[1].rule)
  end)
  it("fail readably", function()
    local function says(part, fn, ...)
      local ok, err = pcall(fn, ...)
      assert.is_false(ok)
      assert.truthy(tostring(err):find(part, 1, true), tostring(err))
      assert.truthy(tostring(err):find("cats_spec.lua:", 1, true), tostring(err))
    end
    says("no-cats (mine): the rule found nothing", function() testing.flagged({ name = "mine", sql = "select 1;" }, "no-cats") end)
    says("found although it is clean", function() testing.clean({ sql = "create table cats (i int);" }, "no-cats") end)
    says("there is no rule \"nope\"", function() testing.clean({ sql = "select 1;" }, "nope") end)
    says("neither sql nor lua", function() testing.check({}) end)
    says("policies/broken", function()
      local file = assert(io.open("policies/broken.lua", "w"))
      file:write("return {")
      file:close()
      testing.rules("policies")
    end)
  end)
end)
]] }
    local result = assert(process.run { file = "busted", cwd = dir, env = { LUA_PATH = false },
      args = { "--lua=" .. helper.bin():gsub("moonbird$", "moonbird-lua"), "--output=plainTerminal", "cats_spec.lua" } })
    assert.equal(0, result.status, result.stdout .. result.stderr)
    has(result.stdout, "2 successes / 0 failures / 0 errors")
  end))
end)
