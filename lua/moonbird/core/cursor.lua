--- Streaming rows through a server-side cursor: memory stays bounded whatever the table's size, and other
--- statements may run inside the loop.
--
-- The next FETCH is sent while the script works on the rows of the last one, so that server and script
-- overlap. The batch follows the rows' size: about BATCH_BYTES of memory, whatever a row weighs.
local sql = require "moonbird.native.sql"
local error_ = require "moonbird.core.error"

local M = {}

local BATCH_BYTES = 512 * 1024
local FIRST, MOST = 200, 20000

local READS = { SELECT = true, VALUES = true, TABLE = true, WITH = true }
local count = 0

--- Opens a cursor on a query.
---@param session moonbird.session in a transaction
---@param text string
---@param st table the statement within the text
---@param params table
---@param n integer number of parameters
---@return function|nil iterator returns a row (table by column name) or nil at the end; raises on errors
---@return table|moonbird.error handle with close(), for a loop that is left early; or the error
function M.open(session, text, st, params, n)
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

  local size = FIRST
  local rows, at, total = nil, 0, 0
  local ahead -- the fetch under way

  local function fetch()
    ahead = { size = size }
    local ok, failure = session:send_ahead(("fetch forward %d from %s"):format(size, name), ahead)
    if not ok then
      error(failure, 0)
    end
  end

  local function take()
    session:receive(ahead)
    if ahead.err then
      error(ahead.err, 0)
    end
    local result, asked = ahead.result, ahead.size
    ahead = nil
    if rows then
      rows:close()
    end
    rows, at, total = result, 0, result:count()
    if total < asked then
      return -- the last batch
    end
    local weight = math.max(1, result:memory() // total)
    size = math.max(1, math.min(MOST, size * 4, BATCH_BYTES // weight))
    fetch()
  end

  local open = true
  local function close()
    if rows then
      rows:close()
    end
    rows, at, total, ahead = nil, 0, 0, nil
    if open and not session.doomed and session:state() ~= "failed" then
      session:query("close " .. name)
    end
    open = false
  end

  fetch()
  return function()
    if at == total then
      if not ahead then
        close()
        return nil
      end
      take()
      if total == 0 then
        return nil
      end
    end
    at = at + 1
    return rows:row(at)
  end, setmetatable({ close = close }, { __close = close, __metatable = false })
end

return M
