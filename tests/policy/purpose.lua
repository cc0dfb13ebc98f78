--- Cases of the rule "purpose".
local LATER = require("tests.texts").LATER

return {
  rule = "purpose",
  flagged = {
    { name = "nothing", header = { description = false }, sql = "select 1;", line = 1, severity = "warning",
      message = "does not say what it is for" },
    { name = "in the body only", header = { description = false }, sql = "-- purpose: to test a rule\nselect 1;" },
    { name = "as the template has it",
      sql = "-- Purpose: <one-line description>\n-- migrate:up\nselect 1;\n-- migrate:down\n",
      line = 1, message = "as the template has it" },
    { name = "left for later", sql = "-- description: " .. LATER .. "\n-- migrate:up\nselect 1;\n-- migrate:down\n" },
    { name = "a Lua migration without one", lua = "return { up = 'select 1', irreversible = 'made up' }" },
  },
  clean = {
    { name = "a description", sql = "select 1;" },
    { name = "a purpose", header = { description = false, purpose = "let orders carry a note" }, sql = "select 1;" },
    { name = "as another tool writes it",
      sql = "-- Migration: 001_a.sql\n-- Purpose: let orders carry a note\n-- migrate:up\nselect 1;\n"
        .. "-- migrate:down\n" },
    { name = "a Lua migration", lua = [[
return { purpose = 'let orders carry a note', up = 'select 1', irreversible = 'made up' }]] },
  },
}
