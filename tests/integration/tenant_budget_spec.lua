--- What a run over tenants does where tenants can't be begun, what it leaves, and the command it prints to go on: run
-- as it stands, that one does exactly the rest.
-- The same on every server.
local fleets = require "tests.crash.fleets"
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local tenants = require "tests.tenants"
local texts = require "tests.texts"
local async, sql = helper.async, tenants.sql
local has = texts.has

local USERS = sql("tenant", "create table users (id bigint primary key, name text);", { down = "drop table users;" })
local EMAIL = sql("tenant", "alter table users add column email text;", { down = "alter table users drop column email;" })
local PLANS = sql("global", "create table public.plans (id int primary key);", { down = "drop table public.plans;" })

describe("tenants that can't all be migrated:", function()
  local db, dir

  before_each(async(function()
    db = helper.database()
  end))

  local function project(count, files, more)
    dir = tenants.given(db, count, files, more)
  end

  local function answer(status, ...)
    return tenants.answer(status, { db = db, cwd = dir }, ...)
  end

  --- Runs commands as they were printed.
  local function follow(line, status)
    local said
    for command in (line .. " && "):gmatch("(.-) && ") do
      local words = {}
      for word in command:gmatch("%S+") do
        words[#words + 1] = word:gsub("'", "")
      end
      assert.equal("moonbird", words[1])
      said = answer(status, table.unpack(words, 2))
    end
    return said
  end

  -- Fails in the tenants of the list until there is a schema "mended".
  local function poison(names, up)
    return sql("tenant", ([[%s select 1 / (case when current_schema() in (%s)
      and not exists (select from pg_namespace where nspname = 'mended') then 0 else 1 end);]]):format(up, names))
  end

  describe("those that are refused as they are", function()
    local function late()
      project(6, { ["001_users.sql"] = USERS, ["003_email.sql"] = EMAIL })
      tenants.moonbird(0, { db = db, cwd = dir }, "up")
      helper.write(dir, { ["migrations/002_late.sql"] = sql("tenant", "create table late (n bigint primary key);") })
      db:exec "create schema t_100; create schema t_101" -- to these nothing is late
    end

    it("count against the budget before anybody is begun", async(function()
      late()
      local before = db:value "select count(*) from moonbird.journal"
      local said = answer(7, "up", "--max-failures", "5")
      assert.same({ 0, 6, 2 }, { said.tenants.migrated, said.tenants.failed, #said.tenants.not_run })
      assert.same({ "t_100", "t_101" }, said.tenants.not_run)
      has(said.tenants.stopped, "more than 5 failed before the first was begun")
      assert.equal(before, db:value "select count(*) from moonbird.journal")
      said = answer(7, "up", "--max-failures", "6")
      assert.same({ 2, 6, 0 }, { said.tenants.migrated, said.tenants.failed, #said.tenants.not_run })
    end))

    it("count in a fleet, too", async(function()
      late()
      local before = db:value "select count(*) from moonbird.journal where target like 't\\_%'"
      local said = answer(7, "up", "--fleet", "r1", "--max-failures", "5")
      assert.same({ 0, 6, 2 }, { said.tenants.migrated, said.tenants.failed, #said.tenants.not_run })
      assert.equal("halted", said.fleet.status)
      has(said.fleet.reason, "more than 5 failed")
      assert.equal(before, db:value "select count(*) from moonbird.journal where target like 't\\_%'")
      said = answer(7, "up", "--fleet", "r2", "--max-failures", "6", "--canary", "1")
      assert.same({ 2, 6, 0 }, { said.tenants.migrated, said.tenants.failed, #said.tenants.not_run })
      assert.equal("failed", said.fleet.status)
    end))
  end)

  describe("a run that is refused or ends early", function()
    it("does not call tenants up to date that it did not begin", async(function()
      project(4, { ["001_users.sql"] = USERS, ["002_bad.sql"] = sql("tenant", "create table public.x (n bigint primary key);") })
      tenants.moonbird(0, { db = db, cwd = dir }, "up", "--to", "1", "--tenant", "t_001")
      local said = answer(6, "up")
      assert.equal("policy", said.error.code)
      assert.same({ 0, 0, 0 }, { said.tenants.migrated, said.tenants.current, said.tenants.failed })
      assert.equal(4, #said.tenants.not_run)
      helper.write(dir, { ["migrations/002_bad.sql"] = sql("global", "select * from nowhere;"),
        ["migrations/003_email.sql"] = EMAIL })
      said = answer(1, "up")
      assert.same({ 3, 0, 0 }, { said.tenants.migrated, said.tenants.current, said.tenants.failed })
      assert.equal(4, #said.tenants.not_run) -- of them 003
      assert.equal("moonbird up", said.tenants.retry)
    end))

    it("is refused before its first stage by what its last one has", async(function()
      project(3, { ["001_users.sql"] = USERS, ["002_plans.sql"] = PLANS,
        ["003_bad.sql"] = sql("tenant", "create table public.x (n bigint primary key);") })
      for _, more in ipairs { {}, { "--fleet", "r1" } } do
        local said = answer(6, "up", table.unpack(more))
        has(said.error.problems[1].file, "003_bad.sql")
        assert.same({ 0, 0, 3 }, { said.tenants.migrated, said.tenants.current, #said.tenants.not_run })
        assert.equal("", tenants.versions(db, "global"))
        assert.equal("", tenants.versions(db, "t_001"))
      end
      assert.equal(0, db:value "select count(*) from moonbird.run")
    end))

    it("is gone on with by the whole command where a global migration waits for tenants", async(function()
      project(5, { ["001_users.sql"] = poison("'t_002'", "create table users (id bigint primary key);"),
        ["002_plans.sql"] = PLANS, ["003_email.sql"] = EMAIL })
      local said = answer(7, "up", "--keep-going")
      assert.same({ 4, 1 }, { said.tenants.migrated, said.tenants.failed })
      assert.equal("moonbird up --keep-going", said.tenants.retry)
      assert.equal("", tenants.versions(db, "global"))
      db:exec "create schema mended"
      follow(said.tenants.retry, 0)
      assert.equal(5, tenants.count_at(db, "1 3"))
      assert.equal("2", tenants.versions(db, "global"))
    end))
  end)

  it("the command of a fleet has the options that make its plan", async(function()
    project(12, { ["001_users.sql"] = poison("'t_003', 't_004'", "create table users (id bigint primary key);"),
      ["002_email.sql"] = EMAIL })
    local control = helper.database()
    local said = answer(7, "up", "--fleet", "release-1", "--to", "1", "--exclude", "t_01*", "--max-failures", "2",
      "--control", control.url)
    assert.same({ 7, 2 }, { said.tenants.migrated, said.tenants.failed })
    db:exec "create schema mended"
    said = follow(said.tenants.retry, 0)
    assert.equal("done", said.fleet.status)
    assert.equal(9, tenants.count_at(db, "1"))
    assert.equal("", tenants.versions(db, "t_010"))
  end))

  it("three equal errors stop a canary with --keep-going, in a fleet, too", async(function()
    local bad = {}
    for i = 1, 20 do
      bad[i] = ("'t_%03d'"):format(i)
    end
    project(24, { ["001_users.sql"] = poison(table.concat(bad, ", "), "create table users (id bigint primary key);") })
    for _, more in ipairs { {}, { "--fleet", "r1" } } do
      local said = answer(7, "up", "--keep-going", "--canary", "12", "--jobs", "1", table.unpack(more))
      assert.equal(3, said.tenants.failed)
      has(said.tenants.stopped, "same error in the canary")
    end
    -- Without --keep-going the first one does.
    assert.equal(1, answer(7, "up", "--canary", "12", "--jobs", "1", "--max-failures", "10").tenants.failed)
  end))

  it("a fleet counts a tenant once that has something to do in two stages", async(function()
    project(6, { ["001_users.sql"] = USERS, ["002_plans.sql"] = PLANS, ["003_email.sql"] = EMAIL })
    local said = answer(0, "up", "--fleet", "r1")
    assert.same({ 6, 6, 0 }, { said.tenants.total, said.tenants.migrated, said.tenants.current })
    db:exec "create schema t_100"
    said = answer(0, "up", "--fleet", "r2")
    assert.same({ 7, 1, 6 }, { said.tenants.total, said.tenants.migrated, said.tenants.current })
  end))

  it("barrier = false does not hold up what is global in a fleet, either", async(function()
    project(8, { ["001_users.sql"] = poison("'t_003'", "create table users (id bigint primary key);")
      :gsub("%-%- migrate:up", "-- barrier: false\n%0", 1), ["002_plans.sql"] = PLANS, ["003_email.sql"] = EMAIL })
    local children = {}
    for i = 1, 2 do
      children[i] = helper.spawn({ "up", "--fleet", "r1", "--max-failures", "1" }, { db = db, cwd = dir })
    end
    for _, result in ipairs(fleets.finish(children)) do
      assert.equal(7, result.status, result.stdout .. result.stderr)
    end
    assert.equal("2", tenants.versions(db, "global"))
    assert.equal("", tenants.versions(db, "t_003"))
    assert.equal(7, tenants.count_at(db, "1 3"))
    assert.equal("", tenants.not_once(db))
    assert.equal("failed", json.decode(tenants.moonbird(0, { db = db, cwd = dir }, "--json", "run", "show", "r1").stdout)
      .run.status)
  end))
end)
