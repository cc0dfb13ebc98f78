-- One migration file taken apart: .sql and .lua.
local fs = require "moonbird.core.fs"
local registry = require "moonbird.migration.registry"
local sys = require "moonbird.core.sys"

local function entry(file, text)
  return {
    version = 1, version_text = "001", name = "x", id = "001_x", kind = file:match("%a+$"),
    file = "migrations/" .. file, text = text, checksum = sys.sha256(text),
  }
end

local function load(file, text, options)
  local migration, problems = registry.load(entry(file, text), options)
  assert.are.same({}, problems)
  return migration
end

-- The problems as "line:column message | hint".
local function problems_of(file, text, options)
  local migration, problems = registry.load(entry(file, text), options)
  assert.is_nil(migration)
  local shown = {}
  for i, problem in ipairs(problems) do
    assert.are.equal("migrations/" .. file, problem.file)
    shown[i] = ("%s:%s %s%s"):format(problem.line or "-", problem.column or "-", problem.message,
      problem.hint and " | " .. problem.hint or "")
  end
  return shown
end

local function block_text(step, i)
  return step.text:sub(step.blocks[i].first, step.blocks[i].last)
end

describe("a .sql migration", function()
  it("has a header, blocks and statements", function()
    local m = load("001_x.sql", table.concat({
      "-- Migration: 001_x.sql",
      "-- description: Create users",
      "-- phase: contract",
      "-- scope: tenant",
      "-- compatibility: BackwardCompatible",
      "-- timeouts: lock=2s, statement=5m",
      "-- owner: team db",
      "-- completes: 3, 4",
      "-- tags: a, b",
      "-- id: users",
      "",
      "-- migrate:up",
      "create table a();",
      "create table b();",
      "-- migrate:down transaction:false",
      "drop table b, a;",
    }, "\r\n"))
    assert.are.equal("Create users", m.description)
    assert.are.equal("contract", m.phase)
    assert.are.equal("tenant", m.scope)
    assert.are.equal("backward_compatible", m.compatibility)
    assert.are.same({ lock = 2000, statement = 300000 }, m.timeouts)
    assert.are.equal("team db", m.owner)
    assert.are.same({ 3, 4 }, m.completes)
    assert.are.same({ "a", "b" }, m.tags)
    assert.are.equal("users", m.stable_id)
    assert.are.equal("001_x", m.id)
    assert.are.equal(1, m.sections)
    assert.is_true(m.transaction)
    assert.is_false(m.down_transaction)
    assert.are.equal("sql", m.up.kind)
    assert.are.equal(1, m.up.origin_line)
    assert.are.equal(13, m.up.blocks[1].line)
    assert.are.equal(2, #m.up.blocks[1].statements)
    assert.are.equal("create table a();\r\ncreate table b();\r\n", block_text(m.up, 1))
    assert.is_false(m.down.blocks[1].transaction)
  end)

  it("has defaults", function()
    local m = load("001_x.sql", "-- migrate:up\n-- migrate:down\n")
    assert.are.same({ "expand", "global", "backward_compatible", true },
      { m.phase, m.scope, m.compatibility, m.transaction })
    assert.are.same({}, m.timeouts)
    assert.is_nil(m.description)
    assert.are.equal(0, #m.down.blocks[1].statements)
    m = load("001_x.sql", "-- phase: contract\n-- migrate:up\n-- migrate:down\n")
    assert.are.equal("contract_breaking", m.compatibility)
  end)

  it("takes the purpose for a description, and a project's own phase for prose", function()
    local m = load("001_x.sql", "-- Purpose: Jobs\n-- Phase: 1\n-- Checklist: x.md\n-- migrate:up\n-- migrate:down\n")
    assert.are.equal("Jobs", m.description)
    assert.are.equal("expand", m.phase)
  end)

  it("is one migration with several sections", function()
    local m = load("001_x.sql", "-- migrate:up\nselect 1;\n-- migrate:down\nselect 2;\n"
      .. "-- migrate:up transaction:false\nvacuum;\n-- migrate:down\n")
    assert.are.equal(2, m.sections)
    assert.are.equal(2, #m.up.blocks)
    assert.are.equal("vacuum;\n", block_text(m.up, 2))
    assert.is_false(m.transaction)
    assert.is_true(m.down_transaction)
  end)

  it("may be irreversible, with a reason and an empty down", function()
    local m = load("001_x.sql", "-- irreversible: the rows are gone\n-- migrate:up\n-- migrate:down\n")
    assert.are.equal("the rows are gone", m.irreversible)
    assert.is_nil(m.down)
    assert.are.same(
      { "4:1 the migration has a down and says it is irreversible | empty the down block, or remove the comment" },
      problems_of("001_x.sql", "-- irreversible: x\n-- migrate:up\n-- migrate:down\nselect 1;"))
    assert.are.same(
      { '1:1 "irreversible" has no reason | say why there is no way back: -- irreversible: the rows are gone' },
      problems_of("001_x.sql", "-- irreversible:\n-- migrate:up\n-- migrate:down\n"))
  end)

  it("does not end or break the transaction it runs in", function()
    local inside = " inside a migration that moonbird runs in a transaction | remove it, or write "
    assert.are.same({
      "2:1 BEGIN" .. inside .. "`-- migrate:up transaction:false`",
      "3:3 CREATE INDEX CONCURRENTLY cannot run inside a transaction | write `-- migrate:up transaction:false`",
      "4:1 COMMIT" .. inside .. "`-- migrate:up transaction:false`",
      "6:1 ROLLBACK" .. inside .. "`-- migrate:down transaction:false`",
    }, problems_of("001_x.sql", "-- migrate:up\nbegin;\n  create index concurrently i on t(a);\ncommit;\n"
      .. "-- migrate:down\nrollback;\n"))
  end)

  it("may do all that without a transaction, and may use savepoints with one", function()
    load("002_x.sql", "-- migrate:up transaction:false\nvacuum;\n-- migrate:down\n")
    load("001_x.sql", "-- migrate:up transaction:false\nbegin; commit;\n"
      .. "-- migrate:down\nsavepoint a; rollback to a;\n")
  end)

  it("is not fooled by quotes and comments", function()
    load("001_x.sql", "-- migrate:up\nselect 'commit'; /* begin; */ -- rollback;\n"
      .. "do $$ begin perform 1; end $$;\n-- migrate:down\n")
  end)

  it("tells every problem with its place", function()
    assert.matches("^2:8 ", problems_of("001_x.sql", "-- migrate:up\nselect 'x;\n-- migrate:down\n")[1])
    assert.are.same({
      '1:1 "phase" must be "expand" or "contract", not "contrct" | did you mean "contract"?',
      '2:1 unknown key "scop" in the file\'s head | did you mean "scope"?',
      '3:1 unknown key "irreversable" in the file\'s head | did you mean "irreversible"?',
      '4:1 "timeouts" must look like `lock=2s statement=5m`',
      '5:1 "completes" must be a version or a list of versions (integers, or digits in a string)',
      '6:1 "barrier" must be true or false, not "no"',
    }, problems_of("001_x.sql", "-- phase: contrct\n-- scop: tenant\n-- irreversable: yes\n-- timeouts: 5s\n"
      .. "-- completes: all\n-- barrier: no\n-- migrate:up\n-- migrate:down\n"))
    assert.matches("^1:1 .*define an up block", problems_of("001_x.sql", "")[1])
    assert.are.same({ "2:- the file contains a zero byte, which no SQL text can hold" },
      problems_of("001_x.sql", "-- migrate:up\n\0"))
  end)

  it("accepts a byte order mark", function()
    local m = load("001_x.sql", "\239\187\191-- description: B\n-- migrate:up\nselect 1;\n-- migrate:down\n")
    assert.are.equal("B", m.description)
    assert.are.equal(3, m.up.blocks[1].line)
  end)
end)

describe("a .lua migration", function()
  it("has functions", function()
    local m = load("001_x.lua", [[
return {
  description = "Create users",
  up = function(db)
    return db
  end,
  down = function() end,
}]])
    assert.are.equal("Create users", m.description)
    assert.are.same({ "function", 3 }, { m.up.kind, m.up.line })
    assert.are.equal(5, m.up.fn(5))
    assert.are.equal(6, m.down.line)
    assert.is_true(m.transaction)
    assert.are.equal("001_x", m.id)
  end)

  it("has strings of SQL, with their place in the file", function()
    local m = load("001_x.lua", 'return {\n  transaction = false,\n  up = [[\nvacuum;\n]],\n  down = "select 1",\n}')
    assert.are.same({ "sql", "vacuum;\n", 4, 1 }, { m.up.kind, m.up.text, m.up.origin_line, m.up.origin_column })
    assert.are.same({ 6, 11 }, { m.down.origin_line, m.down.origin_column })
    assert.is_false(m.up.blocks[1].transaction)
    assert.are.equal(1, #m.up.blocks[1].statements)
  end)

  it("keeps every key", function()
    local m = load("001_x.lua", [[return {
      up = "select 1", phase = "contract", scope = "tenant", compatibility = "contract_breaking",
      timeouts = { lock = "2s", statement = 0 }, completes = { 3, "0004" }, irreversible = "because",
      backfill = { table = "t", set = "a = 1" }, barrier = false, waivers = { { rule = "x" } }, owner = "me",
      purpose = "p", rationale = "r", id = "stable", tags = { "a" },
    }]])
    assert.are.same({ lock = 2000, statement = 0 }, m.timeouts)
    assert.are.same({ 3, 4 }, m.completes)
    assert.are.equal("because", m.irreversible)
    assert.is_nil(m.down)
    assert.is_false(m.barrier)
    assert.are.equal("stable", m.stable_id)
    assert.are.same({ table = "t", set = "a = 1", mode = "set", options = {} }, m.backfill)
  end)

  it("tells every problem of the table with its line", function()
    assert.are.same({
      '2:- unknown key "descripton" | did you mean "description"?',
      '3:- "phase" must be "expand" or "contract", not "Contract" | did you mean "contract"?',
      '4:- "scope" must be "global" or "tenant", not a number',
      '5:- "timeouts" "lock": "5" has no unit; write it like "400ms", "5s", "2m" or "1h30m" ("0" for no limit)',
      '6:- "down" must be a function or a string of SQL, not a boolean',
      '7:- "transaction" must be true or false, not a string',
      '8:- "irreversible" must not be empty',
      '8:- the migration has a "down" and says it is irreversible | keep one of the two',
      '9:- "tags" must be a list of strings',
      '10:- "completes" must be a version or a list of versions (integers, or digits in a string)',
    }, (function()
      local list = problems_of("001_x.lua", [[return {
  descripton = "x",
  phase = "Contract",
  scope = 5,
  timeouts = { lock = 5 },
  down = true,
  transaction = "false",
  irreversible = " ",
  tags = { 1 },
  completes = { last = 1 },
}]])
      assert.are.equal('1:- the migration has no "up" | up is a function(db) or a string of SQL', table.remove(list, 1))
      return list
    end)())
  end)

  it("does not end or break the transaction it runs in", function()
    assert.are.same({
      "4:3 BEGIN inside a migration that moonbird runs in a transaction | remove it, or set `transaction = false`",
      "6:11 VACUUM cannot run inside a transaction | set `transaction = false`",
    }, problems_of("001_x.lua", 'return {\n  up = [[\n  select 1;\n  begin;\n]],\n  down = "vacuum",\n}'))
  end)

  for text, expected in pairs({
    ["return {\n up = function( end }"] = "^2:%- .*expected near 'end'",
    ["\n\nerror 'no'"] = "^3:%- no$",
    ["return 5"] = "^%-:%- the file must return a table, not a number",
    [""] = "^%-:%- the file must return a table, not nothing",
    ["return setmetatable({ up = '' }, {})"] = "has a metatable",
    ["return { up = io.open }"] = '"io" is not available in a migration',
    ["while true do end"] = "more than 100,000 instructions",
    ["local t = {} for i = 1, 1e5 do t[i] = ('x'):rep(1e5) .. i end"] = "more memory",
    ["\27Lua"] = "bytecode",
    ['return { up = "select \\0" }'] = "zero byte",
    ["return require 'lib.x'"] = "no module folder",
  }) do
    it(("refuses %q"):format(text), function()
      local limits = { instructions = 100000, memory = 20 << 20 }
      assert.matches(expected, problems_of("001_x.lua", text, { limits = limits })[1])
    end)
  end

  it("sees what it is given", function()
    local m = load("001_x.lua", "return { description = thing, up = '' }", { extra = { thing = "given" } })
    assert.are.equal("given", m.description)
  end)

  it("requires modules below its folder, and only those", function()
    local dir = assert(fs.tempdir("moonbird-lua-"))
    assert(fs.mkdir(dir .. "/m/lib"))
    assert(fs.write(dir .. "/secret.lua", "return 'secret'"))
    assert(fs.write(dir .. "/m/lib/words.lua", "return { hello = require('lib.other') }"))
    assert(fs.write(dir .. "/m/lib/other.lua", "return 'hello'"))
    assert(fs.write(dir .. "/m/lib/broken.lua", "\nreturn ="))
    assert(os.execute(("ln -s ../secret.lua %q"):format(dir .. "/m/link.lua")))
    local function try(text)
      local e = entry("001_x.lua", text)
      e.path = dir .. "/m/001_x.lua"
      return registry.load(e)
    end
    local m = assert(try("return { description = require('lib.words').hello, up = '' }"))
    assert.are.equal("hello", m.description)
    local _, problems = try("\nreturn require 'link'")
    assert.matches("leads out of the migrations folder", problems[1].message)
    assert.are.equal("migrations/001_x.lua", problems[1].file)
    _, problems = try("return require 'lib.none'")
    assert.matches('there is no file "migrations/lib/none.lua"', problems[1].message)
    _, problems = try("return require 'lib.broken'")
    assert.are.same({ "migrations/lib/broken.lua", 2 }, { problems[1].file, problems[1].line })
    fs.remove_tree(dir)
  end)
end)
