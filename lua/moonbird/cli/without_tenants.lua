--- A project without tenants: options that are about tenants are refused, not ignored. Who says `--tenant acme` and is
-- not understood would migrate everything.
local error_ = require "moonbird.core.error"

local M = {}

-- What has no meaning without tenants. `--fleet` is refused where a fleet is joined, `--control` has a meaning for
-- `run list`.
local OPTIONS = { "tenant", "exclude", "all_tenants", "canary", "jobs", "max_failures", "keep_going", "shard", "all" }

local function given(value)
  return value and not (type(value) == "table" and #value == 0)
end

--- That there are no tenants, and how to have some.
---@param option? string that asked for them
---@return moonbird.error
function M.error(option)
  return error_.new("usage", (option and option .. ": " or "")
    .. "there are no tenants: moonbird.lua does not say where they come from",
    { hint = "write tenants = tenants.schemas{ like = \"tenant_%\" } there" })
end

--- The error for an option that is about tenants where there are none.
---@param conf moonbird.config
---@param args table
---@return moonbird.error? err
function M.refusal(conf, args)
  if conf.tenants ~= nil then
    return nil
  end
  for _, key in ipairs(OPTIONS) do
    if given(args[key]) then
      return M.error("--" .. key:gsub("_", "-"))
    end
  end
end

return M
