-- What a backfill's throttle decides from samples of a server: levels, reasons, pauses, hysteresis.
local limits = require "moonbird.migration.backfill_limits"
local throttle = require "moonbird.exec.backfill.throttle"

local MB = 1 << 20

describe("a backfill's throttle", function()
  local clock

  local function sample(fields)
    clock = clock + 1000
    local all = { at = clock, lsn = clock * 1000, standbys = {}, slots = {} }
    for name, value in pairs(fields or {}) do
      all[name] = value
    end
    return all
  end

  local function standby(bytes, ms, name)
    return { name = name or "r1", bytes = bytes, ms = ms }
  end

  local function look(one, fields)
    one:look(sample(fields))
    return one:verdict(clock)
  end

  before_each(function()
    clock = 100000
  end)

  it("lets a quiet server be worked on", function()
    local one = throttle.new { max_lag = 64 * MB, max_lag_time = 30000, max_blocked = 5 }
    assert.are.equal("ok", (look(one, { standbys = { standby(0) }, blocked = { count = 0 }, active = 3 })))
  end)

  it("stops where nothing has been seen, and when that was long ago", function()
    local one = throttle.new {}
    local level, reason = one:verdict(clock)
    assert.are.equal("stop", level)
    assert.truthy(reason:find("not been seen", 1, true))
    assert.are.equal("ok", (look(one)))
    assert.are.equal("ok", (one:verdict(clock + 4900)))
    assert.are.equal(0, one:unseen(clock))
    one:blind("connection refused", clock + 100)
    one:blind("connection refused", clock + 1100)
    assert.are.equal(2000, one:unseen(clock + 2100))
    level, reason = one:verdict(clock + 6000)
    assert.are.equal("stop", level)
    assert.are.equal("the server has not been seen for 6s: connection refused", reason)
    look(one)
    assert.are.equal(0, one:unseen(clock + 9000))
  end)

  it("names the standby, how far it is and the limit", function()
    local one = throttle.new { max_lag = 64 * MB }
    local level, reason = look(one, { standbys = { standby(1), standby(80 * MB, nil, "berlin") } })
    assert.are.equal("stop", level)
    assert.are.equal("standby berlin is 80 MB behind (limit 64 MB)", reason)
  end)

  it("is slow from a half on, and takes a while to say less again", function()
    local one = throttle.new { max_lag = 100 * MB }
    local function at(mb)
      return (look(one, { standbys = { standby(mb * MB) }, lsn = 1 }))
    end
    assert.are.equal("ok", at(49))
    assert.are.equal("slow", at(50))
    assert.are.equal("slow", at(40)) -- above 35
    assert.are.equal("stop", at(100))
    assert.are.equal("stop", at(75)) -- above 70
    assert.are.equal("slow", at(69))
    local _, _, pause = one:verdict(clock)
    assert.is_true(pause > 0)
    for _ = 1, 30 do
      at(10)
    end
    assert.are.equal("ok", at(10))
  end)

  it("doubles the pause while slow, up to what the signal is worth, and takes it back in steps", function()
    local one = throttle.new { max_active = 100 }
    local pauses = {}
    for i = 1, 8 do
      pauses[i] = select(3, look(one, { active = 75 })) -- a half between slow and stop: half of 5 s
    end
    assert.are.same({ 100, 200, 400, 800, 1600, 2500, 2500, 2500 }, pauses)
    local level, reason, pause = look(one, { active = 1 })
    assert.are.same({ "slow", 2250 }, { level, pause })
    assert.are.equal("recovers: 75 active backends (limit 100)", reason)
    for _ = 1, 9 do
      level = look(one, { active = 1 })
    end
    assert.are.equal("ok", level)
  end)

  it("takes nothing to replay for no lag, whatever the server's clock says", function()
    local one = throttle.new { max_lag_time = 1000 }
    assert.are.equal("ok", (look(one, { standbys = { standby(0, 90000) } })))
    assert.are.equal("ok", (look(one, { standbys = { standby(0, nil) } })))
    local level, reason = look(one, { standbys = { standby(100, 90000) } })
    assert.are.equal("stop", level)
    assert.truthy(reason:find("standby r1 is 90s behind (limit 1s)", 1, true)
      or reason:find("standby r1 is 1m 30s behind (limit 1s)", 1, true), reason)
  end)

  it("tells the time a standby is behind from earlier samples where the server does not", function()
    local one = throttle.new { max_lag_time = 10000 }
    local level, reason
    for i = 1, 14 do
      level, reason = look(one, { lsn = i * 1000, standbys = { standby((i - 1) * 1000) } }) -- it stands at 1000
      assert.are.equal(i >= 12 and "stop" or i >= 7 and "slow" or "ok", level, i .. ": " .. tostring(reason))
    end
  end)

  it("passes over standbys and slots that it is told to", function()
    local one = throttle.new { max_lag = MB, max_retained = MB, ignore_standbys = "delayed,old_slot" }
    assert.are.equal("ok", (look(one, { standbys = { standby(99 * MB, nil, "delayed") },
      slots = { { name = "old_slot", bytes = 99 * MB } } })))
    assert.are.equal("stop", (look(one, { slots = { { name = "other", bytes = 99 * MB } } })))
  end)

  it("knows slots, the archiver, WAL, sessions and snapshots", function()
    local function says(options, fields, before)
      local one = throttle.new(options)
      look(one, before)
      local level, reason = look(one, fields)
      return reason and level .. " " .. reason or level
    end
    assert.are.equal("stop slot s keeps 2 GB of WAL (limit 1 GB)",
      says({ max_retained = 1 << 30 }, { slots = { { name = "s", bytes = 2 << 30 } } }))
    assert.are.equal("stop the archiver is 40 files behind (limit 32), its command fails",
      says({ max_archive = 32 }, { archive = { files = 40, failing = true } }))
    assert.are.equal("stop the server writes 20 MB of WAL a second (limit 10 MB)",
      says({ max_wal_rate = 10 * MB }, { lsn = 20 * MB }, { lsn = 0 }))
    assert.are.equal("slow 1 session waits for our locks (pid 7, app; limit 5)",
      says({ max_blocked = 5 }, { blocked = { count = 1, who = "pid 7, app" } }))
    assert.are.equal("stop 5 sessions wait for our locks (pid 7, app; limit 5)",
      says({ max_blocked = 5 }, { blocked = { count = 5, who = "pid 7, app" } }))
    assert.are.equal("stop 50 active backends (limit 40)", says({ max_active = 40 }, { active = 50 }))
    assert.truthy(says({ max_snapshot = 60000 }, { snapshot = { ms = 120000, who = "pid 9 (pg_dump)" } })
      :find("stop pid 9 (pg_dump) has had a transaction open for 2m", 1, true))
    assert.are.equal("slow an autovacuum works on the table", says({}, { vacuum = "plain" }))
    assert.are.equal("stop an autovacuum against wraparound works on the table", says({}, { vacuum = "wraparound" }))
    assert.are.equal("ok", says({ yield_to_vacuum = false }, { vacuum = "wraparound" }))
  end)

  it("looks at nothing whose limit is 0, and at nothing that is not known", function()
    local one = throttle.new { max_lag = 0, max_lag_time = 0, max_blocked = 0, max_active = 0 }
    assert.are.equal("ok", (look(one, { standbys = { standby(1 << 40, 1e9) }, active = 1e6,
      blocked = { count = 3, who = "x" } })))
    one = throttle.new { max_lag = 1, max_lag_time = 1, max_active = 1 }
    assert.are.equal("ok", (look(one, { standbys = { { name = "hidden" } } })))
  end)

  it("keeps to its window, over midnight too", function()
    local one = throttle.new { between = "22:00-06:00, 12:30-13:00", time_zone = "Europe/Berlin" }
    local function at(h, m)
      return look(one, { minutes = { ["Europe/Berlin"] = h * 60 + m } })
    end
    assert.are.equal("ok", (at(22, 0)))
    assert.are.equal("ok", (at(0, 0)))
    assert.are.equal("ok", (at(5, 59.9)))
    assert.are.equal("ok", (at(12, 45)))
    local level, reason = at(6, 0)
    assert.are.equal("stop", level)
    assert.are.equal("it is 06:00 in Europe/Berlin, and it is to run between 22:00-06:00, 12:30-13:00 only", reason)
    assert.are.equal("stop", (at(21, 59)))
    assert.are.equal("stop", (look(one, { minutes = {} })))
    assert.is_true(throttle.within(limits.windows "18:00-24:00", 23 * 60 + 59))
    assert.is_false(throttle.within(limits.windows "18:00-24:00", 0))
  end)

  it("heeds the project's own function, and shows the worst of all reasons", function()
    local one = throttle.new { max_active = 10 }
    local level, reason = look(one, { answer = { level = "slow", reason = "queue is long" } })
    assert.are.same({ "slow", "queue is long" }, { level, reason })
    level, reason = look(one, { active = 10, answer = { level = "slow", reason = "queue is long" } })
    assert.are.same({ "stop", "10 active backends (limit 10)" }, { level, reason })
    assert.are.equal(2, #one.signals)
  end)

  it("wants a fresh look where one more batch could go over a standby's limit", function()
    local one = throttle.new { max_lag = 100 * MB }
    local function sampled(of)
      one.server:sampling()
      look(one, of)
      one.server:sampled()
    end
    sampled { lsn = 0, standbys = { standby(0) } }
    assert.is_false(one:near())
    one.server:began(0)
    assert.is_true(one:near()) -- a batch was let through, and nobody knows what it writes
    one.server:ended(0)
    sampled { lsn = 10 * MB, standbys = { standby(10 * MB) } }
    assert.is_false(one:near())
    for _ = 1, 8 do
      assert.is_false(one:near()) -- 10 MB each
      one.server:began(0)
    end
    assert.is_true(one:near())
    sampled { lsn = 20 * MB, standbys = { standby(20 * MB) } }
    assert.is_true(one:near()) -- the sample may not have seen what the eight write
    for _ = 1, 8 do
      one.server:ended(0)
    end
    sampled { lsn = 30 * MB, standbys = { standby(20 * MB) } }
    assert.is_false(one:near())
    for _ = 1, 6 do
      one.server:began(0)
      one.server:ended(0)
    end
    one.server:sampling()
    assert.is_false(one:near())
    one.server:began(0)
    assert.is_true(one:near()) -- what the sample before has not seen counts, until this one tells
    look(one, { lsn = 30 * MB, standbys = { standby(20 * MB) } })
    one.server:sampled()
    assert.is_false(one:near())
    one.server:ended(0)
    sampled { lsn = 70 * MB, standbys = { standby(50 * MB) } }
    assert.is_true(one:near()) -- from a half on always
    assert.are.equal(0, one.server.flight)
  end)

  it("looks again later and later while it says stop", function()
    local one = throttle.new { max_active = 1 }
    local last = one:interval()
    assert.are.equal(1000, last)
    for _ = 1, 30 do
      look(one, { active = 5 })
      assert.is_true(one:interval() >= last)
      last = one:interval()
    end
    assert.are.equal(5000, last)
    look(one, { active = 0 })
    assert.are.equal(1000, one:interval())
  end)

  it("takes other limits at once", function()
    local one = throttle.new { max_lag = MB }
    assert.are.equal("stop", (look(one, { standbys = { standby(2 * MB) } })))
    one:configure { max_lag = 100 * MB }
    assert.are_not.equal("stop", (look(one, { standbys = { standby(2 * MB) } })))
  end)
end)

describe("options of a backfill about the server", function()
  local definition = require "moonbird.migration.backfill"

  it("are read as text of a command line and as values of a migration", function()
    local options = assert(definition.read_options { max_lag = "64MB", max_lag_time = "5s", max_blocked = "2",
      between = "22:00-06:00", time_zone = "Europe/Berlin", yield_to_vacuum = "false", ignore_standbys = { "a", "b" },
      throttle = function() end, max_archive = 10 })
    assert.are.equal(64 * MB, options.max_lag)
    assert.are.equal(5000, options.max_lag_time)
    assert.are.equal(2, options.max_blocked)
    assert.are.equal(false, options.yield_to_vacuum)
    assert.are.equal("a,b", options.ignore_standbys)
    assert.are.equal(1 << 30, definition.settle({ options = {} }, { max_retained = "1GB" }).max_retained)
  end)

  it("are refused when they can't be meant", function()
    for _, wrong in ipairs { { between = "22-6" }, { between = "25:00-03:00" }, { between = "10:61-11:00" },
      { between = "10:00-10:00" }, { time_zone = "x'; drop" }, { max_lag = "many" }, { throttle = "ok" },
      { yield_to_vacuum = "perhaps" }, { ignore_standbys = 7 } } do
      assert.is_nil((definition.read_options(wrong)), next(wrong))
    end
  end)
end)
