-- The embedded PostgreSQL, on a real one. Each test has a folder of its own below /tmp.
local alive = require("tests.processes").alive
local cluster = require "moonbird.core.cluster"
local conn = require "moonbird.native.conn"
local fs = require "moonbird.core.fs"
local helper = require "tests.helper"
local process = require "moonbird.core.process"
local server = require "moonbird.core.cluster_server"
local sys = require "moonbird.core.sys"
local task = require "moonbird.core.task"
local async, eventually = helper.async, helper.eventually

local ROOT = sys.uid() == 0
local dir

local function connects(c)
  local connection <close> = conn.new()
  local ok, err = connection:connect(c.params)
  if not ok then
    return false, err.message
  end
  return connection:simple("create table if not exists t (n int); insert into t values (1)") ~= nil
end

--- A process of its own that runs `code` in a task; `cluster` and `task` are there, arguments by %q.
local function moonbird(code, ...)
  return assert(process.spawn {
    file = fs.realpath("/proc/self/exe"),
    args = { "-e", ([[
      local task = require "moonbird.core.task"
      local cluster = require "moonbird.core.cluster"
      local _, err = task.run(function()
        %s
      end)
      if err then io.stderr:write(tostring(err), "\n") os.exit(1) end
    ]]):format(code:format(...)) },
    stdin = "pipe",
  })
end

--- Waits for a file that a moonbird() writes, and gives its text.
local function told(path)
  eventually(path .. " is written", function()
    return (fs.read(path) or ""):sub(-1) == "\n"
  end, 30)
  return fs.read(path):match("^(.-)\n$")
end

local function with_env(name, value, fn)
  local before = sys.getenv(name)
  sys.setenv(name, value)
  local results = table.pack(pcall(fn))
  sys.setenv(name, before)
  assert(results[1], results[2])
  return table.unpack(results, 2, results.n)
end

local function write_program(path, text)
  assert(fs.write(path, "#!/bin/sh\n" .. text .. "\n"))
  assert(fs.chmod(path, 493)) -- 0755
end

--- A folder of programs that are not PostgreSQL's.
local function fake_programs(version, initdb)
  local bin = dir .. "/bin"
  fs.mkdir(bin)
  write_program(bin .. "/postgres", ("echo 'postgres (PostgreSQL) %s'"):format(version))
  write_program(bin .. "/pg_ctl", "exit 0")
  write_program(bin .. "/initdb", initdb or "exit 0")
  return bin
end

before_each(function()
  dir = fs.realpath(assert(fs.tempdir("/tmp/moonbird-spec-")))
  fs.chmod(dir, 493)
end)

after_each(async(function()
  if cluster.status(dir .. "/pg").running then
    cluster.stop(dir .. "/pg", { force = true })
  end
  fs.remove_tree(dir)
end))

