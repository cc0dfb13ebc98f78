--- libpg_query's tree of one statement: parsing it, and gathering what is named anywhere in it.
local expression = require "moonbird.policy.facts.expression"
local names = require "moonbird.policy.facts.names"
local sql = require "moonbird.core.sql"

local M = {}

--- Parses one statement.
---@param text string
---@param lean? boolean leave out the constants in the rows of VALUES
---@return string? type "SelectStmt"; nil when it can't be parsed
---@return table|string node the statement's node, or why not
function M.parse(text, lean)
  local decoded, wrong = sql.tree(text, lean)
  if not decoded then
    return nil, wrong.message
  end
  local first = decoded.stmts and decoded.stmts[1]
  if not first or not first.stmt then
    return nil, "no statement"
  elseif decoded.stmts[2] then
    return nil, "more than one statement"
  end
  local kind, node = next(first.stmt)
  return kind, node
end

---@class moonbird.policy.facts.named
---@field relations { schema?: string, name: string, access: string, at: integer }[]
---@field writes table[]
---@field functions table<string, boolean>

local verbs = { InsertStmt = "insert", UpdateStmt = "update", DeleteStmt = "delete", MergeStmt = "merge" }

-- Functions whose first argument is the name of a relation in a string.
local by_name = {
  nextval = "write", setval = "write", currval = "read", to_regclass = "read", pg_get_serial_sequence = "read",
}

local reg_types = { regclass = true, regproc = false, regtype = false, regprocedure = false }

-- Nodes and fields below which nothing is named: most of a tree. Visiting is most of the cost of facts.
local leaf = {
  A_Const = true, ColumnRef = true, String = true, Integer = true, ParamRef = true, RoleSpec = true,
  AccessPriv = true, SetToDefault = true, SQLValueFunction = true, LockingClause = true, A_Star = true,
}
local skipped = {
  withClause = true, funcname = true, fields = true, collname = true, lockingClause = true,
  schemaElts = true, fk_attrs = true, pk_attrs = true, keys = true, grantees = true, privileges = true, opclass = true,
  -- hold no node in the first place; the ones that are met most
  location = true, typemod = true, colname = true, is_local = true, contype = true, kind = true, conname = true,
  behavior = true, subtype = true, inh = true, relpersistence = true, defname = true, defaction = true,
}

-- Nodes with none of the fields by which visit() knows what a node names.
local plain = {
  List = true, ColumnDef = true, Constraint = true, AlterTableCmd = true, DefElem = true, ResTarget = true,
  A_Expr = true, BoolExpr = true, NullTest = true, JoinExpr = true, SortBy = true, SubLink = true, IndexElem = true,
}

local visit, visit_fields, visit_value

local function add_schema(named, schema)
  -- the grammar itself puts pg_catalog in front of names
  if schema and (schema ~= "pg_catalog" or named.text:lower():find("pg_catalog", 1, true)) then
    named.marks.schemas[schema] = true
  end
end

