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
local TICK, STATEMENT_MS = 20, 4000

-- How long a worker waits for a sample near a limit; then it goes on to ask, as while it is stopped.
local FRESH_MS = 2000

-- How often what is said is written down at most, but for its level.
local NOTE_MS = 2000

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
  local at = task.now()
  local wal = ask(self, "wal")
  local sample = { at = at, lsn = wal and wal[1] and wal[1].lsn, standbys = ask(self, "standbys"),
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
  local said = type(reason) == "string" and reason ~= ""
  return { level = level, reason = said and reason or "its throttle function says so" }
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

--- Whether a backfill's state is in the database that the sampler is connected to.
local function reaches(self, job)
  return key_of(job.run) == self.key and job.run.params.dbname == self.run.params.dbname
end

--- Runs a statement on the state's tables; its failure is none of the sample's unless the connection went.
local function on_state(self, result, err)
  if not result and self.session.doomed then
    error(err, 0)
  elseif not result then
    self.session:rollback()
  end
  return result
end

--- While no batch runs nobody reads what other terminals want: it is read here.
local function read_wishes(self, handle)
  local job = handle.job
  handle.held = false
  if handle.decision.level ~= "stop" or not reaches(self, job) then
    return
  end
  local result = on_state(self, self.session:query(("select want, limits::text as limits from %s.backfill "
    .. "where target = $1 and version = $2"):format(job.store.quoted), { job.state.target, job.state.version }))
  local row = result and result:row(1)
  if row then
    job:limit(row.limits)
    handle.held = row.want ~= "run" -- the worker's next batch meets it
  end
end

--- Writes down what the throttle says, for those who look from elsewhere.
local function note(self, handle)
  local decision, job = handle.decision, handle.job
  local said = { level = decision.level, reason = decision.reason, lag_bytes = decision.lag }
  local before, now = handle.noted or {}, task.now()
  local news = said.level ~= before.level or said.reason ~= before.reason or said.lag_bytes ~= before.lag_bytes
  if news and (said.level ~= before.level or now - handle.noted_at >= NOTE_MS) and reaches(self, job) then
    handle.noted, handle.noted_at = said, now
    on_state(self, job.store:set_throttle(self.session, job.state.target, job.state.version, said))
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
    note(self, handle)
  end
  self.count.issued = 0
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

--- Waits for a sample that was begun after now -> whether one came.
local function fresh(self)
  local decision, from = self.decision, task.now()
  while decision.last.at < from do
    if task.now() - from > FRESH_MS or self.job.stopping then
      return false
    end
    self.wanted = true
    task.sleep(TICK // 2) -- a request to stop is in job.stopping, too
  end
  return true
end

--- What the next batch is to do. Near the limit of a standby it waits for a look at the server.
---@return "ok"|"slow"|"stop"
---@return string|nil reason
---@return integer|nil pause
function Handle:verdict()
  local decision = self.decision
  self.job:check() -- the time of a run that waits is over, too
  if self.held then
    return "ok"
  elseif decision.last and decision.level ~= "stop" and decision:near() and not fresh(self) then
    return "stop", ("waits to see how far standby %s is"):format(decision.lag_of or "?")
  end
  return decision:verdict(task.now())
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
  sampler:end_unless_used()
end

--- Ends the sampler when nobody needs it.
function Sampler:end_unless_used()
  if next(self.handles) == nil and self.kept == 0 and not self.closed then
    servers[self.key] = nil
    self.closed = true
    self.task:cancel() -- not waited for: that wait would take a request to stop that is meant for the run
  end
end

local function sampler_of(run)
  local key = key_of(run)
  local sampler = servers[key]
  if not sampler then
    sampler = setmetatable({ key = key, run = run, handles = {}, told = {}, kept = 0, decisions = {},
      count = { issued = 0 } }, Sampler)
    servers[key] = sampler
    sampler.task = task.spawn(loop, sampler)
  end
  return sampler
end

--- Keeps the sampler of a server, with what it has learnt, while backfills come and go.
---@param run moonbird.run
---@return fun() release
function M.keep(run)
  local sampler = sampler_of(run)
  sampler.kept = sampler.kept + 1
  return function()
    sampler.kept = sampler.kept - 1
    sampler:end_unless_used()
  end
end

--- The throttle of a backfill. Waits for the first sample, so that the first batch knows.
---@param job moonbird.backfill.job
---@return moonbird.backfill.signals|nil
---@return moonbird.error? err when the task is cancelled
function M.throttle(job)
  local sampler = sampler_of(job.run)
  local name = ("%s\0%d\0%s"):format(job.state.target, job.state.version, job.run.params.dbname or "")
  local decision = sampler.decisions[name]
  if decision then
    decision:configure(job.options)
  else
    decision = throttle_of.new(job.options, sampler.count)
    sampler.decisions[name] = decision
  end
  local handle = setmetatable({ job = job, sampler = sampler, decision = decision }, Handle)
  job.database = job.run.params.dbname
  sampler.handles[handle] = true
  handle.wanted = true
  local from, looks = task.now(), decision.looks
  decision.problem = nil
  while decision.looks == looks and not decision.problem and task.now() - from < throttle_of.STALE do
    local ok, err = task.sleep(TICK)
    if not ok then
      handle:close()
      return nil, err
    end
  end
  return handle
end

return M
