--- The options of a backfill that are about the server: how busy it may be. What is looked at, and what follows, is
-- in exec/backfill/{signals,throttle}.lua; here is only how they are written, so that a migration can be read
-- without them.
local size = require "moonbird.util.size"

local M = {}

local HOUR = 3600000

local function window(from_h, from_m, to_h, to_m)
  if not from_h then
    return nil
  end
  local from, to = tonumber(from_h) * 60 + tonumber(from_m), tonumber(to_h) * 60 + tonumber(to_m)
  if from > 24 * 60 or to > 24 * 60 or tonumber(from_m) > 59 or tonumber(to_m) > 59 or from == to then
    return nil
  end
  return { from = from % (24 * 60), to = to }
end

--- Reads "22:00-06:00", or several with commas between them.
---@param value any
---@return { from: integer, to: integer }[]|nil minutes of the day; `to` before `from` goes over midnight
---@return string? what is wrong
function M.windows(value)
  local list = {}
  if type(value) == "string" then
    for part in value:gmatch("[^,]+") do
      local one = window((part .. " "):match("^%s*(%d%d?):(%d%d)%s*%-%s*(%d%d?):(%d%d)%s*$"))
      if not one then
        list = {}
        break
      end
      list[#list + 1] = one
    end
  end
  if not list[1] then
    return nil, ("must be times of the day as \"22:00-06:00\", not \"%s\""):format(tostring(value))
  end
  return list
end

local function between(value)
  if value == "" or value == "any" then
    return ""
  end
  local list, wrong = M.windows(value)
  return list and value, wrong
end

local function bytes(value)
  local n, wrong = size.parse_bytes(value)
  return n, n == nil and wrong or nil
end

local UNITS = { us = 0.001, ms = 1, s = 1000 }

--- Milliseconds with a fraction.
local function short_time(value)
  if value == 0 or value == "0" then
    return 0
  end
  local number, unit = tostring(value):match("^%s*(%d+%.?%d*)%s*(%a+)%s*$")
  if not UNITS[unit] then
    return nil, "must be a short time such as \"0.5ms\" or \"200us\" (\"0\" for no limit)"
  end
  return tonumber(number) * UNITS[unit]
end

local function name(value)
  if type(value) ~= "string" or not value:find("^[%w_/+:-]+$") then
    return nil, "must be the name of a time zone, such as \"Europe/Berlin\""
  end
  return value
end

local function names(value)
  if type(value) == "string" then
    value = { value ~= "" and value or nil }
  end
  if type(value) ~= "table" then
    return nil, "must be names of standbys or slots"
  end
  local list = {}
  for _, item in ipairs(value) do
    if type(item) ~= "string" then
      return nil, "must be names of standbys or slots"
    end
    for one in item:gmatch("[^,%s]+") do
      list[#list + 1] = one
    end
  end
  return table.concat(list, ",")
end

local function a_function(value)
  if type(value) ~= "function" then
    return nil, "must be a function(db) that returns \"ok\", \"slow\" or \"stop\", and why"
  end
  return value
end

-- Limits: where a signal says "stop"; it says "slow" from a half of it on. 0: not looked at.
local LIMITS = {
  { "max_lag", "bytes", 64 << 20 }, { "max_lag_time", "time", 30000 }, { "max_retained", "bytes", 10 << 30 },
  { "max_archive", "count", 32 }, { "max_wal_rate", "bytes", 0 }, { "max_blocked", "count", 5 },
  { "max_active", "count", 0 }, { "max_snapshot", "time", HOUR },
}

--- Adds the options.
---@param definition table moonbird.migration.backfill
function M.add(definition)
  local readers = { bytes = bytes, time = definition.read_time, count = definition.read_count(0) }
  for _, limit in ipairs(LIMITS) do
    definition.option(limit[1], readers[limit[2]], limit[3])
  end
  definition.option("max_delay", short_time, 0.5)
  definition.option("yield_to_vacuum", definition.read_flag, true)
  definition.option("ignore_standbys", names, "")
  definition.option("between", between, "")
  definition.option("time_zone", name, nil)
  definition.option("throttle", a_function, nil)
end

return M
