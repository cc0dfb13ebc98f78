--- Samples the server for the throttles of backfills, on a connection of its own, about once a second.
--
-- One sampler for each server: backfills of many tenants on it share the connection and its samples, and each has its
-- own limits (throttle.lua decides). What the role may not see is not known, and a signal that is not known says ok;
-- that is told once. A sampler that loses its connection gets a new one; when it has seen nothing for some seconds,
-- the backfills wait.
local db_of = require "moonbird.core.db"
local error_ = require "moonbird.core.error"
local failure = require "moonbird.exec.backfill.failure"
local sample_of = require "moonbird.exec.backfill.sample"
local sandbox = require "moonbird.core.sandbox"
local server_of = require "moonbird.exec.backfill.server"
local task = require "moonbird.core.task"
local throttle_of = require "moonbird.exec.backfill.throttle"

local M = {}

-- Milliseconds: how often a sampler looks whether somebody wants a sample now; how long a statement of it may take.
local TICK, STATEMENT_MS = 20, 4000

-- How long it may wait for a lock.
local LOCK_MS = 1000

-- How long a worker waits for a sample near a limit; then it goes on to ask, as while it is stopped.
local FRESH_MS = 2000

-- How often what is said is written down at most, but for its level.
local NOTE_MS = 2000

-- Samplers by server.
local servers = {}

---@class moonbird.backfill.sampler
---@field handles table<moonbird.backfill.throttle, true>
---@field elsewhere table<string, moonbird.session> by database: where backfills' own functions are asked
local Sampler = {}
Sampler.__index = Sampler

local function key_of(run)
  local params = run.params
  return table.concat({ params.host or "", params.hostaddr or "", params.port or "", params.service or "" }, "\0")
end

-- Asking --------------------------------------------------------------------------------------------------

local function open(run)
  local session, err = run:connect("backfill-throttle")
  if not session then
    return nil, err
  end
  local _
  _, err = session:query(("select set_config('statement_timeout', '%dms', false), set_config('lock_timeout', '%dms', "
    .. "false)"):format(STATEMENT_MS, LOCK_MS))
  if err then
    session:close()
    return nil, err
  end
  return session
end

local function connect(self)
  if self.session and not self.session.doomed then
    return true
  end
  if self.session then
    self.session:close()
    self.session = nil
  end
  local err
  self.session, err = open(self.run)
  return self.session and true, err
end

--- A session in a backfill's own database. Where that is not the sampler's it is kept beside it.
local function session_for(self, job)
  local database = job.run.params.dbname
  if database == self.run.params.dbname then
    return self.session
  end
  local session, err = self.elsewhere[database], nil
  if not session or session.doomed then
    if session then
      session:close()
    end
    session, err = open(job.run)
    self.elsewhere[database] = session
  end
  return session, err
end

--- Closes the sessions in databases whose backfills are gone; all of them when the sampler ends.
local function leave_databases(self)
  local used = {}
  for handle in pairs(self.closed and {} or self.handles) do
    used[handle.job.run.params.dbname] = true
  end
  for database, session in pairs(self.elsewhere) do
    if not used[database] then
      self.elsewhere[database] = nil
      session:close()
    end
  end
end

local LEVELS = { ok = true, slow = true, stop = true }

--- Calls a backfill's own function in a transaction that can only read and finds what the backfill's batches find.
---@return boolean ok
---@return any level or the error
---@return any reason
local function call(session, job, fn)
  local target = job.target
  local _, err = session:batch { { "begin isolation level read committed read only" },
    target:settings_item({ lock = LOCK_MS, statement = STATEMENT_MS }, true) }
  local ok, level, reason = false, err, nil
  if not err then
    local handle_of_db = db_of.new { session = session,
      target = { name = target.name, schema = target.schema, vars = target.vars },
      log = function(severity, message)
        job.run.report:log(severity, message, job.step)
      end }
    ok, level, reason = sandbox.run { fn = fn, args = { handle_of_db }, name = job.step.migration.file }
  end
  return ok, level, reason
end

--- Asks a backfill's own function.
local function own_answer(self, handle)
  local fn = handle.decision.options.throttle
  if type(fn) ~= "function" then
    return nil
  end
  local session, err = session_for(self, handle.job)
  local ok, level, reason = false, err, nil
  if session then
    ok, level, reason = call(session, handle.job, fn)
    local doomed = session.doomed
    session:rollback()
    if doomed and session == self.session then
      error(doomed, 0)
    end
    ok, level = ok and not doomed, doomed or level
  end
  if not ok then
    return { level = "stop", reason = "its throttle function failed: " .. (level.message or tostring(level)) }
  elseif not LEVELS[level] then
    return { level = "stop", reason = ("its throttle function returned %s, not \"ok\", \"slow\" or \"stop\"")
      :format(type(level) == "string" and '"' .. level .. '"' or type(level)) }
  end
  local said = type(reason) == "string" and reason ~= ""
  return { level = level, reason = said and reason or "its throttle function says so" }
end

