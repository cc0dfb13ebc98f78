-- checksums.json: reading, writing, bringing it up to date.
local fs = require "moonbird.core.fs"
local ledger = require "moonbird.policy.ledger"

local A, B, C = ("a1"):rep(32), ("b2"):rep(32), ("c3"):rep(32)

describe("policy.ledger", function()
  local dir

  before_each(function()
    dir = assert(fs.tempdir("moonbird-ledger-"))
  end)

  after_each(function()
    fs.remove_tree(dir)
  end)

  local function write(text)
    assert(fs.write(dir .. "/checksums.json", text))
  end

  local function yes()
    return true
  end

  local function no()
    return false, "it is merged into main"
  end

  it("is sorted, one file a line, and comes back as it was", function()
    assert.equal(dir .. "/checksums.json", ledger.write(dir, { ["002_b.sql"] = B, ["001_a.sql"] = A }))
    assert.equal(table.concat({ "{", '  "format": 1,', '  "algorithm": "sha256",', '  "migrations": {',
      '    "001_a.sql": "' .. A .. '",', '    "002_b.sql": "' .. B .. '"', "  }", "}", "" }, "\n"),
      fs.read(dir .. "/checksums.json"))
    assert.same({ ["001_a.sql"] = A, ["002_b.sql"] = B }, ledger.read(dir))
    assert(ledger.write(dir, {}))
    assert.same({}, ledger.read(dir))
  end)

  it("is nil without an error where there is none", function()
    local entries, err = ledger.read(dir)
    assert.is_nil(entries)
    assert.is_nil(err)
    entries, err = ledger.read(dir .. "/none")
    assert.is_nil(entries)
    assert.is_nil(err)
  end)

  it("names file and line of what is broken", function()
    local function expect(text, message, line, conflict)
      write(text)
      local entries, err = ledger.read(dir)
      assert.is_nil(entries)
      assert.equal("migration_file", err.code)
      assert.equal(dir .. "/checksums.json", err.file)
      assert.is_truthy(err.message:find(message, 1, true), err.message)
      assert.equal(line, err.line)
      assert.equal(conflict, err.conflict)
      assert.is_truthy(err.hint)
    end
    expect('{\n  "format": 1,\n  oops\n}\n', "not the JSON", 3)
    expect("", "not the JSON", 1)
    expect("[]", "has format nil")
    expect('{"format": 2, "algorithm": "sha256", "migrations": {}}', "has format 2; this moonbird reads format 1")
    expect('{"format": 1, "algorithm": "md5", "migrations": {}}', 'algorithm is not "sha256"')
    expect('{"format": 1, "algorithm": "sha256"}', 'no "migrations"')
    expect('{"format": 1, "algorithm": "sha256", "migrations": {"001_a.sql": "12"}}', '"001_a.sql" is no SHA-256')
    expect(('{"format": 1, "algorithm": "sha256", "migrations": {\n"001_a.sql": "%s",\n"001_a.sql": "%s"}}'):format(A,
      B), '"001_a.sql" is there twice', 3, true)
    expect(ledger.encode { ["001_a.sql"] = A }:gsub('    "001', '<<<<<<< HEAD\n    "001'), "a merge conflict is left", 5,
      true)
  end)

  it("adds an entry to the ledger that is there, and makes one when asked to", function()
    local path, err = ledger.add(dir, "001_a.sql", A)
    assert.is_nil(path)
    assert.is_nil(err)
    assert.equal(dir .. "/checksums.json", ledger.add(dir, "001_a.sql", A, true))
    assert(ledger.add(dir, "002_b.sql", B))
    assert.same({ ["001_a.sql"] = A, ["002_b.sql"] = B }, ledger.read(dir))
    write("{")
    path, err = ledger.add(dir, "003_c.sql", C)
    assert.is_nil(path)
    assert.equal("migration_file", err.code)
  end)

  describe("update", function()
    it("makes a ledger", function()
      local result = assert(ledger.update(dir, { ["001_a.sql"] = A }, no))
      assert.same({ added = { "001_a.sql" }, changed = {}, removed = {}, refused = {}, written = true }, result)
      assert.same({ ["001_a.sql"] = A }, ledger.read(dir))
    end)

    it("changes and removes what may change", function()
      assert(ledger.write(dir, { ["001_a.sql"] = A, ["002_b.sql"] = B, ["003_c.sql"] = C }))
      local result = assert(ledger.update(dir, { ["001_a.sql"] = A, ["002_b.sql"] = C, ["004_d.sql"] = B }, yes))
      assert.same({ added = { "004_d.sql" }, changed = { "002_b.sql" }, removed = { "003_c.sql" }, refused = {},
        written = true }, result)
      assert.same({ ["001_a.sql"] = A, ["002_b.sql"] = C, ["004_d.sql"] = B }, ledger.read(dir))
    end)

    it("keeps the entries of files that must not change", function()
      assert(ledger.write(dir, { ["001_a.sql"] = A, ["002_b.sql"] = B }))
      local result = assert(ledger.update(dir, { ["001_a.sql"] = C }, no))
      assert.same({ { file = "001_a.sql", why = "it is merged into main", change = "changed" },
        { file = "002_b.sql", why = "it is merged into main", change = "removed" } }, result.refused)
      assert.is_false(result.written)
      assert.same({ ["001_a.sql"] = A, ["002_b.sql"] = B }, ledger.read(dir))
    end)

    it("writes nothing when nothing changed", function()
      assert(ledger.write(dir, { ["001_a.sql"] = A }))
      local text = fs.read(dir .. "/checksums.json"):gsub("\n", "\r\n")
      write(text)
      assert.is_false(assert(ledger.update(dir, { ["001_a.sql"] = A }, no)).written)
      assert.equal(text, fs.read(dir .. "/checksums.json"))
    end)

    it("settles a merge conflict: both branches' entries, each as its file is", function()
      local lines = { "{", '  "format": 1,', '  "algorithm": "sha256",', '  "migrations": {',
        '    "001_a.sql": "' .. A .. '",', "<<<<<<< HEAD", '    "002_b.sql": "' .. B .. '"', "=======",
        '    "002_b.sql": "' .. C .. '",', '    "003_c.sql": "' .. C .. '"', ">>>>>>> other", "  }", "}", "" }
      write(table.concat(lines, "\n"))
      local result = assert(ledger.update(dir, { ["001_a.sql"] = A, ["002_b.sql"] = C, ["003_c.sql"] = C }, no))
      assert.same({ added = {}, changed = {}, removed = {}, refused = {}, written = true }, result)
      assert.same({ ["001_a.sql"] = A, ["002_b.sql"] = C, ["003_c.sql"] = C }, ledger.read(dir))
    end)

    it("leaves a ledger alone that it can't read", function()
      write('{"format": 2}')
      local result, err = ledger.update(dir, {}, yes)
      assert.is_nil(result)
      assert.equal("migration_file", err.code)
      assert.equal('{"format": 2}', fs.read(dir .. "/checksums.json"))
    end)
  end)
end)
