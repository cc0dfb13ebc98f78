--- A worker of a fleet: makes or joins a run, and does what its rows say is next until the run has ended.
--
-- Every worker goes round the same loop and sees the same row; whoever finds a wave empty advances it, whoever
-- finds a stage over opens the next, each by a statement that does nothing when another was faster. No worker is
-- special, so any may be killed at any moment.
local error_ = require "moonbird.core.error"
local fleet_of = require "moonbird.core.fleet"
local identity = require "moonbird.exec.fleet.identity"
local json = require "moonbird.core.json"
local link_of = require "moonbird.exec.fleet.link"
local one = require "moonbird.exec.tenants.one"
local outcome = require "moonbird.exec.fleet.outcome"
local queue_of = require "moonbird.exec.fleet.queue"
local registry = require "moonbird.migration.registry"
local run_of = require "moonbird.exec.tenants.run"
local stage_of = require "moonbird.exec.tenants.stage"
local stages_of = require "moonbird.plan.stages"
local survey_of = require "moonbird.exec.tenants.survey"
local task = require "moonbird.core.task"
local url_of = require "moonbird.config.url"

---@class moonbird.fleet.worker
---@field context table of exec/tenants/run
---@field link moonbird.fleet.link
---@field fleet moonbird.fleet
---@field name string the run's
---@field row table the run as last read
local M = {}
M.__index = M

local LEASE_MS = 15000
local POLL_MS = 300
local ENDED = { done = true, failed = true, halted = true, cancelled = true }

-- The rows -----------------------------------------------------------------------------------------------

--- The run with the control database's connection.
---@param run moonbird.run
---@param url? string
---@return moonbird.run?
---@return moonbird.error? err
function M.control(run, url)
  if not url then
    return run
  end
  local parsed, err = url_of.parse(url)
  if not parsed or parsed.kind ~= "postgres" then
    return nil, err or error_.new("usage", "--control wants a postgresql:// URL")
  end
  return setmetatable({ params = parsed.params }, { __index = run })
end

local function call(self, method, ...)
  local args = table.pack(...)
  return self.link:call(function(session)
    return self.fleet[method](self.fleet, session, table.unpack(args, 1, args.n))
  end)
end

local function read_row(self)
  local row, err = call(self, "read", self.name)
  if row == false then
    return nil, error_.new("fleet", ("there is no run \"%s\""):format(self.name))
  end
  self.row = row
  return row, err
end

local function settings_of(context)
  local settings = context.survey.settings
  return { soak_ms = settings.soak, health = settings.health ~= nil, manual = settings.gate == "manual" }
end

--- Stages as they stand in the row.
local function as_data(stages)
  local list = json.array {}
  for i, stage in ipairs(stages) do
    local versions = json.array {}
    for j, migration in ipairs(stage.migrations) do
      versions[j] = migration.version
    end
    list[i] = { scope = stage.scope, versions = versions }
  end
  return list
end

