--- Locks in the way: of a reader, of autovacuum, of another runner. Waits are short and repeated, whoever
--- blocks is named, and a longer wait makes autovacuum give way.
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local processes = require "tests.processes"
local retry = require "moonbird.exec.retry"
local sys = require "moonbird.core.sys"
local task = require "moonbird.core.task"

local base = {
  ["migrations/001_items.sql"] = [[
-- migrate:up
create table items (id int primary key, note text);
insert into items select i, 'note ' || i from generate_series(1, 100) i;
-- migrate:down
drop table items;
]],
}

--- The base and a second migration, with what moonbird.lua says.
local function project(name, text, config, options)
  local files = { ["migrations/002_" .. name] = text, ["moonbird.lua"] = config }
  for path, content in pairs(base) do
    files[path] = content
  end
  return helper.project(files, options)
end

local ADD = "-- migrate:up\nalter table items add column extra int;\n"
  .. "-- migrate:down\nalter table items drop column extra;\n"

--- A session of a reader whose transaction stays open.
---@return moonbird.session reader
---@return integer pid
local function open_reader(db)
  local reader = db:connect { application_name = "quarterly-report" }
  assert(reader:simple("begin; select count(*) from items"))
  return reader, reader:pid()
end

local function column_there(db)
  return db:value([[select count(*) from pg_attribute
    where attrelid = 'items'::regclass and attname = 'extra' and not attisdropped]]) == 1
end

local function applied(db)
  return db:value("select string_agg(version::text, ' ' order by version) from moonbird.state "
    .. "where target = 'global' and applies")
end

--- Waits until a backend of moonbird waits for a lock.
local function blocked(db)
  helper.eventually("moonbird waits for a lock", function()
    return db:value([[select count(*) from pg_stat_activity where wait_event_type = 'Lock'
      and application_name like 'moonbird/up/%' and datname = current_database()]]) > 0
  end)
end

describe("a reader's open transaction", function()
  local plain, short, loose

  setup(helper.async(function()
    plain = project("add.sql", ADD, nil, { scope = "file" })
    short = project("add.sql", ADD, 'return { timeouts = { lock = "200ms", lock_total = "500ms" } }\n',
      { scope = "file" })
    loose = project("add.sql", (ADD:gsub("migrate:up", "migrate:up transaction:false")), nil, { scope = "file" })
  end))

  for _, case in ipairs { "a transaction", "transaction:false" } do
    it(("makes `up` try again and say for whom (%s), and it succeeds when the reader leaves"):format(case),
      helper.async(function()
        local dir = case == "a transaction" and plain or loose
        local db = helper.database()
        helper.ok({ "up", "--to", "1" }, { db = db, cwd = dir })
        local reader, pid = open_reader(db)
        local child = helper.spawn({ "up" }, { db = db, cwd = dir })
        blocked(db)
        -- Until the second try has been watched for a while; the third waits for seconds.
        assert.is_false(child:wait(2500), "it did not wait for the reader")
        assert.is_false(column_there(db))
        assert(reader:simple("commit"))
        local result = child:wait(20000)
        assert.is_truthy(result, "it hangs although the reader left")
        assert.are.equal(0, result.status, result.stderr)
        assert.is_true(column_there(db))
        assert.are.equal("1 2", applied(db))
        assert.is_truthy(result.stderr:find("attempt 1: ", 1, true), result.stderr)
        assert.is_truthy(result.stderr:find(("blocked by quarterly-report (pid %d"):format(pid), 1, true),
          result.stderr)
        assert.are.equal(0, db:value("select count(*) from moonbird.journal where outcome = 'failed'"))
      end))
  end

  it("that outlasts timeouts.lock_total: exit 5, and it is named", helper.async(function()
    local db = helper.database()
    helper.ok({ "up", "--to", "1" }, { db = db, cwd = short })
    local reader, pid = open_reader(db)
    local result = helper.ok({ "up" }, { db = db, cwd = short, status = 5 })
    assert.is_truthy(result.stderr:find(("quarterly-report (pid %d"):format(pid), 1, true), result.stderr)
    assert.is_truthy(result.stderr:find("55P03", 1, true), result.stderr)
    assert.is_truthy(result.stderr:find("gave up after %d+ attempts"), result.stderr)
    assert.is_false(column_there(db))
    -- The same as data.
    local data = assert(json.decode(helper.ok({ "--json", "up" }, { db = db, cwd = short, status = 5 }).stdout))
    assert.are.equal("lock_timeout", data.error.code)
    assert.are.equal("quarterly-report", data.error.blockers[1].application)
    assert.are.equal(pid, data.error.blockers[1].pid)
    assert(reader:simple("commit"))
    helper.ok({ "up" }, { db = db, cwd = short })
    assert.are.equal("1 2", applied(db))
  end))

  it("does not keep other readers waiting for longer than one rung", helper.async(function()
    local db = helper.database()
    helper.ok({ "up", "--to", "1" }, { db = db, cwd = plain })
    local reader = open_reader(db)
    local child = helper.spawn({ "up", "--lock-timeout", "300ms" }, { db = db, cwd = plain })
    blocked(db)
    local other = db:connect()
    local longest = 0
    for _ = 1, 20 do
      local began = sys.monotonic()
      other:query("select count(*) from items"):close()
      longest = math.max(longest, sys.monotonic() - began)
      task.sleep(50)
    end
    -- The longest rung is deadlock_timeout + 300 ms; with room for a busy machine.
    assert.is_true(longest < 2.5, ("a reader waited for %.1f s"):format(longest))
    assert(reader:simple("commit"))
    assert.are.equal(0, child:wait(20000).status)
  end))
end)

