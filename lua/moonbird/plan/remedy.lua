--- Commands that messages tell people to type: whole, so that they can be typed as they stand. Pure.
local M = {}

--- A word as a shell takes it.
---@param word string
---@return string
function M.quoted(word)
  return word:find("[^%w_.,:/=@%%+-]") and "'" .. word:gsub("'", "'\\''") .. "'" or word
end

local function repair(version, how, where)
  return ("`moonbird repair %s %s%s --reason \"...\"`"):format(version, how, where)
end

--- The command that settles a version.
---@param version string its digits, as the file has them
---@param how string "--accept", "--mark applied"
---@param target? string whose it is; nil or "global": the global target
---@return string in backquotes
function M.repair(version, how, target)
  return repair(version, how, target and target ~= "global" and " --tenant " .. M.quoted(target) or "")
end

--- The same for what is half done: a person has to look whether it is there.
---@param version string
---@param target? string
---@return string
function M.mark(version, target)
  return M.repair(version, "--mark applied", target) .. " or `--mark reverted`"
end

--- How a changed file is accepted on the global target; `versions`: of the changed ones.
---@param versions string[]
---@return string
function M.accept(versions)
  local others = table.concat(versions, ", ", 2)
  return M.repair(versions[1], "--accept") .. (others ~= "" and ", likewise " .. others or "")
end

--- The same on tenants: those with the same history share the error, and passing over the others is harmless.
---@param version string
---@return string
function M.accept_tenants(version)
  return repair(version, "--accept", " --all-tenants") .. " (or --tenant NAME for one)"
end

return M
