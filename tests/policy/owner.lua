--- Cases of the rule "owner".
local ON = { required = true }

return {
  rule = "owner",
  flagged = {
    { name = "none where one is asked for", options = ON, sql = "select 1;", line = 1, severity = "error",
      message = "names no owner" },
    { name = "no name", options = ON, header = { owner = "-" }, sql = "select 1;" },
    { name = "in the body only", options = ON, sql = "-- owner: the team of the shop\nselect 1;" },
    { name = "a Lua migration without one", options = ON, lua = [[
return { description = "Made up for the test of a rule", up = "select 1", irreversible = "made up" }]] },
  },
  clean = {
    { name = "nobody asks", sql = "select 1;" },
    { name = "a team", options = ON, header = { owner = "the team of the shop" }, sql = "select 1;" },
    { name = "not asked for in this environment", options = { required = false }, sql = "select 1;" },
    { name = "a Lua migration", options = ON, lua = [[
return { description = "Made up for the test of a rule", owner = "ada", up = "select 1", irreversible = "made up" }]] },
  },
}
