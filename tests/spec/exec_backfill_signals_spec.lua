-- Sampling a server for the throttles of backfills: what the queries give on a real server, for a role that sees all
-- and for one that does not.
local helper = require "tests.helper"
local process = require "moonbird.core.process"
local sample_of = require "moonbird.exec.backfill.sample"
local signals = require "moonbird.exec.backfill.signals"
local session = require "moonbird.core.session"
local task = require "moonbird.core.task"
local async = helper.async

describe("the archiver's distance", function()
  local SEGMENT = 16 << 20

  local function row(last, now, more)
    local fields = { on = true, last = last, now = now, segment = SEGMENT }
    for k, v in pairs(more or {}) do
      fields[k] = v
    end
    return fields
  end

  it("is counted in files, over the end of a log", function()
    assert.are.same({ files = 0, failing = false }, sample_of.archive(row("000000010000000000000004",
      "000000010000000000000005")))
    assert.are.same({ files = 6, failing = true }, sample_of.archive(row("0000000100000000000000FE",
      "000000010000000100000005", { failing = true })))
    assert.are.equal(2, sample_of.archive(row("00000001000000000000003E", "000000010000000100000001",
      { segment = 64 << 20 })).files)
    assert.are.equal(3, sample_of.archive(row("000000010000000000000004", "000000020000000000000008")).files)
  end)

  it("is not known where nothing is archived, or was yet", function()
    assert.is_nil(sample_of.archive(row(nil, "000000010000000000000005")))
    assert.is_nil(sample_of.archive(row("00000002.history", "000000010000000000000005")))
    assert.is_nil(sample_of.archive(row("000000010000000000000004", "000000010000000000000005", { on = false })))
  end)
end)

