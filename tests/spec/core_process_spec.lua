-- Child processes and file locks, on real ones.
local alive = require("tests.processes").alive
local fs = require "moonbird.core.fs"
local helper = require "tests.helper"
local process = require "moonbird.core.process"
local sys = require "moonbird.core.sys"
local task = require "moonbird.core.task"
local async, eventually = helper.async, helper.eventually

local function sh(script, more)
  local spec = { file = "/bin/sh", args = { "-c", script } }
  for k, v in pairs(more or {}) do
    spec[k] = v
  end
  return spec
end

describe("process.run", function()
  it("gives status, stdout and stderr", async(function()
    local r = assert(process.run(sh("echo out; echo err >&2; exit 3")))
    assert.are.same({ status = 3, stdout = "out\n", stderr = "err\n" }, r)
  end))

  it("names the signal that ended the child", async(function()
    local r = assert(process.run(sh("kill -KILL $$")))
    assert.is_nil(r.status)
    assert.are.equal("SIGKILL", r.signal)
  end))

  it("feeds stdin with a text, of any size", async(function()
    local r = assert(process.run { file = "wc", args = { "-c" }, stdin = ("x"):rep(3000000) })
    assert.are.equal("3000000", r.stdout:match("%d+"))
    assert.are.equal("", assert(process.run { file = "cat", stdin = "" }).stdout)
  end))

  it("survives a child that does not read its stdin", async(function()
    assert.are.equal(0, assert(process.run { file = "true", stdin = ("x"):rep(3000000) }).status)
  end))

  it("reads nothing from stdin when none is given", async(function()
    assert.are.equal("", assert(process.run { file = "cat" }).stdout)
  end))

  it("adds to the environment and takes away from it", async(function()
    sys.setenv("MOONBIRD_SPEC_A", "old")
    sys.setenv("MOONBIRD_SPEC_B", "kept")
    local r = assert(process.run(sh('echo "${MOONBIRD_SPEC_A-none} $MOONBIRD_SPEC_B $MOONBIRD_SPEC_C"', {
      env = { MOONBIRD_SPEC_A = false, MOONBIRD_SPEC_C = "new" },
    })))
    sys.setenv("MOONBIRD_SPEC_A", nil)
    sys.setenv("MOONBIRD_SPEC_B", nil)
    assert.are.equal("none kept new\n", r.stdout)
  end))

  it("starts in the folder asked for", async(function()
    assert.are.equal("/usr\n", assert(process.run(sh("pwd", { cwd = "/usr" }))).stdout)
  end))

  it("passes arguments untouched", async(function()
    local r = assert(process.run { file = "printf", args = { "[%s]", "a b", "", "'\"$x`", 7 } })
    assert.are.equal("[a b][]['\"$x`][7]", r.stdout)
  end))

  it("keeps the last part of much output", async(function()
    local r = assert(process.run(sh("head -c 5000000 /dev/zero | tr '\\0' x; echo end")))
    assert.are.equal(1024 * 1024, #r.stdout)
    assert.are.equal("xend\n", r.stdout:sub(-5))
  end))

  it("gives an error with the errno's name when the program is not there", async(function()
    local r, err = process.run { file = "/nonesuch/program" }
    assert.is_nil(r)
    assert.are.equal("io", err.code)
    assert.are.equal("ENOENT", err.errno)
    assert.are.equal('cannot run "/nonesuch/program": no such file or directory', err.message)
  end))

  it("runs under another user, as root; else says that it may not", async(function()
    local r, err = process.run(sh("id -u; id -G", { uid = 1, gid = 1 }))
    if sys.uid() == 0 then
      assert.are.equal("1\n1\n", r.stdout) -- no group of root's is left
    else
      assert.are.equal("EPERM", err.errno)
    end
  end))

  it("does not wait for ever for a grandchild that keeps the output open", async(function()
    local began = sys.monotonic()
    local r = assert(process.run(sh("sleep 30 & echo $!")))
    assert.is_true(sys.monotonic() - began < 5)
    process.signal(tonumber(r.stdout), "KILL")
  end))

  it("lets other tasks run meanwhile", async(function()
    local ticks = 0
    local ticker = task.spawn(function()
      while ticks < 5 do
        task.sleep(10)
        ticks = ticks + 1
      end
    end)
    assert(process.run(sh("sleep 0.3")))
    assert.are.equal(5, ticks)
    ticker:join()
  end))

  it("kills the child when the task is cancelled", async(function()
    local runner = task.spawn(process.run, sh("echo $$ >&2; exec sleep 60"))
    task.sleep(100)
    local began = sys.monotonic()
    runner:cancel()
    local r, err = runner:join()
    assert.is_nil(r)
    assert.are.equal("interrupted", err.code)
    assert.is_true(sys.monotonic() - began < 2)
  end))

  it("kills a child that ignores SIGTERM after its grace", async(function()
    local runner = task.spawn(process.run, sh("trap '' TERM; while :; do sleep 0.1; done"))
    task.sleep(100)
    local began = sys.monotonic()
    runner:cancel()
    local _, err = runner:join()
    local took = sys.monotonic() - began
    assert.are.equal("interrupted", err.code)
    assert.is_true(took > 4.5 and took < 8)
  end))

  it("raises for a spec that makes no sense", async(function()
    assert.has_error(function()
      process.run { args = {} }
    end)
    assert.has_error(function()
      process.run { file = "true", stdout = "somewhere" }
    end)
    assert.has_error(function()
      process.run { file = "true", uid = 1 }
    end)
    assert.has_error(function()
      process.run { file = "true", args = { {} } }
    end)
  end))
end)

describe("process.spawn", function()
  it("waits with and without a limit", async(function()
    local child <close> = assert(process.spawn(sh("read line; echo \"got $line\"; exit 4", { stdin = "pipe" })))
    assert.is_true(alive(child:pid()))
    assert.is_false(child:wait(20))
    child:close_stdin()
    local r = child:wait()
    assert.are.equal(4, r.status)
    assert.are.equal("got \n", r.stdout)
    assert.are.same(r, child:wait())
  end))

  it("sends signals", async(function()
    local child <close> = assert(process.spawn { file = "sleep", args = { "60" } })
    assert.is_true(child:kill("INT"))
    assert.are.equal("SIGINT", child:wait().signal)
    local ok, _, errno = child:kill()
    assert.is_nil(ok)
    assert.are.equal("ESRCH", errno)
  end))

  it("leaves the child alone when the waiting task is cancelled", async(function()
    local child <close> = assert(process.spawn { file = "sleep", args = { "60" } })
    local waiter = task.spawn(child.wait, child)
    task.sleep(20)
    waiter:cancel()
    local _, err = waiter:join()
    assert.are.equal("interrupted", err.code)
    assert.is_true(alive(child:pid()))
    child:kill("KILL")
    assert.are.equal("SIGKILL", child:wait().signal)
  end))

  it("does not let two tasks wait for one child", async(function()
    local child <close> = assert(process.spawn { file = "sleep", args = { "0.2" } })
    local first = task.spawn(child.wait, child)
    task.sleep(10)
    assert.has_error(function()
      child:wait()
    end)
    assert.are.equal(0, first:join().status)
  end))

  it("wakes who waits when the handle is closed", async(function()
    local child = assert(process.spawn { file = "sleep", args = { "0.3" } })
    local waiter = task.spawn(child.wait, child)
    task.sleep(10)
    child:close()
    child:close()
    local _, err = waiter:join()
    assert.are.equal("io", err.code)
    assert.has_error(function()
      child:pid()
    end)
  end))

  it("reaps a child whose handle was forgotten", async(function()
    local child = assert(process.spawn { file = "sleep", args = { "0.1" } })
    local pid = child:pid()
    child:close()
    eventually("the child is gone", function()
      return fs.stat("/proc/" .. pid) == nil
    end, 3)
  end))

  it("gives a detached child a session of its own", async(function()
    local function session(detached)
      local r = assert(process.spawn(sh("cut -d' ' -f6 /proc/$$/stat", { detached = detached }))):wait()
      return tonumber(r.stdout)
    end
    local ours = tonumber((fs.read("/proc/self/stat"):match("%) %a %d+ %d+ (%d+)")))
    assert.are.equal(ours, session(false))
    assert.are_not.equal(ours, session(true))
  end))
end)

describe("process.lock", function()
  local dir
  before_each(function()
    dir = assert(fs.tempdir("moonbird-spec-"))
  end)
  after_each(function()
    fs.remove_tree(dir)
  end)

  it("is shared or exclusive", function()
    local a <close> = assert(process.lock(dir .. "/lock"))
    local b <close> = assert(process.lock(dir .. "/lock"))
    assert.is_true(a:try("shared"))
    assert.is_true(b:try("shared"))
    assert.is_false(a:try("exclusive"))
    assert.is_true(b:try("exclusive")) -- the attempt gave up a's share
    assert.is_false(a:try("shared"))
    b:release()
    assert.is_true(a:try("exclusive"))
    a:close()
    assert.is_true(b:try("exclusive"))
  end)

  it("notices that its file was removed", function()
    local a <close> = assert(process.lock(dir .. "/lock"))
    fs.remove(dir .. "/lock")
    local ok, _, errno = a:try("shared")
    assert.is_nil(ok)
    assert.are.equal("ESTALE", errno)
  end)

  it("tells why it can't be opened", function()
    local lock, message, errno = process.lock(dir .. "/none/lock")
    assert.is_nil(lock)
    assert.truthy(message:find("none/lock", 1, true))
    assert.are.equal("ENOENT", errno)
  end)

  it("is released by the kernel when its holder is killed", async(function()
    local path = dir .. "/lock"
    local holder <close> = assert(process.spawn {
      file = fs.realpath("/proc/self/exe"),
      args = { "-e", ([[
        local lock = require("moonbird.core.process").lock(%q)
        assert(lock:try("exclusive"))
        io.open(%q, "w"):close()
        io.read("l")
      ]]):format(path, dir .. "/held") },
      stdin = "pipe",
    })
    eventually("the lock is held", function()
      return fs.stat(dir .. "/held") ~= nil
    end, 10)
    local lock <close> = assert(process.lock(path))
    assert.is_false(lock:try("shared"))
    holder:kill("KILL")
    holder:wait()
    assert.is_true(lock:try("exclusive"))
  end))
end)
