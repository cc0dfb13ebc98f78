--- Cases of the rule "superuser".
return {
  rule = "superuser",
  flagged = {
    { name = "a new superuser", sql = "create role app login superuser;", line = 6, severity = "error",
      message = "role \"app\" becomes a superuser" },
    { name = "CREATE USER", sql = "create user \"App\" with SUPERUSER;", message = "\"App\"" },
    { name = "ALTER ROLE", sql = "alter role app with createdb superuser;" },
    { name = "BYPASSRLS", sql = "create role app bypassrls;", severity = "warning", message = "BYPASSRLS" },
    { name = "REPLICATION", sql = "alter user app replication;", severity = "warning", message = "REPLICATION" },
    { name = "going on as a superuser", sql = "set role postgres;\ncreate table t (a int);", line = 6,
      message = "goes on as \"postgres\"" },
    { name = "for the transaction only", sql = "set local session authorization 'postgres';" },
    { name = "membership that is as good", sql = "grant rds_superuser to app;", message = "membership in" },
    { name = "the string of a Lua migration", lua = [[
return { description = "Made up for the test of a rule",
  up = "alter role app superuser", down = "alter role app nosuperuser" }]], line = 2 },
    { name = "a Lua function", lua = [[
return { description = "Made up for the test of a rule",
  up = function(db)
    db:exec("alter role app superuser")
  end, irreversible = "made up" }]], recorded = { up = { { text = "alter role app superuser", line = 3 } } },
    line = 3 },
  },
  clean = {
    { name = "a plain role", sql = "create role app login nosuperuser nobypassrls noreplication createdb;" },
    { name = "a role loses it", sql = "alter role app nosuperuser;\nrevoke rds_superuser from app;" },
    { name = "another role", sql = "set local role app_owner;\ncreate table t (a int);\nreset role;\nset role none;" },
    { name = "rights of the server that are none of a superuser",
      sql = "grant pg_monitor, pg_read_all_data to metrics;" },
    { name = "a role whose name says so",
      sql = "create role superuser_reports login;\ngrant reader to superuser_reports;" },
    { name = "words in a string, a comment and a name of a table",
      sql = "-- create role app superuser;\ncreate table superuser (id int);\n"
        .. "comment on table superuser is 'alter role app superuser';" },
    { name = "a Lua function", lua = [[
return { description = "Made up for the test of a rule",
  up = function(db)
    db:exec("create role app login")
  end, irreversible = "made up" }]], recorded = { up = { { text = "create role app login", line = 3 } } } },
  },
}
