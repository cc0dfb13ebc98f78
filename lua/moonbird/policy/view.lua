--- What a project's rule sees of the engine's tables: the same values, deep, and nothing to write to.
--
-- A rule of a pull request must not be able to change what the next rule looks at. Reading goes through with
-- dots, ipairs, pairs and #. Functions are not shown, but for the methods of those tables that are named as objects:
-- a function elsewhere is a script's own (a migration's step), which must not be handed the engine's tables.
local error_ = require "moonbird.core.error"

local M = {}

-- proxy -> the engine's table, so that a statement handed back is known again.
local originals = setmetatable({}, { __mode = "k" })

local function refuse()
  error(error_.new("sandbox", "what the engine hands to a rule is read-only"), 0)
end

local function wrap(value, owner, seen, objects)
  local kind = type(value)
  if kind == "function" then
    if not objects[owner] then
      return nil
    end
    return function(_, ...)
      local results = table.pack(value(owner, ...))
      for i = 1, results.n do
        results[i] = wrap(results[i], nil, seen, objects)
      end
      return table.unpack(results, 1, results.n)
    end
  elseif kind ~= "table" then
    return value
  elseif seen[value] then
    return seen[value]
  end
  local proxy = setmetatable({}, {
    __index = function(_, key)
      return wrap(value[key], value, seen, objects)
    end,
    __newindex = refuse,
    __len = function()
      return #value
    end,
    __pairs = function(view)
      return function(_, key)
        local next_key, item = next(value, key)
        local shown = wrap(item, value, seen, objects)
        while next_key ~= nil and shown == nil do -- a function
          next_key, item = next(value, next_key)
          shown = wrap(item, value, seen, objects)
        end
        return next_key, shown
      end, view, nil
    end,
    __metatable = false,
  })
  seen[value] = proxy
  originals[proxy] = value
  return proxy
end

--- A deep read-only view.
---@param value table
---@param objects? table<table, true> the tables whose methods may be called
---@return table
function M.of(value, objects)
  return wrap(value, nil, setmetatable({}, { __mode = "k" }), objects or {})
end

--- The engine's table behind a view; a table that is none comes back as it is.
---@param value any
---@return any
function M.original(value)
  return originals[value] or value
end

return M
