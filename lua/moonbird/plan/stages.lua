--- The order of global and tenant migrations. Pure.
--
-- Versions are global: a global migration is applied before any tenant runs a later version, and a tenant's on
-- all tenants before a later global one. Only pending migrations make a border: a tenant that lacks several runs
-- through all of them that stand between two pending global ones.
local M = {}

---@class moonbird.stage
---@field scope "global"|"tenant"
---@field migrations table[] in order

--- Cuts migrations into stages.
---@param global table[] pending global ones, in order
---@param tenant table[] those that a tenant lacks, in order
---@return moonbird.stage[]
function M.make(global, tenant)
  local stages = {}
  local g, t = 1, 1
  while global[g] or tenant[t] do
    local first = not tenant[t] or (global[g] ~= nil and global[g].version < tenant[t].version)
    local scope = first and "global" or "tenant"
    local last = stages[#stages]
    if not last or last.scope ~= scope then
      last = { scope = scope, migrations = {} }
      stages[#stages + 1] = last
    end
    last.migrations[#last.migrations + 1] = first and global[g] or tenant[t]
    if first then
      g = g + 1
    else
      t = t + 1
    end
  end
  return stages
end

return M
