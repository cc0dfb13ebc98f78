--- Two releases over one set of tenants: an older registry beside targets that a newer one has been at, before it
-- begins, while it runs, and in a fleet.
-- The same on every server.
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local tenants = require "tests.tenants"
local texts = require "tests.texts"
local async, sql = helper.async, tenants.sql
local has = texts.has

-- The first migration waits for the test, that of t_001 for one thing more.
local USERS = sql("tenant", "create table users (id int);\n"
  .. "select pg_advisory_xact_lock(77) where current_schema() = 't_001';\n"
  .. "select count(*) from gate where name = current_schema();", { down = "drop table users;" })
local EMAIL = sql("tenant", "alter table users add column email text;", { down = "alter table users drop column email;" })
local PLANS = sql("global", "create table public.plans (id int);", { down = "drop table public.plans;" })

describe("an older release", function()
  local db, old, new

  before_each(async(function()
    db = helper.database()
    db:exec "create table public.gate (name text)"
    tenants.schemas(db, 1, 8)
    local config = tenants.config "shared = { 'public' }, lock_timeout = '60s'"
    old = tenants.project { ["moonbird.lua"] = config, ["001_users.sql"] = USERS }
    new = tenants.project { ["moonbird.lua"] = config, ["001_users.sql"] = USERS, ["002_email.sql"] = EMAIL,
      ["003_plans.sql"] = PLANS }
  end))

  --- What an older release must not change: the journal and the catalog of everybody.
  local function picture()
    return json.encode { db:query "select target, ordinal, event, version from moonbird.journal order by 1, 2",
      db:query [[select table_schema, table_name, column_name from information_schema.columns
        where table_schema like 't\_%' or table_schema = 'public' order by 1, 2, 3]] }
  end

  for _, command in ipairs { "up", "deploy" } do
    it(command .. " changes nothing where everything is ahead, and says why", async(function()
      tenants.moonbird(0, { db = db, cwd = new }, "up")
      local before = picture()
      local said, events, result = tenants.answer(6, { db = db, cwd = old }, command)
      assert.equal("ahead", said.error.code)
      assert.equal(8, #said.tenants.ahead)
      assert.same({ 0, 0, 0 }, { said.tenants.migrated, said.tenants.failed, #said.tenants.not_run })
      assert.is_nil(said.tenants.retry)
      has(said.error.message, "8 tenants are at a newer version than these files know")
      has(said.error.hint, "newer release")
      assert.equal(before, picture())
      for _, event in ipairs(events) do
        assert(event.event ~= "failed" and event.event ~= "done", result.stderr)
      end
    end))
  end

  it("leaves alone what a newer one takes further while it runs: that is no failure", async(function()
    local locker, holder = db:connect(), db:connect()
    local other = tenants.project { ["moonbird.lua"] = tenants.config "shared = { 'public' }, lock_timeout = '60s'",
      ["001_users.sql"] = USERS, ["002_email.sql"] = EMAIL }
    assert(locker:simple "begin; lock table public.gate")
    assert(holder:simple "begin; select pg_advisory_xact_lock(77)")
    local child = helper.spawn({ "--json", "up", "--jobs", "1" }, { db = db, cwd = old })
    helper.eventually("the older one waits in t_001", function()
      return db:value "select count(*) > 0 from pg_locks where not granted and locktype = 'advisory' and objid = 77"
    end)
    local newer = helper.spawn({ "--json", "up", "--exclude", "t_001" }, { db = db, cwd = other })
    helper.eventually("the newer one waits in the seven others", function()
      return db:value [[select count(distinct pid) from pg_locks where not granted
        and relation = 'public.gate'::regclass]] == 7
    end)
    assert(locker:simple "rollback")
    local result = newer:wait(30000)
    assert.equal(0, result.status, result.stdout .. result.stderr)
    assert(holder:simple "rollback") -- now, so that it finds none of the seven half-way
    result = child:wait(30000)
    assert.is_truthy(result, "it hangs")
    local said = json.decode(result.stdout)
    assert.equal(6, result.status, result.stdout .. result.stderr)
    assert.equal("ahead", said.error.code)
    assert.equal(1, said.tenants.migrated)
    assert.equal(0, said.tenants.failed)
    assert.same({}, said.tenants.not_run)
    assert.equal(7, #said.tenants.ahead)
    assert.equal(0, db:value "select count(*) from moonbird.journal where event = 'fail'")
    assert.equal(7, tenants.count_at(db, "1 2"))
    assert.equal("1", tenants.versions(db, "t_001"))
    assert.equal("", tenants.not_once(db))
  end))
end)
