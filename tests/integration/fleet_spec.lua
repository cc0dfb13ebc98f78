--- A fleet: processes that share the tenants of one command over the rows of a control database.
-- The same on every server.
local fleets = require "tests.crash.fleets"
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local pgbouncer = require "tests.pgbouncer"
local task = require "moonbird.core.task"
local async = helper.async

local MORE = [[
-- scope: tenant
-- migrate:up
alter table users add column phone text;
insert into ran values (current_schema(), 3);
-- migrate:down
alter table users drop column phone;
]]

local function all_ended(results, status)
  for _, result in ipairs(results) do
    assert(result.status == status, ("expected exit %d\n%s"):format(status, fleets.said(results)))
  end
end

local function run_of(db, name)
  return db:query("select * from moonbird.run where name = $1", name)[1]
end

describe("a fleet", function()
  it("one process alone makes the run and ends it", async(function()
    local db, dir = helper.database(), fleets.project()
    fleets.tenants(db, 20)
    local result = helper.ok({ "up", "--fleet", "r1" }, { db = db, cwd = dir })
    assert.matches("made the run r1", result.stdout)
    assert.matches("20 tenants migrated", result.stdout)
    assert.are.equal("", fleets.problem(db, 20, 2))
    assert.are.equal("done", run_of(db, "r1").status)
    local again = helper.ok({ "up", "--fleet", "r1", "--json" }, { db = db, cwd = dir })
    local data = json.decode(again.stdout)
    assert.are.equal("done", data.fleet.status)
    assert.are.equal(0, data.fleet.mine)
    assert.are.equal(0, db:value "select count(*) from moonbird.run_worker")
  end))

  it("four processes share the tenants; each is migrated once", async(function()
    local db, dir = helper.database(), fleets.project { sleep = "0.02" }
    fleets.tenants(db, 160)
    fleets.hold_until_shared(db, 1, 4)
    local results = fleets.finish(fleets.start(4, "r1", { db = db, cwd = dir }))
    all_ended(results, 0)
    assert.are.equal("", fleets.problem(db, 160, 2))
    assert.are.equal(4, db:value "select count(distinct owner) from moonbird.run_item")
    assert.are.equal(160, db:value "select sum(claims) from moonbird.run_item")
    assert.are.equal("done", run_of(db, "r1").status)
  end))

  it("a budget of 3 holds across four processes", async(function()
    local db, dir = helper.database(), fleets.project { jobs = 1, sleep = "0.01" }
    fleets.tenants(db, 120)
    db:exec [[insert into public.poison select 'tenant_' || to_char(i * 4, 'FM000') from generate_series(1, 30) i]]
    local results = fleets.finish(fleets.start(4, "r1", { db = db, cwd = dir }, { "--max-failures", "3" }))
    all_ended(results, 7)
    local failed = db:value "select count(*) from moonbird.run_item where state = 'failed'"
    assert(failed > 3 and failed <= 3 + 4, failed .. " failed")
    assert.are.equal(failed, db:value "select count(*) from moonbird.journal where event = 'fail'")
    assert.are.equal("halted", run_of(db, "r1").status)
    assert.are.equal("more than 3 failed", run_of(db, "r1").reason)
    assert.matches("division by zero", results[1].stdout)
    assert.matches("run resume r1", results[1].stdout)

    local shown = helper.ok({ "run", "show", "r1" }, { db = db, cwd = dir })
    assert.matches("r1: halted %(more than 3 failed%)", shown.stdout)
    assert.matches(failed .. " failed", shown.stdout)
    assert.matches(failed .. " tenants failed 002_mail: .*division by zero", shown.stdout)
    -- Late comers do not open it again; a person does.
    helper.ok({ "up", "--fleet", "r1" }, { db = db, cwd = dir, status = 7 })
    assert.are.equal(failed, db:value "select count(*) from moonbird.run_item where state = 'failed'")
    db:exec "delete from public.poison"
    assert.matches(failed .. " failed tenants once more",
      helper.ok({ "run", "resume", "r1" }, { db = db, cwd = dir }).stdout)
    all_ended(fleets.finish(fleets.start(2, "r1", { db = db, cwd = dir })), 0)
    assert.are.equal("", fleets.problem(db, 120, 2))
    assert.are.equal("done", run_of(db, "r1").status)
  end))

  it("failures within the budget: the rest is done, the run is failed", async(function()
    local db, dir = helper.database(), fleets.project()
    fleets.tenants(db, 40)
    db:exec "insert into public.poison values ('tenant_007'), ('tenant_008')"
    local results = fleets.finish(fleets.start(2, "r1", { db = db, cwd = dir }, { "--max-failures", "2" }))
    all_ended(results, 7)
    assert.are.equal("failed", run_of(db, "r1").status)
    assert.are.equal(38, db:value "select count(*) from public.ran")
  end))

  it("failures in a row stop all processes", async(function()
    local db = helper.database()
    local dir = fleets.project { jobs = 2, files = { ["moonbird.lua"] = [[
      return { search_path = "public", tenants = { source = tenants.schemas{ like = "tenant_%" }, jobs = 2,
        max_failures = "50%", max_consecutive = 4 } }]] } }
    fleets.tenants(db, 60)
    db:exec [[insert into public.poison select 'tenant_' || to_char(i, 'FM000') from generate_series(1, 60) i]]
    local results = fleets.finish(fleets.start(2, "r1", { db = db, cwd = dir }))
    all_ended(results, 7)
    assert.are.equal("4 failed in a row", run_of(db, "r1").reason)
    local failed = db:value "select count(*) from moonbird.run_item where state = 'failed'"
    -- The fourth halts the run. It held one of the four slots; what the three others had begun may fail too.
    assert(failed >= 4 and failed <= 4 + 3, failed .. " failed")
  end))

  it("failures that successes part are not in a row", async(function()
    local db = helper.database()
    local dir = fleets.project { files = { ["moonbird.lua"] = [[
      return { search_path = "public", tenants = { source = tenants.schemas{ like = "tenant_%" }, jobs = 1,
        max_failures = "50%", max_consecutive = 2 } }]] } }
    fleets.tenants(db, 20)
    db:exec [[insert into public.poison select 'tenant_' || to_char(i * 2, 'FM000') from generate_series(1, 10) i]]
    all_ended(fleets.finish(fleets.start(1, "r1", { db = db, cwd = dir })), 7)
    assert.are.equal("failed", run_of(db, "r1").status)
    assert.are.equal(10, db:value "select count(*) from public.ran")
    assert.are.equal(10, db:value "select count(*) from moonbird.run_item where state = 'failed'")
  end))

  it("is paused, resumed and cancelled from another terminal", async(function()
    local db, dir = helper.database(), fleets.project { jobs = 2, sleep = "0.05" }
    fleets.tenants(db, 150)
    local at = { db = db, cwd = dir }
    local children = fleets.start(2, "r1", at)
    local function done()
      return db:value "select count(*) from moonbird.run_item where state = 'done'"
    end
    helper.eventually("some are done", function()
      return db:value "select to_regclass('moonbird.run_item') is not null" and done() > 5
    end)
    helper.ok({ "run", "pause", "r1" }, at)
    helper.eventually("nothing runs", function()
      return db:value "select count(*) from moonbird.run_item where state = 'running'" == 0
    end)
    local before = done()
    assert(before < 150, "paused too late")
    assert.matches("r1 +paused .*2 workers", helper.ok({ "run", "list" }, at).stdout)
    local shown = json.decode(helper.ok({ "run", "show", "r1", "--json" }, at).stdout).run
    assert.are.equal("paused", shown.status)
    assert.are.equal(2, #shown.workers)
    assert.are.equal(150 - before, shown.counts.waiting)
    task.sleep(500)
    assert.are.equal(before, done())
    helper.ok({ "run", "pause", "r1" }, { db = db, cwd = dir, status = 6 })
    helper.ok({ "run", "resume", "r1" }, at)
    helper.eventually("it goes on", function()
      return done() > before
    end)
    helper.ok({ "run", "cancel", "r1" }, at)
    local results = fleets.finish(children)
    all_ended(results, 7)
    assert.are.equal("cancelled", run_of(db, "r1").status)
    local after = done()
    assert(after < 150, "cancelled too late")
    assert.are.equal(after, db:value "select count(*) from public.ran")
    assert.are.equal(0, db:value "select count(*) from moonbird.run_item where state = 'running'")
    local refused = helper.ok({ "run", "resume", "r1" }, { db = db, cwd = dir, status = 6 })
    assert.matches("cancelled: it can't be resumed", refused.stderr)
  end))

  it("frees its tenants when it is stopped", async(function()
    local db, dir = helper.database(), fleets.project { jobs = 4, sleep = "0.3", lease = "60s" }
    fleets.tenants(db, 12)
    local child = fleets.start(1, "r1", { db = db, cwd = dir })[1]
    helper.eventually("some run", function()
      return db:value "select to_regclass('moonbird.run_item') is not null"
        and db:value "select count(*) from moonbird.run_item where state = 'running'" == 4
    end)
    child:kill("TERM")
    assert.are.equal(130, fleets.finish({ child })[1].status)
    assert.are.equal(0, db:value "select count(*) from moonbird.run_item where state = 'running'")
    assert.are.equal(0, db:value "select count(*) from moonbird.run_worker")
    assert.are.equal("running", run_of(db, "r1").status)
    helper.ok({ "up", "--fleet", "r1" }, { db = db, cwd = dir })
    assert.are.equal("", fleets.problem(db, 12, 2))
  end))

  it("tells what the words of `run` can't do", async(function()
    local db, dir = helper.database(), fleets.project { files = {
      ["list.lua"] = "return function(db) return db:value('select 3') end" } }
    assert.matches("no runs", helper.ok({ "run", "list" }, { db = db, cwd = dir }).stdout)
    for _, word in ipairs { "show", "pause", "resume", "cancel" } do
      local result = helper.ok({ "run", word, "nobody" }, { db = db, cwd = dir, status = 6 })
      assert.matches('there is no run "nobody"', result.stderr)
      helper.ok({ "run", word }, { db = db, cwd = dir, status = 2 })
    end
    helper.ok({ "run", "list", "more" }, { db = db, cwd = dir, status = 2 })
    helper.ok({ "run", "list.lua" }, { db = db, cwd = dir, status = 3 })
    helper.ok({ "up", "--fleet", "a name" }, { db = db, cwd = dir, status = 2 })
    helper.write(dir, { ["moonbird.lua"] = "return {}" })
    assert.matches("no source", helper.ok({ "up", "--fleet", "r1" }, { db = db, cwd = dir, status = 2 }).stderr)
  end))
end)

describe("a fleet's run", function()
  it("is joined with the same files only", async(function()
    local db, dir = helper.database(), fleets.project()
    fleets.tenants(db, 3)
    helper.ok({ "up", "--fleet", "r1" }, { db = db, cwd = dir })
    local other = fleets.project { files = { ["migrations/002_mail.sql"] = fleets.MAIL:format(2, "0.001") } }
    local result = helper.ok({ "up", "--fleet", "r1" }, { db = db, cwd = other, status = 6 })
    assert.matches('another run "r1"', result.stderr)
    local plan = run_of(db, "r1").plan
    assert.matches("the run's plan is " .. plan .. ", this one's %x+", result.stderr)
    local options = helper.ok({ "up", "--fleet", "r1", "--exclude", "tenant_003" }, { db = db, cwd = dir, status = 6 })
    assert.matches("other files or options", options.stderr)
    options = helper.ok({ "up", "--fleet", "r1", "--steps", "1" }, { db = db, cwd = dir, status = 6 })
    assert.matches("other files or options", options.stderr)
  end))

  it("is not joined by an older release, which changes nothing on what is ahead", async(function()
    local db = helper.database()
    local old, new = fleets.project(), fleets.project { files = { ["migrations/003_phone.sql"] = MORE } }
    fleets.tenants(db, 30)
    helper.ok({ "up", "--fleet", "r1" }, { db = db, cwd = new })
    local refused = helper.ok({ "up", "--fleet", "r1" }, { db = db, cwd = old, status = 6 })
    assert.matches("newer files: up to 3, these know 2", refused.stderr)
    local before = db:value "select count(*) from moonbird.journal"
    local ahead = helper.ok({ "up", "--fleet", "r2" }, { db = db, cwd = old, status = 6 })
    assert.matches("30 tenants are at a newer version than these files know", ahead.stderr)
    assert.are.equal(before, db:value "select count(*) from moonbird.journal")
    assert.are.equal(30, json.decode(helper.ok({ "run", "show", "r2", "--json" }, { db = db, cwd = old }).stdout)
      .run.counts.ahead)
  end))

  it("of an older release beside one of a newer: no tenant is harmed", async(function()
    local db = helper.database()
    local old = fleets.project { sleep = "0.02" }
    local new = fleets.project { sleep = "0.02", files = { ["migrations/003_phone.sql"] = MORE } }
    fleets.tenants(db, 80)
    local newer = fleets.start(2, "new", { db = db, cwd = new })
    local older = fleets.start(2, "old", { db = db, cwd = old })
    all_ended(fleets.finish(newer), 0)
    local results = fleets.finish(older)
    for _, result in ipairs(results) do
      assert(result.status == 0 or result.status == 6, fleets.said(results))
    end
    assert.are.equal("", fleets.problem(db, 80, 2))
    assert.are.equal("", fleets.problem(db, 80, 3))
    assert.are.equal(0, db:value "select count(*) from moonbird.run_item where state = 'failed'")
  end))

  it("may be on a database apart", async(function()
    local db, control, dir = helper.database(), helper.database(), fleets.project()
    fleets.tenants(db, 40)
    local at = { db = db, cwd = dir }
    all_ended(fleets.finish(fleets.start(3, "r1", at, { "--control", control.url })), 0)
    assert.are.equal("", fleets.problem(db, 40, 2))
    assert.are.equal("done", run_of(control, "r1").status)
    assert.are.equal(0, db:value "select count(*) from moonbird.run")
    assert.matches("r1 +done", helper.ok({ "run", "list", "--control", control.url }, at).stdout)
    helper.write(dir, { ["moonbird.lua"] = [[return { search_path = "public", tenants = {
      source = tenants.schemas{ like = "tenant_%" }, control = env("CONTROL_URL") } }]] })
    local env = { CONTROL_URL = control.url }
    assert.matches("r1 +done", helper.ok({ "run", "list" }, { db = db, cwd = dir, env = env }).stdout)
  end))

  it("outlives the connections to its control database", async(function()
    local db, control = helper.database(), helper.database()
    local dir = fleets.project { sleep = "0.02" }
    fleets.tenants(db, 100)
    local children = fleets.start(3, "r1", { db = db, cwd = dir }, { "--control", control.url })
    helper.eventually("some are done", function()
      return control:value "select to_regclass('moonbird.run_item') is not null"
        and control:value "select count(*) from moonbird.run_item where state = 'done'" > 5
    end)
    local cut = 0
    while control:value "select status from moonbird.run" == "running" do
      cut = cut + control:value [[select count(pg_terminate_backend(pid)) from pg_stat_activity
        where datname = current_database() and application_name like 'moonbird/%/control']]
      task.sleep(70)
    end
    all_ended(fleets.finish(children), 0)
    assert(cut > 3, "nothing was cut")
    assert.are.equal("", fleets.problem(db, 100, 2))
    assert.are.equal(100, control:value "select count(*) from moonbird.run_item where state = 'done'")
  end))

  it("loses no tenant when the answer to a claim is lost", async(function()
    local db, control = helper.database(), helper.database()
    local dir = fleets.project { sleep = "0.1", jobs = 1, lease = "4s" }
    fleets.tenants(db, 20)
    local children = fleets.start(1, "r1", { db = db, cwd = dir }, { "--control", control.url })
    helper.eventually("some are done", function()
      return control:value "select to_regclass('moonbird.run_item') is not null"
        and control:value "select count(*) from moonbird.run_item where state = 'done'" > 2
    end)
    -- As if it had claimed them and the connection broke before it was told.
    control:exec [[update moonbird.run_item set state = 'running', owner = (select owner from moonbird.run_worker)
      where place > 15 and state = 'waiting']]
    control:exec [[select pg_terminate_backend(pid) from pg_stat_activity
      where datname = current_database() and application_name like 'moonbird/%/control']]
    all_ended(fleets.finish(children), 0)
    assert.are.equal("", fleets.problem(db, 20, 2))
  end))

  it("works through pgbouncer in transaction mode", async(function()
    local db, dir = helper.database(), fleets.project { sleep = "0.005" }
    fleets.tenants(db, 80)
    local at = { cwd = dir, env = { DATABASE_URL = pgbouncer.start(db) } }
    local children = fleets.start(4, "r1", at)
    helper.eventually("some are done", function()
      return db:value "select to_regclass('moonbird.run_item') is not null"
        and db:value "select count(*) from moonbird.run_item where state = 'done'" > 5
    end)
    children[1]:kill("KILL")
    children[1]:wait()
    table.remove(children, 1)
    all_ended(fleets.finish(children), 0)
    assert.are.equal("", fleets.problem(db, 80, 2))
    assert.are.equal("done", run_of(db, "r1").status)
  end))
end)

describe("a fleet's waves", function()
  it("the canary comes first, and its failure stops everybody", async(function()
    local db, dir = helper.database(), fleets.project()
    fleets.tenants(db, 50)
    db:exec "insert into public.slow values ('tenant_033', 0.7)"
    local plain = fleets.finish(fleets.start(3, "r0", { db = db, cwd = dir }, { "--canary", "tenant_033",
      "--canary", "4", "--max-failures", "10" }))
    all_ended(plain, 0)
    assert.are.same({ "tenant_033" }, db:values "select tenant from moonbird.run_item order by finished limit 1")
    assert.are.same({ 1, 2, 3 }, db:values "select wave from moonbird.run_item group by wave order by min(finished)")
    assert.is_true(db:value [[select bool_and(a.finished < b.finished)
      from moonbird.run_item a, moonbird.run_item b where a.wave < b.wave]])
    local other = helper.database()
    fleets.tenants(other, 50)
    other:exec "insert into public.poison values ('tenant_033')"
    local results = fleets.finish(fleets.start(3, "r1", { db = other, cwd = dir }, { "--canary", "tenant_033",
      "--max-failures", "10" }))
    all_ended(results, 7)
    assert.are.equal("halted", run_of(other, "r1").status)
    assert.are.equal(0, other:value "select count(*) from public.ran")
    assert.matches("49 not run", results[1].stderr)
  end))

  it("a gate waits for a person, a soak and a health check are done once for all", async(function()
    local db = helper.database()
    local dir = fleets.project { files = { ["moonbird.lua"] = [[
      return { search_path = "public", tenants = { source = tenants.schemas{ like = "tenant_%" }, jobs = 2,
        soak = "300ms", gate = "manual", health = function(db)
          db:exec("insert into asked default values")
          return db:value("select healthy from health")
        end } }]] } }
    fleets.tenants(db, 30)
    db:exec "create table public.asked (at timestamptz default now()); create table public.health as select false as healthy"
    local at = { db = db, cwd = dir }
    local results = fleets.finish(fleets.start(3, "r1", at, { "--canary", "3" }))
    all_ended(results, 7)
    assert.matches("health check between two waves says no", run_of(db, "r1").reason)
    assert.are.equal(3, db:value "select count(*) from public.ran")
    assert.are.equal(1, db:value "select count(*) from public.asked")
    db:exec "update public.health set healthy = true"
    helper.ok({ "run", "resume", "r1" }, at)
    local children = fleets.start(3, "r1", at, { "--canary", "3" })
    helper.eventually("the gate", function()
      return run_of(db, "r1").status == "paused"
    end)
    assert.matches("waits for a person", run_of(db, "r1").reason)
    assert.are.equal(3, db:value "select count(*) from public.ran")
    assert.are.equal(2, db:value "select count(*) from public.asked")
    helper.ok({ "run", "resume", "r1" }, at)
    all_ended(fleets.finish(children), 0)
    assert.are.equal("", fleets.problem(db, 30, 2))
    assert.are.equal(2, db:value "select count(*) from public.asked")
  end))

  it("what is global is done by one, between the tenants' stages", async(function()
    local db = helper.database()
    local dir = fleets.project { files = {
      ["migrations/001_first.sql"] = "-- migrate:up\ncreate table first (n int);\n-- migrate:down\ndrop table first;\n",
      ["migrations/003_seen.sql"] = [[
-- migrate:up
create table seen as select count(*) as n from ran;
-- migrate:down
drop table seen;
]],
      ["migrations/004_phone.sql"] = MORE:gsub(", 3%)", ", 4)") } }
    fleets.tenants(db, 40)
    all_ended(fleets.finish(fleets.start(4, "r1", { db = db, cwd = dir })), 0)
    assert.are.equal(40, db:value "select n from public.seen")
    assert.are.equal("", fleets.problem(db, 40, 2))
    assert.are.equal("", fleets.problem(db, 40, 4))
    assert.are.equal(4, #json.decode(db:value "select stages::text from moonbird.run"))
    assert.are.equal(2, db:value [[select count(*) from moonbird.journal where target = 'global' and event = 'apply']])
  end))

  it("a failing global migration halts all; mended data and a resume go on", async(function()
    local db = helper.database()
    local dir = fleets.project { files = { ["migrations/003_one.sql"] = [[
-- migrate:up
create table one as select 1 / (1 - count(*)) as n from poison where name = 'global';
-- migrate:down
drop table one;
]] } }
    fleets.tenants(db, 10)
    db:exec "insert into public.poison values ('global')"
    local results = fleets.finish(fleets.start(2, "r1", { db = db, cwd = dir }))
    table.sort(results, function(a, b)
      return a.status < b.status
    end)
    assert(results[1].status == 1 and results[2].status == 7, fleets.said(results))
    assert.are.equal("the global target failed", run_of(db, "r1").reason)
    db:exec "delete from public.poison"
    helper.ok({ "run", "resume", "r1" }, { db = db, cwd = dir })
    all_ended(fleets.finish(fleets.start(2, "r1", { db = db, cwd = dir })), 0)
    assert.are.equal(1, db:value "select n from public.one")
    assert.are.equal("", fleets.problem(db, 10, 2))
  end))

  it("a tenant whose table is locked is tried again, by whoever is free", async(function()
    local db = helper.database()
    local dir = fleets.project { jobs = 2, more = ", lock_timeout = \"100ms\", attempts = 20" }
    fleets.tenants(db, 30)
    local locker = db:connect()
    assert(locker:query "begin")
    assert(locker:query "lock table tenant_001.users")
    local children = fleets.start(2, "r1", { db = db, cwd = dir })
    helper.eventually("the others are done", function()
      return db:value "select to_regclass('moonbird.run_item') is not null"
        and db:value "select count(*) from moonbird.run_item where state = 'done'" == 29
    end)
    helper.eventually("it was tried", function()
      return db:value "select attempts from moonbird.run_item where tenant = 'tenant_001'" >= 2
    end)
    assert(locker:query "rollback")
    all_ended(fleets.finish(children), 0)
    assert.are.equal("", fleets.problem(db, 30, 2))
  end))
end)
