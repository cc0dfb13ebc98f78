--- Pictures of a database that can be compared: its catalog with the rows of its tables, and its journal
-- without what differs between two runs. What moonbird promises after a crash is that both are those of a
-- run that nobody interrupted.
local M = {}

-- The journal's schema is in it too: its own migrations are killed like any other.
local CATALOG = [[
  with ns as (
    select oid, nspname from pg_namespace
    where nspname !~ '^pg_' and nspname <> 'information_schema'
  )
  select line from (
    select 'schema ' || nspname as line from ns
    union all
    select format('relation %s.%s kind=%s persistence=%s partition=%s', nspname, relname, relkind,
                  relpersistence, relispartition)
    from pg_class c join ns on ns.oid = relnamespace
    union all
    select format('column %s.%s.%s %s %s null=%s default=%s', nspname, relname, attnum, attname,
                  format_type(atttypid, atttypmod), not attnotnull, pg_get_expr(d.adbin, d.adrelid))
    from pg_attribute a join pg_class c on c.oid = attrelid join ns on ns.oid = relnamespace
    left join pg_attrdef d on d.adrelid = attrelid and d.adnum = attnum
    where attnum > 0 and not attisdropped and relkind in ('r', 'p', 'v', 'm', 'c')
    union all
    select format('index %s valid=%s ready=%s live=%s', pg_get_indexdef(indexrelid), indisvalid, indisready,
                  indislive)
    from pg_index i join pg_class c on c.oid = indexrelid join ns on ns.oid = relnamespace
    union all
    select format('constraint %s.%s on %s: %s validated=%s', nspname, conname, conrelid::regclass,
                  pg_get_constraintdef(k.oid), convalidated)
    from pg_constraint k join ns on ns.oid = connamespace
    union all
    select format('function %s.%s(%s) %s', nspname, proname, pg_get_function_identity_arguments(p.oid),
                  md5(prosrc))
    from pg_proc p join ns on ns.oid = pronamespace
    union all
    select format('trigger %s on %s', tgname, tgrelid::regclass)
    from pg_trigger t join pg_class c on c.oid = tgrelid join ns on ns.oid = relnamespace
    where not tgisinternal
    union all
    select format('view %s.%s %s', nspname, relname, md5(pg_get_viewdef(c.oid)))
    from pg_class c join ns on ns.oid = relnamespace where relkind in ('v', 'm')
    union all
    select format('type %s.%s %s', nspname, typname, typtype)
    from pg_type t join ns on ns.oid = typnamespace where typtype in ('e', 'd')
    union all
    select format('detach pending %s', inhrelid::regclass) from pg_inherits where inhdetachpending
  ) all_lines order by line collate "C"]]

local TABLES = [[
  select format('%I.%I', nspname, relname)
  from pg_class c join pg_namespace n on n.oid = relnamespace
  where relkind = 'r' and nspname !~ '^pg_' and nspname not in ('information_schema', 'moonbird')
  order by 1]]

--- The catalog of a database and the rows of its tables, as text.
---@param db tests.database
---@return string
function M.catalog(db)
  local lines = db:values(CATALOG)
  for _, name in ipairs(db:values(TABLES)) do
    lines[#lines + 1] = "rows " .. name .. ": " .. db:value(
      ("select count(*) || ' ' || md5(coalesce(string_agg(t::text, ' ' order by t::text collate \"C\"), '')) from %s t")
      :format(name))
  end
  return table.concat(lines, "\n")
end

--- Whether the database has a journal.
---@param db tests.database
---@return boolean
function M.has_journal(db)
  return db:value("select to_regclass('moonbird.journal') is not null")
end

-- Without times, ids of runs, hashes; of `detail` without what names a backend or was found on the way.
local EVENTS = [[
  select format('%s %s %s v=%s id=%s %s %s applies=%s unit=%s sha=%s sqlstate=%s checksum=%s', target, ordinal,
                event, version_text, id, direction, outcome, applies, detail ->> 'unit', detail ->> 'sha',
                sqlstate, checksum)
  from moonbird.journal order by target, ordinal]]

