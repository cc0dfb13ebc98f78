--- plan where there are tenants: the stages, what each has on how many tenants, and its waves.
local context_of = require "moonbird.exec.tenants.context"
local error_ = require "moonbird.core.error"
local json = require "moonbird.core.json"
local number = require "moonbird.report.overview".number
local overview_of = require "moonbird.exec.tenants.overview"
local plan = require "moonbird.plan.plan"
local project = require "moonbird.cli.project"
local run_of = require "moonbird.exec.tenants.run"
local style = require "moonbird.report.style"
local tenants = require "moonbird.cli.tenants.common"
local text = require "moonbird.util.text"
local up = require "moonbird.cli.command.up"

local M = {}

local NAMED = 5 -- tenants and migrations named of each group; the rest is counted

local function names_of(list, of)
  local names = {}
  for i = 1, math.min(#list, NAMED) do
    names[i] = of(list[i])
  end
  return table.concat(names, ", ") .. (#list > NAMED and (" and %s more"):format(number(#list - NAMED)) or "")
end

local function migration_data(migration, transactional)
  return { version = migration.version, id = migration.id, file = migration.file, phase = migration.phase,
    scope = migration.scope, compatibility = migration.compatibility, transactional = transactional,
    description = migration.description, reversible = migration.down ~= nil }
end

local function print_migrations(report, steps)
  local rows, out = {}, report.out
  for i, step in ipairs(steps) do
    local migration = step.migration
    rows[i] = { "  " .. out.bold(migration.id), migration.phase,
      step.transactional and "transaction" or out.yellow("no transaction"),
      migration.down and "" or out.yellow("no down"), out.dim(migration.description or "") }
  end
  report:write(style.columns(rows))
end

local function show_global(report, index, item, target)
  local steps = plan.steps(item.migrations, "up", target.name, target.head)
  local list = json.array {}
  for i, step in ipairs(steps) do
    list[i] = migration_data(step.migration, step.transactional)
  end
  report:write(("stage %d: the global target\n"):format(index))
  print_migrations(report, steps)
  return { scope = "global", migrations = list }
end

local function name(tenant)
  return tenant.name
end

local function show_groups(report, item)
  local list = json.array {}
  for i, group in ipairs(overview_of.groups(item.stage, item.out.behind)) do
    local ids = json.array {}
    for j, step in ipairs(group.steps) do
      ids[j] = step.migration.id
    end
    report:write(("  %s lack %s: %s\n"):format(number(#group.tenants), #ids == #item.stage.steps and #ids > 1
      and ("all %d"):format(#ids) or names_of(ids, tostring), names_of(group.tenants, name)))
    list[i] = { migrations = ids, tenants = #group.tenants }
  end
  return list
end

local function show_waves(report, item)
  local list, parts = json.array {}, {}
  for i, wave in ipairs(item.waves) do
    local names = json.array {}
    for j = 1, wave.canary and math.min(#wave.tenants, NAMED) or 0 do
      names[j] = wave.tenants[j].name
    end
    list[i] = { name = wave.name, count = #wave.tenants, canary = wave.canary, tenants = names }
    parts[i] = ("%s: %s%s"):format(wave.name, number(#wave.tenants), wave.canary
      and (" (%s)"):format(names_of(wave.tenants, name)) or "")
  end
  if #parts > 1 then
    report:write("  waves: " .. table.concat(parts, "; ") .. "\n")
  end
  return list
end

local function show_tenants(report, index, item)
  local list, out = json.array {}, item.out
  for i, step in ipairs(item.stage.steps) do
    list[i] = migration_data(step.migration, step.transactional)
  end
  report:write(("stage %d: %s\n"):format(index, text.count(#out.behind, "tenant")))
  print_migrations(report, item.stage.steps)
  local result = { scope = "tenant", migrations = list, tenants = #out.behind, current = out.current,
    groups = show_groups(report, item), waves = show_waves(report, item) }
  for _, key in ipairs { "pinned", "ahead", "late" } do
    result[key] = #out[key]
    if #out[key] > 0 then
      report:write(("  %s %s, left alone: %s\n"):format(number(#out[key]), key, names_of(out[key], name)))
    end
  end
  return result
end

local function show(report, context, stages, target)
  local list, lost = json.array {}, 0
  for i, item in ipairs(stages) do
    list[i] = item.scope == "global" and show_global(report, i, item, target) or show_tenants(report, i, item)
  end
  for _, tenant in ipairs(context.survey.tenants) do
    lost = lost + (tenant.unreachable and 1 or 0)
  end
  if lost > 0 then
    report:write(("%s can't be asked; `moonbird tenant status` tells why\n"):format(text.count(lost, "tenant")))
  end
  for _, item in ipairs(context.held) do
    report:write(("held back: %s (%s); %s applies it\n"):format(item.migration.id, item.reason, item.flags))
  end
  if #stages == 0 then
    report:write(#context.held > 0 and "nothing else to do\n" or "nothing to do: everything is up to date\n")
  end
  return { target = target.name, head = target.head, stages = list, unreachable = lost, held = up.held_data(target) }
end

--- Shows what `up` would do. Changes nothing.
---@param args table
---@param report moonbird.reporter
---@param conf moonbird.config
---@param settings moonbird.tenants.settings
---@return table|nil
---@return moonbird.error? err
function M.run(args, report, conf, settings)
  if args.steps then
    return nil, error_.new("usage", "--steps has no place where there are tenants", { hint = "use --to VERSION" })
  end
  local options, err = tenants.rollout(args)
  if not options then
    return nil, err
  end
  options.allow, options.allow_out_of_order = tenants.allow(conf, args), args.allow_out_of_order
  options.every_state = true
  return project.with_target(args, report, { config = conf, files = true }, function(run, target, entries)
    local context = context_of.new(run, target, entries, options)
    local closing <close> = context_of.closing(context) -- luacheck: ignore
    local stages, failure = run_of.plan(context, settings)
    if not stages then
      return nil, failure
    end
    return show(report, context, stages, target)
  end)
end

return M
