--- Two runners, one of which stands still at a failpoint while the other one goes as far as it can: every order in
-- which their statements can reach the server is met on purpose here, and not once in a hundred runs. Both succeed,
-- and what they leave is what one of them alone would have. With MOONBIRD_TEST_FULL=1 at every point, else at a few
-- of each scenario.
local helper = require "tests.helper"
local processes = require "tests.processes"
local rehearsal = require "tests.crash.rehearsal"
local scenarios = require "tests.crash.scenarios"
local tenants = require "tests.tenants"

-- How long the second runner has to come as far as it can (ms). It ends, or waits for what the first one holds.
local MEANWHILE = helper.full and 1500 or 700

local backfill = {
  ["migrations/001_rows.sql"] = "-- migrate:up\ncreate table rows (id bigint primary key, n int not null default 0);\n"
    .. "insert into rows select i from generate_series(1, 900) i;\nanalyze rows;\n-- migrate:down\ndrop table rows;\n",
  ["migrations/002_count.lua"] = [[return { description = "a test", irreversible = "a test",
    up = "alter table rows add column u int",
    backfill = { table = "rows", set = "n = n + 1", options = { min = 300, max = 300 } } }]],
  ["migrations/003_next.sql"] = "-- migrate:up\ncreate table next (n int);\n-- migrate:down\ndrop table next;\n",
}

-- The tenants are schemas that the first migration makes.
local sql, lua = tenants.sql, tenants.lua
local of_tenants = {
  ["moonbird.lua"] = tenants.config(),
  ["migrations/001_tenants.sql"] = sql("global", "create schema t_001;\ncreate schema t_002;\ncreate schema t_003;"),
  ["migrations/002_items.sql"] = sql("tenant", "create table items (id int primary key, n int not null default 0);"
    .. " insert into items select i from generate_series(1, 60) i;", { down = "drop table items;" }),
  ["migrations/003_lua.lua"] = lua("tenant", [[
    for _, name in ipairs { "a", "b" } do
      db:exec("alter table items add column " .. name .. " text")
    end]]),
  ["migrations/004_index.sql"] = sql("tenant", "create index concurrently items_n on items (n);",
    { alone = true, down = "drop index concurrently items_n;" }),
  ["migrations/005_last.sql"] = sql("global", "create table public.last (id int);", { down = "drop table public.last;" }),
  ["migrations/006_count.lua"] = [[return { description = "a test", phase = "expand", scope = "tenant",
    compatibility = "backward_compatible", irreversible = "a test", up = "alter table items add column u int",
    backfill = { table = "items", set = "n = n + 1", options = { min = 20, max = 20 } } }]],
}

local list = {
  { name = "a backfill", files = backfill, before = { { "up", "--to", "1" } }, command = { "up" } },
  { name = "a job that does a backfill", files = backfill, before = { { "up", "--backfills", "skip" } },
    command = { "backfill", "run" } },
  { name = "a deploy", files = backfill, before = { { "up", "--to", "1" } }, command = { "deploy" } },
  { name = "a run over tenants", files = of_tenants, before = { { "up", "--to", "1" } },
    command = { "up", "--jobs", "1" } },
  { name = "a job that does tenants' backfills", files = of_tenants,
    before = { { "up", "--to", "1" }, { "up", "--backfills", "skip" } }, command = { "backfill", "run", "--jobs", "1" } },
  { name = "a deploy over tenants", files = of_tenants, before = { { "up", "--to", "1" } },
    command = { "deploy", "--jobs", "1" } },
  { name = "a process of a fleet", files = of_tenants, before = { { "up", "--to", "1" } },
    command = { "up", "--jobs", "1", "--fleet", "r" } },
}
table.move(scenarios.list, 1, #scenarios.list, #list + 1, list)

local function stop_at(point, scenario, ready, db)
  local first = helper.spawn(scenario.command, { db = db, cwd = ready.dir,
    env = { MOONBIRD_FAILPOINT = point .. ":stop" } })
  helper.eventually("it stands still at " .. point, function()
    return processes.stopped(first:pid())
  end)
  return first
end

for number, scenario in ipairs(list) do
  describe("two runners, one stopped in " .. scenario.name .. ":", function()
    local ok, ready = pcall(helper.run, rehearsal.run, scenario)
    if not ok then
      it("an uninterrupted run", function()
        error(ready, 0)
      end)
      return
    end

    for i, point in ipairs(ready.points) do
      if helper.full or (i + number) % 8 == 0 then
        it("at " .. point, helper.async(function()
          local db = helper.database { template = ready.ground }
          local first = stop_at(point, scenario, ready, db)
          local second = helper.spawn(scenario.command, { db = db, cwd = ready.dir })
          local result = second:wait(MEANWHILE)
          first:kill("CONT")
          rehearsal.expect_ok(first:wait(60000), "the one that stood still")
          rehearsal.expect_ok(result or second:wait(60000), "the one that did not")
          rehearsal.compare(ready, db)
        end))
      end
    end
  end)
end
