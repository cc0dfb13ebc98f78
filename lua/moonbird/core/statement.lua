--- Statements of a managed transaction: split, checked before they are sent, checked after.
--
-- A migration can't end the transaction it runs in: COMMIT and friends are refused before they are sent,
-- and the transaction's status is looked at after every statement.
local sql = require "moonbird.native.sql"
local error_ = require "moonbird.core.error"

local M = {}

-- Scripts run the same few texts over and over; the cache is emptied when it is full. A large text is hardly ever run
-- again, and would be kept for nothing.
local CACHE_SIZE = 256
local CACHED_BYTES = 8 * 1024
local cache, cached = {}, 0

--- Splits and classifies a text.
---@param text string
---@return table[]|nil statements as moonbird.native.sql tells
---@return moonbird.error? err code "sql", with line and column within the text
function M.split(text)
  local known = cache[text]
  if known then
    return known
  end
  local list, problem = sql.statements(text)
  if not list then
    return nil, error_.new("sql", problem.message, { line = problem.line, column = problem.column,
      hint = problem.hint })
  end
  if #text > CACHED_BYTES then
    return list
  elseif cached >= CACHE_SIZE then
    cache, cached = {}, 0
  end
  cache[text] = list
  cached = cached + 1
  return list
end

local HINTS = {
  control = "moonbird runs the migration in one transaction and commits it with its journal row; "
    .. "remove the statement, or set transaction to false",
  alone = "set transaction to false (in .sql: `-- migrate:up transaction:false`)",
}

--- Why a statement may not be sent inside a managed transaction.
---@param statement table
---@return moonbird.error|nil
function M.refusal(statement)
  if statement.class == "control" then
    return error_.new("transaction", ("%s is not allowed inside a managed transaction")
      :format(statement.tag), { hint = HINTS.control })
  elseif statement.class == "alone" then
    return error_.new("transaction", ("%s cannot run inside a transaction"):format(statement.tag),
      { hint = HINTS.alone })
  end
end

local CHUNK = 64 * 1024

--- Feeds the inline data of a COPY ... FROM stdin whose statement was just sent.
---@param session moonbird.session
---@param text string
---@param statement table with data_first and data_last
---@return userdata|nil result
---@return moonbird.error? err
function M.feed(session, text, statement)
  local at = statement.data_first
  while at <= statement.data_last do
    local last = math.min(at + CHUNK - 1, statement.data_last)
    local ok, err = session:copy_put(text:sub(at, last))
    if not ok then
      return nil, err
    end
    at = last + 1
  end
  return session:copy_end()
end

--- Sends one statement, feeding COPY data that stands in the text. No checks.
---@param session moonbird.session
---@param text string
---@param statement table
---@param params? table
---@param count? integer
---@return userdata|nil result
---@return moonbird.error? err
function M.send(session, text, statement, params, count)
  local slice = text
  if statement.first > 1 or statement.last < #text then
    slice = text:sub(statement.first, statement.last)
  end
  local result, err = session:query(slice, params, count)
  if err then
    return nil, err
  end
  local state = session:state()
  if state == "copy_in" then
    if statement.class ~= "copy" then
      session:copy_end("no data was given")
      return nil, error_.new("sql", "COPY ... FROM stdin has no data here",
        { hint = "in Lua use db:copy_in(sql, data); in a .sql file put the rows below it, ended by \\." })
    end
    return M.feed(session, text, statement)
  elseif state == "copy_out" then
    return nil, error_.new("sql", "COPY ... TO stdout has nowhere to go",
      { hint = "use db:copy_out(sql)" })
  end
  return result
end

--- Runs one statement inside the managed transaction.
---@param session moonbird.session
---@param text string
---@param statement table
---@param params? table
---@param count? integer
---@return userdata|nil result
---@return moonbird.error? err
function M.run(session, text, statement, params, count)
  local err = M.refusal(statement)
  if err then
    return nil, err
  end
  local result
  result, err = M.send(session, text, statement, params, count)
  if err then
    return nil, err
  end
  if session:state() ~= "in_txn" then
    session.doomed = error_.new("transaction",
      ("%s ended the managed transaction"):format(statement.tag), { hint = HINTS.control })
    return nil, session.doomed
  end
  return result
end

return M
