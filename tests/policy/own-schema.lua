--- Cases of the rule "own-schema".
return {
  rule = "own-schema",
  flagged = {
    { name = "reads the journal", sql = "create table loot as\nselect * from moonbird.journal;", line = 6,
      severity = "error", message = "names the schema \"moonbird\"" },
    { name = "writes to it", sql = "insert into moonbird.journal select * from moonbird.journal;" },
    { name = "switches its triggers off", sql = "alter table moonbird.journal disable trigger all;" },
    { name = "drops the schema", sql = "drop schema if exists moonbird cascade;" },
    { name = "puts it on the search path", sql = "set local search_path = public, moonbird;" },
    { name = "grants it", sql = "grant select on all tables in schema moonbird to app;" },
    { name = "quoted, in a DO block", sql = "do $$ begin delete from \"moonbird\" . journal; end $$;",
      message = "DO names" },
    { name = "in a function's body", sql = "create function f() returns bigint language sql as "
      .. "$$ select count(*) from MOONBIRD.journal $$;" },
    { name = "in the down", sql = "create table t (a int);", down = "drop schema moonbird cascade;", line = 8 },
    { name = "in the down, just before it runs", moment = "before", direction = "down", sql = "select 1;",
      down = "drop schema moonbird cascade;" },
    { name = "in the string of a Lua migration", line = 2, lua = [[
return { description = "Made up for the test of a rule",
  up = "create table loot as select * from moonbird.journal", down = "drop table loot" }]] },
    { name = "in a Lua function", line = 3, lua = [[
return { description = "Made up for the test of a rule",
  up = function(db)
    local rows = db:query("select * from moonbird.journal")
  end, irreversible = "made up" }]],
      recorded = { up = { { text = "select * from moonbird.journal", line = 3 } } } },
  },
  clean = {
    { name = "a table of that name elsewhere", sql = "create table moonbird (journal int);\n"
      .. "create table shop.moonbird (a int);\ncreate index on moonbird (journal);" },
    { name = "a word in a text and a comment", sql = "-- moonbird.journal\n"
      .. "insert into notes (id, body) values (1, 'see moonbird.journal');" },
    { name = "another schema", sql = "create table moonbirds.journal (a int);\n"
      .. "do $$ begin perform count(*) from app_moonbird.journal; end $$;" },
    { name = "in a Lua function", lua = [[
return { description = "Made up for the test of a rule",
  up = function(db) db:exec("create table t (a int)") end, down = "drop table t" }]],
      recorded = { up = { { text = "create table t (a int)", line = 2 } } } },
  },
}
