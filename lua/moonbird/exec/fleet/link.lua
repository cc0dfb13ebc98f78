--- A worker's link to the control database: one session, opened anew when it is lost; the lease; the results that
-- wait to be told.
--
-- Why a lease and not row locks held in an open transaction: a transaction that lives as long as a tenant's
-- migration holds back VACUUM on the whole control database, occupies a server connection of a transaction pooler,
-- and dies with any short outage while the work itself goes on. A lease is a time in the worker's own row, renewed
-- every quarter of it by one short statement; everything that a worker holds is free when that time is over by the
-- server's clock. Nothing here depends on a session, so it works behind a transaction pooler. That a worker which
-- was only slow is robbed of a tenant does no harm: the lock on the tenant and its history decide who migrates it.
--
-- Statements of one worker go one after the other. What happens while one is under way waits for the next, so that
-- results and claims travel in batches that grow with the load by themselves.
local bootstrap = require "moonbird.exec.bootstrap"
local error_ = require "moonbird.core.error"
local literal = require "moonbird.core.literal"
local one = require "moonbird.exec.tenants.one"
local sys = require "moonbird.core.sys"
local target_of = require "moonbird.exec.target"
local task = require "moonbird.core.task"

---@class moonbird.fleet.link
---@field run moonbird.run of the control database
---@field fleet moonbird.fleet
---@field worker { run: string, owner: string, lease: integer, host?: string, pid: integer }
---@field view table|nil what the last turn said
---@field renewed integer task.now() at which the lease was last known to be good
local M = {}
M.__index = M

-- How long results wait for company, milliseconds.
local COLLECT_MS = 20
-- How long a control database that is away is waited for: as long as a restart takes.
local AWAY_MS = 60000
local LEAVE_MS = 2000 -- on leaving: what is not freed then is free when the lease is over
local COUNT_MS = 5000

--- Makes a link. Opens nothing.
---@param run moonbird.run whose params are the control database's
---@param fleet moonbird.fleet
---@param name string the run's
---@param lease integer milliseconds
---@return moonbird.fleet.link
function M.new(run, fleet, name, lease)
  return setmetatable({ run = run, fleet = fleet, results = {}, held = {}, renewed = task.now(), counted = 0,
    worker = { run = name, owner = run.id, lease = lease, host = sys.hostname(), pid = sys.pid() } }, M)
end

