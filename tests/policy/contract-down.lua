--- Cases of the rule contract-down.
local contract = { phase = "contract", compatibility = "contract_breaking" }
local irreversible = { phase = "contract", compatibility = "contract_breaking", irreversible = "the names are gone" }
local drop = "alter table users drop column fullname;"

return {
  rule = "contract-down",
  flagged = {
    { name = "no down at all", line = 1, message = "has none", lua = [[
return { phase = "contract", up = "alter table users drop column fullname" }
]] },
    { name = "an empty down", sql = drop, header = contract, down = "", line = 7, message = "has none" },
    { name = "a down of comments", sql = drop, header = contract, down = "-- nothing to do", message = "has none" },
    { name = "a down that selects", sql = drop, header = contract, down = "select 1;", message = "does nothing",
      line = 8 },
    { name = "a down that raises", sql = drop, header = contract, message = "does nothing",
      down = "do $$ begin raise exception 'there is no way back'; end $$;" },
    { name = "irreversible is not enough", sql = drop, header = irreversible, down = "", line = 5,
      message = "not enough" },
    { name = "in Lua without down", lua = [[
return {
  phase = "contract",
  irreversible = "the names are gone",
  up = "alter table users drop column fullname",
}
]], line = 3, message = "not enough" },
    { name = "a Lua function that sent nothing when it was rehearsed", message = "does nothing",
      recorded = { up = { { text = "alter table users drop column fullname", line = 3 } }, down = {} }, lua = [[
return {
  phase = "contract",
  up = function(db) db:exec("alter table users drop column fullname") end,
  down = function() end,
}
]] },
  },
  clean = {
    { name = "a down that brings the column back", sql = drop, header = contract,
      down = "alter table users add column fullname text;" },
    { name = "irreversible where the environment takes it", sql = drop, header = irreversible, down = "",
      options = { allow_irreversible = true } },
    { name = "an expand migration may be irreversible", sql = "alter table users add column a int;",
      header = { irreversible = "made up" }, down = "" },
    { name = "a Lua function that nobody has rehearsed", lua = [[
return {
  phase = "contract",
  up = function(db) db:exec("alter table users drop column fullname") end,
  down = function(db) db:exec("alter table users add column fullname text") end,
}
]] },
    { name = "a Lua function that sent something", lua = [[
return {
  phase = "contract",
  up = function(db) db:exec("alter table users drop column fullname") end,
  down = function(db) db:exec("alter table users add column fullname text") end,
}
]], recorded = { up = { { text = "alter table users drop column fullname", line = 3 } },
      down = { { text = "alter table users add column fullname text", line = 4 } } } },
  },
}
