-- Backfills by the real binary on a real server: what they change, what they leave, how they go on.
local backfills = require "tests.backfills"
local fs = require "moonbird.core.fs"
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local task = require "moonbird.core.task"
local texts = require "tests.texts"
local async = helper.async
local has = texts.has

local base = backfills.users

local function backfill(body, rest)
  return "return { description = \"a test\", irreversible = \"a test\", " .. (rest or "") .. "\n  backfill = {\n" .. body
    .. "\n} }\n"
end

local COUNT = [[table = "users", set = "hits = hits + 1"]]
local SMALL = [[options = { min = 50, max = 100, start = 100 },]]

describe("a backfill", function()
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

  local function write(files)
    local all = {}
    for name, text in pairs(files) do
      all["migrations/" .. name] = text
    end
    helper.write(dir, all)
  end

  local function chunk_sum(column)
    return backfills.sum(db, column)
  end

  it("changes every row once, set-based", async(function()
    write { ["001_users.sql"] = base(5000), ["002_count.lua"] = backfill(COUNT .. ", " .. SMALL) }
    moonbird { "up" }
    backfills.once(db, 5000)
    local detail = json.decode(db:value [[select detail::text from moonbird.journal where target = 'global' and event = 'apply' and version = 2]])
    assert.are.same({ 5000, 5000, 0, 0 }, { detail.backfill.rows, detail.backfill.changed, detail.backfill.skipped,
      detail.backfill.errors })
    assert.are.same({ "start", "apply" }, db:values "select event from moonbird.journal where target = 'global' and version = 2 order by seq")
    moonbird { "history", "--verify" }
    has(moonbird({ "up" }).stdout, "nothing to do")
  end))

  it("runs its up first, in the transaction of its start", async(function()
    write { ["001_users.sql"] = base(100), ["002_tag.lua"] = backfill([[table = "users", set = "tag = 'x'",
      where = "tag is null"]], [[up = "alter table users add column tag text",]]) }
    moonbird { "up" }
    assert.are.equal(100, db:value "select count(*) from users where tag = 'x'")
    assert.are.equal("backfill", db:value "select detail->>'kind' from moonbird.journal where event = 'start'")
  end))

  it("does not leave a start behind whose up failed", async(function()
    write { ["001_users.sql"] = base(10), ["002_tag.lua"] = backfill(COUNT, [[up = "alter table users add column id int",]]) }
    moonbird({ "up" }, 1)
    assert.are.equal(0, db:value "select count(*) from moonbird.journal where event = 'start'")
    assert.are.equal(0, db:value "select count(*) from moonbird.backfill")
  end))

  it("changes only what matches its where", async(function()
    write { ["001_users.sql"] = base(1000), ["002_count.lua"] = backfill([[table = "users", set = "hits = hits + 1",
      where = "hits = 0 and users.id % 3 = 0 -- a comment"]]) }
    moonbird { "up" }
    assert.are.equal(333, db:value "select sum(hits) from users")
    assert.are.equal(333, chunk_sum "rows_changed")
    assert.are.equal(1000, chunk_sum "rows_seen")
  end))

  it("takes an empty table", async(function()
    write { ["001_users.sql"] = base(0), ["002_count.lua"] = backfill(COUNT) }
    moonbird { "up" }
    assert.are.equal("done", db:value "select status from moonbird.backfill")
  end))

  it("upgrades a journal of the first version", async(function()
    local first = assert(fs.read "migrations/0001_journal.sql"):match("%-%- migrate:up(.*)%-%- migrate:down")
    db:exec("create schema moonbird; set search_path = moonbird, pg_temp; " .. first .. [[;
      select record('@journal', 1, '{"event": "apply", "applies": true, "version": 1, "version_text": "0001",
        "id": "0001_journal", "outcome": "done", "engine": "an old one", "run": "r"}'); reset search_path]])
    write { ["001_users.sql"] = base(10), ["002_count.lua"] = backfill(COUNT) }
    moonbird { "status" }
    moonbird { "up" }
    backfills.once(db, 10)
    assert.are.same({ 1, 2 }, db:values "select version from moonbird.journal where target = '@journal' order by ordinal limit 2")
    moonbird { "history", "--verify" }
  end))

  describe("row-based", function()
    it("gives typed rows and writes typed values back", async(function()
      write { ["001_values.sql"] = [[
-- migrate:up
create domain percent as numeric(5,2);
create table v (id int primary key, b boolean, f float8, n numeric, t text, y bytea, j jsonb, js json, a text[], i int[], u uuid,
  ts timestamptz, p percent, c char(3), out jsonb);
insert into v values
 (1, true, 0.1, 12345678901234567890.123456789, E'q"uo\\te\n', '\x00ff5c22', '{"a": [1, null]}', '{"b":  2}',
  array['a,b', '"', null, '\'], array[1,null,3], 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '2026-02-03 04:05:06+00', 1.25, 'x');
insert into v values (2);
insert into v values (3, false, 'nan', 'NaN', '', '', 'null', '"x"', '{}', null, null, 'infinity', 0, '');
create table w (like v including all);
-- migrate:down
drop table v, w;
drop domain percent;
]], ["002_copy.lua"] = backfill [[
  table = "v", columns = { "b", "f", "n", "t", "y", "j", "js", "a", "i", "u", "ts", "p", "c" },
  transform = function(row, db)
    local new = {}
    for _, name in ipairs { "b", "f", "n", "t", "y", "j", "js", "a", "i", "u", "ts", "p", "c" } do
      new[name] = row[name] == nil and db.null or row[name]
    end
    if row.id == 1 then
      assert(row.b == true and row.f == 0.1 and row.n == "12345678901234567890.123456789" and row.y == "\0\xff\\\"")
      new.out = { list = db.json.array {}, null = db.null, id = row.id }
    end
    return new
  end]] }
      moonbird({ "up", "--to", "1" })
      db:exec "insert into w select * from v"
      moonbird { "up" }
      assert.are.equal(0, db:value [[select count(*) from v join w using (id)
        where (v.b, v.f, v.n, v.t, v.y, v.j, v.js::text, v.a, v.i, v.u, v.ts, v.p, v.c)
        is distinct from (w.b, w.f, w.n, w.t, w.y, w.j, w.js::text, w.a, w.i, w.u, w.ts, w.p, w.c)]])
      assert.are.equal('{"id": 1, "list": [], "null": null}', db:value "select out::text from v where id = 1")
      assert.are.equal(2, db:value "select count(*) from v where out is null")
    end))

    it("leaves alone what the transform skips, and columns it does not name", async(function()
      write { ["001_users.sql"] = base(1000), ["002_rows.lua"] = backfill([[table = "users", columns = { "login" },
        transform = function(row)
          if row.id % 2 == 0 then return nil end
          if row.id % 5 == 0 then return {} end
          if row.id % 3 == 0 then return { hits = row.id } end
          return { email = row.login:lower(), hits = 1 }
        end, ]] .. SMALL) }
      moonbird { "up" }
      assert.are.equal(0, db:value [[select count(*) from users where
        case when id % 2 = 0 or id % 5 = 0 then email is null and hits = 0 when id % 3 = 0 then email is null and hits = id
        else email = lower(login) and hits = 1 end is not true]])
      assert.are.same({ 1000, 400, 600 }, { chunk_sum "rows_seen", chunk_sum "rows_changed", chunk_sum "rows_skipped" })
    end))

    it("names the row whose transform fails, and keeps everything before", async(function()
      write { ["001_users.sql"] = base(1000), ["002_rows.lua"] = backfill([[table = "users", columns = { "login" },
        transform = function(row)
          if row.id == 777 then error("no such thing") end
          return { hits = 1 }
        end, ]] .. SMALL) }
      local result = moonbird({ "up" }, 1)
      has(result.stderr, "the row with id = 777: no such thing")
      has(result.stderr, "migrations/002_rows.lua:5")
      assert.are.equal(776, db:value "select sum(hits) from users")
      assert.are.equal("failed", db:value "select status from moonbird.backfill")
      assert.are.equal(776, chunk_sum "rows_seen")
    end))

    it("has the database in the transform, in the batch's transaction", async(function()
      write { ["001_users.sql"] = base(300), ["002_rows.lua"] = backfill([[table = "users", columns = { "login" },
        up_only = nil, transform = function(row, db)
          db:exec("insert into log values ($1)", row.id)
          return { email = db:value("select upper($1::text)", row.login) }
        end, ]] .. SMALL, [[up = "create table log (id bigint)",]]) }
      moonbird { "up" }
      assert.are.equal(300, db:value "select count(distinct id) from log")
      assert.are.equal(300, db:value "select count(*) from users where email = upper(login)")
    end))

    -- Batches that are written in several parts.
    local LARGE = "options = { min = 3000, max = 3000 }"

    it("writes a large batch in parts, whatever columns each row names", async(function()
      write { ["001_users.sql"] = base(7000), ["002_rows.lua"] = backfill([[table = "users", columns = { "login" },
        transform = function(row)
          if row.id > 6000 and row.id % 2 == 0 then return nil end
          if row.id > 2000 and row.id % 7 == 0 then return { hits = 1, email = row.login:lower() } end
          return { hits = 1 }
        end, ]] .. LARGE) }
      moonbird { "up" }
      assert.are.equal(0, db:value [[select count(*) from users where
        case when id > 6000 and id % 2 = 0 then email is null and hits = 0
        when id > 2000 and id % 7 = 0 then email = lower(login) and hits = 1
        else email is null and hits = 1 end is not true]])
      assert.are.same({ 7000, 6500, 500, 3 }, { chunk_sum "rows_seen", chunk_sum "rows_changed",
        chunk_sum "rows_skipped", chunk_sum "batches" })
    end))

    it("sees the error of a part that was being written while the transform went on", async(function()
      write { ["001_users.sql"] = base(3000), ["002_rows.lua"] = backfill([[table = "users", columns = { "login" },
        transform = function(row, db)
          if row.id % 100 == 0 then
            db:value "select 1" -- fails as well where the part before did; that is not what is to be told
          end
          return { hits = row.id == 700 and -1 or 1 }
        end, ]] .. LARGE, [[up = "alter table users add constraint not_negative check (hits >= 0)",]]) }
      local result = moonbird({ "up" }, 1)
      has(result.stderr, "not_negative")
      has(result.stderr, "error: migrations/002_rows.lua: the row with id = 700")
      assert.are.equal(699, db:value "select sum(hits) from users")
      assert.are.equal(699, chunk_sum "rows_changed")
    end))

    it("names the row whose value no text can hold", async(function()
      write { ["001_users.sql"] = base(1000), ["002_rows.lua"] = backfill([[table = "users", columns = { "login" },
        transform = function(row) return { email = row.id == 500 and "a\0b" or "x" } end, ]] .. LARGE) }
      has(moonbird({ "up" }, 1).stderr, "error: migrations/002_rows.lua: the row with id = 500: text can't hold a NUL byte")
      assert.are.equal(499, db:value "select count(*) from users where email = 'x'")
    end))

    it("refuses what is no column", async(function()
      write { ["001_users.sql"] = base(3), ["002_rows.lua"] = backfill [[table = "users", columns = { "logn" },
        transform = function(row) return { email = "x" } end]] }
      has(moonbird({ "up" }, 1).stderr, 'has no column "logn"')
      write { ["002_rows.lua"] = backfill [[table = "users", columns = { "login" },
        transform = function(row) return { emial = "x" } end]] }
      local result = moonbird({ "up", "--restart" }, 1)
      has(result.stderr, '"emial", which is no column of public.users')
      has(result.stderr, 'did you mean "email"')
    end))
  end)

  it("runs a function over the bounds of each batch", async(function()
    write { ["001_users.sql"] = base(1000), ["002_move.lua"] = backfill([[table = "users",
      batch = function(db, lo, hi)
        return db:exec("with gone as (delete from users where id >= $1 and id <= $2 and id % 2 = 0 returning *) "
          .. "insert into archive select id, login from gone", lo, hi)
      end, ]] .. SMALL, [[up = "create table archive (id bigint, login text)",]]) }
    moonbird { "up" }
    assert.are.equal(500, db:value "select count(*) from archive")
    assert.are.equal(500, db:value "select count(*) from users")
    assert.are.same({ 1000, 500 }, { chunk_sum "rows_seen", chunk_sum "rows_changed" })
  end))

  describe("along a key", function()
    local function walks(ddl, key, options)
      options = options or {}
      write { ["001_users.sql"] = "-- migrate:up\n" .. ddl .. "\nanalyze;\n-- migrate:down\ndrop table users;\n",
        ["002_count.lua"] = backfill((options.body or COUNT) .. ", " .. (options.options or SMALL) .. (options.more or "")) }
      moonbird { "up" }
      local rows = db:value "select count(*) from users"
      assert.are.equal(rows, db:value "select count(*) from users where hits = 1")
      assert.are.equal(key, db:value "select array_to_string(key_columns, ',') from moonbird.backfill")
      return rows
    end

    it("of two columns", async(function()
      walks([[create table users (a int, b text, hits int not null default 0, primary key (a, b));
        insert into users select i % 13, 'k' || i from generate_series(1, 3000) i;]], "a,b")
    end))

    it("of two columns, row-based and by function", async(function()
      local ddl = [[create table users (a int, b text, hits int not null default 0, primary key (a, b));
        insert into users select i % 13, 'k' || i from generate_series(1, 3000) i;]]
      walks(ddl, "a,b", { body = [[table = "users", columns = { "hits" },
        transform = function(row) return { hits = row.hits + 1 } end]] })
      moonbird({ "repair", "2", "--mark", "reverted", "--reason", "a test" })
      db:exec "update users set hits = 0"
      walks(ddl, "a,b", { body = [[table = "users", batch = function(db, lo, hi)
        return db:exec("update users set hits = hits + 1 where (a, b) >= ($1, $2) and (a, b) <= ($3, $4)", lo[1], lo[2], hi[1], hi[2])
      end]] })
    end))

    it("uuid", async(function()
      walks([[create table users (id uuid primary key default gen_random_uuid(), hits int not null default 0);
        insert into users (hits) select 0 from generate_series(1, 3000) i;]], "id", { options = [[options = { min = 50, max = 100, workers = 3 },]] })
    end))

    it("text in a collation that is not C", async(function()
      db:exec [[create collation german (provider = icu, locale = 'de-u-kn-true')]]
      walks([[create table users (name text collate german primary key, hits int not null default 0);
        insert into users select case i % 4 when 0 then 'ä' when 1 then 'Z' when 2 then 'a' else 'ß' end || i || 'x\"'
          from generate_series(1, 3000) i;]], "name", { options = [[options = { min = 50, max = 100, workers = 3 },]] })
    end))

    it("timestamps and numerics, whatever the session's DateStyle", async(function()
      db:exec(('alter database "%s" set datestyle = \'SQL, DMY\''):format(db.name))
      db:disconnect()
      walks([[create table users (at timestamptz not null, n numeric not null, hits int not null default 0, unique (at, n));
        insert into users select timestamptz '2026-01-01' + (i / 3) * interval '7 hours', i % 3 + 0.10 from generate_series(1, 3000) i;
        insert into users values ('infinity', 'NaN', 0), ('-infinity', 0, 0);]], "at,n")
      moonbird({ "repair", "2", "--mark", "reverted", "--reason", "a test" })
      db:exec "update users set hits = 0"
      write { ["002_count.lua"] = backfill [[table = "users", columns = { "hits" }, transform = function(row) return { hits = row.hits + 1 } end]] }
      moonbird { "up" }
      assert.are.equal(3002, db:value "select count(*) from users where hits = 1")
    end))

    it("with holes of 10^12", async(function()
      walks([[create table users (id bigint primary key, hits int not null default 0);
        insert into users select i * 1000000000000 from generate_series(-1500, 1500) i;]], "id")
      assert.is_true(chunk_sum "batches" < 70)
    end))

    it("that is a unique index where there is no primary key, or the one that is named", async(function()
      walks([[create table users (a int, b int not null, c int not null, d int, hits int not null default 0);
        create unique index on users (a); create unique index on users (b) where b > 0; create unique index on users (c, b);
        create unique index on users (c desc, b); create unique index on users ((b + 1));
        insert into users select i, i, i from generate_series(1, 1000) i;]], "c,b")
      moonbird({ "repair", "2", "--mark", "reverted", "--reason", "a test" })
      db:exec "update users set hits = 0; create unique index on users (b)"
      write { ["002_count.lua"] = backfill(COUNT .. [[, key = { "c", "b" }]]) }
      moonbird { "up" }
      assert.are.equal(1000, db:value "select count(*) from users where hits = 1")
      assert.are.equal("c,b", db:value "select array_to_string(key_columns, ',') from moonbird.backfill")
      moonbird({ "repair", "2", "--mark", "reverted", "--reason", "a test" })
      write { ["002_count.lua"] = backfill(COUNT .. [[, key = "a"]]) }
      has(moonbird({ "up" }, 1).stderr, "no unique index over (a)")
    end))

    for _, kind in ipairs {
      { "jsonb", "select to_jsonb(i) from generate_series(1, 300) i union all values ('null'::jsonb), ('\"a\"')" },
      { "int[]", "select array[i, i] from generate_series(1, 300) i" },
      { "pair", "select row(i, i)::pair from generate_series(1, 300) i" },
      { "ints", "select array[i, i] from generate_series(1, 300) i" } } do
      it("that no cursor can hold: of " .. kind[1], async(function()
        write { ["001_users.sql"] = ("-- migrate:up\ncreate type pair as (a int, b int);\ncreate domain ints as int[];\n"
          .. "create table users (id %s primary key, n int not null default 0, hits int not null default 0);\n"
          .. "insert into users (id) %s;\n-- migrate:down\n"):format(kind[1], kind[2]), ["002_count.lua"] = backfill(COUNT) }
        local said = moonbird({ "up" }, 1).stderr
        has(said, "can't be walked along its key: column id is of type " .. (kind[1] == "int[]" and "integer[]" or kind[1]))
        has(said, "name another key")
        write { ["002_count.lua"] = backfill(COUNT .. [[, key = "id", where = "hits = 0"]]) }
        has(moonbird({ "up" }, 1).stderr, "can't be walked along its key")
        write { ["002_count.lua"] = backfill(COUNT .. [[, where = "hits = 0"]]) }
        moonbird { "up" }
        assert.are.equal(0, db:value "select count(*) from users where hits <> 1")
        assert.are.equal("", db:value "select array_to_string(key_columns, ',') from moonbird.backfill")
        moonbird({ "repair", "2", "--mark", "reverted", "--reason", "a test" })
        db:exec "update users set hits = 0, n = ('x' || substr(md5(id::text), 1, 7))::bit(28)::int; create unique index on users (n)"
        write { ["002_count.lua"] = backfill(COUNT) }
        moonbird { "up" }
        assert.are.equal(0, db:value "select count(*) from users where hits <> 1")
        assert.are.equal("n", db:value "select array_to_string(key_columns, ',') from moonbird.backfill")
      end))
    end

    it("of every leaf", async(function()
      walks([[create table users (region int, id bigint, hits int not null default 0, primary key (region, id)) partition by list (region);
        do $$ begin for i in 1 .. 100 loop execute format('create table users_%s partition of users for values in (%s)', i, i); end loop; end $$;
        insert into users select i % 100 + 1, i from generate_series(1, 5000) i;]], "region,id", { options = "options = { workers = 2 }," })
      assert.are.equal(100, db:value "select count(distinct relation) from moonbird.backfill_chunk")
    end))

    it("of inherited tables", async(function()
      walks([[create table users (id bigint primary key, hits int not null default 0);
        create table more (primary key (id)) inherits (users);
        insert into users select i from generate_series(1, 500) i; insert into more select i from generate_series(1, 500) i;]], "id")
      assert.are.equal(1000, chunk_sum "rows_changed")
    end))

    it("in a schema and under names that need quoting", async(function()
      write { ["001_users.sql"] = [[
-- migrate:up
create schema "My Schema";
create table "My Schema"."The Table" ("Key" int primary key, "set" int not null default 0);
insert into "My Schema"."The Table" select i from generate_series(1, 500) i;
-- migrate:down
drop schema "My Schema" cascade;
]], ["002_count.lua"] = backfill([[table = '"My Schema"."The Table"', set = '"set" = "The Table"."set" + 1', ]] .. SMALL) }
      moonbird { "up" }
      assert.are.equal(500, db:value [[select count(*) from "My Schema"."The Table" where "set" = 1]])
    end))
  end)

  describe("without a key", function()
    local DDL = "-- migrate:up\ncreate table users (id bigint, hits int not null default 0);\n"
      .. "insert into users select i from generate_series(1, 5000) i;\nanalyze users;\n-- migrate:down\ndrop table users;\n"

    it("walks by ctid, where its where tells what is done", async(function()
      for _, body in ipairs { COUNT, [[table = "users", columns = { "hits" }, transform = function(row) return { hits = row.hits + 1 } end]] } do
        write { ["001_users.sql"] = DDL, ["002_count.lua"] = backfill(body .. [[, where = "hits = 0",
          options = { min = 50, max = 100, workers = 2 }]]) }
        moonbird { "up" }
        assert.are.equal(5000, db:value "select count(*) from users where hits = 1")
        assert.are.equal("", db:value "select array_to_string(key_columns, ',') from moonbird.backfill")
        moonbird({ "repair", "2", "--mark", "reverted", "--reason", "a test" })
        db:exec "update users set hits = 0"
      end
    end))

    it("needs a where", async(function()
      write { ["001_users.sql"] = DDL, ["002_count.lua"] = backfill(COUNT) }
      has(moonbird({ "up" }, 1).stderr, "has no key, and the backfill no `where`")
    end))
  end)

  describe("that meets a row it can't change", function()
    local FILES = { ["001_users.sql"] = base(1000):gsub("hits int", "hits int check (id not in (123, 124, 900) or hits = 0)") }

    it("ends there, with everything before it kept, and goes on when it is mended", async(function()
      write(FILES)
      write { ["002_count.lua"] = backfill(COUNT .. ", " .. SMALL) }
      local result = moonbird({ "up" }, 1)
      has(result.stderr, "the row with id = 123")
      has(result.stderr, "23514")
      assert.are.equal(122, db:value "select sum(hits) from users")
      assert.are.equal("failed", db:value "select status from moonbird.backfill")
      db:exec "alter table users drop constraint users_check"
      moonbird { "up" }
      backfills.once(db, 1000)
    end))

    it("that is the first one is no reason to ask what became of the code before", async(function()
      write { ["001_users.sql"] = base(100) }
      write { ["002_count.lua"] = backfill [[table = "users", set = "hits = hits / 0"]] }
      has(moonbird({ "up" }, 1).stderr, "division by zero")
      write { ["002_count.lua"] = backfill(COUNT) }
      moonbird { "up" }
      backfills.once(db, 100)
    end))

    it("passes over as many as may be", async(function()
      write(FILES)
      write { ["002_count.lua"] = backfill(COUNT .. [[, where = "hits = 0", options = { max_errors = 2 }]]) }
      has(moonbird({ "up" }, 1).stderr, "the row with id = 900")
      write { ["002_count.lua"] = backfill(COUNT .. [[, where = "hits = 0", options = { max_errors = 3, min = 10, max = 100, workers = 2 }]]) }
      moonbird { "up" }
      assert.are.equal(997, db:value "select sum(hits) from users")
      assert.are.same({ "[123]", "[124]", "[900]" }, db:values "select key::text from moonbird.backfill_error order by key")
      assert.are.same({ "23514" }, db:values "select distinct sqlstate from moonbird.backfill_error")
    end))

    it("does not blame a row for a mistake in the statement", async(function()
      write { ["001_users.sql"] = base(1000), ["002_count.lua"] = backfill [[table = "users", set = "hits = nothing + 1"]] }
      local result = moonbird({ "up" }, 1)
      has(result.stderr, 'column "nothing" does not exist')
      assert.is_nil(result.stderr:find("the row with", 1, true))
    end))
  end)

  it("waits for rows that others have locked", async(function()
    write { ["001_users.sql"] = base(1000), ["002_count.lua"] = backfill(COUNT .. [[, options = { min = 50, max = 100, lock_timeout = "50ms" }]]) }
    moonbird { "up", "--to", "1" }
    local other = db:connect()
    other:simple "begin; update users set login = login where id in (333, 334)"
    local child = helper.spawn({ "up" }, { cwd = dir, db = db })
    helper.eventually("it comes to the locked row", function()
      return db:value "select to_regclass('moonbird.backfill_chunk')" and chunk_sum "rows_seen" == 332
    end)
    task.sleep(300)
    other:simple "commit"
    local result = child:wait(30000)
    assert.are.equal(0, result.status, result.stderr)
    backfills.once(db, 1000)
  end))

  it("refuses to be done when rows that came later match", async(function()
    write { ["001_users.sql"] = base(100), ["002_email.lua"] = backfill [[table = "users", set = "email = lower(login)", where = "email is null"]],
      ["000_seed.sql"] = "-- migrate:up\nselect 1;\n-- migrate:down\nselect 1;\n" }
    moonbird { "up", "--to", "1" }
    db:exec [[create function late() returns trigger language plpgsql as $$ begin
      if new.id = 50 then insert into users values (1000, 'Late') on conflict do nothing; end if; return null; end $$;
      create trigger late after update on users for each row execute function late()]]
    local result = moonbird({ "up" }, 1)
    has(result.stderr, "1 row of public.users still match its where")
    has(result.stderr, "add a trigger or a default")
    assert.are.equal(0, db:value "select count(*) from moonbird.state where target = 'global' and version = 2 and applies")
    db:exec "drop trigger late on users"
    moonbird { "up" }
    assert.are.equal(0, db:value "select count(*) from users where email is null")
    assert.are.equal(2, db:value "select pass from moonbird.backfill")
  end))

  describe("goes on", function()
    local function slow(body)
      return backfill(body .. [[, options = { min = 50, max = 50, workers = 2 }]])
    end

    it("after kill -9, as often as it comes", async(function()
      write { ["001_users.sql"] = base(6000), ["002_count.lua"] = slow(COUNT) }
      moonbird { "up", "--to", "1" }
      local kills = backfills.kill { db = db, cwd = dir, kills = 12, later = 30 }
      backfills.once(db, 6000)
      assert.is_true(kills > 2, ("only %d kills"):format(kills))
    end))

    it("after its backends are terminated", async(function()
      write { ["001_users.sql"] = base(6000), ["002_count.lua"] = slow [[table = "users", columns = { "hits" },
        transform = function(row) return { hits = row.hits + 1 } end]] }
      moonbird { "up", "--to", "1" }
      local child = helper.spawn({ "up", "-v" }, { cwd = dir, db = db })
      backfills.works(db, 0)
      local killed = 0
      local result
      while true do
        result = child:wait(60)
        if result then
          break
        end
        killed = killed + db:value "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name like 'moonbird/up/%' and datname = current_database()"
      end
      assert.are.equal(0, result.status, result.stderr)
      backfills.once(db, 6000)
      assert.is_true(killed > 1)
    end))

    it("after SIGINT, with a state that says it is paused", async(function()
      write { ["001_users.sql"] = base(6000), ["002_count.lua"] = slow(COUNT) }
      moonbird { "up", "--to", "1" }
      local child = helper.spawn({ "up" }, { cwd = dir, db = db })
      backfills.works(db, 100)
      child:kill("INT")
      local result = child:wait(10000)
      assert.are.equal(130, result.status, result.stderr)
      assert.are.equal("paused", db:value "select status from moonbird.backfill")
      assert.is_true(chunk_sum "rows_seen" < 6000)
      moonbird { "up" }
      backfills.once(db, 6000)
    end))

    it("when somebody pauses it, and ends when it is cancelled", async(function()
      write { ["001_users.sql"] = base(20000), ["002_count.lua"] = slow(COUNT) }
      moonbird { "up", "--to", "1" }
      local child = helper.spawn({ "up" }, { cwd = dir, db = db })
      backfills.works(db, 100)
      db:exec "update moonbird.backfill set want = 'pause'"
      helper.eventually("it pauses", function()
        return db:value "select status from moonbird.backfill" == "paused"
      end)
      task.sleep(50)
      local seen = chunk_sum "rows_seen"
      task.sleep(300)
      assert.are.equal(seen, chunk_sum "rows_seen")
      db:exec [[update moonbird.backfill set want = 'run', limits = '{"max": 7, "min": 7}']]
      helper.eventually("it goes on with the new limits", function()
        return db:value "select bool_or(batch = 7) from moonbird.backfill_chunk"
      end)
      db:exec "update moonbird.backfill set want = 'cancel'"
      local result = child:wait(10000)
      assert.are.equal(1, result.status, result.stderr)
      has(result.stderr, "was cancelled")
      assert.are.equal("cancelled", db:value "select status from moonbird.backfill")
      has(moonbird({ "up" }, 1).stderr, "was cancelled")
      has(moonbird({ "down" }, 1).stderr, "002_count is half applied, and stands on what is to be taken back")
      db:exec "update users set hits = 0"
      moonbird { "up", "--restart" }
      backfills.once(db, 20000)
    end))

    it("side by side with another process", async(function()
      write { ["001_users.sql"] = base(6000), ["002_count.lua"] = slow(COUNT), ["003_next.sql"] = "-- migrate:up\ncreate table next (i int);\n-- migrate:down\ndrop table next;\n" }
      moonbird { "up", "--to", "1" }
      local children = {}
      for i = 1, 3 do
        children[i] = helper.spawn({ "up" }, { cwd = dir, db = db })
      end
      for _, child in ipairs(children) do
        local result = child:wait(60000)
        assert.are.equal(0, result.status, result.stderr)
      end
      backfills.once(db, 6000)
      assert.are.equal(1, db:value "select count(*) from moonbird.journal where target = 'global' and version = 2 and event = 'apply'")
      assert.are.equal(1, db:value "select count(*) from moonbird.journal where target = 'global' and version = 3 and event = 'apply'")
    end))

    it("only with the code it began with, unless --adopt", async(function()
      local poison = [[set = "hits = hits + 1 / case when id = 500 then 0 else 1 end"]]
      write { ["001_users.sql"] = base(1000), ["002_count.lua"] = backfill([[table = "users", ]] .. poison .. ", " .. SMALL) }
      moonbird({ "up" }, 1)
      write { ["002_count.lua"] = backfill(COUNT) }
      has(moonbird({ "up" }, 6).stderr, "was changed after a part of it was done")
      assert.are.equal(499, db:value "select sum(hits) from users")
      moonbird { "up", "--adopt" }
      backfills.once(db, 1000)
    end))
  end)

  describe("whose code was changed, goes on with --adopt", function()
    --- Begins, with a row that ends it half way, and gives what was changed.
    local function begun(ddl, body)
      write { ["001_users.sql"] = ddl, ["002_count.lua"] = backfill(body) }
      moonbird({ "up" }, 1)
    end

    local function refused(body, why)
      write { ["002_count.lua"] = backfill(body) }
      local before = db:value "select sum(hits) from users"
      has(moonbird({ "up", "--adopt" }, 1).stderr, why)
      assert.are.equal(before, db:value "select sum(hits) from users")
    end

    it("only on the same table, along the same key, which it leaves alone", async(function()
      begun(base(1000), [[table = "users", set = "hits = hits + 1 / (id <> 500)::int", ]] .. SMALL)
      db:exec "create table other as select * from users; alter table other add primary key (id)"
      refused([[table = "other", set = "hits = hits + 1"]], "walks over public.other, and the backfill began on public.users")
      refused([[table = "users", key = "login", set = "hits = hits + 1"]],
        "walks along (login), and the backfill began along (id)")
      refused([[table = "users", set = "id = id + 10000, hits = hits + 1"]], "writes the key column \"id\"")
      assert.are.equal(0, db:value "select count(*) from other where hits > 1")
      write { ["002_count.lua"] = backfill [[table = "users", key = "id", columns = { "hits" },
        transform = function(row) return { hits = row.hits + 1 } end]] }
      moonbird { "up", "--adopt" }
      backfills.once(db, 1000)
    end))

    it("without a key only with a where", async(function()
      begun((base(1000):gsub("primary key", "")), [[table = "users", where = "hits = 0", set = "hits = 1 / (id <> 500)::int", ]]
        .. SMALL)
      refused(COUNT, "has no `where`")
      write { ["002_count.lua"] = backfill(COUNT .. [[, where = "hits = 0"]]) }
      moonbird { "up", "--adopt" }
      assert.are.equal(1000, db:value "select count(*) from users where hits = 1")
    end))
  end)

  describe("in the history", function()
    it("is left with --backfills skip, and newer migrations go on past it", async(function()
      write { ["001_users.sql"] = base(100), ["002_count.lua"] = backfill(COUNT),
        ["003_next.sql"] = "-- migrate:up\ncreate table next (i int);\n-- migrate:down\ndrop table next;\n" }
      local result = moonbird { "up", "--backfills", "skip" }
      has(result.stdout, "held back 002_count (backfill)")
      assert.are.same({ 1, 3 }, db:values "select version from moonbird.state where target = 'global' order by version")
      moonbird { "up", "--backfills", "skip" }
      moonbird { "up", "--backfills", "only" }
      backfills.once(db, 100)
      has(moonbird({ "up" }).stdout, "nothing to do")
    end))

    it("keeps a contract that completes it from being applied before its end", async(function()
      write { ["001_users.sql"] = base(1000), ["002_count.lua"] = backfill([[table = "users", set = "hits = 1 / (701 - id)::int", ]] .. SMALL),
        ["003_drop.sql"] = "-- phase: contract\n-- completes: 2\n-- description: drops it\n-- rationale: nobody reads it\n-- data_preservation: "
          .. "none\n-- migrate:up\nalter table users drop column email;\n-- migrate:down\nalter table users add column email text;\n" }
      moonbird({ "up" }, 1)
      local result = moonbird({ "up", "--backfills", "skip", "--allow-contract", "--allow-breaking" }, 6)
      has(result.stderr, "003_drop completes 002_count")
      has(result.stderr, "whose backfill is not finished on target \"global\", 70% done")
    end))

    it("is left by deploy unless its table is small", async(function()
      write { ["001_users.sql"] = base(11000), ["002_count.lua"] = backfill(COUNT) }
      moonbird { "up", "--to", "1" }
      has(moonbird({ "deploy" }).stdout, "held back 002_count (backfill)")
      db:exec "delete from users where id > 100; analyze users"
      moonbird { "deploy" }
      backfills.once(db, 100)
    end))

    it("is begun anew after it was taken back", async(function()
      write { ["001_users.sql"] = base(100), ["002_count.lua"] = [[return { description = "a test", backfill = { ]] .. COUNT
        .. [[ }, down = "update users set hits = 0 where id > 0" }]] }
      moonbird { "up" }
      moonbird { "down" }
      assert.are.equal(0, db:value "select sum(hits) from users")
      moonbird { "up" }
      backfills.once(db, 100)
    end))
  end)
end)
