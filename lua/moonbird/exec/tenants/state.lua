--- What many targets of one database have applied, in a fixed number of queries whatever their number.
--
-- Targets with the same history share one table of it: the server hashes each target's history, and each
-- different one is read once. Ten thousand tenants at the same version are two queries and ten thousand short
-- rows.
local absent = require "moonbird.core.absent"
local json = require "moonbird.core.json"
local literal = require "moonbird.core.literal"
local sha256 = require "moonbird.core.sys".sha256

local M = {}

-- string_agg takes the versions as `last` sorts them: an ORDER BY of its own costs a third of the query before 16.
-- Equal hashes are of equal histories in whatever order.
local SUMMARY = [[
  with wanted as (select unnest($1::text[]) as target),
  last as (
    select distinct on (target, version) target, version, id, checksum, applies
    from %s.journal where applies is not null and target in (select target from wanted)
    order by target, version, ordinal desc),
  history as (
    select target, md5(string_agg(version || ' ' || id || ' ' || checksum, ',')) as hash
    from last where applies group by target),
  heads as (
    select target, max(ordinal) as head from %s.journal where target in (select target from wanted) group by target)
  select heads.target, heads.head, coalesce(history.hash, '') as hash from heads left join history using (target)]]

-- Where all tenants have one history, which is the usual case: is that so, and are they the ones we think of?
local UNIFORM = [[
  with last as (
    select distinct on (target, version) target, version, id, checksum, applies
    from %s.journal where applies is not null and target <> 'global' and target not like '@%%'
    order by target, version, ordinal desc),
  history as (
    select target, md5(string_agg(version || ' ' || id || ' ' || checksum, ',')) as hash
    from last where applies group by target)
  select min(hash) as hash, min(target) as target,
    (select max(ordinal) from %s.journal where target = (select min(target) from history)) as head,
    encode(sha256(convert_to(string_agg(target, ',' order by target collate "C"), 'UTF8')), 'hex') as names
  from history having min(hash) = max(hash)]]

-- As of the heads that the hashes are of: a target that moves on between the two statements would lend its newer
-- history to all that are still where it was.
local APPLIED = [[
  select * from (
    select distinct on (target, version) target, version, version_text, id, checksum, applies, ordinal, phase, scope,
           max(ordinal) filter (where event in ('apply', 'baseline') or detail->>'action' = 'mark applied')
             over (partition by target, version) as applied_ordinal
    from %s.journal join unnest($1::text[], $2::bigint[]) as sample(target, head) using (target)
    where applies is not null and ordinal <= head order by target, version, ordinal desc) last
  where applies]]

local OPEN = [[
  select target, version, version_text, id, ordinal, event, checksum, direction, outcome, sqlstate, error, detail, run,
         host
  from %s.journal j where target <> 'global' and target not like '@%%' and applies is null and not exists (
    select from %s.journal s where s.target = j.target and s.version = j.version and s.ordinal > j.ordinal
      and s.applies is not null)
  order by target, ordinal]]

--- An empty history.
---@return table state as journal:read gives it
function M.empty()
  return { exists = true, format = 0, head = 0, applied = {}, open = {}, hash = "" }
end

local function read_applied(journal, session, rows)
  local samples, targets, heads = {}, {}, {}
  for _, row in ipairs(rows) do
    if row.hash ~= "" and not samples[row.hash] then
      samples[row.hash] = row.target
      targets[#targets + 1], heads[#heads + 1] = row.target, row.head
    end
  end
  local by_target = {}
  if #targets > 0 then
    local result, err = session:query(APPLIED:format(journal.quoted), { literal.array(targets), literal.array(heads) })
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

--- The one state that all of a database's tenants have; nil when they differ, when some are not in the journal, or
--- when something was left open. Its head is not known.
---@param journal moonbird.journal
---@param session moonbird.session
---@param names string[] in the order of their bytes
---@return table? state
---@return moonbird.error? err
function M.uniform(journal, session, names)
  local q = journal.quoted
  local result, err = session:query(UNIFORM:format(q, q))
  if not result then
    return nil, not absent.any(err) and err or nil
  end
  local row = result:row(1)
  if not row or row.names ~= sha256(table.concat(names, ",")) then
    return nil
  end
  result, err = session:query(OPEN:format(q, q) .. " limit 1")
  if not result or result:count() > 0 then
    return nil, err
  end
  local by_hash
  by_hash, err = read_applied(journal, session, { row })
  if not by_hash then
    return nil, err
  end
  return { exists = true, format = 0, applied = by_hash[row.hash], open = {}, hash = row.hash }
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
    if absent.any(err) then
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
  result, err = session:query(OPEN:format(q, q))
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
