--- Names in libpg_query's trees: objects, relations, types, and the words of its enumerations. The trees
--- hold names as the server reads them: folded, unquoted, cut to 63 bytes.
local M = {}

--- libpg_query's ObjectType -> the `kind` of a fact.
M.kinds = {
  OBJECT_ACCESS_METHOD = "access_method", OBJECT_AGGREGATE = "aggregate", OBJECT_AMOP = "operator_family",
  OBJECT_ATTRIBUTE = "attribute", OBJECT_CAST = "cast", OBJECT_COLUMN = "column", OBJECT_COLLATION = "collation",
  OBJECT_CONVERSION = "conversion", OBJECT_DATABASE = "database", OBJECT_DEFACL = "default_privileges",
  OBJECT_DOMAIN = "domain", OBJECT_DOMCONSTRAINT = "domain_constraint", OBJECT_EVENT_TRIGGER = "event_trigger",
  OBJECT_EXTENSION = "extension", OBJECT_FDW = "foreign_data_wrapper", OBJECT_FOREIGN_SERVER = "server",
  OBJECT_FOREIGN_TABLE = "foreign_table", OBJECT_FUNCTION = "function", OBJECT_INDEX = "index",
  OBJECT_LANGUAGE = "language", OBJECT_LARGEOBJECT = "large_object", OBJECT_MATVIEW = "materialized_view",
  OBJECT_OPCLASS = "operator_class", OBJECT_OPERATOR = "operator", OBJECT_OPFAMILY = "operator_family",
  OBJECT_PARAMETER_ACL = "parameter", OBJECT_POLICY = "policy", OBJECT_PROCEDURE = "procedure",
  OBJECT_PUBLICATION = "publication", OBJECT_ROLE = "role", OBJECT_ROUTINE = "routine", OBJECT_RULE = "rule",
  OBJECT_SCHEMA = "schema", OBJECT_SEQUENCE = "sequence", OBJECT_STATISTIC_EXT = "statistics",
  OBJECT_SUBSCRIPTION = "subscription", OBJECT_TABCONSTRAINT = "constraint", OBJECT_TABLE = "table",
  OBJECT_TABLESPACE = "tablespace", OBJECT_TRANSFORM = "transform", OBJECT_TRIGGER = "trigger",
  OBJECT_TSCONFIGURATION = "text_search_configuration", OBJECT_TSDICTIONARY = "text_search_dictionary",
  OBJECT_TSPARSER = "text_search_parser", OBJECT_TSTEMPLATE = "text_search_template", OBJECT_TYPE = "type",
  OBJECT_USER_MAPPING = "user_mapping", OBJECT_VIEW = "view",
}

-- Kinds whose names exclude each other: what one creates, the other can drop.
local families = {
  table = "relation", partition = "relation", foreign_table = "relation", view = "relation",
  materialized_view = "relation", index = "relation", sequence = "relation",
  ["function"] = "routine", procedure = "routine", aggregate = "routine", routine = "routine",
  type = "type", enum = "type", domain = "type",
}

--- The namespace of a kind of object.
---@param kind string
---@return string
function M.family(kind)
  return families[kind] or kind
end

-- Kinds whose names belong to a relation and are written behind its name: DROP TRIGGER name ON table.
local owned = { column = true, constraint = true, trigger = true, policy = true, rule = true }

