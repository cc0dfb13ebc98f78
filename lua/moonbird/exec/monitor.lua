--- Watches a running step from a second connection: is it waiting for a lock, and for whom? Opened only
-- when a step takes longer than a moment; failing to open it costs nothing but the answer.
local task = require "moonbird.core.task"

---@class moonbird.monitor
local M = {}
M.__index = M

-- Milliseconds: how long a step may run before it is looked at, and between two looks.
local FIRST_LOOK = 150
local LOOK_EVERY = 250

local BLOCKERS = [[
  select a.pid, a.application_name as application, a.usename as user, a.state, a.backend_type,
         coalesce(host(a.client_addr), 'local') as client,
         extract(epoch from now() - a.xact_start)::float8 as xact_s, left(a.query, 200) as query
  from unnest(pg_blocking_pids($1)) as b(pid) join pg_stat_activity a on a.pid = b.pid]]

--- A monitor for a run's steps.
---@param run moonbird.run
---@return moonbird.monitor
function M.new(run)
  return setmetatable({ run = run }, M)
end

local function look(self, pid)
  if self.session and self.session.doomed then
    self.session:rollback() -- the last watch ended in the middle of a look
    if self.session.doomed then
      self:close()
    end
  end
  if not self.session then
    local session = self.run:connect("monitor")
    if not session then
      return nil
    end
    self.session = session
  end
  local result = self.session:query(BLOCKERS, { pid })
  local rows = result and result:rows()
  for _, row in ipairs(rows or {}) do
    -- Somebody else's statement: what stands in it as a literal may be anybody's secret.
    row.query = row.query and row.query:gsub("'[^']*'?", "'...'")
  end
  return rows
end

local function watch_until_stopped(self, watch, step, pid)
  local ok = task.sleep(FIRST_LOOK)
  while ok and not watch.stopped do
    if not self.looking then -- the watch before may still be at its last look
      self.looking = true
      local blockers = look(self, pid)
      self.looking = false
      if watch.stopped then
        return
      elseif blockers and #blockers > 0 then
        self.blockers = blockers
      end
      self.run.report:running(step, blockers or {})
    end
    ok = task.sleep(LOOK_EVERY)
  end
end

--- Runs `work` and watches the backend `pid` meanwhile. Does not wait for the watcher's end: a wait here
--- would take a request to stop that is meant for the run.
---@param step table handed to the reporter
---@param pid integer
---@param work fun(): any
---@return any ... what work returns
function M:watch(step, pid, work)
  self.blockers = nil
  local watch = { stopped = false }
  local watcher = task.spawn(watch_until_stopped, self, watch, step, pid)
  local result = table.pack(work())
  watch.stopped = true
  watcher:cancel()
  return table.unpack(result, 1, result.n)
end

--- Who blocked the step last watched, newest look; nil when nobody was seen.
---@return table[]|nil
function M:last_blockers()
  return self.blockers
end

--- Closes the connection.
function M:close()
  if self.session then
    self.session:close()
    self.session = nil
  end
end

return M
