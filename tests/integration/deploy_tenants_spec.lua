--- `moonbird deploy` over tenants: what its diagnostics say of each of them, what it looks at when all is done, and
-- several processes of a fleet that deploy together.
-- The same on every server.
local fs = require "moonbird.core.fs"
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local tenants = require "tests.tenants"
local texts = require "tests.texts"
local async, sql = helper.async, tenants.sql
local has = texts.has

local USERS = sql("tenant", "create table users (id bigint primary key, name text);", { down = "drop table users;" })
local EMAIL = sql("tenant", "alter table users add column email text;",
  { down = "alter table users drop column email;" })
local PLANS = sql("global", "create table public.plans (id bigint primary key);", { down = "drop table public.plans;" })
-- Fails where somebody left a row in it.
local UNIQUE = sql("tenant", "alter table users add constraint users_named check (name is not null);",
  { down = "alter table users drop constraint users_named;" })

describe("deploy over tenants", function()
  local db, dir, artifact

  before_each(async(function()
    db = helper.database()
  end))

  local function project(count, files, more)
    dir = tenants.given(db, count, files, more)
    artifact = dir .. "/out/deploy.json"
  end

  local function deploy(status, ...)
    return tenants.answer(status, { db = db, cwd = dir }, "deploy", "--artifact", artifact, ...)
  end

  local function diagnostics()
    return assert(json.decode(assert(fs.read(artifact))))
  end

  local function by_name(list)
    local map = {}
    for _, entry in ipairs(list) do
      assert.is_nil(map[entry.tenant], entry.tenant .. " is there twice")
      map[entry.tenant] = entry
    end
    return map
  end

  describe("leaves diagnostics", function()
    it("of each tenant: steps and time of those that are done, in brief", async(function()
      project(12, { ["001_users.sql"] = USERS, ["002_plans.sql"] = PLANS, ["003_email.sql"] = EMAIL },
        "canary = { 1, 3 }")
      local said = deploy(0)
      local data = diagnostics()
      assert.is_true(data.ok)
      assert.equal("done", data.state)
      assert.equal(12, data.tenants.total)
      assert.same({ { migrations = { "001_users" }, tenants = 12 }, { migrations = { "003_email" }, tenants = 12 } },
        data.tenants.stages)
      local sizes, done = {}, {}
      for i, wave in ipairs(data.tenants.waves) do
        sizes[i] = wave.tenants
        assert.equal("done", wave.outcome)
        assert.same({ wave.tenants, 0, 0 }, { wave.done, wave.failed, wave.waiting })
        assert.equal("integer", math.type(wave.duration_ms))
      end
      assert.same({ 1, 3, 8, 1, 3, 8 }, sizes)
      for _, row in ipairs(data.tenants.done) do
        done[row[1]] = (done[row[1]] or 0) + row[2]
        assert.equal("integer", math.type(row[3]))
      end
      for i = 1, 12 do
        assert.equal(2, done[("t_%03d"):format(i)])
      end
      assert.same({}, data.tenants.exceptions)
      assert.equal("002_plans", data.steps[1].id)
      assert.equal("done", data.steps[1].outcome)
      assert.same({ tenants = 12, at_head = 12, behind = 0, pinned = 0, ahead = 0 }, said.status)
      assert.same(said.status, data.result.status)
    end))

    it("of what failed, was tried again, was not begun, pinned or ahead, in full", async(function()
      project(40, { ["001_users.sql"] = USERS }, "lock_timeout = '100ms', canary = { 't_001' }, attempts = 3")
      deploy(0)
      db:exec "insert into t_010.users values (1); insert into t_011.users values (1)"
      tenants.moonbird(0, { db = db, cwd = dir }, "tenant", "pin", "t_020", "--to", "1", "--reason", "made up")
      helper.write(dir, { ["migrations/002_named.sql"] = UNIQUE, ["migrations/003_more.sql"] =
        sql("tenant", "create table more (id bigint primary key);", { down = "drop table more;" }) })
      local locker = db:connect()
      assert(locker:simple "begin; lock table t_030.users in access share mode")
      local said = deploy(7, "--max-failures", "5")
      assert(locker:simple "rollback")
      assert.is_nil(said.status)
      local data = diagnostics()
      assert.equal("failed", data.state)
      assert.equal("tenants", data.error.code)
      local entries = by_name(data.tenants.exceptions)
      assert.same({ "failed", "failed", "failed", "pinned" }, { entries.t_010.outcome, entries.t_011.outcome,
        entries.t_030.outcome, entries.t_020.outcome })
      -- Two that met the same share its text.
      assert.equal(entries.t_010.error, entries.t_011.error)
      local err = data.tenants.errors[entries.t_010.error]
      assert.equal("23514", err.sqlstate)
      assert.equal("002_named", err.migration)
      has(err.file, "002_named.sql")
      assert.equal("integer", math.type(err.line))
      assert.equal("55P03", data.tenants.errors[entries.t_030.error].sqlstate)
      assert.equal(2, #entries.t_030.tries)
      assert.equal("55P03", data.tenants.errors[entries.t_030.tries[1].error].sqlstate)
      assert.equal(36, #data.tenants.done)
      assert.equal(4, #data.tenants.exceptions)

      -- The canary fails: the others were not begun.
      db:exec "insert into t_001.more values (7)"
      helper.write(dir, { ["migrations/004_again.sql"] = sql("tenant",
        "alter table more add constraint again check (id <> 7);", { down = "alter table more drop constraint again;" }) })
      said = deploy(7, "--exclude", "t_010", "--exclude", "t_011", "--exclude", "t_030")
      assert.equal(1, said.tenants.failed)
      data = diagnostics()
      entries = by_name(data.tenants.exceptions)
      assert.equal("failed", entries.t_001.outcome)
      assert.equal("not_run", entries.t_002.outcome)
      assert.equal("halted", data.tenants.waves[1].outcome)
      has(data.tenants.stopped, "first failure")
    end))

    it("that stay small, however many fail in the same way", async(function()
      local count = helper.full and 10000 or 1500
      project(count, { ["001_poison.sql"] = sql("tenant", "create table poison as select 1 / 0 as x /* " .. ("x"):rep(20000)
        .. " */;", { down = "drop table poison;" }) })
      deploy(7, "--keep-going", "--canary", "1")
      local text = assert(fs.read(artifact))
      local data = assert(json.decode(text))
      assert.equal(count, #data.tenants.exceptions)
      assert.is_true(#data.tenants.errors < 5, #data.tenants.errors .. " errors")
      assert.is_true(#text < 200000 + count * 250, #text .. " bytes")
      for i = 1, count, 13 do
        assert.equal("failed", data.tenants.exceptions[i].outcome)
      end
    end))

    it("when it is killed: what was known by then", async(function()
      project(8, { ["001_slow.sql"] = sql("tenant", "create table slow (id bigint primary key); select pg_sleep(0.6);",
        { down = "drop table slow;" }) }, "canary = {}, jobs = 1")
      local child = helper.spawn({ "deploy", "--artifact", artifact, "--canary", "1" }, { db = db, cwd = dir })
      helper.eventually("three are done", function()
        return db:value "select to_regclass('moonbird.state') is not null" and tenants.count_at(db, "1") >= 3
      end)
      child:kill("KILL")
      child:wait()
      local data = diagnostics()
      assert.equal("running", data.state)
      assert.is_true(#data.tenants.done >= 1, "nobody is noted as done")
      assert.equal("done", data.tenants.waves[1].outcome)
      assert.equal("running", data.tenants.waves[2].outcome)
    end))
  end)

  describe("looks again when all is done", function()
    --- A deployment that waits between its waves while something is done.
    local function meanwhile(work, ...)
      local child = helper.spawn({ "--json", "deploy", "--artifact", artifact, "--canary", "2", ... },
        { db = db, cwd = dir })
      helper.eventually("the canaries are done", function()
        return db:value "select to_regclass('moonbird.state') is not null" and tenants.count_at(db, "1") == 2
      end)
      work(db:values "select target from moonbird.state where applies and target ~ '^t_' order by 1")
      local result = child:wait(30000)
      assert.is_truthy(result, "it hangs")
      return json.decode(result.stdout), result
    end

    it("and fails when a tenant is not where it was brought", async(function()
      project(6, { ["001_users.sql"] = USERS }, "soak = '2s'")
      local other = tenants.project { ["001_users.sql"] = USERS }
      local victim
      local said, result = meanwhile(function(canaries)
        victim = canaries[1]
        tenants.moonbird(0, { db = db, cwd = other }, "down", "--tenant", victim)
      end)
      assert.equal(4, result.status, result.stdout .. result.stderr)
      assert.equal("pending", said.error.code)
      has(result.stdout, victim .. " lacks 001_users")
      assert.same({ 6, 5, 1 }, { said.status.tenants, said.status.at_head, said.status.behind })
      assert.is_false(diagnostics().ok)
      deploy(0)
    end))

    it("and takes in tenants that were made meanwhile", async(function()
      project(6, { ["001_users.sql"] = USERS }, "soak = '2s'")
      local said, result = meanwhile(function()
        db:exec "create schema t_100; create schema t_101"
      end)
      assert.equal(0, result.status, result.stdout .. result.stderr)
      assert.same({ 8, 8, 0 }, { said.status.tenants, said.status.at_head, said.status.behind })
      assert.equal(8, tenants.count_at(db, "1"))
      assert.equal(8, said.tenants.migrated)
    end))

    it("at the chosen ones only, up to --to, and lists those that are pinned", async(function()
      project(6, { ["001_users.sql"] = USERS, ["002_plans.sql"] = PLANS, ["003_email.sql"] = EMAIL })
      assert.equal(2, deploy(0, "--to", "1", "--tenant", "t_001", "--tenant", "t_002").status.at_head)
      deploy(0, "--to", "2")
      tenants.moonbird(0, { db = db, cwd = dir }, "tenant", "pin", "t_003", "--to", "1", "--reason", "made up")
      local said = deploy(0)
      assert.same({ tenants = 6, at_head = 5, behind = 0, pinned = 1, ahead = 0 }, said.status)
      assert.same({ "t_003" }, said.tenants.pinned)
    end))
  end)

  describe("by a fleet", function()
    it("is shared, verified by each process, and each leaves its diagnostics", async(function()
      project(60, { ["001_users.sql"] = USERS, ["002_plans.sql"] = PLANS, ["003_email.sql"] =
        sql("tenant", "alter table users add column email text; select pg_sleep(0.02);",
          { down = "alter table users drop column email;" }) }, "jobs = 2")
      local children = {}
      for i = 1, 3 do
        children[i] = helper.spawn({ "--json", "deploy", "--fleet", "release-1", "--artifact", dir .. "/out/" .. i },
          { db = db, cwd = dir })
      end
      local done = 0
      for i, child in ipairs(children) do
        local result = child:wait(60000)
        assert.is_truthy(result, "it hangs")
        assert.equal(0, result.status, result.stdout .. result.stderr)
        local said = json.decode(result.stdout)
        assert.equal("done", said.fleet.status)
        assert.same({ tenants = 60, at_head = 60, behind = 0, pinned = 0, ahead = 0 }, said.status)
        local data = assert(json.decode(assert(fs.read(dir .. "/out/" .. i))))
        assert.is_true(data.ok)
        assert.equal("release-1", data.result.fleet.run)
        done = done + #data.tenants.done
      end
      assert.equal(120, done) -- each tenant in two stages, by one of them
      assert.equal(60, tenants.count_at(db, "1 3"))
      assert.equal("", tenants.not_once(db))
      -- deploy's own canaries
      assert.same({ 1, 1, 6, 52 }, db:values [[select count(*) from moonbird.run_item where stage = 1
        group by wave order by wave]])
      tenants.answer(0, { db = db, cwd = dir }, "deploy", "--fleet", "release-1")
    end))

    it("fails closed for all when a canary fails, and when what it did is gone again", async(function()
      project(30, { ["001_users.sql"] = USERS })
      deploy(0)
      db:exec [[do $$ begin for i in 1 .. 30 loop
        execute format('insert into t_%s.users values (1)', to_char(i, 'FM000')); end loop; end $$]]
      helper.write(dir, { ["migrations/002_named.sql"] = UNIQUE })
      local children = {}
      for i = 1, 2 do
        children[i] = helper.spawn({ "--json", "deploy", "--fleet", "r2", "--artifact", dir .. "/out/" .. i },
          { db = db, cwd = dir })
      end
      for i, child in ipairs(children) do
        local result = child:wait(60000)
        assert.equal(7, result.status, result.stdout .. result.stderr)
        local data = assert(json.decode(assert(fs.read(dir .. "/out/" .. i))))
        -- also of what the other process met
        local outcomes = {}
        for _, entry in ipairs(data.tenants.exceptions) do
          outcomes[entry.outcome] = (outcomes[entry.outcome] or 0) + 1
        end
        assert.same({ failed = 1, not_run = 29 }, outcomes)
      end
      assert.equal(30, tenants.count_at(db, "1"))
      db:exec [[do $$ begin for i in 1 .. 30 loop
        execute format('delete from t_%s.users', to_char(i, 'FM000')); end loop; end $$]]
      tenants.moonbird(0, { db = db, cwd = dir }, "run", "resume", "r2")
      tenants.answer(0, { db = db, cwd = dir }, "deploy", "--fleet", "r2")
      tenants.moonbird(0, { db = db, cwd = dir }, "down", "--tenant", "t_007")
      local said = tenants.answer(4, { db = db, cwd = dir }, "deploy", "--fleet", "r2")
      assert.equal("pending", said.error.code)
      has(json.encode(said), "t_007 lacks 002_named")
    end))
  end)
end)
