--- Finds in the text of a Lua file where a key or a string of the table it returns was written, so that
--- a finding about a value names its line. A search over text, not a parser: comments and strings that
--- look like code can mislead it, by a line, never by a wrong verdict.
local text_util = require "moonbird.util.text"

local M = {}

--- Where the bracket stands of the `["` that ends in front of `at`.
local function bracket_before(text, at, from)
  local quote = at - 1
  while quote > from and text:find("^%s", quote - 1) do
    quote = quote - 1
  end
  return quote > from and text:find("^%[%s*[\"']", quote - 1) and quote - 1 or nil
end

--- The first `key =` (or `["key"] =`) at or after `from`: its offset, and the one behind the key.
local function find_key(text, key, from)
  local escaped = key:gsub("%W", "%%%0")
  local bare, quoted = "^%f[%w_]" .. escaped .. "()%s*=[^=]", "^" .. escaped .. "[\"']%s*%]()%s*=[^=]"
  -- a plain search for the word is many times faster than one for the pattern
  local at = text:find(key, from, true)
  while at do
    local _, _, after = text:find(bare, at)
    if after then
      return { first = at, after = after }
    end
    _, _, after = text:find(quoted, at)
    local bracket = after and bracket_before(text, at, from)
    if bracket then
      return { first = bracket, after = after }
    end
    at = text:find(key, at + 1, true)
  end
end

--- The byte offset where a key of the table is written.
---@param text string
---@param path string[] keys from the outside in: { "environments", "production", "url" }
---@return integer? offset of the key, nil when not found
function M.key_offset(text, path)
  local from, found = 1, nil
  for _, key in ipairs(path) do
    local hit = find_key(text, tostring(key), from)
    if not hit then
      return found
    end
    found, from = hit.first, hit.after
  end
  return found
end

--- The line of a key (the innermost one that was found).
---@param text string
---@param path string[]
---@return integer? line
function M.key_line(text, path)
  local offset = M.key_offset(text, path)
  return offset and text_util.line_at(text, offset) or nil
end

--- Where the content of a string value starts.
---@param text string the file
---@param path string[] the key whose value the string is
---@param value string
---@return integer line
---@return integer column 1-based byte column of the content's first byte; 1 when only the key was found
function M.string_position(text, path, value)
  local key = M.key_offset(text, path) or 1
  -- Lua turns \r\n in a long string into \n
  local plain = text:find("\r", 1, true) and text:gsub("\r\n", "\n") or text
  if plain ~= text then
    key = M.key_offset(plain, path) or 1
  end
  local at = value ~= "" and plain:find(value, key, true)
  if not at then
    return text_util.line_at(plain, key), 1
  end
  local line = text_util.line_at(plain, at)
  local start = at
  while start > 1 and plain:byte(start - 1) ~= 10 do
    start = start - 1
  end
  return line, at - start + 1
end

return M
