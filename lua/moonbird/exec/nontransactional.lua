--- A step without a transaction of its own: CREATE INDEX CONCURRENTLY and its like, dbmate's
-- transaction:false, Lua migrations with transaction = false.
--
-- A second connection, the lease, holds the target's lock in an idle READ COMMITTED transaction: no
-- snapshot, so CONCURRENTLY does not wait for it, and it dies with the process. The work is cut into units
-- (units.lua); each has a progress row, written in the unit's own transaction where it has one. A rerun
-- goes on after the last unit that is done, and asks a probe about the one that was under way.
local db = require "moonbird.core.db"
local error_ = require "moonbird.core.error"
local failpoint = require "moonbird.core.failpoint"
local hash = require "moonbird.core.sys".sha256
local position = require "moonbird.core.position"
local probe = require "moonbird.exec.probe"
local sandbox = require "moonbird.core.sandbox"
local statement = require "moonbird.core.statement"
local task = require "moonbird.core.task"
local transactional = require "moonbird.exec.transactional"
local units = require "moonbird.exec.units"

---@class moonbird.nontransactional
local M = {}
M.__index = M

-- The journal -------------------------------------------------------------------------------------------

local function event(self, fields)
  local migration = self.step.migration
  fields.version = migration.version
  fields.version_text = migration.version_text
  fields.id = migration.id
  fields.name = migration.name
  fields.direction = self.step.direction
  fields.checksum = migration.checksum
  fields.plan = self.step.plan
  return self.target.run:event(fields)
end

local function record_item(self, fields)
  return self.target.run.journal:record_item(self.target.name, self.target.head + 1, event(self, fields))
end

--- Appends an event; the lease holds the lock.
local function record(self, fields)
  local results, err = self.target.session:batch { record_item(self, fields) }
  if not results then
    return nil, err
  end
  self.target.head = self.target.head + 1
  return true
end

local function unit_event(index, sha, outcome, more)
  local detail = { unit = index, sha = sha }
  for k, v in pairs(more or {}) do
    detail[k] = v
  end
  return { event = "unit", outcome = outcome, detail = detail }
end

--- Reads what an interrupted run left in the journal: the newest start of this step and its units.
local function read_progress(self)
  local progress = { units = {} }
  for _, row in ipairs(self.target.state.open) do
    if row.version == self.step.migration.version then
      if row.event == "start" then
        progress = { started = row, units = {} }
      elseif row.event == "unit" then
        progress.units[row.detail.unit] = row
      end
    end
  end
  return progress
end

-- Running units -----------------------------------------------------------------------------------------

local function interrupted(self, message, hint)
  local migration = self.step.migration
  return error_.new("interrupted_step", ("%s: %s"):format(migration.id, message), {
    file = migration.file, hint = hint or ("look at the database, then `moonbird repair %s --mark applied` "
      .. "or `--mark reverted`"):format(migration.version_text) })
end

--- The progress row of a unit from an earlier run; refuses when the migration no longer says the same.
local function earlier(self, index, sha)
  local row = self.progress.units[index]
  if row and row.outcome == "failed" then
    return nil -- it failed and left nothing: free to be written anew
  elseif row and row.detail.sha ~= sha then
    return nil, interrupted(self, ("unit %d is not what the interrupted run was doing"):format(index),
      "restore the file as it was, or settle the step with `moonbird repair`")
  end
  return row
end

--- Waits until the backend that an interrupted run left working is gone: its statement may still be
--- running although its client is dead.
local function wait_for_backend(self, row)
  while true do
    local result, err = self.target.session:query(
      "select application_name from pg_stat_activity where pid = $1 and backend_start = $2::timestamptz",
      { row.detail.pid, row.detail.backend_start })
    if not result then
      return nil, err
    end
    if result:count() == 0 then
      return true
    end
    self.target.run.report:waiting_for_backend(self.step, row.detail.pid)
    local ok
    ok, err = task.sleep(200)
    if not ok then
      return nil, err
    end
  end
end