local STATE = [[
  select format('state %s %s %s %s applies=%s', target, version, version_text, id, applies)
  from moonbird.state order by target, version]]

--- The journal's events in their order and its state, as text; "" when there is none.
---@param db tests.database
---@return string
function M.journal(db)
  if not M.has_journal(db) then
    return ""
  end
  local lines = db:values(EVENTS)
  table.move(db:values(STATE), 1, #db:values(STATE), #lines + 1, lines)
  return table.concat(lines, "\n")
end

local DONE = [[
  select format('%s %s v=%s id=%s %s %s applies=%s unit=%s sha=%s checksum=%s', target, event, version_text, id,
                direction, outcome, applies, detail ->> 'unit', detail ->> 'sha', checksum)
  from moonbird.journal where event <> 'fail' order by target, ordinal]]

--- What the journal says was done, in its order, and its state, as text: journal() without failures that were noted.
---@param db tests.database
---@return string
function M.done(db)
  local lines = db:values(DONE)
  table.move(db:values(STATE), 1, #db:values(STATE), #lines + 1, lines)
  return table.concat(lines, "\n")
end

--- The versions that the journal holds for applied, in their order: "1 2 3".
---@param db tests.database
---@return string
function M.applied(db)
  if not M.has_journal(db) then
    return ""
  end
  return table.concat(db:values([[
    select version from moonbird.state where target <> '@journal' and applies order by version]]), " ")
end

--- How often each version was applied and not taken back in between: 1 each, or something is wrong.
---@param db tests.database
---@return string such as "1:1 2:1"
function M.times_applied(db)
  return table.concat(db:values([[
    select version || ':' || count(*) from moonbird.journal where target <> '@journal' and event = 'apply'
    group by version order by version]]), " ")
end

--- What is wrong with the journal's hash chains; "" when nothing is.
---@param db tests.database
---@return string
function M.broken_chains(db)
  if not M.has_journal(db) then
    return ""
  end
  return table.concat(db:values("select format('%s %s: %s', target, ordinal, problem) from moonbird.verify()"), "\n")
end

--- INVALID indexes, by name; "" when there is none.
---@param db tests.database
---@return string
function M.invalid_indexes(db)
  return table.concat(db:values([[
    select indexrelid::regclass::text from pg_index where not indisvalid or not indisready or not indislive]]), " ")
end

--- Lines that only one of two pictures has, for a message that a person can read.
---@param wanted string
---@param found string
---@return string "" when they are equal
function M.difference(wanted, found)
  if wanted == found then
    return ""
  end
  local function split(text)
    local counts, list = {}, {}
    for line in text:gmatch("[^\n]+") do
      counts[line] = (counts[line] or 0) + 1
      list[#list + 1] = line
    end
    return counts, list
  end
  local wanted_counts, wanted_list = split(wanted)
  local found_counts, found_list = split(found)
  local out = {}
  for _, line in ipairs(wanted_list) do
    if (found_counts[line] or 0) < wanted_counts[line] then
      out[#out + 1] = "missing: " .. line
    end
  end
  for _, line in ipairs(found_list) do
    if (wanted_counts[line] or 0) < found_counts[line] then
      out[#out + 1] = "extra:   " .. line
    end
  end
  return #out > 0 and table.concat(out, "\n") or "the same lines in another order"
end

--- Waits until no backend of moonbird's is left on the database: what a killed process left behind.
---@param db tests.database
---@return integer
function M.backends(db)
  return db:value([[select count(*) from pg_stat_activity
    where application_name like 'moonbird/%' and datname = current_database()]])
end

--- Process ids of moonbird's backends that run a statement like `pattern`, newest first.
---@param db tests.database
---@param pattern string of LIKE
---@return integer|nil pid
function M.running(db, pattern)
  return db:value([[select pid from pg_stat_activity where state = 'active' and query ilike $1
    and application_name like 'moonbird/%' and datname = current_database() order by query_start desc limit 1]],
    pattern)
end

return M
