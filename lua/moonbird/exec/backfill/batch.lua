--- One batch: one transaction in which the rows change and the chunk's cursor moves.
--
-- Set-based, all of it is one round trip: BEGIN, settings, the lease, one statement that finds the page of keys,
-- changes its rows and moves the cursor, COMMIT. Row-based and by function, the page is found first (and its rows
-- read), then the script works, then cursor and COMMIT go out together.
--
-- Bounds are parameters or scalar subqueries, never a join with the state's row: that would be a walk over the
-- whole index in each batch.
local core = require "moonbird.core.backfill"
local db = require "moonbird.core.db"
local error_ = require "moonbird.core.error"
local failpoint = require "moonbird.core.failpoint"
local json = require "moonbird.core.json"
local key_of = require "moonbird.exec.backfill.key"
local rows = require "moonbird.exec.backfill.rows"
local sandbox = require "moonbird.core.sandbox"
local task = require "moonbird.core.task"

local M = {}

---@class moonbird.backfill.result
---@field seen integer rows looked at
---@field changed integer
---@field skipped integer rows the transform left alone
---@field cur string|nil JSON: where the chunk is now
---@field done boolean the chunk is
---@field limits string JSON
---@field ms integer
---@field bytes integer|nil that the rows took in memory

local BEGIN = { "begin isolation level read committed read write" }
local COMMIT = { "commit" }

-- Rows of a page of a table without a key, where nobody knows.
local A_PAGE = 40

--- The settings of a batch's transaction. Its commit need not wait for the disk: WAL is ordered, so that a crash
--- of the server loses rows and cursor together, and whoever finishes the backfill waits for all of it.
local function settings(job)
  return job.target:settings_item({ lock = job.options.lock_timeout, statement = job.options.statement_timeout },
    job.options.durable)
end

--- The conditions of a page: above the cursor, up to the chunk's end (without a key: not too many blocks on).
local function page_condition(job, chunk)
  local key = job.place.key
  local upper = ("%s <= %s"):format(key_of.row(key), key_of.bound(key, "$1"))
  if chunk.cur then
    return ("%s > %s and %s"):format(key_of.row(key), key_of.bound(key, "$2"), upper)
  end
  return upper .. " and $2::jsonb is null" -- every parameter has to stand in the text
end

--- Where a page of n rows ends at the latest: for a key the chunk's end; by ctid a block, because no index finds
--- the n-th row there.
local function page_end(job, chunk, n)
  if not job.place.key.ctid then
    return chunk.hi
  end
  local first = math.tointeger(tonumber(json.decode(chunk.cur)[1]:match("%((%d+),")))
  local last = math.tointeger(tonumber(json.decode(chunk.hi)[1]:match("%((%d+),")))
  local to = first + 1 + math.ceil(n / (job.density or A_PAGE))
  return to >= last and chunk.hi or ('["(%d,0)"]'):format(to) -- a chunk of one row ends within a block
end

--- What follows from a page that was walked: the cursor, and whether the chunk is done.
local function walked(chunk, page_hi, n, seen, last)
  if seen < n then -- nothing is left below the page's end
    return page_hi, page_hi == chunk.hi
  end
  return last, last == chunk.hi
end

--- A text that is the same for all batches of a table in a pass, made once.
local function text_of(job, chunk, make)
  if job.texts.pass ~= job.state.pass then -- the pass stands in it
    job.texts = { pass = job.state.pass }
  end
  local texts = job.texts[make]
  if not texts then
    texts = {}
    job.texts[make] = texts
  end
  local name = (chunk.cur and "on " or "first ") .. chunk.relation
  texts[name] = texts[name] or make(job, chunk)
  return texts[name]
end

--- Whether the row of an entry of backfill_error, `m`, lies above the cursor $4 and up to the new one, `c`. A key is
--- looked up in the table: that compares it in its column's collation.
local function gone_over(job, chunk)
  local key, place = job.place.key, job.place
  local row = key.ctid and key_of.bound(key, "m.key") or key_of.row(key, place.alias)
  local range = ("($4::jsonb is null or %s > %s) and %s <= %s"):format(row, key_of.bound(key, "$4"), row,
    key_of.bound(key, "c.cur"))
  return key.ctid and range or ("exists (select from only %s as %s where %s = %s and %s)"):format(chunk.relation,
    place.alias, row, key_of.bound(key, "m.key"), range)
