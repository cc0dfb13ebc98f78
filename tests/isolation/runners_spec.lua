--- Several runners started at once on one database, also behind pgbouncer in transaction mode: all succeed,
--- and each migration happens exactly once.
local helper = require "tests.helper"
local pgbouncer = require "tests.pgbouncer"
local session = require "moonbird.core.session"

-- Each migration leaves a row per run in `ran`, whatever its kind.
local files = {
  ["migrations/001_ran.sql"] = [[
-- migrate:up
create table ran (version int not null, backend int not null default pg_backend_pid());
insert into ran values (1);
-- migrate:down
drop table ran;
]],
  ["migrations/002_people.sql"] = [[
-- migrate:up
create table people (id int primary key, name text, mail text);
insert into ran values (2);
-- migrate:down
drop table people;
]],
  ["migrations/003_fill.lua"] = [[
return {
  up = function(db)
    for i = 1, 50 do
      db:exec("insert into people (id, name) values ($1, $2)", i, "name " .. i)
    end
    db:exec("insert into ran values (3)")
  end,
}
]],
  ["migrations/004_copy.sql"] = [[
-- migrate:up
create table things (id int, label text);
COPY things (id, label) FROM stdin;
1	one
2	two
\.
insert into ran values (4);
-- migrate:down
drop table things;
]],
  ["migrations/005_mails.lua"] = [[
return {
  up = function(db)
    for row in db:rows("select id, name from people order by id") do
      db:exec("update people set mail = $2 where id = $1", row.id, row.name:gsub(" ", ".") .. "@example.org")
    end
    db:exec("insert into ran values (5)")
  end,
}
]],
  ["migrations/006_index.sql"] = [[
-- migrate:up transaction:false
insert into ran values (6);
create index concurrently people_mail on people (mail);
-- migrate:down transaction:false
drop index concurrently people_mail;
]],
  ["migrations/007_block.sql"] = [[
-- migrate:up
do $$ begin
  perform pg_sleep(0.05);
  insert into ran values (7);
end $$;
-- migrate:down
]],
  ["migrations/008_sections.sql"] = [[
-- migrate:up
create table first_part (i int);
-- migrate:down
drop table first_part;
-- migrate:up
create table second_part (i int);
insert into ran values (8);
-- migrate:down
drop table second_part;
]],
  ["migrations/009_string.lua"] = [[
return {
  up = "alter table people add column seen timestamptz; insert into ran values (9)",
  down = "alter table people drop column seen",
}
]],
  ["migrations/010_loose.lua"] = [[
return {
  transaction = false,
  up = function(db)
    db:exec("insert into ran values (10)")
    db:exec("update people set seen = now() where id <= 25")
    db:exec("update people set seen = now() where id > 25")
  end,
}
]],
  ["migrations/011_settings.sql"] = [[
-- migrate:up
set local search_path to pg_catalog;
create view public.mails as select mail from public.people;
insert into public.ran values (11);
-- migrate:down
drop view mails;
]],
  ["migrations/012_atomic.lua"] = [[
return {
  up = function(db)
    pcall(function()
      db:atomic(function()
        db:exec("insert into ran values (12)")
        db:exec("select 1/0")
      end)
    end)
    db:exec("insert into ran values (12)")
  end,
}
]],
}
local ALL = "1 2 3 4 5 6 7 8 9 10 11 12"

local function describe_runs(results)
  local lines = {}
  for i, result in ipairs(results) do
    lines[i] = ("runner %d: exit %s\n%s%s"):format(i, result.status or result.signal, result.stdout, result.stderr)
  end
  return table.concat(lines, "\n")
end

--- Starts `n` runners at once and waits for all.
---@param n integer
---@param options table as of helper.moonbird
---@return table[] results
local function runners(n, options)
  local children, results = {}, {}
  for i = 1, n do
    children[i] = helper.spawn({ "up" }, options)
  end
  for i, child in ipairs(children) do
    local result = child:wait(50000)
    results[i] = result or { signal = "none: it hangs", stdout = "", stderr = "" }
  end
  for _, result in ipairs(results) do
    assert.are.equal(0, result.status, describe_runs(results))
    assert.is_nil(result.stderr:find("Sanitizer", 1, true) or result.stderr:find("runtime error:", 1, true),
      result.stderr)
  end
  return results
end

--- What must be true afterwards, whoever did what.
local function exactly_once(db)
  assert.are.equal(ALL, db:value("select string_agg(version::text, ' ' order by version) from ran"))
  assert.are.equal(ALL, db:value([[select string_agg(version::text, ' ' order by version)
    from moonbird.journal where target = 'global' and event = 'apply']]))
  assert.are.equal(ALL, db:value([[select string_agg(version::text, ' ' order by version)
    from moonbird.state where target = 'global' and applies]]))
  assert.are.equal(0, db:value("select count(*) from moonbird.journal where outcome = 'failed'"))
  assert.are.equal(0, db:value("select count(*) from moonbird.verify()"))
  assert.are.equal(0, db:value("select count(*) from people where mail is null or seen is null"))
  assert.are.equal(2, db:value("select count(*) from things"))
  assert.is_true(db:value("select indisvalid from pg_index where indexrelid = 'people_mail'::regclass"))
  assert.are.equal(0, db:value("select count(*) from pg_index where not indisvalid"))
end

describe("runners at once", function()
  local dir

  setup(helper.async(function()
    dir = helper.project(files, { scope = "file" })
  end))

  for _, n in ipairs { 2, 8 } do
    it(("%d on one fresh database: each migration once, all succeed"):format(n), helper.async(function()
      local db = helper.database()
      runners(n, { db = db, cwd = dir })
      exactly_once(db)
      local before = db:value("select count(*) from moonbird.journal")
      local again = runners(2, { db = db, cwd = dir })
      assert.are.equal(before, db:value("select count(*) from moonbird.journal"), describe_runs(again))
    end))
  end

  it("4 through pgbouncer in transaction mode: the same", helper.async(function()
    local db = helper.database()
    local url, params = pgbouncer.start(db)
    runners(4, { env = { DATABASE_URL = url }, cwd = dir })
    exactly_once(db)
    -- Nothing of a run may stay on a server connection that the next client gets.
    local through = assert(session.open(params, { application_name = "moonbird-tests" }))
    local result = assert(through:query("select current_setting('search_path'), current_setting('lock_timeout'), "
      .. "current_setting('statement_timeout'), current_setting('synchronous_commit')"))
    local settings = {}
    for i = 1, 4 do
      settings[i] = result:value(1, i)
    end
    result:close()
    through:close()
    assert.are.same({ '"$user", public', "0", "0", db:value("show synchronous_commit") }, settings)
    assert.are.equal(0, db:value("select count(*) from pg_locks where locktype = 'advisory'"))
    helper.ok({ "status", "--exit-code" }, { env = { DATABASE_URL = url }, cwd = dir })
  end))
end)
