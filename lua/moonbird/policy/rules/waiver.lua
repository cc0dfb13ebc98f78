--- The rule about waivers themselves. It runs last, when it is known what each waiver excused.
local text_util = require "moonbird.util.text"

local SEEDS = {
  "ADR-0068: Contract-breaking migrations are blocked unless explicitly opted in",
  "ADR-002: All migrations require peer review and approval before application",
}

local function named(item)
  return ("the waiver of %s"):format(item.rule or "no rule")
end

return {
  {
    id = "waiver", group = "waiver", severity = "error", hard = true, last = true,
    moments = { "check" },
    title = "a waiver names a rule, a reason and a day that is not over, and excuses something",
    explain = text_util.trim [[
A waiver is a debt with a date. One without a reason can't be reviewed; one that is over excuses nothing
any more (the finding is back); one that excuses nothing hides the next defect in that place; one of an
unknown or hard rule gives a wrong feeling of being allowed.

A migration that is merged can't be edited: its waiver is renewed in moonbird.lua, in `policy.waivers`.]],
    fix = "-- moonbird:allow RULE until=YYYY-MM-DD reason=\"why, and who agreed\"",
    seeds = SEEDS,
    examples = {
      bad = [[
-- description: Find users by the day they came
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up
-- moonbird:allow index-concurrently until=2099-01-31
create index users_created_at on users (created_at);

-- migrate:down
drop index users_created_at;
]],
      good = [[
-- description: Find users by the day they came
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up
-- moonbird:allow index-concurrently until=2099-01-31 reason="users has 40 rows" ticket=OPS-12
create index users_created_at on users (created_at);

-- migrate:down
-- moonbird:allow index-concurrently until=2099-01-31 reason="users has 40 rows" ticket=OPS-12
drop index users_created_at;
]],
    },
    check = function(ctx)
      for _, item in ipairs(ctx.waivers) do
        local at = { line = item.line, file = item.file }
        if item.problem then
          ctx:report(("%s can't be used: %s"):format(named(item), item.problem), { at = at })
        elseif item.state == "unknown" then
          ctx:report(("%s: there is no such rule"):format(named(item)),
            { at = at, fix = item.nearest or "`moonbird policy list` shows the rules" })
        elseif item.state == "hard" then
          ctx:report(("%s: this rule can't be waived"):format(named(item)),
            { at = at, fix = "mend what the rule finds, and remove the waiver" })
        elseif item.state == "expired" then
          ctx:report(("%s is over since %s"):format(named(item), item.expires),
            { at = at, fix = "mend what it excused, or renew it in moonbird.lua: policy.waivers" })
        elseif item.state == "unused" then
          ctx:report(("%s excuses nothing"):format(named(item)),
            { at = at, severity = "warning", fix = "remove it" })
        end
      end
    end,
  },
}