local function open(self)
  local session, err = self.run:connect("control")
  if not session then
    return nil, err
  end
  if not self.ready then
    local state
    state, err = self.run.journal:read(session, target_of.JOURNAL)
    local ok = state and true
    if ok then
      local target = target_of.adopt(self.run, { name = "global", session = session, state = state })
      ok, err = bootstrap.ensure(target, { left = self.run.lock_wait })
    end
    if not ok then
      session:close()
      return nil, err
    end
    self.ready = true
  elseif self.stage then
    local places = {}
    for place in pairs(self.held) do
      places[#places + 1] = place
    end
    local ok
    ok, err = self.fleet:release(session, self.worker, self.stage, literal.array(places))
    if ok == nil then
      session:close()
      return nil, err
    end
  end
  self.session = session
  return true
end

--- Runs `fn(session)`, again over a new session while the control database is away.
local function persist(self, fn)
  local deadline, pause, told = task.now() + (self.closed and LEAVE_MS or AWAY_MS), 100, false
  while true do
    local ok, err = self.session and true, nil
    if not ok then
      ok, err = open(self)
    end
    if ok then
      local answer
      answer, err = fn(self.session)
      if not err then
        return answer
      end
    end
    if self.session and (self.session.doomed or self.session:state() ~= "idle") then
      self.session:close()
      self.session = nil
    end
    -- Before the first answer a wrong URL is more likely than a restart.
    local wrong = not self.ready and err.code == "connect"
    if not one.retryable(err) or wrong or task.now() > deadline then
      return nil, err
    end
    if not told then
      self.run.report:log("warn", "the control database: " .. tostring(err) .. "; trying again")
      told = true
    end
    local slept, stop = task.sleep(math.floor(pause / 2 + math.random() * pause))
    if not slept then
      return nil, stop
    end
    pause = math.min(pause * 2, 4000)
  end
end

--- Runs `fn(session)` when the link is free. `fn` may be called again after a lost connection.
---@param fn fun(session: moonbird.session): any, moonbird.error?
---@return any
---@return moonbird.error? err
function M:call(fn)
  while self.job do
    local job = self.job
    local _, err = job:join()
    if not job:done() then
      return nil, err -- this task was asked to stop
    end
  end
  -- A task of its own: who asked may be stopped, the statement goes on to its end.
  local job
  job = task.spawn(function()
    local ok, answer, err = pcall(persist, self, fn)
    self.job = nil
    if not ok then
      return nil, error_.from(answer, type(answer) == "string" and "internal" or nil)
    end
    return answer, err
  end)
  self.job = job
  local answer, err = job:join()
  if not job:done() then
    return nil, err
  end
  return answer, err
end

--- Whether what this worker holds is still its own.
---@return boolean
function M:alive()
  return task.now() - self.renewed < self.worker.lease
end

-- Before an item is told as done, what it did is on the disk: nobody would look at it again.
local function settle(self, results)
  for _, result in ipairs(results) do
    if result.state == "done" then
      return not self.flush or self.flush()
    end
  end
  return true
end

local function turn(self, session)
  local results = self.results
  local ok, err = settle(self, results)
  if not ok then
    return nil, err
  end
  self.results = {}
  local asked = task.now()
  local want = self.want and self.want() or 0
  local reply
  reply, err = self.fleet:turn(session, self.worker, { stage = self.stage or 0, wave = self.wave or 0, want = want },
    results)
  if not reply then
    self.results = table.move(self.results, 1, #self.results, #results + 1, results)
    return nil, err
  end
  for _, result in ipairs(results) do
    if result.stage == self.stage then
      self.held[result.place] = nil
    end
  end
  for _, item in ipairs(reply.items or {}) do
    self.held[item.place] = true
  end
  self.renewed, self.view = asked, reply
  if self.receive then
    self.receive(reply)
  end
  if self.on_counts and asked - self.counted >= COUNT_MS then
    self.counted = asked
    local counts = self.fleet:counts(session, self.worker.run, self.stage, self.wave)
    if counts then
      self.on_counts(counts)
    end
  end
  return reply
end

--- One turn: tells the results, renews the lease, claims what is wanted.
---@return table|nil view
---@return moonbird.error? err
function M:turn()
  local view, err = self:call(function(session)
    return turn(self, session)
  end)
  if not view then
    return nil, err
  elseif not view.status then
    return nil, error_.new("fleet", ("the run \"%s\" is not there any more"):format(self.worker.run))
  end
  return view
end

--- Takes in what became of an item; it is told with the next turn, soon.
---@param result table
function M:tell(result)
  self.results[#self.results + 1] = result
  if self.collecting then
    return
  end
  self.collecting = true
  task.spawn(function()
    task.sleep(COLLECT_MS)
    self.collecting = false
    if #self.results > 0 and not self.closed then
      local _, err = self:turn()
      self.lost = self.lost or err
    end
  end)
end

--- Starts what renews the lease.
function M:keep_alive()
  self.beat = task.spawn(function()
    while task.sleep(self.worker.lease // 4) do
      local _, err = self:turn()
      if err then
        self.lost = self.lost or err
        return
      end
    end
  end)
end

--- Tells what is left to tell, frees what is held, and closes.
---@return moonbird.error? err
function M:close()
  local err
  self.closed, self.want, self.receive, self.on_counts = true, nil, nil, nil
  if self.beat then
    self.beat:cancel()
    while not self.beat:done() do
      self.beat:join()
    end
  end
  if self.joined then
    local _
    if #self.results > 0 then
      _, err = self:turn()
    end
    local _, why = self:call(function(session)
      return self.fleet:leave(session, self.worker)
    end)
    err = err or why
  end
  if self.session then
    self.session:close()
  end
  return err
end

return M
