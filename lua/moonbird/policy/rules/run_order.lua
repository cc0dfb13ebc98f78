--- One path to production: what may be run where, and by whom.
local text_util = require "moonbird.util.text"

local DOWN = { down = true, redo = true }

local function protected_of(ctx)
  return ctx.environment and ctx.environment.protected or nil
end

local function emergency(ctx)
  local reason = ctx.run and ctx.run.emergency
  return type(reason) == "string" and reason:find("%S") ~= nil
end

local function shown(ctx)
  local name = ctx.environment.name
  return name and ("the environment \"%s\""):format(name) or "this environment"
end

local function command_of(ctx)
  return ctx.run and ctx.run.command or "up"
end

local function applies(ctx)
  return protected_of(ctx) ~= nil and not emergency(ctx)
end

local function any(commands, wanted)
  for _, command in ipairs(commands) do
    if command == wanted then
      return true
    end
  end
  return false
end

local function listed(commands)
  local list = {}
  for i, command in ipairs(commands) do
    list[i] = ("`moonbird %s`"):format(command)
  end
  return table.concat(list, " or ")
end

return {
  {
    id = "protected-run", group = "run_order", severity = "error", hard = true, gate = true, per = "registry",
    moments = { "before" },
    title = "a protected environment is migrated by the pipeline, with the command it is protected by",
    explain = text_util.trim [[
Two paths to production are one too many: the one that is not the pipeline has no review, no pinned image, no
diagnostics, and meets the pipeline's own run half-way. An environment with `protected = true` (or
`protected = { variable = "CI", commands = { "deploy" } }`) refuses `up`, `down`, `redo`, `drop`, `baseline`, `repair`
and scripts (`run FILE`) by hand: the command must be one of its commands, and the variable must say that this is the
pipeline. Start it there: the
application's own start is no place for migrations either.

When the pipeline itself is what is broken: `--emergency "reason"`, which the journal keeps.]],
    fix = "let the pipeline run it",
    seeds = {
      "Migration Playbook: **One production path:** migrations run **only** in the pipeline migration job — **never** "
        .. "at API startup.",
      "ADR-002: **Forbids Manual DDL**: No direct database changes allowed; all changes must go through Alembic "
        .. "migrations",
      "ADR-0068: `npm run migrate:deploy` is invoked in deployment workflow before rollout.",
    },
    examples = { run = true, bad = "moonbird -e production up", good = "CI=true moonbird -e production deploy" },
    applies = applies,
    check = function(ctx)
      local protected, command = protected_of(ctx), command_of(ctx)
      local variable = protected.variable or "CI"
      local commands = protected.commands or { "deploy" }
      local refused = not DOWN[command] and not any(commands, command)
      local no_proof = not (ctx.run and ctx.run.ci)
      local why = {}
      if refused then
        why[1] = ("`moonbird %s` is refused there, use %s"):format(command, listed(commands))
      end
      if no_proof then
        why[#why + 1] = ("only the pipeline migrates it, and the variable %s that proves it is not set")
          :format(variable)
      end
      if #why > 0 then
        ctx:report(("%s is protected: %s"):format(shown(ctx), table.concat(why, "; ")),
          { fix = ("let the pipeline run %s, or say `--emergency \"reason\"`"):format(listed(commands)) })
      end
    end,
  },
  {
    id = "protected-down", group = "run_order", severity = "error", hard = true, gate = true, per = "registry",
    moments = { "before" },
    title = "a protected environment goes forward: no down, no redo",
    explain = text_util.trim [[
In production a down loses what was written since: the column's values, the rows of the table. So the way back from a
bad release is to restore the backup and deploy the release before, or to go forward with a new migration that
mends it. `down` and `redo` are for development, and for `moonbird ci`, which proves that they work.

When it is the lesser evil all the same: `moonbird down --emergency "reason"`. The reason is kept in the journal.]],
    fix = "mend it with a new migration, or restore the database and deploy the release before",
    seeds = {
      "Migration Playbook: **Forward‑first:** production rollback is **restore + redeploy**, not routine `down` "
        .. "migrations.",
      "Migration Playbook: Fix forward with a **new** migration, or restore DB + redeploy if required.",
    },
    examples = { run = true, bad = "moonbird -e production down",
      good = "moonbird -e production down --emergency \"release 2.4 loses orders, agreed with the lead\"" },
    applies = applies,
    check = function(ctx)
      local command = command_of(ctx)
      if DOWN[command] or ctx.direction == "down" then
        ctx:report(("%s is protected and goes forward: `moonbird %s` is refused there without `--emergency "
          .. "\"reason\"`"):format(shown(ctx), command))
      end
    end,
  },
}
