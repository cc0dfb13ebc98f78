--- Tries rows again that a backfill passed over (`backfill retry-errors`).
--
-- Each row gets a chunk of its own, from the key before it up to its own, in the pass RETRY; a batch of one row works
-- on it as on any chunk, so that the row and the chunk's "done" commit together. The row in backfill_error goes
-- afterwards; when that did not come about, the next retry sees the chunk that is done and does not try the row again.
local batch = require "moonbird.exec.backfill.batch"
local failure = require "moonbird.exec.backfill.failure"
local key_of = require "moonbird.exec.backfill.key"

local M = {}

-- The pass of the chunks of a retry: no backfill has it.
local RETRY = -1

--- The key before a row's, as JSON; nil when there is none.
local function before(job, session, relation, key)
  local place = job.place
  if place.key.ctid then
    local block, offset = key:match("%((%d+),(%d+)%)")
    return ('["(%d,%d)"]'):format(block, offset - 1)
  end
  local results, err = session:batch {
    job.target:settings_item({ lock = job.options.lock_timeout, statement = 0 }, true),
    { ("select %s::text from only %s as %s where %s < %s order by %s limit 1"):format(place.key.json, relation,
      place.alias, key_of.row(place.key), key_of.bound(place.key, "$1"), key_of.descending(place.key)), key },
  }
  if not results then
    return nil, err
  end
  return results[2]:value(1, 1)
end

--- Makes the chunks, after whoever is at an earlier retry's -> errors that are left, each with its chunk.
local function prepare(job, session)
  local q, target, version = job.store.quoted, job.state.target, job.state.version
  local errors, err = job.store:errors(session, target, version)
  if not errors then
    return nil, err
  end
  local items = {
    { "begin isolation level read committed read write" },
    { ("select from %s.backfill where target = $1 and version = $2 for update"):format(q), target, version },
    { ("select from %s.backfill_chunk where target = $1 and version = $2 and pass = $3 for update"):format(q), target,
      version, RETRY },
    { ("delete from %s.backfill_error e using %s.backfill_chunk c where e.target = $1 and e.version = $2 "
      .. "and c.target = $1 and c.version = $2 and c.pass = $3 and c.relation = e.relation and c.hi = e.key and c.done "
      .. "returning e.relation, e.key::text as key"):format(q, q), target, version, RETRY },
    { ("delete from %s.backfill_chunk where target = $1 and version = $2 and pass = $3"):format(q), target, version,
      RETRY },
  }
  local first = #items
  for i, row in ipairs(errors) do
    local lo
    lo, err = before(job, session, row.relation, row.key)
    if err then
      return nil, err
    end
    row.chunk = { ordinal = i, relation = row.relation, cur = lo, hi = row.key, failures = 0 }
    items[first + i] = { ("insert into %s.backfill_chunk (target, version, pass, ordinal, relation, lo, hi, cur) "
      .. "select $1, $2, $3, $4, $5, $6::jsonb, $7::jsonb, $6::jsonb where exists (select from %s.backfill_error where "
      .. "target = $1 and version = $2 and relation = $5 and key = $7::jsonb)"):format(q, q), target, version, RETRY, i,
      row.relation, lo, row.key, n = 7 }
  end
  items[#items + 1] = { "commit" }
  local results
  results, err = session:batch(items)
  if not results then
    session:rollback()
    return nil, err
  end
  local left = {}
  for i, row in ipairs(errors) do
    left[#left + 1] = results[first + i]:affected() > 0 and row or nil
  end
  return left
end

--- Works on one row's chunk to its end.
local function try(job, session, chunk)
  local changed = 0
  repeat
    local result, err = batch.run(job, session, chunk, 1)
    if not result then
      return nil, err
    end
    chunk.cur, chunk.done = result.cur, result.done
    changed = changed + result.changed
  until chunk.done
  return changed
end

--- Tries all of them once.
---@param job moonbird.backfill.job
---@param session moonbird.session idle
---@param tell? fun(row: table, err: moonbird.error|nil) called after each row
---@return { tried: integer, mended: integer, left: integer }|nil
---@return moonbird.error? err
function M.run(job, session, tell)
  local rows, err = prepare(job, session)
  if not rows then
    return nil, err
  end
  local q, state = job.store.quoted, job.state
  local pass = state.pass
  state.pass = RETRY
  local sum = { tried = #rows, mended = 0, left = 0 }
  for _, row in ipairs(rows) do
    local changed, why = try(job, session, row.chunk)
    local kind = not changed and failure.kind(why)
    local ok
    if changed then
      sum.mended = sum.mended + 1
      ok, err = session:query(("delete from %s.backfill_error where target = $1 and version = $2 and relation = $3 "
        .. "and key = $4::jsonb"):format(q), { state.target, state.version, row.relation, row.key })
    elseif kind == "row" or kind == "transient" then
      sum.left = sum.left + 1
      ok, err = session:query(("update %s.backfill_error set tries = tries + 1, sqlstate = $5, message = $6, "
        .. "at = clock_timestamp() where target = $1 and version = $2 and relation = $3 and key = $4::jsonb"):format(q),
        { state.target, state.version, row.relation, row.key, why.sqlstate, why.message }, 6)
    else
      ok, err = nil, why
    end
    if not ok then
      break
    end
    if tell then
      tell(row, why)
    end
  end
  state.pass = pass
  if err then
    return nil, err
  end
  return sum
end

return M
