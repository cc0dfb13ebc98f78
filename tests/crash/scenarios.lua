--- What the crash tests kill: small projects and the command that runs on them. Each kind of step is in one
-- of them, so that every failpoint is passed by something; the tests list the points by themselves.
local tenants = require "tests.tenants"

local M = {}

local pipelined = {
  ["migrations/001_accounts.sql"] = [[
-- migrate:up
create table accounts (id bigint primary key, name text not null, balance numeric not null default 0);
insert into accounts select i, 'account ' || i, i * 1.5 from generate_series(1, 20) i;
create index accounts_name on accounts (name);
-- migrate:down
drop table accounts;
]],
  ["migrations/002_owner.sql"] = [[
-- migrate:up
alter table accounts add column owner text;
update accounts set owner = 'owner of ' || name;
-- migrate:down
alter table accounts drop column owner;
]],
}

local awaited = {
  ["migrations/001_things.sql"] = [[
-- migrate:up
set local work_mem = '8MB';
create table things (id int primary key, kind text);
do $$ begin for i in 1 .. 10 loop insert into things values (i, 'kind ' || i); end loop; end $$;
copy things (id, kind) from stdin;
100	copied
101	copied too
\.
-- migrate:down
do $$ begin drop table things; end $$;
]],
  ["migrations/002_path.sql"] = [[
-- migrate:up
create schema aside;
set search_path = aside;
create table here (n int);
insert into here values (1);
-- migrate:down
set local search_path = aside;
drop table here;
drop schema aside;
]],
}

local lua = {
  ["migrations/001_people.lua"] = [[
return {
  up = function(db)
    db:exec("create table people (id int primary key, name text, initial text)")
    db:copy_in("copy people (id, name) from stdin", "1\tAda\n2\tGrace\n3\tEdsger\n")
    for row in db:rows("select id, name from people order by id") do
      db:exec("update people set initial = $1 where id = $2", row.name:sub(1, 1), row.id)
    end
    pcall(db.atomic, db, function() db:exec("insert into people values (1, 'twice')") end)
  end,
  down = function(db)
    db:exec("delete from people where id = $1", 1)
    db:exec("drop table people")
  end,
}
]],
  ["migrations/002_strings.lua"] = [[
return {
  up = "create table strings (s text); insert into strings values ('a;b');",
  down = "drop table strings",
}
]],
}

-- The table that the steps without a transaction work on.
local BASE = [[
-- migrate:up
create table items (id int primary key, a int, b text);
insert into items select i, i % 7, 'item ' || i from generate_series(1, 200) i;
create table log (line text);
-- migrate:down
drop table items, log;
]]

local block = {
  ["migrations/001_base.sql"] = BASE,
  ["migrations/002_block.sql"] = [[
-- migrate:up transaction:false
insert into log values ('block one');
set local lock_timeout = '5s';
lock table items in share mode;
alter table items add column c int default 3;
insert into log values ('block two');
-- migrate:down transaction:false
delete from log where line like 'block %';
alter table items drop column c;
]],
}

local concurrently = {
  ["migrations/001_base.sql"] = BASE,
  ["migrations/002_indexes.sql"] = [[
-- migrate:up transaction:false
create index concurrently items_a on items (a);
insert into log values ('between');
create unique index concurrently "Items B" on public.items (b, id);
-- migrate:down transaction:false
drop index concurrently items_a;
delete from log;
drop index concurrently "Items B";
]],
}

local own_transactions = {
  ["migrations/001_base.sql"] = BASE,
  ["migrations/002_twice.sql"] = [[
-- migrate:up transaction:false
begin;
insert into log values ('first');
alter table items add column c int;
commit;
begin;
insert into log values ('second');
update items set c = a + 1;
commit;
insert into log values ('third');
-- migrate:down transaction:false
begin;
delete from log where line = 'third';
commit;
begin;
delete from log;
alter table items drop column c;
commit;
]],
}

