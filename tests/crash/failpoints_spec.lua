--- kill -9 at every failpoint of every scenario, then the same command again: the catalog, the rows and the
-- journal must be those of a run that nobody interrupted. The points are listed by a traced run, so a new
-- failpoint is covered without a change here. With MOONBIRD_TEST_FULL=1 the rerun is killed too, at every
-- point it passes; otherwise at a few.
-- The same on every server.
local fs = require "moonbird.core.fs"
local helper = require "tests.helper"
local pictures = require "tests.crash.pictures"
local scenarios = require "tests.crash.scenarios"

--- The points a run passed, in order: "name:n" where n counts the name's hits.
local function read_trace(path)
  local points, hits = {}, {}
  for name in (fs.read(path) or ""):gmatch("[^\n]+") do
    hits[name] = (hits[name] or 0) + 1
    points[#points + 1] = name .. ":" .. hits[name]
  end
  return points
end

local function traced(args, db, dir, point)
  local trace = dir .. "/trace"
  if fs.stat(trace) then
    assert(fs.remove(trace))
  end
  local result = helper.moonbird(args, { db = db, cwd = dir,
    env = { MOONBIRD_FAILPOINT_TRACE = trace, MOONBIRD_FAILPOINT = point or false } })
  return result, read_trace(trace)
end

local function expect_ok(result, what)
  if result.status ~= 0 then
    error(("%s: exit %s\nstdout: %s\nstderr: %s"):format(what, result.status or result.signal, result.stdout,
      result.stderr), 2)
  end
end

--- The uninterrupted run: the database before it (a template for the others), what it must come to, and
-- the points it passes.
local function rehearse(scenario)
  local dir = helper.project(scenario.files, { scope = "file" })
  local ground = helper.database { scope = "file" }
  for _, args in ipairs(scenario.before) do
    expect_ok(helper.moonbird(args, { db = ground, cwd = dir }), table.concat(args, " "))
  end
  local db = helper.database { scope = "file", template = ground }
  local result, points = traced(scenario.command, db, dir)
  expect_ok(result, "the uninterrupted run")
  local ready = { dir = dir, ground = ground, points = points, catalog = pictures.catalog(db),
    journal = pictures.journal(db) }
  db:drop()
  return ready
end

local function kill_at(scenario, ready, db, point)
  local result, passed = traced(scenario.command, db, ready.dir, point)
  assert.are.equal("SIGKILL", result.signal, ("not killed at %s\nstdout: %s\nstderr: %s"):format(point,
    result.stdout, result.stderr))
  assert.are.equal("", pictures.broken_chains(db))
  return passed
end

local function compare(ready, db)
  assert.are.equal("", pictures.difference(ready.catalog, pictures.catalog(db)))
  assert.are.equal("", pictures.difference(ready.journal, pictures.journal(db)))
  assert.are.equal("", pictures.broken_chains(db))
  assert.are.equal("", pictures.invalid_indexes(db))
end

local function finish(scenario, ready, db)
  expect_ok(helper.moonbird(scenario.command, { db = db, cwd = ready.dir }), "the rerun")
  compare(ready, db)
  -- and there is nothing left to do
  expect_ok(helper.moonbird(scenario.command, { db = db, cwd = ready.dir }), "a run after the rerun")
  compare(ready, db)
end

for number, scenario in ipairs(scenarios.list) do
  describe("killed in " .. scenario.name .. ":", function()
    local ok, ready = pcall(helper.run, rehearse, scenario)
    if not ok then
      it("an uninterrupted run", function()
        error(ready, 0)
      end)
      return
    end

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
          local result, again = traced(scenario.command, first, ready.dir)
          expect_ok(result, "the rerun")
          compare(ready, first)
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
