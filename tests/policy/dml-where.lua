--- Cases of the rule "dml-where".
return {
  rule = "dml-where",
  flagged = {
    { name = "UPDATE of everything", sql = "update orders\n  set status = 'new';", line = 6,
      message = "UPDATE of \"orders\" has no WHERE", severity = "error" },
    { name = "DELETE of everything, with a schema", sql = "delete from shop.orders;", message = "\"shop.orders\"" },
    { name = "WHERE true", sql = "update orders set status = 'new' where true;", message = "always true" },
    { name = "WHERE 1=1 or more", sql = "delete from orders where 1 = 1 or status = 'x';", message = "always true" },
    { name = "a column that equals itself", sql = "update orders set status = 'new' where id = id;" },
    { name = "a WHERE in a comment and in a string only",
      sql = "update orders set note = 'where id = 1' -- where id = 1\n;" },
    { name = "inside a WITH",
      sql = "with gone as (delete from orders returning id)\ninsert into log (order_id) select id from gone limit 9;",
      line = 6, message = "DELETE of \"orders\"" },
    { name = "a WHERE of the subselect only",
      sql = "update orders set total = (select sum(price) from lines where lines.order_id = orders.id);" },
    { name = "of a new table and, inside a WITH, of an old one", line = 7, message = "\"orders\"",
      sql = "create table t (id int);\nwith gone as (delete from orders returning id) delete from t;" },
    { name = "a join without a condition", sql = "update orders o set total = f.total from fixes f;" },
    { name = "a table of the same name in another schema was made here",
      sql = "create table archive.orders (id int);\ndelete from shop.orders;", line = 7 },
    { name = "in the string of a Lua migration", lua = [[
return { description = "Made up for the test of a rule",
  up = "update orders set status = 'new'", down = "update orders set status = null where status = 'new'" }]],
      line = 2 },
    { name = "in a Lua function", lua = [[
return { description = "Made up for the test of a rule",
  up = function(db)
    db:exec("delete from orders")
  end, irreversible = "gone" }]],
      recorded = { up = { { text = "delete from orders", line = 3 } } }, line = 3 },
  },
  clean = {
    { name = "a condition", sql = "update orders set status = 'new' where status is null;" },
    { name = "a table made here", sql = "create table t (a int, b int);\nupdate t set b = a;\ndelete from public.t;" },
    { name = "a temporary table", sql = "create temporary table t as select 1 as a;\ndelete from t;" },
    { name = "TRUNCATE says what it does", header = { phase = "contract", rationale = "nobody reads the cache now" },
      sql = "truncate cache;" },
    { name = "a body of a function, a rule and an ON CONFLICT",
      sql = "create function f() returns void language sql as $$ delete from orders $$;\n"
        .. "insert into orders (id) values (1) on conflict (id) do update set status = 'new';" },
    { name = "a table that is empty by live facts", sql = "delete from orders;",
      live = { relations = { orders = { kind = "table", rows = 0, empty = true } } } },
    { name = "EXPLAIN does not run it", sql = "explain update orders set status = 'new';" },
    { name = "the text of one in a comment and a string",
      sql = "/* delete from orders; */\ninsert into notes (id, body) values (1, 'delete from orders;');" },
    { name = "what the other rows have",
      sql = "update orders set status = 'new' where status is distinct from 'new';" },
  },
}
