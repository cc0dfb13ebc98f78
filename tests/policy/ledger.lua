-- Cases of the rule ledger.
local SQL = "create table a (id int);"
local LUA = "return { description = \"Made up for the test of a rule\", phase = \"expand\", scope = \"global\",\n"
  .. "  compatibility = \"backward_compatible\", up = \"create table a (id int)\", down = \"drop table a\" }\n"
local OTHER = ("5f"):rep(32)

local LUA_SHA = require("moonbird.core.sys").sha256(LUA)

return {
  rule = "ledger",
  flagged = {
    { name = "an edited file", sql = SQL, file = "20250601120000_a.sql", line = 1, severity = "error",
      ledger = { ["20250601120000_a.sql"] = OTHER },
      message = "is not what checksums.json says: it is %x+, the ledger has 5f5f5f5f5f5f$" },
    { name = "an edited Lua file", lua = LUA, file = "001_a.lua", ledger = { ["001_a.lua"] = OTHER },
      message = '"migrations/001_a.lua" is not what' },
    { name = "a file without an entry", sql = SQL, file = "20250601120000_a.sql",
      ledger = { ["20250601120000_a.sql"] = false },
      message = '"migrations/20250601120000_a.sql" is not in checksums' },
    { name = "an entry without a file", sql = SQL, ledger = { ["20250501120000_gone.sql"] = OTHER },
      severity = "error", message = '"20250501120000_gone.sql" is in checksums.json, but there is no such file' },
    { name = "a renamed file", lua = LUA, file = "20250601120000_b.lua",
      ledger = { ["20250601120000_b.lua"] = false, ["20250601120000_a.lua"] = LUA_SHA },
      message = '20250601120000_b.lua" is "20250601120000_a.lua" in checksums.json: it was renamed' },
    { name = "no ledger", sql = SQL, ledger = false, severity = "info", message = "there is no checksums.json" },
  },
  clean = {
    { name = "all as listed", sql = SQL, others = { ["20250501120000_b.lua"] = LUA } },
    { name = "a Lua file as listed", lua = LUA, file = "001_a.lua", ledger = { ["001_a.lua"] = LUA_SHA } },
    { name = "no ledger where a merged one was deleted: told by another rule", sql = SQL, ledger = false,
      git = { base = "origin/main", merge_base = ("1d"):rep(20), base_versions = {}, merged = {},
        ledger_in_base = true, changes = { { status = "deleted", file = "migrations/checksums.json" } } } },
  },
}
