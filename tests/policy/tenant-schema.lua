--- Cases of the rule tenant-schema.
local tenant = { scope = "tenant" }

return {
  rule = "tenant-schema",
  flagged = {
    { name = "a table of another schema", sql = "create table acme.orders (id int);", header = tenant, line = 6,
      message = "names the schema \"acme\"" },
    { name = "rows of another schema", sql = "update billing.plans set name = 'x' where id = 1;", header = tenant },
    { name = "a foreign key that leads to another schema",
      sql = "create table orders (id int references public.users (id));", header = tenant, message = "public" },
    { name = "a view over another schema", header = tenant,
      sql = "create view all_orders as select * from acme.orders;" },
    { name = "SET search_path", sql = "set search_path to acme;\ncreate table orders (id int);", header = tenant,
      line = 6, message = "search_path" },
    { name = "SET LOCAL search_path, quoted", sql = "set local \"search_path\" = public;", header = tenant },
    { name = "RESET search_path", sql = "reset search_path;", header = tenant, message = "search_path" },
    { name = "set_config", sql = "select set_config('search_path', 'acme', true);", header = tenant,
      message = "search_path" },
    { name = "CREATE SCHEMA", sql = "create schema acme;", header = tenant, message = "does not create schemas" },
    { name = "SET SCHEMA", sql = "set schema 'public';", header = tenant, message = "search_path" },
    { name = "SET LOCAL SCHEMA", sql = "set local schema 'public';", header = tenant, message = "search_path" },
    { name = "RESET ALL", sql = "reset all;", header = tenant, message = "search_path" },
    { name = "ALTER SCHEMA", sql = "alter schema acme rename to acme_old;", header = tenant,
      message = "does not %a+ schemas" },
    { name = "DROP SCHEMA", sql = "drop schema acme;", header = tenant, message = "does not drop schemas" },
    { name = "in the down", sql = "create table orders (id int);", down = "drop table acme.orders;",
      header = tenant, line = 8 },
    { name = "a shared one, and another", sql = "insert into acme.x select * from public.y;", header = tenant,
      options = { shared = { "public" } }, message = "the schema \"acme\"$" },
    { name = "a string in Lua", line = 3, lua = [[
return {
  scope = "tenant",
  up = "create table acme.orders (id int)",
  down = "drop table orders",
}
]] },
    { name = "a recorded function", line = 4, lua = [[
return {
  scope = "tenant",
  up = function(db)
    db:exec("delete from acme.orders where id = 1")
  end,
  irreversible = "the row was wrong",
}
]], recorded = { up = { { text = "delete from acme.orders where id = 1", line = 4 } } } },
  },
  clean = {
    { name = "no schema is named", sql = "create table orders (id int);", header = tenant },
    { name = "PostgreSQL's own", header = tenant, sql = "create table orders (id int, "
      .. "at timestamptz default pg_catalog.now());\nselect count(*) from information_schema.tables;" },
    { name = "a shared one", sql = "create table orders (country int references public.countries (id));",
      header = tenant, options = { shared = { "public" } } },
    { name = "a global migration", sql = "create table acme.orders (id int);" },
    { name = "another setting", sql = "set local lock_timeout = '1s';\ncreate table orders (id int);",
      header = tenant },
    { name = "the words of a comment", sql = "comment on table orders is 'found by search_path';",
      header = tenant },
    { name = "in Lua", lua = [[
return { scope = "tenant", up = "create table orders (id int)", down = "drop table orders" }
]] },
    { name = "a down that is not what runs now", moment = "before", sql = "create table orders (id int);",
      down = "drop table acme.orders;", header = tenant },
  },
}
