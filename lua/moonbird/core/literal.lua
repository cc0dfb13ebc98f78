--- Values as PostgreSQL's text: arrays and COPY rows.
local json = require "moonbird.native.json"

local M = {}

local MOST_DIMENSIONS = 6 -- MAXDIM of the server

local function element(value, depth)
  if value == nil or value == json.null then
    return "NULL"
  end
  local kind = type(value)
  if kind == "table" then
    return M.array(value, depth + 1)
  elseif kind == "boolean" then
    return value and "t" or "f"
  elseif kind == "number" then
    return math.type(value) == "integer" and ("%d"):format(value) or ("%.17g"):format(value)
  elseif kind == "string" then
    return '"' .. value:gsub('[\\"]', "\\%0") .. '"'
  end
  error("an array can't hold a " .. kind, 0)
end

--- An array literal, e.g. {1,NULL,"a b"}; nested tables are further dimensions.
---@param values table array; `n` tells its length when it holds nils
---@param depth? integer
---@return string
function M.array(values, depth)
  depth = depth or 1
  if depth > MOST_DIMENSIONS then
    error("an array has at most 6 dimensions", 0)
  end
  local parts = {}
  for i = 1, values.n or #values do
    parts[i] = element(values[i], depth)
  end
  return "{" .. table.concat(parts, ",") .. "}"
end

--- The length of a list. Raises on other keys than 1..n and n: what has names would be dropped silently.
---@param values table `n` tells its length when it holds nils
---@param what string names it in the error
---@return integer
function M.length(values, what)
  local n = rawget(values, "n") or #values
  if math.type(n) ~= "integer" or n < 0 then
    error(("%s has an n that is no length"):format(what), 0)
  end
  for key in next, values do
    if math.type(key) == "integer" and key > n then
      error(("%s has a hole before item %d; write db.null, or give its length as n"):format(what, key), 0)
    elseif key ~= "n" and (math.type(key) ~= "integer" or key < 1) then
      error(("%s has the key %q, and can only be a list"):format(what, tostring(key)), 0)
    end
  end
  return n
end

--- As array(), for what people wrote: lists only.
---@param values table
---@param depth? integer
---@return string
function M.checked_array(values, depth)
  depth = depth or 1
  for i = 1, depth <= MOST_DIMENSIONS and M.length(values, "an array") or 0 do
    if type(values[i]) == "table" then
      M.checked_array(values[i], depth + 1)
    end
  end
  return depth == 1 and M.array(values) or ""
end

-- An element that stands without quotes, from `pos` on: its text and what follows it.
local function bare_element(text, pos)
  local raw, after = text:match('^([^,{}"\\]+)()', pos)
  raw = raw and raw:match("^(.-)%s*$")
  if not raw or raw == "" then
    return nil
  end
  return raw:upper() == "NULL" and json.null or raw, after
end

-- An element in quotes, likewise; `pos` is behind the first quote.
local function quoted_element(text, pos)
  local parts = {}
  while true do
    local at, _, stop = text:find('([\\"])', pos)
    if not at then
      return nil
    end
    parts[#parts + 1] = text:sub(pos, at - 1)
    if stop == '"' then
      return table.concat(parts), at + 1
    end
    parts[#parts + 1] = text:sub(at + 1, at + 1)
    pos = at + 2
  end
end

-- The list whose brace is before `pos`, and what follows it; nil when it is none.
local function list_of(text, pos, depth)
  local list = {}
  pos = text:match("^%s*()", pos)
  if depth > MOST_DIMENSIONS then
    return nil
  elseif text:sub(pos, pos) == "}" then
    return list, pos + 1
  end
  while true do
    local c = text:match("^%s*(.)", pos)
    pos = text:match("^%s*()", pos)
    local value
    if c == "{" then
      value, pos = list_of(text, pos + 1, depth + 1)
    elseif c == '"' then
      value, pos = quoted_element(text, pos + 1)
    else
      value, pos = bare_element(text, pos)
    end
    -- Either all items are lists or none is.
    if value == nil or (type(value) == "table") ~= (type(list[1] or value) == "table") then
      return nil
    end
    list[#list + 1] = value
    local stop, after = text:match("^%s*([,}])()", pos)
    if stop ~= "," then
      return stop and list, after
    end
    pos = after
  end
end

--- Decodes an array literal into a table (nested for more dimensions); NULL becomes json.null. Elements
--- stay text: their type is the caller's to know.
---@param text string
---@return table|nil
---@return string? message
function M.decode_array(text)
  local pos = text:match("^%[[%d:%[%]%-]+%]=()") or 1 -- explicit lower bounds, "[0:1]={...}"
  local list, after
  if text:sub(pos, pos) == "{" then
    list, after = list_of(text, pos + 1, 1)
  end
  if not list or after <= #text then
    return nil, "not an array literal"
  end
  return list
end

local COPY_ESCAPES = { ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

--- One row of COPY's text format, with its newline.
---@param row table array of values; `n` tells its length when it holds nils
---@return string
function M.copy_row(row)
  local parts = {}
  for i = 1, M.length(row, "a row of COPY") do
    local value = row[i]
    if value == nil or value == json.null then
      parts[i] = "\\N"
    elseif type(value) == "boolean" then
      parts[i] = value and "t" or "f"
    elseif type(value) == "table" then
      parts[i] = M.checked_array(value):gsub("[\\\n\r\t]", COPY_ESCAPES)
    elseif math.type(value) == "float" then
      parts[i] = ("%.17g"):format(value)
    elseif type(value) ~= "string" and type(value) ~= "number" then
      error("a row of COPY can't hold a " .. type(value), 0)
    else
      parts[i] = tostring(value):gsub("[\\\n\r\t]", COPY_ESCAPES)
    end
  end
  return table.concat(parts, "\t") .. "\n"
end

return M
