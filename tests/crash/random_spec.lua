--- SIGKILL at times nobody chose: while the server works, while it answers, while it commits. The rerun must
-- come to what an uninterrupted run comes to. Times are spread over the whole run and differ each time; a
-- failure names them.
-- The same on every server.
local at_once = require "tests.crash.at_once"
local helper = require "tests.helper"
local pictures = require "tests.crash.pictures"
local sys = require "moonbird.core.sys"

local RUNS = helper.full and 100 or 24
local AT_ONCE = 4

-- Slow by sleeping, so that two cores are enough. An index on slow() takes as long as its rows.
local files = {
  ["migrations/001_base.sql"] = [[
-- migrate:up
create function slow(n int) returns int immutable language plpgsql as
$$ begin perform pg_sleep(0.003); return n; end $$;
create table rows (id int primary key, v int, done boolean not null default false);
insert into rows select i, i from generate_series(1, 60) i;
select pg_sleep(0.1);
create table after_sleep (n int);
-- migrate:down
drop table after_sleep, rows;
drop function slow(int);
]],
  ["migrations/002_lua.lua"] = [[
return {
  up = function(db)
    db:exec("create table copies (id int primary key)")
    for row in db:rows("select id from rows order by id limit 5") do
      db:exec("insert into copies values ($1)", row.id)
      db:exec("select pg_sleep(0.03)")
    end
  end,
  down = function(db) db:exec("drop table copies") end,
}
]],
  ["migrations/003_indexes.sql"] = [[
-- migrate:up transaction:false
create index concurrently rows_slow on rows (slow(v));
create unique index concurrently rows_unique on rows (slow(id), v);
-- migrate:down transaction:false
drop index concurrently rows_slow;
drop index concurrently rows_unique;
]],
  ["migrations/004_batches.lua"] = [[
return {
  transaction = false,
  up = function(db)
    db:exec("create table marks (n int)")
    for first = 1, 60, 20 do
      db:atomic(function()
        db:exec("update rows set done = true where id between $1 and $2", first, first + 19)
        db:exec("select pg_sleep(0.05)")
        db:exec("insert into marks values ($1)", first)
      end)
    end
    db:exec("drop index concurrently rows_slow")
  end,
  down = function(db)
    db:exec("create index concurrently rows_slow on rows (slow(v))")
    db:exec("drop table marks")
  end,
}
]],
  ["migrations/005_twice.sql"] = [[
-- migrate:up transaction:false
begin; create table twice (n int); select pg_sleep(0.05); commit;
begin; insert into twice values (1); select pg_sleep(0.05); commit;
-- migrate:down
drop table twice;
]],
}

describe("SIGKILL at any time", function()
  local dir, ground, took, wanted_catalog, wanted_journal

  setup(helper.async(function()
    dir = helper.project(files, { scope = "file" })
    ground = helper.database { scope = "file" }
    local whole = helper.database { scope = "file" }
    local started = sys.monotonic()
    helper.ok({ "up" }, { db = whole, cwd = dir })
    took = sys.monotonic() - started
    wanted_catalog, wanted_journal = pictures.catalog(whole), pictures.journal(whole)
    whole:drop()
  end))

  --- Kills one run after `seconds`, and reruns (killed again after each of `more`) until the end.
  local function kill_and_rerun(seconds, more)
    local db = helper.database { template = ground, scope = "test" }
    for _, after in ipairs({ seconds, table.unpack(more) }) do
      local child = helper.spawn({ "up" }, { db = db, cwd = dir })
      if child:wait(math.floor(after * 1000)) == false then
        child:kill("KILL")
        child:wait()
      end
      assert.are.equal("", pictures.broken_chains(db))
    end
    local result = helper.moonbird({ "up" }, { db = db, cwd = dir })
    if result.status ~= 0 then
      error(("the rerun: exit %s\n%s\n%s"):format(result.status or result.signal, result.stdout, result.stderr))
    end
    assert.are.equal("", pictures.difference(wanted_catalog, pictures.catalog(db)))
    assert.are.equal("", pictures.difference(wanted_journal, pictures.journal(db)))
    assert.are.equal("", pictures.broken_chains(db))
    assert.are.equal("", pictures.invalid_indexes(db))
    db:drop()
  end

  local function spread(name, times_of)
    for first = 1, RUNS, AT_ONCE do
      local last = math.min(first + AT_ONCE - 1, RUNS)
      it(("%s, runs %d to %d of %d"):format(name, first, last, RUNS), helper.async(function()
        local times = {}
        for n = first, last do
          times[n] = times_of(n)
        end
        at_once.rounds(first, last, function(n)
          return ("killed after %s s"):format(table.concat(times[n], " and "))
        end, function(n)
          kill_and_rerun(times[n][1], { table.unpack(times[n], 2) })
        end)
      end))
    end
  end

  spread("once", function(n)
    return { (n - math.random()) / RUNS * took * 1.6 }
  end)

  if helper.full then
    spread("three times in a row", function(n)
      return { math.random() * took, math.random() * took, n / RUNS * took }
    end)
  end
end)
