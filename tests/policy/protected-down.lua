--- Cases of the rule protected-down.
local production = { name = "production", protected = { variable = "CI", commands = { "deploy" } } }
local add = "alter table users add column a int;"

return {
  rule = "protected-down",
  flagged = {
    { name = "down by hand", moment = "before", direction = "down", sql = add, environment = production,
      run = { command = "down" }, message = "\"production\" is protected and goes forward: `moonbird down`" },
    { name = "down in the pipeline", moment = "before", direction = "down", sql = add, environment = production,
      run = { command = "down", ci = true } },
    { name = "redo, from its first step on", moment = "before", direction = "down", sql = add,
      environment = production, run = { command = "redo", ci = true }, message = "moonbird redo" },
    { name = "redo, on its way up again", moment = "before", sql = add, environment = production,
      run = { command = "redo", ci = true } },
    { name = "a way down under another name", moment = "before", direction = "down", sql = add,
      environment = production, run = { command = "deploy", ci = true } },
    { name = "an emergency without a reason", moment = "before", direction = "down", sql = add,
      environment = production, run = { command = "down", emergency = "" } },
    { name = "a Lua migration", moment = "before", direction = "down", environment = production,
      run = { command = "down", ci = true },
      lua = "return { up = \"create table t (id int)\", down = \"drop table t\" }" },
  },
  clean = {
    { name = "an emergency", moment = "before", direction = "down", sql = add, environment = production,
      run = { command = "down", emergency = "release 2.4 loses orders" } },
    { name = "deploy", moment = "before", sql = add, environment = production,
      run = { command = "deploy", ci = true } },
    { name = "an environment that is not protected", moment = "before", direction = "down", sql = add,
      environment = { name = "development" }, run = { command = "down" } },
    { name = "a Lua migration in an environment that is not protected", moment = "before", direction = "down",
      run = { command = "down" }, lua = "return { up = \"create table t (id int)\", down = \"drop table t\" }" },
  },
}
