--- The cost of `moonbird check` on 2,000 migrations (SQL and Lua in turns, about 4 MB): time, memory, and where in
-- a file the time goes. See bench.lua for what `bench` has.
local context = require "moonbird.policy.context"
local engine = require "moonbird.policy.engine"
local builtin = require "moonbird.policy.builtin"
local fs = require "moonbird.core.fs"
local registry = require "moonbird.migration.registry"
local settings_of = require "moonbird.policy.settings"
local sys = require "moonbird.core.sys"

local FILES = 2000
local SECONDS, MEBIBYTES = 2, 100

local function columns(count)
  local list = {}
  for i = 1, count do
    list[i] = ("  property_%02d text not null default 'nothing said of property %d'"):format(i, i)
  end
  return table.concat(list, ",\n")
end

-- What migrations are made of, in turns; each about 2 KB.
local BODIES = {
  function(i)
    return ("create table thing_%d (\n  id bigint generated always as identity primary key,\n%s\n);\n"
      .. "comment on table thing_%d is 'number %d';"):format(i, columns(28), i, i), ("drop table thing_%d;"):format(i)
  end,
  function(i)
    local adds = {}
    for k = 1, 24 do
      adds[k] = ("alter table thing_%d add constraint more_%d check (property_01 <> 'none %d') not valid;")
        :format(i, k, k)
    end
    return table.concat(adds, "\n"), ("alter table thing_%d drop constraint more_1;"):format(i)
  end,
  function(i)
    local rows = {}
    for k = 1, 40 do
      rows[k] = ("  (%d, 'setting number %d of thing', 'value %d')"):format(k, k, i)
    end
    return ("create table setting_%d (id int primary key, name text not null, value text not null);\n"
      .. "insert into setting_%d (id, name, value) values\n%s;"):format(i, i, table.concat(rows, ",\n")),
      ("drop table setting_%d;"):format(i)
  end,
  function(i)
    return ("create function touch_%d() returns trigger language plpgsql set search_path = public as $$\n"
      .. "begin\n%s  return new;\nend $$;"):format(i, ("  -- keeps the row's time of change as it is\n"):rep(36)),
      ("drop function touch_%d();"):format(i)
  end,
}

local function text_of(i)
  local up, down = BODIES[i // 2 % #BODIES + 1](i)
  if i % 2 == 0 then
    return "sql", ("-- description: Make what number %d of the shop needs\n-- phase: expand\n-- scope: global\n"
      .. "-- compatibility: backward_compatible\n\n-- migrate:up\n%s\n\n-- migrate:down\n%s\n"):format(i, up, down)
  end
  return "lua", ("return {\n  description = \"Make what number %d of the shop needs\",\n  phase = \"expand\", "
    .. "scope = \"global\", compatibility = \"backward_compatible\",\n  up = [==[\n%s\n]==],\n"
    .. "  down = [==[\n%s\n]==],\n}\n"):format(i, up, down)
end

local function write_files(dir)
  local bytes = 0
  assert(fs.mkdir(dir .. "/migrations"))
  for i = 1, FILES do
    local kind, text = text_of(i)
    bytes = bytes + #text
    assert(fs.write(("%s/migrations/%06d_thing_%d.%s"):format(dir, i, i, kind), text))
  end
  -- What is found is not what is measured: warnings would be printed for every file.
  assert(fs.write(dir .. "/moonbird.lua", "return { policy = { rules = { purpose = 'off' } } }\n"))
  return bytes
end

--- Where the time of a file goes: microseconds a file, by kind.
local function per_file(bench, dir)
  local entries = assert(registry.scan({ "migrations" }, { root = dir }))
  local rules = {}
  for _, rule in ipairs(builtin.rules()) do
    rules[#rules + 1] = rule.per ~= "registry" and not rule.last and rule or nil -- those look at a file
  end
  local settings = assert(settings_of.read({ dir = dir }, rules))
  local cost = {}
  local function add(kind, what, seconds)
    cost[kind] = cost[kind] or { files = 0, load = 0, facts = 0, rules = 0 }
    cost[kind][what] = cost[kind][what] + seconds
  end
  for _, entry in ipairs(entries) do
    local t0 = sys.monotonic()
    local migration = assert(registry.load(entry))
    local t1 = sys.monotonic()
    local view = context.migration(migration)
    assert(view.up and view.down)
    local t2 = sys.monotonic()
    engine.run { rules = rules, settings = settings, migrations = { migration }, registry = entries, moment = "check",
      now = "2025-01-01" }
    local t3 = sys.monotonic()
    add(entry.kind, "load", t1 - t0)
    add(entry.kind, "facts", t2 - t1)
    add(entry.kind, "rules", t3 - t2 - (t2 - t1)) -- which made the facts anew
    cost[entry.kind].files = cost[entry.kind].files + 1
  end
  for _, kind in ipairs { "sql", "lua" } do
    local c = cost[kind]
    bench.note(("  a .%s file of 2 KB: load %.0f us, facts %.0f us, %d rules %.0f us"):format(kind,
      c.load / c.files * 1e6, c.facts / c.files * 1e6, #rules, c.rules / c.files * 1e6))
  end
end

return {
  {
    name = "check",
    run = function(bench)
      local dir = bench.dir .. "/check"
      local bytes = write_files(dir)
      bench.note(("moonbird check on %d migrations, %.1f MB"):format(FILES, bytes / 1e6))
      local times, peaks = bench.compare(bench.rounds, {
        { name = "moonbird", command = { bench.moonbird, "-C", dir, "check" } },
      })
      bench.row(("check %d migrations"):format(FILES), bench.ms(times.moonbird), times.moonbird, "a limit", SECONDS,
        " s")
      bench.row("  peak memory", ("%.1f MiB"):format(peaks.moonbird), peaks.moonbird, "a limit", MEBIBYTES, " MiB")
      per_file(bench, dir)
    end,
  },
}
