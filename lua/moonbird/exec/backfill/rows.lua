--- Row-based batches: the page's rows are read and locked, a Lua function sees them one by one, what it returns is
-- written back by UPDATEs joined with arrays of the keys and the new values (written.lua).
--
-- The rows stay locked (FOR NO KEY UPDATE) from the read to the commit, so that nobody's change in between is
-- overwritten with what was computed from the old row. The page is written in parts, all in its one transaction: the
-- server changes the rows of one part while the function sees those of the next.
local error_ = require "moonbird.core.error"
local failpoint = require "moonbird.core.failpoint"
local key_of = require "moonbird.exec.backfill.key"
local sandbox = require "moonbird.core.sandbox"
local sql = require "moonbird.core.sql"
local written_of = require "moonbird.exec.backfill.written"

local M = {}

-- Rows of the first part of a page, and of the largest; bytes that end a part early.
local PART_FIRST, PART_MOST, PART_BYTES = 500, 4000, 512 << 10

local COLUMNS = [[
  select a.attname as name, quote_ident(a.attname) as quoted, format_type(a.atttypid, -1) as type,
         case when t.oid = 'bytea'::regtype then 'bytea' when t.oid in ('json'::regtype, 'jsonb'::regtype) then 'json'
              when t.typcategory = 'A' then 'array' else 'plain' end as kind,
         a.attgenerated <> '' as generated
  from pg_attribute a join pg_type y on y.oid = a.atttypid
       join pg_type t on t.oid = case when y.typtype = 'd' then (
         with recursive base(oid, typtype, typbasetype) as (
           select y.oid, y.typtype, y.typbasetype
           union all select u.oid, u.typtype, u.typbasetype from base b join pg_type u on u.oid = b.typbasetype
             where b.typtype = 'd')
         select oid from base where typtype <> 'd') else y.oid end
  where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped]]

--- Looks the columns of a backfill's table up: name -> { quoted, type, kind, generated }.
---@param target moonbird.target
---@param session moonbird.session
---@param place moonbird.backfill.place
---@return table<string, table>|nil
---@return moonbird.error? err
function M.columns(target, session, place)
  local results, err = session:batch { target:settings_item({ lock = 0, statement = 0 }, true),
    { COLUMNS, place.oid } }
  if not results then
    return nil, err
  end
  local columns = {}
  for _, row in ipairs(results[2]:rows()) do
    columns[row.name] = row
  end
  return columns
end

--- An error for columns of the definition that are not there.
---@param definition moonbird.backfill.definition
---@param columns table<string, table>
---@param place moonbird.backfill.place
---@return moonbird.error|nil
function M.missing(definition, columns, place)
  for _, name in ipairs(definition.columns or {}) do
    if not columns[name] then
      return error_.new("backfill", ("table %s has no column \"%s\""):format(place.name, name),
        { hint = require("moonbird.util.nearest").hint(name, columns) })
    end
  end
end

--- The settings of a transaction that hold the bounds of its page, as JSON.
M.FIRST, M.LAST = "moonbird.page_first", "moonbird.page_last"