--- The strings of a list of String nodes.
---@param list? table
---@return string[]
function M.strings(list)
  local out = {}
  for _, node in ipairs(list or {}) do
    if node.String then
      out[#out + 1] = node.String.sval or ""
    elseif node.A_Star then
      out[#out + 1] = "*"
    end
  end
  return out
end

--- "schema.name" as a list of String nodes; a database in front is left out, as it can only be the current one.
---@param list? table
---@return string? schema
---@return string? name
function M.qualified(list)
  local name
  for i = list and #list or 0, 1, -1 do
    local node = list[i]
    local word = node.String and (node.String.sval or "") or node.A_Star and "*"
    if word and name then
      return word, name
    end
    name = word or name
  end
  return nil, name
end

--- A RangeVar as { schema, name }.
---@param range? table
---@return { schema?: string, name: string }?
function M.range(range)
  if range and range.relname then
    local schema = range.schemaname
    if not schema and range.relpersistence == "t" then
      schema = "pg_temp"
    end
    return { schema = schema, name = range.relname }
  end
end

--- An object as DropStmt, CommentStmt, RenameStmt and others hold it, by its kind.
---@param node? table
---@param kind? string
---@return { schema?: string, name?: string, relation?: table }?
function M.object(node, kind)
  if not node then
    return nil
  elseif node.String then
    return { name = node.String.sval }
  elseif node.RangeVar then
    return M.range(node.RangeVar)
  elseif node.Integer then
    return { name = tostring(node.Integer.ival or 0) }
  end
  local list = node.List and node.List.items
  if list and owned[kind] then
    local parts = M.strings(list)
    local count = #parts
    return { name = parts[count], relation = { schema = parts[count - 2], name = parts[count - 1] } }
  elseif list and (kind == "domain_constraint" or kind == "transform" or kind == "cast") then
    local first = list[1] and list[1].TypeName
    local second = list[2] and list[2].String
    local schema, name = M.qualified(first and first.names)
    return { schema = kind == "domain_constraint" and schema or nil, name = second and second.sval or name }
  elseif list and (kind == "operator_class" or kind == "operator_family") then
    local parts = M.strings(list) -- the access method comes first
    return { schema = parts[#parts - 1] ~= parts[1] and parts[#parts - 1] or nil, name = parts[#parts] }
  end
  local names = list or node.ObjectWithArgs and node.ObjectWithArgs.objname or node.TypeName and node.TypeName.names
    or node.objname or node.names
  if names then
    local schema, name = M.qualified(names)
    return { schema = schema, name = name, signature = M.signature(node.ObjectWithArgs) }
  end
end

--- A role as GRANT and ALTER … OWNER TO name it; "public" is PUBLIC.
---@param spec? table RoleSpec
---@return string?
function M.role(spec)
  if not spec then
    return nil
  elseif spec.roletype == "ROLESPEC_CSTRING" then
    return spec.rolename
  end
  return spec.roletype and spec.roletype:gsub("^ROLESPEC_", ""):lower()
end

--- Names of a list of RoleSpec nodes.
---@param list? table
---@return string[]
function M.roles(list)
  local out = {}
  for _, node in ipairs(list or {}) do
    out[#out + 1] = M.role(node.RoleSpec or node)
  end
  return out
end

--- The types of a function's arguments as DROP FUNCTION gives them; nil when it does not.
---@param node? table ObjectWithArgs
---@return string[]?
function M.signature(node)
  if not node or node.args_unspecified then
    return nil
  end
  local types = {}
  for _, item in ipairs(node.objargs or {}) do
    types[#types + 1] = item.TypeName and M.type(item.TypeName).text or "?"
  end
  return types
end

-- How PostgreSQL writes the types that the grammar knows by a name of their own.
local shown = {
  int2 = "smallint", int4 = "integer", int8 = "bigint", float4 = "real", float8 = "double precision",
  bool = "boolean", bpchar = "char", serial2 = "smallserial", serial4 = "serial", serial8 = "bigserial",
}

local function constant(node)
  local const = node.A_Const
  if not const then
    local ref = node.ColumnRef -- numeric types of extensions: geometry(Point, 4326)
    return ref and select(2, M.qualified(ref.fields)) or nil
  elseif const.ival then
    return const.ival.ival or 0
  elseif const.fval then
    return tonumber(const.fval.fval)
  end
  return const.sval and const.sval.sval
end

--- A TypeName as { name, schema, args, array, text }; `name` is the short one ("int4"), however it was
--- written; `schema` is nil for the server's own types.
---@param node? table
---@return table?
function M.type(node)
  if not node or not node.names then
    return nil
  end
  local schema, name = M.qualified(node.names)
  local own = schema == "pg_catalog"
  local quoted_char = name == "char" and not own
  local args = {}
  for _, arg in ipairs(node.typmods or {}) do
    args[#args + 1] = constant(arg)
  end
  if name == "interval" and own and #args > 0 then
    table.remove(args, 1) -- the mask of fields
  end
  if name == "bpchar" and #args == 1 and (node.typmods[1].A_Const or {}).location == -1 then
    args = { 1 }
  end
  local text = quoted_char and "\"char\"" or shown[name] or name
  if not own and schema then
    text = schema .. "." .. text
  end
  if #args > 0 then
    text = text .. "(" .. table.concat(args, ",") .. ")"
  end
  local array = node.arrayBounds and #node.arrayBounds > 0 or false
  if array then
    text = text .. ("[]"):rep(#node.arrayBounds)
  end
  return {
    name = name, schema = not own and schema or nil, args = args, array = array, text = text,
    setof = node.setof or nil,
  }
end

--- "schema.name" for messages.
---@param object? { schema?: string, name?: string }
---@return string
function M.shown(object)
  if not object or not object.name then
    return "?"
  end
  return object.schema and object.schema .. "." .. object.name or object.name
end

--- Whether two names can be one object: a schema that is left out matches any.
---@param a { schema?: string, name?: string }
---@param b { schema?: string, name?: string }
---@return boolean
function M.same(a, b)
  return a.name ~= nil and a.name == b.name
    and (a.schema == nil or b.schema == nil or a.schema == b.schema)
end

--- Reads "schema.name" out of a string literal, as regclass does.
---@param text string
---@return { schema?: string, name: string }?
function M.from_literal(text)
  local parts, at = {}, 1
  while true do
    local quoted, behind = text:match("^%s*\"(.-)\"%s*()", at)
    local plain
    if not quoted then
      plain, behind = text:match("^%s*([%w_\128-\255$]+)%s*()", at)
    end
    if not quoted and not plain then
      return nil
    end
    parts[#parts + 1] = quoted or plain:lower()
    if behind > #text then
      return { schema = parts[#parts - 1], name = parts[#parts] }
    elseif text:sub(behind, behind) ~= "." then
      return nil
    end
    at = behind + 1
  end
end

return M
