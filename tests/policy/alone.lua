--- Cases of the rule "alone".
return {
  rule = "alone",
  flagged = {
    { name = "a column beside an index that is built concurrently", header = { transaction = false },
      sql = "alter table orders add column if not exists note text;\n"
        .. "create index concurrently orders_customer on orders (customer_id);",
      line = 7, message = "CREATE INDEX CONCURRENTLY must stand alone" },
    { name = "two indexes built concurrently", header = { transaction = false },
      sql = "create index concurrently a on orders (a);\ncreate index concurrently b on orders (b);",
      line = 6, message = "on line 7" },
    { name = "VACUUM behind the change it is for", header = { transaction = false },
      sql = "delete from sessions where id = 1;\nvacuum sessions;", line = 7, message = "VACUUM" },
    { name = "a validation of all rows beside another table's change",
      sql = "alter table orders validate constraint orders_total_check;\nalter table users add column note text;",
      line = 6, message = "must stand alone" },
    { name = "a constraint added and validated at once",
      sql = "alter table orders add constraint total_ok check (total >= 0) not valid;\n"
        .. "alter table orders validate constraint total_ok;", line = 7 },
    { name = "a materialized view refreshed beside a new column",
      sql = "refresh materialized view daily_sales;\nalter table sales add column note text;", line = 6 },
    { name = "CONCURRENTLY on a table that is made here", header = { transaction = false },
      sql = "create table t (a int);\ncreate index concurrently t_a on t (a);", line = 7 },
    { name = "an index built in the string of a Lua migration", lua = [[
return {
  description = "Made up for the test of a rule",
  transaction = false,
  up = "create index concurrently a on orders (a); alter table orders add column if not exists b int;",
  down = "drop index concurrently if exists a;",
}]], line = 4, message = "ALTER TABLE" },
    { name = "an index built by a Lua function, as the rehearsal saw it", lua = [[
return {
  description = "Made up for the test of a rule",
  transaction = false,
  up = function(db)
    db:exec("create index concurrently a on orders (a)")
    db:exec("alter table orders add column if not exists b int")
  end,
  down = "drop index concurrently if exists a;",
}]], recorded = { up = { { text = "create index concurrently a on orders (a)", line = 5 },
      { text = "alter table orders add column if not exists b int", line = 6 } } }, line = 5 },
  },
  clean = {
    { name = "one index, built concurrently", header = { transaction = false },
      sql = "create index concurrently orders_customer on orders (customer_id);" },
    { name = "with settings and a comment beside it", header = { transaction = false },
      sql = "set lock_timeout = 0;\nselect pg_catalog.set_config('statement_timeout', '0', false);\n"
        .. "create index concurrently orders_customer on orders (customer_id);\n"
        .. "comment on index orders_customer is 'for the page of a customer';\nanalyze orders;" },
    { name = "light changes of one table",
      sql = "alter table orders add column note text;\nalter table orders alter column note set default '';" },
    { name = "a table that is made here, with its index",
      sql = "create table t (a int, b int);\ncreate index t_a on t (a);\ncreate index t_b on public.t (b);\n"
        .. "alter table t add constraint a_ok check (a > 0);" },
    { name = "one validation in a statement of several parts",
      sql = "alter table orders validate constraint a, validate constraint b;" },
    { name = "an empty table, by live facts",
      sql = "create index orders_a on orders (a);\nalter table orders add column note text;",
      live = { relations = { orders = { kind = "table", rows = 0, empty = true } } } },
    { name = "words in a string and a comment",
      sql = "-- vacuum full orders; create index concurrently x on y (z);\n"
        .. "insert into notes (id, body) values (1, 'reindex table x; vacuum');\n"
        .. "insert into notes (id, body) values (2, $$vacuum full orders$$);" },
    { name = "a column set NOT NULL by a constraint that is valid already", header = { phase = "contract",
      rationale = "every release since 2.0 fills it" },
      sql = "alter table orders alter column note set not null;\nalter table orders drop constraint note_filled;" },
  },
}
