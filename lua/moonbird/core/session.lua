--- A session: one connection, the notices that came with it, and the reason it may no longer be used.
--
-- Low level: expected failures are `nil, err`. After an interruption, a run-out time limit or a lost
-- connection the session is doomed: every further statement returns that first error, so that a script
-- which swallows it with pcall can't go on as if nothing had happened. Only rollback() still works.
local conn = require "moonbird.native.conn"
local error_ = require "moonbird.core.error"

---@class moonbird.session
---@field conn userdata
---@field on_notice function|nil called with each notice {severity, sqlstate, message, detail, hint}
---@field doomed moonbird.error|nil
---@field ahead table|nil what was sent and is not taken in yet: a cursor's next FETCH, or a batch
---@field copying table|nil whose COPY TO stdout is under way
---@field unsaid moonbird.error|nil why the transaction failed, while nobody was told yet
local M = {}
M.__index = M

local ADVICE = error_.codes().connection_lost.advice
local FATAL = { interrupted = true, timeout = true, connection_lost = true }

-- A dead network must not hang a deploy for the two hours of TCP's own defaults.
local DEFAULTS = {
  connect_timeout = "10",
  client_encoding = "UTF8",
  keepalives_idle = "30",
  tcp_user_timeout = "60000",
}

--- Connects.
---@param params table<string, string> libpq keywords
---@param options? { application_name?: string, on_notice?: function }
---@return moonbird.session|nil
---@return moonbird.error? err code "connect"
function M.open(params, options)
  options = options or {}
  local keywords = {}
  for k, v in pairs(DEFAULTS) do
    keywords[k] = v
  end
  keywords.application_name = options.application_name
  for k, v in pairs(params) do
    keywords[k] = v
  end
  local self = setmetatable({ conn = conn.new(), on_notice = options.on_notice }, M)
  local ok, err = self.conn:connect(keywords)
  if not ok then
    return nil, err
  end
  return self
end

--- Asks whether a server accepts connections, without logging in.
---@param params table<string, string> libpq keywords
---@param seconds integer the longest to wait for an answer
---@return true|nil
---@return moonbird.error? err code "connect"
function M.ping(params, seconds)
  local keywords = {}
  for k, v in pairs(params) do
    keywords[k] = v
  end
  keywords.connect_timeout = tostring(seconds)
  return conn.new():ping(keywords)
end

--- Takes in what a statement left: notices, the doom of the session.
local function finish(self, result, err)
  if self.on_notice then
    for _, notice in ipairs(self.conn:notices()) do
      self.on_notice(notice)
    end
  end
  if result == nil and err and FATAL[err.code] then
    self.doomed = err
    if err.code == "connection_lost" then
      error_.with(err, { hint = ADVICE })
    end
  end
  return result, err
end

-- Around a FETCH that is sent ahead: nobody may ever ask for its rows, so that its error must not fail the transaction.
local GUARD = "savepoint moonbird_ahead"
local UNGUARD = "release " .. GUARD
local UNDO = { { "rollback to " .. GUARD }, { UNGUARD } }

--- Takes in a FETCH between GUARD and UNGUARD, and undoes it when it failed.
local function receive_guarded(self, ahead)
  local results, err = finish(self, self.conn:receive_batch())
  ahead.result, ahead.err = results and results[2], err
  if err and not self.doomed and self.conn:state() == "failed" then
    ahead.undone = finish(self, self.conn:batch(UNDO, true)) ~= nil
    err.index = nil
  end
end

--- Takes in what was sent ahead; its error is for the one who asks for it.
local function receive_ahead(self)
  local ahead = self.ahead
  self.ahead = nil
  if ahead.batch then
    ahead.results, ahead.err = finish(self, self.conn:receive_batch())
  elseif ahead.guarded then
    receive_guarded(self, ahead)
  else
    ahead.result, ahead.err = finish(self, self.conn:receive())
  end
  return ahead.err
end

