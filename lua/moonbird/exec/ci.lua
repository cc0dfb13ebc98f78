--- Proves migrations on a database of their own: each is rehearsed, applied, taken back and applied again, and
-- what the catalog says is compared on the way. Then a second run must have nothing to do, and the status be clean.
--
-- It goes on after a failure as far as that makes sense: a down that does not restore is no reason not to look at
-- the next migration, one that can't be applied is.
local apply = require "moonbird.exec.apply"
local bootstrap = require "moonbird.exec.bootstrap"
local catalog = require "moonbird.exec.catalog"
local error_ = require "moonbird.core.error"
local failure = require "moonbird.report.failure"
local gate_of = require "moonbird.exec.gate"
local json = require "moonbird.core.json"
local judge = require "moonbird.exec.ci_judge"
local plan = require "moonbird.plan.plan"
local sys = require "moonbird.core.sys"
local transactional = require "moonbird.exec.transactional"

local M = {}

-- Of a migration that leaves something else behind, this many objects are named.
M.DIFFERENCES = 10

local ALLOW = { contract = true, breaking = true }

-- Errors that say nothing about the migrations.
local FATAL = { interrupted = true, timeout = true, connection_lost = true, connect = true, internal = true,
  config = true }

---@class moonbird.ci
---@field run moonbird.run
---@field target moonbird.target
---@field entries table[]
---@field gate moonbird.gate
---@field recorded table<integer, table> version to { up, down }: what Lua functions sent
---@field stages table[]
local ci = {}
ci.__index = ci

-- Steps ---------------------------------------------------------------------------------------------------------

--- What a session keeps beyond a transaction must not reach the next step, as it would not in a run of its own.
local function tidy(self)
  if self.target.session.doomed then
    return
  end
  local _, err = self.target.session:discard_all()
  return err
end

local function read_catalog(self)
  local map, err = self.reader:read()
  if not map then
    error(err, 0)
  end
  return map
end

--- Runs one migration in one direction.
local function go(self, migration, direction, again)
  self.report.again = again
  self.report.muted = again
  local err = tidy(self)
  local done
  if not err then
    local options = direction == "up" and { only = { [migration.version] = true }, allow_out_of_order = true,
      allow = ALLOW } or { steps = 1 }
    done, err = apply.run(self.target, self.entries, direction, options)
  end
  self.report.again, self.report.muted = false, false
  if err and (FATAL[err.code] or self.target.session.doomed) then
    error(err, 0)
  elseif err then
    return nil, err
  end
  return done[1] and done[1].duration_ms or 0
end

--- Runs an up in a transaction that is rolled back.
local function rehearse(self, migration)
  local target = self.target
  local step = plan.steps({ migration }, "up", target.name, target.head)[1]
  if not step.transactional then
    return false
  end
  self.report.again, self.report.muted = true, true
  local err = tidy(self)
  local ok, _
  if not err then
    ok, err = transactional.begin(target, { lock = self.run.config.timeouts.lock, statement = 0 }, true)
  end
  if ok then
    ok, err = transactional.run_body(target, step)
    err = err or transactional.unfit(target)
    if ok and not err then
      _, err = target.session:query "set constraints all immediate"
    end
  end
  target.session:rollback()
  self.report.again, self.report.muted = false, false
  if err and (FATAL[err.code] or target.session.doomed) then
    error(err, 0)
  end
  return err == nil, err
end

-- Stages --------------------------------------------------------------------------------------------------------

