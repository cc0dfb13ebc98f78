--- What a step makes: the objects that statements have made so far, and those that are made somewhere in the step.
--
-- By family of kinds and name, so that a step of many thousand statements (a schema that is taken over whole) costs one
-- look for each of them.
local names = require "moonbird.policy.facts.names"

---@class moonbird.policy.facts.made
---@field here table<string, table<string, table[]>> family -> name -> entries that are made by now
---@field step table<string, table<string, table[]>> the same for the whole step
local M = {}
M.__index = M

--- Nothing made yet.
---@return moonbird.policy.facts.made
function M.new()
  return setmetatable({ here = {}, step = {} }, M)
end

local function same_relation(a, b)
  if not a or not b then
    return a == b
  end
  return names.same(a, b)
end

-- Policies, triggers, rules, constraints and columns are known by their table too, functions by their arguments.
local function matches(entry, object)
  if not names.same(entry, object) or (object.relation and not same_relation(entry.relation, object.relation)) then
    return false
  end
  return not (entry.signature and object.signature)
    or table.concat(entry.signature, ",") == table.concat(object.signature, ",")
end

local function entries(store, kind, name)
  local family = store[names.family(kind)]
  return family and family[name] or {}
end

local function add(store, kind, entry)
  if not entry.name then
    return -- the server gives it one
  end
  local key = names.family(kind)
  local family = store[key] or {}
  store[key] = family
  local list = family[entry.name] or {}
  family[entry.name] = list
  list[#list + 1] = entry
end

--- The newest of the entries that are made by now, with its place among those of its name.
local function latest(self, kind, object)
  local list = entries(self.here, kind, object.name)
  for i = #list, 1, -1 do
    if matches(list[i], object) then
      return list[i], list, i
    end
  end
end

local function take_out(self, kind, object)
  local entry, list, place = latest(self, kind, object)
  return entry and table.remove(list, place)
end

--- What was made by now under an object's name.
---@param kind string|nil nil: any relation
---@param object? { schema?: string, name?: string, relation?: table, signature?: string[] }
---@return table? entry with `sure`: it can't have been there before
function M:find(kind, object)
  if not object or not object.name then
    return nil
  elseif object.schema == "pg_temp" then
    return { sure = true }
  end
  -- Everything in a schema of this step's own is this step's own.
  return (latest(self, kind or "relation", object)) or entries(self.here, "schema", object.schema)[1]
end

--- Notes an object.
---@param kind string
---@param object { schema?: string, name: string, relation?: table, signature?: string[] }
---@param sure boolean it can't have been there before
---@param more? table<string, any> further fields of the entry
function M:add(kind, object, sure, more)
  local entry = {
    schema = object.schema, name = object.name, sure = sure, relation = object.relation,
    signature = object.signature,
  }
  for key, value in pairs(more or {}) do
    entry[key] = value
  end
  add(self.here, kind, entry)
end

--- Forgets an object that was dropped.
---@param kind string
---@param object { schema?: string, name?: string, relation?: table, signature?: string[] }
function M:drop(kind, object)
  take_out(self, kind, object)
end

--- An object has another name or schema now. Nothing happens when it is not of this step.
---@param kind string
---@param object { schema?: string, name?: string, relation?: table, signature?: string[] }
---@param schema? string nil: as before
---@param name string
function M:rename(kind, object, schema, name)
  local entry = take_out(self, kind, object)
  if entry then
    entry.schema, entry.name = schema or entry.schema, name
    add(self.here, kind, entry) -- the newest under its new name
  end
end

--- Notes an object that some statement of the step makes.
---@param kind string
---@param object { schema?: string, name: string, relation?: table, signature?: string[] }
---@param at integer the statement's place in the step
---@param st table the statement
function M:foresee(kind, object, at, st)
  add(self.step, kind, { kind = kind, schema = object.schema, name = object.name, relation = object.relation,
    signature = object.signature, at = at, st = st })
end

--- What is made after a place in the step under an object's name.
---@param at integer
---@param kind string
---@param object { schema?: string, name?: string, relation?: table, signature?: string[] }
---@return { kind: string, st: table }? entry
function M:later(at, kind, object)
  for _, entry in ipairs(entries(self.step, kind, object.name)) do
    if entry.at > at and matches(entry, object) then
      return entry
    end
  end
end

return M
