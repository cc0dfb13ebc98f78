-- What people settle by hand where there are tenants: baseline and repair, on the right target and on no other.
-- The same on every server.
local fs = require "moonbird.core.fs"
local helper = require "tests.helper"
local task = require "moonbird.core.task"
local tenants = require "tests.tenants"
local texts = require "tests.texts"
local async = helper.async
local has, lacks = texts.has, texts.lacks

local WHY = { "--reason", "it was made by hand" }

describe("settling by hand", function()
  local db, dir

  before_each(async(function()
    db = helper.database()
  end))

  local function given(count, files)
    dir = tenants.given(db, count, files)
  end

  local function moonbird(status, ...)
    return tenants.moonbird(status, { db = db, cwd = dir }, ...)
  end

  local function answer(status, ...)
    return (tenants.answer(status, { db = db, cwd = dir }, ...))
  end

  local function versions(target)
    return tenants.versions(db, target)
  end

  local function two()
    return {
      ["001_plans.sql"] = tenants.sql("global", "create table public.plans (id int);",
        { down = "drop table public.plans;" }),
      ["002_orders.sql"] = tenants.sql("tenant", "create table orders (id int);", { down = "drop table orders;" }),
    }
  end

  describe("baseline with tenants", function()
    before_each(async(function()
      given(3, two())
      db:exec "create table public.plans (id int); create table public.orders (id int)"
      db:exec "create table t_001.orders (id int); create table t_002.orders (id int)"
    end))

    it("writes nothing of tenants to the global target, and says what to type", async(function()
      local said = moonbird(2, "baseline", "2", table.unpack(WHY)).stderr
      has(said, "002_orders is of tenants")
      has(said, "moonbird baseline 002 --reason 'it was made by hand' --all-tenants")
      has(said, "moonbird baseline 001 --reason 'it was made by hand'")
      assert.equal("", versions "global")
      moonbird(0, "baseline", "1", table.unpack(WHY))
      assert.equal("1", versions "global")
    end))

    it("marks the chosen tenants, each in its own journal", async(function()
      local result = answer(0, "baseline", "2", "--tenant", "t_001", "--tenant", "t_002")
      assert.equal(2, result.tenants.migrated)
      assert.equal("", versions "global")
      assert.equal("2", versions "t_001")
      assert.equal("", versions "t_003")
      assert.equal("tenant", db:value "select distinct scope from moonbird.journal where event = 'baseline'")
      local said = moonbird(0, "baseline", "2", "--all-tenants", "--exclude", "t_003").stdout
      has(said, "2 up to date")
      moonbird(0, "baseline", "1")
      moonbird(0, "up")
      assert.equal("2", versions "t_003")
      moonbird(0, "down")
      assert.equal(1, db:value "select count(*) from pg_class where relname = 'orders' and relkind = 'r'") -- public's
      assert.equal("1", versions "global")
    end))

    it("tells which tenants' migrations a global version leaves out", async(function()
      helper.write(dir, { ["migrations/003_global.sql"] = tenants.sql("global", "select 1;") })
      local said = moonbird(0, "baseline", "3").stdout
      has(said, "moonbird baseline 002 --reason \"...\" --all-tenants")
      assert.equal("1 3", versions "global")
    end))

    it("ends with 7 when a tenant fails, after the others", async(function()
      helper.write(dir, { ["moonbird.lua"] = [[return { tenants = tenants.list{
        { name = "gone", database = "moonbird_is_not_there" }, { name = "one", schema = "t_001" } } }]] })
      local result = answer(7, "baseline", "2", "--all-tenants")
      assert.equal(1, result.tenants.failed)
      assert.equal(1, result.tenants.migrated)
      assert.equal("moonbird baseline 2 --reason \"...\" --tenant gone", result.tenants.retry)
      assert.equal("2", versions "one")
    end))
  end)

  it("takes nothing of tenants back in the project's own schema", async(function()
    given(2, two())
    moonbird(0, "up")
    moonbird(0, "down")
    -- as a journal has it that was written before there were tenants
    helper.write(dir, { ["moonbird.lua"] = "return {}" })
    moonbird(0, "baseline", "2")
    helper.write(dir, { ["moonbird.lua"] = tenants.config() })
    db:exec "create table public.orders (id int)"
    for _, command in ipairs { "down", "redo" } do
      local said = moonbird(1, command).stderr
      has(said, "002_orders is of tenants, but journaled as applied to the global target")
      has(said, "`moonbird repair 002 --mark reverted --reason \"...\"`")
    end
    assert.equal(1, db:value "select count(*) from pg_class where relname = 'orders' and relkind = 'r'")
    moonbird(0, "repair", "002", "--mark", "reverted", table.unpack(WHY))
    assert.equal("1", versions "global")
    moonbird(0, "history", "--verify")
  end))

  describe("repair with tenants", function()
    before_each(async(function()
      given(3, two())
      moonbird(0, "up")
    end))

    it("accepts a changed file for those that are chosen", async(function()
      local path = dir .. "/migrations/002_orders.sql"
      fs.write(path, fs.read(path) .. "-- a late thought\n")
      moonbird(7, "up")
      local said = moonbird(2, "repair", "2", "--accept", table.unpack(WHY)).stderr
      has(said, "moonbird repair 002 --accept --reason 'it was made by hand' --all-tenants")
      said = moonbird(0, "repair", "2", "--accept", "--tenant", "*_001", "--tenant", "t_001",
        table.unpack(WHY)).stdout
      has(said, "repaired 002_orders on t_001: accept")
      has(said, "1 tenant repaired")
      local result = answer(0, "repair", "2", "--accept", "--all-tenants", table.unpack(WHY))
      assert.equal(2, result.tenants.migrated)
      assert.equal(1, result.tenants.current)
      assert.equal("accept", result.action)
      moonbird(2, "repair", "2", "--accept", "--all-tenants", table.unpack(WHY))
      moonbird(0, "up")
      assert.equal("1", versions "global")
      moonbird(0, "history", "--verify")
    end))

    it("works in the databases of tenants, and whatever else their journals hold", async(function()
      local own = helper.database()
      moonbird(0, "tenant", "pin", "t_001", "--to", "2", "--reason", "a test")
      helper.write(dir, { ["moonbird.lua"] = ([[return { tenants = tenants.list{
        { name = "own", database = %q }, { name = "t_001", schema = "t_001", labels = { "beta" } } } }]])
        :format(own.name) })
      moonbird(0, "up")
      moonbird(0, "repair", "2", "--mark", "reverted", "--all-tenants", table.unpack(WHY))
      assert.equal("", versions "t_001")
      assert.equal("", tenants.versions(own, "own"))
      assert.equal("", versions "own")
      moonbird(0, "baseline", "2", "--tenant", "own", "--tenant", "@beta")
      assert.equal("2", tenants.versions(own, "own"))
      assert.equal("2", versions "t_001")
      assert.equal(1, answer(0, "status").tenants.summary.current) -- the other is pinned
    end))

    it("marks, and leaves alone what is so already", async(function()
      moonbird(0, "repair", "2", "--mark", "reverted", "--tenant", "t_002", table.unpack(WHY))
      assert.equal("", versions "t_002")
      local said = moonbird(0, "repair", "2", "--mark", "applied", "--all-tenants", table.unpack(WHY)).stdout
      has(said, "on t_002: mark applied")
      has(said, "1 tenant repaired, 2 had nothing to repair")
      lacks(said, "t_001")
      assert.equal("2", versions "t_002")
      assert.equal(2, db:value "select count(*) from moonbird.journal where event = 'repair'")
      moonbird(2, "repair", "1", "--mark", "reverted", "--all-tenants", table.unpack(WHY))
      moonbird(2, "repair", "2", "--clear", "--all-tenants", table.unpack(WHY))
    end))
  end)

  --- Does what a message says to type.
  local function follow(said, command)
    has(said, "`moonbird " .. command .. " --reason \"...\"`")
    local words = {}
    for word in command:gmatch("%S+") do
      words[#words + 1] = word
    end
    return moonbird(0, table.unpack(table.move(WHY, 1, 2, #words + 1, words)))
  end

  --- A run that dies inside a step, whose file is another one afterwards.
  local function die_inside(name, scope, ...)
    local up = "create table n%d (i int);\nselect 1;"
    helper.write(dir, { ["migrations/" .. name] = tenants.sql(scope, up:format(1), { alone = true }) })
    local killed = helper.moonbird({ "up", ... }, { db = db, cwd = dir, env = { MOONBIRD_FAILPOINT = "unit.done:1" } })
    assert.equal("SIGKILL", killed.signal, killed.stderr)
    helper.write(dir, { ["migrations/" .. name] = tenants.sql(scope, up:format(2), { alone = true }) })
  end

  it("is told with commands that can be typed as they stand", async(function()
    given(2, two())
    moonbird(0, "up")
    for name, text in pairs(two()) do
      helper.write(dir, { ["migrations/" .. name] = text .. "-- a late thought\n" })
    end
    follow(moonbird(6, "up").stderr, "repair 001 --accept")
    local said = moonbird(7, "up").stdout
    has(said, "(or --tenant NAME for one)")
    follow(said, "repair 002 --accept --all-tenants")
    die_inside("003_half.sql", "tenant", "--tenant", "t_002")
    follow(moonbird(7, "up").stdout, "repair 003 --mark applied --tenant t_002")
    moonbird(0, "up")
    die_inside("004_half.sql", "global")
    follow(moonbird(1, "up").stderr, "repair 004 --mark applied")
    moonbird(0, "up")
    assert.equal("1 4", versions "global")
    assert.equal("2 3", versions "t_002")
  end))

  it("is told of what is half applied and half taken back, too", async(function()
    given(1, two())
    moonbird(0, "up")
    die_inside("003_half.sql", "tenant")
    has(moonbird(7, "down", "--to", "0", "--tenant", "t_001").stdout,
      "`moonbird repair 003 --mark applied --tenant t_001 --reason \"...\"` or `--mark reverted`")
  end))

  it("waits for another runner as `up` does", async(function()
    given(1, two())
    moonbird(0, "up")
    local other = db:connect()
    for target, words in pairs { global = {}, t_001 = { "--tenant", "t_001" } } do
      local version = target == "global" and "1" or "2"
      assert(other:query "begin")
      assert(other:query(("select pg_advisory_xact_lock(moonbird.lock_key('%s'))"):format(target)))
      local all = { "repair", version, "--mark", "reverted", "--lock-wait", "200ms", "--reason", "a test",
        table.unpack(words) }
      local said = moonbird(target == "global" and 5 or 7, table.unpack(all))
      has(said.stdout .. said.stderr, "is locked by another runner: held by")
      has(said.stdout .. said.stderr, "--lock-wait")
      helper.write(dir, { ["migrations/003_more.sql"] = tenants.sql(target == "global" and "global" or "tenant",
        "select 1;") })
      all = { "baseline", "3", "--lock-wait", "200ms", table.unpack(words) }
      said = moonbird(target == "global" and 5 or 7, table.unpack(all))
      has(said.stdout .. said.stderr, "is locked by another runner: held by")
      all[4] = "60s"
      local waiting = helper.spawn(all, { db = db, cwd = dir })
      task.sleep(300)
      assert(other:query "rollback")
      local result = waiting:wait(30000)
      assert.equal(0, result.status, result.stderr)
      assert.equal(target == "global" and "1 3" or "2 3", versions(target))
    end
  end))
end)
