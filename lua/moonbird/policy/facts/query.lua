--- Queries, DML and the commands that work on data: what they touch, from each of libpg_query's nodes.
local names = require "moonbird.policy.facts.names"
local tree = require "moonbird.policy.facts.tree"

local M = {}

local function on_table(st, verb, range)
  st.verb = verb
  local found = names.range(range)
  if found then
    st.kind, st.schema, st.name, st.relation = "table", found.schema, found.name, found
  end
end

local function dml(kind)
  return function(_, st, node)
    local write = tree.write(kind, node)
    on_table(st, write.verb, node.relation)
    st.columns, st.where, st.only, st.conflict = write.columns, write.where, write.only, write.conflict
    st.from_query = write.from_query
    if kind == "MergeStmt" then
      st.where = nil
    end
  end
end

M.InsertStmt, M.UpdateStmt = dml("InsertStmt"), dml("UpdateStmt")
M.DeleteStmt, M.MergeStmt = dml("DeleteStmt"), dml("MergeStmt")

function M.SelectStmt(_, st, node, marks)
  -- in a set operation INTO stands in the first branch
  local first = node
  while first.larg and not first.intoClause do
    first = first.larg
  end
  local into = first.intoClause
  if into then
    marks[into.rel] = "ddl"
    on_table(st, "create", into.rel)
    st.from_query, st.select_into = true, true
    st.temporary = into.rel.relpersistence == "t" or nil
    return
  end
  st.verb = "select"
  local from = node.fromClause and node.fromClause[1]
  if from and from.RangeVar and not node.fromClause[2] then
    on_table(st, "select", from.RangeVar)
  end
end

function M.CopyStmt(_, st, node, marks)
  on_table(st, "copy", node.relation)
  st.columns = names.strings(node.attlist)
  st.copy = node.is_from and "from" or "to"
  st.program = node.is_program and node.filename or nil
  st.server_file = not node.is_program and node.filename or nil
  if node.relation and node.is_from then
    marks[node.relation] = "write"
    marks.writes = { { verb = "copy", schema = st.schema, name = st.name, columns = st.columns } }
  end
end

