--- Every migration can be taken back, or says why not.
local effect = require "moonbird.policy.effect"
local head = require "moonbird.policy.head"
local text_util = require "moonbird.util.text"

local GOOD = [[
-- description: Keep the day on which a user came
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up
alter table users add column joined_on date;

-- migrate:down
alter table users drop column joined_on;
]]

local function going_up(ctx)
  return ctx.direction ~= "down"
end

return {
  {
    id = "reversible", group = "reversibility", severity = "error",
    title = "a migration has a down that does something, or says why there is none",
    explain = text_util.trim [[
When a release goes wrong at night, the way back is either written and tried, or it is improvised by somebody tired.
A down that only selects, raises, or holds a comment looks like a way back and is none. `moonbird ci` runs every down
and then up again, so a down that is there also works.

Where there is no way back (rows were merged, a key was thrown away), say so: `irreversible: reason`. A Lua
function's down counts as doing something unless a rehearsal showed that it sent nothing.]],
    fix = "write the down, or say why there is none: `irreversible: reason`",
    seeds = {
      "ADR-0068: `upSql` and `downSql` statements.",
      "ADR-002: **Enforces Rollback**: All migrations must include reversible downgrade operations",
      "ADR-002: Be reversible (include downgrade operation)",
      "ADR 0007: **Reversibility**: Every change must be reversible with a rollback procedure",
      "ADR 0007: Always include rollback SQL",
      "Database Migration Strategy: Each migration includes rollback instructions in comments",
      "Database Migration Strategy: **Rollback SQL** in comments at end of file",
    },
    examples = { bad = GOOD:gsub("alter table users drop column joined_on;", "select 'nothing to do';"), good = GOOD },
    applies = function(ctx)
      return going_up(ctx) and not ctx.migration.irreversible
    end,
    check = function(ctx)
      local down = ctx.migration.down
      local state = effect.of_step(down)
      if state == "none" then
        ctx:report("the migration has no down, and no reason why it is irreversible",
          { at = head.at(ctx.migration, "down", "up") })
      elseif state == "nothing" then
        ctx:report("the migration's down does nothing", { at = down.statements[1] or head.at(ctx.migration, "down") })
      end
    end,
  },
  {
    id = "irreversible-allowed", group = "reversibility", severity = "error", gate = true,
    title = "an irreversible migration runs only where the environment takes it",
    explain = text_util.trim [[
`irreversible: reason` is honest, and for some databases still too much: where a release may have to be taken back
within minutes, each migration needs its way back. Such an environment sets
`policy = { rules = { ["irreversible-allowed"] = { forbid = true } } }`.

Then split the migration: the part that can be taken back now, the part that can't as a contract migration with
a down that brings the old shape back; or have this one allowed by a waiver that says who agreed.]],
    fix = "write a down, or have a waiver for it that says who agreed",
    seeds = {
      "ADR 0007: **Reversibility**: Every change must be reversible with a rollback procedure",
      "ADR-002: Reversible (rollback capability)",
    },
    options = { forbid = { default = false, type = "boolean", help = "whether irreversible migrations are refused" } },
    examples = {
      options = { forbid = true },
      bad = [[
-- description: Forget the addresses that visitors came from
-- phase: expand
-- scope: global
-- compatibility: backward_compatible
-- irreversible: the addresses must not be kept anywhere
-- data_preservation: none, on purpose

-- migrate:up
create table forgotten (id bigint primary key);

-- migrate:down
]],
      good = GOOD,
    },
    applies = function(ctx)
      return going_up(ctx) and ctx.options.forbid
    end,
    check = function(ctx)
      local reason = ctx.migration.irreversible
      if reason then
        local name = ctx.environment and ctx.environment.name
        ctx:report(("the migration is irreversible (%s), and %s takes no such"):format(reason,
          name and ("the environment \"%s\""):format(name) or "this environment"),
          { at = head.at(ctx.migration, "irreversible") })
      end
    end,
  },
}
