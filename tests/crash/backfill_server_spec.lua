-- Backfills whose server goes away: backends terminated at random moments, the server stopped hard and started again,
-- with commits that did not wait for the disk and are gone afterwards, or gone for good. Every row is changed exactly
-- once, or the run ends with an error in bounded time and the next one goes on.
-- The same on every server.
local backfills = require "tests.backfills"
local cluster = require "moonbird.core.cluster"
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local process = require "moonbird.core.process"
local session = require "moonbird.core.session"
local standby = require "tests.standby"
local sys = require "moonbird.core.sys"
local task = require "moonbird.core.task"
local async = helper.async

local BASE = "-- migrate:up\ncreate table rows (id bigint primary key, n int not null default 0);\n"
  .. "insert into rows select i from generate_series(1, %d) i;\nanalyze rows;\n"
  -- Rows take half a millisecond or more (in the long variant one in 20), so that there is a middle to be hit.
  .. "create function nap() returns trigger language plpgsql as $$ begin perform pg_sleep(0.0005); return new; end $$;\n"
  .. "create trigger nap before update on rows for each row when (new.id %% %d = 0) execute function nap();\n"
  .. "-- migrate:down\ndrop table rows;\ndrop function nap();\n"
local KINDS = {
  { name = "set-based", body = [[set = "n = n + 1"]] },
  { name = "row-based", body = [[columns = { "n" }, transform = function(row) return { n = row.n + 1 } end]] },
}
-- Who looks how far they are is not to slow them: on a busy machine it is always at work.
local MIGRATION = [[return { description = "a test", irreversible = "a test",
  backfill = { table = "rows", %s, options = { max_delay = 0, %s } } }]]

local function files(kind, rows, options)
  return { ["migrations/001_rows.sql"] = BASE:format(rows, helper.full and 20 or 1),
    ["migrations/002_count.lua"] = MIGRATION:format(kind.body, options) }
end

--- Every row was changed exactly once, and the totals are right.
local function check(db, rows)
  backfills.once(db, rows, { relation = "rows", counter = "n" })
  assert.are.equal(1, db:value [[select count(*) from moonbird.journal where target = 'global' and version = 2
    and event = 'apply']])
  assert.are.equal(0, db:value "select count(*) from moonbird.verify()")
end

--- What can be asked like a database of the tests: it connects when it is asked, until close(), then anew.
---@param params fun(): table where
local function watching(params)
  local own
  return {
    value = function(_, sql)
      own = own or assert(session.open(params(), { application_name = "moonbird-tests" }))
      return assert(own:query(sql)):value(1, 1)
    end,
    close = function()
      if own then
        own:close()
        own = nil
      end
    end,
  }
end

describe("backends terminated", function()
  for _, kind in ipairs(KINDS) do
    for _, workers in ipairs { 1, 4 } do
      it(("at random moments of a backfill, %s, %d workers"):format(kind.name, workers), async(function()
        local rows = helper.full and 300000 or workers == 1 and 4000 or 12000
        local wanted = helper.full and 100 or 6
        local db = helper.database()
        local dir = helper.project(files(kind, rows, ("min = 50, max = 100, start = 50, workers = %d"):format(workers)))
        helper.ok({ "up", "--to", "1" }, { db = db, cwd = dir })
        local child = helper.spawn({ "up" }, { db = db, cwd = dir })
        local killed, before, result = 0, -1, nil
        -- One of its backends at a time: a worker's in the middle of a batch, often between its rows and its commit.
        while killed < wanted do
          result = child:wait(1 + math.random(10))
          if result then
            break
          end
          -- A connection that is lost again and again waits longer and longer: batches have to come between.
          local seen = backfills.seen(db)
          if seen > before and db:value [[select count(pg_terminate_backend(pid)) from (select pid from pg_stat_activity
              where application_name like 'moonbird/up/%/backfill-%' and datname = current_database()
                and backend_xid is not null order by random() limit 1) s]] > 0 then
            killed, before = killed + 1, seen
          end
        end
        result = result or child:wait(120000)
        assert.is_truthy(result, "it hangs")
        assert.are.equal(0, result.status, result.stderr)
        check(db, rows)
        assert.is_true(killed >= (helper.full and 100 or 3), ("only %d were terminated"):format(killed))
      end))
    end
  end
end)

