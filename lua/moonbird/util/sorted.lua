--- What pairs() gives in no order, in order.
local M = {}

--- The keys of a table.
---@generic K
---@param set table<K, any>
---@return K[]
function M.keys(set)
  local keys = {}
  for key in pairs(set) do
    keys[#keys + 1] = key
  end
  table.sort(keys)
  return keys
end

return M
