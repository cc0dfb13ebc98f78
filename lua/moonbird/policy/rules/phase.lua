--- Expand and contract, the part that a migration's file shows.
local effect = require "moonbird.policy.effect"
local gates = require "moonbird.policy.rules.phase_gates"
local head = require "moonbird.policy.head"
local text_util = require "moonbird.util.text"
local words = require "moonbird.policy.words"

local M = table.move(gates, 1, #gates, 1, {})

local function going_up(ctx)
  return ctx.direction ~= "down"
end

local function is_contract(ctx)
  return going_up(ctx) and ctx.migration.phase == "contract"
end

local CONTRACT_GOOD = [[
-- description: Drop the column users.fullname, which display_name has replaced
-- phase: contract
-- scope: global
-- compatibility: contract_breaking
-- completes: 20250501000000
-- rationale: Releases since 2.4 read and write display_name only, and the last 2.3 is stopped
-- data_preservation: every value was copied to display_name by 20250501000000; the down copies it back

-- migrate:up
alter table users drop column fullname;

-- migrate:down
alter table users add column fullname text;
]]

M[#M + 1] = {
  id = "contract-down", group = "phase", severity = "error", gate = true,
  title = "a contract migration has a down that does something",
  explain = text_util.trim [[
A contract migration is the one that breaks a release when it comes too early, in the middle of a rollout. Then
somebody needs SQL that brings the old shape back, written and tested before, not in the night. The data that was
dropped may be gone; the shape that lets the older release run again must not be. `irreversible` is therefore not
enough here, unless the environment says `["contract-down"] = { allow_irreversible = true }`.

A down for a dropped column adds it again (nullable); for a dropped table, creates it again.]],
  fix = "write a down that brings the old shape back",
  seeds = {
    "ADR-0068: Contract migrations require rollback SQL.",
    "ADR-002: **Enforces Rollback**: All migrations must include reversible downgrade operations",
  },
  options = { allow_irreversible = { default = false, type = "boolean",
    help = "whether `irreversible: reason` does instead of a down" } },
  examples = {
    bad = CONTRACT_GOOD:gsub("alter table users add column fullname text;", "-- nothing to do"),
    good = CONTRACT_GOOD,
  },
  applies = is_contract,
  check = function(ctx)
    local migration = ctx.migration
    if migration.irreversible then
      if not ctx.options.allow_irreversible then
        ctx:report("a contract migration needs a down; \"irreversible\" is not enough for it",
          { at = head.at(migration, "irreversible") })
      end
      return
    end
    local state = effect.of_step(migration.down)
    if state == "none" then
      ctx:report("a contract migration needs a down, and this one has none",
        { at = head.at(migration, "down", "phase") })
    elseif state == "nothing" then
      ctx:report("a contract migration needs a down, and this one's does nothing",
        { at = migration.down.statements[1] or head.at(migration, "down") })
    end
  end,
}

M[#M + 1] = {
  id = "completes-known", group = "phase", severity = "error",
  title = "`completes` names older expand migrations that exist",
  explain = text_util.trim [[
`completes` says which expand migrations a contract one ends. Just before it runs, the history of the target is
asked for each of them: a version that does not exist can't be in any history, and a newer or a contract one is a
slip of the pen. A contract migration that names nothing is let through when any expand migration was applied
on the target, which protects less; so that is told.]],
  fix = "name the versions of the expand migrations whose change this one ends: `completes: VERSION`",
  seeds = { "ADR-0068: Contract migrations require prior expand history on the same migration target." },
  examples = {
    bad = CONTRACT_GOOD:gsub("completes: 20250501000000", "completes: 29990101000000"),
    good = CONTRACT_GOOD,
  },
  applies = going_up,
  check = function(ctx)
    local migration = ctx.migration
    if migration.phase == "contract" and (not migration.completes or #migration.completes == 0) then
      ctx:report("the contract migration does not say which expand migration it completes",
        { at = head.at(migration, "phase"), severity = "info" })
    end
    local at = migration.completes and head.at(migration, "completes", "phase")
    for _, version in ipairs(migration.completes or {}) do
      local known = ctx.registry.by_version[version]
      if version == migration.version then
        ctx:report("the migration says it completes itself", { at = at })
      elseif not known then
        ctx:report(("it completes %d, and there is no such migration"):format(version), { at = at })
      elseif version > migration.version then
        ctx:report(("it completes %s, which is newer than itself"):format(known.id), { at = at })
      elseif known.phase == "contract" then
        ctx:report(("it completes %s, which is no expand migration"):format(known.id), { at = at })
      end
    end
  end,
}

M[#M + 1] = {
  id = "expand-breaking", group = "phase", severity = "error", gate = true,
  title = "an expand migration has no statement that breaks a running release",
  explain = text_util.trim [[
Expand migrations are applied before the new release is rolled out, while the old one serves users. A dropped or
renamed column, a changed type, a new NOT NULL without a default: the old release fails at its next statement,
and so do all its users, until the rollout is through. What is made in the same migration is nobody's yet and
free.

SET NOT NULL belongs to the contract as well: a release that still writes NULL fails from then on. The way there does
not stop anybody: expand adds `CHECK (col IS NOT NULL) NOT VALID` when no running release writes NULL any more, a later
expand validates it, and the contract says SET NOT NULL, which then needs no look at the rows, and drops the check. Row
level security is the same: whoever reads the table now has no policy that lets him, and sees no rows; make the
policies in expand, turn it on in the contract.

Do it in steps. Expand: add the new shape beside the old, keep both filled (a trigger), copy the rows (a backfill).
Release the code that uses the new shape. Contract: drop the old, in a migration of its own that says
`phase: contract` and `completes: VERSION`. A project that has no release to protect yet may set
`policy = { rules = { ["expand-breaking"] = "warning" } }`.]],
  fix = "move it to a contract migration that completes this one",
  seeds = {
    "ADR-0068: Backward-compatible rollout is enforced as the default posture.",
    "Migration Playbook: Prefer **additive-first** changes; do destructive changes only when explicitly intended.",
    "Database Migration Strategy: No breaking changes to existing API contracts",
    "Database Migration Strategy: **Breaking changes require API versioning** - Coordinate with backend team",
  },
  examples = {
    bad = [[
-- description: Call the column users.fullname display_name
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up
alter table users rename column fullname to display_name;

-- migrate:down
alter table users rename column display_name to fullname;
]],
    good = [[
-- description: Give users a display_name beside fullname
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up
alter table users add column display_name text;

-- migrate:down
alter table users drop column display_name;
]],
  },
  applies = function(ctx)
    return going_up(ctx) and ctx.migration.phase ~= "contract"
  end,
  check = function(ctx)
    local rest = false -- something that an expand migration may do
    for _, statement in ipairs(ctx.statements) do
      rest = rest or not (statement.breaking or words.is_light(statement))
    end
    local fix = rest and ("move it to a contract migration that runs when no release needs the old shape: "
      .. "`phase: contract`, `completes: %s`"):format(ctx.migration.version_text)
      or "make it a contract migration, which runs when no release needs the old shape: `phase: contract`, "
        .. "`compatibility: contract_breaking`, and `completes` with the version that brought the new shape"
    for _, statement in ipairs(ctx.statements) do
      if statement.breaking then
        ctx:report(("an expand migration must not break what runs: this statement %s"):format(statement.breaking),
          { at = statement, fix = fix })
      end
    end
  end,
}

M[#M + 1] = {
  id = "compatibility", group = "phase", severity = "error", gate = true,
  title = "phase and compatibility say the same, and the statements agree",
  explain = text_util.trim [[
`compatibility` decides whether a run needs `--allow-breaking`. An expand migration that calls itself
contract-breaking contradicts itself: expand is what breaks nothing. A contract migration that calls itself
backward compatible, and drops or renames what a release may still name, would slip past that question.]],
  fix = "make `phase` and `compatibility` say what the statements do",
  seeds = {
    "ADR-0068: `compatibility`: `BackwardCompatible` or `ContractBreaking`,",
    "ADR-0068: Contract-breaking migrations are blocked unless explicitly opted in.",
  },
  examples = {
    bad = CONTRACT_GOOD:gsub("compatibility: contract_breaking", "compatibility: backward_compatible"),
    good = CONTRACT_GOOD,
  },
  applies = going_up,
  check = function(ctx)
    local migration = ctx.migration
    if migration.phase ~= "contract" then
      if migration.compatibility == "contract_breaking" then
        ctx:report("an expand migration can't be contract_breaking",
          { at = head.at(migration, "compatibility"), fix = "say `phase: contract`, or `compatibility: "
            .. "backward_compatible` and take the breaking statements out" })
      end
      return
    end
    if migration.compatibility ~= "backward_compatible" then
      return
    end
    for _, statement in ipairs(ctx.statements) do
      if statement.breaking then
        ctx:report(("the migration says it is backward compatible, and this statement %s"):format(
          statement.breaking), { at = statement, fix = "say `compatibility: contract_breaking`" })
      end
    end
  end,
}

return M