--- Runs one statement outside any transaction with no time limits and the target's search_path; what the
--- session had set is put back.
local function send_alone(self, st, text)
  local session = self.target.session
  local wanted = { lock_timeout = "0", statement_timeout = "0", search_path = self.target:search_path() }
  local before = {}
  for name, value in pairs(wanted) do
    local result, err = session:query("select current_setting($1) as old, set_config($1, $2, false) "
      .. "where current_setting($1) <> $2", { name, value })
    if not result then
      return nil, err
    end
    before[name] = result:value(1, 1)
  end
  local _, err = session:query(text:sub(st.first, st.last))
  for name, value in pairs(before) do
    session:query("select set_config($1, $2, false)", { name, value })
  end
  if err then
    return nil, err
  end
  return true
end

--- After a statement failed (the server said so; nobody died): removes what it left and says so in the
--- journal, so that the next run starts clean. What can't be settled now is left to the next run's probe.
local function settle_failure(self, index, sha, st, before)
  local session = self.target.session
  if session.doomed then
    return
  end
  local what = probe.of(st)
  local verdict = what.after(session, st.object or {}, before)
  if verdict == "ours" then
    local said = what.clean(session, st.object or {}, before)
    if not said then
      return
    end
    self.target.run.report:log("warn", said .. " that the failed statement left", self.step)
    verdict = "absent"
  end
  if verdict == "absent" then
    record(self, unit_event(index, sha, "failed"))
  end
end

local function run_alone(self, index, sha, text, st)
  local session = self.target.session
  local what = probe.of(st)
  local row, err = earlier(self, index, sha)
  if err then
    return nil, err
  end
  if row and row.outcome == "done" then
    return true
  end
  local before
  if row then
    local ok
    ok, err = wait_for_backend(self, row)
    if not ok then
      return nil, err
    end
    before = row.detail.before
    local verdict
    verdict, err = what.after(session, st.object or {}, before)
    if not verdict then
      return nil, err
    end
    if verdict == "foreign" then
      return nil, interrupted(self, ("%s was interrupted, and what is there now was not made by it")
        :format(st.tag))
    elseif verdict == "ours" then
      local said, becomes = what.clean(session, st.object or {}, before)
      if not said then
        return nil, becomes
      end
      self.target.run.report:log("warn", said .. " that the interrupted run left", self.step)
      verdict = becomes or "absent"
    end
    if verdict == "done" then
      return record(self, unit_event(index, sha, "done", { found = true }))
    end
  else
    before, err = what.before(session, st.object or {})
    if not before then
      return nil, err
    end
    local me
    me, err = session:query("select backend_start::text from pg_stat_activity where pid = pg_backend_pid()")
    if not me then
      return nil, err
    end
    local ok
    ok, err = record(self, unit_event(index, sha, "started",
      { before = before, pid = session:pid(), backend_start = me:value(1, 1), statement = st.tag }))
    if not ok then
      return nil, err
    end
  end
  failpoint("unit.intent")
  local ok
  ok, err = send_alone(self, st, text)
  if not ok then
    settle_failure(self, index, sha, st, before)
    return nil, err
  end
  failpoint("unit.ran")
  if what.check then
    ok, err = what.check(session, st.object or {})
    if not ok then
      return nil, err
    end
  end
  ok, err = record(self, unit_event(index, sha, "done"))
  failpoint("unit.done")
  return ok, err
end

local function statement_error(self, body, st, err)
  return position.locate(err, { text = body.text, first = st.first, file = self.step.migration.file,
    origin_line = body.origin_line })
end