function M.TruncateStmt(_, st, node, marks)
  st.objects, marks.writes = {}, {}
  for _, item in ipairs(node.relations or {}) do
    marks[item.RangeVar] = "write"
    local found = names.range(item.RangeVar)
    st.objects[#st.objects + 1] = found
    marks.writes[#marks.writes + 1] = {
      verb = "truncate", schema = found.schema, name = found.name, columns = {},
    }
  end
  local first = node.relations and node.relations[1].RangeVar
  on_table(st, "truncate", first)
  st.only = first and not first.inh or nil
  st.cascade = node.behavior == "DROP_CASCADE" or nil
end

function M.LockStmt(_, st, node, marks)
  st.objects = {}
  for _, item in ipairs(node.relations or {}) do
    marks[item.RangeVar] = "ddl"
    st.objects[#st.objects + 1] = names.range(item.RangeVar)
  end
  on_table(st, "lock", node.relations and node.relations[1].RangeVar)
  st.lock_mode = math.tointeger(node.mode)
end

--- Whether an option that may be given as (option), (option on), (option false), (option 0) is on.
local function option_on(options, name)
  for _, item in ipairs(options or {}) do
    local element = item.DefElem
    if element.defname == name then
      local arg = element.arg
      if not arg then
        return true
      elseif arg.Boolean then
        return arg.Boolean.boolval or false
      elseif arg.Integer then
        return (arg.Integer.ival or 0) ~= 0
      end
      local word = arg.String and arg.String.sval:lower()
      return not (word == "false" or word == "off" or word == "0" or word == "no")
    end
  end
  return false
end

local function inner_query(source, st, query, marks)
  local kind, node = next(query or {})
  local handler = kind and (M[kind] or kind == "CreateTableAsStmt" and source.handlers.CreateTableAsStmt)
  if not handler then
    return nil
  end
  local inner = {}
  handler(source, inner, node, marks)
  st.schema, st.name, st.relation, st.kind = inner.schema, inner.name, inner.relation, inner.kind
  st.columns, st.inner_verb = inner.columns, inner.verb
  return inner.where
end

function M.ExplainStmt(source, st, node, marks)
  local where = inner_query(source, st, node.query, marks)
  st.verb = "explain"
  st.analyze = option_on(node.options, "analyze")
  st.where = st.analyze and where or nil
  marks.idle = not st.analyze -- the statement inside does not run
end

function M.PrepareStmt(source, st, node, marks)
  st.where = inner_query(source, st, node.query, marks)
  st.verb, st.prepared = "other", node.name
end

function M.ExecuteStmt(_, st, node)
  st.verb, st.prepared, st.opaque = "other", node.name, true
end

function M.DeclareCursorStmt(source, st, node, marks)
  inner_query(source, st, node.query, marks)
  st.verb = "other"
end

function M.DoStmt(_, st, node)
  st.verb, st.opaque = "do", true
  st.function_ = { language = "plpgsql", settings = {}, security_definer = false, arguments = {} }
  for _, item in ipairs(node.args or {}) do
    local value = item.DefElem.arg and item.DefElem.arg.String and item.DefElem.arg.String.sval or ""
    if item.DefElem.defname == "as" then
      st.function_.body = value
    elseif item.DefElem.defname == "language" then
      st.function_.language = value:lower()
    end
  end
end

function M.CallStmt(_, st, node)
  local schema, name = names.qualified(node.funccall and node.funccall.funcname)
  st.verb, st.kind, st.schema, st.name, st.opaque = "call", "procedure", schema, name, true
end

function M.VacuumStmt(_, st, node, marks)
  st.objects = {}
  for _, item in ipairs(node.rels or {}) do
    local range = item.VacuumRelation.relation
    marks[range] = "ddl"
    st.objects[#st.objects + 1] = names.range(range)
  end
  local first = node.rels and node.rels[1] and node.rels[1].VacuumRelation
  on_table(st, node.is_vacuumcmd and "vacuum" or "analyze", first and first.relation)
  st.full = option_on(node.options, "full") or nil
  st.columns = names.strings(first and first.va_cols)
end

function M.ClusterStmt(_, st, node, marks)
  if node.relation then
    marks[node.relation] = "ddl"
  end
  on_table(st, "cluster", node.relation)
  st.index_name = node.indexname
end

local reindex_kinds = {
  REINDEX_OBJECT_INDEX = "index", REINDEX_OBJECT_TABLE = "table", REINDEX_OBJECT_SCHEMA = "schema",
  REINDEX_OBJECT_SYSTEM = "database", REINDEX_OBJECT_DATABASE = "database",
}

function M.ReindexStmt(_, st, node, marks)
  st.verb, st.kind = "reindex", reindex_kinds[node.kind]
  local found = names.range(node.relation)
  if found then
    marks[node.relation] = st.kind == "index" and "none" or "ddl"
    st.schema, st.name = found.schema, found.name
    st.relation = st.kind == "table" and found or nil
  else
    st.name = node.name
    if st.kind == "schema" and node.name then
      marks.schemas[node.name] = true
    end
  end
  st.concurrently = option_on(node.params, "concurrently") or nil
end

function M.RefreshMatViewStmt(_, st, node, marks)
  marks[node.relation] = "ddl"
  on_table(st, "refresh", node.relation)
  st.kind, st.concurrently, st.with_no_data = "materialized_view", node.concurrent, node.skipData
end

local transactions = {
  TRANS_STMT_BEGIN = "begin", TRANS_STMT_START = "begin", TRANS_STMT_COMMIT = "commit",
  TRANS_STMT_ROLLBACK = "rollback", TRANS_STMT_SAVEPOINT = "savepoint", TRANS_STMT_RELEASE = "release",
  TRANS_STMT_ROLLBACK_TO = "rollback_to", TRANS_STMT_PREPARE = "prepare",
  TRANS_STMT_COMMIT_PREPARED = "commit_prepared", TRANS_STMT_ROLLBACK_PREPARED = "rollback_prepared",
}

function M.TransactionStmt(_, st, node)
  st.verb, st.kind, st.name = "transaction", transactions[node.kind], node.savepoint_name
end

local function named(verb, key)
  return function(_, st, node)
    st.verb, st.name = verb, key and node[key]
  end
end

M.NotifyStmt = named("notify", "conditionname")
M.ListenStmt = named("other", "conditionname")
M.UnlistenStmt = named("other", "conditionname")
M.DeallocateStmt, M.ClosePortalStmt = named("other", "name"), named("other", "portalname")
M.FetchStmt = named("other", "portalname")
M.DiscardStmt, M.CheckPointStmt, M.LoadStmt = named("other"), named("other"), named("other", "filename")
M.ConstraintsSetStmt = named("set")

return M
