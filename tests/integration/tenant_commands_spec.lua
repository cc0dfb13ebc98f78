--- The commands over tenants, with 300 of them of every kind: where they stand, taking back and doing again, adding,
-- drift, the matrix, pins.
-- The same on every server.
local fs = require "moonbird.core.fs"
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local task = require "moonbird.core.task"
local texts = require "tests.texts"
local async = helper.async
local has, lacks = texts.has, texts.lacks

local HEAD = "-- description: made up\n-- phase: expand\n-- scope: %s\n-- compatibility: backward_compatible\n%s"
  .. "-- migrate:up\n%s\n-- migrate:down\n%s\n"

local function migration(scope, up, down, further)
  return HEAD:format(scope, further or "", up, down or "select 1;")
end

--- A tenant's migration without a transaction.
local function alone(up, down)
  return (migration("tenant", up, down):gsub("(%-%- migrate:%a+)", "%1 transaction:false"))
end

local GLOBAL = migration("global", "create table public.plans (id int);", "drop table public.plans;")
local USERS = migration("tenant", "create table users (id bigint primary key, name text);", "drop table users;")
local EMAIL = migration("tenant", "alter table users add column email text;", "alter table users drop column email;")
local SETTINGS = [[
return {
  description = "made up", phase = "expand", scope = "tenant", compatibility = "backward_compatible",
  up = function(db)
    db:exec "create table settings (key text primary key, value text)"
    db:exec("insert into settings values ($1, $2), ($3, $4)", "name", db.target.name, "plan",
      tostring(db.target.vars.plan))
  end,
  down = function(db)
    db:exec "drop table settings"
  end,
}
]]
local AGE = migration("tenant", "alter table users add column age int;", "alter table users drop column age;")

local FILES = { ["migrations/001_plans.sql"] = GLOBAL, ["migrations/002_users.sql"] = USERS,
  ["migrations/003_email.sql"] = EMAIL, ["migrations/004_settings.lua"] = SETTINGS }

local function with(more)
  local files = {}
  for path, text in pairs(FILES) do
    files[path] = text
  end
  for path, text in pairs(more) do
    files[path] = text
  end
  return files
end

