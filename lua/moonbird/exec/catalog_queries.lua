--- The queries behind catalog.lua: one for each kind of object, over all schemas at once.
--
-- Each gives rows of schema (null: the object is in none), kind, path (the name, without its schema), definition;
-- with `whole` the path has the schema all the same. `$S` is a condition on pg_namespace n: the schemas wanted;
-- `$G` is whether objects that are in no schema are; `$R` is whether names are to be relative to the schema. They
-- run with a search_path of nothing, so that the server qualifies every name.
local M = {}

-- What an extension brought is the extension's, not ours.
local function own(class, oid)
  -- A range type's constructors and casts are parts of the type.
  local parts = (class == "pg_proc" or class == "pg_cast") and "in ('e', 'i')" or "= 'e'"
  return ("not exists (select from pg_depend x where x.classid = 'pg_catalog.%s'::regclass and x.objid = %s "
    .. "and x.deptype %s)"):format(class, oid, parts)
end

--- Relations wanted, as r: oid, schema, name (quoted) and their row of pg_class.
local function relations(kinds)
  return ([[(select n.nspname as schema, quote_ident(c.relname) as name, c.* from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where c.oid >= 16384 and c.relkind in (%s) and $S and %s)]]):format(kinds, own("pg_class", "c.oid"))
end

--- Privileges; null where they are the default ones, said or not.
local function acl(column, kind, owner)
  local text = "(select string_agg(a::text, ' ' order by a::text) from unnest(%s) a)"
  return ("case when %s is not null then nullif(%s, %s) end"):format(column, text:format(column),
    text:format(("acldefault('%s', %s)"):format(kind, owner)))
end

local function owned(owner)
  return ("'owner ' || pg_get_userbyid(%s)"):format(owner)
end

-- Without those that the server writes itself.
local function options(column)
  return ([[case when %s is not null then
    (select 'with ' || string_agg(o, ', ' order by o) from unnest(%s) o where o !~ '^pg_') end]]):format(column, column)
end

-- Objects that are told by their name only: what a forgotten DROP leaves behind. 16384 is where the oids of
-- users' objects begin.
local NAMED = { "pg_language", "pg_cast", "pg_collation", "pg_conversion", "pg_operator", "pg_opclass",
  "pg_opfamily", "pg_am", "pg_ts_config", "pg_ts_dict", "pg_ts_parser", "pg_ts_template", "pg_transform",
  "pg_foreign_data_wrapper", "pg_foreign_server" }

local function named()
  local parts = {}
  for i, class in ipairs(NAMED) do
    parts[i] = ([[select i.schema, i.type, i.identity, n.oid as nsp
      from pg_catalog.%s o cross join lateral pg_identify_object('pg_catalog.%s'::regclass, o.oid, 0) i
      left join pg_namespace n on quote_ident(n.nspname) = i.schema
      where o.oid >= 16384 and %s]]):format(class, class, own(class, "o.oid"))
  end
  return ([[select n.nspname, o.type, o.identity, '' from (%s) o left join pg_namespace n on n.oid = o.nsp
    where n.oid is null and $G or $S]]):format(table.concat(parts, "\nunion all\n"))
end

-- Conditions on functions p and types t: neither arrays nor the types of tables' rows.
local SHARED = {
  P = "p.oid >= 16384 and $S and " .. own("pg_proc", "p.oid"),
  T = "t.oid >= 16384 and t.typtype in ('e', 'd', 'c', 'r', 'b') and (c.oid is null or c.relkind = 'c') "
    .. "and not (t.typtype = 'b' and t.typcategory = 'A') and $S and " .. own("pg_type", "t.oid"),
}

