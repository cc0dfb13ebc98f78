--- Cases of the rule "slow-step".
local SQL = "update orders set status = 'new' where id = 7;"
local LUA = [[
return { description = "Made up for the test of a rule",
  up = function(db)
    db:exec("update orders set status = 'new' where id = 7")
  end, irreversible = "made up" }]]

return {
  rule = "slow-step",
  flagged = {
    { name = "half a minute and more", sql = SQL, moment = "after", severity = "warning",
      step = { direction = "up", duration_ms = 41300, transactional = true }, message = "took 41.3s" },
    { name = "a smaller limit", sql = SQL, moment = "after", options = { max = "500ms" },
      step = { direction = "up", duration_ms = 501, transactional = true }, message = "no more than 500ms" },
    { name = "without a transaction it is only told", header = { transaction = false }, moment = "after",
      sql = "create index concurrently i on orders (a);", severity = "info",
      step = { direction = "up", duration_ms = 90000, transactional = false } },
    { name = "a Lua function", lua = LUA, moment = "after",
      step = { direction = "up", duration_ms = 30001, transactional = true } },
  },
  clean = {
    { name = "quick enough", sql = SQL, moment = "after",
      step = { direction = "up", duration_ms = 30000, transactional = true } },
    { name = "a higher limit", sql = SQL, moment = "after", options = { max = "5m" },
      step = { direction = "up", duration_ms = 299000, transactional = true } },
    { name = "no limit", sql = SQL, moment = "after", options = { max = "0" },
      step = { direction = "up", duration_ms = 9000000, transactional = true } },
    { name = "a Lua function", lua = LUA, moment = "after",
      step = { direction = "up", duration_ms = 12, transactional = true } },
  },
}