describe("cluster.find_binaries", function()
  it("finds a complete installation", async(function()
    local found = assert(cluster.find_binaries())
    assert.are.equal(found.bin .. "/initdb", found.initdb)
    assert.is_true(fs.access(found.postgres, "x"))
    assert.is_true(found.major >= 14)
    assert.are.equal(tostring(found.major), found.version:match("^%d+"))
  end))

  it("takes MOONBIRD_PG_BIN before all else", async(function()
    local bin = fake_programs("99.7 (Fake)")
    local found = with_env("MOONBIRD_PG_BIN", bin, cluster.find_binaries)
    assert.are.equal(bin, found.bin)
    assert.are.equal("99.7", found.version)
    assert.are.equal(99, found.major)
  end))

  it("finds a folder of PATH", async(function()
    local bin = fake_programs("98.1")
    with_env("MOONBIRD_PG_BIN", nil, function()
      with_env("PATH", bin, function()
        assert.are.equal(bin, cluster.find_binaries().bin)
      end)
    end)
  end))

  it("says what a MOONBIRD_PG_BIN lacks", async(function()
    local bin = fake_programs("99.7")
    fs.chmod(bin .. "/pg_ctl", 420) -- 0644
    local found, err = with_env("MOONBIRD_PG_BIN", bin, cluster.find_binaries)
    assert.is_nil(found)
    assert.are.equal("cluster", err.code)
    assert.are.equal(('MOONBIRD_PG_BIN names "%s", where there is no program "pg_ctl"'):format(bin), err.message)
  end))

  it("names the package when there are none", async(function()
    local list = fs.list
    fs.list = function() -- hides /usr/lib/postgresql
      return {}
    end
    local found, err = with_env("MOONBIRD_PG_BIN", nil, function()
      return with_env("PATH", dir, cluster.find_binaries)
    end)
    fs.list = list
    assert.is_nil(found)
    assert.are.equal("cluster", err.code)
    assert.truthy(err.hint:find("apt-get install postgresql", 1, true))
  end))

  it("reports programs that do not run", async(function()
    local bin = fake_programs("99.7")
    write_program(bin .. "/postgres", "echo 'libicu.so: cannot open' >&2; exit 127")
    local found, err = with_env("MOONBIRD_PG_BIN", bin, cluster.find_binaries)
    assert.is_nil(found)
    assert.truthy(err.message:find("libicu.so", 1, true))
  end))
end)

describe("a throwaway cluster", function()
  it("accepts connections and is gone after release", async(function()
    local c = assert(cluster.open { temp = true })
    assert.is_true(c.started_by_us)
    assert.is_true(connects(c))
    local pid = cluster.status(c.dir).pid or math.tointeger(tonumber(fs.read(c.dir .. "/data/postmaster.pid"):match("^%d+")))
    assert(c:release())
    assert(c:release())
    assert.is_false(alive(pid))
    assert.is_nil(fs.stat(c.dir))
  end))

  it("is ready faster than initdb alone, once the template is there", async(function()
    local function timed(opts)
      local began = sys.monotonic()
      local c = assert(cluster.open(opts))
      local took = sys.monotonic() - began
      assert(c:release())
      return took
    end
    timed { temp = true }
    -- In turns, and the best of each: the machine does other things, too.
    local best, fresh = math.huge, math.huge
    for i = 1, 3 do
      best = math.min(best, timed { temp = true })
      fresh = math.min(fresh, timed { dir = dir .. "/pg" .. i })
    end
    assert.is_true(best < fresh, ("%.2f s, against %.2f s"):format(best, fresh))
  end))

  it("is private and not durable", async(function()
    local c <close> = assert(cluster.open { temp = true })
    assert.are.equal(448, fs.stat(c.dir).mode)
    local cmdline = fs.read(("/proc/%d/cmdline"):format(tonumber(fs.read(c.dir .. "/data/postmaster.pid"):match("^%d+"))))
    assert.truthy(cmdline:find("fsync=off", 1, true))
    assert.truthy(cmdline:find("listen_addresses=\0", 1, true))
  end))

  it("can be had several times at once", async(function()
    local a <close> = assert(cluster.open { temp = true })
    local b <close> = assert(cluster.open { temp = true })
    assert.are_not.equal(a.url, b.url)
    assert.is_true(connects(a))
    assert.is_true(connects(b))
  end))

  it("is gone, processes and folder, within 5 s of its owner's kill -9", async(function()
    local owner <close> = moonbird([[
      local c = assert(cluster.open { temp = true })
      local pid = io.open(c.dir .. "/data/postmaster.pid"):read("n")
      io.open(%q, "w"):write(c.dir, " ", pid, "\n"):close()
      task.sleep(60000)
    ]], dir .. "/told")
    local home, pid = told(dir .. "/told"):match("^(%S+) (%d+)$")
    pid = tonumber(pid)
    assert.is_true(alive(pid))
    local children = fs.read(("/proc/%d/task/%d/children"):format(pid, pid))
    assert.truthy(children:match("%d+"))
    owner:kill("KILL")
    eventually("the owner's server and folder go", function()
      return not alive(pid) and not fs.stat(home)
    end, 5)
    for child in children:gmatch("%d+") do
      assert.is_false(alive(tonumber(child)))
    end
  end))

  it("is gone when its owner is killed while it is being made", async(function()
    for _, delay in ipairs { 0, 15, 30, 60 } do
      local tmp = dir .. "/tmp" .. delay
      fs.mkdir(tmp)
      fs.chmod(tmp, 1023) -- 01777, as /tmp
      local owner <close> = with_env("TMPDIR", tmp, function()
        return moonbird("cluster.find_binaries() io.open(%q, 'w'):write('\\n'):close() cluster.open { temp = true }",
          tmp .. "/go")
      end)
      told(tmp .. "/go")
      task.sleep(delay)
      owner:kill("KILL")
      owner:wait()
      eventually("nothing of it stays", function()
        for _, entry in ipairs(fs.list(tmp)) do
          -- An empty folder may stay when the kill came between its making and the guard's start.
          if entry.name ~= "go" and #(fs.list(tmp .. "/" .. entry.name) or {}) > 0 then
            return false
          end
        end
        return true
      end, 5)
    end
  end))

  it("leaves nothing when its server is killed", async(function()
    local c = assert(cluster.open { temp = true })
    process.signal(tonumber(fs.read(c.dir .. "/data/postmaster.pid"):match("^%d+")), "KILL")
    eventually("its folder goes", function()
      return not fs.stat(c.dir)
    end, 5)
    assert(c:release())
  end))
end)

