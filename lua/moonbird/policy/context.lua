--- What a rule is given: the migration, its statements, and the facts that are at hand. All of it is made when
-- it is first asked for: most rules look at the head only.
local facts = require "moonbird.policy.facts"

local M = {}

-- What of a migration is told as it is.
local FIELDS = { "version", "version_text", "name", "file", "kind", "text", "checksum", "id", "stable_id",
  "description", "phase", "scope", "compatibility", "declared", "completes", "irreversible", "rationale",
  "purpose", "owner", "data_preservation", "tags", "transaction", "sections", "backfill", "barrier", "waivers" }

-- view -> the migration behind it. Not a field: rules must not get at it.
local loaded = setmetatable({}, { __mode = "k" })

local view_mt = {
  __index = function(view, key)
    if key == "up" or key == "down" then
      local step = facts.step(loaded[view], key)
      step = step.kind ~= "none" and step or nil
      rawset(view, key, step or false)
      return step
    end
  end,
}

local function base_name(file)
  return file:match("([^/]*)$")
end

--- A migration as rules see it.
---@param migration table loaded
---@return table view
function M.migration(migration)
  local view = { base_name = base_name(migration.file), recorded = migration.recorded ~= nil }
  loaded[view] = migration
  for _, key in ipairs(FIELDS) do
    view[key] = migration[key]
  end
  return setmetatable(view, view_mt)
end

--- The migration behind a view.
---@param view table
---@return table
function M.loaded(view)
  return loaded[view]
end

-- The same list is asked about before every step.
local registries = setmetatable({}, { __mode = "k" })

--- The registry as rules see it: one small table for each migration.
---@param migrations table[] loaded, or as scanned; it must not change afterwards
---@return table list with `by_version`
function M.registry(migrations)
  if registries[migrations] then
    return registries[migrations]
  end
  local list = { by_version = {} }
  registries[migrations] = list
  for i, migration in ipairs(migrations) do
    local item = { version = migration.version, version_text = migration.version_text, name = migration.name,
      file = migration.file, base_name = base_name(migration.file), id = migration.id, kind = migration.kind,
      stable_id = migration.stable_id, phase = migration.phase, scope = migration.scope,
      compatibility = migration.compatibility, completes = migration.completes, checksum = migration.checksum,
      backfill = migration.backfill ~= nil }
    list[i], loaded[item] = item, migration
    list.by_version[migration.version] = list.by_version[migration.version] or item
  end
  return list
end

local function mentions_one(text, list)
  for _, word in ipairs(list) do
    if text:find(word, 1, true) then
      return true
    end
  end
  return false
end

--- The statements of a migration's step whose text mentions a name and one of some words. They are worked out at each
--- call: only a rule that is in doubt about another migration asks, and a large folder's facts are not kept for it.
---@param item table of the registry
---@param direction "up"|"down"
---@param name string
---@param any string[] lower case
---@return table[]? statements none where it is not mentioned; nil where the file is not loaded, or a Lua function
function M.mentions(item, direction, name, any)
  local migration = loaded[item]
  local step = migration and rawget(migration, direction)
  if not step or (step.kind == "function" and not migration.recorded) then
    return nil
  elseif step.kind ~= "function" then
    local text = migration.text:lower()
    if not text:find(name:lower(), 1, true) or not mentions_one(text, any) then
      return {}
    end
  end
  return facts.step(migration, direction).statements
end

local context_mt = {
  __index = function(ctx, key)
    local migration = rawget(ctx, "migration")
    if key == "statements" or key == "down_statements" then
      local step = migration and migration[key == "statements" and ctx.direction or "down"]
      local list = step and step.statements or {}
      rawset(ctx, key, list)
      return list
    end
  end,
}

--- A context.
---@param fields table what it holds from the start
---@return table ctx
function M.new(fields)
  return setmetatable(fields, context_mt)
end

return M
