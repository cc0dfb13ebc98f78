--- Cases of the rule completes-known.
local others = {
  ["20250101000000_display_name.sql"] = "alter table users add column display_name text;",
  ["20250102000000_drop_old.sql"] = "-- phase: contract\n-- migrate:up\ndrop table old;\n-- migrate:down\nselect 1;\n",
  ["20260101000000_later.sql"] = "create table later (id int);",
}
local drop = "alter table users drop column fullname;"

local function contract(completes)
  return { phase = "contract", compatibility = "contract_breaking", completes = completes }
end

return {
  rule = "completes-known",
  flagged = {
    { name = "a version that is nowhere", sql = drop, header = contract "20240101000000", others = others, line = 5,
      severity = "error", message = "20240101000000, and there is no such migration" },
    { name = "a newer one", sql = drop, header = contract "20260101000000", others = others, message = "newer" },
    { name = "a contract one", sql = drop, header = contract "20250102000000", others = others,
      message = "no expand migration" },
    { name = "itself", sql = drop, header = contract "20250601120000", others = others, message = "itself" },
    { name = "one of two is wrong, in Lua", others = others, line = 4, message = "20249", lua = [[
return {
  description = "Drop the column fullname",
  phase = "contract",
  completes = { 20250101000000, 20249 },
  up = "alter table users drop column fullname",
  down = "alter table users add column fullname text",
}
]] },
    { name = "a contract migration that names nothing is told", sql = drop, severity = "info", line = 2,
      header = contract(nil), message = "does not say" },
    { name = "an expand migration that names what is not there", sql = "create table t (id int);",
      header = { completes = "7" }, severity = "error", message = "no such" },
  },
  clean = {
    { name = "an older expand migration", sql = drop, header = contract "20250101000000", others = others },
    { name = "in Lua", others = others, lua = [[
return {
  phase = "contract",
  completes = 20250101000000,
  up = "alter table users drop column fullname",
  down = "alter table users add column fullname text",
}
]] },
    { name = "an expand migration that names nothing", sql = "create table t (id int);" },
    { name = "an expand migration that completes an older one", sql = "create table t (id int);", others = others,
      header = { completes = "20250101000000" } },
  },
}
