--- Samples the server for the throttles of backfills, on a connection of its own, about once a second.
--
-- One sampler for each server: backfills of many tenants on it share the connection and its samples, and each has its
-- own limits (throttle.lua decides). What the role may not see is not known, and a signal that is not known says ok;
-- that is told once. A sampler that loses its connection gets a new one; when it has seen nothing for some seconds,
-- the backfills wait.
local db_of = require "moonbird.core.db"
local error_ = require "moonbird.core.error"
local literal = require "moonbird.core.literal"
local sandbox = require "moonbird.core.sandbox"
local task = require "moonbird.core.task"
local throttle_of = require "moonbird.exec.backfill.throttle"

local M = {}

-- Milliseconds: how often a sampler looks whether somebody wants a sample now; how long a statement of it may take.
local TICK, STATEMENT_MS = 50, 4000

-- Each in a transaction of its own, so that one that fails takes nothing else with it. Bytes of WAL as bigint.
local QUERIES = {
  wal = [[
    select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint as lsn,
           extract(epoch from clock_timestamp())::float8 as clock,
           pg_has_role(current_user, 'pg_read_all_stats', 'usage') as sees]],
  standbys = [[
    select coalesce(nullif(application_name, ''), host(client_addr), 'pid ' || pid) as name,
           pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::bigint as bytes,
           (extract(epoch from replay_lag) * 1000)::float8 as ms
    from pg_stat_replication where state is distinct from 'backup' and state is distinct from 'startup']],
  slots = [[
    select slot_name::text as name, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint as bytes
    from pg_replication_slots where restart_lsn is not null]],
  archive = [[
    select current_setting('archive_mode') <> 'off' as on, left(last_archived_wal, 24) as last,
           pg_walfile_name(pg_current_wal_lsn()) as now, last_failed_time > coalesce(last_archived_time, '-infinity')
             as failing, (select setting::bigint from pg_settings where name = 'wal_segment_size') as segment
    from pg_stat_archiver]],
  vacuums = [[
    select p.datname::text as database, p.relid::bigint as relation,
           coalesce(a.query like '%(to prevent wraparound)%', false) as wraparound
    from pg_stat_progress_vacuum p left join pg_stat_activity a using (pid)
    where p.relid is not null and coalesce(a.backend_type = 'autovacuum worker', true)]],
  blocked = [[
    select count(*)::int as count, min(format('pid %s, %s', pid, coalesce(nullif(application_name, ''), usename)))
             as who
    from pg_stat_activity where wait_event_type = 'Lock' and pid <> all ($1::int[])
      and pg_blocking_pids(pid) && $1::int[] ]],
  active = [[
    select count(*) filter (where state = 'active' and backend_type = 'client backend')::int as active
    from pg_stat_activity where pid <> pg_backend_pid() and pid <> all ($1::int[])]],
  snapshot = [[
    select (extract(epoch from clock_timestamp() - since) * 1000)::float8 as ms, who from (
      select xact_start as since, format('pid %s (%s)', pid, coalesce(nullif(application_name, ''), usename)) as who
      from pg_stat_activity where (backend_xmin is not null or backend_xid is not null)
        and backend_type in ('client backend', 'walsender') and pid <> pg_backend_pid() and pid <> all ($1::int[])
      union all select prepared, format('the prepared transaction %L', gid) from pg_prepared_xacts) s
    where since is not null order by since limit 1]],
  minutes = [[
    select z.name as zone, extract(epoch from (clock_timestamp() at time zone coalesce(nullif(z.name, ''),
      (select reset_val from pg_settings where name = 'TimeZone')))::time)::float8 / 60 as minute
    from unnest($1::text[]) as z(name)]],
}

-- Samplers by server.
local servers = {}

---@class moonbird.backfill.sampler
---@field handles table<moonbird.backfill.throttle, true>
local Sampler = {}
Sampler.__index = Sampler

local function key_of(run)
  local params = run.params
  return table.concat({ params.host or "", params.hostaddr or "", params.port or "", params.service or "" }, "\0")
end

-- Asking --------------------------------------------------------------------------------------------------

local function connect(self)
  if self.session and not self.session.doomed then
    return true
  end
  if self.session then
    self.session:close()
    self.session = nil
  end
  local session, err = self.run:connect("backfill-throttle")
  if not session then
    return nil, err
  end
  local _
  _, err = session:query(("select set_config('statement_timeout', '%dms', false), set_config('lock_timeout', '1s', "
    .. "false)"):format(STATEMENT_MS))
  if err then
    session:close()
    return nil, err
  end
  self.session = session
  return true
end

