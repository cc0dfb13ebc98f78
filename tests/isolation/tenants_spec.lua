--- Tenant runs and what happens beside them: locks, lost backends, signals, other runs at the same time, poolers,
-- servers that are full, gone for a while or small; and how many connections and how much memory they take.
-- The same on every server.
local fs = require "moonbird.core.fs"
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local pgbouncer = require "tests.pgbouncer"
local open_session = require("moonbird.core.session").open
local sys = require "moonbird.core.sys"
local task = require "moonbird.core.task"
local tenants = require "tests.tenants"
local texts = require "tests.texts"
local async, sql, lua = helper.async, tenants.sql, tenants.lua
local has = texts.has

-- Proves that a step was done once: every run of it leaves a row behind.
local COUNTED = sql("tenant", "create table if not exists ran (n int); insert into ran values (1);"
  .. " create table users (id int);")

describe("tenants beside others:", function()
  local db, dir

  before_each(async(function()
    db = helper.database()
  end))

  local function moonbird(status, ...)
    return tenants.moonbird(status, { db = db, cwd = dir, timeout = 120 }, ...)
  end

  local function answer(status, ...)
    return tenants.answer(status, { db = db, cwd = dir, timeout = 120 }, ...)
  end

  local function project(count, files, more)
    dir = tenants.given(db, count, files, more)
  end

  --- Fails unless each of the tenants has done the steps once: by its rows and by the journal.
  local function all_once(count, versions)
    assert.equal(count, tenants.count_at(db, versions))
    assert.equal("", tenants.not_once(db))
    assert.equal(0, db:value "select count(*) from moonbird.verify()")
  end

  local function rows_in(count, relation)
    local total = 0
    for first = 1, count, 100 do
      local parts = {}
      for i = first, math.min(count, first + 99) do
        parts[#parts + 1] = ("select count(*) as n from t_%03d.%s"):format(i, relation)
      end
      total = total + db:value("select sum(n)::int from (" .. table.concat(parts, " union all ") .. ") s")
    end
    return total
  end

  --- Waits until a moonbird backend of this database sleeps in pg_sleep or waits for a lock.
  local function at_work(n)
    helper.eventually("tenants are at work", function()
      return db:value([[select count(*) from pg_stat_activity where application_name like 'moonbird/%'
        and datname = current_database() and wait_event = 'PgSleep']]) >= (n or 1)
    end)
  end

  describe("a lock", function()
    local ADD = sql("tenant", "alter table items add column extra int;")

    local function ready(count, more)
      project(count, { ["001_items.sql"] = sql("tenant", "create table items (n int); insert into items values (1);") },
        more)
      moonbird(0, "up")
      helper.write(dir, { ["migrations/002_add.sql"] = ADD })
    end

    it("on one of 400 costs one lock timeout, not one for each neighbour", async(function()
      ready(400)
      local started = sys.monotonic()
      moonbird(0, "up")
      local plain = sys.monotonic() - started
      helper.write(dir, { ["migrations/003_more.sql"] = sql("tenant", "alter table items add column more int;") })
      local locker = db:connect()
      assert(locker:simple("begin; lock table t_005.items in access share mode"))
      started = sys.monotonic()
      local child = helper.spawn({ "--json", "up" }, { db = db, cwd = dir })
      -- all others are through long before the lock is gone
      helper.eventually("399 are done", function()
        return tenants.count_at(db, "1 2 3") == 399
      end, 60)
      local others = sys.monotonic() - started
      assert(locker:simple "rollback")
      local result = child:wait(30000)
      assert.equal(0, result.status, result.stdout .. result.stderr)
      assert.is_true(others < plain * 3 + 3, ("%.1f s with the lock, %.1f s without"):format(others, plain))
      all_once(400, "1 2 3")
    end))

    it("that goes away in time is no failure, and is tried again behind the others", async(function()
      ready(12, "lock_timeout = '100ms'")
      local locker = db:connect()
      assert(locker:simple("begin; lock table t_001.items in access share mode"))
      local child = helper.spawn({ "--json", "up", "--jobs", "1" }, { db = db, cwd = dir })
      helper.eventually("the others are done", function()
        return tenants.count_at(db, "1 2") == 11
      end)
      assert(locker:simple "rollback")
      local result = child:wait(30000)
      assert.equal(0, result.status, result.stderr)
      local attempts = 0
      for line in result.stderr:gmatch("[^\n]+") do
        local event = line:sub(1, 1) == "{" and json.decode(line)
        if event and event.event == "retry" then
          attempts = attempts + 1
          assert.equal("t_001", event.tenant)
          assert.equal("55P03", event.sqlstate)
          assert.equal(attempts, event.attempt)
        end
      end
      assert.is_true(attempts >= 1 and attempts < 5, attempts .. " attempts")
      all_once(12, "1 2")
    end))

    it("in the way of a step without a transaction is told under the tenant's name", async(function()
      project(3, { ["001_items.sql"] = sql("tenant", "create table items (id int);"),
        ["002_plans.sql"] = sql("global", "create table public.plans (id int);",
          { down = "drop table public.plans;" }) })
      moonbird(0, "up", "--to", "1")
      helper.write(dir, { ["migrations/003_note.sql"] = sql("tenant", "alter table items add column note text;",
        { alone = true, down = "alter table items drop column note;" }) })
      local locker = db:connect()
      assert(locker:simple("begin; lock table t_002.items in access share mode"))
      local child = helper.spawn({ "deploy", "--canary", "t_001", "--artifact", "run.json" }, { db = db, cwd = dir })
      helper.eventually("the others are done", function()
        return tenants.count_at(db, "1 3") == 2
      end)
      task.sleep(800) -- longer than the first wait for a lock
      assert(locker:simple "rollback")
      local result = child:wait(30000)
      assert.equal(0, result.status, result.stderr)
      local told = json.decode(assert(fs.read(dir .. "/run.json")))
      has(json.encode(told.log), "t_002: attempt 1: canceling statement due to lock timeout")
      assert.same({ "002_plans done" }, { told.steps[1].id .. " " .. told.steps[1].outcome, told.steps[2] })
      assert.equal(0, #told.steps[1].attempts)
      all_once(3, "1 3")
    end))

    it("on many at the end of a wave is no failure in a row", async(function()
      ready(20, "lock_timeout = '50ms', attempts = 2, max_failures = 8")
      local locker = db:connect()
      for i = 1, 7 do
        assert(locker:simple((i == 1 and "begin; " or "")
          .. ("lock table t_%03d.items in access share mode"):format(i)))
      end
      local said = answer(7, "up")
      assert.same({ 13, 7, 0 }, { said.tenants.migrated, said.tenants.failed, #said.tenants.not_run })
      assert.equal(7, said.tenants.groups[1].count)
      assert(locker:simple "rollback")
      moonbird(0, "up")
      all_once(20, "1 2")
    end))
  end)

  describe("an error that another try may not meet", function()
    local function once_with(sqlstate)
      -- A sequence keeps what a rolled back transaction counted.
      return lua("tenant", ([[
        db:exec "create table if not exists ran (n int)"
        db:exec "insert into ran values (1)"
        if db:value("select nextval('tries')") %% 2 == 1 then
          db:exec "do $$ begin raise exception 'made up' using errcode = '%s'; end $$"
        end]]):format(sqlstate))
    end

    for _, sqlstate in ipairs { "40P01", "40001", "55P03", "53300", "57P01" } do
      it(sqlstate .. " is met with another", async(function()
        project(5, { ["001_ran.lua"] = once_with(sqlstate) }, "shared = { 'public' }")
        db:exec "create sequence public.tries"
        local _, events = answer(0, "up", "--jobs", "1")
        local retries = 0
        for _, event in ipairs(events) do
          retries = retries + (event.event == "retry" and 1 or 0)
        end
        assert.equal(5, retries)
        assert.equal(5, rows_in(5, "ran"))
        all_once(5, "1")
      end))
    end

    it("but no other error is", async(function()
      project(3, { ["001_poison.sql"] = sql("tenant", "select 1 / 0;") })
      local _, events = answer(7, "up", "--keep-going")
      for _, event in ipairs(events) do
        assert.is_true(event.event ~= "retry")
      end
    end))

    it("a deadlock of two real sessions", async(function()
      project(2, { ["001_tables.sql"] = sql("tenant", "create table a (n int); create table b (n int);"
        .. "insert into a values (1); insert into b values (1);") })
      moonbird(0, "up")
      helper.write(dir, { ["migrations/002_both.lua"] = lua("tenant", [[
        db:exec "update a set n = n + 1"
        db:exec "select pg_sleep(0.5)"
        db:exec "update b set n = n + 1"]]) })
      local other = db:connect()
      local child = helper.spawn({ "--json", "up", "--lock-timeout", "20s", "--tenant", "t_001" }, { db = db, cwd = dir })
      at_work()
      assert(other:simple "set deadlock_timeout = '30s'; begin; update t_001.b set n = n + 10")
      local _, err = other:simple "update t_001.a set n = n + 10"
      assert.is_nil(err)
      assert(other:simple "commit")
      local result = child:wait(30000)
      assert.equal(0, result.status, result.stderr)
      has(result.stderr, "40P01")
      assert.equal(12, db:value "select n from t_001.a")
      assert.equal("1 2", tenants.versions(db, "t_001"))
      assert.equal("", tenants.not_once(db))
    end))

    it("a statement that takes too long is its tenant's failure, and nobody else's", async(function()
      project(4, { ["001_slow.lua"] = lua("tenant", [[
        db:exec "create table users (id int)"
        if db.target.name == "t_002" then db:exec "select pg_sleep(30)" end]], "timeouts = { statement = '300ms' },") })
      local said = answer(7, "up", "--keep-going")
      assert.same({ 3, 1 }, { said.tenants.migrated, said.tenants.failed })
      assert.equal("57014", said.tenants.groups[1].sqlstate)
    end))
  end)

  describe("a lost backend", function()
    local SLOW = lua("tenant", [[
      db:exec "create table ran (n int)"
      db:exec "select pg_sleep(0.15)"
      db:exec "insert into ran values (1)"]])

    local function terminate()
      return db:value [[select count(pg_terminate_backend(pid)) from pg_stat_activity
        where application_name like 'moonbird/%' and datname = current_database()]]
    end

    it("in the middle of its step: another one does it, once", async(function()
      project(24, { ["001_slow.lua"] = SLOW })
      local child = helper.spawn({ "--json", "up", "--jobs", "4" }, { db = db, cwd = dir })
      for _ = 1, 2 do
        at_work(2)
        assert.is_true(terminate() >= 2)
        task.sleep(100)
      end
      local result = child:wait(60000)
      assert.equal(0, result.status, result.stdout .. result.stderr)
      assert.equal(24, rows_in(24, "ran"))
      all_once(24, "1")
    end))

    it("with a global migration still to come: that is done as well", async(function()
      project(8, { ["001_slow.lua"] = SLOW, ["002_plans.sql"] = sql("global", "create table public.plans (id int);"),
        ["003_more.sql"] = sql("tenant", "create table more (id int);") })
      local child = helper.spawn({ "--json", "up", "--jobs", "2" }, { db = db, cwd = dir })
      at_work(2)
      terminate()
      local result = child:wait(60000)
      assert.equal(0, result.status, result.stdout .. result.stderr)
      assert.equal("2", tenants.versions(db, "global"))
      all_once(8, "1 3")
    end))

    it("while idle: the slots of many tenants take new ones", async(function()
      project(30, { ["001_slow.lua"] = lua("tenant", [[
        db:exec "create table ran (n int)"
        db:exec "insert into ran values (1)"
        if db.target.name == "t_004" then db:exec "select pg_sleep(1)" end]]) }, "canary = { 20 }, soak = '1s'")
      local child = helper.spawn({ "--json", "up", "--jobs", "8" }, { db = db, cwd = dir })
      helper.eventually("the first wave is done", function()
        return db:value "select to_regclass('moonbird.state') is not null" and tenants.count_at(db, "1") == 20
      end)
      terminate()
      local result = child:wait(60000)
      assert.equal(0, result.status, result.stdout .. result.stderr)
      all_once(30, "1")
    end))
  end)

  describe("a signal", function()
    for _, signal in ipairs { "INT", "TERM" } do
      it(signal .. " ends the run; what ran is finished or rolled back, and a rerun completes", async(function()
        project(20, { ["001_slow.lua"] = lua("tenant", [[
          db:exec "create table ran (n int)"
          db:exec "insert into ran values (1)"
          db:exec "select pg_sleep(0.2)"]]) })
        local child = helper.spawn({ "--json", "up", "--jobs", "4" }, { db = db, cwd = dir })
        at_work(3)
        child:kill(signal)
        local result = child:wait(10000)
        assert.is_truthy(result, "it hangs")
        assert.equal(130, result.status, result.stdout .. result.stderr)
        local said = json.decode(result.stdout)
        assert.equal("interrupted", said.error.code)
        assert.equal(20, said.tenants.migrated + #said.tenants.not_run)
        assert.equal(said.tenants.migrated, tenants.count_at(db, "1"))
        helper.eventually("its backends are gone", function()
          return db:value [[select count(*) from pg_stat_activity where application_name like 'moonbird/%'
            and datname = current_database()]] == 0
        end)
        moonbird(0, "up")
        assert.equal(20, rows_in(20, "ran"))
        all_once(20, "1")
      end))
    end

    it("ends a run whose tenants wait to be tried again", async(function()
      project(3, { ["001_items.sql"] = sql("tenant", "create table items (n int);") }, "lock_timeout = '50ms'")
      moonbird(0, "up")
      helper.write(dir, { ["migrations/002_add.sql"] = sql("tenant", "alter table items add column extra int;") })
      local locker = db:connect()
      assert(locker:simple "begin; lock table t_001.items, t_002.items, t_003.items in access share mode")
      local child = helper.spawn({ "--json", "up" }, { db = db, cwd = dir })
      task.sleep(600)
      child:kill "INT"
      local result = child:wait(5000)
      assert.is_truthy(result, "it hangs")
      assert.equal(130, result.status, result.stdout)
      assert.equal(3, #json.decode(result.stdout).tenants.not_run)
      assert(locker:simple "rollback")
    end))

    it("of time: --timeout ends it the same way", async(function()
      project(20, { ["001_slow.lua"] = lua("tenant", [[db:exec "create table ran (n int)" db:exec "select pg_sleep(0.3)"]]) })
      local result = helper.moonbird({ "--json", "up", "--timeout", "1s", "--jobs", "2" }, { db = db, cwd = dir })
      assert.equal(1, result.status, result.stdout)
      local said = json.decode(result.stdout)
      assert.equal("timeout", said.error.code)
      assert.equal(20, said.tenants.migrated + #said.tenants.not_run)
      moonbird(0, "up")
      all_once(20, "1")
    end))
  end)

  describe("two runs at once", function()
    it("share the tenants, each is done once", async(function()
      project(80, { ["001_users.sql"] = COUNTED, ["002_slow.lua"] = lua("tenant", [[
        db:exec "create table slow (n int)" db:exec "select pg_sleep(0.02)"]]) })
      local first = helper.spawn({ "--json", "up", "--jobs", "4" }, { db = db, cwd = dir })
      local second = helper.spawn({ "--json", "up", "--jobs", "4" }, { db = db, cwd = dir })
      for _, child in ipairs { first, second } do
        local result = child:wait(60000)
        assert.equal(0, result.status, result.stdout .. result.stderr)
      end
      assert.equal(80, rows_in(80, "ran"))
      all_once(80, "1 2")
    end))

    it("wait for a tenant that the other one is busy with as long as --lock-wait says", async(function()
      project(2, { ["001_slow.lua"] = lua("tenant", [[db:exec "create table ran (n int)" db:exec "select pg_sleep(5)"]]) })
      local first = helper.spawn({ "--json", "up" }, { db = db, cwd = dir })
      at_work(2)
      local said = answer(0, "up")
      assert.equal(0, said.tenants.failed)
      assert.equal(0, first:wait(10000).status)
      all_once(2, "1")
    end))
  end)

  describe("through a pooler", function()
    it("in transaction mode", async(function()
      project(40, { ["001_users.sql"] = COUNTED, ["002_lua.lua"] = lua("tenant",
        [[db:exec("create table who as select $1::text as name, current_schema() as schema", db.target.name)]]) })
      local url = pgbouncer.start(db)
      local result = helper.ok({ "-u", url, "--json", "up", "--jobs", "8" }, { cwd = dir })
      assert.equal(40, json.decode(result.stdout).tenants.migrated)
      assert.equal(40, rows_in(40, "ran"))
      for i = 1, 40, 13 do
        local name = ("t_%03d"):format(i)
        assert.same({ name = name, schema = name }, db:query(("select * from %s.who"):format(name))[1])
      end
      all_once(40, "1 2")
      result = helper.ok({ "-u", url, "--json", "up" }, { cwd = dir })
      assert.equal(40, json.decode(result.stdout).tenants.current)
    end))
  end)

  describe("connections", function()
    local OPEN = [[select count(*)::int from pg_stat_activity where application_name like 'moonbird/%%' %s]]

    for name, files in pairs {
      ["plain migrations"] = { ["001_slow.lua"] = lua("tenant",
        [[db:exec "create table ran (n int)" db:exec "select pg_sleep(0.02)"]]) },
      ["migrations without a transaction"] = { ["001_items.sql"] = sql("tenant", "create table items (n int);"),
        ["002_index.sql"] = sql("tenant", "create index concurrently items_n on items (n);", { alone = true }) },
    } do
      it("to a database are never more than per_database, with " .. name, async(function()
        project(30, files, "per_database = 3")
        local stop = tenants.sample(db, OPEN:format("and datname = current_database()"))
        local said = answer(0, "up", "--jobs", "12")
        local most = stop()
        assert.is_true(most >= 2, "only " .. most .. " were seen")
        assert.is_true(most <= 3, most .. " connections were open")
        assert.is_true(said.tenants.connections <= 3)
      end))
    end

    --- Databases with one tenant each.
    local function databases(count, more, schema)
      local list = {}
      local template = helper.database()
      if schema then
        template:exec "create schema app"
      end
      local prefix = template.name .. "_x"
      template:disconnect()
      for i = 1, count do
        db:query(("create database %q template %q"):format(prefix .. i, template.name))
        list[i] = ("{ name = 'own%d', database = '%s%d'%s }"):format(i, prefix, i, schema and ", schema = 'app'" or "")
      end
      helper.defer(function()
        for i = 1, count do
          db:query(("drop database if exists %q with (force)"):format(prefix .. i))
        end
      end)
      dir = tenants.project { ["moonbird.lua"] = ("return { tenants = { source = tenants.list{ %s }, %s } }"):format(
        table.concat(list, ", "), more or ""),
        ["001_users.sql"] = sql("tenant", "create table users (id int);") }
      return prefix
    end

    it("to 60 databases are never more than the slots, and few", async(function()
      local count = helper.full and 200 or 60
      local prefix = databases(count)
      local stop = tenants.sample(db, OPEN:format(("and datname like '%s%%'"):format(prefix)))
      local said = answer(0, "up", "--jobs", "8")
      local most = stop()
      assert.equal(count, said.tenants.migrated)
      assert.is_true(most <= 8, most .. " connections were open")
      assert.is_true(said.tenants.connections <= 9, "connections: " .. said.tenants.connections)
      said = answer(0, "up")
      assert.equal(0, said.tenants.failed)
      assert.same({ count, 0 }, { said.tenants.current, said.tenants.migrated })
    end))

    it("are followed when the journals' chains are checked", async(function()
      local prefix = databases(2)
      moonbird(0, "up")
      has(moonbird(0, "history", "--verify").stdout, "every row follows")
      local params = {}
      for key, value in pairs(db.params) do
        params[key] = value
      end
      params.dbname = prefix .. "2"
      local other <close> = assert(open_session(params, { application_name = "moonbird-tests" }))
      assert(other:simple [[alter table moonbird.journal disable trigger all;
        update moonbird.journal set applied_by = 'nobody' where target = 'own2' and event = 'apply']])
      has(moonbird(1, "history", "--verify").stderr, ("database %s2, target own2, event "):format(prefix))
      moonbird(1, "history", "--verify", "--tenant", "own2")
      moonbird(0, "history", "--verify", "--tenant", "own1")
      has(moonbird(0, "show", "1").stdout, "applied to tenants: `moonbird tenant status` shows how far they are")
    end))

    it("to a server are never more than per_server", async(function()
      local prefix = databases(12, "per_server = 3", true)
      -- A backend drops its temporary tables when it ends: it counts for a while after its client has left.
      helper.write(dir, { ["migrations/002_slow_to_go.lua"] = lua("tenant", [[
        for i = 1, 50 do db:exec(("create temporary table t%d (id int primary key)"):format(i)) end]]) })
      local stop = tenants.sample(db, OPEN:format(("and (datname like '%s%%' or datname = current_database())")
        :format(prefix)))
      local said = answer(0, "up", "--jobs", "8")
      local most = stop()
      assert.equal(12, said.tenants.migrated)
      assert.is_true(most <= 3, most .. " connections were open")
    end))

    it("are tried again where the server has no more to give", async(function()
      local server = tenants.server { max_connections = "12", superuser_reserved_connections = "2" }
      dir = tenants.project { ["001_slow.lua"] = lua("tenant", [[
        db:exec "create table ran (n int)" db:exec "insert into ran values (1)" db:exec "select pg_sleep(0.03)"]]) }
      local session = server.session()
      for i = 1, 60 do
        assert(session:query(("create schema t_%03d"):format(i)))
      end
      local result = helper.ok({ "-u", server.url, "--json", "up", "--jobs", "32" }, { cwd = dir, timeout = 120 })
      local said = json.decode(result.stdout)
      assert.equal(60, said.tenants.migrated)
      local rows = assert(session:query [[select count(*) from moonbird.journal where event = 'apply' and target like 't%']])
      assert.equal(60, rows:value(1, 1))
    end))

    it("come back after the server was away for a while", async(function()
      local server = tenants.server {}
      dir = tenants.project { ["001_slow.lua"] = lua("tenant", [[
        db:exec "create table ran (n int)" db:exec "insert into ran values (1)" db:exec "select pg_sleep(0.05)"]]) }
      local session = server.session()
      for i = 1, 100 do
        assert(session:query(("create schema t_%03d"):format(i)))
      end
      local child = helper.spawn({ "-u", server.url, "--json", "up", "--jobs", "4" }, { cwd = dir })
      helper.eventually("some are done", function()
        local result = session:query "select count(*) from moonbird.journal where event = 'apply'"
        return result and result:value(1, 1) > 10
      end)
      server.stop()
      task.sleep(3000)
      server.start()
      local result = child:wait(90000)
      assert.is_truthy(result, "it hangs")
      assert.equal(0, result.status, result.stdout .. result.stderr:sub(-3000))
      session = server.session()
      local rows = assert(session:query [[select count(*) as n, count(distinct target) as d from moonbird.journal
        where event = 'apply' and target like 't%']])
      assert.same({ n = 100, d = 100 }, rows:row(1))
    end))

    it("and locks that a small server has not enough of are told, with what helps", async(function()
      local server = tenants.server { max_locks_per_transaction = "10", max_connections = "12" }
      local many = {}
      for i = 1, 400 do
        many[i] = ("create table many_%d (id int primary key);"):format(i)
      end
      dir = tenants.project { ["001_many.sql"] = sql("tenant", table.concat(many, "\n")) ,
        ["moonbird.lua"] = tenants.config "attempts = 2" }
      local session = server.session()
      assert(session:query "create schema t_001")
      local result = helper.moonbird({ "-u", server.url, "--json", "up" }, { cwd = dir })
      assert.equal(7, result.status, result.stdout .. result.stderr)
      local said = json.decode(result.stdout)
      assert.equal("53200", said.tenants.groups[1].sqlstate)
      has(result.stdout .. result.stderr, "max_locks_per_transaction")
      local rows = assert(session:query "select count(*) from pg_class where relname like 'many%'")
      assert.equal(0, rows:value(1, 1))
    end))
  end)

  describe("an older release", function()
    it("leaves targets alone that are ahead, and says why", async(function()
      project(6, { ["001_users.sql"] = COUNTED, ["002_email.sql"] = sql("tenant", "create table email (id int);") })
      moonbird(0, "up", "--tenant", "t_001", "--tenant", "t_002")
      local newer = dir
      project(0, { ["001_users.sql"] = COUNTED })
      local before = db:value "select count(*) from moonbird.journal where target in ('t_001', 't_002')"
      local said = answer(6, "up")
      assert.equal("ahead", said.error.code)
      assert.same({ "t_001", "t_002" }, said.tenants.ahead)
      has(said.error.message, "newer")
      assert.equal(before, db:value "select count(*) from moonbird.journal where target in ('t_001', 't_002')")
      assert.equal(4, tenants.count_at(db, "1"))
      dir = newer
      moonbird(0, "up")
      all_once(6, "1 2")
    end))

    it("and a newer one at the same time", async(function()
      project(60, { ["001_users.sql"] = COUNTED, ["002_email.sql"] = sql("tenant", "create table email (id int);") })
      local newer = dir
      project(0, { ["001_users.sql"] = COUNTED })
      local first = helper.spawn({ "--json", "up", "--jobs", "2" }, { db = db, cwd = dir })
      local second = helper.spawn({ "--json", "up", "--jobs", "2" }, { db = db, cwd = newer })
      local a, b = first:wait(60000), second:wait(60000)
      assert.equal(0, b.status, b.stdout .. b.stderr)
      assert.is_true(a.status == 0 or a.status == 6 or a.status == 7, a.stdout .. a.stderr)
      assert.equal(60, rows_in(60, "ran"))
      all_once(60, "1 2")
    end))
  end)

  it("3,000 of them fit into 64 MiB", async(function()
    local count = helper.full and 10000 or 3000
    project(count, { ["001_users.sql"] = sql("tenant", "create table users (id int);") })
    local child = helper.spawn({ "--json", "up" }, { db = db, cwd = dir, timeout = 300 })
    local most, result = 0, false
    while not result do
      local status = fs.read(("/proc/%d/status"):format(child:pid())) or ""
      most = math.max(most, tonumber(status:match("VmHWM:%s*(%d+)")) or 0)
      result = child:wait(50)
    end
    assert.equal(0, result.status, result.stdout .. result.stderr)
    assert.equal(count, json.decode(result.stdout).tenants.migrated)
    local sanitized = (fs.read(helper.bin()) or ""):find("__asan_init", 1, true)
    assert.is_true(sanitized ~= nil or most < 64 * 1024, ("%d kB at most"):format(most))
  end))
end)
