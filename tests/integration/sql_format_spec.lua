-- dbmate's format from end to end: files in a folder, the real binary, a real server.
local fs = require "moonbird.core.fs"
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local process = require "moonbird.core.process"
local texts = require "tests.texts"
local async = helper.async
local has = texts.has

local BOM = "\239\187\191"

describe("dbmate's format", function()
  local db, dir

  before_each(async(function()
    db = helper.database()
    dir = helper.project {}
  end))

  --- Writes files below migrations/.
  local function put(files)
    for name, text in pairs(files) do
      helper.write(dir, { ["migrations/" .. name] = text })
    end
  end

  local function moonbird(args, status)
    return helper.ok(args, { cwd = dir, db = db, status = status or 0 })
  end

  --- `up` that has to succeed.
  local function up(...)
    return moonbird { "up", ... }
  end

  --- `up` that has to fail; what it says on stderr.
  local function refused(status)
    return moonbird({ "up" }, status).stderr
  end

  local function relation(name)
    return db:value("select to_regclass($1)::text", name)
  end

  --- Whether version is applied.
  local function applied(version)
    return db:value("select applies from moonbird.state where target = 'global' and version = $1", version) == true
  end

  local function events(version)
    return db:values([[select event || ' ' || outcome from moonbird.journal
      where target = 'global' and version = $1 order by ordinal]], version)
  end

  --- The text above the caret's column, to the end of the word that starts there.
  local function under_caret(stderr)
    local line, caret = stderr:match("\n([^\n]*)\n( *)%^")
    assert(line, "there is no caret in:\n" .. stderr)
    local first = utf8.offset(line, #caret + 1)
    return line:sub(first):match("^[%w_\128-\255]+") or line:sub(first, first)
  end

  describe("sections", function()
    it("of one kind are one migration, run in the file's order and recorded once", async(function()
      put { ["001_two.sql"] = [[
-- migrate:up
create table first (i int);
-- migrate:down
drop table second;
-- migrate:up
create table second (i int);
insert into first values (1);
-- migrate:down
drop table first;
]] }
      up()
      assert.are.equal("first", relation "first")
      assert.are.equal("second", relation "second")
      assert.are.same({ "apply done" }, events(1))
      moonbird { "down" }
      assert.is_nil(relation "first")
      assert.are.same({ "apply done", "revert done" }, events(1))
    end))

    it("may be empty, and directives in quotes and bodies are text", async(function()
      put { ["001_text.sql"] = [==[
-- migrate:up
create table notes (note text);
insert into notes values ('
-- migrate:down
');
/*
-- migrate:down
*/
create function f() returns text language sql as $body$
select '-- migrate:up'
-- migrate:down
$body$;
-- migrate:down
]==] }
      up()
      assert.are.equal("\n-- migrate:down\n", db:value "select note from notes")
      assert.are.equal("-- migrate:up", db:value "select f()")
      moonbird { "down" }
      assert.are.equal("notes", relation "notes")
      assert.is_false(applied(1))
    end))

    it("wants both directives, known options and no space in transaction:false", async(function()
      put {
        ["001_no_up.sql"] = "create table a (i int);\n",
        ["002_no_down.sql"] = "-- migrate:up\ncreate table b (i int);\n",
        ["003_space.sql"] = "-- migrate:up transaction: false\nvacuum;\n-- migrate:down\n",
        ["004_option.sql"] = "-- migrate:up transacton:false\nvacuum;\n-- migrate:down\n",
      }
      local said = refused(2)
      has(said, "migrations/001_no_up.sql:")
      has(said, "migrations/002_no_down.sql:")
      has(said, "add '-- migrate:down'")
      has(said, "migrations/003_space.sql:1")
      has(said, "transaction:false")
      has(said, "migrations/004_option.sql:1")
      has(said, "transacton")
      assert.is_nil(relation "moonbird.journal")
      assert.is_nil(relation "b")
    end))
  end)

  describe("a managed block", function()
    it("has no BEGIN and COMMIT of its own: refused before anything is sent", async(function()
      put {
        ["001_fine.sql"] = "-- migrate:up\ncreate table fine (i int);\n-- migrate:down\ndrop table fine;\n",
        ["002_own.sql"] = "-- migrate:up\n\n  begin;\ncreate table own (i int);\ncommit;\n-- migrate:down\nrollback;\n",
      }
      local said = refused(2)
      has(said, "migrations/002_own.sql:3:3: BEGIN")
      has(said, "migrations/002_own.sql:5:1: COMMIT")
      has(said, "migrations/002_own.sql:7:1: ROLLBACK")
      has(said, "transaction:false")
      assert.is_nil(relation "fine")
      assert.is_nil(relation "moonbird.journal")
    end))

    it("refuses what cannot run in a transaction, with the fix", async(function()
      put { ["001_a.sql"] = "-- migrate:up\ncreate table t (i int);\ncreate index concurrently x on t (i);\nvacuum t;\n"
        .. "-- migrate:down\n" }
      local said = refused(2)
      has(said, "migrations/001_a.sql:3:1: CREATE INDEX CONCURRENTLY")
      has(said, "migrations/001_a.sql:4:1: VACUUM")
      assert.is_nil(relation "t")
    end))

    it("keeps SET to itself: search_path, role and parameters", async(function()
      put {
        ["001_path.sql"] = [[
-- migrate:up
create schema other;
set search_path to other;
create table inside (i int);
set statement_timeout = '7s';
set default_transaction_isolation = 'serializable';
-- migrate:down
set search_path to other;
drop table inside;
reset all;
drop schema other;
]],
        ["002_after.sql"] = [[
-- migrate:up
create table outside as select current_setting('statement_timeout') as timeout, current_user::text as role,
  current_setting('transaction_isolation') as isolation;
select set_config('search_path', '', false);
-- migrate:down
drop table outside;
]],
        ["003_last.sql"] = "-- migrate:up\ncreate table last (i int);\n-- migrate:down\ndrop table last;\n",
      }
      up()
      assert.are.equal("other.inside", relation "other.inside")
      assert.are.equal("outside", relation "public.outside")
      assert.are.equal("last", relation "public.last")
      assert.are.equal("moonbird.journal", relation "moonbird.journal")
      local row = db:query("select * from outside")[1]
      assert.are.equal("0", row.timeout)
      assert.are.equal("read committed", row.isolation)
      assert.are.equal(3, db:value "select count(*) from moonbird.journal where target = 'global' and outcome = 'done'")
      assert.are.equal(0, db:value "select count(*) from pg_class where relname = 'journal' and relnamespace <> 'moonbird'::regnamespace")
      moonbird { "down", "--to", "0" }
      assert.is_nil(db:value "select to_regnamespace('other')::text")
    end))

    it("is rolled back whole when a statement fails, and the failure is journaled", async(function()
      put { ["001_bad.sql"] = "-- migrate:up\ncreate table t (i int primary key);\ninsert into t values (1), (1);\n-- migrate:down\n" }
      has(refused(1), "23505")
      assert.is_nil(relation "t")
      assert.are.same({ "fail failed" }, events(1))
      assert.are.equal("23505", db:value "select sqlstate from moonbird.journal where event = 'fail'")
      put { ["001_bad.sql"] = "-- migrate:up\ncreate table t (i int primary key);\n-- migrate:down\n" }
      up()
      assert.is_true(applied(1))
    end))

    it("fails at its end when a deferred constraint does", async(function()
      put { ["001_deferred.sql"] = [[
-- migrate:up
create table p (i int primary key);
create table c (i int references p deferrable initially deferred);
insert into c values (1);
-- migrate:down
]] }
      has(refused(1), "23503")
      assert.is_nil(relation "p")
      assert.is_falsy(applied(1))
    end))
  end)

  describe("transaction:false", function()
    it("is one implicit transaction: SET LOCAL and LOCK TABLE work", async(function()
      put { ["001_whole.sql"] = [[
-- migrate:up transaction:false
create table t (i int, path text);
lock table t in access exclusive mode;
set local application_name = 'inside';
insert into t values (1, current_setting('application_name'));
savepoint s;
release s;
-- migrate:down transaction:false
drop table t;
]] }
      -- SAVEPOINT alone is refused by the server in an implicit transaction block.
      has(refused(1), "25P01")
      assert.is_nil(relation "t")
      put { ["001_whole.sql"] = [[
-- migrate:up transaction:false
create table t (i int, name text);
lock table t in access exclusive mode;
set local application_name = 'inside';
insert into t values (1, current_setting('application_name'));
-- migrate:down transaction:false
drop table t;
]] }
      up()
      assert.are.equal("inside", db:value "select name from t")
      assert.is_true(applied(1))
      moonbird { "down" }
      assert.is_nil(relation "t")
    end))

    it("says what is left of one that failed, and with what status it waits", async(function()
      put { ["001_t.sql"] = "-- migrate:up\ncreate table t (i int);\ninsert into t values (1), (1);\n-- migrate:down\ndrop table nowhere;\n",
        ["002_i.sql"] = "-- migrate:up transaction:false\ncreate unique index concurrently i on t (i);\n-- migrate:down\n" }
      has(moonbird({ "up" }, 1).stdout, "ms, nothing of it was kept\n")
      has(moonbird({ "status" }).stdout, "could not create unique index \"i\"; the same command goes on")
      put { ["002_i.sql"] = "-- migrate:up transaction:false\ncreate table u (i int);\nselect 1/0;\n-- migrate:down\n" }
      has(moonbird({ "up" }, 1).stdout, "ms, nothing of it was kept\n") -- sent whole, as one transaction
      assert.is_nil(relation "u")
      put { ["002_i.sql"] = "-- migrate:up transaction:false\ncreate table u (i int);\ncreate unique index concurrently i on t (i);\n-- migrate:down\n" }
      has(moonbird({ "up" }, 1).stdout, "ms, what it did before the error stays\n")
      db:exec "delete from t where ctid = '(0,1)'"
      up()
      moonbird { "down" }
      has(moonbird({ "down" }, 1).stdout, "ms, nothing of it was taken back\n")
    end))

    it("may be changed where a name was taken: nobody died", async(function()
      db:exec "create table t (i int); create index taken on t (i)"
      put { ["001_i.sql"] = "-- migrate:up transaction:false\ncreate index concurrently taken on t (i);\n-- migrate:down\n" }
      has(refused(1), "42P07")
      has(refused(1), "42P07")
      put { ["001_i.sql"] = "-- migrate:up transaction:false\ncreate index concurrently free on t (i);\n-- migrate:down\n" }
      up()
      assert.are.equal("free", relation "free")
    end))

    it("names the limit of a statement that took too long, and where to give it more", async(function()
      put { ["001_slow.sql"] = "-- migrate:up\nselect pg_sleep(5);\n-- migrate:down\n" }
      has(moonbird({ "up", "--statement-timeout", "50ms" }, 1).stderr, "hint: statements may take 50ms here "
        .. "(timeouts.statement); `-- timeouts: statement=5m` in the file gives those of this migration more\n")
      put { ["001_slow.sql"] = "-- timeouts: statement=40ms\n-- migrate:up transaction:false\nselect pg_sleep(5);\n-- migrate:down\n" }
      has(moonbird({ "up" }, 1).stderr, "hint: statements may take 40ms here")
      put { ["001_slow.sql"] = "-- migrate:up\nselect 1/0;\n-- migrate:down\n" }
      assert.is_nil(moonbird({ "up", "--statement-timeout", "50ms" }, 1).stderr:find("hint", 1, true))
    end))

    it("is rolled back whole when it fails", async(function()
      put { ["001_bad.sql"] = "-- migrate:up transaction:false\ncreate table t (i int);\ninsert into t values (1);\nselect 1/0;\n-- migrate:down\n" }
      local said = refused(1)
      has(said, "migrations/001_bad.sql:4:")
      has(said, "22012")
      assert.is_nil(relation "t")
      assert.is_falsy(applied(1))
    end))

    it("may have BEGIN and COMMIT of its own", async(function()
      put { ["001_own.sql"] = [[
-- migrate:up transaction:false
begin;
create table a (i int);
savepoint s;
insert into a values (1);
rollback to s;
commit;
begin;
create table b (i int);
rollback;
create table c (i int);
-- migrate:down transaction:false
begin; drop table a; drop table c; commit;
]] }
      up()
      assert.are.equal("a", relation "a")
      assert.are.equal(0, db:value "select count(*) from a")
      assert.is_nil(relation "b")
      assert.are.equal("c", relation "c")
      assert.is_true(applied(1))
      moonbird { "down" }
      assert.is_nil(relation "a")
    end))

    it("that leaves a transaction open is noticed and undone", async(function()
      put {
        ["001_open.sql"] = "-- migrate:up transaction:false\nbegin;\ncreate table t (i int);\n-- migrate:down\n",
        ["002_next.sql"] = "-- migrate:up\ncreate table n (i int);\n-- migrate:down\n",
      }
      local said = refused(1)
      has(said, "migrations/001_open.sql:")
      has(said, "transaction open")
      assert.is_nil(relation "t")
      assert.is_nil(relation "n")
      assert.is_falsy(applied(1))
      assert.are.equal(0, db:value [[select count(*) from pg_stat_activity
        where datname = current_database() and state like 'idle in transaction%']])
    end))

    it("takes two CONCURRENTLY statements, each journaled", async(function()
      put {
        ["001_t.sql"] = "-- migrate:up\ncreate table t (a int, b int);\n-- migrate:down\ndrop table t;\n",
        ["002_idx.sql"] = [[
-- migrate:up transaction:false
create index concurrently t_a on t (a);
create index concurrently t_b on t (b);
-- migrate:down transaction:false
drop index concurrently t_b;
drop index concurrently t_a;
]],
      }
      up()
      assert.are.equal(2, db:value "select count(*) from pg_index where indrelid = 't'::regclass and indisvalid")
      for _, unit in ipairs { 1, 2 } do
        assert.are.same({ "unit started", "unit done" }, db:values([[
          select event || ' ' || outcome from moonbird.journal
          where version = 2 and event = 'unit' and detail->>'unit' = $1 order by ordinal]], tostring(unit)))
      end
      assert.are.equal("apply done", events(2)[#events(2)])
      moonbird { "down" }
      assert.is_nil(relation "t_a")
      moonbird { "history", "--verify" }
    end))

    it("goes on after the statement that failed, when that is mended", async(function()
      put {
        ["001_t.sql"] = "-- migrate:up\ncreate table t (a int);\ninsert into t values (1), (1);\n-- migrate:down\n",
        ["002_idx.sql"] = "-- migrate:up transaction:false\ncreate index concurrently t_a on t (a);\n"
          .. "create unique index concurrently t_u on t (a);\n-- migrate:down\n",
      }
      local said = refused(1)
      has(said, "23505")
      has(said, "migrations/002_idx.sql:3:1: ")
      local first = db:value "select 't_a'::regclass::oid"
      assert.are.equal(0, db:value "select count(*) from pg_index where not indisvalid")
      assert.is_falsy(applied(2))
      db:exec "delete from t where ctid = (select min(ctid) from t)"
      up()
      assert.are.equal(first, db:value "select 't_a'::regclass::oid")
      assert.is_true(db:value "select indisvalid from pg_index where indexrelid = 't_u'::regclass")
      assert.is_true(applied(2))
    end))

    it("with COMMIT and CONCURRENTLY in one block is refused before anything runs", async(function()
      put {
        ["001_t.sql"] = "-- migrate:up\ncreate table t (a int);\n-- migrate:down\n",
        ["002_idx.sql"] = "-- migrate:up transaction:false\nbegin;\ninsert into t values (1);\ncommit;\n"
          .. "create unique index concurrently t_a on t (a);\n-- migrate:down\n",
      }
      has(refused(2), "migrations/002_idx.sql:5:1")
      assert.is_nil(relation "t")
    end))

    it("does not leak its settings", async(function()
      put {
        ["001_set.sql"] = "-- migrate:up transaction:false\ncreate schema other;\nset search_path = other;\ncreate table a (i int);\n-- migrate:down\n",
        ["002_b.sql"] = "-- migrate:up transaction:false\ncreate table b (i int);\n-- migrate:down\n",
        ["003_c.sql"] = "-- migrate:up\ncreate table c (i int);\n-- migrate:down\n",
      }
      up()
      assert.are.equal("other.a", relation "other.a")
      assert.are.equal("b", relation "public.b")
      assert.are.equal("c", relation "public.c")
    end))
  end)

  describe("COPY with its rows in the file", function()
    local ROWS = "copy t (i, s) from stdin;\n1\ta;b\n2\t\\N\n3\t-- migrate:down\n4\ttab\\there '$$\n\\.\ninsert into t values (5, 'after');\n"

    for _, option in ipairs { "", " transaction:false" } do
      it("works" .. (option == "" and "" or " with" .. option), async(function()
        put { ["001_copy.sql"] = "-- migrate:up" .. option .. "\ncreate table t (i int, s text);\n" .. ROWS .. "-- migrate:down\ndrop table t;\n" }
        up()
        assert.are.same({ "a;b", "<null>", "-- migrate:down", "tab\there '$$", "after" },
          db:values "select coalesce(s, '<null>') from t order by i")
        assert.is_true(applied(1))
      end))

      it("that is bad is undone" .. option, async(function()
        put { ["001_copy.sql"] = "-- migrate:up" .. option .. "\ncreate table t (i int);\ncopy t from stdin;\n1\nbad\n\\.\n-- migrate:down\n" }
        local said = refused(1)
        has(said, "migrations/001_copy.sql:")
        has(said, "22P02")
        has(said, "bad")
        assert.is_nil(relation "t")
      end))
    end

    it("without an end is refused before anything is sent", async(function()
      put { ["001_copy.sql"] = "-- migrate:up\ncreate table t (i int);\ncopy t from stdin;\n1\n2\n" }
      has(refused(2), "migrations/001_copy.sql:3")
      assert.is_nil(relation "moonbird.journal")
    end))
  end)

  describe("pg_dump's output", function()
    local SCHEMA = [==[
create type mood as enum ('sad', 'ok');
create schema app;
create table app.users (id bigint generated always as identity primary key, name text not null, m mood default 'ok');
create table app.posts (id bigint primary key, author bigint references app.users, body text);
create view app.named as select id, name from app.users;
create function app.f(i int) returns int language plpgsql as $$ begin return i; -- migrate:down
end $$;
create function app.g(i int) returns int language sql begin atomic select 1; select i + 1; end;
create index posts_author on app.posts (author);
insert into app.users (name) values ('Ada'), (E'tab\there; \\. "quoted"'), ('it''s');
insert into app.posts values (1, 1, E'line\nline'), (2, 2, null);
comment on table app.users is 'who; what';
]==]

    local SAMPLE = [==[
--
-- PostgreSQL database dump
--

\restrict ghQ7cXvJw2mD4bC1hVZQm0t8lG1oWkaa

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

CREATE SCHEMA app;

SET default_tablespace = '';
SET default_table_access_method = heap;

CREATE TABLE app.users (
    id bigint NOT NULL,
    name text NOT NULL
);

ALTER TABLE app.users ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME app.users_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

COPY app.users (id, name) FROM stdin;
1	Ada
2	tab\there; \\. "quoted"
3	it's
\.

SELECT pg_catalog.setval('app.users_id_seq', 3, true);

ALTER TABLE ONLY app.users
    ADD CONSTRAINT users_pkey PRIMARY KEY (id);

--
-- PostgreSQL database dump complete
--

\unrestrict ghQ7cXvJw2mD4bC1hVZQm0t8lG1oWkaa

]==]

    it("with \\restrict and \\unrestrict is a migration", async(function()
      for i, option in ipairs { "", " transaction:false" } do
        db:exec "drop schema if exists app cascade; drop schema if exists moonbird cascade"
        put { ["001_dump.sql"] = "-- migrate:up" .. option .. "\n" .. SAMPLE .. "-- migrate:down\ndrop schema app cascade;\n",
          ["002_after.sql"] = ("-- migrate:up\ncreate table after%d (i int);\n-- migrate:down\n"):format(i) }
        up()
        assert.are.same({ "Ada", "tab\there; \\. \"quoted\"", "it's" }, db:values "select name from app.users order by id")
        assert.are.equal("after" .. i, relation("public.after" .. i))
      end
    end))

    -- The dump of a newer server needs a newer pg_dump; the sample above stands for it then.
    local pg_dump = "/usr/lib/postgresql/15/bin/pg_dump"
    it("of the real program, where it fits the server, makes the same again", async(function()
      local major = math.tointeger(db:value "select current_setting('server_version_num')::int") // 10000
      if major > 15 or not fs.access(pg_dump, "x") then
        pg_dump = nil
      end
      local function dump(database)
        if not pg_dump then
          return SAMPLE
        end
        database:disconnect()
        local child <close> = assert(process.spawn { file = pg_dump,
          args = { "--no-owner", "--exclude-schema=moonbird", "-d", database.url } })
        local result = assert(child:wait(30000))
        assert.are.equal(0, result.status, result.stderr)
        return result.stdout
      end
      local source = helper.database()
      source:exec(SCHEMA)
      local text = dump(source)
      put { ["001_dump.sql"] = "-- migrate:up\n" .. text .. "\n-- migrate:down\ndrop schema app cascade;\n" }
      up()
      assert.are.same(source:values "select name from app.users order by id", db:values "select name from app.users order by id")
      if pg_dump then
        local function plain(dumped)
          return (dumped:gsub("\\%l*restrict %w+\n", ""))
        end
        assert.are.equal(plain(text), plain(dump(db)))
      end
    end))

    it("has no other command of psql: refused by name", async(function()
      put { ["001_meta.sql"] = "-- migrate:up\ncreate table t (i int);\n\\connect other\n-- migrate:down\n",
        ["002_meta.sql"] = "-- migrate:up\n\\i file.sql\n-- migrate:down\n",
        ["003_meta.sql"] = "-- migrate:up\n\\set x 1\n-- migrate:down\n",
        ["004_meta.sql"] = "-- migrate:up\nselect 1 \\gexec\n-- migrate:down\n" }
      local said = refused(2)
      has(said, "migrations/001_meta.sql:3:1")
      has(said, "\\connect")
      has(said, "migrations/002_meta.sql:2:1")
      has(said, "\\i")
      has(said, "\\set")
      has(said, "\\gexec")
      assert.is_nil(relation "moonbird.journal")
    end))
  end)

  describe("the server's errors have file, line, column and a caret", function()
    local function bad(text, line, column, word, sqlstate)
      put { ["001_bad.sql"] = text }
      local said = refused(1)
      has(said, ("migrations/001_bad.sql:%d:%d: "):format(line, column))
      has(said, sqlstate or "42P01")
      assert.are.equal(word, under_caret(said))
      db:exec "drop schema if exists moonbird cascade"
      local failure = json.decode(moonbird({ "--json", "up" }, 1).stdout).error
      assert.are.same({ "migrations/001_bad.sql", line, column }, { failure.file, failure.line, failure.column })
    end

    it("in a plain file", async(function()
      bad("-- migrate:up\ncreate table t (i int);\nselect *\n  from missing;\n-- migrate:down\n", 4, 8, "missing")
    end))

    it("after characters of several bytes", async(function()
      bad("-- migrate:up\nselect 'äöü€𝄞' as \"é\", * from missing;\n-- migrate:down\n", 2, 31, "missing")
    end))

    it("in a transaction:false block", async(function()
      bad("-- migrate:up transaction:false\nselect 'é';\n\nselect * from missing;\n-- migrate:down\n", 4, 15, "missing")
    end))

    it("in a second section", async(function()
      bad("-- migrate:up\nselect 1;\n-- migrate:down\n-- migrate:up\n select * from missing;\n-- migrate:down\n", 5, 16, "missing")
    end))

    it("with lines of Windows and a byte order mark", async(function()
      bad(BOM .. "-- migrate:up\r\ncreate table t (i int);\r\nselect *\r\n  from missing;\r\n-- migrate:down\r\n", 4, 8, "missing")
    end))

    it("after 100 kB", async(function()
      local lines = { "-- migrate:up", "create table t (i int, s text);" }
      for i = 1, 3000 do
        lines[#lines + 1] = ("insert into t values (%d, 'a row of some length; with a semicolon');"):format(i)
      end
      lines[#lines + 1] = "select * from missing;"
      lines[#lines + 1] = "-- migrate:down\n"
      local text = table.concat(lines, "\n")
      assert.is_true(#text > 100 * 1024)
      bad(text, 3003, 15, "missing")
      put { ["001_bad.sql"] = text:gsub("select %* from missing;", "") }
      up()
      assert.are.equal(3000, db:value "select count(*) from t")
    end))

    it("after dollar quotes, nested comments and BEGIN ATOMIC", async(function()
      bad([==[
-- migrate:up
create function f() returns int language plpgsql as $outer$
begin
  execute $inner$ select 1; $inner$; /* ; */
  return 1;
end
$outer$;
/* a comment /* nested; */ still; -- migrate:down
*/
create function g(i int) returns int language sql
begin atomic
  select case when i > 0 then 1 else 2 end;
  select f();
end;
select $$;$$, ';' as "a;b", missing
  (1);
-- migrate:down
]==], 15, 29, "missing", "42883")
    end))

    it("in the body of a function, at its place in the file", async(function()
      put { ["001_bad.sql"] = "-- migrate:up\ncreate function f() returns int language plpgsql as $$\nbegin\n  retrun 1;\nend $$;\n-- migrate:down\n" }
      local said = refused(1)
      has(said, "42601")
      has(said, "migrations/001_bad.sql:4:3: ")
    end))
  end)

  it("of every shape is applied whole", async(function()
    put { ["001_shapes.sql"] = (BOM .. [==[
-- description: all of it
-- migrate:up
create table t (s text);
insert into t values ($$a;b$$), ($q$ $$ ; $q$), (E'\';'), (U&'\0441;'), ('a' -- comment;
'b;');
create function g(i int) returns int language sql
begin atomic
  select 1;
  select case when i > 0 then i end;
end;
/* a /* b; */ c; */ insert into t values ('last')
-- migrate:down
drop function g; drop table t
]==]):gsub("\n", "\r\n") }
    up()
    assert.are.same({ "a;b", " $$ ; ", "';", "с;", "ab;", "last" }, db:values "select s from t")
    assert.are.equal(3, db:value "select g(3)")
    moonbird { "down" }
    assert.is_nil(relation "t")
  end))

  describe("a folder with problems", function()
    local NAMES = {
      ["001_fine.sql"] = "-- migrate:up\ncreate table fine (i int);\n-- migrate:down\n",
      ["002_same.sql"] = "-- migrate:up\n-- migrate:down\n",
      ["0002_twice.sql"] = "-- migrate:up\n-- migrate:down\n",
      ["003-Bad-Name.sql"] = "-- migrate:up\n-- migrate:down\n",
      ["1234567890123456789_too_long.sql"] = "-- migrate:up\n-- migrate:down\n",
    }
    local TEXTS = {
      ["004_quote.sql"] = "-- migrate:up\nselect 'open;\n-- migrate:down\n",
      ["005_dollar.sql"] = "-- migrate:up\nselect 1;\nselect $x$ open;\n-- migrate:down\n",
      ["006_comment.sql"] = "-- migrate:up\n/* /* */\n-- migrate:down\n",
      ["007_lua.lua"] = "return { up = function(db) }\n",
      ["008_key.lua"] = "return {\n  upp = function(db) end,\n}\n",
    }
    local IN_NAMES = { "002_same.sql", "0002_twice.sql", "003-Bad-Name.sql", "1234567890123456789_too_long.sql" }
    local IN_TEXTS = { "004_quote.sql:2:", "005_dollar.sql:3:", "006_comment.sql:2:", "007_lua.lua:1",
      "008_key.lua", "\"upp\"", "\"up\"" }

    it("lists every bad name and duplicate", async(function()
      put(NAMES)
      local said = refused(2)
      for _, part in ipairs(IN_NAMES) do
        has(said, part)
      end
      assert.is_nil(relation "fine")
      assert.is_nil(relation "moonbird.journal")
    end))

    it("lists every broken text with file and line", async(function()
      put(TEXTS)
      local said = refused(2)
      for _, part in ipairs(IN_TEXTS) do
        has(said, part)
      end
      assert.is_nil(relation "moonbird.journal")

      local answer = json.decode(moonbird({ "--json", "up" }, 2).stdout)
      assert.is_false(answer.ok)
      assert.are.equal("migration_file", answer.error.code)
      assert.is_true(#answer.error.problems >= 5)
      for _, problem in ipairs(answer.error.problems) do
        assert.is_string(problem.file)
        assert.is_string(problem.message)
      end
      moonbird({ "plan" }, 2)
    end))

    it("lists bad names and broken texts together", async(function()
      put(NAMES)
      put(TEXTS)
      local said = refused(2)
      for _, list in ipairs { IN_NAMES, IN_TEXTS } do
        for _, part in ipairs(list) do
          has(said, part)
        end
      end
      assert.is_nil(relation "fine")
    end))

    it("that is not there is refused", async(function()
      assert(fs.remove_tree(dir .. "/migrations"))
      has(refused(2), "migrations")
      assert.is_nil(relation "moonbird.journal")
    end))

    it("with an unreadable file is refused", async(function()
      put { ["001_fine.sql"] = "-- migrate:up\ncreate table fine (i int);\n-- migrate:down\n" }
      local child <close> = assert(process.spawn { file = "ln",
        args = { "-s", "/nowhere/at/all", dir .. "/migrations/002_dangling.sql" } })
      assert.are.equal(0, assert(child:wait(10000)).status)
      has(refused(2), "002_dangling.sql")
      assert.is_nil(relation "fine")
    end))

    it("with nothing in it is nothing to do", async(function()
      up()
      assert.are.equal(0, #json.decode(up("--json").stdout).steps)
    end))
  end)
end)
