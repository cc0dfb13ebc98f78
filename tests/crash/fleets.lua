--- Tenants and projects for the specs of fleets: many small schemas, a migration that counts how often it ran in
-- each, processes that work on one run.
local helper = require "tests.helper"

local M = {}

M.CONFIG = [[
return {
  search_path = "public",
  tenants = { source = tenants.schemas{ like = "tenant_%%" }, jobs = %d, lease = "%s", max_consecutive = 1000%s },
}
]]

--- What every tenant gets. A tenant named in the table poison fails; one of slow takes its time.
M.MAIL = [[
-- scope: tenant
-- migrate:up
select 1 / (1 - (select count(*) from poison where name = current_schema()));
alter table users add column if not exists mail text;
create table if not exists notes (id int primary key, user_id int references users);
insert into ran values (current_schema(), %d);
select pg_sleep(%s + coalesce((select s from slow where name = current_schema()), 0));
-- migrate:down
drop table notes;
alter table users drop column mail;
]]

--- A project.
---@param options? { jobs?: integer, lease?: string, more?: string, sleep?: string, files?: table }
---@return string dir
function M.project(options)
  options = options or {}
  local files = { ["moonbird.lua"] = M.CONFIG:format(options.jobs or 4, options.lease or "2s", options.more or ""),
    ["migrations/002_mail.sql"] = M.MAIL:format(2, options.sleep or "0") }
  for path, text in pairs(options.files or {}) do
    files[path] = text
  end
  return helper.project(files)
end

--- Makes schemas tenant_001 to tenant_NNN, and what the migrations count in.
---@param db tests.database
---@param count integer
function M.tenants(db, count)
  db:exec [[create table public.ran (name text, version int); create table public.poison (name text);
    create table public.slow (name text, s float8)]]
  for from = 1, count, 100 do
    local parts = {}
    for i = from, math.min(count, from + 99) do
      local name = ("tenant_%03d"):format(i)
      parts[#parts + 1] = ("create schema %s; create table %s.users (id int primary key);"):format(name, name)
    end
    db:exec(table.concat(parts))
  end
end

--- Starts processes on a run.
---@param count integer
---@param run string
---@param options { db: tests.database, cwd: string, env?: table }
---@param more? string[] further arguments
---@return userdata[]
function M.start(count, run, options, more)
  local list = {}
  for i = 1, count do
    list[i] = helper.spawn({ "up", "--fleet", run, table.unpack(more or {}) }, options)
  end
  return list
end

--- Lets a wave's tenants wait until so many processes have claimed some of it, so that each of them gets its share,
--- however late it starts. After 20 s they go on all the same, for the test to fail.
---@param db tests.database where both the tenants and the run are
---@param wave integer
---@param count integer
function M.hold_until_shared(db, wave, count)
  db:exec(([[create function public.hold_until_shared() returns event_trigger language plpgsql as $$
    begin
      if to_regclass('moonbird.run_item') is null then
        return;
      elsif not exists (select from moonbird.run_item where wave = %d and owner is not null) then
        return;
      end if;
      while (select count(distinct owner) < %d and clock_timestamp() < min(started_at) + interval '20 s'
             from moonbird.run_item where wave = %d and owner is not null) loop
        perform pg_sleep(0.02);
      end loop;
    end $$;
    create event trigger hold_until_shared on ddl_command_start execute function public.hold_until_shared()]]):format(
    wave, count, wave))
end

--- Waits for processes.
---@param children userdata[]
---@return table[] results
function M.finish(children)
  local results = {}
  for i, child in ipairs(children) do
    local result = child:wait(90000)
    if not result then
      child:kill("KILL")
      local killed = child:wait()
      error(("a worker did not end\n%s\n%s"):format(killed.stdout, killed.stderr))
    end
    assert(not result.stderr:find("Sanitizer", 1, true), result.stderr)
    results[i] = result
  end
  return results
end

--- What the workers said, for a failure's message.
---@param results table[]
---@return string
function M.said(results)
  local parts = {}
  for i, result in ipairs(results) do
    parts[i] = ("worker %d: exit %s\n%s%s"):format(i, result.status or result.signal, result.stdout, result.stderr)
  end
  return table.concat(parts, "\n")
end

--- Everything must have been done to every tenant exactly once.
---@param db tests.database
---@param count integer
---@param version integer
---@return string problem "" when all is well
function M.problem(db, count, version)
  local problems = {}
  local function check(what, wanted, got)
    if wanted ~= got then
      problems[#problems + 1] = ("%s: %s, expected %s"):format(what, got, wanted)
    end
  end
  check("tenants that ran it", count,
    db:value("select count(distinct name) from public.ran where version = $1", version))
  check("times it ran", count, db:value("select count(*) from public.ran where version = $1", version))
  check("apply events", count, db:value([[select count(*) from moonbird.journal where event = 'apply'
    and target like 'tenant%' and version = $1]], version))
  check("tenants that have it", count, db:value([[select count(distinct target) from moonbird.state where applies
    and target like 'tenant%' and version = $1]], version))
  check("broken chains", 0, db:value("select count(*) from moonbird.verify()"))
  check("kinds of catalogs", 1, db:value [[
    select count(distinct shape) from (
      select n.nspname, string_agg(c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', '
        order by c.relname, a.attname) as shape
      from pg_namespace n join pg_class c on c.relnamespace = n.oid join pg_attribute a on a.attrelid = c.oid
      where n.nspname like 'tenant\_%' and a.attnum > 0 and not a.attisdropped group by n.nspname) shapes]])
  return table.concat(problems, "\n")
end

return M
