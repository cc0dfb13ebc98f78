-- Connection URLs: libpq's, dbmate's, key=value strings, the embedded server's; and keeping passwords out
-- of sight.
local url = require "moonbird.config.url"

local function params(text)
  local parsed = assert(url.parse(text))
  assert.are.equal("postgres", parsed.kind)
  return parsed.params
end

local function refused(text)
  local parsed, err = url.parse(text)
  assert.is_nil(parsed)
  assert.are.equal("config", err.code)
  return err
end

describe("config.url", function()
  for text, expected in pairs({
    ["postgres://"] = {},
    ["postgresql:///app"] = { dbname = "app" },
    ["postgres://h"] = { host = "h" },
    ["postgres://u@h:5433/app"] = { user = "u", host = "h", port = "5433", dbname = "app" },
    ["postgres://u:p%40%2Fx@h/app"] = { user = "u", password = "p@/x", host = "h", dbname = "app" },
    ["postgres://u:p@ss@h/app"] = { user = "u", password = "p@ss", host = "h", dbname = "app" },
    ["postgres://u:@h/app"] = { user = "u", host = "h", dbname = "app" },
    ["postgres://[::1]:5433/app"] = { host = "::1", port = "5433", dbname = "app" },
    ["postgres://a,b:2/app"] = { host = "a,b", port = ",2", dbname = "app" },
    ["postgres://%2Frun%2Fpg/app"] = { host = "/run/pg", dbname = "app" },
    ["postgres:///app?host=/run/pg&port=5433"] = { host = "/run/pg", port = "5433", dbname = "app" },
    ["postgres://h:1/app?host=other"] = { host = "other", port = "1", dbname = "app" },
    ["postgres://u@/app?socket=/run/pg"] = { user = "u", host = "/run/pg", dbname = "app" },
    ["postgres://h/app?sslmode=disable&connect_timeout=3"] =
      { host = "h", dbname = "app", sslmode = "disable", connect_timeout = "3" },
    ["postgres://h/app?binary_parameters=yes"] = { host = "h", dbname = "app" },
    ["postgres://h/app?ssl=true"] = { host = "h", dbname = "app", sslmode = "require" },
    ["postgres://h/app?search_path=a,b&statement_timeout=1234"] =
      { host = "h", dbname = "app", options = "-c search_path=a,b -c statement_timeout=1234" },
    ["postgres://h/app?search_path=a%20b%5C&options=-c%20geqo=off"] =
      { host = "h", dbname = "app", options = "-c geqo=off -c search_path=a\\ b\\\\" },
    ["postgres://h/app?application_name=a+b&my.setting=a+b"] =
      { host = "h", dbname = "app", application_name = "a+b", options = "-c my.setting=a\\ b" },
    ["  postgres://h/app  "] = { host = "h", dbname = "app" },
    ["host=h dbname=app"] = { host = "h", dbname = "app" },
    ["host = h  password = 'it\\'s a \\\\' user=u\\ x"] = { host = "h", password = "it's a \\", user = "u x" },
    ["service=prod"] = { service = "prod" },
  }) do
    it(("reads %s"):format(text), function()
      assert.are.same(expected, params(text))
    end)
  end

  for text, pattern in pairs({
    [""] = "is empty",
    ["postgres://h:x/app"] = 'a port that is no number',
    ["postgres://h/%zz"] = "no two hex digits",
    ["postgres://h/a%00b"] = "hex digits",
    ["postgres://h/app?=1"] = "not key=value",
    ["postgres://h/app?bad-key=1"] = 'the query key "bad%-key"',
    ["postgres://[::1/app"] = "IPv6",
    ["mysql://h/app"] = 'the scheme "mysql"',
    ["app"] = "neither a URL",
    ["hots=h"] = 'the unknown key "hots"',
    ["host=h password='x"] = "without a closing quote",
    ["host=h what"] = "not key=value",
    ["postgres://h/a\nb"] = "control character",
    ["embedded:?tmp"] = 'the unknown option "tmp"',
    ["embedded:x?temp"] = "throwaway",
  }) do
    it(("refuses %q"):format(text), function()
      assert.matches(pattern, refused(text).message)
    end)
  end

  it("names what was meant", function()
    assert.are.equal('did you mean "host"?', refused("hots=h").hint)
    assert.are.equal('did you mean "temp"?', refused("embedded:?tmp").hint)
  end)

  it("reads the embedded server's forms", function()
    local function shape(text)
      local parsed = assert(url.parse(text))
      return { parsed.kind, parsed.dir or "-", parsed.temp, parsed.dbname or "-", parsed.text }
    end
    assert.are.same({ "embedded", "-", false, "-", "embedded:" }, shape("embedded:"))
    assert.are.same({ "embedded", "/var/pg", false, "-", "embedded:/var/pg" }, shape("embedded:/var/pg"))
    assert.are.same({ "embedded", "-", true, "-", "embedded:?temp" }, shape("embedded:?temp"))
    assert.are.same({ "embedded", "-", true, "app", "embedded:?temp&dbname=app" }, shape("embedded:?temp&dbname=app"))
  end)

  it("shows a URL without its password", function()
    assert.are.equal("postgres://u:********@h/app", assert(url.parse("postgres://u:secret@h/app")).text)
    assert.are.equal("host=h password=******** user=u", assert(url.parse("host=h password='se cret' user=u")).text)
    local err = refused("postgres://u:sec/ret@h:x")
    assert.is_nil(tostring(err):find("sec", 1, true))
    assert.is_nil(tostring(err):find("ret@", 1, true))
  end)

  describe("redact", function()
    for text, expected in pairs({
      ["could not connect to postgres://u:s3cret@h/app, giving up"] =
        "could not connect to postgres://u:********@h/app, giving up",
      ["a postgres://u:x@h and postgresql://v:y@i"] = "a postgres://u:********@h and postgresql://v:********@i",
      ["postgres://u:p@ss@h/app"] = "postgres://u:********@h/app",
      ["postgres://u:p/w@h/app"] = "postgres://u:********@h/app",
      ["postgres://u:p?w#x@h/app"] = "postgres://u:********@h/app",
      ["postgres://u:12/34@h/app"] = "postgres://u:********@h/app",
      ["postgres://u@h:5432/app"] = "postgres://u@h:5432/app",
      ["postgres://h:5432/app?application_name=a@b"] = "postgres://h:5432/app?application_name=a@b",
      ["postgres://h/app?password=x&sslmode=require"] = "postgres://h/app?password=********&sslmode=require",
      ["postgres://h/app?sslmode=require&sslpassword=x"] = "postgres://h/app?sslmode=require&sslpassword=********",
      ["host=h password=a&b user=u"] = "host=h password=******** user=u",
      ["host=h PASSWORD = 'a \\' b' user=u"] = "host=h PASSWORD = ******** user=u",
      ["PGPASSWORD=x moonbird up"] = "PGPASSWORD=******** moonbird up",
      ["oauth_client_secret=x"] = "oauth_client_secret=********",
      ['url = "postgres://u:x@h/app",'] = 'url = "postgres://u:********@h/app",',
      ["password="] = "password=",
      ["nothing = here"] = "nothing = here",
      [""] = "",
    }) do
      it(("masks %q"):format(text), function()
        assert.are.equal(expected, url.redact(text))
      end)
    end
  end)
end)