local lua_outside = {
  ["migrations/001_base.sql"] = BASE,
  ["migrations/002_outside.lua"] = [[
return {
  transaction = false,
  up = function(db)
    db:exec("alter table items add column c int")
    for first = 1, 200, 50 do
      db:atomic(function()
        db:exec("update items set c = a * 2 where id between $1 and $2", first, first + 49)
        db:exec("insert into log values ($1)", "batch " .. first)
      end)
    end
    if db:value("select count(*) from items where c is null") == 0 then
      db:exec("create index concurrently items_c on items (c)")
    end
    db:exec("insert into log values ('end')")
  end,
  down = function(db)
    db:exec("drop index concurrently items_c")
    db:atomic(function()
      db:exec("delete from log")
      db:exec("alter table items drop column c")
    end)
  end,
}
]],
}

local maintenance = {
  ["migrations/001_base.sql"] = [[
-- migrate:up
create table items (id int primary key, a int);
insert into items select i, i % 7 from generate_series(1, 200) i;
create index items_a on items (a);
create table parts (k int) partition by range (k);
create table parts_1 partition of parts for values from (1) to (10);
create table parts_2 partition of parts for values from (10) to (20);
insert into parts select generate_series(1, 19);
-- migrate:down
drop table items, parts;
]],
  ["migrations/002_maintain.sql"] = [[
-- migrate:up transaction:false
vacuum analyze items;
reindex index concurrently items_a;
alter table parts detach partition parts_2 concurrently;
-- moonbird:allow expand-breaking until=2999-12-31 reason="nobody reads the partition that was just detached"
drop table parts_2;
-- migrate:down transaction:false
create table parts_2 partition of parts for values from (10) to (20);
]],
}

local sections = {
  ["migrations/001_base.sql"] = BASE,
  ["migrations/002_sections.sql"] = [[
-- migrate:up
create table first (n int);
insert into first values (1);
-- migrate:down
drop table first;
-- migrate:up
create table second (n int);
insert into second select n + 1 from first;
-- migrate:down
drop table second;
]],
  ["migrations/003_mixed.sql"] = [[
-- migrate:up
create table third (n int);
do $$ begin insert into third select generate_series(1, 50); end $$;
-- migrate:down
drop table third;
-- migrate:up transaction:false
create index concurrently third_n on third (n);
-- migrate:down transaction:false
drop index concurrently third_n;
-- migrate:up
insert into third values (1000);
-- migrate:down
delete from third where n = 1000;
]],
}

-- A down of 003_mixed runs its sections from top to bottom, so it cannot work; its file is for `up`.