--- Vacuums on the tables of a backfill.
local function vacuum_of(job, vacuums)
  local ours, found = {}, nil
  for _, leaf in ipairs(job.place.leaves) do
    ours[leaf.oid] = true
  end
  local database = job.database
  for _, row in ipairs(vacuums or {}) do
    if ours[row.relation] and (not database or row.database == database) then
      found = (row.wraparound or found == "wraparound") and "wraparound" or "plain"
    end
  end
  return found
end

--- Whether a backfill's state is in the database that the sampler is connected to.
local function reaches(self, job)
  return key_of(job.run) == self.key and job.run.params.dbname == self.run.params.dbname
end

--- Runs a statement on the state's tables; its failure is none of the sample's unless the connection went.
local function on_state(self, result, err)
  if not result and self.session.doomed then
    error(err, 0)
  elseif not result then
    self.session:rollback()
  end
  return result
end

--- While no batch runs nobody reads what other terminals want: it is read here.
local function read_wishes(self, handle)
  local job, resumed = handle.job, handle.resumed_times
  handle.held = false
  if handle.decision.level ~= "stop" or not reaches(self, job) then
    return
  end
  local result = on_state(self, self.session:query(("select want, limits::text as limits from %s.backfill "
    .. "where target = $1 and version = $2"):format(job.store.quoted), { job.state.target, job.state.version }))
  local row = result and result:row(1)
  if row then
    job:limit(row.limits)
    -- The next batch meets it. A worker that has seen "run" while this was being read knows better.
    handle.held = row.want ~= "run" and handle.resumed_times == resumed
  end
end

--- Writes down what the throttle says, for those who look from elsewhere.
local function note(self, handle)
  local decision, job = handle.decision, handle.job
  local said = { level = decision.level, reason = decision.reason, lag_bytes = decision.lag }
  local before, now = handle.noted or {}, task.now()
  local news = said.level ~= before.level or said.reason ~= before.reason or said.lag_bytes ~= before.lag_bytes
  if news and (said.level ~= before.level or now - handle.noted_at >= NOTE_MS) and reaches(self, job) then
    handle.noted, handle.noted_at = said, now
    on_state(self, job.store:set_throttle(self.session, job.state.target, job.state.version, said))
  end
end

-- Sampling ------------------------------------------------------------------------------------------------

