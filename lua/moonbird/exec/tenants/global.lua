--- The global target's part of a run over tenants: its stages, and when they may begin.
local apply = require "moonbird.exec.apply"
local error_ = require "moonbird.core.error"
local registry = require "moonbird.migration.registry"

local M = {}

--- Which failures hold up what is global behind them: all but those of migrations with barrier = false.
---@param migrations table[] of tenants
---@return fun(id: string|nil): boolean tells of the migration that failed; nil is none of them
function M.barrier(migrations)
  local open = {}
  for _, migration in ipairs(migrations) do
    open[migration.id] = migration.barrier == false
  end
  return function(id)
    return not open[id or ""]
  end
end

--- Whether what is left and failed so far holds up what is global.
---@param context moonbird.tenants.context
---@param migrations table[] of tenants
---@return boolean
function M.held_up(context, migrations)
  if #context.left > 0 then
    return true
  end
  local closes = M.barrier(migrations)
  for _, failure in ipairs(context.failures) do
    if closes(failure.err.migration) then
      return true
    end
  end
  return false
end

--- The error of a run for some tenants, which a global migration stands in the way of.
---@param migration table
---@return moonbird.error code "pending"
function M.barred(migration)
  return error_.new("pending", ("%s is global and not applied: tenants wait for it"):format(migration.id),
    { migration = migration.id, hint = "run `moonbird up` without --tenant and --exclude first" })
end

--- Connects again where the session is gone: it served as a slot meanwhile.
---@param target moonbird.target the global one
---@return moonbird.error? err
function M.revive(target)
  if not target.session.doomed and target.session:state() ~= "closed" then
    return nil
  end
  local ok, err = target:reconnect()
  if ok then
    ok, err = target:refresh()
  end
  return not ok and err or nil
end

--- Runs a global stage.
---@param context moonbird.tenants.context
---@param migrations table[]
---@return moonbird.error? err
function M.run(context, migrations)
  local only = {}
  for _, migration in ipairs(migrations) do
    only[migration.version] = true
  end
  local options = context.options
  local done, err, so_far = apply.run(context.target, context.global, "up", { only = only, allow = options.allow,
    allow_out_of_order = options.allow_out_of_order, backfills = options.backfills })
  for _, item in ipairs(done or so_far) do
    context.done[#context.done + 1] = item
  end
  return err
end

--- In a new environment a source may be made by a migration (the table that tenants.query reads): applies the
--- pending global ones that come before every tenant migration. Another runner may have done it meanwhile.
---@param context moonbird.tenants.context
---@return moonbird.error|nil err
function M.make_sources(context)
  local target, only = context.target, {}
  local ok, err = target:refresh()
  if not ok then
    return err
  end
  local global = {}
  for _, entry in ipairs(context.entries) do
    local row = target.state.applied[entry.version]
    local migration = not row and registry.load(entry)
    if migration and migration.scope == "tenant" then
      break
    end
    global[#global + 1] = entry
    only[entry.version] = migration and true or nil
  end
  local done, failed, so_far = apply.run(target, global, "up", { only = only, allow = context.options.allow,
    allow_out_of_order = context.options.allow_out_of_order })
  table.move(done or so_far, 1, #(done or so_far), #context.done + 1, context.done)
  return not done and failed or nil
end

return M
