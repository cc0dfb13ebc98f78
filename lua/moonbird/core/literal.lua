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

--- Decodes an array literal into a table (nested for more dimensions); NULL becomes json.null. Elements
--- stay text: their type is the caller's to know.
---@param text string
---@return table|nil
---@return string? message
function M.decode_array(text)
  local pos = text:match("^%[[%d:%[%]%-]+%]=()") or 1 -- explicit lower bounds, "[0:1]={...}"
  local depth = 0
  local function parse()
    depth = depth + 1
    if depth > MOST_DIMENSIONS then
      return nil
    end
    local list = {}
    pos = pos + 1
    while true do
      local c = text:sub(pos, pos)
      if c == "}" then
        pos = pos + 1
        depth = depth - 1
        return list
      elseif c == "{" then
        list[#list + 1] = parse()
        if not list[#list] then
          return nil
        end
      elseif c == "," then
        pos = pos + 1
      elseif c == '"' then
        local parts, from = {}, pos + 1
        while true do
          local at, _, stop = text:find('([\\"])', from)
          if not at then
            return nil
          end
          parts[#parts + 1] = text:sub(from, at - 1)
          if stop == '"' then
            pos = at + 1
            break
          end
          parts[#parts + 1] = text:sub(at + 1, at + 1)
          from = at + 2
        end
        list[#list + 1] = table.concat(parts)
      elseif c == "" then
        return nil
      else
        local raw, after = text:match("^([^,}]*)()", pos)
        pos = after
        list[#list + 1] = raw:upper() == "NULL" and json.null or raw
      end
    end
  end
  local list = text:sub(pos, pos) == "{" and parse()
  if not list or pos <= #text then
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
  for i = 1, row.n or #row do
    local value = row[i]
    if value == nil or value == json.null then
      parts[i] = "\\N"
    elseif type(value) == "boolean" then
      parts[i] = value and "t" or "f"
    elseif type(value) == "table" then
      parts[i] = M.array(value):gsub("[\\\n\r\t]", COPY_ESCAPES)
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