--- The queries for a server, see above.
---@param version integer of the server, as 150018
---@return { sql: string, whole: boolean }[]
function M.list(version)
  local since15 = version >= 150000
  local list = {}
  local function add(sql, whole)
    list[#list + 1] = { sql = sql:gsub("%$([PT])", SHARED), whole = whole or false }
  end

  add([[select n.nspname, 'schema', '', '' from pg_namespace n where $S and ]] .. own("pg_namespace", "n.oid"))

  -- Tables, with what is a property of the table as a whole.
  add([[select r.schema, 'table', r.name, concat_ws('; ',
      case r.relkind when 'f' then 'foreign, server ' || (select quote_ident(s.srvname) from pg_foreign_table f
        join pg_foreign_server s on s.oid = f.ftserver where f.ftrelid = r.oid)
        || coalesce(' ' || (select ]] .. options("f.ftoptions") .. [[
          from pg_foreign_table f where f.ftrelid = r.oid), '') end,
      case r.relpersistence when 'u' then 'unlogged' end,
      'partition by ' || pg_get_partkeydef(r.oid),
      case when r.relispartition then 'partition ' else 'inherits ' end
        || (select string_agg(i.inhparent::regclass::text, ', ' order by i.inhseqno) from pg_inherits i
            where i.inhrelid = r.oid),
      pg_get_expr(r.relpartbound, r.oid),
      'of ' || nullif(r.reloftype, 0)::regtype::text, ]] .. options("r.reloptions") .. [[,
      (select 'toast ' || ]] .. options("t.reloptions") .. [[ from pg_class t where t.oid = r.reltoastrelid),
      case when r.relrowsecurity then 'row level security' end,
      case when r.relforcerowsecurity then 'forced row level security' end,
      case r.relreplident when 'f' then 'replica identity full' when 'n' then 'replica identity nothing' end,
      (select 'using ' || amname from pg_am where oid = r.relam and amname <> 'heap'),
      case when r.reltablespace <> 0 then
        (select 'tablespace ' || spcname from pg_tablespace where oid = r.reltablespace) end)
    from ]] .. relations("'r', 'p', 'f'") .. " r")

  add([[select r.schema, 'column', r.name || '.' || quote_ident(a.attname), concat_ws(' ',
      format_type(a.atttypid, a.atttypmod),
      case when a.attcollation <> t.typcollation then 'collate ' || a.attcollation::regcollation end,
      case when a.attnotnull then 'not null' end,
      case a.attgenerated when '' then 'default ' when 's' then 'generated stored as ' else 'generated virtual as ' end
        || pg_get_expr(d.adbin, d.adrelid),
      case a.attidentity when 'a' then 'identity always' when 'd' then 'identity by default' end,
      case when a.attstorage <> t.typstorage then 'storage ' || a.attstorage::text end,
      case when a.attcompression <> '' then 'compression ' || a.attcompression::text end,
      'statistics ' || nullif(a.attstattarget, -1), ]] .. options("a.attoptions") .. [[,
      'foreign ' || ]] .. options("a.attfdwoptions") .. [[,
      case when not a.attislocal then 'inherited' end)
    from ]] .. relations("'r', 'p', 'f', 'v'") .. [[ r
    join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
    join pg_type t on t.oid = a.atttypid
    left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    where r.relkind <> 'v' or d.oid is not null]])

  add([[select r.schema, 'constraint', r.name || '.' || quote_ident(k.conname),
      concat_ws(' ', pg_get_constraintdef(k.oid), case when not k.convalidated then '(not validated)' end)
    from ]] .. relations("'r', 'p', 'f'") .. [[ r join pg_constraint k on k.conrelid = r.oid where k.contype <> 't']])

  add([[select r.schema, 'index', r.name, concat_ws('; ', pg_get_indexdef(r.oid),
      case when not i.indisvalid then 'invalid' end, case when not i.indisready then 'not ready' end,
      case when i.indisreplident then 'replica identity' end, case when i.indisclustered then 'clustered' end,
      case when r.relispartition then
        (select 'partition ' || h.inhparent::regclass from pg_inherits h where h.inhrelid = r.oid) end,
      case when r.reltablespace <> 0 then
        (select 'tablespace ' || spcname from pg_tablespace where oid = r.reltablespace) end)
    from ]] .. relations("'i', 'I'") .. " r join pg_index i on i.indexrelid = r.oid where "
    .. own("pg_class", "i.indrelid"))

  add([[select r.schema, case r.relkind when 'v' then 'view' else 'materialized view' end, r.name,
      concat_ws('; ', ]] .. options("r.reloptions") .. [[,
        case when r.relkind = 'm' and not r.relispopulated then 'not populated' end, pg_get_viewdef(r.oid))
    from ]] .. relations("'v', 'm'") .. " r")

  add([[select r.schema, 'sequence', r.name, concat_ws(' ', format_type(s.seqtypid, null), 'start', s.seqstart,
      'increment', s.seqincrement, 'from', s.seqmin, 'to', s.seqmax, 'cache', s.seqcache,
      case when s.seqcycle then 'cycle' end, case r.relpersistence when 'u' then 'unlogged' end,
      (select case d.deptype when 'i' then 'identity of ' else 'owned by ' end || d.refobjid::regclass || '.'
          || quote_ident(a.attname)
        from pg_depend d join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
        where d.classid = 'pg_class'::regclass and d.objid = r.oid and d.refclassid = 'pg_class'::regclass
          and d.deptype in ('a', 'i')))
    from ]] .. relations("'S'") .. " r join pg_sequence s on s.seqrelid = r.oid")

  add([[select n.nspname, case p.prokind when 'p' then 'procedure' when 'a' then 'aggregate' else 'function' end,
      quote_ident(p.proname) || '(' || pg_get_function_identity_arguments(p.oid) || ')',
      case when p.prokind <> 'a' then replace(pg_get_functiondef(p.oid),
        'SET search_path TO ' || quote_literal(n.nspname), 'SET search_path TO ' || case when $R then '.' else
          quote_literal(n.nspname) end)
      else (select to_jsonb(g) - 'aggfnoid' || jsonb_build_object('aggtranstype', g.aggtranstype::regtype,
          'aggmtranstype', g.aggmtranstype::regtype, 'aggsortop', g.aggsortop::regoperator,
          'result', p.prorettype::regtype, 'parallel', p.proparallel)
        from pg_aggregate g where g.aggfnoid = p.oid)::text end
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace where $P]])

  add([[select r.schema, 'trigger', r.name || '.' || quote_ident(t.tgname), pg_get_triggerdef(t.oid)
      || case t.tgenabled when 'D' then '; disabled' when 'R' then '; replica' when 'A' then '; always' else '' end
    from ]] .. relations("'r', 'p', 'f', 'v'") .. " r join pg_trigger t on t.tgrelid = r.oid where not t.tgisinternal")

  add([[select r.schema, 'rule', r.name || '.' || quote_ident(w.rulename), pg_get_ruledef(w.oid)
      || case w.ev_enabled when 'D' then '; disabled' when 'R' then '; replica' when 'A' then '; always' else '' end
    from ]] .. relations("'r', 'p', 'f', 'v', 'm'")
    .. " r join pg_rewrite w on w.ev_class = r.oid where w.rulename <> '_RETURN'")

  add([[select r.schema, 'policy', r.name || '.' || quote_ident(p.polname), concat_ws(' ',
      case when not p.polpermissive then 'restrictive' end, 'for', p.polcmd, 'to',
      (select string_agg(case o when 0 then 'public' else pg_get_userbyid(o) end, ', ' order by o)
        from unnest(p.polroles) o),
      'using ' || pg_get_expr(p.polqual, p.polrelid), 'check ' || pg_get_expr(p.polwithcheck, p.polrelid))
    from ]] .. relations("'r', 'p'") .. " r join pg_policy p on p.polrelid = r.oid")

  add([[select n.nspname, 'type', quote_ident(t.typname), case t.typtype
      when 'e' then 'enum (' || coalesce((select string_agg(quote_literal(e.enumlabel), ', ' order by e.enumsortorder)
        from pg_enum e where e.enumtypid = t.oid), '') || ')'
      when 'd' then concat_ws(' ', 'domain', format_type(t.typbasetype, t.typtypmod),
        case when t.typcollation <> 0
            and t.typcollation <> (select b.typcollation from pg_type b where b.oid = t.typbasetype)
          then 'collate ' || t.typcollation::regcollation end,
        case when t.typnotnull then 'not null' end, 'default ' || t.typdefault,
        (select string_agg('constraint ' || quote_ident(k.conname) || ' ' || pg_get_constraintdef(k.oid), ' '
          order by k.conname) from pg_constraint k where k.contypid = t.oid))
      when 'c' then 'composite (' || coalesce((select string_agg(quote_ident(a.attname) || ' '
          || format_type(a.atttypid, a.atttypmod) || case when a.attcollation not in (0, b.typcollation)
            then ' collate ' || a.attcollation::regcollation else '' end, ', ' order by a.attnum)
        from pg_attribute a join pg_type b on b.oid = a.atttypid
        where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped), '') || ')'
      when 'r' then (select concat_ws(' ', 'range of', g.rngsubtype::regtype,
          'collate ' || nullif(g.rngcollation, 0)::regcollation,
          'class', (select opcname from pg_opclass where oid = g.rngsubopc),
          'canonical ' || nullif(g.rngcanonical::oid, 0)::regproc,
          'difference ' || nullif(g.rngsubdiff::oid, 0)::regproc) from pg_range g where g.rngtypid = t.oid)
      else concat_ws(' ', 'base', t.typinput, t.typoutput, t.typlen, t.typalign, t.typstorage) end
    from pg_type t join pg_namespace n on n.oid = t.typnamespace
    left join pg_class c on c.oid = t.typrelid
    where $T]])

  add([[select n.nspname, 'statistics', quote_ident(s.stxname), concat_ws('; ', pg_get_statisticsobjdef(s.oid),
      'target ' || nullif(s.stxstattarget, -1))
    from pg_statistic_ext s join pg_namespace n on n.oid = s.stxnamespace where $S and ]]
    .. own("pg_statistic_ext", "s.oid"))

  -- Owner and privileges stand together: a change of owner rewrites both.
  add([[select r.schema, 'grants on', r.name, concat_ws(': ', ]] .. owned "r.relowner" .. [[,
    case r.relkind when 'S' then ]]
    .. acl("r.relacl", "s", "r.relowner") .. " else " .. acl("r.relacl", "r", "r.relowner") .. [[ end)
    from ]] .. relations("'r', 'p', 'f', 'v', 'm', 'S'") .. [[ r
    union all
    select r.schema, 'grants on', r.name || '.' || quote_ident(a.attname),
      ]] .. acl("a.attacl", "c", "r.relowner") .. [[
    from ]] .. relations("'r', 'p', 'f', 'v', 'm'") .. [[ r join pg_attribute a on a.attrelid = r.oid
    where a.attacl is not null and cardinality(a.attacl) > 0
    union all
    select n.nspname, 'grants on schema', '', concat_ws(': ', ]] .. owned "n.nspowner" .. ", "
    .. acl("n.nspacl", "n", "n.nspowner") .. ") from pg_namespace n where $S and " .. own("pg_namespace", "n.oid") .. [[

    union all
    select n.nspname, 'grants on', quote_ident(p.proname) || '(' || pg_get_function_identity_arguments(p.oid)
      || ')', concat_ws(': ', ]] .. owned "p.proowner" .. ", " .. acl("p.proacl", "f", "p.proowner") .. [[)
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace where $P
    union all
    select n.nspname, 'grants on type', quote_ident(t.typname), concat_ws(': ', ]] .. owned "t.typowner" .. ", "
    .. acl("t.typacl", "T", "t.typowner") .. [[)
    from pg_type t join pg_namespace n on n.oid = t.typnamespace left join pg_class c on c.oid = t.typrelid
    where $T]])

  add([[select n.nspname, 'default privileges', format('of %s on %s', pg_get_userbyid(d.defaclrole), d.defaclobjtype)
        || case when $R then '' else coalesce(' in ' || quote_ident(n.nspname), '') end,
      (select string_agg(a::text, ' ' order by a::text) from unnest(d.defaclacl) a)
    from pg_default_acl d left join pg_namespace n on n.oid = d.defaclnamespace
    where d.defaclnamespace = 0 and $G or $S]], true)

  -- A comment belongs to the schema of what it is about, or of its table.
  add([[select n.nspname, 'comment on ' || i.type,
      case when i.type = 'schema' and $R then '' else i.identity end, d.description
    from pg_description d cross join lateral pg_identify_object(d.classoid, d.objoid, d.objsubid) i
    left join pg_class r on r.oid = case d.classoid
      when 'pg_trigger'::regclass then (select tgrelid from pg_trigger where oid = d.objoid)
      when 'pg_constraint'::regclass then (select conrelid from pg_constraint where oid = d.objoid)
      when 'pg_policy'::regclass then (select polrelid from pg_policy where oid = d.objoid)
      when 'pg_rewrite'::regclass then (select ev_class from pg_rewrite where oid = d.objoid) end
    left join pg_namespace n on n.oid = r.relnamespace
      or quote_ident(n.nspname) = coalesce(i.schema, case i.type when 'schema' then i.identity end)
    where (d.objoid >= 16384 or d.classoid = 'pg_namespace'::regclass) and (d.objoid >= 16384 or i.identity = 'public')
      and (n.oid is null and i.schema is null and $G or $S) and d.classoid <> 'pg_extension'::regclass
      and not exists (select from pg_depend x where x.classid = d.classoid and x.objid = d.objoid
        and x.deptype = 'e')]], true)

  add([[select null, 'extension', quote_ident(e.extname), e.extversion || ' in ' || quote_ident(n.nspname)
    from pg_extension e join pg_namespace n on n.oid = e.extnamespace where $G]])

  add([[select null, 'event trigger', quote_ident(e.evtname), concat_ws(' ', 'on', e.evtevent,
      'when tag in (' || array_to_string(e.evttags, ', ') || ')', 'execute', e.evtfoid::regprocedure, e.evtenabled,
      ]] .. owned "e.evtowner" .. [[)
    from pg_event_trigger e where $G and ]] .. own("pg_event_trigger", "e.oid"))

  local relation_part = since15 and [[coalesce(' ('
        || (select string_agg(quote_ident(a.attname), ', ' order by a.attname)
        from unnest(l.prattrs) k join pg_attribute a on a.attrelid = l.prrelid and a.attnum = k) || ')', '')
      || coalesce(' where ' || pg_get_expr(l.prqual, l.prrelid), '')]] or "''"
  add([[select null, 'publication', quote_ident(p.pubname), concat_ws('; ',
      (to_jsonb(p) - 'oid' - 'pubname' - 'pubowner')::text, ]] .. owned "p.pubowner" .. [[,
      (select string_agg(l.prrelid::regclass || ]] .. relation_part .. [[, ', ' order by l.prrelid::regclass::text)
        from pg_publication_rel l where l.prpubid = p.oid)]] .. (since15 and [[,
      (select 'schemas ' || string_agg(l.pnnspid::regnamespace::text, ', ' order by l.pnnspid::regnamespace::text)
        from pg_publication_namespace l where l.pnpubid = p.oid)]] or "") .. [[)
    from pg_publication p where $G]])

  add([[select null, 'setting of', case s.setrole when 0 then 'the database' else 'role '
      || pg_get_userbyid(s.setrole) end, (select string_agg(o, ', ' order by o) from unnest(s.setconfig) o)
    from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase where d.datname = current_database() and $G]])

  add(named(), true)
  return list
end

return M
