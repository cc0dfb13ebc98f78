--- The state of backfills: the statements on backfill, backfill_chunk and backfill_error (migrations/0002).
--
-- A batch shares its transaction with the statements of `enter_item` and `move`; everything else here runs in a
-- transaction of its own. Keys are the JSON text that the tables hold, and stay text here.
local absent = require "moonbird.core.absent"
local json = require "moonbird.core.json"
local literal = require "moonbird.core.literal"
local sql = require "moonbird.native.sql"

---@class moonbird.backfill.store
---@field quoted string the journal's schema
local M = {}
M.__index = M

--- SQLSTATEs of backfill_enter().
M.MOVED, M.HELD = "MB005", "MB006"

---@param journal moonbird.journal
---@return moonbird.backfill.store
function M.new(journal)
  local q = journal.quoted
  return setmetatable({ quoted = q, texts = {
    enter = ("select %s.backfill_enter($1, $2, $3, $4, $5::jsonb, $6)::text"):format(q),
  } }, M)
end

--- Rows of a query, `jsonb` columns named in `decode` as tables; none where this journal has no backfills yet.
local function rows_of(session, text, params, count, decode)
  return absent.rows(session, absent.table, text, params, count, decode)
end

---@class moonbird.backfill.state a row of backfill
---@field target string
---@field version integer
---@field id string
---@field mode string
---@field code string
---@field relation string
---@field key_columns string[]
---@field key_types string[]
---@field status "running"|"paused"|"done"|"failed"|"cancelled"
---@field want "run"|"pause"|"cancel"
---@field limits table<string, any> raw
---@field pass integer
---@field rows_estimated integer

--- A backfill's row.
---@param session moonbird.session
---@param target string
---@param version integer
---@return moonbird.backfill.state|nil|false false: there is none
---@return moonbird.error? err
function M:find(session, target, version)
  local rows, err = rows_of(session, ("select target, version, id, mode, code, relation, key_columns, key_types, "
    .. "status, want, limits, pass, rows_estimated, durable, run, host, sqlstate, error from %s.backfill "
    .. "where target = $1 and version = $2"):format(self.quoted), { target, version }, 2, { "limits" })
  if not rows then
    return nil, err
  end
  local row = rows[1]
  if not row then
    return false
  end
  row.key_columns, row.key_types = literal.decode_array(row.key_columns),
    literal.decode_array(row.key_types)
  return row
end

