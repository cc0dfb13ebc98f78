--- `up --dry-run` over tenants: the first of each group that lacks the same is migrated and rolled back.
-- The same on every server.
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local tenants = require "tests.tenants"
local texts = require "tests.texts"
local async, sql, lua = helper.async, tenants.sql, tenants.lua
local has, lacks = texts.has, texts.lacks

local USERS = sql("tenant", "create table users (id bigint primary key, name text);", { down = "drop table users;" })
local EMAIL = sql("tenant", "alter table users add column email text;", { down = "alter table users drop column email;" })
local PLANS = sql("global", "create table public.plans (id int primary key); insert into public.plans values (7);",
  { down = "drop table public.plans;" })
local PLAN = lua("tenant", [[
  db:exec("alter table users add column plan int")
  db:exec("insert into users (id, name, plan) select id, $1, id from plans", db.target.name)]])

describe("a rehearsal over tenants", function()
  local db, dir

  before_each(async(function()
    db = helper.database()
  end))

  local function project(count, files, more)
    dir = tenants.given(db, count, files, more)
  end

  local function moonbird(status, ...)
    return tenants.moonbird(status, { db = db, cwd = dir }, ...)
  end

  local function answer(status, ...)
    return tenants.answer(status, { db = db, cwd = dir }, ...)
  end

  --- Everything that a rehearsal must leave as it is.
  local function picture(of)
    return json.encode { of:query [[select n.nspname, c.relname, coalesce(a.attname, '') as attname
      from pg_namespace n join pg_class c on c.relnamespace = n.oid
        left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
      where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' order by 1, 2, 3]],
      of:value "select to_regclass('moonbird.journal') is not null"
        and of:query "select target, ordinal, event from moonbird.journal order by 1, 2" or {} }
  end

  it("runs what is pending on one tenant of each group, behind the global migrations, and changes nothing",
    async(function()
      project(9, { ["001_users.sql"] = USERS, ["003_email.sql"] = EMAIL }, "shared = { 'public' }")
      moonbird(0, "up", "--tenant", "t_001", "--tenant", "t_002")
      moonbird(0, "up", "--tenant", "t_003", "--to", "1")
      helper.write(dir, { ["migrations/004_plans.sql"] = PLANS, ["migrations/005_plan.lua"] = PLAN })
      local before = picture(db)
      local out = moonbird(0, "up", "--dry-run").stdout
      -- 6 lack all of it, 2 lack the last, 1 lacks two
      has(out, "-- 001_users (up) on t_004, for 6 tenants")
      has(out, "-- 003_email (up) on t_004, for 6 tenants")
      has(out, "-- 003_email (up) on t_003")
      has(out, "-- 004_plans (up)\n")
      has(out, "-- 005_plan (up) on t_001, for 2 tenants")
      has(out, "-- 005_plan (up) on t_003")
      has(out, "-- 005_plan (up) on t_004, for 6 tenants")
      has(out, "alter table users add column email text")
      lacks(out, "t_005")
      has(out, "rehearsed 1 global migration, and 9 tenants as 3 groups; everything was rolled back")
      -- in the order of the stages
      assert.is_true(out:find("-- 003_email (up) on t_003", 1, true) < out:find("-- 004_plans", 1, true))
      assert.is_true(out:find("-- 004_plans", 1, true) < out:find("-- 005_plan", 1, true))
      assert.equal(before, picture(db))
      local said = answer(0, "up", "--dry-run")
      assert.is_true(said.dry_run)
      assert.same({ { id = "004_plans" } }, said.rehearsed)
      assert.equal(3, #said.groups)
      assert.same({ tenant = "t_004", tenants = 6, not_rehearsed = {},
        rehearsed = { "001_users", "003_email", "005_plan" } }, said.groups[1])
      assert.equal(9, said.tenants.total)
      moonbird(0, "up")
      has(moonbird(0, "up", "--dry-run").stdout, "nothing to do")
      assert.equal(9, tenants.count_at(db, "1 3 5"))
    end))

  it("makes no journal where there is none, nor in databases of their own", async(function()
    local own = helper.database()
    project(2, { ["moonbird.lua"] = ([[return { tenants = { source = { tenants.schemas{ like = [=[t\_%%]=] },
      tenants.list{ { name = "own", database = %q } } }, shared = { "public" } } }]]):format(own.name),
      ["001_plans.sql"] = PLANS, ["002_users.sql"] = USERS })
    local before, own_before = picture(db), picture(own)
    local out = moonbird(0, "up", "--dry-run").stdout
    has(out, "-- 001_plans (up)")
    has(out, "-- 002_users (up) on own, for 3 tenants")
    has(out, "rehearsed 1 global migration, and 3 tenants as 1 group")
    assert.equal(before, picture(db))
    assert.equal(own_before, picture(own))
    assert.equal(0, own:value "select count(*) from pg_namespace where nspname = 'moonbird'")
    has(moonbird(0, "up", "--dry-run", "--tenant", "t_*").stdout, "-- 002_users (up) on t_001, for 2 tenants")
  end))

  it("tells of each group that would fail, and goes on with the others", async(function()
    project(6, { ["001_users.sql"] = USERS, ["002_email.sql"] = EMAIL })
    moonbird(0, "up", "--to", "1", "--tenant", "t_001", "--tenant", "t_002")
    db:exec "alter table t_001.users add column email text"
    local before = picture(db)
    local result = moonbird(7, "up", "--dry-run")
    has(result.stdout, "2 tenants failed 002_email")
    has(result.stdout, 'column "email" of relation "users" already exists (42701)')
    has(result.stdout, "-- 002_email (up) on t_003, for 4 tenants")
    has(result.stderr, "2 tenants would fail")
    has(result.stderr, "this was a dry run; nothing was changed")
    assert.equal(before, picture(db))
    local said = answer(7, "up", "--dry-run")
    assert.equal("tenants", said.error.code)
    assert.same({ "t_001", "t_002" }, said.tenants.failures[1].tenants)
    assert.equal("42701", said.tenants.failures[1].sqlstate)
    assert.equal("42701", said.groups[2].error.sqlstate)
    assert.is_nil(said.groups[1].error)
  end))

  it("finds what only the end of the transaction would tell", async(function()
    project(2, { ["001_users.sql"] = sql("tenant", [[create table users (id int primary key, boss int
      references users deferrable initially deferred); insert into users values (1, 2);]],
      { down = "drop table users;" }) })
    has(moonbird(7, "up", "--dry-run").stdout, "23503")
  end))

  it("says what it can't run, and what comes after that", async(function()
    project(3, { ["001_users.sql"] = USERS,
      ["002_index.sql"] = sql("tenant", "create index concurrently users_name on users (name);",
        { alone = true, down = "drop index users_name;" }),
      ["003_email.sql"] = EMAIL })
    local out = moonbird(0, "up", "--dry-run").stdout
    has(out, "-- 001_users (up) on t_001, for 3 tenants")
    has(out, "not rehearsed: 002_index on t_001: it has no transaction")
    has(out, "not rehearsed: 003_email on t_001: it comes after 002_index")
    assert.is_nil(db:value "select to_regclass('t_001.users')::text")
  end))

  it("leaves out what is held back, and says so", async(function()
    project(2, { ["001_users.sql"] = USERS, ["002_fill.lua"] = lua("tenant", "", [[
      backfill = { table = "users", key = "id", set = "name = 'x'" }, ]]):gsub("up = function.*", "}"),
      ["003_name.sql"] = sql("tenant", "alter table users drop column name;", { phase = "contract",
        compatibility = "breaking", down = "alter table users add column name text;",
        head = "-- completes: 1\n-- rationale: made up\n" }) })
    local said = answer(0, "up", "--dry-run", "--backfills", "skip")
    assert.same({ "001_users" }, said.groups[1].rehearsed)
    assert.same({ "002_fill", "003_name" }, { said.held[1].id, said.held[2].id })
    has(moonbird(0, "up", "--dry-run", "--backfills", "skip").stdout, "held back 002_fill")
  end))

  it("ends at a global migration that fails, with its place", async(function()
    project(3, { ["001_users.sql"] = USERS, ["002_broken.sql"] = sql("global", "select * from nowhere;") })
    local said = answer(1, "up", "--dry-run")
    assert.equal("42P01", said.error.sqlstate)
    assert.equal("migrations/002_broken.sql", said.error.file)
    assert.equal("", json.encode(said):match "moonbird_rehearsal" or "")
    assert.is_nil(db:value "select to_regclass('t_001.users')::text")
  end))

  it("tells those that are pinned, late, ahead or away", async(function()
    local own = helper.database()
    project(5, { ["moonbird.lua"] = ([[return { tenants = { source = { tenants.schemas{ like = [=[t\_%%]=] },
      tenants.list{ { name = "own", database = %q } } } } }]]):format(own.name),
      ["001_users.sql"] = USERS, ["004_last.sql"] = sql("tenant", "create table last (n bigint primary key);",
        { down = "drop table last;" }) })
    moonbird(0, "up", "--tenant", "t_001")
    moonbird(0, "up", "--to", "1")
    moonbird(0, "tenant", "pin", "t_002", "--to", "1", "--reason", "made up")
    assert(os.remove(dir .. "/migrations/004_last.sql"))
    helper.write(dir, { ["migrations/002_email.sql"] = EMAIL })
    own:disconnect()
    db:exec(("alter database %q allow_connections false"):format(own.name))
    local said = answer(7, "up", "--dry-run")
    db:exec(("alter database %q allow_connections true"):format(own.name))
    assert.same({ "t_002" }, said.tenants.pinned)
    assert.same({ "t_001" }, said.tenants.ahead)
    assert.same({ "own" }, said.tenants.failures[1].tenants)
    assert.equal("connect", said.tenants.failures[1].code)
    assert.same({ tenant = "t_003", tenants = 3, rehearsed = { "002_email" }, not_rehearsed = {} }, said.groups[1])
  end))

  it("is refused what `up` is refused", async(function()
    project(3, { ["001_users.sql"] = sql("tenant", "create table public.users (id int);") })
    local said = answer(6, "up", "--dry-run")
    assert.equal("policy", said.error.code)
    assert.is_nil(db:value "select to_regclass('public.users')::text")
  end))
end)
