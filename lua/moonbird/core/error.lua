--- Errors are data: one table shape from the server's message to the exit status.
--
-- An error is matched by `code` (a name of engine/base/error.def), never by its text. It is filled once
-- where it happens; callers add what they know (migration, target, file) with `with`.
local native = require "moonbird.native.error"

local M = {}

---@class moonbird.error
---@field code string name in error.def
---@field message string
---@field sqlstate? string five characters when a server spoke
---@field detail? string
---@field hint? string
---@field file? string
---@field line? integer
---@field column? integer
---@field excerpt? string the line of source with a caret below
---@field migration? string
---@field target? string
---@field problems? table[] several findings, each {file, line, column, message, hint}
---@field cause? any

local mt = native.metatable

--- Makes an error.
---@param code string a name of error.def
---@param message string lower case, no full stop
---@param fields? table further fields, taken as they are
---@return moonbird.error
function M.new(code, message, fields)
  assert(native.codes[code], "unknown error code " .. tostring(code))
  local err = { code = code, message = message }
  for k, v in pairs(fields or {}) do
    err[k] = v
  end
  return setmetatable(err, mt)
end

--- Whether a value is a moonbird error.
---@param value any
---@return boolean
function M.is(value)
  return getmetatable(value) == mt
end

--- Turns any raised value into an error (strings and foreign tables become code "script").
---@param value any
---@param code? string the code for a value that is none yet (default "script")
---@return moonbird.error
function M.from(value, code)
  if M.is(value) then
    return value
  end
  local message = type(value) == "string" and value or tostring(value)
  local file, line, text = message:match("^([%w%._/%-]+):(%d+): (.*)$")
  if file then
    return M.new(code or "script", text, { file = file, line = math.tointeger(tonumber(line)) })
  end
  return M.new(code or "script", message, { cause = value })
end

--- Adds what a caller knows; never overwrites what is there.
---@param err moonbird.error
---@param fields table
---@return moonbird.error err itself
function M.with(err, fields)
  for k, v in pairs(fields) do
    if err[k] == nil then
      err[k] = v
    end
  end
  return err
end

--- The exit status of an error (error.def).
---@param err moonbird.error
---@return integer
function M.status(err)
  return native.codes[err.code].status
end

--- The table of all codes: name -> { status, meaning, advice }.
---@return table<string, table>
function M.codes()
  return native.codes
end

--- One line: "file:line:column: message (SQLSTATE)".
local function tostring_error(err)
  local where = ""
  if err.file then
    where = err.file .. ":"
    if err.line then
      where = where .. err.line .. ":" .. (err.column and err.column .. ":" or "")
    end
    where = where .. " "
  end
  local state = err.sqlstate and err.sqlstate ~= "" and (" (%s)"):format(err.sqlstate) or ""
  return where .. err.message .. state
end

mt.__tostring = tostring_error
mt.__name = "moonbird.error"

return M
