--- Cases of the rule "grant-review".
return {
  rule = "grant-review",
  flagged = {
    { name = "GRANT", sql = "grant select on orders to reporting;", line = 6, severity = "info",
      message = "changes rights %(GRANT on line 6%)" },
    { name = "REVOKE, and more behind it", sql = "comment on table orders is 'x';\nrevoke select on orders from a;\n"
      .. "grant select on orders to b;\ngrant a to b;", line = 7, message = "and 2 more" },
    { name = "what will be created", sql = "alter default privileges grant select on tables to reporting;" },
    { name = "an owner, among other actions", sql = "alter table orders add column a int, owner to app;" },
    { name = "the owner of a function and of a schema",
      sql = "alter function f(int) owner to app;\nalter schema s owner to app;", message = "and 1 more" },
    { name = "a new owner of everything", sql = "reassign owned by old to app;" },
    { name = "a Lua function", lua = [[
return { description = "Made up for the test of a rule",
  up = function(db)
    db:exec("grant select on orders to reporting")
  end, irreversible = "made up" }]],
      recorded = { up = { { text = "grant select on orders to reporting", line = 3 } } }, line = 3 },
    { name = "the string of a Lua migration", lua = [[
return { description = "Made up for the test of a rule",
  up = "alter table orders owner to app", irreversible = "made up" }]], line = 2 },
  },
  clean = {
    { name = "no rights", sql = "alter table orders add column owner text default 'grant';\n"
      .. "update orders set owner = 'grant all to public' where id = 1;" },
    { name = "a table of grants", sql = "create table grants (id int primary key, owner text);\n"
      .. "insert into grants (id) values (1);" },
    { name = "words in a string and a comment", sql = "/* grant select on orders to a; */\n"
      .. "comment on table orders is 'owner to app';" },
    { name = "the string of a Lua migration", lua = [[
return { description = "Made up for the test of a rule",
  up = "alter table orders add column a int", irreversible = "grant" }]] },
  },
}
