-- Cases of the rule description.
local LATER = require("tests.texts").LATER

local SQL = "create table a (id int);"

local function with(text)
  return { description = text }
end

local function lua_file(text)
  return ("return { %s phase = \"expand\", scope = \"global\", compatibility = \"backward_compatible\",\n"):format(
    text and ("description = %q,"):format(text) or "")
    .. "  up = \"create table a (id int)\", down = \"drop table a\" }\n"
end

return {
  rule = "description",
  flagged = {
    { name = "none", sql = SQL, header = with(false), line = 1, severity = "error", message = "has no description" },
    { name = "none in Lua", lua = lua_file(nil), message = "has no description" },
    { name = "two words", sql = SQL, header = with("Customers' letters"), line = 1,
      message = "shorter than a sentence" },
    { name = "three short words", lua = lua_file("Add a b"), message = "shorter than a sentence" },
    { name = "the file's name again", sql = SQL, file = "20250601120000_add_email_to_users.sql",
      header = with("Add email to users"), message = "is the file's name again" },
    { name = "the file's name again, in Lua", lua = lua_file("add_email_to_users: 20250601120000"):gsub(
      "add_email_to_users: 20250601120000", "20250601120000 Add email-to users."),
      file = "20250601120000_add_email_to_users.lua", message = "is the file's name again" },
    { name = "a template's text", sql = SQL, header = with("<one-line description>"), message = "a template's text" },
    { name = "put off", lua = lua_file(LATER .. " say what this is for"), message = "a template's text" },
    { name = "below other lines of the head", sql = "-- phase: expand\n-- description: Add mail\n-- migrate:up\n"
      .. "create table a (id int);\n-- migrate:down\ndrop table a;\n", line = 2, message = "shorter" },
  },
  clean = {
    { name = "a sentence", sql = SQL, header = with("Orders remember the currency they were paid in") },
    { name = "a purpose", sql = SQL, header = { description = false,
      purpose = "Orders remember the currency they were paid in" } },
    { name = "a sentence in Lua", lua = lua_file("Letters to customers are kept until they are sent") },
    { name = "the name and what for", sql = SQL, file = "20250601120000_add_email_to_users.sql",
      header = with("Add email to users, for password resets") },
    { name = "a language without spaces", sql = SQL, header = with("顧客に送る手紙を保存する") },
    { name = "a word that only begins like " .. LATER, sql = SQL, header = with("Todos get the day they are due") },
  },
}
