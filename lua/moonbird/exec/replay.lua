--- What a unit of a Lua step without a transaction answered, kept in its progress row and given back when an
--- interrupted run is gone on with: the script must go the same way again.
--
-- Kept is what JSON holds exactly and 64 kB at most. Of anything larger only the fact is kept, and a rerun
-- that would need it stops and says so.
local json = require "moonbird.core.json"

local M = {}

local MOST_BYTES = 64 * 1024
local EXACT = 1 << 53

local function keepable(value)
  local kind = math.type(value) or type(value)
  if kind == "integer" then
    return value >= -EXACT and value <= EXACT
  elseif kind == "float" then
    return value == value and value ~= math.huge and value ~= -math.huge
  elseif kind == "string" then
    return utf8.len(value) ~= nil and not value:find("\0", 1, true)
  end
  return value == nil or kind == "boolean"
end

local function pack(values, count)
  local list = json.array {}
  for i = 1, count do
    if not keepable(values[i]) then
      return nil
    end
    -- Floats travel as text: 2.0 must not come back as the integer 2.
    local value = values[i]
    list[i] = value == nil and json.null or math.type(value) == "float" and { float = ("%.17g"):format(value) }
      or value
  end
  return list
end

local function unpack_value(value)
  if value == json.null then
    return nil
  elseif type(value) == "table" then
    return tonumber(value.float) + 0.0
  end
  return value
end

--- Notes a statement's result in a unit's detail.
---@param detail table
---@param result userdata|nil
function M.keep_result(detail, result)
  if not result then
    return
  end
  detail.affected = result:affected()
  local rows, columns = result:count(), result:columns()
  if #columns == 0 then
    return
  end
  detail.columns = json.array(table.move(columns, 1, #columns, 1, {}))
  if result:memory() > MOST_BYTES then
    detail.lost = true
    return
  end
  detail.rows = json.array {}
  for i = 1, rows do
    local values = {}
    for c = 1, #columns do
      values[c] = result:value(i, c)
    end
    detail.rows[i] = pack(values, #columns)
    if not detail.rows[i] then
      detail.rows, detail.lost = nil, true
      return
    end
  end
end

--- Notes the values that db:atomic's function returned.
---@param detail table
---@param values table packed
function M.keep_values(detail, values)
  if values.n > 0 then
    detail.values = pack(values, values.n)
    detail.lost = detail.values == nil or nil
  end
end

--- The result of a unit that is done: an object with the methods db.lua uses.
---@param detail table
---@return table
function M.result(detail)
  local rows = detail.rows or {}
  local object = {}
  function object.affected()
    return detail.affected
  end
  function object.count()
    return #rows
  end
  function object.value(_, i, c)
    local row = rows[i]
    return row and unpack_value(row[c or 1])
  end
  function object.row(_, i)
    if not rows[i] then
      return nil
    end
    local row = {}
    for c, name in ipairs(detail.columns) do
      row[name] = unpack_value(rows[i][c])
    end
    return row
  end
  function object.rows(self)
    local list = {}
    for i = 1, #rows do
      list[i] = self:row(i)
    end
    return list
  end
  return object
end

--- The values of a db:atomic that is done.
---@param detail table
---@return any ...
function M.values(detail)
  local list, n = {}, detail.values and #detail.values or 0
  for i = 1, n do
    list[i] = unpack_value(detail.values[i])
  end
  return table.unpack(list, 1, n)
end

return M