end

--- The statement that takes back what an earlier pass recorded of rows that this batch did, when its chunk has moved;
--- nil in the first pass. Only this backfill's keys are cast, hence the `offset 0`.
local function forget_item(job, chunk)
  if job.state.pass <= 1 then
    return nil
  end
  local q, state = job.store.quoted, job.state
  local text = ([[
delete from %s.backfill_error e using
  (select key from %s.backfill_error where target = $1 and version = $2 and relation = $3 offset 0) m,
  (select cur from %s.backfill_chunk where %s offset 0) c
where e.target = $1 and e.version = $2 and e.relation = $3 and e.key = m.key and ]]):format(q, q, q,
    core.which(state, chunk)) .. gone_over(job, chunk)
  return { text, state.target, state.version, chunk.relation, chunk.cur, n = 4 }
end

-- Set-based -----------------------------------------------------------------------------------------------

--- $1 the page's end, $2 the cursor, $3 rows, $4 the chunk's end, $5 its ordinal. The names of the CTEs must not
--- hide a table of the author's.
local function set_text(job, chunk)
  local key, def, place = job.place.key, job.def, job.place
  return (([[
with moonbird_page as materialized (
  select {list} from only {table} as {alias} where {page} order by {list} limit $3::bigint),
moonbird_last as materialized (select {list} from moonbird_page order by {descending} limit 1),
moonbird_changed as (
  update only {table} as {alias} set {set}
  where {lower}{row} <= {last} and ({where}
) returning 1),
moonbird_result as (
  select (select count(*) from moonbird_page) as seen, (select count(*) from moonbird_changed) as changed,
         (select {json} from moonbird_last) as last)
update {chunks} set {moving}
from moonbird_result r where target = {target} and version = {version} and pass = {pass} and ordinal = $5::integer
returning r.seen, r.changed, cur::text, done]]):gsub("{(%a+)}", {
    list = key.list, table = chunk.relation, alias = place.alias, page = page_condition(job, chunk),
    descending = key_of.descending(key), set = def.set .. "\n ",
    lower = chunk.cur and ("%s > %s and "):format(key_of.row(key, place.alias), key_of.bound(key, "$2")) or "",
    row = key_of.row(key, place.alias), last = key_of.scalar(key, "moonbird_last"), where = def.where or "true",
    json = key.json, chunks = job.store.quoted .. ".backfill_chunk",
    moving = core.moving("r.seen", "r.changed", "0",
      "case when r.seen < $3::bigint then $1::jsonb else r.last end",
      "(case when r.seen < $3::bigint then $1::jsonb else r.last end) = $4::jsonb", "r.seen::integer"),
    target = job.literal_target, version = ("%d"):format(job.state.version), pass = ("%d"):format(job.state.pass),
  }))
end

