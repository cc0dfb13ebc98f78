-- The folder of migrations.
local fs = require "moonbird.core.fs"
local registry = require "moonbird.migration.registry"
local sys = require "moonbird.core.sys"

local SQL = "-- migrate:up\nselect 1;\n-- migrate:down\n"

describe("migration.registry", function()
  local dir

  before_each(function()
    dir = assert(fs.tempdir("moonbird-registry-"))
    assert(fs.mkdir(dir .. "/migrations"))
  end)

  after_each(function()
    fs.remove_tree(dir)
  end)

  local function write(name, text)
    assert(fs.write(dir .. "/" .. name, text or SQL))
  end

  local function scan(dirs)
    return registry.scan(dirs or { "migrations" }, { root = dir })
  end

  local function ids(entries)
    local list = {}
    for i, entry in ipairs(entries) do
      list[i] = entry.id
    end
    return list
  end

  it("lists in the order of versions, over all folders", function()
    assert(fs.mkdir(dir .. "/more/lib"))
    write "migrations/10_b.sql"
    write "migrations/9_a.sql"
    write "migrations/README.md"
    write "migrations/.gitkeep"
    write("more/lib/1_x.lua", "not read")
    write("more/11_c.lua", "return { up = '' }")
    local entries, problems = scan { "migrations", "more/" }
    assert.are.same({}, problems)
    assert.are.same({ "9_a", "10_b", "11_c" }, ids(entries))
    local first = entries[1]
    assert.are.equal("migrations/9_a.sql", first.file)
    assert.are.equal(dir .. "/migrations/9_a.sql", first.path)
    assert.are.equal(sys.sha256(SQL), first.checksum)
    assert.are.equal(SQL, first.text)
    assert.are.equal("more/11_c.lua", entries[3].file)
    assert.are.equal(3, #assert(registry.load_all(entries)))
  end)

  it("reads an empty folder, and links to files", function()
    assert.are.same({}, (scan()))
    write "elsewhere.sql"
    assert(os.execute(("ln -s ../elsewhere.sql %q"):format(dir .. "/migrations/1_x.sql")))
    assert(os.execute(("ln -s . %q"):format(dir .. "/migrations/2_dir.sql")))
    assert.are.same({ "1_x" }, ids((scan())))
  end)

  it("says what to do where there is no folder", function()
    local entries, err = scan { "none" }
    assert.is_nil(entries)
    assert.are.equal("migration_file", err.code)
    assert.are.equal('the migrations folder "none" does not exist', err.message)
    assert.matches("moonbird init", err.hint)
  end)

  it("collects names, duplicates and unreadable files", function()
    write "migrations/1_a.sql"
    write("migrations/001_b.lua", "return { up = '' }")
    write "migrations/2-c.sql"
    assert(os.execute(("ln -s gone %q"):format(dir .. "/migrations/3_d.sql")))
    local entries, problems = scan()
    assert.are.same({ "001_b", "1_a" }, ids(entries))
    local shown = {}
    for i, problem in ipairs(problems) do
      shown[i] = problem.file .. ": " .. problem.message
    end
    assert.are.same({
      'migrations/1_a.sql: version 1 is taken by "migrations/001_b.lua"',
      "migrations/2-c.sql: the file name does not look like <digits>_<snake_case>.sql",
      "migrations/3_d.sql: the file can't be read: no such file or directory",
    }, shown)
  end)

  it("finds every problem of every file at once, sorted", function()
    write("migrations/2_b.sql", "-- migrate:up\ncommit;\n-- migrate:down\nvacuum;\n")
    write("migrations/1_a.lua", "return {")
    write "migrations/3_c.sql"
    write "migrations/4.sql"
    local entries, problems = scan()
    local migrations, err = registry.load_all(entries, nil, problems)
    assert.is_nil(migrations)
    assert.are.equal("migration_file", err.code)
    assert.are.equal("4 problems in the migrations", err.message)
    local shown = {}
    for i, problem in ipairs(err.problems) do
      shown[i] = problem.file .. ":" .. (problem.line or 0)
    end
    assert.are.same(
      { "migrations/1_a.lua:1", "migrations/2_b.sql:2", "migrations/2_b.sql:4", "migrations/4.sql:0" }, shown)
  end)

  it("is itself the error when there is one problem", function()
    write("migrations/2_b.sql", "-- migrate:up\ncommit;\n-- migrate:down\n")
    local _, err = registry.load_all((scan()))
    assert.are.equal("migrations/2_b.sql:2:1: COMMIT inside a migration that moonbird runs in a transaction",
      tostring(err))
    assert.are.equal(1, #err.problems)
  end)

  it("notices a file that changes between being listed and being read", function()
    write "migrations/1_a.sql"
    write "migrations/2_b.sql"
    local entries = scan()
    write("migrations/1_a.sql", SQL .. "-- changed")
    os.remove(dir .. "/migrations/2_b.sql")
    local _, err = registry.load_all(entries)
    assert.are.equal("the file was changed while moonbird was reading the folder", err.problems[1].message)
    assert.are.equal("the file can't be read any more", err.problems[2].message)
  end)

  it("leaves the garbage collector as it was", function()
    write "migrations/1_a.sql"
    scan()
    assert.is_true(collectgarbage("isrunning"))
    collectgarbage("stop")
    scan()
    scan { "none" }
    local running = collectgarbage("isrunning")
    collectgarbage("restart")
    assert.is_false(running)
  end)

  it("scans two thousand files quickly", function()
    for i = 1, 2000 do
      local file = assert(io.open(("%s/migrations/%05d_t.sql"):format(dir, i), "w"))
      file:write(SQL)
      file:close()
    end
    local before = sys.monotonic()
    local entries = scan()
    assert.are.equal(2000, #entries)
    -- about 10 ms in a release build; the bound is for a loaded machine with sanitizers
    assert.is_true(sys.monotonic() - before < 2)
  end)
end)
