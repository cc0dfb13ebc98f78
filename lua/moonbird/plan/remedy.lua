--- Commands that messages tell people to type: whole, so that they can be typed as they stand. Pure.
local M = {}

--- A word as a shell takes it.
---@param word string
---@return string
function M.quoted(word)
  return word:find("[^%w_.,:/=@%%+-]") and "'" .. word:gsub("'", "'\\''") .. "'" or word
end

--- The command that settles a version.
---@param version string its digits, as the file has them
---@param how string "--accept", "--mark applied"
---@param target? string whose it is; nil or "global": the global target
---@return string in backquotes
function M.repair(version, how, target)
  local tenant = target and target ~= "global" and " --tenant " .. M.quoted(target) or ""
  return ("`moonbird repair %s %s%s --reason \"...\"`"):format(version, how, tenant)
end

--- The same for what is half done: a person has to look whether it is there.
---@param version string
---@param target? string
---@return string
function M.mark(version, target)
  return M.repair(version, "--mark applied", target) .. " or `--mark reverted`"
end

return M
