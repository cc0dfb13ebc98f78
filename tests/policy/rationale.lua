--- Cases of the rule "rationale".
local LATER = require("tests.texts").LATER

local function contract(rationale)
  return { phase = "contract", compatibility = "contract_breaking", rationale = rationale,
    data_preservation = "the column was never written to" }
end

local SQL = "alter table users drop column fullname;"

return {
  rule = "rationale",
  flagged = {
    { name = "none", header = contract(nil), sql = SQL, line = 2, message = "has no rationale" },
    { name = "a word", header = contract("cleanup"), sql = SQL, message = "no sentence: \"cleanup\"" },
    { name = "left for later", header = contract(LATER .. ": ask the others about this"), sql = SQL },
    { name = "shorter than asked for", header = contract("nobody reads it now"), sql = SQL,
      options = { min_length = 60 } },
    { name = "in a comment elsewhere", header = contract(nil),
      sql = "-- rationale: every release reads display_name\n" .. SQL },
    { name = "a Lua migration without one", lua = [[
return {
  description = "Made up for the test of a rule",
  phase = "contract",
  up = "alter table users drop column fullname",
  down = "alter table users add column fullname text",
}]], line = 3 },
  },
  clean = {
    { name = "a sentence", header = contract("every release since 2.4 reads display_name"), sql = SQL },
    { name = "an expand migration needs none", sql = "alter table users add column a int;" },
    { name = "a short one is allowed", header = contract("it is not read"), sql = SQL, options = { min_length = 5 } },
    { name = "in letters of another alphabet", header = contract("от версии 2.4 никто не читает"), sql = SQL },
    { name = "a Lua migration with one", lua = [[
return {
  description = "Made up for the test of a rule",
  phase = "contract",
  rationale = "every release since 2.4 reads display_name",
  up = "alter table users drop column fullname",
  down = "alter table users add column fullname text",
}]] },
  },
}
