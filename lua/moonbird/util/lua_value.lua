--- A value as Lua writes it: for options, shown as they would stand in moonbird.lua.
local M = {}

--- Strings, numbers, booleans, and lists of these.
---@param value any
---@return string
function M.text(value)
  if type(value) == "string" then
    return ("%q"):format(value)
  elseif type(value) ~= "table" then
    return tostring(value)
  end
  local parts = {}
  for i, item in ipairs(value) do
    parts[i] = M.text(item)
  end
  return #parts == 0 and "{}" or "{ " .. table.concat(parts, ", ") .. " }"
end

return M
