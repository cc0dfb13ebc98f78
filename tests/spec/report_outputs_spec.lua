-- What a policy run found, as text, data, SARIF, JUnit XML and for GitHub: also with hostile words in it.
local clean = require "moonbird.report.clean"
local findings = require "moonbird.report.findings"
local github = require "moonbird.report.github"
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local junit = require "moonbird.report.junit"
local outputs = require "tests.outputs"
local sarif = require "moonbird.report.sarif"
local style = require "moonbird.report.style"

local PLAIN = style.new(false)

local HOSTILE = "a\nb\r::error::x ::set-env name=A::b %0A \"q\" 'p' <b>&amp; ]]> <![CDATA[ ##[add-mask]x | `c` \27[31m "
  .. "\0\1\127 \xff\xfe \u{FFFE} \u{9B}31m ![i](http://x) \u{1F426}"

local function rule(id, fields)
  local result = { id = id, group = "shape", severity = "error", title = "title of " .. id, explain = "why " .. id,
    fix = "mend it", seeds = { "ADR 1: because" }, examples = { bad = "-- migrate:up\n```\n", good = "return {}\n" } }
  for key, value in pairs(fields or {}) do
    result[key] = value
  end
  return result
end

local function finding(fields)
  local result = { rule = "one", group = "shape", severity = "error", message = "it is wrong",
    file = "migrations/001_a.sql", line = 3, column = 5, last_line = 4, fix = "do it", version = 1, migration = "001_a",
    excerpt = "create index i", snippet = "create index i\n  on t (a)", fingerprint = "f1" }
  for key, value in pairs(fields or {}) do
    result[key] = value ~= json.null and value or nil
  end
  return result
end

local function outcome(fields)
  local result = { findings = {}, unchecked = {}, opaque = {}, waivers = {}, rules = { rule("one") },
    files = { "migrations/001_a.sql", "migrations/002_b.sql" }, versions = { 1, 2 }, checked = 2, errors = 0 }
  for key, value in pairs(fields or {}) do
    result[key] = value
  end
  return result
end

local WAIVER = { rule = "one", reason = "small table", expires = "2099-01-31", ticket = "T-1",
  file = "migrations/001_a.sql", line = 2, state = "used", used = 1 }

local function everything()
  return outcome {
    findings = {
      finding { message = HOSTILE, fix = HOSTILE, file = "migrations/" .. HOSTILE, excerpt = HOSTILE, snippet = HOSTILE },
      finding { rule = "two", severity = "warning", line = json.null, column = json.null, last_line = json.null },
      finding { severity = "info", file = json.null, line = json.null },
      finding { waived = WAIVER, line = 9 },
      finding { waived = { rule = "one", reason = "renewed", expires = "2099-01-31", file = "moonbird.lua", line = 1,
        config = true } },
    },
    unchecked = { { rule = "one", needs = "git", count = 2 }, { rule = "three", needs = "git", count = 1 },
      { rule = "one", needs = "live", count = 1 } },
    opaque = { { file = "migrations/002_b.lua", line = 1, reason = "up is a Lua function" } },
    waivers = { WAIVER },
    rules = { rule("one"), rule("two", { group = "registry", severity = "warning", title = HOSTILE, explain = HOSTILE }),
      rule("three", { severity = "info" }), rule("four") },
  }
end

describe("the summary", function()
  local function summary(fields)
    return findings.summary(outcome(fields))
  end

  it("counts what nobody answers for", function()
    assert.equal("2 migrations, nothing found", summary {})
    assert.equal("0 migrations, nothing found", summary { checked = 0, files = {} })
    assert.equal("1 migration, nothing found; 1 waived", summary { checked = 1, findings = { finding { waived = WAIVER } } })
    assert.equal("2 errors, 1 warning, 1 note in 2 of 2 migrations; 1 waived", summary { findings = {
      finding(), finding(), finding { severity = "warning", file = "migrations/002_b.sql" }, finding { severity = "info" },
      finding { waived = WAIVER } } })
  end)

  it("does not take other files for migrations", function()
    assert.equal("1 error; 2 migrations", summary { findings = { finding { file = "moonbird.lua" } } })
    assert.equal("2 errors in 1 of 2 migrations", summary { findings = { finding(), finding { file = "moonbird.lua" } } })
  end)
end)

