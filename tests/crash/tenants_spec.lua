--- kill -9 of a tenant run: at the failpoints, at times nobody chose, with and without a transaction. The rerun must
-- come to what an uninterrupted run comes to, every tenant exactly once.
-- The same on every server.
local helper = require "tests.helper"
local pictures = require "tests.crash.pictures"
local processes = require "tests.processes"
local rehearsal = require "tests.crash.rehearsal"
local sys = require "moonbird.core.sys"
local task = require "moonbird.core.task"
local tenants = require "tests.tenants"
local sql, lua = tenants.sql, tenants.lua

local COUNT = 12

-- Every run of a step leaves a row behind.
local FILES = {
  ["001_plans.sql"] = sql("global", "create table public.plans (id int);"),
  ["002_items.sql"] = sql("tenant", "create table ran (step int); insert into ran values (2);"
    .. " create table items (id int primary key, n int); insert into items select i, i from generate_series(1, 20) i;"),
  ["003_lua.lua"] = lua("tenant", [[
    db:exec "insert into ran values (3)"
    db:exec "alter table items add column name text"
    for row in db:rows "select id from items order by id limit 3" do
      db:exec("update items set name = $1 where id = $2", db.target.name, row.id)
    end]]),
  ["004_index.sql"] = sql("tenant", "create index concurrently items_n on items (n);\ninsert into ran values (4);",
    { alone = true }),
  ["005_last.sql"] = sql("global", "create table public.last (id int);"),
  ["006_batches.lua"] = lua("tenant", [[
    db:exec "create table batches (n int)"
    db:atomic(function()
      db:exec "insert into ran values (6)"
      db:exec "insert into batches values (1)"
    end)
    db:exec "create index concurrently batches_n on batches (n)"]], "transaction = false,"),
}

