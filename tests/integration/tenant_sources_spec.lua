--- Where tenants come from, on real servers: a source that a migration of the same run makes, several servers, lists
-- that are wrong, tenants that come and go.
-- The same on every server.
local helper = require "tests.helper"
local session = require "moonbird.core.session"
local tenants = require "tests.tenants"
local texts = require "tests.texts"
local async, sql = helper.async, tenants.sql
local has = texts.has

local USERS = sql("tenant", "create table users (id bigint primary key);", { down = "drop table users;" })

describe("a source", function()
  local db, dir

  before_each(async(function()
    db = helper.database()
  end))

  local function answer(status, ...)
    return tenants.answer(status, { db = db, cwd = dir }, ...)
  end

  describe("whose table a global migration of the same run makes", function()
    before_each(async(function()
      dir = tenants.project {
        ["moonbird.lua"] = [[return { tenants = tenants.query{ sql = "select name, schema from public.ready" } }]],
        ["001_customers.sql"] = sql("global", [[create table public.customers (name text primary key, schema text);
          insert into public.customers values ('acme', 'c_1'), ('zeta', 'c_2');
          create view public.ready as select * from public.customers union all
            select 'late', nspname::text from pg_namespace where nspname = 'c_3';
          create schema c_1; create schema c_2;]],
          { down = "drop schema c_1, c_2; drop view public.ready; drop table public.customers;" }),
        ["002_users.sql"] = USERS,
        ["003_more.sql"] = sql("global", "create schema c_3;", { down = "drop schema c_3;" }),
        ["004_last.sql"] = sql("tenant", "create table last (id bigint primary key);", { down = "drop table last;" }),
      }
    end))

    for _, command in ipairs { "up", "deploy" } do
      it("is read when it is there: " .. command, async(function()
        local said = answer(0, command)
        assert.equal(3, said.tenants.total)
        assert.equal(3, said.tenants.migrated)
        assert.equal("1 3", tenants.versions(db, "global"))
        assert.equal(3, tenants.count_at(db, "2 4"))
        assert.equal("", tenants.not_once(db))
      end))
    end

    it("in a fleet", async(function()
      local children = {}
      for i = 1, 3 do
        children[i] = helper.spawn({ "up", "--fleet", "r1" }, { db = db, cwd = dir })
      end
      for _, child in ipairs(children) do
        local result = child:wait(60000)
        assert.equal(0, result.status, result.stdout .. result.stderr)
      end
      assert.equal(3, tenants.count_at(db, "2 4"))
      assert.equal("", tenants.not_once(db))
    end))

    for _, words in ipairs { { "plan" }, { "up", "--dry-run" }, { "status" }, { "tenant", "list" } } do
      it("can't be shown before; it is said what makes it: " .. table.concat(words, " "), async(function()
        local result = tenants.moonbird(1, { db = db, cwd = dir }, table.unpack(words))
        has(result.stderr, 'relation "public.ready" does not exist')
        has(result.stderr, "a global migration that is pending may make")
        assert.is_nil(db:value "select to_regclass('public.customers')::text")
        assert.is_nil(db:value "select to_regclass('moonbird.journal')::text")
      end))
    end
  end)

  it("over several servers: each database where it is", async(function()
    local servers = { tenants.server {}, tenants.server {} }
    local hosts = {}
    for i, server in ipairs(servers) do
      hosts[i] = ("%q"):format(server.params.host)
      local own = server.session()
      for n = 1, 3 do
        assert(own:query(("create database shop_%d_%d"):format(i, n)))
      end
    end
    dir = tenants.project { ["moonbird.lua"] = ([[return { tenants = { source = tenants.databases{ like = "shop\\_%%",
      hosts = { %s }, url = "postgresql://%s@{host}:%s/{name}" }, per_server = 2 } }]]):format(
      table.concat(hosts, ", "), servers[1].params.user, servers[1].params.port), ["001_users.sql"] = USERS }
    local said = answer(0, "up")
    assert.equal(6, said.tenants.migrated)
    for i, server in ipairs(servers) do
      for n = 1, 3 do
        local params = {}
        for key, value in pairs(server.params) do
          params[key] = value
        end
        params.dbname = ("shop_%d_%d"):format(i, n)
        local own <close> = assert(session.open(params))
        local rows = assert(own:query "select target from moonbird.state where applies and version = 1 and target <> '@journal'")
        assert.equal(params.dbname, rows:value(1, 1))
      end
    end
    assert.equal(6, answer(0, "up").tenants.current)
    -- One server is away: its tenants are told apart, those of the other are done.
    servers[2].stop()
    helper.write(dir, { ["migrations/002_more.sql"] = sql("tenant", "create table more (id bigint primary key);") })
    local gone = answer(3, "up")
    assert.equal("connect", gone.error.code)
    servers[2].start()
    assert.equal(6, answer(0, "up").tenants.migrated)
  end))

  it("that is wrong is refused before anything is made, all of it at once", async(function()
    tenants.schemas(db, 1, 3)
    dir = tenants.project { ["001_users.sql"] = USERS, ["moonbird.lua"] = [[return { tenants = { tenants.list{
      { name = "a", schema = "t_001" }, { name = "a", schema = "t_002" }, { name = "b", schema = "t_001" },
      { name = "c", schema = "nowhere" }, { name = "d", schema = "pg_catalog" },
      { name = "global", schema = "t_003" }, { name = ("x"):rep(64), schema = "t_003" } } } }]] }
    local result = tenants.moonbird(2, { db = db, cwd = dir }, "up")
    for _, part in ipairs { '"a"', '"pg_catalog" is PostgreSQL', '"global" can\'t be a tenant', "1 to 63 bytes" } do
      has(result.stderr, part)
    end
    assert.is_nil(db:value "select to_regclass('t_001.users')::text")
    assert.equal(0, db:value "select count(*) from pg_class where relname = 'users'")
  end))

  it("that changes its answer between two runs: who is gone keeps its history, and is no error", async(function()
    tenants.schemas(db, 1, 4)
    dir = tenants.project { ["001_users.sql"] = USERS }
    answer(0, "up")
    db:exec "drop schema t_002 cascade; create schema t_009"
    local said = answer(0, "up")
    assert.same({ 4, 1, 3 }, { said.tenants.total, said.tenants.migrated, said.tenants.current })
    assert.equal("1", tenants.versions(db, "t_002"))
  end))
end)
