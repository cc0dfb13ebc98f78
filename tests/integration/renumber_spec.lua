-- `moonbird renumber` on real projects and repositories, and what `new` leaves for it.
-- The same on every server.
local fs = require "moonbird.core.fs"
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local ledger = require "moonbird.policy.ledger"
local process = require "moonbird.core.process"
local references = require "moonbird.migration.references"
local sys = require "moonbird.core.sys"
local version_of = require "moonbird.migration.version"

local async = helper.async
local git = require("tests.git").run

local function sql(head)
  return (head or "") .. "-- migrate:up\nselect 1;\n-- migrate:down\nselect 2;\n"
end

--- A project whose ledger knows all its files.
local function project(files)
  local dir = helper.project(files)
  local entries = {}
  for path, text in pairs(files) do
    local name = path:match("^migrations/([^/]*)$")
    entries[name or ""] = name and sys.sha256(text)
  end
  entries[""] = nil
  assert(ledger.write(dir .. "/migrations", entries))
  return dir
end

--- Commits all on main and goes on in a branch.
local function merge_and_branch(dir)
  if not fs.stat(dir .. "/.git") then
    git(dir, "init", "-q")
  end
  git(dir, "add", "-A")
  git(dir, "commit", "-q", "-m", "merged")
  git(dir, "switch", "-q", "-C", "feature")
end

local function add(dir, files)
  helper.write(dir, files)
  for path, text in pairs(files) do
    assert(ledger.add(dir .. "/migrations", path:match("[^/]*$"), sys.sha256(text)))
  end
end