describe("a sampler", function()
  local db, logged, handles

  --- A job as the throttle sees one.
  local function job(options, params, pids)
    local workers = {}
    options.reconnect = options.reconnect or 600000
    for i, pid in ipairs(pids or {}) do
      workers[i] = { session = { pid = function()
        return pid
      end } }
    end
    return {
      options = options, workers = workers, place = { leaves = {} }, step = { migration = { file = "x.lua" } },
      state = { target = "global", version = #handles + 1 }, store = { quoted = "moonbird",
        set_throttle = function()
          return true
        end },
      target = { name = "global", vars = {} }, checks = 0,
      size = { sampled = function(self, waiting)
        self.waited = waiting
      end },
      check = function(self)
        self.checks = self.checks + 1
      end,
      limit = function() end,
      run = { params = params, report = { log = function(_, level, message)
        logged[#logged + 1] = level .. ": " .. message
      end }, connect = function(_, name)
        local own = { application_name = name }
        for k, v in pairs(params) do
          own[k] = own[k] or v
        end
        return session.open(own)
      end },
    }
  end

  local function throttle(...)
    local handle = assert(signals.throttle(job(...)))
    handles[#handles + 1] = handle
    return handle
  end

  --- How to connect as a role of the test's own.
  local function as_role(name)
    local params = {}
    for k, v in pairs(db.params) do
      params[k] = v
    end
    params.user = name .. "_" .. db.name
    db:exec(("create role %s login"):format(params.user))
    helper.defer(function()
      db:exec(("drop role %s"):format(params.user))
    end)
    return params
  end

  before_each(async(function()
    db = helper.database()
    logged, handles = {}, {}
  end))

  after_each(async(function()
    for _, handle in ipairs(handles) do
      handle:close()
    end
    task.sleep(60)
  end))

  it("has a sample before the first batch, and asks the job for its time", async(function()
    local handle = throttle({ max_active = 1000 }, db.params)
    assert.are.equal("ok", (handle:verdict()))
    assert.are.equal(1, handle.job.checks)
    local sample = handle.decision.last
    assert.is_true(sample.lsn > 0)
    assert.are.same({}, sample.standbys)
    assert.are.equal("number", type(sample.active))
    assert.are.same({}, logged)
  end))

  it("sees who waits for our backends, not ourselves", async(function()
    db:exec "create table t (id int); insert into t values (1)"
    local ours, theirs = db:connect(), db:connect()
    assert(ours:query "begin")
    assert(ours:query "update t set id = 2")
    local waiting = task.spawn(function()
      theirs:query "update t set id = 3"
    end)
    helper.eventually("somebody waits", function()
      return db:value "select count(*) from pg_stat_activity where wait_event_type = 'Lock'" == 1
    end)
    local handle = throttle({ max_blocked = 1 }, db.params, { ours:pid() })
    local level, reason = handle:verdict()
    assert.are.equal("stop", level)
    assert.is_true(handle.job.size.waited)
    assert.truthy(reason:find("^1 session waits for our locks %(pid %d+, moonbird%-tests; limit 1%)$"), reason)
    assert(ours:query "rollback")
    waiting:join()
    helper.eventually("it goes on", function()
      return handle:verdict() ~= "stop"
    end)
    assert.is_false(handle.job.size.waited)
    local other = throttle({ max_blocked = 1 }, db.params, { 1 })
    assert.are.equal("ok", (other:verdict()))
  end))

  it("sees the oldest snapshot, and whose it is", async(function()
    local old = db:connect { application_name = "report" }
    assert(old:query "begin isolation level repeatable read")
    assert(old:query "select 1 from pg_class limit 1")
    task.sleep(150)
    local level, reason = throttle({ max_snapshot = 100 }, db.params):verdict()
    assert.are.equal("stop", level)
    assert.truthy(reason:find("(report) has had a transaction open for", 1, true), reason)
    assert(old:query "rollback")
  end))

  it("looks how late sessions wake up while others are at work, and rests after a batch", async(function()
    local handle = throttle({ max_delay = 0.5 }, db.params)
    local server = handle.decision.server
    task.sleep(200)
    assert.are.equal(0, server:delay(0.5).seen) -- nobody is
    assert.is_true(handle:admit())
    handle:ended()
    assert.are.equal(0, handle.decision:rest(task.now()))
    local other = db:connect()
    local working = task.spawn(function()
      other:query "select count(*) from generate_series(1, 1000000000::bigint)"
    end)
    local level, reason
    helper.eventually("it gives way", function()
      level, reason = handle:verdict()
      return level == "slow"
    end)
    assert.are.equal("looks how others at work bear it: batches take 1% of the time (option max_delay)", reason)
    helper.eventually("it has looked", function()
      return server:delay(0.5).usual
    end)
    assert.is_true(server:delay(0.5).usual >= 2, server:delay(0.5).usual)
    assert.is_true(handle:admit())
    task.sleep(5)
    handle:ended()
    assert.is_true(handle.decision:rest(task.now()) > 0)
    assert.is_true(handle:admit())
    assert.are.equal(1, #server.spells + server.flight - 1) -- it has waited for the rest
    handle:ended()
    handle.job.stopping = true
    assert.is_false((handle:admit())) -- no rest outlasts the end
    handle.job.stopping = nil
    db:exec(("select pg_cancel_backend(%d)"):format(other:pid()))
    working:join()
    helper.eventually("nobody is at work", function()
      return (handle:verdict()) == "ok" and not handle.decision:rests()
    end)
  end))

  local function signal(name, pid)
    assert.are.equal(0, assert(process.run { file = "kill", args = { "-" .. name, tostring(pid) } }).status)
  end

  it("takes less of the time for batches that make others late", async(function()
    local other = db:connect()
    local working = task.spawn(function()
      other:query "select count(*) from generate_series(1, 1000000000::bigint)"
    end)
    local handle = throttle({ max_delay = 0.5 }, db.params)
    local server = handle.decision.server
    helper.eventually("it has looked", function()
      return server:delay(0.5).usual
    end)
    -- What a batch would do to others: while it is under way the one that looks does not get its turn, for longer than
    -- sleeps last on this machine without it.
    local pid = db:value "select pid from pg_stat_activity where application_name = 'backfill-throttle'"
    local level, reason
    helper.eventually("it has seen it", function()
      server:began(task.now())
      signal("STOP", pid)
      task.sleep(math.ceil(100 + 2 * server:delay(0.5).late_by))
      signal("CONT", pid)
      task.sleep(10)
      server:ended(task.now())
      task.sleep(30)
      level, reason = handle:verdict() -- as of the last sample: what is known goes on meanwhile
      return reason and reason:find("^others wait longer than [%d.]+m?s for the processor in .*: batches take %d+%% of the "
        .. "time %(option max_delay%)$"), reason
    end, 60)
    assert.are.equal("slow", level)
    db:exec(("select pg_cancel_backend(%d)"):format(other:pid()))
    working:join()
  end))

  it("does without where the server does not let it sleep", async(function()
    local params = as_role "sleepless"
    db:exec(("grant pg_read_all_stats to %s; revoke execute on function pg_sleep(float8) from public"):format(params.user))
    local handle = throttle({ max_delay = 0.5 }, params)
    local server = handle.decision.server
    server.others = 100 -- for some samples
    helper.eventually("it has tried", function()
      return server.unmeasured
    end)
    assert.is_false(handle.decision:rests())
    assert.truthy(logged[#logged]:find("the throttle can't see delay: permission denied", 1, true), logged[#logged])
  end))

  it("tells the time in the server's zone and in others, and survives one that is not known", async(function()
    local here = throttle({ between = "00:00-24:00" }, db.params)
    assert.are.equal("ok", (here:verdict()))
    local there = throttle({ between = "00:00-24:00", time_zone = "Asia/Kolkata" }, db.params)
    assert.are.equal("ok", (there:verdict()))
    local minutes = there.decision.last.minutes["Asia/Kolkata"]
    local server = db:value "select extract(epoch from (clock_timestamp() at time zone 'Asia/Kolkata')::time)::float8 / 60"
    assert.is_true(math.abs(minutes - server) < 1 or math.abs(minutes - server) > 1438)
    local level, reason = throttle({ between = "00:00-24:00", time_zone = "Mars/Olympus" }, db.params):verdict()
    assert.are.equal("stop", level)
    assert.truthy(reason:find("in Mars/Olympus", 1, true), reason)
    level, reason = here:verdict()
    assert.are.equal("ok", level, reason)
  end))

  it("shares one connection among the backfills of a server, and closes it after the last", async(function()
    local first, second = throttle({}, db.params), throttle({}, db.params)
    local function connections()
      return db:value "select count(*) from pg_stat_activity where application_name = 'backfill-throttle'"
    end
    assert.are.equal(1, connections())
    first:close()
    task.sleep(100)
    assert.are.equal(1, connections())
    second:close()
    helper.eventually("it is closed", function()
      return connections() == 0
    end)
  end))

  it("gets another connection when its own is ended", async(function()
    local handle = throttle({}, db.params)
    local looks = handle.decision.looks
    db:exec "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'backfill-throttle'"
    helper.eventually("it looks again", function()
      return handle.decision.looks > looks + 1
    end)
    assert.truthy(handle.decision.problem)
    assert.are.equal("ok", (handle:verdict()))
  end))

  it("goes by what it sees as an ordinary role, and says what it does not see", async(function()
    local handle = throttle({ max_lag = 1, max_active = 1000, max_blocked = 1, max_snapshot = 3600000 },
      as_role "plain")
    assert.are.equal("ok", (handle:verdict()))
    assert.are.equal(1, #logged)
    assert.truthy(logged[1]:find("grant pg_read_all_stats", 1, true), logged[1])
  end))
end)
