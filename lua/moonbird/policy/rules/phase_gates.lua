--- Expand and contract, the part that depends on the run and on the target: what may be applied here and now.
local head = require "moonbird.policy.head"
local text_util = require "moonbird.util.text"

local M = {}

local function going_up(ctx)
  return ctx.direction ~= "down"
end

local function allowed(ctx, what)
  local run = ctx.run
  return run ~= nil and run.allow ~= nil and run.allow[what] == true
end

local COMMAND_BAD = "moonbird deploy"

M[1] = {
  id = "contract-allowed", group = "phase", severity = "error", hard = true, gate = true, moments = { "before" },
  title = "a contract migration runs only when the run allows it",
  explain = text_util.trim [[
A contract migration takes away what an older release still uses. While a rollout is under way both releases
run, and the older one fails at its next statement. So `up` and `deploy` apply expand migrations only and hold
contract ones back; this rule is the last chance to stop one that came through.

When no release that needs the old shape runs any more: `moonbird deploy --allow-contract`, or
`policy = { allow_contract = true }` in an environment where that is always so.]],
  fix = "when no release needs the old shape any more, run it with `--allow-contract`",
  seeds = {
    "ADR-0068: CI and default deploy paths run **expand** migrations only.",
    "ADR-0068: Contract cleanup becomes an explicit operational decision.",
    "Migration Playbook: Prefer **additive-first** changes; do destructive changes only when explicitly intended.",
  },
  examples = { run = true, bad = COMMAND_BAD, good = "moonbird deploy --allow-contract" },
  applies = function(ctx)
    return going_up(ctx) and ctx.migration.phase == "contract"
  end,
  check = function(ctx)
    if not allowed(ctx, "contract") then
      ctx:report(("%s is a contract migration, and this run was not given `--allow-contract`"):format(
        ctx.migration.id), { at = head.at(ctx.migration, "phase") })
    end
  end,
}

M[2] = {
  id = "breaking-allowed", group = "phase", severity = "error", hard = true, gate = true, moments = { "before" },
  title = "a contract-breaking migration runs only when the run allows it besides",
  explain = text_util.trim [[
A contract migration can be compatible: it drops what nobody reads. One that says
`compatibility: contract_breaking` stops every release that still knows the old shape, at once. Allowing contract
migrations is not enough for it: somebody has to have looked at what still runs.

`moonbird deploy --allow-contract --allow-breaking`, or `policy = { allow_breaking = true }`.]],
  fix = "when every running release knows the new shape, run it with `--allow-breaking` as well",
  seeds = { "ADR-0068: Contract-breaking migrations are blocked unless explicitly opted in." },
  examples = { run = true, bad = "moonbird deploy --allow-contract",
    good = "moonbird deploy --allow-contract --allow-breaking" },
  applies = function(ctx)
    return going_up(ctx) and ctx.migration.compatibility == "contract_breaking"
  end,
  check = function(ctx)
    if not allowed(ctx, "breaking") then
      ctx:report(("%s is contract-breaking, and this run was not given `--allow-breaking`"):format(
        ctx.migration.id), { at = head.at(ctx.migration, "compatibility", "phase") })
    end
  end,
}

local function shown(ctx, version)
  local known = ctx.registry.by_version[version]
  return known and known.id or tostring(version)
end

local function percent(share)
  return type(share) == "number" and (", %d%% done"):format(math.floor(share * 100)) or ""
end

local function phase_of(ctx, version, row)
  local known = ctx.registry.by_version[version]
  return row.phase or known and known.phase
end

--- Of a contract migration that names nothing: one expand migration must have been applied here.
local function check_unnamed(ctx, target)
  for version, row in pairs(ctx.history.applied or {}) do
    if version ~= ctx.migration.version and phase_of(ctx, version, row) == "expand" then
      return
    end
  end
  ctx:report(("%s is a contract migration, and no expand migration was applied on %s before it"):format(
    ctx.migration.id, target), { at = head.at(ctx.migration, "phase"),
    fix = "apply the expand migrations there first, and name them: `completes: VERSION`" })
end

M[3] = {
  id = "contract-history", group = "phase", severity = "error", hard = true, gate = true, moments = { "before" },
  needs = { "history" },
  title = "a contract migration runs where its expand migrations were applied, and their backfills are done",
  explain = text_util.trim [[
A contract migration ends what an expand one began: the new column is there, the rows are copied, the readers
have moved. On a target that was left out of the expand step (a tenant that was skipped, a restored database) it
would drop the only copy. So each version in `completes` must stand in the history of this very target, and
its backfill, where it has one, must be finished there. A contract migration that names nothing needs at least one
expand migration in the target's history.

Apply the expand migrations on that target, let the backfill end, then run the contract migration again.]],
  fix = "apply what it completes on this target first (`moonbird up`), then run it again",
  seeds = { "ADR-0068: Contract migrations require prior expand history on the same migration target." },
  examples = { run = true,
    bad = "moonbird deploy --allow-contract    # on a target without the expand migration",
    good = "moonbird deploy && moonbird deploy --allow-contract" },
  applies = function(ctx)
    return going_up(ctx) and ctx.migration.phase == "contract"
  end,
  check = function(ctx)
    local history, at = ctx.history, head.at(ctx.migration, "completes", "phase")
    local target = ("target \"%s\""):format(history.target or "global")
    if not ctx.migration.completes or #ctx.migration.completes == 0 then
      return check_unnamed(ctx, target)
    end
    for _, version in ipairs(ctx.migration.completes) do
      local backfill = history.backfills and history.backfills[version]
      if backfill and not backfill.done then -- asked first: until it has ended it is not applied either
        ctx:report(("%s completes %s, whose backfill is not finished on %s%s"):format(ctx.migration.id,
          shown(ctx, version), target, percent(backfill.share)), { at = at,
          fix = "let the backfill end there, then run it again" })
      elseif not (history.applied and history.applied[version]) then
        ctx:report(("%s completes %s, which is not applied on %s"):format(ctx.migration.id, shown(ctx, version),
          target), { at = at })
      end
    end
  end,
}

return M
