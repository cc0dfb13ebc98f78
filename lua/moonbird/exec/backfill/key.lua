--- Which tables a backfill walks over, and along which key.
--
-- The key is the primary key, else a unique index without a predicate or an expression over columns that are not
-- null. Its index must be a plain b-tree that runs one way in the columns' own collations: then `(a, b) > (x, y)
-- order by a, b limit n` is one walk along it. A table without such a key is walked by ctid.
--
-- Cursors are JSON of the key's values, read back as text (M.values). What JSON writes as a document of its own does
-- not come back that way, and is no key here: jsonb, arrays, rows, and types that have a cast to json.
local error_ = require "moonbird.core.error"
local json = require "moonbird.core.json"
local literal = require "moonbird.core.literal"
local sql = require "moonbird.core.sql"

local M = {}

---@class moonbird.backfill.key
---@field ctid boolean there is no key: ranges of ctid
---@field columns string[] names; { "ctid" }
---@field types string[] as SQL writes them
---@field quoted string[]
---@field list string "a, b"
---@field json string jsonb_build_array(a, b)

---@class moonbird.backfill.leaf
---@field oid integer
---@field name string schema.name, quoted
---@field rows integer as the statistics say, 0 when nobody knows
---@field pages integer of the table now

---@class moonbird.backfill.place
---@field oid integer
---@field name string schema.name, quoted
---@field alias string the table's own name, quoted: what `where` and `set` may qualify columns with
---@field leaves moonbird.backfill.leaf[]
---@field key moonbird.backfill.key

local TABLE = [[
  select c.oid, c.relkind::text as kind, format('%I.%I', n.nspname, c.relname) as name, quote_ident(c.relname) as alias
  from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = to_regclass($1)]]

-- The table and all below it: partitions and children by inheritance.
local LEAVES = [[
  with recursive tree(oid) as (
    select $1::oid union select i.inhrelid from pg_inherits i join tree t on i.inhparent = t.oid)
  select c.oid, c.relkind::text as kind, format('%I.%I', n.nspname, c.relname) as name,
         greatest(c.reltuples, 0)::bigint as rows, pg_relation_size(c.oid) / current_setting('block_size')::int as pages
  from tree join pg_class c using (oid) join pg_namespace n on n.oid = c.relnamespace
  where c.relkind <> 'p' order by c.oid]]

local KEYS = [[
  with recursive plain(type, base) as (
    select oid, oid from pg_type where typbasetype = 0
    union all select t.oid, p.base from pg_type t join plain p on t.typbasetype = p.type)
  select i.indrelid::bigint as relation, i.indisprimary as primary_key,
         (select json_agg(json_build_array(a.attname, quote_ident(a.attname), format_type(a.atttypid, -1)) order by k.n)
          from unnest(i.indkey::int2[]) with ordinality k(attnum, n)
          join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
          where k.n <= i.indnkeyatts)::text as columns,
         (select min(format('column %s is of type %s', quote_ident(a.attname), format_type(a.atttypid, -1)))
          from unnest(i.indkey::int2[]) with ordinality k(attnum, n)
          join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
          join plain p on p.type = a.atttypid join pg_type t on t.oid = p.base
          where k.n <= i.indnkeyatts and (t.typcategory = 'A' or t.typtype = 'c'
            or t.oid in ('json'::regtype, 'jsonb'::regtype) or exists (select from pg_cast c
              where c.castsource = t.oid and c.casttarget = 'json'::regtype))) as unfit
  from pg_index i join pg_class x on x.oid = i.indexrelid join pg_am m on m.oid = x.relam and m.amname = 'btree'
  where i.indrelid = any ($1::oid[]) and i.indisunique and i.indisvalid and i.indisready
    and i.indpred is null and i.indexprs is null
    and (select bool_and(a.attnotnull and opc.opcdefault and k.coll in (0, a.attcollation))
                and count(distinct k.option & 1) = 1
         from unnest(i.indkey::int2[], i.indclass::oid[], i.indoption::int2[], i.indcollation::oid[])
              with ordinality k(attnum, class, option, coll, n)
         join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
         join pg_opclass opc on opc.oid = k.class where k.n <= i.indnkeyatts)
  order by i.indisprimary desc, i.indnkeyatts, x.relname]]

M.NEEDS_WHERE = "without a key rows are found by their place, which an update changes: `where` has to tell what is done"

--- A key from its columns and types.
---@param columns string[] empty: ctid
---@param types string[]
---@return moonbird.backfill.key
function M.of(columns, types)
  if #columns == 0 then
    return { ctid = true, columns = { "ctid" }, types = { "tid" }, quoted = { "ctid" }, list = "ctid",
      json = "jsonb_build_array(ctid)" }
  end
  local quoted = {}
  for i, name in ipairs(columns) do
    quoted[i] = sql.ident(name)
  end
  local list = table.concat(quoted, ", ")
  return { ctid = false, columns = columns, types = types, quoted = quoted, list = list,
    json = "jsonb_build_array(" .. list .. ")" }
end

local function refuse(message, hint)
  return nil, error_.new("backfill", message, { hint = hint })
end

local function same(columns, names)
  if #columns ~= #names then
    return false
  end
  for i, column in ipairs(columns) do
    if column[1] ~= names[i] then
      return false
    end
  end
  return true
end

local function names_of(columns)
  local names = {}
  for i, column in ipairs(columns) do
    names[i] = column[1]
  end
  return names
end

--- The first key of a table that fits: any, or the one over these columns -> nil and, where there is one that can't be
--- written down, why.
local function choose(keys, oid, wanted)
  local unfit
  for _, row in ipairs(keys) do
    if row.relation == oid and (not wanted or same(row.columns, wanted)) then
      if not row.unfit then
        return row
      end
      unfit = unfit or row.unfit
    end
  end
  return nil, unfit
end

local function no_key(place, definition, unfit)
  if unfit and (definition.key or not definition.where) then
    return refuse(("table %s can't be walked along its key: %s"):format(place.name, unfit),
      "where a batch ended can't be written down for jsonb, arrays and rows: name another key, key = { ... }"
      .. (definition.key and ", or none" or "") .. "; without a key `where` has to tell what is done")
  elseif definition.key then
    return refuse(("table %s has no unique index over (%s), all of it not null"):format(place.name,
      table.concat(definition.key, ", ")),
      "a key is the columns of a unique b-tree index without a predicate, in its order; without `key` one is found")
  elseif not definition.where then
    return refuse(("table %s has no key, and the backfill no `where`"):format(place.name), M.NEEDS_WHERE)
  end
  return M.of({}, {})
end

local function choose_key(place, keys, definition)
  local first, unfit = choose(keys, place.oid, definition.key)
  if not first then
    first = choose(keys, place.leaves[1] and place.leaves[1].oid, definition.key)
  end
  if not first then
    return no_key(place, definition, unfit)
  end
  local wanted = names_of(first.columns)
  for _, leaf in ipairs(place.leaves) do
    if not choose(keys, leaf.oid, wanted) then
      return refuse(("table %s, a part of %s, has no unique index over (%s)"):format(leaf.name, place.name,
        table.concat(wanted, ", ")))
    end
  end
  local types = {}
  for i, column in ipairs(first.columns) do
    types[i] = column[3]
  end
  return M.of(wanted, types)
end

--- Looks a backfill's table up. In a transaction of its own, with the target's search_path.
---@param target moonbird.target
---@param session moonbird.session
---@param definition moonbird.backfill.definition
---@param known? moonbird.backfill.state goes on with the key that was chosen then
---@param lock? integer milliseconds to wait for a table that is locked (its size is asked for); default no end
---@return moonbird.backfill.place|nil
---@return moonbird.error? err
function M.find(target, session, definition, known, lock)
  local settings = target:settings_item({ lock = lock or 0, statement = 0 }, true)
  local results, err = session:batch { settings, { TABLE, definition.table } }
  if not results then
    return nil, err
  end
  local place = results[2]:row(1)
  if not place then
    return refuse(("there is no table %s"):format(definition.table), "is its schema in the search_path?")
  elseif place.kind ~= "r" and place.kind ~= "p" then
    return refuse(("%s is not a table"):format(place.name))
  end
  results, err = session:batch { settings, { LEAVES, place.oid } }
  if not results then
    return nil, err
  end
  place.leaves = results[2]:rows()
  local oids = { place.oid }
  for i, leaf in ipairs(place.leaves) do
    if leaf.kind ~= "r" then
      return refuse(("%s, a part of %s, is a foreign table"):format(leaf.name, place.name),
        "run the backfill where its rows are")
    end
    oids[i + 1] = leaf.oid
  end
  if known then
    place.key = M.of(known.key_columns, known.key_types)
    return place
  end
  results, err = session:batch { settings, { KEYS, literal.array(oids) } }
  if not results then
    return nil, err
  end
  local keys = results[2]:rows()
  for _, row in ipairs(keys) do
    row.columns = json.decode(row.columns)
  end
  place.key, err = choose_key(place, keys, definition)
  if not place.key then
    return nil, err
  end
  return place
end

-- SQL over keys -------------------------------------------------------------------------------------------

local function row_of(parts)
  return #parts == 1 and parts[1] or "(" .. table.concat(parts, ", ") .. ")"
end

--- The values of a key that is bound as JSON, in its columns' types.
---@param key moonbird.backfill.key
---@param parameter string "$1"
---@return string[]
function M.values(key, parameter)
  local parts = {}
  for i, type_ in ipairs(key.types) do
    parts[i] = ("(%s::jsonb->>%d)::%s"):format(parameter, i - 1, type_)
  end
  return parts
end

--- The same as a row: what `(a, b)` is compared with.
---@param key moonbird.backfill.key
---@param parameter string "$1"
---@return string
function M.bound(key, parameter)
  return row_of(M.values(key, parameter))
end

--- The key's columns as a row, qualified where a name is given.
---@param key moonbird.backfill.key
---@param alias? string
---@return string
function M.row(key, alias)
  local parts = {}
  for i, name in ipairs(key.quoted) do
    parts[i] = alias and alias .. "." .. name or name
  end
  return row_of(parts)
end

--- The key's columns as they stand in the one row of a relation, as scalar subqueries: bounds that the planner
--- takes for an index condition.
---@param key moonbird.backfill.key
---@param relation string
---@return string
function M.scalar(key, relation)
  local parts = {}
  for i, name in ipairs(key.quoted) do
    parts[i] = ("(select %s from %s)"):format(name, relation)
  end
  return row_of(parts)
end

--- "a desc, b desc"
---@param key moonbird.backfill.key
---@return string
function M.descending(key)
  return table.concat(key.quoted, " desc, ") .. " desc"
end

--- A key for people: "id = 42" or "(region, id) = (eu, 42)".
---@param key moonbird.backfill.key
---@param text string JSON
---@return string
function M.show(key, text)
  local values = json.decode(text) or {}
  for i = 1, #key.columns do
    values[i] = tostring(values[i])
  end
  if #key.columns == 1 then
    return ("%s = %s"):format(key.columns[1], values[1])
  end
  return ("(%s) = (%s)"):format(table.concat(key.columns, ", "), table.concat(values, ", "))
end

return M
