-- The throttle of backfills on real servers: a streaming replica whose replay is paused, sessions that wait for us, a
-- window of time, the project's own function, other terminals.
local backfills = require "tests.backfills"
local cluster = require "moonbird.core.cluster"
local helper = require "tests.helper"
local session = require "moonbird.core.session"
local standby = require "tests.standby"
local sys = require "moonbird.core.sys"
local task = require "moonbird.core.task"
local texts = require "tests.texts"
local async = helper.async
local has = texts.has

--- Follows what a child does by its events (--json): stderr can't be read while it runs, the state can.
local function throttle_of(db)
  local row = db:query("select status, throttle->>'level' as level, throttle->>'reason' as reason, "
    .. "(throttle->>'lag_bytes')::bigint as lag from moonbird.backfill")[1]
  return row or {}
end

describe("a backfill's throttle", function()
  local db, dir

  local function project(rows, options)
    dir = backfills.project(db, rows, options, { width = 200 })
  end

  local function moonbird(status, ...)
    return helper.ok({ ... }, { cwd = dir, db = db, status = status })
  end

  local function spawn(...)
    return helper.spawn({ "backfill", "run", ... }, { cwd = dir, db = db })
  end

  --- Fails unless nothing moves for a second, and gives where it stands.
  local function still()
    local at
    helper.eventually("it stands still", function()
      at = backfills.seen(db)
      task.sleep(700)
      return backfills.seen(db) == at
    end)
    task.sleep(1000)
    assert.are.equal(at, backfills.seen(db))
    return at
  end

  before_each(async(function()
    db = helper.database()
  end))

  it("says stop outside its window, and runs when the window is taken away", async(function()
    local hour = db:value "select extract(hour from clock_timestamp() at time zone 'UTC')::int"
    local from, to = (hour + 2) % 24, (hour + 4) % 24
    project(2000, ("between = '%02d:00-%02d:00', time_zone = 'UTC', min = 100, max = 200"):format(from, to))
    local child = spawn()
    helper.eventually("it waits for its window", function()
      return throttle_of(db).level == "stop"
    end)
    has(throttle_of(db).reason, "it is to run between")
    task.sleep(500)
    assert.are.equal(0, backfills.seen(db))
    has(moonbird(0, "backfill", "show", "2").stdout, "it is to run between")
    has(moonbird(0, "backfill", "list").stdout, "it is to run between")
    moonbird(0, "backfill", "throttle", "2", "between=any")
    backfills.finish(child)
    backfills.once(db, 2000)
  end))

  it("says stop also after a pause, and outside its window nothing is done", async(function()
    local hour = db:value "select extract(hour from clock_timestamp() at time zone 'UTC')::int"
    local from, to = (hour + 2) % 24, (hour + 4) % 24
    project(2000, ("between = '%02d:00-%02d:00', time_zone = 'UTC', min = 10, max = 20, workers = 2"):format(from, to))
    local child = spawn()
    helper.eventually("it waits for its window", function()
      return throttle_of(db).level == "stop"
    end)
    for _ = 1, 2 do
      moonbird(0, "backfill", "pause", "2")
      helper.eventually("it is paused", function()
        return throttle_of(db).status == "paused"
      end)
      moonbird(0, "backfill", "resume", "2")
      helper.eventually("it goes on", function()
        return throttle_of(db).status == "running"
      end)
      task.sleep(700)
      assert.are.equal(0, backfills.seen(db))
    end
    moonbird(0, "backfill", "throttle", "2", "between=any")
    backfills.finish(child)
    backfills.once(db, 2000)
  end))

  it("ends with 75 when its time is over while it waits", async(function()
    local hour = db:value "select extract(hour from clock_timestamp() at time zone 'UTC')::int"
    project(2000, ("between = '%02d:00-%02d:00', time_zone = 'UTC'"):format((hour + 2) % 24, (hour + 3) % 24))
    local began = sys.monotonic()
    moonbird(75, "backfill", "run", "--max-runtime", "1s")
    assert.is_true(sys.monotonic() - began < 6)
    assert.are.equal("paused", db:value "select status from moonbird.backfill")
    assert.are.equal(0, db:value "select count(*) from moonbird.journal where event = 'fail'")
    moonbird(0, "backfill", "throttle", "2", "between=any")
    moonbird(0, "backfill", "run", "--max-runtime", "30s")
    backfills.once(db, 2000)
  end))

  it("asks the project's own function, which can only read", async(function()
    project(3000, [[min = 50, max = 100, start = 100, throttle = function(db)
      if db:value("select on_hold from switch") then return "stop", "the switch is off" end
      pcall(function() db:exec("insert into switch values (true)") end)
      return "ok"
    end]])
    db:exec "create table switch (on_hold boolean); insert into switch values (true)"
    local child = spawn()
    helper.eventually("the function's reason is told", function()
      return throttle_of(db).reason == "the switch is off"
    end)
    assert.are.equal(0, backfills.seen(db))
    db:exec "update switch set on_hold = false"
    backfills.finish(child)
    backfills.once(db, 3000)
    assert.are.equal(1, db:value "select count(*) from switch")
  end))

  it("asks it with the search_path of the configuration", async(function()
    project(300, [[throttle = function(db)
      if db:value("select count(*) from queue") > 0 then return "stop", "the queue is long" end
      return "ok"
    end]])
    db:exec "create schema app; create table app.queue (n int)"
    helper.write(dir, { ["moonbird.lua"] = "return { search_path = { \"app\", \"public\" } }" })
    moonbird(0, "backfill", "run")
    backfills.once(db, 300)
  end))

  it("asks it in the database and the schema of the tenant", async(function()
    local databases = { helper.database(), helper.database() }
    local own = {}
    for i, one in ipairs(databases) do
      one:exec(("create schema app; create table app.mine as select %d as n, false as seen"):format(i))
      own[i] = ("{ name = 'own%d', database = '%s', schema = 'app', vars = { n = %d } }"):format(i, one.name, i)
    end
    dir = helper.project {
      ["moonbird.lua"] = ("return { tenants = { source = tenants.list { %s } } }"):format(table.concat(own, ", ")),
      ["migrations/002_see.lua"] = [[return { description = "t", scope = "tenant", irreversible = "t",
        backfill = { table = "mine", where = "not seen", set = "seen = true", options = { throttle = function(db)
          if db:value("select n from mine") ~= db.target.vars.n then return "stop", "another's database" end
          return "ok"
        end } } }]] }
    moonbird(0, "backfill", "run", "--max-runtime", "20s")
    for _, one in ipairs(databases) do
      assert.is_true(one:value "select seen from app.mine")
      helper.eventually("nobody asks any more", function()
        return one:value [[select count(*) from pg_stat_activity where application_name like '%throttle'
          and datname = current_database()]] == 0
      end)
    end
  end))

  it("waits when the function fails, and says why", async(function()
    project(100, "throttle = function(db) return db:value('select nothing') end")
    moonbird(75, "backfill", "run", "--max-runtime", "1s")
    assert.are.equal(0, backfills.seen(db))
    has(throttle_of(db).reason, "its throttle function failed: ")
  end))

  it("gives way to sessions that wait for its locks", async(function()
    project(4000, "min = 100, max = 100, start = 100, max_blocked = 2, statement_timeout = '10s'")
    -- A row in the middle of a batch is locked by somebody: the batch waits with its own rows locked.
    db:exec "create function nap() returns trigger language plpgsql as 'begin perform pg_sleep(0.02); return new; end'"
    db:exec "create trigger nap before update on users for each row when (new.hits = 1 and old.hits = 0) execute function nap()"
    local child = spawn()
    backfills.works(db, 99)
    local writers = {}
    local stop = false
    for i = 1, 4 do
      local own = db:connect()
      writers[i] = task.spawn(function()
        while not stop do
          local at = own:query "select coalesce(sum(rows_seen), 0)::bigint from moonbird.backfill_chunk":value(1, 1)
          own:query(("update users set pad = 'y' where id = %d"):format(math.min(4000, at + 2)))
          task.sleep(5)
        end
      end)
    end
    local row = helper.eventually("it gives way", function()
      local said = throttle_of(db)
      return said.reason and said.reason:find("for our locks", 1, true) and said
    end, 40)
    assert.is_true(row.level == "slow" or row.level == "stop")
    stop = true
    for _, writer in ipairs(writers) do
      writer:join()
    end
    db:exec "drop trigger nap on users"
    backfills.finish(child)
    backfills.once(db, 4000)
  end))

  it("is paused, resumed, throttled and cancelled from another process", async(function()
    project(20000, "min = 20, max = 20, start = 20")
    local child = spawn()
    backfills.works(db, 200)
    moonbird(0, "backfill", "pause", "count")
    still()
    assert.are.equal("paused", db:value "select status from moonbird.backfill")
    local small = backfills.sum(db, "batches")
    moonbird(0, "backfill", "throttle", "2", "max=5000", "min=2000")
    moonbird(0, "backfill", "resume", "002_count")
    backfills.finish(child)
    backfills.once(db, 20000)
    local large = backfills.sum(db, "batches") - small
    assert.is_true(large < 40, ("%d, then %d batches"):format(small, large))
    moonbird(1, "backfill", "pause", "2")
  end))

  it("ends when it is cancelled, and begins anew only with --restart", async(function()
    project(20000, "min = 20, max = 20, start = 20")
    local child = spawn()
    backfills.works(db, 200)
    moonbird(0, "backfill", "cancel", "2")
    local result = assert(child:wait(20000))
    assert.are.equal(1, result.status)
    has(result.stderr, "cancelled")
    assert.are.equal("cancelled", db:value "select status from moonbird.backfill")
    moonbird(1, "backfill", "run")
    moonbird(1, "backfill", "resume", "2")
    moonbird(0, "backfill", "run", "--restart")
    assert.are.equal("done", db:value "select status from moonbird.backfill")
  end))
end)

