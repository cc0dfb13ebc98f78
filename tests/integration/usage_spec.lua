--- Command lines that can't be run: what a newcomer is told, and where to read on. No server is needed.
-- The same on every server.
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local async = helper.async

local function has(text, part)
  assert(text:find(part, 1, true), ("%q is not in:\n%s"):format(part, text))
end

local function lacks(text, part)
  assert(not text:find(part, 1, true), ("%q is in:\n%s"):format(part, text))
end

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
end)
