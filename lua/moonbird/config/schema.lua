--- What moonbird.lua may say: the keys, how each is read, and what is wrong with it.
--
-- A reader takes the raw value and returns the value moonbird keeps, or nil and what is wrong with it
-- ("must be ..."), and perhaps a hint. Every problem of a file is reported at once.
local duration = require "moonbird.util.duration"
local lua_source = require "moonbird.util.lua_source"
local nearest = require "moonbird.util.nearest"
local size = require "moonbird.util.size"
local text_util = require "moonbird.util.text"

local M = {}

local function typed(kind, what)
  return function(value)
    if type(value) ~= kind then
      return nil, ("must be %s, not a %s"):format(what or "a " .. kind, type(value))
    end
    return value
  end
end

local function identifier(value)
  if type(value) ~= "string" or value == "" or #value > 63 or value:find("%z") then
    return nil, "must be the name of a schema (1 to 63 bytes)"
  end
  if value:match("^pg_") or value == "information_schema" then
    return nil, ("\"%s\" belongs to PostgreSQL"):format(value)
  end
  return value
end

local function folder(value)
  if type(value) ~= "string" or value == "" or value:find("%c") then
    return nil, "must be the name of a folder"
  end
  local plain = value:gsub("^%./+", ""):gsub("(.)/+$", "%1")
  return plain == "" and "." or plain
end

--- "dir", "dir,dir" (as an environment variable says it) or a list of folders -> list.
local function folders(value)
  if type(value) == "string" then
    value = text_util.list(value)
  elseif type(value) ~= "table" then
    return nil, ("must be a folder or a list of folders, not a %s"):format(type(value))
  end
  local list, seen = {}, {}
  for key in pairs(value) do
    if math.type(key) ~= "integer" or key < 1 or key > #value then
      return nil, ("must be a list of folders; \"%s\" is no position in a list"):format(tostring(key))
    end
  end
  for i, item in ipairs(value) do
    local dir, wrong = folder(item)
    if not dir then
      return nil, wrong
    end
    if seen[dir] then
      return nil, ("names the folder \"%s\" twice"):format(dir)
    end
    list[i], seen[dir] = dir, true
  end
  if #list == 0 then
    return nil, "must name at least one folder"
  end
  return list
end

local function names(value)
  if type(value) == "string" then
    value = text_util.list(value)
  elseif type(value) ~= "table" then
    return nil, ("must be a schema or a list of schemas, not a %s"):format(type(value))
  end
  local list = {}
  for i, item in ipairs(value) do
    if type(item) ~= "string" or item == "" or #item > 63 then
      return nil, "must name schemas (1 to 63 bytes each)"
    end
    list[i] = item:match('^"(.*)"$') or item
  end
  if #list == 0 or #list ~= #value then
    return nil, "must name at least one schema"
  end
  return list
end

local function url(value)
  if type(value) ~= "string" then
    return nil, ("must be a string, not a %s"):format(type(value))
  end
  return value
end

local function seconds(value)
  local number = tonumber(value)
  if not number or number < 0 or number ~= number or number > 2147483 then
    return nil, ("must be a number of seconds, not \"%s\""):format(tostring(value))
  end
  return math.tointeger(math.floor(number * 1000 + 0.5))
end

--- Kept for their own readers; only the outer type is looked at here.
local function section(...)
  local kinds = { ... }
  return function(value)
    for _, kind in ipairs(kinds) do
      if type(value) == kind then
        return value
      end
    end
    return nil, ("must be a %s, not a %s"):format(table.concat(kinds, " or a "), type(value))
  end
end

M.readers = {
  folders = folders, names = names, duration = duration.parse, seconds = seconds,
  count = size.parse_count, bytes = size.parse_bytes, identifier = identifier,
}