--- Rows of one of the queries; nil when it failed. A lost connection is the sample's failure.
local function ask(self, name, params)
  local result, err = self.session:query(QUERIES[name], params, params and #params or 0)
  if result then
    return result:rows()
  end
  if self.session.doomed then
    error(err, 0)
  end
  self.session:rollback()
  if not self.told[name] then
    self.told[name] = true
    self.run.report:log("warn", ("the throttle can't see %s: %s"):format(name, err.message))
  end
end

--- The number of a WAL file, counted from the beginning of the timeline.
local function file_number(name, segment)
  local log, low = (name or ""):match("^%x%x%x%x%x%x%x%x(%x%x%x%x%x%x%x%x)(%x%x%x%x%x%x%x%x)$")
  if log and segment then
    return tonumber(log, 16) * (0x100000000 // segment) + tonumber(low, 16)
  end
end

--- How far the archiver is behind; nil where there is none, or where it has never archived anything.
---@param row table
---@return { files: integer, failing: boolean }|nil
function M.archive(row)
  local last, now = file_number(row.last, row.segment), file_number(row.now, row.segment)
  if row.on and last and now then
    return { files = math.max(0, now - last - 1), failing = row.failing or false }
  end
end

--- What all backfills of the server have in common; raises when the server can't be reached.
local function common(self)
  local wal = ask(self, "wal")
  local sample = { at = task.now(), lsn = wal and wal[1] and wal[1].lsn, standbys = ask(self, "standbys"),
    slots = ask(self, "slots") }
  if wal and wal[1] and not wal[1].sees and not self.told.rights then
    self.told.rights = true
    self.run.report:log("info", "the throttle does not see other roles' sessions, the lag of standbys and vacuums: "
      .. "grant pg_read_all_stats to this role")
  end
  local archive = ask(self, "archive")
  sample.archive = archive and archive[1] and M.archive(archive[1])
  sample.vacuums = ask(self, "vacuums")
  local pids, zones, seen = {}, {}, {}
  for handle in pairs(self.handles) do
    for _, worker in ipairs(handle.job.workers) do
      local pid = worker.session and not worker.session.doomed and worker.session:pid()
      pids[#pids + 1] = pid or nil
    end
    local options = handle.decision.options
    local zone = options.between and options.between ~= "" and (options.time_zone or "")
    if zone and not seen[zone] then
      seen[zone] = true
      zones[#zones + 1] = zone
    end
  end
  local ours = { literal.array(pids) }
  local blocked, active, snapshot = ask(self, "blocked", ours), ask(self, "active", ours),
    ask(self, "snapshot", ours)
  sample.blocked, sample.active = blocked and blocked[1], active and active[1] and active[1].active
  sample.snapshot = snapshot and snapshot[1]
  sample.minutes = {}
  for _, zone in ipairs(zones) do -- one by one: a zone that the server does not know spoils no other
    local rows = ask(self, "minutes", { literal.array { zone } })
    sample.minutes[zone] = rows and rows[1] and rows[1].minute
  end
  return sample
end

local LEVELS = { ok = true, slow = true, stop = true }

--- Asks a backfill's own function, in a transaction that can only read.
local function own_answer(self, handle)
  local fn = handle.decision.options.throttle
  if type(fn) ~= "function" then
    return nil
  end
  local job = handle.job
  local _, err = self.session:query("begin isolation level read committed read only")
  local ok, level, reason = false, err, nil
  if not err then
    local target = job.target
    local handle_of_db = db_of.new { session = self.session,
      target = { name = target.name, schema = target.schema, vars = target.vars },
      log = function(severity, message)
        job.run.report:log(severity, message, job.step)
      end }
    ok, level, reason = sandbox.run { fn = fn, args = { handle_of_db }, name = job.step.migration.file }
  end
  local doomed = self.session.doomed
  self.session:rollback()
  if doomed then
    error(doomed, 0)
  elseif not ok then
    return { level = "stop", reason = "its throttle function failed: " .. (level.message or tostring(level)) }
  elseif not LEVELS[level] then
    return { level = "stop", reason = ("its throttle function returned %s, not \"ok\", \"slow\" or \"stop\"")
      :format(type(level) == "string" and '"' .. level .. '"' or type(level)) }
  end
  return { level = level, reason = type(reason) == "string" and reason ~= "" and reason or "its throttle function says so" }
end

--- Vacuums on the tables of a backfill.
local function vacuum_of(job, vacuums)
  local ours, found = {}, nil
  for _, leaf in ipairs(job.place.leaves) do
    ours[leaf.oid] = true
  end
  local database = job.database
  for _, row in ipairs(vacuums or {}) do
    if ours[row.relation] and (not database or row.database == database) then
      found = (row.wraparound or found == "wraparound") and "wraparound" or "plain"
    end
  end
  return found
end

--- While no batch runs nobody reads what other terminals want: it is read here.
local function read_wishes(self, handle)
  local job = handle.job
  handle.held = false
  if handle.decision.level ~= "stop" or key_of(job.run) ~= self.key or job.run.params.dbname ~= self.run.params.dbname
  then
    return
  end
  local result, err = self.session:query(("select want, limits::text as limits from %s.backfill where target = $1 "
    .. "and version = $2"):format(job.store.quoted), { job.state.target, job.state.version })
  if not result then
    if self.session.doomed then
      error(err, 0)
    end
    self.session:rollback()
    return
  end
  local row = result:row(1)
  if row then
    job:limit(row.limits)
    handle.held = row.want ~= "run" -- the worker's next batch meets it
  end
end

-- Sampling ------------------------------------------------------------------------------------------------

--- The handles as a list: while one is asked others may come and go.
local function list_of(self)
  local list = {}
  for handle in pairs(self.handles) do
    list[#list + 1] = handle
  end
  return list
end

local function look(self)
  local ok, err = connect(self)
  if not ok then
    error(err, 0)
  end
  local sample = common(self)
  for _, handle in ipairs(list_of(self)) do
    local mine = setmetatable({ vacuum = vacuum_of(handle.job, sample.vacuums), answer = own_answer(self, handle) },
      { __index = sample })
    handle.decision:look(mine)
    handle.wanted = nil
    read_wishes(self, handle)
  end
end

--- Takes one sample; a failure is told to the throttles and tried again.
function Sampler:sample()
  local ok, err = pcall(look, self)
  if not ok then
    local failure = error_.from(err)
    for handle in pairs(self.handles) do
      handle.decision:blind(failure.message)
      handle.wanted = nil
    end
    if self.session then
      self.session:close()
      self.session = nil
    end
    return failure
  end
end

--- Whether a sample is due, or somebody waits for one.
local function due(self, since)
  local now = task.now()
  for handle in pairs(self.handles) do
    if handle.wanted or now - since >= handle.decision:interval() then
      return true
    end
  end
  return false
end

local function loop(self)
  local since = task.now()
  while task.sleep(TICK) and not self.closed do
    if due(self, since) then
      self:sample()
      since = task.now()
    end
  end
  if self.session then
    self.session:close()
    self.session = nil
  end
end

-- Handles -------------------------------------------------------------------------------------------------

---@class moonbird.backfill.signals: moonbird.backfill.throttle
local Handle = {}
Handle.__index = Handle

--- What the next batch is to do.
---@return "ok"|"slow"|"stop"
---@return string|nil reason
---@return integer|nil pause
function Handle:verdict()
  self.job:check() -- the time of a run that waits is over, too
  if self.held then
    return "ok"
  end
  local level, reason, pause = self.decision:verdict(task.now())
  if self.decision.asked then
    self.wanted = true
  end
  return level, reason, pause
end

--- Takes other limits; they are looked at right away.
---@param options table
function Handle:configure(options)
  self.decision:configure(options)
  self.wanted = true
end

--- Ends it; the last one of a server ends the sampler.
function Handle:close()
  local sampler = self.sampler
  if not sampler.handles[self] then
    return
  end
  sampler.handles[self] = nil
  if next(sampler.handles) == nil then
    servers[sampler.key] = nil
    sampler.closed = true
    sampler.task:cancel() -- not waited for: that wait would take a request to stop that is meant for the run
  end
end

--- The throttle of a backfill. Takes the first sample, so that the first batch knows.
---@param job moonbird.backfill.job
---@return moonbird.backfill.signals
function M.throttle(job)
  local key = key_of(job.run)
  local sampler = servers[key]
  if not sampler then
    sampler = setmetatable({ key = key, run = job.run, handles = {}, told = {} }, Sampler)
    servers[key] = sampler
  end
  local handle = setmetatable({ job = job, sampler = sampler, decision = throttle_of.new(job.options) }, Handle)
  job.database = job.run.params.dbname
  sampler.handles[handle] = true
  if not sampler.task then
    sampler.task = task.spawn(loop, sampler)
  end
  handle.wanted = true
  local from = task.now()
  while not handle.decision.last and not handle.decision.problem and task.now() - from < throttle_of.STALE do
    local ok, err = task.sleep(TICK // 2)
    if not ok then
      handle:close()
      return nil, err
    end
  end
  return handle
end

return M
