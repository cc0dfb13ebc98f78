--- Versions as text: which follows, and what 13 and 14 digits mean.
--
-- A folder has one style: numbers in sequence (001, 002), the time in UTC (20250110093000), or the time in
-- milliseconds since 1970 (1736501400000).
local name_of = require "moonbird.migration.name"
local sys = require "moonbird.core.sys"

local M = {}

-- As wide as a date; nobody counts up to there.
local SEQUENTIAL_DIGITS = 8

-- 2000-01-01 and 2100-01-01, in milliseconds.
local FIRST_MS, LAST_MS = 946684800000, 4102444800000

local DAYS = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }

local function leap(year)
  return year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0)
end

local function parts_of(text)
  local year, month, day, hour, minute, second = text:match("^(%d%d%d%d)(%d%d)(%d%d)(%d%d)(%d%d)(%d%d)$")
  if not year then
    return nil
  end
  local function integer(digits)
    return math.tointeger(tonumber(digits))
  end
  return { year = integer(year), month = integer(month), day = integer(day), hour = integer(hour),
    min = integer(minute), sec = integer(second) }
end

--- Whether 14 digits are a date and a time of day that exist (years 1970 to 2099).
---@param text string
---@return boolean
function M.is_datetime(text)
  local t = parts_of(text)
  if not t or t.year < 1970 or t.year > 2099 or t.month < 1 or t.month > 12 then
    return false
  end
  local last = DAYS[t.month] + (t.month == 2 and leap(t.year) and 1 or 0)
  return t.day >= 1 and t.day <= last and t.hour < 24 and t.min < 60 and t.sec < 60
end

--- Whether 13 digits are milliseconds since 1970, of the years 2000 to 2099.
---@param text string
---@return boolean
function M.is_milliseconds(text)
  local ms = #text == 13 and math.tointeger(tonumber(text))
  return ms and ms >= FIRST_MS and ms < LAST_MS or false
end

---@param now? number wall clock (default now)
---@return string fourteen digits, UTC
function M.datetime(now)
  local t = sys.utc(now)
  return ("%04d%02d%02d%02d%02d%02d"):format(t.year, t.month, t.day, t.hour, t.min, t.sec)
end

-- Seconds since 1970 of a date that exists.
local function epoch(t)
  local days = 0
  for year = 1970, t.year - 1 do
    days = days + (leap(year) and 366 or 365)
  end
  for month = 1, t.month - 1 do
    days = days + DAYS[month] + (month == 2 and leap(t.year) and 1 or 0)
  end
  return (((days + t.day - 1) * 24 + t.hour) * 60 + t.min) * 60 + t.sec
end

--- The version just behind another, as wide; a date and time stay one.
---@param text string digits
---@return string? following nil when there is none of at most 18 digits
function M.successor(text)
  if M.is_datetime(text) then
    return M.datetime(epoch(parts_of(text)) + 1)
  end
  local following = ("%0" .. #text .. "d"):format(math.tointeger(tonumber(text)) + 1)
  return #following <= name_of.MAX_DIGITS and following or nil
end

--- How many digits most of the versions have; of two equally common widths, the one that came first.
---@param texts string[] in the order of versions
---@return integer? width nil without versions
---@return integer count how many have it
function M.width(texts)
  local counts, order = {}, {}
  for _, text in ipairs(texts) do
    if not counts[#text] then
      counts[#text] = 0
      order[#order + 1] = #text
    end
    counts[#text] = counts[#text] + 1
  end
  local best
  for _, width in ipairs(order) do
    if not best or counts[width] > counts[best] then
      best = width
    end
  end
  return best, best and counts[best] or 0
end

--- How a folder numbers its files.
---@param texts string[] its versions
---@return "sequential"|"milliseconds"|"datetime"|nil style nil without versions
function M.style(texts)
  local width = M.width(texts)
  if not width then
    return nil
  elseif width <= SEQUENTIAL_DIGITS then
    return "sequential"
  elseif width == 13 then
    for _, text in ipairs(texts) do
      if #text == 13 and not M.is_milliseconds(text) then
        return "datetime"
      end
    end
    return "milliseconds"
  end
  return "datetime"
end

--- The highest of some versions.
---@param texts string[]
---@return string? text
function M.highest(texts)
  local best, best_text
  for _, text in ipairs(texts) do
    local version = math.tointeger(tonumber(text))
    if not best or version > best then
      best, best_text = version, text
    end
  end
  return best_text
end

---@class moonbird.version.options
---@field taken string[] versions that are in use
---@field style? "sequential"|"milliseconds"|"datetime" default "datetime"
---@field now? number wall clock (default now)

--- A version for one more migration, higher than all that are taken.
---@param options moonbird.version.options
---@return string? text nil when none is left
---@return string text_or_note the highest that is taken, when nil; else a note for people, or nil
function M.next(options)
  local text = M.highest(options.taken)
  if options.style == "sequential" then
    local following = not text and "001" or M.successor(text)
    return following, not following and text or nil
  end
  local version = M.datetime(options.now)
  if options.style == "milliseconds" then
    version = ("%013d"):format(math.floor((options.now or sys.time()) * 1000))
  end
  if text and math.tointeger(tonumber(version)) <= math.tointeger(tonumber(text)) then
    local following = M.successor(text)
    if not following then
      return nil, text
    end
    return following, ("the highest version in the folder is %s, so this is %s"):format(text, following)
  end
  return version
end

return M
