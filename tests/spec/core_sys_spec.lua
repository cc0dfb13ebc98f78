-- The process and its surroundings through moonbird.core.sys.
local fs = require "moonbird.core.fs"
local sys = require "moonbird.core.sys"

describe("core.sys", function()
  it("reads, sets and unsets variables", function()
    assert.is_nil(sys.getenv("MOONBIRD_TEST_X"))
    assert.is_true(sys.setenv("MOONBIRD_TEST_X", "a=b"))
    assert.are.equal("a=b", sys.getenv("MOONBIRD_TEST_X"))
    assert.are.equal("a=b", sys.environ().MOONBIRD_TEST_X)
    assert.is_true(sys.setenv("MOONBIRD_TEST_X", nil))
    assert.is_nil(sys.getenv("MOONBIRD_TEST_X"))
    assert.are.equal("EINVAL", select(3, sys.setenv("A=B", "x")))
  end)

  it("knows the machine, the process and the user", function()
    assert.is_true(#sys.hostname() > 0)
    assert.is_true(sys.pid() > 1)
    assert.is_true(#sys.user() > 0)
    local root = assert(sys.passwd("root"))
    assert.are.equal(0, root.uid)
    assert.are.equal(0, root.gid)
    assert.are.equal("/root", root.home)
    local none, message, code = sys.passwd("no-such-user")
    assert.is_nil(none)
    assert.are.equal('there is no user "no-such-user"', message)
    assert.are.equal("ENOENT", code)
    assert.is_true(math.type(sys.uid()) == "integer")
  end)

  it("tells terminals from files", function()
    assert.is_false(sys.isatty(99))
    assert.is_nil(sys.columns(99))
  end)

  it("has two clocks", function()
    assert.is_true(math.abs(sys.time() - os.time()) < 2)
    local before = sys.monotonic()
    assert.is_true(sys.monotonic() >= before)
  end)

  it("splits a time in UTC", function()
    assert.are.same({ year = 2000, month = 2, day = 29, hour = 23, min = 59, sec = 59 }, sys.utc(951868799.9))
    assert.are.same({ year = 1969, month = 12, day = 31, hour = 23, min = 59, sec = 59 }, sys.utc(-0.5))
    assert.are.equal(tonumber(os.date("!%Y")), sys.utc().year)
    assert.has_error(function()
      sys.utc(0 / 0)
    end)
  end)

  it("gives random bytes", function()
    assert.are.equal(16, #sys.random(16))
    assert.are_not.equal(sys.random(16), sys.random(16))
    for _, count in ipairs({ 0, -1, 4097 }) do
      assert.has_error(function()
        sys.random(count)
      end)
    end
  end)

  it("hashes", function()
    assert.are.equal("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", sys.sha256("abc"))
    assert.are.equal("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", sys.sha256(""))
  end)

  it("says when it can't write", function()
    local ok, message, code = sys.write(99, "x")
    assert.is_nil(ok)
    assert.are.equal("cannot write: bad file descriptor", message)
    assert.are.equal("EBADF", code)
    assert.is_true(sys.write(1, ""))
  end)

  it("ends the process with a status, and writes all it has", function()
    local dir = assert(fs.tempdir("moonbird-sys-"))
    local script = dir .. "/x.lua"
    assert(fs.write(script, [[
      local sys = require "moonbird.core.sys"
      assert(sys.write(1, ("x"):rep(300000)))
      sys.exit(7, true)
    ]]))
    local interpreter
    for i = 0, -20, -1 do
      interpreter = arg[i] or interpreter
    end
    local ok, what, status = os.execute(("LUA_PATH=%q %s %s > %s/out"):format(package.path, interpreter, script, dir))
    local written = fs.stat(dir .. "/out").size
    fs.remove_tree(dir)
    assert.is_nil(ok)
    assert.are.equal("exit", what)
    assert.are.equal(7, status)
    assert.are.equal(300000, written)
  end)
end)