--- Sends a unit as one simple query, feeding its COPY data, and sees that no transaction stays open.
local function send_whole(self, body, unit, fields)
  local target = self.target
  local settings = ("select set_config('lock_timeout','%dms',true),set_config('statement_timeout','%dms',true)")
    :format(self.timeouts.lock or 0, self.timeouts.statement or 0)
  local path = target:search_path()
  if path then
    settings = settings .. (",set_config('search_path',%s,true)")
      :format(require("moonbird.core.sql").literal(path))
  end
  local text, places = units.query_text(body.text, unit, settings .. ";\n",
    target.run.journal:record_text(target.name, target.head + 1, event(self, fields)))
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
    local found = places[1]
    for _, place in ipairs(places) do
      if err.position and place.at <= err.position then
        found = place
      end
    end
    if err.position then
      err.position = err.position - found.at + 1
      statement_error(self, body, found.st, err)
    end
    return nil, err
  end
  if target.session:state() ~= "idle" then
    target.session:rollback()
    local last = unit.statements[#unit.statements]
    return nil, statement_error(self, body, last, error_.new("transaction",
      "the block leaves a transaction open; it was rolled back",
      { hint = "end it with COMMIT, or drop BEGIN and transaction:false" }))
  end
  target.head = target.head + 1
  return true
end

--- Runs a unit between our own BEGIN and COMMIT, with its progress row. `work` raises nothing.
local function in_transaction(self, fields, work)
  local session = self.target.session
  local results, err = session:batch {
    { "begin isolation level read committed read write" },
    self.target:settings_item(self.timeouts, true),
  }
  local ok = results ~= nil
  if ok then
    ok, err = work()
  end
  if ok then
    results, err = session:batch { record_item(self, fields), { "commit" } }
    ok = results ~= nil
  end
  if not ok then
    session:rollback()
    return nil, err
  end
  self.target.head = self.target.head + 1
  return true
end

local function run_atomic(self, index, body, unit)
  local row, err = earlier(self, index, unit.sha)
  if err then
    return nil, err
  end
  if row and row.outcome == "done" then
    return true
  end
  local fields = unit_event(index, unit.sha, "done")
  failpoint("unit.before")
  local ok
  if unit.managed then
    ok, err = in_transaction(self, fields, function()
      for _, st in ipairs(unit.statements) do
        local _, failure = statement.run(self.target.session, body.text, st)
        if failure then
          return nil, statement_error(self, body, st, failure)
        end
      end
      return true
    end)
  else
    ok, err = send_whole(self, body, unit, fields)
  end
  failpoint("unit.done")
  return ok, err
end

local function run_opaque(self, index, body, unit)
  local row, err = earlier(self, index, unit.sha)
  if err then
    return nil, err
  end
  if row and row.outcome == "done" then
    return true
  elseif row then
    return nil, interrupted(self, "a block with two-phase commit was interrupted")
  end
  local ok
  ok, err = record(self, unit_event(index, unit.sha, "started"))
  if not ok then
    return nil, err
  end
  for _, st in ipairs(unit.statements) do
    local _, failure = statement.send(self.target.session, body.text, st)
    if failure then
      self.target.session:rollback()
      return nil, statement_error(self, body, st, failure)
    end
  end
  return record(self, unit_event(index, unit.sha, "done"))
end

--- SET and its like: no unit of work, but what the statements after it stand on, so it is done in every run.
local function run_session(self, body, st)
  local _, err = statement.send(self.target.session, body.text, st)
  if err then
    return nil, statement_error(self, body, st, err)
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
      ok, err = run_alone(self, index, unit.sha, body.text, st)
      if not ok then
        statement_error(self, body, st, err)
      end
    elseif unit.kind == "session" then
      ok, err = run_session(self, body, unit.statements[1])
    elseif unit.kind == "opaque" then
      ok, err = run_opaque(self, index, body, unit)
    else
      ok, err = run_atomic(self, index, body, unit)
    end
    if not ok then
      return nil, err
    end
  end
  return true
end

-- Lua functions ---------------------------------------------------------------------------------------

local READS = { SELECT = true, SHOW = true, EXPLAIN = true, VALUES = true, TABLE = true }

--- Whether a statement only reads: it runs as it is, every time the function runs.
local function reads(text, st)
  if READS[st.tag] then
    return true
  end
  if st.tag == "WITH" then
    local upper = text:sub(st.first, st.last):upper()
    return not (upper:find("%f[%w]INSERT%f[%W]") or upper:find("%f[%w]UPDATE%f[%W]")
      or upper:find("%f[%w]DELETE%f[%W]") or upper:find("%f[%w]MERGE%f[%W]"))
  end
  return false
end

local function signature(text, params, count)
  local parts = { text }
  for i = 1, count or 0 do
    parts[i + 1] = type(params[i]) .. ":" .. tostring(params[i])
  end
  return hash(table.concat(parts, "\0"))
end

local function run_function(self, fn)
  local target, session = self.target, self.target.session
  local index, in_atomic = 0, false

  local function run(text, st, params, count)
    if in_atomic then
      return statement.run(session, text, st, params, count)
    end
    if st.class == "control" then
      return nil, error_.new("transaction", ("%s is not allowed in a Lua migration"):format(st.tag),
        { hint = "use db:atomic(function() ... end), which is one transaction here" })
    end
    if reads(text, st) or units.is_session(st) then
      return statement.send(session, text, st, params, count)
    end
    index = index + 1
    local sha = signature(text:sub(st.first, st.last), params, count)
    if st.class == "alone" then
      local _, err = run_alone(self, index, sha, text, st)
      return nil, err
    end
    local row, err = earlier(self, index, sha)
    if err or (row and row.outcome == "done") then
      return nil, err
    end
    local result
    failpoint("unit.before")
    local _, failure = in_transaction(self, unit_event(index, sha, "done"), function()
      local run_err
      result, run_err = statement.run(session, text, st, params, count)
      return run_err == nil, run_err
    end)
    failpoint("unit.done")
    return result, failure
  end

  local function atomic(body)
    if in_atomic then
      error(error_.new("script", "db:atomic can't be nested in a migration without a transaction"), 0)
    end
    index = index + 1
    local sha = hash("atomic " .. index)
    local row, err = earlier(self, index, sha)
    if err then
      error(err, 0)
    end
    if row and row.outcome == "done" then
      return
    end
    local results
    in_atomic = true
    local ok, failure = in_transaction(self, unit_event(index, sha, "done"), function()
      results = table.pack(pcall(body))
      return results[1], results[2]
    end)
    in_atomic = false
    if not ok then
      error(failure, 0)
    end
    return table.unpack(results, 2, results.n)
  end

  local handle = db.new {
    session = session,
    target = { name = target.name, schema = target.schema, vars = target.vars },
    run = run,
    atomic = atomic,
    log = function(level, message)
      target.run.report:log(level, message, self.step)
    end,
    observe = function(text, st)
      target.run.report:statement(self.step, text, st)
    end,
  }
  local limits = target.run.config.limits or {}
  local ok, err = sandbox.run { fn = fn, args = { handle }, name = self.step.migration.file,
    instructions = limits.instructions, memory = limits.memory }
  if not ok then
    return nil, err
  end
  return true
end

-- The step ----------------------------------------------------------------------------------------------

--- Opens the lease: the lock, held in an idle transaction of a second connection.
local function lease(target)
  local session, err = target.run:connect(target.name .. "/lease")
  if not session then
    return nil, err
  end
  local results
  -- By the simple protocol: the extended one leaves its portal open, and with it a snapshot that
  -- CONCURRENTLY would wait for until this transaction ends.
  results, err = session:simple("begin isolation level read committed; "
    .. "select set_config('idle_in_transaction_session_timeout', '0', true); "
    .. target.run.journal:enter_text(target.name, target.head))
  if not results then
    session:close()
    return nil, err
  end
  return session
end

local function run_leased(self)
  local target, step = self.target, self.step
  local started = self.progress.started
  if started and started.direction ~= step.direction then
    return nil, interrupted(self, ("an interrupted %s is still open"):format(started.direction))
  end
  local ok, err = true, nil
  if started then
    target.run.report:log("warn", ("going on where run %s on %s was interrupted"):format(
      started.run:sub(1, 8), started.host or "?"), step)
  else
    ok, err = record(self, { event = "start", outcome = "started" })
  end
  failpoint("nontx.started")
  if ok then
    if step.body.kind == "sql" then
      ok, err = run_sql(self, step.body)
    else
      ok, err = run_function(self, step.body.fn)
    end
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
---@param timeouts { lock: integer, statement: integer }
---@return true|nil
---@return moonbird.error? err
function M.attempt(target, step, timeouts)
  local held, err = lease(target)
  if not held then
    return nil, err
  end
  failpoint("nontx.leased")
  local self = { target = target, step = step, timeouts = timeouts }
  self.progress = read_progress(self)
  local ok
  ok, err = run_leased(self)
  target.session:rollback()
  if not target.session.doomed then
    -- What the step SET for its session must not reach the next one.
    local _, failure = target.session:simple("discard all")
    ok, err = ok and not failure, err or failure
  end
  held:rollback()
  held:close()
  target.unflushed = false
  return ok, err
end

return M
