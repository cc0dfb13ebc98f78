--- Cases of the rule reversible.
return {
  rule = "reversible",
  flagged = {
    { name = "an empty down block", sql = "create table t (id int);", down = "", line = 7, message = "has no down" },
    { name = "a down of comments", sql = "create table t (id int);", down = "-- drop table t;\n/* later */",
      message = "has no down" },
    { name = "a down that selects", sql = "create table t (id int);", down = "select 'ok' as down;", line = 8,
      message = "does nothing" },
    { name = "a down that only asks", sql = "create table t (id int);",
      down = "set local lock_timeout = '1s';\nselect count(*) from t;" },
    { name = "a down that raises", sql = "create table t (id int);",
      down = "do $$\nbegin\n  raise exception 'no way back';\nend\n$$;" },
    { name = "Lua without down", lua = "return { description = \"Add a table\", up = \"create table t (id int)\" }",
      message = "has no down" },
    { name = "a Lua string that does nothing", line = 3, lua = [[
return {
  up = "create table t (id int)",
  down = "select 1",
}
]] },
    { name = "a Lua function that sent nothing when it was rehearsed", line = 3, lua = [[
return {
  up = function(db) db:exec("create table t (id int)") end,
  down = function(db) return db end,
}
]], recorded = { up = { { text = "create table t (id int)", line = 2 } }, down = {} } },
  },
  clean = {
    { name = "a Lua function that found an empty table when it was rehearsed",
      recorded = { up = { { text = "create table t (id int)", line = 3 } },
        down = { { text = "select max(id) from users", line = 5 } } }, lua = [[
return {
  description = "x y z",
  up = function(db) db:exec("create table t (id int)") end,
  down = function(db)
    for first = 1, db:value("select max(id) from users") or 0, 1000 do db:exec("drop table t", first) end
  end,
}
]] },
    { name = "a down that drops", sql = "create table t (id int);", down = "drop table t;" },
    { name = "a reason", sql = "delete from sessions where expires_at < now();", down = "",
      header = { irreversible = "the sessions are over" } },
    { name = "a reason in Lua", lua = [[
return { irreversible = "the sessions are over", up = "delete from sessions where expires_at < now()" }
]] },
    { name = "a Lua function that nobody has rehearsed", lua = [[
return {
  up = function(db) db:exec("create table t (id int)") end,
  down = function(db) db:exec("drop table t") end,
}
]] },
    { name = "a SELECT that calls a function which does something", sql = "select add_job('daily');",
      down = "select remove_job('daily');" },
    { name = "a SELECT that writes", sql = "create table t (id int);",
      down = "with gone as (delete from jobs where name = 't' returning 1) select count(*) from gone;" },
    { name = "a DO block that drops", sql = "create table t (id int);",
      down = "do $$ begin drop table t; end $$;" },
    { name = "what can't be parsed here counts as doing something", sql = "create table t (id int);",
      down = "drop table t with a new clause;" },
  },
}
