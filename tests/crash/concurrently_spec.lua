--- CREATE INDEX CONCURRENTLY after kills, by several runners at once: an INVALID index is never taken for
-- success, nobody waits for somebody who waits for him, and the build of a killed client that still goes on
-- in the server is not disturbed.
local at_once = require "tests.crash.at_once"
local helper = require "tests.helper"
local pictures = require "tests.crash.pictures"
local task = require "moonbird.core.task"

local RERUNS = 20
local AT_ONCE = 4

local files = {
  ["migrations/001_base.sql"] = [[
-- migrate:up
create function slow(n int) returns int immutable language plpgsql as
$$ begin perform pg_sleep(0.004); return n; end $$;
create table rows (id int primary key, v int);
insert into rows select i, i from generate_series(1, 60) i;
-- migrate:down
drop table rows;
drop function slow(int);
]],
  ["migrations/002_index.sql"] = [[
-- migrate:up transaction:false
create index concurrently rows_slow on rows (slow(v));
-- migrate:down transaction:false
drop index concurrently rows_slow;
]],
}

local function describe_runs(results)
  local lines = {}
  for i, result in ipairs(results) do
    lines[i] = ("runner %d: exit %s\n%s%s"):format(i, result.status or result.signal, result.stdout, result.stderr)
  end
  return table.concat(lines, "\n")
end

