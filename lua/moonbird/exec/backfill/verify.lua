--- Whether a backfill is done: no row may still match its `where`, but those it passed over on purpose.
local key_of = require "moonbird.exec.backfill.key"

local M = {}

-- Rows that are counted at most, beside those that are known; there is no need to know how many millions are left.
M.MOST = 100000

---@class moonbird.backfill.left
---@field rows integer that still match, at most MOST and those known
---@field more boolean there are more than that
---@field recorded integer of them stand in backfill_error
---@field beyond integer of them are above the end of the walk, in a table with a key: no batch of this pass met them

--- SQL that tells whether a row is above the end of the walk; $5 is that end, null where the pass had no chunk.
local function beyond(key)
  if key.ctid then
    return "$5::text is null and false" -- rows move there
  end
  return ("coalesce(%s > %s, true)"):format(key_of.row(key), key_of.bound(key, "$5"))
end

--- What was passed over is known by its key; a ctid says nothing once a row has moved.
local function count_text(job, leaf)
  local place = job.place
  return ([[
    with moonbird_left as materialized (
      select %s as key, %s as beyond from only %s as %s where (%s
    ) limit $4)
    select count(*)::bigint, count(*) filter (where exists (select from %s.backfill_error e where e.target = $1
      and e.version = $2 and e.relation = $3 and e.key = l.key))::bigint, count(*) filter (where l.beyond)::bigint
    from moonbird_left l]]):format(place.key.json, beyond(place.key), leaf.name, place.alias, job.def.where .. "\n",
    job.store.quoted)
end

--- Counts what is left, table by table.
---@param job moonbird.backfill.job
---@param session moonbird.session
---@param known? integer rows that may match
---@return moonbird.backfill.left|nil nil without an error: there is no `where` to ask with
---@return moonbird.error? err
function M.count(job, session, known)
  if not job.def.where then
    return nil
  end
  local ends, wrong = job.store:ends(session, job.state)
  if not ends then
    return nil, wrong
  end
  local most = M.MOST + (known or 0)
  local total = { rows = 0, more = false, recorded = 0, beyond = 0 }
  for _, leaf in ipairs(job.place.leaves) do
    local results, err = session:batch {
      job.target:settings_item({ lock = job.options.lock_timeout, statement = 0 }, true),
      { count_text(job, leaf), job.state.target, job.state.version, leaf.name, most + 1 - total.rows, ends[leaf.name],
        n = 5 },
    }
    if not results then
      return nil, err
    end
    total.rows = total.rows + results[2]:value(1, 1)
    total.recorded = total.recorded + results[2]:value(1, 2)
    total.beyond = total.beyond + results[2]:value(1, 3)
    if total.rows > most then
      total.rows, total.more = most, true
      break
    end
  end
  return total
end

return M
