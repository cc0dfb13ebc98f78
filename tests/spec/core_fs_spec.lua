-- Files and folders through moonbird.core.fs.
local fs = require "moonbird.core.fs"
local sys = require "moonbird.core.sys"

describe("core.fs", function()
  local dir

  before_each(function()
    dir = assert(fs.tempdir("moonbird-fs-"))
  end)

  after_each(function()
    fs.remove_tree(dir)
  end)

  local function at(name)
    return dir .. "/" .. name
  end

  local function failure(...)
    local value, message, code = ...
    assert.is_nil(value)
    assert.is_string(message)
    return code, message
  end

  it("writes and reads back any bytes", function()
    local data = ("\0\255\r\n"):rep(50000)
    assert.is_true(fs.write(at("a"), data))
    assert.are.equal(data, fs.read(at("a")))
    assert.is_true(fs.write(at("a"), ""))
    assert.are.equal("", fs.read(at("a")))
  end)

  it("leaves no temporary file behind", function()
    assert.is_true(fs.write(at("a"), "1"))
    assert.is_true(fs.write(at("a"), "2"))
    assert.are.equal("EISDIR", failure(fs.write(dir, "3")))
    assert.are.equal(1, #fs.list(dir))
  end)

  it("keeps the permission bits of a replaced file", function()
    assert.is_true(fs.write(at("a"), "1"))
    assert.is_true(fs.chmod(at("a"), tonumber("640", 8)))
    assert.is_true(fs.write(at("a"), "2"))
    assert.are.equal(tonumber("640", 8), fs.stat(at("a")).mode)
  end)

  it("refuses to replace when asked to", function()
    assert.is_true(fs.write(at("a"), "1", { exclusive = true }))
    local code, message = failure(fs.write(at("a"), "2", { exclusive = true }))
    assert.are.equal("EEXIST", code)
    assert.are.equal(('cannot write "%s": file exists'):format(at("a")), message)
    assert.are.equal("1", fs.read(at("a")))
  end)

  it("writes to a device instead of replacing it", function()
    assert.is_true(fs.write("/dev/null", "gone"))
    assert.are.equal("other", fs.stat("/dev/null").type)
  end)

  it("writes through a link", function()
    assert.is_true(fs.write(at("real"), "1"))
    assert.is_true(os.execute(("ln -s real %q"):format(at("link"))))
    assert.is_true(fs.write(at("link"), "2"))
    assert.are.equal("2", fs.read(at("real")))
    assert.are.equal("link", fs.list(dir)[1].type)
  end)

  it("appends", function()
    assert.is_true(fs.append(at("log"), "a"))
    assert.is_true(fs.append(at("log"), "b"))
    assert.are.equal("ab", fs.read(at("log")))
  end)

  it("lists bytewise, with types", function()
    for _, name in ipairs({ "b", "B", "a10", "a9", "ä" }) do
      assert.is_true(fs.write(at(name), ""))
    end
    assert.is_true(fs.mkdir(at("c/d")))
    local names = {}
    for i, entry in ipairs(fs.list(dir)) do
      names[i] = entry.name .. ":" .. entry.type
    end
    assert.are.same({ "B:file", "a10:file", "a9:file", "b:file", "c:dir", "ä:file" }, names)
  end)

  it("names what is missing", function()
    local code, message = failure(fs.read(at("none")))
    assert.are.equal("ENOENT", code)
    assert.are.equal(('cannot read "%s": no such file or directory'):format(at("none")), message)
    assert.are.equal("ENOENT", failure(fs.list(at("none"))))
    assert.are.equal("ENOENT", failure(fs.stat(at("none"))))
    assert.are.equal("ENOENT", failure(fs.remove_tree(at("none"))))
    assert.are.equal("EISDIR", failure(fs.read(dir)))
  end)

  it("takes no path with a NUL byte", function()
    assert.has_error(function()
      fs.read("a\0b")
    end)
  end)

  it("makes parents, and does not mind a folder that is there", function()
    assert.is_true(fs.mkdir(at("x/y/z")))
    assert.is_true(fs.mkdir(at("x/y/z/")))
    assert.are.equal("dir", fs.stat(at("x/y/z")).type)
    assert.is_true(fs.write(at("f"), ""))
    assert.are.equal("ENOTDIR", failure(fs.mkdir(at("f"))))
    assert.are.equal("ENOTDIR", failure(fs.mkdir(at("f/g"))))
  end)

  it("removes a tree without following links out of it", function()
    assert.is_true(fs.mkdir(at("tree/deep/er")))
    assert.is_true(fs.write(at("tree/deep/file"), "x"))
    assert.is_true(fs.mkdir(at("outside")))
    assert.is_true(fs.write(at("outside/kept"), "x"))
    assert.is_true(os.execute(("ln -s %q %q"):format(at("outside"), at("tree/deep/link"))))
    assert.are.equal("ENOTEMPTY", failure(fs.remove(at("tree"))))
    assert.is_true(fs.remove_tree(at("tree")))
    assert.are.equal("x", fs.read(at("outside/kept")))
    assert.is_nil((fs.stat(at("tree"))))
  end)

  it("tells what may be done", function()
    assert.is_true(fs.write(at("a"), ""))
    assert.is_true(fs.access(at("a"), "r"))
    assert.is_false(fs.access(at("a"), "x"))
    assert.is_true(fs.chmod(at("a"), tonumber("700", 8)))
    assert.is_true(fs.access(at("a"), "x"))
    assert.is_false(fs.access(at("none"), "r"))
    assert.has_error(function()
      fs.access(at("a"), "q")
    end)
  end)

  it("makes private temporary folders", function()
    local other = assert(fs.tempdir(dir .. "/own-"))
    assert.are.equal(tonumber("700", 8), fs.stat(other).mode)
    assert.are_not.equal(dir, other)
    assert.are.equal(dir .. "/own-", other:sub(1, #dir + 5))
  end)

  it("changes and resolves folders", function()
    local before = assert(fs.cwd())
    assert.is_true(fs.chdir(dir))
    assert.are.equal(fs.realpath(dir), fs.cwd())
    assert.are.equal(fs.realpath(dir), fs.realpath("."))
    assert.is_true(fs.chdir(before))
    assert.are.equal("ENOENT", failure(fs.realpath(at("none"))))
    assert.are.equal("ENOENT", failure(fs.chdir(at("none"))))
  end)

  it("reads many files at once, each with its hash or its error", function()
    assert.is_true(fs.write(at("1"), "one"))
    assert.is_true(fs.write(at("2"), ("x"):rep(300000)))
    assert.is_true(fs.write(at("3"), ""))
    assert.is_true(fs.mkdir(at("d")))
    local files = assert(fs.read_files(dir, { "2", "1", "gone", "3", "d" }))
    assert.are.equal(300000, #files[1].text)
    assert.are.same({ text = "one", sha256 = sys.sha256("one") }, files[2])
    assert.are.same({ error = "no such file or directory", errno = "ENOENT" }, files[3])
    assert.are.equal("", files[4].text)
    assert.are.equal("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", files[4].sha256)
    assert.are.equal("EISDIR", files[5].errno)
    assert.are.same({}, fs.read_files(dir, {}))
    local hashes, errors = fs.hash_files(dir, { "1", "gone", "3" })
    assert.are.same({ sys.sha256("one"), false, sys.sha256("") }, hashes)
    assert.are.same({ [2] = { error = "no such file or directory", errno = "ENOENT" } }, errors)
    assert.are.equal("ENOENT", failure(fs.hash_files(at("none"), { "1" })))
    assert.are.equal("ENOENT", failure(fs.read_files(at("none"), { "1" })))
    assert.are.equal("ENOTDIR", failure(fs.read_files(at("1"), { "1" })))
    for _, read in ipairs({ fs.read_files, fs.hash_files }) do
      assert.has_error(function()
        read(dir, { "1", 2 })
      end)
    end
  end)
end)
