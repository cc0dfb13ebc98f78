-- moonbird ci: what it proves, what it finds, and that it keeps its hands off what is in use.
-- The same on every server.
local fs = require "moonbird.core.fs"
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local repository = require "tests.git"
local texts = require "tests.texts"
local async = helper.async
local has, lacks = texts.has, texts.lacks

local HEAD = [[
-- description: %s, so that the tests have something to prove.
-- phase: %s
-- scope: global
-- compatibility: %s
%s
-- migrate:up%s
%s
]]

--- A migration in SQL whose head is complete.
local function sql(name, up, down, options)
  options = options or {}
  local contract = options.phase == "contract"
  local text = HEAD:format("It makes " .. name, options.phase or "expand",
    options.compatibility or contract and "contract_breaking" or "backward_compatible", options.head or "",
    options.alone and " transaction:false" or "", up)
  return text .. (down and "-- migrate:down" .. (options.alone and " transaction:false" or "") .. "\n" .. down .. "\n" or "")
end

--- A migration in Lua.
local function lua(name, up, down)
  return ([[
return {
  description = "It makes %s, so that the tests have something to prove.",
  phase = "expand",
  scope = "global",
  compatibility = "backward_compatible",
  up = function(db)
    %s
  end,
  down = function(db)
    %s
  end,
}
]]):format(name, up, down)
end

local USERS = sql("users", "create table users (id bigint generated always as identity primary key, name text not null);",
  "drop table users;")

