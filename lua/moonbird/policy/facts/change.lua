--- ALTER, RENAME and DROP: what is changed, from each of libpg_query's nodes.
local alter = require "moonbird.policy.facts.alter"
local constraint = require "moonbird.policy.facts.constraint"
local create = require "moonbird.policy.facts.create"
local names = require "moonbird.policy.facts.names"

local M = {}

local function object(st, verb, kind, found)
  st.verb, st.kind = verb, kind
  found = found or {}
  st.schema, st.name = found.schema, found.name
  if found.relation then
    st.relation = found.relation
    st.schema = found.relation.schema
  elseif names.family(kind or "") == "relation" and found.name and kind ~= "index" then
    st.relation = { schema = found.schema, name = found.name }
  end
end

function M.AlterTableStmt(source, st, node, marks)
  local kind = names.kinds[node.objtype] or "table"
  marks[node.relation] = (kind == "type" or kind == "index") and "none" or "ddl"
  object(st, "alter", kind, names.range(node.relation))
  st.if_exists = node.missing_ok
  st.only = (not node.relation.inh and kind ~= "type") or nil
  st.actions = {}
  for _, item in ipairs(node.cmds or {}) do
    local cmd = item.AlterTableCmd
    if cmd.def and cmd.def.PartitionCmd and cmd.def.PartitionCmd.name then
      marks[cmd.def.PartitionCmd.name] = kind == "index" and "none" or "ddl"
    end
    alter.command(source, cmd, st.actions)
  end
  alter.locate(source, st.actions, node.relation.location or 0)
  for _, action in ipairs(st.actions) do
    st.concurrently = st.concurrently or action.concurrently
    st.cascade = st.cascade or action.cascade
  end
end

--- ALTER … RENAME of a part (column, constraint, trigger, …): the object is the part, `relation` its owner.
local parts = {
  column = "rename_column", attribute = "rename_column", constraint = "rename_constraint",
  domain_constraint = "rename_constraint",
}

function M.RenameStmt(_, st, node, marks)
  local kind = names.kinds[node.renameType] or "other"
  st.if_exists, st.cascade = node.missing_ok, node.behavior == "DROP_CASCADE" or nil
  local owner = names.range(node.relation)
    or names.object(node.object, kind == "domain_constraint" and "domain" or kind)
  if node.relation then
    marks[node.relation] = (kind == "attribute" or kind == "index") and "none" or "ddl"
    st.only = not node.relation.inh and kind ~= "attribute" or nil
  end
  local action = { kind = parts[kind] or "rename", to = node.newname }
  if kind == "domain_constraint" then
    object(st, "rename", kind, { name = node.subname })
    st.schema, st.domain = owner and owner.schema, owner
    action.name = node.subname
  elseif node.subname and owner then
    object(st, "rename", kind, { name = node.subname, relation = owner })
    if kind == "column" or kind == "attribute" then
      action.column = node.subname
      st.relation_kind = names.kinds[node.relationType]
    else
      action.name = node.subname
    end
  else
    -- schemas, roles and databases stand in `subname`
    object(st, "rename", kind, owner or { name = node.subname })
    if kind == "schema" then
      marks.schemas[node.newname] = true
    end
  end
  st.actions = { action }
end

local function changed(st, node, kind, marks)
  if node.relation then
    marks[node.relation] = kind == "index" and "none" or "ddl"
  end
  object(st, "alter", kind, names.range(node.relation) or names.object(node.object, kind))
  st.if_exists = node.missing_ok
end

function M.AlterObjectSchemaStmt(_, st, node, marks)
  changed(st, node, names.kinds[node.objectType], marks)
  marks.schemas[node.newschema] = true
  st.actions = { { kind = "set_schema", to = node.newschema } }
end

function M.AlterOwnerStmt(_, st, node, marks)
  changed(st, node, names.kinds[node.objectType], marks)
  st.actions = { { kind = "owner", to = names.role(node.newowner) } }
end

function M.AlterObjectDependsStmt(_, st, node, marks)
  changed(st, node, names.kinds[node.objectType], marks)
  st.actions = { {
    kind = "other", subtype = "depends", to = node.extname and node.extname.sval, remove = node.remove,
  } }
end

function M.AlterEnumStmt(_, st, node)
  local schema, name = names.qualified(node.typeName)
  object(st, "alter", "enum", { schema = schema, name = name })
  if node.oldVal then
    st.actions = { { kind = "rename_value", value = node.oldVal, to = node.newVal } }
  else
    st.if_not_exists = node.skipIfNewValExists
    st.actions = { {
      kind = "add_value", value = node.newVal, neighbour = node.newValNeighbor,
      if_not_exists = node.skipIfNewValExists, after = node.newValIsAfter,
    } }
  end
end

local domain_actions = {
  T = "set_default", N = "drop_not_null", O = "set_not_null", X = "drop_constraint", V = "validate_constraint",
}

function M.AlterDomainStmt(source, st, node)
  local schema, name = names.qualified(node.typeName)
  object(st, "alter", "domain", { schema = schema, name = name })
  local action = { kind = domain_actions[node.subtype], name = node.name, if_exists = node.missing_ok }
  if node.subtype == "C" then
    action = { kind = "add_constraint", constraint = constraint.of(source, node.def.Constraint) or {} }
  elseif node.subtype == "T" and not node.def then
    action.kind = "drop_default"
  end
  action.cascade = node.behavior == "DROP_CASCADE" or nil
  st.cascade, st.actions = action.cascade, { action }