-- A table here is a group of keys; a function reads one value.
local settings = {
  url = url,
  migrations = folders,
  journal = { schema = identifier },
  timeouts = {
    lock = duration.parse, statement = duration.parse, run = duration.parse, lock_wait = duration.parse,
    lock_total = duration.parse,
  },
  limits = { instructions = size.parse_count, memory = size.parse_bytes },
  search_path = names,
  policy = section("table"),
  tenants = section("table", "function"),
  backfill = section("table"),
  protected = section("boolean", "table"),
}

--- The keys of one environment.
M.environment = settings

--- The keys of moonbird.lua itself: those of an environment, and these.
M.file = {
  default_environment = typed("string"),
  environments = typed("table"),
  git = section("boolean", "table"),
}
for key, reader in pairs(settings) do
  M.file[key] = reader
end

---@class moonbird.config.reading
---@field text string the file's text, for line numbers
---@field name string the file as shown
---@field problems table[]

local function complain(reading, path, message, hint)
  reading.problems[#reading.problems + 1] = {
    file = reading.name,
    line = lua_source.key_line(reading.text, path),
    message = message,
    hint = hint,
  }
end

local function below(path, key)
  local longer = table.move(path, 1, #path, 1, {})
  longer[#longer + 1] = key
  return longer
end

--- Reads a table by its keys.
---@param reading moonbird.config.reading problems are added to it
---@param value table
---@param keys table<string, function|table>
---@param path string[] where the table stands
---@return table
function M.read(reading, value, keys, path)
  local result = {}
  local sorted = {}
  for key in pairs(value) do
    sorted[#sorted + 1] = key
  end
  table.sort(sorted, function(a, b)
    return tostring(a) < tostring(b)
  end)
  for _, key in ipairs(sorted) do
    local item, at = value[key], below(path, tostring(key))
    local reader, shown = keys[key], table.concat(at, ".")
    if not reader then
      complain(reading, at, ("unknown key \"%s\""):format(shown), nearest.hint(tostring(key), keys))
    elseif type(reader) == "table" then
      if type(item) == "table" then
        result[key] = M.read(reading, item, reader, at)
      else
        complain(reading, at, ("\"%s\" must be a table, not a %s"):format(shown, type(item)))
      end
    else
      local good, wrong, hint = reader(item)
      if good == nil then
        complain(reading, at, ("\"%s\": %s"):format(shown, wrong), hint)
      end
      result[key] = good
    end
  end
  return result
end

--- The keys of a table; those of a section that another layer reads where the table has it.
local function keys_for(value, keys, sections)
  local all = {}
  for key, reader in pairs(keys) do
    local give = value[key] ~= nil and sections[key]
    all[key] = give and give() or reader
  end
  return all
end

--- Reads what moonbird.lua returned: its own keys and each environment's.
---@param reading moonbird.config.reading problems are added to it
---@param value table
---@param sections table<string, fun(): table> as of config.load
---@return table file
function M.read_file(reading, value, sections)
  local file = M.read(reading, value, keys_for(value, M.file, sections), {})
  local environments = {}
  for name, item in pairs(file.environments or {}) do
    local path = { "environments", tostring(name) }
    if type(name) ~= "string" or not name:match("^[%w_][%w_.-]*$") then
      complain(reading, path, ("\"%s\" is no name for an environment"):format(tostring(name)),
        "letters, digits, \"_\", \"-\" and \".\"")
    elseif type(item) ~= "table" then
      complain(reading, path, ("\"environments.%s\" must be a table, not a %s"):format(name, type(item)))
    else
      environments[name] = M.read(reading, item, keys_for(item, M.environment, sections), path)
    end
  end
  file.environments = environments
  if file.default_environment and not environments[file.default_environment] then
    complain(reading, { "default_environment" },
      ("\"default_environment\" names \"%s\", which \"environments\" does not have")
        :format(file.default_environment), nearest.hint(file.default_environment, environments))
  end
  table.sort(reading.problems, function(a, b)
    if (a.line or 0) ~= (b.line or 0) then
      return (a.line or 0) < (b.line or 0)
    end
    return a.message < b.message
  end)
  return file
end

return M