describe("tenants:", function()
  local db, dir

  before_each(async(function()
    db = helper.database()
  end))

  local function moonbird(status, ...)
    return helper.ok({ ... }, { db = db, cwd = dir, status = status })
  end

  local function answer(status, ...)
    return assert(json.decode(moonbird(status, "--json", ...).stdout))
  end

  local function schemas(pattern, from, to)
    db:query(("do $$ begin for i in %d..%d loop execute format('create schema ' || %s, i); end loop; end $$")
      :format(from, to, "'" .. pattern .. "'"))
  end

  --- A project with schemas t_1 to t_N.
  local function plain(count, files, config)
    dir = helper.project(files or FILES)
    helper.write(dir, { ["moonbird.lua"] = config or [[return { tenants = tenants.schemas{ like = "t\\_%" } }]] })
    schemas("t_%s", 1, count)
  end

  local function versions(tenant)
    return db:value([[select coalesce(string_agg(version::text, ' ' order by version), '') from moonbird.state
      where target = $1 and applies]], tenant)
  end

  --- How many tenants have exactly these versions.
  local function count_at(wanted)
    return db:value([[select count(*) from (select target, string_agg(version::text, ' ' order by version) as has
      from moonbird.state where applies and target not in ('global', '@journal') group by target) s where has = $1]], wanted)
  end

  describe("300 of every kind", function()
    local databases

    before_each(async(function()
      dir = helper.project(FILES)
      schemas("s_%s", 1, 120)
      schemas("l_%s", 1, 60)
      schemas("f_%s", 1, 40)
      schemas("q_%s", 1, 40)
      schemas("x_%s", 1, 30)
      db:query("create table public.registry (id int, plan text)")
      db:query("insert into public.registry select i, 'silver' from generate_series(1, 40) i")
      local list = {}
      for i = 1, 40 do
        list[i] = { name = "file" .. i, schema = "f_" .. i, labels = { "beta" }, vars = { plan = "bronze" } }
      end
      databases = {}
      local names = {}
      for i = 1, 10 do
        databases[i] = helper.database()
        names[i] = ("{ name = \"own%d\", database = %q }"):format(i, databases[i].name)
      end
      helper.write(dir, { ["tenants.json"] = json.encode(json.array(list)), ["moonbird.lua"] = ([[
        local list = { %s }
        for i = 1, 60 do
          list[#list + 1] = { name = "list" .. i, schema = "l_" .. i, vars = { plan = "gold" },
            labels = { region = i %% 2 == 0 and "eu" or "us" } }
        end
        return { tenants = {
          tenants.schemas{ like = "s\\_%%" }, tenants.list(list), tenants.file("tenants.json"),
          tenants.query{ sql = [=[select 'query' || id as name, 'q_' || id as schema,
            jsonb_build_object('plan', plan) as vars from public.registry]=] },
          function()
            local made = {}
            for i = 1, 30 do
              made[i] = { name = "made" .. i, schema = "x_" .. i, vars = { plan = i } }
            end
            return made
          end,
        } }]]):format(table.concat(names, ", ")) })
    end))

    it("are listed, migrated, looked at, taken back and done again", async(function()
      local listed = answer(0, "tenant", "list").tenants
      assert.equal(300, #listed)
      listed = answer(0, "tenant", "list", "--tenant", "list2", "--tenant", "own1").tenants
      assert.same({ region = "eu" }, listed[1].labels)
      assert.equal("l_2", listed[1].schema)
      assert.equal(databases[1].name, listed[2].database)
      assert.is_nil(listed[2].schema)

      local result = answer(0, "status")
      assert.equal(300, result.tenants.total)
      assert.equal(300, result.tenants.summary.behind)
      assert.equal(1, result.pending)
      moonbird(4, "status", "--exit-code")
      moonbird(0, "up")
      assert.equal(290, count_at("2 3 4"))
      local own = databases[3]:value("select string_agg(key || '=' || value, ' ' order by key) from settings")
      assert.equal("name=own3 plan=nil", own)
      for schema, wanted in pairs { l_7 = "list7 gold", f_9 = "file9 bronze", q_40 = "query40 silver", x_5 = "made5 5",
        s_1 = "s_1 nil" } do
        assert.equal(wanted, db:value(("select string_agg(value, ' ' order by key) from %s.settings"):format(schema)))
      end

      local out = moonbird(0, "status", "--exit-code").stdout
      has(out, "001_plans")
      lacks(out, "002_users")
      has(out, "Tenants: 300 at 4\n")
      out = moonbird(0, "tenant", "status", "--all", "--tenant", "own*").stdout
      has(out, "Tenants: 10 at 4\n")
      has(out, "  own10  current  4")

      result = answer(0, "down", "--tenant", "own*", "--tenant", "list1*")
      assert.equal(21, result.tenants.migrated)
      assert.equal("2 3", versions("list10"))
      assert.equal("2 3 4", versions("list2"))
      assert.equal(false, databases[1]:value("select to_regclass('settings') is not null"))
      has(moonbird(0, "status").stdout, "Tenants: 279 at 4, 21 behind by 1\n")
      moonbird(4, "tenant", "status", "--exit-code")

      -- Only those that had it get it again.
      result = answer(0, "redo")
      assert.equal(279, result.tenants.migrated)
      assert.equal("2 3", versions("list10"))
      assert.equal("2 3 4", versions("list2"))
      moonbird(0, "up")

      out = moonbird(0, "down", "--dry-run", "--steps", "3").stdout
      has(out, "would take back 004_settings on 300 tenants")
      has(out, "would take back 002_users on 300 tenants")
      assert.equal(290, count_at("2 3 4"))
      moonbird(0, "down", "--to", "0")
      assert.equal(0, count_at("2 3 4"))
      assert.is_nil(db:value("select to_regclass('public.plans')"))
      assert.equal(0, db:value("select count(*) from pg_class where relname in ('users', 'settings')"))
      for _, target in ipairs { "global", "s_1", "list3", "file4", "query5", "made6" } do
        assert.equal("", versions(target))
      end
      has(moonbird(0, "down").stdout, "nothing to take back")
      has(moonbird(0, "history", "--verify").stdout, "every row follows")
    end))

    it("have the same canaries on every run, and the plan names them", async(function()
      local first = answer(0, "plan", "--canary", "2", "--canary", "10%")
      assert.equal("global", first.stages[1].scope)
      assert.equal("001_plans", first.stages[1].migrations[1].id)
      local stage = first.stages[2]
      assert.equal(300, stage.tenants)
      assert.equal(3, #stage.migrations)
      assert.same({ 2, 30, 268 }, { stage.waves[1].count, stage.waves[2].count, stage.waves[3].count })
      local second = answer(0, "plan", "--canary", "2", "--canary", "10%")
      assert.same(stage.waves, second.stages[2].waves)
      -- The plan's canaries are those that a run takes first.
      moonbird(0, "up", "--canary", "2", "--canary", "10%", "--jobs", "1")
      local ran = db:values([[select target from moonbird.journal where target not in ('global', '@journal')
        and version = 2 order by seq limit 2]])
      local planned = { stage.waves[1].tenants[1], stage.waves[1].tenants[2] }
      for _, name in ipairs(ran) do -- one with a database of its own has its journal there
        assert(name == planned[1] or name == planned[2] or planned[1]:find("^own") or planned[2]:find("^own"), name)
      end
      has(moonbird(0, "plan").stdout, "nothing to do: everything is up to date")
    end))
  end)

  it("stand where they stand: behind, failed, ahead, changed, unknown to the files", async(function()
    plain(12)
    moonbird(0, "up")
    helper.write(dir, { ["migrations/005_age.sql"] = AGE,
      ["migrations/006_poison.sql"] = migration("tenant", "select 1 / (select count(*) from users where id >= 0);") })
    db:query("insert into t_1.users values (1)")
    moonbird(7, "up", "--tenant", "t_1", "--tenant", "t_2")
    moonbird(0, "up", "--tenant", "t_3", "--to", "5")
    local out = moonbird(4, "status", "--exit-code").stdout
    -- t_1 fits, t_2 failed at 006
    has(out, "Tenants: 1 at 6, 9 behind by 2, 1 behind by 1, 1 failed\n")
    assert.matches("t_2%s+failed%s+5%s+6: division by zero", out)
    local result = answer(0, "status", "--all")
    assert.equal(12, #result.tenants.tenants)
    assert.equal(10, result.tenants.summary.behind)
    assert.same({ { version = 6, count = 1 } }, result.tenants.current)

    -- An older release: t_1, t_2 and t_3 are ahead of it, nothing pending elsewhere.
    fs.remove(dir .. "/migrations/005_age.sql")
    fs.remove(dir .. "/migrations/006_poison.sql")
    out = moonbird(4, "status", "--exit-code").stdout
    has(out, "Tenants: 9 at 4, 3 ahead\n")
    helper.write(dir, { ["migrations/003_email.sql"] = EMAIL .. "-- changed\n" })
    has(moonbird(0, "tenant", "status", "--tenant", "t_9").stdout, "Tenants: 1 changed\n")
    fs.remove(dir .. "/migrations/003_email.sql")
    has(moonbird(0, "tenant", "status", "--tenant", "t_9").stdout, "003_email is applied, but its file is gone")
  end))

  it("can have all migrations there are", async(function()
    plain(2, { ["migrations/001_users.sql"] = USERS })
    local out = moonbird(0, "status").stdout
    has(out, "no global migrations\n\nApplied: 0\nPending: 0\nTenants: 2 behind by 1\n")
    lacks(out, "there are no migrations yet")
  end))

  it("are listed up to a bound, and all with --all", async(function()
    plain(30)
    local out = moonbird(0, "tenant", "status").stdout
    has(out, "and 10 more; --all lists every tenant")
    out = moonbird(0, "tenant", "status", "--all").stdout
    lacks(out, "--all lists")
    has(out, "t_30")
  end))

  it("show what they lack in the plan, in groups", async(function()
    plain(10)
    moonbird(0, "up", "--to", "1")
    moonbird(0, "up", "--tenant", "t_1", "--tenant", "t_2", "--to", "3")
    moonbird(0, "tenant", "pin", "t_1", "--to", "3", "--reason", "an old client")
    local out = moonbird(0, "plan").stdout
    has(out, "stage 1: 9 tenants")
    has(out, "8 lack all 3: t_10, t_3")
    has(out, "1 lack 004_settings: t_2")
    has(out, "1 pinned, left alone: t_1")
    -- A global one that is pending stands between.
    helper.write(dir, { ["migrations/0035_between.sql"] = migration("global", "select 1;") })
    fs.rename(dir .. "/migrations/004_settings.lua", dir .. "/migrations/036_settings.lua")
    local stages = answer(0, "plan").stages
    assert.same({ "tenant", "global", "tenant" }, { stages[1].scope, stages[2].scope, stages[3].scope })
    moonbird(2, "plan", "--steps", "1")
  end))

  it("are left below a failed one: the global migration under it is not taken back", async(function()
    plain(4, with { ["migrations/005_between.sql"] = migration("global", "create table g (id int);", "drop table g;"),
      ["migrations/006_last.sql"] = migration("tenant", "select 1;", "select 1 / (select count(*) from users);") })
    moonbird(0, "up")
    db:query("insert into t_1.users values (1)")
    db:query("insert into t_2.users values (1)")
    db:query("insert into t_3.users values (1)")
    local result = answer(7, "down", "--steps", "2", "--keep-going")
    assert.equal(3, result.tenants.migrated)
    assert.equal(1, result.tenants.failed)
    assert.equal("moonbird down --to 4 --keep-going --tenant t_4", result.tenants.retry)
    assert.equal("2 3 4", versions("t_1"))
    assert.equal("2 3 4 6", versions("t_4"))
    assert.equal("g", db:value("select to_regclass('g')::text"))
    db:query("insert into t_4.users values (1)")
    moonbird(0, "down", "--to", "4", "--tenant", "t_4")
    moonbird(0, "down", "--to", "4")
    assert.is_nil(db:value("select to_regclass('g')::text"))
    local err = answer(2, "down", "--to", "77").error
    has(err.message, "version 77 is not applied")
  end))

  it("that fail on the way down of a redo keep what they have, the others get theirs again", async(function()
    plain(6, with { ["migrations/006_last.sql"] = migration("tenant", "create table last (id int);",
      "select 1 / (select count(*) from users); drop table last;") })
    moonbird(0, "up")
    for i = 1, 5 do
      db:query(("insert into t_%d.users values (1)"):format(i))
    end
    local result = answer(7, "redo", "-C", ".", "--keep-going", "--steps", "1", "--jobs", "2")
    assert.equal(5, result.tenants.migrated)
    assert.equal("moonbird redo -C . --jobs 2 --keep-going --steps 1 --tenant t_6", result.tenants.retry)
    assert.equal(6, count_at("2 3 4 6"))
    -- What can't come back is refused before anything is taken away.
    helper.write(dir, { ["migrations/003_email.sql"] = EMAIL .. "-- changed\n" })
    result = answer(6, "redo", "--tenant", "t_1")
    assert.equal("checksum", result.error.code)
    assert.equal(6, count_at("2 3 4 6"))
  end))

  it("do again what has no transaction, and know where each stands", async(function()
    plain(3, with { ["migrations/006_index.sql"] = alone("create index concurrently by_name on users (name);",
      "drop index concurrently by_name;") })
    moonbird(0, "up")
    local result = answer(0, "redo")
    assert.equal(3, result.tenants.migrated)
    assert.equal(3, count_at("2 3 4 6"))
    assert.equal(3, db:value("select count(*) from pg_class where relname = 'by_name'"))
    -- It is known of those that are done when a run is halted behind them; and why the others failed is journaled.
    helper.write(dir, { ["migrations/007_name.sql"] = alone("create unique index concurrently one_name on users (name);",
      "drop index concurrently one_name;"), ["migrations/008_more.sql"] = GLOBAL:gsub("plans", "more") })
    db:query("insert into t_2.users values (1, 'a'), (2, 'a')")
    result = answer(7, "deploy", "--jobs", "1", "--canary", "t_1", "--artifact", "run.json")
    assert.equal(1, result.tenants.failed)
    assert.same({ "t_3" }, result.tenants.not_run)
    local told = json.decode(assert(fs.read(dir .. "/run.json"))).tenants
    assert.same({ "t_1" }, { told.done[1][1], told.done[2] })
    assert.same({ "t_2 failed", "t_3 not_run" }, { told.exceptions[1].tenant .. " " .. told.exceptions[1].outcome,
      told.exceptions[2].tenant .. " " .. told.exceptions[2].outcome, told.exceptions[3] })
    assert.equal("23505", db:value("select sqlstate from moonbird.journal where target = 't_2' and event = 'fail'"))
    lacks(moonbird(0, "tenant", "status").stdout, "a run died")
  end))

  it("are taken back down to a version, at most so many", async(function()
    plain(2, with { ["migrations/005_age.sql"] = AGE })
    moonbird(0, "up")
    moonbird(0, "down", "--to", "2", "--steps", "2")
    assert.equal(2, count_at("2 3"))
    moonbird(0, "down", "--to", "2", "--steps", "2")
    assert.equal(2, count_at("2"))
    -- The same without tenants.
    dir = helper.project { ["migrations/001_a.sql"] = migration("global", "create table a (n int);", "drop table a;"),
      ["migrations/002_b.sql"] = migration("global", "create table b (n int);", "drop table b;"),
      ["migrations/003_c.sql"] = migration("global", "create table c (n int);", "drop table c;") }
    db = helper.database()
    moonbird(0, "up")
    moonbird(0, "down", "--to", "0", "--steps", "2")
    assert.equal("1", versions("global"))
  end))

  it("are told apart when a redo is interrupted on its way down", async(function()
    plain(3, with { ["migrations/006_last.sql"] = migration("tenant", "create table last (id int);",
      "drop table last; select pg_sleep(case when current_schema() = 't_2' then 30 else 0 end);") })
    moonbird(0, "up")
    local child = helper.spawn({ "--json", "redo", "--jobs", "1", "--canary", "t_1" }, { db = db, cwd = dir })
    helper.eventually("it sleeps", function()
      return db:value("select count(*) from pg_stat_activity where wait_event = 'PgSleep'") > 0
    end)
    child:kill("INT")
    local result = assert(json.decode(child:wait(20000).stdout)).tenants
    assert.equal("2 3 4", versions("t_1"))
    assert.equal("2 3 4 6", versions("t_3"))
    assert.equal(0, result.migrated)
    has(result.retry, "moonbird up")
    has(result.retry, "--tenant t_1")
    lacks(result.retry, "--tenant t_3")
  end))

  it("that can't be asked are told apart, and hold up what would have to know them", async(function()
    plain(0, FILES, ([[return { tenants = { tenants.schemas{ like = "t\\_%%" },
      tenants.list{ { name = "gone", database = "no_such_database" }, { name = "own", database = %q } } } }]])
      :format(db.name))
    schemas("t_%s", 1, 4)
    moonbird(0, "up", "--to", "1")
    moonbird(0, "up", "--tenant", "t_*", "--tenant", "own")
    local result = answer(4, "status", "--exit-code")
    assert.equal(5, result.tenants.summary.current)
    assert.equal(1, result.tenants.summary.unreachable)
    has(result.tenants.tenants[1].note, "no_such_database")
    assert.equal(1, answer(0, "plan").unreachable)
    assert.equal("gone", answer(4, "tenant", "drift", "--exit-code", "--tenant", "gone", "--tenant", "t_*").unreachable[1].tenant)
    result = answer(7, "down", "--dry-run")
    assert.same({ "global", true, 1 }, { result.target, result.dry_run, #result.plan })
    has(result.error.message, "1 of 6 tenants failed")
    result = answer(7, "down")
    has(result.error.detail, "--keep-going")
    assert.equal(0, result.tenants.migrated)
    assert.equal("2 3 4", versions("t_1"))
    result = answer(7, "down", "--keep-going")
    assert.equal(5, result.tenants.migrated)
    assert.equal("moonbird down --to 3 --keep-going --tenant gone", result.tenants.retry)
    moonbird(0, "down", "--exclude", "gone")
    assert.equal("2", versions("t_1"))
  end))

  it("have a history of their own", async(function()
    plain(3)
    moonbird(0, "up")
    local out = moonbird(0, "history", "--tenant", "t_2").stdout
    has(out, "t_2  applied  004_settings")
    lacks(out, "t_1")
    lacks(out, "001_plans")
    local events = answer(0, "history", "--exclude", "t_2", "--limit", "100").events
    assert.equal(6, #events)
    assert.is_true(events[1].seq > events[6].seq)
    moonbird(2, "history", "--tenant", "t_9")
    db:query("drop schema t_2 cascade")
    has(moonbird(0, "history", "--tenant", "t_2").stdout, "t_2") -- gone, but not forgotten
  end))

  it("are asked for only where moonbird.lua has a source", async(function()
    dir = helper.project(FILES)
    for _, args in ipairs { { "tenant", "list" }, { "status", "--tenant", "a" }, { "down", "--all-tenants" },
      { "redo", "--exclude", "a" }, { "plan", "--tenant", "a" }, { "history", "--tenant", "a" } } do
      local result = answer(2, table.unpack(args))
      has(result.error.message, "there are no tenants")
    end
    for _, args in ipairs { { "tenant", "add" }, { "tenant", "list", "x" }, { "tenant", "list", "--html", "x" },
      { "tenant", "pin", "x", "--to", "3" }, { "tenant", "pin", "x", "--reason", "y" }, { "tenant", "unpin", "x" },
      { "tenant", "add", "x", "--tenant", "y" }, { "tenant", "frob" } } do
      moonbird(2, table.unpack(args))
    end
  end))

  describe("pinned", function()
    before_each(async(function()
      plain(5)
      moonbird(0, "up", "--to", "2")
    end))

    it("go up to their pin and no further, and are no drift", async(function()
      moonbird(0, "tenant", "pin", "t_1", "--to", "3", "--reason", "an old client")
      local result = answer(0, "up")
      assert.equal(5, result.tenants.migrated)
      assert.equal("2 3", versions("t_1"))
      assert.equal("2 3 4", versions("t_2"))
      result = answer(0, "up")
      assert.same({ "t_1" }, result.tenants.pinned)
      assert.equal(4, result.tenants.current)
      local out = moonbird(0, "status", "--exit-code").stdout
      has(out, "Tenants: 4 at 4, 1 pinned\n")
      has(out, "to 3: an old client")
      has(moonbird(0, "history", "--tenant", "t_1").stdout, "pinned")
      db:query("alter table t_1.users add column own_way int")
      result = answer(0, "tenant", "drift", "--exit-code")
      assert.same({ "t_1" }, result.pinned)
      assert.equal(0, result.drifted)
      has(moonbird(0, "tenant", "matrix").stdout, "t_1  ##-  pinned: to 3: an old client")
    end))

    it("are free again without the pin", async(function()
      moonbird(0, "tenant", "pin", "t_1", "--to", "2", "--reason", "an old client")
      has(moonbird(0, "tenant", "pin", "t_1", "--to", "3", "--reason", "newer now").stdout, "pinned t_1 to 3 (was 2)")
      has(moonbird(2, "tenant", "unpin", "t_1", "--to", "0", "--reason", "all of it").stderr,
        "--to does not belong to tenant unpin")
      moonbird(0, "tenant", "unpin", "t_1", "--reason", "it has gone")
      moonbird(2, "tenant", "unpin", "t_1", "--reason", "again")
      moonbird(0, "up")
      assert.equal("2 3 4", versions("t_1"))
      has(moonbird(0, "status", "--exit-code").stdout, "Tenants: 5 at 4\n")
      local events = db:values("select event || ' ' || (detail->>'reason') from moonbird.journal where applies is null "
        .. "and target = 't_1' order by ordinal")
      assert.same({ "pin an old client", "pin newer now", "unpin it has gone" }, events)
      has(moonbird(0, "history", "--verify").stdout, "every row follows")
    end))

    it("not to what they are beyond, nor to what is nowhere, nor without being a tenant", async(function()
      moonbird(0, "up")
      local result = answer(2, "tenant", "pin", "t_1", "--to", "2", "--reason", "x")
      has(result.error.message, "is beyond 2 already: 4 is applied")
      has(result.error.hint, "moonbird down --tenant t_1 --to 2")
      result = answer(2, "tenant", "pin", "t_1", "--to", "99", "--reason", "x")
      has(result.error.message, "there is no migration 99")
      result = answer(2, "tenant", "pin", "t_11", "--to", "4", "--reason", "x")
      has(result.error.hint, 'did you mean "t_1"?')
      moonbird(2, "tenant", "pin", "t_*", "--to", "4", "--reason", "x")
    end))

    it("in a journal that only the pin makes", async(function()
      db:query("drop schema moonbird cascade")
      moonbird(0, "tenant", "pin", "t_1", "--to", "2", "--reason", "first of all")
      has(moonbird(0, "status").stdout, "pinned to 2: first of all")
    end))
  end)

  describe("added", function()
    it("in one transaction, to where the others are", async(function()
      plain(5, with { ["migrations/005_age.sql"] = AGE })
      moonbird(0, "up", "--to", "4") -- the newest is not out yet
      local result = answer(0, "tenant", "add", "t_new")
      assert.equal(3, result.steps)
      assert.equal(1, result.transactions)
      assert.is_nil(result.to_do)
      assert.equal("2 3 4", versions("t_new"))
      assert.equal("name", db:value("select key from t_new.settings where value = 't_new'"))
      assert.equal(1, db:value([[select count(distinct started_at) from moonbird.journal where target = 't_new']]))
      has(moonbird(0, "status").stdout, "Tenants: 6 behind by 1\n")
      result = answer(0, "tenant", "drift")
      assert.equal(0, result.drifted)
      assert.equal(6, result.checked)
      has(moonbird(0, "history", "--verify").stdout, "every row follows")
    end))

    it("as the first: with all that is pending below the first pending global one", async(function()
      plain(0, with { ["migrations/005_more.sql"] = migration("global", "select 1;"), ["migrations/006_age.sql"] = AGE })
      moonbird(0, "up", "--to", "1")
      answer(0, "tenant", "add", "t_first")
      assert.equal("2 3 4", versions("t_first"))
    end))

    it("not where the source would not list them, nor twice, nor under a name that can't be", async(function()
      plain(2)
      moonbird(0, "up")
      local function refused(part, ...)
        local result = answer(2, "tenant", "add", ...)
        has(result.error.message, part)
        return result.error.hint
      end
      refused("does not list it", "acme")
      refused('the schema "t_1" is there already', "t_1")
      refused("names a tenant after its schema", "acme", "--schema", "t_acme")
      refused("knows no labels", "t_acme", "--label", "eu")
      refused("can't be a tenant's name", "@acme")
      refused("can't be a tenant's name", "global")
      refused("PostgreSQL's own", "pg_acme")
      refused("the schema \"t_1\" is tenant \"t_1\"'s", "t_other", "--schema", "t_1")
      assert.equal(2, db:value("select count(*) from pg_namespace where nspname like 't\\_%'"))
    end))

    it("with a word on what to write where, for sources that do not look at schemas", async(function()
      plain(0, FILES, "return { tenants = tenants.list{} }")
      moonbird(0, "up")
      helper.write(dir, { ["moonbird.lua"] =
        [[return { tenants = tenants.list{ { name = "a", schema = "s_a", vars = { plan = "gold" } } } }]] })
      -- One that is listed, but not there: its vars are known.
      moonbird(2, "up")
      local result = answer(0, "tenant", "add", "a")
      assert.is_nil(result.to_do)
      assert.equal("gold", db:value("select value from s_a.settings where key = 'plan'"))
      result = answer(0, "tenant", "add", "b", "--schema", "s_b", "--label", "eu", "--label", "plan=x")
      assert.equal('add { name = "b", schema = "s_b", labels = { eu = true, plan = "x" } } to tenants.list in moonbird.lua',
        result.to_do)
      assert.equal("2 3 4", versions("b"))
      for config, part in pairs {
        [ [[tenants.file("t.json")]] ] = 'to t.json',
        [ [[tenants.query{ sql = "select 'a' as name, 's_a' as schema" }]] ] = 'tenants.query gives a row of name "c"',
        [ [[function() return {} end]] ] = "function in moonbird.lua gives { name = \"c\"",
      } do
        helper.write(dir, { ["t.json"] = '[{"name": "a", "schema": "s_a"}]',
          ["moonbird.lua"] = "return { tenants = " .. config .. " }" })
        has(answer(0, "tenant", "add", "c", "--schema", "s_c").to_do, part)
        db:query("drop schema s_c cascade")
      end
      helper.write(dir, { ["moonbird.lua"] = [[return { tenants = tenants.databases{ like = "nothing_%" } }]] })
      has(answer(2, "tenant", "add", "c").error.message, "lists databases, not schemas")
    end))

    it("anew when one of that name is gone, its history told so", async(function()
      plain(2)
      moonbird(0, "up")
      db:query("drop schema t_1 cascade")
      answer(0, "tenant", "add", "t_1")
      assert.equal("2 3 4", versions("t_1"))
      assert.equal(3, db:value("select count(*) from moonbird.journal where target = 't_1' and event = 'repair'"))
      assert.equal("t_1.users", db:value("select to_regclass('t_1.users')::text"))
      has(moonbird(0, "history", "--verify").stdout, "every row follows")
    end))

    it("step by step where a migration has no transaction", async(function()
      plain(2, with { ["migrations/005_index.sql"] = HEAD:format("tenant", "",
        "", ""):gsub("%-%- migrate:up.*", "-- migrate:up transaction:false\n"
        .. "create index concurrently users_email on users (email);\n-- migrate:down transaction:false\n"
        .. "drop index concurrently users_email;\n"), ["migrations/006_age.sql"] = AGE })
      moonbird(0, "up")
      local result = answer(0, "tenant", "add", "t_new")
      assert.equal(3, result.transactions)
      assert.equal("2 3 4 5 6", versions("t_new"))
      assert.equal(0, answer(0, "tenant", "drift").drifted)
    end))

    it("not at all when a migration fails, with its place", async(function()
      plain(1, with { ["migrations/005_bad.sql"] = migration("tenant", "select 1;\nselect nothing;") })
      moonbird(0, "up", "--to", "1")
      local result = answer(1, "tenant", "add", "t_new")
      assert.equal("42703", result.error.sqlstate)
      assert.equal("005_bad", result.error.migration)
      assert.equal(7, result.error.line)
      assert.equal(0, db:value("select count(*) from pg_namespace where nspname = 't_new'"))
      assert.equal("", versions("t_new"))
    end))

    it("whole or not at all when the process is killed", async(function()
      -- Awaited: it dies while a statement runs, and the server finds its client gone.
      plain(1, with { ["migrations/005_slow.lua"] = SETTINGS:gsub("create table settings", "create table slow")
        :gsub("insert into settings", "insert into slow"):gsub("db:exec%(", "db:exec 'select pg_sleep(0.5)'\n    db:exec(") })
      moonbird(0, "up")
      local child = helper.spawn({ "tenant", "add", "t_new" }, { db = db, cwd = dir })
      helper.eventually("it sleeps", function()
        return db:value("select count(*) from pg_stat_activity where query like '%pg_sleep(0.5)%' and pid <> pg_backend_pid()") > 0
      end)
      child:kill("KILL")
      child:wait()
      helper.eventually("its backend has gone", function()
        return db:value("select count(*) from pg_stat_activity where application_name like 'moonbird/tenant%'") == 0
      end)
      assert.equal(0, db:value("select count(*) from pg_namespace where nspname = 't_new'"))
      assert.equal(0, db:value("select count(*) from moonbird.journal where target = 't_new'"))

      -- In one round trip: at any moment.
      fs.remove(dir .. "/migrations/005_slow.lua")
      fs.remove(dir .. "/migrations/004_settings.lua")
      db:query("drop schema moonbird cascade")
      db:query("drop schema t_1 cascade")
      db:query("drop table public.plans")
      schemas("t_%s", 1, 1)
      moonbird(0, "up")
      local whole = 0
      for i = 1, 12 do
        local name = "t_k" .. i
        child = helper.spawn({ "tenant", "add", name }, { db = db, cwd = dir })
        task.sleep(8 + i * 4)
        child:kill("KILL")
        child:wait()
        helper.eventually("its backend has gone", function()
          return db:value("select count(*) from pg_stat_activity where application_name like 'moonbird/tenant%'") == 0
        end)
        local there = db:value("select count(*) from pg_namespace where nspname = $1", name) == 1
        whole = whole + (there and 1 or 0)
        assert.equal(there and "2 3" or "", versions(name))
        assert.equal(there, db:value("select to_regclass($1) is not null", name .. ".users"))
      end
      assert.is_true(whole < 12)
      moonbird(0, "up")
    end))
  end)

  describe("drifted", function()
    before_each(async(function()
      plain(300)
      moonbird(0, "up")
    end))

    it("are found in groups, by what differs from the others", async(function()
      assert.equal(0, answer(0, "tenant", "drift", "--exit-code").drifted)
      db:query("alter table t_5.users add column extra int")
      db:query("alter table t_6.users add column extra int")
      db:query("create index by_name on t_7.users (name)")
      db:query("create function t_8.f() returns int language sql as 'select 8'")
      db:query("alter table t_9.users alter email set not null")
      db:query("drop schema t_10 cascade")
      db:query("create view t_11.v as select id from t_11.users")
      db:query("create view t_12.v as select id from t_12.users")
      -- Behind by one: compared with each other, not with those that have it.
      moonbird(0, "down", "--tenant", "t_20", "--tenant", "t_21")
      moonbird(0, "down", "--tenant", "t_22", "--steps", "2")
      local result = answer(4, "tenant", "drift", "--exit-code")
      assert.equal(299, result.checked + #result.alone)
      assert.equal(0, #result.unreachable)
      assert.same({ "t_22" }, result.alone)
      assert.equal(7, result.drifted)
      assert.equal(1, #result.sets)
      local set = result.sets[1]
      assert.equal(296, set.tenants)
      assert.equal(289, set.alike)
      assert.same({ "t_11", "t_12" }, set.groups[1].tenants)
      local by_first = {}
      for _, group in ipairs(set.groups) do
        by_first[group.tenants[1]] = group
      end
      assert.same({ "t_5", "t_6" }, by_first.t_5.tenants)
      assert.same({ { object = "column users.extra", here = "integer" } }, by_first.t_5.differences)
      assert.equal("index by_name", by_first.t_7.differences[1].object)
      assert.equal("function f()", by_first.t_8.differences[1].object)
      assert.equal("column users.email", by_first.t_9.differences[1].object)
      assert.equal("text", by_first.t_9.differences[1].others)
      moonbird(0, "tenant", "drift")
      local out = moonbird(4, "tenant", "drift", "--exit-code", "--tenant", "t_1*").stdout
      has(out, "2 tenants differ: t_11, t_12")
      has(out, "more view v")
    end))

    it("cost as many statements for three hundred as for three", async(function()
      db:query("alter table t_5.users add column extra int")
      local function statements(...)
        local before = assert(fs.stat(helper.cluster().dir)) and db:value("select 1")
        assert.equal(1, before)
        local text = helper.ok({ "-vv", "tenant", "drift", ... }, { db = db, cwd = dir,
          env = { PGOPTIONS = "-c log_statement=all -c client_min_messages=log" } }).stderr
        local _, count = text:gsub("execute <unnamed>", "")
        local _, simple = text:gsub("statement: ", "")
        return count + simple
      end
      local few, many = statements("--tenant", "t_4", "--tenant", "t_5", "--tenant", "t_6"), statements()
      assert.is_true(few > 5)
      assert.equal(few, many)
    end))
  end)

  describe("in a matrix", function()
    --- The page's data, and that the page needs nothing from elsewhere.
    local function page(path)
      local text = assert(fs.read(path))
      for _, attribute in ipairs { "src", "href", "action", "srcset" } do
        assert.is_nil(text:find(attribute .. "%s*="), attribute)
      end
      for _, part in ipairs { "http://", "https://", "//cdn", "@import", "url(" } do
        lacks(text, part)
      end
      -- Every element that is opened is closed again, in order.
      local open, void = {}, { meta = true, input = true }
      local markup = text:gsub("<!doctype html>", ""):gsub("(<script[^>]*>).-(</script>)", "%1%2")
        :gsub("(<style>).-(</style>)", "%1%2")
      for slash, name in markup:gmatch("<(/?)([%a][%w]*)[^>]*>") do
        if slash == "/" then
          assert.equal(name, table.remove(open))
        elseif not void[name] then
          open[#open + 1] = name
        end
      end
      assert.equal(0, #open)
      local data = text:match('<script type="application/json" id="data">(.-)</script>')
      return assert(json.decode(data)), text
    end

    it("as text: a line each, or a line for each group of many", async(function()
      plain(3)
      moonbird(0, "up", "--to", "1")
      moonbird(0, "up", "--tenant", "t_1")
      local out = moonbird(0, "tenant", "matrix").stdout
      has(out, "3.  004_settings")
      has(out, "t_1  ###")
      has(out, "t_2  ...")
      schemas("t_%s", 4, 80)
      out = moonbird(0, "tenant", "matrix").stdout
      has(out, "79 tenants  ...  as t_10")
      has(out, "1 tenant    ###  as t_1")
    end))

    it("as one HTML page, whatever the names are", async(function()
      plain(0, FILES, [[return { tenants = tenants.list{ { name = "</script><b>&\"'", schema = "a", labels = { "<i>" } },
        { name = "b", schema = "b" }, { name = "naïve ☃", schema = "c" } } }]])
      for _, name in ipairs { "a", "b", "c" } do
        db:query("create schema " .. name)
      end
      moonbird(0, "up", "--to", "3")
      moonbird(0, "tenant", "pin", "b", "--to", "3", "--reason", "<script>alert(1)</script>")
      moonbird(0, "tenant", "matrix", "--html", "m.html")
      local data, text = page(dir .. "/m.html")
      assert.equal(3, #data.tenants)
      assert.equal("</script><b>&\"'", data.tenants[1][1])
      assert.equal("<i>", data.tenants[1][3])
      assert.equal("naïve ☃", data.tenants[3][1])
      assert.equal("##.", data.groups[data.tenants[1][2]])
      assert.equal("##-", data.groups[data.tenants[2][2]])
      has(data.tenants[2][4], "<script>alert(1)</script>")
      lacks(text, "<script>alert")
      assert.equal("004_settings", data.versions[3][2])
      moonbird(1, "tenant", "matrix", "--html", "no/such/folder/m.html")
    end))

    it("of ten thousand tenants and fifty versions is one small file", async(function()
      local matrix = require "moonbird.report.matrix"
      local model = { title = "x", versions = {}, groups = {}, tenants = {} }
      for i = 1, 50 do
        model.versions[i] = { version = i, id = ("%03d_a_migration"):format(i) }
        model.groups[i] = { cells = ("#"):rep(i) .. ("."):rep(50 - i), count = 200 }
      end
      for i = 1, 10000 do
        model.tenants[i] = { name = "tenant_" .. i, group = i % 50 + 1, labels = "", note = "" }
      end
      local text = matrix.html(model)
      assert.is_true(#text < 400000)
      local path = helper.tmpdir() .. "/m.html"
      assert(fs.write(path, text))
      assert.equal(10000, #page(path).tenants)
    end))
  end)
end)
