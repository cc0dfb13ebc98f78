--- INSERT, UPDATE, DELETE and MERGE as rules look at them: also those inside a WITH, and whether they touch a
-- bounded number of rows. All of it from the parse tree; without a server this can only be told by its form.
local names = require "moonbird.policy.facts.names"

local M = {}

local KINDS = { UpdateStmt = "update", DeleteStmt = "delete", InsertStmt = "insert", MergeStmt = "merge" }

-- Statements whose parts are run by themselves; the body of a rule or a function is not.
local VERBS = { update = true, delete = true, insert = true, merge = true, select = true, copy = true,
  explain = true }

---@class moonbird.policy.dml
---@field verb "update"|"delete"|"insert"|"merge"
---@field relation? { schema?: string, name: string }
---@field node table of the tree
---@field statement table the statement it stands in
---@field new boolean the relation was made in this step
---@field made { schema?: string, name: string }[] relations that the statements before it made
---@field ctes table<string, table> queries of the WITHs around it, by name

local function is_table(value)
  return type(value) == "table"
end

local function ctes_of(node, outer)
  local clause = node.withClause
  if not clause then
    return outer
  end
  local all = setmetatable({}, { __index = outer })
  for _, item in ipairs(clause.ctes or {}) do
    local cte = item.CommonTableExpr
    if cte and cte.ctename then
      all[cte.ctename] = cte.ctequery
    end
  end
  return all
end

