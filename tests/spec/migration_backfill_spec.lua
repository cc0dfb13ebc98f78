local backfill = require "moonbird.migration.backfill"
local registry = require "moonbird.migration.registry"
local sha256 = require("moonbird.core.sys").sha256

local function nothing() end

describe("migration.backfill", function()
  local function read(value)
    local definition, wrong, hint = backfill.read(value)
    assert(definition, wrong)
    return definition, wrong, hint
  end

  local function refused(value, words, hint_words)
    local definition, wrong, hint = backfill.read(value)
    assert.is_nil(definition)
    assert(tostring(wrong):find(words, 1, true), ("%q is not in %q"):format(words, tostring(wrong)))
    if hint_words then
      assert(tostring(hint):find(hint_words, 1, true), ("%q is not in %q"):format(hint_words, tostring(hint)))
    end
  end

  it("tells the three kinds apart", function()
    assert.are.equal("set", read({ table = "t", set = "a = 1" }).mode)
    assert.are.equal("rows", read({ table = "t", columns = { "a" }, transform = nothing }).mode)
    assert.are.equal("batch", read({ table = "t", batch = nothing }).mode)
    refused({ table = "t" }, "says nothing to do")
    refused({ table = "t", set = "a = 1", batch = nothing }, 'both "set" and "batch"')
    refused({ table = "t", transform = nothing }, 'a "transform" without "columns"')
    refused({ table = "t", set = "a = 1", columns = { "a" } }, 'has "columns" without a "transform"')
    refused({ set = "a = 1" }, 'names no "table"')
    refused("t", "must be a table, not a string")
  end)

  it("knows its keys", function()
    refused({ table = "t", set = "a = 1", wehre = "x" }, 'unknown key "wehre"', '"where"')
    refused({ table = "", set = "a = 1" }, '"table" must be a string')
    refused({ table = "t", batch = "x" }, '"batch" must be a function, not a string')
    refused({ table = "t", set = "a = 1", key = {} }, '"key" must be a list of column names')
    refused({ table = "t", set = "a = 1", key = { "a", "a" } }, '"key" names "a" twice')
    refused({ table = "t", set = "a = 1", key = { "a", x = 1 } }, '"key" must be a list of column names')
    assert.are.same({ "id" }, read({ table = "t", set = "a = 1", key = "id" }).key)
  end)

  it("takes only pieces of one statement", function()
    read { table = "t", set = "a = ';' || $$;$$, b = 2 -- c", where = "x = '; drop' /* ; */" }
    refused({ table = "t", set = "a = 1; drop table t" }, 'a part of one statement')
    refused({ table = "t", set = "a = 1", where = "true;" }, 'a part of one statement')
    refused({ table = "t", set = "a = 'x" }, '"set": ')
  end)

  it("reads its options", function()
    local options = read({ table = "t", set = "a = 1", options = { batch_target = "1s", min = 1, max = 10, workers = 4,
      durable = true, max_errors = 0, retries = 2, lock_timeout = 0, statement_timeout = "1m" } }).options
    assert.are.same({ batch_target = 1000, min = 1, max = 10, workers = 4, durable = true, max_errors = 0, retries = 2,
      lock_timeout = 0, statement_timeout = 60000 }, options)
    for _, case in ipairs {
      { { batch_target = 400 }, "has no unit" }, { { batch_target = "0" }, "longer than 0" }, { { min = 0 }, "from 1 on" },
      { { workers = 65 }, "from 1 to 64" }, { { max = "many" }, "whole number" }, { { durable = "yes" }, "true or false" },
      { { mni = 1 }, 'unknown option "mni"' }, { { min = 2, max = 1 }, "larger than" }, { "x", "must be a table" },
    } do
      refused({ table = "t", set = "a = 1", options = case[1] }, case[2])
    end
  end)

  it("reads short times, with fractions", function()
    for text, ms in pairs { ["0.5ms"] = 0.5, ["200us"] = 0.2, ["1 ms"] = 1, ["2s"] = 2000, ["0"] = 0, [0] = 0 } do
      assert.are.equal(ms, read({ table = "t", set = "a = 1", options = { max_delay = text } }).options.max_delay)
    end
    for _, text in ipairs { "1", "ms", "1m", "-1ms", "" } do
      refused({ table = "t", set = "a = 1", options = { max_delay = text } }, 'option "max_delay" must be a short time')
    end
  end)

  it("settles options: another terminal's before the migration's before the configuration's", function()
    local definition = read { table = "t", set = "a = 1", options = { min = 5, max = 50 } }
    local options = backfill.settle(definition, { max = "40", nonsense = 1, workers = 0 }, { min = 3, batch_target = 1000 })
    assert.are.same({ 5, 40, 1000, 1 }, { options.min, options.max, options.batch_target, options.workers })
  end)

  it("hashes what is done to a row, and not how fast", function()
    local function code(value, checksum)
      return backfill.code(read(value), checksum or "c")
    end
    local one = code { table = "t", set = "a = 1" }
    assert.are.equal(one, code { table = "t", set = "a = 1", options = { min = 1 } })
    assert.are.equal(one, code({ table = "t", set = "a = 1" }, "another file"))
    assert.are_not.equal(one, code { table = "t", set = "a = 2" })
    assert.are_not.equal(one, code { table = "t", set = "a = 1", where = "b" })
    assert.are_not.equal(one, code { table = "u", set = "a = 1" })
    assert.are_not.equal(code({ table = "t", batch = nothing }, "x"), code({ table = "t", batch = nothing }, "y"))
  end)

  describe("in a file", function()
    local function load(text)
      return registry.load { version = 1, version_text = "1", name = "x", id = "1_x", file = "1_x.lua", kind = "lua",
        text = text, checksum = sha256(text) }
    end

    it("needs no up", function()
      local migration = assert(load [[return { backfill = { table = "t", set = "a = 1" }, irreversible = "x" }]])
      assert.are.same({ kind = "sql", text = "", blocks = {} }, migration.up)
      assert.are.equal("set", migration.backfill.mode)
    end)

    it("tells what is wrong with its line", function()
      local migration, problems = load 'return {\n  irreversible = "x",\n  backfill = { table = "t", sett = "a = 1" },\n}'
      assert.is_nil(migration)
      assert.are.equal(3, problems[1].line)
      assert.are.equal('"backfill" has the unknown key "sett"', problems[1].message)
    end)

    it("has an up in one transaction", function()
      local migration, problems = load [[return { transaction = false, up = "select 1", irreversible = "x",
        backfill = { table = "t", set = "a = 1" } }]]
      assert.is_nil(migration)
      assert.are.equal('the "up" of a backfill runs in one transaction', problems[1].message)
    end)
  end)
end)
