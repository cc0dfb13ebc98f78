--- Cases of the rule contract-allowed.
local contract = { phase = "contract", compatibility = "contract_breaking", completes = "20250101000000" }
local others = { ["20250101000000_display_name.sql"] = "alter table users add column display_name text;" }
local drop = "alter table users drop column fullname;"

return {
  rule = "contract-allowed",
  flagged = {
    { name = "a run that was not given --allow-contract", moment = "before", sql = drop, header = contract,
      others = others, run = { command = "deploy" }, message = "was not given `%-%-allow%-contract`", line = 2 },
    { name = "--allow-breaking alone does not allow it", moment = "before", sql = drop, header = contract,
      others = others, run = { command = "up", allow = { breaking = true } } },
    { name = "a compatible contract migration", moment = "before", sql = "drop index users_fullname;",
      header = { phase = "contract", compatibility = "backward_compatible" }, run = { command = "up" } },
    { name = "in Lua, with its line", moment = "before", line = 3, message = "20250601120000_case", lua = [[
return {
  description = "Drop the column fullname, which display_name replaced",
  phase = "contract",
  completes = 20250101000000,
  up = function(db) db:exec("alter table users drop column fullname") end,
  down = function(db) db:exec("alter table users add column fullname text") end,
}
]], others = others },
  },
  clean = {
    { name = "the run allows it", moment = "before", sql = drop, header = contract, others = others,
      run = { command = "deploy", allow = { contract = true } } },
    { name = "an expand migration", moment = "before", sql = "alter table users add column a int;",
      run = { command = "deploy" } },
    { name = "the way down of a contract migration", moment = "before", direction = "down", sql = drop,
      header = contract, others = others, run = { command = "down" } },
    { name = "a check of the files asks nobody", sql = drop, header = contract, others = others },
  },
}
