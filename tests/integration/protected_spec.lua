--- Protected environments: who may run what there, and what an emergency leaves in the journal.
-- The same on every server.
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local texts = require "tests.texts"
local async = helper.async
local has = texts.has

local TABLE = [[
-- description: Keep the things that the test is about
-- phase: expand
-- scope: global
-- compatibility: backward_compatible
-- migrate:up
create table things (id bigint primary key);
-- migrate:down
drop table things;
]]

-- The tests may run in a pipeline themselves.
local OUTSIDE = { CI = false, GITHUB_ACTIONS = false }
local PIPELINE = { CI = "true", GITHUB_ACTIONS = false }

describe("a protected environment", function()
  local db, dir

  local function project(protected)
    dir = helper.project {
      ["moonbird.lua"] = ([[return { default_environment = "production", environments = {
        production = { url = %q, protected = %s },
        development = { url = %q } } }]]):format(db.url, protected or "true", db.url),
      ["migrations/001_things.sql"] = TABLE,
    }
  end

  before_each(async(function()
    db = helper.database()
    project()
  end))

  local function moonbird(status, env, ...)
    return helper.ok({ ... }, { cwd = dir, status = status, env = env })
  end

  local function there()
    return db:value "select to_regclass('things')::text" == "things"
  end

  local function journal()
    return db:value "select to_regclass('moonbird.journal') is not null"
      and db:value "select count(*) from moonbird.journal" or 0
  end

  --- Applied by the pipeline.
  local function deployed()
    moonbird(0, PIPELINE, "deploy")
    assert.is_true(there())
  end

  for name, value in pairs { unset = false, empty = "", ["false"] = "false", ["False"] = "False", ["0"] = "0" } do
    it("is changed by nobody outside the pipeline: CI is " .. name, async(function()
      local env = { CI = value, GITHUB_ACTIONS = false }
      for _, command in ipairs { { "up" }, { "down" }, { "redo" }, { "drop", "--yes" }, { "deploy" },
        { "up", "--dry-run" }, { "down", "--dry-run" } } do
        local result = moonbird(6, env, table.unpack(command))
        has(result.stderr, "production")
        has(result.stderr, "protected")
        assert.is_false(there())
        assert.are.equal(0, journal())
      end
      deployed()
      local events = journal()
      for _, command in ipairs { { "up" }, { "down" }, { "redo" }, { "drop", "--yes" }, { "deploy" } } do
        moonbird(6, env, table.unpack(command)) -- also with nothing to do
      end
      assert.is_true(there())
      assert.are.equal(events, journal())
    end))
  end

  it("is deployed to by the pipeline, and by nothing else of it", async(function()
    for _, command in ipairs { { "up" }, { "down" }, { "redo" }, { "drop", "--yes" } } do
      moonbird(6, PIPELINE, table.unpack(command))
      assert.are.equal(0, journal())
    end
    deployed()
    moonbird(0, PIPELINE, "deploy")
    for _, command in ipairs { { "up" }, { "down" }, { "redo" }, { "drop", "--yes" } } do
      has(moonbird(6, PIPELINE, table.unpack(command)).stderr, "protected")
    end
    assert.is_true(there())
  end))

  -- What writes without being a migration.
  local WRITERS = { { "baseline", "1" }, { "repair", "1", "--mark", "applied", "--reason", "it is there" },
    { "run", "script.lua" } }

  it("is not written to by scripts, baseline and repair", async(function()
    helper.write(dir, { ["script.lua"] = "return function(db) db:exec('create table by_hand (i int)') end" })
    for round = 1, 2 do
      local events = journal()
      for _, env in ipairs { OUTSIDE, PIPELINE } do
        for _, command in ipairs(WRITERS) do
          has(moonbird(6, env, table.unpack(command)).stderr, "protected")
        end
      end
      assert.are.equal(events, journal())
      assert.is_nil(db:value "select to_regclass('by_hand')::text")
      if round == 1 then
        deployed()
      end
    end
    has(moonbird(6, OUTSIDE, "run", "show", "nothing").stderr, "there is no run") -- asks, and writes nothing
    moonbird(0, OUTSIDE, "-e", "development", "run", "script.lua")
    assert.are.equal("by_hand", db:value "select to_regclass('by_hand')::text")
  end))

  it("is written to by them in an emergency, and the journal knows why", async(function()
    helper.write(dir, { ["script.lua"] = "return function(db) db:exec('create table by_hand (i int)') end" })
    for _, command in ipairs(WRITERS) do
      for _, reason in ipairs { "", " " } do
        moonbird(2, OUTSIDE, table.unpack(table.move({ "--emergency", reason }, 1, 2, #command + 1,
          { table.unpack(command) })))
      end
    end
    assert.are.equal(0, journal())
    moonbird(0, OUTSIDE, "baseline", "1", "--reason", "it was there", "--emergency", "adopted by night")
    moonbird(0, OUTSIDE, "repair", "1", "--mark", "reverted", "--reason", "it is gone", "--emergency", "mended")
    moonbird(0, OUTSIDE, "run", "script.lua", "--emergency", "rows are lost")
    local events = json.decode(moonbird(0, OUTSIDE, "--json", "history").stdout).events
    assert.same({ emergency = "rows are lost", script = "script.lua" }, events[1].detail)
    assert.are.equal("script", events[1].event)
    assert.are.equal("mended", events[2].detail.emergency)
    assert.same({ reason = "it was there", emergency = "adopted by night" }, events[3].detail)
    local said = moonbird(0, OUTSIDE, "history").stdout
    for _, part in ipairs { "it was there; emergency: adopted by night", "it is gone; emergency: mended",
      "script.lua; emergency: rows are lost" } do
      has(said, part)
    end
    assert.are.equal("by_hand", db:value "select to_regclass('by_hand')::text")
    moonbird(0, OUTSIDE, "history", "--verify")
    moonbird(0, PIPELINE, "deploy")
    assert.is_true(there())
  end))

  it("says which rule refused, as data too", async(function()
    local answer = json.decode(moonbird(6, OUTSIDE, "--json", "up").stdout)
    assert.is_false(answer.ok)
    assert.are.equal("policy", answer.error.code)
    has(answer.error.message, "protected-run")
  end))

  it("may name its variable and its commands", async(function()
    project "{ variable = \"GITHUB_ACTIONS\", commands = { \"deploy\", \"up\" } }"
    moonbird(6, PIPELINE, "up")
    moonbird(6, PIPELINE, "deploy")
    has(moonbird(6, OUTSIDE, "up").stderr, "GITHUB_ACTIONS")
    local github = { CI = false, GITHUB_ACTIONS = "true" }
    moonbird(0, github, "up")
    moonbird(0, github, "deploy")
    moonbird(6, github, "down")
    moonbird(6, github, "redo")
    moonbird(6, github, "drop", "--yes")
    assert.is_true(there())
  end))

  it("is not protected by a word that is none", async(function()
    for _, wrong in ipairs { "{ variable = 7 }", "{ commands = { \"down\" } }", "{ commands = {} }", "{ vraiable = \"CI\" }",
      "\"yes\"", "{ commands = \"deploy\" }", "{ variable = \"\" }" } do
      project(wrong)
      for _, command in ipairs { "up", "deploy" } do
        local result = helper.moonbird({ command }, { cwd = dir, env = PIPELINE })
        assert.are.equal(2, result.status, wrong .. ": " .. result.stderr)
      end
      assert.is_false(there())
    end
  end))

  it("leaves the others alone", async(function()
    moonbird(0, OUTSIDE, "-e", "development", "up")
    moonbird(0, OUTSIDE, "-e", "development", "redo")
    moonbird(0, OUTSIDE, "-e", "development", "deploy")
    moonbird(0, OUTSIDE, "-e", "development", "down")
    assert.is_false(there())
  end))

  it("is protected through MOONBIRD_ENV and below a protection for all", async(function()
    moonbird(6, { CI = false, MOONBIRD_ENV = "production" }, "up")
    helper.write(dir, { ["moonbird.lua"] = ([[return { protected = true, environments = {
      open = { url = %q, protected = false }, closed = { url = %q } } }]]):format(db.url, db.url) })
    moonbird(6, OUTSIDE, "-e", "closed", "up")
    moonbird(6, OUTSIDE, "-u", db.url, "up")
    moonbird(0, OUTSIDE, "-e", "open", "up")
  end))

  it("may always be looked at", async(function()
    for round = 1, 2 do
      for _, command in ipairs { { "status" }, { "plan" }, { "history" }, { "show", "1" }, { "check" }, { "wait" },
        { "policy", "list" }, { "history", "--verify" } } do
        if not (round == 1 and command[2] == "--verify") then
          local result = helper.moonbird(command, { cwd = dir, env = OUTSIDE })
          assert.are.equal(0, result.status, table.concat(command, " ") .. ": " .. result.stderr)
        end
      end
      if round == 1 then
        assert.are.equal(0, journal())
        deployed()
      end
    end
  end))

  describe("in an emergency", function()
    before_each(async(function()
      deployed()
    end))

    it("goes back, and the journal knows why", async(function()
      moonbird(6, OUTSIDE, "down")
      moonbird(0, OUTSIDE, "down", "--emergency", "release 2.4 loses orders; agreed with Ada \"the lead\"")
      assert.is_false(there())
      local events = json.decode(moonbird(0, OUTSIDE, "--json", "history").stdout).events
      assert.are.equal("revert", events[1].event)
      assert.are.equal("release 2.4 loses orders; agreed with Ada \"the lead\"", events[1].detail.emergency)
      assert.is_nil(events[2].detail and events[2].detail.emergency)
      has(moonbird(0, OUTSIDE, "history").stdout, "release 2.4 loses orders")
    end))

    it("goes up and redoes by hand", async(function()
      moonbird(0, OUTSIDE, "redo", "--emergency", "an index is broken")
      local events = json.decode(moonbird(0, OUTSIDE, "--json", "history").stdout).events
      assert.are.equal("an index is broken", events[1].detail.emergency)
      assert.are.equal("an index is broken", events[2].detail.emergency)
      moonbird(0, OUTSIDE, "down", "--emergency", "again")
      moonbird(0, OUTSIDE, "up", "--emergency", "the pipeline is down")
      moonbird(0, OUTSIDE, "down", "--emergency", "once more")
      moonbird(0, OUTSIDE, "deploy", "--emergency", "the pipeline is down")
      assert.is_true(there())
    end))

    it("journals the reason for a step without a transaction too", async(function()
      helper.write(dir, { ["migrations/002_index.sql"] = TABLE:gsub("migrate:(%a+)[^\n]*\n[^\n]*\n", {
        up = "migrate:up transaction:false\ncreate index concurrently if not exists things_i on things (id);\n",
        down = "migrate:down transaction:false\ndrop index concurrently if exists things_i;\n",
      }) })
      moonbird(0, OUTSIDE, "up", "--emergency", "reads time out")
      local event = json.decode(moonbird(0, OUTSIDE, "--json", "history").stdout).events[1]
      assert.are.equal("apply", event.event)
      assert.are.equal("reads time out", event.detail.emergency)
    end))

    it("needs a reason", async(function()
      for _, command in ipairs { "up", "down", "redo", "deploy" } do
        for _, reason in ipairs { "", "  ", "\t\n" } do
          moonbird(2, OUTSIDE, command, "--emergency", reason)
          moonbird(2, OUTSIDE, "-e", "development", command, "--emergency", reason)
        end
      end
      assert.is_true(there())
      moonbird(2, OUTSIDE, "down", "--emergency")
    end))

    it("does not drop the database", async(function()
      moonbird(2, OUTSIDE, "drop", "--yes", "--emergency", "away with it")
      moonbird(6, PIPELINE, "drop", "--yes")
      assert.is_true(there())
    end))

    it("lets only the protection go, no other rule", async(function()
      helper.write(dir, { ["migrations/002_drop.sql"] = TABLE:gsub("create table things %(id bigint primary key%)",
        "drop table things"):gsub("drop table things;\n$", "create table things (id bigint primary key);\n") })
      has(moonbird(6, OUTSIDE, "up", "--emergency", "quick").stderr, "expand-breaking")
      assert.is_true(there())
      helper.write(dir, { ["migrations/002_drop.sql"] = (TABLE:gsub("phase: expand", "phase: contract")
        :gsub("backward_compatible", "contract_breaking"):gsub("create table things %(id bigint primary key%)",
        "drop table things"):gsub("drop table things;\n$", "create table things (id bigint primary key);\n")) })
      has(moonbird(0, OUTSIDE, "up", "--emergency", "quick").stdout, "held back")
      assert.is_true(there())
    end))
  end)
end)
