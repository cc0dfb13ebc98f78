-- How much of the time batches may run beside others, from sleeps on the server that end late.
local delay_of = require "moonbird.exec.backfill.delay"
local server_of = require "moonbird.exec.backfill.server"

--- Sleeps of 2.1 ms, of which one in so many is late by 3 ms.
local function sleeps(count, one_in)
  local probes = {}
  for i = 1, count do
    probes[i] = { from = i, took = one_in and i % one_in == 0 and 5.1 or 2.1 }
  end
  return probes
end

local function always()
  return true
end

local function never()
  return false
end

describe("the share of the time for batches", function()
  local one

  before_each(function()
    one = delay_of.new(0.5)
  end)

  it("is small while nothing is known", function()
    assert.is_true(one:share() < 0.03, one:share())
    one:take(0, sleeps(50), never)
    assert.is_true(one:share() < 0.03, one:share())
    assert.are.equal("looks how others at work bear it", one:describe())
  end)

  it("grows to nearly all where batches make nobody late", function()
    one:take(0, sleeps(500), never)
    local before = one:share()
    one:take(0, sleeps(20), always)
    assert.is_true(one:share() > 5 * before and one:share() < 0.5, one:share())
    one:take(0, sleeps(300), always)
    assert.are.equal(1, one:share())
  end)

  it("is what makes one in 1000 of all sleeps late", function()
    one:take(0, sleeps(1000), never)
    one:take(0, sleeps(100000, 20), always) -- one in 20
    assert.are.equal("0.020", ("%.3f"):format(one:share()))
    assert.truthy(one:describe():find("longer than 0.5ms for the processor in 5.0% of the cases while a batch runs, in "
      .. "0.0% otherwise", 1, true), one:describe())
  end)

  it("is never less than the least", function()
    one:take(0, sleeps(1000), never)
    one:take(0, sleeps(10000, 1), always)
    assert.are.equal(delay_of.LEAST, one:share())
  end)

  it("does not blame batches for what is late without them", function()
    one:take(0, sleeps(10000, 400), never) -- few: what is late stays what it was
    one:take(0, sleeps(100000, 400), always)
    assert.are.equal(1, one:share())
  end)

  it("takes for late what is later than usual on this server", function()
    one:take(0, sleeps(2000, 20), never)
    assert.are.equal("4.5", ("%.1f"):format(one.late_by)) -- half as much again as 3 ms
    one:take(0, sleeps(10000, 5), always)
    assert.are.equal(1, one:share())
  end)

  it("takes the server's own idea of 2 ms for the usual sleep", function()
    local long = sleeps(1000)
    for _, probe in ipairs(long) do
      probe.took = 4.1
    end
    one:take(0, long, never)
    one:take(0, long, always)
    assert.are.equal(1, one:share())
  end)

  it("forgets", function()
    one:take(0, sleeps(1000), never)
    one:take(0, sleeps(1000, 10), always)
    one:take(300000, sleeps(1000), always)
    assert.are.equal(1, one:share())
    one:take(900000, {}, always)
    assert.is_true(one:share() < 0.03, one:share())
  end)
end)

