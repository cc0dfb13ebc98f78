-- The Lua face of engine/sql: shapes and offsets of what moonbird.core.sql returns. The rules themselves
-- are tested in tests/unit/test_sql_*.c.
local sql = require "moonbird.core.sql"

local BOM = "\xef\xbb\xbf"

local function texts(text, ...)
  local out = {}
  for i, s in ipairs(assert(sql.statements(text, ...))) do
    out[i] = text:sub(s.first, s.last)
  end
  return out
end

describe("sql.statements", function()
  it("gives slices, places, tags and classes", function()
    local text = BOM .. "-- é\r\ncreate table a ();\r\n  é; commit"
    assert.same({
      { first = 11, last = 27, line = 2, column = 1, tag = "CREATE TABLE", class = "plain" },
      { first = 33, last = 34, line = 3, column = 3, tag = "\xc3\xa9", class = "session" },
      { first = 37, last = 42, line = 3, column = 6, tag = "COMMIT", class = "control", control = "commit" },
    }, sql.statements(text))
    assert.same({ "create table a ()", "é", "commit" }, texts(text))
  end)

  it("reads a part of a text, with the places of the whole", function()
    local text = "select 1;\nselect 2; select 3"
    local list = sql.statements(text, 10, 19)
    assert.equal(1, #list)
    assert.equal("select 2", text:sub(list[1].first, list[1].last))
    assert.equal(2, list[1].line)
    assert.same({}, sql.statements(text, 1, 0))
    assert.same({}, sql.statements(""))
  end)

  it("gives the data of COPY", function()
    local text = "copy t from stdin;\n1\n2\n\\.\ncopy t from stdin;\n\\.\nselect 1"
    local list = sql.statements(text)
    assert.equal("copy", list[1].class)
    assert.equal("in", list[1].copy)
    assert.equal("1\n2\n", text:sub(list[1].data_first, list[1].data_last))
    assert.is_true(list[2].data_last < list[2].data_first)
    assert.equal("SELECT", list[3].tag)
  end)

  it("gives the object of what can't run in a transaction", function()
    local list = sql.statements('create unique index concurrently if not exists I on "S".t (a)')
    assert.same({
      kind = "index",
      name = "i",
      relation_schema = "S",
      relation = "t",
      unique = true,
      if_not_exists = true,
      concurrently = true,
    }, list[1].object)
    assert.is_nil(sql.statements("create index i on t (a)")[1].object)
  end)

  it("keeps bodies together", function()
    assert.same({
      "create function f() returns int begin atomic select 1 as end; end",
      "do $a$ ; $a$",
    }, texts("create function f() returns int begin atomic select 1 as end; end; do $a$ ; $a$;"))
  end)

  it("names what is broken", function()
    local list, problem = sql.statements("select 1;\n  select 'a")
    assert.is_nil(list)
    assert.same({ message = "unterminated quoted string", offset = 20, line = 2, column = 10 }, problem)
    list, problem = sql.statements("\\connect x")
    assert.is_nil(list)
    assert.matches('"\\connect"', problem.message, 1, true)
    assert.is_string(problem.hint)
  end)

  it("refuses what is no part of the text", function()
    assert.has_error(function() sql.statements("abc", 0) end)
    assert.has_error(function() sql.statements("abc", 1, 4) end)
    assert.has_error(function() sql.statements("abc", 3, 1) end)
    assert.has_error(function() sql.statements() end)
  end)
end)

describe("sql.dbmate", function()
  it("gives sections", function()
    local text = "-- a\n-- migrate:up transaction:false\nx;\n-- migrate:down\n"
    local file = assert(sql.dbmate(text))
    assert.same({
      header_last = 5,
      sections = {
        {
          up = {
            first = 38, last = 40, line = 3, transaction = false, options = { transaction = "false" },
            directive_first = 6, directive_last = 36,
          },
          down = {
            first = 57, last = 56, line = 5, transaction = true, options = {},
            directive_first = 41, directive_last = 55,
          },
        },
      },
    }, file)
    assert.equal("-- a\n", text:sub(1, file.header_last))
    assert.equal("x;\n", text:sub(file.sections[1].up.first, file.sections[1].up.last))
  end)

  it("gives every problem", function()
    local file, problems = sql.dbmate("-- migrate:up transaction: false\nx;\n")
    assert.is_nil(file)
    assert.equal(2, #problems)
    assert.equal(1, problems[1].line)
    assert.matches("down block", problems[1].message)
    assert.equal(15, problems[2].column)
    assert.matches('write "transaction:false"', problems[2].hint, 1, true)
  end)
end)

describe("sql.parse and sql.fingerprint", function()
  it("give a tree and a hash", function()
    assert.matches('"SelectStmt"', sql.parse("select 1"), 1, true)
    assert.equal(sql.fingerprint("select 1"), sql.fingerprint("SELECT  2"))
    assert.matches("^%x+$", sql.fingerprint("select 1"))
  end)

  it("give message and offset", function()
    assert.same({ nil, { message = 'syntax error at or near "t"', offset = 15 } }, { sql.parse("select é frm t x") })
    local hash, err = sql.fingerprint("nonsense")
    assert.is_nil(hash)
    assert.equal(1, err.offset)
  end)
end)

describe("places", function()
  it("count lines and characters", function()
    assert.same({ 2, 3 }, { sql.locate("a\né€b", 8) })
    assert.same({ 1, 1 }, { sql.locate(BOM .. "a", 4) })
    assert.same({ 1, 4 }, { sql.locate("abc", 100) })
    assert.equal(8, sql.char_offset("a\né€b", 3, 3))
    assert.equal(4, sql.char_offset("abc", 1, 100))
    assert.has_error(function() sql.locate("a", 0) end)
  end)
end)

describe("quoting", function()
  it("is the server's", function()
    assert.equal("a_1", sql.ident("a_1"))
    assert.equal('"user"', sql.ident("user"))
    assert.equal('"A""b"', sql.ident('A"b'))
    assert.equal("'it''s'", sql.literal("it's"))
    assert.equal("E'\\\\'", sql.literal("\\"))
  end)

  it("refuses zero bytes", function()
    assert.has_error(function() sql.ident("a\0b") end)
    assert.has_error(function() sql.literal("\0") end)
  end)
end)
