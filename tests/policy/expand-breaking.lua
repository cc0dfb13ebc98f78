--- Cases of the rule expand-breaking.
return {
  rule = "expand-breaking",
  flagged = {
    { name = "drops a column", sql = "create table t (id int);\nalter table users drop column fullname;", line = 7,
      severity = "error", message = "this statement drops column users.fullname" },
    { name = "renames a column", sql = "alter table users rename column fullname to display_name;",
      message = "renames" },
    { name = "renames a table", sql = "alter table users rename to people;" },
    { name = "drops a table", sql = "drop table users;", message = "drops table users" },
    { name = "drops a view", sql = "drop view active_users;" },
    { name = "changes a type", sql = "alter table users alter column id type int;" },
    { name = "new NOT NULL without a default", sql = "alter table users add column email text not null;" },
    { name = "new NOT NULL whose default goes again", line = 7, message = "leaves the new column users.n NOT NULL",
      sql = "alter table users add column n int not null default 0;\nalter table users alter column n drop default;" },
    { name = "the same in three steps", line = 8, message = "leaves the new column",
      sql = "alter table users add column n int default 0;\nalter table users alter column n set not null;\n"
        .. "alter table users alter column n drop default;" },
    { name = "SET NOT NULL", sql = "alter table users alter column email set not null;" },
    { name = "SET NOT NULL, though a check proves it", line = 7, message = "sets NOT NULL on users.email",
      sql = "alter table users validate constraint email_filled;\nalter table users alter column email set not null;" },
    { name = "a varchar with a length", sql = "alter table users alter column name type varchar(50);",
      message = "to varchar%(50%) %(unless the old one was shorter" },
    { name = "row level security of a table in use", sql = "alter table users enable row level security;",
      message = "turns on row level security of users" },
    { name = "the same for its owner", sql = "create policy p on users using (true);\n"
      .. "alter table users force row level security;", line = 7, message = "forces row level security of users" },
    { name = "moves a table to another schema", sql = "alter table users set schema archive;" },
    { name = "just before it runs, too", moment = "before", sql = "drop table users;" },
    { name = "the first statement in a Lua string", line = 4, lua = [[
return {
  description = "Call fullname display_name",
  up = [=[
    alter table users rename column fullname to display_name;
  ]=],
  down = "alter table users rename column display_name to fullname",
}
]] },
    { name = "a Lua function whose rehearsal showed it", line = 3, message = "drops column users.fullname", lua = [[
return {
  description = "Drop fullname",
  up = function(db) db:exec("alter table users drop column fullname") end,
  down = function(db) db:exec("alter table users add column fullname text") end,
}
]], recorded = { up = { { text = "alter table users drop column fullname", line = 3 } } } },
  },
  clean = {
    { name = "adds a column", sql = "alter table users add column display_name text;" },
    { name = "new NOT NULL with a default", sql = "alter table users add column n int not null default 0;" },
    { name = "a default that goes again from a column that may be null, or an old one, or a new table's",
      sql = "alter table users add column n int default 0;\nalter table users alter column n drop default;\n"
        .. "alter table users alter column email drop default;\ncreate table t (n int not null default 0);\n"
        .. "alter table t alter column n drop default;" },
    { name = "drops what the same migration made", sql = "create table t (id int, a int);\n"
      .. "alter table t drop column a;\nalter table t rename to u;\ndrop table u;" },
    { name = "an index and a constraint bother nobody who reads", sql = "drop index users_name;\n"
      .. "alter table users drop constraint users_name_check;" },
    { name = "row level security of a new table, and turned off", sql = "create table t (id int primary key);\n"
      .. "alter table t enable row level security, force row level security;\n"
      .. "alter table users disable row level security;\nalter table users no force row level security;" },
    { name = "a varchar without a length", sql = "alter table users alter column name type varchar;" },
    { name = "a check that proves NOT NULL", sql = "alter table users add constraint email_filled "
      .. "check (email is not null) not valid;" },
    { name = "a contract migration", sql = "drop table users;", header = { phase = "contract" } },
    { name = "the down of an expand migration", direction = "down", moment = "before",
      sql = "create table t (id int);", down = "drop table t;" },
    { name = "only its down drops", sql = "create table t (id int);", down = "drop table t;" },
    { name = "a Lua string", lua = [[
return { description = "Add a table", up = "create table t (id int)", down = "drop table t" }
]] },
  },
}
