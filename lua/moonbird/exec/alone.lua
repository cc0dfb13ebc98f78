--- A statement that can't run in a transaction, as a unit: an intent row before it, a probe after a death, a
-- check after success.
local failpoint = require "moonbird.core.failpoint"
local probe = require "moonbird.exec.probe"
local progress = require "moonbird.exec.progress"
local task = require "moonbird.core.task"

local M = {}

--- Behind a transaction pooler, where no lock of a session tells it: waits until no backend works on the statement
--- any more. That of an interrupted run goes on although its client is dead.
local function wait_for_orphan(self, text)
  while self.target.pooled do
    local result, err = self.target.session:query([[
      select pid from pg_stat_activity where state = 'active' and datname = current_database()
        and pid <> pg_backend_pid() and query <> '' and starts_with($1, query) limit 1]], { text })
    if not result then
      return nil, err
    elseif result:count() == 0 then
      return true
    end
    self.target.run.report:waiting_for_backend(result:value(1, 1))
    local ok
    ok, err = task.sleep(200)
    if not ok then
      return nil, err
    end
  end
  return true
end

--- Runs one statement outside any transaction with no time limits; what the session had set is put back.
local function send_alone(self, st, text)
  local session = self.target.session
  local wanted = { lock_timeout = "0", statement_timeout = "0" }
  local before = {}
  for name, value in pairs(self.target.pooled and {} or wanted) do
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
  if verdict == "absent" or verdict == "foreign" then -- of ours there is nothing: the name was taken, say
    self:record(progress.unit_event(index, sha, "failed"))
  end
end

--- Runs the statement, or settles what an interrupted run left of it.
---@param self moonbird.progress
---@param index integer number of the unit
---@param sha string of its text
---@param text string
---@param st table the statement within the text
---@return true|nil
---@return moonbird.error? err
function M.run(self, index, sha, text, st)
  local session = self.target.session
  local what = probe.of(st)
  local row, err = self:earlier(index, sha)
  if err then
    return nil, err
  end
  if row and row.outcome == "done" then
    return true
  end
  local before
  if row then
    local ok
    ok, err = wait_for_orphan(self, text:sub(st.first, st.last))
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
      return nil, self:interrupted(("%s was interrupted, and what is there now was not made by it")
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
      return self:record(progress.unit_event(index, sha, "done", { found = true }))
    end
  else
    before, err = what.before(session, st.object or {})
    if not before then
      return nil, err
    end
    local ok
    ok, err = self:record(progress.unit_event(index, sha, "started", { before = before, statement = st.tag }))
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
  ok, err = self:record(progress.unit_event(index, sha, "done"))
  failpoint("unit.done")
  return ok, err
end

return M
