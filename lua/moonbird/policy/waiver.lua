--- Waivers: findings that somebody answers for, with a reason and until a day.
--
-- In a .sql file a comment, `-- moonbird:allow RULE until=YYYY-MM-DD reason="..." [ticket=...]`: in the head
-- it holds for the file, elsewhere for the statement it stands above. In a Lua migration a list
-- `waivers = { { rule = ..., expires = ..., reason = ..., ticket = ... } }`. In moonbird.lua the same list,
-- `policy.waivers`, each with the `migration` it is for: a merged file can't be edited, so this is where an
-- expired waiver is renewed.
local lua_source = require "moonbird.util.lua_source"
local text_util = require "moonbird.util.text"

local M = {}

---@class moonbird.policy.waiver
---@field rule string
---@field reason? string
---@field expires? string "YYYY-MM-DD", the last day it holds
---@field ticket? string
---@field file string where it stands
---@field line? integer
---@field first_line? integer the lines it covers; nil: the whole file
---@field last_line? integer
---@field version? integer the migration it is for
---@field problem? string why it can't be used
---@field used? integer findings it excused

local DAYS = { 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }

--- Whether a text is a day of the calendar (29 February is let through in every year).
local function is_day(text)
  local month, day = text:match("^%d%d%d%d%-(%d%d)%-(%d%d)$")
  month, day = tonumber(month), tonumber(day)
  return month and DAYS[month] and day >= 1 and day <= DAYS[month] or false
end

--- Says what is missing; a waiver with a problem excuses nothing.
local function judge(item)
  if item.problem then
    return item
  elseif not item.rule or not item.rule:match("^[%w_-]+$") then
    item.problem = "it names no rule"
  elseif not item.reason or #text_util.trim(item.reason) < 3 then
    item.problem = "it has no reason"
  elseif not item.expires then
    item.problem = "it has no end: a waiver needs the last day it holds"
  elseif not is_day(item.expires) then
    item.problem = ("\"%s\" is no day; write YYYY-MM-DD"):format(item.expires)
  end
  return item
end

--- Reads the words behind "moonbird:allow".
local function of_words(words)
  local item = {}
  item.rule, words = words:match("^(%S+)%s*(.*)$")
  while words and words ~= "" do
    local key, value, rest = words:match('^(%a+)="([^"]*)"%s*(.*)$')
    if not key then
      key, value, rest = words:match("^(%a+)=([^%s\"]+)%s*(.*)$")
    end
    if not key then
      item.problem = ("\"%s\" can't be read; write until=YYYY-MM-DD reason=\"...\""):format(words:sub(1, 40))
      break
    end
    key = key == "until" and "expires" or key
    if key ~= "expires" and key ~= "reason" and key ~= "ticket" then
      item.problem = ("it has the unknown word \"%s\""):format(key)
      break
    end
    item[key], words = value, rest
  end
  return item
end

--- A waiver written as a Lua table.
---@param value table
---@param place { file: string, line?: integer, keys?: table<string, true> } keys: further ones it may have
---@return moonbird.policy.waiver
function M.of_table(value, place)
  local item = { file = place.file, line = place.line }
  for _, key in ipairs { "rule", "reason", "expires", "ticket" } do
    local given = rawget(value, key)
    if given == nil and key == "expires" then
      given = rawget(value, "until")
    end
    if type(given) == "string" then
      item[key] = given
    elseif given ~= nil then
      item.problem = ("\"%s\" must be a string"):format(key)
    end
  end
  for key in pairs(value) do
    local known = key == "rule" or key == "reason" or key == "expires" or key == "until" or key == "ticket"
    if not known and not (place.keys and place.keys[key]) then
      item.problem = item.problem or ("it has the unknown key \"%s\""):format(tostring(key))
    end
  end
  return judge(item)
end

--- The statements of both directions with the lines they cover, in order.
local function spans(migration)
  local list = {}
  for _, step in ipairs { migration.up or false, migration.down or false } do
    for _, block in ipairs(step and step.blocks or {}) do
      for _, st in ipairs(block.statements or {}) do
        local _, breaks = step.text:sub(st.first, st.last):gsub("\n", "")
        list[#list + 1] = { first = st.line, last = st.line + breaks }
      end
    end
  end
  table.sort(list, function(a, b)
    return a.first < b.first
  end)
  return list
end

--- Says which lines a waiver covers -> the waiver; nil when it is none.
local function cover(item, line, head_ends, statements)
  if line < head_ends then
    return item
  end
  for _, span in ipairs(statements) do
    if span.last >= line and span.first < line then
      return nil -- inside a statement: in a string, as likely as not
    elseif span.last >= line then
      item.first_line, item.last_line = span.first, span.last
      return item
    end
  end
  item.problem = item.problem or "no statement follows it"
  return item
end

local function of_sql(migration)
  local list, number = {}, 0
  local head_ends, statements
  for line in (migration.text .. "\n"):gmatch("([^\n]*)\n") do
    number = number + 1
    local before, words = line:match("^(.-)%-%-+%s*moonbird:allow%s*(.-)%s*$")
    if before and (before:match("^%s*$") or before:match(";%s*$")) then
      if not statements then
        statements = spans(migration)
        head_ends = migration.up and migration.up.blocks[1] and migration.up.blocks[1].line or 1
      end
      local item = of_words(words)
      item.file, item.line = migration.file, number
      if cover(item, number, head_ends, statements) then
        list[#list + 1] = judge(item)
      end
    end
  end
  return list
end

local function of_lua(migration)
  local list = {}
  local line = migration.waivers and lua_source.key_line(migration.text, { "waivers" })
  for i, value in ipairs(migration.waivers or {}) do
    list[i] = M.of_table(value, { file = migration.file, line = line })
  end
  local number = 0
  for text in (migration.text .. "\n"):gmatch("([^\n]*)\n") do
    number = number + 1
    if text:match("^%s*%-%-+%s*moonbird:allow%s") then
      list[#list + 1] = { file = migration.file, line = number, rule = text:match("moonbird:allow%s+(%S+)"),
        problem = "in a Lua migration waivers stand in its table: waivers = { { rule = ..., expires = ..., "
          .. "reason = ... } }" }
    end
  end
  return list
end

--- The waivers of a migration file.
---@param migration table loaded, with its text
---@return moonbird.policy.waiver[]
function M.of_migration(migration)
  if not migration.waivers and not migration.text:find("moonbird:allow", 1, true) then
    return {}
  end
  local list = migration.kind == "sql" and of_sql(migration) or of_lua(migration)
  for _, item in ipairs(list) do
    item.version = migration.version
  end
  return list
end

--- Whether a waiver is written for a finding, whatever its state.
---@param item moonbird.policy.waiver
---@param finding table
---@return boolean
function M.covers(item, finding)
  if item.rule ~= finding.rule or item.version ~= finding.version then
    return false
  end
  return not item.first_line
    or (finding.line ~= nil and finding.line >= item.first_line and finding.line <= item.last_line)
end

return M
