--- Cases of the rule "security-definer-path".
return {
  rule = "security-definer-path",
  flagged = {
    { name = "no path", sql = "create function f() returns int language sql security definer as 'select 1';", line = 6,
      message = "function \"f\" runs with its owner's rights" },
    { name = "another setting", sql = "create or replace function s.f() returns int language sql security definer\n"
      .. "  set work_mem = '1MB' as $$ set search_path = a $$;", message = "\"s.f\"" },
    { name = "a procedure", sql = "create procedure p() language sql security definer as 'select 1';",
      message = "procedure \"p\"" },
    { name = "made one afterwards", sql = "create function f() returns int language sql as 'select 1';\n"
      .. "alter function f() security definer;", line = 7 },
    { name = "one that is there", sql = "alter function f(int) security definer;" },
    { name = "the path is taken away again",
      sql = "create function f() returns int language sql security definer set search_path = a as 'select 1';\n"
        .. "alter function f() reset search_path;", line = 6 },
    { name = "the string of a Lua migration", lua = [[
return { description = "Made up for the test of a rule",
  up = "create function f() returns int language sql security definer as 'select 1'", down = "drop function f()" }]],
      line = 2 },
    { name = "a Lua function", lua = [[
return { description = "Made up for the test of a rule",
  up = function(db)
    db:exec("alter function f() security definer")
  end, irreversible = "made up" }]],
      recorded = { up = { { text = "alter function f() security definer", line = 3 } } }, line = 3 },
  },
  clean = {
    { name = "with a path",
      sql = "create function f() returns int language sql security definer set search_path = pg_catalog, pg_temp\n"
        .. "  as 'select 1';" },
    { name = "with an empty path", sql = "create function f() returns int language sql security definer\n"
      .. "  set search_path to '' as 'select 1';" },
    { name = "with the caller's rights",
      sql = "create function f() returns int language sql security invoker as 'select 1';\n"
      .. "create function g() returns int language sql as 'select 1 /* security definer */';" },
    { name = "the path is set afterwards",
      sql = "create function f() returns int language sql security definer as 'select 1';\n"
        .. "alter function f() set search_path = pg_catalog, pg_temp;" },
    { name = "both in one ALTER", sql = "alter function f() security definer set search_path = pg_catalog, pg_temp;" },
    { name = "taken back afterwards",
      sql = "create function f() returns int language sql security definer as 'select 1';\n"
        .. "alter function f() security invoker;" },
    { name = "a body in the standard's form",
      sql = "create function f() returns int language sql security definer begin atomic select 1; end;" },
    { name = "words in a string and a comment", sql = "-- security definer\n"
      .. "comment on function f() is 'create function f() security definer';" },
    { name = "a Lua function", lua = [[
return { description = "Made up for the test of a rule",
  up = function(db)
    db:exec("alter function f() security definer set search_path = pg_catalog, pg_temp")
  end, irreversible = "made up" }]], recorded = { up = {
        { text = "alter function f() security definer set search_path = pg_catalog, pg_temp", line = 3 } } } },
  },
}
