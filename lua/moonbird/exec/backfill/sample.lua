--- One look at the server for the throttles of backfills: the queries, and what they give together.
--
-- What the role may not see is not known; that is told once.
local literal = require "moonbird.core.literal"
local task = require "moonbird.core.task"

local M = {}

-- Each in a transaction of its own, so that one that fails takes nothing else with it. Bytes of WAL as bigint, up to
-- what is inserted: batches don't wait for theirs to be written, and a standby will have to replay that, too.
local QUERIES = {
  wal = [[
    select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint as lsn,
           pg_has_role(current_user, 'pg_read_all_stats', 'usage') as sees]],
  standbys = [[
    select coalesce(nullif(application_name, ''), host(client_addr), 'pid ' || pid) as name,
           pg_wal_lsn_diff(pg_current_wal_insert_lsn(), replay_lsn)::bigint as bytes,
           (extract(epoch from replay_lag) * 1000)::float8 as ms
    from pg_stat_replication where state is distinct from 'backup' and state is distinct from 'startup']],
  slots = [[
    select slot_name::text as name, pg_wal_lsn_diff(pg_current_wal_insert_lsn(), restart_lsn)::bigint as bytes
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
    select count(*) filter (where state = 'active')::int as active,
           count(*) filter (where application_name not like 'moonbird/%' and (state = 'active'
             and coalesce(wait_event_type, '') not in ('Lock', 'Timeout', 'Client', 'Extension')
             or state_change > clock_timestamp() - interval '2 ms'))::int as busy
    from pg_stat_activity
    where backend_type = 'client backend' and pid <> pg_backend_pid() and pid <> all ($1::int[])]],
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
  -- Sleeps of 2 ms: when each began, since the statement did, and how long it was.
  delay = [[
    select (extract(epoch from slept - statement_timestamp()) * 1000)::float8 as began,
           (extract(epoch from woke - slept) * 1000)::float8 as took
    from (select clock_timestamp() as slept, pg_sleep(0.002), clock_timestamp() as woke
          from generate_series(1, 10)) as probes]],
}

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
---@param self moonbird.backfill.sampler connected
---@return table sample as throttle.lua takes them, without what is one backfill's own; `vacuums` are all tables'
function M.take(self)
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
  sample.blocked, sample.snapshot = blocked and blocked[1], snapshot and snapshot[1]
  if active and active[1] then
    sample.active, sample.busy = active[1].active, active[1].busy
  end
  sample.minutes = {}
  for _, zone in ipairs(zones) do -- one by one: a zone that the server does not know spoils no other
    local rows = ask(self, "minutes", { literal.array { zone } })
    sample.minutes[zone] = rows and rows[1] and rows[1].minute
  end
  return sample
end

--- Looks how late a session of the server gets its turn, for some 20 ms; raises when the server can't be reached.
---@param self moonbird.backfill.sampler connected
---@param at number milliseconds, now
---@return moonbird.backfill.probe[]|nil probes by the same clock; nil: the server does not let us
function M.probe(self, at)
  local rows = ask(self, "delay")
  if not rows then
    return nil
  end
  local probes = {}
  for i, row in ipairs(rows) do
    probes[i] = { from = at + row.began, took = row.took }
  end
  return probes
end

return M
