--- What a statement that can't run in a transaction left behind when its run died.
--
-- Before the statement is sent, `before` notes what was there. After a death, `after` compares: "done",
-- "absent" (nothing happened), "ours" (half-made by us: `clean` removes it) or "foreign" (not ours to
-- touch: stop and tell). `check` looks after a success: an INVALID index is never taken for one.
local error_ = require "moonbird.core.error"
local sql = require "moonbird.core.sql"

local M = {}

local function qualified(schema, name)
  return schema and sql.ident(schema) .. "." .. sql.ident(name) or sql.ident(name)
end

local function row(session, text, params, n)
  local result, err = session:query(text, params, n)
  if not result then
    return nil, err
  end
  return result:row(1) or {}
end

-- Index builds -----------------------------------------------------------------------------------------

--- An index lives in its table's schema, whatever the search_path says.
local function find_index(session, object)
  return row(session, [[
    select t.oid::bigint as table_oid, c.oid::bigint as index_oid, i.indisvalid as valid,
           i.indrelid = t.oid as same_table
    from (select to_regclass($1) as oid) t
    left join pg_class r on r.oid = t.oid
    left join pg_class c on c.relnamespace = r.relnamespace and c.relname = $2
    left join pg_index i on i.indexrelid = c.oid]],
    { qualified(object.relation_schema, object.relation), object.name })
end

local create_index = {}

function create_index.before(session, object)
  if not object.name then
    return nil, error_.new("migration", "CREATE INDEX CONCURRENTLY needs a name here",
      { hint = "name the index, so that moonbird can find it again after a crash" })
  end
  local found, err = find_index(session, object)
  if not found then
    return nil, err
  end
  if found.index_oid and not found.valid and object.if_not_exists then
    return nil, error_.new("migration", ("an INVALID index %q is there already; IF NOT EXISTS would take "
      .. "it for success"):format(object.name), { hint = "drop it (DROP INDEX CONCURRENTLY), then run again" })
  end
  return { existed = found.index_oid ~= nil, table_oid = found.table_oid }
end

function create_index.after(session, object, before)
  local found, err = find_index(session, object)
  if not found then
    return nil, err
  end
  if not found.index_oid then
    return "absent"
  elseif before.existed or not found.same_table then
    return (found.valid and object.if_not_exists) and "absent" or "foreign"
  end
  return found.valid and "done" or "ours"
end

function create_index.clean(session, object)
  local found, err = find_index(session, object)
  if not found then
    return nil, err
  end
  local named = row(session, "select $1::bigint::oid::regclass::text as name", { found.index_oid })
  local _, drop_err = session:query("drop index concurrently if exists " .. named.name)
  if drop_err then
    return nil, drop_err
  end
  return ("dropped the INVALID index %q"):format(object.name)
end

function create_index.check(session, object)
  local found, err = find_index(session, object)
  if not found then
    return nil, err
  end
  if not found.index_oid then
    return nil, error_.new("migration", ("index %q is not there although it was created"):format(object.name),
      { hint = "was it dropped, or the search_path changed, meanwhile?" })
  elseif not found.valid then
    return nil, error_.new("migration", ("index %q is INVALID"):format(object.name),
      { hint = "drop it (DROP INDEX CONCURRENTLY), then run again" })
  end
  return true
end

-- Rebuilds -------------------------------------------------------------------------------------------

-- REINDEX CONCURRENTLY that dies leaves INVALID copies named x_ccnew or x_ccold; the original stays good.
local COPIES = [[
  select coalesce(string_agg(i.indexrelid::bigint::text, ',' order by i.indexrelid), '') as oids,
         coalesce(string_agg(i.indexrelid::regclass::text, ', ' order by i.indexrelid), '') as names
  from pg_index i join pg_class c on c.oid = i.indexrelid
  where not i.indisvalid and c.relname ~ '_cc(new|old)[0-9]*$'
    and not i.indexrelid::bigint = any(string_to_array($1, ',')::bigint[])]]

local reindex = {}