describe("a project's cluster", function()
  it("is made, used, stopped and used again", async(function()
    local said = {}
    local c = assert(cluster.open { dir = dir .. "/pg", log = function(text)
      said[#said + 1] = text
    end })
    assert.truthy(said[1]:find("making a PostgreSQL", 1, true))
    assert.is_true(connects(c))
    assert.are.equal(c.dir, c.socket_dir)
    assert.are.equal(5432, c.port)
    local status = cluster.status(dir .. "/pg")
    assert.is_true(status.running)
    assert.are.equal(c.url, status.url)
    assert(c:release())
    assert.is_false(alive(status.pid))
    status = cluster.status(dir .. "/pg")
    assert.is_true(status.exists)
    assert.is_false(status.running)

    c = assert(cluster.open { dir = dir .. "/pg" })
    assert.is_true(c.started_by_us)
    assert.is_true(connects(c))
    assert(c:release())
    assert.is_true(cluster.destroy(dir .. "/pg"))
    assert.is_nil(fs.stat(dir .. "/pg"))
  end))

  it("stops with the last of its users", async(function()
    local a = assert(cluster.open { dir = dir .. "/pg" })
    local other <close> = moonbird([[
      local c = assert(cluster.open { dir = %q })
      io.open(%q, "w"):write(tostring(c.started_by_us), "\n"):close()
      while not io.open(%q) do task.sleep(10) end
      assert(c:release())
    ]], dir .. "/pg", dir .. "/told", dir .. "/leave")
    assert.are.equal("false", told(dir .. "/told"))
    local pid = cluster.status(dir .. "/pg").pid
    assert(a:release())
    assert.is_true(alive(pid))
    fs.write(dir .. "/leave", "")
    local r = other:wait()
    assert.are.equal(0, r.status, r.stderr)
    assert.is_false(alive(pid))
  end))

  it("may be opened by eight processes at once", async(function()
    local all = {}
    for i = 1, 8 do
      all[i] = moonbird([[
        for _ = 1, 3 do
          local c = assert(cluster.open { dir = %q })
          local connection = require("moonbird.native.conn").new()
          assert(connection:connect(c.params))
          connection:close()
          assert(c:release())
        end
      ]], dir .. "/pg")
    end
    for _, one in ipairs(all) do
      local r = one:wait()
      assert.are.equal(0, r.status, r.stderr)
      one:close()
    end
    assert.is_false(cluster.status(dir .. "/pg").running)
  end))

  it("outlives a killed user, and is stopped by the next", async(function()
    local user <close> = moonbird([[
      local c = assert(cluster.open { dir = %q })
      io.open(%q, "w"):write("\n"):close()
      task.sleep(60000)
    ]], dir .. "/pg", dir .. "/told")
    told(dir .. "/told")
    user:kill("KILL")
    user:wait()
    local pid = cluster.status(dir .. "/pg").pid
    assert.is_true(alive(pid))
    local c = assert(cluster.open { dir = dir .. "/pg" })
    assert.is_false(c.started_by_us)
    assert.is_true(connects(c))
    assert(c:release())
    assert.is_false(alive(pid))
  end))

  it("is whole after its maker was killed at any moment", async(function()
    for _, delay in ipairs { 20, 120, 250, 400, 550 } do
      local path = dir .. "/pg" .. delay
      local maker <close> = moonbird("cluster.open { dir = %q } task.sleep(60000)", path)
      task.sleep(delay)
      maker:kill("KILL")
      maker:wait()
      local c = assert(cluster.open { dir = path })
      assert.is_true(connects(c))
      assert(c:release())
      for _, entry in ipairs(fs.list(path)) do
        assert.is_nil(entry.name:find("data.new", 1, true))
      end
      assert.is_false(cluster.status(path).running)
    end
  end))

  it("starts again after its server was killed", async(function()
    local c = assert(cluster.open { dir = dir .. "/pg" })
    local pid = cluster.status(dir .. "/pg").pid
    process.signal(pid, "KILL")
    eventually("the server is gone", function()
      return not alive(pid)
    end, 5)
    local again = assert(cluster.open { dir = dir .. "/pg" })
    assert.is_true(again.started_by_us)
    assert.is_true(connects(again))
    assert(again:release())
    assert(c:release())
    assert.is_false(cluster.status(dir .. "/pg").running)
  end))

  it("is stopped at once when it does not end by itself, and has all that was committed", async(function()
    local c = assert(cluster.open { dir = dir .. "/pg" })
    assert.is_true(connects(c))
    local before = server.FAST_SECONDS
    helper.defer(function()
      server.FAST_SECONDS = before
    end)
    server.FAST_SECONDS = 0.5
    local connection <close> = conn.new()
    assert(connection:connect(c.params))
    local waits_for = connection:query("select pid from pg_stat_activity where backend_type = 'checkpointer'"):value(1, 1)
    connection:close()
    assert(process.signal(waits_for, "STOP"))
    assert(c:release())
    assert.is_false(cluster.status(dir .. "/pg").running)
    local again = assert(cluster.open { dir = dir .. "/pg" })
    assert(connection:connect(again.params))
    assert.are.equal(1, connection:query("select count(*) from t"):value(1, 1))
    connection:close()
    assert(again:release())
  end))

  it("takes no process for its server that the kernel is taking away", async(function()
    local data = assert(fs.realpath(dir)) .. "/data"
    assert(fs.mkdir(data))
    -- So large that it takes a while.
    local child = assert(process.spawn { file = "python3", cwd = data, args = { "-c", [[
import time
memory = bytearray(200 << 20)
for i in range(0, len(memory), 4096):
    memory[i] = 1
open("touched", "w").close()
time.sleep(60)]] } })
    helper.defer(function()
      child:kill("KILL")
      child:wait()
      child:close()
    end)
    eventually("its memory is there", function()
      return fs.stat(data .. "/touched")
    end)
    local pid = child:pid()
    assert(fs.write(data .. "/postmaster.pid", ("%d\n%s\n0\n5432\n%s\n\n\nready\n"):format(pid, data, dir)))
    assert.are.equal("ready", server.state(data).status)
    child:kill("KILL")
    repeat until not alive(pid) -- without a wait in between
    assert.is_nil(server.state(data))
  end))

  it("stays after start, until stop", async(function()
    local status = assert(cluster.start(dir .. "/pg"))
    assert.is_true(status.running)
    assert.is_true(status.started)
    assert.is_true(status.stays)
    assert.is_false(assert(cluster.start(dir .. "/pg")).started)
    local c = assert(cluster.open { dir = dir .. "/pg" })
    assert.is_false(c.started_by_us)
    assert.are.same({ stopped = false, in_use = true }, cluster.stop(dir .. "/pg"))
    assert.is_true(alive(status.pid))
    assert(c:release()) -- the mark is gone: the last user stops it
    assert.is_false(alive(status.pid))

    status = assert(cluster.start(dir .. "/pg"))
    c = assert(cluster.open { dir = dir .. "/pg" })
    assert(c:release())
    assert.is_true(alive(status.pid))
    assert.are.same({ stopped = true, in_use = false }, cluster.stop(dir .. "/pg"))
    assert.is_false(alive(status.pid))
    assert.are.same({ stopped = false, in_use = false }, cluster.stop(dir .. "/pg"))
  end))

  it("can be stopped under its users", async(function()
    local c = assert(cluster.open { dir = dir .. "/pg" })
    assert.is_true(cluster.stop(dir .. "/pg", { force = true }).stopped)
    assert.is_false(connects(c))
    assert(c:release())
  end))

  it("is not destroyed while in use", async(function()
    local c = assert(cluster.open { dir = dir .. "/pg" })
    local ok, err = cluster.destroy(dir .. "/pg")
    assert.is_nil(ok)
    assert.truthy(err.message:find("in use", 1, true))
    assert.is_true(connects(c))
    assert(c:release())
  end))

  it("puts its socket elsewhere when the path is too long", async(function()
    local deep = dir .. "/" .. ("long"):rep(30) .. "/pg"
    local c = assert(cluster.open { dir = deep })
    assert.truthy(c.socket_dir:find("^/tmp/moonbird%-socket%-"))
    assert.is_true(connects(c))
    assert.are.equal(c.url, cluster.status(deep).url)
    assert(c:release())
    assert.is_nil(fs.stat(c.socket_dir))
  end))

  it("may have spaces, quotes and commas in its path", async(function()
    local odd = dir .. "/it's, \"odd\" %20 ü/pg"
    local c = assert(cluster.open { dir = odd })
    assert.is_true(connects(c))
    assert(c:release())
    assert.is_true(cluster.destroy(odd))
  end))

  it("does not tell the server our environment", async(function()
    sys.setenv("DATABASE_URL", "postgresql://u:secret@h/d")
    local c <close> = assert(cluster.open { dir = dir .. "/pg" })
    sys.setenv("DATABASE_URL", nil)
    local env = fs.read(("/proc/%d/environ"):format(cluster.status(c.dir).pid))
    assert.is_nil(env:find("secret", 1, true))
  end))
end)

describe("leaving", function()
  it("is not cut short by a cancel, which goes on to the next wait", async(function()
    for _, opts in ipairs { { temp = true }, { dir = dir .. "/pg" } } do
      local c = assert(cluster.open(opts))
      local pid = tonumber(fs.read(c.dir .. "/data/postmaster.pid"):match("^%d+"))
      local released
      local leaver = task.spawn(function()
        released = c:release()
        return task.sleep(60000)
      end)
      task.sleep(1)
      leaver:cancel()
      local _, err = leaver:join()
      assert.is_true(released)
      assert.is_false(alive(pid))
      assert.are.equal("interrupted", err.code)
    end
  end))
end)

describe("users", function()
  it("root runs the server as somebody else; others as themselves", async(function()
    local c <close> = assert(cluster.open { dir = dir .. "/pg" })
    local owner = fs.stat(c.dir .. "/data").uid
    assert.are.equal(owner, fs.stat("/proc/" .. cluster.status(c.dir).pid).uid)
    if ROOT then
      assert.are_not.equal(0, owner)
      local default = sys.passwd("postgres") or sys.passwd("nobody")
      assert.are.equal(default.uid, owner)
    else
      assert.are.equal(sys.uid(), owner)
    end
  end))

  it("root may name the user; others may not", async(function()
    local c, err = with_env("MOONBIRD_PG_USER", "daemon", function()
      return cluster.open { dir = dir .. "/pg" }
    end)
    if not ROOT then
      assert.are.equal('only root can run PostgreSQL as user "daemon"', err.message)
      return
    end
    assert.are.equal(sys.passwd("daemon").uid, fs.stat(c.dir .. "/data").uid)
    assert(c:release())
    c = assert(cluster.open { dir = dir .. "/pg" }) -- the owner stays
    assert.is_true(connects(c))
    assert(c:release())
  end))

  it("refuses a user that can't run PostgreSQL", async(function()
    for _, name in ipairs { "root", "no-such-user" } do
      if ROOT or name ~= sys.user() then
        local c, err = cluster.open { temp = true, user = name }
        assert.is_nil(c)
        assert.are.equal("cluster", err.code)
        assert.truthy(err.message:find(name, 1, true))
      end
    end
  end))

  it("root's private folders do not stop it", async(function()
    if not ROOT then
      return -- nobody else's server runs under another user
    end
    fs.mkdir(dir .. "/private", 448)
    local said = ""
    local path = dir .. "/private/.moonbird/pg"
    local c = assert(cluster.open { dir = path, log = function(text)
      said = said .. text .. "\n"
    end })
    assert.truthy(said:find("can't enter " .. dir .. "/private", 1, true))
    assert.truthy(c.dir:find("^/var/lib/moonbird/pg%-"))
    assert.are.equal(c.dir, fs.realpath(path))
    assert.is_true(connects(c))
    assert(c:release())
    assert.is_true(cluster.destroy(path))
    assert.is_nil(fs.stat(c.dir))
    assert.are.equal(0, #fs.list(dir .. "/private/.moonbird"))
  end))
end)

describe("a cluster that can't be had", function()
  local function refused(opts, env)
    local c, err
    with_env("MOONBIRD_PG_BIN", env or sys.getenv("MOONBIRD_PG_BIN"), function()
      c, err = cluster.open(opts)
    end)
    assert.is_nil(c)
    assert.are.equal("cluster", err.code)
    assert.is_string(err.hint)
    return err
  end

  it("because the folder holds something else", async(function()
    fs.mkdir(dir .. "/pg")
    fs.write(dir .. "/pg/thesis.txt", "precious")
    local err = refused { dir = dir .. "/pg" }
    assert.truthy(err.message:find("is not empty", 1, true))
    assert.is_nil(cluster.destroy(dir .. "/pg"))
    assert.are.equal("precious", fs.read(dir .. "/pg/thesis.txt"))
    assert.are.equal(1, #fs.list(dir .. "/pg"))
  end))

  it("because the folder is another server's", async(function()
    fs.mkdir(dir .. "/pg")
    fs.write(dir .. "/pg/PG_VERSION", "15\n")
    assert.truthy(refused({ dir = dir .. "/pg" }).message:find("moonbird did not make", 1, true))
    assert.is_nil(cluster.destroy(dir .. "/pg"))
  end))

  it("because the programs are of another version", async(function()
    assert(assert(cluster.open { dir = dir .. "/pg" }):release())
    local err = refused({ dir = dir .. "/pg" }, fake_programs("99.1"))
    assert.truthy(err.message:find("^the cluster was made by PostgreSQL %d+, and the programs found are version 99%.1$"))
    assert.truthy(err.hint:find("apt-get install postgresql-", 1, true))
  end))

  it("because the disk is full, and leaves no half of it", async(function()
    local bin = fake_programs("99.1", [[
      for last; do :; done
      mkdir "${last#--pgdata=}"
      echo 'initdb: error: could not write file "x": No space left on device' >&2
      exit 1]])
    local err = refused({ dir = dir .. "/pg" }, bin)
    assert.truthy(err.message:find("No space left on device", 1, true))
    assert.truthy(err.hint:find("disk space", 1, true))
    assert.is_nil(fs.stat(dir .. "/pg/data"))
    for _, entry in ipairs(fs.list(dir .. "/pg")) do
      assert.is_nil(entry.name:find("data", 1, true))
    end
    local c = assert(cluster.open { dir = dir .. "/pg" }) -- once there is room
    assert(c:release())
  end))

  it("because the server does not start", async(function()
    assert(assert(cluster.open { dir = dir .. "/pg" }):release())
    fs.append(dir .. "/pg/data/postgresql.conf", "\nno such setting\n")
    local err = refused { dir = dir .. "/pg" }
    assert.truthy(err.message:find("^PostgreSQL did not start: "))
    assert.truthy(err.detail:find("syntax error", 1, true))
  end))

  it("because there are no programs", async(function()
    local err = refused({ dir = dir .. "/pg" }, dir)
    assert.truthy(err.message:find("MOONBIRD_PG_BIN", 1, true))
    assert.truthy(refused({ temp = true }, dir).message:find("MOONBIRD_PG_BIN", 1, true))
  end))

  it("because the task is cancelled (by Ctrl-C), and leaves nothing running", async(function()
    local bin = fake_programs("99.1", "exec sleep 60")
    local opener = task.spawn(function()
      return with_env("MOONBIRD_PG_BIN", bin, function()
        return cluster.open { dir = dir .. "/pg" }
      end)
    end)
    task.sleep(300)
    opener:cancel()
    local c, err = opener:join()
    assert.is_nil(c)
    assert.are.equal("interrupted", err.code)
    assert(assert(cluster.open { dir = dir .. "/pg" }):release())
  end))
end)

describe("cluster.status and others", function()
  it("tell that there is no cluster", async(function()
    local status, err = cluster.status(dir .. "/none")
    assert.is_false(status.exists)
    assert.is_false(status.running)
    assert.are.equal("cluster", err.code)
    assert.is_nil(cluster.stop(dir .. "/none"))
    assert.is_nil(cluster.destroy(dir .. "/none"))
    assert.is_nil(fs.stat(dir .. "/none"))
  end))

  it("are not misled by a stale postmaster.pid", async(function()
    assert(assert(cluster.open { dir = dir .. "/pg" }):release())
    fs.write(dir .. "/pg/data/postmaster.pid", ("%d\n%s/pg/data\n1\n5432\n%s/pg\n\n1 1\nready   \n"):format(
      sys.pid(), dir, dir))
    assert.is_false(cluster.status(dir .. "/pg").running)
    assert.are.same({ stopped = false, in_use = false }, cluster.stop(dir .. "/pg"))
  end))

  it("get over a postmaster.pid whose number a process of the same user has", async(function()
    local c = assert(cluster.open { dir = dir .. "/pg" })
    local owner = fs.stat(c.dir .. "/data")
    local id = fs.read(c.dir .. "/data/postmaster.pid")
    assert(c:release())
    local other <close> = assert(process.spawn {
      file = "sleep", args = { "60" }, cwd = "/",
      uid = ROOT and owner.uid or nil, gid = ROOT and owner.gid or nil,
    })
    local path = dir .. "/pg/data/postmaster.pid"
    fs.write(path, (id:gsub("^%d+", tostring(other:pid()))))
    fs.chown(path, owner.uid, owner.gid)
    c = assert(cluster.open { dir = dir .. "/pg" })
    assert.is_true(c.started_by_us)
    assert.is_true(connects(c))
    assert(c:release())
    assert.is_true(alive(other:pid()))
    other:kill("KILL")
    other:wait()
  end))
end)
