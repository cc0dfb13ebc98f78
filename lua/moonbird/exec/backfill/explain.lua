--- What a backfill would do: the plan of one batch, how many rows and how long, what it lacks an index for. Nothing is
-- changed and no row is locked: the batch is planned only (EXPLAIN), and reading a page of keys is timed.
--
-- The estimate: rows of the tables as the statistics say; of them those that match `where` as the planner thinks; the
-- time of a row as measured when the backfill has begun, else what reading a page took, and WRITE_MS for each row
-- changed with half of it for each index. It tells minutes from days, no more.
local batch = require "moonbird.exec.backfill.batch"
local chunks_of = require "moonbird.exec.backfill.chunks"
local core = require "moonbird.core.backfill"
local error_ = require "moonbird.core.error"
local json = require "moonbird.core.json"
local key_of = require "moonbird.exec.backfill.key"
local run_of = require "moonbird.exec.backfill.run"
local task = require "moonbird.core.task"

local M = {}

-- Milliseconds to write one row, about; and the rows of the page that is timed.
local WRITE_MS, PAGE = 0.006, 1000
-- Rows of a block, where nobody knows.
local A_PAGE = 40

-- Where the journal has no backfills yet, the batch is planned against an empty table of the same shape.
local STAND_IN = [[
  create temp table if not exists backfill_chunk (target text, version bigint, pass int, ordinal int, relation text,
    lo jsonb, hi jsonb, cur jsonb, done boolean, rows_seen bigint, rows_changed bigint, rows_skipped bigint,
    batches bigint, busy_ms float8, batch int, failures int, next_try timestamptz, worker text,
    updated_at timestamptz)]]

--- Whether a part of the plan only hands on what another has found: counts and bounds of the page.
local function is_glue(node)
  local name = node["Subplan Name"] or ""
  return name:find("^InitPlan") and not node["Relation Name"]
end

