--- Durations: "400ms", "5s", "2m", "1h30m" as people write them, milliseconds as the engine keeps them.
local M = {}

local units = { ms = 1, s = 1000, m = 60000, min = 60000, h = 3600000, d = 86400000 }

local advice = "write it like \"400ms\", \"5s\", \"2m\" or \"1h30m\" (\"0\" for no limit)"

--- Reads a duration. A number without a unit is refused (seconds or milliseconds?), except 0.
---@param value any a string, or the number 0
---@return integer? milliseconds
---@return string? message what is wrong, with how to write it
function M.parse(value)
  if value == 0 or value == "0" then
    return 0
  end
  if type(value) == "number" then
    return nil, ("\"%s\" has no unit; %s"):format(value, advice)
  end
  if type(value) ~= "string" then
    return nil, ("a duration must be a string, not a %s; %s"):format(type(value), advice)
  end
  local total, at, parts = 0.0, 1, 0
  local text = value:lower():gsub("%s+", "")
  local smallest = math.huge
  while at <= #text do
    local number, unit, after = text:match("^(%d+%.?%d*)(%a*)()", at)
    if not number then
      return nil, ("\"%s\" is not a duration; %s"):format(value, advice)
    end
    if unit == "" then
      return nil, ("\"%s\" has no unit; %s"):format(value, advice)
    end
    local scale = units[unit]
    if not scale then
      return nil, ("\"%s\" has an unknown unit \"%s\"; %s"):format(value, unit, advice)
    end
    if scale >= smallest then
      return nil, ("\"%s\" must name its units from the largest to the smallest; %s")
        :format(value, advice)
    end
    smallest = scale
    total = total + tonumber(number) * scale
    at, parts = after, parts + 1
  end
  if parts == 0 then
    return nil, "a duration must not be empty; " .. advice
  end
  if total > 2147483647 then -- PostgreSQL's timeouts are 32-bit milliseconds
    return nil, ("\"%s\" is too long; the longest is 24 days"):format(value)
  end
  return math.tointeger(math.floor(total + 0.5))
end

local function decimal(number)
  return (("%.1f"):format(number):gsub("%.0$", ""))
end

--- Writes a duration for people: "12ms", "1.2s", "3m 4s", "2h 5m".
---@param ms number milliseconds
---@return string
function M.format(ms)
  if ms < 0 then
    return "-" .. M.format(-ms)
  end
  if ms < 9.95 then
    return decimal(ms) .. "ms"
  end
  if ms < 999.5 then
    return ("%.0fms"):format(ms)
  end
  if ms < 59950 then
    return decimal(ms / 1000) .. "s"
  end
  local seconds = math.tointeger(math.floor(ms / 1000 + 0.5))
  local function pair(large, large_unit, small, small_unit)
    return small == 0 and large .. large_unit or ("%d%s %d%s"):format(large, large_unit, small, small_unit)
  end
  if seconds < 3600 then
    return pair(seconds // 60, "m", seconds % 60, "s")
  end
  local minutes = (seconds + 30) // 60
  if minutes < 1440 then
    return pair(minutes // 60, "h", minutes % 60, "m")
  end
  local hours = (minutes + 30) // 60
  return pair(hours // 24, "d", hours % 24, "h")
end

return M
