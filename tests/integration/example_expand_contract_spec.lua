-- examples/expand-contract from end to end: three releases, the old and the new application beside each other, the
-- contract held back and allowed, and the way back. And the spec that users copy from it runs as it is.
-- The same on every server.
local examples = require "tests.examples"
local fs = require "moonbird.core.fs"
local helper = require "tests.helper"
local process = require "moonbird.core.process"
local sys = require "moonbird.core.sys"
local async = helper.async

local NAME = "examples/expand-contract"
local CREATE, EXPAND, COPY, CONTRACT = 20250106090000, 20250203090000, 20250210090000, 20250324090000

describe(NAME, function()
  local dir, db

  local function moonbird(...)
    return helper.ok({ ... }, { cwd = dir, db = db })
  end

  local function refused(...)
    return helper.moonbird({ ... }, { cwd = dir, db = db })
  end

  local function old(...)
    return moonbird("run", "app/old_release.lua", ...).stdout
  end

  local function new(...)
    return moonbird("run", "app/new_release.lua", ...).stdout
  end

  local function applied()
    return db:values "select version from moonbird.state where target = 'global' and applies order by version"
  end

  before_each(async(function()
    dir = examples.copy "expand-contract"
    db = helper.database()
  end))

  it("keeps both releases working, and brings the old column back", async(function()
    moonbird("up", "--to", CREATE)
    old("ada@example.org", "Ada Byron")
    old("alan@example.org", "Alan Turing")

    -- release 1
    moonbird("up", "--to", EXPAND)
    assert.are.equal("ada@example.org\tAda Lovelace\nalan@example.org\tAlan Turing\n",
      old("ada@example.org", "Ada Lovelace"))
    assert.are.equal("ada@example.org\tAda Lovelace\nalan@example.org\t?\n", new())
    new("grace@example.org", "Grace Hopper")
    new("grace@example.org", "Rear Admiral Grace Hopper")
    assert.are.equal("Rear Admiral Grace Hopper", db:value "select fullname from users where mail like 'grace%'")

    -- release 2: more rows than one batch
    db:exec "insert into users (mail, fullname) select 'u' || n, 'User ' || n from generate_series(1, 2500) n"
    db:exec "alter table users disable trigger users_sync_names"
    db:exec "update users set display_name = null where mail like 'u%'"
    db:exec "alter table users enable trigger users_sync_names"
    local up = moonbird "up"
    assert.are.same({ CREATE, EXPAND, COPY }, applied())
    assert.truthy(up.stdout:find("held back 20250324090000_drop_fullname (contract, breaking)", 1, true), up.stdout)
    assert.are.equal(0, db:value "select count(*) from users where display_name is distinct from fullname")
    assert.are.equal(3, db:value [[select count(*) from moonbird.journal
      where version = 20250210090000 and event = 'unit' and outcome = 'done']])
    new("alan@example.org", "Alan Mathison Turing")
    assert.is_true(old() == new(), "the two releases see different names")

    -- release 3 is held back until both are allowed
    local status = moonbird "status".stdout
    assert.truthy(status:find("held +20250324090000_drop_fullname"), status)
    local half = moonbird("up", "--allow-contract").stdout
    assert.truthy(half:find("held back 20250324090000_drop_fullname", 1, true), half)
    assert.are.same({ CREATE, EXPAND, COPY }, applied())
    local names = new()
    moonbird("up", "--allow-contract", "--allow-breaking")
    assert.are.same({ CREATE, EXPAND, COPY, CONTRACT }, applied())
    assert.are.equal("contract, breaking", db:value [[select detail ->> 'allowed' from moonbird.journal
      where version = 20250324090000 and event = 'apply']])
    assert.is_true(names == new(), "names were lost")
    assert.are.equal(1, refused("run", "app/old_release.lua").status)
    moonbird("status", "--exit-code")

    -- the way back
    moonbird "down"
    assert.are.same({ CREATE, EXPAND, COPY }, applied())
    assert.is_true(names == old(), "names were lost")
    local seen = old("ada@example.org", "Ada King")
    assert.is_true(seen == new(), "the two releases see different names")
    moonbird("down", "--to", "0")
    assert.are.same({}, db:values "select relname::text from pg_class where relnamespace = 'public'::regnamespace")
    moonbird("history", "--verify")
  end))

  it("does not drop the column where the names were not copied", async(function()
    moonbird("up", "--to", EXPAND)
    old("ada@example.org", "Ada Lovelace")
    assert(os.remove(dir .. "/migrations/20250210090000_copy_names.lua"))
    local result = refused("up", "--allow-contract", "--allow-breaking")
    assert.are.equal(6, result.status, result.stderr)
    assert.truthy(result.stderr:find("contract%-history"), result.stderr)
    assert.are.same({ CREATE, EXPAND }, applied())
    assert.are.equal("ada@example.org\tAda Lovelace\n", old())
  end))

  it("is clean by its own rules and moonbird's, which tests show to work", async(function()
    local check = moonbird "check".stdout
    assert.truthy(check:find("4 migrations, nothing found", 1, true), check)
    local tests = moonbird("policy", "test").stdout
    assert.truthy(tests:find("6 passed, 0 failed", 1, true), tests)
    assert.falsy(tests:find("warning", 1, true), tests)
    local path = dir .. "/migrations/20250324090000_drop_fullname.sql"
    assert(fs.write(path, (assert(fs.read(path)):gsub("%-%- tags: since%-2.5\n", ""))))
    local result = refused("check", "--json")
    assert.are.equal(6, result.status)
    assert.truthy(result.stdout:find('"release-named"', 1, true), result.stdout)
  end))

  it("is proved by ci", async(function()
    local result = helper.moonbird({ "ci" }, { cwd = dir })
    assert.are.equal(0, result.status, result.stdout .. result.stderr)
    assert.truthy(result.stdout:find("ci: 4 migrations checked, applied, taken back and applied again", 1, true),
      result.stdout)
  end))

  it("has a spec of its own that passes", async(function()
    local folder = helper.bin():match("^(.*)/[^/]*$")
    local child <close> = assert(process.spawn {
      file = "busted", args = { "--lua=" .. folder .. "/moonbird-lua", "spec" }, cwd = dir,
      env = { PATH = folder .. ":" .. (sys.getenv("PATH") or ""), LUA_PATH = false, TEST_DATABASE_URL = db.url },
    })
    local result = assert(child:wait(60000))
    assert.are.equal(0, result.status, result.stdout .. result.stderr)
    assert.truthy(result.stdout:find("1 success", 1, true), result.stdout)
  end))
end)
