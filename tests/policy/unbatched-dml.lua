--- Cases of the rule "unbatched-dml".
return {
  rule = "unbatched-dml",
  flagged = {
    { name = "an UPDATE along a condition", sql = "update users set email = lower(email) where email <> lower(email);",
      line = 6, severity = "warning", message = "UPDATE goes over \"users\" in one statement" },
    { name = "a DELETE by age", sql = "delete from shop.sessions where seen < now() - interval '1 year';",
      message = "\"shop.sessions\"" },
    { name = "a key that is joined, not given",
      sql = "update orders o set total = l.total from order_totals l where l.order_id = o.id;" },
    { name = "a copy of one table into another", sql = "insert into archive (id) select id from orders;",
      message = "reads all of \"orders\"" },
    { name = "through a WITH", sql = "with old as (select * from orders) insert into archive select * from old;" },
    { name = "a tenant's rows may be many", sql = "update orders set status = 'new' where tenant_id = 7;" },
    { name = "one branch of an OR is open", sql = "delete from orders where id = 7 or status = 'old';" },
    { name = "a LIMIT that limits something else",
      sql = "update orders set rate = (select rate from rates order by day desc limit 1) where rate is null;" },
    { name = "IN with a query", sql = "delete from orders where id in (select order_id from cancelled);" },
    { name = "a range that is open at one end", sql = "update orders set status = 'old' where id < 1000000;" },
    { name = "MERGE over a table", sql = "merge into stock s using deliveries d on s.id = d.id\n"
      .. "when matched then update set amount = s.amount + d.amount;", message = "MERGE" },
    { name = "a DELETE inside a WITH",
      sql = "with gone as (delete from orders where status = 'old' returning *)\n"
        .. "insert into archive select * from gone;" },
    { name = "through a WITH that reads all of a table, by that table's name", message = "\"orders\"",
      sql = "with old as (select * from orders) insert into archive select * from old;" },
    { name = "both halves of a UNION",
      sql = "insert into archive (id) select id from orders where id = 7 union all select id from returns;",
      message = "\"returns\"" },
    { name = "a table inside of parentheses, and one behind a JOIN",
      sql = "insert into a (id) select s.id from (select id from orders) s;\n"
        .. "insert into b (id) select r.id from roles r join orders o on o.id = r.id;",
      line = 7, message = "\"roles\"" },
    { name = "a key that is compared with another column", sql = "update orders set a = 1 where id = other_id;" },
    { name = "an index that is not unique, by live facts",
      sql = "update plans set title = 'x' where stripe = 'plan_1';",
      live = { relations = { plans = { kind = "table", rows = 1000000 } }, indexes = { plans = {
        { name = "plans_stripe", columns = { "stripe" }, unique = false, valid = true } } } } },
    { name = "more rows than allowed, by live facts", sql = "delete from sessions where seen < '2020-01-01';",
      options = { max_rows = 100 }, live = { relations = { sessions = { kind = "table", rows = 101 } } } },
    { name = "in the string of a Lua migration", lua = [[
return { description = "Made up for the test of a rule",
  up = "update users set plan = 'free' where plan is null", irreversible = "no" }]], line = 2 },
    { name = "in a Lua function", lua = [[
return { description = "Made up for the test of a rule",
  up = function(db)
    db:exec("update users set plan = $1 where plan is null", "free")
  end, irreversible = "no" }]],
      recorded = { up = { { text = "update users set plan = $1 where plan is null", line = 3, params = { "free" } } } },
      line = 3 },
  },
  clean = {
    { name = "one row by its key", sql = "update settings set value = '5' where key = 'page_size';" },
    { name = "rows by a list of keys", sql = "delete from users where id in (1, 2, 3) and plan = 'free';" },
    { name = "by the table's own id", sql = "update users set plan = 'x' where user_id = 7;" },
    { name = "a quoted key, and nothing at all",
      sql = "update only \"Orders\" set a = 1 where \"Id\" = 5;\ndelete from orders where false;" },
    { name = "two rows", sql = "update plans set title = 'x' where id = 7 or 8 = id;" },
    { name = "a key in an array, a pair of keys, a range written the other way round, a key that is looked up",
      sql = "delete from plans where id = any(array[1, 2]);\ndelete from plans where (a, b) in ((1, 2), (3, 4));\n"
        .. "delete from plans where 7 < id and 100 >= id;\ndelete from plans where id = (select max(id) from plans);" },
    { name = "joins with few rows",
      sql = "update t set a = 1 from unnest(array[1, 2]) n where n = t.id;\n"
        .. "update t set a = 1 from (select id from t where a is null limit 100) s where s.id = t.id;\n"
        .. "delete from t using (values (1)) v (id) join u on u.id = v.id where v.id = t.id;\n"
        .. "merge into t using (values (1)) v (id) on v.id = t.id when matched then delete;" },
    { name = "a few rows of a table", sql = "insert into a (id) select id from orders order by id limit 100;" },
    { name = "from a temporary table and one of this migration", sql = "create temp table s (id int);\n"
      .. "create table n (id int);\ninsert into orders (id) select id from s;\n"
      .. "insert into orders (id) select id from n;" },
    { name = "a batch by LIMIT",
      sql = "update users set plan = 'x' where id in (select id from users where plan is null limit 1000);" },
    { name = "a batch by ctid and an array",
      sql = "delete from logs where ctid = any(array(select ctid from logs where day < '2020-01-01' limit 1000));" },
    { name = "a batch in a WITH", sql = "with batch as (select id from users where plan is null limit 500)\n"
      .. "update users u set plan = 'x' from batch b where u.id = b.id;" },
    { name = "a batch by a range of keys", sql = "update users set plan = 'x' where id > 0 and id <= 1000;" },
    { name = "a range by BETWEEN", sql = "update users set plan = 'x' where id between 1 and 1000;" },
    { name = "a join with values",
      sql = "update plans p set title = v.title from (values (1, 'a'), (2, 'b')) v (id, title) where p.id = v.id;" },
    { name = "INSERT of values", sql = "insert into plans (id, title) values (1, 'a'), (2, 'b');" },
    { name = "INSERT … SELECT without a table",
      sql = "insert into plans (id) select 1 where not exists (select 1 from plans where id = 1);" },
    { name = "rights of named roles",
      sql = "insert into role_rights select r.id, p.id from roles r, rights p\n"
        .. "where r.name = 'admin' and p.code in ('a');" },
    { name = "INSERT … SELECT from the catalogs", sql = "insert into kinds (oid) select oid from pg_catalog.pg_type;" },
    { name = "a new table filled from an old one",
      sql = "create table cities (name text);\ninsert into cities select distinct city from customers;" },
    { name = "between tables of this migration",
      sql = "create table a (id int);\ncreate table b (id int);\ninsert into b select id from a;\ndelete from a;" },
    { name = "small by live facts", sql = "update plans set title = upper(title) where title <> upper(title);",
      live = { relations = { plans = { kind = "table", rows = 12 } } } },
    { name = "a unique column by live facts", sql = "update plans set title = 'x' where stripe = 'plan_1';",
      live = { relations = { plans = { kind = "table", rows = 1000000 } }, indexes = { plans = {
        { name = "plans_stripe", columns = { "stripe" }, unique = true, valid = true } } } } },
    { name = "a Lua function that goes by key", lua = [[
return { description = "Made up for the test of a rule",
  up = function(db)
    for user in db:rows("select id from users") do
      db:exec("update users set plan = $1 where id = $2", "free", user.id)
    end
  end, irreversible = "no" }]], recorded = { up = { { text = "select id from users", line = 3 },
      { text = "update users set plan = $1 where id = $2", line = 4, params = { "free", 7 } } } } },
  },
}
