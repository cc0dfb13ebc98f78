-- .env as dbmate 2.36 (godotenv 1.5.1) reads it; the expected values were taken from that program.
local dotenv = require "moonbird.config.dotenv"
local fs = require "moonbird.core.fs"
local sys = require "moonbird.core.sys"

local function value(text)
  local vars = assert(dotenv.parse(text))
  return vars.V
end

describe("config.dotenv", function()
  for text, expected in pairs({
    ["V=a # b # c"] = "a # b",
    ["V=a#b"] = "a#b",
    ["V=#b"] = "#b",
    ["V= # b"] = "# b",
    ["V="] = "",
    ["V=\nW=1"] = "",
    ["V=  a b  \n"] = "a b",
    ["X=1\nV=${X}$X$(X)$x"] = "111)$x",
    ["V=$NOT_SET_ANYWHERE|"] = "|",
    ["V=a\\$b\\\\$X"] = "a$b\\$X",
    ['V="a\\$b"'] = "a$b",
    ['V="a\\"b\\t\\nq"'] = 'a"bt\nq',
    ['V="a\\""'] = "a\\",
    ['V="two\nlines" # c\nW=1'] = "two\nlines",
    ['V=""'] = "",
    ["V='a\\nb $X'"] = "a\\nb $X",
    ["V='a' # c\nW=1"] = "a",
    ["export V=t/q#x"] = "t/q#x",
    ["export\tV=1"] = "1",
    ["V : yaml\r\nY=2"] = "yaml",
    ["V: 1"] = "1",
    ["# c\n\n  # d\nV=1"] = "1",
    ["A B=1\nV=2"] = "2",
    ["=5\nV=2"] = "2",
    ["V=1\nV=2"] = "2",
    ["V=1\nFOO"] = "1",
    ["\239\187\191V=bom"] = "bom",
    ["V=postgres://u:p%40x@h:5432/d?sslmode=require"] = "postgres://u:p%40x@h:5432/d?sslmode=require",
  }) do
    it(("reads %q"):format(text), function()
      assert.are.equal(expected, value(text))
    end)
  end

  it("reads nothing", function()
    assert.are.same({}, dotenv.parse(""))
    assert.are.same({}, dotenv.parse("\n# only a comment"))
  end)

  for text, expected in pairs({
    ["A=1\nFOO BAR\nV=1"] = { 'the line ends before "="', 2 },
    ["FOO-X=1"] = { 'unexpected "-" in a name', 1 },
    ['\n\nV="x\nW=1'] = { "a quoted value has no closing quote", 3 },
  }) do
    it(("refuses %q"):format(text), function()
      local vars, message, line = dotenv.parse(text)
      assert.is_nil(vars)
      assert.are.same(expected, { message, line })
    end)
  end

  describe("open", function()
    local dir
    before_each(function()
      dir = assert(fs.tempdir("moonbird-env-"))
    end)
    after_each(function()
      fs.remove_tree(dir)
      sys.setenv("MOONBIRD_TEST_A", nil)
      sys.setenv("PGTESTONLY", nil)
    end)

    it("takes a missing file for an empty one", function()
      local env = assert(dotenv.open(dir .. "/.env"))
      assert.is_nil(env:get("MOONBIRD_TEST_A"))
      assert.is_nil(env.file)
    end)

    it("lets the real environment win, an empty value too", function()
      assert(fs.write(dir .. "/.env", "MOONBIRD_TEST_A=file"))
      local env = assert(dotenv.open(dir .. "/.env", ".env"))
      assert.are.same({ "file", ".env" }, { env:get("MOONBIRD_TEST_A") })
      sys.setenv("MOONBIRD_TEST_A", "")
      assert.are.same({ "", "environment" }, { env:get("MOONBIRD_TEST_A") })
    end)

    it("hands only PG variables to the process", function()
      assert(fs.write(dir .. "/.env", "MOONBIRD_TEST_A=1\nPGTESTONLY=2"))
      assert(dotenv.open(dir .. "/.env")):apply_libpq()
      assert.is_nil(sys.getenv("MOONBIRD_TEST_A"))
      assert.are.equal("2", sys.getenv("PGTESTONLY"))
    end)

    it("names file and line of a mistake", function()
      assert(fs.write(dir .. "/.env", "A=1\nB-C=2"))
      local env, err = dotenv.open(dir .. "/.env", ".env")
      assert.is_nil(env)
      assert.are.equal("config", err.code)
      assert.are.equal('.env:2: unexpected "-" in a name', tostring(err))
      assert(fs.mkdir(dir .. "/folder"))
      env, err = dotenv.open(dir .. "/folder")
      assert.is_nil(env)
      assert.are.equal("config", err.code)
    end)
  end)
end)
