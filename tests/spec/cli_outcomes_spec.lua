-- What findings are told with, also when some are added after others.
local fs = require "moonbird.core.fs"
local helper = require "tests.helper"
local outcomes = require "moonbird.cli.outcomes"

local function outcome(findings)
  return { findings = findings, unchecked = {}, opaque = {}, waivers = {}, checked = 1,
    rules = { { id = "one" }, { id = "secret", hides = true } } }
end

local function finding(fields)
  local result = { rule = "one", severity = "error", message = "m", file = "001_a.sql", line = 2, migration = "001_a" }
  for key, value in pairs(fields or {}) do
    result[key] = value
  end
  return result
end

local function text_of()
  return "first\n\tsecond;\r\n\nfourth"
end

describe("an outcome", function()
  it("gets the line of each finding", function()
    local all = outcome { finding(), finding { line = 3 }, finding { line = 4 }, finding { line = 9 }, finding { line = 1 } }
    outcomes.complete(all, text_of)
    local said = {}
    for i, item in ipairs(all.findings) do
      said[i] = item.excerpt or "-"
    end
    assert.same({ "second;", "-", "fourth", "-", "first" }, said)
    assert.equal(5, all.errors)
    assert.same({ "001_a.sql" }, all.files)
  end)

  it("reads the files itself, once, and does without those that are gone", function()
    local dir = helper.tmpdir()
    helper.write(dir, { ["in/001_a.sql"] = "one\ntwo\n", ["002_b.sql"] = "three\nfour\n" })
    local here = fs.cwd()
    assert(fs.chdir(dir .. "/in"))
    local all = outcome { finding { file = "001_a.sql" }, finding { file = "nowhere.sql" },
      finding { file = dir .. "/002_b.sql" }, { rule = "one", severity = "error", message = "of no file" } }
    local ok, err = pcall(outcomes.complete, all)
    assert(fs.chdir(here))
    assert(ok, err)
    assert.equal("two", all.findings[1].excerpt)
    assert.is_nil(all.findings[2].excerpt)
    assert.is_nil(all.findings[3].excerpt) -- not below the current folder
    assert.is_string(all.findings[4].fingerprint)
  end)

  it("shows the whole of a short statement, and not a long one", function()
    local all = outcome { finding { statement = "a\nb" }, finding { statement = ("x"):rep(5000) } }
    outcomes.complete(all, text_of)
    assert.equal("a\nb", all.findings[1].snippet)
    assert.equal("second;", all.findings[2].snippet)
  end)

  it("shows no line on which something must be hidden, also when that is found later", function()
    local all = outcome { finding(), finding { line = 1, last_line = 2, statement = "first second" }, finding { line = 4 },
      { rule = "one", severity = "error", message = "no line", file = "001_a.sql" } }
    outcomes.complete(all, text_of)
    assert.equal("second;", all.findings[1].excerpt)
    table.insert(all.findings, finding { rule = "secret" })
    outcomes.complete(all, text_of)
    for _, i in ipairs { 1, 2, 5 } do
      assert.is_nil(all.findings[i].excerpt)
      assert.is_nil(all.findings[i].snippet)
    end
    assert.equal("fourth", all.findings[3].excerpt)
  end)

  it("tells findings apart by what they are about, not by where", function()
    local all = outcome { finding { statement = "drop table a" }, finding { statement = "DROP  TABLE a", line = 7 },
      finding { statement = "drop table b" }, finding { statement = "drop table a", rule = "two" },
      finding { statement = "drop table a", file = "x/002_b.sql" }, finding { statement = "not sql (" }, finding {} }
    outcomes.complete(all, text_of)
    local first, seen = {}, {}
    for i, item in ipairs(all.findings) do
      first[i] = item.fingerprint
      assert.is_nil(seen[item.fingerprint])
      seen[item.fingerprint] = true
      item.line = item.line + 10
      item.file = "elsewhere/" .. item.file:match("[^/]*$")
    end
    outcomes.complete(all, text_of)
    for i, item in ipairs(all.findings) do
      assert.equal(first[i], item.fingerprint)
    end
  end)
end)
