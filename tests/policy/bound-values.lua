--- Cases of the rule "bound-values".
local LUA = [[
return { description = "Made up for the test of a rule",
  up = function(db)
    for user in db:rows("select id, name from users") do
      db:exec("what is recorded")
    end
  end, irreversible = "made up" }]]

local READ = { text = "select id, name from users", line = 3 }

local function recorded(...)
  return { up = { READ, ... } }
end

return {
  rule = "bound-values",
  flagged = {
    { name = "a string", lua = LUA, line = 4, severity = "warning", message = "INSERT holds a value.*values %(%$1%)",
      recorded = recorded { text = "insert into pages (title) values ('Grace')", line = 4, reads = { "Grace" } } },
    { name = "a number", lua = LUA, line = 4, message = "UPDATE.*plan = 'x' where id = %$1",
      recorded = recorded { text = "update users set plan = 'x' where id = 4711", line = 4, reads = { 4711 } } },
    { name = "a part of a string", lua = LUA, line = 4, message = "like %$1",
      recorded = recorded { text = "select * from pages where title like '%Grace%'", line = 4, reads = { "Grace" } } },
    { name = "a string with a quote", lua = LUA, line = 4, message = "values %(%$1%)",
      recorded = recorded { text = "insert into pages (title) values ('O''Brien')", line = 4, reads = { "O'Brien" } } },
  },
  clean = {
    { name = "bound", lua = LUA, recorded = recorded { text = "insert into pages (title) values ($1)", line = 4,
      params = { "Grace" }, reads = {} } },
    { name = "nothing was read before", lua = LUA,
      recorded = recorded { text = "insert into pages (title) values ('Grace')", line = 4 } },
    { name = "SQL in a string of the file", lua = [[
return { description = "Made up for the test of a rule", up = "insert into pages (title) values ('Grace')",
  irreversible = "made up" }]] },
    { name = "a .sql file", sql = "insert into pages (title) select name from users where name = 'Grace';" },
  },
}