local function add_relation(named, range, access)
  local found = names.range(range)
  local key = (found.schema or "") .. "\0" .. found.name .. "\0" .. access
  add_schema(named, found.schema)
  local at, known = range.location or 0, named.seen[key]
  if known then
    known.at = math.min(known.at, at) -- nodes are visited in no order
  elseif access ~= "none" then
    found.access, found.at = access, at
    named.seen[key] = found
    named.relations[#named.relations + 1] = found
  end
end

local function add_literal(named, node, access)
  local text = node and node.A_Const and node.A_Const.sval and node.A_Const.sval.sval
  local found = text and names.from_literal(text)
  if found then
    add_relation(named, { schemaname = found.schema, relname = found.name, location = node.A_Const.location }, access)
  end
end

--- The names of the columns an INSERT or UPDATE gives.
local function target_columns(list)
  local columns = {}
  for _, item in ipairs(list or {}) do
    columns[#columns + 1] = item.ResTarget and item.ResTarget.name
  end
  return columns
end

--- What a data-modifying node does.
---@param kind string "UpdateStmt"
---@param node table
---@return table write { verb, schema, name, where, columns, conflict, only }
function M.write(kind, node)
  local target = names.range(node.relation) or {}
  local write = {
    verb = verbs[kind], schema = target.schema, name = target.name, at = node.relation and node.relation.location or 0,
    only = node.relation and not node.relation.inh or nil,
  }
  if kind == "InsertStmt" then
    write.columns = target_columns(node.cols)
    local conflict = node.onConflictClause
    if conflict then
      write.conflict = conflict.action == "ONCONFLICT_UPDATE" and "update" or "nothing"
    end
    local select = node.selectStmt and node.selectStmt.SelectStmt
    write.from_query = select and not select.valuesLists or nil
  elseif kind == "UpdateStmt" then
    write.columns = target_columns(node.targetList)
    write.where = expression.where(node.whereClause)
  elseif kind == "DeleteStmt" then
    write.columns = {}
    write.where = expression.where(node.whereClause)
  else
    write.columns = {}
    write.deletes = false
    for _, item in ipairs(node.mergeWhenClauses or {}) do
      local clause = item.MergeWhenClause
      write.deletes = write.deletes or clause.commandType == "CMD_DELETE"
    end
    write.where = expression.where(node.joinCondition)
  end
  return write
end

--- Visits a query with its own WITH: each name is known to what comes behind it, in WITH RECURSIVE to all.
local function visit_query(named, node, scope, executed)
  local with = node.withClause
  if with then
    scope = setmetatable({}, { __index = scope })
    if with.recursive then
      for _, item in ipairs(with.ctes or {}) do
        scope[item.CommonTableExpr.ctename] = true
      end
    end
    for _, item in ipairs(with.ctes or {}) do
      visit_value(named, item.CommonTableExpr.ctequery, scope, executed)
      scope[item.CommonTableExpr.ctename] = true
    end
  end
  visit_fields(named, node, scope, executed)
end

local function visit_write(named, kind, node, scope, executed)
  if node.relation then
    named.marks[node.relation] = executed and "write" or "read" -- in any case no name of a WITH
  end
  if executed then
    local write = M.write(kind, node)
    write.nested = node ~= named.root or nil
    named.writes[#named.writes + 1] = write
  end
  visit_query(named, node, scope, executed)
end

-- Whether a key wraps a node ({"SelectStmt": ...}) and is no field of one ("relname"), remembered.
local wraps = setmetatable({}, {
  __index = function(known, key)
    local upper = key:find("^%u") ~= nil
    known[key] = upper
    return upper
  end,
})

-- set_config('search_path', 'a, b', …)
local function add_set_config(schemas, key, value)
  local name = key.A_Const and key.A_Const.sval and key.A_Const.sval.sval
  local text = value.A_Const and value.A_Const.sval and value.A_Const.sval.sval
  if name == "search_path" and text then
    for part in text:gmatch("[^,]+") do
      local found = names.from_literal(part)
      if found and found.name ~= "$user" then
        schemas[found.name] = true
      end
    end
  end
end

local function visit_call(named, node)
  local schema, name = names.qualified(node.funcname)
  add_schema(named, schema)
  if not name then
    return
  end
  if not node.parameters and not node.returnType and node ~= named.root then
    named.functions[name] = true
  end
  if by_name[name] then
    add_literal(named, node.args and node.args[1], by_name[name])
  elseif name == "set_config" and node.args and node.args[2] then
    add_set_config(named.marks.schemas, node.args[1], node.args[2])
  end
end

local function visit_cast(named, node)
  local _, type_name = names.qualified(node.typeName.names)
  if reg_types[type_name] then
    add_literal(named, node.arg, "read")
  elseif reg_types[type_name] == false then
    local text = node.arg.A_Const.sval and node.arg.A_Const.sval.sval
    local found = text and names.from_literal((text:gsub("%(.*", "")))
    add_schema(named, found and found.schema)
  end
end

local function visit_wrapped(named, kind, node, scope, executed)
  if verbs[kind] then
    visit_write(named, kind, node, scope, executed)
  elseif plain[kind] then
    visit_fields(named, node, scope, executed)
  elseif not leaf[kind] then
    visit(named, node, scope, executed)
  end
end

--- Visits a value of a field or list: a node in its wrapper, a node, or a list.
function visit_value(named, value, scope, executed)
  local key, inner = next(value)
  if key == 1 then
    for i = 1, #value do
      local item = value[i]
      key, inner = next(item)
      if key and not leaf[key] then -- long lists of constants are common
        if wraps[key] then
          visit_wrapped(named, key, inner, scope, executed)
        else
          visit_value(named, item, scope, executed)
        end
      end
    end
  elseif key and wraps[key] then
    visit_wrapped(named, key, inner, scope, executed)
  elseif key then
    visit(named, value, scope, executed)
  end
end

--- Visits what the fields of a node hold.
function visit_fields(named, node, scope, executed)
  for key, value in next, node do
    if not skipped[key] and type(value) == "table" then
      local runs = executed and key ~= "sql_body" and not (named.rule and key == "actions")
      visit_value(named, value, scope, runs)
    end
  end
end

function visit(named, node, scope, executed)
  if node.relname then
    local mark = named.marks[node]
    if mark or node.schemaname or not scope[node.relname] then
      add_relation(named, node, mark or "read")
    end
    return
  elseif node.names then
    add_schema(named, (names.qualified(node.names))) -- a type
    return
  elseif type(node.funcname) == "table" then
    visit_call(named, node)
  elseif node.typeName and node.arg and node.arg.A_Const then
    visit_cast(named, node)
  end
  if node.withClause then
    visit_query(named, node, scope, executed)
  else
    visit_fields(named, node, scope, executed)
  end
end

-- pairs() has no order of its own
local function by_place(a, b)
  if a.at ~= b.at then
    return a.at < b.at
  end
  return (a.schema or "") .. "." .. (a.name or "") < (b.schema or "") .. "." .. (b.name or "")
end

local function in_order(list)
  if list[2] then
    table.sort(list, by_place)
  end
  for _, item in ipairs(list) do
    item.at = nil
  end
  return list
end

--- Gathers what a statement names.
---@param kind string
---@param node table
---@param text string
---@param marks table<table, string> access of RangeVars that are more than read; `schemas`, to which others are added
---@param executed boolean whether the statements inside run
---@return moonbird.policy.facts.named
function M.gather(kind, node, text, marks, executed)
  local named = {
    relations = {}, writes = {}, functions = {}, marks = marks, seen = {}, text = text, rule = kind == "RuleStmt",
    root = node,
  }
  visit_wrapped(named, kind, node, {}, executed)
  in_order(named.writes)
  in_order(named.relations)
  return named
end

return M
