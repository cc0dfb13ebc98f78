--- Cases of the rule tenant-key.
local tenant, column = { scope = "tenant" }, { column = "tenant_id" }

return {
  rule = "tenant-key",
  flagged = {
    { name = "no such column", sql = "create table orders (id bigint primary key);", header = tenant, line = 6,
      options = column, severity = "error", message = "\"orders\" lacks the column \"tenant_id\"" },
    { name = "it may be null", sql = "create table orders (id bigint primary key, tenant_id bigint);",
      header = tenant, options = column, severity = "error", message = "may be null" },
    { name = "in no index", sql = "create table orders (id bigint primary key, tenant_id bigint not null);",
      header = tenant, options = column, severity = "warning", message = "no index" },
    { name = "last in an index", sql = "create table orders (id bigint primary key, tenant_id bigint not null);\n"
      .. "create index orders_tenant on orders (id, tenant_id);", header = tenant, options = column,
      severity = "warning" },
    { name = "the key that the tenants' settings name", sql = "create table orders (id bigint primary key);",
      header = tenant, tenants = { key = "account" }, message = "\"account\"" },
    { name = "the second table", sql = "create table a (tenant_id int primary key);\ncreate table b (id int);",
      header = tenant, options = column, line = 7, message = "\"b\"" },
    { name = "made of a query", sql = "create table orders as select 1 as tenant_id;", header = tenant,
      options = column, severity = "error", message = "takes its columns from a query" },
    { name = "in Lua", options = column, line = 3, lua = [[
return {
  scope = "tenant",
  up = "create table orders (id bigint primary key)",
  down = "drop table orders",
}
]] },
  },
  clean = {
    { name = "first in the primary key", header = tenant, options = column,
      sql = "create table orders (tenant_id bigint, id bigint, primary key (tenant_id, id));" },
    { name = "first in an index", header = tenant, options = column,
      sql = "create table orders (id bigint primary key, tenant_id bigint not null);\n"
        .. "create index orders_tenant on orders (tenant_id, id);" },
    { name = "added in a second statement", header = tenant, options = column,
      sql = "create table orders (id bigint primary key);\nalter table orders add column tenant_id bigint not null;\n"
        .. "alter table orders add unique (tenant_id, id);" },
    { name = "nothing is configured", sql = "create table orders (id bigint primary key);", header = tenant },
    { name = "what is no new table", sql = "alter table orders add column note text;\n"
      .. "create index orders_note on orders (note);", header = tenant, options = column },
    { name = "a global migration", sql = "create table plans (id bigint primary key);", options = column },
    { name = "a partition has its parent's columns", header = tenant, options = column,
      sql = "create table orders_1 partition of orders for values in (1);" },
    { name = "a table like another", header = tenant, options = column,
      sql = "create table orders_old (like orders including all);" },
    { name = "made of a query, and made NOT NULL", header = tenant, options = column,
      sql = "create table orders as select 1 as tenant_id;\nalter table orders alter column tenant_id set not null;\n"
        .. "create index orders_tenant on orders (tenant_id);" },
    { name = "a temporary table", header = tenant, options = column,
      sql = "create temporary table seen (id bigint) on commit drop;" },
    { name = "in Lua", options = column, lua = [[
return {
  scope = "tenant",
  up = "create table orders (tenant_id bigint primary key)",
  down = "drop table orders",
}
]] },
  },
}
