--- Cases of the rule protected-run.
local production = { name = "production", protected = { variable = "CI", commands = { "deploy" } } }
local add = "alter table users add column a int;"

return {
  rule = "protected-run",
  flagged = {
    { name = "up, and not in the pipeline", moment = "before", sql = add, environment = production,
      run = { command = "up" }, message = "\"production\" is protected: `moonbird up` is refused there, "
        .. "use `moonbird deploy`" },
    { name = "up in the pipeline", moment = "before", sql = add, environment = production,
      run = { command = "up", ci = true }, message = "use `moonbird deploy`$" },
    { name = "deploy by hand", moment = "before", sql = add, environment = production, run = { command = "deploy" },
      message = "the variable CI that proves it is not set" },
    { name = "another variable", moment = "before", sql = add, run = { command = "deploy" }, message = "GITHUB_RUN_ID",
      environment = { name = "production", protected = { variable = "GITHUB_RUN_ID", commands = { "deploy" } } } },
    { name = "an emergency without a reason", moment = "before", sql = add, environment = production,
      run = { command = "up", emergency = "  " } },
    { name = "drop, even in the pipeline", moment = "before", sql = add, environment = production,
      run = { command = "drop", ci = true }, message = "moonbird drop" },
    { name = "redo by hand", moment = "before", direction = "down", sql = add, environment = production,
      run = { command = "redo" }, message = "the variable CI" },
    { name = "a Lua migration, with the defaults", moment = "before", run = { command = "up" },
      environment = { protected = {} }, message = "this environment is protected",
      lua = "return { up = \"create table t (id int)\", down = \"drop table t\" }" },
  },
  clean = {
    { name = "down in the pipeline is the matter of protected-down", moment = "before", direction = "down", sql = add,
      environment = production, run = { command = "down", ci = true } },
    { name = "and so is redo", moment = "before", direction = "down", sql = add, environment = production,
      run = { command = "redo", ci = true } },
    { name = "deploy in the pipeline", moment = "before", sql = add, environment = production,
      run = { command = "deploy", ci = true } },
    { name = "an environment that is not protected", moment = "before", sql = add, run = { command = "up" },
      environment = { name = "development" } },
    { name = "an emergency", moment = "before", sql = add, environment = production,
      run = { command = "up", emergency = "the pipeline is down, agreed with the lead" } },
    { name = "up where it is one of the commands", moment = "before", sql = add, run = { command = "up", ci = true },
      environment = { name = "staging", protected = { variable = "CI", commands = { "deploy", "up" } } } },
    { name = "a Lua migration in the pipeline", moment = "before", environment = production,
      run = { command = "deploy", ci = true },
      lua = "return { up = \"create table t (id int)\", down = \"drop table t\" }" },
  },
}