--- Makes the run of that name, or joins it.
local function enter(self, stages)
  local context = self.context
  local mine = identity.of(context.entries, context.options)
  local list = as_data(stages)
  if #context.ahead > 0 and (#list == 0 or (#list == 1 and list[1].scope == "global")) then
    -- Nothing is lacked by anybody; those that are ahead are still to be told.
    list[#list + 1] = { scope = "tenant", versions = json.array {} }
  end
  local made, err = call(self, "make", { name = self.name, plan = mine.plan, newest = mine.newest, files = mine.files,
    stages = list, settings = settings_of(context),
    command = context.run.command, engine = context.run.facts.engine, host = context.run.facts.host })
  if made == nil then
    return err
  end
  local row
  row, err = read_row(self)
  err = err or identity.refusal(row, mine)
  if err then
    return err
  end
  self.made = made
  if not ENDED[row.status] then
    local _
    _, err = call(self, "join", self.link.worker)
    self.link.joined = err == nil
    if not err then
      self.link:keep_alive()
    end
  end
  local word = made and "made" or ENDED[row.status] and "found" or "joined"
  context.report.report:print(("%s the run %s (%s)"):format(word, self.name, row.status))
  return err
end

-- Stages -------------------------------------------------------------------------------------------------

local function migrations_of(self, entries, at)
  local wanted, list = {}, {}
  for _, version in ipairs(self.row.stages[at].versions) do
    wanted[version] = true
  end
  for _, entry in ipairs(entries) do
    if wanted[entry.version] then
      list[#list + 1] = entry
    end
  end
  return registry.load_all(list)
end

--- Looks at the tenants again: stages before, or those who made the run, may have made or changed some.
local function look(self, at)
  if self.looked == at then
    return nil
  end
  local context = self.context
  if context.target.session.doomed then
    local ok, err = context.target:reconnect()
    if not ok then
      return err
    end
  end
  local ok, err = context.target:refresh()
  local failed, global, tenant = nil, nil, nil
  if ok then
    failed, err = call(self, "items", self.name, "{failed}")
  end
  for _, item in ipairs(failed or {}) do
    if item.stage < at then
      context.failed[item.tenant] = true -- it is not jumped ahead
    end
  end
  if failed then
    global, tenant = run_of.look(context, context.survey.settings)
    err = not global and tenant or nil
  end
  if global then
    self.planned = { global = global, tenant = tenant }
    self.looked = at
    self.by_name = nil
  end
  return err
end

--- The tenant of a name.
local function finder(self)
  if not self.by_name then
    self.by_name = {}
    for _, tenant in ipairs(self.context.survey.tenants) do
      self.by_name[tenant.name] = tenant
    end
  end
  local by_name = self.by_name
  return function(name)
    local tenant = by_name[name]
    if not tenant then
      return nil, error_.new("config", ("the source does not list \"%s\" any more"):format(name))
    end
    return tenant
  end
end

--- The policy's word on a stage.
local function vet(context, stage)
  local gate = context.options.gate
  return gate and gate:before(context.target, stage.steps, context.entries)
end

--- Gets a tenant stage ready, once.
local function prepare(self, at)
  if self.stage and self.stage.at == at then
    return self.stage
  end
  local context = self.context
  local err = look(self, at)
  if err then
    return nil, err
  end
  local ok
  if context.survey.partial then
    ok, err = context.survey:read_states() -- where each tenant's history ends
    if not ok then
      return nil, err
    end
  end
  local migrations
  migrations, err = migrations_of(self, context.own, at)
  if not migrations then
    return nil, err
  end
  local stage = run_of.make_stage(context, migrations, "up")
  stage.at = at
  if at > 1 then -- the first was vetted before the run was made
    err = vet(context, stage)
    if err then
      return nil, err
    end
  end
  self.stage = stage
  return stage
end

local function budget_of(context, wave)
  local budget = run_of.budget_of(context, wave)
  local function bounded(n)
    return n ~= math.huge and n or nil
  end
  return { name = wave.name, canary = wave.canary, count = #wave.tenants, max_failures = bounded(budget.max_failures),
    max_consecutive = bounded(budget.max_consecutive), same_error = budget.same_error }
end

--- The waves and items of a tenant stage.
local function part(self, at)
  local context = self.context
  local stage, err = prepare(self, at)
  if not stage then
    return nil, err
  end
  local out, waves
  out, err = run_of.look_over(context, stage)
  if not out then
    return nil, err
  end
  waves, err = run_of.waves(context, out.behind)
  if not waves then
    return nil, err
  end
  local list, items = {}, {}
  for i, wave in ipairs(#out.behind > 0 and waves or {}) do
    list[i] = budget_of(context, wave)
    for _, tenant in ipairs(wave.tenants) do
      items[#items + 1] = { wave = i, tenant = tenant.name, state = "waiting" }
    end
  end
  for _, tenant in ipairs(out.late) do
    items[#items + 1] = { wave = 0, tenant = tenant.name, state = "failed", code = tenant.why.code,
      migration = tenant.why.migration, error = tenant.why.message }
  end
  for _, state in ipairs { "pinned", "ahead" } do
    for _, tenant in ipairs(out[state]) do
      items[#items + 1] = { wave = 0, tenant = tenant.name, state = state }
    end
  end
  return list, items
end

--- Whether failures of this stage hold up what is global behind it.
local function barred(self, at)
  local failures, err = call(self, "items", self.name, "{failed}")
  if not failures or #failures == 0 then
    return nil, err
  end
  local migrations
  migrations, err = migrations_of(self, self.context.own, at)
  if not migrations then
    return nil, err
  end
  local open = {}
  for _, migration in ipairs(migrations) do
    open[migration.id] = migration.barrier == false
  end
  for _, failure in ipairs(failures) do
    if not open[failure.migration or ""] then
      return "tenants failed, and what is global waits for them"
    end
  end
end

--- What is to be done behind the stage `at`. What is global may have made tenants, which lack more than others.
local function plan_behind(self, at)
  local row = self.row
  if at == 0 or row.stages[at].scope ~= "global" then
    return table.move(row.stages, at + 1, #row.stages, 1, {})
  end
  self.looked = self.looked == at + 1 and self.planned and self.looked or nil
  local err = look(self, at + 1)
  if err then
    return nil, err
  end
  return as_data(stages_of.make(self.planned.global, self.planned.tenant))
end

--- The stage `at` is over: opens the next, or ends the run.
local function open_next(self, at)
  local tail, err = plan_behind(self, at)
  if not tail then
    return err
  end
  local reason
  if tail[1] and tail[1].scope == "global" and at > 0 then
    reason, err = barred(self, at)
  end
  if err then
    return err
  elseif not tail[1] or reason then
    local _, failed = call(self, "finish", self.name, at, reason)
    return failed
  elseif tail[1].scope == "global" then
    local _, failed = call(self, "open_stage", self.name, at, tail,
      { { name = "global", count = 1, max_failures = 0 } }, { { wave = 1, tenant = "global", state = "waiting" } })
    return failed
  end
  table.move(tail, 1, #tail, at + 1, self.row.stages)
  self.stage = nil
  local waves, items = part(self, at + 1)
  if not waves then
    return items
  end
  local _, failed = call(self, "open_stage", self.name, at, tail, waves, items)
  self.row.stage = nil -- what became of it is read again
  return failed
end

-- Work ---------------------------------------------------------------------------------------------------

local function work_on_tenants(self, view)
  local context, wave = self.context, self.row.stages[view.stage].waves[view.wave]
  local stage, err = prepare(self, view.stage)
  if not stage then
    return err
  end
  local counts
  counts, err = call(self, "counts", self.name, view.stage, view.wave)
  if not counts then
    return err
  end
  if self.told_stage ~= view.stage then
    self.told_stage = view.stage
    local count = 0
    for _, each in ipairs(self.row.stages[view.stage].waves) do
      count = count + each.count
    end
    context.report:stage_started(stage, count)
  end
  local jobs = context.options.jobs or context.survey.settings.jobs
  local queue = queue_of.new { link = self.link, stage = view.stage, wave = view.wave, jobs = jobs, counts = counts,
    find = finder(self) }
  context.report:wave_started(wave, queue, view.waves)
  local _, stopped = stage_of.run_wave {
    queue = queue, pool = context.survey.pool, stage = stage, gate = context.options.gate, report = context.report,
    attempts = context.survey.settings.attempts, jobs = jobs, prepare = survey_of.prepare,
    record_failure = run_of.recorder(context.survey, stage.direction),
  }
  queue:give_back_ready()
  self.link.want, self.link.receive, self.link.on_counts = nil, nil, nil
  context.report:wave_ended(wave, queue)
  self.finished = self.finished + queue.finished
  return stopped or self.link.lost
end

--- The global target is one item: one worker has it, the others wait.
local function work_on_global(self, view)
  local link, context, item = self.link, self.context, nil
  link.stage, link.wave, link.held = view.stage, view.wave, {}
  link.want = function()
    return 1
  end
  link.receive = function(answer)
    item = item or answer.items[1]
    link.want = nil
  end
  local ok, err = link:turn()
  link.want, link.receive = nil, nil
  if not ok then
    return err
  elseif not item then
    local _
    _, err = task.sleep(POLL_MS)
    return err
  end
  local migrations
  err = look(self, view.stage)
  if not err then
    migrations, err = migrations_of(self, context.global, view.stage)
  end
  err = err or run_of.global_stage(context, migrations)
  local result = { stage = view.stage, place = item.place, state = "done" }
  if err then
    local attempts = item.attempts + 1
    result.attempts, result.code, result.sqlstate, result.error = attempts, err.code, err.sqlstate, err.message
    result.migration, result.file, result.line, result.kind = err.migration, err.file, err.line, err.code
    if err.code == "interrupted" or err.code == "timeout" then
      result.state, result.attempts = "waiting", item.attempts
    elseif one.retryable(err) and attempts < context.survey.settings.attempts then
      context.report.report:log("warn", ("global: attempt %d: %s; again later"):format(attempts, err.message))
      result.state, result.delay_ms, err = "waiting", 1000 * attempts, nil
    else
      result.state = "failed"
    end
  end
  self.looked = nil -- it may have made tenants
  link:tell(result)
  if err and result.state == "waiting" then
    return err -- what is told is told on leaving
  end
  local _, lost = link:turn()
  self.own_error = err
  return lost
end

local function pass_gate(self, view)
  local settings = self.context.survey.settings
  if view.gate_ms > 0 then
    local _, err = task.sleep(math.min(view.gate_ms, 1000))
    return err
  end
  local mine, err = false, nil
  if settings.health or not self.row.settings.health then
    mine, err = call(self, "take_gate", self.link.worker, view.stage, view.wave)
  end
  if mine then
    local waves, refusal = self.row.stages[view.stage].waves, nil
    self.context.report:wave_done(waves[view.wave], waves[view.wave + 1])
    if self.row.settings.health then
      local ok, why = require("moonbird.exec.tenants.health").check(self.context, settings.health)
      if not ok and (why.code == "interrupted" or why.code == "timeout") then
        return why
      end
      refusal = not ok and why.message or nil
    end
    mine, err = call(self, "pass_gate", self.link.worker, view.stage, view.wave, refusal)
  end
  if mine == false then
    local _
    _, err = task.sleep(POLL_MS)
  end
  return err
end

--- Does what is next -> whether the run has ended, err.
local function step(self)
  local view, err = self.link:turn()
  if not view or ENDED[view.status] then
    return view ~= nil, err
  end
  if self.row.stage ~= view.stage or self.row.wave ~= view.wave then
    local row
    row, err = read_row(self)
    if not row then
      return false, err
    end
    view.stage, view.wave = row.stage, row.wave
  end
  if view.status == "paused" then
    if not self.told_paused then
      self.context.report.report:log("warn", ("the run %s is paused (%s); waiting for `moonbird run resume %s`"):format(
        self.name, view.reason, self.name))
    end
    self.told_paused = true
    local _
    _, err = task.sleep(POLL_MS)
    return false, err
  end
  self.told_paused = nil
  if view.gate then
    return false, pass_gate(self, view)
  elseif view.stage > 0 and view.wave > 0 and view.open then
    local work = self.row.stages[view.stage].scope == "global" and work_on_global or work_on_tenants
    return false, work(self, view)
  elseif view.wave < #(view.stage > 0 and self.row.stages[view.stage].waves or {}) then
    local _
    _, err = call(self, "next_wave", self.name, view.stage, view.wave)
    return false, err
  end
  return false, open_next(self, view.stage)
end

-- Results of a database are told only when they are on its disk. Where it is the control database itself, the
-- statement that tells them brings them there.
local function flusher(self, control)
  return function()
    for _, database in ipairs(self.context.survey.databases) do
      local params = database.run.params
      local same = params.host == control.params.host and params.port == control.params.port
        and params.dbname == control.params.dbname
      if database.unflushed and not same then
        database.unflushed = nil
        local _, err = self.context.survey:with_session(database, function(session)
          return session:query("select pg_logical_emit_message(true, 'moonbird', 'flush')")
        end)
        if err then
          database.unflushed = true
          return nil, err
        end
      end
    end
    return true
  end
end

---@class moonbird.fleet.options
---@field name string of the run
---@field control? string URL
---@field lease? integer milliseconds

--- Works on a run until it has ended.
---@param context table of exec/tenants/run
---@param stages moonbird.stage[] what is to be done, as this process sees it; the run's maker decides
---@param options moonbird.fleet.options
---@return moonbird.error? err what ended this worker, not the run; or that the run is refused
function M.go(context, stages, options)
  local control, err = M.control(context.run, options.control)
  if not control then
    return err
  end
  local chosen = context.options
  local some = #(chosen.tenant or {}) + #(chosen.exclude or {}) > 0
  for _, stage in ipairs(stages) do
    if some and stage.scope == "global" then
      return run_of.barred(stage.migrations[1])
    end
  end
  if #stages == 0 or stages[#stages].scope == "global" and #stages == 1 then
    local out
    out, err = run_of.look_over(context, run_of.make_stage(context, {}, "up")) -- no stage looks at them
    if not out then
      return err
    end
  elseif stages[1].scope == "tenant" then
    err = vet(context, run_of.make_stage(context, stages[1].migrations, "up")) -- or a run would be left behind
    if err then
      return err
    end
  end
  local fleet = fleet_of.new(context.run.journal.schema)
  local self = setmetatable({ context = context, fleet = fleet, name = options.name, finished = 0, row = {},
    link = link_of.new(control, fleet, options.name, options.lease or LEASE_MS) }, M)
  self.link.flush = flusher(self, control)
  err = enter(self, stages)
  if not err then
    self.looked = self.made and 1 or nil
    local over = ENDED[self.row.status]
    while not over and not err do
      err = task.take_cancel() or context.run:expired()
      if not err then
        over, err = step(self)
      end
    end
    err = err or outcome.read(self)
  end
  local failed = self.link:close()
  return err or self.own_error or failed
end

return M
