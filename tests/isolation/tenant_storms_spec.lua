--- A server that has not enough of something for all tenants at once, or is away: what is put off, what is told, and
-- that all is done in the end.
-- The same on every server.
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local task = require "moonbird.core.task"
local tenants = require "tests.tenants"
local texts = require "tests.texts"
local async, sql, lua = helper.async, tenants.sql, tenants.lua
local has = texts.has

local function rows(session, text)
  return assert(session:query(text)):value(1, 1)
end

local function schemas(session, count)
  for i = 1, count do
    assert(session:query(("create schema t_%03d"):format(i)))
  end
end

--- A project of 24 tenants that take some 75 locks each, and hold them for a while.
local function greedy(session, seconds)
  local many = {}
  for i = 1, 30 do
    many[i] = ("create table many_%d (id int primary key, note text);"):format(i)
  end
  many[31] = ("select pg_sleep(%s);"):format(seconds)
  schemas(session, 24)
  return tenants.project { ["001_many.sql"] = sql("tenant", table.concat(many, "\n")) }
end

--- Each of them is done once.
local function greedy_are_done(session)
  assert.equal(24 * 30, rows(session, "select count(*) from pg_class where relname ~ '^many_\\d+$'"))
  assert.equal(24, rows(session, "select count(*) from moonbird.journal where event = 'apply' and target like 't%'"))
end

describe("a storm:", function()
  it("tenants that together lock more than the server can hold", async(function()
    -- Room for about 290 locks: for three or four of these tenants at a time.
    local server = tenants.server { max_locks_per_transaction = "10", max_connections = "14" }
    local session = server.session()
    local dir = greedy(session, 0.2)
    local result = helper.moonbird({ "-u", server.url, "--json", "up", "--jobs", "8" }, { cwd = dir, timeout = 120 })
    local said = json.decode(result.stdout)
    assert.equal(0, result.status, result.stdout .. result.stderr)
    assert.equal(24, said.tenants.migrated)
    has(result.stderr, '"event":"fewer","jobs":4,"sqlstate":"53200"')
    has(result.stderr, "out of shared memory (53200); 4 tenants at a time for now")
    greedy_are_done(session)
  end))

  for jobs, processes in pairs { [4] = 3, [1] = 8 } do
    it(("%d processes of a fleet, %d at a time each, that together lock more than the server can hold"):format(processes,
      jobs), async(function()
      local server = tenants.server { max_locks_per_transaction = "10", max_connections = "20" }
      local session = server.session()
      local dir = greedy(session, 0.1)
      local children = {}
      for i = 1, processes do
        children[i] = helper.spawn({ "-u", server.url, "--json", "up", "--fleet", "r1", "--jobs", tostring(jobs) },
          { cwd = dir })
      end
      for _, child in ipairs(children) do
        local result = child:wait(120000)
        assert.is_truthy(result, "it hangs")
        assert.equal(0, result.status, result.stdout .. result.stderr)
      end
      greedy_are_done(session)
    end))
  end

  it("others that take every connection for a while", async(function()
    local server = tenants.server { max_connections = "14", superuser_reserved_connections = "2" }
    local session = server.session()
    schemas(session, 40)
    local dir = tenants.project { ["001_slow.lua"] = lua("tenant", [[
      db:exec "create table ran (n int)" db:exec "insert into ran values (1)" db:exec "select pg_sleep(0.05)"]]) }
    local child = helper.spawn({ "-u", server.url, "--json", "up", "--jobs", "6" }, { cwd = dir })
    helper.eventually("some are done", function()
      local result = session:query "select count(*) from moonbird.journal where event = 'apply' and target like 't%'"
      return result and result:value(1, 1) > 5
    end)
    -- They push the slots out, and sit in their places, until there is none left: a backend that is terminated keeps
    -- its place for a while.
    local crowd = {}
    local own = require "moonbird.core.session"
    helper.eventually("they have every connection", function()
      local slots = rows(session, [[select count(pg_terminate_backend(pid)) from pg_stat_activity
        where application_name like 'moonbird/%' and application_name not like '%/global']])
      local made = own.open(server.params, { application_name = "crowd" })
      crowd[#crowd + 1] = made
      return slots == 0 and not made
    end)
    task.sleep(2500)
    for _, one in ipairs(crowd) do
      one:close()
    end
    local result = child:wait(90000)
    assert.is_truthy(result, "it hangs")
    assert.equal(0, result.status, result.stdout .. result.stderr)
    assert.equal(40, json.decode(result.stdout).tenants.migrated)
    has(result.stderr, "too many clients already; trying again for 1m")
    assert.equal(40, rows(session, "select count(*) from moonbird.journal where event = 'apply' and target like 't%'"))
  end))
end)