describe("autovacuum", function()
  it("gives way to the longer rung, and the migration succeeds", helper.async(function()
    local db = helper.database()
    local dir = helper.project {
      ["migrations/001_big.sql"] = "-- migrate:up\n"
        .. "create table big (id int, filler text) with (autovacuum_enabled = off);\n"
        .. "insert into big select i, repeat('x', 400) from generate_series(1, 20000) i;\n-- migrate:down\n",
      ["migrations/002_add.sql"] = "-- migrate:up\nalter table big add column extra int;\n-- migrate:down\n",
    }
    helper.ok({ "up", "--to", "1" }, { db = db, cwd = dir })
    db:exec("alter system set autovacuum_naptime = '1s'")
    helper.defer(function()
      db:exec("alter system reset autovacuum_naptime")
      db:exec("select pg_reload_conf()")
    end)
    db:exec("select pg_reload_conf()")
    -- A page costs at least 1, so the thousand pages take more than a minute.
    db:exec([[alter table big set (autovacuum_enabled = on, autovacuum_vacuum_cost_delay = 100,
      autovacuum_vacuum_cost_limit = 1, autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0)]])
    db:exec("delete from big where id % 2 = 0")
    db:disconnect() -- a session's statistics are sent by its end at the latest
    local pid = helper.eventually("autovacuum works on the table", function()
      return db:value([[select pid from pg_stat_progress_vacuum
        where datname = current_database() and relid = 'big'::regclass]])
    end, 40)
    assert.are.equal("autovacuum worker", db:value("select backend_type from pg_stat_activity where pid = $1", pid))
    -- Ordinary rungs of this length never evict it; the server looks only after deadlock_timeout (1 s).
    local result = helper.ok({ "up", "--lock-timeout", "300ms" }, { db = db, cwd = dir })
    assert.are.equal("1 2", applied(db))
    assert.is_truthy(result.stderr:find("attempt 1: ", 1, true), result.stderr)
    assert.is_truthy(result.stderr:find(("blocked by autovacuum worker (pid %d"):format(pid), 1, true),
      result.stderr)
  end))

  it("is why each third attempt waits for longer than deadlock_timeout", helper.async(function()
    for _, deadlock_timeout in ipairs { 1000, 3000 } do
      local waits = {}
      local ok, err = retry.run({
        lock = 500, total = 1 << 30, deadlock_timeout = deadlock_timeout,
        blocked = function() end,
        random = function() return 0 end,
      }, function(lock)
        waits[#waits + 1] = lock
        if #waits < 7 then
          return nil, { sqlstate = "55P03" }
        end
        return true
      end)
      assert.is_true(ok, tostring(err))
      assert.are.same({ 200, 400, deadlock_timeout + 300, 500, 500, deadlock_timeout + 300, 500 }, waits)
    end
  end))
end)

describe("another runner", function()
  --- Takes the target's lock as a runner does.
  local function hold(db)
    local other = db:connect { application_name = "moonbird/up/elsewhere" }
    local head = db:value("select max(ordinal) from moonbird.journal where target = 'global'")
    assert(other:simple(("begin; select moonbird.enter('global', %d)"):format(head)))
    return other, other:pid()
  end

  local dir

  setup(helper.async(function()
    dir = project("add.sql", ADD, nil, { scope = "file" })
  end))

  it("that holds the lock for longer than --lock-wait: exit 5, and it is named", helper.async(function()
    local db = helper.database()
    helper.ok({ "up", "--to", "1" }, { db = db, cwd = dir })
    local other, pid = hold(db)
    local began = sys.monotonic()
    local result = helper.ok({ "up", "--lock-wait", "1s" }, { db = db, cwd = dir, status = 5 })
    local took = sys.monotonic() - began
    assert.is_true(took >= 1 and took < 10, ("it took %.1f s"):format(took))
    assert.is_truthy(result.stderr:find("locked by another runner", 1, true), result.stderr)
    assert.is_truthy(result.stderr:find(("held by moonbird/up/elsewhere (pid %d"):format(pid), 1, true),
      result.stderr)
    assert.is_truthy(result.stderr:find("--lock-wait", 1, true), result.stderr)
    local data = assert(json.decode(
      helper.ok({ "--json", "up", "--lock-wait", "100ms" }, { db = db, cwd = dir, status = 5 }).stdout))
    assert.are.equal("locked", data.error.code)
    local dry = helper.ok({ "up", "--dry-run", "--lock-wait", "100ms" }, { db = db, cwd = dir, status = 5 })
    assert.is_truthy(dry.stderr:find(("held by moonbird/up/elsewhere (pid %d"):format(pid), 1, true), dry.stderr)
    assert.is_false(column_there(db))
    assert.are.equal(0, db:value("select count(*) from moonbird.journal where outcome = 'failed'"))
    assert(other:simple("rollback"))
    helper.ok({ "up" }, { db = db, cwd = dir })
    assert.are.equal("1 2", applied(db))
  end))

  it("that leaves in time is waited for, and shown", helper.async(function()
    local db = helper.database()
    helper.ok({ "up", "--to", "1" }, { db = db, cwd = dir })
    local other, pid = hold(db)
    local child = helper.spawn({ "up" }, { db = db, cwd = dir })
    assert.is_false(child:wait(2000), "it did not wait for the other runner")
    assert(other:simple("rollback"))
    local result = child:wait(20000)
    assert.is_truthy(result, "it hangs although the other runner left")
    assert.are.equal(0, result.status, result.stderr)
    assert.are.equal("1 2", applied(db))
    assert.is_truthy(result.stderr:find(("pid %d"):format(pid), 1, true), result.stderr)
  end))

  --- A project whose second migration has no transaction: a run holds its lock while it works on that.
  local function indexed()
    return helper.project { ["migrations/001_items.sql"] =
        "-- migrate:up\ncreate table items (id int);\n-- migrate:down\ndrop table items;\n",
      ["migrations/002_index.sql"] = "-- migrate:up transaction:false\ncreate index concurrently items_id on items (id);\n"
        .. "-- migrate:down transaction:false\ndrop index concurrently items_id;\n" }
  end

  it("is waited for without an end with 0, by a dry run too, which plans anew then", helper.async(function()
    local db = helper.database()
    local place = indexed()
    helper.ok({ "up", "--to", "1" }, { db = db, cwd = place })
    local first = helper.spawn({ "up" }, { db = db, cwd = place, env = { MOONBIRD_FAILPOINT = "nontx.started:1:stop" } })
    helper.eventually("the first stands still", function()
      return processes.stopped(first:pid())
    end)
    local others = {}
    for i, args in ipairs { { "up" }, { "up", "--dry-run" } } do
      others[i] = helper.spawn({ args[1], "--lock-wait", "0", table.unpack(args, 2) }, { db = db, cwd = place })
      assert.is_false(others[i]:wait(700), "it did not wait")
    end
    first:kill("CONT")
    assert.are.equal(0, assert(first:wait(20000)).status)
    for _, other in ipairs(others) do
      local result = assert(other:wait(20000))
      assert.are.equal(0, result.status, result.stderr)
      assert.is_truthy(result.stdout:find("nothing to do", 1, true), result.stdout)
    end
  end))

  it("that takes something back is waited for: it is applied again then", helper.async(function()
    local db = helper.database()
    local place = indexed()
    helper.ok({ "up" }, { db = db, cwd = place })
    local down = helper.spawn({ "down" }, { db = db, cwd = place,
      env = { MOONBIRD_FAILPOINT = "nontx.started:1:stop" } })
    helper.eventually("the down stands still", function()
      return processes.stopped(down:pid())
    end)
    local up = helper.spawn({ "up" }, { db = db, cwd = place })
    assert.is_false(up:wait(1000), "it did not wait for the other runner")
    local said = helper.ok({ "status" }, { db = db, cwd = place }).stdout
    assert.is_truthy(said:find("running +002_index .* moonbird/down/%S+ is at it %(pid %d+, on local%)"), said)
    down:kill("CONT")
    assert.are.equal(0, assert(down:wait(20000)).status)
    local result = assert(up:wait(20000))
    assert.are.equal(0, result.status, result.stderr)
    assert.are.equal("1 2", applied(db))
  end))
end)