local function names(dir)
  local list = {}
  for _, name in ipairs(assert(fs.names(dir .. "/migrations"))) do
    if name:find("^%d") then
      list[#list + 1] = name
    end
  end
  return list
end

local function refused(dir, args, pattern)
  local before = names(dir)
  local result = helper.ok({ "renumber", table.unpack(args) }, { cwd = dir, status = 2 })
  assert.is_truthy(result.stderr:find(pattern), result.stderr)
  assert.same(before, names(dir))
  return result.stderr
end

local function ledger_fits(dir)
  local entries = assert(ledger.read(dir .. "/migrations"))
  local count = 0
  for name, checksum in pairs(entries) do
    assert.equal(sys.sha256(assert(fs.read(dir .. "/migrations/" .. name))), checksum, name)
    count = count + 1
  end
  assert.equal(#names(dir), count)
end

describe("moonbird renumber", function()
  it("takes the next number, the ledger and the references along", async(function()
    local dir = project { ["migrations/001_a.sql"] = sql(), ["migrations/002_b.sql"] = sql() }
    merge_and_branch(dir)
    add(dir, { ["migrations/002_mine.sql"] = sql("-- Migration: 002_mine.sql\n"),
      ["migrations/003_then.sql"] = sql("-- phase: contract\n-- completes: 001, 002\n-- tags: 002\n"),
      ["migrations/004_and.lua"] = "-- completes = 002\nlocal n = 002\nreturn {\n  phase = \"contract\",\n"
        .. "  completes   = { 1, \"002\", --[[ 002 ]] 2 }, -- completes = { 2 }\n  up = \"select 2\",\n  down = \"select 2\",\n}\n" })
    local result = json.decode(helper.ok({ "renumber", "2", "--json" }, { cwd = dir }).stdout)
    assert.same({ "001_a.sql", "002_b.sql", "003_then.sql", "004_and.lua", "005_mine.sql" }, names(dir))
    assert.equal(2, result.from)
    assert.equal(5, result.to)
    assert.same({ from = "migrations/002_mine.sql", to = "migrations/005_mine.sql" }, result.file)
    assert.same({ { file = "migrations/003_then.sql", lines = { 2 } }, { file = "migrations/004_and.lua",
      lines = { 5, 5 } } }, result.references)
    assert.equal(sql("-- phase: contract\n-- completes: 001, 005\n-- tags: 002\n"),
      fs.read(dir .. "/migrations/003_then.sql"))
    assert.is_truthy(fs.read(dir .. "/migrations/004_and.lua"):find(
      "-- completes = 002\nlocal n = 002\nreturn {\n  phase = \"contract\",\n"
      .. "  completes   = { 1, \"005\", --[[ 002 ]] 005 }, -- completes = { 2 }\n", 1, true))
    ledger_fits(dir)
    local notes = table.concat(result.notes, "\n")
    assert.is_truthy(notes:find('line 1 of "migrations/005_mine.sql" still says "002_mine.sql"', 1, true), notes)
    assert.is_truthy(notes:find('it runs behind "migrations/003_then.sql" now', 1, true), notes)
    assert.is_truthy(notes:find('if it meant the other file of version 002', 1, true), notes)
  end))

  it("says what it did and how to undo it", async(function()
    local dir = project { ["migrations/001_a.sql"] = sql() }
    merge_and_branch(dir)
    add(dir, { ["migrations/002_b.sql"] = sql(), ["migrations/003_c.sql"] = sql("-- completes: 002\n") })
    git(dir, "add", "-A")
    git(dir, "commit", "-q", "-m", "mine")
    local before = fs.read(dir .. "/migrations/checksums.json")
    local out = helper.ok({ "renumber", "migrations/002_b.sql", "--to", "9" }, { cwd = dir }).stdout
    assert.is_truthy(out:find("renamed migrations/002_b.sql -> migrations/009_b.sql\n", 1, true), out)
    assert.is_truthy(out:find("changed migrations/003_c.sql:1 completes 009 now\n", 1, true), out)
    assert.is_truthy(out:find("ledger  migrations/checksums.json\n", 1, true), out)
    local undo = out:match("undo: ([^\n]*)")
    assert.is_truthy(undo:find("^git mv migrations/009_b.sql migrations/002_b.sql && "), undo)
    git(dir, "add", "-A") -- git mv moves what git knows
    undo = undo:gsub("moonbird check %-%-update", helper.bin() .. " check --update || true")
    assert.equal(0, assert(process.run { file = "/bin/sh", args = { "-c", undo }, cwd = dir }).status)
    assert.equal(before, fs.read(dir .. "/migrations/checksums.json"))
    assert.equal("", git(dir, "diff", "HEAD"))
  end))

  it("takes the present time in a folder of times, and milliseconds in one of these", async(function()
    local dir = project { ["migrations/20250101000000_a.sql"] = sql(), ["migrations/20250102000000_b.sql"] = sql() }
    helper.ok({ "renumber", "20250101000000" }, { cwd = dir })
    local name = names(dir)[2]
    assert.is_truthy(name:match("^20%d%d%d%d%d%d%d%d%d%d%d%d_a%.sql$"), name)
    assert.is_true(version_of.is_datetime(name:match("^%d+")))
    ledger_fits(dir)
    dir = project { ["migrations/1700000000000_a.sql"] = sql(), ["migrations/1700000000001_b.sql"] = sql() }
    helper.ok({ "renumber", "1700000000000" }, { cwd = dir })
    assert.is_truthy(names(dir)[2]:match("^%d%d%d%d%d%d%d%d%d%d%d%d%d_a%.sql$"), names(dir)[2])
    assert.is_true(tonumber(names(dir)[2]:match("^%d+")) > 1735689600000)
  end))

  it("goes behind what the base branch has, merged here or not", async(function()
    local dir = project { ["migrations/001_a.sql"] = sql() }
    merge_and_branch(dir)
    add(dir, { ["migrations/002_mine.sql"] = sql() })
    git(dir, "add", "-A")
    git(dir, "commit", "-q", "-m", "mine")
    git(dir, "switch", "-q", "main")
    add(dir, { ["migrations/002_theirs.sql"] = sql(), ["migrations/003_theirs.sql"] = sql() })
    git(dir, "add", "-A")
    git(dir, "commit", "-q", "-m", "theirs")
    git(dir, "switch", "-q", "feature")
    local before = helper.moonbird({ "check", "--base", "main" }, { cwd = dir })
    assert.is_truthy(before.stdout:find("moonbird renumber migrations/002_mine.sql", 1, true), before.stdout)
    helper.ok({ "renumber", "2" }, { cwd = dir })
    assert.same({ "001_a.sql", "004_mine.sql" }, names(dir))
    local after = helper.moonbird({ "check", "--base", "main" }, { cwd = dir })
    for _, rule in ipairs { "version-order", "ledger", "merged-unchanged", "version-unique" } do
      assert.is_nil(after.stdout:find("error[" .. rule .. "]", 1, true), after.stdout)
    end
    refused(dir, { "4", "--to", "3" }, "version 003 is taken")
  end))

  it("refuses what is merged, taken or not there, and changes nothing", async(function()
    local dir = project { ["migrations/001_a.sql"] = sql(), ["migrations/002_b.sql"] = sql() }
    merge_and_branch(dir)
    add(dir, { ["migrations/003_c.sql"] = sql() })
    refused(dir, { "2" }, '"migrations/002_b.sql" is merged into main')
    refused(dir, { "migrations/001_a.sql" }, "is merged into main")
    refused(dir, { "3", "--to", "2" }, "version 002 is taken")
    refused(dir, { "3" }, "has the next free version already")
    refused(dir, { "4" }, 'there is no migration "4"')
    refused(dir, { "nonesuch.sql" }, 'there is no migration "nonesuch.sql"')
    refused(dir, { "3", "--to", "x" }, "is not a version")
    refused(dir, { "99999999999999999999" }, "there is no migration")
    assert(fs.mkdir(dir .. "/migrations/005_c.sql"))
    refused(dir, { "3", "--to", "5" }, "is there already")
  end))

  it("asks for the file when it can't know which of two is meant", async(function()
    local dir = project { ["migrations/001_a.sql"] = sql(), ["migrations/001_b.sql"] = sql() }
    local said = refused(dir, { "1" }, 'version 1 has 2 files: "migrations/001_a.sql" and "migrations/001_b.sql"')
    assert.is_truthy(said:find("moonbird renumber migrations/001_a.sql", 1, true), said)
    helper.ok({ "renumber", "001_b.sql" }, { cwd = dir })
    assert.same({ "001_a.sql", "002_b.sql" }, names(dir))
    helper.ok({ "-C", dir, "renumber", "migrations/001_a.sql", "--to", "0007" }, { cwd = "/" })
    assert.same({ "002_b.sql", "007_a.sql" }, names(dir))
    ledger_fits(dir)
  end))

  it("leaves merged references and computed ones alone, and says so", async(function()
    local computed = "local which = 2\nreturn { completes = { which }, phase = \"contract\", up = \"select 1\", down = \"\" }\n"
    local dir = project { ["migrations/003_b.sql"] = sql("-- completes: 2\n") }
    merge_and_branch(dir)
    add(dir, { ["migrations/002_a.sql"] = sql(), ["migrations/004_c.lua"] = computed,
      ["migrations/005_d.sql"] = sql("-- completes: 2 or so\n") })
    local result = json.decode(helper.ok({ "renumber", "2", "--json" }, { cwd = dir }).stdout)
    assert.same({}, result.references)
    local notes = table.concat(result.notes, "\n")
    assert.is_truthy(notes:find('"migrations/003_b.sql" completes 002 and is merged', 1, true), notes)
    assert.is_truthy(notes:find('"migrations/004_c.lua" completes 002 in a way that is not rewritten', 1, true), notes)
    assert.is_truthy(notes:find('"migrations/005_d.sql" can\'t be read and may complete 002: look at line 1', 1, true),
      notes)
    assert.equal(computed, fs.read(dir .. "/migrations/004_c.lua"))
  end))

  it("leaves a ledger's disagreements visible, and a broken ledger alone", async(function()
    local dir = project { ["migrations/001_a.sql"] = sql(), ["migrations/002_b.sql"] = sql("-- completes: 1\n") }
    local entries = ledger.read(dir .. "/migrations")
    entries["002_b.sql"] = ("00"):rep(32)
    assert(ledger.write(dir .. "/migrations", entries))
    helper.ok({ "renumber", "1", "--to", "3" }, { cwd = dir })
    assert.equal(("00"):rep(32), ledger.read(dir .. "/migrations")["002_b.sql"])
    helper.write(dir, { ["migrations/checksums.json"] = "<<<<<<< HEAD\n" })
    local said = refused(dir, { "3", "--to", "4" }, "a merge conflict is left")
    assert.is_truthy(said:find("moonbird check --update", 1, true))
  end))

  it("works without git, without a ledger", async(function()
    local dir = helper.project { ["migrations/001_a.sql"] = sql(), ["migrations/003_b.sql"] = sql() }
    local out = helper.ok({ "renumber", "1" }, { cwd = dir, env = { PATH = "/nonesuch" } }).stdout
    assert.same({ "003_b.sql", "004_a.sql" }, names(dir))
    assert.is_truthy(out:find("undo: mv migrations/004_a.sql migrations/001_a.sql\n", 1, true), out)
    assert.is_nil(fs.stat(dir .. "/migrations/checksums.json"))
  end))

  for _, point in ipairs { "renumber.renamed", "renumber.rewritten" } do
    it("killed at " .. point .. ": check explains it, and the same command finishes it", async(function()
      local dir = project { ["migrations/001_a.sql"] = sql(), ["migrations/002_b.sql"] = sql("-- completes: 001\n"),
        ["migrations/003_c.sql"] = sql() }
      local killed = helper.moonbird({ "renumber", "1" }, { cwd = dir, env = { MOONBIRD_FAILPOINT = point .. ":1" } })
      assert.equal("SIGKILL", killed.signal, "the binary has no failpoints (build it with -DMB_FAILPOINTS=ON)")
      assert.same({ "002_b.sql", "003_c.sql", "004_a.sql" }, names(dir))
      local said = helper.moonbird({ "check" }, { cwd = dir }).stdout
      assert.is_truthy(said:find('"migrations/004_a.sql" is "001_a.sql" in checksums.json: it was renamed', 1, true), said)
      refused(dir, { "1", "--to", "9" }, "an earlier run gave \"001_a.sql\" the version 004 already")
      local out = helper.ok({ "renumber", "1" }, { cwd = dir }).stdout
      assert.is_truthy(out:find("migrations/004_a.sql was 001_a.sql before: the rest is done now", 1, true), out)
      assert.equal(sql("-- completes: 004\n"), fs.read(dir .. "/migrations/002_b.sql"))
      helper.moonbird({ "check", "--update" }, { cwd = dir })
      ledger_fits(dir)
    end))
  end
end)

describe("moonbird new", function()
  it("enters the file in the ledger", async(function()
    local dir = helper.tmpdir()
    local result = json.decode(helper.ok({ "new", "add users", "--json" }, { cwd = dir }).stdout)
    assert.equal("migrations/checksums.json", result.ledger)
    local out = helper.ok({ "new", "add orders", "--sql" }, { cwd = dir }).stdout
    assert.is_truthy(out:find("ledger  migrations/checksums.json\n", 1, true), out)
    ledger_fits(dir)
    assert.equal(2, #names(dir))
  end))

  it("starts no ledger in a folder that does without, and says when it can't read it", async(function()
    local dir = helper.project { ["migrations/001_a.sql"] = sql() }
    helper.ok({ "new", "b" }, { cwd = dir })
    assert.is_nil(fs.stat(dir .. "/migrations/checksums.json"))
    helper.write(dir, { ["migrations/checksums.json"] = "<<<<<<< HEAD\n" })
    local result = helper.ok({ "new", "c" }, { cwd = dir })
    assert.is_truthy(result.stderr:find("is not in migrations/checksums.json yet: a merge conflict", 1, true), result.stderr)
    assert.equal(3, #names(dir))
  end))
end)

describe("migration.references", function()
  local function rewritten(kind, text)
    local changed, lines = references.rewrite(text, kind, 7, "0012")
    return changed, lines
  end

  it("rewrites in Lua what is a version in the value of completes", function()
    for before, after in pairs {
      ["return { completes = 7 }"] = "return { completes = 0012 }",
      ["return { completes=007, up = 7 }"] = "return { completes=0012, up = 7 }",
      ["return { [\"completes\"] = { 7 } }"] = "return { [\"completes\"] = { 0012 } }",
      ["return { ['completes'] = '7' }"] = "return { ['completes'] = '0012' }",
      ["return { completes = {\r\n 7,\r\n 70, 17, 7.0, 0x7, '7x' } }"] =
        "return { completes = {\r\n 0012,\r\n 70, 17, 7.0, 0x7, '7x' } }",
      ["local t = {} t.completes = 7 -- x"] = false,
      ["local completes = 7"] = false,
      ["if completes == 7 then end"] = false,
      ["-- completes = 7\nreturn {}"] = false,
      ["--[==[ completes = 7 ]] ]==] return { up = [[ completes = 7 ]] }"] = false,
      ["return { up = \"completes = 7 \\\" completes = 7\", x = 'completes = 7' }"] = false,
      ["return { completes = { 1, 7"] = false,
      ["return { completes ="] = false,
      [""] = false,
    } do
      local changed, lines = rewritten("lua", before)
      assert.equal(after or before, changed)
      assert.equal(after and 1 or 0, #lines)
    end
  end)

  it("rewrites in SQL what a line of the head says", function()
    for before, after in pairs {
      ["-- completes: 7\n-- migrate:up\n"] = "-- completes: 0012\n-- migrate:up\n",
      ["-- Completes : 1,007 70\r\n-- migrate:up\n"] = "-- Completes : 1,0012 70\r\n-- migrate:up\n",
      ["-- migrate:up\n-- completes: 7\n"] = false,
      ["-- it completes 7\n"] = false,
      ["-- rationale: completes: 7\n"] = false,
    } do
      assert.equal(after or before, (rewritten("sql", before)))
    end
    local _, lines = rewritten("sql", "--\n-- completes: 7 7\n-- migrate:up\n")
    assert.same({ 2 }, lines)
  end)
end)
