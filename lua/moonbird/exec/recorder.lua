--- Records what a Lua function sends to the database: the statements that rules look at, since a function's
-- SQL stands in no file.
--
-- Of each statement it is told which values that the function had read from the database before stand in
-- the text as literals, though the script's own text does not hold them: they were spliced in, not bound.
-- Everything kept is bounded; where a bound cut something off, `truncated` says so. What is kept counts
-- towards the memory of the script, because it is made while the script runs.
local json = require "moonbird.core.json"
local literals = require "moonbird.util.literals"

local M = {}
M.__index = M

local MOST_ENTRIES = 10000
local MOST_TEXT = 4 << 20 -- bytes of all texts and parameters
local MOST_PARAM = 1024 -- bytes of one parameter; the rest is cut off
local MOST_ROWS = 1000 -- of one answer whose values are kept
local MOST_VALUES = 10000
local MOST_BYTES = 1 << 20 -- of all values
local MOST_VALUE = 64 << 10 -- bytes of one value
local MOST_READS = 20 -- of one entry

-- Answers that are words of SQL or of catalogs say nothing about where a text came from.
local WORDS = {}
for word in ([[true false null none yes off not and all any asc desc default public int int2 int4 int8 integer
  bigint smallint text varchar char date time timestamp timestamptz interval boolean bool numeric real float
  float4 float8 double uuid json jsonb bytea name oid table view index sequence schema column type function
  select insert update delete from where select_list base update_rule cascade restrict always never hour day
  week month year minute second utc pg_catalog information_schema plpgsql sql utf8 iso]]):gmatch("%S+") do
  WORDS[word] = true
end

---@class moonbird.recorder.entry
---@field text string the statement
---@field line integer|nil in the script's file: where the innermost function of that file was
---@field file string|nil the file, when the text was not sent from the script's own
---@field params table values bound, `n` of them (NULL is nil); long strings are cut
---@field reads any[] values read before that stand in the text
---@field times integer how often the same text was sent from the same line

---@class moonbird.recorder
---@field entries moonbird.recorder.entry[]
---@field truncated boolean|nil not everything was recorded

--- Makes a recorder for one call of one function.
---@param options { file: string, source?: string } the script's file as its errors name it, and its text
---@return moonbird.recorder
function M.new(options)
  return setmetatable({
    file = options.file,
    source = options.source or "",
    entries = {},
    known = {}, -- text -> line -> entry
    looked = {}, -- entry -> { version of the values it was held against, found = set }
    size = 0,
    values = {}, -- as it would stand in SQL -> the value
    count = 0,
    bytes = 0,
    version = 0, -- of the values
    ours = {}, -- values that the script's text holds itself
  }, M)
end

--- Where the script is: the innermost frame of its own file; else the innermost script's frame.
local function place(file)
  local wanted = "=" .. file
  local other, level = nil, 3
  while true do
    local info = debug.getinfo(level, "Sl")
    if not info then
      break
    end
    if info.source == wanted and info.what ~= "C" then
      return info.currentline
    elseif not other and info.what ~= "C" and info.source:sub(1, 1) == "=" then
      other = info
    end
    level = level + 1
  end
  if other then
    return other.currentline, other.source:sub(2)
  end
end

local function kept_params(params, count)
  local kept, size = { n = count or 0 }, 0
  for i = 1, count or 0 do
    local value = params[i]
    if type(value) == "string" then
      value = #value > MOST_PARAM and value:sub(1, MOST_PARAM) or value
      size = size + #value
    end
    if value ~= json.null then
      kept[i] = value
    end
  end
  return kept, size
end

--- Whether the script's own text holds a value: then it need not come from the database.
local function own(self, key)
  local known = self.ours[key]
  if known == nil then
    if key:find("^%d[%w.]*$") then
      known = self.source:find("%f[%w]" .. key:gsub("%.", "%%.") .. "%f[^%w]") ~= nil
    else
      known = self.source:find(key, 1, true) ~= nil
    end
    self.ours[key] = known
  end
  return known
end

local function note_reads(self, entry)
  local found = self.looked[entry] and self.looked[entry].found or {}
  self.looked[entry] = { version = self.version, found = found }
  literals.each(entry.text, function(token)
    local value = self.values[token]
    if value == nil then
      token = token:match("^[%%%s]*(.-)[%%%s]*$") -- of a LIKE
      value = self.values[token]
    end
    if value == nil or #entry.reads >= MOST_READS or found[token] or own(self, token) then
      return
    end
    found[token] = true
    entry.reads[#entry.reads + 1] = value
  end)
end

--- Notes a statement that is about to be sent.
---@param text string
---@param st table the statement within the text
---@param params? table
---@param count? integer
function M:statement(text, st, params, count)
  if self.truncated then
    return
  end
  if st.first > 1 or st.last < #text then
    text = text:sub(st.first, st.last)
  end
  local line, file = place(self.file)
  local by_line = self.known[text]
  local entry = by_line and by_line[line or 0]
  if entry then
    entry.times = entry.times + 1
  else
    local kept, size = kept_params(params, count)
    size = self.size + size + #text
    if #self.entries >= MOST_ENTRIES or size > MOST_TEXT then
      self.truncated = true
      return
    end
    self.size = size
    entry = { text = text, line = line, file = file, params = kept, reads = {}, times = 1 }
    self.entries[#self.entries + 1] = entry
    if not by_line then
      by_line = {}
      self.known[text] = by_line
    end
    by_line[line or 0] = entry
  end
  local looked = self.looked[entry]
  if self.count > 0 and not (looked and looked.version == self.version) then
    note_reads(self, entry)
  end
end

local function keep(self, key, value)
  if self.values[key] ~= nil then
    return
  end
  if self.count >= MOST_VALUES or self.bytes + #key > MOST_BYTES then
    self.full = true
    return
  end
  self.values[key] = value
  self.count = self.count + 1
  self.bytes = self.bytes + #key
  self.version = self.version + 1
end

local function see(self, value)
  local kind = type(value)
  if kind == "string" then
    local size = #value
    if size < 3 or size > MOST_VALUE then
      return
    end
    if tonumber(value) then
      local digits = value:gsub("^%-", "")
      if select(2, digits:gsub("%d", "")) >= 3 then
        keep(self, digits, value)
      end
      keep(self, value, value)
    elseif not WORDS[value:lower()] then
      keep(self, value, value)
    end
  elseif kind == "number" and value == value then
    local key = tostring(value):gsub("^%-", "")
    if select(2, key:gsub("%d", "")) >= 3 then
      keep(self, key, value)
      if math.type(value) == "float" then
        keep(self, (("%.17g"):format(value):gsub("^%-", "")), value) -- as db:literal writes it
      end
    end
  end
end

--- Takes in what a statement answered.
---@param result userdata|table the session's result; values of its first rows are kept
---@param before? integer rows of the same answer that were taken in before
---@return integer rows taken in by now
function M:answered(result, before)
  before = before or 0
  local last = math.min(result:count(), MOST_ROWS - before)
  for i = 1, last do
    if self.full then
      break
    end
    for _, value in pairs(result:row(i)) do
      see(self, value)
    end
  end
  return before + math.max(last, 0)
end

--- Takes in the first piece of what a COPY TO STDOUT gave.
---@param chunk string
function M:copied(chunk)
  for value in chunk:sub(1, MOST_VALUE):gmatch("[^\t\n\r,]+") do
    if self.full then
      break
    end
    see(self, value)
  end
end

return M
