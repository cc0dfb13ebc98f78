--- The constructors of sources that moonbird.lua sees, and the section `tenants` as settings.
local error_ = require "moonbird.core.error"
local settings = require "moonbird.tenants.settings"
local sources = require "moonbird.config.tenant_sources"

local function refused(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  assert.is_true(error_.is(err))
  assert.equal("config", err.code)
  return err.message .. (err.hint and " / " .. err.hint or "")
end

describe("the constructors of sources", function()
  local made = sources.constructors()

  it("give plain tables", function()
    assert.same({ source = "schemas", like = "t_%", not_like = "%_old" },
      made.schemas { like = "t_%", not_like = "%_old" })
    assert.same({ source = "query", sql = "select 1", url = "postgresql://x/y" },
      made.query { sql = "select 1", url = "postgresql://x/y" })
    assert.same({ source = "databases", like = "t%", hosts = { "a", "b" } },
      made.databases { like = "t%", hosts = { "a", "b" } })
    assert.same({ source = "list", items = { "a" } }, made.list { "a" })
    assert.same({ source = "file", path = "t.json" }, made.file "t.json")
  end)

  it("refuse what they do not know, and name it", function()
    assert.matches('tenants.schemas has no key "likes" / did you mean "like"', refused(made.schemas, { likes = "x" }))
    assert.matches('tenants.schemas needs "like"', refused(made.schemas, {}))
    assert.matches('"like" must be a string, not a number', refused(made.schemas, { like = 1 }))
    assert.matches("tenants.query takes a table, like tenants.query{ sql = ... }", refused(made.query, "select 1"))
    assert.matches('"hosts" must be a table', refused(made.databases, { like = "x", hosts = "a" }))
    assert.matches("tenants.list takes a list", refused(made.list, "a"))
    assert.matches("tenants.file takes the name", refused(made.file, ""))
    assert.matches("tenants.file takes the name", refused(made.file, { "a" }))
  end)
end)

describe("the section tenants", function()
  local made = sources.constructors()
  local source = made.schemas { like = "t_%" }

  local function read(raw)
    return settings.read { tenants = raw, file = "moonbird.lua" }
  end

  local function wrong(raw)
    local got, err = read(raw)
    assert.is_nil(got)
    assert.equal("config", err.code)
    assert.equal("moonbird.lua", err.file)
    return err.message .. (err.hint and " / " .. err.hint or "")
  end

  it("is a source, a list of them, a function, or a table of options", function()
    assert.same({ source }, read(source).sources)
    assert.equal(2, #read({ source, function() end }).sources)
    assert.equal("function", type(read(function() end).sources[1]))
    assert.same({ source }, read({ source = source }).sources)
    assert.equal(2, #read({ source = { source, source } }).sources)
  end)

  it("is nothing where it is not there", function()
    local got, err = read(nil)
    assert.is_nil(got)
    assert.is_nil(err)
  end)

  it("has defaults that stop at the first failure", function()
    local got = read(source)
    assert.equal(8, got.jobs)
    assert.equal(5, got.attempts)
    assert.equal(5, got.max_consecutive)
    assert.same({ count = 0 }, got.max_failures)
    assert.is_nil(got.canary)
    assert.same({ { count = 1 }, { percent = 1 }, { percent = 10 } }, got.deploy_canary)
    assert.equal(0, got.soak)
    assert.same({}, got.shared)
  end)

  it("reads its options", function()
    local got = read { source = source, jobs = 2, per_server = 4, per_database = 3, attempts = 1, max_failures = "5%",
      canary = { "acme", 2, "10%" }, soak = "3s", lock_timeout = "250ms", health = "select true", gate = "manual",
      shared = "public", key = "tenant_id", max_consecutive = 9 }
    assert.equal(2, got.jobs)
    assert.equal(4, got.per_server)
    assert.equal(3, got.per_database)
    assert.same({ percent = 5 }, got.max_failures)
    assert.same({ { name = "acme" }, { count = 2 }, { percent = 10 } }, got.canary)
    assert.same(got.canary, got.deploy_canary)
    assert.equal(3000, got.soak)
    assert.equal(250, got.lock_timeout)
    assert.same({ "public" }, got.shared)
    assert.equal("manual", got.gate)
  end)

  it("refuses what it can't use, with the key's name", function()
    assert.matches('unknown key "job" / did you mean "jobs"', wrong { source = source, job = 2 })
    assert.matches('"jobs" must be a number from 1 on', wrong { source = source, jobs = 0 })
    assert.matches('"max_failures" must be a number or a percentage', wrong { source = source, max_failures = "200%" })
    assert.matches('"canary" must be a list', wrong { source = source, canary = { {} } })
    assert.matches('"health" must be SQL or a function', wrong { source = source, health = 1 })
    assert.matches('"gate" can only be "manual"', wrong { source = source, gate = "auto" })
    assert.matches('"shared" must be a list of schemas', wrong { source = source, shared = { "" } })
    assert.matches("no source", wrong { jobs = 2 })
    assert.matches("a source must be made with", wrong { source = { { like = "x" } } })
  end)

  it("counts shares, percentages rounded up", function()
    assert.equal(3, settings.count({ count = 3 }, 100))
    assert.equal(1, settings.count({ percent = 1 }, 3))
    assert.equal(10, settings.count({ percent = 10 }, 100))
    assert.equal(0, settings.count({ percent = 10 }, 0))
    assert.is_nil(settings.share("x"))
    assert.is_nil(settings.share(-1))
    assert.is_nil(settings.share("101%"))
    assert.same({ count = 7 }, settings.share("7"))
  end)
end)
