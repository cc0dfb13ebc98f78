--- What stops a run from outside: signals, time limits, a server that goes away, a connection that breaks in
--- the middle of a commit. Nothing half-made stays, the outcome told is the true one, a rerun completes.
local cluster = require "moonbird.core.cluster"
local fs = require "moonbird.core.fs"
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local task = require "moonbird.core.task"
local process = require "moonbird.core.process"
local session = require "moonbird.core.session"
local sys = require "moonbird.core.sys"

-- From the signal to the exit, in seconds: 2 are promised, sanitizers are slower.
local PROMISED = 4

-- How long the second migration sleeps is in a table, so that the same file can be run again quickly.
local BASE = [[
-- migrate:up
create table pace (seconds float8 not null);
insert into pace values (30);
create table items (id int primary key, v int);
insert into items select i, i from generate_series(1, 50) i;
-- migrate:down
drop table items;
drop table pace;
]]

local slow = {
  ["a .sql file"] = { "slow.sql", [[
-- migrate:up
create table made (i int);
select pg_sleep(seconds) from pace;
insert into made values (1);
-- migrate:down
drop table made;
]] },
  ["a Lua migration"] = { "slow.lua", [[
return {
  up = function(db)
    db:exec("create table made (i int)")
    db:exec("select pg_sleep(seconds) from pace")
    db:exec("insert into made values (1)")
  end,
}
]] },
  ["a pcall loop that swallows every error"] = { "slow.lua", [[
return {
  up = function(db)
    db:exec("create table made (i int)")
    for _ = 1, 1000 do
      pcall(function()
        db:atomic(function()
          db:exec("select pg_sleep(seconds) from pace")
        end)
      end)
    end
    db:exec("insert into made values (1)")
  end,
}
]] },
  ["a Lua migration without a transaction"] = { "slow.lua", [[
return {
  transaction = false,
  up = function(db)
    db:atomic(function()
      db:exec("create table made (i int)")
      db:exec("select pg_sleep(seconds) from pace")
      db:exec("insert into made values (1)")
    end)
  end,
}
]] },
}

local function project(case, scope)
  return helper.project({
    ["migrations/001_base.sql"] = BASE,
    ["migrations/002_" .. slow[case][1]] = slow[case][2],
  }, { scope = scope })
end

--- Waits until the sleep of the second migration runs, and gives its backend's number.
local function sleeping(db)
  return helper.eventually("the migration sleeps", function()
    return db:value([[select pid from pg_stat_activity where wait_event = 'PgSleep'
      and application_name like 'moonbird/up/%' and datname = current_database()]])
  end)
end

local function applied(db)
  return db:value("select string_agg(version::text, ' ' order by version) from moonbird.state "
    .. "where target = 'global' and applies")
end

--- Nothing of the run that ended is left: no table, no connection, no lock, nothing applied.
local function nothing_left(db)
  helper.eventually("moonbird's connections are gone", function()
    return db:value([[select count(*) from pg_stat_activity
      where application_name like 'moonbird/%' and datname = current_database()]]) == 0
  end, 5)
  assert.is_nil(db:value("select to_regclass('made')"))
  assert.are.equal("1", applied(db))
  assert.are.equal(0, db:value("select count(*) from moonbird.verify()"))
end

--- The same file again, without the long sleep.
local function completes(db, dir)
  db:exec("update pace set seconds = 0")
  helper.ok({ "up" }, { db = db, cwd = dir })
  assert.are.equal("1 2", applied(db))
  assert.are.equal(1, db:value("select count(*) from made"))
  assert.are.equal(0, db:value("select count(*) from moonbird.verify()"))
end

--- Sends a signal, and gives the result with the seconds that the end took.
local function stop(child, signal)
  local began = sys.monotonic()
  assert(child:kill(signal))
  local result = child:wait(20000)
  assert.is_truthy(result, "it does not end at " .. signal)
  local took = sys.monotonic() - began
  assert.are.equal(130, result.status, (result.signal or "") .. result.stdout .. result.stderr)
  assert.is_true(took < PROMISED, ("it ended %.1f s after the signal"):format(took))
  assert.is_nil(result.stderr:find("Sanitizer", 1, true), result.stderr)
  return result
end