describe("the text", function()
  local function text(fields, verbose)
    return findings.text(outcome(fields), PLAIN, verbose)
  end

  it("shows a finding with its place, statement and fix", function()
    assert.equal([[
migrations/001_a.sql:3:5: error[one]: it is wrong
    | create index i
    fix: do it
migrations/001_a.sql:9: info[one]: it is
    | wrong

migrations/002_b.sql: warning[two]: so so

1 error, 1 warning, 1 note in 2 of 2 migrations
]], text { findings = {
      finding(),
      finding { severity = "info", message = "it is\nwrong", line = 9, column = json.null, excerpt = json.null,
        fix = json.null },
      finding { rule = "two", severity = "warning", message = "so so", line = json.null,
        file = "migrations/002_b.sql", excerpt = json.null, fix = json.null } } })
  end)

  it("says once for each fact what was not checked", function()
    local said = text({ unchecked = everything().unchecked, opaque = everything().opaque }, true)
    assert.truthy(said:find("not checked: one, three need git (--base REF)\n", 1, true), said)
    assert.truthy(said:find("not checked: one needs a database", 1, true), said)
    assert.truthy(said:find("not looked into: migrations/002_b.lua:1: up is a Lua function\n", 1, true), said)
    assert.truthy(said:find("\n2 migrations, nothing found\n$"), said)
  end)

  it("counts in a line what was not checked, for who does not ask", function()
    local said = text { unchecked = everything().unchecked }
    assert.truthy(said:find("not checked: 2 rules, for want of git (--base REF), a database (ci, up, deploy); "
      .. "--verbose names them\n", 1, true), said)
    assert.is_nil(said:find("three", 1, true))
    said = text { unchecked = { { rule = "one", needs = "git", count = 1 } } }
    assert.truthy(said:find("not checked: one needs git (--base REF)\n", 1, true), said)
  end)

  it("counts the places that could not be looked into, and lists them on request", function()
    local list = {}
    for i = 1, 9 do
      list[i] = { file = "migrations/001_a.sql", line = i, reason = "why" }
      list[9 + i] = { file = "migrations/002_b.lua", line = i, reason = "a function", recordable = true }
    end
    local said = text { opaque = list }
    assert.truthy(said:find("not looked into: 9 places, the first is migrations/001_a.sql:1: why; --verbose lists them\n",
      1, true), said)
    assert.truthy(said:find("not looked into: 9 Lua functions; what they send shows in a rehearsal (`moonbird ci`); "
      .. "--verbose lists them\n", 1, true), said)
    assert.equal(2, select(2, said:gsub("not looked into", "")))
    said = text({ opaque = list }, true)
    assert.equal(18, select(2, said:gsub("not looked into", "")))
    assert.truthy(said:find("not looked into: migrations/002_b.lua:9: a function\n", 1, true), said)
  end)

  it("has no notes where there are no migrations", function()
    assert.equal("0 migrations, nothing found\n", text { checked = 0, files = {}, unchecked = everything().unchecked })
  end)

  it("leaves no control character and no line to others", function()
    local said = findings.text(everything(), PLAIN)
    assert.is_nil(said:find("[%z\1-\9\11-\31\127]"))
    assert.truthy(utf8.len(said))
    assert.is_nil(said:find("\u{9B}", 1, true))
    for line in said:gmatch("[^\n]+") do
      assert.is_nil(line:find("^%s*::"), line)
    end
  end)

  it("proposes a beginning when old migrations have many findings", function()
    local list, versions, files = {}, {}, {}
    for i = 1, 100 do
      versions[i], files[i] = i, "migrations/" .. i
    end
    for i = 1, 50 do
      list[i] = finding { version = i }
    end
    local function beginning()
      return findings.beginning(outcome { findings = list, versions = versions, files = files, checked = 100 })
    end
    assert.is_nil(beginning())
    list[51] = finding { version = 81 } -- one of the newest 20 %
    assert.is_nil(beginning())
    list[52] = finding { version = 80 }
    assert.same({ 80, 51 }, { beginning() })
    local said = findings.text(outcome { findings = list, versions = versions, files = files, checked = 100 }, PLAIN)
    assert.truthy(said:find("enforce_after = 80", 1, true))
  end)

  it("has colours when asked", function()
    assert.truthy(findings.text(outcome { findings = { finding() } }, style.new(true)):find("\27[31m", 1, true))
  end)
end)

