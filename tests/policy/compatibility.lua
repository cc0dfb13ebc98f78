--- Cases of the rule compatibility.
local compatible = { phase = "contract", compatibility = "backward_compatible" }

return {
  rule = "compatibility",
  flagged = {
    { name = "an expand migration that says it breaks", sql = "alter table users add column a int;", line = 4,
      header = { compatibility = "contract_breaking" }, message = "can't be contract_breaking" },
    { name = "in Lua", line = 3, lua = [[
return {
  description = "Add a column",
  compatibility = "contract_breaking",
  up = "alter table users add column a int",
  down = "alter table users drop column a",
}
]] },
    { name = "a contract migration that breaks and says it does not", sql = "alter table users drop column fullname;",
      header = compatible, line = 6, message = "this statement drops column users.fullname" },
    { name = "so does a recorded Lua function", line = 5, message = "drops table", lua = [[
return {
  phase = "contract",
  compatibility = "backward_compatible",
  up = function(db)
    db:exec("drop table old_orders")
  end,
  down = function(db) db:exec("create table old_orders (id bigint)") end,
}
]], recorded = { up = { { text = "drop table old_orders", line = 5 } } } },
    { name = "just before it runs, too", moment = "before", sql = "drop table old_orders;", header = compatible },
  },
  clean = {
    { name = "expand and compatible", sql = "alter table users add column a int;" },
    { name = "contract and breaking", sql = "drop table old_orders;",
      header = { phase = "contract", compatibility = "contract_breaking" } },
    { name = "a contract migration that breaks nothing", sql = "drop index users_fullname;", header = compatible },
    { name = "in Lua, by default", lua = [[
return {
  phase = "contract",
  up = "drop table old_orders",
  down = "create table old_orders (id bigint)",
}
]] },
    { name = "the way down of one that is breaking", moment = "before", direction = "down", header = compatible,
      sql = "drop index users_fullname;", down = "drop table users_backup;" },
  },
}
