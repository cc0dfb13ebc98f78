--- Statement facts: what a rule sees of a migration's SQL. The form is described in docs/reference/policy.md.
--
-- Statements are found by the lexer, which knows every statement there is; what they say comes from
-- libpg_query's tree. A statement that this libpg_query can't read has parsed = false, and the verb and kind
-- that its first words say. Trees are not kept: 4 MB of SQL would be 200 MB of them; `tree` parses again.
local change = require "moonbird.policy.facts.change"
local create = require "moonbird.policy.facts.create"
local judge = require "moonbird.policy.facts.judge"
local names = require "moonbird.policy.facts.names"
local query = require "moonbird.policy.facts.query"
local rights = require "moonbird.policy.facts.rights"
local sorted = require "moonbird.util.sorted"
local sql = require "moonbird.core.sql"
local tree = require "moonbird.policy.facts.tree"

local M = {}

---@class moonbird.policy.facts.source
---@field text string the statement
---@field line_at fun(source: moonbird.policy.facts.source, location: integer): integer line in the file of a 0-based
--- byte of the statement
---@field handlers table<string, function>

local handlers = {}
for _, module in ipairs({ query, rights, change, create }) do
  for name, handler in pairs(module) do
    if name:find("Stmt$") then
      handlers[name] = handler
    end
  end
end

-- Trees that somebody still holds are not made twice.
local trees = setmetatable({}, { __mode = "kv" })

local statement_mt = {
  __index = function(st, key)
    if key ~= "tree" or not rawget(st, "parsed") then
      return nil
    end
    local known = trees[st]
    if not known then
      local kind, node = tree.parse(st.text)
      known = kind and { [kind] = node } or nil
      trees[st] = known
    end
    return known
  end,
}

local schema_verbs = {
  create = true, alter = true, drop = true, rename = true, grant = true, revoke = true, comment = true,
  security_label = true,
}

-- First words of tags -> verbs, for what has no tree.
local tag_verbs = {
  CREATE = "create", ALTER = "alter", DROP = "drop", TRUNCATE = "truncate", INSERT = "insert", UPDATE = "update",
  DELETE = "delete", MERGE = "merge", SELECT = "select", COPY = "copy", GRANT = "grant", REVOKE = "revoke",
  COMMENT = "comment", SET = "set", RESET = "reset", SHOW = "show", DO = "do", CALL = "call", VACUUM = "vacuum",
  ANALYZE = "analyze", REINDEX = "reindex", CLUSTER = "cluster", REFRESH = "refresh", LOCK = "lock",
  EXPLAIN = "explain", NOTIFY = "notify", BEGIN = "transaction", START = "transaction", COMMIT = "transaction",
  ROLLBACK = "transaction", END = "transaction", ABORT = "transaction", SAVEPOINT = "transaction",
  RELEASE = "transaction", SECURITY = "security_label",
}

local dml = { insert = true, update = true, delete = true, merge = true, truncate = true }

--- What the lexer knows, for a statement without a tree.
local function from_tag(st, lexed)
  local first, rest = st.tag:match("^(%S+)%s*(.*)$")
  st.verb = tag_verbs[first] or "other"
  if (st.verb == "create" or st.verb == "alter" or st.verb == "drop") and rest ~= "" then
    local kind = rest:gsub("%s+CONCURRENTLY$", ""):lower():gsub(" ", "_")
    st.kind = kind == "user" and "role" or kind
  elseif dml[st.verb] then
    st.kind = "table"
  end
  local object = lexed and lexed.object
  if object then
    st.schema, st.name = object.schema, object.name
    st.concurrently, st.if_exists, st.if_not_exists = object.concurrently, object.if_exists, object.if_not_exists
    st.unique = object.unique
    if object.relation then
      st.relation = { schema = object.relation_schema, name = object.relation }
    end
  end
  st.relations, st.schemas, st.writes, st.functions = {}, {}, {}, {}
  st.writes_data = dml[st.verb] or (st.verb == "copy" and lexed ~= nil and lexed.copy == "in")
  st.changes_schema = schema_verbs[st.verb] or false
