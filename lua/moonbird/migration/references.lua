--- Rewrites what a migration's text says in `completes`: the versions of other migrations, and nothing else of
-- the file. Comments and strings that look like code are told apart; a value that is computed is left alone.
local text_util = require "moonbird.util.text"

local M = {}

local function same(digits, version)
  return #digits <= 18 and math.tointeger(tonumber(digits)) == version
end

-- .sql ------------------------------------------------------------------------------------------------------

local function rewrite_sql(text, version, replacement)
  local out, number, edits, in_head = {}, 0, {}, true
  for line, ending in text:gmatch("([^\n]*)(\n?)") do
    number = number + 1
    if line:find("^%s*%-%-%s*migrate:") then
      in_head = false
    end
    local key, value = line:match("^(%s*%-%-+%s*[%a_]+%s*:)(.*)$")
    if in_head and key and key:lower():match("([%a_]+)%s*:$") == "completes" then
      local found
      value = value:gsub("%d+", function(digits)
        if same(digits, version) then
          found = true
          return replacement
        end
      end)
      if found then
        edits[#edits + 1] = number
        line = key .. value
      end
    end
    out[#out + 1] = line .. ending
  end
  return table.concat(out), edits
end

-- .lua ------------------------------------------------------------------------------------------------------

--- The next token at or behind `at` -> kind, first, last; kinds: "name", "number", "string", "long" (a long
--- string), "=" and other signs as they are. Comments and white space are passed over.
local function next_token(text, at)
  while true do
    at = text:find("%S", at)
    if not at then
      return nil
    end
    local level = text:match("^%-%-%[(=*)%[", at)
    if level then
      local _, last = text:find("]" .. level .. "]", at, true)
      at = (last or #text) + 1
    elseif text:find("^%-%-", at) then
      at = text:find("\n", at, true) or #text + 1
    else
      break
    end
  end
  local level = text:match("^%[(=*)%[", at)
  if level then
    local _, last = text:find("]" .. level .. "]", at, true)
    return "long", at, last or #text
  end
  local quote = text:match("^[\"']", at)
  if quote then
    local i = at + 1
    while i <= #text and text:sub(i, i) ~= quote do
      i = i + (text:sub(i, i) == "\\" and 2 or 1)
    end
    return "string", at, i
  end
  local _, last = text:find("^[%a_][%w_]*", at)
  if last then
    return "name", at, last
  end
  _, last = text:find("^%d[%w.]*", at)
  if last then
    return "number", at, last
  end
  _, last = text:find("^[=~<>]=", at)
  return text:sub(at, last or at), at, last or at
end

--- Where the value of each `completes =` begins.
local function values_of(text)
  local starts, kinds, at = {}, {}, 1
  local word
  while true do
    local kind, first, last = next_token(text, at)
    if not kind then
      return starts
    end
    word = text:sub(first, last)
    table.insert(kinds, 1, { kind = kind, word = word })
    kinds[5] = nil
    local before, earlier = kinds[2], kinds[3]
    if kind == "=" and before then
      local bare = before.kind == "name" and before.word == "completes" and not (earlier
        and (earlier.word == "." or earlier.word == "local"))
      local bracketed = before.kind == "]" and earlier.kind == "string" and earlier.word:sub(2, -2) == "completes"
        and kinds[4] and kinds[4].kind == "["
      if bare or bracketed then
        starts[#starts + 1] = last + 1
      end
    end
    at = last + 1
  end
end

--- The versions written as such in the value that begins at `at` -> { first, last } each.
local function versions_in(text, at)
  local kind, first, last = next_token(text, at)
  if kind == "number" or kind == "string" then
    return { { first, last, kind } }
  elseif kind ~= "{" then
    return {}
  end
  local list, depth = {}, 1
  while depth > 0 do
    kind, first, last = next_token(text, last + 1)
    if not kind then
      return {}
    elseif kind == "{" then
      depth = depth + 1
    elseif kind == "}" then
      depth = depth - 1
    elseif kind == "number" or kind == "string" then
      list[#list + 1] = { first, last, kind }
    end
  end
  return list
end

local function rewrite_lua(text, version, replacement)
  local out, from, edits = {}, 1, {}
  for _, start in ipairs(values_of(text)) do
    for _, place in ipairs(versions_in(text, start)) do
      local first, last = place[1], place[2]
      if place[3] == "string" then
        first, last = first + 1, last - 1
      end
      local digits = text:sub(first, last)
      if digits:find("^%d+$") and same(digits, version) then
        out[#out + 1] = text:sub(from, first - 1) .. replacement
        from = last + 1
        edits[#edits + 1] = text_util.line_at(text, first)
      end
    end
  end
  out[#out + 1] = text:sub(from)
  return table.concat(out), edits
end

--- Exchanges a version in what a migration completes.
---@param text string the migration's file
---@param kind "sql"|"lua"
---@param version integer the version to look for
---@param replacement string the digits to write in its place
---@return string text
---@return integer[] lines where something was exchanged
function M.rewrite(text, kind, version, replacement)
  return (kind == "sql" and rewrite_sql or rewrite_lua)(text, version, replacement)
end

return M