--- Reads the rest of a COPY TO STDOUT that something else ends.
local function drain(self)
  local copy, failure = self.copying or {}, nil
  self.copying = nil
  while self.conn:state() == "copy_out" do
    local chunk, err = self.conn:copy_get()
    if not chunk then
      failure = select(2, finish(self, nil, err))
    end
  end
  copy.err = failure
  return failure
end

--- Ends what is half-read: what was sent ahead, the rest of a COPY TO STDOUT.
local function settle(self)
  local failure
  if self.ahead then
    failure = receive_ahead(self)
  end
  if self.conn:state() == "copy_out" then
    failure = drain(self)
  end
  if failure and self.conn:state() == "failed" then
    self.unsaid = failure
  end
end

--- Whether a statement may be sent. The first one after something failed unseen is told what it was: the server
--- would only say that the transaction is aborted.
local function usable(self)
  if not self.doomed and (self.ahead or self.conn:state() == "copy_out") then
    settle(self)
  end
  if self.doomed then
    return nil, self.doomed
  end
  local unsaid = self.unsaid
  self.unsaid = nil
  if unsaid and self.conn:state() == "failed" then
    return nil, unsaid
  elseif self.conn:state() == "copy_in" then
    return nil, error_.new("script", "a COPY FROM stdin is under way", {
      hint = "its source can't use the database: collect what it needs before the COPY begins" })
  end
  return true
end

--- Runs one statement, parameters bound.
---@param sql string
---@param params? table array of values, may hold nils when `count` is given
---@param count? integer number of parameters
---@return userdata|nil result nil without err for an empty statement or when a COPY began
---@return moonbird.error? err
function M:query(sql, params, count)
  local ok, err = usable(self)
  if not ok then
    return nil, err
  end
  return finish(self, self.conn:query(sql, params, count))
end

--- Runs a string of statements as the server splits it: one implicit transaction.
---@param sql string
---@return userdata[]|nil results
---@return moonbird.error? err with .index, the number of the statement that failed
function M:simple(sql)
  local ok, err = usable(self)
  if not ok then
    return nil, err
  end
  return finish(self, self.conn:simple(sql))
end

--- Runs several statements in one round trip as one implicit transaction.
---@param items table[] { sql, param, ..., n = number of parameters, prepared = name it is kept prepared under }
---@param discard? boolean nobody wants the results
---@return userdata[]|true|nil results true with `discard`
---@return moonbird.error? err with .index, the number of the item that failed
function M:batch(items, discard)
  local ok, err = usable(self)
  if not ok then
    return nil, err
  end
  return finish(self, self.conn:batch(items, discard))
end

--- Drops everything a session keeps: settings, prepared statements, temporary tables.
---@return true|nil
---@return moonbird.error? err
function M:discard_all()
  local results, err = self:simple("discard all")
  self.conn:forget_prepared()
  return results and true, err
end

--- Starts a FETCH without waiting for it; the answer lands in cursor.result or cursor.err when the session is next
--- used or `receive` is called. In a transaction its failure is undone (cursor.undone): only the cursor is lost.
---@param sql string
---@param cursor table with `locks` when the FETCH locks rows: those stay locks of the transaction itself
---@return true|nil
---@return moonbird.error? err
function M:send_ahead(sql, cursor)
  local ok, err = usable(self)
  if not ok then
    return nil, err
  end
  cursor.guarded = not cursor.locks and self.conn:state() == "in_txn"
  if cursor.guarded then
    ok, err = finish(self, self.conn:send_batch { { GUARD }, { sql }, { UNGUARD } })
  else
    ok, err = finish(self, self.conn:send(sql))
  end
  if ok then
    self.ahead = cursor
  end
  return ok, err
end

--- Starts a batch without waiting for it; the answer lands in pending.results or pending.err when the session is
--- next used or `receive` is called.
---@param items table[] as for batch()
---@param pending table
---@return true|nil
---@return moonbird.error? err
function M:batch_ahead(items, pending)
  local ok, err = usable(self)
  if not ok then
    return nil, err
  end
  ok, err = finish(self, self.conn:send_batch(items))
  if ok then
    pending.batch = true
    self.ahead = pending
  end
  return ok, err
