--- Cases of the rule "data-note".
local CONTRACT = { phase = "contract", compatibility = "contract_breaking", rationale = "nobody has read it since 2.4" }
local NOTED = { data_preservation = "a copy is in the backup of 3 May, kept for a year" }

return {
  rule = "data-note",
  flagged = {
    { name = "a column is dropped, among other actions", header = CONTRACT,
      sql = "alter table users add column a int, drop column fullname;", line = 7, severity = "error",
      message = "does not say what becomes of the data" },
    { name = "a table is dropped", header = CONTRACT, sql = "drop table if exists \"Old\";", severity = "error" },
    { name = "all rows go", header = CONTRACT, sql = "truncate cache;", severity = "error" },
    { name = "rows are changed", sql = "update users set name = trim(name) where name <> trim(name);", line = 6,
      severity = "warning", message = "UPDATE of \"users\"" },
    { name = "rows are deleted inside a WITH",
      sql = "with gone as (delete from orders where id = 7 returning *) select * from gone;", severity = "warning" },
    { name = "the drop comes after the change", header = CONTRACT,
      sql = "update users set a = b where id = 1;\nalter table users drop column b;", line = 8, severity = "error" },
    { name = "the note stands in the body", header = CONTRACT,
      sql = "-- data_preservation: it was copied\ndrop table old;" },
    { name = "a type that may hold less", header = CONTRACT, severity = "warning",
      sql = "alter table users alter column name type varchar(10);" },
    { name = "the string of a Lua migration", lua = [[
return { description = "Made up for the test of a rule", phase = "contract",
  up = "drop table old", down = "create table old (a int)" }]], line = 2, severity = "error" },
    { name = "a backfill", severity = "warning", message = "a backfill", line = 2, lua = [[
return { description = "Made up for the test of a rule",
  backfill = { table = "t", set = "a = 1" }, up = "select 1", irreversible = "made up" }]] },
    { name = "a Lua function", lua = [[
return { description = "Made up for the test of a rule",
  up = function(db)
    db:exec("update users set name = $1 where id = $2", "Ada", 1)
  end, irreversible = "made up" }]], recorded = { up = {
        { text = "update users set name = $1 where id = $2", line = 3, params = { "Ada", 1 } } } }, line = 3,
      severity = "warning" },
  },
  clean = {
    { name = "with a note", header = { phase = "contract", compatibility = "contract_breaking",
      rationale = "nobody has read it since 2.4", data_preservation = NOTED.data_preservation },
      sql = "drop table old;\nupdate users set a = 1 where id = 1;" },
    { name = "nothing is lost", sql = "alter table users add column a int;\ncreate index i on only users (a);\n"
      .. "insert into users (id) values (1);" },
    { name = "an index, a view, a function and a constraint hold no data", header = CONTRACT,
      sql = "drop index i;\ndrop view v;\ndrop function f();\nalter table users drop constraint c;\n"
        .. "alter table users alter column a drop default;" },
    { name = "what is made here", sql = "create table t (a int, b int);\nupdate t set b = a where a > 1;\n"
      .. "alter table t drop column b;\ndelete from t where a = 1;\ntruncate t;\ndrop table t;" },
    { name = "words in a string, a comment and a body", sql = "-- drop table users;\n"
      .. "insert into notes (id, body) values (1, 'drop table users');\n"
      .. "create function f() returns void language sql as $$ delete from users $$;" },
    { name = "a Lua migration with a note", lua = [[
return { description = "Made up for the test of a rule", phase = "contract", data_preservation = "was never written to",
  up = "drop table old", down = "create table old (a int)" }]] },
  },
}
