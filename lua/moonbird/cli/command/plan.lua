--- moonbird plan
local apply = require "moonbird.exec.apply"
local glance = require "moonbird.cli.backfills.glance"
local json = require "moonbird.core.json"
local plan = require "moonbird.plan.plan"
local project = require "moonbird.cli.project"
local style = require "moonbird.report.style"
local tenants = require "moonbird.cli.tenants.common"
local text = require "moonbird.util.text"
local up = require "moonbird.cli.command.up"

local M = {}

local function statements(body)
  if body.kind == "function" then
    return nil
  end
  local count = 0
  for _, block in ipairs(body.blocks) do
    count = count + #block.statements
  end
  return count
end

--- Shows what `up` would do. Changes nothing.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  local conf, settings, err = tenants.configured(args)
  if err then
    return nil, err
  elseif settings then
    return require("moonbird.cli.tenants.plan").run(args, report, conf, settings)
  end
  local allow = tenants.allow(conf, args)
  return project.with_target(args, report, { config = conf, files = true }, function(_, target, entries)
    local steps, failure, comparison = apply.plan_up(target, entries, { to = args.to, steps = args.steps,
      allow_out_of_order = args.allow_out_of_order, allow = allow })
    if not steps then
      return nil, failure
    end
    target.held = comparison.held
    local list, rows, out = json.array {}, {}, report.out
    local backfills = glance.open(target)
    for i, step in ipairs(steps) do
      local migration = step.migration
      local count, begun = statements(step.body), backfills[migration.version]
      local fill = migration.backfill and ("backfill of %s%s"):format(migration.backfill.table,
        begun and " (" .. glance.words(begun) .. ")" or "")
      list[i] = { version = migration.version, id = migration.id, file = migration.file,
        phase = migration.phase, scope = migration.scope, compatibility = migration.compatibility,
        transactional = step.transactional, statements = count, description = migration.description,
        reversible = migration.down ~= nil,
        backfill = fill and { table = migration.backfill.table, begun = begun and glance.data(begun) } }
      rows[i] = { ("%d."):format(i), out.bold(migration.id), migration.phase,
        step.transactional and "transaction" or out.yellow("no transaction"),
        fill or count and text.count(count, "statement") or "Lua", migration.down and "" or out.yellow("no down"),
        out.dim(migration.description or "") }
    end
    for _, item in ipairs(target.held) do
      rows[#rows + 1] = { "-", out.dim(item.migration.id), item.migration.phase, out.yellow("held back"), "", "",
        out.dim(("(%s) %s applies it"):format(item.reason, item.flags)) }
    end
    report:write(style.columns(rows))
    local _, hash = plan.steps({}, "up", target.name, target.head)
    hash = steps[1] and steps[1].plan or hash
    report:write(#steps == 0 and (#target.held > 0 and "nothing else to do\n"
      or #entries == 0 and ("nothing to do: %s\n"):format(project.NO_MIGRATIONS)
      or "nothing to do: the database is up to date\n")
      or ("%s to apply on %s (plan %s)\n"):format(text.count(#steps, "migration"), target.name, hash:sub(1, 12)))
    return { target = target.name, head = target.head, plan = hash, steps = list,
      held = up.held_data(target) }
  end)
end

return M
