-- Cases of the rule version-order.
local SQL = "create table a (id int);"
local LUA = "return { description = \"Made up for the test of a rule\", phase = \"expand\", scope = \"global\",\n"
  .. "  compatibility = \"backward_compatible\", up = \"create table a (id int)\", down = \"drop table a\" }\n"

local function git(changes, ...)
  local versions = {}
  for i, name in ipairs { ... } do
    local digits, rest = name:match("^(%d+)_(.*)%.%a+$")
    versions[i] = { version = math.tointeger(tonumber(digits)), version_text = digits, name = rest,
      file = "migrations/" .. name }
  end
  return { base = "origin/main", merge_base = ("1d"):rep(20), base_versions = versions, merged = {},
    ledger_in_base = false, changes = changes }
end

local function added(name)
  return { status = "added", file = "migrations/" .. name }
end

return {
  rule = "version-order",
  flagged = {
    { name = "older than the newest", sql = SQL, file = "20250601120000_a.sql", line = 1, severity = "error",
      git = git({ added "20250601120000_a.sql" }, "20250501000000_c.sql", "20250610080000_b.sql"),
      message = 'version 20250601120000 of .* is older than "migrations/20250610080000_b.sql", the newest on origin' },
    { name = "the same version under another name", lua = LUA, file = "003_a.lua",
      git = git({ added "003_a.lua" }, "002_c.sql", "003_b.sql"),
      message = 'version 003 .* is taken on origin/main by "migrations/003_b.sql"' },
    { name = "the same version, and newer ones", sql = SQL, file = "003_a.sql",
      git = git({ added "003_a.sql" }, "003_b.sql", "004_c.sql"), message = "is taken on origin/main" },
    { name = "the same version and name, .lua and .sql", lua = LUA, file = "003_a.lua",
      git = git({ added "003_a.lua" }, "003_a.sql"), message = "is taken on origin/main" },
    { name = "renamed from an own file", sql = SQL, file = "003_a.sql",
      git = git({ { status = "renamed", from = "migrations/009_a.sql", file = "migrations/003_a.sql" } }, "004_c.sql"),
      message = "is older than" },
  },
  clean = {
    { name = "newer than all", sql = SQL, file = "20250611120000_a.sql",
      git = git({ added "20250611120000_a.sql" }, "20250610080000_b.sql") },
    { name = "the file is on the base branch by now", lua = LUA, file = "003_a.lua",
      git = git({ added "003_a.lua" }, "003_a.lua", "004_c.sql") },
    { name = "nothing is merged yet", sql = SQL, file = "001_a.sql", git = git { added "001_a.sql" } },
    { name = "an old file that was changed: told by another rule", sql = SQL, file = "001_a.sql",
      git = git({ { status = "modified", file = "migrations/001_a.sql" } }, "001_a.sql", "002_c.sql") },
    { name = "the ledger is new", sql = SQL, git = git({ added "checksums.json" }, "004_c.sql") },
  },
}
