--- From the server's character position to file:line:column and an excerpt with a caret.
local sql = require "moonbird.native.sql"

local M = {}

--- The line around a byte, with a caret below it. Tabs are kept so that the caret stays aligned.
---@param text string
---@param offset integer byte (from 1)
---@return string
function M.excerpt(text, offset)
  local first = offset
  while first > 1 and text:byte(first - 1) ~= 10 do
    first = first - 1
  end
  local last = text:find("\n", offset, true) or #text + 1
  local line = text:sub(first, last - 1):gsub("\r$", "")
  local lead = text:sub(first, offset - 1):gsub("[\128-\191]", ""):gsub("[^\t]", " ")
  if #line > 200 then
    -- A minified line: show what surrounds the error.
    local from = math.max(1, offset - first - 60)
    line = line:sub(from, from + 120)
    lead = (" "):rep(offset - first - from + 1)
  end
  return line .. "\n" .. lead .. "^"
end

--- Where a script called the engine: file and line of the innermost frame that is a script's. Chunks of
--- scripts are named "=file", the engine's own "@file".
---@return string|nil file
---@return integer|nil line
function M.caller()
  local level = 2
  while true do
    local info = debug.getinfo(level, "Sl")
    if not info then
      return nil
    end
    if info.what ~= "C" and info.source:sub(1, 1) == "=" then
      return info.source:sub(2), info.currentline
    end
    level = level + 1
  end
end

--- Fills file, line, column and excerpt of an error that the server raised for text[first..].
---@param err moonbird.error
---@param where { text: string, first: integer, file?: string, origin_line?: integer }
---@return moonbird.error err
function M.locate(err, where)
  if err.line then
    return err
  end
  local offset = where.first
  if err.position then
    offset = sql.char_offset(where.text, where.first, err.position) or where.first
    err.excerpt = M.excerpt(where.text, offset)
  end
  local line, column = sql.locate(where.text, offset)
  err.file = err.file or where.file
  err.line = line + (where.origin_line or 1) - 1
  err.column = column
  return err
end

return M