describe("a killed tenant run:", function()
  local dir, ground, took, wanted, points

  --- What must be there at the end, whatever happened before.
  local function whole(db)
    assert.equal("", tenants.not_once(db))
    assert.equal(COUNT, tenants.count_at(db, "2 3 4 6"))
    for i = 1, COUNT do
      assert.same({ 2, 3, 4, 6 }, db:values(("select step from t_%03d.ran order by step"):format(i)))
    end
    assert.equal("", pictures.difference(wanted, pictures.catalog(db)))
    assert.equal("", pictures.broken_chains(db))
    assert.equal("", pictures.invalid_indexes(db))
  end

  setup(helper.async(function()
    dir = tenants.project(FILES, { scope = "file" })
    ground = helper.database { scope = "file" }
    tenants.schemas(ground, 1, COUNT)
    ground:disconnect()
    local db = helper.database { scope = "file", template = ground }
    local started = sys.monotonic()
    local result, passed = rehearsal.traced({ "up", "--jobs", "3" }, db, dir)
    took = sys.monotonic() - started
    rehearsal.expect_ok(result, "the uninterrupted run")
    wanted = pictures.catalog(db)
    points = {} -- by name: how often
    for _, point in ipairs(passed) do
      local name, hit = point:match("^(.*):(%d+)$")
      points[name] = tonumber(hit)
    end
    db:drop()
  end))

  --- Kills at a point, then lets a rerun end.
  local function kill_at(name, hit)
    local db = helper.database { template = ground }
    local result = helper.moonbird({ "up", "--jobs", "3" }, { db = db, cwd = dir,
      env = { MOONBIRD_FAILPOINT = ("%s:%d"):format(name, hit) } })
    assert.equal("SIGKILL", result.signal, ("not killed at %s:%d\n%s%s"):format(name, hit, result.stdout,
      result.stderr))
    assert.equal("", pictures.broken_chains(db))
    helper.ok({ "up", "--jobs", "3" }, { db = db, cwd = dir })
    whole(db)
    helper.ok({ "up" }, { db = db, cwd = dir })
    whole(db)
    db:drop()
  end

  it("passes failpoints of its own and of all kinds of steps", function()
    for _, name in ipairs { "tenant.begin", "step.before_send", "step.after_send", "step.begun", "step.statement",
      "step.before_commit", "step.after_commit", "nontx.leased", "nontx.started", "nontx.before_done", "nontx.done" } do
      assert.is_truthy(points[name], name .. " is not passed")
    end
  end)

  it("at its failpoints, early, in the middle and late", helper.async(function()
    local names = {}
    for name in pairs(points) do
      names[#names + 1] = name
    end
    table.sort(names)
    assert.is_true(#names > 5)
    for i, name in ipairs(names) do
      local hits = points[name]
      local chosen = { ({ 1, hits // 2, hits })[i % 3 + 1] }
      if helper.full then
        chosen = {}
        for hit = 1, hits do
          chosen[hit] = hit
        end
      end
      for _, hit in ipairs(chosen) do
        kill_at(name, math.max(1, hit))
      end
    end
  end))

  it("at random moments, each rerun too", helper.async(function()
    local rounds = helper.full and 60 or 5
    for round = 1, rounds do
      local db = helper.database { template = ground }
      local times = {}
      for i = 1, 3 do
        times[i] = math.random() * took
        local child = helper.spawn({ "up", "--jobs", "3" }, { db = db, cwd = dir })
        if child:wait(math.floor(times[i] * 1000)) == false then
          child:kill("KILL")
          child:wait()
        end
      end
      local ok, err = pcall(function()
        helper.ok({ "up", "--jobs", "3" }, { db = db, cwd = dir })
        whole(db)
      end)
      if not ok then
        error(("round %d, killed after %.3f, %.3f and %.3f s: %s"):format(round, times[1], times[2], times[3],
          type(err) == "table" and tostring(err.message or err) or tostring(err)), 0)
      end
      db:drop()
    end
  end))

  it("while another one is at work", helper.async(function()
    for _ = 1, helper.full and 20 or 3 do
      local db = helper.database { template = ground }
      local stays = helper.spawn({ "--json", "up", "--jobs", "2" }, { db = db, cwd = dir })
      local dies = helper.spawn({ "up", "--jobs", "2" }, { db = db, cwd = dir })
      task.sleep(math.floor(math.random() * took * 1000))
      dies:kill("KILL")
      dies:wait()
      local result = stays:wait(60000)
      assert.is_truthy(result, "it hangs")
      assert.equal(0, result.status, result.stdout .. result.stderr)
      helper.ok({ "up" }, { db = db, cwd = dir })
      whole(db)
      db:drop()
    end
  end))

  it("in a down: nothing more is applied to that tenant until the down has gone on", helper.async(function()
    local db = helper.database()
    tenants.schemas(db, 1, 2)
    local files = { ["001_items.sql"] = sql("tenant", "create table items (id int, n int);", { down = "drop table items;" }),
      ["002_index.sql"] = sql("tenant", "create index concurrently items_n on items (n);",
        { alone = true, down = "drop index concurrently items_n;" }) }
    local place = tenants.project(files)
    local function moonbird(status, ...)
      return helper.ok({ ... }, { db = db, cwd = place, status = status })
    end
    moonbird(0, "up")
    local down = helper.spawn({ "down", "--jobs", "1" }, { db = db, cwd = place,
      env = { MOONBIRD_FAILPOINT = "nontx.started:1:stop" } })
    helper.eventually("it stands still", function()
      return processes.stopped(down:pid())
    end)
    local said = moonbird(0, "status").stdout
    assert.is_truthy(said:find("t_001 +running .* moonbird/down/%S+ is at 2 %(pid %d+%)"), said)
    down:kill("KILL")
    down:wait()
    helper.eventually("its backends are gone", function()
      return db:value "select count(*) from pg_stat_activity where datname = current_database()" == 1
    end)
    said = moonbird(0, "status").stdout
    assert.is_truthy(said:find("t_001 +interrupted .*a run died inside 2; the same command goes on"), said)
    assert.is_truthy(moonbird(7, "up").stdout:find("002_index is half taken back", 1, true))
    helper.write(place, { ["migrations/003_more.sql"] = sql("tenant", "create table more (id int);",
      { down = "drop table more;" }) })
    assert.is_truthy(moonbird(7, "up", "--keep-going").stdout:find("002_index is half taken back", 1, true))
    assert.same({ "t_002" }, db:values [[select target from moonbird.state where version = 3 and applies
      and target like 't%']])
    moonbird(0, "down", "--to", "1")
    moonbird(0, "up")
    assert.equal(2, tenants.count_at(db, "1 2 3"))
  end))

  describe("what is taken back", function()
    local db, place

    before_each(helper.async(function()
      db = helper.database()
      tenants.schemas(db, 1, 2)
      place = tenants.project { ["001_items.sql"] = sql("tenant", "create table items (id int, n int);",
        { down = "drop table items;" }) }
      helper.ok({ "up" }, { db = db, cwd = place })
    end))

    local function moonbird(status, ...)
      return helper.ok({ ... }, { db = db, cwd = place, status = status })
    end

    it("is nothing that a half applied migration stands on", helper.async(function()
      helper.write(place, { ["migrations/002_index.sql"] = sql("tenant", "create index concurrently items_n on items (n);",
        { alone = true, down = "drop index concurrently items_n;" }) })
      local killed = helper.moonbird({ "up", "--jobs", "1" }, { db = db, cwd = place,
        env = { MOONBIRD_FAILPOINT = "nontx.started" } })
      assert.equal("SIGKILL", killed.signal, killed.stderr)
      local said = moonbird(7, "down", "--keep-going").stdout
      assert.is_truthy(said:find("002_index is half applied, and stands on what is to be taken back", 1, true), said)
      assert.same({ "t_001" }, db:values [[select target from moonbird.state where version = 1 and applies
        and target like 't%']])
      helper.write(place, { ["migrations/000_all.sql"] = sql("global", "create table everybody (id int);",
        { down = "drop table everybody;" }) })
      moonbird(0, "up", "--allow-out-of-order", "--to", "0")
      local refused = moonbird(1, "down", "--steps", "2")
      assert.is_truthy(refused.stderr:find("002_index is half applied", 1, true), refused.stderr)
      moonbird(0, "up")
      moonbird(0, "down", "--to", "0")
      assert.equal(0, tenants.count_at(db, "1"))
    end))

    it("is the newest, also when somebody applies more meanwhile", helper.async(function()
      local down = helper.spawn({ "down", "--jobs", "1" }, { db = db, cwd = place,
        env = { MOONBIRD_FAILPOINT = "tenant.begin:1:stop" } })
      helper.eventually("it stands still", function()
        return processes.stopped(down:pid())
      end)
      helper.write(place, { ["migrations/002_more.sql"] = sql("tenant", "create table more (id int);",
        { down = "drop table more;" }) })
      moonbird(0, "up")
      down:kill("CONT")
      local result = assert(down:wait(20000), "it hangs")
      assert.equal(7, result.status, result.stderr)
      assert.is_truthy(result.stdout:find("2_more was applied since it was decided what to take back", 1, true),
        result.stdout)
      assert.equal(2, tenants.count_at(db, "1 2"))
    end))
  end)
end)
