-- examples/tenants from end to end: the first start, a canary that fails, a new shop, and the way back.
-- The same on every server.
local examples = require "tests.examples"
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local tenants = require "tests.tenants"
local async = helper.async

local NAME = "examples/tenants"
local ORDERS, SETTINGS, INDEX = 20250107090000, 20250108090000, 20250120090000
local ALL = ("%d %d %d"):format(ORDERS, SETTINGS, INDEX)

describe(NAME, function()
  local dir, db

  local function moonbird(status, ...)
    return helper.ok({ ... }, { cwd = dir, db = db, status = status })
  end

  before_each(async(function()
    dir, db = examples.copy "tenants", helper.database()
  end))

  it("starts from nothing: the catalog, the shops, what each of them has", async(function()
    local up = moonbird(0, "up").stdout
    assert.truthy(up:find("4 tenants migrated", 1, true), up)
    assert.equal(4, tenants.count_at(db, ALL))
    assert.same({ "CHF", "0.081" }, db:values "select value from shop_bikes.settings order by key")
    assert.same({ "EUR", "0.10" }, db:values "select value from shop_bakery.settings order by key")
    db:exec "insert into shop_books.orders (product_id, total) values (3, 12.5)"
    assert.equal(4, db:value "select count(*) from pg_indexes where indexname = 'orders_total'")
    moonbird(0, "history", "--verify")
    moonbird(0, "status", "--exit-code")
    moonbird(0, "tenant", "drift", "--exit-code")
  end))

  it("goes no further than its own shop where that fails, or an alarm is open", async(function()
    moonbird(0, "up")
    helper.write(dir, { ["migrations/20250201090000_paid.sql"] = "-- description: which orders are paid\n-- owner: shop\n"
      .. "-- phase: expand\n-- scope: tenant\n-- compatibility: backward_compatible\n"
      .. "-- migrate:up\nalter table orders add column paid boolean;\n-- migrate:down\nalter table orders drop column paid;\n" })
    moonbird(0, "check", "--update")
    db:exec "insert into catalog.alarms (message) values ('checkout is slow')"
    local result = helper.moonbird({ "--json", "deploy" }, { cwd = dir, db = db })
    assert.is_true(result.status ~= 0)
    local said = json.decode(result.stdout)
    assert.truthy(said.error.message:find("health", 1, true), result.stdout)
    assert.equal(ALL .. " 20250201090000", tenants.versions(db, "shop_ours"))
    assert.equal(3, tenants.count_at(db, ALL))
    db:exec "update catalog.alarms set open = false"
    moonbird(0, "deploy")
    assert.equal(4, tenants.count_at(db, ALL .. " 20250201090000"))
  end))

  it("takes a new shop in where the others are", async(function()
    moonbird(0, "up")
    db:exec "insert into catalog.shops (name, currency) values ('shop_toys', 'SEK')"
    moonbird(0, "tenant", "add", "shop_toys")
    assert.equal(5, tenants.count_at(db, ALL))
    assert.equal("SEK", db:value "select value from shop_toys.settings where key = 'currency'")
    moonbird(0, "tenant", "drift", "--exit-code")
  end))

  it("goes back, one shop or all", async(function()
    moonbird(0, "up")
    moonbird(0, "down", "--tenant", "shop_books")
    assert.equal(("%d %d"):format(ORDERS, SETTINGS), tenants.versions(db, "shop_books"))
    assert.equal(3, tenants.count_at(db, ALL))
    moonbird(0, "up", "--tenant", "shop_books")
    assert.equal(4, tenants.count_at(db, ALL))
  end))

  it("is clean by the rules", async(function()
    local check = moonbird(0, "check").stdout
    assert.truthy(check:find("6 migrations, nothing found", 1, true), check)
  end))
end)