local function stage(self, name)
  local made = { name = name, ok = true, duration_ms = 0, spent_ = 0, problems = json.array {} }
  self.stages[#self.stages + 1] = made
  return made
end

local function timed(made, fn, ...)
  local started = sys.monotonic()
  local result = table.pack(fn(...))
  made.spent_ = made.spent_ + (sys.monotonic() - started) * 1000
  made.duration_ms = math.floor(made.spent_ + 0.5)
  return table.unpack(result, 1, result.n)
end

local function fail(made, migration, message, err, differences)
  made.ok = false
  local problem = { migration = migration and migration.id, file = migration and migration.file, message = message,
    error = err and failure.data(err) }
  if differences then
    problem.differences = json.array {}
    for i = 1, math.min(#differences, M.DIFFERENCES) do
      problem.differences[i] = differences[i]
    end
    problem.more = #differences > M.DIFFERENCES and #differences - M.DIFFERENCES or nil
  end
  made.problems[#made.problems + 1] = problem
  problem.cause_ = err
end

--- An up, rehearsed first where it is expand.
local function apply_one(self, made, migration)
  local contract = plan.held(migration, {}) ~= nil
  if not contract then
    local ok, err = rehearse(self, migration)
    if err then
      fail(made, migration, "failed in its dry run", error_.with(err, { file = migration.file }))
      return false
    elseif ok then
      made.rehearsed = made.rehearsed + 1
    else
      made.not_rehearsed[#made.not_rehearsed + 1] = migration.id
    end
  end
  local took, err = go(self, migration, "up")
  if not took then
    fail(made, migration, "failed", err)
    return false
  end
  made.applied = made.applied + 1
  made.contract = made.contract + (contract and 1 or 0)
  made.steps[#made.steps + 1] = { version = migration.version, id = migration.id, file = migration.file,
    phase = migration.phase, duration_ms = took }
  return true
end

--- A down and an up again. The catalog is compared with what it was.
---@return boolean applied whether it is applied in the end
---@return table<string, string> catalog as it is then
local function undo_one(self, made, migration, before, after)
  if not migration.down then
    made.irreversible[#made.irreversible + 1] = { id = migration.id, reason = migration.irreversible }
    return true, after
  end
  local took, err = go(self, migration, "down", true)
  if not took then
    fail(made, migration, "its down failed", err)
    return true, read_catalog(self)
  end
  local differences = catalog.diff(before, read_catalog(self))
  if #differences > 0 then
    fail(made, migration, "its down does not restore what was before", nil, differences)
  end
  took, err = go(self, migration, "up", true)
  if not took then
    fail(made, migration, "it can't be applied again after its down", err)
    return false, before
  end
  local now = read_catalog(self)
  local again = catalog.diff(after, now)
  if #again > 0 then
    fail(made, migration, "applied again it makes something else than the first time", nil, again)
  elseif #differences == 0 then
    made.undone = made.undone + 1
  end
  return true, now
end

local function skip(self, name, reason)
  local made = stage(self, name)
  made.ok, made.skipped = false, reason
  self.told(made)
end

--- Applies all, and takes each back.
---@return boolean complete whether all are applied in the end
local function apply_and_undo(self, order)
  local applying, undoing = stage(self, "apply"), stage(self, "undo")
  applying.applied, applying.rehearsed, applying.contract = 0, 0, 0
  applying.not_rehearsed, applying.steps = json.array {}, json.array {}
  undoing.undone, undoing.irreversible = 0, json.array {}
  local before = self.undo and timed(undoing, read_catalog, self)
  local complete = true
  for i, migration in ipairs(order) do
    complete = timed(applying, apply_one, self, applying, migration)
    if complete and self.undo then
      local after = timed(undoing, read_catalog, self)
      complete, before = timed(undoing, undo_one, self, undoing, migration, before, after)
    end
    if not complete then
      applying.not_tried = #order > i and #order - i or nil
      break
    end
  end
  if not self.undo then
    undoing.skipped = "--no-undo"
  end
  self.told(applying)
  self.told(undoing)
  return complete
end

--- A second run must have nothing to do.
local function second_run(self)
  local made = stage(self, "second apply")
  timed(made, function()
    local err = tidy(self)
    local ok, head, done
    if not err then
      ok, err = self.target:refresh() -- as a run of its own would begin
      head = self.target.head
    end
    if ok then
      done, err = apply.run(self.target, self.entries, "up", { allow_out_of_order = true, allow = ALLOW })
    end
    if err then
      return fail(made, nil, "failed", err)
    end
    for _, item in ipairs(done) do
      fail(made, item.step.migration, "was applied once more")
    end
    ok, err = self.target:refresh()
    if not ok then
      error(err, 0)
    elseif self.target.head ~= head and #done == 0 then
      fail(made, nil, "the journal grew by a run that had nothing to do")
    end
  end)
  self.told(made)
end

local function status(self)
  local made = stage(self, "status")
  timed(made, function()
    local ok, err = self.target:refresh()
    local problems
    if ok then
      problems, err = self.run.journal:verify(self.target.session)
    end
    if not problems then
      error(err, 0)
    end
    local comparison = plan.compare(self.entries, self.target.state)
    made.applied, made.chain = #comparison.applied, #problems == 0
    for _, name in ipairs { "pending", "changed", "missing" } do
      made[name] = #comparison[name]
      for _, item in ipairs(comparison[name]) do
        fail(made, item.entry or item, name)
      end
    end
    for _, problem in ipairs(problems) do
      fail(made, nil, ("the journal's event %d: %s"):format(problem.ordinal, problem.problem))
    end
    local half = plan.half_reverted(self.target.state)
    if half then
      fail(made, nil, "interrupted", half)
    end
  end)
  self.told(made)
end

-- Kinds of objects that make a database one that somebody uses.
local USED = { "table", "view", "materialized view", "sequence", "function", "procedure", "aggregate", "type" }

--- Why a database is not for this; nil when there is nothing in it.
---@param target moonbird.target
---@return moonbird.error? err code "usage", naming what was found
function M.refusal(target)
  local hint = "moonbird ci applies and takes back everything; give it an empty database, or no --url at all"
  if target.state.exists then
    return error_.new("usage", "the database has a journal of moonbird: this is not one to try things on",
      { hint = hint })
  end
  local map, err = catalog.read(target.session, {})
  if not map then
    return err
  end
  local found = {}
  for key in pairs(map) do
    for _, kind in ipairs(USED) do
      if key:sub(1, #kind + 1) == kind .. " " then
        found[#found + 1] = key
        break
      end
    end
  end
  table.sort(found)
  if #found > 0 then
    local named = table.concat(found, ", ", 1, math.min(#found, 5))
    return error_.new("usage", ("the database is not empty: it has %s%s"):format(named,
      #found > 5 and (" and %d more objects"):format(#found - 5) or ""), { hint = hint })
  end
end

--- The order to apply in: what the base has, then what is new and expand, as a deployment does it, then what is new
--- and contract.
---@param migrations table[] loaded, by version
---@param merged? table<string, true> files that the base has
---@return table[]
function M.order(migrations, merged)
  local parts = { {}, {}, {} }
  for _, migration in ipairs(migrations) do
    local new = merged and not merged[migration.file]
    table.insert(parts[not new and 1 or not plan.held(migration, {}) and 2 or 3], migration)
  end
  local order = {}
  for _, part in ipairs(parts) do
    table.move(part, 1, #part, #order + 1, order)
  end
  return order
end

---@class moonbird.ci.options
---@field config moonbird.config
---@field order table[] loaded migrations in the order to apply
---@field undo boolean
---@field told fun(stage: table) called when a stage is over

---@class moonbird.ci.result
---@field stages table[] { name, ok, duration_ms, problems, skipped? } and numbers of its own
---@field recorded table<integer, table>
---@field gate moonbird.gate what the rules said on the way
---@field complete boolean everything is applied

--- Proves the migrations.
---@param target moonbird.target of an empty database
---@param entries table[] the registry
---@param options moonbird.ci.options
---@return moonbird.ci.result|nil
---@return moonbird.error? err when nothing can be said about the migrations
function M.prove(target, entries, options)
  local run, report = target.run, target.run.report
  -- A protected environment's rules are about its own database, and this is not it.
  local conf = setmetatable({ protected = false }, { __index = options.config })
  local gate, err = gate_of.open(conf, { command = "ci", allow_contract = true, allow_breaking = true,
    strict = true })
  local ok
  if gate then
    ok, err = bootstrap.ensure(target, { left = run.lock_wait })
  end
  local session
  if ok then
    session, err = run:connect "catalog"
  end
  if not session then
    return nil, err
  end
  local self = setmetatable({ run = run, target = target, entries = entries, undo = options.undo, gate = gate,
    told = options.told, recorded = {}, stages = {}, report = judge.quiet(report) }, ci)
  run.report = self.report
  run.gate = judge.new(gate, self.report, self.recorded)
  local complete
  local worked, raised = xpcall(function()
    self.reader, err = catalog.prepare(session, { exclude = { run.journal.schema } })
    if not self.reader then
      error(err, 0)
    end
    if #options.order > 0 then
      self.report.silent = true
      judge.heed(gate:before(target, plan.steps(options.order, "up", target.name, target.head), entries))
      self.report.silent = false
    end
    complete = apply_and_undo(self, options.order)
    run.gate = nil
    if complete then
      second_run(self)
      status(self)
    else
      skip(self, "second apply", "not everything is applied")
      skip(self, "status", "not everything is applied")
    end
  end, function(caught)
    local e = error_.from(caught, type(caught) == "string" and "internal" or nil)
    e.traceback = e.traceback or debug.traceback(nil, 2)
    return e
  end)
  run.report, run.gate = report, nil
  session:close()
  if not worked then
    return nil, raised
  end
  return { stages = self.stages, recorded = self.recorded, gate = gate, complete = complete }
end

return M
