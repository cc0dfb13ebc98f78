--- Streaming rows through a server-side cursor: memory stays bounded whatever the table's size, and other
--- statements may run inside the loop.
--
-- The next FETCH is sent while the script works on the rows of the last one, so that server and script
-- overlap. The batch follows the rows' size: about BATCH_BYTES of memory, whatever a row weighs. What the next rows
-- weigh is not known before they are here, so the first batch is small and none has more than twice the
-- rows of the last.
local conn = require "moonbird.native.conn"
local sql = require "moonbird.native.sql"
local error_ = require "moonbird.core.error"
local position = require "moonbird.core.position"

local M = {}

local BATCH_BYTES = 512 * 1024
local FIRST, MOST = 8, 20000

local READS = { SELECT = true, VALUES = true, TABLE = true, WITH = true }
local count = 0

--- Whether a query locks rows. A row locked in a savepoint and changed outside of it costs the server an entry among
--- those of rows that several hold; a word too much here only costs the savepoint.
local function locks(text)
  local upper = text:upper()
  for _, strength in ipairs { "UPDATE", "SHARE", "NO", "KEY" } do
    if upper:find("%f[%w]FOR%s+" .. strength .. "%f[%W]") then
      return true
    end
  end
  return false
end

--- Raises an error with the place in the script that asked for the row.
local function raise(err)
  if not err.file then
    err.file, err.line = position.caller()
  end
  error(err, 0)
end

--- Opens a cursor on a query.
---@param session moonbird.session in a transaction
---@param text string
---@param st table the statement within the text
---@param params table
---@param n integer number of parameters
---@param record? moonbird.recorder shown each batch before the script sees it
---@return function|nil iterator returns a row (table by column name) or nil at the end; raises on errors
---@return table|moonbird.error handle with close(), for a loop that is left early; or the error
function M.open(session, text, st, params, n, record)
  if not READS[st.tag] then
    return nil, error_.new("script", ("db:rows streams queries, not %s"):format(st.tag),
      { hint = "use db:query for statements that return a few rows" })
  end
  count = count + 1
  local name = sql.ident("moonbird_rows_" .. count)
  -- Outside a transaction the cursor must outlive the statement that makes it: WITH HOLD.
  local hold = session:state() == "idle" and "with hold " or ""
  local declare = ("declare %s no scroll cursor %sfor "):format(name, hold)
  local _, err = session:query(declare .. text:sub(st.first, st.last), params, n)
  if err then
    if err.position then
      err.position = math.max(1, err.position - utf8.len(declare))
    end
    return nil, err
  end

  local locking = locks(text:sub(st.first, st.last))
  local size = FIRST
  local open = true
  local ahead -- the fetch under way
  local rows -- the result being given out
  local recorded

  local function fetch()
    ahead = { size = size, locks = locking }
    local ok, failure = session:send_ahead(("fetch forward %d from %s"):format(size, name), ahead)
    if not ok then
      raise(failure)
    end
  end

  --- Raises the error of a FETCH. One that was undone is run again, to fail the transaction as any statement
  --- does: the server runs no more of a cursor that has failed.
  local function fail(failed)
    if failed.undone then
      failed.undone = nil
      session:query(("fetch forward 1 from %s"):format(name))
    end
    raise(failed.err)
  end

  local function close()
    if rows then
      rows:close()
    end
    rows, ahead = nil, nil
    if open and not session.doomed and session:state() ~= "failed" then
      session:query("close " .. name)
    end
    open = false
  end

  --- The next batch, nil at the end. Sends for the one after it.
  local function refill()
    if not ahead then
      close()
      return nil
    end
    session:receive(ahead)
    if ahead.err then
      fail(ahead)
    end
    local asked = ahead.size
    if rows then
      rows:close()
    end
    rows, ahead = ahead.result, nil
    local total = rows:count()
    if record then
      recorded = record:answered(rows, recorded)
    end
    if total == asked then
      local weight = math.max(1, rows:memory() // total)
      size = math.max(1, math.min(MOST, total * 2, BATCH_BYTES // weight))
      fetch()
    elseif total == 0 then
      close()
    end
    return rows
  end

  fetch()
  return conn.iterator(refill), setmetatable({ close = close }, { __close = close, __metatable = false })
end

return M
