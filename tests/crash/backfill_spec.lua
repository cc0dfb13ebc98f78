-- kill -9 inside backfills: at every failpoint, and at times nobody chose. Whatever died, every row is changed
-- exactly once, which a counter in each row tells, and the totals are right.
-- The same on every server.
local backfills = require "tests.backfills"
local helper = require "tests.helper"
local rehearsal = require "tests.crash.rehearsal"
local async = helper.async

local ROWS = 900
local BASE = "-- migrate:up\ncreate table rows (id bigint primary key, n int not null default 0, t text);\n"
  .. "insert into rows select i from generate_series(1, %d) i;\nanalyze rows;\n-- migrate:down\ndrop table rows;\n"
local KINDS = {
  { name = "set-based", body = [[set = "n = n + 1"]] },
  { name = "row-based", body = [[columns = { "n" }, transform = function(row) return { n = row.n + 1 } end]] },
  { name = "by function", body = [[batch = function(db, lo, hi)
      return db:exec("update rows set n = n + 1 where id >= $1 and id <= $2", lo, hi)
    end]] },
}

local function files(kind, rows, options)
  return { ["migrations/001_rows.sql"] = BASE:format(rows),
    ["migrations/002_count.lua"] = ([[return { description = "a test", irreversible = "a test",
      up = "alter table rows add column u int", backfill = { table = "rows", %s, options = { %s } } }]]):format(kind.body,
      options) }
end

local function check(db, rows, what)
  backfills.once(db, rows, { relation = "rows", counter = "n", what = what })
  assert.are.same({ "start", "apply" }, db:values [[select event from moonbird.journal where target = 'global'
    and version = 2 order by ordinal]], what)
  assert.are.equal(0, db:value "select count(*) from moonbird.verify()", what)
end

for _, kind in ipairs(KINDS) do
  describe("killed in a backfill, " .. kind.name .. ":", function()
    local dir, ground, points

    setup(async(function()
      dir = helper.project(files(kind, ROWS, "min = 300, max = 300"), { scope = "file" })
      ground = helper.database { scope = "file" }
      helper.ok({ "up", "--to", "1" }, { db = ground, cwd = dir })
      local db = helper.database { scope = "file", template = ground }
      local result, passed = rehearsal.traced({ "up" }, db, dir)
      rehearsal.expect_ok(result, "the uninterrupted run")
      check(db, ROWS, "uninterrupted")
      db:drop()
      points = {}
      for _, point in ipairs(passed) do
        points[#points + 1] = point:find("^backfill") and point or nil
      end
    end))

    it("at every failpoint", async(function()
      assert.is_true(#points > 10, "the binary has no failpoints (build it with -DMB_FAILPOINTS=ON)")
      for _, point in ipairs(points) do
        local db = helper.database { template = ground }
        local result = helper.moonbird({ "up" }, { db = db, cwd = dir, env = { MOONBIRD_FAILPOINT = point } })
        assert.are.equal("SIGKILL", result.signal, point)
        helper.ok({ "up" }, { db = db, cwd = dir })
        check(db, ROWS, point)
        db:drop()
      end
    end))

    for _, workers in ipairs { 1, 4 } do
      it(("at any time, with %d workers"):format(workers), async(function()
        local rows, wanted = helper.full and 300000 or 30000, helper.full and 200 or 15
        -- So small that the table is not done before it was killed that often.
        local most = helper.full and 40 or 500
        local place = helper.project(files(kind, rows, ("min = 20, max = %d, start = 20, workers = %d"):format(most,
          workers)))
        local db = helper.database()
        helper.ok({ "up", "--to", "1" }, { db = db, cwd = place })
        local kills = backfills.kill { db = db, cwd = place, kills = wanted, later = helper.full and 40 // workers or 40 }
        check(db, rows, kills .. " kills")
        assert.is_true(kills >= (helper.full and 200 or 3), ("only %d kills"):format(kills))
      end))
    end
  end)
end
