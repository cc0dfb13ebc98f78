-- The example projects, each run from end to end by the real binary on an embedded PostgreSQL of its own.
-- The same on every server.
local examples = require "tests.examples"
local fs = require "moonbird.core.fs"
local helper = require "tests.helper"
local async = helper.async

describe("examples/shop", function()
  local dir, db

  local function moonbird(...)
    return helper.ok({ ... }, { cwd = dir, db = db })
  end

  before_each(async(function()
    dir = examples.copy "shop"
    db = helper.database()
  end))

  it("is applied, computes what it says, and is taken back", async(function()
    moonbird "up"
    assert.are.same({
      "espresso-cup", "cafe-creme-1-kg", "filter-papers-no-4", "creme-brulee-torch", "espresso-cup-2", "grinder-brush",
    }, db:values "select slug from product order by id")
    assert.is_true(db:value "select indisvalid from pg_index where indexrelid = 'order_by_customer'::regclass")
    assert.are.equal(0, db:value [[
      select count(*) from "order" o where total_cents <> (
        select sum(quantity * price_cents) from order_item i join product p on p.id = product_id
        where i.order_id = o.id)]])
    assert.are.equal(3, db:value "select count(*) from customer where tier is not null")
    moonbird("status", "--exit-code")
    moonbird("history", "--verify")

    moonbird("down", "--to", "0")
    assert.are.same({}, db:values [[
      select relname::text from pg_class where relnamespace = 'public'::regnamespace
      union all select proname::text from pg_proc where pronamespace = 'public'::regnamespace
      union all select typname::text from pg_type where typnamespace = 'public'::regnamespace]])
    moonbird("history", "--verify")
  end))

  it("is the same after taking back and applying again, in steps", async(function()
    local picture = [[
      select string_agg(format('%s %s %s', p.id, p.slug, p.price_cents), ',' order by p.id),
        (select sum(total_cents) from "order"), (select string_agg(tier::text, ',' order by id) from customer)
      from product p]]
    moonbird "up"
    local before = db:query(picture)
    moonbird("redo", "--steps", "5")
    assert.are.same(before, db:query(picture))
    for _ = 1, 5 do
      moonbird "down"
    end
    for _ = 1, 5 do
      moonbird("up", "--steps", "1")
    end
    assert.are.same(before, db:query(picture))
  end))

  it("has a plan and a rehearsal that change nothing", async(function()
    assert.is_truthy(moonbird("plan").stdout:find("004_orders_by_customer", 1, true))
    local said = moonbird("up", "--dry-run").stdout
    assert.is_truthy(said:find("update product set slug = $1 where id = $2", 1, true))
    assert.are.equal(4, helper.moonbird({ "status", "--exit-code" }, { cwd = dir, db = db }).status)
    assert.are.same({}, db:values "select relname::text from pg_class where relnamespace = 'public'::regnamespace")
  end))

  it("has a script", async(function()
    moonbird "up"
    local lines = {}
    for line in moonbird("run", "tools/best_sellers.lua", "3").stdout:gmatch("[^\n]+") do
      lines[#lines + 1] = line
    end
    assert.are.equal(3, #lines)
    assert.is_truthy(lines[1]:match("^ *%d+  %S"))
  end))

  it("runs on the embedded default, started and stopped as needed", async(function()
    db = nil
    moonbird "up"
    assert.is_truthy(moonbird("status", "--exit-code").stdout:find("005_loyalty_tiers", 1, true))
    assert.is_truthy(moonbird("cluster", "status").stdout:find("stopped", 1, true))
    moonbird("cluster", "destroy", "--yes")
    assert.is_nil(fs.stat(dir .. "/.moonbird/pg/data"))
  end))
end)
