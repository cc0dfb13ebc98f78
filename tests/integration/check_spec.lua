-- moonbird check: what it finds in files, its outputs, its exit statuses; without a database.
-- The same on every server.
local fs = require "moonbird.core.fs"
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local outputs = require "tests.outputs"
local repository = require "tests.git"
local texts = require "tests.texts"
local async = helper.async
local has, lacks = texts.has, texts.lacks

local function migration(up, down, head)
  return ("-- description: This migration is made up for a test of the check\n-- phase: expand\n-- scope: global\n"
    .. "-- compatibility: backward_compatible\n%s\n-- migrate:up\n%s\n-- migrate:down\n%s\n"):format(head or "", up,
    down or "drop table if exists t;")
end

local GOOD = migration "create table t (id bigint primary key);"
local BAD = migration "update users set a = 1;" -- line 7: dml-where
local OTHER = migration("create table u (id bigint primary key);", "drop table u;")

-- Only what a test is about: the project's rules are the only ones that find something.
local function only(body, more)
  return ([[
local quiet = {}
for _, id in ipairs { "description", "header-complete", "ledger", "reversible", "unbatched-dml", "schema-data-apart",
  "data-note", "purpose", "owner" } do
  quiet[id] = "off"
end
%s
return { policy = { rules = quiet, %s } }]]):format(body or "", more or "")
end

