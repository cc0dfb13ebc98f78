-- Cases of the rule id-unique.
local function lua_file(id)
  return ("return { id = %q, description = \"Made up for the test of a rule\", phase = \"expand\",\n"):format(id)
    .. "  scope = \"global\", compatibility = \"backward_compatible\", up = \"create table a (id int)\",\n"
    .. "  down = \"drop table a\" }\n"
end

local function sql_file(id)
  return ("-- id: %s\n-- migrate:up\ncreate table b (id int);\n-- migrate:down\ndrop table b;\n"):format(id)
end

return {
  rule = "id-unique",
  flagged = {
    { name = "an id copied with the head", sql = "create table a (id int);", header = { id = "SHOP-7" },
      file = "20250602120000_a.sql", others = { ["20250601120000_b.sql"] = sql_file("SHOP-7") },
      message = 'the id "SHOP%-7" of "migrations/20250602120000_a.sql" is also that of "migrations/20250601120000_b' },
    { name = "an id in Lua and in SQL", lua = lua_file("SHOP-7"), file = "20250602120000_a.lua",
      others = { ["20250601120000_b.sql"] = sql_file("SHOP-7") }, line = 1, severity = "error",
      message = "20250602120000_a%.lua" },
    { name = "another file's version and name", sql = "create table a (id int);", header = { id = "001_users" },
      file = "002_a.sql", others = { ["001_users.sql"] = "create table users (id int);" },
      message = 'is what "migrations/001_users%.sql" is known by' },
  },
  clean = {
    { name = "ids of their own", sql = "create table a (id int);", header = { id = "SHOP-8" },
      file = "20250602120000_a.sql", others = { ["20250601120000_b.sql"] = sql_file("SHOP-7") } },
    { name = "no ids", sql = "create table a (id int);", file = "20250602120000_a.sql",
      others = { ["20250601120000_b.sql"] = "create table b (id int);" } },
    { name = "its own version and name", lua = lua_file("20250602120000_a"), file = "20250602120000_a.lua",
      others = { ["20250601120000_b.sql"] = sql_file("SHOP-7") } },
  },
}
