--- What a project's rule may ask the database: reading, and neither the journal nor the server's own files,
--- settings and secrets.
--
-- A rule comes from a repository, and its query runs with the rights of whoever migrates. So a query is read
-- before it is sent: its parse tree, each relation it names, the definitions of views, each function. What is
-- not known to be harmless is refused: what libpg_query can't parse, functions that are not PostgreSQL's own,
-- and those of PostgreSQL that are volatile, which are the ones that reach files, settings and other
-- sessions. Reads of the journal that come about in any other way (by an operator's function, say) are seen
-- afterwards by their scans and locks; then the answer is withheld.
local error_ = require "moonbird.core.error"
local json = require "moonbird.core.json"
local literal = require "moonbird.core.literal"
local sql = require "moonbird.core.sql"

local M = {}

local MOST_TEXT = 64 * 1024
local MOST_VIEWS = 100

local function set(names)
  local result = {}
  for name in names:gmatch("%S+") do
    result[name] = true
  end
  return result
end

-- Volatile, and only tell sizes, clocks and the state of the server.
local HARMLESS = set [[pg_relation_size pg_table_size pg_total_relation_size pg_indexes_size pg_database_size
  pg_tablespace_size clock_timestamp timeofday pg_is_in_recovery pg_blocking_pids pg_partition_tree
  pg_partition_ancestors pg_current_wal_lsn pg_last_wal_replay_lsn pg_last_xact_replay_timestamp txid_status]]

-- Not volatile by the catalog, but they run SQL given as text or tell settings.
local HARMFUL = set [[database_to_xml database_to_xmlschema database_to_xml_and_xmlschema schema_to_xml
  schema_to_xmlschema schema_to_xml_and_xmlschema table_to_xml table_to_xmlschema table_to_xml_and_xmlschema
  query_to_xml query_to_xmlschema query_to_xml_and_xmlschema cursor_to_xml cursor_to_xmlschema ts_stat ts_rewrite
  current_setting pg_show_all_settings pg_config]]

-- Of pg_catalog and information_schema: secrets, the server's files and settings, samples of tables' data.
local SECRET = set [[pg_authid pg_shadow pg_user_mapping pg_user_mappings pg_largeobject pg_hba_file_rules
  pg_ident_file_mappings pg_file_settings pg_settings pg_config pg_db_role_setting pg_subscription
  pg_foreign_server pg_statistic pg_statistic_ext_data pg_stats pg_stats_ext pg_stats_ext_exprs
  _pg_user_mappings _pg_foreign_servers user_mapping_options foreign_server_options]]

local SECRET_SETTINGS = set [[all primary_conninfo ssl_passphrase_command archive_command restore_command
  archive_cleanup_command recovery_end_command config_file hba_file ident_file data_directory
  external_pid_file krb_server_keyfile ssl_key_file]]

local CATALOGS = { pg_catalog = true, information_schema = true }

local HINT = "rules may ask for PostgreSQL's own functions that only read, and for the project's tables"

local function refuse(message, hint)
  error(error_.new("sandbox", "a rule's query " .. message, { hint = hint or HINT }), 0)
end

local function names_of(list)
  local names = {}
  for _, item in ipairs(list or {}) do
    names[#names + 1] = item.String and item.String.sval or nil
  end
  return names
end

-- The tree ----------------------------------------------------------------------------------------------

local visit = {}

local function walk(node, found)
  for key, value in pairs(node) do
    if type(value) == "table" then
      if type(key) == "string" then
        if key:find("Stmt$") and key ~= "SelectStmt" then
          refuse(("may hold nothing but SELECT, not %s"):format(key))
        elseif visit[key] then
          visit[key](value, found)
        end
      end
      walk(value, found)
    end
  end
end

function visit.SelectStmt(node)
  if node.intoClause then
    refuse("can't make a table")
  elseif node.lockingClause then
    refuse("can't lock rows")
  end
end

-- Inner selects of set operations stand under other keys.
visit.larg, visit.rarg = visit.SelectStmt, visit.SelectStmt

function visit.RangeVar(node, found)
  found.relations[#found.relations + 1] = { schema = node.schemaname, name = node.relname }
end

function visit.RangeTableSample(node)
  local method = names_of(node.method)
  if #method ~= 1 or (method[1] ~= "system" and method[1] ~= "bernoulli") then
    refuse("may sample with SYSTEM and BERNOULLI only")
  end
end

function visit.FuncCall(node, found)
  local names = names_of(node.funcname)
  found.functions[#found.functions + 1] = { name = names[#names], schema = names[#names - 1] }
end

function visit.A_Expr(node)
  local names = names_of(node.name)
  if #names > 1 and names[1] ~= "pg_catalog" then
    refuse("may use PostgreSQL's own operators only")
  end
end

-- ('x'::text).f and t.f are also ways to call f.
function visit.ColumnRef(node, found)
  local names = names_of(node.fields)
  for i = 2, #names do
    found.columns[names[i]] = true
  end
end

function visit.A_Indirection(node, found)
  for _, name in ipairs(names_of(node.indirection)) do
    found.columns[name] = true
  end
end

--- What a text names.
local function read(text)
  local tree, problem = sql.parse(text)
  if not tree then
    refuse("can't be parsed here, so what it reads is not known: " .. problem.message,
      "write it in the syntax of PostgreSQL 15")
  end
  local decoded, message = json.decode(tree)
  if not decoded then
    refuse("is too deep to be looked into: " .. tostring(message))
  elseif #decoded.stmts ~= 1 then
    refuse(("must be one statement, not %d"):format(#decoded.stmts))
  end
  local kind, node = next(decoded.stmts[1].stmt)
  local found = { relations = {}, functions = {}, columns = {}, kind = "select" }
  if kind == "VariableShowStmt" then
    if SECRET_SETTINGS[node.name:lower()] or node.name:find(".", 1, true) then
      refuse(("may not show %s"):format(node.name))
    end
    found.kind = "show"
    return found
  elseif kind == "ExplainStmt" then
    kind, node = next(node.query)
    found.kind = "explain"
  end
  if kind ~= "SelectStmt" then
    refuse("must be SELECT, VALUES, TABLE, SHOW or EXPLAIN of a query")
  end
  walk({ SelectStmt = node }, found)
  return found
end

-- The catalog -------------------------------------------------------------------------------------------

--- Rows of a statement. Raises its error.
---@param session moonbird.session
---@param text string
---@param ... any its parameters
---@return table[]
function M.rows(session, text, ...)
  local result, err = session:query(text, { ... }, select("#", ...))
  if not result then
    error(err, 0)
  end
  return result:rows()
end

local FUNCTIONS = [[
  select p.proname as name, n.nspname = 'pg_catalog' as own, p.provolatile = 'v' as volatile,
         pg_catalog.pg_function_is_visible(p.oid) as visible,
         p.pronargs >= 1 and p.pronargs - p.pronargdefaults <= 1
           and p.proargtypes[0] not in ('pg_catalog.internal'::pg_catalog.regtype) as unary
  from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
  where p.proname = any ($1::pg_catalog.name[])]]

local function check_function(call, rows)
  local name, own = call.name, false
  if HARMFUL[name] then
    refuse(("may not call %s()"):format(name))
  elseif call.schema and call.schema ~= "pg_catalog" then
    refuse(("may not call %s.%s(), a function of the database's own"):format(call.schema, name))
  end
  for _, row in ipairs(rows) do
    if row.own and row.volatile and not HARMLESS[name] then
      refuse(("may not call %s()"):format(name))
    elseif not row.own and row.visible and not call.schema then
      refuse(("may not call %s(), which is also a function of the database's own"):format(name),
        ("write pg_catalog.%s()"):format(name))
    end
    own = own or row.own
  end
  if not own then
    refuse(("may not call %s(), which is no function of PostgreSQL's own"):format(name))
  end
end

local function check_column(name, rows)
  local bad = HARMFUL[name]
  for _, row in ipairs(rows) do
    bad = bad or (row.unary and ((row.own and row.volatile and not HARMLESS[name]) or not row.own))
  end
  if bad then
    refuse(("has a column \"%s\" that may be a call of a function"):format(name),
      "name the column without its table, or give the table's columns other names: from t as x (a, b)")
  end
end

local function check_functions(session, found)
  local names, by_name = {}, {}
  local function want(name)
    if not by_name[name] then
      by_name[name] = {}
      names[#names + 1] = name
    end
  end
  for _, call in ipairs(found.functions) do
    want(call.name)
  end
  for name in pairs(found.columns) do
    want(name)
  end
  if #names == 0 then
    return
  end
  for _, row in ipairs(M.rows(session, FUNCTIONS, literal.array(names))) do
    table.insert(by_name[row.name], row)
  end
  for _, call in ipairs(found.functions) do
    check_function(call, by_name[call.name])
  end
  for name in pairs(found.columns) do
    check_column(name, by_name[name])
  end
end

-- With what is read along with it: partitions and children.
local RELATIONS = [[
  with recursive family (oid) as (
    select pg_catalog.to_regclass($1)::pg_catalog.oid
    union select i.inhrelid from pg_catalog.pg_inherits i join family f on f.oid = i.inhparent)
  select n.nspname as schema, c.relname as name, c.relkind as kind, c.oid::pg_catalog.int8 as oid,
         case when c.relkind = 'v' then pg_catalog.pg_get_viewdef(c.oid) end as definition
  from family f join pg_catalog.pg_class c on c.oid = f.oid
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace]]

--- The name of a relation as SQL.
---@param schema string|nil
---@param name string
---@return string
function M.quoted(schema, name)
  return (schema and sql.ident(schema) .. "." or "") .. sql.ident(name)
end

local function check_relations(session, found, journal, seen, inspect)
  for _, relation in ipairs(found.relations) do
    local schema = relation.schema
    if schema == journal then
      refuse(("may not read the journal (%s.%s)"):format(schema, relation.name))
    elseif SECRET[relation.name] and (not schema or CATALOGS[schema]) then
      refuse(("may not read %s"):format(relation.name))
    end
    for _, row in ipairs(M.rows(session, RELATIONS, M.quoted(schema, relation.name))) do
      if row.schema == journal then
        refuse(("may not read the journal (%s.%s)"):format(row.schema, row.name))
      elseif row.schema == "pg_toast" then
        refuse("may not read TOAST tables")
      elseif row.kind == "f" then
        refuse(("may not read %s.%s, a foreign table"):format(row.schema, row.name))
      elseif row.definition and not CATALOGS[row.schema] and not seen[row.oid] then
        seen[row.oid], seen.count = true, seen.count + 1
        if seen.count > MOST_VIEWS then
          refuse(("reads more than %d views"):format(MOST_VIEWS))
        end
        inspect(row.definition)
      end
    end
  end
end

--- Checks a query of a rule, in the transaction it is to run in.
---@param session moonbird.session
---@param text string
---@param journal string the journal's schema
---@return "select"|"show"|"explain"|nil kind
---@return moonbird.error? err why it is refused
function M.check(session, text, journal)
  local seen = { count = 0 }
  local function inspect(source)
    local found = read(source)
    check_relations(session, found, journal, seen, inspect)
    check_functions(session, found)
    return found.kind
  end
  local ok, kind = pcall(function()
    if #text > MOST_TEXT then
      refuse(("is longer than %d KiB"):format(MOST_TEXT // 1024))
    elseif text:find("\0", 1, true) then
      refuse("holds a zero byte")
    end
    return inspect(text)
  end)
  if ok then
    return kind
  elseif error_.is(kind) then
    return nil, kind
  end
  error(kind, 0)
end

--- How often this transaction has read the journal: scans, which also a failed statement leaves, and locks.
---@param session moonbird.session
---@param journal string its schema
---@return string|nil
---@return moonbird.error? err
function M.trace(session, journal)
  local result, err = session:query([[
    select pg_catalog.concat_ws(' ', (
        select pg_catalog.sum(pg_catalog.pg_stat_get_xact_numscans(c.oid)) from pg_catalog.pg_class c
        where c.relnamespace = pg_catalog.to_regnamespace($1)::pg_catalog.oid and c.relkind in ('r', 'i')),
      (select pg_catalog.count(*) from pg_catalog.pg_locks l join pg_catalog.pg_class c on c.oid = l.relation
        where l.pid = pg_catalog.pg_backend_pid()
          and c.relnamespace = pg_catalog.to_regnamespace($1)::pg_catalog.oid))]], { sql.ident(journal) })
  return result and result:value(1, 1), err
end

--- The error of a query that read the journal all the same.
---@return moonbird.error
function M.caught()
  return error_.new("sandbox", "a rule's query read the journal, by a function or an operator of the database's own",
    { hint = HINT })
end

return M