describe("the server stopped hard", function()
  local home, url
  local here = watching(function()
    return home.params
  end)

  local function value(sql)
    return here:value(sql)
  end

  --- As pg_ctl stop -m immediate: nobody is told, what was not on the disk is lost.
  local function stop_hard()
    here:close()
    local pid = cluster.status(home.dir).pid
    assert(process.signal(pid, "QUIT"))
    helper.eventually("it has stopped", function()
      return not cluster.status(home.dir).running
    end)
  end

  local function start()
    assert(cluster.start(home.dir))
  end

  before_each(async(function()
    home = assert(cluster.open { dir = helper.tmpdir() .. "/pg" })
    url = home.url
    helper.defer(function()
      here:close()
      home:release()
      cluster.stop(home.dir, { force = true })
    end)
    -- What commits without waiting stays in memory for long.
    value "alter system set wal_writer_delay = '10s'"
    value "alter system set wal_writer_flush_after = '64MB'"
    value "select pg_reload_conf()"
  end))

  local function where(dir)
    return { db = { url = url }, cwd = dir }
  end

  for i, kind in ipairs(KINDS) do
    -- Not all of it each time: each takes some seconds.
    for _, durable in ipairs(helper.full and { true, false } or { i == 2 }) do
      it(("and started again: the backfill goes on by itself, %s, synchronous_commit %s"):format(kind.name,
        durable and "on" or "off"), async(function()
        local rows = helper.full and 300000 or 8000
        local dir = helper.project(files(kind, rows, ("min = 50, max = 100, start = 50, workers = %d, durable = %s")
          :format(i == 1 and 4 or 1, durable)))
        helper.ok({ "up", "--to", "1" }, where(dir))
        local child = helper.spawn({ "up", "-v" }, where(dir))
        -- More rounds while nothing was lost that could have been: some other commit may have just waited for the disk.
        local lost, now, rounds, wanted = 0, 0, 0, helper.full and 10 or 3
        while rounds < wanted or not durable and lost == 0 and rounds < 3 * wanted do
          rounds = rounds + 1
          backfills.works(here, now + 300) -- new ones, each time
          task.sleep(math.random(150))
          local before = value "select (select status from moonbird.backfill) <> 'done'" and backfills.seen(here)
          if not before then
            break
          end
          stop_hard()
          start()
          now = backfills.seen(here)
          lost = lost + math.max(0, before - now)
          -- Whatever is gone, rows and cursors went together. Asked at once: it goes on by itself.
          assert.are.equal(0, value [[select (select sum(n) from rows)::bigint
            - (select sum(rows_seen) from moonbird.backfill_chunk)::bigint]])
        end
        local result = child:wait(120000)
        assert.is_truthy(result, "it hangs")
        if result.status ~= 0 then -- by itself, or with an error and the next run
          assert.is_truthy(result.stderr:find("error: ", 1, true), result.stderr)
          helper.ok({ "backfill", "run" }, where(dir))
        end
        check(here, rows)
        if durable then
          assert.are.equal(0, lost)
        else
          assert.is_true(lost > 0, "nothing was lost: this tests nothing")
        end
      end))
    end
  end

  it("while it had committed the end, which nobody was told: it is done once", async(function()
    local dir = helper.project(files(KINDS[1], 100, "min = 100, max = 100, start = 100"))
    helper.ok({ "up", "--backfills", "skip" }, where(dir))
    -- Its last commit alone waits for a standby that never comes: it has happened, and others see it when the session
    -- that waits is ended.
    value "alter system set synchronous_commit = 'local'"
    value "alter system set synchronous_standby_names = 'nobody'"
    value "select pg_reload_conf()"
    value [[do $do$ begin
      create function wait() returns trigger language plpgsql as $$ begin
        perform set_config('synchronous_commit', 'on', true);
        return null;
      end $$;
      create trigger wait after update on moonbird.backfill for each row when (new.status = 'done')
        execute function wait();
    end $do$]]
    local child = helper.spawn({ "up" }, where(dir))
    helper.eventually("the commit waits", function()
      return value [[select count(pg_terminate_backend(pid)) from pg_stat_activity where wait_event = 'SyncRep'
        and application_name like 'moonbird/up/%']] == 1
    end)
    local result = child:wait(20000)
    assert.is_truthy(result, "it hangs")
    assert.are.equal(0, result.status, result.stderr)
    check(here, 100)
  end))

  --- The server is gone for good: the run ends in time, and says why.
  local function gives_up(child, seconds)
    stop_hard()
    local began = sys.monotonic()
    local result = child:wait(30000)
    assert.is_truthy(result, "it hangs")
    assert.is_true(sys.monotonic() - began < seconds, ("it took %.1f s"):format(sys.monotonic() - began))
    assert.are.equal(3, result.status, result.stderr)
    assert.is_truthy(result.stderr:find("did not come back in 2s (option reconnect)", 1, true), result.stderr)
  end

  it("for good: the run ends with an error in the time of its option, and the next one goes on", async(function()
    local dir = helper.project(files(KINDS[1], 6000, "min = 20, max = 20, start = 20, workers = 2, reconnect = '2s'"))
    helper.ok({ "up", "--to", "1" }, where(dir))
    local child = helper.spawn({ "backfill", "run" }, where(dir))
    backfills.works(here, 300)
    gives_up(child, 8)
    start()
    helper.ok({ "backfill", "run" }, where(dir))
    check(here, 6000)
  end))

  it("for good while the throttle says stop: the run ends in the same time", async(function()
    local dir = helper.project(files(KINDS[1], 6000, [[min = 20, max = 20, start = 20, reconnect = '2s',
      throttle = function(db) return db:value("select level from switch") end]]))
    helper.ok({ "up", "--to", "1" }, where(dir))
    value "create table switch as select 'ok' as level"
    local child = helper.spawn({ "backfill", "run" }, where(dir))
    backfills.works(here, 300)
    value "update switch set level = 'stop'"
    helper.eventually("it waits", function()
      return value "select throttle->>'level' from moonbird.backfill" == "stop"
    end)
    task.sleep(1000) -- the batch under way ends, so that no worker meets it
    gives_up(child, 15)
    start()
    value "update switch set level = 'ok'"
    helper.ok({ "backfill", "run" }, where(dir))
    check(here, 6000)
  end))

  it("for good, while its time is over: 75", async(function()
    local dir = helper.project(files(KINDS[1], 3000, "min = 20, max = 20, start = 20"))
    helper.ok({ "up", "--to", "1" }, where(dir))
    local child = helper.spawn({ "backfill", "run", "--max-runtime", "2s" }, where(dir))
    backfills.works(here, 300)
    stop_hard()
    local result = child:wait(20000)
    assert.is_truthy(result, "it hangs")
    assert.are.equal(75, result.status, result.stderr)
    start()
    helper.ok({ "backfill", "run" }, where(dir))
    check(here, 3000)
  end))
end)

