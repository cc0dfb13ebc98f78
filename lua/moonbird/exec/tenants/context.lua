--- What a run over tenants keeps: what it is to do, what was done, who failed; and what that comes to.
local error_ = require "moonbird.core.error"
local text = require "moonbird.util.text"

local M = {}

---@class moonbird.tenants.options
---@field to? integer
---@field steps? integer at most so many versions
---@field allow table contract, breaking
---@field allow_out_of_order? boolean
---@field tenant? string[]
---@field exclude? string[]
---@field shard? string
---@field jobs? integer
---@field canary? table[] shares
---@field max_failures? { count?: integer, percent?: number }
---@field keep_going? boolean
---@field deploy? boolean the defaults of `deploy`
---@field backfills? "inline"|"skip"|"only"|fun(migration: table): boolean which are run, as plan.held takes it
---@field report moonbird.report.tenants
---@field gate? moonbird.gate
---@field every_state? true|"quick" read the states of all tenants first, also of those in databases of their own
---@field fleet? fun(context: table, stages: moonbird.stage[]): moonbird.error? does it with other processes

---@class moonbird.tenants.context
---@field run moonbird.run
---@field target moonbird.target the global one
---@field entries table[] the registry
---@field options moonbird.tenants.options
---@field report moonbird.report.tenants
---@field some boolean only some tenants are meant, and so the global target is not
---@field survey? moonbird.tenants.survey of the last look; to be closed
---@field global? table[] the entries that are global, of the last look
---@field own? table[] those of tenants
---@field done table[] what apply.run did on the global target
---@field failures { tenant: moonbird.tenant, err: moonbird.error }[]
---@field failed table<string, boolean> by the name of the tenant
---@field migrated table<string, boolean> tenants that some stage finished
---@field left moonbird.tenant[] not begun when the run ended
---@field global_left? boolean something global was not begun when the run ended
---@field status? table of verify.check, after a deployment
---@field known? table<string, boolean> names of tenants that were there to be migrated; others were made meanwhile
---@field finished integer tenants that had something to do and have done it
---@field current integer tenants that had nothing to do
---@field pinned moonbird.tenant[]
---@field ahead moonbird.tenant[]
---@field held table[] of plan.hold_back
---@field halted? string why the run ended before all had their turn

--- What a run keeps.
---@param run moonbird.run
---@param target moonbird.target the global one
---@param entries table[] the registry
---@param options moonbird.tenants.options
---@return moonbird.tenants.context
function M.new(run, target, entries, options)
  return { run = run, target = target, entries = entries, options = options, report = options.report,
    some = #(options.tenant or {}) > 0 or #(options.exclude or {}) > 0,
    done = {}, failures = {}, left = {}, finished = 0, current = 0, pinned = {}, ahead = {}, held = {},
    migrated = {}, failed = {} }
end

--- Closes the survey of a context where the caller's block ends: `local closing <close> = context_of.closing(context)`.
---@param context moonbird.tenants.context
---@return table
function M.closing(context)
  return setmetatable({}, { __close = function()
    if context.survey then
      context.survey:close()
    end
  end })
end

--- Counts the tenants that had nothing to do: those that nothing else is told of.
---@param context moonbird.tenants.context
function M.count_current(context)
  local others = context.finished + #context.pinned + #context.ahead
  for name in pairs(context.failed) do
    others = others + (context.migrated[name] and 0 or 1)
  end
  for _, tenant in ipairs(context.left) do
    others = others + (context.migrated[tenant.name] and 0 or 1)
  end
  context.current = math.max(0, #context.survey.tenants - others)
end

--- The error of a run whose tenants failed; nil when none did.
---@param context moonbird.tenants.context
---@return moonbird.error?
function M.failure(context)
  local failed, left = #context.failures, #context.left
  if failed == 0 and left == 0 then
    if #context.ahead > 0 then
      return error_.new("ahead", ("%s at a newer version than these files know: %s"):format(
        text.count(#context.ahead, "tenant is", "tenants are"), context.ahead[1].name), {
        hint = "a newer release has been here; deploy that one, or a newer" })
    end
    return nil
  end
  local total = #context.survey.tenants
  local halted = context.halted and (context.halted:find("^at ") and "stopped " or "stopped: ") .. context.halted
  return error_.new("tenants", ("%d of %s failed%s"):format(failed, text.count(total, "tenant"),
    left > 0 and (", %d not run"):format(left) or ""), { detail = halted })
end

return M