end

function M.AlterFunctionStmt(_, st, node)
  local kind = names.kinds[node.objtype] or "function"
  object(st, "alter", kind, names.object(node.func, kind))
  st.function_ = create.function_options(node.actions)
end

function M.AlterSeqStmt(_, st, node, marks)
  marks[node.sequence] = "ddl"
  object(st, "alter", "sequence", names.range(node.sequence))
  st.if_exists = node.missing_ok
end

function M.AlterPolicyStmt(_, st, node, marks)
  marks[node.table] = "ddl"
  object(st, "alter", "policy", { name = node.policy_name, relation = names.range(node.table) })
end

function M.AlterExtensionStmt(_, st, node)
  object(st, "alter", "extension", { name = node.extname })
  st.actions = { { kind = "other", subtype = "update" } }
end

function M.AlterExtensionContentsStmt(_, st, node)
  object(st, "alter", "extension", { name = node.extname })
  st.actions = { { kind = "other", subtype = node.action == 1 and "add" or "drop" } }
end

function M.AlterTableMoveAllStmt(_, st, node)
  object(st, "alter", names.kinds[node.objtype], nil)
  st.all_in_tablespace = node.orig_tablespacename
  st.actions = { { kind = "set_tablespace", to = node.new_tablespacename } }
end

function M.AlterSubscriptionStmt(_, st, node)
  object(st, "alter", "subscription", { name = node.subname })
  st.connection = node.conninfo
end

local function alter_database(_, st, node)
  object(st, "alter", "database", { name = node.dbname })
  for _, item in ipairs(node.options or {}) do
    local element = item.DefElem
    if element.defname == "tablespace" then
      st.actions = { { kind = "set_tablespace", to = element.arg and element.arg.String and element.arg.String.sval } }
    end
  end
end
M.AlterDatabaseStmt = alter_database
M.AlterDatabaseRefreshCollStmt = alter_database

local simple = {
  AlterPublicationStmt = { "publication", "pubname" }, AlterTableSpaceOptionsStmt = { "tablespace", "tablespacename" },
  AlterEventTrigStmt = { "event_trigger", "trigname" }, AlterForeignServerStmt = { "server", "servername" },
  AlterFdwStmt = { "foreign_data_wrapper", "fdwname" },
}
for node_type, what in pairs(simple) do
  M[node_type] = function(_, st, node)
    object(st, "alter", what[1], { name = node[what[2]] })
  end
end

local listed = {
  AlterTypeStmt = { "type", "typeName" }, AlterStatsStmt = { "statistics", "defnames" },
  AlterOpFamilyStmt = { "operator_family", "opfamilyname" }, AlterCollationStmt = { "collation", "collname" },
  AlterTSConfigurationStmt = { "text_search_configuration", "cfgname" },
  AlterTSDictionaryStmt = { "text_search_dictionary", "dictname" },
}
for node_type, what in pairs(listed) do
  M[node_type] = function(_, st, node)
    local schema, name = names.qualified(node[what[2]])
    object(st, "alter", what[1], { schema = schema, name = name })
  end
end

function M.AlterOperatorStmt(_, st, node)
  object(st, "alter", "operator", names.object(node.opername, "operator"))
end

function M.AlterUserMappingStmt(_, st, node)
  object(st, "alter", "user_mapping", { name = names.role(node.user) })
  st.server = node.servername
end

function M.DropStmt(_, st, node, marks)
  local kind = names.kinds[node.removeType] or "other"
  st.objects = {}
  for _, item in ipairs(node.objects or {}) do
    local found = names.object(item, kind) or {}
    if found.relation then
      found.schema = found.relation.schema
    end
    st.objects[#st.objects + 1] = found
  end
  object(st, "drop", kind, st.objects[1])
  st.if_exists, st.concurrently = node.missing_ok, node.concurrent
  st.cascade = node.behavior == "DROP_CASCADE" or nil
  marks.dropped = true
end

function M.DropRoleStmt(_, st, node)
  st.objects = {}
  for _, name in ipairs(names.roles(node.roles)) do
    st.objects[#st.objects + 1] = { name = name }
  end
  object(st, "drop", "role", st.objects[1])
  st.if_exists = node.missing_ok
end

local drops = {
  DropdbStmt = { "database", "dbname" }, DropTableSpaceStmt = { "tablespace", "tablespacename" },
  DropSubscriptionStmt = { "subscription", "subname" },
}
for node_type, what in pairs(drops) do
  M[node_type] = function(_, st, node)
    st.objects = { { name = node[what[2]] } }
    object(st, "drop", what[1], st.objects[1])
    st.if_exists, st.cascade = node.missing_ok, node.behavior == "DROP_CASCADE" or nil
  end
end

function M.DropUserMappingStmt(_, st, node)
  st.objects = { { name = names.role(node.user) } }
  object(st, "drop", "user_mapping", st.objects[1])
  st.server, st.if_exists = node.servername, node.missing_ok
end

function M.DropOwnedStmt(_, st, node)
  object(st, "drop", "owned", { name = names.roles(node.roles)[1] })
  st.cascade = node.behavior == "DROP_CASCADE" or nil
end

function M.ReassignOwnedStmt(_, st, node)
  object(st, "alter", "owned", { name = names.roles(node.roles)[1] })
  st.actions = { { kind = "owner", to = names.role(node.newrole) } }
end

return M
