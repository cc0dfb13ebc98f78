--- A step in one transaction with its journal row.
--
-- Two ways with the same effect. A step of plain SQL goes out as one pipeline with one Sync: settings,
-- the door, the statements, the journal row; the implicit transaction commits it all or nothing, in one
-- round trip. Everything else (Lua functions, COPY data, statements that need an explicit block) runs
-- the same sequence awaited, between BEGIN and COMMIT.
local db = require "moonbird.core.db"
local error_ = require "moonbird.core.error"
local failpoint = require "moonbird.core.failpoint"
local json = require "moonbird.core.json"
local position = require "moonbird.core.position"
local sandbox = require "moonbird.core.sandbox"
local statement = require "moonbird.core.statement"

local M = {}

--- The journal's event for a step that was done.
---@param target moonbird.target
---@param step moonbird.step
---@return table
function M.done_event(target, step)
  if step.done_event then -- of a backfill's beginning
    return step.done_event()
  end
  local up = step.direction == "up"
  return target.run:event {
    event = up and "apply" or "revert",
    applies = up,
    version = step.migration.version,
    version_text = step.migration.version_text,
    id = step.migration.id,
    name = step.migration.name,
    direction = step.direction,
    phase = step.migration.phase,
    scope = step.migration.scope,
    compatibility = step.migration.compatibility,
    checksum = step.migration.checksum,
    outcome = "done",
    plan = step.plan,
    detail = step.describe and step.describe() or nil,
  }
end

--- The same as JSON: made once for all targets that share the step.
local function done_json(target, step)
  local shared = step.shared or step
  local event = shared.event
  if not event then
    event = json.encode(M.done_event(target, step))
    shared.event = event
  end
  return event
end

