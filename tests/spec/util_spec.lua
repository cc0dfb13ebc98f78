-- The pure helpers of lua/moonbird/util.
local duration = require "moonbird.util.duration"
local lua_source = require "moonbird.util.lua_source"
local nearest = require "moonbird.util.nearest"
local size = require "moonbird.util.size"
local text = require "moonbird.util.text"

describe("util.duration", function()
  it("reads what people write", function()
    for written, ms in pairs({
      ["400ms"] = 400, ["5s"] = 5000, ["2m"] = 120000, ["2min"] = 120000, ["1h30m"] = 5400000, ["1.5s"] = 1500,
      ["1h 30m"] = 5400000, ["0"] = 0, ["0s"] = 0, ["1d"] = 86400000, ["5S"] = 5000, ["1m5s"] = 65000,
    }) do
      assert.are.equal(ms, duration.parse(written))
    end
    assert.are.equal(0, duration.parse(0))
  end)

  it("refuses what can be misread", function()
    for _, written in ipairs({ "5", "", "s", "5 parsecs", "-5s", "5s1h", "1s1s", "30d", "5s x" }) do
      local ms, message = duration.parse(written)
      assert.is_nil(ms, written)
      assert.is_string(message)
    end
    assert.matches("has no unit", select(2, duration.parse(5)))
    assert.matches("not a table", select(2, duration.parse({})))
  end)

  it("writes short", function()
    for _, pair in ipairs({
      { 0, "0ms" }, { 0.04, "0ms" }, { 1.23, "1.2ms" }, { 9.96, "10ms" }, { 12, "12ms" }, { 999.6, "1s" },
      { 1200, "1.2s" }, { 5000, "5s" }, { 59949, "59.9s" }, { 59960, "1m" }, { 184000, "3m 4s" },
      { 3600000, "1h" }, { 7500000, "2h 5m" }, { 90000000, "1d 1h" }, { -5, "-5ms" },
    }) do
      assert.are.equal(pair[2], duration.format(pair[1]))
    end
  end)
end)

describe("util.size", function()
  it("reads bytes and counts", function()
    assert.are.equal(64 << 20, size.parse_bytes("64MB"))
    assert.are.equal(64 << 20, size.parse_bytes("64 MiB"))
    assert.are.equal(1000, size.parse_bytes("1000"))
    assert.are.equal(7, size.parse_bytes(7))
    assert.are.equal(50000000, size.parse_count("50M"))
    assert.are.equal(1500, size.parse_count("1.5k"))
    for _, bad in ipairs({ "x", "5 apples", -1, 1.5, "" }) do
      assert.is_nil((size.parse_bytes(bad)))
      assert.is_nil((size.parse_count(bad)))
    end
  end)
end)

describe("util.nearest", function()
  it("counts a swap as one step", function()
    assert.are.equal(0, nearest.distance("abc", "abc"))
    assert.are.equal(1, nearest.distance("abc", "acb"))
    assert.are.equal(3, nearest.distance("", "abc"))
    assert.are.equal(3, nearest.distance("kitten", "sitting"))
  end)

  it("finds what was meant, or nothing", function()
    local known = { "description", "phase", "scope", "up", "down" }
    assert.are.equal("description", nearest.find("descripton", known))
    assert.are.equal("phase", nearest.find("Phase", known))
    assert.are.equal("down", nearest.find("donw", known))
    assert.is_nil(nearest.find("tomorrow", known))
    assert.are.equal('did you mean "scope"?', nearest.hint("scop", known))
    assert.are.equal("known are: a, b", nearest.hint("zzzz", { b = 1, a = 2 }))
    assert.are.equal("there are none", nearest.hint("zzzz", {}))
  end)

  it("takes a beginning that only one has, and does not list many", function()
    local rules = { "foreign-key-index", "protected-down", "protected-run" }
    assert.are.equal("foreign-key-index", nearest.find("foreign-key", rules))
    assert.are.equal("foreign-key-index", nearest.find("Foreign_Key", rules))
    assert.is_nil(nearest.find("protected", rules))
    assert.is_nil(nearest.find("fo", rules))
    assert.are.equal("known are: foreign-key-index, protected-down, protected-run",
      nearest.hint("protected", rules, "see there"))
    for i = 1, 10 do
      rules[#rules + 1] = ("other-%02d"):format(i)
    end
    assert.are.equal("see there", nearest.hint("protected", rules, "see there"))
  end)
end)

describe("util.text", function()
  it("makes snake_case", function()
    for given, expected in pairs({
      ["create users"] = "create_users", ["CreateUsers"] = "create_users", ["add user's e-mail"] = "add_user_s_e_mail",
      ["HTTPServer"] = "http_server", ["__x__"] = "x", ["Größe"] = "gr_e", ["v2Users"] = "v2_users", ["***"] = "",
    }) do
      assert.are.equal(expected, text.snake_case(given))
    end
  end)

  it("joins paths", function()
    assert.are.equal("a/b", text.join_path("a", "b"))
    assert.are.equal("b", text.join_path(".", "b"))
    assert.are.equal("/b", text.join_path("a", "/b"))
    assert.are.equal("a/b", text.join_path("a/", "./b"))
    assert.are.equal("/b", text.join_path("/", "b"))
    assert.are.equal(".", text.join_path("."))
  end)

  it("counts, splits, finds lines", function()
    assert.are.equal("1 problem", text.count(1, "problem"))
    assert.are.equal("0 entries", text.count(0, "entry", "entries"))
    assert.are.same({ "a", "", "b" }, text.split("a,,b", ","))
    assert.are.same({ "a", "b" }, text.list(" a ,, b "))
    assert.are.same({ 1, 1, 2, 3 }, {
      text.line_at("a\nb\nc", 1), text.line_at("a\nb\nc", 2), text.line_at("a\nb\nc", 3), text.line_at("a\nb\nc", 5),
    })
  end)
end)

describe("util.lua_source", function()
  local source = table.concat({
    "return {", -- 1
    "  up_to = 1,", -- 2
    "  up = [[", -- 3
    "create table a();", -- 4
    "]],", -- 5
    "  inner = { down = 'drop table a' },", -- 6
    '  ["down"] = "drop\\ttable a",', -- 7
    "}",
  }, "\n")

  it("finds keys", function()
    assert.are.equal(3, lua_source.key_line(source, { "up" }))
    assert.are.equal(6, lua_source.key_line(source, { "inner", "down" }))
    assert.is_nil(lua_source.key_line(source, { "nowhere" }))
    assert.are.equal(3, lua_source.key_line("setup = 1\n'down' == 2\n[ \n'down' ] = 3", { "down" }))
    assert.are.equal(2, lua_source.key_line("x['a'],\na = 1, ['a'] = 2", { "a" }))
    assert.is_nil(lua_source.key_line("markup = 1, up == 2, [\"upper\"] = 3, (\"up\") = 4, up", { "up" }))
  end)

  it("finds where a string starts, also with CRLF", function()
    assert.are.same({ 4, 1 }, { lua_source.string_position(source, { "up" }, "create table a();\n") })
    local dos = source:gsub("\n", "\r\n")
    assert.are.same({ 4, 1 }, { lua_source.string_position(dos, { "up" }, "create table a();\n") })
    assert.are.same({ 6, 21 }, { lua_source.string_position(source, { "inner", "down" }, "drop table a") })
    assert.are.same({ 6, 1 }, { lua_source.string_position(source, { "down" }, "drop\ttable a") })
  end)
end)
