--- Cases of the rule "grant-public".
return {
  rule = "grant-public",
  flagged = {
    { name = "a table", sql = "grant select on orders to public;", line = 6,
      message = "SELECT on table \"orders\" is granted to PUBLIC" },
    { name = "one of several grantees, in big letters", sql = "GRANT ALL ON TABLE shop.orders TO reader, PUBLIC;",
      message = "shop.orders" },
    { name = "CREATE on a schema", sql = "grant create on schema public to public;",
      message = "CREATE on schema \"public\"" },
    { name = "everything in a schema", sql = "grant select on all tables in schema shop to public;",
      message = "all of schema \"shop\"" },
    { name = "a function", sql = "grant execute on function pay(int) to public;" },
    { name = "what will be created", sql = "alter default privileges in schema shop grant select on tables to public;",
      message = "ALTER DEFAULT PRIVILEGES" },
    { name = "the string of a Lua migration", lua = [[
return { description = "Made up for the test of a rule",
  up = "grant select on orders to public", down = "revoke select on orders from public" }]], line = 2 },
    { name = "a Lua function", lua = [[
return { description = "Made up for the test of a rule",
  up = function(db)
    db:exec("grant select on orders to public")
  end, irreversible = "made up" }]],
      recorded = { up = { { text = "grant select on orders to public", line = 3 } } }, line = 3 },
  },
  clean = {
    { name = "a role of its own", sql = "grant select on orders to reporting;" },
    { name = "objects in the schema public", sql = "grant select on public.orders to reporting;\n"
      .. "grant usage on schema public to reporting;" },
    { name = "REVOKE", sql = "revoke all on orders from public;\nrevoke create on schema public from public;\n"
      .. "alter default privileges revoke execute on functions from public;" },
    { name = "USAGE of types", sql = "grant usage on type mood to public;\ngrant usage on domain email to public;" },
    { name = "words in a string and a comment",
      sql = "-- grant select on orders to public;\ncomment on table orders is 'grant select on orders to public';" },
    { name = "a Lua function", lua = [[
return { description = "Made up for the test of a rule",
  up = function(db)
    db:exec("grant select on orders to reporting")
  end, irreversible = "made up" }]],
      recorded = { up = { { text = "grant select on orders to reporting", line = 3 } } } },
  },
}
