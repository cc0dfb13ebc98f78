-- Backfills on tables and by code that make trouble: NULLs in the where, triggers, generated columns, row security, rows
-- that others change between reading and writing, transforms that return nonsense, every kind of key in every mode.
-- The same on every server.
local helper = require "tests.helper"
local task = require "moonbird.core.task"
local async = helper.async

local function has(text, part)
  assert(text:find(part, 1, true), ("%q is not in:\n%s"):format(part, text))
end

describe("a backfill in trouble", function()
  local db, dir

  before_each(async(function()
    db = helper.database()
    dir = helper.project {}
  end))

  local function moonbird(args, status)
    return helper.ok(args, { cwd = dir, db = db, status = status or 0 })
  end

  --- The table is there already, whatever made it.
  local function project(ddl, body, rest)
    if ddl then
      db:exec(ddl)
    end
    helper.write(dir, { ["migrations/002_fill.lua"] = ("return { description = \"t\", irreversible = \"t\", %s\n"
      .. "backfill = { %s } }"):format(rest or "", body) })
  end

  local ROWS = [[create table users (id bigint primary key, login text, email text, hits int not null default 0);
    insert into users select i, 'User' || i from generate_series(1, %d) i; analyze users;]]
  local SMALL = [[options = { min = 50, max = 100, start = 100 }]]
  local TRANSFORM = [[table = "users", columns = { "hits" }, %s
    transform = function(row, db) %s end, ]]

  it("does not give rows another key", async(function()
    for _, set in ipairs { "hits = 1, id = id + 1", '(hits, "id") = (1, id + 1)' } do
      db:exec "drop table if exists users; drop schema if exists moonbird cascade"
      project(ROWS:format(300), ("table = 'users', set = [[%s]]"):format(set))
      has(moonbird({ "up" }, 1).stderr, '"set" writes the key column "id"')
      assert.are.equal(0, db:value "select sum(hits) from users")
    end
    project(nil, [[table = "users", set = "hits = id"]], "up = 'alter table users add idx int',")
    moonbird { "up" }
    assert.are.equal(300, db:value "select count(*) from users where hits = id")
  end))

  it("takes a where that is NULL for a no, also at the end", async(function()
    project(ROWS:format(500) .. "update users set login = null where id % 2 = 0;",
      [[table = "users", where = "login <> 'done'", set = "login = 'done', hits = hits + 1", ]] .. SMALL)
    moonbird { "up" }
    assert.are.equal(250, db:value "select count(*) from users where login = 'done' and hits = 1")
    assert.are.equal(250, db:value "select count(*) from users where login is null and hits = 0")
  end))

  describe("whose transform", function()
    --- Fails with these words, and leaves row 1 to 122 done at most.
    local function fails(body, words, status)
      project(ROWS:format(300), TRANSFORM:format("", body) .. SMALL)
      local result = moonbird({ "up" }, status or 1)
      has(result.stderr, words)
      assert.are.equal("failed", db:value "select status from moonbird.backfill")
      assert.are.equal(db:value "select coalesce(sum(rows_changed), 0)::bigint from moonbird.backfill_chunk",
        db:value "select sum(hits)::bigint from users")
    end

    it("returns no table", async(function()
      fails("if row.id == 123 then return 7 end return { hits = 1 }", "the row with id = 123")
    end))

    it("returns a value of the wrong type", async(function()
      fails("return { hits = row.id == 123 and 'many' or 1 }", "the row with id = 123")
    end))

    it("returns what no column can hold", async(function()
      fails("return { hits = row.id == 123 and function() end or 1 }", "the row with id = 123")
    end))

    it("returns a number out of range", async(function()
      fails("return { hits = row.id == 123 and 1 << 40 or 1 }", "the row with id = 123")
    end))

    it("changes the key", async(function()
      project(ROWS:format(300), TRANSFORM:format("", "return { id = row.id + 1000, hits = 1 }") .. SMALL)
      has(moonbird({ "up" }, 1).stderr, 'the transform returned the key column "id"')
      assert.are.equal(0, db:value "select sum(hits) from users")
      assert.are.equal(300, db:value "select max(id) from users")
    end))

    it("ends the transaction", async(function()
      fails("if row.id == 123 then db:exec('commit') end return { hits = 1 }", "commit")
    end))

    it("swallows a failed statement", async(function()
      fails("if row.id == 123 then pcall(db.exec, db, 'select 1/0') end return { hits = 1 }", "left its transaction in a failed state")
    end))
  end)

  it("runs the table's triggers once for each row, and heeds what they write", async(function()
    project(ROWS:format(500) .. [[create table log (id bigint);
      create function note() returns trigger language plpgsql as $$ begin insert into log values (new.id);
        new.email = 'by the trigger'; return new; end $$;
      create trigger note before update on users for each row execute function note();]],
      TRANSFORM:format("", "return { hits = row.hits + 1 }") .. SMALL)
    moonbird { "up" }
    assert.are.equal(500, db:value "select count(*) from users where hits = 1 and email = 'by the trigger'")
    assert.are.equal(500, db:value "select count(distinct id) from log")
    assert.are.equal(500, db:value "select count(*) from log")
  end))

  it("does not take rows for done that a trigger keeps as they were", async(function()
    local FIXED = "options = { min = 100, max = 100, start = 100 }"
    project(ROWS:format(500) .. [[create function keep() returns trigger language plpgsql as $$ begin
        if new.id in (123, 124) then return null; end if; return new; end $$;
      create trigger keep before update on users for each row execute function keep();]],
      TRANSFORM:format("", "return { hits = row.hits + 1 }") .. FIXED)
    local result = moonbird({ "up" }, 1)
    has(result.stderr, "2 of 100 rows of public.users that the transform returned values for were not written")
    has(result.stderr, "a trigger that returns NULL")
    assert.are.equal(100, db:value "select sum(hits)::int from users")
    project(nil, TRANSFORM:format("", "return row.id ~= 123 and row.id ~= 124 and { hits = row.hits + 1 } or nil")
      .. FIXED)
    moonbird { "up", "--adopt" }
    assert.are.equal(498, db:value "select sum(hits)::int from users")
  end))

  it("can't write a generated column, and says so", async(function()
    project([[create table users (id bigint primary key, hits int not null default 0,
      twice int generated always as (hits * 2) stored); insert into users select i from generate_series(1, 100) i;]],
      [[table = "users", columns = { "hits", "twice" }, transform = function(row) return { twice = row.hits } end]])
    has(moonbird({ "up" }, 1).stderr, "twice")
    project(nil, [[table = "users", columns = { "hits", "twice" },
      transform = function(row) return { hits = row.hits + 1 + row.twice } end]])
    moonbird { "up", "--adopt" }
    assert.are.equal(100, db:value "select count(*) from users where hits = 1 and twice = 2")
  end))

  it("writes identity keys' rows and leaves the identity alone", async(function()
    project([[create table users (id bigint generated always as identity primary key, hits int not null default 0);
      insert into users (hits) select 0 from generate_series(1, 300) i;]],
      TRANSFORM:format("", "return { hits = row.hits + 1 }") .. SMALL)
    moonbird { "up" }
    assert.are.equal(300, db:value "select count(*) from users where hits = 1")
  end))

  for name, body in pairs { ["set-based"] = [[table = "users", set = "hits = hits + 1", ]] .. SMALL,
    ["row-based"] = TRANSFORM:format("", "return { hits = row.hits + 1 }") .. SMALL } do
    it("works under row security that hides rows, on those it sees, " .. name, async(function()
      local role = "owner_" .. db.name
      db:exec(("create role %s login; grant create on database %s to %s"):format(role, db.name, role))
      helper.defer(function()
        db:exec(("reassign owned by %s to current_user; drop owned by %s; drop role %s"):format(role, role, role))
      end)
      db:exec("create schema own authorization " .. role)
      db:exec("set role " .. role)
      db:exec("set search_path = own; " .. ROWS:format(400)
        .. [[alter table users enable row level security; alter table users force row level security;
          create policy even on users using (id % 2 = 0);]])
      db:exec "reset role; reset search_path"
      project(nil, (body:gsub('"users"', '"own.users"')))
      helper.ok({ "up" }, { cwd = dir, db = { url = db.url:gsub("//[^/@]*@", "//" .. role .. "@") } })
      assert.are.equal(200, db:value "select count(*) from own.users where hits = 1 and id % 2 = 0")
      assert.are.equal(200, db:value "select count(*) from own.users where hits = 0 and id % 2 = 1")
    end))
  end

  it("meets rows that are deleted and updated by others all the time", async(function()
    for _, body in ipairs { [[table = "users", set = "hits = hits + 1", ]], TRANSFORM:format("", "return { hits = row.hits + 1 }") } do
      db:exec "drop table if exists users; drop schema if exists moonbird cascade"
      project(ROWS:format(6000), body .. [[options = { min = 20, max = 50, start = 20, workers = 2 }]])
      local child = helper.spawn({ "up" }, { cwd = dir, db = db })
      local deleted, result = 0, nil
      while not result do
        local id = math.random(6000)
        deleted = deleted + db:value(("with d as (delete from users where id between %d and %d returning 1) "
          .. "select count(*) from d"):format(id, id + 1))
        db:exec(("update users set email = coalesce(email, '') || 'x' where id between %d and %d"):format(id + 10, id + 40))
        result = child:wait(3)
      end
      assert.are.equal(0, result.status, result.stderr)
      assert.is_true(deleted > 5)
      assert.are.equal(6000 - deleted, db:value "select count(*) from users where hits = 1")
      assert.are.equal(6000 - deleted, db:value "select count(*) from users")
      assert.is_true(db:value "select count(*) from users where email is not null" > 10)
    end
  end))

  it("does not take back what another wrote between its reading and its writing", async(function()
    project(ROWS:format(40), TRANSFORM:format("", [[if row.id == 20 then db:exec("select pg_sleep(0.4)") end
      return { hits = row.hits + 1 }]]) .. [[options = { min = 40, max = 40, start = 40 }]])
    local child = helper.spawn({ "up" }, { cwd = dir, db = db })
    helper.eventually("it computes", function()
      return db:value "select count(*) from pg_stat_activity where query like '%pg_sleep(0.4)%' and pid <> pg_backend_pid()" > 0
    end)
    local other = db:connect()
    local writing = task.spawn(function()
      assert(other:query "update users set hits = hits + 100 where id = 5")
    end)
    local result = child:wait(30000)
    assert.are.equal(0, result.status, result.stderr)
    writing:join()
    assert.are.equal(101, db:value "select hits from users where id = 5")
    assert.are.equal(39, db:value "select count(*) from users where hits = 1")
  end))

  it("is refused where nothing may be written", async(function()
    project(ROWS:format(100), [[table = "users", set = "hits = hits + 1"]])
    db:exec(('alter database "%s" set default_transaction_read_only = on'):format(db.name))
    moonbird { "up" } -- a default is only a default
    db:disconnect()
    assert.are.equal(100, db:value "select count(*) from users where hits = 1")
  end))

  it("begins anew with --restart, and only then", async(function()
    project(ROWS:format(300), TRANSFORM:format("", "assert(row.id ~= 123) return { hits = row.hits + 1 }") .. SMALL)
    moonbird({ "up" }, 1)
    project(nil, TRANSFORM:format("", "return { hits = row.hits + 10 }") .. SMALL)
    has(moonbird({ "up" }, 6).stderr, "--restart to begin anew")
    moonbird { "up", "--restart" }
    assert.are.equal(122, db:value "select count(*) from users where hits = 11")
    assert.are.equal(178, db:value "select count(*) from users where hits = 10")
    assert.are.equal(300, db:value "select sum(rows_seen)::bigint from moonbird.backfill_chunk")
  end))

  it("counts up to max_errors over all its runs", async(function()
    project(ROWS:format(300) .. "alter table users add constraint bad check (id not in (10, 20, 30) or hits = 0);",
      [[table = "users", set = "hits = hits + 1", options = { max_errors = 2, min = 50, max = 100 }]])
    has(moonbird({ "up" }, 1).stderr, "the row with id = 30")
    has(moonbird({ "up" }, 1).stderr, "the row with id = 30")
    assert.are.equal(2, db:value "select count(*) from moonbird.backfill_error")
    db:exec "alter table users drop constraint bad"
    moonbird { "up" }
    assert.are.equal(298, db:value "select count(*) from users where hits = 1")
    has(moonbird({ "backfill", "retry-errors", "2" }).stdout, "2 mended")
    assert.are.equal(300, db:value "select count(*) from users where hits = 1")
  end))

  it("keeps every number of a document, and writes none that JSON can't hold", async(function()
    project([[create table docs (id int primary key, doc jsonb);
      insert into docs select i, jsonb_build_object('id', 9007199254740993 + i) from generate_series(1, 300) i;]],
      [[table = "docs", columns = { "doc" }, transform = function(row, db)
        local doc = db.json.decode(row.doc)
        doc.seen = row.id == 250 and "caf\xe9" or true
        return { doc = doc }
      end, ]] .. SMALL)
    has(moonbird({ "up" }, 1).stderr, "error: migrations/002_fill.lua: the row with id = 250: a string can't be written "
      .. "as JSON: it is not UTF-8, or has a NUL byte")
    assert.are.equal(249, db:value [[select count(*) from docs
      where (doc->>'id')::bigint = 9007199254740993 + id and doc ? 'seen']])
  end))

  describe("where text means something else by default", function()
    before_each(async(function()
      for name, value in pairs { datestyle = "SQL, DMY", timezone = "Asia/Kolkata", extra_float_digits = "-3",
        bytea_output = "escape", intervalstyle = "sql_standard" } do
        db:exec(("alter database \"%s\" set %s = '%s'"):format(db.name, name, value))
      end
      db:disconnect()
    end))

    for _, body in ipairs { [[set = "v = v + 1", ]],
      [[columns = { "v", "at", "f", "b", "i" }, transform = function(row)
        return { v = row.v + 1, at = row.at, f = row.f, b = row.b, i = row.i } end, ]] } do
      it("takes every row by keys that are times and floats, and changes no other value: " .. body:match "^%a+",
        async(function()
          project([[create table ts (k1 timestamptz, k2 float8, v int not null, at timestamptz, f float8, b bytea,
              i interval, was text, primary key (k1, k2));
            insert into ts select '2024-05-06 07:08:09+00'::timestamptz + i * interval '1 hour 1 microsecond', 1.0 / i, 0,
              '2024-05-06 07:08:09.123456+00', 1.1234567890123457 + i, '\x005cff', '-1 day 02:03:04' from generate_series(1, 500) i;
            update ts set was = md5((extract(epoch from k1), k2 * 1e9, extract(epoch from at), f * 1e9, b,
              extract(epoch from i))::text)]], "table = 'ts', " .. body .. SMALL)
          moonbird { "up" }
          assert.are.equal(500, db:value [[select count(*) from ts where v = 1 and was = md5((extract(epoch from k1),
            k2 * 1e9, extract(epoch from at), f * 1e9, b, extract(epoch from i))::text)]])
        end))
    end
  end)

  describe("whose last transaction", function()
    --- All rows done; what the state's table says to "done" is the database's.
    local function when_done(body)
      project(ROWS:format(300), "table = 'users', set = 'hits = hits + 1', " .. SMALL)
      moonbird { "up", "--backfills", "skip" }
      db:exec(([[create sequence commits;
        create function at_commit() returns trigger language plpgsql as $$ begin %s return null; end $$;
        create constraint trigger at_commit after update on moonbird.backfill deferrable initially deferred
          for each row when (new.status = 'done') execute function at_commit()]]):format(body))
    end

    local function applied()
      return db:value "select count(*) from moonbird.journal where target = 'global' and event = 'apply' and version = 2"
    end

    it("is refused by the database ends, says why, and goes on when that is mended", async(function()
      when_done "raise exception 'not today';"
      local result = moonbird({ "up" }, 1)
      has(result.stderr, "not today (P0001)")
      assert.are.equal("failed", db:value "select status from moonbird.backfill")
      assert.are.equal(0, applied())
      db:exec "drop trigger at_commit on moonbird.backfill"
      moonbird { "up" }
      assert.are.equal(300, db:value "select count(*) from users where hits = 1")
    end))

    it("loses its connection is done again", async(function()
      when_done "if nextval('commits') = 1 then perform pg_terminate_backend(pg_backend_pid()); end if;"
      moonbird { "up" }
      assert.are.equal(2, db:value "select last_value from commits")
      assert.are.equal(300, db:value "select count(*) from users where hits = 1")
      assert.are.equal(1, applied())
      assert.are.equal(0, db:value "select count(*) from moonbird.verify()")
    end))
  end)

  describe("along every kind of key, in every mode:", function()
    local KEYS = {
      bigint = { "id bigint primary key", "i" },
      ["negative numbers and holes"] = { "id numeric primary key", "(i - 150) * 1000000000000.5" },
      uuid = { "id uuid primary key", "md5(i::text)::uuid" },
      ["text in another collation"] = { "id text collate \"und-x-icu\" primary key",
        "case i % 3 when 0 then 'ä' when 1 then 'Z' else '' end || i || case i % 5 when 0 then '\"' when 1 then '\\' else '' end" },
      ["dates"] = { "id date primary key", "date '0044-03-15 BC' + i * 1000" },
      bytes = { "id bytea primary key", "decode(md5(i::text), 'hex')", "db:bytea(value)" },
    }
    local MODES = {
      [[set = "hits = hits + 1", ]],
      [[columns = { "hits" }, transform = function(row) return { hits = row.hits + 1 } end, ]],
      [[batch = function(db, lo, hi)
        return db:exec("update users set hits = hits + 1 where id >= $1 and id <= $2", bound(db, lo), bound(db, hi)) end, ]],
    }
    for name, key in pairs(KEYS) do
      it(name, async(function()
        for _, mode in ipairs(MODES) do
          db:exec "drop table if exists users; drop schema if exists moonbird cascade"
          mode = mode:gsub("bound(%b())", function(args)
            return (key[3] or "value"):gsub("value", args:match(", (%l+)"))
          end)
          project(("create table users (%s, hits int not null default 0); insert into users select %s, 0 "
            .. "from generate_series(1, 300) i; analyze users;"):format(key[1], key[2]), "table = 'users', " .. mode
            .. [[options = { min = 7, max = 13, start = 7, workers = 2 }]])
          moonbird { "up" }
          assert.are.equal(300, db:value "select count(*) from users where hits = 1", mode)
        end
      end))
    end
  end)
end)
