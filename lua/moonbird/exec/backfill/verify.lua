--- Whether a backfill is done: no row may still match its `where`, but those it passed over on purpose.
local M = {}

-- Rows that are counted at most; there is no need to know how many millions are left.
M.MOST = 100000

---@class moonbird.backfill.left
---@field rows integer that still match, at most MOST
---@field more boolean there are more than that
---@field recorded integer of them stand in backfill_error

--- Counts what is left, table by table.
---@param job moonbird.backfill.job
---@param session moonbird.session
---@return moonbird.backfill.left|nil nil without an error: there is no `where` to ask with
---@return moonbird.error? err
function M.count(job, session)
  if not job.def.where then
    return nil
  end
  local place = job.place
  local total = { rows = 0, more = false, recorded = 0 }
  for _, leaf in ipairs(place.leaves) do
    -- What was passed over is known by its key; a ctid says nothing once a row has moved.
    local text = ([[
      with moonbird_left as materialized (
        select %s as key from only %s as %s where (%s
      ) limit $4)
      select count(*)::bigint, count(*) filter (where exists (select from %s.backfill_error e where e.target = $1
        and e.version = $2 and e.relation = $3 and e.key = l.key))::bigint from moonbird_left l]]):format(
      place.key.json, leaf.name, place.alias, job.def.where .. "\n", job.store.quoted)
    local results, err = session:batch {
      job.target:settings_item({ lock = job.options.lock_timeout, statement = 0 }, true),
      { text, job.state.target, job.state.version, leaf.name, M.MOST + 1 - total.rows },
    }
    if not results then
      return nil, err
    end
    total.rows = total.rows + results[2]:value(1, 1)
    total.recorded = total.recorded + results[2]:value(1, 2)
    if total.rows > M.MOST then
      total.rows, total.more = M.MOST, true
      break
    end
  end
  return total
end

return M
