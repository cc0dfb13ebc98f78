--- After a deployment: everything is read again, and every chosen tenant has to be at the newest version, or be one
--- that is known not to be (pinned, ahead of these files).
local context_of = require "moonbird.exec.tenants.context"
local error_ = require "moonbird.core.error"
local global_ = require "moonbird.exec.tenants.global"
local one = require "moonbird.exec.tenants.one"
local pending = require "moonbird.exec.tenants.pending"
local stage_of = require "moonbird.exec.tenants.stage"
local text = require "moonbird.util.text"
local verdicts = require "moonbird.exec.tenants.verdicts"

local M = {}

local NAMED = 20 -- tenants that are told; the others are counted

--- What a tenant is short of, in words; nil when it is where it has to be.
local function wanting(tenant, stage)
  if tenant.unreachable then
    return ("%s can't be asked: %s"):format(tenant.name, tenant.unreachable.message)
  elseif not tenant.state then
    return tenant.name .. " can't be asked"
  end
  local ids = {}
  for _, step in ipairs(one.lacking(stage, tenant)) do
    ids[#ids + 1] = step.migration.id
  end
  return ("%s lacks %s"):format(tenant.name, table.concat(ids, ", "))
end

--- Reads where everybody stands now, after a run.
---@param context moonbird.tenants.context of the run
---@param settings moonbird.tenants.settings
---@return table? status tenants, at_head, pinned, ahead (counts)
---@return moonbird.error? err code "pending": somebody is not where the files want them
---@return boolean? made only tenants lack something that were made meanwhile: those not in context.known
function M.check(context, settings)
  local options = setmetatable({ every_state = "quick" }, { __index = context.options })
  local fresh = context_of.new(context.run, context.target, context.entries, options)
  local closing <close> = context_of.closing(fresh) -- luacheck: ignore
  local err = global_.revive(context.target)
  local ok = not err
  if ok then
    ok, err = context.target:refresh()
  end
  if not ok then
    return nil, err
  end
  local global, own = pending.look(fresh, settings)
  if not global then
    return nil, own
  end
  local problems, made = {}, true
  for _, migration in ipairs(context.some and {} or global) do
    problems[#problems + 1] = { file = migration.file, message = migration.id .. " is still pending" }
    made = false
  end
  local stage = stage_of.make(fresh, own, "up")
  local out = verdicts.sort_out(fresh, stage)
  local count = 0
  for _, tenant in ipairs(out.behind) do
    count, made = count + 1, made and not context.known[tenant.name]
    problems[#problems + 1] = count <= NAMED and { message = wanting(tenant, stage) } or nil
  end
  for _, tenant in ipairs(out.late) do
    count, made = count + 1, false
    problems[#problems + 1] = count <= NAMED and { message = ("%s: %s"):format(tenant.name, tenant.why.message) } or nil
  end
  if count > NAMED then
    problems[#problems + 1] = { message = ("and %s more"):format(text.count(count - NAMED, "tenant")) }
  end
  local status = { tenants = #fresh.survey.tenants, at_head = out.current, pinned = #out.pinned, ahead = #out.ahead,
    behind = count }
  if #problems > 0 then
    return status, error_.new("pending", "not everything is where the files want it", { problems = problems,
      hint = "another runner at work, or tenants made meanwhile? `moonbird tenant status` tells; the same command "
        .. "goes on" }), made
  end
  return status
end

return M
