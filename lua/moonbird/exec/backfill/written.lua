--- What a transform returned, as one UPDATE: its rows are collected column by column as array literals, and joined
-- with the table on the key.
--
-- Values travel as text and are cast to the column's type without its length, so that the assignment still refuses
-- what is too long, as any UPDATE does.
local array = require "moonbird.core.array"
local error_ = require "moonbird.core.error"
local json = require "moonbird.core.json"
local key_of = require "moonbird.exec.backfill.key"
local literal = require "moonbird.core.literal"

---@class moonbird.backfill.written
---@field job moonbird.backfill.job
---@field count integer rows
---@field keys userdata[] arrays, by key column
---@field columns table<string, { values: userdata, gaps: integer[], column: table }> by name
---@field order string[] their names
---@field first integer|nil rows of the result read that are the first and the last here
---@field last integer|nil
local M = {}
M.__index = M

---@param job moonbird.backfill.job
---@return moonbird.backfill.written
function M.new(job)
  local self = setmetatable({ job = job, keys = {} }, M)
  for i = 1, #job.place.key.columns do
    self.keys[i] = array.new()
  end
  self:clear()
  return self
end

--- Makes room for the next rows.
function M:clear()
  self.count, self.columns, self.order, self.first, self.last = 0, {}, {}, nil, nil
  for _, key in ipairs(self.keys) do
    key:clear()
  end
end

--- Bytes of what is collected.
---@return integer
function M:size()
  local bytes = 0
  for _, key in ipairs(self.keys) do
    bytes = bytes + key:size()
  end
  for _, name in ipairs(self.order) do
    bytes = bytes + self.columns[name].values:size()
  end
  return bytes
end

--- A column that a row names for the first time: the rows before have no value for it.
local function add_column(self, name)
  local column = self.job.columns[name]
  if not column then
    error(error_.new("script", ("the transform returned \"%s\", which is no column of %s"):format(tostring(name),
      self.job.place.name), { hint = type(name) == "string" and require("moonbird.util.nearest").hint(name,
      self.job.columns) or nil }), 0)
  elseif column.key then
    error(error_.new("script", ("the transform returned the key column \"%s\""):format(name), { hint =
      "return the new values only: a row that gets another key may be met twice, or never" }), 0)
  elseif column.generated then
    error(error_.new("script", ("column \"%s\" is generated and can't be written"):format(name)), 0)
  end
  local entry = { values = array.new(), gaps = {}, column = column }
  self.columns[name] = entry
  self.order[#self.order + 1] = name
  return entry
end

--- NULLs for the rows that said nothing of a column, noted as gaps.
local function pad(entry, count)
  for i = entry.values:count() + 1, count do
    entry.values:add(nil)
    entry.gaps[#entry.gaps + 1] = i
  end
end

local function add_value(entry, value)
  local column, kind = entry.column, type(value)
  if kind == "table" and column.kind == "json" then
    value = json.encode_exact(value)
  elseif kind == "table" and column.kind == "array" then
    value = literal.array(value)
  elseif value ~= json.null and kind ~= "string" and kind ~= "number" and kind ~= "boolean" then
    error(error_.new("script", ("column \"%s\" can't hold a %s"):format(column.name, kind)), 0)
  end
  entry.values:add(value, column.kind == "bytea")
end

--- Takes what the transform returned for a row. Runs in the sandbox: nothing here may be trusted to have no
--- metamethods.
---@param row any
---@param result userdata what was read; the key's columns are its first ones
---@param at integer the row in it
function M:take(row, result, at)
  if type(row) ~= "table" then
    error(error_.new("script", ("the transform must return a table or nil, not a %s"):format(type(row))), 0)
  elseif next(row) == nil then
    return
  end
  local before, columns = self.count, self.columns
  for name, value in next, row do
    local entry = columns[name] or add_column(self, name)
    if entry.values:count() < before then
      pad(entry, before)
    end
    add_value(entry, value)
  end
  for i, key in ipairs(self.keys) do
    key:add_cell(result, at, i)
  end
  self.count, self.first, self.last = before + 1, self.first or at, at
end

-- The statement -------------------------------------------------------------------------------------------

local function text(self, chunk)
  local job = self.job
  local key, place = job.place.key, job.place
  local args, names, sets, joins = {}, {}, {}, {}
  local function add(type_, name)
    args[#args + 1] = ("$%d::%s[]"):format(#args + 3, type_) -- $1 and $2 are bounds
    names[#names + 1] = name
  end
  for i, column in ipairs(key.quoted) do
    add("text", "k" .. i)
    joins[i] = ("%s.%s = moonbird_new.k%d::%s"):format(place.alias, column, i, key.types[i])
  end
  for i, name in ipairs(self.order) do
    local entry = self.columns[name]
    local column = entry.column
    add("text", "v" .. i)
    local value = ("moonbird_new.v%d::%s"):format(i, column.type)
    if #entry.gaps > 0 then -- some rows are to keep theirs
      add("bool", "h" .. i)
      value = ("case when moonbird_new.h%d then %s else %s.%s end"):format(i, value, place.alias, column.quoted)
    end
    sets[i] = ("%s = %s"):format(column.quoted, value)
  end
  -- The bounds are said once more, so that whatever the planner joins with is these rows and not the table.
  return ("update only %s as %s set %s from unnest(%s) as moonbird_new(%s) where %s and %s >= %s and %s <= %s"):format(
    chunk.relation, place.alias, table.concat(sets, ", "), table.concat(args, ", "), table.concat(names, ", "),
    table.concat(joins, " and "), key_of.row(key, place.alias), key_of.bound(key, "$1"),
    key_of.row(key, place.alias), key_of.bound(key, "$2"))
end

--- The key of a row that was read, as JSON: texts, which the casts of key.bound() take as well as numbers.
local function bound(self, result, at)
  local texts = {}
  for i = 1, #self.keys do
    texts[i] = result:text(at, i)
  end
  return json.encode(json.array(texts))
end

--- Which rows have a value, as an array of booleans.
local function has(entry, count)
  local flags = {}
  for i = 1, count do
    flags[i] = "t"
  end
  for _, i in ipairs(entry.gaps) do
    flags[i] = "f"
  end
  return "{" .. table.concat(flags, ",") .. "}"
end

--- The UPDATE of what is collected.
---@param chunk moonbird.backfill.chunk
---@param result userdata what was read, in the key's order
---@return table item
function M:item(chunk, result)
  table.sort(self.order) -- one text for all batches that set the same columns
  for _, name in ipairs(self.order) do
    pad(self.columns[name], self.count)
  end
  local item = { text(self, chunk), bound(self, result, self.first), bound(self, result, self.last) }
  for _, key in ipairs(self.keys) do
    item[#item + 1] = key:text()
  end
  for _, name in ipairs(self.order) do
    local entry = self.columns[name]
    item[#item + 1] = entry.values:text()
    if #entry.gaps > 0 then
      item[#item + 1] = has(entry, self.count)
    end
  end
  return item
end

return M
