-- A backfill beside clients that need the same processor: it takes no more of the time than they can bear, and all
-- of it as soon as they are gone.
local cluster = require "moonbird.core.cluster"
local helper = require "tests.helper"
local process = require "moonbird.core.process"
local session = require "moonbird.core.session"
local async = helper.async

local ROWS = 400000

local USERS = ([[
-- migrate:up
create table users (id bigint primary key, hits int not null default 0, seen int not null default 0);
insert into users select i from generate_series(1, %d) i;
analyze users;
-- migrate:down
drop table users;
]]):format(ROWS)

local BACKFILL = [[
return { description = "a test", irreversible = "a test", backfill = { table = "users", set = "hits = hits + 1" } }
]]

local CLIENT = ([[
\set id random(1, %d)
update users set seen = seen + 1 where id = :id;
]]):format(ROWS)

describe("a backfill on a server with one processor", function()
  local server, db, dir, url

  local function value(text)
    return assert(db:query(text)):value(1, 1)
  end

  before_each(async(function()
    server = assert(cluster.open { temp = true })
    helper.defer(function()
      server:release()
    end)
    db = assert(session.open(server.params, { application_name = "moonbird-tests" }))
    helper.defer(function()
      db:close()
    end)
    -- Backends that come later inherit it from the server.
    local master = value "select split_part(pg_read_file('postmaster.pid'), e'\n', 1)"
    local pinned = assert(process.run { file = "taskset", args = { "-pc", "0", master } })
    assert.are.equal(0, pinned.status, pinned.stderr)
    url = server.url
    dir = helper.project { ["migrations/001_users.sql"] = USERS, ["migrations/002_count.lua"] = BACKFILL,
      ["client.sql"] = CLIENT }
    helper.ok({ "-u", url, "up", "--backfills", "skip" }, { cwd = dir })
  end))

  it("leaves it to clients, and takes it back when they are gone", async(function()
    -- As fast as they can, so that every sample meets them, however busy the machine is. Debian's pgbench, whatever the
    -- server is: not every one brings it along.
    local clients <close> = assert(process.spawn { file = "pgbench", args = { "-n", "-c", "8", "-T", "600",
      "-f", dir .. "/client.sql", url } })
    helper.eventually("clients are at work", function()
      return value "select count(*) from users where seen > 0" > 100
    end)
    local child = helper.spawn({ "-u", url, "backfill", "run" }, { cwd = dir })
    helper.eventually("it gives way", function()
      return value("select coalesce(max(throttle->>'level' || ' ' || (throttle->>'reason')), '') from moonbird.backfill")
        :find("^slow .*: batches take %d+%% of the time %(option max_delay%)$")
    end)
    local before = value "select coalesce(sum(rows_seen), 0)::bigint from moonbird.backfill_chunk"
    helper.eventually("it goes on", function()
      return value "select coalesce(sum(rows_seen), 0)::bigint from moonbird.backfill_chunk" > before
    end)
    clients:kill("TERM")
    clients:wait()
    local result = assert(child:wait(60000), "the backfill did not end")
    assert.are.equal(0, result.status, result.stderr)
    assert.are.equal(ROWS, value "select count(*) from users where hits = 1")
  end))
end)
