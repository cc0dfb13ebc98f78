-- The commands about backfills by the real binary: what they say and do before one has begun, half-way and afterwards.
-- The same on every server.
local backfills = require "tests.backfills"
local fs = require "moonbird.core.fs"
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local texts = require "tests.texts"
local async = helper.async
local has = texts.has

describe("moonbird backfill", function()
  local db, dir

  local function write(rows, body, rest)
    helper.write(dir, { ["migrations/001_users.sql"] = backfills.users(rows),
      ["migrations/002_fill.lua"] = ("return { description = \"t\", irreversible = \"t\", %s\nbackfill = { %s } }"):format(
        rest or "", body) })
  end

  local function moonbird(status, ...)
    return helper.ok({ ... }, { cwd = dir, db = db, status = status })
  end

  local function answer(status, ...)
    return json.decode(moonbird(status, "--json", ...).stdout)
  end

  local FILL = [[table = "users", where = "email is null", set = "hits = hits + 1, email = lower(login)"]]

  before_each(async(function()
    db = helper.database()
    dir = helper.project {}
  end))

  it("refuses what it can't mean", async(function()
    write(10, FILL)
    moonbird(0, "up", "--backfills", "skip")
    has(moonbird(2, "backfill", "show").stderr, "wants a backfill")
    has(moonbird(2, "backfill", "list", "2").stderr, "takes no name")
    has(moonbird(2, "backfill", "pause", "2", "3").stderr, "takes one name")
    has(moonbird(2, "backfill", "show", "fil").stderr, "there is no backfill \"fil\"")
    has(moonbird(2, "backfill", "run", "--restart", "--adopt").stderr, "exclude one another")
    has(moonbird(2, "backfill", "list", "--workers", "2").stderr, "does not belong to backfill list")
    has(moonbird(1, "backfill", "pause", "fill").stderr, "002_fill has not begun")
    has(moonbird(2, "backfill", "run", "7").stderr, "there is no backfill \"7\"")
    moonbird(75, "backfill", "run", "--max-runtime", "1ms")
    has(moonbird(2, "backfill", "throttle", "2").stderr, "key=value")
    has(moonbird(2, "backfill", "throttle", "2", "max_lags=1").stderr, "unknown option \"max_lags\"")
    has(moonbird(2, "backfill", "throttle", "2", "max_lag=much").stderr, "can't be read")
    has(moonbird(2, "backfill", "throttle", "2", "max_lag").stderr, "write it as name=value")
  end))

  it("explains before anything has run, and changes nothing", async(function()
    write(30000, FILL)
    has(moonbird(1, "backfill", "explain", "2").stderr, "there is no table users")
    moonbird(0, "up", "--backfills", "skip")
    local text = moonbird(0, "backfill", "explain", "2").stdout
    has(text, "key      id")
    has(text, "about 30.0k, 30.0k of them match the where")
    has(text, "Index Only Scan on users using users_pkey")
    has(text, "Index Scan on users using users_pkey")
    has(text, "warning: no index serves the where")
    assert.are.equal(0, db:value "select count(*) from moonbird.backfill")
    assert.are.equal(0, db:value "select sum(hits) from users")
    db:exec "create index on users (id) where email is null"
    db:exec "update users set email = 'x' where id > 10"
    db:exec "analyze users"
    local found = answer(0, "backfill", "explain", "fill")
    assert.are.same({}, found.warnings)
    assert.is_true(found.matching < 1000)
    assert.is_true(found.duration_ms >= 0)
    assert.is_nil(found.measured)
  end))

  it("explains without a journal, a table without a key, and what an up would make first", async(function()
    write(20000, [[table = "users", where = "tag is null", set = "tag = 'x'"]], "up = 'alter table users add tag text',")
    db:exec((backfills.users(20000):gsub("%-%- migrate:down.*", ""):gsub("primary key", "")))
    local result = moonbird(1, "backfill", "explain", "2")
    has(result.stderr, "column \"tag\" does not exist")
    has(result.stderr, "its `up` has not run yet")
    db:exec "alter table users add tag text"
    local text = moonbird(0, "backfill", "explain", "2").stdout
    has(text, "none: by ctid")
    has(text, "Tid Range Scan on users")
    has(text, "has no key: it is walked block by block")
    assert.is_nil(db:value "select to_regnamespace('moonbird')::text")
  end))

  it("lists and shows what is to come, half done and done", async(function()
    write(5000, FILL:gsub("%(login%)", "(login) || left(pg_sleep(0.0005)::text, 0)") .. ", options = { min = 50, max = 100, start = 100, batch_target = '2s' }")
    moonbird(0, "up", "--backfills", "skip")
    has(moonbird(0, "backfill", "list").stdout, "002_fill  pending")
    has(moonbird(75, "backfill", "run", "2", "--max-runtime", "700ms").stderr, "work remains")
    local one = answer(0, "backfill", "list").backfills[1]
    assert.are.same({ "002_fill", "paused", "global" }, { one.id, one.status, one.target })
    assert.is_true(one.rows > 0 and one.rows < 5000 and one.rows % 100 == 0)
    assert.is_true(one.share > 0 and one.share < 1)
    assert.is_true(one.rate > 0 and one.eta_ms > 0)
    assert.are.equal(100, one.batch)
    has(moonbird(0, "backfill", "show", "2").stdout, ("%d of about 5000 looked at"):format(one.rows))
    assert.is_true(answer(0, "backfill", "explain", "2").measured)
    has(moonbird(0, "backfill", "run", "--workers", "2").stdout, "applied 002_fill")
    has(moonbird(0, "backfill", "list").stdout, "done")
    has(moonbird(0, "backfill", "run").stdout, "no backfill is pending")
    has(moonbird(0, "history").stdout, "5000 rows looked at, 5000 changed in ")
    has(moonbird(0, "show", "2").stdout, "5000 rows looked at, 5000 changed in ")
    assert.are.equal(5000, db:value "select count(*) from users where hits = 1")
    assert.are.equal(0, db:value "select count(*) from moonbird.journal where event = 'fail'")
  end))

  it("can't be rehearsed where its table is not there, as it can't be run", async(function()
    helper.write(dir, { ["migrations/003_none.lua"] = [[return { description = "t", irreversible = "t",
      backfill = { table = "nowhere", set = "n = 1" } }]] })
    has(moonbird(1, "up", "--dry-run").stderr, "error: migrations/003_none.lua: ")
  end))

  it("is known to status, plan, show and a dry run, before it has begun and half done", async(function()
    write(5000, FILL:gsub("%(login%)", "(login) || left(pg_sleep(0.0005)::text, 0)") .. ", options = { min = 50, max = 100, start = 100 }",
      "up = 'alter table users add tag text',")
    moonbird(0, "up", "--to", "1")
    has(moonbird(0, "plan").stdout, "backfill of users")
    local dry = moonbird(0, "up", "--dry-run").stdout
    has(dry, "alter table users add tag text")
    has(dry, "backfill of public.users by id: about 5000 rows, in batches of its own transactions; not rehearsed")
    assert.is_nil(db:value "select to_regclass('moonbird.nothing')")
    moonbird(75, "backfill", "run", "--max-runtime", "700ms")
    moonbird(0, "backfill", "pause", "2")
    local share = math.floor(answer(0, "backfill", "list").backfills[1].share * 100)
    local words = ("%%spaused by %%S+ on %%S+, %d%%%%"):format(share)
    for _, args in ipairs { { "status" }, { "plan" }, { "show", "2" } } do
      local said = moonbird(0, table.unpack(args)).stdout
      assert(said:find(words) or said:find("%(" .. words:sub(3)), said)
    end
    local item = answer(0, "status").migrations[2]
    assert.are.same({ "backfill", "paused", "pause" }, { item.state, item.backfill.status, item.backfill.want })
    assert.are.equal("users", answer(0, "plan").steps[1].backfill.table)
    dry = moonbird(0, "--json", "up", "--dry-run") -- its `up` is done: it is not rehearsed again
    assert.are.equal(5000, json.decode(dry.stdout).backfills[1].rows)
    moonbird(0, "backfill", "resume", "2")
    assert.is_nil(answer(0, "status").migrations[2].backfill.throttle.reason)
    moonbird(0, "backfill", "throttle", "2", "max=5000")
    moonbird(0, "backfill", "run")
    assert.are.equal("applied", answer(0, "status").migrations[2].state)
    assert.is_nil(moonbird(0, "show", "2").stdout:find("tells more", 1, true))
  end))

  it("takes a version with its zeros, and no word that several have", async(function()
    write(2000, FILL .. ", options = { min = 10, max = 10, start = 10 }")
    moonbird(0, "up", "--backfills", "skip")
    has(moonbird(2, "backfill", "run", "1").stderr, "001_users has no backfill")
    has(moonbird(2, "backfill", "explain", "users").stderr, "001_users has no backfill")
    moonbird(75, "backfill", "run", "002", "--max-runtime", "1ms")
    has(moonbird(0, "backfill", "show", "002").stdout, "002_fill")
    helper.write(dir, { ["migrations/003_fill.lua"] = [[return { description = "t", irreversible = "t",
      backfill = { table = "users", set = "hits = hits + 1" } }]] })
    for _, args in ipairs { { "pause", "fill" }, { "cancel", "fill" }, { "throttle", "fill", "max=20" }, { "show", "fill" },
      { "run", "fill" }, { "explain", "fill" } } do
      has(moonbird(2, "backfill", table.unpack(args)).stderr, '"fill" is the name of several: 002_fill, 003_fill')
    end
    moonbird(75, "backfill", "run", "3", "--max-runtime", "1ms")
    assert(os.remove(dir .. "/migrations/003_fill.lua"))
    has(moonbird(2, "backfill", "pause", "fill").stderr, '"fill" is the name of several: 002_fill, 003_fill')
    assert.are.equal(2, db:value "select count(*) from moonbird.backfill where want = 'run' and limits = '{}'")
  end))

  it("lets the bound of the size count that was said last", async(function()
    write(100, FILL .. ", options = { min = 10, max = 20, start = 10 }")
    moonbird(0, "up", "--backfills", "skip")
    moonbird(75, "backfill", "run", "--max-runtime", "1ms")
    has(moonbird(0, "backfill", "throttle", "2", "min=1000").stdout, "min=1000 max=1000")
    assert.are.equal("1000", db:value "select limits->>'max' from moonbird.backfill")
    has(moonbird(2, "backfill", "throttle", "2", "min=500", "max=100").stderr, "min=500 is more than max=100")
    moonbird(0, "backfill", "throttle", "2", "min=5")
    assert.are.equal("5 1000", db:value "select concat_ws(' ', limits->>'min', limits->>'max') from moonbird.backfill")
  end))

  it("says cancelled when nobody is at work on what was", async(function()
    write(100, FILL)
    moonbird(0, "up", "--backfills", "skip")
    moonbird(75, "backfill", "run", "--max-runtime", "1ms")
    moonbird(0, "backfill", "cancel", "2")
    has(moonbird(0, "backfill", "list").stdout, "002_fill  cancelled")
    has(moonbird(0, "backfill", "show", "2").stdout, "cancelled")
    db:exec "update moonbird.backfill set status = 'running'" -- killed before its first batch, or about to say so
    has(moonbird(0, "backfill", "list").stdout, "002_fill  cancelling")
  end))

  it("takes one that was taken back for one that has not begun", async(function()
    write(100, FILL, "down = function() end,")
    local path = dir .. "/migrations/002_fill.lua"
    helper.write(dir, { ["migrations/002_fill.lua"] = assert(fs.read(path)):gsub('irreversible = "t", ', "") })
    moonbird(0, "up")
    has(moonbird(0, "backfill", "list").stdout, "done")
    has(moonbird(1, "backfill", "pause", "2").stderr, "002_fill is done")
    assert.is_true(answer(0, "backfill", "explain", "2").measured)
    moonbird(0, "down")
    has(moonbird(0, "backfill", "list").stdout, "002_fill  pending")
    has(moonbird(1, "backfill", "pause", "2").stderr, "002_fill has not begun")
    assert.is_nil(answer(0, "backfill", "explain", "2").measured)
    moonbird(0, "backfill", "run")
    has(moonbird(0, "backfill", "list").stdout, "done")
  end))

  it("verifies what the transform left alone as the run did", async(function()
    write(500, [[table = "users", where = "email is null", columns = { "login" },
      transform = function(row) return row.id > 10 and { email = row.login } or nil end]])
    moonbird(0, "up")
    local result = moonbird(0, "backfill", "verify", "2")
    has(result.stdout, "10 rows still match its where; its transform left 10 alone")
    db:exec "insert into users values (9999, 'late')"
    has(moonbird(1, "backfill", "verify", "2").stdout, "11 rows still match")
  end))

  it("explains a batch of a table without a key by its blocks", async(function()
    write(60000, FILL)
    db:exec((backfills.users(60000):gsub("%-%- migrate:down.*", ""):gsub("primary key", "")))
    local text = moonbird(0, "backfill", "explain", "2").stdout
    local rows = tonumber(text:match("Tid Range Scan on users  %((%d+) rows%)"))
    assert.is_true(rows < 20000, text)
  end))

  it("waits for older migrations, and runs the versions that are named only", async(function()
    write(100, FILL)
    helper.write(dir, { ["migrations/003_more.lua"] = [[return { description = "t", irreversible = "t",
      backfill = { table = "users", set = "hits = hits + 10" } }]] })
    local result = moonbird(4, "backfill", "run")
    has(result.stderr, "002_fill waits for 001_users")
    moonbird(0, "up", "--to", "1")
    moonbird(0, "backfill", "run", "3")
    assert.are.same({ 1, 3 }, db:values "select version from moonbird.state where target = 'global' and applies order by 1")
    moonbird(0, "backfill", "run")
    assert.are.equal(100, db:value "select count(*) from users where hits = 11")
    moonbird(0, "status", "--exit-code")
  end))

  it("tells its progress as events with --json and as lines elsewhere", async(function()
    write(2000, FILL .. ", options = { min = 100, max = 200, start = 100 }")
    moonbird(0, "up", "--backfills", "skip")
    local result = moonbird(0, "--json", "backfill", "run")
    local kinds = {}
    for line in result.stderr:gmatch("[^\n]+") do
      if line:sub(1, 1) == "{" then
        local event = json.decode(line)
        kinds[event.event] = event
      end
    end
    assert.are.equal(2000, kinds.backfill_done.rows)
    assert.are.equal("002_fill", kinds.backfill_start.migration)
    assert.is_nil(kinds.backfill_batch)
    has(result.stderr, "walks over public.users by id")
    assert.are.equal(1, #json.decode(result.stdout).steps)
  end))

  it("retries rows that it passed over, once each", async(function()
    write(500, FILL .. ", options = { max_errors = 5, min = 50, max = 100, start = 100 }")
    moonbird(0, "up", "--backfills", "skip")
    db:exec "alter table users add constraint poison check (id not in (7, 400) or hits = 0)"
    moonbird(0, "backfill", "run")
    assert.are.equal(2, db:value "select count(*) from moonbird.backfill_error")
    local shown = moonbird(0, "backfill", "show", "2").stdout
    has(shown, "2 rows passed over")
    has(shown, "[400]")
    has(moonbird(0, "backfill", "verify", "2").stdout, "2 rows still match its where, 2 of them passed over")
    has(moonbird(1, "backfill", "retry-errors", "2").stderr, "2 rows still can't be changed")
    assert.are.equal(2, db:value "select min(tries) from moonbird.backfill_error")
    db:exec "alter table users drop constraint poison"
    db:exec "alter table users add constraint poison check (id <> 400 or hits = 0)"
    has(moonbird(1, "backfill", "retry-errors", "2").stdout, "2 rows tried again, 1 mended, 1 left")
    db:exec "alter table users drop constraint poison"
    has(moonbird(0, "backfill", "retry-errors", "2").stdout, "1 row tried again, 1 mended, 0 left")
    assert.are.equal(0, db:value "select count(*) from moonbird.backfill_error")
    assert.are.equal(500, db:value "select count(*) from users where hits = 1 and email is not null")
    has(moonbird(0, "backfill", "verify", "2").stdout, "0 rows still match its where")
    db:exec "insert into users values (9999, 'late')"
    has(moonbird(1, "backfill", "verify", "2").stdout, "1 row still match")
  end))

  it("retries rows of a table without a key", async(function()
    db:exec "create table t (v int, k int); insert into t select null, i from generate_series(1, 500) i"
    helper.write(dir, { ["migrations/002_fill.lua"] = [[return { description = "t", irreversible = "t",
      backfill = { table = "t", where = "v is null", set = "v = 1000 / (k - 7)", options = { max_errors = 5 } } }]] })
    moonbird(0, "up")
    has(moonbird(1, "backfill", "retry-errors", "2").stderr, "1 row still can't be changed")
    db:exec "update t set k = 8 where v is null"
    db:exec "update moonbird.backfill_error set key = jsonb_build_array((select ctid from t where v is null))"
    has(moonbird(0, "backfill", "retry-errors", "2").stdout, "1 row tried again, 1 mended, 0 left")
    assert.are.equal(0, db:value "select count(*) from t where v is null")
  end))

  it("does not do a row twice whose retry was not written down", async(function()
    write(50, [[table = "users", set = "hits = hits + 1", options = { max_errors = 5 }]])
    moonbird(0, "up", "--backfills", "skip")
    db:exec "alter table users add constraint poison check (id <> 7 or hits = 0)"
    moonbird(0, "backfill", "run")
    db:exec "alter table users drop constraint poison"
    -- The batch of the retry commits, and then the row of backfill_error can't be deleted.
    db:exec [[create function no() returns trigger language plpgsql as 'begin raise exception ''no''; end';
      create trigger no before delete on moonbird.backfill_error for each row execute function no()]]
    moonbird(1, "backfill", "retry-errors", "2")
    assert.are.equal(50, db:value "select count(*) from users where hits = 1")
    assert.are.equal(1, db:value "select count(*) from moonbird.backfill_error")
    db:exec "drop trigger no on moonbird.backfill_error"
    moonbird(0, "backfill", "retry-errors", "2")
    assert.are.equal(50, db:value "select count(*) from users where hits = 1")
    assert.are.equal(0, db:value "select count(*) from moonbird.backfill_error")
  end))

  it("is judged where the environment is protected", async(function()
    helper.write(dir, { ["moonbird.lua"] =
      "return { protected = { variable = \"CI_PROOF\", commands = { \"deploy\" } } }" })
    write(10, FILL)
    local result = helper.moonbird({ "backfill", "run" }, { cwd = dir, db = db })
    assert.are.equal(6, result.status, result.stderr)
    result = helper.moonbird({ "backfill", "retry-errors", "2" }, { cwd = dir, db = db })
    assert.are.equal(6, result.status, result.stderr)
  end))
end)
