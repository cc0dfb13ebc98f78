--- The parts of a tenant run: the queue and its budget, the pool and its caps, what is worth another try, what the
-- states of many targets are.
local backfill_of = require "moonbird.exec.backfill.tenants"
local error_ = require "moonbird.core.error"
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local journal = require "moonbird.core.journal"
local nontransactional = require "moonbird.exec.nontransactional"
local one = require "moonbird.exec.tenants.one"
local pace_of = require "moonbird.exec.tenants.pace"
local pool_of = require "moonbird.exec.tenants.pool"
local queue_of = require "moonbird.exec.tenants.queue"
local session_of = require "moonbird.core.session"
local stage_of = require "moonbird.exec.tenants.stage"
local state_of = require "moonbird.exec.tenants.state"
local task = require "moonbird.core.task"
local tenants_report = require "moonbird.report.tenants"
local async = helper.async

local function named(count)
  local list = {}
  for i = 1, count do
    list[i] = { name = "t" .. i }
  end
  return list
end

local function names(list)
  local words = {}
  for i, tenant in ipairs(list) do
    words[i] = tenant.name
  end
  return table.concat(words, " ")
end

local ENDLESS = { max_failures = math.huge, max_consecutive = math.huge }

describe("the queue", function()
  local function boom(line, sqlstate)
    return error_.new("sql", "made up", { sqlstate = sqlstate or "22012", file = "a.sql", line = line or 1 })
  end

  it("gives each tenant once, in order, and then ends", async(function()
    local queue = queue_of.new(named(3), ENDLESS)
    for i = 1, 3 do
      local tenant = queue:take()
      assert.equal("t" .. i, tenant.name)
      queue:done(tenant, 1)
    end
    assert.is_nil(queue:take())
    assert.same({ 3, 0, 0 }, { queue.finished, queue.running, queue.waiting })
    assert.same({}, queue:left())
  end))

  it("gives what was put off again, not before its time, soonest first", async(function()
    local queue = queue_of.new(named(3), ENDLESS)
    local a, b, c = queue:take(), queue:take(), queue:take()
    queue:later(a, boom(), 60)
    queue:later(b, boom(), 20)
    queue:done(c, 1)
    local tenant, wait = queue:take()
    assert.is_nil(tenant)
    assert.is_true(wait > 0 and wait <= 250)
    local order = {}
    while #order < 2 do
      tenant, wait = queue:take()
      if tenant then
        order[#order + 1] = tenant.name
        queue:done(tenant, 1)
      else
        assert(task.sleep(wait))
      end
    end
    assert.same({ "t2", "t1" }, order)
    assert.is_nil((queue:take()))
    assert.equal(3, queue.finished)
  end))

  it("admits none when it is halted, and tells who is left", async(function()
    local queue = queue_of.new(named(5), ENDLESS)
    local a, b = queue:take(), queue:take()
    queue:done(a, 1)
    queue:later(b, boom(), 0)
    queue:halt "made up"
    queue:halt "another reason"
    assert.equal("made up", queue.halted)
    assert.is_nil((queue:take()))
    assert.equal("t3 t4 t5 t2", names(queue:left()))
    assert.equal(4, queue.waiting)
  end))

  it("gives back what was not begun", async(function()
    local queue = queue_of.new(named(2), ENDLESS)
    queue:give_back(queue:take())
    assert.equal(2, queue.waiting)
    assert.equal(0, queue.running)
    assert.equal(2, #queue:left())
  end))

  local function fail(queue, count, line)
    for i = 1, count do
      local tenant = queue:take()
      if not tenant then
        return i - 1
      end
      queue:failed(tenant, boom(line))
    end
    return count
  end

  it("halts at the first failure over the budget", async(function()
    local queue = queue_of.new(named(9), { max_failures = 0, max_consecutive = 5 })
    assert.equal(1, fail(queue, 9))
    queue = queue_of.new(named(9), { max_failures = 3, max_consecutive = 50 })
    assert.equal(4, fail(queue, 9))
    assert.equal(5, #queue:left())
  end))

  it("counts the failures of earlier waves", async(function()
    local queue = queue_of.new(named(9), { max_failures = 3, max_consecutive = 50 }, { {}, {} })
    assert.equal(2, fail(queue, 9))
  end))

  it("halts at failures in a row, and a success begins the count anew", async(function()
    local queue = queue_of.new(named(20), { max_failures = 100, max_consecutive = 3 })
    assert.equal(2, fail(queue, 2))
    queue:done(queue:take(), 1)
    assert.equal(3, fail(queue, 20))
    assert.truthy(queue.halted:find("3 failed in a row", 1, true))
  end))

  it("halts at equal errors at one place, where that is wanted", async(function()
    local budget = { max_failures = 100, max_consecutive = 100, same_error = 3 }
    local queue = queue_of.new(named(20), budget)
    for line = 1, 5 do
      assert.equal(1, fail(queue, 1, line))
    end
    assert.is_nil(queue.halted)
    assert.equal(2, fail(queue, 9, 1))
    assert.truthy(queue.halted:find("same error", 1, true))
  end))
end)

describe("an error", function()
  it("is worth another try when another try may not meet it", function()
    for _, sqlstate in ipairs { "55P03", "40P01", "40001", "57P01", "57P03", "08006", "08001", "53300", "53200" } do
      assert.is_true(one.retryable(error_.new("sql", "made up", { sqlstate = sqlstate })), sqlstate)
    end
    for _, code in ipairs { "locked", "history_moved", "connection_lost", "connect" } do
      assert.is_true(one.retryable(error_.new(code, "made up")), code)
    end
  end)

  it("is not when it would come again", function()
    for _, sqlstate in ipairs { "23514", "42P01", "22012", "3D000", "28P01", "42501", "57014" } do
      assert.is_false(one.retryable(error_.new("sql", "made up", { sqlstate = sqlstate })), sqlstate)
    end
    assert.is_false(one.retryable(error_.new("connect", "made up", { sqlstate = "28P01" })))
    assert.is_false(one.retryable(error_.new("policy", "made up")))
    assert.is_false(one.retryable(error_.new("script", "made up")))
  end)
end)

describe("equal errors", function()
  it("are one group: names and numbers in the message make no difference", function()
    local failures = {}
    local function add(name, message, fields)
      failures[#failures + 1] = { tenant = { name = name }, err = error_.new("sql", message, fields) }
    end
    for i = 1, 4 do
      add("a" .. i, ('relation "t_%d.users" has %d rows'):format(i, i * 10), { sqlstate = "23514", migration = "1_a", line = 3 })
    end
    add("b1", 'relation "x" has 3 rows', { sqlstate = "23505", migration = "1_a", line = 3 })
    add("c1", 'relation "x" has 3 rows', { sqlstate = "23514", migration = "2_b", line = 3 })
    local groups = tenants_report.groups(failures)
    assert.equal(3, #groups)
    assert.same({ "a1", "a2", "a3", "a4" }, groups[1].tenants)
    assert.same({ "b1" }, groups[2].tenants)
    assert.same({ "c1" }, groups[3].tenants)
  end)
end)

describe("the pool", function()
  local opened, most_in, doors

  --- A database whose server takes its time to open and to end a session.
  local function database(key, server)
    local here = 0
    return { key = key, server = server or "one", label = key, run = {
      connect = function(_, _)
        if doors[key] == "closed" then
          return nil, error_.new("connect", "refused")
        end
        task.sleep(2)
        opened, here = opened + 1, here + 1
        most_in[key] = math.max(most_in[key] or 0, here)
        local session = { doomed = false }
        local closed = false
        function session.close()
          if not closed then
            opened, here, closed = opened - 1, here - 1, true
          end
        end
        function session.leave()
          task.sleep(2)
          session.close()
        end
        function session.state()
          return "idle"
        end
        return session
      end,
    } }
  end

  before_each(function()
    opened, most_in, doors = 0, {}, {}
  end)

  --- Many tasks take and give; -> the most that were open.
  local function crowd(pool, databases, tasks, rounds)
    local most, jobs = 0, {}
    for i = 1, tasks do
      jobs[i] = task.spawn(function()
        for round = 1, rounds do
          local where = databases[(i * 7 + round) % #databases + 1]
          local session = assert(pool:take(where))
          most = math.max(most, opened)
          task.sleep(1)
          pool:give(where, session)
        end
      end)
    end
    for _, job in ipairs(jobs) do
      local _, err = job:join()
      assert(not err, err)
    end
    return most
  end

  it("reuses sessions", async(function()
    local pool, where = pool_of.new {}, database "a"
    local first = pool:take(where)
    pool:give(where, first)
    assert.equal(first, pool:take(where))
    pool:give(where, first)
    pool:close()
    assert.equal(0, opened)
    assert.is_nil(pool:leaked())
  end))

  it("keeps to the cap of a database", async(function()
    local pool = pool_of.new { per_database = 2 }
    local most = crowd(pool, { database "a" }, 10, 5)
    assert.equal(2, most)
    assert.equal(2, pool.most)
    pool:close()
    assert.equal(0, opened)
  end))

  it("keeps to the cap of a server over many databases, and all get their turn", async(function()
    local pool, list = pool_of.new { per_server = 3 }, {}
    for i = 1, 12 do
      list[i] = database("d" .. i)
    end
    assert.is_true(crowd(pool, list, 10, 8) <= 3)
    pool:close()
    assert.equal(0, opened)
    assert.is_nil(pool:leaked())
  end))

  it("keeps to both caps while sessions end", async(function()
    local pool, list = pool_of.new { per_server = 3, per_database = 1 }, { database "a", database "b", database "c",
      database "d" }
    assert.is_true(crowd(pool, list, 12, 10) <= 3)
    assert.same({ a = 1, b = 1, c = 1, d = 1 }, most_in)
    pool:leave()
    assert.equal(0, opened)
    assert.is_nil(pool:leaked())
  end))

  it("gives the place back that a refused connection had taken", async(function()
    local pool, where = pool_of.new { per_database = 1 }, database "a"
    doors.a = "closed"
    for _ = 1, 3 do
      local session, err = pool:take(where)
      assert.is_nil(session)
      assert.equal("connect", err.code)
    end
    doors.a = nil
    pool:give(where, assert(pool:take(where)))
    pool:close()
    assert.is_nil(pool:leaked())
  end))

  it("closes a session that is doomed or old", async(function()
    local pool, where = pool_of.new {}, database "a"
    local session = pool:take(where)
    session.doomed = true
    pool:give(where, session)
    assert.equal(0, opened)
    local before = pool:take(where)
    pool:give(where, before)
    local renewed
    for _ = 1, 1500 do
      local now = pool:take(where)
      renewed = renewed or now ~= before
      pool:give(where, now)
    end
    assert.is_true(renewed)
    pool:close()
    assert.equal(0, opened)
  end))

  it("leaves a lent session open", async(function()
    local pool, where = pool_of.new {}, database "a"
    local lent = assert(where.run:connect())
    pool:lend(where, lent)
    assert.equal(lent, pool:take(where))
    pool:give(where, lent)
    pool:close()
    assert.equal(1, opened)
    assert.is_nil(pool:leaked())
  end))

  it("gets back the session of a turn in which something was raised, and nobody uses it again", async(function()
    local where, ended = database "a", {}
    local report = setmetatable({ tenant_failed = function(_, _, err)
      ended[#ended + 1] = err.code
    end }, { __index = function()
      return function() end
    end })
    local function raising()
      error("made up", 0)
    end
    local pool = pool_of.new { per_database = 1 }
    local list = named(3)
    for _, tenant in ipairs(list) do
      tenant.database = where
    end
    local queue = queue_of.new(table.move(list, 1, 3, 1, {}), ENDLESS)
    assert(stage_of.run_wave { queue = queue, pool = pool, stage = { steps = {} }, report = report, attempts = 1,
      jobs = 2, prepare = raising })
    assert.same({ "internal", "internal", "internal" }, ended)
    assert.same({ 0, 0 }, { pool.open, opened })

    -- Those that take turns: the fake sessions can't be asked anything.
    local turns = backfill_of.run({ pool = pool, databases = {}, flush = function()
      return true
    end }, { steps = {} }, list, { jobs = 2, settings = {}, report = report })
    assert.same({ 3, 0, 0 }, { #turns.failures, pool.open, opened })

    -- One that is lent is closed as well: its owner opens another.
    local lent = assert(where.run:connect())
    pool:lend(where, lent)
    list[1].session = pool:take(where)
    pool:abandon(list[1])
    pool:close()
    assert.same({ 0, 0 }, { pool.open, opened })
  end))

  it("stops waiting when its task is asked to stop", async(function()
    local pool, where = pool_of.new { per_database = 1 }, database "a"
    local session = pool:take(where)
    local got, err
    local job = task.spawn(function()
      got, err = pool:take(where)
    end)
    task.sleep(30)
    job:cancel "interrupted"
    job:join()
    assert.is_nil(got)
    assert.equal("interrupted", err.code)
    pool:give(where, session)
    pool:close()
    assert.is_nil(pool:leaked())
  end))
end)

describe("the lease of a step", function()
  it("ends with an attempt in which something is raised", function()
    local closed = false
    local lease = { simple = function()
      return {}
    end, close = function()
      closed = true
    end }
    local target = { name = "t1", head = 0, run = { connect = function()
      return lease
    end, journal = { enter_text = tostring, keep_text = tostring } }, wait_until_free = function()
      error("made up", 0)
    end }
    local ok, err = pcall(nontransactional.attempt, target, {}, {})
    assert.same({ false, "made up", true }, { ok, err, closed })
  end)
end)

describe("the pace", function()
  local function alone(shared)
    local pace = pace_of.new(1, shared)
    pace.running = 1
    return pace
  end

  it("blames a shortage on those that run beside, if any", function()
    local pace = alone(false)
    assert.is_false((pace:short(task.now())))
    pace.running = 2
    assert.is_true((pace:short(task.now())))
  end)

  it("blames it on the other processes of a fleet, for as long as none goes well", async(function()
    local before = pace_of.SHARED_MS
    helper.defer(function()
      pace_of.SHARED_MS = before
    end)
    pace_of.SHARED_MS = 200
    local pace = alone(true)
    assert.is_true((pace:short(task.now())))
    task.sleep(250)
    assert.is_false((pace:short(task.now())))
    pace:good()
    assert.is_true((pace:short(task.now())))
  end))
end)

describe("the states of many targets", function()
  local db, book

  setup(async(function()
    db = helper.database { scope = "file" }
    local dir = helper.project({ ["migrations/001_a.sql"] = "-- migrate:up\nselect 1;\n-- migrate:down\n" }, { scope = "file" })
    helper.ok({ "up" }, { db = db, cwd = dir })
    db:disconnect()
    book = journal.new "moonbird"
  end))

  local function append(session, target, head, version, event, applies, more)
    local fields = { event = event, applies = applies, version = version, version_text = tostring(version),
      id = version .. "_x", name = "x", direction = "up", outcome = "done", scope = "tenant",
      checksum = ("%064d"):format(version), engine = "test", run = "test" }
    for key, value in pairs(more or {}) do
      fields[key] = value
    end
    assert(book:append(session, target, head, fields))
  end

  it("are those that reading each of them gives, whatever their histories", async(function()
    local session = assert(session_of.open(db.params))
    helper.defer(function()
      session:close()
    end)
    math.randomseed(11)
    local targets = {}
    for i = 1, 40 do
      local name = i == 7 and 'we "quote", it\\' or i == 8 and "ümlaut {a,b}" or "t" .. i
      targets[i] = name
      local head, there = 0, {}
      for _ = 1, i % 5 == 0 and 0 or math.random(8) do
        local version = math.random(4)
        if there[version] then
          append(session, name, head, version, "revert", false, { direction = "down" })
        else
          append(session, name, head, version, "apply", true)
        end
        there[version] = not there[version]
        head = head + 1
      end
      if i % 7 == 0 then
        append(session, name, head, 9, "fail", nil, { outcome = "failed", error = "made up", sqlstate = "22012" })
      end
    end
    local states = assert(state_of.read(book, session, targets))
    for i, name in ipairs(targets) do
      local single = assert(book:read(session, name))
      local bulk = states[name] or state_of.empty()
      assert.equal(single.head, bulk.head, name)
      local expected, got = {}, {}
      for version, row in pairs(single.applied) do
        expected[version] = { row.id, row.checksum, row.scope }
      end
      for version, row in pairs(bulk.applied) do
        got[version] = { row.id, row.checksum, row.scope }
      end
      assert.same(expected, got, name)
      assert.equal(i % 7 == 0, #bulk.open > 0, name .. " " .. json.encode(bulk.open))
    end
  end))

  it("are read in a number of queries that does not depend on how many they are", async(function()
    local session = assert(session_of.open(db.params))
    helper.defer(function()
      session:close()
    end)
    local counts = {}
    for _, count in ipairs { 3, 300 } do
      local targets, queries = {}, 0
      for i = 1, count do
        targets[i] = "many" .. i
      end
      local counting = setmetatable({ query = function(_, ...)
        queries = queries + 1
        return session:query(...)
      end }, { __index = session })
      assert(state_of.read(book, counting, targets))
      counts[#counts + 1] = queries
    end
    assert.equal(counts[1], counts[2])
    assert.is_true(counts[1] <= 4)
  end))

  it("are none where there is no journal", async(function()
    local other = helper.database()
    assert.same({}, state_of.read(book, other:session(), { "a", "b" }))
  end))
end)
