--- The `backfill` of a migration: which keys there are, what each may hold, and the defaults of its options.
local duration = require "moonbird.util.duration"
local json = require "moonbird.core.json"
local nearest = require "moonbird.util.nearest"
local size = require "moonbird.util.size"
local sql = require "moonbird.core.sql"
local hash = require "moonbird.core.sys".sha256

local M = {}

---@class moonbird.backfill.definition
---@field mode "set"|"rows"|"batch"
---@field table string as written: a name, or schema.name, quoted where it has to be
---@field key? string[] columns
---@field where? string what still needs work
---@field set? string mode "set"
---@field columns? string[] mode "rows": what the transform sees beside the key
---@field transform? fun(row: table, db: moonbird.db): table|nil
---@field batch? fun(db: moonbird.db, lo: any, hi: any): integer|nil
---@field options table<string, any> as read, without the defaults

local function fail(...)
  return nil, ...
end

-- Options -------------------------------------------------------------------------------------------------

local function count(low, high)
  return function(value)
    local n = math.tointeger(tonumber(value))
    if not n or n < low or (high and n > high) then
      return fail(("must be a whole number from %d%s"):format(low, high and (" to %d"):format(high) or " on"))
    end
    return n
  end
end

local function time(value)
  local ms, wrong = duration.parse(value)
  if not ms then
    return fail(wrong)
  end
  return ms
end

local function positive_time(value)
  local ms, wrong = time(value)
  if ms == 0 then
    return fail("must be longer than 0")
  end
  return ms, wrong
end

local function flag(value)
  if type(value) == "boolean" then
    return value
  elseif value == "true" or value == "false" then
    return value == "true"
  end
  return fail("must be true or false")
end

--- Readers of the options: a raw value (of a file, or text of a command line) as it is kept; or nil, what is
--- wrong. Others add theirs (M.option).
M.options = {
  batch_target = positive_time, min = count(1), max = count(1), start = count(1), workers = count(1, 64),
  durable = flag, max_errors = count(0), retries = count(0, 100), lock_timeout = time, statement_timeout = time,
  reconnect = time,
}

--- What holds where a migration says nothing. Times are milliseconds.
M.DEFAULTS = { batch_target = 100, min = 100, max = 50000, workers = 1, durable = false, max_errors = 0,
  retries = 1, lock_timeout = 500, statement_timeout = 30000, reconnect = 600000 }

--- Adds an option.
---@param name string
---@param reader fun(value: any): any, string?
---@param default any
function M.option(name, reader, default)
  M.options[name], M.DEFAULTS[name] = reader, default
end

M.read_bytes = size.parse_bytes
M.read_time = time
M.read_count = count
M.read_flag = flag
require("moonbird.migration.backfill_limits").add(M)

--- Reads options, all or some.
---@param raw table
---@return table<string, any>|nil options
---@return string? what is wrong ("option \"min\" must be ...")
---@return string? hint
function M.read_options(raw)
  if type(raw) ~= "table" then
    return fail(("options must be a table, not a %s"):format(type(raw)))
  end
  local options = {}
  for name, value in pairs(raw) do
    local reader = M.options[name]
    if not reader then
      return fail(("has the unknown option \"%s\""):format(tostring(name)),
        nearest.hint(tostring(name), M.options))
    end
    local good, wrong = reader(value)
    if good == nil then
      return fail(("option \"%s\" %s"):format(name, wrong))
    end
    options[name] = good
  end
  return options
end

--- All options: what was changed from other terminals, else the migration's, the configuration's, the defaults.
---@param definition moonbird.backfill.definition
---@param limits? table raw, as they stand in the database; what can't be read is passed over
---@param config? table the section `backfill` of moonbird.lua, as read (M.options)
---@return table<string, any>
function M.settle(definition, limits, config)
  local options = {}
  for _, source in ipairs { M.DEFAULTS, config or {}, definition.options } do
    for name, value in pairs(source) do
      options[name] = value
    end
  end
  for name, value in pairs(limits or {}) do
    local reader = M.options[name]
    local good = reader and reader(value)
    if good ~= nil then
      options[name] = good
    end
  end
  return options
end

-- The table -----------------------------------------------------------------------------------------------