local function flatten(node, lines, depth)
  local text = (node["Node Type"] or "?") .. (node["Operation"] and " " .. node["Operation"] or "")
  if node["Relation Name"] then
    text = text .. " on " .. node["Relation Name"]
  end
  if node["Index Name"] then
    text = text .. " using " .. node["Index Name"]
  end
  if node["CTE Name"] then
    text = text .. " on " .. node["CTE Name"]
  end
  lines[#lines + 1] = ("%s%s%s  (%.0f rows)"):format(("  "):rep(depth),
    node["Subplan Name"] and node["Subplan Name"] .. ": " or "", text, node["Plan Rows"] or 0)
  for _, name in ipairs { "Index Cond", "TID Cond", "Filter", "Join Filter" } do
    if node[name] then
      lines[#lines + 1] = ("%s    %s: %s"):format(("  "):rep(depth), name, node[name])
    end
  end
  for _, child in ipairs(node.Plans or {}) do
    if not is_glue(child) then
      flatten(child, lines, depth + 1)
    end
  end
end

local function walk(node, visit)
  visit(node)
  for _, child in ipairs(node.Plans or {}) do
    walk(child, visit)
  end
end

--- The plan of a statement as a tree; nothing is run.
local function plan_of(job, session, text, ...)
  local item = { "explain (format json) " .. text, ... }
  item.n = select("#", ...)
  local results, err = session:batch { job.target:settings_item({ lock = job.options.lock_timeout, statement = 0 },
    true), item }
  if not results then
    return nil, err
  end
  return json.decode(results[2]:value(1, 1))[1].Plan
end

--- A state as it would be at the start.
local function imagined(target, migration, place)
  return { target = target.name, version = migration.version, id = migration.id, pass = 1, limits = {}, status = "none",
    key_columns = place.key.ctid and {} or place.key.columns, key_types = place.key.ctid and {} or place.key.types,
    rows_estimated = 0 }
end

local function largest_leaf(place)
  local found
  for _, leaf in ipairs(place.leaves) do
    if not found or leaf.pages > found.pages then
      found = leaf
    end
  end
  return found
end

local function indexes(session, oid)
  local result, err = session:query("select count(*)::int from pg_index where indrelid = $1::oid", { oid })
  return result and result:value(1, 1) or 0, err
end

--- Rows that match `where`, as the planner thinks.
local function matching(job, session, leaf)
  if not job.def.where then
    return nil
  end
  local plan, err = plan_of(job, session, ("select from only %s as %s where (%s\n)"):format(leaf.name, job.place.alias,
    job.def.where))
  if not plan then
    return nil, err
  end
  local scans = false
  walk(plan, function(node)
    scans = scans or node["Node Type"] == "Seq Scan"
  end)
  return plan["Plan Rows"], nil, scans
end

--- Reads one page of keys and their rows, and takes the time.
local function reading_ms(job, session, chunk)
  local key = job.place.key
  local columns = key.ctid and "ctid" or key.list
  local started = task.now()
  local results, err = session:batch { job.target:settings_item({ lock = job.options.lock_timeout,
    statement = job.options.statement_timeout }, true),
    { ("select count(x) from (select %s as x from only %s as %s where %s <= %s order by %s limit %d) p"):format(
      "(" .. job.place.alias .. ".*)::text", chunk.relation, job.place.alias, key_of.row(key), key_of.bound(key, "$1"),
      columns, PAGE), chunk.hi } }
  if not results then
    return nil, err
  end
  local n = results[2]:value(1, 1)
  return n > 0 and math.max(1, task.now() - started) / n or 0
end

local function warn(result, message)
  result.warnings[#result.warnings + 1] = message
end

--- What the plan says about indexes.
local function judge(job, result, plan)
  local page_scan, page_sort = false, false
  walk(plan, function(node)
    if node["Subplan Name"] == "CTE moonbird_page" or node["Subplan Name"] == "CTE moonbird_changed" then
      walk(node, function(inner)
        page_scan = page_scan or inner["Node Type"] == "Seq Scan" and inner["Relation Name"] ~= nil
        page_sort = page_sort or node["Subplan Name"] == "CTE moonbird_page" and inner["Node Type"] == "Sort"
      end)
    end
  end)
  if job.place.key.ctid then
    warn(result, ("table %s has no key: it is walked block by block, and the where alone tells what is done"):format(
      job.place.name))
  elseif (page_scan or page_sort) and result.rows > PAGE * 10 then
    warn(result, page_sort and "a batch sorts the rows that are left: no index gives the key's order"
      or "a batch reads the whole table: no index serves the key")
  end
end

local function estimate(job, session, result, leaf, chunk)
  local rows = 0
  for _, one in ipairs(job.place.leaves) do
    rows = rows + chunks_of.estimate(one)
  end
  result.rows = rows
  local matched, err, scans = matching(job, session, leaf)
  if err then
    return nil, err
  end
  if matched then
    result.matching = math.floor(math.min(1, matched / math.max(1, chunks_of.estimate(leaf))) * rows + 0.5)
    if scans and rows > PAGE * 10 then
      warn(result, ("no index serves the where: what is left at the end is found by reading all of %s"):format(
        job.place.name))
    end
  end
  local read
  read, err = reading_ms(job, session, chunk)
  if not read then
    return nil, err
  end
  local count
  count, err = indexes(session, leaf.oid)
  if err then
    return nil, err
  end
  result.duration_ms = math.floor((rows * read + (result.matching or rows) * WRITE_MS * (1 + count / 2))
    / math.max(1, job.options.workers))
  return true
end

--- Where a batch ends at the latest: without a key after some blocks, as in batch.lua.
local function page_end(job, chunk, n)
  if not job.place.key.ctid then
    return chunk.hi
  end
  local first = math.tointeger(tonumber((chunk.cur or "(0,"):match("%((%d+),")))
  local last = math.tointeger(tonumber(chunk.hi:match("%((%d+),")))
  return ('["(%d,0)"]'):format(math.min(last, first + 1 + math.ceil(n / (job.density or A_PAGE))))
end

--- The job, for a backfill that has begun or not.
local function job_of(target, step, store, settings)
  local migration = step.migration
  local state, err = store:find(target.session, target.name, migration.version)
  if state == nil then
    return nil, err
  end
  local known = state or nil
  if known and known.status == "done" and not target.state.applied[migration.version] then
    known = nil -- it was taken back: what would run is one from the beginning
  end
  if not known then
    local place
    place, err = key_of.find(target, target.session, migration.backfill)
    if not place then
      return nil, err
    end
    state = imagined(target, migration, place)
  end
  local job
  job, err = run_of.job(target, step, store, state, settings)
  return job, err, known
end

--- Explains a backfill.
---@param target moonbird.target
---@param step moonbird.step
---@return table|nil { table, key, mode, rows, matching, plan (lines), plan_tree, duration_ms, measured, warnings }
---@return moonbird.error? err
function M.run(target, step)
  local session = target.session
  local store = core.new(target.run.journal)
  local job, err, known = job_of(target, step, store, {})
  if not job then
    return nil, err
  end
  local there
  there, err = session:query("select to_regclass($1) is not null", { store.quoted .. ".backfill_chunk" })
  if there and not there:value(1, 1) then
    err = select(2, session:query(STAND_IN))
    job.store = setmetatable({ quoted = "pg_temp" }, { __index = store })
  end
  if err then
    return nil, err
  end
  local place = job.place
  local result = { id = step.migration.id, version = step.migration.version, target = target.name, table = place.name,
    key = place.key.ctid and json.array {} or json.array(place.key.columns), mode = job.def.mode,
    parts = #place.leaves, options = { batch_target_ms = job.options.batch_target, min = job.options.min,
      max = job.options.max, workers = job.options.workers }, warnings = json.array {}, rows = 0 }
  local leaf = largest_leaf(place)
  local chunks = {}
  if leaf then
    chunks, err = chunks_of.plan(target, session, { key = place.key, alias = place.alias, leaves = { leaf } }, 1)
  end
  if not chunks then
    return nil, err
  elseif not chunks[1] then
    result.empty, result.duration_ms = true, 0
    return result
  end
  local chunk = chunks[#chunks]
  chunk.ordinal, chunk.cur, chunk.failures = 1, chunk.lo, 0
  local ok
  ok, err = estimate(job, session, result, leaf, chunk)
  if not ok then
    return nil, err
  end
  local plan
  local n = job.size:current()
  local page_hi = page_end(job, chunk, n)
  if job.def.mode == "set" then
    plan, err = plan_of(job, session, batch.statement(job, chunk), page_hi, chunk.cur, n, chunk.hi, 1)
  else
    plan, err = plan_of(job, session, batch.statement(job, chunk), page_hi, chunk.cur, n)
  end
  if not plan then
    return nil, err
  end
  result.plan = json.array {}
  flatten(plan, result.plan, 0)
  judge(job, result, plan)
  if known then
    local rows
    rows, err = store:progress(session, target.name, step.migration.version)
    if not rows then
      return nil, err
    end
    local row = rows[1]
    if row and row.rows_seen > 0 and row.busy_ms > 0 then
      result.measured = true
      result.duration_ms = math.floor(math.max(0, result.rows - row.rows_seen) * row.busy_ms / row.rows_seen
        / math.max(1, job.options.workers))
    end
  end
  return result
end

--- An error of explaining, with what may be behind it.
---@param err moonbird.error
---@param step moonbird.step
---@return moonbird.error
function M.excuse(err, step)
  if err.sqlstate and err.sqlstate:sub(1, 2) == "42" and step.migration.up then
    return error_.with(err, { hint = "its `up` has not run yet, and may make what is missing" })
  end
  return err
end

return M
