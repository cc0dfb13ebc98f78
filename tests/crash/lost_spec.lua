--- All connections of a run end while it stands still at a failpoint: it goes on, or it ends with an error and the
-- same command goes on. What there is then is what a run that nobody disturbed leaves. With MOONBIRD_TEST_FULL=1 at
-- every point, else at a few of each scenario.
-- The same on every server.
local helper = require "tests.helper"
local rehearsal = require "tests.crash.rehearsal"
local scenarios = require "tests.crash.scenarios"

--- Ends every backend of runs on a database, and waits until they are gone.
local function cut(db)
  helper.eventually("its backends are gone", function()
    return db:value [[select count(pg_terminate_backend(pid)) from pg_stat_activity
      where datname = current_database() and application_name like 'moonbird/%']] == 0
  end)
end

for number, scenario in ipairs(scenarios.all) do
  describe("every connection lost in " .. scenario.name .. ":", function()
    local ready = rehearsal.prepare(scenario, it)

    for i, point in ipairs(ready.points) do
      if helper.full or (i + number) % 10 == 0 then
        it("at " .. point, helper.async(function()
          local db = helper.database { template = ready.ground }
          local child = rehearsal.stopped(point, scenario, ready, db)
          cut(db)
          child:kill("CONT")
          local result = assert(child:wait(60000), "it hangs")
          assert.is_nil(result.signal, result.stderr)
          local said = result.stdout .. result.stderr
          assert.is_truthy(result.status == 0 or said:find("run the command again", 1, true)
            or said:find("to go on: moonbird", 1, true), said)
          rehearsal.expect_ok(helper.moonbird(scenario.command, { db = db, cwd = ready.dir }), "the rerun")
          rehearsal.compare(ready, db, true)
        end))
      end
    end
  end)
end
