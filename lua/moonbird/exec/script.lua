--- A Lua function as a step without a transaction: each statement that writes is a unit, db:atomic is one
-- transaction and one unit. A rerun calls the function again; units that are done answer from the journal.
local alone = require "moonbird.exec.alone"
local atomic_unit = require "moonbird.exec.atomic"
local db = require "moonbird.core.db"
local error_ = require "moonbird.core.error"
local failpoint = require "moonbird.core.failpoint"
local hash = require "moonbird.core.sys".sha256
local progress = require "moonbird.exec.progress"
local replay = require "moonbird.exec.replay"
local sandbox = require "moonbird.core.sandbox"
local statement = require "moonbird.core.statement"
local transactional = require "moonbird.exec.transactional"
local units = require "moonbird.exec.units"

local M = {}

local READS = { SELECT = true, SHOW = true, EXPLAIN = true, WITH = true }
local WRITES = { "INSERT", "UPDATE", "DELETE", "MERGE", "INTO" }

--- Whether a statement only reads: it runs as it is, every time the function runs. A word that only looks
--- like a write makes it a unit, whose answer is kept; that is right, too.
local function reads(text, st)
  if not READS[st.tag] then
    return false
  end
  local upper = text:sub(st.first, st.last):upper()
  for _, word in ipairs(WRITES) do
    if upper:find("%f[%w]" .. word .. "%f[%W]") then
      return false
    end
  end
  return true
end

local function signature(text, params, count)
  local parts = { text }
  for i = 1, count or 0 do
    parts[i + 1] = type(params[i]) .. ":" .. tostring(params[i])
  end
  return hash(table.concat(parts, "\0"))
end

local function lost_answer(self, index)
  return self:interrupted(("unit %d is done, but what it answered was too large to be kept"):format(index))
end

local function swallowed()
  return error_.new("transaction", "a statement failed inside db:atomic and its error was swallowed",
    { hint = "let the error through, or put the statement into a db:atomic of its own" })
end

--- Runs the function.
---@param self moonbird.progress
---@param fn function
---@return true|nil
---@return moonbird.error? err
function M.run(self, fn)
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
    local refused = units.refusal(text, st)
    if refused then
      refused.line, refused.column = nil, nil -- of the text; the script's place is added further up
      return nil, refused
    end
    if reads(text, st) or units.is_session(st) then
      return statement.send(session, text, st, params, count)
    end
    index = index + 1
    local sha = signature(text:sub(st.first, st.last), params, count)
    if st.class == "alone" then
      local _, err = alone.run(self, index, sha, text, st)
      return nil, err
    end
    local row, err = self:earlier(index, sha)
    if err then
      return nil, err
    elseif row and row.outcome == "done" then
      if row.detail.lost then
        return nil, lost_answer(self, index)
      end
      return replay.result(row.detail)
    end
    local result
    failpoint("unit.before")
    local _, failure = atomic_unit.with_retry(self, function(timeouts)
      local fields = progress.unit_event(index, sha, "done")
      return atomic_unit.in_transaction(self, fields, timeouts, function()
        local run_err
        result, run_err = statement.run(session, text, st, params, count)
        replay.keep_result(fields.detail, result)
        return run_err == nil, run_err
      end)
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
    local row, err = self:earlier(index, sha)
    if row and row.detail.lost then
      err = lost_answer(self, index)
    end
    if err then
      error(err, 0)
    end
    if row and row.outcome == "done" then
      return replay.values(row.detail)
    end
    local results
    local fields = progress.unit_event(index, sha, "done")
    in_atomic = true
    local ok, failure = atomic_unit.in_transaction(self, fields, self.timeouts, function()
      results = table.pack(pcall(body))
      if results[1] and session:state() ~= "in_txn" then
        return false, session.doomed or session.unsaid or swallowed()
      end
      replay.keep_values(fields.detail, table.pack(table.unpack(results, 2, results.n)))
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
    record = self.step.begin_recording and self.step.begin_recording(),
  }
  local limits = target.run.config.limits or {}
  local ok, err = sandbox.run { fn = fn, args = { handle }, name = self.step.migration.file,
    instructions = limits.instructions, memory = limits.memory, seconds = target.run:script_seconds() }
  if not ok then
    return nil, transactional.demote(err)
  end
  return true
end

return M
