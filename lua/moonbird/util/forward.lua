--- Objects that stand in front of another one: what they don't have themselves is the other's.
local M = {}

--- An __index that looks among the methods, then in the object that a field holds. Methods of that one are called on
--- it, not on who stands in front.
---@param methods table
---@param field string
---@return fun(self: table, key: any): any
function M.to(methods, field)
  return function(self, key)
    local own = methods[key]
    if own ~= nil then
      return own
    end
    local behind = rawget(self, field)
    local value = behind[key]
    if type(value) ~= "function" then
      return value
    end
    return function(_, ...)
      return value(behind, ...)
    end
  end
end

return M
