--- Where tenants come from: the constructors that moonbird.lua sees as `tenants`.
--
-- A constructor checks what it is given and returns a plain table { source = kind, ... }; resolve.lua asks it.
local error_ = require "moonbird.core.error"
local nearest = require "moonbird.util.nearest"

local M = {}

-- What each kind may be told: key to type; `needs` must be there.
local KINDS = {
  schemas = { keys = { like = "string", not_like = "string" }, needs = { "like" } },
  query = { keys = { sql = "string", url = "string" }, needs = { "sql" } },
  databases = { keys = { like = "string", not_like = "string", url = "string", hosts = "table" }, needs = { "like" } },
}

local function fail(message, hint)
  error(error_.new("config", message, { hint = hint }), 0)
end

local function make(kind)
  local known = KINDS[kind]
  return function(options)
    if type(options) ~= "table" then
      fail(("tenants.%s takes a table, like tenants.%s{ %s = ... }"):format(kind, kind, known.needs[1]))
    end
    local source = { source = kind }
    for key, value in pairs(options) do
      if not known.keys[key] then
        fail(("tenants.%s has no key \"%s\""):format(kind, tostring(key)), nearest.hint(tostring(key), known.keys))
      elseif type(value) ~= known.keys[key] then
        fail(("tenants.%s: \"%s\" must be a %s, not a %s"):format(kind, key, known.keys[key], type(value)))
      end
      source[key] = value
    end
    for _, key in ipairs(known.needs) do
      if not source[key] then
        fail(("tenants.%s needs \"%s\""):format(kind, key))
      end
    end
    return source
  end
end

--- The table `tenants` of moonbird.lua.
---@return table
function M.constructors()
  return {
    schemas = make("schemas"), query = make("query"), databases = make("databases"),
    list = function(items)
      if type(items) ~= "table" then
        fail("tenants.list takes a list of names or of tables { name = ..., schema = ... }")
      end
      return { source = "list", items = items }
    end,
    file = function(path)
      if type(path) ~= "string" or path == "" then
        fail("tenants.file takes the name of a JSON file")
      end
      return { source = "file", path = path }
    end,
  }
end

return M
