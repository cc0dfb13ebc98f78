-- Cases of the rule header-complete.
local SQL = "create table a (id int);"

local function lua_file(keys)
  return "return { description = \"Made up for the test of a rule\", " .. keys
    .. "up = \"create table a (id int)\", down = \"drop table a\" }\n"
end

return {
  rule = "header-complete",
  flagged = {
    { name = "no phase", sql = SQL, header = { phase = false }, line = 1, severity = "error",
      message = "does not say its phase %(expand or contract%)$" },
    { name = "no scope and no compatibility", sql = SQL, header = { scope = false, compatibility = false },
      message = "its scope %(global or tenant%), nor its compatibility" },
    { name = "a .sql file without a head",
      sql = "-- migrate:up\ncreate table a (id int);\n-- migrate:down\ndrop table a;\n",
      message = "its phase .* nor its scope .* nor its compatibility" },
    { name = "a Lua file that says nothing", lua = lua_file(""), message = "its phase .* scope .* compatibility" },
    { name = "a Lua file without compatibility", lua = lua_file("phase = \"contract\", scope = \"global\", "),
      message = "does not say its compatibility" },
    { name = "said below the first directive", sql = "-- migrate:up\n-- phase: expand\n-- scope: global\n"
      .. "-- compatibility: backward_compatible\ncreate table a (id int);\n-- migrate:down\ndrop table a;\n",
      message = "does not say its phase" },
  },
  clean = {
    { name = "all said", sql = SQL },
    { name = "all said in CamelCase", sql = SQL,
      header = { phase = "Expand", scope = "Tenant", compatibility = "BackwardCompatible" } },
    { name = "all said in Lua", lua = lua_file(
      "phase = \"expand\", scope = \"global\", compatibility = \"backward_compatible\", ") },
  },
}
