--- A database's catalog as text: every object with its definition, to be compared with another state of it, or
-- one schema with another.
--
-- The number of queries is fixed, however many schemas and objects there are: one for each kind of object, all in one
-- round trip and one snapshot. Left out: rows, the last values of sequences, the order of columns, roles, and what
-- belongs to an extension.
local literal = require "moonbird.core.literal"
local queries = require "moonbird.exec.catalog_queries"
local sorted = require "moonbird.util.sorted"
local sql = require "moonbird.core.sql"
local sys = require "moonbird.core.sys"

local M = {}

-- What decides how the server writes definitions. An empty search_path: every name is qualified.
local SETTINGS = [[
  select set_config('search_path', '', true), set_config('quote_all_identifiers', 'off', true),
    set_config('datestyle', 'ISO, YMD', true), set_config('intervalstyle', 'postgres', true),
    set_config('timezone', 'UTC', true), set_config('extra_float_digits', '1', true),
    set_config('bytea_output', 'hex', true)]]

---@class moonbird.catalog.options
---@field schemas? string[] only these, and nothing that is in no schema; default: all but the system's
---@field exclude? string[] schemas left out
---@field relative? boolean names without their own schema: what two tenants have alike has the same text

local function array(list)
  local parts = {}
  for i, item in ipairs(list) do
    parts[i] = sql.literal(item)
  end
  return ("array[%s]::name[]"):format(table.concat(parts, ", "))
end

local function conditions(options)
  local wanted = "n.nspname !~ '^pg_' and n.nspname <> 'information_schema'"
  if options.exclude and #options.exclude > 0 then
    wanted = wanted .. " and n.nspname <> all (" .. array(options.exclude) .. ")"
  end
  if options.schemas then
    wanted = wanted .. " and n.nspname = any (" .. array(options.schemas) .. ")"
  end
  return { S = "(" .. wanted .. ")", G = options.schemas and "false" or "true",
    R = options.relative and "true" or "false" }
end

-- Takes the own schema's name away wherever it qualifies something. Not behind a letter, a quote or a dot: there it
-- is the end of another name.
local STRIPPED = [[case when strpos(COLUMN, quote_ident(q.schema) || '.') = 0 then COLUMN
    else regexp_replace(COLUMN, '(?<![[:alnum:]_$."])'
      || regexp_replace(quote_ident(q.schema), '([^[:alnum:]_])', '\\\1', 'g') || '\.', '', 'g') end]]

local function stripped(column)
  return (STRIPPED:gsub("COLUMN", column))
end

local KEYS = {
  absolute = "case when q.schema is null then q.path "
    .. "else concat_ws('.', quote_ident(q.schema), nullif(q.path, '')) end",
  absolute_whole = "q.path",
  relative = ("case when q.schema is null then q.path else %s end"):format(stripped "q.path"),
}
KEYS.relative_whole = KEYS.relative

--- A query of queries.lua made into one of schema, key and definition.
local function rows_of(query, options, values)
  local key = KEYS[(options.relative and "relative" or "absolute") .. (query.whole and "_whole" or "")]
  local definition = "q.definition"
  if options.relative then
    definition = ("case when q.schema is null then q.definition else %s end"):format(stripped "q.definition")
  end
  local inner = query.sql:gsub("%$([SGR])", values)
  return ("select q.schema, q.kind || ' ' || %s, coalesce(%s, '') from (%s) q(schema, kind, path, definition)")
    :format(key, definition, inner)
end

---@class moonbird.catalog.reader
---@field session moonbird.session
---@field texts string[] the queries
---@field names? string[] what they are prepared as
local reader_mt = {}
reader_mt.__index = reader_mt

local function new_reader(session, options)
  local values, texts = conditions(options), {}
  for i, query in ipairs(queries.list(session:server_version())) do
    texts[i] = rows_of(query, options, values)
  end
  return setmetatable({ session = session, texts = texts }, reader_mt)
end

