--- Live facts: what rules ask of the database right before and after a step. Read only, bounded in time and
--- size; an error comes back as nil, err, and means "not known".
--
-- Each question has a read-only transaction of its own, or, where the step's transaction is still open, a
-- savepoint in it that is read only and rolled back. Answers are kept for as long as the object lives.
local error_ = require "moonbird.core.error"
local guard = require "moonbird.exec.live_guard"
local json = require "moonbird.core.json"
local statement = require "moonbird.core.statement"

local M = {}

local TIMEOUT_MS = 5000
local LOCK_MS = 2000
local MOST_ROWS = 1000
local MOST_BYTES = 8 << 20
local MOST_KEPT = 500 -- answers; and of queries only those of up to KEPT_ROWS rows
local KEPT_ROWS = 100

local KINDS = { r = "table", p = "table", v = "view", m = "materialized_view", i = "index", I = "index",
  S = "sequence", f = "foreign_table", c = "type", t = "toast" }

-- A question's transaction -------------------------------------------------------------------------------

local function settings_item(target)
  local names = { { "statement_timeout", TIMEOUT_MS .. "ms" }, { "lock_timeout", LOCK_MS .. "ms" },
    { "transaction_read_only", "on" },
    -- Quotes must mean to the server what they meant when the text was read.
    { "standard_conforming_strings", "on" },
    -- A table whose rows are hidden is not empty: an error, not a wrong answer.
    { "row_security", "off" } }
  local path = target:search_path()
  if path then
    names[#names + 1] = { "search_path", path }
  end
  local calls, item = {}, {}
  for i, pair in ipairs(names) do
    calls[i] = ("pg_catalog.set_config('%s', $%d, true)"):format(pair[1], i)
    item[i + 1] = pair[2]
  end
  item[1] = "select " .. table.concat(calls, ", ")
  return item
end

-- Sessions with a question under way -> whether it is inside a step's transaction. A rule that is ended by a
-- limit while it asks leaves its entry here.
local asked = setmetatable({}, { __mode = "k" })

local function leave(session, surely)
  local nested = asked[session]
  if nested == nil then
    return
  elseif not nested then
    session:rollback()
  elseif not session.doomed then
    -- A rule may have been ended before the savepoint was made; asking for one that is not there would end the
    -- step's transaction.
    local unsure = not surely and session:state() == "in_txn"
    if unsure then
      session:query("savepoint moonbird_leave")
    end
    local _, err = session:query("rollback to savepoint moonbird_live")
    if unsure and err then
      session:query("rollback to savepoint moonbird_leave")
    end
    session:query("release savepoint " .. (unsure and err and "moonbird_leave" or "moonbird_live"))
  end
  asked[session] = nil
end

--- Runs fn(session) where nothing can be changed.
---@return any ... what fn returns; nil, err when it could not be run or raised
local function asking(target, fn)
  local session = target.session
  session:settle()
  leave(session)
  local state = session:state()
  if state ~= "idle" and state ~= "in_txn" then
    return nil, session.doomed or error_.new("transaction", "the database can't be asked now: the connection is "
      .. state)
  end
  local nested = state == "in_txn"
  local begin = nested and "savepoint moonbird_live" or "begin isolation level read committed read only"
  asked[session] = nested
  local results, err = session:batch { { begin }, settings_item(target) }
  if not results then
    leave(session)
    return nil, err
  end
  local answer = table.pack(pcall(fn, session))
  leave(session, true)
  if not answer[1] then
    if error_.is(answer[2]) then
      return nil, answer[2]
    end
    error(answer[2], 0)
  end
  return table.unpack(answer, 2, answer.n)
end

-- Relations ------------------------------------------------------------------------------------------------

local FIND = [[
  select c.oid::pg_catalog.int8 as oid, n.nspname as schema, c.relkind as kind, c.relispopulated as populated,
         c.reltuples::pg_catalog.float8 as rows, c.relpages as pages
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where c.oid = pg_catalog.to_regclass($1)]]

--- The relation of that name; nil when there is none.
local function find(target, session, schema, name)
  local row = guard.rows(session, FIND, guard.quoted(schema, name))[1]
  if row and row.schema == target.run.journal.schema then
    error(error_.new("sandbox", "rules are not told about the journal"), 0)
  end
  return row
end

-- A partitioned table is as large as its partitions.
local LEAVES = [[
  select pg_catalog.bool_or(c.reltuples < 0 or (c.reltuples = 0 and c.relpages = 0)) as unknown,
         pg_catalog.sum(c.reltuples)::pg_catalog.float8 as rows,
         pg_catalog.sum(pg_catalog.pg_relation_size(c.oid))::pg_catalog.int8 as bytes,
         pg_catalog.sum(pg_catalog.pg_total_relation_size(c.oid))::pg_catalog.int8 as total
  from pg_catalog.pg_partition_tree($1::pg_catalog.oid::pg_catalog.regclass) t
       join pg_catalog.pg_class c on c.oid = t.relid
  where t.isleaf and c.relkind <> 'f']]

local SIZES = [[select pg_catalog.pg_relation_size($1::pg_catalog.oid) as bytes,
  pg_catalog.pg_total_relation_size($1::pg_catalog.oid) as total]]

local function relation(target, schema, name)
  local found
  local answer, err = asking(target, function(session)
    local row = find(target, session, schema, name)
    if not row then
      return nil
    end
    found = row
    local partitioned = row.kind == "p" or row.kind == "I"
    local size = guard.rows(session, row.kind == "p" and LEAVES or SIZES, row.oid)[1]
    local rows = row.rows
    if row.kind == "p" then
      rows = not size.unknown and size.rows or nil
    elseif rows < 0 or (rows == 0 and row.pages == 0) then
      rows = nil -- never analyzed; before version 14 that is 0
    end
    return { kind = KINDS[row.kind] or "other", rows = rows and math.tointeger(rows // 1),
      bytes = size.bytes or 0, total_bytes = size.total or 0, partitioned = partitioned }
  end)
  if answer and (found.kind == "r" or found.kind == "p" or (found.kind == "m" and found.populated)) then
    -- Apart: that it can't be told must not take the rest along.
    answer.empty = asking(target, function(session)
      return guard.rows(session, ("select not exists (select from %s limit 1) as empty")
        :format(guard.quoted(schema, name)))[1].empty
    end)
  end
  return answer, err
end

local INDEXES = [[
  select c.relname as name, i.indisunique as unique, i.indisvalid as valid, i.indpred is not null as partial,
         i.indisprimary as primary, m.amname as method, a.attname as column,
         pg_catalog.pg_get_indexdef(i.indexrelid, k::pg_catalog.int4, true) as expression
  from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indexrelid
       join pg_catalog.pg_am m on m.oid = c.relam
       cross join pg_catalog.generate_series(1, i.indnkeyatts) k
       left join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[k - 1] and a.attnum <> 0
  where i.indrelid = $1::pg_catalog.oid order by c.relname, k]]

local function indexes(target, schema, name)
  return asking(target, function(session)
    local row = find(target, session, schema, name)
    local list, last = {}, nil
    for _, part in ipairs(row and guard.rows(session, INDEXES, row.oid) or {}) do
      if not last or last.name ~= part.name then
        last = { name = part.name, columns = {}, unique = part.unique, valid = part.valid, partial = part.partial,
          primary = part.primary, method = part.method }
        list[#list + 1] = last
      end
      last.columns[#last.columns + 1] = part.column or part.expression
    end
    return list
  end)
end

local COLUMNS = [[
  select a.attname as name, pg_catalog.format_type(a.atttypid, a.atttypmod) as type, a.attnotnull as not_null,
         pg_catalog.pg_get_expr(d.adbin, d.adrelid) as default
  from pg_catalog.pg_attribute a left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  where a.attrelid = $1::pg_catalog.oid and a.attnum > 0 and not a.attisdropped]]

local function columns(target, schema, name)
  return asking(target, function(session)
    local row = find(target, session, schema, name)
    local all = {}
    for _, column in ipairs(row and guard.rows(session, COLUMNS, row.oid) or {}) do
      all[column.name] = { type = column.type, not_null = column.not_null, default = column.default }
    end
    return all
  end)
end

-- Queries --------------------------------------------------------------------------------------------------

local function too_many(what)
  error(error_.new("limit", "a rule's query gave more than " .. what,
    { hint = "ask for less: count, add a condition or a limit" }), 0)
end

local function demand(result, err)
  if err then
    error(err, 0)
  end
  return result
end

--- Rows of a query, fetched so that one that gives too many is noticed before they are here.
local function fetch(session, text, params, count)
  demand(session:query("declare moonbird_live_rows no scroll cursor for " .. text, params, count))
  local rows, bytes, size = {}, 0, 1
  while true do
    local result = demand(session:query(("fetch forward %d from moonbird_live_rows"):format(size)))
    local got = result:count()
    bytes = bytes + result:memory()
    if #rows + got > MOST_ROWS then
      too_many(MOST_ROWS .. " rows")
    elseif bytes > MOST_BYTES then
      too_many(("%d MiB"):format(MOST_BYTES >> 20))
    end
    for i = 1, got do
      rows[#rows + 1] = result:row(i)
    end
    result:close()
    if got < size then
      return rows
    end
    size = math.min(size * 4, 256)
  end
end

local function run(target, text, st, params, count)
  local journal = target.run.journal.schema
  local slice = text:sub(st.first, st.last)
  return asking(target, function(session)
    local kind = demand(guard.check(session, slice, journal))
    local before = demand(guard.trace(session, journal))
    demand(session:query("savepoint moonbird_live_query"))
    local ok, rows = pcall(function()
      if kind == "select" then
        return fetch(session, slice, params, count)
      end
      local result = demand(session:query(slice, params, count))
      return result:count() <= MOST_ROWS and result:rows() or too_many(MOST_ROWS .. " rows")
    end)
    if not ok then
      demand(session:query("rollback to savepoint moonbird_live_query"))
    end
    if demand(guard.trace(session, journal)) ~= before then
      error(guard.caught(), 0)
    elseif not ok then
      error(rows, 0)
    end
    return rows
  end)
end

local BINDABLE = { string = true, number = true, boolean = true, ["nil"] = true }

local function checked_params(params, count)
  local kept = {}
  for i = 1, count do
    local value = params[i]
    if not BINDABLE[type(value)] and value ~= json.null then
      error(error_.new("script", ("parameter $%d is a %s"):format(i, type(value))), 0)
    end
    kept[i] = value
  end
  return kept
end

-- The object -------------------------------------------------------------------------------------------------

local function copy(value)
  if type(value) ~= "table" then
    return value
  end
  local made = {}
  for key, item in pairs(value) do
    made[key] = copy(item)
  end
  return made
end

local function want_name(what, schema, name)
  if type(name) ~= "string" or (schema ~= nil and type(schema) ~= "string") or name:find("\0", 1, true)
    or (schema and schema:find("\0", 1, true)) then
    error(error_.new("script", ("live:%s takes a schema (or nil) and a name"):format(what)), 0)
  end
end

-- live -> its target
local targets = setmetatable({}, { __mode = "k" })

---@class moonbird.live
---@field relation fun(self, schema: string|nil, name: string): table|nil, moonbird.error? { kind, rows, bytes,
---       total_bytes, empty, partitioned }; rows is the server's estimate; nil in any field: not known
---@field indexes fun(self, schema: string|nil, table: string): table[]|nil, moonbird.error? each { name, columns,
---       unique, valid, partial, primary, method }
---@field columns fun(self, schema: string|nil, table: string): table|nil, moonbird.error? by name { type,
---       not_null, default }
---@field query fun(self, text: string, ...: any): table[]|nil, moonbird.error? rows by column name

--- Makes the object for a target; its session must be idle, or in the step's transaction.
---@param target moonbird.target of it: session, search_path(), run.journal.schema
---@return moonbird.live
function M.new(target)
  local kept, count = {}, 0

  --- Answers from memory where it can. Errors are asked for again.
  local function remember(key, ask, worth)
    local known = kept[key]
    if known then
      return copy(known.answer)
    end
    local answer, err = ask()
    if not err and (not worth or worth(answer)) then
      if count >= MOST_KEPT then
        kept, count = {}, 0
      end
      kept[key] = { answer = answer }
      count = count + 1
      return copy(answer)
    end
    return answer, err
  end

  local live = {}
  for what, ask in pairs { relation = relation, indexes = indexes, columns = columns } do
    live[what] = function(_, schema, name)
      want_name(what, schema, name)
      return remember(what .. "\0" .. (schema or "") .. "\0" .. name, function()
        return ask(target, schema, name)
      end)
    end
  end

  function live.query(_, text, ...)
    if type(text) ~= "string" then
      error(error_.new("script", "live:query takes SQL as a string"), 0)
    end
    local n = select("#", ...)
    local params = checked_params({ ... }, n)
    local list, err = statement.split(text)
    if not list then
      return nil, err
    elseif #list ~= 1 then
      return nil, error_.new("sandbox", ("a rule's query must be one statement, not %d"):format(#list))
    end
    local key = { "query", text }
    for i = 1, n do
      key[i + 2] = type(params[i]) .. ":" .. tostring(params[i])
    end
    return remember(table.concat(key, "\0"), function()
      return run(target, text, list[1], params, n)
    end, function(rows)
      return #rows <= KEPT_ROWS
    end)
  end

  local object = setmetatable({}, {
    __index = live,
    __newindex = function()
      error(error_.new("sandbox", "live is read-only"), 0)
    end,
    __metatable = false,
  })
  targets[object] = target
  return object
end

--- Ends what a rule left open that was ended by a limit while it asked. To be called when the rules have run.
---@param live moonbird.live
function M.settle(live)
  leave(targets[live].session)
end

return M