--- The handles as a list: while one is asked others may come and go.
local function list_of(self)
  local list = {}
  for handle in pairs(self.handles) do
    list[#list + 1] = handle
  end
  return list
end

local function look(self)
  local ok, err = connect(self)
  if not ok then
    error(err, 0)
  end
  self.server:sampling()
  local sample = sample_of.take(self)
  self.server:seen(sample.busy)
  for _, handle in ipairs(list_of(self)) do
    local mine = setmetatable({ vacuum = vacuum_of(handle.job, sample.vacuums), answer = own_answer(self, handle) },
      { __index = sample })
    handle.decision:look(mine)
    local waits = sample.blocked ~= nil and sample.blocked.count > 0
    handle.job.size:sampled(waits or handle.decision:rests())
    handle.wanted = nil
    read_wishes(self, handle)
    note(self, handle)
  end
  self.server:sampled()
end

--- Whether somebody is to know how late others get the processor.
local function watched(self)
  for handle in pairs(self.handles) do
    if self.server:watched(handle.decision.options.max_delay) then
      return true
    end
  end
  return false
end

local function probe(self)
  local at = task.now()
  local probes = sample_of.probe(self, at)
  if probes then
    self.server:probed(at, probes)
  else
    self.server:blind()
  end
end

--- Asks the server; a failure is told to the throttles and tried again.
---@param what fun(self: moonbird.backfill.sampler) a sample, or probes
function Sampler:ask(what)
  local ok, err = pcall(what, self)
  if not ok then
    local problem = error_.from(err)
    for handle in pairs(self.handles) do
      handle.decision:blind(problem.message, task.now())
      handle.problem, handle.wanted = problem, nil
    end
    if self.session then
      self.session:close()
      self.session = nil
    end
  end
end

--- Whether a sample is due, or somebody waits for one.
local function due(self, since)
  local now = task.now()
  for handle in pairs(self.handles) do
    if handle.wanted or now - since >= handle.decision:interval() then
      return true
    end
  end
  return false
end

local function loop(self)
  local since = task.now()
  while task.sleep(TICK) and not self.closed do
    if due(self, since) then
      self:ask(look)
      since = task.now()
    elseif self.session and watched(self) then
      self:ask(probe)
    end
    leave_databases(self)
  end
  self.closed = true
  leave_databases(self)
  if self.session then
    self.session:close()
    self.session = nil
  end
end

-- Handles -------------------------------------------------------------------------------------------------

---@class moonbird.backfill.signals: moonbird.backfill.throttle
local Handle = {}
Handle.__index = Handle

--- Waits for a sample that was begun after now -> whether one came.
local function fresh(self)
  local decision, from = self.decision, task.now()
  while decision.last.at < from do
    if task.now() - from > FRESH_MS or self.job.stopping then
      return false
    end
    self.wanted = true
    task.sleep(TICK // 2) -- a request to stop is in job.stopping, too
  end
  return true
end

--- What the next batch is to do.
---@return "ok"|"slow"|"stop"
---@return string|nil reason
---@return integer|nil pause
function Handle:verdict()
  local job, now = self.job, task.now()
  job:check() -- the time of a run that waits is over, too
  if self.held then
    return "ok"
  end
  local patience = job.options.reconnect
  if self.problem and self.decision:unseen(now) >= patience then -- workers that wait don't meet it themselves
    job:stop(failure.gone(self.problem, patience), "failed")
  end
  return self.decision:verdict(now)
end

--- Waits until others have had their turn -> whether a batch may begin.
local function rest(self)
  local decision = self.decision
  while not self.held do
    local wait = decision:rest(task.now())
    if wait <= 0 then
      return true
    end
    self.job:check()
    if self.job.stopping or decision.level == "stop" then
      return false
    end
    task.sleep(math.min(TICK, math.ceil(wait))) -- a request to stop is in job.stopping, too
  end
  return true
end

--- A worker that was held may go on.
function Handle:resumed()
  self.held, self.resumed_times = false, self.resumed_times + 1
end

--- Lets one batch through, after a rest where others need the server. Near the limit of a standby it waits until no
--- other batch is under way on the server, and for a look at the standby after that: so it can't be over its limit by
--- more than this one. While somebody wants the backfill to wait or to end the batch is there to be told so.
---@return boolean admitted false: ask for the verdict again
---@return string|nil reason why it could not be seen
function Handle:admit()
  local decision, server, looked = self.decision, self.decision.server, false
  if not rest(self) then
    return false
  end
  while not self.held and decision:near() and not (looked and server.flight == 0) do
    self.job:check()
    if self.job.stopping then
      return false
    elseif server.flight > 0 then
      looked = false
      task.sleep(TICK // 2) -- a request to stop is in job.stopping, too
    elseif not fresh(self) then
      return false, ("waits to see how far standby %s is"):format(decision.lag_of or "?")
    else
      looked = true
    end
    if decision.level == "stop" then
      return false
    end
  end
  self.held = false -- one is enough: the next would find nothing in its way when the first was told "run"
  server:began(task.now())
  self.admitted = self.admitted + 1
  return true
end

--- A batch that was let through is over.
function Handle:ended()
  if self.admitted > 0 then -- a handle that was closed has none
    self.admitted = self.admitted - 1
    self.decision.server:ended(task.now())
  end
end

--- Takes other limits; they are looked at right away.
---@param options table
function Handle:configure(options)
  self.decision:configure(options)
  self.wanted = true
end

--- Ends it; the last one of a server ends the sampler.
function Handle:close()
  local sampler = self.sampler
  if not sampler.handles[self] then
    return
  end
  while self.admitted > 0 do -- of workers that were stopped in the middle
    self:ended()
  end
  sampler.handles[self] = nil
  sampler:end_unless_used()
end

--- Ends the sampler when nobody needs it.
function Sampler:end_unless_used()
  if next(self.handles) == nil and self.kept == 0 and not self.closed then
    servers[self.key] = nil
    self.closed = true
    self.task:cancel() -- not waited for: that wait would take a request to stop that is meant for the run
  end
end

local function sampler_of(run)
  local key = key_of(run)
  local sampler = servers[key]
  if not sampler then
    sampler = setmetatable({ key = key, run = run, handles = {}, elsewhere = {}, told = {}, kept = 0, decisions = {},
      server = server_of.new() }, Sampler)
    servers[key] = sampler
    sampler.task = task.spawn(loop, sampler)
  end
  return sampler
end

--- Keeps the sampler of a server, with what it has learnt, while backfills come and go.
---@param run moonbird.run
---@return fun() release
function M.keep(run)
  local sampler = sampler_of(run)
  sampler.kept = sampler.kept + 1
  return function()
    sampler.kept = sampler.kept - 1
    sampler:end_unless_used()
  end
end

--- The throttle of a backfill. Waits for the first sample, so that the first batch knows.
---@param job moonbird.backfill.job
---@return moonbird.backfill.signals|nil
---@return moonbird.error? err when the task is cancelled
function M.throttle(job)
  local sampler = sampler_of(job.run)
  local name = ("%s\0%d\0%s"):format(job.state.target, job.state.version, job.run.params.dbname or "")
  local decision = sampler.decisions[name]
  if decision then
    decision:configure(job.options)
  else
    decision = throttle_of.new(job.options, sampler.server)
    sampler.decisions[name] = decision
  end
  local handle = setmetatable({ job = job, sampler = sampler, decision = decision, admitted = 0,
    resumed_times = 0 }, Handle)
  job.database = job.run.params.dbname
  sampler.handles[handle] = true
  handle.wanted = true
  local from, looks = task.now(), decision.looks
  decision.problem = nil
  while decision.looks == looks and not decision.problem and task.now() - from < throttle_of.STALE do
    local ok, err = task.sleep(TICK)
    if not ok then
      handle:close()
      return nil, err
    end
  end
  return handle
end

return M