describe("moonbird check", function()
  local dir

  before_each(async(function()
    dir = helper.project {}
  end))

  local function check(status, args, options)
    local env = { GITHUB_STEP_SUMMARY = false, GITHUB_ACTIONS = false, CI = false, DATABASE_URL = "postgres:///x?host=/nowhere" }
    for name, value in pairs(options and options.env or {}) do
      env[name] = value
    end
    local all = { "check" }
    table.move(args or {}, 1, #(args or {}), 2, all)
    return helper.ok(all, { cwd = options and options.cwd or dir, status = status, env = env })
  end

  local function check_json(status, args, options)
    local all = table.move(args or {}, 1, #(args or {}), 2, { "--json" })
    return json.decode(check(status, all, options).stdout)
  end

  local function git(...)
    repository.run(dir, ...)
  end

  it("passes what is good, with no server at hand", async(function()
    helper.write(dir, { ["migrations/001_a.sql"] = GOOD, ["moonbird.lua"] = only() })
    local result = check(0)
    has(result.stdout, "1 migration, nothing found")
    assert.equal("", result.stderr)
  end))

  it("ends with 6 on an error, says the place, the statement and a fix", async(function()
    helper.write(dir, { ["migrations/001_a.sql"] = GOOD, ["migrations/002_b.sql"] = BAD, ["moonbird.lua"] = only() })
    local result = check(6)
    has(result.stdout, "migrations/002_b.sql:7:1: error[dml-where]: ")
    has(result.stdout, "\n    | update users set a = 1;\n    fix: ")
    has(result.stdout, "\n1 error in 1 of 2 migrations\n")
    assert.equal("error: 1 policy error in 1 migration\n", result.stderr)
    local answer = check_json(6)
    assert.equal("policy", answer.error.code)
    assert.is_false(answer.ok)
    assert.equal(1, answer.errors)
    assert.equal("dml-where", answer.findings[1].rule)
    assert.same({ 7, 1, "2" }, { answer.findings[1].line, answer.findings[1].column, answer.findings[1].version })
  end))

  it("passes a warning, and an error that somebody answers for", async(function()
    helper.write(dir, { ["migrations/002_b.sql"] = BAD, ["moonbird.lua"] = only("quiet['dml-where'] = 'warning'") })
    has(check(0).stdout, "1 warning in 1 of 1 migration\n")
    helper.write(dir, { ["moonbird.lua"] = only(), ["migrations/002_b.sql"] = migration(
      '-- moonbird:allow dml-where until=2999-01-31 reason="three rows" ticket=T-1\nupdate users set a = 1;') })
    has(check(0).stdout, "1 migration, nothing found; 1 waived\n")
    local finding = check_json(0).findings[1]
    assert.same({ "three rows", "2999-01-31", "T-1" }, { finding.waived.reason, finding.waived["until"],
      finding.waived.ticket })
    helper.write(dir, { ["migrations/002_b.sql"] = migration(
      '-- moonbird:allow dml-where until=2020-01-31 reason="three rows"\nupdate users set a = 1;') })
    local text = check(6).stdout
    has(text, "error[dml-where]")
    has(text, "is over since 2020-01-31")
  end))

  it("takes an empty folder, and refuses a missing one", async(function()
    helper.write(dir, { ["moonbird.lua"] = only() })
    has(check(0).stdout, "0 migrations, nothing found")
    assert(fs.remove_tree(dir .. "/migrations"))
    has(check(2).stderr, "does not exist")
  end))

  it("checks the rest of a folder with broken files", async(function()
    helper.write(dir, { ["migrations/001_a.sql"] = "select 1;\n", ["migrations/002_b.sql"] = BAD, ["migrations/003_c.lua"] = "return {",
      ["migrations/4-bad name.sql"] = GOOD, ["migrations/005_e.lua"] = "return { up = 1 }", ["moonbird.lua"] = only() })
    local text = check(6).stdout
    for _, part in ipairs { "migrations/001_a.sql:1:1: error[unreadable]", "migrations/002_b.sql:7:1: error[dml-where]",
      "migrations/003_c.lua:", "migrations/005_e.lua:1", "migrations/4-bad name.sql" } do
      has(text, part)
    end
    lacks(text, "not looked into")
    helper.write(dir, { ["migrations/002_c.sql"] = GOOD })
    local duplicates = 0
    for _, finding in ipairs(check_json(6).findings) do
      if finding.file == "migrations/002_c.sql" then
        duplicates = duplicates + 1
      end
    end
    assert.equal(1, duplicates)
  end))

  it("shows what it could not look into", async(function()
    helper.write(dir, { ["moonbird.lua"] = only(), ["migrations/001_a.sql"] = migration "frobnicate the table;",
      ["migrations/002_b.lua"] = "return { description = 'x', phase = 'expand', scope = 'global', compatibility = "
        .. "'backward_compatible',\n  up = function(db) end, down = function(db) end }" })
    local answer = check_json(0)
    assert.equal(3, #answer.opaque)
    has(check(0).stdout, "not looked into: migrations/001_a.sql:7: the statement can't be parsed here")
    has(check(0).stdout, "not looked into: 2 Lua functions; what they send shows in a rehearsal (`moonbird ci`)")
    has(check(0, { "--verbose" }).stdout, "not looked into: migrations/002_b.lua:2: up is a Lua function")
    has(check(0, { "--verbose" }).stdout, "not looked into: migrations/002_b.lua:2: down is a Lua function")
  end))

  it("reports on FILES only, with all the others in view", async(function()
    helper.write(dir, { ["migrations/001_a.sql"] = BAD, ["migrations/002_b.sql"] = BAD, ["migrations/003_c.sql"] = GOOD,
      ["moonbird.lua"] = only(), ["migrations/004_d.sql"] = "oops" })
    local text = check(6, { "migrations/002_b.sql", "./migrations/../migrations/003_c.sql" }).stdout
    has(text, "002_b.sql:7")
    lacks(text, "001_a.sql")
    lacks(text, "004_d.sql")
    has(text, "1 error in 1 of 2 migrations")
    has(check(0, { dir .. "/migrations/003_c.sql" }).stdout, "1 migration, nothing found")
    has(check(6, { "migrations/004_d.sql" }).stdout, "error[unreadable]")
    has(check(2, { "migrations/009_z.sql" }).stderr, "is no migration of this project")
    helper.write(dir, { ["migrations/003_d.sql"] = GOOD })
    has(check(6, { "migrations/003_d.sql" }).stdout, "version-unique")
  end))

  it("tells what to write in the syntax of the file", async(function()
    helper.write(dir, { ["migrations/001_a.sql"] = "-- description: Keep the things of the shop\n-- migrate:up\n"
        .. "create table a (i int primary key);\n-- migrate:down\n",
      ["migrations/002_b.lua"] = "return {\n  description = 'Keep the other things of the shop',\n"
        .. "  up = 'create table b (i int primary key)',\n}\n" })
    local fixes = {}
    for _, finding in ipairs(check_json(6).findings) do
      if finding.rule == "reversible" then
        fixes[finding.file] = finding.fix
      end
    end
    assert.same({ ["migrations/001_a.sql"] = "write the down, or say why there is none: `-- irreversible: reason`",
      ["migrations/002_b.lua"] = "write the down, or say why there is none: `irreversible = \"reason\"`" }, fixes)
  end))

  it("says what needs git, and compares with a base when told one", async(function()
    helper.write(dir, { ["migrations/001_a.sql"] = GOOD, ["moonbird.lua"] = only() })
    has(check(0).stdout, "for want of git (--base REF), ")
    has(check(0, { "--verbose" }).stdout, "need git (--base REF)")
    has(check(2, { "--base", "main" }).stderr, "not in a git repository")
    git("init", "-q", "-b", "main")
    git("add", ".")
    git("commit", "-qm", "first")
    git("checkout", "-qb", "work")
    lacks(check(0, { "--base", "main", "--verbose" }).stdout, "need git")
    lacks(check(0, { "--base", "main" }).stdout, "git")
    helper.write(dir, { ["migrations/001_a.sql"] = OTHER })
    has(check(6, { "--base", "main" }).stdout, "migrations/001_a.sql")
    check(0)
    has(check(2, { "--base", "nowhere" }).stderr, "nowhere")
    check(2, { "--base", "--output=x" })
  end))

  it("--update writes the ledger, but never for what is merged", async(function()
    helper.write(dir, { ["migrations/001_a.sql"] = GOOD, ["moonbird.lua"] = only("", "enforce_after = 0") })
    git("init", "-q", "-b", "main")
    local answer = check_json(0, { "--update" })
    assert.same({ "001_a.sql" }, answer.ledger[1].added)
    has(assert(fs.read(dir .. "/migrations/checksums.json")), "001_a.sql")
    assert.is_false(check_json(0, { "--update" }).ledger[1].written)
    helper.write(dir, { ["migrations/001_a.sql"] = OTHER })
    assert.same({ "001_a.sql" }, check_json(0, { "--update" }).ledger[1].changed)
    git("add", ".")
    git("commit", "-qm", "first")
    helper.write(dir, { ["migrations/001_a.sql"] = GOOD, ["migrations/002_b.sql"] = OTHER })
    local result = check(0, { "--update" })
    has(result.stderr, "it is merged into main")
    has(result.stdout, "002_b.sql added to migrations/checksums.json")
    assert.same({ "001_a.sql" }, { check_json(0, { "--update" }).ledger[1].refused[1].file })
  end))

  it("finds a ledger that two branches disagree on, and checks all the same", async(function()
    helper.write(dir, { ["migrations/001_a.sql"] = BAD, ["moonbird.lua"] = only(),
      ["migrations/checksums.json"] = "<<<<<<< HEAD\n{}\n=======\n>>>>>>> b\n" })
    local text = check(6).stdout
    has(text, "migrations/checksums.json:1: error[unreadable]: a merge conflict")
    has(text, "error[dml-where]")
    has(check(6, { "--update" }).stdout, "001_a.sql added to migrations/checksums.json")
  end))

  it("never shows a secret that it found", async(function()
    helper.write(dir, { ["moonbird.lua"] = only(),
      ["migrations/001_a.sql"] = migration("create role w login superuser\n  password 'kZ8#pq!vX2w9';", "drop role w;") })
    local answer = check(6, { "--json", "--sarif", "s.json", "--junit", "j.xml", "--github" })
    for _, text in ipairs { answer.stdout, answer.stderr, check(6).stdout, assert(fs.read(dir .. "/s.json")),
      assert(fs.read(dir .. "/j.xml")) } do
      has(text, "secret")
      lacks(text, "kZ8#pq!vX2w9")
    end
  end))

  describe("with rules of the project", function()
    it("runs them in the sandbox, with limits", async(function()
      helper.write(dir, { ["migrations/001_a.sql"] = GOOD, ["moonbird.lua"] = only(), ["policies/own.lua"] = [[
return { id = "own", severity = "warning", check = function(ctx) ctx:report("seen " .. ctx.migration.name) end }]] })
      has(check(0).stdout, "warning[own]: seen a")
      helper.write(dir, { ["policies/own.lua"] = [[
return { { id = "forever", check = function() while true do end end },
  { id = "thief", check = function() return io.open("/etc/passwd") end } }]] })
      local text = check(6).stdout
      has(text, "error[forever]")
      has(text, "error[thief]")
    end))

    it("refuses a broken file of them, names it, and writes the outputs", async(function()
      helper.write(dir, { ["migrations/001_a.sql"] = GOOD, ["moonbird.lua"] = only() })
      for text, said in pairs { ["return {"] = "policies/own.lua", ["return 1"] = "must return a rule",
        ["return { id = 'x' }"] = "has no check", ["return { id = 'dml-where', check = function() end }"] = "is there already",
        ["error('no')"] = "no" } do
        helper.write(dir, { ["policies/own.lua"] = text })
        has(check(2, { "--sarif", "out/s.json" }).stderr, said)
        local run = json.decode(assert(fs.read(dir .. "/out/s.json"))).runs[1]
        assert.is_false(run.invocations[1].executionSuccessful)
      end
    end))

    it("refuses settings of rules that do not exist", async(function()
      helper.write(dir, { ["moonbird.lua"] = "return { policy = { rules = { ['dml-were'] = 'off' } } }" })
      has(check(2).stderr, "dml-where")
    end))

    it("passes hostile words on as words", async(function()
      helper.write(dir, { ["migrations/001_a.sql"] = GOOD, ["moonbird.lua"] = only(), ["policies/own.lua"] = [=[
return { id = "own", check = function(ctx)
  ctx:report("x\n::error::gotcha\n::stop-commands::t %0A ]]> <b> \"q\" ##[add-mask]z \27[31m \255",
    { at = { line = 1, file = "migrations/a\n::b%0A,:]]>.sql" } })
end }]=] })
      local result = check(6, { "--github", "--sarif", "a/b/s.json", "--junit", "a/c/j.xml" },
        { env = { GITHUB_STEP_SUMMARY = dir .. "/summary.md" } })
      local commands = 0
      for line in result.stdout:gmatch("[^\n]+") do
        lacks(line, "##[")
        lacks(line, "\27")
        if line:find("^%s*::") then
          commands = commands + 1
          -- A rule names migrations only: any other file is the migration's own.
          has(line, "::error file=migrations/001_a.sql,line=1,title=moonbird%3A own::x%0A::error::gotcha%0A")
        end
      end
      assert.equal(1, commands)
      assert.equal("", outputs.sarif_problems(assert(fs.read(dir .. "/a/b/s.json"))))
      local log = json.decode(assert(fs.read(dir .. "/a/b/s.json")))
      assert.equal("migrations/001_a.sql",
        log.runs[1].results[1].locations[1].physicalLocation.artifactLocation.uri)
      outputs.xml(assert(fs.read(dir .. "/a/c/j.xml")))
      lacks(assert(fs.read(dir .. "/summary.md")), "<b>")
      local answer = check_json(6)
      has(answer.findings[1].message, "::error::gotcha\n")
    end))
  end)

  describe("writes", function()
    before_each(async(function()
      helper.write(dir, { ["db/moonbird.lua"] = only(), ["db/migrations/001_a.sql"] = BAD, ["db/migrations/002_b.sql"] = migration(
        '-- moonbird:allow dml-where until=2999-01-31 reason="three rows"\nupdate users set a = 1;') })
      git("init", "-q", "-b", "main")
    end))

    it("several outputs at once, with paths from the repository's root", async(function()
      local result = check(6, { "-C", "db", "--sarif", "out/s.sarif", "--junit", "out/j.xml", "--github" },
        { env = { GITHUB_STEP_SUMMARY = dir .. "/summary.md" } })
      has(result.stdout, "\n::error file=db/migrations/001_a.sql,line=7,col=1,endLine=7,title=moonbird%3A dml-where::")
      local text = assert(fs.read(dir .. "/db/out/s.sarif"))
      assert.equal("", outputs.sarif_problems(text))
      local run = json.decode(text).runs[1]
      local open, waived = run.results[1], run.results[2]
      assert.same({ uri = "db/migrations/001_a.sql", uriBaseId = "%SRCROOT%" },
        open.locations[1].physicalLocation.artifactLocation)
      assert.equal("update users set a = 1", open.locations[1].physicalLocation.region.snippet.text)
      assert.equal("three rows", waived.suppressions[1].justification)
      assert.is_true(#run.tool.driver.rules > 20)
      local root = outputs.xml(assert(fs.read(dir .. "/db/out/j.xml")))
      assert.equal("1", root.attributes.failures)
      local summary = assert(fs.read(dir .. "/summary.md"))
      has(summary, "### moonbird check")
      has(summary, "001&#95;a.sql:7 |")
      check(6, { "-C", "db", "--github" }, { env = { GITHUB_STEP_SUMMARY = dir .. "/summary.md" } })
      local _, twice = assert(fs.read(dir .. "/summary.md")):gsub("### moonbird check", "")
      assert.equal(2, twice)
    end))

    it("with --json the annotations go to stderr", async(function()
      local result = check(6, { "-C", "db", "--json", "--github" })
      assert.is_table(json.decode(result.stdout))
      has(result.stderr, "::error file=db/migrations/001_a.sql")
    end))

    it("fingerprints that stay when lines move, and differ between statements", async(function()
      local function prints(text)
        helper.write(dir, { ["db/migrations/001_a.sql"] = text })
        check(6, { "-C", "db", "--sarif", "s.json" })
        local list = {}
        for i, result in ipairs(json.decode(assert(fs.read(dir .. "/db/s.json"))).runs[1].results) do
          list[i] = result.partialFingerprints["moonbird/v1"]
        end
        return list
      end
      local first = prints(migration "update users set a = 1;\nupdate users set a = 1;\nupdate users set b = 1;")
      local moved = prints(migration "-- moved\n\n\nUPDATE users SET a = 2;\nupdate users set a = 1;\nupdate users set b = 1;")
      assert.equal(4, #first)
      assert.same(first, moved)
      assert.are_not.equal(first[1], first[2])
      assert.are_not.equal(first[1], first[3])
    end))

    it("what it can, and says what it can't", async(function()
      helper.write(dir, { ["db/file"] = "x" })
      local result = check(6, { "-C", "db", "--sarif", "file/s.json", "--junit", "j.xml" })
      has(result.stderr, "file/s.json")
      has(result.stderr, "1 policy error")
      outputs.xml(assert(fs.read(dir .. "/db/j.xml")))
      helper.write(dir, { ["db/migrations/001_a.sql"] = GOOD })
      has(check(1, { "-C", "db", "--sarif", "file/s.json" }).stderr, "file/s.json")
    end))
  end)

  it("proposes a beginning for an old folder", async(function()
    local files = { ["moonbird.lua"] = only() }
    for i = 1, 80 do
      files[("migrations/%03d_a.sql"):format(i)] = BAD
    end
    helper.write(dir, files)
    has(check(6).stdout, "policy = { enforce_after = 64 }")
    helper.write(dir, { ["moonbird.lua"] = only("", "enforce_after = 64") })
    has(check(6).stdout, "16 errors in 16 of 80 migrations")
  end))

  it("is quiet when asked and nothing is wrong", async(function()
    helper.write(dir, { ["migrations/001_a.sql"] = GOOD, ["moonbird.lua"] = only() })
    assert.equal("", check(0, { "-q" }).stdout)
    helper.write(dir, { ["migrations/001_a.sql"] = BAD })
    has(check(6, { "-q" }).stdout, "dml-where")
    has(check(6, { "--color", "always" }).stdout, "\27[31m")
    lacks(check(6).stdout, "\27")
  end))
end)
