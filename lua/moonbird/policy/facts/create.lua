--- CREATE: what is made, from each of libpg_query's nodes.
local constraint = require "moonbird.policy.facts.constraint"
local names = require "moonbird.policy.facts.names"
local rights = require "moonbird.policy.facts.rights"

local M = {}

--- Sets the object and, for relations, `relation`.
local function object(st, kind, found, is_relation)
  st.verb, st.kind = "create", kind
  st.schema, st.name = found and found.schema, found and found.name
  if is_relation then
    st.relation = found
  end
end

local function list_object(st, kind, list)
  local schema, name = names.qualified(list)
  object(st, kind, { schema = schema, name = name })
end

local function persistence(st, range)
  if range.relpersistence == "t" then
    st.temporary = true
  elseif range.relpersistence == "u" then
    st.unlogged = true
  end
end

local function table_facts(source, st, node, marks, kind)
  marks[node.relation] = "ddl"
  object(st, kind, names.range(node.relation), true)
  persistence(st, node.relation)
  st.actions, st.likes = constraint.elements(source, node.tableElts)
  for _, action in ipairs(st.actions) do
    local references = action.constraint and action.constraint.references
    if references and names.same(references, st.relation) then
      action.constraint.self_reference = true
    end
  end
  st.if_not_exists = node.if_not_exists
  st.tablespace = node.tablespacename
  st.partitioned = node.partspec and true or nil
  local parents = {}
  for _, item in ipairs(node.inhRelations or {}) do
    parents[#parents + 1] = names.range(item.RangeVar)
  end
  if node.partbound then
    st.partition_of = parents[1]
    st.default_partition = node.partbound.is_default
  elseif #parents > 0 then
    st.inherits = parents
  end
end

function M.CreateStmt(source, st, node, marks)
  table_facts(source, st, node, marks, "table")
end

function M.CreateForeignTableStmt(source, st, node, marks)
  table_facts(source, st, node.base, marks, "foreign_table")
  st.server = node.servername
end

function M.CreateTableAsStmt(_, st, node, marks)
  local range = node.into.rel
  marks[range] = "ddl"
  object(st, names.kinds[node.objtype] or "table", names.range(range), true)
  persistence(st, range)
  st.if_not_exists = node.if_not_exists
  st.from_query, st.with_no_data = true, node.into.skipData
end

function M.ViewStmt(_, st, node, marks)
  marks[node.view] = "ddl"
  object(st, "view", names.range(node.view), true)
  persistence(st, node.view)
  st.replace = node.replace
  st.columns = names.strings(node.aliases)
  -- the names readers see, where they can be told; `stars` when not all can
  local outputs, stars = {}, false
  local select = node.query and node.query.SelectStmt
  while select and select.larg do
    select = select.larg
  end
  for _, item in ipairs(select and select.targetList or {}) do
    local target = item.ResTarget
    local _, name = names.qualified(target.val and target.val.ColumnRef and target.val.ColumnRef.fields)
    stars = stars or name == "*"
    outputs[target.name or name or "?"] = true
  end
  for _, name in ipairs(st.columns) do
    outputs[name] = true
  end
  st.outputs, st.output_stars = outputs, stars
end

function M.IndexStmt(_, st, node, marks)
  marks[node.relation] = "ddl"
  st.relation = names.range(node.relation)
  object(st, "index", { schema = st.relation.schema, name = node.idxname })
  st.columns = {}
  st.has_expressions = false
  for _, item in ipairs(node.indexParams or {}) do
    if item.IndexElem.name then
      st.columns[#st.columns + 1] = item.IndexElem.name
    else
      st.has_expressions = true
    end
  end
  st.unique, st.concurrently, st.if_not_exists = node.unique, node.concurrent, node.if_not_exists
  st.only = not node.relation.inh or nil
  st.partial = node.whereClause and true or nil
  st.method = node.accessMethod
end

function M.CreateSeqStmt(_, st, node, marks)
  marks[node.sequence] = "ddl"
  object(st, "sequence", names.range(node.sequence), true)
  persistence(st, node.sequence)
  st.if_not_exists = node.if_not_exists
end

local setting_of = rights.setting

--- The options of CREATE and ALTER FUNCTION.
---@param options? table[] DefElem nodes
---@return table function_
function M.function_options(options)
  local function_ = { settings = {}, security_definer = false }
  for _, item in ipairs(options or {}) do
    local element = item.DefElem
    local arg = element.arg or {}
    if element.defname == "language" then
      function_.language = arg.String and arg.String.sval:lower()
    elseif element.defname == "security" then
      function_.security_definer = arg.Boolean and arg.Boolean.boolval or false
      function_.security_given = true
    elseif element.defname == "set" then
      local name, value, reset, values = setting_of(arg.VariableSetStmt)
      if reset then
        function_.reset = function_.reset or {}
        function_.reset[#function_.reset + 1] = name or "all"
      elseif name then
        function_.settings[name] = value or arg.VariableSetStmt.kind == "VAR_SET_CURRENT" and "from current" or ""
        function_.search_path = name == "search_path" and values or function_.search_path
      end
    elseif element.defname == "volatility" then
      function_.volatility = arg.String and arg.String.sval
    elseif element.defname == "as" then
      local parts = arg.List and names.strings(arg.List.items) or arg.String and { arg.String.sval }
      function_.body = parts and parts[1]
    end
  end
  return function_
end

function M.CreateFunctionStmt(_, st, node)
  list_object(st, node.is_procedure and "procedure" or "function", node.funcname)
  st.replace = node.replace
  local function_ = M.function_options(node.options)
  function_.arguments, st.signature = {}, {}
  for _, item in ipairs(node.parameters or {}) do
    local parameter = item.FunctionParameter
    local mode = (parameter.mode or ""):gsub("^FUNC_PARAM_", ""):lower()
    local argument = {
      name = parameter.name, type = names.type(parameter.argType), mode = mode == "default" and "in" or mode,
    }
    function_.arguments[#function_.arguments + 1] = argument
    if mode ~= "out" and mode ~= "table" then
      st.signature[#st.signature + 1] = argument.type.text
    end
  end
  function_.returns = names.type(node.returnType)
  function_.language = function_.language or "sql"
  st.function_ = function_
end

local function on_relation(kind, name_key, relation_key)
  return function(_, st, node, marks)
    local range = node[relation_key]
    object(st, kind, { name = node[name_key] })
    if range then
      marks[range] = "ddl"
      st.relation = names.range(range)
    end
    st.replace = node.replace
  end
end

M.CreateTrigStmt = on_relation("trigger", "trigname", "relation")
M.CreatePolicyStmt = on_relation("policy", "policy_name", "table")
M.RuleStmt = on_relation("rule", "rulename", "relation")

function M.CreateStatsStmt(_, st, node, marks)
  list_object(st, "statistics", node.defnames)
  local range = node.relations and node.relations[1] and node.relations[1].RangeVar
  if range then
    marks[range] = "ddl"
    st.relation = names.range(range)
  end
  st.if_not_exists = node.if_not_exists
end

function M.CreateSchemaStmt(_, st, node)
  -- CREATE SCHEMA AUTHORIZATION bob makes the schema "bob"
  object(st, "schema", { name = node.schemaname or names.role(node.authrole) })
  st.if_not_exists = node.if_not_exists
end

function M.CompositeTypeStmt(source, st, node, marks)
  marks[node.typevar] = "none"
  object(st, "type", names.range(node.typevar))
  st.actions = constraint.elements(source, node.coldeflist)
end

function M.CreateDomainStmt(source, st, node)
  list_object(st, "domain", node.domainname)
  st.type = names.type(node.typeName)
  st.actions = {}
  for _, item in ipairs(node.constraints or {}) do
    local made = constraint.of(source, item.Constraint)
    if made then
      st.actions[#st.actions + 1] = { kind = "add_constraint", constraint = made, line = made.line }
    end
  end
end

function M.CreateEnumStmt(_, st, node)
  list_object(st, "enum", node.typeName)
  st.values = {}
  for _, item in ipairs(node.vals or {}) do
    st.values[#st.values + 1] = item.String.sval or ""
  end
end

function M.DefineStmt(_, st, node)
  list_object(st, names.kinds[node.kind] or "other", node.defnames)
  st.if_not_exists, st.replace = node.if_not_exists, node.replace
end

function M.CreateExtensionStmt(_, st, node, marks)
  object(st, "extension", { name = node.extname })
  st.if_not_exists = node.if_not_exists
  for _, item in ipairs(node.options or {}) do
    local element = item.DefElem
    local value = element.arg and element.arg.String and element.arg.String.sval
    if element.defname == "schema" then
      marks.schemas[value] = true
      st.into_schema = value
    elseif element.defname == "new_version" then
      st.version = value
    elseif element.defname == "cascade" then
      st.cascade = true
    end
  end
end

function M.CreateCastStmt(_, st, node)
  local source_type, target = names.type(node.sourcetype), names.type(node.targettype)
  object(st, "cast", { name = ("%s as %s"):format(source_type.text, target.text) })
end

function M.CreateTransformStmt(_, st, node)
  object(st, "transform", { name = names.type(node.type_name).text })
end

function M.CreateSubscriptionStmt(_, st, node)
  object(st, "subscription", { name = node.subname })
  st.connection = node.conninfo
end

function M.CreateUserMappingStmt(_, st, node)
  object(st, "user_mapping", { name = names.role(node.user) })
  st.server, st.if_not_exists = node.servername, node.if_not_exists
end

function M.ImportForeignSchemaStmt(_, st, node, marks)
  object(st, "foreign_table", nil)
  st.server = node.server_name
  marks.schemas[node.local_schema] = true
end

local simple = {
  CreatedbStmt = { "database", "dbname" }, CreateTableSpaceStmt = { "tablespace", "tablespacename" },
  CreatePublicationStmt = { "publication", "pubname" }, CreateForeignServerStmt = { "server", "servername" },
  CreateFdwStmt = { "foreign_data_wrapper", "fdwname" }, CreateEventTrigStmt = { "event_trigger", "trigname" },
  CreateAmStmt = { "access_method", "amname" }, CreatePLangStmt = { "language", "plname" },
}
for node_type, what in pairs(simple) do
  M[node_type] = function(_, st, node)
    object(st, what[1], { name = node[what[2]] })
    st.if_not_exists, st.replace = node.if_not_exists, node.replace
  end
end

local listed = {
  CreateRangeStmt = { "type", "typeName" }, CreateConversionStmt = { "conversion", "conversion_name" },
  CreateOpClassStmt = { "operator_class", "opclassname" }, CreateOpFamilyStmt = { "operator_family", "opfamilyname" },
}
for node_type, what in pairs(listed) do
  M[node_type] = function(_, st, node)
    list_object(st, what[1], node[what[2]])
  end
end

return M