describe("a paused replica", function()
  local primary, replica, db

  local function open(params, name)
    local made = assert(session.open(params, { application_name = name }))
    helper.defer(function()
      made:close()
    end)
    return made
  end

  local function value(on, sql)
    local result = assert(on:query(sql))
    return result:value(1, 1)
  end

  it("stops the backfill within two seconds, by its name, and lets it go on", async(function()
    primary = assert(cluster.open { dir = helper.tmpdir() .. "/pg" })
    helper.defer(function()
      primary:release()
      cluster.stop(primary.dir, { force = true })
    end)
    replica = open(standby.start(primary, "berlin").params, "moonbird-tests")
    db = open(primary.params, "moonbird-tests")

    local limit = 4 << 20
    local where = { db = { url = primary.url } }
    where.cwd = backfills.project(where.db, 100000, "max_lag = '4MB', min = 500, max = 500, start = 500, workers = 4",
      { width = 200 })
    assert(db:query "alter system set autovacuum = off") -- what it writes is not the backfill's
    assert(db:query "select pg_reload_conf()")
    assert(db:query "checkpoint")
    helper.eventually("the replica has caught up", function()
      return value(db, "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), replay_lsn) < 10000 from pg_stat_replication")
    end)
    local wal = "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"
    local began = value(db, wal)
    local child = helper.spawn({ "backfill", "run" }, where)
    helper.eventually("it works", function()
      return value(db, "select coalesce(sum(rows_seen), 0)::bigint from moonbird.backfill_chunk") > 5000
    end)
    assert(replica:query "select pg_wal_replay_pause()")
    local paused_at = sys.monotonic()
    local function lag()
      return value(db, "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), replay_lsn)::bigint from pg_stat_replication")
    end
    local over
    local reason = helper.eventually("it stops because of the replica", function()
      if not over and lag() >= limit then
        over = sys.monotonic()
      end
      return value(db, "select throttle->>'reason' from moonbird.backfill where throttle->>'level' = 'stop'")
    end)
    local took = sys.monotonic() - (over or paused_at)
    has(reason, "standby berlin is ")
    assert.is_true(took < 2, ("it took %.1f s"):format(took))
    -- Never past the limit by more than a batch, however many workers there are: the WAL of the batches before tells how
    -- much that is, half as much again for one that meets more pages to be written whole.
    local function rows_seen()
      return value(db, "select sum(rows_seen)::bigint from moonbird.backfill_chunk")
    end
    -- A batch may be under way, and the replica may still tell of what it had replayed before its pause.
    local rows = helper.eventually("it stands still", function()
      local before = rows_seen()
      task.sleep(1000)
      return rows_seen() == before and before
    end)
    local stands = lag()
    local batch = (value(db, wal) - began) * 3 // (2 * value(db, "select sum(batches)::bigint from moonbird.backfill_chunk"))
    task.sleep(2500)
    assert.are.equal(rows, rows_seen())
    assert.is_true(stands <= limit + batch, ("%d bytes behind, limit %d, a batch %d"):format(stands, limit, batch))
    assert(replica:query "select pg_wal_replay_resume()")
    local result = assert(child:wait(60000))
    assert.are.equal(0, result.status, result.stderr)
    assert.are.equal(100000, value(db, "select count(*) from users where hits = 1"))
  end))
end)