end

--- Waits for the answer to what send_ahead() or batch_ahead() started.
---@param ahead table
function M:receive(ahead)
  if self.ahead == ahead then
    settle(self)
  end
end

--- Sends a chunk of a COPY FROM STDIN.
---@param data string
---@return true|nil
---@return moonbird.error? err
function M:copy_put(data)
  if self.doomed then
    return nil, self.doomed
  end
  return finish(self, self.conn:copy_put(data))
end

--- Ends a COPY FROM STDIN; a reason makes it fail on purpose.
---@param reason? string
---@return userdata|nil result
---@return moonbird.error? err
function M:copy_end(reason)
  return finish(self, self.conn:copy_end(reason))
end

--- Begins a COPY TO STDOUT, which lasts until anything else is done with the session.
---@param sql string
---@param copy table what copy_get() is called with
---@return true|nil
---@return moonbird.error? err
function M:copy_out(sql, copy)
  local _, err = self:query(sql)
  if err then
    return nil, err
  end
  self.copying = copy
  return true
end

--- The next chunk of a COPY TO STDOUT: whole rows.
---@param copy table as of copy_out()
---@return string|nil chunk nil when it is over
---@return moonbird.error? err code "script" when something else has ended the copy
function M:copy_get(copy)
  if self.doomed then
    return nil, self.doomed
  elseif copy.over then
    return nil
  elseif self.copying ~= copy then
    return nil, copy.err or error_.new("script", "this COPY TO stdout was ended by another statement", {
      hint = "collect its chunks first, or stream rows with db:rows, which lets other statements run" })
  end
  local chunk, err = finish(self, self.conn:copy_get())
  if not chunk then
    self.copying = nil
    copy.over, copy.err = err == nil, err
  end
  return chunk, err
end

--- "idle", "in_txn", "failed", "busy", "copy_in", "copy_out" or "closed". What was sent ahead is taken in
--- first, so that "busy" is said only of what somebody waits for.
---@return string
function M:state()
  if self.ahead and not self.doomed then
    settle(self)
  end
  return self.conn:state()
end

--- Ends what is half-read: a cursor's FETCH or a batch sent ahead, the rest of a COPY TO STDOUT.
function M:settle()
  if not self.doomed then
    settle(self)
  end
end

--- Rolls back whatever is open and leaves the connection idle, or closed when that is impossible.
--- Works on a doomed session and lifts the doom unless the connection is lost.
function M:rollback()
  if self.conn:state() == "copy_in" then
    self.conn:copy_end("rolled back")
  end
  if self.ahead or self.conn:state() == "copy_out" then
    settle(self)
  end
  self.unsaid = nil
  local state = self.conn:state()
  if state == "in_txn" or state == "failed" then
    local _, err = self.conn:query("rollback")
    if err and err.code ~= "connection_lost" then
      -- An interruption may hit the ROLLBACK itself: once more, then give the connection up.
      _, err = self.conn:query("rollback")
    end
    if err then
      self.conn:close()
    end
  elseif state == "busy" then
    self.conn:close()
  end
  if self.conn:state() == "idle" then
    self.doomed = nil
  elseif not self.doomed then
    self.doomed = error_.new("connection_lost", "the connection was closed")
  end
end

--- Process id of the server's backend.
---@return integer
function M:pid()
  return self.conn:pid()
end

--- The server's version, as 150018.
---@return integer
function M:server_version()
  return self.conn:server_version()
end

--- A parameter that the server reports by itself ("default_transaction_read_only"), or nil.
---@param name string
---@return string|nil
function M:parameter(name)
  return self.conn:parameter(name)
end

--- Closes the connection. Safe to call twice.
function M:close()
  self.conn:close()
end

M.__close = M.close

--- Closes the connection and waits until the server has ended its backend, two seconds at most: it counts for the
--- server's limits and holds its locks until then. Safe to call twice.
function M:leave()
  self.conn:leave()
end

return M
