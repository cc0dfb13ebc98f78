--- What many targets of one database have applied, in a fixed number of queries whatever their number.
--
-- Targets with the same history share one table of it: the server hashes each target's history, and each
-- different one is read once. Ten thousand tenants at the same version are two queries and ten thousand short
-- rows.
local json = require "moonbird.core.json"
local literal = require "moonbird.core.literal"

local M = {}

local function absent(err)
  return err.sqlstate == "42P01" or err.sqlstate == "3F000" or err.sqlstate == "42883"
end

local SUMMARY = [[
  with wanted as (select unnest($1::text[]) as target),
  last as (
    select distinct on (target, version) target, version, id, checksum, applies
    from %s.journal where applies is not null and target in (select target from wanted)
    order by target, version, ordinal desc),
  history as (
    select target, md5(string_agg(version || ' ' || id || ' ' || checksum, ',' order by version)) as hash
    from last where applies group by target),
  heads as (
    select target, max(ordinal) as head from %s.journal where target in (select target from wanted) group by target)
  select heads.target, heads.head, coalesce(history.hash, '') as hash from heads left join history using (target)]]

local APPLIED = [[
  select target, version, version_text, id, checksum, applies, ordinal, applied_ordinal, phase, scope
  from %s.state where target = any($1) and applies]]

local OPEN = [[
  select target, version, ordinal, event, checksum, direction, outcome, sqlstate, error, detail, run, host
  from %s.journal j where target = any($1) and applies is null and not exists (
    select from %s.journal s where s.target = j.target and s.version = j.version and s.ordinal > j.ordinal
      and s.applies is not null)
  order by target, ordinal]]

--- An empty history.
---@return table state as journal:read gives it
function M.empty()
  return { exists = true, format = 0, head = 0, applied = {}, open = {} }
end

local function read_applied(journal, session, rows)
  local samples, targets = {}, {}
  for _, row in ipairs(rows) do
    if row.hash ~= "" and not samples[row.hash] then
      samples[row.hash] = row.target
      targets[#targets + 1] = row.target
    end
  end
  local by_target = {}
  if #targets > 0 then
    local result, err = session:query(APPLIED:format(journal.quoted), { literal.array(targets) })
    if not result then
      return nil, err
    end
    for _, row in ipairs(result:rows()) do
      by_target[row.target] = by_target[row.target] or {}
      by_target[row.target][row.version] = row
    end
  end
  local by_hash = { [""] = {} }
  for hash, target in pairs(samples) do
    by_hash[hash] = by_target[target] or {}
  end
  return by_hash
end

--- Reads the states of targets. Those that have none are not in the answer.
---@param journal moonbird.journal
---@param session moonbird.session
---@param names string[]
---@return table<string, table>? states by target: { head, applied (shared, don't write), open }
---@return moonbird.error? err
function M.read(journal, session, names)
  local wanted = literal.array(names)
  local q = journal.quoted
  local result, err = session:query(SUMMARY:format(q, q), { wanted })
  if not result then
    if absent(err) then
      return {}
    end
    return nil, err
  end
  local rows = result:rows()
  local by_hash
  by_hash, err = read_applied(journal, session, rows)
  if not by_hash then
    return nil, err
  end
  local states = {}
  for _, row in ipairs(rows) do
    states[row.target] = { exists = true, format = 0, head = row.head, applied = by_hash[row.hash], open = {},
      hash = row.hash }
  end
  result, err = session:query(OPEN:format(q, q), { wanted })
  if not result then
    return nil, err
  end
  for _, row in ipairs(result:rows()) do
    row.detail = row.detail and json.decode(row.detail) or {}
    local state = states[row.target]
    if state then -- one that began in between is seen by enter()
      table.insert(state.open, row)
    end
  end
  return states
end

return M
