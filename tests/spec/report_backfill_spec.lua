-- The progress of backfills as it is told: rows of several, of which each takes turns.
local backfill = require "moonbird.report.backfill"

describe("the progress of backfills", function()
  local observer, lines

  local function job(target, version)
    return { target = { name = target }, step = { migration = { id = tostring(version), version = version } },
      state = { rows_estimated = 1000 }, counters = { changed = 0 }, level = "ok", size = { current = function()
        return 10
      end } }
  end

  --- A batch, and what is told after it.
  local function batch(of, rows)
    observer.told = -math.huge
    observer:event(of, { kind = "batch", rows = rows })
    return lines[#lines]
  end

  before_each(function()
    lines = {}
    observer = backfill.new { options = {}, log = function(_, _, line)
      lines[#lines + 1] = line
    end, finish = function() end }
  end)

  it("counts the turns of a tenant as one backfill", function()
    local rows = { one = 0, two = 0 }
    for turn = 1, 4 do
      for _, name in ipairs { "one", "two" } do
        local of = job(name, 2)
        observer:event(of, { kind = turn == 1 and "start" or "resume", rows = turn > 1 and rows[name] or 1000 })
        rows[name] = rows[name] + 100
        local line = batch(of, 100)
        if turn > 1 or name == "two" then
          assert.are.equal(("%d of ~2000 rows"):format(rows.one + rows.two), line:match "^%d+ of ~%d+ rows")
        end
        observer:event(of, { kind = turn == 4 and "done" or "stopped" })
      end
    end
  end)

  it("leaves the rate of those that ended out", function()
    local ended, works = job("one", 2), job("two", 2)
    observer:event(ended, { kind = "start", rows = 1000 })
    observer:event(works, { kind = "start", rows = 1000 })
    batch(ended, 500)
    for _, meter in pairs(observer.meters) do
      meter.rate = 777
    end
    assert.is_truthy(batch(works, 10):find("1554/s", 1, true))
    observer:event(ended, { kind = "done" })
    assert.is_truthy(batch(works, 10):find(", 777/s", 1, true))
  end)
end)