local function text(value, what)
  if type(value) ~= "string" or not value:find("%S") then
    return fail(("\"%s\" must be a string%s"):format(what, value == "" and " that is not empty" or ""))
  end
  return value
end

--- A piece of a statement: it may not end the statement it is put into.
local function fragment(value, what, before, after)
  local good, wrong = text(value, what)
  if not good then
    return fail(wrong)
  end
  local list, problem = sql.statements(before .. value .. "\n" .. after)
  if not list then
    return fail(("\"%s\": %s"):format(what, problem.message))
  elseif #list ~= 1 or value:find(";%s*$") then
    return fail(("\"%s\" must be a part of one statement, without \";\""):format(what))
  end
  return value
end

local function names(value, what)
  if type(value) == "string" then
    value = { value }
  end
  if type(value) ~= "table" or #value == 0 or next(value, #value) ~= nil then
    return fail(("\"%s\" must be a list of column names"):format(what))
  end
  local list, seen = {}, {}
  for i, name in ipairs(value) do
    if type(name) ~= "string" or name == "" then
      return fail(("\"%s\" must be a list of column names"):format(what))
    elseif seen[name] then
      return fail(("\"%s\" names \"%s\" twice"):format(what, name))
    end
    list[i], seen[name] = name, true
  end
  return list
end

local function a_function(value, what)
  if type(value) ~= "function" then
    return fail(("\"%s\" must be a function, not a %s"):format(what, type(value)))
  end
  return value
end

local readers = {
  table = text, key = names, columns = names, transform = a_function, batch = a_function,
  where = function(value, what)
    return fragment(value, what, "select 1 where (", ")")
  end,
  set = function(value, what)
    return fragment(value, what, "update t set ", " where true")
  end,
  options = function(value)
    local options, wrong, hint = M.read_options(value)
    return options, wrong, hint
  end,
}

local MODES = { "set", "transform", "batch" }

local function mode_of(value)
  local said = {}
  for _, name in ipairs(MODES) do
    said[#said + 1] = value[name] ~= nil and name or nil
  end
  if #said ~= 1 then
    return fail(#said == 0 and "says nothing to do: give \"set\", \"transform\" or \"batch\""
      or ("has both \"%s\" and \"%s\"; one of \"set\", \"transform\" and \"batch\" is enough"):format(said[1], said[2]))
  elseif value.columns and not value.transform then
    return fail("has \"columns\" without a \"transform\" that would see them")
  elseif value.transform and not value.columns then
    return fail("has a \"transform\" without \"columns\"", "columns = { \"id\", \"login\" } are what a row holds")
  end
  return said[1] == "transform" and "rows" or said[1]
end

--- Reads the table a migration gives as `backfill`.
---@param value any
---@return moonbird.backfill.definition|nil
---@return string? what is wrong, to follow `"backfill"`
---@return string? hint
function M.read(value)
  if type(value) ~= "table" then
    return fail(("must be a table, not a %s"):format(type(value)))
  end
  local definition = { options = {} }
  for name, item in pairs(value) do
    local reader = readers[name]
    if not reader then
      return fail(("has the unknown key \"%s\""):format(tostring(name)), nearest.hint(tostring(name), readers))
    end
    local good, wrong, hint = reader(item, name)
    if good == nil then
      return fail(wrong, hint)
    end
    definition[name] = good
  end
  if not definition.table then
    return fail("names no \"table\"")
  end
  local mode, wrong, hint = mode_of(definition)
  if not mode then
    return fail(wrong, hint)
  end
  local options = definition.options
  if options.min and options.max and options.min > options.max then
    return fail("has an option \"min\" that is larger than \"max\"")
  end
  definition.mode = mode
  return definition
end

--- What a backfill does to a row, as a hash. Options are not in it: they may change half-way. Functions can't be
--- looked into, so that where there is one the whole file counts.
---@param definition moonbird.backfill.definition
---@param checksum string of the migration's file
---@return string sha256
function M.code(definition, checksum)
  local null = json.null
  return hash(json.encode { definition.mode, definition.table, definition.key or null, definition.where or null,
    definition.set or null, definition.columns or null, definition.mode ~= "set" and checksum or null })
end

return M