describe("a signal", function()
  for _, case in ipairs { "a .sql file", "a Lua migration", "a pcall loop that swallows every error",
    "a Lua migration without a transaction" } do
    for _, signal in ipairs { "INT", "TERM" } do
      it(("SIG%s in a long statement of %s: rolled back at once, exit 130"):format(signal, case),
        helper.async(function()
          local db, dir = helper.database(), project(case)
          helper.ok({ "up", "--to", "1" }, { db = db, cwd = dir })
          local child = helper.spawn({ "up" }, { db = db, cwd = dir })
          sleeping(db)
          stop(child, signal)
          nothing_left(db)
          local status = helper.ok({ "status", "--exit-code" }, { db = db, cwd = dir, status = 4 })
          assert.is_truthy(status.stdout:find("002_slow", 1, true), status.stdout)
          completes(db, dir)
        end))
    end
  end

  for _, signal in ipairs { "INT", "TERM" } do
    it(("SIG%s while CREATE INDEX CONCURRENTLY waits for an old transaction: exit 130, no INVALID index is "
      .. "taken for success"):format(signal), helper.async(function()
      local db = helper.database()
      local dir = helper.project {
        ["migrations/001_base.sql"] = BASE,
        ["migrations/002_index.sql"] = "-- migrate:up transaction:false\n"
          .. "create index concurrently items_v on items (v);\n-- migrate:down transaction:false\n"
          .. "drop index concurrently items_v;\n",
      }
      helper.ok({ "up", "--to", "1" }, { db = db, cwd = dir })
      local old = db:connect()
      assert(old:simple("begin isolation level repeatable read; select count(*) from items"))
      local child = helper.spawn({ "up" }, { db = db, cwd = dir })
      helper.eventually("the build waits for the old snapshot", function()
        return db:value([[select count(*) from pg_stat_activity where wait_event_type = 'Lock'
          and query ilike 'create index concurrently%' and datname = current_database()]]) == 1
      end)
      stop(child, signal)
      nothing_left(db)
      assert.are.equal(0, db:value("select count(*) from pg_stat_activity where query ilike "
        .. "'create index concurrently%' and state = 'active' and datname = current_database()"))
      assert(old:simple("commit"))
      helper.ok({ "up" }, { db = db, cwd = dir })
      assert.are.equal("1 2", applied(db))
      assert.is_true(db:value("select indisvalid from pg_index where indexrelid = 'items_v'::regclass"))
      assert.are.equal(0, db:value("select count(*) from pg_index where not indisvalid"))
      assert.are.equal(1, db:value("select count(*) from pg_index where indrelid = 'items'::regclass "
        .. "and not indisprimary"))
    end))
  end

  it("SIGINT while the run waits for another runner's lock: exit 130", helper.async(function()
    local db, dir = helper.database(), project("a .sql file")
    helper.ok({ "up", "--to", "1" }, { db = db, cwd = dir })
    local other = db:connect { application_name = "moonbird/up/elsewhere" }
    assert(other:simple("begin; select moonbird.enter('global', "
      .. "(select max(ordinal) from moonbird.journal where target = 'global'))"))
    local child = helper.spawn({ "up" }, { db = db, cwd = dir })
    assert.is_false(child:wait(800), "it did not wait")
    stop(child, "INT")
    assert(other:simple("rollback"))
    other:close()
    nothing_left(db)
    completes(db, dir)
  end))
end)

describe("a time limit", function()
  local cases = {
    { args = { "--timeout", "1" }, code = "timeout" },
    { args = { "--statement-timeout", "500ms" }, code = "sql", sqlstate = "57014" },
  }
  for _, limit in ipairs(cases) do
    for _, case in ipairs { "a .sql file", "a Lua migration" } do
      it(("%s ends %s: rolled back, exit 1"):format(limit.args[1], case), helper.async(function()
        local db, dir = helper.database(), project(case)
        helper.ok({ "up", "--to", "1" }, { db = db, cwd = dir })
        local began = sys.monotonic()
        local result = helper.ok({ "--json", "up", limit.args[1], limit.args[2] }, { db = db, cwd = dir, status = 1 })
        assert.is_true(sys.monotonic() - began < 1 + PROMISED)
        local data = assert(json.decode(result.stdout))
        assert.is_false(data.ok)
        assert.are.equal(limit.code, data.error.code, result.stdout)
        if limit.sqlstate then
          assert.are.equal(limit.sqlstate, data.error.sqlstate)
        end
        nothing_left(db)
        completes(db, dir)
      end))
    end
  end

  it("--timeout is not swallowed by a pcall loop", helper.async(function()
    local db, dir = helper.database(), project("a pcall loop that swallows every error")
    helper.ok({ "up", "--to", "1" }, { db = db, cwd = dir })
    local result = helper.ok({ "--json", "up", "--timeout", "1" }, { db = db, cwd = dir, status = 1 })
    assert.are.equal("timeout", assert(json.decode(result.stdout)).error.code)
    nothing_left(db)
  end))
end)

