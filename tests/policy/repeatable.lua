--- Cases of the rule "repeatable".
local WITHOUT = { transaction = false }

return {
  rule = "repeatable",
  flagged = {
    { name = "CREATE TABLE", header = WITHOUT, sql = "create table t (a int);", line = 6, severity = "warning",
      message = "CREATE TABLE without IF NOT EXISTS" },
    { name = "a column, the second of two actions", header = WITHOUT,
      sql = "alter table t add column if not exists a int, add column b int;", message = "ADD COLUMN without" },
    { name = "a constraint", header = WITHOUT, sql = "alter table t add constraint c check (a > 0) not valid;",
      message = "ADD CONSTRAINT" },
    { name = "DROP", header = WITHOUT, sql = "drop view v;", message = "DROP VIEW without IF EXISTS" },
    { name = "a function", header = WITHOUT, sql = "create function f() returns int language sql as 'select 1';",
      message = "OR REPLACE" },
    { name = "a type", header = WITHOUT, sql = "create type mood as enum ('ok');",
      message = "DROP … IF EXISTS before it" },
    { name = "rows", header = WITHOUT, sql = "insert into plans (id) values (1);", message = "ON CONFLICT" },
    { name = "an UPDATE that counts on", header = WITHOUT, sql = "update t set a = a + 1 where id = 7;",
      message = "counts on what \"a\" was" },
    { name = "a rename", header = WITHOUT, sql = "alter table t rename column a to b;", message = "RENAME" },
    { name = "an index built concurrently without a name", header = WITHOUT,
      sql = "create index concurrently on t (a);", message = "without a name" },
    { name = "a column that goes", header = WITHOUT, sql = "alter table t drop column a;", message = "DROP COLUMN" },
    { name = "a constraint that goes", header = WITHOUT, sql = "alter table t drop constraint a;",
      message = "DROP CONSTRAINT" },
    { name = "another schema", header = WITHOUT, sql = "alter table t set schema s;", message = "SET SCHEMA" },
    { name = "a value of an enum", header = WITHOUT, sql = "alter type mood add value 'fine';", message = "ADD VALUE" },
    { name = "an UPDATE that counts on inside of a function", header = WITHOUT,
      sql = "update t set a = coalesce(a + 1, 0) where id = 7;", message = "counts on" },
    { name = "COPY", header = WITHOUT, sql = "copy t (a) from stdin;\n1\n\\.", message = "COPY" },
    { name = "a publication of a subscription", header = WITHOUT, sql = "alter subscription s add publication p;",
      message = "PUBLICATION" },
    { name = "a plain index", header = WITHOUT, sql = "create index i on t (a);", message = "CREATE INDEX without" },
    { name = "the one block of two that has no transaction",
      sql = "-- description: Made up for the test of a rule\n-- migrate:up\ncreate table a (a int);\n-- migrate:down\n"
        .. "drop table a;\n-- migrate:up transaction:false\ncreate table b (b int);\n-- migrate:down\ndrop table b;",
      line = 7 },
    { name = "in a Lua function", lua = [[
return { description = "Made up for the test of a rule", transaction = false,
  up = function(db)
    db:exec("create table t (a int)")
  end, irreversible = "made up" }]], recorded = { up = { { text = "create table t (a int)", line = 3 } } }, line = 3 },
    { name = "in the string of a Lua migration", lua = [[
return { description = "Made up for the test of a rule", transaction = false,
  up = "create table t (a int)", irreversible = "made up" }]], line = 2 },
  },
  clean = {
    { name = "with a transaction", sql = "create table t (a int);\ninsert into t values (1);\ndrop view v;" },
    { name = "IF [NOT] EXISTS and OR REPLACE", header = WITHOUT,
      sql = "create table if not exists t (a int, check (a > 0));\ndrop view if exists v;\n"
        .. "create or replace view v as select 1;\nalter table t add column if not exists b int references t,\n"
        .. "  drop column if exists c, alter column b set not null;\ncreate schema if not exists s;" },
    { name = "what moonbird looks after", header = WITHOUT,
      sql = "set lock_timeout = '5s';\ncreate index concurrently i on t (a);\ndrop index concurrently j;\n"
        .. "reindex index concurrently k;\nalter table t validate constraint c;\nvacuum t;\n"
        .. "alter table t detach partition p concurrently;\nalter type mood add value if not exists 'fine';" },
    { name = "dropped before it is made", header = WITHOUT,
      sql = "drop type if exists mood;\ncreate type public.mood as enum ('ok');\n"
        .. "drop trigger if exists g on t;\ncreate trigger g before insert on t for each row execute function f();\n"
        .. "drop policy if exists p on t;\ncreate policy p on t;\n"
        .. "alter table t drop constraint if exists c, add constraint c check (a > 0) not valid;" },
    { name = "rows that may be there", header = WITHOUT,
      sql = "insert into plans (id) values (1) on conflict do nothing;\n"
        .. "insert into plans (id) select 2 where not exists (select 1 from plans where id = 2);\n"
        .. "update plans set title = 'x', n = 3 where id = 1;\nupdate t set a = a + 1 where a = 1;\n"
        .. "update users set email = lower(email) where email <> lower(email);\ndelete from plans where id = 9;\n"
        .. "truncate cache;\ninsert into cache values (1);" },
    { name = "COPY into a table that was emptied", header = WITHOUT,
      sql = "truncate t;\ncopy t (a) from stdin;\n1\n\\." },
    { name = "rights and comments", header = WITHOUT,
      sql = "grant select on t to reader;\ncomment on table t is 'create table x';\nalter table t owner to app;" },
    { name = "the option's word in a comment of a file with transactions",
      sql = "-- this needs no transaction:false\ncreate table t (a int);" },
    { name = "a Lua function with a transaction", lua = [[
return { description = "Made up for the test of a rule",
  up = function(db) db:exec("create table t (a int)") end, irreversible = "made up" }]],
      recorded = { up = { { text = "create table t (a int)", line = 2 } } } },
  },
}
