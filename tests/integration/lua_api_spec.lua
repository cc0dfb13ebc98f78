-- What a Lua migration can do, must not do, and is told when it tries: by the real binary on a real server.
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local texts = require "tests.texts"
local async = helper.async
local has = texts.has

-- Stands on the first line of each migration, so that the body begins on line 2.
local PRELUDE = [[local function eq(got, wanted) if got ~= wanted or math.type(got) ~= math.type(wanted) then ]]
  .. [[error(("got %q (%s), not %q (%s)"):format(got, type(got), wanted, type(wanted)), 2) end end ]]

local function migration(body, head)
  return PRELUDE .. "return { " .. (head or "") .. " up = function(db)\n" .. body .. "\nend, irreversible = \"a test\" }\n"
end

describe("a Lua migration", function()
  local db, dir

  before_each(async(function()
    db = helper.database()
    dir = helper.project {}
  end))

  local function moonbird(args, status, options)
    local all = { cwd = dir, db = db, status = status or 0 }
    for k, v in pairs(options or {}) do
      all[k] = v
    end
    return helper.ok(args, all)
  end

  --- Applies one migration with this body.
  local function runs(body, head)
    helper.write(dir, { ["migrations/001_test.lua"] = migration(body, head) })
    return moonbird { "up" }
  end

  --- Applies one migration that has to fail at a line (nil: the error is the whole migration's), with these words on stderr, leaving nothing behind.
  local function fails(body, line, words, options)
    options = options or {}
    helper.write(dir, { ["migrations/001_test.lua"] = migration("db:exec('create table left_over (i int)')\n" .. body,
      options.head) })
    local result = moonbird({ "up" }, options.status or 1, options)
    has(result.stderr, "migrations/001_test.lua" .. (line and (":%d"):format(line) or ""))
    for _, word in ipairs(type(words) == "table" and words or { words }) do
      has(result.stderr, word)
    end
    if not options.keeps then
      assert.is_nil(db:value "select to_regclass('left_over')::text")
    end
    assert.are.equal(0, db:value "select count(*) from moonbird.state where target = 'global' and applies")
    assert.are.equal(1, db:value "select count(*) from moonbird.journal where target = 'global' and event = 'fail'")
    moonbird { "history", "--verify" }
    return result
  end

  it("reads and writes times and floats as they are, whatever the database's formats", async(function()
    for _, transaction in ipairs { "true", "false" } do
      local target = helper.database()
      for name, value in pairs { datestyle = "SQL, DMY", timezone = "Asia/Shanghai", extra_float_digits = "0" } do
        target:exec(("alter database \"%s\" set %s = '%s'"):format(target.name, name, value))
      end
      local place = helper.project { ["migrations/001_t.lua"] = ([[return { transaction = %s, irreversible = "t",
        up = function(db)
          db:exec "create table ev (at timestamptz, f float8)"
          db:exec "insert into ev values ('2024-05-06 07:08:09+00', 0.1::float8 + 0.2)"
          for row in db:rows "select * from ev" do
            db:exec("update ev set at = $1, f = $2", row.at, row.f)
          end
        end }]]):format(transaction) }
      helper.ok({ "up" }, { cwd = place, db = target })
      assert.is_true(target:value "select at = '2024-05-06 07:08:09+00' and f = 0.1::float8 + 0.2 from ev")
    end
  end))

  it("binds no text that holds a NUL byte: it would be another text", async(function()
    fails("local _ = 1\ndb:value('select $1::text', 'a\\0b')", 4, "text can't hold a NUL byte; give bytes with db:bytea(...)")
  end))

  describe("gets values", function()
    it("as it gave them: floats", async(function()
      runs [==[
  for _, n in ipairs { 0.1 + 0.2, 1.0000000000000002, 5e-324, 1e300, -0.5, math.huge, -math.huge } do
    assert(db:value("select $1::float8", n) == n)
    assert(db:value("select ($1::float8[])[1]", db:array { n }) == n)
  end
  local nan = db:value("select $1::float8", 0 / 0)
  assert(nan ~= nan)
  assert(db:value("select $1::numeric", -(0 / 0)) == "NaN")]==]
    end))

    it("of each type", async(function()
      runs [==[
  local r = db:one([[select 1::smallint a, 2::int b, 9223372036854775807::bigint c, true d, false e, 1.5::real f,
    0.1::float8 g, 12345678901234567890.123456789::numeric h, 'x'::text i, 'c'::char(3) j, 26::oid k, 'n'::name l]])
  eq(r.a, 1) eq(r.b, 2) eq(r.c, math.maxinteger) eq(r.d, true) eq(r.e, false) eq(r.f, 1.5) eq(r.g, 0.1)
  eq(r.h, "12345678901234567890.123456789") eq(r.i, "x") eq(r.j, "c  ") eq(r.k, 26) eq(r.l, "n")
  eq(db:value("select (-9223372036854775808)::bigint"), math.mininteger)
  eq(db:value "select 3::float8", 3.0)
  eq(db:value "select 'infinity'::float8", math.huge)
  eq(db:value "select '-infinity'::real", -math.huge)
  local nan = db:value "select 'nan'::float8"
  eq(math.type(nan), "float") eq(nan ~= nan, true)
  eq(1 / db:value "select '-0'::float8", -math.huge)
  eq(db:value "select 1e308::float8", 1e308) eq(db:value "select 5e-324::float8", 5e-324)
  eq(db:value "select 'NaN'::numeric", "NaN") eq(db:value "select 1.10::numeric(10,2)", "1.10")
  eq(db:value "select timestamp '2026-02-03 04:05:06.789012'", "2026-02-03 04:05:06.789012")
  eq(db:value "select date '2026-02-03'", "2026-02-03") eq(db:value "select date 'infinity'", "infinity")
  eq(db:value "select interval '1 day 2 hours'", "1 day 02:00:00")
  eq(db:value "select 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'::uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")
  eq(db:value [[select '{"b": 1,  "a": [2]}'::json]], [[{"b": 1,  "a": [2]}]])
  eq(db:value [[select '{"b": 1,  "a": [2]}'::jsonb]], [[{"a": [2], "b": 1}]])
  eq(db:value [[select '\x00ff5c27'::bytea]], "\0\xff\\'")
  eq(db:value "select ''::bytea", "") eq(db:value "select ''", "")
  eq(db:value "select null", nil) eq(db:value "select null::int[]", nil)
  eq(db:one("select null as a, 1 as b").a, nil) eq(next(db:one "select null as a"), nil)
  eq(db:value "select array[1,2]", "{1,2}")
  eq(db:value "select int4range(1,5)", "[1,5)") eq(db:value "select row(1,'a b')", "(1,\"a b\")")
  eq(#db:value "select repeat('ä', 100000)", 200000)
]==]
    end))

    it("and hands them back as parameters", async(function()
      runs [==[
  db:exec("create table v (i bigint, b boolean, f float8, n numeric, t text, y bytea, j jsonb, ts timestamptz, u uuid, a int[], ta text[])")
  local bytes = {}
  for i = 0, 255 do bytes[#bytes + 1] = string.char(i) end
  bytes = table.concat(bytes)
  eq(db:exec("insert into v values ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11)", math.mininteger, false, 1/3, "12345678901234567890.5",
    "it's \\ $1 ; -- ä\n\t\"", db:bytea(bytes), db.json.encode { a = { 1, 2 }, s = "ü\n\"" }, "2026-02-03 04:05:06+00",
    "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", db:array { 1, db.null, 3 }, db:array { "a,b", "\"q\"", "\\", "", "NULL", "{x}" }), 1)
  local r = db:one("select *, extract(epoch from ts) as e from v where i = $1", math.mininteger)
  eq(r.i, math.mininteger) eq(r.b, false) eq(r.f, 1/3) eq(r.n, "12345678901234567890.5")
  eq(r.t, "it's \\ $1 ; -- ä\n\t\"") eq(r.y, bytes) eq(db.json.decode(r.j).s, "ü\n\"") eq(r.a, "{1,NULL,3}")
  local list = db:decode_array(r.ta)
  eq(#list, 6) eq(list[1], "a,b") eq(list[2], "\"q\"") eq(list[3], "\\") eq(list[4], "") eq(list[5], "NULL") eq(list[6], "{x}")
  eq(db:decode_array(r.a)[2], db.null)
  local deep = db:decode_array(db:value("select $1::int[]", db:array { { 1, 2 }, { 3, 4 } }))
  eq(deep[2][1], "3")
  for _, x in ipairs { math.huge, -math.huge, 5e-324, 1e308, 0.1 } do eq(db:value("select $1::float8", x), x) end
  local nan = db:value("select $1::float8", 0/0)
  eq(nan ~= nan, true)
  eq(db:value("select $1::text is null and $2::int is null", nil, db.null), true)
  eq(db:value("select $3::int + coalesce($1::int, $2::int, 0)", nil, nil, 3), 3)
  eq(db:value("select $1::boolean", true), true)
  eq(db:value("select length($1::text)", ("x"):rep(1000000)), 1000000)
]==]
    end))

    it("bound, never spliced", async(function()
      runs [==[
  db:exec("create table t (s text)")
  for _, evil in ipairs { "'); drop table t; --", "$1", "%s", "\\'; drop table t; --", "$$; drop table t; $$", "' or '1'='1" } do
    db:exec("insert into t values ($1)", evil)
    eq(db:value("select s from t where s = $1", evil), evil)
    eq(db:value("select " .. db:literal(evil)), evil)
    db:exec("create table " .. db:ident(evil) .. " (i int)")
    eq(db:value("select count(*) from pg_class where relname = $1", evil), 1)
    eq(db:one("select 1 as " .. db:ident(evil))[evil], 1)
  end
  eq(db:value "select count(*) from t", 6)
]==]
    end))

    it("as rows, one, value, or their absence", async(function()
      runs [==[
  local rows = db:query "select i, i * i as sq from generate_series(1, 3) i"
  eq(#rows, 3) eq(rows[3].sq, 9)
  eq(#db:query "select 1 where false", 0) eq(db:one "select 1 where false", nil) eq(db:value "select 1 where false", nil)
  eq(db:exec "create table t (i int); insert into t select generate_series(1, 5); update t set i = i + 1", 5)
  eq(db:exec("delete from t where i > $1", 4), 2)
  eq(#db:query "insert into t values (10), (11) returning i", 2)
]==]
    end))
  end)

  describe("streams", function()
    it("100,000 rows while it updates them, in little memory", async(function()
      helper.write(dir, { ["moonbird.lua"] = "return { limits = { memory = \"8MB\" } }\n" })
      db:exec "create table t (id int primary key, s text, n int); insert into t select i, repeat('x', 100), 0 from generate_series(1, 100000) i"
      runs [==[
  local seen, batch = 0, {}
  for row in db:rows("select id, s from t where id <= $1 order by id", 100000) do
    seen = seen + 1
    eq(row.id, seen)
    batch[#batch + 1] = row.id
    if #batch == 1000 then
      eq(db:exec("update t set n = id * 2 where id = any($1::int[])", db:array(batch)), 1000)
      batch = {}
    end
  end
  eq(seen, 100000)
]==]
      assert.are.equal(100000, db:value "select count(*) from t where n = id * 2")
    end))

    it("loops inside loops, and loops left early", async(function()
      runs [==[
  local n = 0
  for a in db:rows "select i from generate_series(1, 300) i" do
    for b in db:rows("select j from generate_series(1, $1) j", 300) do
      n = n + 1
      if b.j == 250 then break end
    end
    if a.i == 3 then break end
  end
  eq(n, 750)
  db:exec "create table t (i int)"
  local rows, cursor = db:rows "select i from t"
  eq(rows(), nil) cursor:close()
  db:exec "alter table t add column s text"
]==]
    end))

    it("COPY in: text, rows and an iterator; COPY out: chunks", async(function()
      runs [==[
  db:exec "create table t (i int, s text, b bytea)"
  eq(db:copy_in("copy t (i, s) from stdin", "1\tone\n2\t\\N\n"), 2)
  eq(db:copy_in("copy t (i, s) from stdin", { { 3, "tab\tnl\n back\\ " }, { 4, db.null }, { 5, "\\N" }, { 6, "\\." } }), 4)
  local i = 6
  eq(db:copy_in("copy t (i, s) from stdin", function()
    i = i + 1
    if i <= 20000 then return i % 2 == 0 and { i, "row " .. i } or (i .. "\trow " .. i .. "\n") end
  end), 19994)
  eq(db:copy_in("copy t (i, s) from stdin csv header", "i,s\n20001,\"a,b\"\n"), 1)
  eq(db:copy_in("copy t (i, s) from stdin", ""), 0)
  eq(db:value "select s from t where i = 3", "tab\tnl\n back\\ ")
  eq(db:value "select s from t where i = 4", nil)
  eq(db:value "select s from t where i = 5", "\\N") eq(db:value "select s from t where i = 6", "\\.")
  eq(db:value "select s from t where i = 20001", "a,b")
  local text, chunks = {}, 0
  for chunk in db:copy_out "copy (select i, s from t order by i) to stdout" do
    chunks = chunks + 1
    eq(chunk:sub(-1), "\n")
    text[#text + 1] = chunk
  end
  text = table.concat(text)
  eq(select(2, text:gsub("\n", "")), 20001)
  eq(text:match "^[^\n]*\n([^\n]*)\n", "2\t\\N")
  db:exec "create table u (like t)"
  eq(db:copy_in("copy u (i, s) from stdin", text), 20001)
  eq(db:value "select count(*) from (select i, s from t except select i, s from u) x", 0)
]==]
    end))

    it("fails with the row that COPY refuses", async(function()
      fails("db:exec 'create table t (i int)'\ndb:copy_in('copy t from stdin', { { 1 }, { 'bad' } })", 4, { "22P02", "bad" })
    end))

    it("ends COPY when the iterator raises", async(function()
      fails("db:exec 'create table t (i int)'\ndb:copy_in('copy t from stdin', function()\n  error 'no more'\nend)", 5, "no more")
    end))
  end)

  describe("has atomic", function()
    it("with the SQLSTATE of what was caught, and what was done outside kept", async(function()
      runs [==[
  db:exec "create table t (i int primary key)"
  db:exec "insert into t values (1)"
  local ok, err = pcall(function()
    db:atomic(function()
      db:exec "insert into t values (2)"
      db:exec("insert into t values ($1)", 1)
    end)
  end)
  eq(ok, false) eq(err.code, "sql") eq(err.sqlstate, "23505") eq(err.constraint_name, "t_pkey") eq(err.table_name, "t")
  eq(err.file, "migrations/001_test.lua") eq(err.line, 7)
  eq(tostring(err):find("duplicate key", 1, true) ~= nil, true)
  eq(db:value "select count(*) from t", 1)
  local a, b, c = db:atomic(function() db:exec "insert into t values (3)" return 1, nil, "x" end)
  eq(a, 1) eq(b, nil) eq(c, "x")
]==]
      assert.are.same({ 1, 3 }, db:values "select i from t order by i")
    end))

    it("nested", async(function()
      runs [==[
  db:exec "create table t (i int primary key)"
  db:atomic(function()
    db:exec "insert into t values (1)"
    eq(pcall(db.atomic, db, function()
      db:exec "insert into t values (2)"
      db:atomic(function() db:exec "insert into t values (3)" end)
      eq(pcall(db.atomic, db, function() db:exec "insert into t values (1)" end), false)
      eq(db:value "select count(*) from t", 3)
      error "out"
    end), false)
    db:exec "insert into t values (4)"
  end)
]==]
      assert.are.same({ 1, 4 }, db:values "select i from t order by i")
    end))

    it("raises the error that nobody caught, whatever it is", async(function()
      fails("db:atomic(function()\n  db:exec 'insert into missing values (1)'\nend)", 4, "42P01")
    end))

    it("and without it a swallowed error fails the migration", async(function()
      fails("pcall(db.exec, db, 'select 1/0')", nil, "failed state")
    end))
  end)

  it("knows its target and its server, and logs", async(function()
    local said = runs [==[
  eq(db.version, db:value "select current_setting('server_version_num')::int")
  eq(db.target.name, "global") eq(db.target.schema, nil) eq(next(db.target.vars), nil)
  db:log("plain 100%") db:log("%d rows of %s", 3, "t") db:notice("careful: %s", "now")
  eq(db.json.encode { list = db.json.array {}, none = db.null, n = 1, f = 0.5 }, '{"f":0.5,"list":[],"n":1,"none":null}')
  eq(db.json.decode '{"a":[1,null,{"b":"ä"}]}'.a[3].b, "ä") eq(db.json.decode "[null]"[1], db.null)
  eq(math.type(db.json.decode "7"), "integer")
  eq(db.ident(db, "a"), "a") eq(db:ident("My Table"), '"My Table"') eq(db:ident("s", "select"), 's."select"')
  eq(db:literal(nil), "NULL") eq(db:literal(1), "1") eq(db:literal(true):lower(), "true") eq(db:literal("it's"), "'it''s'")
  for _, f in ipairs { function() db.nope() end, function() db.exec = 1 end, function() db.json.decode "{" end,
      function() db:query({}) end, function() db:exec("select $1", {}) end, function() db:one "values (1), (2)" end } do
    eq(pcall(f), false)
  end
]==]
    has(said.stderr, "plain 100%")
    has(said.stderr, "3 rows of t")
    has(said.stderr, "careful: now")
  end))

  describe("errors name file and line:", function()
    it("of the server, with its position", async(function()
      local said = fails("db:exec([[\n  select *\n    from missing]])", 3, { "42P01", "from missing", "^" })
      assert.are.equal("sql", json.decode(moonbird({ "--json", "up" }, 1).stdout).error.code)
      has(said.stderr, "001_test")
    end))

    it("of a function it calls, raised strings and tables, nil calls", async(function()
      fails("local function inner()\n  error 'on purpose'\nend\ninner()", 4, "on purpose")
      db:exec "drop schema moonbird cascade"
      fails("local t\nt.x = 1", 4, "nil value")
      db:exec "drop schema moonbird cascade"
      fails("error { code = 'mine', message = 'a table' }", 3, "a table")
      db:exec "drop schema moonbird cascade"
      fails("db:exec('select $1::int', {})", 3, "parameter $1")
      db:exec "drop schema moonbird cascade"
      fails("db:exce('select 1')", 3, "exce")
    end))

    it("of SQL given as a string", async(function()
      helper.write(dir, { ["migrations/001_test.lua"] = "return {\n  up = [[\n    create table t (i int);\n    select *\n      from missing;\n  ]],\n  down = '',\n}\n" })
      local said = moonbird({ "up" }, 1)
      has(said.stderr, "migrations/001_test.lua:5:12")
      has(said.stderr, "42P01")
      assert.is_nil(db:value "select to_regclass('t')::text")
    end))
  end)

  describe("is held by the sandbox:", function()
    it("an endless loop", async(function()
      helper.write(dir, { ["moonbird.lua"] = "return { limits = { instructions = \"5M\" } }\n" })
      fails("while true do end", 3, "instructions")
      db:exec "drop schema moonbird cascade"
      fails("pcall(function()\n  while true do end\nend)\nwhile true do pcall(error) end", 4, "instructions")
      db:exec "drop schema moonbird cascade"
      fails("local co = coroutine.wrap(function()\n  while true do end\nend)\nco()", 4, "instructions")
    end))

    it("more memory than it may", async(function()
      fails("local s = string.rep('x', 10 * 1024 * 1024 * 1024)", 3, "memory")
      db:exec "drop schema moonbird cascade"
      helper.write(dir, { ["moonbird.lua"] = "return { limits = { memory = \"8MB\" } }\n" })
      fails("local t = {}\nfor i = 1, 1e9 do\n  t[i] = 'x' .. i\nend", 5, "memory")
    end))

    it("more memory than it may, in an answer of the server", async(function()
      helper.write(dir, { ["moonbird.lua"] = "return { limits = { memory = \"8MB\" } }\n" })
      fails("local rows = db:query(\"select repeat('x', 1000) from generate_series(1, 100000)\")", 3, "memory")
    end))

    for _, one in ipairs {
      { "os.execute", "os.execute 'true'", "os" },
      { "os.getenv", "local home = os.getenv 'HOME'", "os" },
      { "io.open", "io.open('/etc/passwd')", "io" },
      { "io.popen", "local f = io.popen 'id'", "io" },
      { "debug", "debug.getregistry()", "debug" },
      { "package", "package.loadlib('x', 'y')", "package" },
      { "string.dump", "string.dump(function() end)", "dump" },
      { "require", "require 'moonbird.core.session'", "moonbird.core.session" },
      { "dofile", "dofile 'x.lua'", "dofile" },
      { "collectgarbage", "collectgarbage 'stop'", "collectgarbage" },
      { "an unknown global", "local x = undefined_thing + 1", "undefined_thing" },
      { "changing a library", "string.rep = nil", "read" },
      { "bytecode", "assert(load('\\27Lua\\x54'))", "" },
      { "bytecode asked for", "assert(load('\\27LuaS', 'x', 'b'))()", "" },
    } do
      it(one[1], async(function()
        fails(one[2], 3, one[3])
      end))
    end

    for _, sql in ipairs { "commit", "rollback", "begin", "end", "abort", "start transaction", "prepare transaction 'x'",
      "/* x */ commit -- y", "commit and chain" } do
      it("ending the transaction: " .. sql, async(function()
        fails(("db:exec [[%s]]"):format(sql), 3, "transaction")
        db:exec "drop schema moonbird cascade"
        fails(("pcall(db.exec, db, [[%s]])\npcall(db.query, db, [[%s]])\npcall(db.exec, db, [[%s]], 1)\n"
          .. "pcall(db.copy_in, db, [[%s]], '')\npcall(db.copy_out, db, [[%s]])\n"
          .. "pcall(function() for _ in db:rows [[%s]] do end end)\npcall(db.exec, db, [[select 1; %s; select 2]])\n"
          .. "error 'still here'"):format(sql, sql, sql, sql, sql, sql, sql), 10, "still here")
      end))
    end

    it("ending the transaction by a procedure", async(function()
      db:exec "create procedure p() language plpgsql as $$ begin commit; end $$"
      fails("db:exec 'call p()'", 3, "2D000")
      db:exec "drop schema moonbird cascade"
      fails("db:exec 'do $$ begin rollback; end $$'", 3, "2D000")
    end))

    it("each way of COPY with something else than COPY", async(function()
      fails("db:copy_in('insert into left_over values (1)', '')", 3, "COPY")
      db:exec "drop schema moonbird cascade"
      fails("for _ in db:copy_out 'select 1' do end", 3, "COPY")
      db:exec "drop schema moonbird cascade"
      fails("db:exec 'copy left_over from stdin'", 3, "copy_in")
      db:exec "drop schema moonbird cascade"
      fails("db:query 'copy left_over to stdout'", 3, "copy_out")
    end))

    for _, sql in ipairs { "update moonbird.journal set name = 'x'", "delete from moonbird.journal", "truncate moonbird.journal" } do
      it(sql, async(function()
        fails(("db:exec [[%s]]"):format(sql), 3, { "MB004", "append-only" })
      end))
    end

    it("and nothing of it keeps others from running", async(function()
      helper.write(dir, {
        ["migrations/001_a.lua"] = migration "x = 1 db:exec 'create table a (i int)'",
        ["migrations/002_b.lua"] = migration "eq(pcall(function() return x end), false) db:exec 'create table b (i int)'",
      })
      moonbird { "up" }
      assert.are.equal("b", db:value "select to_regclass('b')::text")
    end))
  end)

  describe("without a transaction", function()
    it("keeps what was done before the error, and goes on there", async(function()
      fails("db:exec 'create table second (i int)'\nif db:value \"select to_regclass('go')::text\" == nil then error 'wait' end",
        4, "wait", { head = "transaction = false,", keeps = true })
      assert.are.equal("second", db:value "select to_regclass('second')::text")
    end))

    it("makes an index concurrently", async(function()
      runs("db:exec 'create table t (i int)'\ndb:exec 'create index concurrently t_i on t (i)'\n"
        .. "db:atomic(function() db:exec 'insert into t values (1)' db:exec 'insert into t values (2)' end)", "transaction = false,")
      assert.is_true(db:value "select indisvalid from pg_index where indexrelid = 't_i'::regclass")
      assert.are.equal(2, db:value "select count(*) from t")
    end))
  end)

  it("obeys its timeouts", async(function()
    fails("db:exec 'select pg_sleep(20)'", 3, "57014", { head = "timeouts = { statement = \"200ms\" }," })
  end))

  it("takes back with down", async(function()
    helper.write(dir, { ["migrations/001_t.lua"] = "return { up = function(db) db:exec 'create table t (i int)' end,\n"
      .. "  down = function(db) db:exec 'drop table t' end }\n" })
    moonbird { "up" }
    moonbird { "down" }
    assert.is_nil(db:value "select to_regclass('t')::text")
  end))
end)
