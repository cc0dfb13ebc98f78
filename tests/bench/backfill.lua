--- The cases of bench.lua with backfills: moonbird beside a PL/pgSQL procedure, a psycopg loop (executemany) and a
-- node-pg loop (unnest arrays) that do the same in the same batches, and beside writers (pgbench).
--
-- Each run has a database of its own, a file copy of a vacuumed and analyzed template, and a CHECKPOINT before it.
-- Autovacuum stays away from the table: moonbird would yield to it, the others would not.
local binaries = require "moonbird.core.cluster_binaries"
local fs = require "moonbird.core.fs"
local latency = dofile "tests/bench/latency.lua"
local process = require "moonbird.core.process"
local sys = require "moonbird.core.sys"

local BATCH, SMALL = 5000, 100
local WORKERS = 4
local BESIDE = "30s" -- a backfill beside clients: it may take its time
local GROWTH = 4 -- how many times larger the larger table is
local SYSTEM_PYTHON = "/usr/bin/python3" -- the one that sees Debian's python3-psycopg

local MAKE = [[
create table people (
  id bigint primary key, login text not null, given_name text not null, family_name text not null, city text not null,
  country text not null, phone text not null, points integer not null, balance numeric(10,2) not null,
  active boolean not null, created_at timestamptz not null, email text, display text)
  with (autovacuum_enabled = off);
insert into people
select n, 'User' || n, 'Given' || n %% 1000, 'Family' || n %% 7919, 'City ' || n %% 500,
       (array['DE', 'FR', 'PL', 'IT'])[1 + n %% 4],
       '(0' || n %% 90 + 10 || ') 555-' || lpad((n %% 10000)::text, 4, '0'),
       n %% 100000, (n %% 1000000) / 100.0, n %% 3 <> 0, '2020-01-01 00:00 UTC'::timestamptz + n * interval '1 minute'
from generate_series(1::bigint, %d) n]]

-- The same in three languages, so that the results can be compared.
local SET = [[email = lower(login) || '@' || lower(country) || '.example.com',
  display = given_name || ' ' || upper(family_name) || ' (' || city || ', ' || country || ') +49'
    || substr(regexp_replace(phone, '\D', '', 'g'), 2) || case when active and points > 50000 then ' *' else '' end]]

local MIGRATION = [[
return {
  description = "e-mail addresses and names to show",
  irreversible = "there were none",
  backfill = {
    table = "people",
    where = "email is null",
%s
    options = { min = %d, max = %d, workers = %d },
  },
}
]]

local TRANSFORM = [[
    columns = { "id", "login", "given_name", "family_name", "city", "country", "phone", "points", "balance", "active" },
    transform = function(row)
      local email = row.login:match("^%s*(.-)%s*$"):lower() .. "@" .. row.country:lower() .. ".example.com"
      local digits = row.phone:gsub("%D", "")
      local display = row.given_name .. " " .. row.family_name:upper() .. " (" .. row.city .. ", " .. row.country
        .. ") +49" .. digits:sub(2)
      return { email = email, display = row.active and row.points > 50000 and display .. " *" or display }
    end,]]

-- Set-based, what one writes without a tool; `work` is the statement.
local PROCEDURE = [[
create procedure fill(batch int) language plpgsql as $$
declare
  lo bigint := 0;
  hi bigint;
begin
  loop
    select max(id) into hi from (select id from people where id > lo order by id limit batch) p;
    exit when hi is null;
    %s
    commit;
    lo := hi;
  end loop;
end $$]]

-- What the row-based work costs the server at least: the locks, and the UPDATE from arrays that are there already.
local FLOOR = [[
    perform id, login, given_name, family_name, city, country, phone, points, balance, active from people
      where id > lo and id <= hi and email is null order by id for no key update;
    update people p set email = u.email, display = u.display
      from answers a, unnest(a.ids, a.emails, a.displays) u(id, email, display)
      where a.n = (lo / batch) and p.id = u.id;]]

local ANSWERS = [[
create table answers as
select (id - 1) / %d as n, array_agg(id order by id) as ids, array_agg(email order by id) as emails,
       array_agg(display order by id) as displays
from (select id, ]] .. SET:gsub("email = ", ""):gsub(",%s+display = ", " as email, ") .. [[ as display from people) p
group by 1]]

local function write(path, text)
  local file = assert(io.open(path, "w")) -- not fs.write: no fsyncs while others are measured
  file:write(text)
  file:close()
end

local function project(b, name, how, workers)
  local path = b.dir .. "/" .. name
  if not fs.stat(path) then
    assert(fs.mkdir(path))
    assert(fs.mkdir(path .. "/migrations"))
    write(path .. "/moonbird.lua", "return {}\n")
    if how then
      write(path .. "/migrations/001_fill.lua", MIGRATION:format(how, BATCH, BATCH, workers or 1))
    end
  end
  return path
