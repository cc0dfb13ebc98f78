--- Cases of the rule contract-history.
local contract = { phase = "contract", compatibility = "contract_breaking", completes = "20250101000000" }
local unnamed = { phase = "contract", compatibility = "contract_breaking" }
local others = {
  ["20250101000000_display_name.sql"] = "alter table users add column display_name text;",
  ["20250102000000_drop_old.sql"] = "-- phase: contract\n-- migrate:up\ndrop table old;\n-- migrate:down\nselect 1;\n",
}
local drop = "alter table users drop column fullname;"
local in_lua = [[
return {
  phase = "contract",
  completes = { 20250101000000, 20250103000000 },
  up = "alter table users drop column fullname",
  down = "alter table users add column fullname text",
}
]]

return {
  rule = "contract-history",
  flagged = {
    { name = "what it completes is not applied on this target", moment = "before", sql = drop, header = contract,
      others = others, history = { target = "acme", applied = { 20250102000000 } }, line = 5,
      message = "completes 20250101000000_display_name, which is not applied on target \"acme\"" },
    { name = "nothing was ever applied there", moment = "before", sql = drop, header = contract, others = others,
      history = { target = "new_tenant" }, message = "new_tenant" },
    { name = "one of two is missing, in Lua", moment = "before", lua = in_lua, others = others, line = 3,
      history = { applied = { 20250101000000 } }, message = "20250103000000" },
    { name = "its backfill is not finished", moment = "before", sql = drop, header = contract, others = others,
      history = { target = "acme", applied = { 20250101000000 },
        backfills = { [20250101000000] = { done = false, share = 0.437 } } },
      message = "not finished on target \"acme\", 43%% done" },
    { name = "it names nothing, and no expand migration was applied there", moment = "before", sql = drop,
      header = unnamed, others = others, history = { applied = { 20250102000000 } },
      message = "no expand migration was applied on target \"global\"" },
    { name = "what was applied there was a contract migration then", moment = "before", sql = drop, header = unnamed,
      others = others, history = { applied = { [20250101000000] = { phase = "contract" } } },
      message = "no expand migration" },
    { name = "only itself, taken back and forth", moment = "before", sql = drop, header = unnamed, others = others,
      history = { applied = { [20250601120000] = { phase = "expand" } } }, message = "no expand migration" },
  },
  clean = {
    { name = "it is applied on this target", moment = "before", sql = drop, header = contract, others = others,
      history = { target = "acme", applied = { 20250101000000 } } },
    { name = "and its backfill is finished", moment = "before", sql = drop, header = contract, others = others,
      history = { applied = { 20250101000000 }, backfills = { [20250101000000] = { done = true, share = 1 } } } },
    { name = "it names nothing, and an expand migration was applied there", moment = "before", sql = drop,
      header = unnamed, others = others, history = { applied = { 20250101000000 } } },
    { name = "both are applied, in Lua", moment = "before", lua = in_lua, others = others,
      history = { applied = { 20250101000000, 20250103000000 } } },
    { name = "the way down asks for nothing", moment = "before", direction = "down", sql = drop, header = contract,
      others = others, history = { applied = { 20250601120000 } } },
    { name = "an expand migration on an empty target", moment = "before", sql = "create table t (id int);",
      history = { applied = {} } },
  },
}
