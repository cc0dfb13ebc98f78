--- Cases of the rule "schema-data-apart".
return {
  rule = "schema-data-apart",
  flagged = {
    { name = "a new column is filled at once",
      sql = "alter table orders add column currency text;\nupdate orders set currency = 'EUR' where currency is null;",
      line = 7, message = "UPDATE of \"orders\" changes data.*ALTER TABLE on line 6" },
    { name = "data first, schema behind it",
      sql = "delete from orders where total < 0;\nalter table orders add constraint t check (total >= 0) not valid;",
      line = 6, message = "DELETE" },
    { name = "rows are moved to a new table and deleted from the old one",
      sql = "create table old_orders (like orders);\n"
        .. "with moved as (delete from orders where placed < '2020-01-01' returning *)\n"
        .. "insert into old_orders select * from moved;", line = 7 },
    { name = "rows of an existing lookup table beside a column",
      sql = "alter table orders add column note text;\ninsert into \"Permissions\" (code) values ('orders.note');",
      line = 7, message = "Permissions" },
    { name = "TRUNCATE beside a column", header = { phase = "contract", rationale = "nobody reads the cache now" },
      sql = "truncate cache;\nalter table cache add column expires timestamptz not null;", line = 7 },
    { name = "in the string of a Lua migration", lua = [==[
return {
  description = "Made up for the test of a rule",
  up = [[
    alter table orders add column currency text;
    update orders set currency = 'EUR' where id = 7;
  ]],
  down = "alter table orders drop column currency;",
}]==], line = 5 },
    { name = "in a Lua function", lua = [[
return {
  description = "Made up for the test of a rule",
  up = function(db)
    db:exec("alter table orders add column currency text")
    db:exec("update orders set currency = $1 where id = $2", "EUR", 7)
  end,
  down = "alter table orders drop column currency;",
}]], recorded = { up = { { text = "alter table orders add column currency text", line = 4 },
      { text = "update orders set currency = $1 where id = $2", line = 5, params = { "EUR", 7 } } } }, line = 5 },
  },
  clean = {
    { name = "a new table is filled",
      sql = "create table currencies (code text primary key);\ninsert into currencies values ('EUR'), ('ISK');\n"
        .. "update public.currencies set code = upper(code) where code <> upper(code);" },
    { name = "a new table is filled from an old one",
      sql = "create table cities (name text primary key);\ninsert into cities select distinct city from customers;" },
    { name = "data only", sql = "update orders set currency = 'EUR' where id = 7;\ninsert into log (id) values (1);" },
    { name = "schema only, and a function whose body changes data",
      sql = "alter table orders add column currency text;\n"
        .. "create function fill() returns void language sql as $$ update orders set currency = 'EUR' $$;\n"
        .. "comment on column orders.currency is 'update orders set currency';" },
    { name = "data, with a temporary table to work with",
      sql = "create temp table fixes (id int, total numeric);\ninsert into fixes values (1, 10), (2, 20);\n"
        .. "update orders o set total = f.total from fixes f where f.id = o.id;\ndrop table fixes;" },
    { name = "data, with triggers off meanwhile and the sequence set behind it",
      sql = "alter table orders disable trigger user;\nupdate orders set total = 0 where id = 7;\n"
        .. "alter table orders enable trigger user;\nselect setval('orders_id_seq', 100);\n"
        .. "alter sequence orders_id_seq restart with 200;" },
    { name = "a query beside a change", sql = "select count(*) from orders;\nalter table orders add column a int;" },
  },
}