end

local function output(command)
  local result = assert(process.run { file = command[1], args = { table.unpack(command, 2) } })
  if result.status ~= 0 then
    error(("%s: status %s\n%s%s"):format(table.concat(command, " "), result.status or result.signal, result.stdout,
      result.stderr), 0)
  end
  return result.stdout
end

local function psql(b, name, text)
  return { assert(binaries.find()).bin .. "/psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", b.url(name), "-c", text }
end

--- A database to copy, with so many rows and an empty journal.
local function template(b, rows)
  local name = ("people_%d"):format(rows)
  if b.query(("select 1 from pg_database where datname = '%s'"):format(name)):count() == 0 then
    b.note(("  making %d rows"):format(rows))
    b.fresh(name)
    b.exec_in(name, MAKE:format(rows))
    b.exec_in(name, PROCEDURE:format("update people set " .. SET .. " where id > lo and id <= hi and email is null;"))
    output { b.moonbird, "-u", b.url(name), "-C", project(b, "nothing"), "up" }
    b.exec_in(name, "vacuum analyze")
  end
  return name
end

local function copy(b, name, from)
  b.sql(('drop database if exists "%s" with (force)'):format(name))
  local by_files = b.query("select current_setting('server_version_num')::int >= 150000"):value(1, 1)
  b.sql(('create database "%s" template "%s"%s'):format(name, from, by_files and " strategy file_copy" or ""))
end

local function contender(b, from, name, command, extra)
  return { name = name, command = command("people_" .. name), prepare = function()
    copy(b, "people_" .. name, from)
    if extra then
      extra("people_" .. name)
    end
  end }
end

local function up(b, path)
  return function(name)
    return { b.moonbird, "-u", b.url(name), "-C", path, "up" }
  end
end

local function call(b)
  return function(name)
    return psql(b, name, ("call fill(%d)"):format(BATCH))
  end
end

--- Every row was changed, and by all of them in the same way.
local function check(b, names)
  local first
  for _, name in ipairs(names) do
    local sum = output(psql(b, "people_" .. name, "select count(*) filter (where email is null), "
      .. "sum(hashtextextended(email || display, id)) from people"))
    first = first or sum
    if sum ~= first or not sum:find("^0|") then
      error(("%s: rows left and the sum of the others are %s, %s has %s"):format(name, sum, names[1], first), 0)
    end
  end
end

local function rate(rows, seconds)
  return ("%.0fk rows/s (%.2f s)"):format(rows / seconds / 1000, seconds)
end

local function case_set(b)
  b.note(("backfill, set-based, %d rows by %d: moonbird, a PL/pgSQL procedure"):format(b.rows, BATCH))
  local from = template(b, b.rows)
  local times, peaks = b.compare(b.rounds, {
    contender(b, from, "moonbird", up(b, project(b, "set", "    set = [[" .. SET .. "]],"))),
    contender(b, from, "procedure", call(b)),
  })
  check(b, { "procedure", "moonbird" })
  b.row("backfill, set-based", rate(b.rows, times.moonbird), times.moonbird / times.procedure,
    "PL/pgSQL procedure " .. rate(b.rows, times.procedure), 1.25)
  b.row("  peak memory", ("%.1f MiB"):format(peaks.moonbird), peaks.moonbird, "", 48, " MiB")
end

