--- The head of a migration as rules speak of it.
local builtin = require "moonbird.policy.builtin"
local head = require "moonbird.policy.head"

describe("what to write in a head", function()
  for _, case in ipairs {
    { "say why: `irreversible: reason`", "say why: `-- irreversible: reason`", "say why: `irreversible = \"reason\"`" },
    { "add `-- purpose: what this is for` to it", "add `-- purpose: what this is for` to it",
      "add `purpose = \"what this is for\"` to it" },
    { "say `phase: contract`, or `completes: 002`", "say `-- phase: contract`, or `-- completes: 002`",
      "say `phase = \"contract\"`, or `completes = \"002\"`" },
    { "`up` of `git: main` and `-- moonbird:allow x`", "`up` of `git: main` and `-- moonbird:allow x`",
      "`up` of `git: main` and `-- moonbird:allow x`" },
    { "it, behind `-- migrate:up transaction:false`", "it, behind `-- migrate:up transaction:false`",
      "it, in a migration with `transaction = false`" },
  } do
    it("is said in the file's syntax: " .. case[1], function()
      assert.equal(case[2], head.in_syntax(case[1], "sql"))
      assert.equal(case[3], head.in_syntax(case[1], "lua"))
    end)
  end

  it("is no syntax of the other kind in any rule's fix", function()
    for _, rule in ipairs(builtin.rules()) do
      local fix = rule.fix and head.in_syntax(rule.fix, "lua"):gsub("`%-%- moonbird:", "") or ""
      assert.is_nil(fix:find("`%-%- ") or fix:find("`[%l_]+: "), rule.id .. ": " .. fix)
    end
  end)
end)
