--- Cases of the rule irreversible-allowed.
local irreversible = { irreversible = "the sessions are over" }
local delete = "delete from sessions where expires_at < now();"
local in_lua = [[
return {
  irreversible = "the sessions are over",
  up = "delete from sessions where expires_at < now()",
}
]]

return {
  rule = "irreversible-allowed",
  flagged = {
    { name = "an environment that forbids it", sql = delete, down = "", header = irreversible, line = 5,
      options = { forbid = true }, environment = { name = "production" },
      message = "%(the sessions are over%), and the environment \"production\"" },
    { name = "just before it runs, too", moment = "before", sql = delete, down = "", header = irreversible,
      options = { forbid = true } },
    { name = "in Lua", lua = in_lua, options = { forbid = true }, line = 2 },
  },
  clean = {
    { name = "the environment says nothing", sql = delete, down = "", header = irreversible },
    { name = "in Lua, and it says nothing", lua = in_lua, options = { forbid = false } },
    { name = "there is a down", sql = "create table t (id int);", down = "drop table t;",
      options = { forbid = true } },
    { name = "a down in Lua", options = { forbid = true },
      lua = "return { up = \"create table t (id int)\", down = \"drop table t\" }" },
  },
}
