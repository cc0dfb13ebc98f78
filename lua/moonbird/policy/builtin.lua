--- The rules that come with moonbird, in the order they are listed.
local M = {}

-- One module per group in policy/rules/, each a list of rules.
local GROUPS = { "registry", "immutability", "phase", "reversibility", "shape", "documentation", "security",
  "tenancy", "run_order", "waiver" }

local loaded

--- All built-in rules.
---@return moonbird.policy.rule[]
function M.rules()
  if not loaded then
    loaded = {}
    for _, group in ipairs(GROUPS) do
      for _, rule in ipairs(require("moonbird.policy.rules." .. group)) do
        loaded[#loaded + 1] = rule
      end
    end
  end
  return loaded
end

return M
