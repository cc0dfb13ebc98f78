local size = require "moonbird.exec.backfill.size"

--- Runs batches on a server where a row costs `cost` ms (and a batch `fixed`).
local function settle(self, batches, cost, fixed)
  for _ = 1, batches do
    local n = self:current()
    self:worked(n * cost + (fixed or 0), n)
  end
  return self:current()
end

describe("exec.backfill.size", function()
  local function new(more)
    local options = { target = 3200, min = 100, max = 50000 } -- an eighth of it is 400: see "gives way"
    for k, v in pairs(more or {}) do
      options[k] = v
    end
    return size.new(options)
  end

  it("begins within its bounds", function()
    assert.are.equal(1000, new():current())
    assert.are.equal(50, new { max = 50, min = 10 }:current())
    assert.are.equal(2000, new { min = 2000 }:current())
    assert.are.equal(7, new { min = 1, start = 7 }:current())
  end)

  it("comes to what takes the target time, from below and from above", function()
    for _, start in ipairs { 100, 50000 } do
      local n = settle(new { start = start }, 40, 0.1)
      assert.is_true(n > 3800 and n < 4200, tostring(n))
    end
    local n = settle(new(), 60, 0.05, 20)
    assert.is_true(n > 6800 and n < 8200, tostring(n))
  end)

  it("gives way: begins with an eighth, halves it where somebody waited, comes back by tenths", function()
    local function after(samples, waiting)
      local self = new()
      for _ = 1, samples do
        self:sampled(waiting)
      end
      return settle(self, 60, 0.1)
    end
    local function near(wanted, n)
      assert.is_true(n > wanted * 0.95 and n < wanted * 1.05, tostring(n))
    end
    near(4000, after(0))
    near(2000, after(1, true))
    near(1000, after(100, true))
    near(8574, after(8, false))
    near(32000, after(100, false))
  end)

  it("goes no more than half down or half up at once", function()
    local self = new()
    self:worked(1, 1000)
    assert.are.equal(1500, self:current())
    self = new()
    self:worked(100000, 1000)
    assert.are.equal(500, self:current())
  end)

  it("stays within its bounds", function()
    assert.are.equal(50000, settle(new(), 50, 0.0001))
    assert.are.equal(100, settle(new(), 50, 1000))
  end)

  it("is not thrown by one slow batch", function()
    local self = new()
    settle(self, 40, 0.1)
    local before = self:current()
    self:worked(before * 0.1 * 3, before)
    assert.is_true(self:current() > before * 0.7)
  end)

  it("halves after a failure, and grows again after five clean batches", function()
    local self = new { start = 1000 }
    self:failed()
    assert.are.equal(500, self:current())
    for _ = 1, 4 do
      self:worked(1, 500)
      assert.are.equal(500, self:current())
    end
    self:worked(1, 500)
    assert.are.equal(750, self:current())
    self:failed()
    self:failed()
    self:failed()
    assert.are.equal(100, self:current())
  end)

  it("learns nothing about larger batches from one that ended early", function()
    local self = new()
    self:worked(1, 10)
    assert.are.equal(1000, self:current())
    self:worked(0, 0)
    assert.are.equal(1000, self:current())
  end)

  it("keeps the rows of a batch in memory small, below its least size, too", function()
    local self = new()
    self:worked(10, 1000, 100 << 20)
    assert.are.equal(size.BUDGET // ((100 << 20) // 1000), self:current())
    self:worked(1, self:current(), self:current() * (1 << 20))
    assert.are.equal(4, self:current())
  end)

  it("does not go below its least size for the time of its rows", function()
    local self = new()
    for _ = 1, 20 do
      self:worked(10000, self:current(), self:current() * 100)
    end
    assert.are.equal(100, self:current())
  end)

  it("takes new bounds at once", function()
    local self = new()
    self:configure { max = 10 }
    assert.are.equal(10, self:current())
    assert.are.equal(10, self.min)
    self:configure { min = 300 }
    assert.are.equal(300, self:current())
    self:configure { max = 600, target = 1000 }
    assert.are.equal(600, settle(self, 20, 0.1))
  end)

  it("does not grow while it is throttled", function()
    local self = new()
    self:throttled(true)
    assert.are.equal(500, self:current())
    assert.are.equal(500, settle(self, 5, 0.001))
    self:throttled(false)
    assert.is_true(settle(self, 5, 0.001) > 500)
  end)
end)
