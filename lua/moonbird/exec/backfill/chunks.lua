--- Cuts the tables into chunks: ranges of the key that workers lease one by one.
--
-- A chunk is some hundred batches, so that its row does not collect old versions without end while somebody's old
-- snapshot keeps them, and so that workers that are done find something to do. The bounds are keys out of a sample
-- of the table's pages, the last bound is the largest key there is now: nothing is read twice, and rows that come
-- later are not waited for. Holes in the key cost nothing, because no bound is computed from another.
local key_of = require "moonbird.exec.backfill.key"

local M = {}

M.ROWS = 200000 -- of a chunk, about
local LEAST = 1000 -- rows that are worth a chunk of their own
local MOST = 1000 -- chunks of one table
local A_WORKER = 4 -- chunks for each worker, where there are rows for them
local SAMPLE_PAGES = 400
local A_PAGE = 40 -- rows, where the statistics say nothing

--- How many chunks a table is cut into.
---@param rows integer
---@param workers integer
---@return integer
function M.pieces(rows, workers)
  local pieces = math.max(rows // M.ROWS, workers > 1 and math.min(workers * A_WORKER, rows // LEAST) or 0)
  return math.max(1, math.min(MOST, pieces))
end

--- Rows of a table: the statistics', or a guess by its size.
---@param leaf moonbird.backfill.leaf
---@return integer
function M.estimate(leaf)
  return leaf.rows > 0 and leaf.rows or leaf.pages * A_PAGE
end

local function by_ctid(leaf, workers)
  local chunks = {}
  local pieces = math.max(1, math.min(leaf.pages, M.pieces(M.estimate(leaf), workers)))
  local lo = 0
  for i = 1, leaf.pages > 0 and pieces or 0 do
    local hi = leaf.pages * i // pieces -- pages below it; offset 0 is no row's
    chunks[i] = { relation = leaf.name, lo = ('["(%d,0)"]'):format(lo), hi = ('["(%d,0)"]'):format(hi) }
    lo = hi
  end
  return chunks
end

--- The largest key of a table, as JSON; nil when it is empty.
local function largest(session, settings, place, leaf)
  local results, err = session:batch { settings, {
    ("select %s::text from only %s as %s order by %s limit 1"):format(place.key.json, leaf.name, place.alias,
      key_of.descending(place.key)) } }
  if not results then
    return nil, err
  end
  return results[2]:value(1, 1)
end

--- Keys that part a table into about as many equal pieces, in order.
local function bounds(session, settings, place, leaf, pieces, hi)
  local key = place.key
  local share = math.min(100, 100 * math.max(SAMPLE_PAGES, pieces * 4) / math.max(1, leaf.pages))
  local text = ([[
    with sampled as (
      select %s, row_number() over w as i, count(*) over () as c from only %s as %s tablesample system (%.6f)
      where %s < %s window w as (order by %s))
    select %s::text from sampled
    where i %% greatest(1, c / $2::bigint) = 0 and i < c - c / $2::bigint / 2 order by i]]):format(key.list, leaf.name,
    place.alias, share, key_of.row(key), key_of.bound(key, "$1"), key.list, key.json)
  local results, err = session:batch { settings, { text, hi, pieces } }
  if not results then
    return nil, err
  end
  local list = {}
  for i = 1, results[2]:count() do
    list[i] = results[2]:value(i, 1)
  end
  return list
end

local function by_key(session, settings, place, leaf, workers)
  local hi, err = largest(session, settings, place, leaf)
  if not hi then
    return err == nil and {} or nil, err
  end
  local pieces = M.pieces(M.estimate(leaf), workers)
  local list = {}
  if pieces > 1 then
    list, err = bounds(session, settings, place, leaf, pieces, hi)
    if not list then
      return nil, err
    end
  end
  list[#list + 1] = hi
  local chunks = {}
  for i, bound in ipairs(list) do
    chunks[i] = { relation = leaf.name, lo = list[i - 1], hi = bound }
  end
  return chunks
end

--- The chunks of all tables, leaf after leaf.
---@param target moonbird.target
---@param session moonbird.session idle
---@param place moonbird.backfill.place
---@param workers integer
---@param lock? integer milliseconds to wait for a table that is locked; default no end
---@return { relation: string, lo: string|nil, hi: string }[]|nil
---@return moonbird.error? err
---@return integer? rows estimated
function M.plan(target, session, place, workers, lock)
  local settings = target:settings_item({ lock = lock or 0, statement = 0 }, true)
  local all, rows = {}, 0
  for _, leaf in ipairs(place.leaves) do
    local chunks, err
    if place.key.ctid then
      chunks = by_ctid(leaf, workers)
    else
      chunks, err = by_key(session, settings, place, leaf, workers)
      if not chunks then
        return nil, err
      end
    end
    rows = rows + (#chunks > 0 and M.estimate(leaf) or 0)
    table.move(chunks, 1, #chunks, #all + 1, all)
  end
  return all, nil, rows
end

return M
