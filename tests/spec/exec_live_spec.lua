-- Live facts: what rules may ask the database, what they are told, and what is refused.
local error_ = require "moonbird.core.error"
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local live_ = require "moonbird.exec.live"
local sandbox = require "moonbird.core.sandbox"
local view = require "moonbird.policy.view"
local async = helper.async

describe("live facts", function()
  local database, live, own

  setup(async(function()
    database = helper.database { scope = "file" }
    local dir = helper.project({ ["migrations/001_first.sql"] = "-- migrate:up\ncreate table first (id int);\n"
      .. "-- migrate:down\ndrop table first;\n" }, { scope = "file" })
    helper.ok({ "up" }, { cwd = dir, db = database })
    database:exec [[
      create schema app; create schema "Odd ""one";
      create table app.users (id int primary key, email varchar(20) not null default 'x', age int, gone int);
      alter table app.users drop column gone;
      create index users_mail on app.users (lower(email), age) include (id) where age > 1;
      insert into app.users select i, 'a' || i, i from generate_series(1, 5000) i; analyze app.users;
      create table plain (a int); create table "Odd ""one"."T'1" ("C c" int);
      create table parts (a int, b int) partition by range (a);
      create table parts_1 partition of parts for values from (0) to (1000);
      create table parts_2 partition of parts for values from (1000) to (2000);
      insert into parts select i, i from generate_series(0, 1999) i; analyze parts;
      create view seen as select * from app.users; create materialized view kept as select 1 as a with no data;
      create sequence counter; create type pair as (a int, b int);
      create view spy as select * from moonbird.journal;
      create view spy_on_spy as select event from spy where seq > 0;
      create view file_view as select pg_read_file('/etc/hostname') as text;
      create function leak() returns text language sql stable as 'select event from moonbird.journal limit 1';
      create function leak_row(plain) returns text language sql stable as 'select event from moonbird.journal limit 1';
      create function tell(int, int) returns bool language plpgsql stable as $$ begin
        raise exception '%', (select event from moonbird.journal limit 1); end $$;
      create operator === (leftarg = int, rightarg = int, function = tell);
      create function sneak(int, int) returns bool language sql stable as 'select count(*) > 0 from moonbird.journal';
      create operator ==== (leftarg = int, rightarg = int, function = sneak);
      create function length(int) returns int language sql as 'select 1';
      create role plain_role;
      create table hidden (a int); insert into hidden values (1); alter table hidden enable row level security;
      alter table hidden force row level security; grant select on hidden to plain_role;
      insert into plain values (1); analyze plain]]
    helper.defer(function()
      database:exec "drop owned by plain_role; drop role plain_role"
    end, { scope = "file" })
  end))

  local function target(options)
    local made = { session = own, run = { journal = { schema = "moonbird" } } }
    function made.search_path()
      return options and options.search_path
    end
    return made
  end

  before_each(async(function()
    own = database:connect()
    live = live_.new(target())
  end))

  after_each(async(function()
    assert.are.equal("idle", own:state()) -- nothing is left open
    database:disconnect()
  end))

  it("tell of a relation", async(function()
    local users = assert(live:relation("app", "users"))
    assert.are.equal("table", users.kind)
    assert.are.equal(5000, users.rows)
    assert.is_false(users.empty)
    assert.is_false(users.partitioned)
    assert(users.bytes >= 8192 and users.total_bytes > users.bytes, json.encode(users))
    assert.are.equal("view", live:relation(nil, "seen").kind)
    assert.is_nil(live:relation(nil, "seen").empty)
    local matview = live:relation(nil, "kept")
    assert.are.equal("materialized_view", matview.kind)
    assert.is_nil(matview.empty) -- it can't be read yet
    assert.are.equal("sequence", live:relation("public", "counter").kind)
    assert.are.equal("index", live:relation("app", "users_mail").kind)
    local odd = assert(live:relation('Odd "one', "T'1"))
    assert.is_true(odd.empty)
    assert.is_nil(odd.rows) -- not known: never analyzed
  end))

  it("tell of a partitioned table what its partitions hold", async(function()
    local parts = assert(live:relation(nil, "parts"))
    assert.is_true(parts.partitioned)
    assert.are.equal(2000, parts.rows)
    assert(parts.bytes >= 16384)
    assert.is_false(parts.empty)
  end))

  it("tell of what is not there by nil, without an error", async(function()
    assert.are.same({ n = 1 }, table.pack(live:relation(nil, "nothing")))
    assert.is_nil(select(2, live:relation("nowhere", "nothing")))
    assert.is_nil((live:relation(nil, "users"))) -- in app only
    assert.are.same({}, live:indexes(nil, "nothing"))
    assert.are.same({}, live:columns(nil, "nothing"))
    assert.is_nil(live:relation(nil, "users; drop table plain"))
    assert.is_nil(live:relation(nil, "public.plain")) -- one name, with a dot in it
  end))

  it("find unqualified names by the target's search_path", async(function()
    live = live_.new(target { search_path = '"app", public' })
    assert.are.equal(5000, live:relation(nil, "users").rows)
    assert.are.equal(5000, live:query("select count(*) as n from users")[1].n)
  end))

  it("tell of indexes and columns", async(function()
    local list = assert(live:indexes("app", "users"))
    assert.are.same({
      { name = "users_mail", columns = { "lower(email::text)", "age" }, unique = false, valid = true, partial = true,
        primary = false, method = "btree" },
      { name = "users_pkey", columns = { "id" }, unique = true, valid = true, partial = false, primary = true,
        method = "btree" },
    }, list)
    assert.are.same({
      id = { type = "integer", not_null = true },
      email = { type = "character varying(20)", not_null = true, default = "'x'::character varying" },
      age = { type = "integer", not_null = false },
    }, live:columns("app", "users"))
  end))

  it("do not call a table empty whose rows they can't see", async(function()
    assert(own:query("set role plain_role"))
    local hidden = assert(live:relation(nil, "hidden"))
    assert.is_nil(hidden.empty)
    local rows, err = live:query("select * from hidden")
    assert.is_nil(rows)
    assert.are.equal("42501", err.sqlstate)
  end))

  it("are asked for once, and what a rule does to an answer stays with it", async(function()
    local first = assert(live:query("select 1 as a"))
    first[1].a = 2
    live:relation("app", "users").rows = 0
    assert.are.same({ { a = 1 } }, live:query("select 1 as a"))
    database:exec "insert into app.users values (5001, 'x', 1); analyze app.users"
    assert.are.equal(5000, live:relation("app", "users").rows)
    assert.are.equal(5001, live_.new(target()):relation("app", "users").rows)
    database:exec "delete from app.users where id = 5001; analyze app.users"
  end))

  describe("by query", function()
    local function refused(text, words, code)
      local rows, err = live:query(text)
      assert(rows == nil, "it was answered: " .. text .. ": " .. json.encode(rows or {}))
      assert(error_.is(err), text)
      assert.are.equal(code or "sandbox", err.code, text .. ": " .. tostring(err))
      assert(err.message:find(words, 1, true), text .. ": " .. tostring(err))
      assert.are.equal("idle", own:state())
    end

    it("give rows, with bound parameters", async(function()
      assert.are.same({ { id = 3, email = "a3" } },
        live:query("select id, email from app.users where email = $1 and id = $2", "a3", 3))
      assert.are.same({ { n = 5000 } }, live:query("select count(*) as n from seen;"))
      assert.are.same({ { a = "x'; drop table plain" } }, live:query("select $1::text as a", "x'; drop table plain"))
      assert.are.same({ {} }, live:query("select $1::text as a", nil))
      assert(live:query("values (1), (2)"))
      assert.are.same({ { a = 1 }, { a = 2 } }, live:query("select * from (values (1), (2)) v (a)"))
      assert.are.same({ { server_encoding = "UTF8" } }, live:query("show server_encoding"))
      assert(live:query("explain (analyze) select * from plain")[1]["QUERY PLAN"])
      assert(live:query("with recursive t (n) as (select 1 union all select n + 1 from t where n < 5) select max(n) from t"))
      assert.are.same({ { n = 2000 } }, live:query("select count(*) as n from parts"))
      assert(live:query("select pg_total_relation_size('app.users'), pid from pg_locks"))
      assert(live:query("select r.rolname from pg_roles r join pg_stat_activity a on a.usename = r.rolname"))
      assert(live:query("select c.relname from pg_class c where c.relkind = 'r' and c.relnamespace::regnamespace::text = 'app'"))
      assert(live:query("select pg_catalog.length('abc'), t.email from app.users t limit 1"))
      assert.are.equal(1000, #assert(live:query("select i from generate_series(1, 1000) i")))
    end))

    it("change nothing", async(function()
      for _, text in ipairs { "insert into plain values (2)", "delete from plain", "update plain set a = 2",
        "create table x ()", "drop table plain", "truncate plain", "copy plain to stdout", "copy plain from stdin",
        "copy (select 1) to program 'true'", "begin", "commit", "rollback", "set role plain_role", "reset all",
        "set transaction read write", "do $$ begin end $$", "call x()", "execute x", "prepare x as select 1",
        "vacuum", "lock table plain", "listen x", "notify x", "explain analyze insert into plain values (2)",
        "explain create table x as select 1", "explain execute x", "declare c cursor for select 1", "fetch c",
        "load 'x'", "grant all on plain to public", "select 1 as a into x",
        "with x as (delete from plain returning a) select * from x",
        "with x as (insert into plain values (3) returning a) table x" } do
        local rows, err = live:query(text)
        assert(rows == nil and err.code == "sandbox", text .. ": " .. tostring(err))
      end
      refused("select * from plain for update", "lock rows")
      refused("select * from (select * from plain for share) x", "lock rows")
      refused("select 1 as a union (select a from plain for update)", "lock rows")
      refused("select 1; select 2", "one statement")
      refused("", "one statement")
      refused("-- nothing", "one statement")
      refused("select nextval('counter')", "nextval")
      assert.are.equal(1, database:value "select count(*) from plain")
    end))

    it("do not read the journal", async(function()
      for _, text in ipairs { "select * from moonbird.journal", 'table "moonbird"."state"',
        "select 1 where exists (select from moonbird.journal)", "select (select event from moonbird.journal limit 1)",
        "with x as (select * from moonbird.journal) select * from x", "select * from spy", "select * from spy_on_spy",
        "select * from plain, lateral (select event from spy) s", "explain analyze select * from spy",
        "values ((select event from moonbird.journal limit 1))", "select 1 union select seq from moonbird.journal",
        "select * from plain order by (select 1 from moonbird.state limit 1)",
        "select count(*) filter (where exists (select from moonbird.journal)) from plain",
        "select xmlelement(name x, (select event from moonbird.journal limit 1))",
        "select array(select event from moonbird.journal)", "select json_agg(j) from moonbird.journal j" } do
        refused(text, "the journal")
      end
      refused("select moonbird.fingerprint('global')", "moonbird.fingerprint()")
      refused("select * from moonbird.verify('global')", "moonbird.verify()")
      refused("select * from pg_stats where schemaname = 'moonbird'", "pg_stats")
      refused("select query_to_xml('select * from moonbird.journal', true, true, '')", "query_to_xml")
      refused("select table_to_xml('moonbird.journal', true, true, '')", "table_to_xml")
      refused("select pg_catalog.schema_to_xml('moonbird', true, true, '')", "schema_to_xml")
      refused("select * from ts_stat('select event::tsvector from moonbird.journal')", "ts_stat")
      live = live_.new(target { search_path = "moonbird, public" })
      refused("select * from journal", "the journal")
      assert.is_nil((live:relation("moonbird", "journal")))
      local _, err = live:columns(nil, "journal")
      assert.are.equal("sandbox", err.code)
    end))

    it("do not read it through what the database has of its own", async(function()
      refused("select leak()", "leak()")
      refused("select public.leak()", "public.leak()")
      refused("select p.leak_row from plain p", "leak_row")
      refused("select (p).leak_row from plain p", "leak_row")
      refused("select 1 operator(public.===) 2", "operators")
      refused("select length(5)", "also a function")
      -- Not seen before they run: the answer is withheld, and so is the error that would tell.
      refused("select 1 ==== 2 as a", "read the journal")
      refused("select 1 === 2 as a", "read the journal")
    end))

    it("do not read files, secrets and settings", async(function()
      for _, text in ipairs { "select pg_read_file('/etc/passwd')", "select pg_catalog.pg_read_file('/etc/passwd')",
        "select ('/etc/passwd'::text).pg_read_file", "select (select '/etc/passwd'::text).pg_read_file",
        "select x.pg_read_file from (select '/etc/passwd'::text) x", "select PG_READ_FILE('/etc/passwd')",
        'select "pg_read_file"(\'/etc/passwd\')', [[select U&"pg_re\0061d_file"('/etc/passwd')]],
        "select * from pg_read_binary_file('/etc/passwd')", "select pg_ls_dir('.')", "select * from pg_ls_waldir()",
        "select pg_stat_file('base')", "select lo_import('/etc/passwd')", "select lo_get(1)", "select * from file_view",
        "select 1 where length(pg_read_file('/etc/passwd')::text) > 1", "select set_config('role', 'x', true)",
        "select current_setting('primary_conninfo')", "select pg_terminate_backend(1)", "select pg_reload_conf()",
        "select pg_advisory_lock(1)", "select pg_sleep(1)", "select pg_notify('a', 'b')", "select pg_export_snapshot()",
        "select dblink('', 'select 1')", "select pg_logical_emit_message(true, 'a', 'b')",
        "select rolpassword from pg_authid", "select * from pg_catalog.pg_shadow", "table pg_hba_file_rules",
        "select * from pg_settings", "select * from pg_largeobject", "select umoptions from pg_user_mappings",
        "select * from information_schema.user_mapping_options", "select pg_config()", "show primary_conninfo",
        "show all", "show app.secret", "show hba_file", "select * from pg_toast.pg_toast_1262" } do
        local rows, err = live:query(text)
        assert(rows == nil and err.code == "sandbox", text .. ": " .. tostring(err) .. json.encode(rows or {}))
      end
    end))

    it("refuse what can't be parsed", async(function()
      refused("select * from json_table('[]', '$' columns (a int))", "can't be parsed")
      refused("select from where", "can't be parsed")
      refused("select " .. ("(select "):rep(3000) .. "1" .. (")"):rep(3000), "")
      refused("select '" .. ("x"):rep(70000) .. "'", "longer than")
    end))

    it("mean what they were read as, whatever the session's quoting", async(function()
      assert(own:query("set standard_conforming_strings = off"))
      assert.are.same({ { a = [[\]] , b = " || pg_read_file($x$/etc/passwd$x$) -- " } },
        live:query([[select '\' as a, ' || pg_read_file($x$/etc/passwd$x$) -- ' as b]]))
    end))

    it("end after 5 s, 1,000 rows and 8 MiB", async(function()
      refused("select i from generate_series(1, 1001) i", "1000 rows", "limit")
      refused("select repeat('x', 100000) from generate_series(1, 200) i", "8 MiB", "limit")
      local rows, err = live:query("select count(*) from generate_series(1, 100000000000) i")
      assert.is_nil(rows)
      assert.are.equal("57014", err.sqlstate)
      assert.is_nil(own.doomed)
    end))

    it("tell an error of the server", async(function()
      local rows, err = live:query("select nothing from plain")
      assert.is_nil(rows)
      assert.are.equal("42703", err.sqlstate)
      refused("select 1/0", "division by zero", "sql")
    end))
  end)

  it("are asked inside a step's open transaction, and leave it as it was", async(function()
    assert(own:query("begin"))
    assert(own:query("create table mine (a int)"))
    assert(own:query("insert into mine values (1)"))
    assert.are.same({ { a = 1 } }, live:query("select a from mine"))
    assert.is_nil((live:query("select 1/0")))
    assert.is_nil((live:query("insert into mine values (2)")))
    assert.is_nil((live:query("select 1 ==== 2")))
    assert.is_nil((live:query("select * from generate_series(1, 2000)")))
    assert.is_false(live:relation(nil, "mine").empty)
    assert.are.equal("in_txn", own:state())
    assert.are.equal("off", own:query("show transaction_read_only"):value(1, 1))
    assert.are.equal("0", own:query("show statement_timeout"):value(1, 1))
    assert(own:query("insert into mine values (3)"))
    assert.are.equal(2, own:query("select count(*) from mine"):value(1, 1))
    assert(own:query("rollback"))
  end))

  it("are not known in a transaction that failed", async(function()
    assert(own:query("begin"))
    own:query("select 1/0")
    local answer, err = live:relation(nil, "plain")
    assert.is_nil(answer)
    assert(error_.is(err))
    own:rollback()
  end))

  describe("for a sandboxed rule", function()
    local function rule(text)
      local fn = assert(sandbox.load(text, "policies/x.lua", sandbox.environment {}))
      return sandbox.run { fn = fn, args = { view.of({ live = live }, { [live] = true }) }, name = "policies/x.lua" }
    end

    it("come while the rule waits", async(function()
      local ok, n, kind, co, pcalled = rule [[local ctx = ...
        local co
        coroutine.wrap(function() co = ctx.live:query("select 7 as a")[1].a end)()
        return ctx.live:query("select count(*) as n from app.users where id < $1", 11)[1].n,
          ctx.live:relation("app", "users").kind, co, pcall(ctx.live.query, ctx.live, "select 1 as b")]]
      assert(ok, tostring(n))
      assert.are.same({ 10, "table", 7, true }, { n, kind, co, pcalled })
    end))

    it("can't be replaced, nor reached through", async(function()
      for _, text in ipairs { "local ctx = ... ctx.live.query = function() end", "local ctx = ... rawset(ctx.live, 'query', 1)",
        "local ctx = ... setmetatable(ctx.live, {})", "local ctx = ... ctx.live:relation('app', 'users').rows = 1",
        "local ctx = ... return ctx.live.query.session", "local ctx = ... ctx.live:query({})",
        "local ctx = ... ctx.live:query('select $1', {})", "local ctx = ... ctx.live:relation('a\0b', 'x')",
        "local ctx = ... ctx.live:relation(setmetatable({}, { __concat = function() end }), 'x')" } do
        local ok, err = rule(text)
        assert(not ok, text)
        assert(err.code == "sandbox" or err.code == "script", text .. ": " .. tostring(err))
      end
      local ok, seen = rule "local ctx = ... local n = 0 for _ in pairs(ctx.live) do n = n + 1 end return getmetatable(ctx.live)"
      assert.is_true(ok)
      assert.is_false(seen)
    end))

    it("are not known when it asks where it can't wait", async(function()
      local ok, err = rule [[local ctx = ... table.sort({ 1, 2, 3 }, function(a, b)
        ctx.live:query("select 1") return a < b end)]]
      assert.is_false(ok)
      assert(error_.is(err))
    end))

    it("leave nothing open when the rule is ended while it asks", async(function()
      local fn = assert(sandbox.load([[local ctx = ... for i = 1, 1e9 do ctx.live:query("select " .. i) end]], "policies/x.lua",
        sandbox.environment {}))
      local function ended(instructions)
        local ok, err = sandbox.run { fn = fn, args = { view.of({ live = live }, { [live] = true }) }, name = "policies/x.lua",
          instructions = instructions }
        assert.is_false(ok)
        assert.are.equal("limit", err.code)
        return own:state() == "in_txn"
      end
      local left = 0
      for instructions = 20000, 40000, 1000 do
        live = live_.new(target())
        left = left + (ended(instructions) and 1 or 0)
        if instructions % 2000 == 0 then
          live_.settle(live)
          assert.are.equal("idle", own:state())
        end
        assert.are.same({ { a = 1 } }, live:query("select 1 as a"))
        assert.are.equal("idle", own:state())
      end
      assert(left > 3, left) -- else this shows nothing
      -- The same inside a step's transaction: that one lives on.
      assert(own:query("begin"))
      assert(own:query("create table in_step (a int)"))
      for instructions = 20000, 30000, 1000 do
        live = live_.new(target())
        ended(instructions)
        live_.settle(live)
        assert(own:query("insert into in_step values (1)"))
      end
      assert.are.equal(11, own:query("select count(*) from in_step"):value(1, 1))
      assert(own:query("rollback"))
    end))
  end)
end)
