--- kill -9 at every failpoint of every scenario, then the same command again: the catalog, the rows and the
-- journal must be those of a run that nobody interrupted. The points are listed by a traced run, so a new
-- failpoint is covered without a change here. With MOONBIRD_TEST_FULL=1 the rerun is killed too, at every
-- point it passes; otherwise at a few.
-- The same on every server.
local helper = require "tests.helper"
local pictures = require "tests.crash.pictures"
local rehearsal = require "tests.crash.rehearsal"
local scenarios = require "tests.crash.scenarios"

local function kill_at(scenario, ready, db, point)
  local result, passed = rehearsal.traced(scenario.command, db, ready.dir, point)
  assert.are.equal("SIGKILL", result.signal, ("not killed at %s\nstdout: %s\nstderr: %s"):format(point,
    result.stdout, result.stderr))
  assert.are.equal("", pictures.broken_chains(db))
  return passed
end

local function finish(scenario, ready, db)
  rehearsal.expect_ok(helper.moonbird(scenario.command, { db = db, cwd = ready.dir }), "the rerun")
  rehearsal.compare(ready, db)
  -- and there is nothing left to do
  rehearsal.expect_ok(helper.moonbird(scenario.command, { db = db, cwd = ready.dir }), "a run after the rerun")
  rehearsal.compare(ready, db)
end

for number, scenario in ipairs(scenarios.list) do
  describe("killed in " .. scenario.name .. ":", function()
    local ready = rehearsal.prepare(scenario, it)

    it("a run passes failpoints", function()
      assert.is_true(#ready.points > 0, "the binary has no failpoints (build it with -DMB_FAILPOINTS=ON)")
    end)

    for _, point in ipairs(ready.points) do
      it("at " .. point, helper.async(function()
        local db = helper.database { template = ready.ground }
        kill_at(scenario, ready, db, point)
        finish(scenario, ready, db)
      end))
    end

    -- The rerun passes points of its own (what it takes up, cleans, finds done); it may die as well.
    for i, point in ipairs(ready.points) do
      if helper.full or (i + number) % 8 == 0 then
        it("at " .. point .. " and again in the rerun", helper.async(function()
          local first = helper.database { template = ready.ground }
          kill_at(scenario, ready, first, point)
          local result, again = rehearsal.traced(scenario.command, first, ready.dir)
          rehearsal.expect_ok(result, "the rerun")
          rehearsal.compare(ready, first)
          local step = helper.full and 1 or math.max(1, #again // 2)
          for k = 1, #again, step do
            local db = helper.database { template = ready.ground }
            kill_at(scenario, ready, db, point)
            kill_at(scenario, ready, db, again[k])
            finish(scenario, ready, db)
            db:drop()
          end
        end))
      end
    end
  end)
end