--- Reads everything in one round trip -> results of rows (schema, key, definition).
local function read_results(reader)
  local session = reader.session
  local nested = session:state() == "in_txn"
  local items = { { nested and "savepoint moonbird_catalog"
    or "begin isolation level repeatable read read only" }, { SETTINGS } }
  for i, text in ipairs(reader.texts) do
    items[#items + 1] = { reader.names and "execute " .. reader.names[i] or text }
  end
  local last = #items
  items[last + 1] = { nested and "rollback to savepoint moonbird_catalog" or "commit" }
  items[last + 2] = nested and { "release savepoint moonbird_catalog" } or nil
  local results, err = session:batch(items)
  if not results then
    if not nested then
      session:rollback()
    end
    return nil, err
  end
  return table.move(results, 3, last, 1, {})
end

local function each(reader, take)
  local results, err = read_results(reader)
  if not results then
    return nil, err
  end
  for _, result in ipairs(results) do
    for i = 1, result:count() do
      take(result:value(i, 1) or "", result:value(i, 2), result:value(i, 3))
    end
    result:close()
  end
  return true
end

--- Reads the catalog once more.
---@return table<string, string>|nil map "kind schema.name[.sub]" to definition
---@return moonbird.error? err
function reader_mt:read()
  local map = {}
  local ok, err = each(self, function(_, key, definition)
    map[key] = definition
  end)
  return ok and map, err
end

--- For reading often in a session of its own: the server plans the queries once.
---@param session moonbird.session idle; its prepared statements stay until it is closed
---@param options? moonbird.catalog.options
---@return moonbird.catalog.reader|nil
---@return moonbird.error? err
function M.prepare(session, options)
  local reader = new_reader(session, options or {})
  local items, names = {}, {}
  for i, text in ipairs(reader.texts) do
    names[i] = "moonbird_catalog_" .. i
    items[i] = { ("prepare %s as %s"):format(names[i], text) }
  end
  local results, err = session:batch(items)
  if not results then
    return nil, err
  end
  reader.names = names
  return reader
end

--- Reads the catalog. The session may be in a transaction; it is left as it was.
---@param session moonbird.session
---@param options? moonbird.catalog.options
---@return table<string, string>|nil map "kind schema.name[.sub]" to definition
---@return moonbird.error? err
function M.read(session, options)
  return new_reader(session, options or {}):read()
end

--- Reads the catalog, schema by schema: with `relative` the maps can be compared with each other.
---@param session moonbird.session
---@param options? moonbird.catalog.options
---@return table<string, table<string, string>>|nil schema ("": what is in none) to map
---@return moonbird.error? err
function M.by_schema(session, options)
  local schemas = {}
  local ok, err = each(new_reader(session, options or {}), function(schema, key, definition)
    local map = schemas[schema]
    if not map then
      map = {}
      schemas[schema] = map
    end
    map[key] = definition
  end)
  return ok and schemas, err
end

-- With its lengths, so that no two catalogs make the same text; sorted the same way in every database.
local HASHES = [[
  select %s, md5(string_agg(md5(length(r.key) || ' ' || r.key || r.definition), '' order by r.key collate "C"))
  from (%s) r(schema, key, definition) group by 1]]

--- A hash of each schema's catalog, made by the server: one query, one short row for each schema.
---@param session moonbird.session idle
---@param schemas? string[] these, names relative to their own; nil: one hash of the whole database, under ""
---@param exclude? string[] schemas left out of the whole
---@return table<string, string>|nil schema to hash; one that does not exist is not in it
---@return moonbird.error? err
function M.hashes(session, schemas, exclude)
  local options = { relative = schemas ~= nil, exclude = exclude }
  local values = conditions(options)
  if schemas then
    -- As a parameter: thousands of names would be repeated in the text of each query. And as a set: planned as
    -- `= any`, 10,000 schemas take five times as long.
    values.S, values.G = "(n.nspname in (select unnest($1::name[])))", "false"
  end
  local texts = {}
  for i, query in ipairs(queries.list(session:server_version())) do
    texts[i] = rows_of(query, options, values)
  end
  local text = HASHES:format(schemas and "r.schema::text" or "''", table.concat(texts, "\nunion all\n"))
  local results, err = session:batch { { "begin isolation level repeatable read read only" }, { SETTINGS },
    schemas and { text, literal.array(schemas) } or { text }, { "commit" } }
  if not results then
    session:rollback()
    return nil, err
  end
  local hashes = {}
  for i = 1, results[3]:count() do
    hashes[results[3]:value(i, 1) or ""] = results[3]:value(i, 2)
  end
  return hashes
end

---@class moonbird.catalog.difference
---@field key string
---@field before? string nil: it was not there
---@field after? string nil: it is not there any more

--- What differs between two catalogs, by key.
---@param before table<string, string>
---@param after table<string, string>
---@return moonbird.catalog.difference[]
function M.diff(before, after)
  local list = {}
  for key, definition in pairs(before) do
    if after[key] ~= definition then
      list[#list + 1] = { key = key, before = definition, after = after[key] }
    end
  end
  for key, definition in pairs(after) do
    if before[key] == nil then
      list[#list + 1] = { key = key, after = definition }
    end
  end
  table.sort(list, function(a, b)
    return a.key < b.key
  end)
  return list
end

--- A hash of all of a catalog: equal for equal maps.
---@param map table<string, string>
---@return string sha256, hex
function M.digest(map)
  local parts = {}
  for i, key in ipairs(sorted.keys(map)) do
    -- With its lengths, so that no two maps make the same text.
    parts[i] = ("%d %s %d %s"):format(#key, key, #map[key], map[key])
  end
  return sys.sha256(table.concat(parts, "\n"))
end

return M
