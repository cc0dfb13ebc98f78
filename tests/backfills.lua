--- Projects with a backfill, how far it is, whether it did every row once, and backfills that are killed.
--
-- What is asked of a database needs no more of it than `value(self, sql)`.
local assert = require "luassert"
local helper = require "tests.helper"
local sys = require "moonbird.core.sys"

local M = {}

local USERS = [[
-- migrate:up
create table users (id bigint primary key, login text not null, email text, hits int not null default 0, pad text);
insert into users select i, 'User' || i, null, 0, nullif(repeat('x', %d), '') from generate_series(1, %d) i;
analyze users;
-- migrate:down
drop table users;
]]

--- A migration that makes the table `users`, with ids from 1 on.
---@param rows integer
---@param width? integer bytes that each row has more
---@return string text SQL
function M.users(rows, width)
  return USERS:format(width or 0, rows)
end

--- A migration that counts `hits` of users.
---@param options string what stands in its `options`
---@param set? string another `set`
---@return string text Lua
function M.count(options, set)
  return ([[return { description = "a test", irreversible = "a test", backfill = { table = "users", set = "%s",
    options = { %s } } }]]):format(set or "hits = hits + 1", options)
end

--- A project of both, the table made and the backfill pending.
---@param db tests.database
---@param rows integer
---@param options string as count()
---@param more? { set?: string, width?: integer }
---@return string dir
function M.project(db, rows, options, more)
  more = more or {}
  local dir = helper.project { ["migrations/001_users.sql"] = M.users(rows, more.width),
    ["migrations/002_count.lua"] = M.count(options, more.set) }
  helper.ok({ "up", "--backfills", "skip" }, { cwd = dir, db = db })
  return dir
end

--- A column of the chunks, summed up.
---@param db tests.database
---@param column string rows_seen, rows_changed, rows_skipped, batches
---@return integer
function M.sum(db, column)
  return db:value(("select coalesce(sum(%s), 0)::bigint from moonbird.backfill_chunk"):format(column))
end

--- Rows that committed batches have seen.
---@param db tests.database
---@return integer
function M.seen(db)
  return M.sum(db, "rows_seen")
end

--- Waits until committed batches have seen more than so many rows; the journal need not be there yet.
---@param db tests.database
---@param rows integer
function M.works(db, rows)
  helper.eventually(("batches have seen more than %d rows"):format(rows), function()
    return db:value "select to_regclass('moonbird.backfill_chunk') is not null" and M.seen(db) > rows
  end, 60)
end

--- Fails unless the backfill is done and every row was changed exactly once, which a counter in each row tells, and the
--- totals say so.
---@param db tests.database
---@param rows integer
---@param options? { relation?: string, counter?: string, what?: string } default users, hits; what: for the failure
function M.once(db, rows, options)
  options = options or {}
  local relation, what = options.relation or "users", options.what
  assert.are.equal(rows, db:value(("select count(*) from %s where %s = 1"):format(relation, options.counter or "hits")),
    what)
  assert.are.equal(rows, db:value(("select count(*) from %s"):format(relation)), what)
  assert.are.equal("done", db:value "select status from moonbird.backfill", what)
  assert.are.same({ rows, rows, 0 }, { M.seen(db), M.sum(db, "rows_changed"),
    db:value "select count(*) from moonbird.backfill_chunk where not done" }, what)
end

--- Waits for a child's end, which has to be a good one.
---@param child userdata of helper.spawn
---@return table result
function M.finish(child)
  local result = assert(child:wait(60000), "the backfill did not end")
  assert.are.equal(0, result.status, result.stderr)
  return result
end

-- Waits until more rows were seen than before; false when the process ended without.
local function goes_on(child, db, before)
  local deadline = sys.monotonic() + 60
  while M.seen(db) == before do
    if child:wait(2) then
      return false
    elseif sys.monotonic() > deadline then
      error("the backfill stands still", 3)
    end
  end
  return true
end

--- Runs `up` to its end, whatever it takes: it is killed with SIGKILL each time after it was seen to go on, at a moment
--- nobody chose, until it was killed so often. The last run is left alone.
---@param options { db: tests.database, cwd: string, kills: integer, later: integer } later: milliseconds that a run may
---  have, at most, after it went on
---@return integer kills fewer where it came to its end before
function M.kill(options)
  local kills = 0
  local before = M.seen(options.db)
  while kills < options.kills do
    local child = helper.spawn({ "up" }, { db = options.db, cwd = options.cwd })
    if goes_on(child, options.db, before) then
      child:wait(math.random(0, options.later))
      child:kill("KILL")
    end
    local result = child:wait()
    if result.signal ~= "KILL" and result.signal ~= "SIGKILL" then
      assert(result.status == 0, result.stderr)
      return kills
    end
    kills = kills + 1
    before = M.seen(options.db)
  end
  helper.ok({ "up" }, { db = options.db, cwd = options.cwd, timeout = 120 })
  return kills
end

return M
