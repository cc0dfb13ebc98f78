--- Two runners, one of which stands still at a failpoint while the other one goes as far as it can: every order in
-- which their statements can reach the server is met on purpose here, and not once in a hundred runs. Both succeed,
-- and what they leave is what one of them alone would have. With MOONBIRD_TEST_FULL=1 at every point, else at a few
-- of each scenario.
-- The same on every server.
local helper = require "tests.helper"
local rehearsal = require "tests.crash.rehearsal"
local scenarios = require "tests.crash.scenarios"

-- How long the second runner has to come as far as it can (ms). It ends, or waits for what the first one holds.
local MEANWHILE = helper.full and 1500 or 700

for number, scenario in ipairs(scenarios.all) do
  describe("two runners, one stopped in " .. scenario.name .. ":", function()
    local ready = rehearsal.prepare(scenario, it)

    for i, point in ipairs(ready.points) do
      if helper.full or (i + number) % 8 == 0 then
        it("at " .. point, helper.async(function()
          local db = helper.database { template = ready.ground }
          local first = rehearsal.stopped(point, scenario, ready, db)
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