local function collect(node, found, outer)
  local ctes = ctes_of(node, outer)
  for key, value in pairs(node) do
    if is_table(value) then
      if KINDS[key] then
        found[#found + 1] = { verb = KINDS[key], node = value, ctes = ctes_of(value, ctes) }
      end
      collect(value, found, ctes)
    end
  end
end

-- Statements of a step -> those of them that make a relation.
local makers = setmetatable({}, { __mode = "k" })

--- Relations that the statements before one made.
local function made_before(ctx, st)
  local all = makers[ctx.statements]
  if not all then
    all = {}
    for _, other in ipairs(ctx.statements) do
      if other.new and other.relation and other.verb == "create" and other.kind ~= "index" then
        all[#all + 1] = other
      end
    end
    makers[ctx.statements] = all
  end
  local made = {}
  for _, other in ipairs(all) do
    if other.index >= st.index then
      break
    end
    made[#made + 1] = other.relation
  end
  return made
end

local function contains(list, relation)
  for _, item in ipairs(list) do
    if names.same(item, relation) then
      return true
    end
  end
  return false
end

local function is_new(st, verb, relation)
  for _, write in ipairs(st.writes or {}) do
    if write.verb == verb and write.name == relation.name and write.schema == relation.schema then
      return write.new or false
    end
  end
  return relation.schema == "pg_temp"
end

--- What a statement itself writes to tables that were there before: as st.writes, without what it only defines
--- (the body of a rule).
---@param st table
---@return table[] writes
function M.writes(st)
  local list = {}
  for _, write in ipairs(VERBS[st.verb] and st.writes or {}) do
    if not write.new and write.schema ~= "pg_temp" then
      list[#list + 1] = write
    end
  end
  return list
end

--- Whether a statement may go over a table: by its facts, without its tree, which costs parsing it again.
local function may_go_over(st)
  for _, write in ipairs(M.writes(st)) do
    if write.verb ~= "insert" or write.from_query then
      return true
    end
  end
  return false
end

--- The data changes of a statement that may go over a table, in the order they are written.
---@param ctx table
---@param st table
---@return moonbird.policy.dml[]
function M.of(ctx, st)
  if not st.parsed or not may_go_over(st) then
    return {}
  end
  local found, made = {}, nil
  collect(st.tree, found, {})
  for _, item in ipairs(found) do
    made = made or (item.verb == "insert" and made_before(ctx, st) or nil)
    item.statement, item.made = st, made
    item.relation = names.range(item.node.relation) or {}
    item.new = is_new(st, item.verb, item.relation)
  end
  table.sort(found, function(a, b)
    return (a.node.relation.location or 0) < (b.node.relation.location or 0)
  end)
  return found
end

-- Is it bounded? ------------------------------------------------------------------------------------------

-- Columns that by their name hold another value in each row, or nearly.
local KEYS = {}
for name in ([[id uuid guid key code slug name ctid pk sku email username login oid version handle]])
  :gmatch("%S+") do
  KEYS[name] = true
end

local function is_key(column, relation)
  column = column:lower()
  if KEYS[column] then
    return true
  end
  local table_name = relation and relation.name or ""
  local stem = column:match("^(.+)_%l+$")
  local ending = column:match("_(%l+)$")
  if not stem or not (ending == "id" or ending == "uuid" or ending == "key" or ending == "code") then
    return false
  end
  return stem == table_name or stem .. "s" == table_name or stem .. "es" == table_name
    or stem:gsub("y$", "ies") == table_name
end

local function column_of(node, relation, unique)
  local ref = is_table(node) and node.ColumnRef
  if not ref then
    return false
  end
  local _, name = names.qualified(ref.fields)
  return name ~= nil and (is_key(name, relation) or unique[name] == true)
end

--- Whether an expression is one value, whatever the row: no column stands in it, but for those of a scalar
--- subquery.
local function is_value(node)
  if not is_table(node) then
    return true
  elseif node.ColumnRef or (node.SubLink and node.SubLink.subLinkType ~= "EXPR_SUBLINK") then
    return false
  elseif node.SubLink then
    return true
  end
  for _, item in pairs(node) do
    if not is_value(item) then
      return false
    end
  end
  return true
end

local function is_limited(query)
  local select = is_table(query) and (query.SelectStmt or query)
  local count = select and select.limitCount
  return count ~= nil and not (count.A_Const and count.A_Const.isnull)
end

--- Whether a subquery gives few rows: it has a LIMIT, is a list of VALUES, or reads only such.
local function is_few(query, ctes, depth)
  local select = is_table(query) and query.SelectStmt
  if not select or depth > 8 then
    return false
  elseif is_limited(query) or select.valuesLists then
    return true
  end
  local any = false
  for _, item in ipairs(select.fromClause or {}) do
    local range = item.RangeVar
    if item.RangeSubselect and is_few(item.RangeSubselect.subquery, ctes, depth + 1) then
      any = true
    elseif range and not range.schemaname and ctes[range.relname]
      and is_few(ctes[range.relname], ctes, depth + 1) then
      any = true
    end
  end
  return any
end

local operators = { [">"] = "lower", [">="] = "lower", ["<"] = "upper", ["<="] = "upper" }
local flipped = { lower = "upper", upper = "lower" }

--- Which end of a range of keys a comparison fixes.
local function bound_of(node, relation, unique)
  local expr = node.A_Expr
  if not expr or expr.kind ~= "AEXPR_OP" then
    return nil
  end
  local _, operator = names.qualified(expr.name)
  local side = operators[operator or ""]
  if side and column_of(expr.lexpr, relation, unique) and is_value(expr.rexpr) then
    return side
  elseif side and column_of(expr.rexpr, relation, unique) and is_value(expr.lexpr) then
    return flipped[side]
  end
end

local function names_few(expr, dml, unique)
  local left, right = expr.lexpr, expr.rexpr
  local _, operator = names.qualified(expr.name)
  local relation = dml.relation
  if expr.kind == "AEXPR_OP" and operator == "=" then
    return (column_of(left, relation, unique) and is_value(right))
      or (column_of(right, relation, unique) and is_value(left))
  elseif expr.kind == "AEXPR_IN" and operator == "=" then
    local row = is_table(left) and left.RowExpr
    return (row ~= nil and row ~= false or column_of(left, relation, unique)) and is_value(right)
  elseif expr.kind == "AEXPR_OP_ANY" and operator == "=" then
    local sub = is_table(right) and right.SubLink
    if sub and sub.subLinkType == "ARRAY_SUBLINK" then
      return is_few(sub.subselect, dml.ctes, 1)
    end
    return column_of(left, relation, unique) and is_value(right)
  elseif expr.kind == "AEXPR_BETWEEN" then
    return column_of(left, relation, unique) and is_value(right)
  end
  return false
end

local function condition_is_bounded(node, dml, unique)
  if not is_table(node) then
    return false
  elseif node.A_Expr then
    return names_few(node.A_Expr, dml, unique)
  elseif node.CurrentOfExpr or (node.A_Const and node.A_Const.boolval and not node.A_Const.boolval.boolval) then
    return true
  elseif node.SubLink then
    return node.SubLink.subLinkType == "ANY_SUBLINK" and is_few(node.SubLink.subselect, dml.ctes, 1)
  elseif not node.BoolExpr then
    return false
  end
  local bool, ends = node.BoolExpr, {}
  if bool.boolop == "AND_EXPR" then
    for _, arg in ipairs(bool.args) do
      if condition_is_bounded(arg, dml, unique) then
        return true
      end
      ends[bound_of(arg, dml.relation, unique) or "none"] = true
    end
    return ends.lower == true and ends.upper == true
  elseif bool.boolop == "OR_EXPR" then
    for _, arg in ipairs(bool.args) do
      if not condition_is_bounded(arg, dml, unique) then
        return false
      end
    end
    return true
  end
  return false
end

--- Whether one of the things in FROM or USING gives few rows, to which the target is then joined.
local function joins_few(list, dml)
  for _, item in ipairs(list or {}) do
    local range = item.RangeVar
    if item.RangeSubselect and is_few(item.RangeSubselect.subquery, dml.ctes, 1) then
      return true
    elseif item.RangeFunction then
      return true
    elseif range and not range.schemaname and dml.ctes[range.relname]
      and is_few(dml.ctes[range.relname], dml.ctes, 1) then
      return true
    elseif item.JoinExpr and joins_few({ item.JoinExpr.larg, item.JoinExpr.rarg }, dml) then
      return true
    end
  end
  return false
end

local SYSTEM = { pg_catalog = true, information_schema = true }

--- The first table that a query reads over, unbounded, without a table of this step.
local function reads_over(query, dml, unique, depth)
  local select = query.SelectStmt or query
  if depth > 8 or is_limited(query) or select.valuesLists then
    return nil
  elseif select.larg and select.rarg then
    return reads_over(select.larg, dml, unique, depth + 1) or reads_over(select.rarg, dml, unique, depth + 1)
  end
  local inner = { relation = nil, ctes = ctes_of(select, dml.ctes), made = dml.made }
  if condition_is_bounded(select.whereClause, inner, unique) or joins_few(select.fromClause, inner) then
    return nil
  end
  local function look(item)
    local range = item.RangeVar
    if range then
      local cte = not range.schemaname and inner.ctes[range.relname]
      if cte then
        return cte.SelectStmt and reads_over(cte, inner, unique, depth + 1) or nil
      end
      local relation = names.range(range)
      local own = SYSTEM[relation.schema] or relation.name:match("^pg_") or contains(dml.made, relation)
        or relation.schema == "pg_temp"
      return not own and relation or nil
    elseif item.RangeSubselect then
      return reads_over(item.RangeSubselect.subquery, inner, unique, depth + 1)
    elseif item.JoinExpr then
      return look(item.JoinExpr.larg) or look(item.JoinExpr.rarg)
    end
  end
  for _, item in ipairs(select.fromClause or {}) do
    local found = look(item)
    if found then
      return found
    end
  end
end

--- The table that a data change goes over without a bound: the target of UPDATE, DELETE and MERGE, the source
--- of INSERT … SELECT. nil when it is bounded.
---@param dml moonbird.policy.dml
---@param unique? table<string, true> columns of the target that are unique by live facts
---@return { schema?: string, name: string }?
function M.goes_over(dml, unique)
  unique = unique or {}
  local node = dml.node
  if dml.verb == "insert" then
    return node.selectStmt and reads_over(node.selectStmt, dml, unique, 1) or nil
  elseif dml.verb == "merge" then
    return not joins_few({ node.sourceRelation }, dml) and dml.relation or nil
  end
  if condition_is_bounded(node.whereClause, dml, unique)
    or (node.whereClause and joins_few(node.fromClause or node.usingClause, dml)) then
    return nil
  end
  return dml.relation
end

return M
