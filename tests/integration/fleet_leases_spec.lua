--- A step that takes longer than the lease of the process that runs it: while that process lives, stands still, is
-- killed. Whoever claims its tenant then must not run the step a second time.
-- The same on every server.
local fleets = require "tests.crash.fleets"
local helper = require "tests.helper"
local task = require "moonbird.core.task"
local async = helper.async

local INDEX = [[
-- scope: tenant
-- migrate:up transaction:false
create index concurrently users_mail on users (mail);
-- migrate:down transaction:false
drop index concurrently users_mail;
]]

local SLOW = [[
-- scope: tenant
-- migrate:up
alter table users add column phone text;
insert into ran values (current_schema(), 3);
select pg_sleep(coalesce((select s from slow where name = current_schema()), 0));
-- migrate:down
alter table users drop column phone;
]]

local LEASE_S = 0.6

describe("a step longer than the lease", function()
  local db, children, at

  --- Two processes whose first tenant stands in version 3, which one of them runs.
  local function begin(text)
    local dir = fleets.project { jobs = 1, lease = "600ms", files = { ["migrations/003_long.sql"] = text } }
    db = helper.database()
    fleets.tenants(db, 6)
    at = { db = db, cwd = dir }
    helper.ok({ "up", "--to", "2" }, at)
    return fleets.start(2, "r1", at)
  end

  --- The process that holds a tenant.
  local function holder(tenant)
    local pid = db:value([[select w.pid from moonbird.run_item i join moonbird.run_worker w using (run, owner)
      where i.tenant = $1 and i.state = 'running']], tenant)
    for _, child in ipairs(children) do
      if child:pid() == pid then
        return child
      end
    end
  end

  local function claims(tenant)
    return db:value("select claims from moonbird.run_item where tenant = $1", tenant)
  end

  --- Holds CREATE INDEX CONCURRENTLY up: it waits for older transactions that have the table.
  local function hold(tenant)
    local locker = db:connect()
    assert(locker:simple(("begin; insert into %s.users values (1)"):format(tenant)))
    return locker
  end

  local function waits(tenant)
    helper.eventually("the build waits", function()
      return db:value([[select count(*) > 0 from pg_stat_activity where query like 'create index concurrently%'
        and wait_event_type = 'Lock' and datname = current_database()]])
    end)
    return helper.eventually("it is known who builds", function()
      return holder(tenant)
    end)
  end

  local function all_once(version)
    for _, child in ipairs(children) do
      local result = child:wait(60000)
      assert.is_truthy(result, "it hangs")
      if not result.signal then
        assert.are.equal(0, result.status, result.stdout .. result.stderr)
      end
    end
    assert.are.equal("done", db:value "select status from moonbird.run")
    assert.are.same({}, db:query([[select target, event, count(*) from moonbird.journal
      where version = $1 and event in ('start', 'apply', 'fail') and target like 'tenant%'
      group by 1, 2 having count(*) <> 1]], version))
    assert.are.equal(6, db:value([[select count(*) from moonbird.journal where version = $1 and event = 'apply'
      and target like 'tenant%']], version))
    assert.are.equal(0, db:value "select count(*) from moonbird.verify()")
    assert.are.equal(6, db:value "select count(*) from moonbird.run_item where state = 'done'")
  end

  local function all_indexed()
    assert.are.equal(6, db:value [[select count(*) from pg_index join pg_class c on c.oid = indexrelid
      where indisvalid and c.relname = 'users_mail']])
    assert.are.equal(6, db:value "select count(*) from pg_class where relname like 'users_mail%'")
  end

  it("keeps its lease while its process lives", async(function()
    children = begin(INDEX)
    local locker = hold "tenant_001"
    waits "tenant_001"
    helper.eventually("the others are done", function()
      return db:value "select count(*) from moonbird.run_item where state = 'done'" == 5
    end)
    task.sleep(math.floor(LEASE_S * 4 * 1000))
    assert.are.equal(1, claims "tenant_001")
    assert.are.equal("running", db:value "select state from moonbird.run_item where tenant = 'tenant_001'")
    assert(locker:simple "rollback")
    all_once(3)
    all_indexed()
    assert.are.equal(6, db:value "select sum(claims) from moonbird.run_item")
  end))

  for _, how in ipairs { "stands still", "is killed" } do
    it("is run once when its process " .. how .. " meanwhile: an index", async(function()
      children = begin(INDEX)
      local locker = hold "tenant_001"
      local builder = waits "tenant_001"
      builder:kill(how == "is killed" and "KILL" or "STOP")
      helper.eventually("the other one has claimed it", function()
        return claims "tenant_001" >= 2
      end)
      if how == "stands still" then
        helper.eventually("and found it locked", function()
          return db:value "select not_before is not null from moonbird.run_item where tenant = 'tenant_001'"
        end)
      else
        task.sleep(1000) -- it waits for the build that goes on in the server
      end
      assert.are.equal(1, db:value [[select count(*) from moonbird.journal where target = 'tenant_001'
        and version = 3 and event = 'start']])
      assert(locker:simple "rollback")
      helper.eventually("the build ends", function()
        return db:value [[select count(*) = 0 from pg_stat_activity where query like 'create index concurrently%'
          and state = 'active' and datname = current_database()]]
      end)
      if how == "stands still" then
        task.sleep(500) -- the other one must not take it for dead
        builder:kill "CONT"
      end
      all_once(3)
      all_indexed()
    end))

    it("is run once when its process " .. how .. " meanwhile: a transaction", async(function()
      children = begin(SLOW)
      db:exec "insert into public.slow values ('tenant_003', 4)"
      local runner = helper.eventually("it runs", function()
        return db:value [[select count(*) > 0 from pg_stat_activity where wait_event = 'PgSleep'
          and datname = current_database()]] and holder "tenant_003"
      end)
      runner:kill(how == "is killed" and "KILL" or "STOP")
      helper.eventually("the other one has claimed it", function()
        return claims "tenant_003" >= 2
      end)
      if how == "stands still" then
        helper.eventually("the transaction ends", function()
          return db:value [[select count(*) = 0 from pg_stat_activity where wait_event = 'PgSleep'
            and datname = current_database()]]
        end)
        runner:kill "CONT"
      end
      all_once(3)
      assert.are.equal(6, db:value "select count(*) from public.ran where version = 3")
    end))
  end
end)
