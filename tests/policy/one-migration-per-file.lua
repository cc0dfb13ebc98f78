-- Cases of the rule one-migration-per-file.
local PAIR = "-- migrate:up\ncreate table %s (id int);\n-- migrate:down\ndrop table %s;\n"

local function pairs_of(...)
  local list = {}
  for i, name in ipairs { ... } do
    list[i] = PAIR:format(name, name)
  end
  return "-- description: Made up for the test of a rule\n" .. table.concat(list)
end

return {
  rule = "one-migration-per-file",
  flagged = {
    { name = "two pairs", sql = pairs_of("a", "b"), line = 6, severity = "error", message = "2 pairs of up and down" },
    { name = "three pairs", sql = pairs_of("a", "b", "c"), line = 6, message = "3 pairs" },
    { name = "the second with an empty down",
      sql = pairs_of("a") .. "-- migrate:up transaction:false\nselect 1;\n-- migrate:down\n",
      line = 6, message = "2 pairs" },
  },
  clean = {
    { name = "one pair", sql = pairs_of("a") },
    { name = "several statements in one pair", sql = "create table a (id int);\ncreate table b (id int);" },
    { name = "a directive in a string",
      sql = "-- migrate:up\nselect 1 as \"-- migrate:up\";\n-- migrate:down\nselect 2;\n" },
    { name = "a Lua file", lua = "return { description = \"Made up for the test of a rule\", up = \"select 1\" }\n" },
  },
}
