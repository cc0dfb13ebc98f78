--- GRANT and REVOKE, roles, settings, comments and labels.
local names = require "moonbird.policy.facts.names"

local M = {}

local function literal(node)
  local const = node.A_Const
  if not const then
    local inner = node.TypeCast and node.TypeCast.arg -- SET TIME ZONE INTERVAL '1'
    return inner and literal(inner) or nil
  elseif const.sval then
    return const.sval.sval or ""
  elseif const.ival then
    return tostring(const.ival.ival or 0)
  elseif const.fval then
    return const.fval.fval
  elseif const.boolval then
    return tostring(const.boolval.boolval or false)
  end
end

--- A VariableSetStmt.
---@param node table
---@return string? name
---@return string? value as one text; nil when there is none
---@return boolean reset RESET or SET … TO DEFAULT
---@return string[] values
function M.setting(node)
  local values = {}
  for _, arg in ipairs(node.args or {}) do
    values[#values + 1] = literal(arg)
  end
  local reset = node.kind ~= "VAR_SET_VALUE" and node.kind ~= "VAR_SET_CURRENT" and node.kind ~= "VAR_SET_MULTI"
  return node.name and node.name:lower(), values[1] and table.concat(values, ", ") or nil, reset, values
end

local function add_path(marks, name, values)
  if name == "search_path" then
    for _, value in ipairs(values) do
      marks.path[#marks.path + 1] = value
    end
  end
end

--- Sets `setting` of a statement that has a VariableSetStmt inside.
---@param st table
---@param node table VariableSetStmt
---@param marks table
function M.set_setting(st, node, marks)
  local name, value, reset, values = M.setting(node)
  st.setting = { name = name, value = value, values = values, reset = reset or nil, is_local = node.is_local }
  add_path(marks, name, values)
end

function M.VariableSetStmt(_, st, node, marks)
  M.set_setting(st, node, marks)
  local reset = node.kind == "VAR_RESET" or node.kind == "VAR_RESET_ALL"
  st.verb = reset and "reset" or "set"
  st.name = node.kind == "VAR_RESET_ALL" and "all" or st.setting.name
end

function M.VariableShowStmt(_, st, node)
  st.verb, st.name = "show", node.name
end

local function privileges(list, columns)
  local out = {}
  for _, item in ipairs(list or {}) do
    local privilege = item.AccessPriv
    out[#out + 1] = privilege.priv_name or "all"
    for _, column in ipairs(names.strings(privilege.cols)) do
      columns[#columns + 1] = column
    end
  end
  return #out > 0 and out or { "all" }
end

local function grant_of(node, columns)
  return {
    privileges = privileges(node.privileges, columns), grantees = names.roles(node.grantees),
    revoke = not node.is_grant, with_grant_option = node.grant_option or false, objects = {},
  }
end

function M.GrantStmt(_, st, node, marks)
  local kind = names.kinds[node.objtype]
  local columns = {}
  local grant = grant_of(node, columns)
  st.verb, st.kind, st.grant = node.is_grant and "grant" or "revoke", kind, grant
  st.columns = columns
  st.cascade = node.behavior == "DROP_CASCADE" or nil
  if node.targtype == "ACL_TARGET_ALL_IN_SCHEMA" then
    grant.all_in_schemas = names.strings(node.objects)
    for _, schema in ipairs(grant.all_in_schemas) do
      marks.schemas[schema] = true
      grant.objects[#grant.objects + 1] = { schema = schema }
    end
  else
    for _, item in ipairs(node.objects or {}) do
      if item.RangeVar then
        marks[item.RangeVar] = "ddl"
      end
      grant.objects[#grant.objects + 1] = names.object(item, kind)
    end
  end
  st.objects = grant.objects
  local first = grant.objects[1]
  if first then
    st.schema, st.name = first.schema, first.name
    if (kind == "table" or kind == "sequence") and first.name then
      st.relation = { schema = first.schema, name = first.name }
    end
  end
end

function M.GrantRoleStmt(_, st, node)
  local roles = {}
  for _, item in ipairs(node.granted_roles or {}) do
    roles[#roles + 1] = item.AccessPriv.priv_name
  end
  st.verb, st.kind, st.name = node.is_grant and "grant" or "revoke", "role", roles[1]
  st.grant = {
    privileges = roles, roles = roles, grantees = names.roles(node.grantee_roles), revoke = not node.is_grant,
    with_grant_option = false, with_admin_option = node.admin_opt or false, objects = {},
  }
  for _, role in ipairs(roles) do
    st.grant.objects[#st.grant.objects + 1] = { name = role }
  end
end

function M.AlterDefaultPrivilegesStmt(_, st, node, marks)
  local grant = grant_of(node.action, {})
  grant.default = true
  st.verb, st.kind, st.grant = "alter", "default_privileges", grant
  grant.object_kind = names.kinds[node.action.objtype]
  for _, item in ipairs(node.options or {}) do
    local list = item.DefElem.arg and item.DefElem.arg.List and item.DefElem.arg.List.items
    if item.DefElem.defname == "schemas" then
      grant.all_in_schemas = names.strings(list)
      for _, schema in ipairs(grant.all_in_schemas) do
        marks.schemas[schema] = true
        grant.objects[#grant.objects + 1] = { schema = schema }
      end
    elseif item.DefElem.defname == "roles" then
      grant.for_roles = names.roles(list)
    end
  end
end

-- What the options of a role are called in the grammar -> as people write them.
local role_options = {
  canlogin = "login", isreplication = "replication", connectionlimit = "connection_limit",
  validUntil = "valid_until", adminmembers = "admin", rolemembers = "role", addroleto = "in_role",
}

local function role_facts(st, name, options)
  local role = { name = name, options = {} }
  for _, item in ipairs(options or {}) do
    local element = item.DefElem
    local arg = element.arg
    if element.defname == "password" then
      role.password = arg ~= nil
      role.password_text = arg and arg.String and arg.String.sval
    else
      local value = true
      if arg then
        value = arg.Boolean and (arg.Boolean.boolval or false) or arg.Integer and (arg.Integer.ival or 0)
          or arg.String and arg.String.sval or arg.List and names.roles(arg.List.items)
        if arg.Boolean then
          value = arg.Boolean.boolval or false
        end
      end
      role.options[role_options[element.defname] or element.defname] = value
    end
  end
  st.kind, st.name, st.role = "role", name, role
end

function M.CreateRoleStmt(_, st, node)
  st.verb = "create"
  role_facts(st, node.role, node.options)
  if node.stmt_type == "ROLESTMT_USER" and st.role.options.login == nil then
    st.role.options.login = true
  end
end

function M.AlterRoleStmt(_, st, node)
  st.verb = "alter"
  role_facts(st, names.role(node.role), node.options)
end

function M.AlterRoleSetStmt(_, st, node, marks)
  st.verb = "alter"
  role_facts(st, names.role(node.role) or "all", nil)
  M.set_setting(st, node.setstmt, marks)
  st.role.settings = { [st.setting.name or "all"] = st.setting.value or "" }
  st.role.database = node.database
end

function M.AlterDatabaseSetStmt(_, st, node, marks)
  st.verb, st.kind, st.name = "alter", "database", node.dbname
  M.set_setting(st, node.setstmt, marks)
end

function M.AlterSystemStmt(_, st, node, marks)
  st.verb, st.kind = "alter", "system"
  M.set_setting(st, node.setstmt, marks)
end

local function labelled(verb)
  return function(_, st, node, marks)
    st.verb, st.kind = verb, names.kinds[node.objtype]
    local found
    if st.kind == "column" then
      found = names.object(node.object, "column")
    else
      found = names.object(node.object, st.kind)
    end
    found = found or {}
    st.name, st.schema = found.name, found.schema
    if found.relation then
      st.schema, st.relation = found.relation.schema, found.relation
    elseif names.family(st.kind or "") == "relation" then
      st.relation = { schema = found.schema, name = found.name }
    end
    st.comment = node.comment or node.label
    marks.relation = st.relation
  end
end

M.CommentStmt = labelled("comment")
M.SecLabelStmt = labelled("security_label")

return M
