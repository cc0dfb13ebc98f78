--- A step without a transaction of its own: CREATE INDEX CONCURRENTLY and its like, dbmate's
-- transaction:false, Lua migrations with transaction = false.
--
-- A second connection, the lease, holds the target's lock in an idle READ COMMITTED transaction: no
-- snapshot, so CONCURRENTLY does not wait for it, and it dies with the process. The work is cut into units
-- (units.lua); each has a progress row, written in the unit's own transaction where it has one. A rerun
-- goes on after the last unit that is done, and asks a probe about the one that was under way.
local alone = require "moonbird.exec.alone"
local atomic = require "moonbird.exec.atomic"
local error_ = require "moonbird.core.error"
local journal = require "moonbird.core.journal"
local failpoint = require "moonbird.core.failpoint"
local progress = require "moonbird.exec.progress"
local script = require "moonbird.exec.script"
local statement = require "moonbird.core.statement"
local transactional = require "moonbird.exec.transactional"
local units = require "moonbird.exec.units"

local M = {}

local function run_opaque(self, index, body, unit)
  local row, err = self:earlier(index, unit.sha)
  if err then
    return nil, err
  end
  if row and row.outcome == "done" then
    return true
  elseif row then
    return nil, self:interrupted("a block with two-phase commit was interrupted")
  end
  local ok
  ok, err = self:record(progress.unit_event(index, unit.sha, "started"))
  if not ok then
    return nil, err
  end
  for _, st in ipairs(unit.statements) do
    local _, failure = statement.send(self.target.session, body.text, st)
    if failure then
      self.target.session:rollback()
      return nil, atomic.error(self, body, st, failure)
    end
  end
  return self:record(progress.unit_event(index, unit.sha, "done"))
end

--- SET and its like: no unit of work, but what the statements after it stand on, so it is done in every run.
local function run_session(self, body, st)
  local _, err = statement.send(self.target.session, body.text, st)
  if err then
    return nil, atomic.error(self, body, st, err)
  end
  return true
end

local function run_sql(self, body)
  local list, err = units.of(body)
  if not list then
    err.file = self.step.migration.file
    return nil, err
  end
  for index, unit in ipairs(list) do
    for _, st in ipairs(unit.statements) do
      self.target.run.report:statement(self.step, body.text, st)
    end
    local ok
    if unit.kind == "alone" then
      local st = unit.statements[1]
      ok, err = alone.run(self, index, unit.sha, body.text, st)
      if not ok then
        atomic.error(self, body, st, err)
      end
    elseif unit.kind == "session" then
      ok, err = run_session(self, body, unit.statements[1])
    elseif unit.kind == "opaque" then
      ok, err = run_opaque(self, index, body, unit)
    else
      ok, err = atomic.run(self, index, body, unit)
    end
    if not ok then
      return nil, err
    end
  end
  return true
end

-- The step ----------------------------------------------------------------------------------------------

--- Opens the lease: the target's lock, held by a second connection as long as it lives. Behind a pooler, which would
-- keep the lock for whoever comes next, in an idle transaction instead.
--
-- No transaction otherwise: CONCURRENTLY that collects older snapshots while ours enters waits for the whole of our
-- transaction, not for the statement. Were that what an interrupted run left, we would wait for each other for ever,
-- unseen by the server, since we wait by looking.
local function lease(target)
  local session, err = target.run:connect(target.name .. "/lease")
  if not session then
    return nil, err
  end
  local journal_ = target.run.journal
  local enter = journal_:enter_text(target.name, target.head)
  local results
  if target.pooled then
    -- By the simple protocol: the extended one leaves its portal open, and with it a snapshot.
    results, err = session:simple("begin isolation level read committed; "
      .. "select set_config('idle_in_transaction_session_timeout', '0', true); " .. enter)
  else
    results, err = session:simple(("begin isolation level read committed; select set_config('idle_session_timeout', "
      .. "'0', false); %s; %s; commit"):format(enter, journal_:keep_text(target.name)))
  end
  if not results then
    session:close()
    return nil, err
  end
  return session
end

--- Gives the lease up. The lock is free when it returns, also where a pooler in session mode takes its time to reset
--- what it keeps; and the connection counts no more.
local function give_up(target, session)
  if target.pooled then
    session:rollback()
  else
    session:batch { target.run.journal:let_go_item(target.name) }
  end
  session:leave()
