--- A scenario as it runs when nobody disturbs it, to hold against it what came of one that was: killed, stopped.
local assert = require "luassert"
local fs = require "moonbird.core.fs"
local helper = require "tests.helper"
local pictures = require "tests.crash.pictures"
local processes = require "tests.processes"

local M = {}

--- The points a run passed, in order: "name:n" where n counts the name's hits.
local function read_trace(path)
  local points, hits = {}, {}
  for name in (fs.read(path) or ""):gmatch("[^\n]+") do
    hits[name] = (hits[name] or 0) + 1
    points[#points + 1] = name .. ":" .. hits[name]
  end
  return points
end

--- Runs a command and lists the failpoints it passes.
---@param args string[]
---@param db tests.database
---@param dir string the project
---@param point? string where it is killed
---@return table result of helper.moonbird
---@return string[] points
function M.traced(args, db, dir, point)
  local trace = dir .. "/trace"
  if fs.stat(trace) then
    assert(fs.remove(trace))
  end
  local result = helper.moonbird(args, { db = db, cwd = dir,
    env = { MOONBIRD_FAILPOINT_TRACE = trace, MOONBIRD_FAILPOINT = point or false } })
  return result, read_trace(trace)
end

--- Fails with all that a command printed unless it exited with 0.
---@param result table
---@param what string
function M.expect_ok(result, what)
  if result.status ~= 0 then
    error(("%s: exit %s\nstdout: %s\nstderr: %s"):format(what, result.status or result.signal, result.stdout,
      result.stderr), 2)
  end
end

--- The uninterrupted run: the database before it (a template for the others), what it must come to, and
--- the points it passes.
---@param scenario moonbird.scenario
---@return { dir: string, ground: tests.database, points: string[], catalog: string, journal: string,
---         done: string }
function M.run(scenario)
  local dir = helper.project(scenario.files, { scope = "file" })
  local ground = helper.database { scope = "file" }
  for _, args in ipairs(scenario.before) do
    M.expect_ok(helper.moonbird(args, { db = ground, cwd = dir }), table.concat(args, " "))
  end
  local db = helper.database { scope = "file", template = ground }
  local result, points = M.traced(scenario.command, db, dir)
  M.expect_ok(result, "the uninterrupted run")
  local ready = { dir = dir, ground = ground, points = points, catalog = pictures.catalog(db),
    journal = pictures.journal(db), done = pictures.done(db) }
  db:drop()
  return ready
end

--- What run() gives, for the body of a describe; where that fails a test says why, and there are no points.
---@param scenario moonbird.scenario
---@param it fun(name: string, body: fun()) busted's
---@return table ready
function M.prepare(scenario, it)
  local ok, ready = pcall(helper.run, M.run, scenario)
  if ok then
    return ready
  end
  it("an uninterrupted run", function()
    error(ready, 0)
  end)
  return { points = {} }
end

--- Starts a scenario's command and lets it stand still at a point. It is the caller's to send it CONT.
---@param point string
---@param scenario moonbird.scenario
---@param ready table of run()
---@param db tests.database
---@return userdata child of helper.spawn
function M.stopped(point, scenario, ready, db)
  local child = helper.spawn(scenario.command, { db = db, cwd = ready.dir,
    env = { MOONBIRD_FAILPOINT = point .. ":stop" } })
  helper.eventually("it stands still at " .. point, function()
    return processes.stopped(child:pid())
  end)
  return child
end

--- Fails unless a database is what the uninterrupted run made of it.
---@param ready table of run()
---@param db tests.database
---@param failed? boolean failures may be noted in the journal
function M.compare(ready, db, failed)
  local which = failed and "done" or "journal"
  assert.are.equal("", pictures.difference(ready.catalog, pictures.catalog(db)))
  assert.are.equal("", pictures.difference(ready[which], pictures[which](db)))
  assert.are.equal("", pictures.broken_chains(db))
  assert.are.equal("", pictures.invalid_indexes(db))
end

return M