--- The items that change a page's rows, move the cursor and commit.
local function set_items(job, chunk, n, hi)
  local items = { { text_of(job, chunk, set_text), hi, chunk.cur, n, chunk.hi, chunk.ordinal, n = 5 } }
  items[#items + 1] = forget_item(job, chunk)
  items[#items + 1] = COMMIT
  return items
end

local function set_result(row, limits)
  return { seen = row:value(1, 1), changed = row:value(1, 2), skipped = 0, cur = row:value(1, 3),
    done = row:value(1, 4), limits = limits }
end

local function run_set(job, session, chunk, n)
  local items = { BEGIN, settings(job), job.store:enter_item(job.state, chunk) }
  local rest = set_items(job, chunk, n, page_end(job, chunk, n))
  table.move(rest, 1, #rest, #items + 1, items)
  failpoint("backfill.before_send")
  local results, err = session:batch(items)
  failpoint("backfill.after_commit")
  if not results then
    return nil, err
  end
  return set_result(results[4], results[3]:value(1, 1))
end

-- With a script -------------------------------------------------------------------------------------------

local function page_text(job, chunk)
  local key, place = job.place.key, job.place
  -- The JSON is of the two rows that were chosen: beside the `order by` it would be made of every row.
  -- The bounds stay in the transaction for the statement that reads the rows, which goes out with this one.
  return ([[
with moonbird_page as materialized (
  select {list} from only {table} as {alias} where {page} order by {list} limit $3::bigint)
select seen, first, last, set_config('{first}', coalesce(first, '[]'), true) as kept_first,
       set_config('{last}', coalesce(last, '[]'), true) as kept_last
from (select (select count(*) from moonbird_page) as seen,
       (select {json}::text from (select {list} from moonbird_page order by {list} limit 1) p) as first,
       (select {json}::text from (select {list} from moonbird_page order by {descending} limit 1) p) as last
       offset 0) bounds]])
    :gsub("{(%a+)}", { list = key.list, table = chunk.relation, alias = place.alias, page = page_condition(job, chunk),
      json = key.json, descending = key_of.descending(key), first = rows.FIRST, last = rows.LAST })
end

--- Opens the transaction, takes the lease, finds the page -> { seen, first, last, hi, rows }, limits.
---@param reading boolean reads the page's rows as well
local function begin(job, session, chunk, n, reading)
  local text = text_of(job, chunk, page_text)
  local hi = page_end(job, chunk, n)
  failpoint("backfill.before_send")
  local items = { BEGIN, settings(job), job.store:enter_item(job.state, chunk), { text, hi, chunk.cur, n, n = 3 } }
  if reading then
    items[5] = { text_of(job, chunk, rows.read_text) }
  end
  local results, err = session:batch(items)
  if not results then
    return nil, err
  end
  local page = results[4]:row(1)
  page.hi, page.rows = hi, results[5]
  return page, results[3]:value(1, 1)
end

--- Moves the cursor and commits, in one round trip.
---@param forget boolean errors of an earlier pass that stand for rows of this batch: it did those
local function finish(job, session, chunk, result, forget)
  failpoint("backfill.before_commit")
  local items = { job.store:move_item(job.state, chunk, result) }
  items[2] = forget and forget_item(job, chunk) or nil
  items[#items + 1] = COMMIT
  local results, err = session:batch(items)
  failpoint("backfill.after_commit")
  if not results then
    return nil, err
  end
  return result
end

--- The typed values of a page's bounds, for a batch function.
local function typed(job, session, text)
  local key = job.place.key
  local result, err = session:query("select " .. table.concat(key_of.values(key, "$1"), ", "), { text })
  if not result then
    return nil, err
  end
  if #key.columns == 1 then
    return result:value(1, 1)
  end
  local values = {}
  for i = 1, #key.columns do
    values[i] = result:value(1, i)
  end
  return values
end

local function run_function(job, session, _, page)
  local lo, err = typed(job, session, page.first)
  local hi
  if err == nil then
    hi, err = typed(job, session, page.last)
  end
  if err then
    return nil, err
  end
  local limits = job.run.config.limits or {}
  local ok, changed = sandbox.run { fn = job.def.batch, args = { M.handle(job, session), lo, hi },
    name = job.step.migration.file, instructions = limits.instructions, memory = limits.memory }
  if not ok then
    return nil, error_.with(changed, { key = page.first })
  end
  session:settle()
  return { changed = math.type(changed) == "integer" and changed >= 0 and changed or page.seen, skipped = 0 }
end

--- `db` for a script in a batch's transaction.
---@param job moonbird.backfill.job
---@param session moonbird.session
---@return table
function M.handle(job, session)
  local target = job.target
  local handle = job.handles[session]
  if not handle then
    handle = db.new {
      session = session,
      target = { name = target.name, schema = target.schema, vars = target.vars },
      log = function(level, message)
        job.run.report:log(level, message, job.step)
      end,
      observe = function(text, st)
        job.run.report:statement(job.step, text, st)
      end,
    }
    job.handles[session] = handle
  end
  return handle
end

local function swallowed()
  return error_.new("transaction", "a statement failed in the script and its error was swallowed",
    { hint = "let the error through, or put the statement into db:atomic" })
end

--- Works on the page that was found, and commits.
local function script_page(job, session, chunk, n, page, limits)
  failpoint("backfill.begun")
  local result = { changed = 0, skipped = 0 }
  if page.seen > 0 then
    local work = job.def.mode == "rows" and rows.run or run_function
    local err
    result, err = work(job, session, chunk, page, M.handle)
    if not result then
      return nil, err
    end
    if session.doomed then
      return nil, session.doomed
    elseif session:state() ~= "in_txn" then
      return nil, swallowed()
    end
  end
  result.seen, result.limits = page.seen, limits
  result.cur, result.done = walked(chunk, page.hi, n, page.seen, page.last)
  return finish(job, session, chunk, result, true)
end

local function run_script(job, session, chunk, n)
  local page, limits = begin(job, session, chunk, n, job.def.mode == "rows")
  if not page then
    return nil, limits
  end
  local result, err = script_page(job, session, chunk, n, page, limits)
  return result, err, n == 1 and page.last or nil
end

--- A batch of one row of which is known which one it is, whatever fails: at the price of a round trip more.
---@return string|nil key JSON; nil: no row was there
local function run_named(job, session, chunk)
  local page, limits = begin(job, session, chunk, 1, false)
  if not page then
    return nil, limits
  end
  local key = page.last
  if job.def.mode == "set" then
    local results, err = session:batch(set_items(job, chunk, 1, key or page.hi))
    failpoint("backfill.after_commit")
    return results and set_result(results[1], limits), err, key
  elseif job.def.mode == "rows" then
    local results, err = session:batch { { text_of(job, chunk, rows.read_text) } }
    if not results then
      return nil, err, key
    end
    page.rows = results[1]
  end
  local result, err = script_page(job, session, chunk, 1, page, limits)
  return result, err, key
end

--- The statement that makes the most of a batch's work, for whoever explains it: its parameters are the page's end,
--- the cursor, the number of rows and, set-based, the chunk's end and ordinal.
---@param job moonbird.backfill.job
---@param chunk moonbird.backfill.chunk
---@return string
function M.statement(job, chunk)
  return job.def.mode == "set" and set_text(job, chunk) or page_text(job, chunk)
end

-- Both ----------------------------------------------------------------------------------------------------

--- Runs one batch of up to n rows. After a failure the session is rolled back, and the chunk is as it was unless
--- the connection was lost: then its row tells.
---@param job moonbird.backfill.job
---@param session moonbird.session idle
---@param chunk moonbird.backfill.chunk
---@param n integer
---@param named? boolean the row is to be known when the batch fails; n is 1
---@return moonbird.backfill.result|nil
---@return moonbird.error? err
---@return string|nil key of the one row that failed, as JSON, where it is known
function M.run(job, session, chunk, n, named)
  local started = task.now()
  local run = named and run_named or job.def.mode == "set" and run_set or run_script
  local result, err, key = run(job, session, chunk, n)
  if not result then
    session:rollback()
    return nil, err, key
  end
  result.ms = task.now() - started
  return result
end

--- Records the row as one that can't be changed -> true; false: as many are recorded as may be.
local function record(job, session, chunk, key, why)
  local results, err = session:batch(job.store:poison_items(job.state, chunk, key, why, job.options.max_errors))
  if not results then
    return nil, err
  end
  return results[2]:count() > 0
end

--- Passes over the next row of a chunk, which can't be changed, and records why; unless another row is the next one
--- by now.
---@param job moonbird.backfill.job
---@param session moonbird.session
---@param chunk moonbird.backfill.chunk
---@param key string of the row that failed, JSON
---@param why moonbird.error
---@return moonbird.backfill.result|"other"|false|nil false: as many are recorded as may be
---@return moonbird.error? err
function M.pass_over(job, session, chunk, key, why)
  local page, limits = begin(job, session, chunk, 1, false)
  if not page then
    session:rollback()
    return nil, limits
  elseif page.last ~= key then
    session:rollback()
    return "other"
  end
  local recorded, err = record(job, session, chunk, key, why)
  if not recorded then
    session:rollback()
    return recorded, err
  end
  failpoint("backfill.poison")
  local result = { seen = 1, changed = 0, skipped = 0, limits = limits, ms = 0 }
  result.cur, result.done = walked(chunk, page.hi, 1, 1, key)
  local ok
  ok, err = finish(job, session, chunk, result, false)
  if not ok then
    session:rollback()
    return nil, err
  end
  return result
end

return M
