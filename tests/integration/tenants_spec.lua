--- `up` and `deploy` over tenants on a real server: the order of global and tenant migrations, where they run and
-- what the journal says, gates, canaries, budgets, what fails beside what goes on, and what is told.
-- The same on every server.
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local sys = require "moonbird.core.sys"
local tenants = require "tests.tenants"
local texts = require "tests.texts"
local async, sql, lua = helper.async, tenants.sql, tenants.lua
local has, lacks = texts.has, texts.lacks

local USERS = sql("tenant", "create table users (id bigint primary key, name text);")
local EMAIL = sql("tenant", "alter table users add column email text;")
-- What a tenant migration sees of the global ones, and the other way round.
local PLANS = sql("global", "create table public.plans (id int primary key);")

describe("tenants:", function()
  local db, dir

  before_each(async(function()
    db = helper.database()
  end))

  local function moonbird(status, ...)
    return tenants.moonbird(status, { db = db, cwd = dir }, ...)
  end

  local function answer(status, ...)
    return tenants.answer(status, { db = db, cwd = dir }, ...)
  end

  local function project(count, files, more)
    dir = tenants.given(db, count, files, more)
  end

  describe("order", function()
    local function everybody(number, name)
      -- Fails unless every tenant has the table.
      return sql("global", ([[create table public.%s (n int);
        insert into public.%s select 1 / (case when (select count(*) from pg_namespace where nspname like 't\_%%')
          = (select count(*) from pg_class where relname = '%s') then 1 else 0 end);]]):format(name, name, number))
    end

    it("is by version, over global and tenant migrations", async(function()
      project(12, { ["001_plans.sql"] = PLANS,
        ["002_users.sql"] = sql("tenant", "create table users as select count(*) from plans;"),
        ["003_all.sql"] = everybody("users", "first_check"),
        ["004_more.sql"] = sql("tenant", "create table more as select n from first_check;"),
        ["005_all.sql"] = everybody("more", "second_check"),
      }, "shared = { 'public' }")
      moonbird(0, "up")
      assert.equal("1 3 5", tenants.versions(db, "global"))
      assert.equal(12, tenants.count_at(db, "2 4"))
      assert.equal("", tenants.not_once(db))
      moonbird(0, "history", "--verify")
      local said = answer(0, "up")
      assert.equal(12, said.tenants.current)
      assert.equal(0, said.tenants.migrated)
    end))

    it("counts a tenant once that had something to do in two stages", async(function()
      project(3, { ["001_users.sql"] = USERS, ["002_plans.sql"] = PLANS, ["003_email.sql"] = EMAIL })
      local said = answer(0, "up")
      assert.equal(3, said.tenants.migrated)
      assert.equal(3, said.tenants.total)
      assert.equal(0, said.tenants.current)
    end))

    it("holds a later global migration until every tenant is done", async(function()
      project(4, { ["001_users.sql"] = sql("tenant",
        "select 1 / (case when current_schema() = 't_003' then 0 else 1 end); create table users (id int);"),
        ["002_plans.sql"] = PLANS })
      local said = answer(7, "up", "--keep-going")
      assert.equal(1, said.tenants.failed)
      assert.equal("22012", said.tenants.groups[1].sqlstate)
      assert.equal("", tenants.versions(db, "global"))
      assert.equal(3, tenants.count_at(db, "1"))
      helper.write(dir, { ["migrations/001_users.sql"] = sql("tenant",
        "select 1 / (case when current_schema() = 't_003' then 0 else 1 end); create table users (id int);") })
    end))

    it("holds a later tenant migration back where an earlier one failed, barrier or not", async(function()
      project(4, { ["001_users.sql"] = sql("tenant",
        "select 1 / (case when current_schema() = 't_003' then 0 else 1 end); create table users (id int);",
        { head = "-- barrier: false\n" }),
        ["002_plans.sql"] = PLANS, ["003_last.sql"] = sql("tenant", "create table last (id int);") })
      local said = answer(7, "up", "--keep-going")
      assert.equal(1, said.tenants.failed)
      assert.equal("2", tenants.versions(db, "global"))
      assert.equal(3, tenants.count_at(db, "1 3"))
      assert.equal("", tenants.versions(db, "t_003"))
    end))

    it("does not hold a later global migration for one with barrier = false, within the budget", async(function()
      project(4, { ["001_users.lua"] = lua("tenant",
        "if db.target.name == 't_003' then error('poison') end db:exec 'create table users (id int)'",
        "barrier = false,"), ["002_plans.sql"] = PLANS })
      local said = answer(7, "up", "--max-failures", "1")
      assert.equal(1, said.tenants.failed)
      assert.equal("2", tenants.versions(db, "global"))
      assert.equal(3, tenants.count_at(db, "1"))
    end))

    it("stops chosen tenants at a pending global migration", async(function()
      project(4, { ["001_users.sql"] = USERS, ["002_plans.sql"] = PLANS, ["003_email.sql"] = EMAIL })
      local said = answer(4, "up", "--tenant", "t_002")
      assert.equal("pending", said.error.code)
      has(said.error.message, "002_plans")
      assert.equal("1", tenants.versions(db, "t_002"))
      assert.equal("", tenants.versions(db, "global"))
      assert.equal("", tenants.versions(db, "t_001"))
      answer(4, "up", "--exclude", "t_002")
      assert.equal("1", tenants.versions(db, "t_001"))
      assert.equal("", tenants.versions(db, "global"))
      moonbird(0, "up")
      assert.equal(4, tenants.count_at(db, "1 3"))
    end))

    it("does not stop chosen tenants at a global migration behind all of theirs", async(function()
      project(4, { ["001_users.sql"] = USERS, ["002_plans.sql"] = PLANS })
      local said = answer(0, "up", "--tenant", "t_002")
      assert.equal(1, said.tenants.migrated)
      assert.equal("1", tenants.versions(db, "t_002"))
      assert.equal("", tenants.versions(db, "global"))
    end))

    it("gives schemas that a global migration makes their tenant migrations", async(function()
      project(2, { ["001_users.sql"] = USERS,
        ["002_more.sql"] = sql("global", "create schema t_003; create schema t_004;"),
        ["003_email.sql"] = EMAIL })
      local said = answer(0, "up")
      assert.equal(4, tenants.count_at(db, "1 3"))
      assert.equal(4, said.tenants.total)
    end))

    it("gives schemas that the last global migration makes theirs too", async(function()
      project(0, { ["001_users.sql"] = USERS, ["002_more.sql"] = sql("global", "create schema t_003;") })
      moonbird(0, "up")
      assert.equal("1", tenants.versions(db, "t_003"))
    end))

    it("is what --steps and --dry-run are refused for, or keep to", async(function()
      project(2, { ["001_users.sql"] = USERS, ["002_plans.sql"] = PLANS, ["003_email.sql"] = EMAIL })
      local result = helper.moonbird({ "--json", "up", "--steps", "1" }, { db = db, cwd = dir })
      assert.is_true(result.status == 2 or tenants.count_at(db, "1") == 2 and tenants.versions(db, "global") == "",
        result.stdout)
    end))

    it("is not rehearsed on the global target with --dry-run", async(function()
      project(2, { ["001_users.sql"] = USERS, ["002_plans.sql"] = PLANS, ["003_email.sql"] = EMAIL })
      local said = answer(0, "up", "--dry-run")
      assert.same({ { id = "002_plans" } }, said.rehearsed)
      assert.same({ "001_users", "003_email" }, said.groups[1].rehearsed)
      assert.equal(0, db:value "select count(*) from pg_class where relname = 'plans'")
      assert.equal(0, db:value "select count(*) from pg_attribute where attname = 'email'")
      assert.is_nil(db:value "select to_regclass('public.users')::text")
    end))

    it("ends at --to", async(function()
      project(2, { ["001_users.sql"] = USERS, ["002_plans.sql"] = PLANS, ["003_email.sql"] = EMAIL })
      moonbird(0, "up", "--to", "2")
      assert.equal(2, tenants.count_at(db, "1"))
      assert.equal("2", tenants.versions(db, "global"))
    end))

    it("refuses what comes late to a tenant, unless it is allowed", async(function()
      project(3, { ["001_users.sql"] = USERS, ["003_email.sql"] = EMAIL })
      moonbird(0, "up")
      helper.write(dir, { ["migrations/002_late.sql"] = sql("tenant", "create table late (n int);") })
      db:exec "create schema t_009" -- to this one nothing is late
      local said = answer(7, "up", "--keep-going")
      assert.equal(3, said.tenants.failed)
      assert.equal("out_of_order", said.tenants.groups[1].code)
      assert.equal(3, tenants.count_at(db, "1 3"))
      assert.equal("1 2 3", tenants.versions(db, "t_009"))
      moonbird(0, "up", "--allow-out-of-order")
      assert.equal(4, tenants.count_at(db, "1 2 3"))
    end))

    it("refuses a changed file, also where nothing is pending", async(function()
      project(3, { ["001_users.sql"] = USERS })
      moonbird(0, "up")
      helper.write(dir, { ["migrations/001_users.sql"] = sql("tenant", "create table users (id int, other int);") })
      local said = answer(7, "up")
      assert.equal("checksum", said.tenants.groups[1].code)
      assert.equal(3, said.tenants.failed)
      helper.write(dir, { ["migrations/002_email.sql"] = EMAIL })
      said = answer(7, "up", "--keep-going")
      assert.equal("checksum", said.tenants.groups[1].code)
      assert.equal(3, tenants.count_at(db, "1"))
    end))
  end)

  describe("a tenant's migration", function()
    it("runs in its schema, with the shared ones behind, and knows its name, schema and vars", async(function()
      dir = tenants.project {
        ["moonbird.lua"] = [=[return { tenants = { source = tenants.list{
          { name = "acme", schema = "t_001", vars = { plan = "gold", seats = 3 } },
          { name = "Umlaut ä", schema = "T 2", vars = { plan = "none", seats = 0 } } }, shared = { "common" } } }]=],
        ["001_shared.sql"] = sql("global", "create schema common; create table common.countries (code text);"
          .. "insert into common.countries values ('at');"),
        ["002_facts.lua"] = lua("tenant", [[
          db:exec "create table facts (name text, schema text, plan text, seats int, path text, now_in text, country text)"
          db:exec("insert into facts select $1, $2, $3, $4, current_setting('search_path'), current_schema(), code from countries",
            db.target.name, db.target.schema, db.target.vars.plan, db.target.vars.seats)]]),
        ["003_plain.sql"] = sql("tenant", "create table plain as select current_setting('search_path') as path, "
          .. "current_schema() as now_in, code from countries;"),
        ["004_alone.sql"] = sql("tenant", "create index concurrently plain_code on plain (code);", { alone = true }),
      }
      db:exec [[create schema t_001; create schema "T 2"]]
      moonbird(0, "up")
      local facts = db:query 'select * from t_001.facts union all select * from "T 2".facts'
      assert.same({ name = "acme", schema = "t_001", plan = "gold", seats = 3, path = "t_001, common",
        now_in = "t_001", country = "at" }, facts[1])
      assert.equal("Umlaut ä", facts[2].name)
      assert.equal("T 2", facts[2].now_in)
      for _, row in ipairs(db:query 'select * from t_001.plain union all select * from "T 2".plain') do
        assert.equal("at", row.code)
        has(row.path, "common")
      end
      assert.equal(2, db:value "select count(*) from pg_indexes where tablename = 'plain'")
      assert.equal("2 3 4", tenants.versions(db, "acme"))
      assert.equal("2 3 4", tenants.versions(db, "Umlaut ä"))
      assert.same({ "acme", "global", "Umlaut ä" }, db:values [[select distinct target collate "en-x-icu" as t
        from moonbird.journal where event = 'apply' and target <> '@journal' order by 1]])
      moonbird(0, "history", "--verify")
    end))

    it("leaves nothing of its settings to the next tenant", async(function()
      project(6, { ["001_set.lua"] = lua("tenant", [[
          db:exec("create table seen as select current_setting('work_mem') as mem, current_setting('search_path') as path")
          db:exec "set work_mem = '77MB'"]]),
        ["002_set.sql"] = sql("tenant", "create table again as select current_setting('work_mem') as mem; "
          .. "set work_mem = '78MB';") })
      moonbird(0, "up", "--jobs", "2")
      for i = 1, 6 do
        assert.equal(0, db:value(([[select count(*) from (select mem from t_%03d.seen union all
          select mem from t_%03d.again) s where mem in ('77MB', '78MB')]]):format(i, i)))
        assert.equal(("t_%03d"):format(i), db:value(("select path from t_%03d.seen"):format(i)))
      end
    end))

    it("is refused by a contract's gate where the expand is not done, and only there", async(function()
      project(2, { ["001_users.sql"] = USERS, ["002_expand.sql"] = sql("tenant",
        "alter table users add column full_name text;", { head = "-- id: names-expand\n" }) })
      moonbird(0, "up", "--tenant", "t_001")
      moonbird(0, "up", "--tenant", "t_002", "--to", "1")
      assert(os.remove(dir .. "/migrations/002_expand.sql"))
      helper.write(dir, { ["migrations/003_contract.sql"] = sql("tenant", "alter table users drop column name;",
        { down = "alter table users add column name text;", phase = "contract", compatibility = "breaking", head = "-- completes: 2\n-- rationale: made up\n" }) })
      local said = answer(7, "up", "--allow-contract", "--allow-breaking", "--keep-going")
      assert.equal("policy", said.tenants.groups[1].code)
      assert.same({ "t_002" }, said.tenants.groups[1].tenants)
      assert.equal("1 2 3", tenants.versions(db, "t_001"))
      assert.equal("1", tenants.versions(db, "t_002"))
      assert.equal(1, db:value [[select count(*) from information_schema.columns
        where table_schema = 't_002' and column_name = 'name']])
    end))

    it("asks the gate once for all tenants with one history, also where nothing is applied yet", async(function()
      project(3, { ["001_users.sql"] = USERS })
      helper.write(dir, { ["policies/once.lua"] = [[
        local asked = 0
        return { id = "once", gate = true, needs = { "history" }, moments = { "before" }, check = function(ctx)
          asked = asked + 1
          if asked > 1 then ctx:report("asked again") end
        end }]] })
      assert.equal(3, answer(0, "up", "--jobs", "1").tenants.migrated)
      helper.write(dir, { ["migrations/002_email.sql"] = EMAIL })
      assert.equal(3, answer(0, "up", "--jobs", "1").tenants.migrated)
    end))
  end)

  describe("waves", function()
    local function order_of_commits()
      return db:values [[select target from moonbird.journal where event = 'apply' and target <> 'global'
        and target <> '@journal' order by finished_at, target]]
    end

    it("have the same canaries in every database and rerun", async(function()
      local first
      for round = 1, 2 do
        if round == 2 then
          db = helper.database()
        end
        project(40, { ["001_users.sql"] = USERS })
        local _, events = answer(0, "up", "--canary", "1", "--canary", "10%", "--jobs", "1")
        local waves, names = {}, {}
        for _, event in ipairs(events) do
          if event.event == "wave" then
            waves[#waves + 1] = event.tenants
          elseif event.event == "done" then
            names[#names + 1] = event.tenant
          end
        end
        assert.same({ 1, 4, 35 }, waves)
        local canaries = table.concat(names, " ", 1, 5)
        first = first or canaries
        assert.equal(first, canaries)
      end
    end))

    it("may be named", async(function()
      project(9, { ["001_users.sql"] = USERS })
      answer(0, "up", "--canary", "t_007", "--jobs", "1")
      assert.equal("t_007", order_of_commits()[1])
      helper.write(dir, { ["migrations/002_email.sql"] = EMAIL })
      local said = answer(2, "up", "--canary", "t_7")
      assert.equal("usage", said.error.code)
      moonbird(0, "up", "--tenant", "t_007")
      moonbird(0, "up", "--canary", "t_007")
      assert.equal(9, tenants.count_at(db, "1 2"))
    end))

    it("named in the configuration are no hindrance where others are chosen", async(function()
      project(9, { ["001_users.sql"] = USERS }, "canary = { 't_007', 2 }")
      moonbird(0, "up", "--tenant", "t_001")
      moonbird(0, "up", "--exclude", "t_007")
      assert.equal(8, tenants.count_at(db, "1"))
      assert.equal("", tenants.versions(db, "t_007"))
      moonbird(0, "up")
      assert.equal(9, tenants.count_at(db, "1"))
      helper.write(dir, { ["moonbird.lua"] = tenants.config "canary = { 't_07' }",
        ["migrations/002_email.sql"] = EMAIL })
      has(moonbird(2, "up").stderr, "t_07")
      assert.equal(9, tenants.count_at(db, "1"))
    end))

    it("are deploy's default", async(function()
      project(30, { ["001_users.sql"] = sql("tenant", "create table users (id bigint primary key);",
        { down = "drop table users;" }) })
      local _, events = answer(0, "deploy", "--emergency", "made up")
      local sizes = {}
      for _, event in ipairs(events) do
        if event.event == "wave" then
          sizes[#sizes + 1] = event.tenants
        end
      end
      assert.same({ 1, 1, 3, 25 }, sizes)
    end))

    it("stop when a canary fails, whatever the budget of the rest", async(function()
      project(20, { ["001_poison.sql"] = sql("tenant", "select 1 / 0;") })
      local said = answer(7, "up", "--canary", "2", "--max-failures", "50%")
      assert.is_true(said.tenants.failed <= 2)
      assert.equal(20, said.tenants.failed + #said.tenants.not_run)
    end))

    it("wait between, and ask for the health", async(function()
      project(6, { ["001_users.sql"] = USERS }, [[canary = { 1, 2 }, soak = "300ms",
        health = "select count(*) < 2 from moonbird.state where applies and target like 't%'"]])
      local started = sys.monotonic()
      local said = answer(7, "up")
      assert.is_true(sys.monotonic() - started > 0.6)
      has(said.error.message, "health")
      assert.equal(3, said.tenants.migrated)
      assert.equal(3, #said.tenants.not_run)
      assert.equal(3, tenants.count_at(db, "1"))
      -- The same command again has no canary left to run, and is asked all the same.
      said = answer(7, "up")
      has(said.error.message, "health")
      assert.same({ 0, 3 }, { said.tenants.migrated, #said.tenants.not_run })
      assert.equal(3, tenants.count_at(db, "1"))
      helper.write(dir, { ["moonbird.lua"] = tenants.config [[canary = { 1 }, health = "select true"]] })
      moonbird(0, "up")
      assert.equal(6, tenants.count_at(db, "1"))
    end))

    for name, case in pairs {
      ["a function that says yes"] = { "function(db) return db:value('select count(*) from pg_class') > 0 end" },
      ["a function that says no"] = { "function(db) return false, 'errors are up' end", "errors are up" },
      ["a function that says nothing"] = { "function(db) end", "health" },
      ["a function that raises"] = { "function(db) error('boom') end", "boom" },
      ["SQL that fails"] = { "'select 1 / 0'", "division by zero" },
      ["SQL without an answer"] = { "'select true where false'", "health" },
    } do
      it("ask for the health by " .. name, async(function()
        project(4, { ["001_users.sql"] = USERS }, "canary = { 1 }, health = " .. case[1])
        if not case[2] then
          moonbird(0, "up")
          assert.equal(4, tenants.count_at(db, "1"))
          return
        end
        local result = helper.moonbird({ "--json", "up" }, { db = db, cwd = dir })
        assert.is_true(result.status ~= 0, result.stdout)
        local said = json.decode(result.stdout)
        has(said.error.message, case[2])
        assert.equal(1, tenants.count_at(db, "1"))
        assert.equal(3, #said.tenants.not_run)
        assert.is_string(said.tenants.retry)
      end))
    end

    it("wait for a person: each run does one wave, the last the rest", async(function()
      project(20, { ["001_users.sql"] = USERS }, [[canary = { 1, "20%" }, gate = "manual"]])
      local said = answer(4, "up")
      assert.equal("pending", said.error.code)
      assert.equal(1, said.tenants.migrated)
      assert.equal(19, #said.tenants.not_run)
      answer(4, "up")
      assert.equal(5, tenants.count_at(db, "1"))
      answer(0, "up")
      assert.equal(20, tenants.count_at(db, "1"))
      assert.equal("", tenants.not_once(db))
    end))

    it("leave those over that are not done, whatever history they had in common with those that are", async(function()
      project(9, { ["001_users.sql"] = USERS }, [[gate = "manual"]])
      local function halted()
        local said = answer(4, "up", "--canary", "t_007")
        assert.equal(1, said.tenants.migrated)
        assert.equal("t_001 t_002 t_003 t_004 t_005 t_006 t_008 t_009", table.concat(said.tenants.not_run, " "))
      end
      halted()
      answer(0, "up")
      helper.write(dir, { ["migrations/002_email.sql"] = EMAIL })
      halted()
    end))

    it("keep their canaries when the run is made again", async(function()
      project(20, { ["001_users.sql"] = sql("tenant",
        "select 1 / (case when exists (select from pg_namespace where nspname = 'go') then 1 else 0 end); create table users (id int);") },
        "canary = { 2 }")
      local said = answer(7, "up")
      local canaries = said.tenants.groups[1].tenants
      local again = answer(7, "up")
      assert.same(canaries, again.tenants.groups[1].tenants)
      db:exec "create schema go"
      local _, events = answer(0, "up")
      assert.same({ "wave", 2 }, { events[1].event, events[1].tenants })
    end))
  end)

  describe("failures", function()
    local POISON = sql("tenant", "alter table items add constraint positive check (n > 0);",
      { down = "alter table items drop constraint positive;" })

    it("of four kinds beside 296 that are done, each told apart, and a command that repeats exactly them", async(function()
      local refusing, vanishing = helper.database(), "t_290"
      dir = tenants.project {
        ["moonbird.lua"] = ([[return { tenants = { source = {
          tenants.schemas{ like = [=[t\_%%]=] },
          tenants.list{ { name = "refusing", database = %q } } }, lock_timeout = "100ms" } }]]):format(refusing.name),
        ["001_items.sql"] = sql("tenant", "create table items (n int); insert into items values (1);"),
      }
      tenants.schemas(db, 1, 299)
      moonbird(0, "up", "--max-failures", "10")
      db:exec("insert into t_200.items values (-1)") -- data that the constraint does not allow
      helper.write(dir, { ["migrations/002_positive.sql"] = POISON, ["migrations/003_slow.lua"] = lua("tenant", [[
        db:exec "alter table items add column other int"
        db:exec "select pg_sleep(0.01)"]]) })
      local locker = db:connect()
      assert(locker:simple("begin; lock table t_250.items in access share mode"))
      refusing:disconnect()
      db:exec(("alter database %q allow_connections false"):format(refusing.name))
      local child = helper.spawn({ "--json", "up", "--max-failures", "10" }, { db = db, cwd = dir })
      helper.eventually("the run is under way", function()
        return tenants.count_at(db, "1 2 3") > 3
      end)
      db:exec(("drop schema %s cascade"):format(vanishing))
      local result = child:wait(60000)
      assert.equal(7, result.status, result.stdout .. result.stderr)
      local said = json.decode(result.stdout)
      assert.equal(300, said.tenants.total)
      assert.equal(296, said.tenants.migrated)
      assert.equal(4, said.tenants.failed)
      assert.same({}, said.tenants.not_run)
      assert.equal("tenants", said.error.code)
      local by_tenant = {}
      for _, group in ipairs(said.tenants.groups) do
        assert.equal(1, group.count)
        by_tenant[group.tenants[1]] = group
      end
      assert(by_tenant.t_250 and by_tenant.t_200 and by_tenant[vanishing] and by_tenant.refusing, result.stdout)
      assert.equal("55P03", by_tenant.t_250.sqlstate)
      assert.equal("002_positive", by_tenant.t_250.migration)
      assert.equal("23514", by_tenant.t_200.sqlstate)
      has(by_tenant.t_200.file, "002_positive.sql")
      assert.equal("connect", by_tenant.refusing.code)
      assert.equal("3F000", by_tenant[vanishing].sqlstate)
      local tries = select(2, result.stderr:gsub('"event":"retry"[^\n]*"t_250"', ""))
      assert.equal(4, tries)
      assert.is_nil(result.stderr:match '"event":"retry"[^\n]*"t_2[09]0"')
      lacks(result.stdout .. result.stderr, "traceback")
      assert.equal("moonbird up --max-failures 10 --tenant refusing --tenant t_200 --tenant t_250 --tenant t_290",
        said.tenants.retry)
      -- what happened stands in the journal of the tenant
      assert.same({ { target = "t_200", sqlstate = "23514" }, { target = "t_250", sqlstate = "55P03" } },
        db:query [[select target, sqlstate from moonbird.journal where event = 'fail' and target in ('t_200', 't_250')
          order by 1]])
      -- nothing is half done
      assert.equal(296, db:value [[select count(*) from pg_constraint where conname = 'positive']])
      -- mended, and the command that was printed
      assert(locker:simple "rollback")
      db:exec(("alter database %q allow_connections true"):format(refusing.name))
      db:exec "delete from t_200.items where n < 0; create schema t_290; create table t_290.items (n int)"
      local words = {}
      for word in said.tenants.retry:gmatch("%S+") do
        words[#words + 1] = word
      end
      said = answer(0, table.unpack(words, 2))
      assert.equal(4, said.tenants.total)
      assert.equal(4, said.tenants.migrated)
      assert.equal(299, tenants.count_at(db, "1 2 3"))
      assert.equal("", tenants.not_once(db))
    end))

    it("of a database that refuses do not keep others from running, also where its tenants name schemas", async(function()
      local refusing = helper.database()
      refusing:exec "create schema one; create schema two"
      refusing:disconnect()
      dir = tenants.project {
        ["moonbird.lua"] = ([[return { tenants = { tenants.schemas{ like = [=[t\_%%]=] },
          tenants.list{ { name = "one", schema = "one", database = %q }, { name = "two", schema = "two", database = %q } } }
          }]]):format(refusing.name, refusing.name), ["001_users.sql"] = USERS,
      }
      tenants.schemas(db, 1, 5)
      db:exec(("alter database %q allow_connections false"):format(refusing.name))
      local said = answer(7, "up", "--max-failures", "2")
      assert.equal(5, tenants.count_at(db, "1"))
      assert.equal(1, #said.tenants.groups)
      assert.same({ "one", "two" }, said.tenants.groups[1].tenants)
    end))

    it("are put in groups by what they are, the largest first", async(function()
      project(30, { ["001_poison.sql"] = sql("tenant", [[
        do $$ begin
          if current_schema() < 't_021' then raise exception 'no seat for %', current_schema() using errcode = 'P0099'; end if;
          if current_schema() < 't_026' then raise division_by_zero; end if;
        end $$;]]) })
      local said = answer(7, "up", "--keep-going")
      assert.equal(5, said.tenants.migrated)
      assert.equal(25, said.tenants.failed)
      assert.equal(2, #said.tenants.groups)
      assert.equal(20, said.tenants.groups[1].count)
      assert.equal("P0099", said.tenants.groups[1].sqlstate)
      assert.equal(5, said.tenants.groups[2].count)
      assert.equal("22012", said.tenants.groups[2].sqlstate)
      local text = moonbird(7, "up", "--keep-going").stdout
      has(text, "20 tenants failed")
      has(text, "t_001, t_002, t_003, t_004, t_005 and 15 more")
      has(text, "up --keep-going --tenant t_001")
    end))

    it("stop after the first by default, and what runs is finished", async(function()
      project(60, { ["001_users.lua"] = lua("tenant", [[
        db:exec "create table users (id int)"
        if db.target.name == "t_004" then error "poison" end
        db:exec "select pg_sleep(0.05)"]]) })
      local said = answer(7, "up", "--jobs", "4")
      assert.equal(1, said.tenants.failed)
      has(said.tenants.stopped, "first failure")
      assert.equal(60, said.tenants.migrated + said.tenants.failed + #said.tenants.not_run)
      assert.is_true(said.tenants.migrated >= 3 and said.tenants.migrated < 12, "migrated: " .. said.tenants.migrated)
      assert.equal(said.tenants.migrated, tenants.count_at(db, "1"))
      helper.write(dir, { ["migrations/001_users.lua"] = lua("tenant", 'db:exec "create table users (id int)"') })
      local again = helper.moonbird({ "--json", "up" }, { db = db, cwd = dir })
      assert.equal(7, again.status) -- the file of those that are done is another one now
      assert.equal("checksum", json.decode(again.stdout).tenants.groups[1].code)
    end))

    local function poisoned(count, bad, more)
      project(count, { ["001_users.sql"] = sql("tenant", ([[create table users (id int);
        select 1 / (case when substr(current_schema(), 3)::int in (%s)
          and not exists (select from pg_namespace where nspname = 'mended') then 0 else 1 end);]]):format(bad)) }, more)
    end

    it("are borne up to a number", async(function()
      poisoned(40, "3, 13, 23")
      local said = answer(7, "up", "--max-failures", "3", "--jobs", "1")
      assert.same({ 37, 3, 0 }, { said.tenants.migrated, said.tenants.failed, #said.tenants.not_run })
    end))

    it("are borne up to a number, and no more", async(function()
      poisoned(40, "3, 13, 23")
      local said = answer(7, "up", "--max-failures", "2", "--jobs", "1")
      assert.same({ 20, 3, 17 }, { said.tenants.migrated, said.tenants.failed, #said.tenants.not_run })
      db:exec "create schema mended"
      said = answer(0, "up")
      assert.same({ 20, 0, 20 }, { said.tenants.migrated, said.tenants.failed, said.tenants.current })
      assert.equal("", tenants.not_once(db))
    end))

    it("are borne up to a share", async(function()
      poisoned(40, "3, 13, 23")
      local said = answer(7, "up", "--max-failures", "5%", "--jobs", "1")
      assert.same({ 3, 17 }, { said.tenants.failed, #said.tenants.not_run })
      has(said.tenants.stopped, "2 failed")
    end))

    it("in a row stop", async(function()
      poisoned(40, "3, 10, 11, 12, 13, 14, 30", "max_failures = 20, max_consecutive = 5")
      local said = answer(7, "up", "--jobs", "1")
      assert.same({ 6, 26 }, { said.tenants.failed, #said.tenants.not_run })
      has(said.tenants.stopped, "5 failed in a row")
    end))

    it("at the same place stop a canary", async(function()
      poisoned(40, "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25")
      local said = answer(7, "up", "--canary", "20", "--keep-going", "--jobs", "1")
      assert.equal(3, said.tenants.failed)
      has(said.tenants.stopped, "same error in the canary")
    end))

    it("are all borne with --keep-going", async(function()
      poisoned(40, "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20")
      local said = answer(7, "up", "--keep-going")
      assert.same({ 20, 20, 0 }, { said.tenants.migrated, said.tenants.failed, #said.tenants.not_run })
    end))

    it("name a command that has the options of the one that failed", async(function()
      poisoned(6, "3")
      helper.write(dir, { ["migrations/002_email.sql"] = sql("tenant", "alter table users add column email text;") })
      local said = answer(7, "up", "--to", "1", "--jobs", "2", "--keep-going", "--exclude", "t_005")
      has(said.tenants.retry, "--to 1")
      has(said.tenants.retry, "--tenant t_003")
      lacks(said.tenants.retry, "--exclude")
      local text = moonbird(7, "up", "--to", "1", "--keep-going").stdout
      has(text, "--to 1")
    end))

    it("of more than a handful name a command that leaves out what was left out", async(function()
      local bad = {}
      for i = 1, 60 do
        bad[i] = i
      end
      poisoned(70, table.concat(bad, ", "))
      local said = answer(7, "up", "--keep-going", "--tenant", "t_0*", "--exclude", "t_070")
      assert.equal(60, said.tenants.failed)
      has(said.tenants.retry, "t_060")
      lacks(said.tenants.retry, "t_070 ")
      db:exec "create schema mended"
      local words = {}
      for word in said.tenants.retry:gmatch("%S+") do
        words[#words + 1] = word:gsub("'", "")
      end
      answer(0, table.unpack(words, 2))
      assert.equal("", tenants.versions(db, "t_070"))
      assert.equal(69, tenants.count_at(db, "1"))
    end))
  end)

  describe("what is told", function()
    it("to people: what is done on whom, and how it ended", async(function()
      project(6, { ["001_plans.sql"] = PLANS, ["002_users.sql"] = USERS })
      local result = moonbird(0, "up")
      has(result.stdout, "applied 001_plans")
      has(result.stdout, "002_users on 6 tenants")
      has(result.stdout, "6 tenants migrated in ")
      lacks(result.stdout .. result.stderr, "\27")
      lacks(result.stdout .. result.stderr, "\r")
      lacks(result.stdout, "to go on")
      has(moonbird(0, "up").stdout, "6 up to date")
    end))

    it("to people: the waves, where there are some", async(function()
      project(12, { ["001_users.sql"] = USERS })
      local said = moonbird(0, "up", "--canary", "1", "--canary", "3").stdout
      has(said, "wave 1: 1 tenant")
      has(said, "wave 2: 3 tenants")
      has(said, "the rest: 8 tenants")
    end))

    it("quietly: nothing, but for what went wrong", async(function()
      project(3, { ["001_users.sql"] = sql("tenant", "create table users (id int);", { down = "drop table users;" }) })
      local result = moonbird(0, "up", "--quiet")
      assert.equal("", result.stdout .. result.stderr)
      helper.write(dir, { ["migrations/002_poison.sql"] = sql("tenant", "select 1 / 0;", { down = "select 2;" }) })
      result = moonbird(7, "up", "--quiet")
      assert.equal("", result.stdout)
      has(result.stderr, "division by zero")
      has(result.stderr, "tenants failed")
    end))

    it("every few seconds where there is no terminal", async(function()
      project(14, { ["001_slow.lua"] = lua("tenant",
        [[db:exec "create table users (id int)" db:exec "select pg_sleep(1)"]]) })
      local result = moonbird(0, "up", "--jobs", "2")
      local lines = select(2, (result.stdout .. result.stderr):gsub("%d+/14 done, %d running, %d+ waiting", ""))
      assert.is_true(lines >= 1 and lines <= 2, lines .. " lines\n" .. result.stdout .. result.stderr)
    end))

    it("to machines: events on stderr, one answer on stdout", async(function()
      project(5, { ["001_poison.sql"] = sql("tenant",
        "select 1 / (case when current_schema() = 't_003' then 0 else 1 end); create table users (id int);") })
      local said, events = answer(7, "up", "--keep-going", "--canary", "1")
      local kinds = {}
      for _, event in ipairs(events) do
        kinds[event.event] = (kinds[event.event] or 0) + 1
      end
      assert.equal(2, kinds.wave)
      assert.equal(2, kinds.wave_done)
      assert.equal(4, kinds.done)
      assert.equal(1, kinds.failed)
      assert.equal(false, said.ok)
      assert.same({ 5, 4, 1 }, { said.tenants.total, said.tenants.migrated, said.tenants.failed })
      assert.equal("001_poison", said.tenants.groups[1].migration)
      assert.equal(6, said.tenants.groups[1].line)
    end))

    it("nothing that a tenant's name could make a terminal do", async(function()
      project(0, { ["moonbird.lua"] = [[return { tenants = tenants.query{ sql =
        "select E'a\\x1b[31m' as name, 't_001' as schema" } }]], ["001_users.sql"] = USERS })
      tenants.schemas(db, 1, 1)
      local said = answer(2, "up")
      assert.equal("config", said.error.code)
      lacks(moonbird(2, "up").stderr, "\27[31m")
    end))
  end)

  it("--shard parts them among runners that share nothing", async(function()
    project(40, { ["001_users.sql"] = USERS })
    local total = 0
    for i = 0, 2 do
      total = total + answer(0, "up", "--shard", i .. "/3").tenants.migrated
    end
    assert.equal(40, total)
    assert.equal(40, tenants.count_at(db, "1"))
    assert.equal("", tenants.not_once(db))
    answer(2, "up", "--shard", "3/3")
  end))
end)
