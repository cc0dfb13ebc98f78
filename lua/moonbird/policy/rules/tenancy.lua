--- Tenants: each migration stays in its scope, and rows say whose they are.
local text_util = require "moonbird.util.text"

-- Schemas that are everybody's: what they hold is PostgreSQL's own, or the session's.
local OF_POSTGRES = { pg_catalog = true, pg_temp = true, information_schema = true, pg_toast = true }

-- What a tenant migration does with no schema at all.
local SCHEMA_VERBS = { create = true, drop = true, alter = true, rename = true }

--- The statements to look at: both directions of a file, but only the one that runs just before a run.
local function each_statement(ctx)
  local list = table.move(ctx.statements, 1, #ctx.statements, 1, {})
  if ctx.moment == "check" and ctx.direction ~= "down" then
    table.move(ctx.down_statements or {}, 1, #(ctx.down_statements or {}), #list + 1, list)
  end
  return ipairs(list)
end

local function quoted(names)
  return "\"" .. table.concat(names, "\", \"") .. "\""
end

--- Whether a statement changes where unqualified names lead to.
local function moves_search_path(statement)
  if (statement.verb == "set" or statement.verb == "reset") and statement.text then
    local plain = statement.text:lower()
    return plain:find("%f[%w_]search_path%f[^%w_]") or plain:find("^%s*reset%s+all%f[^%w_]")
      or plain:find("^%s*set%s+schema%f[^%w_]") or plain:find("^%s*set%s+%a+%s+schema%f[^%w_]")
  end
  return statement.text and statement.text:lower():find("set_config%s*%(%s*'search_path'")
end

--- A schema's name against the tenants' (exact names, or LIKE patterns: those with a "%").
local function matches(name, wanted)
  if not wanted:find("%", 1, true) then
    return name == wanted
  end
  local pattern = wanted:gsub("\\?.", function(found)
    if found == "%" then
      return ".*"
    elseif found == "_" then
      return "."
    end
    return (found:sub(-1):gsub("%W", "%%%0"))
  end)
  return name:find("^" .. pattern .. "$") ~= nil
end

local function is_tenant(ctx, name)
  for _, wanted in ipairs(ctx.tenants.schemas) do
    if matches(name, wanted) then
      return true
    end
  end
  return false
end

local function same(a, b)
  return a ~= nil and b ~= nil and a.name == b.name and a.schema == b.schema
end

-- What takes its columns from another table, where no rule can see them, or is gone with the session.
local function is_beyond(statement)
  return statement.temporary or statement.partition_of or statement.inherits or #(statement.likes or {}) > 0
end

--- What a step says about the key of one of its tables: there?, never null?, first in an index?
local function key_of(ctx, table_, key)
  local found = {}
  for _, statement in ipairs(ctx.statements) do
    if same(statement.relation, table_) then
      for _, action in ipairs(statement.actions or {}) do
        local constraint = action.constraint
        if action.kind == "add_column" and action.column == key then
          found.column, found.not_null = true, found.not_null or action.not_null
        elseif action.kind == "set_not_null" and action.column == key then
          found.column, found.not_null = true, true
        elseif constraint and constraint.kind == "primary_key" then
          for _, column in ipairs(constraint.columns or {}) do
            if column == key then
              found.column, found.not_null, found.indexed = true, true, true
            end
          end
        elseif constraint and constraint.kind == "unique" and (constraint.columns or {})[1] == key then
          found.indexed = true
        end
      end
      if statement.verb == "create" and statement.kind == "index" and (statement.columns or {})[1] == key then
        found.indexed = true
      end
    end
  end
  return found
end

local function key_name(ctx)
  local own = ctx.options.column
  return own ~= "" and own or ctx.tenants and ctx.tenants.key or nil
end

local TENANT_GOOD = [[
-- description: Keep what a tenant has ordered
-- phase: expand
-- scope: tenant
-- compatibility: backward_compatible

-- migrate:up
create table orders (
  tenant_id bigint not null,
  id bigint not null,
  placed_at timestamptz not null,
  primary key (tenant_id, id)
);

-- migrate:down
drop table orders;
]]

local GLOBAL_GOOD = [[
-- description: Keep the plans that tenants can choose from
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up
create table public.plans (id bigint primary key, name text not null);

-- migrate:down
drop table public.plans;
]]

return {
  {
    id = "tenant-schema", group = "tenancy", severity = "error", gate = true,
    title = "a tenant migration names no schema but the shared ones",
    explain = text_util.trim [[
A tenant migration runs once for each tenant, with the search_path set to that tenant's schema. A schema that is
written out leads every one of those runs to the same place: the first makes the table there, the second finds it
taken, or, worse, each run changes one tenant's rows again. The same goes for a SET search_path in the middle, and
for CREATE SCHEMA, which is not a tenant migration's business.

Leave the schema away. What all tenants share belongs in a global migration; schemas that tenants may refer to (a
table of countries) are listed: `["tenant-schema"] = { shared = { "public" } }`.]],
    fix = "leave the schema away, or make it a migration of scope global",
    seeds = { "ADR-0068: Tenant-scoped migrations execute per tenant target." },
    options = { shared = { default = {}, type = "list", help = "schemas that tenant migrations may name" } },
    examples = { bad = TENANT_GOOD:gsub("create table orders", "create table acme.orders"), good = TENANT_GOOD },
    applies = function(ctx)
      return ctx.migration.scope == "tenant"
    end,
    check = function(ctx)
      local free = {}
      for _, name in ipairs(ctx.options.shared) do
        free[name] = true
      end
      for _, statement in each_statement(ctx) do
        local foreign = {}
        for _, name in ipairs(statement.schemas or {}) do
          if not free[name] and not OF_POSTGRES[name] then
            foreign[#foreign + 1] = name
          end
        end
        if statement.kind == "schema" and SCHEMA_VERBS[statement.verb] then
          ctx:report(("a tenant migration does not %s schemas"):format(statement.verb), { at = statement })
        elseif moves_search_path(statement) then
          ctx:report("a tenant migration does not change the search_path, which leads to its tenant",
            { at = statement, fix = "remove it" })
        elseif #foreign > 0 then
          ctx:report(("a tenant migration names the schema%s %s"):format(#foreign > 1 and "s" or "",
            quoted(foreign)), { at = statement })
        end
      end
    end,
  },
  {
    id = "global-tenant", group = "tenancy", severity = "error", gate = true,
    title = "a global migration names no tenant's schema",
    explain = text_util.trim [[
A global migration runs once. What it changes in one tenant's schema is not changed in the others, and no journal
says so: from then on the tenants differ, and the next tenant migration fails for one of them.

Make it a tenant migration (`scope: tenant`), which runs for each and is recorded for each.]],
    fix = "make it a migration of scope tenant, without the schema's name",
    seeds = {
      "ADR-0068: Migration journal records are stored per target (`global` or tenant ID).",
      "ADR-0068: Tenant migration history can diverge intentionally while remaining auditable.",
    },
    examples = { tenants = { schemas = { "tenant\\_%" } },
      bad = GLOBAL_GOOD:gsub("public%.plans", "tenant_acme.plans"), good = GLOBAL_GOOD },
    applies = function(ctx)
      return ctx.migration.scope ~= "tenant" and ctx.tenants and ctx.tenants.schemas ~= nil
    end,
    check = function(ctx)
      for _, statement in each_statement(ctx) do
        local tenants = {}
        for _, name in ipairs(statement.schemas or {}) do
          if is_tenant(ctx, name) then
            tenants[#tenants + 1] = name
          end
        end
        if #tenants > 0 then
          ctx:report(("a global migration names the tenant schema%s %s"):format(#tenants > 1 and "s" or "",
            quoted(tenants)), { at = statement })
        end
      end
    end,
  },
  {
    id = "tenant-key", group = "tenancy", severity = "error",
    title = "tenant tables have the tenant's key, NOT NULL",
    explain = text_util.trim [[
Where tenants share tables, a column says whose a row is. A table without it can't be filtered, exported or
deleted by tenant; one where it may be null has rows that are nobody's and that every filter misses. A key that is
neither in the primary key nor first in an index makes each tenant's query read all tenants' rows: that is a warning.

The column's name is configured: `["tenant-key"] = { column = "tenant_id" }`, or `tenants = { key = ... }`.
Without one, this rule is off. A table that takes its columns from elsewhere (PARTITION OF, INHERITS, LIKE) is
not looked at.]],
    fix = "add the column, NOT NULL, and put it first in the primary key",
    seeds = { "ADR-0068: cross-tenant drift," },
    options = { column = { default = "", type = "string", help = "the tenant key's column; empty: tenants.key" } },
    examples = { options = { column = "tenant_id" },
      bad = TENANT_GOOD:gsub("  tenant_id bigint not null,\n", ""):gsub("tenant_id, ", ""), good = TENANT_GOOD },
    applies = function(ctx)
      return ctx.migration.scope == "tenant" and ctx.direction ~= "down" and key_name(ctx) ~= nil
    end,
    check = function(ctx)
      local key = key_name(ctx)
      for _, statement in ipairs(ctx.statements) do
        local makes_table = statement.verb == "create" and statement.kind == "table" and statement.name
        if makes_table and not is_beyond(statement) then
          local found = key_of(ctx, statement, key)
          if not found.not_null and statement.from_query then
            ctx:report(("the tenant table \"%s\" takes its columns from a query, which makes \"%s\" nullable"):format(
              statement.name, key), { at = statement, fix = "create the table with its columns, then fill it" })
          elseif not found.column then
            ctx:report(("the tenant table \"%s\" lacks the column \"%s\""):format(statement.name, key),
              { at = statement })
          elseif not found.not_null then
            ctx:report(("the column \"%s\" of the tenant table \"%s\" may be null"):format(key, statement.name),
              { at = statement, fix = "make it NOT NULL" })
          elseif not found.indexed then
            ctx:report(("no index of the tenant table \"%s\" starts with \"%s\""):format(statement.name, key),
              { at = statement, severity = "warning", fix = "put it first in the primary key, or add an index" })
          end
        end
      end
    end,
  },
}
