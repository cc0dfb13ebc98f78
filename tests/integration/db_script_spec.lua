-- What db refuses and how it writes values, seen by scripts of `moonbird run`.
local helper = require "tests.helper"
local texts = require "tests.texts"
local async = helper.async
local has = texts.has

-- Stands on the first line of each script: `fails(words, fn)` insists on an error of code "script" (or `code`) that has
-- the words, and the place in the script, whichever it is.
local PRELUDE = [[local function fails(words, fn, code) local ok, err = pcall(fn) ]]
  .. [[if ok then error("no error: " .. words, 2) end ]]
  .. [[if type(err) ~= "table" then error("not a table: " .. tostring(err), 2) end ]]
  .. [[local said = tostring(err) .. " " .. tostring(err.hint) ]]
  .. [[if not said:find(words, 1, true) or err.code ~= (code or "script") or err.file ~= "x.lua" or not err.line then ]]
  .. [[error(("%s (%s): %s"):format(err.file, err.code, said), 2) end end ]]
  .. [[local function eq(got, wanted) if got ~= wanted then error(("got %q, not %q"):format(got, wanted), 2) end end ]]

describe("a script", function()
  local db, dir

  before_each(async(function()
    db = helper.database()
    dir = helper.project {}
  end))

  --- Runs a script with this body, which begins on line 2.
  local function script(body, status)
    helper.write(dir, { ["x.lua"] = PRELUDE .. "return function(db)\n" .. body .. "\nend\n" })
    return helper.ok({ "run", "x.lua" }, { cwd = dir, db = db, status = status or 0 })
  end

  it("can't begin or end a transaction but by atomic", async(function()
    db:exec "create table t (i int)"
    local said = script([[
  for _, sql in ipairs { "begin", "commit", "rollback", "start transaction", "end", "abort", "commit and chain" } do
    fails("db:atomic", function() db:exec(sql) end, "transaction")
    fails("db:atomic", function() db:exec("select 1; " .. sql) end, "transaction")
    fails("db:atomic", function() db:query(sql) end, "transaction")
    db:atomic(function()
      db:exec "insert into t values (1)"
      fails("db:atomic", function() db:exec(sql) end, "transaction")
    end)
  end
  pcall(db.atomic, db, function()
    db:exec "insert into t values (2)"
    pcall(db.exec, db, "commit")
    error "out"
  end)
  db:exec "vacuum t"
  db:exec "begin"]], 1).stderr
    has(said, "x.lua:17")
    has(said, "BEGIN is not allowed in a script")
    assert.are.same({ 7, 1 }, { db:value "select count(*) from t", db:value "select max(i) from t" })
  end))

  describe("giving COPY rows", function()
    it("by name is told that they are lists", async(function()
      script([[
  db:exec "create table t (a text, b text); insert into t values ('x', 'y')"
  fails("has the key \"", function() db:copy_in("copy t from stdin", db:query "select a, b from t") end)
  fails("order of the columns", function() db:copy_in("copy t from stdin", db:query "select a, b from t") end)
  fails("the list of rows has the key", function() db:copy_in("copy t from stdin", { a = "x", b = "y" }) end)
  fails("no length", function() db:copy_in("copy t from stdin", { { n = "x" } }) end)
  fails("a hole before item 4", function() db:copy_in("copy t from stdin", { { 1, 2, [4] = 3 } }) end)
  local rows = { { 1, 2 }, "2\t3\n" }
  rows[5] = { 3, 4 }
  fails("a hole before item 5", function() db:copy_in("copy t from stdin", rows) end)
  fails("got nil", function() db:copy_in("copy t from stdin", { { 1, 2 }, nil, n = 2 }) end)
  fails("an array has the key \"a\"", function() db:copy_in("copy t from stdin", { { 1, { a = 1 } } }) end)
  fails("can't hold a function", function() db:copy_in("copy t from stdin", { { 1, print } }) end)
  eq(db:value "select count(*) from t", 1)
  eq(db:copy_in("copy t from stdin", { { 1, nil, n = 2 }, table.pack(nil, { 1, { 2 } }), "2\t3\n", n = 3 }), 3)
  eq(db:value "select string_agg(coalesce(a, '-') || coalesce(b, '-'), ' ') from t", "xy 1- -{1,{2}} 23")]])
    end))

    it("is refused for another format than the one they are written in", async(function()
      script([[
  db:exec "create table t (a text, b text)"
  local rows = { { "C:\\\\dir", db.null } }
  for _, options in ipairs { "csv", "with (format csv)", "binary", "(format 'binary')", "delimiter '|'", "with null ''",
    "(null 'x')", "(header true)", "(encoding 'latin1')", "csv header quote '!'" } do
    fails("plain text format", function() db:copy_in("copy t from stdin " .. options, rows) end)
    fails("plain text format", function()
      db:copy_in("copy t (a, b) from stdin " .. options, coroutine.wrap(function() coroutine.yield(rows[1]) end))
    end)
  end
  eq(db:value "select count(*) from t", 0)
  for _, options in ipairs { "", "(format text)", "with (format 'text')" } do
    eq(db:copy_in("copy t from stdin " .. options, rows), 1)
  end
  eq(db:value "select count(*) from t where a = 'C:\\\\dir' and b is null", 3)
  eq(db:copy_in("copy t from stdin csv", "C:\\dir,\n"), 1)
  eq(db:copy_in("copy t from stdin (delimiter '|')", { "a|b\n", "c|d\n" }), 2)]])
    end))

    it("finds that the text has data of its own", async(function()
      script([[
  db:exec "create table t (a text)"
  fails("second argument", function() db:copy_in("copy t from stdin;\n1\n2\n\\.\n", "3\n") end)
  eq(db:value "select count(*) from t", 0)]])
    end))

    it("can't use db meanwhile", async(function()
      script([[
  db:exec "create table t (a text)"
  local more
  for _, fn in ipairs { function() db:query "select 1" end, function() db:atomic(print) end,
    function() db:copy_in("copy t from stdin", "x\n") end, function() for _ in db:rows "select 1" do end end,
    function() for _ in db:copy_out "copy t to stdout" do end end } do
    fails("collect what it needs", function() db:copy_in("copy t from stdin", fn) end)
  end
  eq(db:value "select count(*) from t", 0)]])
    end))
  end)

  it("writes literals that stay what they are", async(function()
    script([[
  local function back(value) return db:value("select " .. db:literal(value)) end
  local function kind(value) return db:value("select pg_typeof(" .. db:literal(value) .. ")::text") end
  for _, n in ipairs { 0, 5, -5, math.maxinteger, math.mininteger, 0.1, -0.1, 2.0, -2.0, 1e300, 5e-324, 1/3,
    math.huge } do
    eq(back(n), n)
    eq(db:value("select -1 -" .. db:literal(n) .. " = -1 - " .. db:literal(n)), true)
    local small = n >= -5 and n <= 5
    eq(kind(n), math.type(n) == "float" and "double precision" or small and "integer" or "bigint")
  end
  eq(db:value("select 10 -" .. db:literal(-5)), 15)
  eq(db:value("select 10 -" .. db:literal(-5.5)), 15.5)
  eq(db:value("select 1 / " .. db:literal(2.0)), 0.5)
  eq(db:literal(-5), "(-5)")
  db:exec("create table t (i int default " .. db:literal(-5) .. ", n numeric default " .. db:literal(0.1) .. ")")
  db:exec "insert into t default values"
  eq(db:one "select * from t".n, "0.1")]])
  end))

  it("names nothing with nil", async(function()
    script([[
  fails("ident wants a string, got nil", function() db:ident("users", nil) end)
  fails("ident wants a string, got nil", function() db:ident(nil, "users") end)
  fails("ident wants a string, got nil", function() db:ident() end)
  eq(db:ident("a", "b"), "a.b")]])
  end))

  it("reads arrays, and no others", async(function()
    script([[
  for _, text in ipairs { "{1,{{{{{{7}}}}}}}", "{{{{{{{7}}}}}}}", "{1,,2}", "{,1}", "{1,}", "{\"a\"b}", "{a\"b\"}",
    "{1}{2}", "{1} x", "{", "{1", "{\"a", "{1,{2}}", "{{1},2}", "", "1", "{a\\b}", "{}}", "[0:1]=1",
    "{{1}{2}}", "{ , }" } do
    fails("not an array literal", function() db:decode_array(text) end)
  end
  local function round(text) return db:array(db:decode_array(text)) end
  eq(round "{}", "{}") eq(round "{NULL,\"NULL\",a}", '{NULL,"NULL","a"}')
  eq(round '{"a b","\\\\\\"",""}', '{"a b","\\\\\\"",""}') eq(round "[0:1]={1,2}", '{"1","2"}')
  eq(round "{{1,2},{3,NULL}}", '{{"1","2"},{"3",NULL}}') eq(round "{{{{{{7}}}}}}", '{{{{{{"7"}}}}}}')
  eq(round '{ 1 , "b" }', '{"1","b"}')
  fails("has the key", function() db:array { a = 1, b = 2 } end)
  fails("has the key", function() db:array { { 1 }, { x = 1 } } end)
  fails("6 dimensions", function() local t = {} t[1] = t db:array(t) end)
  eq(db:array { 1, nil, n = 2 }, "{1,NULL}")]])
  end))

  it("runs large texts again and again in little memory", async(function()
    helper.write(dir, { ["moonbird.lua"] = "return { limits = { memory = \"64MB\" } }\n" })
    script([[
  for i = 1, 20 do
    db:exec("select " .. i .. " /* " .. ("x"):rep(4000000) .. " */")
  end]])
  end))

  it("sees errors of arguments as tables with its own line", async(function()
    script([[
  fails("json.decode wants a string, got nil", function() db.json.decode(nil) end)
  fails("json.decode wants a string, got nil", function() db.json.decode() end)
  fails("can't be written as JSON", function() db.json.encode(print) end)
  fails("json.array wants a table, got number", function() db.json.array(1) end)
  fails("zero byte", function() db:literal("a\0") end)
  fails("zero byte", function() db:ident("s", "a\0") end)
  fails("got function", function() db:literal(print) end)
  eq(db.json.encode({ 1 }, true), "[1]")]])
  end))
end)
