--- Cases of the rule "foreign-key-index".
local LIVE = { orders = { kind = "table", rows = 1000000 } }

local function live(...)
  return { relations = LIVE, indexes = { orders = { ... } } }
end

local ADD = "alter table orders add constraint orders_customer\n"
  .. "foreign key (customer_id) references customers not valid;"

return {
  rule = "foreign-key-index",
  flagged = {
    { name = "a column of a new table", sql = "create table comments (\n  id int primary key,\n"
      .. "  order_id bigint references orders\n);", line = 8, severity = "error",
      message = "the foreign key %(order_id%) of \"comments\" has no index" },
    { name = "two columns, and an index of one",
      sql = "create table lines (a int, b int, foreign key (a, b) references orders (a, b));\n"
        .. "create index on lines (a);" },
    { name = "an index that has the column behind another",
      sql = "create table lines (a int references orders, b int);\ncreate index on lines (b, a);" },
    { name = "a primary key that begins with another column",
      sql = "create table members (team_id int, user_id int references users, primary key (team_id, user_id));",
      message = "user_id" },
    { name = "a partial index", sql = "create table lines (a int references orders, gone boolean);\n"
      .. "create index on lines (a) where not gone;" },
    { name = "an index of an expression", sql = "create table lines (a int references orders);\n"
      .. "create index on lines (abs(a), a);" },
    { name = "an index that can't find one value", sql = "create table t (a int references orders, b text);\n"
      .. "create index on t using gin (a);" },
    { name = "a partial index of another column", sql = "create table t (a int references orders, b text);\n"
      .. "create index on t (a) where b is not null;" },
    { name = "the database has one of another kind", sql = ADD, severity = "error",
      live = live({ name = "i", columns = { "customer_id" }, valid = true, method = "gin" }) },
    { name = "an index of another table of the same name",
      sql = "create table shop.lines (a int references orders);\ncreate table old.lines (a int);\n"
        .. "create index on old.lines (a);" },
    { name = "an existing table, without a database", sql = ADD, severity = "warning",
      message = "only a database can tell" },
    { name = "a column with a reference for an existing table",
      sql = "alter table orders add column customer_id bigint references customers;", severity = "error",
      message = "in this migration or another" },
    { name = "the same, and a Lua function may make the index", severity = "warning",
      sql = "alter table orders add column customer_id bigint references customers;",
      others = { ["20250602000000_index.lua"] = "return { description = \"Made up for the test of a rule\", "
        .. "up = function() end, irreversible = \"made up\" }" } },
    { name = "the index comes later, and the column is an old one", sql = ADD, severity = "warning",
      others = { ["20250602000000_index.sql"] = "create index i on orders (customer_id);" } },
    { name = "an earlier migration makes another index", sql = ADD, severity = "warning",
      others = { ["20250501000000_index.sql"] = "create index on orders (at, customer_id);" } },
    { name = "an existing table, and the database has no index", sql = ADD, severity = "error",
      live = live({ name = "orders_pkey", columns = { "id" }, unique = true, valid = true }),
      message = "the database has none" },
    { name = "the database has an INVALID one", sql = ADD, severity = "error",
      live = live({ name = "i", columns = { "customer_id" }, valid = false }) },
    { name = "the database has a partial one", sql = ADD, severity = "warning", message = "leaves rows out",
      live = live({ name = "i", columns = { "customer_id" }, valid = true, partial = true }) },
    { name = "in the string of a Lua migration", lua = [==[
return { description = "Made up for the test of a rule", up = [[
  create table lines (
    a int references orders
  )
]], down = "drop table lines" }]==], line = 3 },
    { name = "in a Lua function", lua = [[
return { description = "Made up for the test of a rule", up = function(db)
  db:exec("create table lines (a int references orders)")
end, down = "drop table lines" }]],
      recorded = { up = { { text = "create table lines (a int references orders)", line = 2 } } }, line = 2 },
  },
  clean = {
    { name = "with an index", sql = "create table comments (order_id bigint references orders);\n"
      .. "create index comments_order on public.comments (order_id);" },
    { name = "with an index that has more columns behind it",
      sql = "create table comments (order_id bigint references orders, at date);\n"
        .. "create index on comments (order_id, at);" },
    { name = "two columns in the other order",
      sql = "create table lines (a int, b int, foreign key (a, b) references orders (a, b));\n"
        .. "create index on lines (b, a);" },
    { name = "a primary key that begins with it",
      sql = "create table members (team_id int references teams, user_id int, primary key (team_id, user_id));" },
    { name = "a unique column, and one that is the key itself",
      sql = "create table profiles (user_id int unique references users);\n"
        .. "create table details (order_id int primary key references orders);" },
    { name = "a quoted name", sql = "create table \"Lines\" (\"orderId\" int references orders);\n"
      .. "create index on \"Lines\" (\"orderId\");" },
    { name = "a unique constraint that is added later",
      sql = "create table t (a int references orders);\nalter table t add constraint t_a unique (a);" },
    { name = "a partial index of what is not null",
      sql = "create table t (a int references orders);\ncreate index on t (a) where a is not null;" },
    { name = "an existing table whose index the database has", sql = ADD,
      live = live({ name = "i", columns = { "customer_id", "at" }, valid = true }) },
    { name = "an existing table whose index an earlier migration makes", sql = ADD,
      others = { ["20250501000000_index.sql"] = "create index on orders (customer_id);" } },
    { name = "a key that an earlier migration's table has", sql = ADD,
      others = { ["20250501000000_orders.sql"] = "create table orders (customer_id bigint, no int, "
        .. "primary key (customer_id, no));" } },
    { name = "a new column whose index the next migration makes",
      sql = "alter table orders add column customer_id bigint references customers;",
      others = { ["20250602000000_index.sql"] = "create index on orders (customer_id);" } },
    { name = "no foreign key", sql = "create table t (a int check (a > 0), b text default 'references orders');" },
    { name = "a temporary table", sql = "create temp table t (a int references orders);" },
    { name = "in a Lua function, with an index", lua = [[
return { description = "Made up for the test of a rule", up = function(db)
  db:exec("create table lines (a int references orders)")
  db:exec("create index on lines (a)")
end, down = "drop table lines" }]],
      recorded = { up = { { text = "create table lines (a int references orders)", line = 2 },
        { text = "create index on lines (a)", line = 3 } } } },
  },
}
