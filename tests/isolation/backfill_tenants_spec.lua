-- Backfills over tenants on a real server: they take turns, by `backfill run` and by `up`, with one throttle for the
-- server; one that fails keeps nobody else from being done.
local backfills = require "tests.backfills"
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local texts = require "tests.texts"
local async = helper.async
local has, lacks = texts.has, texts.lacks

describe("a backfill over tenants", function()
  local COUNT, ROWS = helper.full and 50 or 12, helper.full and 20000 or 500
  local db, dir

  before_each(async(function()
    db = helper.database()
    local made = {}
    for i = 1, COUNT do
      made[i] = ("create schema tenant_%02d;"):format(i)
    end
    db:exec(table.concat(made))
    dir = helper.project {
      ["moonbird.lua"] = "return { tenants = tenants.schemas { like = \"tenant_%\" } }",
      ["migrations/001_users.lua"] = ([[return { description = "t", scope = "tenant", irreversible = "t",
        up = function(db) db:exec("create table users (id int primary key, hits int not null default 0)")
          db:exec("insert into users select i from generate_series(1, %d) i")
        end }]]):format(ROWS),
    }
    helper.ok({ "up" }, { cwd = dir, db = db, timeout = 300 })
    helper.write(dir, { ["migrations/002_count.lua"] = [[return { description = "t", scope = "tenant", irreversible = "t",
      backfill = { table = "users", set = "hits = hits + 1", options = { min = 50, max = 200, start = 100 } } }]] })
  end))

  local function moonbird(status, ...)
    return helper.ok({ ... }, { cwd = dir, db = db, status = status, timeout = 300 })
  end

  local function changed(i)
    return db:value(("select count(*) from tenant_%02d.users where hits = 1"):format(i))
  end

  it("finishes none before each has begun, and changes every row once", async(function()
    moonbird(0, "backfill", "run", "--jobs", "4")
    for i = 1, COUNT do
      assert.are.equal(ROWS, changed(i))
    end
    assert.is_true(db:value [[select (select min(finished_at) from moonbird.backfill)
      > (select max(started_at) from moonbird.backfill)]])
    assert.is_true(db:value [[select min(finished_at) filter (where event = 'apply')
      > max(finished_at) filter (where event = 'start') from moonbird.journal
      where version = 2 and target like 'tenant%']])
    assert.are.equal(COUNT, db:value [[select count(*) from moonbird.journal where version = 2 and event = 'apply'
      and target like 'tenant%']])
    moonbird(0, "history", "--verify")
    has(moonbird(0, "backfill", "run").stdout, "done on 0 tenants")
  end))

  it("are counted by status while they are unfinished, with how far they are", async(function()
    local function status(...)
      return json.decode(moonbird(0, "status", "--json", ...).stdout).tenants
    end
    assert.are.same({ tenants = 0, rows = 0, rows_estimated = 0 }, status().backfills)
    lacks(moonbird(0, "status").stdout, "Backfills:")
    helper.write(dir, { ["migrations/002_count.lua"] = [[return { description = "t", scope = "tenant", irreversible = "t",
      backfill = { table = "users", set = "hits = hits + 1 + 0 * length(pg_sleep(0.01)::text)",
        options = { min = 20, max = 20, start = 20 } } }]] })
    local child = helper.spawn({ "backfill", "run", "--tenant", "tenant_01", "--tenant", "tenant_02" },
      { cwd = dir, db = db })
    backfills.works(db, 50)
    child:kill("INT")
    assert.are.equal(130, assert(child:wait(20000)).status)

    local seen = backfills.seen(db)
    local estimated = db:value "select sum(rows_estimated)::bigint from moonbird.backfill"
    assert.is_true(seen >= 60 and seen < 2 * ROWS and estimated > 0)
    local answer = status()
    assert.are.same({ tenants = 2, rows = seen, rows_estimated = estimated }, answer.backfills)
    assert.are.same({ 2, COUNT - 2, 0 }, { answer.summary.backfill, answer.summary.behind, answer.summary.interrupted })
    local out = moonbird(4, "status", "--exit-code").stdout
    has(out, ("Tenants: %d behind by 1, 2 in a backfill\n"):format(COUNT - 2))
    has(out, ("Backfills: unfinished on 2 tenants, %d of ~%d rows\n"):format(seen, estimated))
    assert.matches("tenant_01%s+backfill%s+1%s+002_count paused, %d+%%", out)
    has(moonbird(0, "tenant", "status", "--tenant", "tenant_02").stdout, "Backfills: unfinished on 1 tenant, ")
    assert.are.equal(0, status("--tenant", "tenant_03").backfills.tenants)

    -- A tenant whose backfill failed has failed; its backfill is unfinished all the same.
    db:exec "create function no() returns trigger language plpgsql as 'begin raise ''no''; end'"
    db:exec "create trigger no before update on tenant_01.users for each row execute function no()"
    moonbird(7, "backfill", "run", "--tenant", "tenant_01")
    answer = status()
    assert.are.same({ 2, 1, 1 }, { answer.backfills.tenants, answer.summary.backfill, answer.summary.failed })
    assert.matches("tenant_01%s+failed%s+1%s+002_count failed, %d+%%: .*: no\n", moonbird(0, "status").stdout)

    db:exec "drop trigger no on tenant_01.users"
    helper.write(dir, { ["migrations/002_count.lua"] = [[return { description = "t", scope = "tenant", irreversible = "t",
      backfill = { table = "users", set = "hits = hits + 1" } }]] })
    moonbird(0, "backfill", "run", "--adopt")
    assert.are.same({ tenants = 0, rows = 0, rows_estimated = 0 }, status().backfills)
  end))

  it("watches each server over one connection", async(function()
    local child = helper.spawn({ "backfill", "run", "--jobs", "4" }, { cwd = dir, db = db })
    local most, working = 0, 0
    while not child:wait(20) do
      most = math.max(most, db:value [[select count(*) from pg_stat_activity where datname = current_database()
        and application_name like '%/backfill-throttle']])
      working = math.max(working, db:value [[select count(*) from pg_stat_activity where datname = current_database()
        and application_name like '%/backfill-1']])
    end
    assert.are.equal(1, most)
    assert.is_true(working > 1, "they did not work side by side")
  end))

  describe("by up", function()
    --- None was done before each had begun.
    local function interleaved(version)
      assert.is_true(db:value(("select min(finished_at) filter (where event = 'apply') > max(finished_at) "
        .. "filter (where event = 'start') from moonbird.journal where version = %d and target like 'tenant%%'")
        :format(version)))
    end

    local NEXT = [[return { description = "t", scope = "tenant", irreversible = "t",
      up = "alter table users add column extra int" }]]

    it("takes turns, too, behind what is no backfill", async(function()
      helper.write(dir, { ["migrations/003_extra.lua"] = NEXT })
      has(moonbird(0, "up", "--jobs", "4").stdout, ("%d tenants"):format(COUNT))
      for i = 1, COUNT do
        assert.are.equal(ROWS, changed(i))
      end
      interleaved(2)
      assert.are.equal(COUNT, db:value [[select count(*) from moonbird.state where version = 3 and applies
        and target like 'tenant%']])
      assert.is_true(db:value [[select max(finished_at) filter (where version = 3 and event = 'apply')
        < min(finished_at) filter (where version = 2 and event = 'apply') from moonbird.journal
        where target like 'tenant%']])
      has(moonbird(0, "up").stdout, "up to date")
      moonbird(0, "status", "--exit-code")
      moonbird(0, "history", "--verify")
    end))

    it("is left alone with --backfills skip and by deploy, and newer ones go on", async(function()
      has(moonbird(0, "up", "--backfills", "skip").stdout, "held back 002_count (backfill)")
      has(moonbird(0, "deploy").stdout, "held back 002_count (backfill)")
      assert.are.equal(0, db:value "select count(*) from moonbird.backfill")
      helper.write(dir, { ["migrations/003_extra.lua"] = NEXT })
      moonbird(0, "up", "--backfills", "skip")
      assert.are.equal(COUNT, db:value [[select count(*) from moonbird.state where version = 3 and applies
        and target like 'tenant%']])
      moonbird(0, "up") -- it is older than what is applied, on purpose
      assert.are.equal(ROWS, changed(COUNT))
    end))

    it("goes on past a poisoned tenant, and goes on with it when it is mended", async(function()
      db:exec "alter table tenant_03.users add constraint poison check (id <> 77 or hits = 0)"
      local result = helper.moonbird({ "up", "--keep-going" }, { cwd = dir, db = db, timeout = 300 })
      assert.are.equal(7, result.status, result.stdout .. result.stderr)
      has(result.stderr, "tenant_03")
      has(result.stderr, "id = 77")
      assert.are.equal(COUNT - 1, db:value "select count(*) from moonbird.backfill where status = 'done'")
      assert.are.equal(1, db:value "select count(*) from moonbird.journal where event = 'fail' and target = 'tenant_03'")
      db:exec "alter table tenant_03.users drop constraint poison"
      moonbird(0, "up")
      for i = 1, COUNT do
        assert.are.equal(ROWS, changed(i))
      end
    end))

    it("comes before a contract that completes it", async(function()
      helper.write(dir, { ["migrations/003_drop.lua"] = [[return { description = "t", scope = "tenant",
        phase = "contract", completes = 2, rationale = "Nobody reads hits any more.",
        data_preservation = "It is only renamed.", up = "alter table users rename column hits to strikes",
        down = "alter table users rename column strikes to hits" }]] })
      moonbird(0, "up", "--allow-contract", "--allow-breaking")
      for i = 1, COUNT do
        assert.are.equal(ROWS, db:value(("select count(*) from tenant_%02d.users where strikes = 1"):format(i)))
      end
      interleaved(2)
    end))
  end)

  it("goes on past a poisoned tenant, names it, and does it when it is mended", async(function()
    db:exec "alter table tenant_03.users add constraint poison check (id <> 77 or hits = 0)"
    local result = helper.moonbird({ "backfill", "run", "--json" }, { cwd = dir, db = db, timeout = 300 })
    assert.are.equal(7, result.status, result.stderr)
    local answer = json.decode(result.stdout)
    assert.are.equal(COUNT - 1, #answer.tenants.done)
    assert.are.equal("tenant_03", answer.tenants.failed[1].tenant)
    has(answer.tenants.failed[1].error, "id = 77")
    assert.are.equal(ROWS, changed(COUNT))
    db:exec "alter table tenant_03.users drop constraint poison"
    moonbird(0, "backfill", "run")
    assert.are.equal(ROWS, changed(3))
  end))

  it("says 75 when its time is over, and steers one tenant", async(function()
    helper.write(dir, { ["migrations/002_count.lua"] = [[return { description = "t", scope = "tenant", irreversible = "t",
      backfill = { table = "users", set = "hits = hits + 1 + 0 * length(pg_sleep(0.002)::text)",
      options = { min = 10, max = 10, start = 10 } } }]] })
    moonbird(75, "backfill", "run", "--max-runtime", "1500ms", "--jobs", "2")
    assert.are.equal(COUNT, db:value "select count(*) from moonbird.backfill")
    moonbird(0, "backfill", "pause", "2", "--tenant", "tenant_05")
    assert.are.equal("tenant_05", db:value "select target from moonbird.backfill where want = 'pause'")
    has(moonbird(0, "backfill", "list", "--tenant", "tenant_05").stdout, "tenant_05")
    moonbird(0, "backfill", "resume", "2")
    if not helper.full then
      moonbird(0, "backfill", "run", "--jobs", "8")
      for i = 1, COUNT do
        assert.are.equal(ROWS, changed(i))
      end
    end
  end))

  it("are steered past one that was cancelled", async(function()
    helper.write(dir, { ["migrations/002_count.lua"] = [[return { description = "t", scope = "tenant", irreversible = "t",
      backfill = { table = "users", set = "hits = hits + 1", options = { between = "00:00-00:01", time_zone = "]]
      .. (db:value "select extract(hour from clock_timestamp() at time zone 'UTC')::int" < 12 and "Etc/GMT-6" or "UTC")
      .. [[" } } }]] })
    moonbird(75, "backfill", "run", "--max-runtime", "1s")
    moonbird(0, "backfill", "cancel", "2", "--tenant", "tenant_02")
    has(moonbird(0, "backfill", "pause", "2").stderr, "002_count of tenant_02 is left alone")
    assert.are.equal(COUNT - 1, db:value "select count(*) from moonbird.backfill where want = 'pause'")
    moonbird(0, "backfill", "resume", "2")
    assert.are.equal(COUNT - 1, db:value "select count(*) from moonbird.backfill where want = 'run'")
    moonbird(1, "backfill", "pause", "2", "--tenant", "tenant_02")
  end))

  it("that are named don't wait for a global one that was not asked for", async(function()
    helper.write(dir, {
      ["migrations/003_plain.sql"] = "-- migrate:up\ncreate table plain (id int primary key);\n-- migrate:down\n",
      ["migrations/004_global.lua"] = [[return { description = "t", irreversible = "t",
        backfill = { table = "plain", set = "id = id" } }]] })
    moonbird(0, "backfill", "run", "--tenant", "tenant_03")
    assert.are.equal(ROWS, changed(3))
    local result = json.decode(moonbird(4, "backfill", "run", "--json").stdout)
    assert.are.equal("[]", json.encode(result.tenants.waiting))
  end))
end)
