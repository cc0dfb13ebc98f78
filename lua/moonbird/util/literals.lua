--- The literals of SQL text: strings, dollar-quoted bodies (and what stands in them) and numbers.
--
-- Quoting as the server reads it with standard_conforming_strings on. One pass, linear in the text.
local M = {}

local DEPTH = 4 -- of dollar quotes inside each other

local ESCAPES = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }

--- The end of a quoted piece that opens at `at`.
local function closing(text, at, quote, escapes)
  local i = at + 1
  local stop = escapes and "[\\" .. quote .. "]" or quote
  while true do
    local found = text:find(stop, i)
    if not found then
      return #text + 1
    elseif text:sub(found, found) == "\\" then
      i = found + 2
    elseif text:sub(found + 1, found + 1) == quote then
      i = found + 2
    else
      return found
    end
  end
end

local function comment_end(text, at)
  local depth, i = 1, at + 2
  while depth > 0 do
    local found = text:find("[*/][*/]", i)
    if not found then
      return #text
    end
    local pair = text:sub(found, found + 1)
    i = found + 2
    if pair == "/*" then
      depth = depth + 1
    elseif pair == "*/" then
      depth = depth - 1
    else
      i = found + 1
    end
  end
  return i - 1
end

local function scan(text, tell, depth)
  local i = 1
  while true do
    local at = text:find("['\"$%d/%-]", i)
    if not at then
      return
    end
    local char = text:sub(at, at)
    i = at + 1
    if char == "'" then
      local prefix = text:sub(math.max(1, at - 2), at - 1)
      local escapes = prefix:find("^[Ee]$") or prefix:find("[^%w_\128-\255][Ee]$")
      local last = closing(text, at, "'", escapes)
      local content = text:sub(at + 1, last - 1):gsub("''", "'")
      if escapes then
        content = content:gsub("\\(.)", function(c)
          return ESCAPES[c] or c
        end)
      end
      tell(content)
      i = last + 1
    elseif char == '"' then
      i = closing(text, at, '"') + 1
    elseif char == "-" then
      if text:sub(i, i) == "-" then
        i = (text:find("\n", i, true) or #text) + 1
      end
    elseif char == "/" then
      if text:sub(i, i) == "*" then
        i = comment_end(text, at) + 1
      end
    elseif at > 1 and text:find("^[%w_\128-\255]", at - 1) then
      i = text:match("^[%w_$\128-\255]*()", at) -- the rest of a name
    elseif char == "$" then
      local tag, body = text:match("^(%$[%a_\128-\255]*[%w_\128-\255]*%$)()", at)
      if tag then
        local first, last = text:find(tag, body, true)
        local content = text:sub(body, (first or #text + 1) - 1)
        tell(content)
        if depth < DEPTH then
          scan(content, tell, depth + 1)
        end
        i = (last or #text) + 1
      else
        i = text:match("^%$%d*()", at) -- a parameter
      end
    else
      local number, after = text:match("^([%w_.]+)()", at)
      tell(number)
      i = after
    end
  end
end

--- Calls `tell` with each literal: the contents of a string, the digits of a number.
---@param text string
---@param tell fun(token: string)
function M.each(text, tell)
  scan(text, tell, 1)
end

return M