--- The statements that make a backfill with its chunks, for a transaction that is open; what was there of an
--- earlier run goes.
---@param state table columns of backfill
---@param chunks table[] columns of backfill_chunk
---@return table[] items for session:batch
function M:create_items(state, chunks)
  local q = self.quoted
  local items = {
    { ("delete from %s.backfill where target = $1 and version = $2"):format(q), state.target, state.version },
    { ("insert into %s.backfill (target, version, id, mode, code, relation, key_columns, key_types, status, "
      .. "rows_estimated, durable, run, host, os_user) values ($1, $2, $3, $4, $5, $6, $7::text[], $8::text[], "
      .. "'running', $9, $10, $11, $12, $13)"):format(q), state.target, state.version, state.id, state.mode,
      state.code, state.relation, literal.array(state.key_columns), literal.array(state.key_types),
      state.rows_estimated, state.durable, state.run, state.host, state.os_user, n = 13 },
  }
  table.move(self:chunk_items(state.target, state.version, 1, chunks), 1, #chunks, #items + 1, items)
  return items
end

--- The statements that add chunks.
---@param target string
---@param version integer
---@param pass integer
---@param chunks { relation: string, lo: string|nil, hi: string }[]
---@return table[] items
function M:chunk_items(target, version, pass, chunks)
  local items = {}
  local text = ("insert into %s.backfill_chunk (target, version, pass, ordinal, relation, lo, hi, cur) "
    .. "values ($1, $2, $3, $4, $5, $6::jsonb, $7::jsonb, $6::jsonb)"):format(self.quoted)
  for i, chunk in ipairs(chunks) do
    items[i] = { text, target, version, pass, i, chunk.relation, chunk.lo, chunk.hi, n = 7 }
  end
  return items
end

--- Begins the next pass over the table: the chunks that are there stay for their totals.
---@param session moonbird.session
---@param state moonbird.backfill.state
---@param chunks table[]
---@return true|nil
---@return moonbird.error? err
function M:next_pass(session, state, chunks)
  local items = { { ("update %s.backfill set pass = $3, updated_at = clock_timestamp() where target = $1 "
    .. "and version = $2 and pass = $3 - 1"):format(self.quoted), state.target, state.version, state.pass + 1 } }
  table.move(self:chunk_items(state.target, state.version, state.pass + 1, chunks), 1, #chunks, 2, items)
  local results, err = session:batch(items)
  if not results then
    return nil, err
  end
  state.pass = state.pass + 1
  return true
end

---@class moonbird.backfill.chunk
---@field ordinal integer
---@field relation string
---@field cur string|nil JSON
---@field hi string JSON
---@field failures integer
---@field batch integer|nil rows of its last batch

--- Finds a chunk to work on and marks it with the worker's name: one nobody is at, those of workers that are known
--- to be alive last of all. The mark is a hint; each batch takes the row's lock.
---@param session moonbird.session
---@param state moonbird.backfill.state
---@param worker string
---@param alive string[] names of the other workers of this process
---@return moonbird.backfill.chunk|nil|false false: there is none to be had now
---@return moonbird.error? err
function M:lease(session, state, worker, alive)
  local rows, err = rows_of(session, ([[
    update %s.backfill_chunk c set worker = $4
    where (target, version, pass, ordinal) = (
      select target, version, pass, ordinal from %s.backfill_chunk
      where target = $1 and version = $2 and pass = $3 and not done and next_try <= clock_timestamp()
        and (worker is null or worker <> all ($5::text[]))
      order by worker is not null and worker <> $4, ordinal limit 1 for update skip locked)
    returning ordinal, relation, cur::text, hi::text, failures, batch]]):format(self.quoted, self.quoted),
    { state.target, state.version, state.pass, worker, literal.array(alive) })
  if not rows then
    return nil, err
  end
  return rows[1] or false
end

--- Where the chunks of the pass end, table by table.
---@param session moonbird.session
---@param state moonbird.backfill.state
---@return table<string, string>|nil keys as JSON by the name of the leaf
---@return moonbird.error? err
function M:ends(session, state)
  local rows, err = rows_of(session, ("select distinct on (relation) relation, hi::text as hi from %s.backfill_chunk "
    .. "where target = $1 and version = $2 and pass = $3 order by relation, ordinal desc"):format(self.quoted),
    { state.target, state.version, state.pass })
  if not rows then
    return nil, err
  end
  local ends = {}
  for _, row in ipairs(rows) do
    ends[row.relation] = row.hi
  end
  return ends
end

--- How many chunks of the pass are not done, and how many of them are not of workers known to be alive.
---@param session moonbird.session
---@param state moonbird.backfill.state
---@param alive? string[]
---@return { left: integer, free: integer, wait_ms: integer }|nil wait_ms: until the next may be tried
---@return moonbird.error? err
function M:left(session, state, alive)
  local result, err = session:query(([[
    select count(*) as left,
           count(*) filter (where worker is null or worker <> all ($4::text[])) as free,
           greatest(0, coalesce(min(case when next_try = '-infinity' then 0
             else extract(epoch from next_try - clock_timestamp()) * 1000 end)
             filter (where worker is null or worker <> all ($4::text[])), 0))::bigint as wait_ms
    from %s.backfill_chunk where target = $1 and version = $2 and pass = $3 and not done]]):format(self.quoted),
    { state.target, state.version, state.pass, literal.array(alive or {}) })
  if not result then
    return nil, err
  end
  return result:row(1)
end

--- The statement that begins a batch: takes the lease, compares the cursor and the code, and gives the limits as JSON.
---@param state moonbird.backfill.state
---@param chunk moonbird.backfill.chunk
---@return table item
function M:enter_item(state, chunk)
  return { self.texts.enter, state.target, state.version, state.pass, chunk.ordinal, chunk.cur, state.code,
    n = 6 }
end

--- The assignments that move a chunk, with its counters; `%s` of the caller are SQL.
---@param seen string SQL of the number of rows looked at
---@param changed string
---@param skipped string
---@param cur string SQL of the new cursor
---@param done string
---@param batch string
---@return string
function M.moving(seen, changed, skipped, cur, done, batch)
  return ("cur = %s, done = %s, rows_seen = rows_seen + %s, rows_changed = rows_changed + %s, rows_skipped = "
    .. "rows_skipped + %s, batches = batches + 1, batch = %s, failures = 0, busy_ms = busy_ms + extract(epoch from "
    .. "clock_timestamp() - transaction_timestamp()) * 1000, updated_at = clock_timestamp()")
    :format(cur, done, seen, changed, skipped, batch)
end

--- Which chunk, as SQL.
---@param state moonbird.backfill.state
---@param chunk moonbird.backfill.chunk
---@return string
function M.which(state, chunk)
  return ("target = %s and version = %d and pass = %d and ordinal = %d"):format(sql.literal(state.target),
    state.version, state.pass, chunk.ordinal)
end

--- The statement that moves a chunk at the end of a batch.
---@param state moonbird.backfill.state
---@param chunk moonbird.backfill.chunk
---@param result { seen: integer, changed: integer, skipped: integer, cur: string|nil, done: boolean }
---@return table item
function M:move_item(state, chunk, result)
  return { ("update %s.backfill_chunk set %s where %s"):format(self.quoted,
    M.moving("$1::bigint", "$2::bigint", "$3::bigint", "$4::jsonb", "$5::boolean", "$1::integer"),
    M.which(state, chunk)), result.seen, result.changed, result.skipped, result.cur, result.done, n = 5 }
end

--- Puts a chunk aside for a while.
---@param session moonbird.session
---@param state moonbird.backfill.state
---@param chunk moonbird.backfill.chunk
---@param ms integer
---@return true|nil
---@return moonbird.error? err
function M:put_aside(session, state, chunk, ms)
  local result, err = session:query(("update %s.backfill_chunk set worker = null, failures = failures + 1, "
    .. "next_try = clock_timestamp() + $1 * interval '1 millisecond' where %s and not done")
    :format(self.quoted, M.which(state, chunk)), { ms })
  return result and true, err
end

--- Takes a worker's name off its chunks.
---@param session moonbird.session
---@param state moonbird.backfill.state
---@param worker string
---@return true|nil
---@return moonbird.error? err
function M:release(session, state, worker)
  local result, err = session:query(("update %s.backfill_chunk set worker = null where target = $1 and version = $2 "
    .. "and pass = $3 and worker = $4 and not done"):format(self.quoted),
    { state.target, state.version, state.pass, worker })
  return result and true, err
end

--- The statements that record a row that can't be changed, unless there are as many others as may be: the second
--- one's result has no row then.
---@param state moonbird.backfill.state
---@param chunk moonbird.backfill.chunk
---@param key string JSON
---@param err moonbird.error
---@param most integer
---@return table[] items
function M:poison_items(state, chunk, key, err, most)
  local q = self.quoted
  return {
    { ("select from %s.backfill where target = $1 and version = $2 for update"):format(q), state.target,
      state.version },
    { ("insert into %s.backfill_error (target, version, relation, key, sqlstate, message) "
      .. "select $1, $2, $3, $4::jsonb, $5, $6 where (select count(*) from %s.backfill_error where target = $1 "
      .. "and version = $2 and (relation, key) <> ($3, $4::jsonb)) < $7 "
      .. "on conflict (target, version, relation, key) do update set tries = backfill_error.tries + 1, "
      .. "sqlstate = excluded.sqlstate, message = excluded.message, at = clock_timestamp() returning 1")
      :format(q, q), state.target, state.version, chunk.relation, key, err.sqlstate, err.message, most, n = 7 },
  }
end

--- What stands in backfill_error.
---@param session moonbird.session
---@param target string
---@param version integer
---@return { relation: string, key: string, sqlstate: string, message: string, tries: integer, at: string }[]|nil
---@return moonbird.error? err
function M:errors(session, target, version)
  return rows_of(session, ("select relation, key::text as key, sqlstate, message, tries, to_char(at at time zone "
    .. "'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') as at from %s.backfill_error where target = $1 and version = $2 "
    .. "order by relation, key"):format(self.quoted), { target, version })
end

--- Says where a backfill is, and who works on it.
---@param session moonbird.session
---@param target string
---@param version integer
---@param fields { status: string, run?: string, host?: string, os_user?: string, code?: string,
---       sqlstate?: string, error?: string, want?: string }
---@return true|nil
---@return moonbird.error? err
function M:set_status(session, target, version, fields)
  local results, err = session:batch { self:status_item(target, version, fields) }
  return results and true, err
end

--- The same as a statement.
---@param target string
---@param version integer
---@param fields table
---@return table item
function M:status_item(target, version, fields)
  return { ("update %s.backfill set status = $3, run = coalesce($4, run), host = coalesce($5, host), "
    .. "os_user = coalesce($6, os_user), code = coalesce($7, code), sqlstate = $8, error = $9, "
    .. "want = coalesce($10, want), updated_at = clock_timestamp(), finished_at = case when $3 = 'done' then "
    .. "clock_timestamp() end where target = $1 and version = $2"):format(self.quoted), target, version,
    fields.status, fields.run, fields.host, fields.os_user, fields.code, fields.sqlstate, fields.error, fields.want,
    n = 10 }
end

--- Says where a run left a backfill, unless another one is at work: a chunk bears the mark of its worker, and moved in
--- the last seconds. The rest between two batches is 5 s at most.
---@param session moonbird.session
---@param state moonbird.backfill.state
---@param fields table as of set_status()
---@param run string the run that leaves
---@return true|nil
---@return moonbird.error? err
function M:leave(session, state, fields, run)
  local item = self:status_item(state.target, state.version, fields)
  item[1] = ("%s and not exists (select from %s.backfill_chunk where target = $1 and version = $2 and not done "
    .. "and split_part(worker, '/', 1) <> left($11, 12) and updated_at > clock_timestamp() - interval '15 seconds')")
    :format(item[1], self.quoted)
  item[12], item.n = run, 11
  local results, err = session:batch { item }
  return results and true, err
end

--- The statement that says that a backfill is done; it changes no row when chunks are left, or when the backfill was
--- begun anew with other code.
---@param state moonbird.backfill.state
---@return table item
function M:done_item(state)
  return { ("update %s.backfill b set status = 'done', sqlstate = null, error = null, updated_at = clock_timestamp(), "
    .. "finished_at = clock_timestamp() where target = $1 and version = $2 and code = $3 and not exists (select from "
    .. "%s.backfill_chunk c where c.target = b.target and c.version = b.version and c.pass = b.pass and not c.done)")
    :format(self.quoted, self.quoted), state.target, state.version, state.code }
end

--- Says what a backfill is to do: its workers see it in their next batch.
---@param session moonbird.session
---@param target string
---@param version integer
---@param want "run"|"pause"|"cancel"
---@param by string who says so
---@return boolean|nil found
---@return moonbird.error? err
function M:set_want(session, target, version, want, by)
  local result, err = session:query(("update %s.backfill set want = $3, want_by = $4, updated_at = clock_timestamp() "
    .. "where target = $1 and version = $2"):format(self.quoted), { target, version, want, by })
  if not result then
    return nil, err
  end
  return result:affected() > 0
end

--- Changes limits: its workers see them in their next batch. A limit that is json.null goes back to what the
--- migration says.
---@param session moonbird.session
---@param target string
---@param version integer
---@param limits table<string, any> raw values by the names of options
---@return boolean|nil found
---@return moonbird.error? err
function M:set_limits(session, target, version, limits)
  local result, err = session:query(("update %s.backfill set limits = jsonb_strip_nulls(limits || $3::jsonb), "
    .. "updated_at = clock_timestamp() where target = $1 and version = $2"):format(self.quoted),
    { target, version, json.encode(limits) })
  if not result then
    return nil, err
  end
  return result:affected() > 0
end

--- Where backfills are: rows of the view backfill_progress.
---@param session moonbird.session
---@param target? string default all
---@param version? integer default all
---@return table[]|nil
---@return moonbird.error? err
function M:progress(session, target, version)
  return rows_of(session, ("select target, version, id, mode, relation, status, want, want_by, limits, pass, "
    .. "rows_estimated, extract(epoch from started_at)::float8 as started_at, "
    .. "extract(epoch from finished_at)::float8 as finished_at, "
    .. "extract(epoch from clock_timestamp() - last_batch_at)::float8 as idle_s, run, host, os_user, sqlstate, error, "
    .. "rows_seen, rows_changed, rows_skipped, pass_skipped, batches, busy_ms, chunks, chunks_done, errors, share, "
    .. "batch, throttle "
    .. "from %s.backfill_progress where ($1::text is null or target = $1) and ($2::bigint is null or version = $2) "
    .. "order by target, version"):format(self.quoted), { target, version }, 2, { "limits", "throttle" })
end

--- How far those backfills of all targets are that have begun and are not done.
---@param session moonbird.session
---@return table[]|nil rows of the view backfill_progress, without what is only shown of a single one
---@return moonbird.error? err
function M:unfinished(session)
  return rows_of(session, ("select target, version, id, status, want, want_by, error, rows_seen, rows_estimated, "
    .. "share, extract(epoch from clock_timestamp() - last_batch_at)::float8 as idle_s from %s.backfill_progress "
    .. "where status <> 'done' order by target, version"):format(self.quoted))
end

--- Keeps what the throttle says, for whoever looks.
---@param session moonbird.session
---@param target string
---@param version integer
---@param said { level: string, reason?: string, lag_bytes?: integer }
---@return true|nil
---@return moonbird.error? err
function M:set_throttle(session, target, version, said)
  local result, err = session:query(("update %s.backfill set throttle = $3::jsonb where target = $1 and version = $2")
    :format(self.quoted), { target, version, json.encode(said) })
  return result and true, err
end

return M
