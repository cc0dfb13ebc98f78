-- Cases of the rule merged-unchanged.
local SQL = "create table a (id int);"
local LUA = "return { description = \"Made up for the test of a rule\", phase = \"expand\", scope = \"global\",\n"
  .. "  compatibility = \"backward_compatible\", up = \"create table a (id int)\", down = \"drop table a\" }\n"
local A = "migrations/20250601120000_a.sql"
local B = "migrations/20250601120000_b.lua"

local function git(changes, merged)
  local set = {}
  for _, file in ipairs(merged or {}) do
    set[file] = true
  end
  return { base = "origin/main", merge_base = ("1d"):rep(20), base_versions = {}, merged = set, ledger_in_base = true,
    changes = changes }
end

return {
  rule = "merged-unchanged",
  flagged = {
    { name = "an edited file", sql = SQL, file = "20250601120000_a.sql", line = 1, severity = "error",
      git = git({ { status = "modified", file = A } }, { A }), message = "is merged into origin/main and was changed" },
    { name = "an edited Lua file", lua = LUA, file = "20250601120000_b.lua",
      git = git({ { status = "modified", file = B } }, { B }), message = "20250601120000_b%.lua" },
    { name = "a deleted file", sql = SQL, git = git({ { status = "deleted", file = B } }, { B }),
      message = '20250601120000_b.lua" is merged into origin/main and was deleted' },
    { name = "a renamed file", sql = SQL, file = "20250701120000_a.sql",
      git = git({ { status = "renamed", from = A, file = "migrations/20250701120000_a.sql" } }, { A }),
      message = "20250601120000_a.sql\" is merged into origin/main and was renamed to" },
    { name = "the ledger deleted", sql = SQL, ledger = false,
      git = git { { status = "deleted", file = "migrations/checksums.json" } },
      message = '"migrations/checksums.json" is in origin/main and was deleted' },
  },
  clean = {
    { name = "a new file", sql = SQL, file = "20250601120000_a.sql", git = git { { status = "added", file = A } } },
    { name = "an own file, edited again", lua = LUA, file = "20250601120000_b.lua",
      git = git({ { status = "modified", file = B } }, { A }) },
    { name = "an own file, renamed", sql = SQL,
      git = git({ { status = "renamed", from = B, file = "migrations/1_c.lua" } },
      { A }) },
    { name = "the ledger changed", sql = SQL,
      git = git({ { status = "modified", file = "migrations/checksums.json" } }) },
    { name = "nothing changed", sql = SQL, git = git({}, { A, B }) },
  },
}
