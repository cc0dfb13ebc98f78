--- The client is killed while the server still works for it: what was sent goes on and commits. The next run
-- must wait for that and go on from there, not do it a second time beside it.
-- The same on every server.
local helper = require "tests.helper"

local blocks = {
  ["a block with COMMITs of its own"] = { ["migrations/001_slow.sql"] = [[
-- migrate:up transaction:false
begin; insert into log values ('first'); select pg_sleep(1.5); commit;
begin; insert into log values ('second'); commit;
-- migrate:down
]] },
  ["a block that is one transaction"] = { ["migrations/001_slow.sql"] = [[
-- migrate:up transaction:false
insert into log values ('first'); select pg_sleep(1.5); insert into log values ('second');
-- migrate:down
]] },
  ["a migration in one transaction"] = { ["migrations/001_slow.sql"] = [[
-- migrate:up
insert into log values ('first'); select pg_sleep(1.5); insert into log values ('second');
-- migrate:down
]] },
  ["a Lua migration without a transaction"] = { ["migrations/001_slow.lua"] = [[
return {
  description = "slow", transaction = false, irreversible = "a test",
  up = function(db)
    db:exec("insert into log select 'first' from pg_sleep(1.5)")
    db:exec("insert into log values ('second')")
  end,
}
]] },
}

describe("a server that works on for a killed client", function()
  for name, files in pairs(blocks) do
    it("is waited for: " .. name, helper.async(function()
      local dir, db = helper.project(files), helper.database()
      db:exec "create table log (what text)"
      local child = helper.spawn({ "up" }, { db = db, cwd = dir })
      helper.eventually("the statement runs", function()
        return db:value "select count(*) from pg_stat_activity where query like '%pg_sleep(1.5)%' and state = 'active' \z
          and pid <> pg_backend_pid()" > 0
      end)
      child:kill("KILL")
      child:wait()
      helper.ok({ "up" }, { db = db, cwd = dir })
      assert.are.equal("first second", db:value "select string_agg(what, ' ' order by what) from log")
      assert.are.equal(1, db:value "select count(*) from moonbird.journal where event = 'apply' and target = 'global'")
      assert.are.equal(0, db:value "select count(*) from moonbird.verify()")
    end))
  end
end)
