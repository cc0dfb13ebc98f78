-- moonbird.lua, .env, variables and flags made into one configuration.
local config = require "moonbird.config.config"
local fs = require "moonbird.core.fs"
local project = require "moonbird.cli.project"
local sys = require "moonbird.core.sys"

local VARIABLES = {
  "DATABASE_URL", "MOONBIRD_ENV", "MOONBIRD_MIGRATIONS", "DBMATE_MIGRATIONS_DIR", "MOONBIRD_LOCK_TIMEOUT",
  "MOONBIRD_TIMEOUT", "MIGRATION_TIMEOUT_SECONDS", "MOONBIRD_MAX_MEMORY", "MOONBIRD_JOURNAL_SCHEMA",
  "MOONBIRD_TEST_URL",
}

describe("config.config", function()
  local dir, saved

  before_each(function()
    dir = assert(fs.tempdir("moonbird-config-"))
    saved = {}
    for _, name in ipairs(VARIABLES) do
      saved[name] = sys.getenv(name)
      sys.setenv(name, nil)
    end
  end)

  after_each(function()
    fs.remove_tree(dir)
    for _, name in ipairs(VARIABLES) do
      sys.setenv(name, saved[name])
    end
  end)

  local function write(text, name)
    assert(fs.write(dir .. "/" .. (name or "moonbird.lua"), text))
  end

  local function load(options)
    options = options or {}
    options.dir = dir
    return config.load(options)
  end

  --- The problems of an error, each with its line; all are of moonbird.lua.
  local function lines(err)
    local found = {}
    for i, problem in ipairs(err.problems) do
      assert.are.equal("moonbird.lua", problem.file)
      found[i] = ("%d %s"):format(problem.line, problem.message)
    end
    return found
  end

  local function refused(options)
    local loaded, err = load(options)
    assert.is_nil(loaded)
    assert.are.equal("config", err.code)
    return err
  end

  it("works without any file", function()
    local c = assert(load())
    assert.are.equal("embedded", c.url.kind)
    assert.are.equal("default", c.url.origin)
    assert.are.same({ "migrations" }, c.migrations)
    assert.are.equal("moonbird", c.journal.schema)
    assert.are.same({ lock = 5000, lock_total = 60000, lock_wait = 60000 }, c.timeouts)
    assert.is_nil(c.file)
    assert.is_nil(c.environment)
  end)

  it("finds dbmate's folder where there is no other", function()
    assert(fs.mkdir(dir .. "/db/migrations"))
    assert.are.same({ "db/migrations" }, assert(load()).migrations)
    assert(fs.mkdir(dir .. "/migrations"))
    assert.are.same({ "migrations" }, assert(load()).migrations)
    sys.setenv("DBMATE_MIGRATIONS_DIR", "./a,b/")
    assert.are.same({ "a", "b" }, assert(load()).migrations)
    sys.setenv("MOONBIRD_MIGRATIONS", "c")
    assert.are.same({ "c" }, assert(load()).migrations)
    write 'return { migrations = { "d" } }'
    assert.are.same({ "d" }, assert(load()).migrations)
  end)

  it("reads everything that may be said", function()
    write [[return {
      url = "postgres://h/app",
      migrations = { "migrations", "more/" },
      journal = { schema = "ops" },
      environments = {
        prod = { url = "postgres://p/app", timeouts = { lock = "2s", statement = "10m" }, protected = true,
          policy = { rules = {} } },
        dev = {},
      },
      default_environment = "prod",
      timeouts = { lock = "1s", run = "30m", lock_wait = "5s" },
      limits = { instructions = "2G", memory = "128MB" },
      search_path = "app, public",
      git = false,
      policy = {}, tenants = function() end, backfill = { batch_target = "1s" }, protected = false,
    }]]
    local c = assert(load())
    assert.are.equal("prod", c.environment)
    assert.are.same({ "dev", "prod" }, c.environments)
    assert.are.same({ host = "p", dbname = "app" }, c.url.params)
    assert.are.same({ "migrations", "more" }, c.migrations)
    assert.are.equal("ops", c.journal.schema)
    assert.are.same({ lock = 2000, statement = 600000, run = 1800000, lock_total = 60000, lock_wait = 5000 },
      c.timeouts)
    assert.are.same({ instructions = 2000000000, memory = 128 << 20 }, c.limits)
    assert.are.same({ "app", "public" }, c.search_path)
    assert.is_false(c.git)
    assert.is_true(c.protected)
    assert.are.same({ rules = {} }, c.policy)
    assert.is_function(c.tenants)
    assert.are.equal('environment "prod" in moonbird.lua', c.origins["timeouts.lock"])
    assert.are.equal("moonbird.lua", c.origins["timeouts.run"])

    c = assert(load { environment = "dev" })
    assert.is_false(c.protected)
    assert.are.same({ host = "h", dbname = "app" }, c.url.params)
  end)

  it("takes each setting from the nearest", function()
    write [[return {
      environments = { e = { timeouts = { lock = "3s" } } },
      timeouts = { lock = "4s" },
    }]]
    sys.setenv("MOONBIRD_LOCK_TIMEOUT", "6s")
    local e = assert(load { environment = "e", flags = { timeouts = { lock = 1 } } })
    assert.are.equal(1, e.timeouts.lock)
    assert.are.equal(1, config.timeouts(e, { timeouts = { lock = 2 } }).lock)
    e = assert(load { environment = "e" })
    assert.are.equal(3000, e.timeouts.lock)
    assert.are.equal(2, config.timeouts(e, { timeouts = { lock = 2 } }).lock)
    assert.are.equal(3000, config.timeouts(e, {}).lock)
    assert.are.equal(4000, assert(load()).timeouts.lock)
    write "return {}"
    assert.are.equal(6000, assert(load()).timeouts.lock)
  end)

  it("reads MIGRATION_TIMEOUT_SECONDS as seconds", function()
    sys.setenv("MIGRATION_TIMEOUT_SECONDS", "90")
    assert.are.equal(90000, assert(load()).timeouts.run)
    sys.setenv("MOONBIRD_TIMEOUT", "2s")
    assert.are.equal(2000, assert(load()).timeouts.run)
    sys.setenv("MOONBIRD_TIMEOUT", nil)
    sys.setenv("MIGRATION_TIMEOUT_SECONDS", "soon")
    assert.matches("^MIGRATION_TIMEOUT_SECONDS: must be a number of seconds", refused().message)
  end)

  it("reads .env, and says where a mistake stands", function()
    write("DATABASE_URL=postgres://env/x\nMOONBIRD_MAX_MEMORY=much", ".env")
    local err = refused()
    assert.matches("^MOONBIRD_MAX_MEMORY: ", err.message)
    assert.are.equal(".env", err.file)
    write("DATABASE_URL=postgres://env/x\nMOONBIRD_MAX_MEMORY=64MB", ".env")
    local c = assert(load())
    assert.are.equal("DATABASE_URL in .env", c.url.origin)
    assert.are.equal("env", c.url.params.host)
    assert.are.equal(64 << 20, c.limits.memory)
    sys.setenv("DATABASE_URL", "postgres://real/x")
    assert.are.equal("real", assert(load()).url.params.host)
    assert.are.equal("flag", assert(load { url = "postgres://flag/x" }).url.params.host)
    assert.are.equal("real", assert(load { env_file = false }).url.params.host)
  end)

  it("gives moonbird.lua the environment, with defaults", function()
    write("MOONBIRD_TEST_URL=postgres://dot/x", ".env")
    write 'return { url = env("MOONBIRD_TEST_URL"), journal = { schema = env("MOONBIRD_TEST_NONE", "j") } }'
    local c = assert(load())
    assert.are.equal("dot", c.url.params.host)
    assert.are.equal("j", c.journal.schema)
  end)

  it("does not fall back to another database when the environment's variable is missing", function()
    write [[return {
      environments = {
        dev = { url = "embedded:" },
        prod = {
          url = env("MOONBIRD_TEST_URL"),
        },
        ci = {},
      },
    }]]
    sys.setenv("DATABASE_URL", "postgres://other/x")
    local err = refused { environment = "prod" }
    assert.are.equal('environment "prod" takes its url from MOONBIRD_TEST_URL, which is not set', err.message)
    assert.are.equal(5, err.line)
    assert.are.equal("embedded", assert(load { environment = "dev" }).url.kind)
    assert.are.equal("other", assert(load { environment = "ci" }).url.params.host)
    assert.are.equal("flag", assert(load { environment = "prod", url = "postgres://flag/x" }).url.params.host)
    sys.setenv("MOONBIRD_TEST_URL", "postgres://prod/x")
    assert.are.equal("prod", assert(load { environment = "prod" }).url.params.host)
  end)

  it("chooses the environment by flag, MOONBIRD_ENV, default", function()
    write 'return { environments = { a = {}, b = {}, c = {} }, default_environment = "a" }'
    assert.are.equal("a", assert(load()).environment)
    sys.setenv("MOONBIRD_ENV", "b")
    assert.are.equal("b", assert(load()).environment)
    assert.are.equal("c", assert(load { environment = "c" }).environment)
    write 'return { environments = { staging = {} } }'
    local err = refused { environment = "stagign" }
    assert.are.equal('there is no environment "stagign" (--env)', err.message)
    assert.are.equal('did you mean "staging"?', err.hint)
  end)

  it("lists every problem with its line and what was meant", function()
    write [[return {
  migratons = "x",
  timeouts = { lock = 5, statment = "1s" },
  environments = {
    prod = { ulr = "x", journal = { schema = "pg_x" } },
    ["two words"] = {},
  },
  default_environment = "prd",
  limits = "many",
  migrations = { "a", "a/" },
}]]
    local err = refused()
    assert.are.equal("9 problems in moonbird.lua", err.message)
    assert.are.same({
      '2 unknown key "migratons"',
      '3 "timeouts.lock": "5" has no unit; write it like "400ms", "5s", "2m" or "1h30m" ("0" for no limit)',
      '3 unknown key "timeouts.statment"',
      '5 "environments.prod.journal.schema": "pg_x" belongs to PostgreSQL',
      '5 unknown key "environments.prod.ulr"',
      '6 "two words" is no name for an environment',
      '8 "default_environment" names "prd", which "environments" does not have',
      '9 "limits" must be a table, not a string',
      '10 "migrations": names the folder "a" twice',
    }, lines(err))
  end)

  describe("with the options of backfills", function()
    -- As every command loads it.
    local function project_config(args)
      local here = fs.cwd()
      assert(fs.chdir(dir))
      local loaded, err = project.config(args or {})
      assert(fs.chdir(here))
      return loaded, err
    end

    it("reads them as those of a migration", function()
      write [[return { backfill = { batch_target = "1s", max_lag = "1MB", durable = false, throttle = function() end },
        environments = { prod = { backfill = { workers = 3 } } } }]]
      local c = assert(project_config())
      assert.are.same({ 1000, 1 << 20, false, "function" }, { c.backfill.batch_target, c.backfill.max_lag,
        c.backfill.durable, type(c.backfill.throttle) })
      assert.are.same({ workers = 3 }, assert(project_config { env = "prod" }).backfill)
      write "return {}"
      assert.is_nil(assert(project_config()).backfill)
    end)

    it("refuses those that it does not know or can't read, in every environment", function()
      write [[return {
  backfill = {
    max_lagg = "64MB",
    batch_target = 400, "x",
    zzz = 1,
  },
  environments = {
    prod = { backfill = { wokers = 2 } },
    dev = { backfill = 5 },
  },
}]]
      local loaded, err = project_config()
      assert.is_nil(loaded)
      assert.are.equal("config", err.code)
      assert.are.equal("6 problems in moonbird.lua", err.message)
      assert.are.same({
        '2 unknown key "backfill.1"',
        '3 unknown key "backfill.max_lagg"',
        '4 "backfill.batch_target": "400" has no unit; write it like "400ms", "5s", "2m" or "1h30m" ("0" for no limit)',
        '5 unknown key "backfill.zzz"',
        '8 unknown key "environments.prod.backfill.wokers"',
        '9 "environments.dev.backfill" must be a table, not a number',
      }, lines(err))
      assert.are.equal('did you mean "max_lag"?', err.problems[2].hint)
      assert.matches("^known are: batch_target, between, ", err.problems[4].hint)
      assert.are.equal('did you mean "workers"?', err.problems[5].hint)
    end)

    it("names file, key and what was meant where there is one problem", function()
      write 'return {\n  backfill = { max_lagg = "64MB" },\n}'
      local _, err = project_config()
      assert.are.same({ 'unknown key "backfill.max_lagg"', "moonbird.lua", 2, 'did you mean "max_lag"?' },
        { err.message, err.file, err.line, err.hint })
    end)
  end)

  for text, pattern in pairs({
    ["return {"] = "expected",
    ["return 5"] = "must return a table, not a number",
    ["x = 1"] = "must return a table, not nothing",
    ["error('no')"] = "no",
    ["return { url = os.getenv('X') }"] = '"os" is not available',
    ["return { url = env() }"] = "takes the name",
    ["return setmetatable({}, {})"] = "has a metatable",
    ["while true do end"] = "instructions",
    ['return { url = "postgres://u:secret@h:port/x" }'] = "a port that is no number",
    ["return { url = 5 }"] = "must be a string",
  }) do
    it(("refuses %q"):format(text), function()
      write(text)
      local loaded, err = load()
      assert.is_nil(loaded)
      assert.matches(pattern, err.message)
      assert.is_nil(tostring(err):find("secret", 1, true))
    end)
  end

  it("names file and line of a broken moonbird.lua", function()
    write "return {\n  migrations = = 5,\n}"
    local err = refused()
    assert.are.same({ "moonbird.lua", 2 }, { err.file, err.line })
  end)

  it("refuses a folder that is not there", function()
    local c, err = config.load { dir = dir .. "/none" }
    assert.is_nil(c)
    assert.matches("there is no folder", err.message)
  end)
end)
