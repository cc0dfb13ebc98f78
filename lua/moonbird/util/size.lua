--- Sizes and counts with a unit: "64MB" as bytes, "500M" as a number of things.
local M = {}

local bytes = { [""] = 1, b = 1, kb = 2 ^ 10, mb = 2 ^ 20, gb = 2 ^ 30, tb = 2 ^ 40 }
local counts = { [""] = 1, k = 1e3, m = 1e6, g = 1e9 }

local function parse(value, units, example)
  if math.type(value) == "integer" and value >= 0 then
    return value
  end
  if type(value) == "string" then
    local number, unit = value:match("^%s*(%d+%.?%d*)%s*(%a*)%s*$")
    local scale = number and units[unit:lower():gsub("ib$", "b")]
    if scale then
      return math.tointeger(math.floor(tonumber(number) * scale))
    end
  end
  return nil, ("\"%s\" can't be read; write it like %s"):format(tostring(value), example)
end

--- Reads a size in bytes: an integer, or "64kB", "256MB", "1GB" (powers of 1024, as in PostgreSQL).
---@param value any
---@return integer? bytes
---@return string? message
function M.parse_bytes(value)
  return parse(value, bytes, "\"256MB\" or a number of bytes")
end

--- Reads a count: an integer, or "100k", "50M", "2G" (powers of 1000).
---@param value any
---@return integer? count
---@return string? message
function M.parse_count(value)
  return parse(value, counts, "50000000 or \"50M\"")
end

--- A number of bytes for people: "0 B", "12 kB", "1.5 GB".
---@param n number
---@return string
function M.format(n)
  local unit = 1
  local names = { "B", "kB", "MB", "GB", "TB" }
  while math.abs(n) >= 1024 and names[unit + 1] do
    n, unit = n / 1024, unit + 1
  end
  local text = unit > 1 and math.abs(n) < 9.95 and ("%.1f"):format(n):gsub("%.0$", "") or ("%.0f"):format(n)
  return text .. " " .. names[unit]
end

return M
