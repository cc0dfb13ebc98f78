--- Cases of the rule "index-concurrently".
return {
  rule = "index-concurrently",
  flagged = {
    { name = "an index of an existing table", sql = "create index on orders (customer_id);", line = 6,
      message = "CREATE INDEX on \"orders\"" },
    { name = "a unique one, with a schema and a quoted name",
      sql = "create unique index if not exists \"Orders\" on shop.\"Orders\" (id);", message = "shop.Orders" },
    { name = "a column of the same migration does not make the table new",
      sql = "alter table orders add column note text;\ncreate index on orders (note);", line = 7 },
    { name = "a table of the same name in another schema was made here",
      sql = "create table archive.orders (id int);\ncreate index on shop.orders (id);", line = 7 },
    { name = "CONCURRENTLY in a name and a comment only",
      sql = "create index \"concurrently\" /* concurrently */ on orders (id);" },
    { name = "DROP INDEX", sql = "drop index if exists orders_customer;",
      message = "DROP INDEX of \"orders_customer\"" },
    { name = "REINDEX", sql = "reindex table orders;", message = "REINDEX" },
    { name = "a UNIQUE constraint that builds its index",
      sql = "alter table orders add constraint orders_no unique (no);", message = "UNIQUE on \"orders\"" },
    { name = "a PRIMARY KEY, and a UNIQUE column", sql = "alter table orders add primary key (id);" },
    { name = "a new column that is UNIQUE", sql = "alter table orders add column no bigint unique;" },
    { name = "a table that holds rows, by live facts", sql = "create index on orders (id);",
      live = { relations = { orders = { kind = "table", rows = 1, empty = false } } } },
    { name = "just before a down runs", moment = "before", direction = "down", sql = "select 1;",
      down = "drop index orders_customer;", message = "DROP INDEX" },
    { name = "in the string of a Lua migration", lua = [[
return {
  description = "Made up for the test of a rule",
  up = "create index on orders (id)",
  irreversible = "made up",
}]], line = 3 },
    { name = "in a Lua function", lua = [[
return {
  description = "Made up for the test of a rule",
  up = function(db)
    db:exec("create index on orders (id)")
  end,
  irreversible = "made up",
}]], recorded = { up = { { text = "create index on orders (id)", line = 4 } } }, line = 4 },
  },
  clean = {
    { name = "concurrently", header = { transaction = false }, sql = "create index concurrently a on orders (a);" },
    { name = "dropped concurrently", header = { transaction = false }, sql = "drop index concurrently if exists a;" },
    { name = "rebuilt concurrently", header = { transaction = false },
      sql = "reindex (concurrently, verbose) index a;" },
    { name = "a constraint from an index", sql = "alter table orders add constraint a unique using index a_idx;" },
    { name = "constraints without an index", sql = "alter table orders add check (a > 0) not valid;" },
    { name = "a UNIQUE of a table that is made here", sql = "create table t (a int);\nalter table t add unique (a);" },
    { name = "a UNIQUE of an empty and of a partitioned table, by live facts",
      sql = "alter table orders add unique (no);\nalter table events add unique (no, at);",
      live = { relations = { orders = { kind = "table", rows = 0, empty = true },
        events = { kind = "table", rows = 9, partitioned = true } } } },
    { name = "a table that is made here",
      sql = "create table shop.t (a int);\ncreate index t_a on shop.t (a);\ncreate unique index on t (a);\n"
        .. "drop index t_a;" },
    { name = "a table that is made here by a query, and a temporary one",
      sql = "create table t as select 1 as a;\ncreate index on t (a);\ncreate temp table s (a int);\n"
        .. "create index on s (a);" },
    { name = "the top of a partitioned table", sql = "create index i on only orders (a);" },
    { name = "a partitioned table, by live facts", sql = "create index i on orders (a);",
      live = { relations = { orders = { kind = "table", rows = 9, partitioned = true } } } },
    { name = "an empty table, by live facts", sql = "create index on orders (id);",
      live = { relations = { orders = { kind = "table", rows = 0, empty = true } } } },
    { name = "a new view and a table beside", sql = "create view v as select 1 as a;\ndrop view v;" },
    { name = "the indexes of an empty table, by live facts", sql = "reindex table orders;",
      live = { relations = { orders = { kind = "table", rows = 0, empty = true } } } },
    { name = "an index that is not there, by live facts", sql = "drop index if exists old;",
      live = { relations = {} } },
    { name = "words in a string, a comment and a body",
      sql = "-- create index on orders (id);\ninsert into notes (id, body) values (1, 'create index on orders (id)');\n"
        .. "create function f() returns text language sql as $$ select 'drop index a' $$;" },
    { name = "in a Lua function", lua = [[
return {
  description = "Made up for the test of a rule",
  transaction = false,
  up = function(db)
    db:exec("create index concurrently i on orders (id)")
  end,
  irreversible = "made up",
}]], recorded = { up = { { text = "create index concurrently i on orders (id)", line = 5 } } } },
  },
}
