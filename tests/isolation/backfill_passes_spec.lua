-- Backfills beside which rows, partitions and other processes come and go at the worst moment: one process stands still
-- at a failpoint meanwhile. What was never looked at is not called done, what failed is what is passed over, and no
-- batch is made for another pass than the one that its process is at.
local helper = require "tests.helper"
local processes = require "tests.processes"
local texts = require "tests.texts"
local async = helper.async
local has = texts.has

describe("a backfill beside which the table changes", function()
  local db, dir

  before_each(async(function()
    db = helper.database()
    dir = helper.project {}
  end))

  local function project(ddl, body)
    db:exec(ddl)
    helper.write(dir, { ["migrations/002_fill.lua"] = ("return { description = \"t\", irreversible = \"t\", "
      .. "backfill = { %s } }"):format(body) })
  end

  local function moonbird(status, ...)
    return helper.ok({ ... }, { cwd = dir, db = db, status = status })
  end

  --- A process that stands still at a failpoint.
  local function stopped(point, ...)
    local args = ... and { ... } or { "up" }
    local child = helper.spawn(args, { cwd = dir, db = db, env = { MOONBIRD_FAILPOINT = point .. ":stop" } })
    helper.eventually("it stands still at " .. point, function()
      return processes.stopped(child:pid())
    end)
    return child
  end

  --- Lets it go on to its end.
  local function goes_on(child, status)
    child:kill("CONT")
    local result = assert(child:wait(60000), "it did not end")
    assert.are.equal(status, result.status, result.stderr)
    return result
  end

  it("goes over to the pass that another process began, text by text", async(function()
    project([[create table t (v int not null default 0, k int, n int not null default 0);
      insert into t select 0, i from generate_series(1, 3000) i; analyze t]],
      [[table = "t", where = "v = 0", set = "v = 1, n = n + 1", options = { min = 100, max = 100 }]])
    local late = stopped "backfill.before_send:3"
    db:exec "insert into t select 0, i from generate_series(1, 5000) i"
    local first = stopped "backfill.lease:3"
    assert.are.equal(2, db:value "select pass from moonbird.backfill")
    goes_on(late, 0)
    goes_on(first, 0)
    assert.are.equal(8000, db:value "select count(*) from t where v = 1 and n = 1")
    assert.is_true(db:value "select sum(batches)::int from moonbird.backfill_chunk" < 400)
  end))

  local PARTS = [[create table p (id int primary key, v int) partition by range (id);
    create table p1 partition of p for values from (0) to (10000);
    insert into p select i from generate_series(1, 3000) i; analyze p]]

  it("sees the rows of a partition that was made meanwhile", async(function()
    project(PARTS, [[table = "p", where = "v is null", set = "v = 1", options = { min = 100, max = 100 }]])
    local child = stopped "backfill.before_send:5"
    db:exec [[create table p2 partition of p for values from (10000) to (20000);
      insert into p select i from generate_series(10001, 10100) i]]
    has(goes_on(child, 1).stderr, "100 rows of public.p still match its where")
    moonbird(0, "up")
    assert.are.equal(0, db:value "select count(*) from p where v is null")
  end))

  describe("whose transform leaves rows alone", function()
    local function leaves(rows, alone)
      project(([[create table t (id int primary key, v int);
        insert into t select i from generate_series(1, %d) i; analyze t]]):format(rows),
        ([[table = "t", where = "v is null", columns = { "id" },
        transform = function(row) if row.id > %d and row.id < 1000000 then return { v = 1 } end end,
        options = { min = 5000, max = 20000, start = 5000 }]]):format(alone))
    end

    it("takes rows that came later for none of them, however many there are", async(function()
      leaves(120000, 110000)
      local child = stopped "backfill.walked:1"
      db:exec "insert into t select i from generate_series(200001, 260000) i"
      has(goes_on(child, 1).stderr, "60000 rows of public.t still match its where")
      moonbird(0, "up")
      assert.are.equal(110000, db:value "select count(*) from t where v is null")
    end))

    it("takes rows that came later for none of them, also where others did those", async(function()
      leaves(3000, 100)
      local child = stopped "backfill.walked:1"
      db:exec "update t set v = 2 where id <= 90; insert into t select i from generate_series(5001, 5090) i"
      has(goes_on(child, 1).stderr, "90 rows of public.t still match its where")
      moonbird(0, "up")
      assert.are.equal(10, db:value "select count(*) from t where v is null")
    end))

    it("is done when those are all that is left", async(function()
      leaves(3000, 100)
      moonbird(0, "up")
      assert.are.equal(100, db:value "select count(*) from t where v is null")
    end))
  end)

  describe("that meets a row it can't change, which another session deletes,", function()
    local TABLE = "create table t (id int primary key, v int); insert into t select i from generate_series(1, 10) i"
    local ONES = "options = { min = 1, max = 1, start = 1, max_errors = 5 }"

    for name, body in pairs {
      ["set-based"] = [[table = "t", set = "v = 1000 / (id - 3)", ]] .. ONES,
      ["row-based"] = [[table = "t", columns = { "v" }, transform = function(row)
        assert(row.id ~= 3) return { v = 1 } end, ]] .. ONES,
      ["by function"] = [[table = "t", batch = function(db, lo, hi) assert(lo ~= 3)
        db:exec("update t set v = 1 where id = $1", lo) end, ]] .. ONES } do
      it("passes over no other one, " .. name, async(function()
        for at = 4, 6 do
          db:exec "drop table if exists t; drop schema if exists moonbird cascade"
          project(TABLE, body)
          local child = stopped("backfill.before_send:" .. at)
          local deleted = db:value "with d as (delete from t where id = 3 returning 1) select count(*) from d"
          goes_on(child, 0)
          assert.are.equal(1, deleted)
          assert.are.equal(9, db:value "select count(*) from t where v is not null")
          assert.is_true(db:value "select count(*) from moonbird.backfill_error where key <> '[3]'" == 0)
        end
      end))
    end
  end)

  describe("of which a row was passed over", function()
    --- Its first pass is over, and row 5 recorded; then it runs again because a row came late.
    local function late(body)
      project("create table t (id int primary key, v int); insert into t select i from generate_series(1, 1000) i",
        body)
      local child = stopped "backfill.walked:1"
      db:exec "insert into t values (2000)"
      has(goes_on(child, 1).stderr, "1 row of public.t still match")
      assert.are.equal(1, db:value "select count(*) from moonbird.backfill_error")
    end

    it("does not count that row twice in its second pass", async(function()
      late [[table = "t", where = "v is null", set = "v = 1000 / (id - 5)", options = { max_errors = 1 }]]
      moonbird(0, "up")
      assert.are.equal(1000, db:value "select count(*) from t where v is not null")
      assert.are.same({ "[5]" }, db:values "select key::text from moonbird.backfill_error")
      assert.are.equal(2, db:value "select tries from moonbird.backfill_error")
    end))

    for name, body in pairs {
      ["set-based"] = [[table = "t", where = "v is null", set = "v = 1000 / (id - 5)", options = { max_errors = 1 }]],
      ["row-based"] = [[table = "t", where = "v is null", columns = { "v" }, transform = function(row, db)
        return { v = db:value("select 1000 / ($1::int - 5)", row.id) } end, options = { max_errors = 1 }]] } do
      it("has none recorded that a later batch did, " .. name, async(function()
        late(body)
        db:exec "update t set v = 1 where id = 5"
        moonbird(0, "up")
        assert.are.equal(0, db:value "select count(*) from t where v is null")
        assert.are.equal(0, db:value "select count(*) from moonbird.backfill_error")
      end))
    end
  end)

  describe("whose table is locked when it counts what is left", function()
    local function locked(...)
      project("create table t (id int primary key, v int); insert into t select i from generate_series(1, 100) i",
        [[table = "t", where = "v is null", set = "v = 1", options = { lock_timeout = "100ms" }]])
      local child = stopped("backfill.walked:1", ...)
      local other = db:connect()
      other:simple "begin; lock table t in access exclusive mode"
      child:kill("CONT")
      assert.is_false(child:wait(1500))
      return child, other
    end

    it("waits for it", async(function()
      local child, other = locked()
      other:simple "rollback"
      assert.are.equal(0, assert(child:wait(20000)).status)
    end))

    it("is paused by SIGINT", async(function()
      local child, other = locked()
      child:kill("INT")
      assert.are.equal(130, assert(child:wait(20000)).status)
      assert.are.same({ "paused" }, db:values "select status from moonbird.backfill where error is null")
      other:simple "rollback"
      moonbird(0, "up")
    end))

    it("ends when its time is over", async(function()
      local child, other = locked("backfill", "run", "--max-runtime", "5s")
      assert.are.equal(75, assert(child:wait(20000)).status)
      assert.are.equal("paused", db:value "select status from moonbird.backfill")
      other:simple "rollback"
      moonbird(0, "up")
    end))
  end)

  it("is paused by SIGINT while it counts what is left", async(function()
    project([[create table t (id int primary key, v int); insert into t select i from generate_series(1, 100) i;
      create function slow() returns bool language plpgsql as $$ begin
        if current_setting('application_name') not like '%/backfill-_' then perform pg_sleep(60); end if;
        return true; end $$]],
      [[table = "t", where = "v is null and slow()", set = "v = 1"]])
    local child = stopped "backfill.walked:1"
    db:exec "insert into t values (1000)"
    child:kill("CONT")
    helper.eventually("it counts", function()
      return db:value [[select count(*) from pg_stat_activity where wait_event = 'PgSleep'
        and datname = current_database()]] > 0
    end)
    child:kill("INT")
    assert.are.equal(130, assert(child:wait(20000)).status)
    assert.are.same({ "paused" }, db:values "select status from moonbird.backfill where error is null")
  end))

  it("is not called paused by a run that ends while another one works", async(function()
    project([[create table t (id int primary key, v int); insert into t select i from generate_series(1, 20000) i;
      analyze t]], [[table = "t", where = "v is null", set = "v = 1 + 0 * length(pg_sleep(0.002)::text)",
      options = { min = 50, max = 50, workers = 2 }]])
    local child = helper.spawn({ "up" }, { cwd = dir, db = db })
    helper.eventually("it works", function()
      return db:value "select to_regclass('moonbird.backfill_chunk') is not null"
        and db:value "select coalesce(sum(rows_seen), 0)::int from moonbird.backfill_chunk" > 100
    end)
    moonbird(75, "backfill", "run", "--max-runtime", "1s")
    assert.is_false(child:wait(0))
    assert.are.equal("running", db:value "select status from moonbird.backfill")
    child:kill("INT")
    assert.are.equal(130, assert(child:wait(20000)).status)
    assert.are.equal("paused", db:value "select status from moonbird.backfill")
  end))

  it("is not begun with columns that are not there", async(function()
    local body = [[table = "t", columns = { "%s" }, transform = function(row) return { v = 1 } end]]
    project("create table t (id int primary key, v int); insert into t select i from generate_series(1, 100) i",
      body:format("vv"))
    has(moonbird(1, "up").stderr, 'no column "vv"')
    assert.are.equal(0, db:value "select count(*) from moonbird.backfill")
    project("", body:format("v"))
    moonbird(0, "up")
    assert.are.equal(100, db:value "select count(*) from t where v = 1")
  end))
end)
