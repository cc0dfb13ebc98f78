-- Commits that happened, and nobody was told: each waits for a standby that never comes, is there for all to see as
-- soon as its session is ended or the wait canceled, and the answer is lost with the session. Whatever is run is run
-- again until it says that all is well; then everything was done exactly once.
-- The same on every server.
local cluster = require "moonbird.core.cluster"
local helper = require "tests.helper"
local session = require "moonbird.core.session"
local task = require "moonbird.core.task"
local async = helper.async

local ROUNDS = helper.full and 20 or 2
local MOST = 60 -- runs of one command

-- n and m count what was done to each row, log what was done once.
local FILES = {
  ["001_rows.sql"] = [[
-- migrate:up
create table rows (id bigint primary key, n int not null default 0, m int not null default 0);
insert into rows select i from generate_series(1, 1000) i;
create table log (what text);
-- migrate:down
drop table log;
drop table rows;
]],
  ["002_function.lua"] = [[return { description = "t", up = function(db) db:exec "insert into log values ('function')" end,
    down = function(db) db:exec "delete from log where what = 'function'" end }]],
  ["003_alone.sql"] = [[
-- migrate:up transaction:false
insert into log values ('before');
create index concurrently rows_n on rows (n);
insert into log values ('after');
-- migrate:down transaction:false
delete from log where what in ('before', 'after');
drop index concurrently rows_n;
create table gone ();
drop table gone;
]],
  ["004_set.lua"] = [[return { description = "t", down = "update rows set n = n - 1", backfill = { table = "rows",
    set = "n = n + 1", options = { min = 50, max = 100, start = 50, workers = 2, max_delay = 0 } } }]],
  ["005_atomic.lua"] = [[return { description = "t", transaction = false,
    up = function(db)
      for i = 1, 2 do
        db:atomic(function() db:exec("insert into log values ('atomic ' || $1)", i) end)
      end
    end,
    down = function(db)
      db:atomic(function() db:exec "delete from log where what ~ 'atomic'" end)
    end }]],
  ["006_rows.lua"] = [[return { description = "t", down = "update rows set m = m - 1", backfill = { table = "rows",
    columns = { "m" }, transform = function(row) return { m = row.m + 1 } end,
    options = { min = 50, max = 100, start = 50, max_delay = 0 } } }]],
}

describe("commits that nobody is told of", function()
  local home, here

  local function value(sql)
    return assert(here:query(sql)):value(1, 1)
  end

  --- A session whose own commits wait for nobody.
  local function open()
    local own = assert(session.open(home.params, { application_name = "moonbird-tests" }))
    assert(own:query "set synchronous_commit = 'local'")
    return own
  end

  before_each(async(function()
    home = assert(cluster.open { dir = helper.tmpdir() .. "/pg" })
    helper.defer(function()
      home:release()
      cluster.stop(home.dir, { force = true })
    end)
    here = open()
    helper.defer(function()
      here:close()
    end)
    value "alter system set synchronous_standby_names = 'nobody'"
    value "select pg_reload_conf()"
  end))

  --- Ends one in so many sessions that wait with their commit, and lets the others go on -> a function that ends this
  --- and tells how many were ended.
  local function hunt(one_in)
    local hunter, over, ended = open(), false, 0
    local hunting = task.spawn(function()
      while not over do
        local ends = math.random(one_in) == 1
        local count = assert(hunter:query(("select count(pg_%s_backend(pid)) from pg_stat_activity "
          .. "where wait_event = 'SyncRep'"):format(ends and "terminate" or "cancel"))):value(1, 1)
        ended = ended + (ends and count or 0)
        task.sleep(5)
      end
      hunter:close()
    end)
    return function()
      over = true
      hunting:join()
      return ended
    end
  end

  --- Runs a command until it succeeds.
  local function insist(dir, ...)
    local result
    for _ = 1, MOST do
      result = helper.moonbird({ ... }, { db = { url = home.url }, cwd = dir, timeout = 60 })
      if result.status == 0 then
        return
      end
      assert.are.equal(1, result.status, result.stderr)
      assert.is_truthy(result.stderr:find("error: ", 1, true), result.stderr)
      assert.is_nil(result.stderr:find("traceback", 1, true), result.stderr)
    end
    error(("it did not succeed in %d runs:\n%s"):format(MOST, result.stderr))
  end

  for round = 1, ROUNDS do
    it(("are found by the next run: up and down, round %d"):format(round), async(function()
      local files = {}
      for name, text in pairs(FILES) do
        files["migrations/" .. name] = text
      end
      local dir = helper.project(files)
      local ended = hunt(2 + round % 2 * 2)
      insist(dir, "up")
      assert.are.equal("after, atomic 1, atomic 2, before, function",
        value "select string_agg(what, ', ' order by what collate \"C\") from log")
      assert.are.equal(1000, value "select count(*) from rows where n = 1 and m = 1")
      assert.are.equal(6, value "select count(*) from moonbird.state where target = 'global' and applies")
      assert.is_true(value "select indisvalid from pg_index where indexrelid = 'rows_n'::regclass")
      for version = 5, 1, -1 do
        insist(dir, "down", "--to", tostring(version))
      end
      assert.are.equal(0, value "select count(*) from log")
      assert.are.equal(1000, value "select count(*) from rows where n = 0 and m = 0")
      assert.are.equal(1, value "select count(*) from moonbird.state where target = 'global' and applies")
      assert.are.equal(0, value "select count(*) from moonbird.verify()")
      assert.is_true(ended() > 0, "no session was ended")
    end))
  end

  it("are found by the next run: over tenants", async(function()
    local dir = helper.project { ["moonbird.lua"] = "return { tenants = tenants.schemas { like = \"tenant_%\" } }",
      ["migrations/001_log.lua"] = [[return { description = "t", scope = "tenant", irreversible = "t",
        up = "create table log (what text); insert into log values ('made')" }]],
      ["migrations/002_alone.lua"] = [[return { description = "t", scope = "tenant", transaction = false,
        irreversible = "t", up = "create index concurrently log_what on log (what)" }]],
      ["migrations/003_set.lua"] = [[return { description = "t", scope = "tenant", irreversible = "t",
        backfill = { table = "log", where = "what !~ 'seen$'", set = "what = what || ' seen'" } }]] }
    for i = 1, 6 do
      assert(here:simple("create schema tenant_" .. i))
    end
    local ended = hunt(3)
    local runs = 0
    repeat -- some tenants failed (7), the next run goes on with them
      runs = runs + 1
      assert.is_true(runs <= MOST, "it did not succeed")
      local result = helper.moonbird({ "up" }, { db = { url = home.url }, cwd = dir, timeout = 60 })
      assert.is_nil(result.stderr:find("traceback", 1, true), result.stderr)
      assert.is_truthy(result.status == 0 or result.status == 1 or result.status == 7, result.stderr)
    until result.status == 0
    for i = 1, 6 do
      assert.are.equal("made seen", value(("select string_agg(what, ', ') from tenant_%d.log"):format(i)))
      assert.is_true(value(("select indisvalid from pg_index where indexrelid = 'tenant_%d.log_what'::regclass"):format(i)))
    end
    assert.are.equal(18, value "select count(*) from moonbird.journal where event = 'apply' and target ~ 'tenant'")
    assert.are.equal(0, value "select count(*) from moonbird.verify()")
    assert.is_true(ended() > 0, "no session was ended")
  end))
end)
