-- examples/backfill from end to end: each of the five patterns leaves the rows as it says, also those that are written
-- meanwhile; the unique index waits for its backfill; and ci proves the whole.
-- The same on every server.
local examples = require "tests.examples"
local helper = require "tests.helper"
local texts = require "tests.texts"
local async = helper.async
local has = texts.has

local NAME = "examples/backfill"

describe(NAME, function()
  local dir, db

  local function moonbird(status, ...)
    return helper.ok({ ... }, { cwd = dir, db = db, status = status })
  end

  before_each(async(function()
    dir = examples.copy "backfill"
    db = helper.database()
    moonbird(0, "up", "--backfills", "skip")
  end))

  it("normalises a column", async(function()
    moonbird(0, "backfill", "run", "normalise_phones")
    assert.are.equal("+493055500042", db:value "select phone from customer where id = 42")
    assert.are.equal(0, db:value "select count(*) from customer where phone !~ '^[+]49[0-9]+$'")
  end))

  it("splits a column, new rows too", async(function()
    moonbird(0, "backfill", "run", "split_names")
    db:exec "insert into customer values (9001, 'Ada King Lovelace')"
    db:exec "update customer set full_name = 'Alan Turing' where id = 5"
    assert.are.same({ { given_name = "Alan", family_name = "Turing" }, { given_name = "Given6", family_name = "Family6" },
      { given_name = "Ada", family_name = "King Lovelace" } },
      db:query "select given_name, family_name from customer where id in (5, 6, 9001) order by id")
    assert.are.equal(0, db:value "select count(*) from customer where given_name || ' ' || family_name <> full_name")
    has(moonbird(0, "backfill", "verify", "split_names").stdout, "0 rows still match")
  end))

  it("moves a table while it is written to", async(function()
    moonbird(75, "backfill", "run", "move_events", "--max-runtime", "1ms")
    db:exec [[insert into event values (9001, now(), 'new'); update event set what = 'changed' where id = 7;
      delete from event where id = 8]]
    moonbird(0, "backfill", "run", "move_events")
    db:exec "update event set what = 'late' where id = 9"
    assert.are.equal(4000, db:value "select count(*) from history.event")
    assert.are.equal(0, db:value "select count(*) from (table event except table history.event) s")
    assert.are.equal(0, db:value "select count(*) from (table history.event except table event) s")
  end))

  it("deletes old rows", async(function()
    moonbird(0, "backfill", "run", "delete_old_events")
    assert.are.equal(4000 - 1459, db:value "select count(*) from event")
    assert.are.equal(0, db:value "select count(*) from event where at < '2024-01-01 00:00 UTC'")
  end))

  it("dedupes before a unique index, which waits for it", async(function()
    local result = helper.moonbird({ "up", "--allow-contract", "--backfills", "skip" }, { cwd = dir, db = db })
    assert.are.equal(6, result.status, result.stderr)
    has(result.stderr, "completes 20250210090000_dedupe_subscriptions, which is not applied")
    moonbird(0, "backfill", "run", "dedupe_subscriptions")
    assert.are.equal(1800, db:value "select count(*) from subscription")
    assert.are.equal(0, db:value "select count(*) from subscription where id % 10 = 0")
    moonbird(0, "backfill", "run")
    moonbird(0, "up", "--allow-contract")
    assert.is_true(db:value "select indisvalid from pg_index where indexrelid = 'subscription_email'::regclass")
    moonbird(0, "status", "--exit-code")
  end))

  it("is clean by the rules, and proved by ci", async(function()
    has(moonbird(0, "check").stdout, "7 migrations, nothing found")
    local result = helper.moonbird({ "ci" }, { cwd = dir })
    assert.are.equal(0, result.status, result.stdout .. result.stderr)
    has(result.stdout, "ci: 7 migrations checked and applied")
  end))
end)