--- The statements of all blocks of a SQL step.
local function statements_of(body)
  local list = {}
  for _, block in ipairs(body.blocks) do
    for _, st in ipairs(block.statements) do
      list[#list + 1] = st
    end
  end
  return list
end

local function where(step, st)
  return {
    text = step.body.text,
    first = st.first,
    file = step.migration.file,
    origin_line = step.body.origin_line,
  }
end

--- Whether a step may run in a pipeline's implicit transaction: plain statements only, because CALL and
--- DO could commit there and LOCK or SAVEPOINT need a block of their own.
---@param target moonbird.target
---@param body table
---@return boolean
function M.pipelined(target, body)
  if body.kind ~= "sql" or target.awaited_only then
    return false
  end
  for _, block in ipairs(body.blocks) do
    for _, st in ipairs(block.statements) do
      if st.class ~= "plain" then
        return false
      end
    end
  end
  return true
end

-- Codes by which the journal's own functions steer the engine.
local STEERING = { locked = true, history_moved = true }

--- An error that a migration's own statement or script raised can't steer the engine, whatever its SQLSTATE
--- or code says.
---@param err moonbird.error
---@return moonbird.error err
function M.demote(err)
  if STEERING[err.code] then
    err.code = err.sqlstate and "sql" or "script"
  end
  return err
end

--- The pipeline: settings, enter, statements, record.
local function run_pipeline(target, step, timeouts)
  local run = target.run
  local items = { target:enter_item(timeouts, step.durable) }
  if target.prepares then -- its text depends on these two only
    items[1].prepared = ("moonbird_enter_%s%d"):format(step.durable and "d" or "n", #items[1])
  end
  local list = statements_of(step.body)
  for i, st in ipairs(list) do
    items[i + 1] = { step.body.text:sub(st.first, st.last) }
    run.report:statement(step, step.body.text, st)
  end
  items[#items + 1] = run.journal:record_item(target.name, target.head + 1, done_json(target, step))
  items[#items].prepared = target.prepares and "moonbird_record" or nil
  failpoint("step.before_send")
  local results, err = target.session:batch(items, true)
  failpoint("step.after_send")
  if results then
    return true
  end
  local st = err.index and list[err.index - 1]
  if st then
    position.locate(M.demote(err), where(step, st))
  end
  return nil, err
end

--- Runs the body of a step in the transaction that is open. Commits nothing.
---@param target moonbird.target
---@param step moonbird.step
---@return true|nil
---@return moonbird.error? err
function M.run_body(target, step)
  local body = step.body
  if body.kind == "function" then
    local handle = db.new {
      session = target.session,
      target = { name = target.name, schema = target.schema, vars = target.vars },
      log = function(level, message)
        target.run.report:log(level, message, step)
      end,
      observe = function(text, st)
        target.run.report:statement(step, text, st)
        failpoint("step.statement")
      end,
      record = step.begin_recording and step.begin_recording(),
    }
    local limits = target.run.config.limits or {}
    local ok, err = sandbox.run {
      fn = body.fn,
      args = { handle },
      name = step.migration.file,
      instructions = limits.instructions,
      memory = limits.memory, seconds = target.run:script_seconds(),
    }
    if not ok then
      return nil, M.demote(err)
    end
    return true
  end
  for _, st in ipairs(statements_of(body)) do
    target.run.report:statement(step, body.text, st)
    failpoint("step.statement")
    local _, err = statement.run(target.session, body.text, st)
    if err then
      return nil, position.locate(M.demote(err), where(step, st))
    end
  end
  return true
end

--- Opens the transaction and passes the door.
---@param target moonbird.target
---@param timeouts table
---@param durable boolean
---@return true|nil
---@return moonbird.error? err
function M.begin(target, timeouts, durable)
  -- Isolation and access mode are said, whatever the role's or the database's defaults are.
  local results, err = target.session:batch {
    { "begin isolation level read committed read write" },
    target:enter_item(timeouts, durable),
  }
  if not results then
    target.session:rollback()
    return nil, err
  end
  return true
end

--- Ends the transaction: undoes what the body did to the session's settings and role (inside the
--- transaction, so that nothing leaks to the next one or through a pooler), records, commits.
local function finish(target, step)
  local items = {
    { "reset session authorization" },
    { "reset role" },
    { "reset all" },
    target:settings_item({ lock = 0, statement = 0 }, step.durable),
    target.run.journal:record_item(target.name, target.head + 1, M.done_event(target, step)),
    { "commit" },
  }
  failpoint("step.before_commit")
  local results, err = target.session:batch(items)
  failpoint("step.after_commit")
  if not results then
    return nil, err
  end
  return true
end

--- Why a transaction whose body is done may not be committed; nil when it may.
---@param target moonbird.target
---@return moonbird.error|nil
function M.unfit(target)
  target.session:settle()
  if target.session.doomed then
    return target.session.doomed -- a script caught it; it still holds
  elseif target.session:state() ~= "in_txn" then
    return target.session.unsaid or error_.new("transaction", "the migration left its transaction in a failed state",
      { hint = "an error was caught with pcall outside db:atomic; wrap the statement in db:atomic" })
  end
end

local function run_awaited(target, step, timeouts)
  local ok, err = M.begin(target, timeouts, step.durable)
  if not ok then
    return nil, err
  end
  failpoint("step.begun")
  ok, err = M.run_body(target, step)
  if ok then
    err = M.unfit(target)
    if not err and step.vet then
      err = step.vet()
    end
    ok = err == nil
  end
  if ok then
    failpoint("step.body_done")
    ok, err = finish(target, step)
  end
  if not ok then
    target.session:rollback()
    return nil, err
  end
  return true
end

--- After a connection was lost while a commit may have been under way: did it happen? The journal knows:
--- the step's row shares its fate. The old backend may still be at work, so its lock is waited for first.
local function committed_after_all(target, step)
  local ok, err = target:reconnect()
  if ok then
    ok, err = target:wait_until_free()
  end
  local head = target.head
  if ok then
    ok, err = target:refresh()
  end
  if not ok then
    return nil, err
  end
  if target.head > head then
    local result
    result, err = target.session:query(("select run = $3 and version = $4 and event in ('apply', 'revert', 'start') "
      .. "from %s.journal where target = $1 and ordinal = $2"):format(target.run.journal.quoted),
      { target.name, head + 1, target.run.id, step.migration.version })
    if not result then
      return nil, err
    end
    return result:value(1, 1) == true
  end
  return false
end

--- Runs a step once.
---@param target moonbird.target
---@param step moonbird.step
---@param timeouts { lock: integer, statement: integer }
---@return true|nil
---@return moonbird.error? err
function M.attempt(target, step, timeouts)
  local ok, err
  if M.pipelined(target, step.body) then
    ok, err = run_pipeline(target, step, timeouts)
  else
    ok, err = run_awaited(target, step, timeouts)
  end
  if not ok and err.code == "connection_lost" then
    local done, unknown = committed_after_all(target, step)
    if done == nil then
      return nil, error_.with(err, { detail = "whether the step was committed is not known: " .. tostring(unknown),
        hint = "when the server is back, `moonbird status` tells; `moonbird up` goes on" })
    elseif done then
      target.run.report:log("warn", "the connection was lost during the commit; the journal says it happened",
        step)
      -- refresh() has taken the new head in already
      return true
    end
    return nil, err
  end
  if not ok then
    target.session:rollback() -- nothing to do after a pipeline, but for one that ended half-way
    return nil, err
  end
  target.head = target.head + 1
  target.unflushed = target.unflushed or not step.durable
  if step.durable then
    target.unflushed = false
  end
  return true
end

return M
