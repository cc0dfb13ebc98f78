--- The table that a Lua migration returns: which keys there are, and what each may hold.
local duration = require "moonbird.util.duration"
local nearest = require "moonbird.util.nearest"

local M = {}

--- Values of the keys that are one of few words; the first is the default.
M.choices = {
  phase = { "expand", "contract" },
  scope = { "global", "tenant" },
  compatibility = { "backward_compatible", "contract_breaking" },
}

--- The word as it is kept: case, "-" and CamelCase do not matter ("BackwardCompatible").
---@param key string "phase", "scope" or "compatibility"
---@param word string
---@return string? word nil when it is none of the choices
function M.choice(key, word)
  local plain = word:gsub("(%l)(%u)", "%1_%2"):lower():gsub("[%s-]+", "_")
  for _, value in ipairs(M.choices[key]) do
    if value == plain then
      return value
    end
  end
end

local function text(value)
  if type(value) ~= "string" then
    return nil, ("must be a string, not a %s"):format(type(value))
  end
  if not value:find("%S") then
    return nil, "must not be empty"
  end
  return value
end

local function one_of(key)
  return function(value)
    local values = M.choices[key]
    for _, known in ipairs(values) do
      if value == known then
        return value
      end
    end
    local names = "\"" .. table.concat(values, "\" or \"") .. "\""
    if type(value) ~= "string" then
      return nil, ("must be %s, not a %s"):format(names, type(value))
    end
    local near = M.choice(key, value) or nearest.find(value, values)
    return nil, ("must be %s, not \"%s\""):format(names, value),
      near and ("did you mean \"%s\"?"):format(near) or nil
  end
end

local function boolean(value)
  if type(value) ~= "boolean" then
    return nil, ("must be true or false, not a %s"):format(type(value))
  end
  return value
end

local function timeouts(value)
  if type(value) ~= "table" then
    return nil, ("must be a table like { lock = \"5s\", statement = \"1m\" }, not a %s"):format(type(value))
  end
  local result = {}
  for key, item in pairs(value) do
    if key ~= "lock" and key ~= "statement" then
      return nil, ("has the unknown key \"%s\""):format(tostring(key)),
        nearest.hint(tostring(key), { "lock", "statement" })
    end
    local ms, wrong = duration.parse(item)
    if not ms then
      return nil, ("\"%s\": %s"):format(key, wrong)
    end
    result[key] = ms
  end
  return result
end

local function step(value)
  if type(value) ~= "function" and type(value) ~= "string" then
    return nil, ("must be a function or a string of SQL, not a %s"):format(type(value))
  end
  return value
end

local function versions(value)
  local list = type(value) == "table" and value or { value }
  local result = {}
  for _, item in ipairs(list) do
    local number = (math.type(item) == "integer" and item)
      or (type(item) == "string" and item:match("^%d+$") and math.tointeger(tonumber(item)))
    if not number or number < 0 then
      return nil, "must be a version or a list of versions (integers, or digits in a string)"
    end
    result[#result + 1] = number
  end
  if #result == 0 or (type(value) == "table" and next(value, #value) ~= nil) then
    return nil, "must be a version or a list of versions (integers, or digits in a string)"
  end
  return result
end

local function tags(value)
  local good = type(value) == "table"
  for key, item in pairs(good and value or {}) do
    good = good and math.type(key) == "integer" and type(item) == "string"
  end
  if not good then
    return nil, "must be a list of strings"
  end
  return value
end

local function list_of_tables(value)
  local good = type(value) == "table"
  for key, item in pairs(good and value or {}) do
    good = good and math.type(key) == "integer" and type(item) == "table"
  end
  if not good then
    return nil, "must be a list of tables"
  end
  return value
end

local function a_backfill(value)
  return require("moonbird.migration.backfill").read(value)
end

--- All keys; each reads a raw value: the value kept, or nil, what is wrong ("must be ..."), a hint.
M.keys = {
  description = text, phase = one_of("phase"), scope = one_of("scope"),
  compatibility = one_of("compatibility"), transaction = boolean, timeouts = timeouts, up = step,
  down = step, irreversible = text, completes = versions, backfill = a_backfill, barrier = boolean,
  waivers = list_of_tables, owner = text, purpose = text, rationale = text, data_preservation = text, id = text,
  tags = tags,
}

--- Fills in what was not said; `declared` tells what was. A contract migration counts as breaking until it
--- says otherwise.
---@param fields table
---@return table fields itself
function M.defaults(fields)
  fields.declared = { phase = fields.phase ~= nil, scope = fields.scope ~= nil,
    compatibility = fields.compatibility ~= nil }
  fields.phase = fields.phase or "expand"
  fields.scope = fields.scope or "global"
  fields.compatibility = fields.compatibility
    or (fields.phase == "contract" and "contract_breaking" or "backward_compatible")
  if fields.transaction == nil then
    fields.transaction = true
  end
  fields.timeouts = fields.timeouts or {}
  return fields
end

--- Reads the table a migration returned.
---@param value table without metatables (core.sandbox.plain)
---@param report fun(key: string?, message: string, hint?: string) called for each problem
---@return table? fields with defaults filled in; nil when there was a problem
function M.read(value, report)
  local fields, problems = {}, 0
  local function complain(...)
    problems = problems + 1
    report(...)
  end
  local keys = {}
  for key in pairs(value) do
    keys[#keys + 1] = key
  end
  table.sort(keys, function(a, b)
    return tostring(a) < tostring(b)
  end)
  for _, key in ipairs(keys) do
    local reader = M.keys[key]
    if not reader then
      complain(tostring(key), ("unknown key \"%s\""):format(tostring(key)), nearest.hint(tostring(key), M.keys))
    else
      local good, wrong, hint = reader(value[key])
      if good == nil then
        complain(key, ("\"%s\" %s"):format(key, wrong), hint)
      end
      fields[key] = good
    end
  end
  if value.up == nil and value.backfill == nil then
    complain(nil, "the migration has no \"up\"", "up is a function(db) or a string of SQL")
  elseif value.backfill ~= nil and value.transaction == false then
    complain("transaction", "the \"up\" of a backfill runs in one transaction",
      "put what can't into a migration of its own, before this one")
  end
  if value.down ~= nil and value.irreversible ~= nil then
    complain("irreversible", "the migration has a \"down\" and says it is irreversible", "keep one of the two")
  end
  if problems > 0 then
    return nil
  end
  return M.defaults(fields)
end

return M
