--- Command lines that can't be run: what a newcomer is told, and where to read on. No server is needed.
-- The same on every server.
local fs = require "moonbird.core.fs"
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local texts = require "tests.texts"
local async = helper.async
local has, lacks = texts.has, texts.lacks

describe("a command line that can't be read", function()
  local dir

  before_each(async(function()
    dir = helper.project {}
  end))

  local function refused(...)
    return helper.ok({ ... }, { cwd = dir, status = 2 }).stderr
  end

  for _, case in ipairs {
    { { "policy" }, "ACTION is missing: one of list, explain, test, waivers, facts", "see `moonbird help policy`" },
    { { "policy", "lst" }, "ACTION must be one of list, explain, test, waivers, facts, not \"lst\"",
      "did you mean \"list\"? see `moonbird help policy`" },
    { { "run" }, "SCRIPT is missing: a .lua file", "see `moonbird help run`" },
    { { "policy", "--nonsense", "list" }, "unknown option \"--nonsense\"", "see `moonbird help policy`" },
    { { "up", "--tennant", "x" }, "unknown option \"--tennant\"",
      "did you mean \"--tenant\"? see `moonbird help up`" },
    { { "up", "--hepl" }, "unknown option \"--hepl\"", "did you mean \"--help\"? see `moonbird help up`" },
    { { "up", "--verbos" }, "unknown option \"--verbos\"", "did you mean \"--verbose\"? see `moonbird help up`" },
    { { "up", "--steps" }, "option \"--steps\" requires an argument", "see `moonbird help up`" },
    { { "up", "--jobs", "zero" }, "--jobs: \"zero\" is not a number from 1 on", "see `moonbird help up`" },
    { { "up", "--color", "alwys" }, "--color must be one of auto, always, never, not \"alwys\"",
      "did you mean \"always\"? see `moonbird help up`" },
    { { "baseline", "x" }, "VERSION: \"x\" is not a version", "see `moonbird help baseline`" },
    { { "up", "x" }, "too many arguments", "see `moonbird help up`" },
    { { "polcy" }, "there is no command \"polcy\"", "did you mean \"policy\"? see `moonbird help`" },
    { { "help", "polcy" }, "there is no command \"polcy\"", "did you mean \"policy\"? see `moonbird help`" },
  } do
    it("says what is wrong and which help tells more: " .. table.concat(case[1], " "), async(function()
      local said = refused(table.unpack(case[1]))
      has(said, "error: " .. case[2])
      has(said, "hint: " .. case[3] .. "\n")
      lacks(said, "Did you mean")
    end))
  end

  it("says the same to programs", async(function()
    local answer = json.decode(helper.ok({ "up", "--json", "--tennant", "x" }, { cwd = dir, status = 2 }).stdout)
    assert.are.equal("unknown option \"--tennant\"", answer.error.message)
    assert.are.equal("did you mean \"--tenant\"? see `moonbird help up`", answer.error.hint)
  end))

  it("names the rule that was meant instead of listing all", async(function()
    has(refused("policy", "explain", "foreign-key"), "hint: did you mean \"foreign-key-index\"?\n")
    has(refused("policy", "explain", "nothing-like-it"), "hint: `moonbird policy list` shows them\n")
    helper.write(dir, { ["moonbird.lua"] =
      "return { policy = { rules = { [\"foreign-key\"] = \"off\", [\"nothing-like-it\"] = \"off\" } } }" })
    local said = refused("check")
    has(said, "did you mean \"foreign-key-index\"?")
    has(said, "`moonbird policy list` shows them")
    lacks(said, "known are")
  end))

  for _, words in ipairs { { "up", "--tenant", "x" }, { "up", "--exclude", "x" }, { "up", "--all-tenants" },
    { "up", "--canary", "1" }, { "up", "--jobs", "2" }, { "up", "--max-failures", "1" }, { "up", "--keep-going" },
    { "up", "--shard", "0/2" }, { "down", "--tenant", "x" }, { "redo", "--tenant", "x" }, { "deploy", "--tenant", "x" },
    { "status", "--tenant", "x" }, { "status", "--all" }, { "plan", "--tenant", "x" }, { "plan", "--canary", "1" },
    { "history", "--exclude", "x" }, { "backfill", "--tenant", "x", "list" }, { "backfill", "--jobs", "2", "run" },
  } do
    it("names tenants where there are none: " .. table.concat(words, " "), async(function()
      helper.write(dir, { ["migrations/001_a.sql"] = "-- migrate:up\nselect 1;\n" })
      local said = refused("--url", "postgresql://nobody@127.0.0.1:1/nowhere", table.unpack(words))
      has(said, words[2] .. ": there are no tenants: moonbird.lua does not say where they come from\n")
      has(said, "hint: write tenants = tenants.schemas{")
    end))
  end

  it("names tenants where there are none: an artifact tells it, too", async(function()
    refused("deploy", "--tenant", "x", "--artifact", "out.json")
    has(json.decode(assert(fs.read(dir .. "/out.json"))).error.message, "--tenant: there are no tenants")
  end))
end)