local function case_rows(b)
  b.note(("backfill, row-based, %d rows by %d: moonbird, psycopg, node-pg, the server's floor"):format(b.rows, BATCH))
  local from = template(b, b.rows)
  local function python(interpreter)
    return function(name)
      return { interpreter, "tests/bench/backfill_psycopg.py", b.url(name), tostring(BATCH) }
    end
  end
  local contenders = {
    contender(b, from, "moonbird", up(b, project(b, "rows", TRANSFORM))),
    contender(b, from, "workers", up(b, project(b, "workers", TRANSFORM, WORKERS))),
    contender(b, from, "psycopg", python(SYSTEM_PYTHON)),
    contender(b, from, "node", function(name)
      return { "env", "NODE_PATH=" .. assert(sys.getenv "MOONBIRD_BENCH_NODE_PATH"), "node",
        "tests/bench/backfill_node.js", b.url(name), tostring(BATCH) }
    end),
    contender(b, from, "floor", call(b), function(name)
      b.exec_in(name, "drop procedure fill")
      b.exec_in(name, PROCEDURE:format(FLOOR))
      b.exec_in(name, ANSWERS:format(BATCH))
      b.exec_in(name, "alter table answers add primary key (n)")
      b.exec_in(name, "vacuum analyze answers")
    end),
  }
  local names = { "psycopg", "node", "moonbird", "workers", "floor" }
  local binary = sys.getenv "MOONBIRD_BENCH_PSYCOPG_BINARY"
  if binary then
    contenders[#contenders + 1] = contender(b, from, "psycopg_binary", python(binary))
    names[#names + 1] = "psycopg_binary"
  end
  local times, peaks = b.compare(b.rounds, contenders)
  check(b, names)
  local own = rate(b.rows, times.moonbird)
  b.row_at_least("backfill, row-based", own, times.psycopg / times.moonbird,
    "psycopg executemany " .. rate(b.rows, times.psycopg), 3)
  if binary then
    b.row_aside("", own, times.psycopg_binary / times.moonbird,
      "psycopg[binary] executemany " .. rate(b.rows, times.psycopg_binary))
  end
  b.row_at_least("", own, times.node / times.moonbird, "node-pg unnest " .. rate(b.rows, times.node), 3)
  b.row_aside(("  %d workers"):format(WORKERS), rate(b.rows, times.workers), times.node / times.workers,
    "node-pg unnest " .. rate(b.rows, times.node))
  b.row_aside("", own, times.floor / times.moonbird, "the server alone " .. rate(b.rows, times.floor))
  b.row("  peak memory", ("%.1f MiB"):format(peaks.moonbird), peaks.moonbird,
    ("psycopg %.1f, node %.1f MiB"):format(peaks.psycopg, peaks.node), 48, " MiB")
end

local function case_growth(b)
  local many = b.rows * GROWTH
  b.note(("backfill, %d rows against %d"):format(b.rows, many))
  local small, large = template(b, b.rows), template(b, many)
  for _, how in ipairs { "set", "rows" } do
    local path = project(b, how, how == "set" and "    set = [[" .. SET .. "]]," or TRANSFORM)
    local times, peaks = b.compare(math.max(3, b.rounds // 2), {
      contender(b, small, "few", up(b, path)), contender(b, large, "many", up(b, path)),
    })
    b.row(("backfill, %s, %d rows"):format(how, many), ("%.2f us a row"):format(times.many / many * 1e6),
      times.many / many / (times.few / b.rows),
      ("%d rows: %.2f us a row"):format(b.rows, times.few / b.rows * 1e6), 1.15)
    b.row("  peak memory", ("%.1f MiB"):format(peaks.many), peaks.many,
      ("%d rows: %.1f MiB"):format(b.rows, peaks.few), 48, " MiB")
  end
end

--- The more batches, the more a leak would show.
local function case_memory(b)
  b.note(("backfill, set-based, %d rows by %d: memory"):format(b.rows, SMALL))
  local path = project(b, "small")
  write(path .. "/migrations/001_fill.lua", MIGRATION:format("    set = [[" .. SET .. "]],", SMALL, SMALL, 1))
  local _, peaks = b.compare(1, { contender(b, template(b, b.rows), "small", up(b, path)) })
  b.row(("backfill, %d batches"):format(b.rows // SMALL), ("%.1f MiB at peak"):format(peaks.small), peaks.small, "", 48,
    " MiB")
end

local function case_latency(b)
  b.note(("pgbench, 4 clients on %d rows: alone, beside a backfill, beside one UPDATE"):format(b.rows))
  local from = template(b, b.rows)
  local function adaptive(name, options)
    local path = project(b, name)
    write(path .. "/migrations/001_fill.lua", (MIGRATION:format(TRANSFORM, BATCH, BATCH, 1)
      :gsub("    options = [^\n]*\n", options)))
    return { name = name, command = function(database)
      return { b.moonbird, "-u", b.url(database), "-C", path, "backfill", "run", "--max-runtime", BESIDE }
    end, rows = function(database)
      return tonumber(output(psql(b, database, "select sum(rows_seen) from moonbird.backfill_chunk")))
    end }
  end
  local beside = {
    { name = "alone" }, adaptive("default", ""), adaptive("fast", "    options = { max_delay = '0' },\n"),
    { name = "update", command = function(name)
      return psql(b, name, "update people set " .. SET .. " where email is null")
    end },
  }
  local p99 = latency.compare(b, math.max(3, b.rounds // 3), beside, function(name)
    copy(b, name, from)
    b.sql "checkpoint"
  end)
  b.row("4 pgbench clients, p99", ("%.1f ms beside a backfill"):format(p99.default), p99.default / p99.alone,
    ("%.1f ms alone"):format(p99.alone), 1.5)
  b.row_aside("", ("%.1f ms with max_delay = 0"):format(p99.fast), p99.fast / p99.alone,
    ("%.1f ms alone"):format(p99.alone))
  b.row_aside("", ("%.1f ms beside one UPDATE"):format(p99.update), p99.update / p99.alone,
    ("%.1f ms alone"):format(p99.alone))
end

return {
  { name = "backfill-set", run = case_set },
  { name = "backfill-rows", run = case_rows },
  { name = "backfill-growth", run = case_growth },
  { name = "backfill-memory", run = case_memory },
  { name = "backfill-latency", run = case_latency },
}