describe("moonbird ci", function()
  local db

  before_each(async(function()
    db = helper.database()
  end))

  local function project(migrations, others)
    local files = others or {}
    for name, text in pairs(migrations) do
      files["migrations/" .. name] = text
    end
    return helper.project(files)
  end

  local function ci(dir, status, args, options)
    local all = { cwd = dir, status = status, db = db }
    for k, v in pairs(options or {}) do
      all[k] = v
    end
    return helper.ok({ "ci", table.unpack(args or {}) }, all)
  end

  --- The stages of a run by name, and the whole answer.
  local function stages(dir, status, args, options)
    local answer = json.decode(ci(dir, status, { "--json", table.unpack(args or {}) }, options).stdout)
    local by_name = {}
    for _, stage in ipairs(answer.stages) do
      by_name[stage.name] = stage
    end
    return by_name, answer
  end

  it("proves a good project: applied, taken back, applied again", async(function()
    local dir = project {
      ["20250101000000_users.sql"] = USERS,
      ["20250102000000_email.lua"] = lua("e-mail", [[db:exec "alter table users add column email text"]],
        [[db:exec "alter table users drop column email"]]),
      ["20250103000000_index.sql"] = sql("an index", "create index concurrently users_email on users (email);",
        "drop index concurrently users_email;", { alone = true }),
      ["20250104000000_temporary.sql"] = sql("names", "create temporary table names (name text);\ncreate view people as select id from users;",
        "drop view people;"),
    }
    local result = ci(dir, 0)
    has(result.stdout, "ci: 4 migrations checked, applied, taken back and applied again in ")
    assert.is_truthy(result.stdout:match("ci: [^\n]*\n$"))
    has(result.stdout, "not rehearsed, without a transaction: 20250103000000_index")
    assert.are.equal(4, db:value "select count(*) from moonbird.state where target = 'global' and applies")
    assert.are.equal(12, db:value "select count(*) from moonbird.journal where target = 'global' and event in ('apply', 'revert')")
  end))

  it("runs on a server of its own, whatever DATABASE_URL says", async(function()
    local dir = project { ["20250101000000_users.sql"] = USERS }
    local own = db
    db = nil
    local by_name, answer = stages(dir, 0, nil, { env = { DATABASE_URL = own.url } })
    assert.is_true(answer.ok)
    assert.are.equal(1, by_name.undo.undone)
    assert.are.same({}, own:values "select relname::text from pg_class where relnamespace = 'public'::regnamespace")
    assert.are.equal(0, own:value "select count(*) from pg_namespace where nspname = 'moonbird'")
    assert.is_nil(fs.stat(dir .. "/.moonbird"))
  end))

  it("gives a stranger's SQL no way to the machine, unless it is told to trust it", async(function()
    local hosts = "create table read_here (line text);\n%s"
    for name, statement in pairs { program = "copy read_here from program 'id';", file = "copy read_here from '/etc/hostname';",
      role = "create role mighty superuser;", read = "insert into read_here select pg_read_file('/etc/hostname');" } do
      local dir = project { ["001_" .. name .. ".sql"] = sql(name, hosts:format(statement), "drop table read_here;") }
      local result = helper.moonbird({ "ci", "--no-undo" }, { cwd = dir })
      assert.are.equal(1, result.status, name)
      has(result.stderr .. result.stdout, "42501")
    end
    local trusted = project { ["001_role.sql"] = sql("role", "create role mighty superuser;", "drop role mighty;") }
    has(helper.moonbird({ "ci", "--superuser" }, { cwd = trusted }).stdout, "1 migration applied")
  end))

  it("tells what it did as data", async(function()
    local dir = project { ["20250101000000_users.sql"] = USERS }
    local by_name, answer = stages(dir, 0, { "--artifact", "out/ci.json", "--junit", "out/junit.xml" })
    local names = {}
    for i, stage in ipairs(answer.stages) do
      names[i] = stage.name
      assert.is_true(stage.ok, stage.name)
      assert.are.equal("integer", math.type(stage.duration_ms))
      assert.are.same({}, stage.problems)
    end
    assert.are.same({ "policy", "apply", "undo", "second apply", "status" }, names)
    assert.are.equal(1, by_name.apply.applied)
    assert.are.equal(1, by_name.apply.rehearsed)
    assert.are.equal("migrations/20250101000000_users.sql", by_name.apply.steps[1].file)
    assert.is_true(by_name.status.chain)
    assert.are.equal(1, answer.policy.migrations)
    local artifact = json.decode(assert(fs.read(dir .. "/out/ci.json")))
    assert.is_true(artifact.ok)
    assert.are.equal(5, #artifact.result.stages)
    has(assert(fs.read(dir .. "/out/junit.xml")), "<testsuites")
  end))

  it("stops applying at a migration that fails, and says which statement", async(function()
    local dir = project {
      ["20250101000000_users.sql"] = USERS,
      ["20250102000000_wrong.sql"] = sql("an error", "alter table users add column age missing_type;", "alter table users drop column age;"),
      ["20250103000000_never.sql"] = sql("nothing", "create table never (i int primary key);", "drop table never;"),
    }
    local result = ci(dir, 1)
    has(result.stdout, "20250102000000_wrong: failed in its dry run")
    has(result.stdout, "migrations/20250102000000_wrong.sql:7:")
    has(result.stdout, "missing_type")
    has(result.stdout, "1 not tried")
    has(result.stdout, "skipped: not everything is applied")
    has(result.stderr, "not proved: 1 problem in apply")
    lacks(result.stdout, "ci: ")
    db:drop()
    db = helper.database()
    local by_name, answer = stages(dir, 1, { "--artifact", "ci.json", "--junit", "junit.xml" })
    assert.is_false(answer.ok)
    assert.is_false(by_name.apply.ok)
    assert.are.equal("42704", by_name.apply.problems[1].error.sqlstate)
    assert.are.equal("20250102000000_wrong", by_name.apply.problems[1].migration)
    assert.are.equal("migration", answer.error.code)
    assert.is_false(json.decode(assert(fs.read(dir .. "/ci.json"))).ok)
    has(assert(fs.read(dir .. "/junit.xml")), "not proved")
  end))

  it("finds a migration that fails only when it is applied without a transaction", async(function()
    local dir = project {
      ["20250101000000_users.sql"] = USERS,
      ["20250102000000_index.sql"] = sql("an index", "create index concurrently users_x on users (missing);",
        "drop index concurrently users_x;", { alone = true }),
    }
    local by_name = stages(dir, 1)
    assert.are.equal("failed", by_name.apply.problems[1].message)
    assert.are.same({ "20250102000000_index" }, by_name.apply.not_rehearsed)
    assert.are.equal(1, by_name.undo.undone)
  end))

  it("names what a down leaves behind or takes too much of, and goes on", async(function()
    local dir = project {
      ["20250101000000_users.sql"] = USERS,
      ["20250102000000_email.sql"] = sql("e-mail", "alter table users add column email text not null default '';\n"
        .. "create function greet() returns text language sql as $$ select 'hello' $$;",
        "alter table users drop column email;\nalter table users alter column name drop not null;"),
      ["20250103000000_orders.sql"] = sql("orders", "create table orders (id int primary key);", "drop table orders;"),
    }
    local result = ci(dir, 1)
    has(result.stdout, "20250102000000_email: its down does not restore what was before")
    has(result.stdout, "function public.greet(): it was not there before")
    has(result.stdout, 'column public.users.name: it was "text not null", it is "text"')
    has(result.stdout, "20250102000000_email: it can't be applied again after its down")
    has(result.stdout, "1 not tried")
    has(result.stderr, "not proved: 2 problems in undo")
  end))

  it("goes on when a down only leaves something small, and tells what differs", async(function()
    local dir = project {
      ["20250101000000_users.sql"] = USERS,
      ["20250102000000_comment.sql"] = sql("a comment", "comment on table users is 'people';\ngrant select on users to public;",
        "revoke select on users from public;"),
      ["20250103000000_orders.sql"] = sql("orders", "create table orders (id int primary key);", "drop table orders;"),
    }
    local by_name = stages(dir, 1)
    assert.is_false(by_name.undo.ok)
    assert.are.equal(1, #by_name.undo.problems)
    assert.are.same({ { key = "comment on table public.users", after = "people" } }, by_name.undo.problems[1].differences)
    assert.are.equal(2, by_name.undo.undone)
    assert.is_true(by_name.apply.ok)
    assert.is_true(by_name.status.ok)
    assert.are.equal(3, by_name.status.applied)
  end))

  it("names ten objects at most", async(function()
    local many = {}
    for i = 1, 14 do
      many[i] = ("create table t%02d ();"):format(i)
    end
    local dir = project { ["20250101000000_many.sql"] = sql("tables", table.concat(many, "\n"):gsub("create table", "create table if not exists"), "select 1;") }
    local by_name = stages(dir, 1)
    local problem = by_name.undo.problems[1]
    assert.are.equal(10, #problem.differences)
    assert.are.equal(28 - 10, problem.more) -- the table and its owner
    assert.are.equal("grants on public.t01", problem.differences[1].key)
  end))

  it("finds an up that makes something else the second time", async(function()
    local dir = project { ["20250101000000_a.sql"] = sql("a table", "create table if not exists a (i int primary key);\n"
      .. "do $$ begin if exists (select from pg_class where relname = 'seen') then alter table a add column j int; end if; end $$;\n"
      .. "create table if not exists seen (i int primary key);", "drop table a;") }
    local by_name = stages(dir, 1)
    local messages = {}
    for i, problem in ipairs(by_name.undo.problems) do
      messages[i] = problem.message
    end
    assert.are.same({ "its down does not restore what was before", "applied again it makes something else than the first time" }, messages)
    assert.are.equal("column public.a.j", by_name.undo.problems[2].differences[1].key)
  end))

  it("tells a down that fails, and goes on with the next migration", async(function()
    local dir = project {
      ["20250101000000_users.sql"] = USERS,
      ["20250102000000_wrong.sql"] = sql("a table", "create table b (i int primary key);", "drop table no_such_table;"),
      ["20250103000000_orders.sql"] = sql("orders", "create table orders (id int primary key);", "drop table orders;"),
    }
    local by_name = stages(dir, 1)
    assert.are.equal("its down failed", by_name.undo.problems[1].message)
    assert.are.equal("42P01", by_name.undo.problems[1].error.sqlstate)
    assert.are.equal(2, by_name.undo.undone)
    assert.are.equal(3, by_name.status.applied)
  end))

  it("counts what has no way back, and can leave the way back out", async(function()
    local dir = project {
      ["20250101000000_users.sql"] = USERS,
      ["20250102000000_copy.sql"] = sql("a copy", "create table copies (id int primary key);", "",
        { head = "-- irreversible: the old copies are not kept\n" }),
    }
    local result = ci(dir, 0)
    has(result.stdout, "1 without a way back: 20250102000000_copy")
    has(result.stdout, "ci: 2 migrations checked and applied, 1 taken back and applied again in ")
    db:drop()
    db = helper.database()
    result = ci(dir, 0, { "--no-undo" })
    has(result.stdout, "skipped: --no-undo")
    has(result.stdout, "ci: 2 migrations checked and applied, not taken back in ")
    assert.are.equal(0, db:value "select count(*) from moonbird.journal where event = 'revert'")
  end))

  it("sees a journal that was tampered with, and a second run that is not idle", async(function()
    local dir = project {
      ["20250101000000_a.sql"] = sql("a table", "create table if not exists a (i int primary key);", "drop table a;"),
      ["20250101120000_users.sql"] = USERS,
      ["20250102000000_b.sql"] = sql("a mess", "alter table moonbird.journal disable trigger user;\n"
        .. "delete from moonbird.journal where version = 20250101000000;\nalter table moonbird.journal enable trigger user;", "select 1;"),
    }
    local by_name = stages(dir, 1, { "--no-undo" })
    assert.are.equal("was applied once more", by_name["second apply"].problems[1].message)
    assert.are.equal("20250101000000_a", by_name["second apply"].problems[1].migration)
    assert.is_false(by_name.status.ok)
    assert.is_false(by_name.status.chain)
    assert.is_true(by_name.apply.ok)
  end))

  it("holds the rules against what a Lua function sent", async(function()
    local dir = project {
      ["20250101000000_users.sql"] = USERS,
      ["20250102000000_index.lua"] = lua("an index", [[db:exec "create index users_name on users (name)"]],
        [[db:exec "drop index users_name"]]),
    }
    lacks(helper.ok({ "check" }, { cwd = dir }).stdout, "index-concurrently")
    local by_name, answer = stages(dir, 6)
    assert.is_false(by_name.policy.ok)
    assert.is_true(by_name.policy.recorded)
    assert.are.equal("policy", answer.error.code)
    local found
    for _, finding in ipairs(answer.policy.findings) do
      found = finding.rule == "index-concurrently" and finding or found
    end
    assert.are.equal(7, found.line)
    assert.are.equal("migrations/20250102000000_index.lua", found.file)
    assert.are.same({}, answer.policy.opaque)
    assert.is_true(by_name.undo.ok)
  end))

  it("ends with 6 when only the policy failed, with the rest proved", async(function()
    local dir = project {
      ["20250101000000_users.sql"] = USERS,
      ["20250102000000_index.sql"] = sql("an index", "create index users_name on users (name);", "drop index users_name;"),
    }
    local result = ci(dir, 6)
    has(result.stdout, "✗ policy")
    has(result.stdout, "error[index-concurrently]")
    has(result.stdout, "✓ undo")
    has(result.stdout, "✓ status")
    has(result.stderr, "1 policy error in 1 migration")
  end))

  it("refuses a database that is in use, and leaves it as it is", async(function()
    local dir = project { ["20250101000000_users.sql"] = USERS }
    db:exec "create table precious (i int)"
    local before = db:query "select oid::bigint, relname::text from pg_class where oid >= 16384 order by 1"
    local result = ci(dir, 2)
    has(result.stderr, "the database is not empty: it has table public.precious")
    assert.are.same(before, db:query "select oid::bigint, relname::text from pg_class where oid >= 16384 order by 1")
    assert.are.equal(0, db:value "select count(*) from pg_namespace where nspname = 'moonbird'")

    db:drop()
    db = helper.database()
    helper.ok({ "up" }, { cwd = dir, db = db })
    local head = db:value "select count(*) from moonbird.journal"
    has(ci(dir, 2).stderr, "the database has a journal of moonbird")
    assert.are.equal(head, db:value "select count(*) from moonbird.journal")
  end))

  it("applies what the base has first, then what is new: expand before contract", async(function()
    local dir = project {
      ["20250101000000_users.sql"] = USERS,
      ["20250105000000_orders.sql"] = sql("orders", "create table orders (id bigint primary key);", "drop table orders;"),
    }
    local function git(...)
      repository.run(dir, ...)
    end
    git("init", "-q", "-b", "main")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    git("checkout", "-q", "-b", "topic")
    helper.write(dir, {
      ["migrations/20250106000000_drop_name.sql"] = sql("room", "alter table users drop column name;",
        "alter table users add column name text not null default '';",
        { phase = "contract", head = "-- completes: 20250107000000\n-- rationale: the full name replaced it a release ago\n-- data_preservation: full_name has all of it\n" }),
      ["migrations/20250107000000_full_name.sql"] = sql("a full name", "alter table users add column full_name text;",
        "alter table users drop column full_name;"),
    })
    local function order(args)
      local result = helper.moonbird({ "ci", "--json", table.unpack(args) }, { cwd = dir, db = db })
      local by_name, ids = {}, {}
      for _, stage in ipairs(json.decode(result.stdout).stages) do
        by_name[stage.name] = stage
      end
      for i, step in ipairs(by_name.apply.steps) do
        ids[i] = step.id:match("_(.*)")
      end
      db:drop()
      db = helper.database()
      return ids, by_name
    end
    local ids, by_name = order { "--base", "main" }
    assert.are.same({ "users", "orders", "full_name", "drop_name" }, ids)
    assert.are.equal(1, by_name.apply.contract)
    assert.are.equal(3, by_name.apply.rehearsed)
    ids = order {}
    assert.are.same({ "users", "orders", "drop_name", "full_name" }, ids)
    has(helper.ok({ "ci", "--base", "no-such-branch" }, { cwd = dir, db = db, status = 2 }).stderr, "no-such-branch")
  end))

  it("leaves protected environments' own rules to their own database", async(function()
    local dir = project({ ["20250101000000_users.sql"] = USERS }, {
      ["moonbird.lua"] = [[return { environments = { production = { url = env("NO_SUCH_VARIABLE"), protected = true } } }]],
    })
    local result = helper.ok({ "-e", "production", "ci" }, { cwd = dir, db = db })
    has(result.stdout, "ci: 1 migration checked")
  end))

  it("has little to say where there are no migrations, or with --quiet", async(function()
    local dir = project {}
    has(ci(dir, 0).stdout, "ci: 0 migrations checked, applied, taken back and applied again in ")
    db:drop()
    db = helper.database()
    helper.write(dir, { ["migrations/20250101000000_users.sql"] = USERS })
    assert.are.equal("", helper.ok({ "-q", "ci" }, { cwd = dir, db = db }).stdout)
  end))

  it("tells GitHub where it failed", async(function()
    local dir = project {
      ["20250101000000_users.sql"] = USERS,
      ["20250102000000_wrong.sql"] = sql("a table", "create table b (i int primary key);",
        "drop table no_such_table;"),
      ["20250103000000_says.sql"] = sql("a speech", "create table c (i int primary key);",
        "do $$ begin raise 'no' using detail = E'so\\n::warning::taken'; end $$;"),
    }
    local summary = dir .. "/summary.md"
    local result = ci(dir, 1, { "--github", "--sarif", "ci.sarif" }, { env = { GITHUB_STEP_SUMMARY = summary } })
    has(result.stdout, "::error")
    has(assert(fs.read(summary)), "2 problems in undo")
    has(result.stdout, "| ::warning::taken")
    has(result.stderr, "migrations/20250102000000_wrong.sql: its down failed: table \"no_such_table\" does not exist")
    has(assert(fs.read(dir .. "/ci.sarif")), "its down failed")
  end))

  it("can be bounded in time", async(function()
    local dir = project { ["20250101000000_slow.sql"] = sql("a pause", "select pg_sleep(30);", "select 1;") }
    local result = ci(dir, 1, { "--timeout", "700ms" }, { timeout = 20 })
    has(result.stderr, "time allowed")
  end))
end)