describe("the database dropped under a backfill", function()
  it("ends it with an error at once", async(function()
    local db = helper.database()
    local dir = helper.project(files(KINDS[1], 6000, "min = 20, max = 20, start = 20, workers = 2"))
    helper.ok({ "up", "--to", "1" }, { db = db, cwd = dir })
    local child = helper.spawn({ "backfill", "run" }, { db = db, cwd = dir })
    backfills.works(db, 100)
    db:drop()
    local result = child:wait(15000)
    assert.is_truthy(result, "it hangs")
    assert.are.equal(3, result.status, result.stderr)
    assert.is_truthy(result.stderr:find("does not exist", 1, true), result.stderr)
  end))
end)

describe("a standby", function()
  local home, replica
  local here = watching(function()
    return replica.params
  end)

  local function value(sql)
    return here:value(sql)
  end

  before_each(async(function()
    home = assert(cluster.open { dir = helper.tmpdir() .. "/pg" })
    helper.defer(function()
      home:release()
      cluster.stop(home.dir, { force = true })
    end)
    replica = standby.start(home, "berlin")
    helper.defer(here.close)
  end))

  --- Waits until the standby has replayed what the primary has.
  local function caught_up()
    local primary <close> = assert(session.open(home.params, { application_name = "moonbird-tests" }))
    local lsn = assert(primary:query "select pg_current_wal_insert_lsn()::text"):value(1, 1)
    helper.eventually("the standby has caught up", function()
      return value(("select pg_last_wal_replay_lsn() >= '%s'"):format(lsn))
    end)
  end

  --- It ends at once, and says what, where and what to do.
  local function refused(dir, ...)
    local began = sys.monotonic()
    local result = helper.ok({ "--json", ... }, { db = replica, cwd = dir, status = 3 })
    assert.is_true(sys.monotonic() - began < 3, ("it took %.1f s"):format(sys.monotonic() - began))
    local err = json.decode(result.stdout).error
    assert.are.same({ "standby", ("the server at %s:%s is a standby and can't be written"):format(home.params.host,
      replica.params.port), "give the URL of the primary, or add target_session_attrs=read-write" },
      { err.code, err.message, err.hint })
  end

  --- The primary is gone: a run that is at work ends, and then the standby takes over.
  local function fails_over(child)
    assert(process.signal(cluster.status(home.dir).pid, "QUIT"))
    local result = child:wait(10000)
    assert.is_truthy(result, "it hangs")
    assert.are.equal(3, result.status, result.stderr)
    assert.is_truthy(result.stderr:find("is a standby and can't be written", 1, true), result.stderr)
    replica.promote()
  end

  it("runs no backfill, and takes no orders for one", async(function()
    local dir = helper.project(files(KINDS[1], 1000, "min = 20, max = 20, start = 20"))
    local primary = { db = { url = home.url }, cwd = dir }
    refused(dir, "up")
    helper.ok({ "up", "--to", "1" }, primary)
    caught_up()
    refused(dir, "up")
    refused(dir, "backfill", "run")
    helper.ok({ "backfill", "run", "--max-runtime", "1ms" }, { db = { url = home.url }, cwd = dir, status = 75 })
    caught_up()
    refused(dir, "up")
    refused(dir, "backfill", "run", "2", "--workers", "4")
    refused(dir, "backfill", "pause", "2")
    refused(dir, "backfill", "retry-errors", "2")
    assert.is_truthy(helper.ok({ "backfill", "list" }, { db = replica, cwd = dir }).stdout:find("paused", 1, true))
    helper.ok({ "up" }, primary)
    caught_up()
    check(here, 1000)
  end))

  it("runs none of tenants either", async(function()
    local dir = helper.project { ["moonbird.lua"] = "return { tenants = tenants.schemas { like = \"tenant_%\" } }",
      ["migrations/001_rows.lua"] = [[return { description = "t", scope = "tenant", irreversible = "t",
        up = "create table rows (id int primary key, n int not null default 0)" }]],
      ["migrations/002_count.lua"] = [[return { description = "t", scope = "tenant", irreversible = "t",
        backfill = { table = "rows", set = "n = n + 1" } }]] }
    local primary <close> = assert(session.open(home.params, { application_name = "moonbird-tests" }))
    assert(primary:simple "create schema tenant_1; create schema tenant_2")
    caught_up()
    refused(dir, "backfill", "run")
    helper.ok({ "up", "--backfills", "skip" }, { db = { url = home.url }, cwd = dir })
    caught_up()
    refused(dir, "backfill", "run")
  end))

  it("that a backfill's new connections lead to ends it; promoted, it takes up where that was", async(function()
    local dir = helper.project(files(KINDS[2], 3000, "min = 20, max = 20, start = 20, workers = 3"))
    local both = { db = { url = replica.both }, cwd = dir }
    helper.ok({ "up", "--to", "1" }, both)
    local child = helper.spawn({ "backfill", "run" }, both)
    backfills.works(here, 300)
    fails_over(child)
    helper.ok({ "backfill", "run" }, both)
    check(here, 3000)
  end))

  it("that is met when all rows are done ends it, too; promoted, it is verified and journaled there", async(function()
    local dir = helper.project { ["migrations/001_rows.sql"] = [[
-- migrate:up
create table rows (id int primary key, n int not null default 0);
insert into rows select i from generate_series(1, 50) i;
create table gate (closed bool);
insert into gate values (true);
create function verify_waits() returns boolean language plpgsql stable as $$ begin
  if exists (select from gate) and not exists (select from rows where n = 0) then
    perform pg_sleep(60);
  end if;
  return true;
end $$;
-- migrate:down
]], ["migrations/002_count.lua"] = [[return { description = "t", irreversible = "t",
      backfill = { table = "rows", set = "n = n + 1", where = "verify_waits() and n = 0" } }]] }
    local both = { db = { url = replica.both }, cwd = dir }
    helper.ok({ "up", "--to", "1" }, both)
    local child = helper.spawn({ "backfill", "run" }, both)
    do
      local primary <close> = assert(session.open(home.params, { application_name = "moonbird-tests" }))
      helper.eventually("it verifies", function()
        return assert(primary:query [[select count(*) from pg_stat_activity
          where wait_event = 'PgSleep' and query not like '%update%']]):value(1, 1) > 0
      end)
    end
    caught_up()
    fails_over(child)
    value "delete from gate returning true"
    helper.ok({ "backfill", "run" }, both)
    assert.are.equal(50, value "select count(*) filter (where n = 1) from rows")
    assert.are.equal(1, value [[select count(*) from moonbird.journal where target = 'global' and version = 2
      and event = 'apply']])
  end))
end)
