--- The journal: reading a target's state, and the statements that enter a target and append to it.
--
-- The mechanism is in the database (migrations/*.sql): enter() is the one door, record() the one way to
-- add an event. Here is only how they are called, so that a step and its event share a transaction.
local absent = require "moonbird.core.absent"
local sql = require "moonbird.native.sql"
local json = require "moonbird.native.json"
local error_ = require "moonbird.core.error"
local literal = require "moonbird.core.literal"

---@class moonbird.journal
---@field schema string
---@field quoted string
local M = {}
M.__index = M

--- The target under which the journal's own schema is journaled.
M.SELF = "@journal"

--- A journal in a schema. Opens nothing.
---@param schema string
---@return moonbird.journal
function M.new(schema)
  local quoted = sql.ident(schema)
  return setmetatable({ schema = schema, quoted = quoted, texts = {
    enter = ("select %s.enter($1, $2)"):format(quoted),
    record = ("select %s.record($1, $2, $3::jsonb)"):format(quoted),
  } }, M)
end

---@class moonbird.journal.state
---@field exists boolean whether the database has a journal
---@field format integer newest migration of the journal's own schema that is applied (0: none)
---@field head integer ordinal of the target's last event, 0 for none
---@field applied table<integer, table> version -> row of the view `state`
---@field open table[] events no later one of the same version settles: failures, half-done steps

-- Columns of an applied version: what a plan needs, and what is only shown.
local BRIEF = "target, version, version_text, id, checksum, applies, ordinal, applied_ordinal, phase, scope"
local FULL = BRIEF .. ", name, compatibility, event, applied_by, engine, "
  .. "(extract(epoch from finished_at) * 1000)::bigint as finished_ms, "
  .. "(extract(epoch from finished_at - started_at) * 1000)::float8 as duration_ms"

--- Reads a target's state in one round trip.
---@param session moonbird.session
---@param target string
---@param full? boolean also what is only shown
---@return moonbird.journal.state|nil
---@return moonbird.error? err
function M:read(session, target, full)
  local q = self.quoted
  local results, err = session:batch {
    -- First, so that it is never newer than what follows: an event that comes in between makes enter() say
    -- that the history moved.
    { ("select coalesce(max(ordinal), 0) from %s.journal where target = $1"):format(q), target },
    { ("select %s from %s.state where target in ($1, $2)"):format(full and FULL or BRIEF, q), target, M.SELF },
    { ("select version, version_text, id, ordinal, event, checksum, direction, outcome, sqlstate, error, detail, "
      .. "run, host, (extract(epoch from finished_at) * 1000)::bigint as finished_ms from %s.journal j "
      .. "where target = $1 and applies is null and not exists (select from %s.journal s where "
      .. "s.target = j.target and s.version = j.version and s.ordinal > j.ordinal and s.applies is not null) "
      .. "order by ordinal"):format(q, q), target },
  }
  if not results then
    if absent.any(err) then
      return { exists = false, format = 0, head = 0, applied = {}, open = {} }
    end
    return nil, err
  end
  local state = { exists = true, format = 0, head = results[1]:value(1, 1), applied = {},
    open = results[3]:rows() }
  local rows = results[2]
  for i = 1, rows:count() do
    local row = rows:row(i)
    if row.target ~= target then
      state.format = math.max(state.format, row.applies and row.version or 0)
    else
      state.applied[row.version] = row.applies and row or nil
    end
  end
  for _, row in ipairs(state.open) do
    row.detail = row.detail and json.decode(row.detail) or {}
  end
  return state
end

--- The fingerprint of what is applied to a target, when nothing else is to be looked at: nothing is left
--- open and the journal's schema is as this engine knows it. One round trip, one row.
---@param session moonbird.session
---@param target string
---@param known integer newest migration of the journal's schema that this engine carries
---@return string|false|nil fingerprint false: look closer (also where there is no journal yet)
---@return moonbird.error? err
function M:fingerprint(session, target, known)
  local q = self.quoted
  local result, err = session:query(([[
    select %s.fingerprint($1)
    where not exists (select from %s.journal j where target = $1 and applies is null and not exists (
        select from %s.journal s where s.target = j.target and s.version = j.version
          and s.ordinal > j.ordinal and s.applies is not null))
      and $3 = (select max(version) from %s.state where target = $2 and applies)]]):format(q, q, q, q),
    { target, M.SELF, known })
  if result then
    return result:value(1, 1) or false
  elseif absent.any(err) then
    return false
  end
  return nil, err
end

--- The engine that wrote the newest version of the journal's schema.
---@param session moonbird.session
---@return string|nil
function M:writer(session)
  local result = session:query(("select engine from %s.state where target = $1 and applies "
    .. "order by version desc limit 1"):format(self.quoted), { M.SELF })
  return result and result:value(1, 1)
end

--- The statement that takes the target's lock until the end of the transaction and checks the head.
---@param target string
---@param head integer
---@return table item for session:batch
function M:enter_item(target, head)
  return { self.texts.enter, target, head }
end

--- The same as SQL text.
---@param target string
---@param head integer
---@return string
function M:enter_text(target, head)
  return ("select %s.enter(%s, %d)"):format(self.quoted, sql.literal(target), head)
end

--- The statement that keeps the target's lock for as long as the session lives, as SQL text: in the transaction that
--- has entered, so that nobody comes between.
---@param target string
---@return string
function M:keep_text(target)
  return ("select pg_advisory_lock(%s.lock_key(%s))"):format(self.quoted, sql.literal(target))
end

--- The statement that gives that lock up.
---@param target string
---@return table item
function M:let_go_item(target)
  return { ("select pg_advisory_unlock(%s.lock_key($1))"):format(self.quoted), target }
end

--- The target name under which enter_unit() locks.
---@param target string
---@return string
function M.unit_lock(target)
  return "@unit/" .. target
end

--- The statement that takes the lock of enter_unit() for as long as the session lives: what is sent outside any
--- transaction may still be at work after its client died.
---@param target string
---@return table item giving one boolean
function M:hold_unit_item(target)
  return { ("select pg_try_advisory_lock(%s.lock_key($1))"):format(self.quoted), M.unit_lock(target) }
end

--- The call that marks a transaction as part of a target's step, as SQL text without SELECT.
---@param target string
---@return string
function M:unit_call(target)
  return ("%s.enter_unit(%s)"):format(self.quoted, sql.literal(target))
end

--- The statement that appends an event.
---@param target string
---@param ordinal integer the ordinal it must get
---@param event table|string columns of the journal, `detail` a table; or the same as JSON
---@return table item for session:batch
function M:record_item(target, ordinal, event)
  return { self.texts.record, target, ordinal, type(event) == "string" and event or json.encode(event) }
end

--- The same as SQL text, for blocks that are sent whole.
---@param target string
---@param ordinal integer
---@param event table
---@return string
function M:record_text(target, ordinal, event)
  return ("select %s.record(%s, %d, %s::jsonb)"):format(self.quoted, sql.literal(target), ordinal,
    sql.literal(json.encode(event)))
end

--- Appends an event in a transaction of its own, behind the door.
---@param session moonbird.session idle
---@param target string
---@param head integer
---@param event table
---@return true|nil
---@return moonbird.error? err
function M:append(session, target, head, event)
  local results, err = session:batch {
    self:enter_item(target, head),
    self:record_item(target, head + 1, event),
  }
  if not results then
    return nil, err
  end
  return true
end

--- The statement that tries the target's lock before the journal (and so enter()) exists.
---@param target string
---@return table item giving one boolean
function M:try_lock_item(target)
  return { "select pg_try_advisory_xact_lock(hashtextextended($1, 0))",
    "moonbird/" .. self.schema .. "/" .. target }
end

--- Who holds locks of targets, if somebody does.
---@param session moonbird.session
---@param names string[] targets, or what unit_lock() gives
---@return table<string, table>|nil by name { pid, application, client, state, since_s, user }
---@return moonbird.error? err
function M:holders(session, names)
  local result, err = session:query([[
    select k.name, a.pid, a.application_name as application, coalesce(host(a.client_addr), 'local') as client,
           a.state, a.usename as user, extract(epoch from now() - a.xact_start)::float8 as since_s
    from pg_locks l join pg_stat_activity a on a.pid = l.pid
      join (select name, hashtextextended($2 || name, 0) as key from unnest($1::text[]) as name) k
        on (l.classid::bigint << 32) | l.objid::bigint = k.key
    where l.locktype = 'advisory' and l.granted and l.objsubid = 1
      and l.database = (select oid from pg_database where datname = current_database())]],
    { literal.array(names), "moonbird/" .. self.schema .. "/" })
  if not result then
    return nil, err
  end
  local holders = {}
  for _, row in ipairs(result:rows()) do
    holders[row.name], row.name = row, nil
  end
  return holders
end

--- Who holds a target's lock, if somebody does.
---@param session moonbird.session
---@param target string
---@return table|nil holder as of holders(); nil when nobody does
---@return moonbird.error? err
function M:holder(session, target)
  local holders, err = self:holders(session, { target })
  return holders and holders[target], err
end

--- At which targets a run is at work, or what one that died has left at work in the server.
---@param session moonbird.session
---@param targets string[]
---@return table<string, table>|nil by target, as of holders()
---@return moonbird.error? err
function M:busy(session, targets)
  local names = {}
  for i, target in ipairs(targets) do
    names[2 * i - 1], names[2 * i] = target, M.unit_lock(target)
  end
  local holders, err = self:holders(session, names)
  if not holders then
    return nil, err
  end
  local busy = {}
  for _, target in ipairs(targets) do
    busy[target] = holders[target] or holders[M.unit_lock(target)]
  end
  return busy
end

--- Events of some targets or of all, newest first.
---@param session moonbird.session
---@param targets? string[]
---@param limit? integer
---@return table[]|nil
---@return moonbird.error? err
function M:history(session, targets, limit)
  return absent.rows(session, absent.any, ([[
    select seq, target, ordinal, event, applies, version, version_text, id, name, direction, phase, scope,
           compatibility, checksum, outcome, to_char(started_at at time zone 'UTC',
           'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as started_at, to_char(finished_at at time zone 'UTC',
           'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as finished_at,
           (extract(epoch from finished_at - started_at) * 1000)::float8 as duration_ms, applied_by,
           os_user, host, git_commit, ci_run, engine, run, plan, sqlstate, error, detail, prev_hash, hash
    from %s.journal where ($1::text[] is null or target = any($1)) and target <> '@journal'
    order by seq desc limit $2]]):format(self.quoted), { targets and literal.array(targets), limit }, 2,
    { "detail" })
end

--- Checks the hash chains.
---@param session moonbird.session
---@param target? string
---@return table[]|nil problems { target, ordinal, problem }; empty when every chain holds
---@return moonbird.error? err
function M:verify(session, target)
  return absent.rows(session, absent.any, ("select target, ordinal, problem from %s.verify($1)")
    :format(self.quoted), { target }, 1)
end

--- An error when the journal is newer than this engine understands.
---@param session moonbird.session
---@param state moonbird.journal.state
---@param known integer newest migration of the journal's schema that this engine carries
---@return moonbird.error|nil
function M:too_new(session, state, known)
  if state.format > known then
    return error_.new("journal_newer", ("the journal is at version %d, this moonbird knows %d")
      :format(state.format, known), { hint = ("use moonbird %s or newer"):format(self:writer(session) or "?") })
  end
end

return M
