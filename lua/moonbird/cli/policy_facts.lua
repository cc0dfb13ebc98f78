--- moonbird policy facts FILE: what a rule would see of a migration, as JSON.
local clean = require "moonbird.report.clean"
local context = require "moonbird.policy.context"
local error_ = require "moonbird.core.error"
local fs = require "moonbird.core.fs"
local json = require "moonbird.core.json"
local name_of = require "moonbird.migration.name"
local registry = require "moonbird.migration.registry"
local sys = require "moonbird.core.sys"

local M = {}

local ARRAY = getmetatable(json.array {})
local MAX_DEPTH = 100 -- of a parse tree; JSON goes no deeper than 200

-- What is a list also when it is empty.
local LISTS = { actions = true, args = true, columns = true, completes = true, functions = true, grantees = true,
  objects = true, params = true, privileges = true, reads = true, reference_columns = true, relations = true,
  schemas = true, tags = true, writes = true }

--- A value for JSON: functions are left out, text is valid UTF-8, a table with items is a list.
local function plain(value, depth, name)
  local kind = type(value)
  if kind == "string" then
    return clean.utf8(value)
  elseif kind == "number" or kind == "boolean" then
    return value
  elseif kind ~= "table" then
    return nil
  elseif depth > MAX_DEPTH then
    return "..."
  end
  local is_list = #value > 0 or (LISTS[name] and next(value) == nil) or getmetatable(value) == ARRAY
  local result = is_list and json.array {} or {}
  for key, item in pairs(value) do
    if math.type(key) == "integer" and is_list or type(key) == "string" and not is_list then
      result[key] = plain(item, depth + 1, key)
    end
  end
  return result
end

local function statement_data(statement, tree)
  local data = {}
  for key, value in pairs(statement) do
    if type(key) == "string" and key ~= "tree" and not key:find("_$") then
      data[key] = plain(value, 1, key)
    end
  end
  data["function"] = plain(statement.function_, 1)
  data.tree = tree and plain(statement.tree, 1) or nil
  return data
end

local function step_data(step, tree)
  if not step then
    return nil
  end
  local list = json.array {}
  for i, statement in ipairs(step.statements) do
    list[i] = statement_data(statement, tree)
  end
  return { kind = step.kind, opaque = step.opaque or false, statements = list }
end

--- The file as an entry of the registry, wherever it lies.
local function entry_of(file)
  local text, message = fs.read(file)
  if not text then
    return nil, error_.new("usage", message)
  end
  local parsed, problem = name_of.parse(file:match("[^/]*$"))
  if not parsed then
    return nil, error_.new("usage", ("\"%s\" is no migration: %s"):format(file,
      problem and problem.message or "its name is not <digits>_<snake_case>.lua or .sql"))
  end
  parsed.file, parsed.path, parsed.text, parsed.checksum = file, file, text, sys.sha256(text)
  return parsed
end

-- Of the migration what rules see besides its statements.
local FIELDS = { "version_text", "name", "file", "base_name", "kind", "id", "stable_id", "checksum", "description",
  "phase", "scope", "compatibility", "declared", "completes", "irreversible", "rationale", "purpose", "owner",
  "data_preservation", "tags", "transaction", "sections", "barrier" }

--- Prints the facts.
---@param args table subject (the file), tree
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  if not args.subject then
    return nil, error_.new("usage", "policy facts takes a migration's file")
  end
  local entry, err = entry_of(args.subject)
  if not entry then
    return nil, err
  end
  local migration, problems = registry.load(entry)
  if not migration then
    return nil, registry.error(problems)
  end
  local view = context.migration(migration)
  local facts = {}
  for _, key in ipairs(FIELDS) do
    facts[key] = plain(view[key], 1, key)
  end
  facts.version = tostring(view.version)
  facts.up, facts.down = step_data(view.up, args.tree), step_data(view.down, args.tree)
  report:write(json.encode(facts, true) .. "\n")
  return { facts = facts }
end

return M
