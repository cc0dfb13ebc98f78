--- Cases of the rule global-tenant.
local patterns = { schemas = { "tenant\\_%" } }
local names = { schemas = { "acme", "zebra" } }

return {
  rule = "global-tenant",
  flagged = {
    { name = "a tenant's schema by pattern", sql = "alter table tenant_7.orders add column a int;", line = 6,
      tenants = patterns, message = "the tenant schema \"tenant_7\"" },
    { name = "by name", sql = "create table acme.orders (id int);", tenants = names, message = "acme" },
    { name = "two of them", sql = "insert into acme.orders select * from zebra.orders;", tenants = names,
      message = "schemas \"acme\", \"zebra\"" },
    { name = "by search_path", sql = "set local search_path to acme;", tenants = names },
    { name = "in the down", sql = "create table t (id int);", down = "drop table acme.orders;", tenants = names,
      line = 8 },
    { name = "in Lua", line = 2, tenants = names, lua = [[
return {
  up = "update acme.orders set paid = true where id = 7",
  irreversible = "the order is paid",
}
]] },
    { name = "a recorded function", line = 2, tenants = patterns, lua = [[
return {
  up = function(db) db:exec("drop table tenant_1.orders") end,
  irreversible = "the orders are archived",
}
]], recorded = { up = { { text = "drop table tenant_1.orders", line = 2 } } } },
  },
  clean = {
    { name = "a schema that is nobody's", sql = "create table public.plans (id int);", tenants = names },
    { name = "a name that only looks like the pattern", sql = "create table tenants.plans (id int);",
      tenants = patterns },
    { name = "a name is no pattern", sql = "create table acme_2.plans (id int);", tenants = names },
    { name = "there are no tenants", sql = "create table acme.orders (id int);" },
    { name = "a tenant migration is another rule's", sql = "create table acme.orders (id int);", tenants = names,
      header = { scope = "tenant" } },
    { name = "in Lua", tenants = names,
      lua = "return { up = \"create table public.plans (id int)\", down = \"drop table public.plans\" }" },
  },
}