describe("the data", function()
  it("has every finding, the waived ones marked", function()
    local data = json.decode(json.encode(findings.data(everything())))
    assert.equal(5, #data.findings)
    assert.equal(1, data.errors)
    assert.equal(1, data.warnings)
    assert.equal(1, data.notes)
    assert.equal(2, data.waived)
    assert.same({ reason = "small table", ["until"] = "2099-01-31", ticket = "T-1", file = "migrations/001_a.sql",
      line = 2 }, data.findings[4].waived)
    assert.equal("1", data.findings[1].version)
    assert.equal(HOSTILE:match("^.-`c` "), data.findings[1].message:match("^.-`c` "))
    assert.equal(3, #data.not_checked)
    assert.equal("used", data.waivers[1].state)
  end)

  it("has lists where nothing is", function()
    local text = json.encode(findings.data(outcome {}))
    for _, name in ipairs { "findings", "not_checked", "opaque", "waivers" } do
      assert.truthy(text:find(('"%s":[]'):format(name), 1, true), name)
    end
  end)
end)

describe("SARIF", function()
  it("is valid by the official schema, whatever was found", helper.async(function()
    for _, case in ipairs { outcome {}, everything(), outcome { failure = { message = HOSTILE }, rules = {} } } do
      assert.equal("", outputs.sarif_problems(sarif.text(case, { prefix = "db/" })))
    end
    local log = sarif.log(outcome { findings = { finding() } })
    log.runs[1].results[1].level = "awful"
    assert.truthy(outputs.sarif_problems(json.encode(log)):find("awful", 1, true), "the validator finds nothing")
  end))

  local function run_of(fields, options)
    return json.decode(sarif.text(outcome(fields), options)).runs[1]
  end

  it("tells place, rule and identity of a finding", function()
    local run = run_of({ findings = { finding() } }, { prefix = "services/db/" })
    local result = run.results[1]
    assert.equal("one", result.ruleId)
    assert.equal("one", run.tool.driver.rules[result.ruleIndex + 1].id)
    assert.equal("error", result.level)
    assert.same({ ["moonbird/v1"] = "f1" }, result.partialFingerprints)
    local place = result.locations[1].physicalLocation
    assert.same({ uri = "services/db/migrations/001_a.sql", uriBaseId = "%SRCROOT%" }, place.artifactLocation)
    assert.same({ startLine = 3, startColumn = 5, endLine = 4, snippet = { text = "create index i\n  on t (a)" } },
      place.region)
    assert.is_nil(result.suppressions)
  end)

  it("describes rules with help and level, also those only a finding names", function()
    local run = run_of { findings = { finding { rule = "unheard-of", severity = "info" } } }
    local first, other = table.unpack(run.tool.driver.rules)
    assert.equal("title of one", first.shortDescription.text)
    assert.equal("why one", first.fullDescription.text)
    assert.equal("error", first.defaultConfiguration.level)
    assert.truthy(first.help.text:find("Fix: mend it", 1, true))
    assert.truthy(first.help.markdown:find("````sql\n-- migrate:up\n```\n````", 1, true), first.help.markdown)
    assert.truthy(first.help.markdown:find("From ADR 1: because", 1, true))
    assert.equal("unheard-of", other.id)
    assert.equal("note", run.results[1].level)
  end)

  it("suppresses what is waived, with the reason", function()
    local run = run_of { findings = everything().findings }
    local inside, outside = run.results[4].suppressions[1], run.results[5].suppressions[1]
    assert.equal("inSource", inside.kind)
    assert.equal("small table (T-1)", inside.justification)
    assert.equal(2, inside.location.physicalLocation.region.startLine)
    assert.equal("external", outside.kind)
  end)

  it("says what was not checked, and why a run broke off", function()
    local case = everything()
    local said = run_of({ unchecked = case.unchecked, opaque = case.opaque }).invocations[1]
    assert.is_true(said.executionSuccessful)
    assert.equal(4, #said.toolExecutionNotifications)
    assert.equal("one", said.toolExecutionNotifications[1].associatedRule.id)
    said = run_of({ failure = { message = "broken" } }).invocations[1]
    assert.is_false(said.executionSuccessful)
    assert.equal("broken", said.toolExecutionNotifications[1].message.text)
  end)

  it("writes paths as URIs", function()
    assert.equal("a/b%20c%25%23%3F%0A.sql", sarif.uri("a/b c%#?\n.sql"))
    assert.equal("file:///a/b%3A1", sarif.uri("/a/b:1"))
    local place = run_of({ findings = { finding { file = "/abs/001_a.sql" } } }, { prefix = "x/" })
      .results[1].locations[1].physicalLocation.artifactLocation
    assert.same({ uri = "file:///abs/001_a.sql" }, place)
  end)
end)

describe("JUnit XML", function()
  local function tests_of(fields)
    local root = outputs.xml(junit.text(outcome(fields)))
    local by_name, count = {}, 0
    for _, suite in ipairs(root.children) do
      assert.equal(tostring(#suite.children), suite.attributes.tests)
      for _, test in ipairs(suite.children) do
        by_name[test.attributes.name] = test
        count = count + 1
      end
    end
    assert.equal(tostring(count), root.attributes.tests)
    return by_name, root
  end

  it("is well-formed with anything in it", helper.async(function()
    local root = outputs.xml(junit.text(everything()))
    assert.equal("testsuites", root.tag)
    local text
    for _, suite in ipairs(root.children) do
      for _, test in ipairs(suite.children) do
        if test.attributes.file and test.attributes.file:find("::set-env", 1, true) then
          text = test.children[1].attributes.message
        end
      end
    end
    assert.truthy(text:find("]]> <![CDATA[", 1, true), text)
    assert.truthy(text:find("<b>&amp;", 1, true), text)
    assert.truthy(text:find("^a\nb"), text)
    outputs.xml(junit.text(outcome { failure = { message = HOSTILE } }))
  end))

  it("has a test for each rule, and for each file where it found something", helper.async(function()
    local tests, root = tests_of { rules = { rule("one"), rule("two"), rule("three"), rule("four") }, findings = {
      finding(), finding(), finding { file = "migrations/002_b.sql" }, finding { rule = "two", severity = "warning" },
      finding { rule = "three", waived = WAIVER } }, unchecked = { { rule = "three", needs = "git", count = 2 } } }
    assert.same({ "2", "2" }, { root.attributes.failures, root.attributes.skipped })
    local failed = tests["one: migrations/001_a.sql"]
    assert.equal("failure", failed.children[1].tag)
    assert.equal("it is wrong (and 1 more)", failed.children[1].attributes.message)
    assert.equal("migrations/001_a.sql", failed.attributes.file)
    assert.equal("failure", tests["one: migrations/002_b.sql"].children[1].tag)
    assert.equal("system-out", tests["two: migrations/001_a.sql"].children[1].tag)
    assert.equal("skipped", tests["three: migrations/001_a.sql"].children[1].tag)
    assert.truthy(tests["three: migrations/001_a.sql"].children[2].text:find("small table", 1, true))
    assert.equal("not checked: needs git", tests["three (not checked)"].children[1].attributes.message)
    assert.equal(0, #tests["four: 2 migrations"].children)
  end))
end)

describe("GitHub", function()
  it("gets an annotation a line, with everything escaped", function()
    local text = github.annotations(outcome { findings = {
      finding { message = "50% of\r\nit", file = "migrations/a:b,c.sql", fix = json.null }, finding { waived = WAIVER } } },
      { prefix = "db/" })
    assert.equal("::error file=db/migrations/a%3Ab%2Cc.sql,line=3,col=5,endLine=4,title=moonbird%3A one::"
      .. "50%25 of%0D%0Ait\n", text)
  end)

  it("can't be given a command by what is checked", function()
    local case = everything()
    local text = github.annotations(case)
    local count = 0
    for line in text:gmatch("([^\n]*)\n") do
      count = count + 1
      assert.truthy(line:find("^::%l+ [^\r]*$"), line)
      assert.is_nil(line:find("##[", 1, true), line)
    end
    assert.equal(3, count)
    assert.truthy(text:find("\n::warning file=", 1, true))
    assert.truthy(text:find("\n::notice title=", 1, true))
    local properties = text:match("^::error (.-)::")
    assert.is_nil(properties:find("set-env::", 1, true))
    assert.is_nil(github.shield("x ##[add-mask]y"):find("##[", 1, true))
  end)

  it("gets a summary in which nothing is a link, a picture or a cell of its own", function()
    local text = github.summary(everything(), { title = "moonbird check" })
    assert.truthy(text:find("^### moonbird check\n"))
    assert.is_nil(text:find("<b>", 1, true))
    assert.is_nil(text:find("![i]", 1, true))
    assert.is_nil(text:find("http://", 1, true))
    local rows = 0
    for line in text:gmatch("[^\n]+") do
      local _, bars = line:gsub("|", "")
      if line:find("^| [ewi]") then
        rows = rows + 1
        assert.equal(5, bars, line)
      end
    end
    assert.equal(3, rows)
    assert.truthy(text:find("Not checked, for lack of facts: one, three", 1, true))
  end)

  it("keeps the summary short", function()
    local list = {}
    for i = 1, 300 do
      list[i] = finding { line = i }
    end
    local text = github.summary(outcome { findings = list })
    assert.truthy(text:find("100 more are in the log", 1, true))
  end)
end)

describe("text of unknown origin", function()
  it("becomes valid UTF-8 byte by byte", function()
    assert.equal("a\u{FFFD}b\u{FFFD}\u{FFFD}", clean.utf8("a\xffb\xfe\xff"))
    assert.equal("\u{FFFD}(", clean.utf8("\xc3\x28"))
    assert.equal("plain \u{1F426}", clean.utf8("plain \u{1F426}"))
    assert.truthy(utf8.len(clean.utf8("\xed\xa0\x80 \xf4\x90\x80\x80")))
    assert.equal("", clean.utf8(""))
  end)

  it("is one line where one is wanted", function()
    assert.equal("a b\\x0dc", clean.line("a \n\n b\rc"))
  end)
end)
