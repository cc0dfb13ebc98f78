--- Units that happen whole or not at all, with their progress row in the same transaction.
local duration = require "moonbird.util.duration"
local error_ = require "moonbird.core.error"
local failpoint = require "moonbird.core.failpoint"
local position = require "moonbird.core.position"
local progress = require "moonbird.exec.progress"
local retry = require "moonbird.exec.retry"
local sql = require "moonbird.core.sql"
local statement = require "moonbird.core.statement"
local transactional = require "moonbird.exec.transactional"
local units = require "moonbird.exec.units"

local M = {}

--- Gives an error of a statement its place in the migration's file.
---@param self moonbird.progress
---@param body table
---@param st table
---@param err moonbird.error
---@return moonbird.error err
function M.error(self, body, st, err)
  return position.locate(transactional.demote(err), {
    text = body.text, first = st.first, file = self.step.migration.file, origin_line = body.origin_line,
  })
end

--- Says that an attempt failed on a lock and will be made again. A tenant's step is one of many that run at once: no
--- monitor watches it, no report of steps knows it, so it is told by its tenant's name.
local function tell_blocked(self, failure, attempt, lock)
  local target, report = self.target, self.target.run.report
  if target.name == "global" then
    local monitor = target.run.monitor
    report:blocked(self.step, failure, attempt, lock, monitor and monitor:last_blockers())
  else
    report:log("warn", ("%s: attempt %d: %s after %s; trying again"):format(target.name, attempt, failure.message,
      duration.format(lock)), self.step)
  end
end

--- Runs a unit that happens whole or not at all, again and again while a lock is in its way.
---@param self moonbird.progress
---@param attempt fun(timeouts: table): true|nil, moonbird.error?
---@return true|nil
---@return moonbird.error? err
function M.with_retry(self, attempt)
  return retry.run({
    lock = self.timeouts.lock,
    total = self.timeouts.lock_total,
    deadlock_timeout = self.target.deadlock_timeout,
    blocked = function(failure, n, lock)
      tell_blocked(self, failure, n, lock)
    end,
  }, function(lock)
    return attempt({ lock = lock, statement = self.timeouts.statement })
  end)
end

--- Sends a unit as one simple query, feeding its COPY data, and sees that no transaction stays open.
local function send_whole(self, body, unit, fields, timeouts)
  local target = self.target
  local settings = ("select %s,%s,set_config('lock_timeout','%dms',true),set_config('statement_timeout','%dms',true)")
    :format(target.run.journal:unit_call(target.name), target.formats(true), timeouts.lock or 0,
      timeouts.statement or 0)
  local path = target:search_path()
  if path then
    settings = settings .. (",set_config('search_path',%s,true)"):format(sql.literal(path))
    settings = settings .. (target.schema and "," .. target:guard_text() or "")
  end
  local text, places = units.query_text(body.text, unit, settings .. ";\n",
    self:record_text(fields))
  local copies = {}
  for _, place in ipairs(places) do
    if place.st.class == "copy" then
      copies[#copies + 1] = place.st
    end
  end
  local _, err = target.session:simple(text)
  local fed = 0
  while not err and target.session:state() == "copy_in" do
    fed = fed + 1
    _, err = statement.feed(target.session, body.text, copies[fed])
  end
  if err then
    -- Answers come one a statement: the settings', then the block's.
    local found = err.index and places[err.index - 1]
    for _, place in ipairs(places) do
      if err.position and place.at <= err.position then
        found = place
      end
    end
    if found then
      err.position = err.position and err.position - found.at + 1
      M.error(self, body, found.st, err)
    end
    return nil, err
  end
  if target.session:state() ~= "idle" then
    target.session:rollback()
    target:refresh() -- a COMMIT in the middle may have kept the progress row
    local last = unit.statements[#unit.statements]
    return nil, M.error(self, body, last, error_.new("transaction",
      "the block leaves a transaction open; it was rolled back",
      { hint = "end it with COMMIT, or drop BEGIN and transaction:false" }))
  end
  target.head = target.head + 1
  return true
end

--- Runs a unit between our own BEGIN and COMMIT, with its progress row. `work` raises nothing.
---@param self moonbird.progress
---@param fields table the progress row
---@param timeouts { lock: integer, statement: integer }
---@param work fun(): boolean|nil, moonbird.error?
---@return true|nil
---@return moonbird.error? err
function M.in_transaction(self, fields, timeouts, work)
  local session = self.target.session
  local results, err = session:batch {
    { "begin isolation level read committed read write" },
    { "select " .. self.target.run.journal:unit_call(self.target.name) },
    self.target:settings_item(timeouts, true),
  }
  local ok = results ~= nil
  if ok then
    ok, err = work()
  end
  if ok then
    results, err = session:batch { self:record_item(fields), { "commit" } }
    ok = results ~= nil
  end
  if not ok then
    session:rollback()
    return nil, err
  end
  self.target.head = self.target.head + 1
  return true
end

--- A unit that is done is not run again, but what it SET for the session (not LOCAL) is: later statements
--- stand on it.
local function settle_session(self, body, unit)
  for _, st in ipairs(unit.statements) do
    local slice = body.text:sub(st.first, st.last)
    if units.is_session(st) and not slice:upper():find("^SET%s+LOCAL%f[%W]") then
      local _, err = statement.send(self.target.session, body.text, st)
      if err then
        return nil, M.error(self, body, st, err)
      end
    end
  end
  return true
end

--- Runs an atomic unit of a SQL body.
---@param self moonbird.progress
---@param index integer number of the unit
---@param body table
---@param unit moonbird.unit
---@return true|nil
---@return moonbird.error? err
function M.run(self, index, body, unit)
  local row, err = self:earlier(index, unit.sha)
  if err then
    return nil, err
  end
  if row and row.outcome == "done" then
    return settle_session(self, body, unit)
  end
  failpoint("unit.before")
  local ok
  ok, err = M.with_retry(self, function(timeouts)
    local fields = progress.unit_event(index, unit.sha, "done")
    if not unit.managed then
      return send_whole(self, body, unit, fields, timeouts)
    end
    return M.in_transaction(self, fields, timeouts, function()
      for _, st in ipairs(unit.statements) do
        local _, failure = statement.run(self.target.session, body.text, st)
        if failure then
          return nil, M.error(self, body, st, failure)
        end
      end
      return true
    end)
  end)
  failpoint("unit.done")
  return ok, err
end

return M
