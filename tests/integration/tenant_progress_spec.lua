--- What is told while tenants are migrated: on a terminal, without one, as events.
-- The same on every server.
local fs = require "moonbird.core.fs"
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local process = require "moonbird.core.process"
local tenants = require "tests.tenants"
local async, lua = helper.async, tenants.lua

describe("progress over tenants", function()
  local db, dir

  before_each(async(function()
    db = helper.database()
    tenants.schemas(db, 1, 12)
    -- One takes longer than the others, one fails.
    dir = tenants.project { ["001_slow.lua"] = lua("tenant", [[
      db:exec "create table slow (n int)"
      if db.target.name == "t_005" then error "poison" end
      db:exec("select pg_sleep($1::float8)", db.target.name == "t_002" and 2.5 or 0.2)]]) }
  end))

  --- Runs it where stderr and stdout are a terminal -> what was written there, the exit status.
  local function on_terminal(...)
    local words = { fs.realpath(helper.bin()), ... }
    for i, word in ipairs(words) do
      words[i] = "'" .. word .. "'"
    end
    local child <close> = assert(process.spawn { file = "script", cwd = dir,
      args = { "-qec", table.concat(words, " "), "/dev/null" }, env = { DATABASE_URL = db.url, TERM = "xterm" } })
    local result = assert(child:wait(60000))
    return result.stdout, result.status
  end

  it("is a line that is drawn anew on a terminal: a bar, counts, a rate, the time left, the slowest", async(function()
    local text, status = on_terminal("up", "--keep-going", "--jobs", "3")
    assert.equal(7, status, text)
    local frames, whole, most, slowest, left = 0, 0, 0, 0, 0
    for line in text:gmatch("\r[^\r\n]*") do
      local done, total = line:match("(%d+)/(%d+) done")
      if done then
        frames, most = frames + 1, math.max(most, tonumber(done))
        assert.equal("12", total)
        assert.is_truthy(line:find("█", 1, true) or line:find("░", 1, true), line)
        assert.is_truthy(line:find("%d+ running"), line)
        whole = whole + (line:find("%d+ running, %d+ waiting, %d+/s, [%d%.]+m?s left") and 1 or 0)
        left = left + (line:find("left", 1, true) and 1 or 0)
        slowest = slowest + (line:find("t_002 for %d") and 1 or 0)
      end
    end
    assert.is_true(frames >= 3, frames .. " frames in " .. json.encode(text))
    assert.is_true(whole >= 2, json.encode(text))
    assert.is_true(most >= 8 and slowest >= 1 and left >= 1, json.encode(text))
    assert.is_truthy(text:find("1 failed", 1, true))
    -- What stays on the screen is whole lines: the live one is gone.
    assert.is_truthy(text:find("11 tenants migrated, 1 failed", 1, true), text)
    assert.is_truthy(text:find("\27[K", 1, true), "it is not cleared")
  end))

  it("is no live line with --quiet", async(function()
    local text, status = on_terminal("up", "--keep-going", "--quiet")
    assert.equal(7, status)
    assert.is_nil(text:find("running", 1, true), text)
    assert.is_nil(text:find("░", 1, true), text)
  end))

  it("is events with --json: each tenant once, in a state that adds up", async(function()
    local said, events = tenants.answer(7, { db = db, cwd = dir }, "up", "--keep-going", "--jobs", "4")
    local seen = {}
    for _, event in ipairs(events) do
      if event.event == "done" or event.event == "failed" then
        assert.is_nil(seen[event.tenant])
        seen[event.tenant] = event.event
      elseif event.event == "progress" then
        assert.equal(12, event.done + event.failed + event.running + event.waiting)
        assert.equal(12, event.total)
      end
    end
    for i = 1, 12 do
      assert.equal(i == 5 and "failed" or "done", seen[("t_%03d"):format(i)])
    end
    assert.same({ 11, 1 }, { said.tenants.migrated, said.tenants.failed })
  end))
end)
