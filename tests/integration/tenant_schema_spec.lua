--- A tenant's migration never works outside its schema: where that is gone, or may not be entered, nothing is done, also
-- where shared schemas stand behind it in the search_path.
-- The same on every server.
local helper = require "tests.helper"
local tenants = require "tests.tenants"
local async, sql, lua = helper.async, tenants.sql, tenants.lua

local BOUNDED = "shared = { 'public' }, jobs = 1, max_failures = 5, lock_timeout = '60s'"

local KINDS = {
  ["a pipeline"] = { ["002_items.sql"] = sql("tenant", "create table items (id bigint primary key);") },
  ["Lua"] = { ["002_items.lua"] = lua("tenant", 'db:exec "create table items (id bigint primary key)"') },
  ["units without a transaction"] = { ["002_items.sql"] = sql("tenant",
    "create table items (id bigint primary key);\ncreate index concurrently items_id on items (id);", { alone = true }) },
  ["Lua without a transaction"] = { ["002_items.lua"] = lua("tenant",
    'db:exec "create table items (id bigint primary key)"', "transaction = false,") },
}

describe("a tenant's schema", function()
  local db, dir

  before_each(async(function()
    db = helper.database()
    tenants.schemas(db, 1, 4)
    db:exec "create table public.gate (n int)"
  end))

  for name, files in pairs(KINDS) do
    it("that vanishes while the run is under way is its tenant's failure: " .. name, async(function()
      local all = { ["moonbird.lua"] = tenants.config(BOUNDED),
        ["001_wait.sql"] = sql("tenant", "create table first as select count(*) as n from gate;") }
      for file, text in pairs(files) do
        all[file] = text
      end
      dir = tenants.project(all)
      local locker = db:connect()
      assert(locker:simple "begin; lock table public.gate")
      local child = helper.spawn({ "--json", "up" }, { db = db, cwd = dir })
      helper.eventually("the first tenant waits", function()
        return db:value "select count(*) > 0 from pg_locks where not granted and relation = 'public.gate'::regclass"
      end)
      db:exec "drop schema t_003 cascade"
      assert(locker:simple "rollback")
      local result = child:wait(30000)
      assert.equal(7, result.status, result.stdout .. result.stderr)
      local said = require("moonbird.core.json").decode(result.stdout)
      assert.same({ 3, 1 }, { said.tenants.migrated, said.tenants.failed })
      assert.same({ "t_003" }, said.tenants.groups[1].tenants)
      assert.equal("3F000", said.tenants.groups[1].sqlstate)
      assert.equal('schema "t_003" does not exist', said.tenants.groups[1].error)
      assert.same({ "t_001", "t_002", "t_004" },
        db:values "select schemaname::text from pg_tables where tablename = 'items' order by 1")
      assert.equal("", tenants.versions(db, "t_003"))
    end))
  end

  it("that a migration of its own takes away: the step is not done", async(function()
    dir = tenants.project { ["moonbird.lua"] = [[return { tenants = { source = tenants.list{ { name = "only",
      schema = "t_003" } }, shared = { "public" } } }]], ["001_first.lua"] = lua("tenant", [[
        db:exec "create table first (n int)"
        db:exec("do $$ begin execute 'alter schema ' || current_schema() || ' rename to elsewhere'; end $$")]]),
      ["002_items.sql"] = sql("tenant", "create table items (id bigint primary key);") }
    local said = tenants.answer(7, { db = db, cwd = dir }, "up")
    assert.equal("3F000", said.tenants.groups[1].sqlstate)
    assert.same({}, db:values "select schemaname::text from pg_tables where tablename in ('items', 'first')")
    assert.equal("", tenants.versions(db, "only"))
  end))

  it("that the role may not enter", async(function()
    dir = tenants.project { ["moonbird.lua"] = tenants.config "shared = { 'public' }, max_failures = 5",
      ["001_items.sql"] = sql("tenant", "create table items (id bigint primary key);") }
    local role = "r_" .. db.name
    db:exec(("create role %q login; grant create on database %q to %q"):format(role, db.name, role))
    helper.defer(function()
      db:exec(("drop owned by %q; drop role %q"):format(role, role))
    end)
    db:exec(("grant usage, create on schema t_001, t_002, t_004, public to %q"):format(role))
    local params = db.params
    local url = ("postgresql://%s@/%s?host=%s&port=%s"):format(role, db.name, params.host:gsub("/", "%%2F"), params.port)
    local result = helper.moonbird({ "-u", url, "--json", "up" }, { cwd = dir })
    assert.equal(7, result.status, result.stdout .. result.stderr)
    local said = require("moonbird.core.json").decode(result.stdout)
    assert.same({ "t_003" }, said.tenants.groups[1].tenants)
    assert.equal("42501", said.tenants.groups[1].sqlstate)
    assert.same({ "t_001", "t_002", "t_004" },
      db:values "select schemaname::text from pg_tables where tablename = 'items' order by 1")
  end))
end)
