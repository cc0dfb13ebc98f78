-- The commands around migrations, and the options that every command has.
-- The same on every server.
local fs = require "moonbird.core.fs"
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local process = require "moonbird.core.process"
local texts = require "tests.texts"
local async = helper.async
local has, lacks = texts.has, texts.lacks

local TABLE = "-- migrate:up\ncreate table t (i int);\n-- migrate:down\ndrop table t;\n"

local function read(path)
  return assert(fs.read(path))
end

describe("moonbird", function()
  local dir

  before_each(async(function()
    dir = helper.tmpdir()
  end))

  local function moonbird(status, args, options)
    local all = { cwd = dir, status = status }
    for k, v in pairs(options or {}) do
      all[k] = v
    end
    return helper.ok(args, all)
  end

  it("init makes a project and never overwrites", async(function()
    moonbird(0, { "init" })
    for _, path in ipairs { "moonbird.lua", "migrations", ".env.example" } do
      assert.is_truthy(fs.stat(dir .. "/" .. path), path)
    end
    assert(fs.write(dir .. "/moonbird.lua", "return {} -- mine\n"))
    local answer = json.decode(moonbird(0, { "--json", "init" }).stdout)
    assert.are.equal(0, #answer.created)
    assert.is_true(#answer.kept >= 3)
    assert.are.equal("return {} -- mine\n", read(dir .. "/moonbird.lua"))
    moonbird(0, { "init", "below/here" })
    assert.is_truthy(fs.stat(dir .. "/below/here/moonbird.lua"))
    local db = helper.database()
    moonbird(0, { "-C", "below/here", "up" }, { db = db })
  end))

  it("new writes migrations that work: 14 digits, or the folder's width", async(function()
    assert(fs.mkdir(dir .. "/migrations"))
    local answer = json.decode(moonbird(0, { "--json", "new", "Add e-mail to Users" }).stdout)
    assert.is_truthy(answer.version:match("^20%d%d%d%d%d%d%d%d%d%d%d%d$"))
    has(answer.created[1], "migrations/" .. answer.version .. "_add_e_mail_to_users.lua")
    assert.is_truthy(fs.stat(dir .. "/" .. answer.created[1]))
    moonbird(0, { "up" }, { db = helper.database() })
    assert(fs.remove(dir .. "/" .. answer.created[1]))
    helper.write(dir, { ["migrations/0007_a.sql"] = TABLE })
    answer = json.decode(moonbird(0, { "--json", "new", "next", "--sql", "--sequential" }).stdout)
    assert.are.equal("0008", answer.version)
    assert.is_truthy(fs.stat(dir .. "/migrations/0008_next.sql"))
    moonbird(0, { "up" }, { db = helper.database() })
    moonbird(2, { "new" })
    moonbird(2, { "new", "!!!" })
  end))

  it("say what to do first in a project without migrations", async(function()
    local db = helper.database()
    has(moonbird(2, { "up" }, { db = db }).stderr, "run `moonbird init` to set up a project, or `moonbird new NAME`")
    lacks(moonbird(2, { "deploy" }, { db = db }).stdout, "nothing found")
    moonbird(0, { "init" })
    local none = "there are no migrations yet: `moonbird new NAME` writes one\n"
    assert.are.equal("nothing to do: " .. none, moonbird(0, { "up" }, { db = db }).stdout)
    assert.are.equal("nothing to do: " .. none, moonbird(0, { "plan" }, { db = db }).stdout)
    assert.are.equal(none .. "\nApplied: 0\nPending: 0\n", moonbird(0, { "status" }, { db = db }).stdout)
    assert.are.equal("0 migrations, nothing found\n" .. none, moonbird(0, { "check" }).stdout)
    has(moonbird(0, { "new", "make_things" }).stdout, "next: write in it what it does, then moonbird check --update && moonbird up\n")
    local said = moonbird(6, { "check" }).stdout
    lacks(said, none)
    has(said, "say in a sentence what the migration is for")
    assert.are.equal(1, select(2, said:gsub("not looked into: ", "")))
    assert.are.equal(1, select(2, said:gsub("not checked: ", "")))
    moonbird(0, { "up" }, { db = db })
    assert.are.equal("nothing to do: the database is up to date\n", moonbird(0, { "up" }, { db = db }).stdout)
  end))

  it("create and drop make and remove the database", async(function()
    local db = helper.database()
    local name = db.name .. "_made"
    local url = db.url:gsub(db.name, name)
    local options = { "-u", url }
    local function run(status, ...)
      return moonbird(status, { options[1], options[2], ... })
    end
    local function there()
      return db:value("select count(*) from pg_database where datname = $1", name) == 1
    end
    run(0, "create")
    assert.is_true(there())
    has(run(0, "create").stdout, "already")
    run(2, "drop")
    assert.is_true(there())
    run(0, "drop", "--yes")
    assert.is_false(there())
    run(0, "drop", "--yes")
    moonbird(2, { "-u", (db.url:gsub(db.name, "postgres")), "drop", "--yes" })
  end))

  it("wait waits, and gives up with 3", async(function()
    moonbird(0, { "wait" }, { db = helper.database() })
    local result = moonbird(3, { "-u", "postgres:///x?host=" .. dir, "wait", "--timeout", "400ms" })
    assert.are_not.equal("", result.stderr)
  end))

  it("cluster starts, tells, stops and destroys the embedded PostgreSQL", async(function()
    helper.write(dir, { ["migrations/001_t.sql"] = TABLE })
    has(moonbird(0, { "cluster", "status" }).stdout, "no cluster")
    helper.defer(function()
      helper.moonbird({ "cluster", "stop" }, { cwd = dir })
    end)
    assert.is_true(json.decode(moonbird(0, { "--json", "cluster", "start" }).stdout).started)
    has(moonbird(0, { "cluster", "status" }).stdout, "running")
    local url = moonbird(0, { "cluster", "url" }).stdout:match("%S+")
    moonbird(0, { "-u", url, "up" })
    moonbird(0, { "status", "--exit-code" })
    moonbird(2, { "cluster", "destroy" })
    moonbird(0, { "cluster", "stop" })
    has(moonbird(0, { "cluster", "status" }).stdout, "stopped")
    moonbird(3, { "cluster", "url" })
    moonbird(0, { "cluster", "destroy", "--yes" })
    assert.is_nil(fs.stat(dir .. "/.moonbird/pg/data"))
    moonbird(2, { "cluster", "frobnicate" })
  end))

  it("run hands arguments to a script and ends with its status", async(function()
    local db = helper.database()
    helper.write(dir, {
      ["s.lua"] = "return function(db, a, b)\n  print(a, b, db:value 'select 1')\n  return tonumber(a)\nend\n",
      ["bad.lua"] = "return function(db)\n  db:exec 'create table kept (i int)'\n  db:exec 'select * from missing'\nend\n",
    })
    local result = moonbird(7, { "run", "s.lua", "7", "x y" }, { db = db })
    assert.are.equal("7\tx y\t1\n", result.stdout)
    moonbird(0, { "run", "s.lua", "0" }, { db = db })
    moonbird(0, { "run", "s.lua" }, { db = db })
    has(moonbird(1, { "run", "bad.lua" }, { db = db }).stderr, "bad.lua:3")
    assert.are.equal("kept", db:value "select to_regclass('kept')::text")
    moonbird(2, { "run", "nowhere.lua" }, { db = db })
    moonbird(2, { "run" }, { db = db })
  end))

  it("completion prints scripts that know the commands", async(function()
    for _, shell in ipairs { "bash", "zsh", "fish" } do
      local script = moonbird(0, { "completion", shell }).stdout
      for _, word in ipairs { "baseline", "repair", "allow-out-of-order" } do
        has(script, word)
      end
    end
    local child <close> = assert(process.spawn { file = "bash", args = { "-n" },
      stdin = moonbird(0, { "completion", "bash" }).stdout })
    assert.are.equal(0, assert(child:wait(10000)).status)
    moonbird(2, { "completion", "tcsh" })
  end))

  it("version and help answer without a project or a server", async(function()
    has(moonbird(0, { "version" }).stdout, "libpq")
    assert.is_string(json.decode(moonbird(0, { "--json", "version" }).stdout).moonbird)
    for _, args in ipairs { { "help" }, { "--help" }, { "-h" } } do
      has(moonbird(0, args).stdout, "baseline")
    end
    for _, args in ipairs { { "help", "up" }, { "up", "--help" }, { "up", "-h" } } do
      has(moonbird(0, args).stdout, "--allow-out-of-order")
    end
    moonbird(2, {})
    moonbird(2, { "help", "nope" })
  end))

  it("hints at what was meant", async(function()
    has(moonbird(2, { "stauts" }).stderr, "did you mean \"status\"?")
    has(moonbird(2, { "up", "--dry-rum" }).stderr, "--dry-run")
    has(moonbird(2, { "up", "--color", "maybe" }).stderr, "auto")
    local answer = json.decode(moonbird(2, { "--json", "stauts" }).stdout)
    assert.is_false(answer.ok)
    assert.are.equal("usage", answer.error.code)
  end))

  describe("takes its database from", function()
    local db

    before_each(async(function()
      db = helper.database()
      helper.write(dir, { ["migrations/001_t.sql"] = TABLE })
    end))

    local function applied()
      return db:value "select to_regclass('t')::text" == "t"
    end

    it("DATABASE_URL", async(function()
      moonbird(0, { "up" }, { env = { DATABASE_URL = db.url } })
      assert.is_true(applied())
    end))

    it(".env, which the environment overrides", async(function()
      helper.write(dir, { [".env"] = "# the database\nexport DATABASE_URL='" .. db.url .. "'\n" })
      moonbird(3, { "up" }, { env = { DATABASE_URL = "postgres:///x?host=/nowhere" } })
      assert.is_false(applied())
      moonbird(0, { "up" })
      assert.is_true(applied())
    end))

    it("an environment of moonbird.lua, and -u before it", async(function()
      helper.write(dir, { ["moonbird.lua"] = ([[return { environments = {
        development = { url = "postgres:///x?host=/nowhere" }, test = { url = %q },
        production = { url = env("NOT_SET_AT_ALL") } }, default_environment = "development" }]]):format(db.url) })
      moonbird(3, { "up" })
      has(moonbird(2, { "-e", "production", "up" }).stderr, "NOT_SET_AT_ALL")
      has(moonbird(2, { "-e", "tset", "up" }).stderr, "test")
      assert.is_false(applied())
      moonbird(0, { "-e", "test", "up" })
      assert.is_true(applied())
      moonbird(0, { "-e", "development", "-u", db.url, "status", "--exit-code" })
    end))

    it("a project elsewhere with -C", async(function()
      moonbird(0, { "-C", dir, "-u", db.url, "up" }, { cwd = "/" })
      assert.is_true(applied())
      moonbird(2, { "-C", dir .. "/nowhere", "-u", db.url, "up" })
    end))

    it("libpq's variables", async(function()
      moonbird(0, { "-u", "postgres://", "up" }, { env = { PGHOST = db.params.host, PGPORT = db.params.port,
        PGUSER = db.params.user, PGDATABASE = db.name } })
      assert.is_true(applied())
    end))
  end)

  describe("tells", function()
    local db

    before_each(async(function()
      db = helper.database()
      helper.write(dir, { ["migrations/001_t.lua"] =
        "return { up = function(db) db:log('a line') db:exec('create table t (i int)') end, down = 'drop table t' }\n" })
    end))

    it("its log as JSON, a line each", async(function()
      local result = moonbird(0, { "--log-format", "json", "-vv", "up" }, { db = db })
      local lines = 0
      for line in result.stderr:gmatch("[^\n]+") do
        lines = lines + 1
        assert.are.equal("table", type(json.decode(line)), line)
      end
      assert.is_true(lines >= 2)
      helper.write(dir, { ["migrations/002_bad.sql"] = "-- migrate:up\nselect 1/0;\n-- migrate:down\n" })
      for line in moonbird(1, { "--log-format", "json", "up" }, { db = db }).stderr:gmatch("[^\n]+") do
        assert.are.equal("table", type(json.decode(line)), line)
      end
    end))

    it("less with -q and more with -v", async(function()
      local quiet = moonbird(0, { "-q", "up" }, { db = db })
      assert.are.equal("", quiet.stderr)
      moonbird(0, { "down" }, { db = db })
      has(moonbird(0, { "-vv", "up" }, { db = db }).stderr, "create table t")
    end))

    it("colours when asked, never into a pipe by itself", async(function()
      assert.is_nil(moonbird(0, { "status" }, { db = db }).stdout:find("\27", 1, true))
      has(moonbird(0, { "--color", "always", "status" }, { db = db }).stdout, "\27[")
      assert.is_nil(moonbird(0, { "--color", "never", "status" }, { db = db }).stdout:find("\27", 1, true))
    end))
  end)
end)
