--- Which tenants a stage is for: who is behind, pinned, ahead of these files, or late.
local error_ = require "moonbird.core.error"
local one = require "moonbird.exec.tenants.one"

local M = {}

--- The newest version that these files know. What is beyond is of a newer release: an older one keeps its hands off.
local function newest_of(entries)
  return entries[#entries] and entries[#entries].version or -1
end

--- What stops a tenant before anything is done to it: a newer release, its pin, migrations that come late.
local function judge(tenant, stage, newest, options)
  local highest = -1
  for version in pairs(tenant.state.applied) do
    highest = math.max(highest, version)
  end
  local steps, pin = one.lacking(stage, tenant)
  local refusal = one.refusal(stage, tenant.state)
  if refusal then
    return "late", refusal
  elseif highest > newest then
    return "ahead", highest
  elseif #steps == 0 then
    return pin and "pinned" or "current", pin
  end
  for _, step in ipairs(steps) do
    local migration = step.migration
    -- Contracts and backfills are held back on purpose while newer ones go on.
    local excused = migration.phase == "contract" or migration.backfill
    if migration.version < highest and not excused and not options.allow_out_of_order then
      return "late", error_.new("out_of_order", ("%s is pending, but %d is applied already"):format(migration.id,
        highest), { migration = migration.id, target = tenant.name,
        hint = "give it a newer version, or run with --allow-out-of-order" })
    end
  end
  return "behind"
end

--- Sorts tenants by what is to be done with them in a stage; asks once for each different history.
---@param context moonbird.tenants.context
---@param stage moonbird.tenants.stage
---@return table out lists behind, pinned, ahead, late; the number of current ones
function M.sort_out(context, stage)
  local survey, newest, options = context.survey, newest_of(context.own), context.options
  local verdicts = {}
  local out = { behind = {}, pinned = {}, ahead = {}, late = {}, current = 0 }
  for _, tenant in ipairs(survey.tenants) do
    local state = tenant.state
    if tenant.failed then -- in an earlier stage: it is not jumped ahead
      out.failed = (out.failed or 0) + 1
    elseif not state then
      table.insert(out.behind, tenant)
    else
      local plain = #state.open == 0 and state.hash
      local verdict = plain and verdicts[plain]
      if not verdict then
        verdict = { judge(tenant, stage, newest, options) }
        if plain then
          verdicts[plain] = verdict
        end
      end
      if verdict[1] == "current" then
        out.current = out.current + 1
      else
        tenant.why = verdict[2]
        table.insert(out[verdict[1]], tenant)
      end
    end
  end
  return out
end

--- Sorts the tenants for a stage and notes in the context those that are not run. Where somebody is, states that are
--- known in part are read whole.
---@param context moonbird.tenants.context
---@param stage moonbird.tenants.stage
---@return table? out of M.sort_out
---@return moonbird.error? err
function M.look_over(context, stage)
  local survey = context.survey
  local out = M.sort_out(context, stage)
  if #out.behind + #out.late > 0 and survey.partial then
    local ok, err = survey:read_states() -- now it matters where each one's chain ends
    if not ok then
      return nil, err
    end
    out = M.sort_out(context, stage)
  end
  context.pinned, context.ahead = out.pinned, out.ahead
  for _, tenant in ipairs(out.late) do
    tenant.failed, context.failed[tenant.name] = true, true
    context.failures[#context.failures + 1] = { tenant = tenant, err = tenant.why }
  end
  return out
end

return M
