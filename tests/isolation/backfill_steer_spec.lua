-- Backfills that wait, and limits that are changed while they work: the time of a run is over whatever it waits for,
-- workers come and go, another run's code is not mixed with this one's.
local backfills = require "tests.backfills"
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local sys = require "moonbird.core.sys"
local texts = require "tests.texts"
local async = helper.async
local has = texts.has

-- The lock of the global target.
local LOCK = "pg_advisory_xact_lock(hashtextextended('moonbird/moonbird/global', 0))"

describe("a backfill", function()
  local db, dir

  local function project(rows, options, set)
    dir = backfills.project(db, rows, options, { set = set })
  end

  local function moonbird(status, ...)
    return helper.ok({ ... }, { cwd = dir, db = db, status = status })
  end

  local function spawn(...)
    return helper.spawn({ "backfill", "run", ... }, { cwd = dir, db = db })
  end

  --- It ends with 75, a second or two after its time is over.
  local function ends_unfinished(...)
    local began = sys.monotonic()
    local result = moonbird(75, "backfill", "run", ...)
    assert.is_true(sys.monotonic() - began < 6, ("it took %.1f s"):format(sys.monotonic() - began))
    has(result.stderr, "work remains")
    assert.are.equal("paused", db:value "select status from moonbird.backfill")
    assert.are.equal(0, db:value "select count(*) from moonbird.journal where event = 'fail'")
    return result
  end

  before_each(async(function()
    db = helper.database()
  end))

  describe("ends when its time is over,", function()
    it("also while somebody has paused it", async(function()
      project(1000, "min = 10, max = 10, start = 10")
      ends_unfinished("--max-runtime", "1ms")
      moonbird(0, "backfill", "pause", "2")
      ends_unfinished("--max-runtime", "1s")
      local before = backfills.seen(db)
      ends_unfinished("--max-runtime", "1s", "--workers", "3")
      assert.are.equal(before, backfills.seen(db))
      moonbird(0, "backfill", "resume", "2")
      moonbird(0, "backfill", "run", "--max-runtime", "60s")
      backfills.once(db, 1000)
    end))

    it("also while the throttle puts seconds between batches", async(function()
      project(1000, "min = 1, max = 10, start = 10, throttle = function() return 'slow', 'a test' end")
      ends_unfinished("--max-runtime", "1500ms")
      assert.is_true(backfills.seen(db) < 1000)
    end))

    it("also while another process has the lease of what is left", async(function()
      project(1000, "min = 100, max = 100, start = 100")
      ends_unfinished("--max-runtime", "1ms")
      local other = db:connect()
      other:simple "begin; select from moonbird.backfill_chunk for update"
      ends_unfinished("--max-runtime", "1s")
      other:simple "rollback"
      moonbird(0, "backfill", "run")
      backfills.once(db, 1000)
    end))

    it("also while its rows are locked", async(function()
      project(1000, "min = 100, max = 100, start = 100, lock_timeout = '200ms'")
      local other = db:connect()
      other:simple "begin; update users set hits = hits where id = 500"
      ends_unfinished("--max-runtime", "1500ms")
      other:simple "rollback"
      moonbird(0, "backfill", "run")
      backfills.once(db, 1000)
    end))
  end)

  describe("whose last transaction has to wait for the target's lock", function()
    --- Works until all rows are done while somebody holds the lock.
    local function locked()
      project(400, "min = 20, max = 20, start = 20")
      moonbird(75, "backfill", "run", "--max-runtime", "1ms")
      local other = db:connect()
      other:simple(("begin; select %s"):format(LOCK))
      return other
    end

    it("ends when its time is over, and the next run has only that to do", async(function()
      local other = locked()
      ends_unfinished("--max-runtime", "3s")
      assert.are.equal(400, backfills.seen(db))
      other:simple "rollback"
      moonbird(0, "backfill", "run")
      backfills.once(db, 400)
    end))

    it("ends when it has waited as long as it may", async(function()
      local other = locked()
      local began = sys.monotonic()
      local result = helper.moonbird({ "backfill", "run", "--lock-wait", "1s" }, { cwd = dir, db = db })
      assert.are_not.equal(0, result.status)
      has(result.stderr, "is locked by another runner")
      assert.is_true(sys.monotonic() - began < 15)
      other:simple "rollback"
      moonbird(0, "backfill", "run")
      backfills.once(db, 400)
    end))
  end)

  it("says that it works when it goes on after its connection was lost in a pause", async(function()
    project(4000, "min = 20, max = 20, start = 20", "hits = hits + 1 + 0 * length(pg_sleep(0.0005)::text)")
    local child = spawn()
    backfills.works(db, 100)
    local function status()
      return db:value "select status from moonbird.backfill"
    end
    moonbird(0, "backfill", "pause", "2")
    helper.eventually("it is paused", function()
      return status() == "paused"
    end)
    -- All at once: no look may come between the loss and the word to go on.
    db:exec [[begin; update moonbird.backfill set want = 'run';
      select pg_terminate_backend(pid) from pg_stat_activity where application_name like '%/backfill-_'
        and datname = current_database(); commit]]
    local at = backfills.seen(db)
    helper.eventually("it goes on", function()
      return backfills.seen(db) > at
    end)
    assert.are.equal("running", status())
    backfills.finish(child)
    backfills.once(db, 4000)
  end))

  it("takes more workers and fewer of them while it works", async(function()
    project(20000, "min = 20, max = 20, start = 20, workers = 2", "hits = hits + 1 + 0 * length(pg_sleep(0.0005)::text)")
    local child = spawn()
    local function workers()
      return db:value [[select count(*) from pg_stat_activity where application_name like '%/backfill-_'
        and datname = current_database()]]
    end
    helper.eventually("two work", function()
      return workers() == 2 and backfills.seen(db) > 100
    end)
    moonbird(0, "backfill", "throttle", "2", "workers=5")
    helper.eventually("five work", function()
      return workers() == 5
    end)
    moonbird(0, "backfill", "throttle", "2", "workers=1")
    helper.eventually("one works", function()
      return workers() == 1
    end)
    local at = backfills.seen(db)
    helper.eventually("it goes on", function()
      return backfills.seen(db) > at + 100
    end)
    moonbird(0, "backfill", "throttle", "2", "workers=3")
    helper.eventually("three work", function()
      return workers() == 3
    end)
    moonbird(0, "backfill", "throttle", "2", "workers=")
    helper.eventually("as many as the migration says", function()
      return workers() == 2
    end)
    moonbird(0, "backfill", "throttle", "2", "workers=8", "max=2000", "min=500")
    backfills.finish(child)
    backfills.once(db, 20000)
    assert.are.equal(20000, backfills.seen(db))
  end))

  it("goes on without a worker that gets no connection", async(function()
    project(2000, "min = 20, max = 20, start = 20, workers = 2, reconnect = '500ms'",
      "hits = hits + 1 + 0 * length(pg_sleep(0.0002)::text)")
    local role = "few_" .. db.name
    -- For the target, the throttle and one worker.
    db:exec(("create role %s login connection limit 3; grant all on database %s to %s"):format(role, db.name, role))
    helper.defer(function()
      db:exec(("drop owned by %s; drop role %s"):format(role, role))
    end)
    db:exec(("grant all on schema public, moonbird to %s; grant all on all tables in schema public, moonbird to %s; "
      .. "grant all on all sequences in schema moonbird to %s"):format(role, role, role))
    local result = helper.ok({ "backfill", "run" },
      { cwd = dir, db = { url = db.url:gsub("//[^/@]*@", "//" .. role .. "@") } })
    has(result.stderr, "got no connection and ends, the others go on")
    backfills.once(db, 2000)
  end))

  it("does not end before its last chunk is done when there are fewer workers than began it", async(function()
    -- Worker 2 is slow: worker 1 has done all the others and ended when there is to be only one.
    project(4000, "min = 20, max = 20, start = 20, workers = 2", "hits = hits + 1 + 0 * length(pg_sleep("
      .. "case when current_setting('application_name') like '%/backfill-2' then 0.003 else 0 end)::text)")
    for _ = 1, 12 do
      local child = spawn("--restart")
      local who = helper.eventually("the slow chunk is left", function()
        return db:value [[select case when count(*) = 1 then min(worker) end from moonbird.backfill_chunk
          where not done and exists (select from moonbird.backfill_chunk where done)]]
      end)
      if who:find("/2$") then
        moonbird(0, "backfill", "throttle", "2", "workers=1")
        backfills.finish(child)
        backfills.once(db, 4000)
        assert.are.equal(4000, backfills.seen(db))
        return
      end
      child:kill("KILL")
      child:wait()
      helper.eventually("what it had sent has ended", function()
        return db:value [[select count(*) from pg_stat_activity where application_name like 'moonbird/%'
          and datname = current_database()]] == 0
      end)
      db:exec "update users set hits = 0"
    end
    error("worker 2 never had the slow chunk")
  end))

  it("is not begun with more workers than the command says, unless the limit does", async(function()
    project(5000, "min = 20, max = 20, start = 20, workers = 1", "hits = hits + 1 + 0 * length(pg_sleep(0.001)::text)")
    local child = spawn("--workers", "3")
    helper.eventually("three work, also after their first batches", function()
      return backfills.seen(db) > 200 and db:value [[select count(*) from pg_stat_activity
        where application_name like '%/backfill-_' and datname = current_database()]] == 3
    end)
    db:exec [[update moonbird.backfill set limits = '{"min": 500, "max": 2000}']]
    backfills.finish(child)
    backfills.once(db, 5000)
  end))

  it("does not work beside a run that goes on with other code", async(function()
    project(6000, "min = 20, max = 20, start = 20", "hits = hits + 1 + 0 * length(pg_sleep(0.0005)::text)")
    local child = spawn()
    backfills.works(db, 100)
    helper.write(dir, { ["migrations/002_count.lua"] = backfills.count "min = 500" })
    moonbird(0, "backfill", "run", "--adopt")
    local result = assert(child:wait(20000))
    assert.are_not.equal(0, result.status)
    has(result.stderr, "another run works on this backfill with other code")
    backfills.once(db, 6000)
    assert.are.equal(6000, backfills.seen(db))
  end))

  it("walks a table without a key again together with other runs", async(function()
    dir = helper.project { ["migrations/001_events.sql"] = [[
-- migrate:up
create table events (id int not null, n int not null default 0);
insert into events select i from generate_series(1, 3000) i;
-- migrate:down
]], ["migrations/002_count.lua"] = [[return { description = "a test", irreversible = "a test",
      backfill = { table = "events", set = "n = n + 1", where = "n < 3", options = { min = 50, max = 100 } } }]] }
    helper.ok({ "up", "--to", "1" }, { cwd = dir, db = db })
    local children = {}
    for i = 1, 4 do
      children[i] = spawn()
    end
    for _, child in ipairs(children) do
      backfills.finish(child)
    end
    assert.are.same({ 3000, 3000 }, { db:value "select count(*) from events",
      db:value "select count(*) from events where n = 3" })
    assert.are.equal(1, db:value [[select count(*) from moonbird.journal where target = 'global' and version = 2
      and event = 'apply']])
    assert.is_true(db:value "select pass from moonbird.backfill" >= 2)
  end))

  it("halves its batches once while the throttle wavers between slow and stop", async(function()
    project(100, "min = 1, max = 1600, start = 1600")
    local job_of = require "moonbird.exec.backfill.job"
    local job = setmetatable({ level = "ok", size = require("moonbird.exec.backfill.size").new { target = 400, min = 1,
      max = 1600, start = 1600 }, emit = function() end }, { __index = job_of })
    local sizes = {}
    for i, level in ipairs { "stop", "slow", "stop", "slow", "ok", "slow" } do
      job:throttled(level, "a test")
      sizes[i] = job.size:current()
    end
    assert.are.same({ 1600, 800, 800, 800, 800, 400 }, sizes)
  end))
end)

describe("a limit of tenants", function()
  it("is refused for workers, of which each tenant has one", async(function()
    local db = helper.database()
    db:exec "create schema tenant_1"
    local dir = helper.project {
      ["moonbird.lua"] = "return { tenants = tenants.schemas { like = \"tenant_%\" } }",
      ["migrations/001_users.lua"] = [[return { description = "t", scope = "tenant", irreversible = "t",
        up = "create table users (id int primary key, hits int not null default 0)" }]],
      ["migrations/002_count.lua"] = [[return { description = "t", scope = "tenant", irreversible = "t",
        backfill = { table = "users", set = "hits = hits + 1", options = { between = "00:00-00:01" } } }]] }
    local where = { cwd = dir, db = db }
    helper.ok({ "up", "--backfills", "skip" }, where)
    helper.moonbird({ "backfill", "run", "--max-runtime", "1s" }, where)
    local result = helper.ok({ "backfill", "throttle", "2", "workers=2", "--json" }, { cwd = dir, db = db, status = 2 })
    has(json.decode(result.stdout).error.message, "tenants take turns")
  end))
end)