describe("a server that goes away", function()
  --- What the tests here ask of a database, on a server of their own.
  local function connect(params)
    local one = assert(session.open(params, { application_name = "moonbird-tests" }))
    return {
      value = function(_, sql)
        local result = assert(one:query(sql))
        local value = result:value(1, 1)
        result:close()
        return value
      end,
      exec = function(_, sql)
        assert(one:simple(sql))
      end,
      close = function()
        one:close()
      end,
    }
  end

  --- The same for both ways to stop it.
  ---@param stop_it fun(dir: string, pid: integer)
  local function goes_away(stop_it)
    local home, dir = helper.tmpdir() .. "/pg", project("a Lua migration")
    local first = assert(cluster.open { dir = home })
    helper.defer(function()
      first:release()
    end)
    local options = { env = { DATABASE_URL = first.url }, cwd = dir }
    helper.ok({ "up", "--to", "1" }, options)
    local db = connect(first.params)
    local child = helper.spawn({ "--json", "up" }, options)
    sleeping(db)
    db:close()
    stop_it(home, cluster.status(home).pid)
    local result = child:wait(20000)
    assert.is_truthy(result, "it hangs")
    assert.are.equal(1, result.status, result.stdout .. result.stderr)
    assert.are.equal("connection_lost", assert(json.decode(result.stdout)).error.code, result.stdout)
    helper.eventually("the server is gone", function()
      return not cluster.status(home).running
    end)
    local second = assert(cluster.open { dir = home })
    helper.defer(function()
      second:release()
    end)
    options.env.DATABASE_URL = second.url
    db = connect(second.params)
    assert.is_nil(db:value("select to_regclass('made')"))
    assert.are.equal("1", applied(db))
    db:exec("update pace set seconds = 0")
    helper.ok({ "up" }, options)
    assert.are.equal("1 2", applied(db))
    assert.are.equal(1, db:value("select count(*) from made"))
    assert.are.equal(0, db:value("select count(*) from moonbird.verify()"))
    db:close()
  end

  it("stopped in the middle of a migration: a clear error, the rerun completes", helper.async(function()
    goes_away(function(home)
      assert(cluster.stop(home, { force = true }))
    end)
  end))

  it("killed hard again and again under a client of small statements: the client always ends", helper.async(function()
    local dir = helper.project { ["migrations/001_small.lua"] = [[
      return { irreversible = "it never ends", up = function(db)
        for i = 1, 100000000 do db:value("select repeat('x', 5000)") end
      end }]] }
    for round = 1, 6 do
      local server = assert(cluster.open { dir = helper.tmpdir() .. "/pg" })
      local child = helper.spawn({ "up" }, { env = { DATABASE_URL = server.url }, cwd = dir })
      local watcher = connect(server.params)
      helper.eventually("it runs", function()
        return watcher:value("select count(*) from pg_stat_activity where query like 'select repeat%' ") > 0
      end)
      local pids = {}
      for pid in watcher:value("select string_agg(pid::text, ' ') from pg_stat_activity"):gmatch("%d+") do
        pids[#pids + 1] = math.tointeger(tonumber(pid))
      end
      watcher:close()
      task.sleep(round * 7)
      for _, pid in ipairs(pids) do -- the backends in the middle of a statement, then the postmaster
        process.signal(pid, "KILL")
      end
      assert(cluster.stop(server.dir, { force = true }))
      local result = child:wait(20000)
      if not result then
        child:kill("KILL")
      end
      assert.is_truthy(result, "it hangs in round " .. round)
      assert.are_not.equal(0, result.status)
      server:release()
    end
  end))

  it("crashed in the middle of a migration: a clear error, the rerun completes", helper.async(function()
    goes_away(function(_, pid)
      assert(process.signal(pid, "QUIT")) -- "immediate": nobody is told, recovery at the next start
    end)
  end))

  for _, case in ipairs { "a .sql file", "a Lua migration", "a pcall loop that swallows every error",
    "a Lua migration without a transaction" } do
    it(("backend terminated in %s: a clear error, the rerun completes"):format(case), helper.async(function()
      local db, dir = helper.database(), project(case)
      helper.ok({ "up", "--to", "1" }, { db = db, cwd = dir })
      local child = helper.spawn({ "--json", "up" }, { db = db, cwd = dir })
      db:value("select pg_terminate_backend($1)", sleeping(db))
      local result = child:wait(20000)
      assert.is_truthy(result, "it hangs")
      assert.are.equal(1, result.status, result.stdout .. result.stderr)
      local err = assert(json.decode(result.stdout)).error
      assert.are.equal("connection_lost", err.code, result.stdout)
      assert.is_truthy(err.message:find("terminating connection", 1, true), err.message)
      nothing_left(db)
      completes(db, dir)
    end))
  end
end)

-- Forwards everything between clients and the server's socket, and reads the clients' messages. At the
-- first Bind that carries the step's journal row it does what MODE says:
--   before  cuts; neither the row nor the COMMIT arrives
--   sync    forwards all but the Sync that follows, and cuts
--   at      forwards through that Sync, and cuts at once
--   after   forwards through that Sync, waits until the server is done, and cuts
--   gone    as after, and takes no further connections
local PROXY = [==[
import os, socket, struct, sys, threading
listen_at, server_at, mode, marker = sys.argv[1:5]
done = False
lock = threading.Lock()
listener = socket.socket(socket.AF_UNIX)

def exactly(sock, n):
    data = b""
    while len(data) < n:
        more = sock.recv(n - len(data))
        if not more:
            raise EOFError
        data += more
    return data

def cut(*socks):
    for one in socks:
        try:
            one.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        one.close()

def back(server, client, state):
    try:
        while True:
            data = server.recv(65536)
            if not data:
                break
            if state["mute"]:
                state["tail"] = (state["tail"] + data)[-6:]
                if state["tail"][:5] == b"Z\0\0\0\x05":
                    state["ready"].set()
            else:
                client.sendall(data)
    except OSError:
        pass
    state["ready"].set()
    cut(client)

def forth(client):
    global done
    server = socket.socket(socket.AF_UNIX)
    try:
        server.connect(server_at)
        state = {"mute": False, "tail": b"", "ready": threading.Event()}
        threading.Thread(target=back, args=(server, client, state), daemon=True).start()
        head = exactly(client, 4)
        server.sendall(head + exactly(client, struct.unpack("!I", head)[0] - 4))
        armed = False
        while True:
            head = exactly(client, 5)
            body = exactly(client, struct.unpack("!I", head[1:])[0] - 4)
            if head[:1] == b"B" and marker.encode() in body and b'"apply"' in body:
                with lock:
                    armed, done = not done, True
                if armed:
                    # The answer could be through before the cut, and nothing would be lost.
                    state["mute"] = True
                    if mode == "before":
                        break
            if armed and head[:1] == b"S":
                if mode == "sync":
                    break
                server.sendall(head + body)
                if mode != "at":
                    state["ready"].wait(20)
                if mode == "gone":
                    os.unlink(listen_at)
                    listener.close()
                break
            server.sendall(head + body)
    except (OSError, EOFError):
        pass
    cut(client, server)

listener.bind(listen_at)
listener.listen(20)
print("listening", flush=True)
while True:
    try:
        client, _ = listener.accept()
    except OSError:
        threading.Event().wait()
    threading.Thread(target=forth, args=(client,), daemon=True).start()
]==]

describe("a connection that is lost during COMMIT", function()
  local dirs = {}

  -- A plain .sql step is one pipeline: its Sync is the commit. A Lua step ends with COMMIT, then Sync.
  local bodies = {
    sql = { "step.sql", "-- migrate:up\ncreate table made (i int);\ninsert into made values (1);\n-- migrate:down\n" },
    lua = { "step.lua", "return { up = function(db)\n  db:exec('create table made (i int)')\n"
      .. "  db:exec('insert into made values (1)')\nend }\n" },
    -- The commit itself takes a second: the server is still at it when the client asks for the outcome.
    ["slow lua"] = { "step.lua", [[
return { up = function(db)
  db:exec("create table made (i int)")
  db:exec("create function doze() returns trigger language plpgsql as "
    .. "$$ begin perform pg_sleep(1); return null; end $$")
  db:exec("create constraint trigger doze after insert on made deferrable initially deferred "
    .. "for each row execute function doze()")
  db:exec("insert into made values (1)")
end }
]] },
  }

  setup(helper.async(function()
    for name, body in pairs(bodies) do
      dirs[name] = helper.project({
        ["migrations/001_base.sql"] = BASE,
        ["migrations/002_" .. body[1]] = body[2],
        ["migrations/003_last.sql"] = "-- migrate:up\ncreate table last (i int);\n-- migrate:down\n",
      }, { scope = "file" })
    end
  end))

  --- Starts the proxy for one test.
  ---@return string url of `db` through it
  local function proxy(db, mode)
    local dir = helper.tmpdir()
    assert(fs.write(dir .. "/proxy.py", PROXY))
    local socket = dir .. "/.s.PGSQL.5432"
    local child = assert(process.spawn {
      file = "python3",
      args = { dir .. "/proxy.py", socket, ("%s/.s.PGSQL.%s"):format(db.params.host, db.params.port), mode,
        "002_step" },
    })
    helper.defer(function()
      child:kill("KILL")
      child:wait()
      child:close()
    end)
    helper.eventually("the proxy listens", function()
      local ended = child:wait(10)
      if ended then
        error("the proxy ended: " .. ended.stdout .. ended.stderr)
      end
      return fs.stat(socket)
    end)
    return ("postgresql://%s@/%s?host=%s"):format(db.params.user, db.name, dir:gsub("/", "%%2F"))
  end

  -- body, mode, whether the step is committed then
  local cases = {
    { "sql", "before", false }, { "sql", "sync", false }, { "sql", "at", true }, { "sql", "after", true },
    { "lua", "before", false }, { "lua", "sync", true }, { "lua", "at", true }, { "lua", "after", true },
    { "slow lua", "at", true },
  }
  for _, case in ipairs(cases) do
    local body, mode, committed = table.unpack(case)
    it(("(%s, cut %s): %s"):format(body, mode, committed and "it was committed, and the run goes on with a warning"
      or "it was not, a clear error, the rerun completes"), helper.async(function()
      local db, dir = helper.database(), dirs[body]
      helper.ok({ "up", "--to", "1" }, { db = db, cwd = dir })
      local result = helper.moonbird({ "--json", "up" }, { env = { DATABASE_URL = proxy(db, mode) }, cwd = dir })
      local told = result.stdout .. result.stderr
      if committed then
        assert.are.equal(0, result.status, told)
        assert.is_truthy(result.stderr:find("the connection was lost during the commit", 1, true), told)
        assert.are.equal("1 2 3", applied(db))
      else
        assert.are.equal(1, result.status, told)
        assert.are.equal("connection_lost", assert(json.decode(result.stdout)).error.code, told)
        assert.are.equal("1", applied(db))
        assert.is_nil(db:value("select to_regclass('made')"))
      end
      helper.ok({ "up" }, { db = db, cwd = dir })
      assert.are.equal("1 2 3", applied(db))
      assert.are.equal("1 2 3", db:value([[select string_agg(version::text, ' ' order by ordinal)
        from moonbird.journal where target = 'global' and event = 'apply']]))
      assert.are.equal(1, db:value("select count(*) from made"))
      assert.are.equal(0, db:value("select count(*) from moonbird.verify()"))
    end))
  end

  for _, body in ipairs { "sql", "lua" } do
    it(("(%s) and never comes back: it says that the outcome is not known, the rerun finds out"):format(body),
      helper.async(function()
        local db, dir = helper.database(), dirs[body]
        helper.ok({ "up", "--to", "1" }, { db = db, cwd = dir })
        local result = helper.moonbird({ "up" }, { env = { DATABASE_URL = proxy(db, "gone") }, cwd = dir })
        assert.are.equal(1, result.status, result.stdout .. result.stderr)
        assert.is_truthy(result.stderr:find("whether the step was committed is not known", 1, true), result.stderr)
        assert.are.equal("1 2", applied(db))
        helper.ok({ "up" }, { db = db, cwd = dir })
        assert.are.equal("1 2 3", applied(db))
        assert.are.equal(1, db:value("select count(*) from made"))
        assert.are.equal(0, db:value("select count(*) from moonbird.verify()"))
      end))
  end
end)
