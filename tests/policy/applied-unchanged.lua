-- Cases of the rule applied-unchanged.
local SQL = "create table a (id int);"
local LUA = "return { description = \"Made up for the test of a rule\", phase = \"expand\", scope = \"global\",\n"
  .. "  compatibility = \"backward_compatible\", up = \"create table a (id int)\", down = \"drop table a\" }\n"
local OTHER = ("5f"):rep(32)

return {
  rule = "applied-unchanged",
  flagged = {
    { name = "an edited file", sql = SQL, file = "20250601120000_a.sql", line = 1, severity = "error",
      history = { applied = { { version = 20250601120000, checksum = OTHER } } },
      message = '"migrations/20250601120000_a.sql" is applied and was changed afterwards' },
    { name = "an edited Lua file of another version", sql = SQL, others = { ["001_b.lua"] = LUA },
      history = { applied = { { version = 1, checksum = OTHER } } }, message = "001_b%.lua" },
    { name = "a file that is gone", lua = LUA, file = "20250601120000_a.lua",
      history = { applied = { { version = 7, id = "007_old_times", checksum = OTHER } } },
      message = "007_old_times is applied, but its file is gone" },
    { name = "a tenant's history", sql = SQL, file = "20250601120000_a.sql",
      history = { target = "acme", applied = { { version = 20250601120000, checksum = OTHER } } },
      message = "is applied on acme and was changed" },
    { name = "just before a step", sql = SQL, moment = "before",
      history = { applied = { { version = 7, id = "007_old_times", checksum = OTHER } } }, message = "file is gone" },
  },
  clean = {
    { name = "as it was applied", sql = SQL, file = "20250601120000_a.sql",
      history = { applied = { 20250601120000 } } },
    { name = "nothing is applied", lua = LUA, history = { applied = {} } },
    { name = "two files of the version, one as it was applied", sql = SQL, file = "001_a.sql",
      others = { ["001_b.lua"] = LUA }, history = { applied = { { version = 1,
        checksum = require("moonbird.core.sys").sha256(LUA) } } } },
    { name = "a file that is not applied yet", lua = LUA, file = "20250701120000_a.lua",
      others = { ["20250601120000_b.sql"] = SQL }, history = { applied = { 20250601120000 } } },
  },
}
