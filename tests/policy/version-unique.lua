-- Cases of the rule version-unique.
local function lua_file(body)
  return "return { description = \"Made up for the test of a rule\", phase = \"expand\", scope = \"global\",\n"
    .. "  compatibility = \"backward_compatible\", up = \"" .. body .. "\", down = \"drop table made_up\" }\n"
end

return {
  rule = "version-unique",
  flagged = {
    { name = "two .sql files with one version", sql = "create table a (id int);", file = "20250601120000_a.sql",
      others = { ["20250601120000_b.sql"] = "create table b (id int);" }, line = 1,
      message = 'taken twice: by "migrations/20250601120000_a.sql" and by "migrations/20250601120000_b.sql"' },
    { name = "a .sql and a .lua file with one version", sql = "create table a (id int);",
      file = "20250601120000_a.sql", others = { ["20250601120000_b.lua"] = lua_file("create table b (id int)") },
      message = "20250601120000_b%.lua" },
    { name = "one number, written with and without zeros", lua = lua_file("create table a (id int)"),
      file = "7_a.lua", others = { ["007_b.sql"] = "create table b (id int);" }, severity = "error",
      message = "taken twice" },
    { name = "three files with one version", sql = "create table a (id int);", file = "003_a.sql",
      others = { ["003_b.sql"] = "create table b (id int);", ["003_c.sql"] = "create table c (id int);" },
      message = "003_c%.sql" },
  },
  clean = {
    { name = "versions of their own", sql = "create table a (id int);", file = "20250601120000_a.sql",
      others = { ["20250601120001_b.sql"] = "create table b (id int);" } },
    { name = "one name under two versions", lua = lua_file("create table a (id int)"), file = "002_a.lua",
      others = { ["001_a.sql"] = "create table b (id int);" } },
    { name = "a single file", sql = "create table a (id int);" },
  },
}