local function merge(...)
  local files, number = {}, 0
  for _, set in ipairs({ ... }) do
    local names = {}
    for name in pairs(set) do
      names[#names + 1] = name
    end
    table.sort(names)
    for _, name in ipairs(names) do
      number = number + 1
      files[name:gsub("%d+_", ("%03d_"):format(number), 1)] = set[name]
    end
  end
  return files
end

local everything = merge(pipelined, lua, concurrently, {
  ["migrations/001_last.sql"] = "-- migrate:up\ncreate table last (n int);\n-- migrate:down\ndrop table last;\n",
})

---@class moonbird.scenario
---@field name string
---@field files table<string, string>
---@field before string[][] command lines that prepare the database
---@field command string[] what is killed, and run again

local function up(name, files, before)
  return { name = name, files = files, before = before or { { "up", "--to", "1" } }, command = { "up" } }
end

local function down(name, files, to)
  return { name = "revert of " .. name, files = files, before = { { "up" } },
    command = { "down", "--to", tostring(to) } }
end

-- `--to 1` leaves the first migration, which most only need as their ground.
---@type moonbird.scenario[]
M.list = {
  up("the first run on a database", {
    ["migrations/001_one.sql"] = "-- migrate:up\ncreate table one (n int);\n-- migrate:down\ndrop table one;\n",
  }, {}),
  up("pipelined SQL", pipelined, {}),
  down("pipelined SQL", pipelined, 0),
  up("awaited SQL", awaited, {}),
  down("awaited SQL", awaited, 0),
  up("Lua", lua, {}),
  down("Lua", lua, 0),
  up("a block without a transaction", block),
  down("a block without a transaction", block, 1),
  up("two indexes CONCURRENTLY", concurrently),
  down("two indexes CONCURRENTLY", concurrently, 1),
  up("a block with two transactions of its own", own_transactions),
  down("a block with two transactions of its own", own_transactions, 1),
  up("Lua without a transaction", lua_outside),
  down("Lua without a transaction", lua_outside, 1),
  up("VACUUM, REINDEX and DETACH PARTITION CONCURRENTLY", maintenance),
  down("VACUUM, REINDEX and DETACH PARTITION CONCURRENTLY", maintenance, 1),
  up("several sections in one file", sections),
  up("many kinds in one run", everything, {}),
  down("many kinds in one run", everything, 0),
}

local backfill = {
  ["migrations/001_rows.sql"] = "-- migrate:up\ncreate table rows (id bigint primary key, n int not null default 0);\n"
    .. "insert into rows select i from generate_series(1, 900) i;\nanalyze rows;\n-- migrate:down\ndrop table rows;\n",
  ["migrations/002_count.lua"] = [[return { description = "a test", irreversible = "a test",
    up = "alter table rows add column u int",
    backfill = { table = "rows", set = "n = n + 1", options = { min = 300, max = 300 } } }]],
  ["migrations/003_next.sql"] = "-- migrate:up\ncreate table next (n int);\n-- migrate:down\ndrop table next;\n",
}

-- The tenants are schemas that the first migration makes.
local of_tenants = {
  ["moonbird.lua"] = tenants.config(),
  ["migrations/001_tenants.sql"] = tenants.sql("global",
    "create schema t_001;\ncreate schema t_002;\ncreate schema t_003;"),
  ["migrations/002_items.sql"] = tenants.sql("tenant",
    "create table items (id int primary key, n int not null default 0);\n"
    .. "insert into items select i from generate_series(1, 60) i;", { down = "drop table items;" }),
  ["migrations/003_lua.lua"] = tenants.lua("tenant", [[
    for _, name in ipairs { "a", "b" } do
      db:exec("alter table items add column " .. name .. " text")
    end]]),
  ["migrations/004_index.sql"] = tenants.sql("tenant", "create index concurrently items_n on items (n);",
    { alone = true, down = "drop index concurrently items_n;" }),
  ["migrations/005_last.sql"] = tenants.sql("global", "create table public.last (id int);",
    { down = "drop table public.last;" }),
  ["migrations/006_count.lua"] = [[return { description = "a test", phase = "expand", scope = "tenant",
    compatibility = "backward_compatible", irreversible = "a test", up = "alter table items add column u int",
    backfill = { table = "items", set = "n = n + 1", options = { min = 20, max = 20 } } }]],
}

-- What runs more than one step at a time, or leaves some to others; the specs that kill have their own of these.
---@type moonbird.scenario[]
M.more = {
  { name = "a backfill", files = backfill, before = { { "up", "--to", "1" } }, command = { "up" } },
  { name = "a job that does a backfill", files = backfill, before = { { "up", "--backfills", "skip" } },
    command = { "backfill", "run" } },
  { name = "a deploy", files = backfill, before = { { "up", "--to", "1" } }, command = { "deploy" } },
  { name = "a run over tenants", files = of_tenants, before = { { "up", "--to", "1" } },
    command = { "up", "--jobs", "1" } },
  { name = "a revert over tenants", files = of_tenants, before = { { "up", "--to", "1" }, { "up", "--to", "5" } },
    command = { "down", "--to", "1", "--jobs", "1" } },
  { name = "a job that does tenants' backfills", files = of_tenants,
    before = { { "up", "--to", "1" }, { "up", "--backfills", "skip" } },
    command = { "backfill", "run", "--jobs", "1" } },
  { name = "a deploy over tenants", files = of_tenants, before = { { "up", "--to", "1" } },
    command = { "deploy", "--jobs", "1" } },
  { name = "a process of a fleet", files = of_tenants, before = { { "up", "--to", "1" } },
    command = { "up", "--jobs", "1", "--fleet", "r" } },
}

---@type moonbird.scenario[]
M.all = table.move(M.list, 1, #M.list, #M.more + 1, table.move(M.more, 1, #M.more, 1, {}))

return M
