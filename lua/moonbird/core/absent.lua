--- Reading the journal's schema where it, or a part of it, may not be in the database yet.
local json = require "moonbird.native.json"

local M = {}

--- Whether a statement failed because a table that it names is not there.
---@param err moonbird.error
---@return boolean
function M.table(err)
  return err.sqlstate == "42P01" or err.sqlstate == "3F000" -- undefined_table, invalid_schema_name
end

--- Whether a statement failed because a table or a function that it names is not there.
---@param err moonbird.error
---@return boolean
function M.any(err)
  return M.table(err) or err.sqlstate == "42883" -- undefined_function
end

--- Rows of a query; none where what it reads is not there.
---@param session moonbird.session
---@param absent fun(err: moonbird.error): boolean M.table or M.any
---@param text string
---@param params? table
---@param count? integer of the parameters
---@param decode? string[] names of columns of jsonb, to have as tables
---@return table[]?
---@return moonbird.error? err
function M.rows(session, absent, text, params, count, decode)
  local result, err = session:query(text, params, count)
  if not result then
    if absent(err) then
      return {}
    end
    return nil, err
  end
  local rows = result:rows()
  for _, name in ipairs(decode or {}) do
    for _, row in ipairs(rows) do
      row[name] = row[name] and json.decode(row[name])
    end
  end
  return rows
end

return M