end

-- Locations are mostly asked for in their order: it counts on from the last one.
local function line_at(source, location)
  local text, line, at = source.text, source.line, source.at
  if location < at then
    line, at = source.first_line, 0
  end
  local next_break = text:find("\n", at + 1, true)
  while next_break and next_break <= location do
    line, at = line + 1, next_break
    next_break = text:find("\n", at + 1, true)
  end
  source.line, source.at = line, at
  return line
end

local function add_all(schemas, list)
  for _, schema in ipairs(list) do
    schemas[schema] = true
  end
end

--- Fills a statement from its tree, except what depends on the statements around it.
local function from_tree(st, kind, node)
  local marks = { schemas = {}, path = {} }
  local source = {
    text = st.text, line_at = line_at, handlers = handlers, first_line = st.line, line = st.line, at = 0,
  }
  local handler = handlers[kind]
  if handler then
    handler(source, st, node, marks)
  else
    st.verb = "other"
  end
  local named = tree.gather(kind, node, st.text, marks, not marks.idle)
  local relations, schemas = named.relations, marks.schemas
  -- objects of DROP and COMMENT have no RangeVar
  if marks.dropped or marks.relation then
    local family = names.family(st.kind)
    for _, object in ipairs(st.objects or { marks.relation or {} }) do
      local relation = object.relation or (family == "relation" or marks.relation) and object
      if relation and relation.name and st.kind ~= "index" then
        relations[#relations + 1] = { schema = relation.schema, name = relation.name, access = "ddl" }
      end
    end
  end
  add_all(schemas, marks.path)
  if st.function_ and st.function_.search_path then
    add_all(schemas, st.function_.search_path)
  end
  for _, object in ipairs(st.objects or {}) do
    if object.schema then
      schemas[object.schema] = true
    elseif st.kind == "schema" and object.name then
      schemas[object.name] = true
    end
  end
  if st.schema then
    schemas[st.schema] = true
  end
  if st.kind == "schema" and st.name and st.verb ~= "set" then
    schemas[st.name] = true
  end
  schemas.pg_temp, schemas["$user"], schemas[""] = nil, nil, nil
  st.relations, st.schemas, st.functions = relations, sorted.keys(schemas), sorted.keys(named.functions)
  st.writes = marks.writes or named.writes
  st.writes_data = #st.writes > 0
  st.changes_schema = schema_verbs[st.verb] or st.inner_verb == "create" and st.analyze == true or false
end

--- The statements inside of CREATE SCHEMA as facts of their own, whose names are in that schema.
local function elements(st, node)
  local schemas = {}
  st.elements = {}
  for i, element in ipairs(node.schemaElts) do
    local inner = {
      direction = st.direction, source = st.source, file = st.file, text = st.text, line = st.line,
      last_line = st.last_line, column = st.column, tag = "", class = "plain", transactional = true, index = i,
      parsed = true,
    }
    from_tree(inner, next(element))
    inner.schema = inner.schema or st.name
    if inner.relation then
      inner.relation = { schema = inner.relation.schema or st.name, name = inner.relation.name }
    end
    for _, relation in ipairs(inner.relations) do
      relation.schema = relation.schema or st.name
      st.relations[#st.relations + 1] = relation
    end
    for _, schema in ipairs(inner.schemas) do
      schemas[schema] = true
    end
    st.elements[i] = inner
  end
  for _, schema in ipairs(st.schemas) do
    schemas[schema] = true
  end
  st.schemas = sorted.keys(schemas)
end

local function make(options, text, lexed, line, column)
  local _, breaks = text:gsub("\n", "")
  local st = setmetatable({
    direction = options.direction, source = options.source or "sql", file = options.file, text = text,
    line = line, last_line = line + breaks, column = column, tag = lexed.tag, class = lexed.class,
    transactional = lexed.class ~= "alone", params = options.params, reads = options.reads,
  }, statement_mt)
  local kind, node = tree.parse(text, true)
  if kind then
    st.parsed = true
    from_tree(st, kind, node)
    if kind == "CreateSchemaStmt" and node.schemaElts then
      elements(st, node)
    end
  else
    st.parsed, st.problem = false, node
    from_tag(st, lexed)
  end
  return st
end

---@class moonbird.policy.facts.options
---@field text string
---@field statements? moonbird.sql.statement[] what the lexer found in it; found here when left out
---@field file? string
---@field direction? "up"|"down" default "up"
---@field source? "sql"|"string"|"function" default "sql"
---@field line? integer line in the file of the text's first byte, default 1
---@field column? integer its column, default 1
---@field params? table values bound, for all statements of the text
---@field reads? table

--- Adds the statements of one text to a list, not yet judged.
local function collect(options, out)
  local statements = options.statements
  if not statements then
    local problem
    statements, problem = sql.statements(options.text)
    if not statements then
      return problem
    end
  end
  local line, column = options.line or 1, options.column or 1
  for _, lexed in ipairs(statements) do
    local text = options.text:sub(lexed.first, lexed.last)
    local st = make(options, text, lexed, lexed.line + line - 1,
      lexed.line == 1 and lexed.column + column - 1 or lexed.column)
    out[#out + 1] = st
    st.index = #out
  end
end

--- Judges the statements of one step against each other.
local function judged(statements)
  local context = judge.context()
  judge.look_ahead(context, statements)
  for at, st in ipairs(statements) do
    judge.statement(context, st, at)
    for _, element in ipairs(st.elements or {}) do
      judge.statement(context, element, at)
    end
  end
  return statements
end

--- The facts of a text, as one step.
---@param options moonbird.policy.facts.options
---@return table[] statements
---@return moonbird.sql.problem? problem why the text can't be split (then there are none)
function M.of_sql(options)
  local out = {}
  options.direction = options.direction or "up"
  local problem = collect(options, out)
  return judged(out), problem
end

--- The facts of a bare SQL text.
---@param text string
---@param options? moonbird.policy.facts.options
---@return table[] statements
---@return moonbird.sql.problem? problem
function M.of_text(text, options)
  local own = { text = text }
  for key, value in pairs(options or {}) do
    own[key] = value
  end
  return M.of_sql(own)
end

--- The facts of one direction of a migration.
---@param migration table as moonbird.migration.registry.load() gives it; `recorded[direction]` where there is one
---@param direction "up"|"down"
---@return { kind: "sql"|"function"|"none", opaque: boolean, recorded?: boolean, statements: table[], problem?: table }
function M.step(migration, direction)
  local step = migration[direction]
  if not step then
    return { kind = "none", opaque = false, statements = {} }
  end
  local out, problem = {}, nil
  if step.kind == "function" then
    local recorded = migration.recorded and migration.recorded[direction]
    if not recorded then
      return { kind = "function", opaque = true, statements = {} }
    end
    for _, entry in ipairs(recorded) do
      problem = collect({
        text = entry.text, file = entry.file or migration.file, direction = direction, source = "function",
        line = entry.line or step.line, params = entry.params, reads = entry.reads,
      }, out) or problem
    end
    for _, st in ipairs(out) do
      -- lines inside of a text that Lua made are nowhere in the file
      st.column = 1
    end
    return { kind = "function", opaque = false, recorded = true, statements = judged(out), problem = problem }
  end
  for _, block in ipairs(step.blocks) do
    problem = collect({
      text = step.text, statements = block.statements, file = migration.file, direction = direction,
      source = migration.kind == "lua" and "string" or "sql", line = step.origin_line, column = step.origin_column,
    }, out) or problem
  end
  return { kind = "sql", opaque = false, statements = judged(out), problem = problem }
end

return M