describe("CREATE INDEX CONCURRENTLY", function()
  local dir, ground

  setup(helper.async(function()
    dir = helper.project(files, { scope = "file" })
    ground = helper.database { scope = "file" }
    helper.ok({ "up", "--to", "1" }, { db = ground, cwd = dir })
  end))

  --- What must be true whenever anybody looks: applied means a valid index.
  local function look(db)
    local applied = db:value("select count(*) from moonbird.state where target = 'global' and version = 2 and applies")
    local valid = db:value("select indisvalid from pg_index where indexrelid = to_regclass('rows_slow')")
    if applied == 1 then
      assert.is_true(valid, "the journal says applied, and the index is not valid")
    end
    return applied == 1
  end

  --- Waits until the build is under way; the one a killed client left may have ended well meanwhile, and
  --- then there is no other.
  local function running(db)
    return helper.eventually("CREATE INDEX runs, or is done", function()
      return pictures.running(db, "create index concurrently%") or look(db)
    end)
  end

  --- A transaction that a build waits for the end of: until then it is not done, however quick the machine.
  local function hold(db)
    local session = db:connect()
    assert(session:simple("begin isolation level repeatable read; select count(*) from rows"))
    return session
  end

  --- Starts `n` runners at once and waits for all; after each success the index must be good.
  local function runners(db, n)
    local results, tasks, problems = {}, {}, {}
    for i = 1, n do
      tasks[i] = task.spawn(function()
        results[i] = helper.moonbird({ "up" }, { db = db, cwd = dir })
        if results[i].status == 0 then
          local session = db:connect()
          local answer = session:query("select indisvalid from pg_index where indexrelid = to_regclass('rows_slow')")
          if not answer or answer:value(1, 1) ~= true then
            problems[#problems + 1] = ("runner %d: success was told, and the index is not valid"):format(i)
          end
          session:close()
        end
      end)
    end
    for _, one in ipairs(tasks) do
      local _, err = one:join()
      problems[#problems + 1] = err and err.message
    end
    assert.are.equal("", table.concat(problems, "\n"))
    return results
  end

  local function whole(db, results)
    for _, result in ipairs(results) do
      assert.are.equal(0, result.status, describe_runs(results))
    end
    assert.is_true(look(db))
    assert.are.equal("1:1 2:1", pictures.times_applied(db))
    assert.are.equal("", pictures.invalid_indexes(db))
    assert.are.equal("", pictures.broken_chains(db))
    assert.are.equal(1, db:value("select count(*) from pg_index where indrelid = 'rows'::regclass and not indisprimary"))
  end

  for first = 1, RERUNS, AT_ONCE do
    it(("survives kills and concurrent reruns %d to %d"):format(first, first + AT_ONCE - 1), helper.async(function()
      at_once.rounds(first, first + AT_ONCE - 1, function(n)
        return "rerun " .. n
      end, function(n)
        local db = helper.database { template = ground }
        for _ = 1, 1 + n % 3 do
          local child = helper.spawn({ "up" }, { db = db, cwd = dir })
          if n % 5 ~= 0 then
            running(db)
          end
          child:wait(math.random(0, 300))
          child:kill("KILL")
          child:wait()
          look(db)
          assert.are.equal("", pictures.broken_chains(db))
        end
        whole(db, runners(db, 3))
        db:drop()
      end)
    end))
  end

  it("waits for the build that a killed client left going on in the server", helper.async(function()
    local db = helper.database { template = ground }
    local old = hold(db)
    local child = helper.spawn({ "up" }, { db = db, cwd = dir })
    -- waits for the old transaction's snapshot, after the index is in the catalog
    helper.eventually("the build waits for the old snapshot", function()
      return db:value([[select count(*) from pg_stat_activity where wait_event_type = 'Lock'
        and query ilike 'create index concurrently%' and datname = current_database()]]) == 1
    end)
    child:kill("KILL")
    child:wait()
    local rerun = helper.spawn({ "up" }, { db = db, cwd = dir })
    assert.is_false(rerun:wait(1500), "the rerun ended although the killed client's build goes on")
    assert.are.equal(1, db:value([[select count(*) from pg_stat_activity
      where query ilike 'create index concurrently%' and state = 'active' and datname = current_database()]]),
      "two builds at once")
    old:simple("commit")
    old:close()
    local result = rerun:wait(20000)
    assert.is_truthy(result, "the rerun hangs")
    whole(db, { result })
    assert.is_truthy(result.stderr:find("waiting for backend", 1, true), result.stderr)
  end))

  it("waits for the build of a rerun that was killed as well", helper.async(function()
    local db = helper.database { template = ground }
    local blocker = db:connect()
    assert(blocker:simple("begin; lock table rows in exclusive mode"))
    local BUILDS = [[from pg_stat_activity where query ilike 'create index concurrently%' and state = 'active'
      and datname = current_database() and pid <> pg_backend_pid()]]
    for round = 1, 2 do
      local child = helper.spawn({ "up" }, { db = db, cwd = dir })
      helper.eventually("the build waits for the table", function()
        return db:value("select count(*) " .. BUILDS) == 1
      end)
      child:kill("KILL")
      child:wait()
      if round == 1 then
        db:query("select pg_terminate_backend(pid, 10000) " .. BUILDS)
      end
    end
    local rerun = helper.spawn({ "up" }, { db = db, cwd = dir })
    assert.is_false(rerun:wait(1500), "the rerun ended although the second build goes on")
    assert.are.equal(1, db:value("select count(*) " .. BUILDS), "two builds at once")
    blocker:simple("commit")
    local result = rerun:wait(20000)
    assert.is_truthy(result, "the rerun hangs")
    whole(db, { result })
  end))

  it("is cleaned up when its backend is terminated, and built anew", helper.async(function()
    local db = helper.database { template = ground }
    local old = hold(db)
    local child = helper.spawn({ "up" }, { db = db, cwd = dir })
    local pid = running(db)
    task.sleep(50)
    db:value("select pg_terminate_backend($1)", pid)
    assert(old:simple "commit")
    local result = child:wait(20000)
    assert.is_truthy(result, "hangs")
    assert.are.equal(1, result.status, result.stdout .. result.stderr)
    assert.is_false(look(db))
    whole(db, { helper.moonbird({ "up" }, { db = db, cwd = dir }) })
  end))

  it("is cleaned up when it fails by itself, and says why", helper.async(function()
    local db = helper.database { template = ground }
    local own = helper.project {
      ["migrations/001_base.sql"] = files["migrations/001_base.sql"],
      ["migrations/002_index.sql"] = "-- migrate:up transaction:false\n"
        .. "create unique index concurrently rows_u on rows ((v % 2));\n-- migrate:down\n",
    }
    local result = helper.moonbird({ "up" }, { db = db, cwd = own })
    assert.are.equal(1, result.status)
    assert.is_truthy(result.stderr:find("23505", 1, true), result.stderr)
    assert.are.equal("", pictures.invalid_indexes(db))
    assert.are.equal("1", pictures.applied(db))
    -- the data is mended, the same file works
    db:exec("delete from rows where id > 2")
    helper.ok({ "up" }, { db = db, cwd = own })
    assert.are.equal("1 2", pictures.applied(db))
    assert.are.equal("", pictures.invalid_indexes(db))
  end))

  it("does not take somebody else's INVALID index for success", helper.async(function()
    local db = helper.database { template = ground }
    db:exec("insert into rows values (100, 1)")
    local _, err = db:session():query("create unique index concurrently rows_slow on rows (v)")
    assert.are.equal("23505", err.sqlstate)
    assert.are.equal("rows_slow", pictures.invalid_indexes(db))
    for _, text in ipairs { "create index concurrently rows_slow on rows (slow(v));",
      "create index concurrently if not exists rows_slow on rows (slow(v));" } do
      local own = helper.project {
        ["migrations/001_base.sql"] = files["migrations/001_base.sql"],
        ["migrations/002_index.sql"] = "-- migrate:up transaction:false\n" .. text .. "\n-- migrate:down\n",
      }
      local result = helper.moonbird({ "up" }, { db = db, cwd = own })
      assert.are.equal(1, result.status, text .. "\n" .. result.stdout .. result.stderr)
      assert.are.equal("1", pictures.applied(db))
      assert.are.equal("rows_slow", pictures.invalid_indexes(db), "it is not ours to drop")
    end
  end))

  -- CONCURRENTLY waits for the end of a transaction that had a snapshot when it looked, and a rerun waits for what its
  -- predecessor left: with a transaction they could wait for each other.
  it("holds the lock without a transaction", helper.async(function()
    local db = helper.database { template = ground }
    local old = hold(db)
    local child = helper.spawn({ "up" }, { db = db, cwd = dir })
    running(db)
    assert.are.same({ "idle" }, db:values [[select state from pg_stat_activity where xact_start is null
      and application_name like 'moonbird/%/lease' and datname = current_database()]])
    assert.are.equal(5, helper.moonbird({ "up", "--lock-wait", "100ms" }, { db = db, cwd = dir }).status)
    assert(old:simple "commit")
    local result = assert(child:wait(30000))
    assert.are.equal(0, result.status, result.stderr)
    assert.are.equal(0, db:value "select count(*) from pg_locks where locktype = 'advisory'")
    look(db)
  end))

  it("stays whole when the backend that holds the lock is terminated during the build", helper.async(function()
    local db = helper.database { template = ground }
    local old = hold(db)
    local first = helper.spawn({ "up" }, { db = db, cwd = dir })
    running(db)
    local second = helper.spawn({ "up" }, { db = db, cwd = dir })
    task.sleep(100)
    assert.are.equal(1, db:value([[select count(pg_terminate_backend(pid)) from pg_stat_activity
      where application_name like 'moonbird/%/lease' and datname = current_database()]]))
    assert(old:simple "commit")
    local results = { first:wait(30000), second:wait(30000) }
    assert.is_truthy(results[1] and results[2], "a runner hangs")
    look(db)
    -- whichever of them lost, the next run finds all well
    whole(db, { helper.moonbird({ "up" }, { db = db, cwd = dir }) })
  end))
end)