function reindex.before(session)
  local found, err = row(session, COPIES, { "" })
  if not found then
    return nil, err
  end
  return { copies = found.oids }
end

function reindex.after(session, _, before)
  local found, err = row(session, COPIES, { before.copies })
  if not found then
    return nil, err
  end
  return found.oids == "" and "absent" or "ours"
end

function reindex.clean(session, _, before)
  local found, err = row(session, COPIES, { before.copies })
  if not found then
    return nil, err
  end
  for name in found.names:gmatch("[^,]+") do
    local _, drop_err = session:query("drop index concurrently if exists " .. name)
    if drop_err then
      return nil, drop_err
    end
  end
  return ("dropped the INVALID copies of REINDEX (%s)"):format(found.names)
end

-- Things that are there or not -------------------------------------------------------------------------

local function existence(query, wanted, name_of)
  local probe = {}
  local function exists(session, object)
    local found, err = row(session, query, { name_of(object) })
    if not found then
      return nil, err
    end
    return found.found == true and "yes" or "no"
  end
  function probe.before(session, object)
    local found, err = exists(session, object)
    if not found then
      return nil, err
    end
    return { existed = found == "yes" }
  end
  function probe.after(session, object, before)
    local found, err = exists(session, object)
    if not found then
      return nil, err
    end
    if (found == "yes") == wanted and before.existed ~= wanted then
      return "done"
    end
    return "absent" -- the server itself says so if the thing was there before
  end
  return probe
end

local function plain_name(object)
  return object.name or ""
end

local drop_index = existence("select to_regclass($1) is not null as found", false, function(object)
  return qualified(object.schema, object.name or "")
end)
local databases = "select exists (select from pg_database where datname = $1) as found"
local tablespaces = "select exists (select from pg_tablespace where spcname = $1) as found"
local subscriptions = "select exists (select from pg_subscription where subname = $1) as found"

-- Partitions -------------------------------------------------------------------------------------------

local function detach_state(session, object)
  return row(session, [[
    select bool_or(true) as attached, bool_or(inhdetachpending) as pending from pg_inherits
    where inhrelid = to_regclass($1)]], { qualified(object.partition_schema, object.partition or "") })
end

local detach = {}

function detach.before(session, object)
  local found, err = detach_state(session, object)
  if not found then
    return nil, err
  end
  return { attached = found.attached == true }
end

function detach.after(session, object, before)
  local found, err = detach_state(session, object)
  if not found then
    return nil, err
  end
  if found.pending then
    return "ours"
  end
  return (before.attached and not found.attached) and "done" or "absent"
end

function detach.clean(session, object)
  local _, err = session:query(("alter table %s detach partition %s finalize"):format(
    qualified(object.relation_schema, object.relation), qualified(object.partition_schema, object.partition)))
  if err then
    return nil, err
  end
  return ("finalized the detach of %q"):format(object.partition), "done"
end

-- By tag -------------------------------------------------------------------------------------------------

-- VACUUM, ALTER SYSTEM and the like: doing it again is the same as doing it once.
local again = {
  before = function()
    return {}
  end,
  after = function()
    return "absent"
  end,
}

local PROBES = {
  ["CREATE INDEX"] = create_index,
  ["DROP INDEX"] = drop_index,
  ["REINDEX"] = reindex,
  ["CREATE DATABASE"] = existence(databases, true, plain_name),
  ["DROP DATABASE"] = existence(databases, false, plain_name),
  ["CREATE TABLESPACE"] = existence(tablespaces, true, plain_name),
  ["DROP TABLESPACE"] = existence(tablespaces, false, plain_name),
  ["CREATE SUBSCRIPTION"] = existence(subscriptions, true, plain_name),
  ["DROP SUBSCRIPTION"] = existence(subscriptions, false, plain_name),
  ["ALTER TABLE"] = detach,
}

--- The probe of a statement of class "alone": { before, after, clean?, check? }.
---@param st table
---@return table
function M.of(st)
  return PROBES[st.tag] or again
end

return M