end

--- Waits for what an interrupted run may still have at work in the server, however long that takes: under our
--- lease nobody else begins anything, and it ends by itself. Then sees whether it changed the history this attempt
--- was planned from, and takes its lock for this session: if we die, the next run waits for us in turn.
local function await_orphans(target)
  local head = target.head
  local name = journal.unit_lock(target.name)
  local ok, err = target:wait_until_free(name, { left = math.huge, orphan = true })
  if ok then
    ok, err = target:refresh()
  end
  if ok and target.head ~= head then
    return nil, error_.new("history_moved", "an interrupted run finished a part of the step meanwhile")
  elseif not ok or target.pooled then -- a pooler's connection would keep the lock for whoever comes next
    return ok, err
  end
  local results
  results, err = target.session:batch { target.run.journal:hold_unit_item(target.name) }
  if results and not results[1]:value(1, 1) then
    return nil, error_.new("locked", ("a statement of another run works on target %q"):format(target.name))
  end
  return results and true, err
end

local function run_leased(self)
  local target, step = self.target, self.step
  local started = self.started
  if started and started.direction ~= step.direction then
    return nil, self:interrupted(("an interrupted %s is still open"):format(started.direction))
  end
  local ok, err = true, nil
  if started then
    target.run.report:log("warn", ("going on where run %s on %s left off"):format(
      started.run:sub(1, 8), started.host or "?"), step)
  else
    ok, err = self:record({ event = "start", outcome = "started" })
  end
  failpoint("nontx.started")
  if ok then
    if step.body.kind == "sql" then
      ok, err = run_sql(self, step.body)
    else
      ok, err = script.run(self, step.body.fn)
    end
  end
  target.session:settle()
  if ok and target.session:state() ~= "idle" then
    target.session:rollback()
    ok, err = nil, error_.new("transaction", "the migration left a transaction open; it was rolled back",
      { hint = "don't leave a coroutine suspended inside db:atomic" })
  end
  if not ok then
    return nil, err
  end
  failpoint("nontx.before_done")
  local done = transactional.done_event(target, step)
  local began
  began, err = target.session:query(("select max(started_at)::text from %s.journal where target = $1 "
    .. "and version = $2 and event = 'start'"):format(target.run.journal.quoted),
    { target.name, step.migration.version })
  if not began then
    return nil, err
  end
  done.started_at = began:value(1, 1) -- the journal's duration is the whole step's
  local results
  results, err = target.session:batch {
    target.run.journal:record_item(target.name, target.head + 1, done),
  }
  if not results then
    return nil, err
  end
  target.head = target.head + 1
  failpoint("nontx.done")
  return true
end

--- Runs a step once, or goes on with it.
---@param target moonbird.target
---@param step moonbird.step
---@param timeouts { lock: integer, statement: integer, lock_total: integer }
---@return true|nil
---@return moonbird.error? err
function M.attempt(target, step, timeouts)
  local held, err = lease(target)
  if not held then
    return nil, err
  end
  -- Where something is raised nobody else knows of the lease, and it would last as long as the process.
  local closing <close> = setmetatable({}, { __close = function(_, raised) -- luacheck: ignore
    if raised then
      held:close()
    end
  end })
  failpoint("nontx.leased")
  local ok
  ok, err = await_orphans(target)
  if not ok then
    give_up(target, held)
    return nil, err
  end
  local self = progress.read(target, step, timeouts)
  -- For the whole session, so that probes look where the statements work.
  local path = target:search_path()
  if path and target.pooled then
    ok, err = nil, error_.new("migration", "a step without a transaction needs a search_path of its own, which "
      .. "a transaction pooler can't keep", { hint = "give a URL that goes to the server directly" })
  elseif path then
    ok, err = target:settle_path(path)
  end
  if ok then
    ok, err = target:settle_formats()
  end
  if ok then
    ok, err = run_leased(self)
  end
  target.session:rollback()
  if not target.session.doomed and not target.pooled then
    -- What the step SET for its session must not reach the next one.
    local _, failure = target.session:discard_all()
    ok, err = ok and not failure, err or failure
  end
  give_up(target, held)
  target.unflushed = false
  return ok, err
end

return M
