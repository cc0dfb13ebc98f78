--- Asks the sources for the tenants there are, and checks the answer: unique names, legal identifiers, schemas
-- that exist. Everything that is wrong is told at once.
local error_ = require "moonbird.core.error"
local fs = require "moonbird.core.fs"
local json = require "moonbird.core.json"
local literal = require "moonbird.core.literal"
local nearest = require "moonbird.util.nearest"
local sandbox = require "moonbird.core.sandbox"
local text_util = require "moonbird.util.text"

local M = {}

---@class moonbird.tenant
---@field name string its target in the journal
---@field schema? string
---@field vars? table<string, any>
---@field labels table<string, any>
---@field where? moonbird.tenants.where nil: the project's own database
---@field from string which source said so

---@class moonbird.tenants.where a database: by its URL, or on the project's server by name (and host)
---@field key string the same for the same database
---@field url? string
---@field dbname? string
---@field host? string

local LIMITS = { instructions = 200000000, memory = 64 << 20, seconds = 10 }

local FIELDS = { name = "string", schema = "string", vars = "table", labels = "table", url = "string",
  database = "string", host = "string" }

local RESERVED_SCHEMAS = "^pg_"

-- What most tenants have; nobody writes to labels.
local EMPTY = {}

--- Labels given as a list are flags.
local function labels_of(value)
  if not value then
    return EMPTY
  end
  local labels = {}
  for key, item in pairs(value) do
    if math.type(key) == "integer" then
      labels[tostring(item)] = true
    else
      labels[tostring(key)] = item
    end
  end
  return labels
end

--- A database as sources name it.
---@param url? string
---@param dbname? string
---@param host? string
---@return moonbird.tenants.where?
function M.where(url, dbname, host)
  if url then
    return { key = "url " .. url, url = url }
  elseif dbname or host then
    return { key = ("%s/%s"):format(host or "", dbname or ""), dbname = dbname, host = host }
  end
end

local function escape(text)
  return (text:gsub("[^%w%-._~]", function(c)
    return ("%%%02X"):format(c:byte())
  end))
end

--- A tenant as a source gave it -> a tenant; nil, what is wrong with it.
local function normalise(item, from)
  if type(item) == "string" then
    item = { name = item, schema = item }
  elseif type(item) ~= "table" then
    return nil, ("%s gave a %s for a tenant"):format(from, type(item))
  end
  for key, value in pairs(item) do
    if not FIELDS[key] then
      return nil, ("%s: a tenant has the unknown key \"%s\""):format(from, tostring(key)),
        nearest.hint(tostring(key), FIELDS)
    elseif type(value) ~= FIELDS[key] then
      return nil, ("%s: the tenant's \"%s\" must be a %s"):format(from, key, FIELDS[key])
    end
  end
  local name = item.name
  if not name or name == "" then
    return nil, ("%s gave a tenant without a name"):format(from)
  end
  local where = M.where(item.url, item.database, item.host)
  return { name = name, schema = item.schema or (not where and name) or nil, vars = item.vars,
    labels = labels_of(item.labels), where = where, from = from }
end

