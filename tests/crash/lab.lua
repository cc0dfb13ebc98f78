--- What the tests that drive the real binary share: fresh databases, projects, runs of the binary, and
-- pictures of a database to compare: its catalog with the tables' rows, and its journal.
--
-- Everything that waits must be called inside a task (tests.helper.async).
local helper = require "tests.helper"
local fs = require "moonbird.core.fs"
local process = require "moonbird.core.process"
local session = require "moonbird.core.session"
local sys = require "moonbird.core.sys"
local task = require "moonbird.core.task"

local M = {}

M.async = helper.async

--- The folder of the binaries under test, and the binary.
M.bin = fs.realpath("/proc/self/exe"):match("^(.*)/[^/]*$")
M.moonbird = M.bin .. "/moonbird"

--- Whether to run every combination and not a sample.
M.full = (sys.getenv("MOONBIRD_TEST_FULL") or "") ~= ""

-- Databases ----------------------------------------------------------------------------------------------

local count = 0

---@class moonbird.lab.database
---@field name string
---@field params table<string, string> libpq keywords
---@field url string

local function encode(text)
  return (text:gsub("[^%w%-%._~]", function(c)
    return ("%%%02X"):format(c:byte())
  end))
end

--- The URL of libpq keywords.
---@param params table<string, string>
---@return string
function M.url(params)
  local query = {}
  for key, value in pairs(params) do
    if key ~= "dbname" and key ~= "user" then
      query[#query + 1] = key .. "=" .. encode(tostring(value))
    end
  end
  table.sort(query)
  return ("postgresql://%s@/%s?%s"):format(encode(params.user), encode(params.dbname), table.concat(query, "&"))
end

--- Opens a session of the test's own.
---@param params table<string, string>
---@param name? string application_name
---@return moonbird.session
function M.session(params, name)
  return assert(session.open(params, { application_name = name or "test" }))
end

--- Runs statements on a session and gives the rows of the last; raises on an error.
---@param on moonbird.session|table a session or a database
---@param text string
---@param ... any parameters
---@return table[]
function M.sql(on, text, ...)
  local own = on.params and M.session(on.params)
  local conn = own or on
  local result, err
  if select("#", ...) > 0 then
    result, err = conn:query(text, { ... }, select("#", ...))
  else
    local results
    results, err = conn:simple(text)
    result = results and results[#results]
  end
  if own then
    own:close()
  end
  if err then
    error(("%s\nin: %s"):format(tostring(err), text), 2)
  end
  return result and result:rows() or {}
end

--- One value.
---@param on moonbird.session|table
---@param text string
---@param ... any
---@return any
function M.value(on, text, ...)
  local _, value = next(M.sql(on, text, ...)[1] or {})
  return value
end

--- Makes a database in a cluster (default: the one the suites share).
---@param params? table<string, string> of the cluster
---@return moonbird.lab.database
function M.database(params)
  local base = {}
  for k, v in pairs(params or helper.cluster().params) do
    base[k] = tostring(v)
  end
  count = count + 1
  local name = ("lab_%d_%d"):format(sys.pid(), count)
  base.dbname = "postgres"
  local admin = M.session(base)
  M.sql(admin, "create database " .. name)
  admin:close()
  local own = {}
  for k, v in pairs(base) do
    own[k] = v
  end
  own.dbname = name
  return { name = name, params = own, admin = base, url = M.url(own) }
end

--- Drops a database with everybody in it.
---@param database moonbird.lab.database
function M.drop(database)
  M.sql({ params = database.admin }, ("drop database if exists %s with (force)"):format(database.name))
end

-- Projects and runs ----------------------------------------------------------------------------------------

local folders = {}

--- A folder with files in it (path -> text), removed when the tests end.
---@param files table<string, string>
---@return string path
function M.project(files)
  local dir = assert(fs.tempdir("moonbird-lab-"))
  folders[#folders + 1] = dir
  M.write(dir, files)
  return dir
end

--- Writes files into a folder.
---@param dir string
---@param files table<string, string|false> false removes
function M.write(dir, files)
  fs.mkdir(dir .. "/migrations")
  for name, text in pairs(files) do
    local path = dir .. "/" .. name
    if text == false then
      assert(fs.remove(path))
    else
      local folder = path:match("^(.*)/")
      fs.mkdir(folder)
      assert(fs.write(path, text))
    end
  end
end

--- Removes all project folders.
function M.clean()
  for _, dir in ipairs(folders) do
    fs.remove_tree(dir)
  end
  folders = {}
end

-- Settings of the one who runs the tests must not reach the binary.
local CLEARED = { "DATABASE_URL", "MIGRATION_TIMEOUT_SECONDS", "MOONBIRD_ENV", "PGHOST", "PGPORT", "PGUSER",
  "PGDATABASE", "PGPASSWORD", "PGSERVICE", "PGOPTIONS", "GITHUB_RUN_ID", "CI_PIPELINE_ID", "CI",
  "MOONBIRD_FAILPOINT", "MOONBIRD_FAILPOINT_TRACE", "NO_COLOR" }

local function spec(database, dir, args, env)
  local environment = {}
  for _, name in ipairs(CLEARED) do
    environment[name] = false
  end
  environment.DATABASE_URL = database and database.url or false
  for k, v in pairs(env or {}) do
    environment[k] = v
  end
  local list = {}
  for word in args:gmatch("%S+") do
    list[#list + 1] = word
  end
  return { file = M.moonbird, args = list, cwd = dir, env = environment }
end

---@class moonbird.lab.outcome
---@field status integer|nil
---@field signal string|nil
---@field stdout string
---@field stderr string
---@field took number seconds

--- Starts the binary and leaves it running.
---@param database moonbird.lab.database|nil
---@param dir string
---@param args string words parted by spaces
---@param env? table<string, string|false>
---@return userdata handle with wait, kill, pid
function M.start(database, dir, args, env)
  return assert(process.spawn(spec(database, dir, args, env)))
end

--- Waits for a started binary; a hang is a failure, not a wait for ever.
---@param handle userdata
---@param seconds? number
---@return moonbird.lab.outcome
function M.finish(handle, seconds)
  local outcome = handle:wait(math.floor((seconds or 60) * 1000))
  if not outcome then
    handle:kill("KILL")
    outcome = handle:wait()
    error(("the binary hung\nstdout: %s\nstderr: %s"):format(outcome.stdout, outcome.stderr), 2)
  end
  handle:close()
  return outcome
end

--- Runs the binary to its end.
---@param database moonbird.lab.database|nil
---@param dir string
---@param args string
---@param env? table<string, string|false>
---@param seconds? number
---@return moonbird.lab.outcome
function M.run(database, dir, args, env, seconds)
  local started = sys.monotonic()
  local outcome = M.finish(M.start(database, dir, args, env), seconds)
  outcome.took = sys.monotonic() - started
  return outcome
end

--- Runs the binary and insists on success.
---@return moonbird.lab.outcome
function M.must(database, dir, args, env)
  local outcome = M.run(database, dir, args, env)
  if outcome.status ~= 0 then
    error(("moonbird %s: exit %s\nstdout: %s\nstderr: %s"):format(args, outcome.status or outcome.signal,
      outcome.stdout, outcome.stderr), 2)
  end
  return outcome
end

--- Waits until `fn` gives something true.
---@param seconds number
---@param fn fun(): any
---@return any|nil
function M.eventually(seconds, fn)
  local deadline = sys.monotonic() + seconds
  while true do
    local value = fn()
    if value then
      return value
    elseif sys.monotonic() > deadline then
      return nil
    end
    task.sleep(15)
  end
end

--- Waits until a backend of moonbird's runs a statement that matches the pattern; gives its pid.
---@param on moonbird.session
---@param pattern string LIKE pattern
---@param seconds? number
---@return integer|nil pid
function M.wait_for_statement(on, pattern, seconds)
  return M.eventually(seconds or 20, function()
    local row = M.sql(on, "select pid from pg_stat_activity where state = 'active' and query like $1 "
      .. "and application_name like 'moonbird/%' and datname = current_database()", pattern)[1]
    return row and row.pid
  end)
end

--- Backends of moonbird's on this database.
---@param on moonbird.session
---@return integer
function M.backends(on)
  return M.value(on, "select count(*) from pg_stat_activity where application_name like 'moonbird/%' "
    .. "and datname = current_database()")
end

-- Pictures -------------------------------------------------------------------------------------------------

local CATALOG = [[
  with ns as (
    select oid, nspname from pg_namespace
    where nspname !~ '^pg_' and nspname <> 'information_schema'
  )
  select line from (
    select 'schema ' || nspname as line from ns
    union all
    select format('relation %s.%s kind=%s persistence=%s', nspname, relname, relkind, relpersistence)
    from pg_class c join ns on ns.oid = relnamespace
    union all
    select format('column %s.%s.%s %s %s null=%s default=%s', nspname, relname, attnum, attname,
                  format_type(atttypid, atttypmod), not attnotnull, pg_get_expr(d.adbin, d.adrelid))
    from pg_attribute a join pg_class c on c.oid = attrelid join ns on ns.oid = relnamespace
    left join pg_attrdef d on d.adrelid = attrelid and d.adnum = attnum
    where attnum > 0 and not attisdropped and relkind in ('r', 'p', 'v', 'm', 'c')
    union all
    select format('index %s valid=%s ready=%s live=%s', pg_get_indexdef(indexrelid), indisvalid, indisready,
                  indislive)
    from pg_index i join pg_class c on c.oid = indexrelid join ns on ns.oid = relnamespace
    union all
    select format('constraint %s.%s on %s: %s validated=%s', nspname, conname, conrelid::regclass,
                  pg_get_constraintdef(k.oid), convalidated)
    from pg_constraint k join ns on ns.oid = connamespace
    union all
    select format('function %s.%s(%s) %s', nspname, proname, pg_get_function_identity_arguments(p.oid),
                  md5(prosrc))
    from pg_proc p join ns on ns.oid = pronamespace
    union all
    select format('trigger %s on %s', tgname, tgrelid::regclass)
    from pg_trigger t join pg_class c on c.oid = tgrelid join ns on ns.oid = relnamespace
    where not tgisinternal
    union all
    select format('view %s.%s %s', nspname, relname, md5(pg_get_viewdef(c.oid)))
    from pg_class c join ns on ns.oid = relnamespace where relkind in ('v', 'm')
    union all
    select format('type %s.%s %s', nspname, typname, typtype)
    from pg_type t join ns on ns.oid = typnamespace where typtype in ('e', 'd')
  ) all_lines order by line collate "C"]]

local TABLES = [[
  select format('%I.%I', nspname, relname) as name
  from pg_class c join pg_namespace n on n.oid = relnamespace
  where relkind = 'r' and nspname !~ '^pg_' and nspname not in ('information_schema', 'moonbird')
  order by 1]]

--- The catalog of a database, and the rows of its tables, as text.
---@param on moonbird.session|table
---@return string
function M.snapshot(on)
  local own = on.params and M.session(on.params)
  local conn = own or on
  local lines = {}
  for i, row in ipairs(M.sql(conn, CATALOG)) do
    lines[i] = row.line
  end
  for _, item in ipairs(M.sql(conn, TABLES)) do
    local all = M.value(conn, ("select coalesce(string_agg(t::text, ' ' order by t::text collate \"C\"), '') from %s t")
      :format(item.name))
    lines[#lines + 1] = "rows " .. item.name .. ": " .. all
  end
  if own then
    own:close()
  end
  return table.concat(lines, "\n")
end

local function has_journal(conn)
  return M.value(conn, "select to_regclass('moonbird.journal') is not null")
end

--- The events of a journal without what differs between two runs, and its state, as text.
---@param on moonbird.session|table
---@return string
function M.journal(on)
  local own = on.params and M.session(on.params)
  local conn = own or on
  local lines = {}
  if has_journal(conn) then
    local events = M.sql(conn, [[
      select format('%s %s %s v=%s %s %s applies=%s unit=%s sha=%s error=%s checksum=%s', target, ordinal, event,
                    version_text, direction, outcome, applies, detail ->> 'unit', detail ->> 'sha', sqlstate,
                    checksum) as line
      from moonbird.journal order by target, ordinal]])
    for _, row in ipairs(events) do
      lines[#lines + 1] = row.line
    end
    for _, row in ipairs(M.sql(conn, [[
      select format('state %s %s %s applies=%s', target, version, id, applies) as line from moonbird.state
      order by target, version]])) do
      lines[#lines + 1] = row.line
    end
  end
  if own then
    own:close()
  end
  return table.concat(lines, "\n")
end

--- What is wrong with the journal's chains; "" when nothing is.
---@param on moonbird.session|table
---@return string
function M.verify(on)
  local own = on.params and M.session(on.params)
  local conn = own or on
  local lines = {}
  if has_journal(conn) then
    for i, row in ipairs(M.sql(conn, "select target, ordinal, problem from moonbird.verify()")) do
      lines[i] = ("%s %d: %s"):format(row.target, row.ordinal, row.problem)
    end
  end
  if own then
    own:close()
  end
  return table.concat(lines, "\n")
end

--- Lines that only one of two pictures has, for a message a person can read.
---@param wanted string
---@param found string
---@return string "" when they are equal
function M.difference(wanted, found)
  if wanted == found then
    return ""
  end
  local function set(text)
    local lines, list = {}, {}
    for line in text:gmatch("[^\n]+") do
      lines[line] = (lines[line] or 0) + 1
      list[#list + 1] = line
    end
    return lines, list
  end
  local a, a_list = set(wanted)
  local b, b_list = set(found)
  local out = {}
  for _, line in ipairs(a_list) do
    if (b[line] or 0) < a[line] then
      out[#out + 1] = "missing: " .. line
    end
  end
  for _, line in ipairs(b_list) do
    if (a[line] or 0) < b[line] then
      out[#out + 1] = "extra:   " .. line
    end
  end
  return #out > 0 and table.concat(out, "\n") or "the same lines in another order"
end

return M
