--- SIGKILL of one of four processes of a fleet at a moment nobody chose: the others finish its tenants, each is
-- migrated exactly once, and the run ends "done". Moments are spread over the whole run and differ each time; a
-- failure names them.
-- The same on every server.
local fleets = require "tests.crash.fleets"
local helper = require "tests.helper"
local sys = require "moonbird.core.sys"
local task = require "moonbird.core.task"

local ROUNDS = helper.full and 25 or 5
local TENANTS = helper.full and 400 or 200
local WORKERS = 4

describe("SIGKILL of a process of a fleet", function()
  local dir, ground, took

  setup(helper.async(function()
    dir = helper.project({
      ["moonbird.lua"] = fleets.CONFIG:format(2, "1s", ", canary = { 3, \"10%\" }"),
      ["migrations/001_first.sql"] = "-- migrate:up\ncreate table first (n int);\n-- migrate:down\ndrop table first;\n",
      ["migrations/002_mail.sql"] = fleets.MAIL:format(2, "0.01"),
      ["migrations/003_seen.sql"] = "-- migrate:up\ncreate table seen as select count(*) as n from ran;\n"
        .. "-- migrate:down\ndrop table seen;\n",
      ["migrations/004_more.sql"] = [[
-- scope: tenant
-- migrate:up
alter table users add column if not exists phone text;
insert into ran values (current_schema(), 4);
-- migrate:down
alter table users drop column phone;
]] }, { scope = "file" })
    ground = helper.database { scope = "file" }
    fleets.tenants(ground, TENANTS)
    local whole = helper.database { scope = "file", template = ground }
    local started = sys.monotonic()
    fleets.finish(fleets.start(WORKERS, "r", { db = whole, cwd = dir }))
    took = sys.monotonic() - started
    assert.are.equal("", fleets.problem(whole, TENANTS, 2))
    whole:drop()
  end))

  local function round(after, victims)
    local db = helper.database { template = ground }
    local children = fleets.start(WORKERS, "r", { db = db, cwd = dir })
    task.sleep(math.floor(after * 1000))
    for _ = 1, victims do
      local victim = table.remove(children, math.random(#children))
      victim:kill("KILL")
      victim:wait()
    end
    local results = fleets.finish(children)
    if victims == WORKERS then
      results = fleets.finish(fleets.start(WORKERS, "r", { db = db, cwd = dir }))
    end
    local problems = {}
    for _, result in ipairs(results) do
      if result.status ~= 0 then
        problems[1] = fleets.said(results)
      end
    end
    problems[#problems + 1] = fleets.problem(db, TENANTS, 2)
    problems[#problems + 1] = fleets.problem(db, TENANTS, 4)
    if db:value "select status from moonbird.run" ~= "done" then
      problems[#problems + 1] = "the run is " .. tostring(db:value "select status from moonbird.run")
    end
    if db:value "select n from public.seen" ~= TENANTS then
      problems[#problems + 1] = "the global migration did not wait for the tenants"
    end
    db:drop()
    return table.concat(problems, "\n")
  end

  for n = 1, ROUNDS do
    it(("one, round %d of %d"):format(n, ROUNDS), helper.async(function()
      local after = (n - math.random()) / ROUNDS * took
      local problem = round(after, 1)
      assert(not problem:find("%S"), ("killed after %.3f s: %s"):format(after, problem))
    end))
  end

  it("none, but one stands still until its lease is over", helper.async(function()
    local db = helper.database { template = ground }
    local children = fleets.start(WORKERS, "r", { db = db, cwd = dir })
    task.sleep(math.floor(took * 500))
    children[1]:kill("STOP")
    helper.eventually("the others end it, or wait for the lock that it holds", function()
      return db:value "select status from moonbird.run" == "done" or db:value [[select count(*) > 0
        from moonbird.run_item where state = 'waiting' and attempts > 0]]
    end, 30)
    children[1]:kill("CONT")
    local results = fleets.finish(children)
    for _, result in ipairs(results) do
      assert(result.status == 0, fleets.said(results))
    end
    assert.are.equal("", fleets.problem(db, TENANTS, 2))
    assert.are.equal("", fleets.problem(db, TENANTS, 4))
    assert.are.equal("done", db:value "select status from moonbird.run")
  end))

  it("all, and the command again", helper.async(function()
    local after = math.random() * took
    local problem = round(after, WORKERS)
    assert(not problem:find("%S"), ("killed after %.3f s: %s"):format(after, problem))
  end))
end)