--- What is wrong with a tenant's name or schema.
---@param tenant { name: string, schema?: string }
---@return string? message
function M.problem(tenant)
  local name, schema = tenant.name, tenant.schema
  if #name > 63 or name:find("%c") then
    return ("\"%s\" can't be a tenant's name: 1 to 63 bytes, no control characters"):format(name:gsub("%c", "?"))
  elseif name == "global" or name:sub(1, 1) == "@" then
    return ("\"%s\" can't be a tenant's name: it is moonbird's own"):format(name)
  elseif schema and (schema == "" or #schema > 63 or schema:find("%z")) then
    return ("tenant \"%s\": \"%s\" can't be a schema's name"):format(name, schema)
  elseif schema and (schema:find(RESERVED_SCHEMAS) or schema == "information_schema") then
    return ("tenant \"%s\": the schema \"%s\" is PostgreSQL's own"):format(name, schema)
  end
end

-- Sources -------------------------------------------------------------------------------------------------

local SCHEMAS = [[
  select nspname::text as name from pg_namespace
  where nspname like $1 and ($2::text is null or nspname not like $2)
    and nspname !~ '^pg_' and nspname <> 'information_schema'
  order by nspname collate "C"]]

local DATABASES = [[
  select datname::text as name from pg_database
  where datname like $1 and ($2::text is null or datname not like $2) and datallowconn and not datistemplate
  order by datname collate "C"]]

--- A JSON value of a query's column, or the text itself.
local function decoded(value)
  if type(value) ~= "string" then
    return value
  end
  local object = json.decode(value)
  return type(object) == "table" and object or nil
end

-- What a statement meets that is to read what is not made yet: no such table, schema, column, function.
local UNMADE = { ["42P01"] = true, ["3F000"] = true, ["42703"] = true, ["42883"] = true }

-- The database that every server has, unless somebody dropped it.
local MAINTENANCE = "postgres"

local ask = {}

function ask.schemas(source, context)
  local session, err = context.open(nil)
  if not session then
    return nil, err
  end
  local result
  result, err = session:query(SCHEMAS, { source.like, source.not_like }, 2)
  if not result then
    return nil, err
  end
  local list = {}
  for i, row in ipairs(result:rows()) do
    list[i] = { name = row.name, schema = row.name }
  end
  return list
end

function ask.query(source, context)
  local session, err = context.open(M.where(source.url))
  if not session then
    return nil, err
  end
  local result
  result, err = session:query(source.sql)
  if err and UNMADE[err.sqlstate] then
    err.hint = "a global migration that is pending may make what it reads: `moonbird up` applies those first"
  end
  if not result then
    return nil, err or error_.new("config", "tenants.query: the statement returned no rows")
  end
  local list = {}
  for i, row in ipairs(result:rows()) do
    row.vars, row.labels = decoded(row.vars), decoded(row.labels)
    list[i] = row
  end
  return list
end

function ask.list(source)
  return source.items
end

function ask.file(source, context)
  local text, message = fs.read(text_util.join_path(context.dir, source.path))
  if not text then
    return nil, error_.new("config", "tenants.file: " .. message)
  end
  local list, why, offset = json.decode(text)
  if type(list) ~= "table" then
    return nil, error_.new("config", ("\"%s\" is no JSON list: %s"):format(source.path, why or "it is no list"),
      { file = source.path, line = offset and text_util.line_at(text, offset) or nil })
  end
  return list
end

local function filled(url, host, name)
  return (url:gsub("{(%a+)}", { name = escape(name), host = host and escape(host) }))
end

--- A session to a server whose databases are asked for: the project's own one, or where its tenants are. The database
--- that all have; where nobody may enter that one, the project's.
local function open_server(source, context, host)
  if not host then
    return context.open(nil)
  end
  local session, err = context.open(M.where(source.url and filled(source.url, host, MAINTENANCE), MAINTENANCE, host))
  if not session and err.code == "connect" and err.message:find("FATAL:", 1, true) then
    local own = context.open(M.where(nil, nil, host))
    return own, not own and err or nil
  end
  return session, err
end

function ask.databases(source, context)
  local list = {}
  for _, host in ipairs(source.hosts or { false }) do
    local session, err = open_server(source, context, host)
    if not session then
      return nil, err
    end
    local result
    result, err = session:query(DATABASES, { source.like, source.not_like }, 2)
    if not result then
      return nil, err
    end
    for _, row in ipairs(result:rows()) do
      local url = source.url and filled(source.url, host, row.name)
      list[#list + 1] = url and { name = row.name, url = url }
        or { name = row.name, database = row.name, host = host or nil }
    end
  end
  return list
end

local function ask_function(fn, context)
  local ok, value = sandbox.compute { fn = fn, args = { context.env }, name = "moonbird.lua",
    instructions = LIMITS.instructions, memory = LIMITS.memory, seconds = LIMITS.seconds }
  if not ok then
    value.code = "config"
    return nil, value
  end
  local plain, reason = sandbox.plain(value, "what the tenants function returns")
  if reason or type(plain) ~= "table" then
    return nil, error_.new("config", reason or "the tenants function must return a list")
  end
  return plain
end

-- Checks --------------------------------------------------------------------------------------------------

local MISSING = [[
  select s.name from unnest($1::text[]) as s(name)
  where not exists (select from pg_namespace n where n.nspname = s.name) order by 1]]

--- Schemas that a tenant says it lives in and that are not there; asked once for each database.
local function find_missing(tenants, context, complain)
  local keys, by_key = {}, {}
  for _, tenant in ipairs(tenants) do
    if tenant.schema and not tenant.schema_seen then
      local key = tenant.where and tenant.where.key or ""
      if not by_key[key] then
        by_key[key], keys[#keys + 1] = {}, key
      end
      table.insert(by_key[key], tenant)
    end
  end
  for _, key in ipairs(keys) do
    local list, names, owners = by_key[key], {}, {}
    for i, tenant in ipairs(list) do
      names[i], owners[tenant.schema] = tenant.schema, tenant
    end
    local session, err = context.open(list[1].where)
    local result
    if session then
      result, err = session:query(MISSING, { literal.array(names) })
    end
    -- A tenant's own database that refuses is that tenant's failure, when its turn comes.
    if not result and (key == "" or err.code ~= "connect") then
      return err
    end
    for _, row in ipairs(result and result:rows() or {}) do
      complain(("the schema \"%s\" of tenant \"%s\" does not exist"):format(row.name, owners[row.name].name),
        ("`moonbird tenant add %s` makes it"):format(owners[row.name].name))
    end
  end
end

---@class moonbird.tenants.context
---@field open fun(where: moonbird.tenants.where|nil): moonbird.session?, moonbird.error? its owner closes it
---@field dir string the project's folder
---@field env table<string, any> handed to a function source
---@field check_schemas? boolean default true

--- All tenants, by name.
---@param settings moonbird.tenants.settings
---@param context moonbird.tenants.context
---@return moonbird.tenant[]?
---@return moonbird.error? err code "config" with every problem, or what the server said
function M.all(settings, context)
  local problems, tenants, names, places = {}, {}, {}, {}
  local function complain(message, hint)
    problems[#problems + 1] = { message = message, hint = hint }
  end
  for i, source in ipairs(settings.sources) do
    local kind = type(source) == "function" and "the function" or "tenants." .. source.source
    local from = #settings.sources > 1 and ("%s (source %d)"):format(kind, i) or kind
    local list, err
    if type(source) == "function" then
      list, err = ask_function(source, context)
    else
      list, err = ask[source.source](source, context)
    end
    if not list then
      return nil, error_.with(err, { detail = "while asking " .. from .. " for the tenants" })
    end
    for _, item in ipairs(list) do
      local tenant, wrong, hint = normalise(item, from)
      wrong = wrong or M.problem(tenant)
      if wrong then
        complain(wrong, hint)
      elseif names[tenant.name] then
        complain(("tenant \"%s\" is there twice, by %s and %s"):format(tenant.name, names[tenant.name].from, from))
      else
        local place = (tenant.where and tenant.where.key or "") .. "\0" .. (tenant.schema or "")
        if places[place] then
          complain(("tenants \"%s\" and \"%s\" have the same schema \"%s\""):format(places[place].name, tenant.name,
            tenant.schema or "(none)"))
        end
        tenant.schema_seen = kind == "tenants.schemas"
        names[tenant.name], places[place] = tenant, tenant
        tenants[#tenants + 1] = tenant
      end
    end
  end
  if context.check_schemas ~= false then
    local err = find_missing(tenants, context, complain)
    if err then
      return nil, err
    end
  end
  if #problems > 0 then
    return nil, error_.new("config", #problems == 1 and problems[1].message
      or text_util.count(#problems, "problem") .. " with the tenants", { problems = problems })
  end
  for i = 2, #tenants do
    if tenants[i].name < tenants[i - 1].name then
      table.sort(tenants, function(a, b)
        return a.name < b.name
      end)
      break
    end
  end
  return tenants
end

return M