describe("a server that backfills share", function()
  local server

  before_each(function()
    server = server_of.new()
  end)

  local function batch(from, to)
    server:began(from)
    server:ended(to)
  end

  it("knows when batches were under way", function()
    batch(100, 110)
    server:began(150)
    server:began(155)
    server:ended(160)
    assert.is_true(server:was_busy(170, 171)) -- one still is
    server:ended(180)
    local function busy(from, to)
      return server:was_busy(from, to)
    end
    assert.are.same({ false, true, true, true, false, true, true, false }, { busy(0, 99), busy(0, 100), busy(105, 106),
      busy(110, 120), busy(111, 149), busy(149, 151), busy(161, 170), busy(181, 190) })
    assert.are.equal(2, #server.spells)
    batch(5000, 5001)
    assert.are.equal(1, #server.spells) -- what is long ago is forgotten
  end)

  it("knows how many batches were under way from one sample to the next, and how many from beginning to end", function()
    local function sampled()
      server:sampling()
      server:sampled()
      return { server.whole, server.open, server.issued }
    end
    server:began(1)
    server:began(2)
    assert.are.same({ 0, 2, 0 }, sampled())
    server:ended(3)
    server:began(4)
    assert.are.equal(1, server.issued)
    server:ended(5)
    server:began(6)
    server:ended(7)
    assert.are.same({ 1, 1, 0 }, sampled()) -- two of three may have written before
    server:ended(8)
    assert.are.same({ 0, 0, 0 }, sampled())
    batch(9, 10)
    assert.are.same({ 1, 0, 0 }, sampled())
  end)

  it("is all for batches while nobody else is at work", function()
    assert.are.equal(1, server:share(0.5))
    for i = 0, 39 do -- somebody who looks now and then
      server:seen(i % 5 < 2 and 1 or 0)
      assert.are.equal(1, server:share(0.5))
    end
    for _ = 1, 6 do
      server:seen(1)
    end
    assert.is_true(server:share(0.5) < 0.03)
    assert.are.equal(1, server:share(0)) -- nobody asked
    assert.are.equal(1, server:share(nil))
    server:seen(nil)
    server:seen(nil)
    assert.are.equal(1, server:share(0.5))
    server:seen(4)
    assert.is_true(server:share(0.5) < 0.03)
  end)

  describe("beside others", function()
    before_each(function()
      server:seen(10)
      assert.is_true(server:crowded(0.5)) -- from now on it learns
      server:probed(0, sleeps(1000))
    end)

    --- Sleeps with a batch, of which one in so many is late.
    local function bear(one_in)
      server:began(0)
      server:probed(0, sleeps(100000, one_in))
      server:ended(0)
    end

    it("rests after a batch, the longer the less of the time batches may take", function()
      bear(20)
      assert.is_true(server:crowded(0.5))
      local share = server:share(0.5)
      assert.are.equal(0, server:wait(9000, 0.5))
      batch(9000, 9010)
      assert.are.equal("0.020", ("%.3f"):format(share))
      assert.are.equal(("%.6f"):format(10 * (1 / share - 1)), ("%.6f"):format(server:wait(9010, 0.5)))
      assert.are.equal(0, server:wait(9010 + 500, 0.5))
      batch(20000, 21000)
      assert.are.equal(5000, server:wait(21000, 0.5)) -- no rest is longer
      assert.are.equal(0, server:wait(21000, 0)) -- who asked for none has none
    end)

    it("lets batches of several workers begin together, and rest together", function()
      bear(10)
      server:began(9000)
      assert.are.equal(0, server:wait(9002, 0.5))
      server:began(9002)
      assert.are.equal(1, server:wait(9010, 0.5)) -- asks again
      server:ended(9012)
      assert.are.equal(1, server:wait(9013, 0.5))
      server:ended(9020)
      assert.is_true(server:wait(9020, 0.5) > 20 * 40)
    end)

    it("runs as it likes where it makes nobody late, but for a silence", function()
      bear(nil)
      assert.is_false(server:crowded(0.5))
      batch(6000, 6100)
      assert.are.equal(0, server:wait(6100, 0.5))
      server:began(6100)
      assert.are.equal(0, server:wait(6200, 0.5))
      assert.are.equal(200, server:wait(10100, 0.5))
      assert.are.equal(0, server:wait(10300, 0.5))
      assert.are.equal(0, server:wait(10100, 0)) -- nobody asks
      for _ = 1, 20 do
        server:seen(0)
      end
      assert.are.equal(0, server:wait(10100, 0.5)) -- nobody is there any more
    end)

    it("does not rest where it can't see", function()
      bear(10)
      assert.is_true(server:crowded(0.5))
      server:blind()
      assert.is_false(server:crowded(0.5))
    end)
  end)

  it("learns for each limit that a backfill has", function()
    server:seen(10)
    local strict, mild = server:delay(0.5), server:delay(10)
    server:probed(0, sleeps(1000))
    server:began(0)
    server:probed(0, sleeps(1000, 10))
    assert.is_true(server:share(0.5) < 0.03)
    assert.are.equal(1, server:share(10))
    assert.are.equal(strict, server:delay(0.5))
    assert.are_not.equal(strict, mild)
  end)
end)