--- The statement that reads and locks a page: the key's columns, then those the transform is to see.
---@param job moonbird.backfill.job
---@param chunk moonbird.backfill.chunk
---@return string
function M.read_text(job, chunk)
  local key, def, place = job.place.key, job.def, job.place
  local list, seen = {}, {}
  for i, name in ipairs(key.columns) do
    list[i], seen[name] = key.quoted[i], true
  end
  for _, name in ipairs(def.columns) do
    if not seen[name] then
      list[#list + 1], seen[name] = sql.ident(name), true
    end
  end
  local row = key_of.row(key, place.alias)
  local function bound(setting)
    return key_of.bound(key, ("current_setting('%s')"):format(setting))
  end
  return ("select %s from only %s as %s where %s >= %s and %s <= %s and (%s\n) order by %s for no key update"):format(
    table.concat(list, ", "), chunk.relation, place.alias, row, bound(M.FIRST), row, bound(M.LAST),
    def.where or "true", key.list)
end

-- The transform -------------------------------------------------------------------------------------------

---@class moonbird.backfill.pass over a page's rows
---@field job moonbird.backfill.job
---@field session moonbird.session
---@field chunk moonbird.backfill.chunk
---@field result userdata the page as it was read
---@field written moonbird.backfill.written the part that is being collected
---@field most integer rows it may have
---@field pending table|nil the part that the server is at
---@field changed integer
---@field taken integer rows to change
---@field at integer|nil the row the function sees
---@field failure moonbird.error|nil of a part that was sent

--- The pass ends with an error that no line of the script made.
local function fail(pass, err)
  pass.failure = error_.with(err, { file = pass.job.step.migration.file })
  error(pass.failure, 0)
end

--- An error for rows that a part should have changed and did not: they would count as done.
local function unwritten(pass, sent, written)
  return error_.new("backfill", ("%d of %d rows of %s that the transform returned values for were not written"):format(
    sent - written, sent, pass.job.place.name), { hint = "they are locked, so nobody else changed them meanwhile: a "
    .. "trigger that returns NULL, a rule or row security keeps the server from it, or the transform deleted them "
    .. "itself; where that is meant, let it return nil for them" })
end

--- Waits for the part that was sent.
local function land(pass)
  local pending = pass.pending
  if pending then
    pass.session:receive(pending)
    if pending.err then
      fail(pass, pending.err)
    end
    pass.pending = nil
    local written = pending.results[1]:affected()
    if written ~= pending.sent then
      fail(pass, unwritten(pass, pending.sent, written))
    end
    pass.changed = pass.changed + written
  end
end

local function send(pass)
  local session, written = pass.session, pass.written
  land(pass)
  if session:state() ~= "in_txn" then
    fail(pass, session.doomed or error_.new("transaction", "the transform left its transaction in a failed state",
      { hint = "an error was caught with pcall outside db:atomic; wrap the statement in db:atomic" }))
  end
  failpoint("backfill.transformed")
  local pending = { sent = written.count }
  local ok, err = session:batch_ahead({ written:item(pass.chunk, pass.result) }, pending)
  if not ok then
    fail(pass, err)
  end
  pass.pending = pending
  pass.taken = pass.taken + written.count
  pass.most = math.min(PART_MOST, pass.most * 2)
  written:clear()
end

local function each(pass, handle)
  local result, written, fn = pass.result, pass.written, pass.job.def.transform
  for i = 1, result:count() do
    pass.at = i
    local new = fn(result:row(i), handle)
    if new ~= nil then
      written:take(new, result, i)
      if written.count >= pass.most or (written.count % 16 == 0 and written:size() >= PART_BYTES) then
        send(pass)
      end
    end
  end
  pass.at = nil
  if written.count > 0 then
    send(pass)
  end
  land(pass)
end

local function name_row(pass, err)
  local named = {}
  for i, name in ipairs(pass.job.place.key.columns) do
    named[i] = name .. " = " .. pass.result:text(pass.at, i)
  end
  err.message = ("the row with %s: %s"):format(table.concat(named, ", "), err.message)
end

local UNNAMED = { interrupted = true, timeout = true, connection_lost = true }

--- Runs the transform over a page's rows and writes what it returns.
---@return boolean|nil
---@return moonbird.error? err of the transform: names the row's key
local function transform(pass, handle)
  local job = pass.job
  local limits = job.run.config.limits or {}
  local ok, err = sandbox.run { fn = each, args = { pass, handle }, name = job.step.migration.file,
    instructions = limits.instructions, memory = limits.memory }
  if ok then
    return true
  end
  -- A part that failed fails whatever the script asks the database afterwards.
  local failure = pass.failure or pass.pending and pass.pending.err
  if failure then
    return nil, failure
  elseif pass.at and not UNNAMED[err.code] then
    name_row(pass, err)
  end
  return nil, err
end

--- Works on a page in the transaction that is open.
---@param job moonbird.backfill.job
---@param session moonbird.session
---@param chunk moonbird.backfill.chunk
---@param page { rows: userdata } as read_text() found them
---@param handle fun(job: table, session: table): table makes `db`
---@return { changed: integer, skipped: integer, bytes: integer }|nil
---@return moonbird.error? err
function M.run(job, session, chunk, page, handle)
  local result <close> = page.rows
  failpoint("backfill.read")
  local count, bytes = result:count(), result:memory()
  if count == 0 then
    return { changed = 0, skipped = 0, bytes = bytes }
  end
  local pass = { job = job, session = session, chunk = chunk, result = result, written = written_of.new(job),
    most = PART_FIRST, changed = 0, taken = 0 }
  local ok, err = transform(pass, handle(job, session))
  if not ok then
    return nil, err
  end
  session:settle()
  -- Text, Lua's strings and the arrays: the page is in memory about three times.
  return { changed = pass.changed, skipped = count - pass.taken, bytes = bytes * 3 }
end

return M
