--- Leaving a server: leave() is done after the backend is.
local helper = require "tests.helper"
local task = require "moonbird.core.task"
local async = helper.async

-- How many temporary tables a backend has to drop when its client is gone.
local TABLES = 300

describe("a session that leaves", function()
  local db

  before_each(async(function()
    db = helper.database()
  end))

  local function is_there(pid)
    return db:value("select count(*)::int from pg_stat_activity where pid = $1", pid) == 1
  end

  --- A session whose backend takes its time to end.
  local function slow_to_go()
    local made = db:connect()
    assert(made:query(([[do $$ begin for i in 1..%d loop
      execute format('create temporary table t%%s (id int primary key)', i); end loop; end $$]]):format(TABLES)))
    return made, made:pid()
  end

  --- A session whose backend is at work when its client goes, and does not notice.
  local function at_work()
    local made = db:connect()
    local pid = made:pid()
    helper.defer(function()
      db:query("select pg_terminate_backend($1)", pid)
    end)
    assert(made:send_ahead("select pg_sleep(120)", {}))
    helper.eventually("it is at work", function()
      return db:value("select state from pg_stat_activity where pid = $1", pid) == "active"
    end)
    return made, pid
  end

  it("waits until its backend has ended", async(function()
    local made, pid = slow_to_go()
    made:leave()
    assert.is_false(is_there(pid))
    assert.equal("closed", made:state())
  end))

  it("that is closed already has nothing to wait for", async(function()
    local made = at_work()
    made:close()
    local began = task.now()
    made:leave()
    assert.is_true(task.now() - began < 1900)
    assert.equal("closed", made:state())
  end))

  it("waits no longer than it may for one that does not end", async(function()
    local made, pid = at_work()
    assert.is_true(task.within(30000, function()
      made:leave()
      return true
    end))
    assert.is_nil(task.take_cancel())
    assert.is_true(is_there(pid))
  end))

  it("ends at once when it is to stop, and the request is still there", async(function()
    local made, pid = at_work()
    local began = task.now()
    local leaving = task.spawn(function()
      made:leave()
      return task.now() - began, task.take_cancel()
    end)
    task.sleep(20)
    leaving:cancel "interrupted"
    local took, err = leaving:join()
    assert.is_true(took < 1900, took .. " ms")
    assert.equal("interrupted", err.code)
    assert.is_true(is_there(pid))
  end))

  it("is over when the server is", async(function()
    local made, pid = at_work()
    local leaving = task.spawn(function()
      made:leave()
      return true
    end)
    task.sleep(20)
    db:query("select pg_terminate_backend($1)", pid)
    assert.is_true(leaving:join())
    assert.is_false(is_there(pid))
  end))
end)
