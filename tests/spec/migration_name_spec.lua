-- File names of migrations.
local name = require "moonbird.migration.name"

describe("migration.name", function()
  it("reads version, name and kind", function()
    assert.are.same(
      { version = 1, version_text = "001", name = "create_users", id = "001_create_users", kind = "sql" },
      name.parse("001_create_users.sql"))
    assert.are.equal("lua", name.parse("20250110093000_x.lua").kind)
    assert.are.equal(999999999999999999, name.parse("999999999999999999_x.sql").version)
    assert.are.equal("2fa", name.parse("7_2fa.lua").name)
    assert.are.equal(0, name.parse("000_init.sql").version)
  end)

  for _, file in ipairs({
    "README.md", ".gitkeep", ".001_x.sql", "checksums.json", "001_x.sql~", "001_x.sql.bak", "001_notes.txt",
    "001_x.sql.orig", "Makefile", "schema.dump", "2025-plan.md",
  }) do
    it("ignores " .. file, function()
      assert.are.same({}, { name.parse(file) })
    end)
  end

  for file, hint in pairs({
    ["5.sql"] = 'rename it to "5_migration.sql"',
    ["7abc.sql"] = 'rename it to "7_abc.sql"',
    ["20240101_Foo-bar.sql"] = 'rename it to "20240101_foo_bar.sql"',
    ["001 create users.lua"] = 'rename it to "001_create_users.lua"',
    ["001_x.SQL"] = 'rename it to "001_x.sql"',
    ["001__x.sql"] = 'rename it to "001_x.sql"',
    ["001_.sql"] = 'rename it to "001_migration.sql"',
    ["001_x.up.sql"] = 'put both directions into one file "001_x.sql", below `-- migrate:up` and `-- migrate:down`',
    ["8-x.down.sql"] = 'put both directions into one file "8_x.sql", below `-- migrate:up` and `-- migrate:down`',
    ["schema.sql"] = "start it with a version (`moonbird new` makes one), or move it to a sub-folder",
    ["helpers.lua"] = "start it with a version (`moonbird new` makes one), or move it to a sub-folder, "
      .. "from where migrations can require it",
    ["001_x.sq"] = "rename it, or move it out of the migrations folder",
    ["1234567890123_x.mjs"] = "rename it, or move it out of the migrations folder",
  }) do
    it("refuses " .. file, function()
      local parsed, problem = name.parse(file)
      assert.is_nil(parsed)
      assert.are.equal(hint, problem.hint)
      assert.is_string(problem.message)
    end)
  end

  it("refuses a version that no integer can hold", function()
    local _, problem = name.parse("1234567890123456789_x.sql")
    assert.are.equal("the version has 19 digits; at most 18 are possible", problem.message)
  end)
end)
