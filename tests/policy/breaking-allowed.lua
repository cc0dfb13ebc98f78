--- Cases of the rule breaking-allowed.
local breaking = { phase = "contract", compatibility = "contract_breaking" }
local drop = "drop table old_orders;"

return {
  rule = "breaking-allowed",
  flagged = {
    { name = "allow contract is not enough", moment = "before", sql = drop, header = breaking,
      run = { command = "deploy", allow = { contract = true } }, line = 4, message = "%-%-allow%-breaking" },
    { name = "neither is allowed", moment = "before", sql = drop, header = breaking, run = { command = "up" } },
    { name = "a contract migration counts as breaking until it says otherwise", moment = "before", sql = drop,
      header = { phase = "contract", compatibility = false }, run = { allow = { contract = true } } },
    { name = "in Lua", moment = "before", line = 4, run = { allow = { contract = true } }, lua = [[
return {
  description = "Drop the old orders",
  phase = "contract",
  compatibility = "contract_breaking",
  up = "drop table old_orders",
  down = "create table old_orders (id bigint primary key)",
}
]] },
  },
  clean = {
    { name = "both are allowed", moment = "before", sql = drop, header = breaking,
      run = { command = "deploy", allow = { contract = true, breaking = true } } },
    { name = "a compatible contract migration", moment = "before", sql = "drop index old_orders_day;",
      header = { phase = "contract", compatibility = "backward_compatible" }, run = { allow = { contract = true } } },
    { name = "the way down", moment = "before", direction = "down", sql = drop, header = breaking,
      run = { command = "down" } },
    { name = "an expand migration in Lua", moment = "before", run = { command = "deploy" }, lua = [[
return { description = "Add a table", up = "create table t (id int)", down = "drop table t" }
]] },
  },
}
