--- Cases of the rule "one-change".
local function repeated(count, text)
  local lines = {}
  for i = 1, count do
    lines[i] = text:format(i)
  end
  return table.concat(lines, "\n")
end

local OLDER = { ["20250101120000_older.sql"] = "create table older (a int);" }

return {
  rule = "one-change",
  flagged = {
    { name = "four tables", sql = repeated(4, "alter table t%d add column a int;"), line = 9, severity = "warning",
      message = "changes 4 existing tables" },
    { name = "rows count too", options = { max_tables = 1 },
      sql = "update a set x = 1 where id = 1;\ncreate index on b (x);", line = 7, message = "\"a\", \"b\"" },
    { name = "many statements", others = OLDER, sql = "create table t (a int);\n"
      .. repeated(50, "insert into t values (%d);"), line = 6, message = "51 statements" },
    { name = "fewer, where that is asked for", others = OLDER, options = { max_statements = 1 },
      sql = "create table t (a int);\ninsert into t values (1);" },
    { name = "in a Lua function", options = { max_tables = 1 }, lua = [[
return { description = "Made up for the test of a rule",
  up = function(db)
    for _, name in ipairs { "a", "b" } do
      db:exec(("alter table %s add column note text"):format(name))
    end
  end, irreversible = "made up" }]], recorded = { up = {
        { text = "alter table a add column note text", line = 4 },
        { text = "alter table b add column note text", line = 4 } } }, line = 4 },
  },
  clean = {
    { name = "three tables", sql = repeated(3, "alter table t%d add column a int;") },
    { name = "one table many times, with and without its schema",
      sql = repeated(5, "alter table orders add column a%d int;")
        .. "\ncreate index concurrently_not on public.orders (a1);"
        .. "\nupdate orders set a1 = 1 where id = 1;" },
    { name = "new tables are free", sql = repeated(9, "create table t%d (a int);") },
    { name = "rights, comments and queries", sql = repeated(9, "grant select on t%d to reader;") .. "\n"
      .. repeated(60, "comment on table t%d is 'x';") .. "\n" .. repeated(4, "select 1 from t%d;") },
    { name = "the first migration may be the whole schema", sql = repeated(80, "create table t%d (a int);") },
    { name = "what is referenced is not changed",
      sql = "alter table orders add column a int references a, add column b int references b,\n"
        .. "  add column c int references c, add column d int references d;" },
    { name = "more is allowed", options = { max_tables = 9 }, sql = repeated(9, "alter table t%d add column a int;") },
    { name = "one table in the string of a Lua migration", lua = [[
return { description = "Made up for the test of a rule", up = "alter table t add column a int; alter table t add b int",
  irreversible = "made up" }]] },
  },
}
