--- The diagnostics of a run as one JSON file, for whoever looks at a deployment that failed.
--
-- It stands between the engine and the reporter: what the engine tells is noted and passed on. The file is
-- written anew after every step (in one piece: never half), so a run that is killed leaves what it knew.
-- Passwords are masked; of the environment only variables that CI systems publish about a run are kept.
local embedded = require "moonbird.core.embedded"
local error_ = require "moonbird.core.error"
local failure = require "moonbird.report.failure"
local forward = require "moonbird.util.forward"
local fs = require "moonbird.core.fs"
local json = require "moonbird.core.json"
local sys = require "moonbird.core.sys"
local task = require "moonbird.core.task"
local url_of = require "moonbird.config.url"

---@class moonbird.artifact
---@field data table
local M = {}

M.FORMAT = 1

-- A long history is encoded anew each time: not for every one of a hundred quick steps.
local SAVE_EVERY_S = 0.2
-- Nor for more than this part of the time, however long it is by now: that of ten thousand tenants.
local SAVE_SHARE = 20

-- What CI systems say about a run; nothing in them is secret.
local VARIABLES = { "CI", "GITHUB_REPOSITORY", "GITHUB_REF", "GITHUB_SHA", "GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT",
  "GITHUB_WORKFLOW", "GITHUB_JOB", "GITHUB_ACTOR", "CI_PROJECT_PATH", "CI_COMMIT_SHA", "CI_COMMIT_REF_NAME",
  "CI_PIPELINE_ID", "CI_JOB_ID", "BUILDKITE_BUILD_ID", "BUILDKITE_COMMIT", "CIRCLE_WORKFLOW_ID", "CIRCLE_SHA1",
  "BUILD_TAG", "BUILD_ID", "GIT_COMMIT", "MOONBIRD_ENV", "MIGRATION_TIMEOUT_SECONDS" }

local function clock()
  local t = sys.utc()
  return ("%04d-%02d-%02dT%02d:%02d:%02dZ"):format(t.year, t.month, t.day, t.hour, t.min, t.sec)
end

local function variables()
  local found = {}
  for _, name in ipairs(VARIABLES) do
    local value = sys.getenv(name)
    found[name] = value ~= "" and value or nil
  end
  return found
end

--- Passwords out of every text of a value.
local function redacted(value)
  if type(value) == "string" then
    return url_of.redact(value)
  elseif type(value) ~= "table" then
    return value
  end
  for key, item in pairs(value) do
    value[key] = redacted(item)
  end
  return value
end

local function statements_of(step)
  local list = json.array {}
  for _, block in ipairs(step.body.blocks or {}) do
    for _, st in ipairs(block.statements) do
      list[#list + 1] = { tag = st.tag, class = st.class, line = st.line + (step.body.origin_line or 1) - 1,
        transaction = block.transaction }
    end
  end
  for _, entry in ipairs(step.recorder and step.recorder.entries or {}) do
    list[#list + 1] = { tag = entry.tag or entry.text:match("^%s*(%a+)"), line = entry.line, times = entry.times,
      class = "function" }
  end
  return list
end

local function brief(step)
  local m = step.migration
  return { version = m.version, id = m.id, file = m.file, phase = m.phase, scope = m.scope,
    compatibility = m.compatibility, checksum = m.checksum, direction = step.direction,
    transactional = step.transactional }
end

-- What is not noted goes to the reporter as it is.
local mt = { __index = forward.to(M, "report") }

-- The reporter keeps state of its own (what it told already); so does everybody who sets it from outside.
function mt.__newindex(self, key, value)
  self.report[key] = value
end

--- Writes the file as it is now -> what went wrong.
local function write(self)
  self.data.duration_ms = task.now() - self.began
  local parent = self.path:match("^(.*)/[^/]*$")
  local ok, message = true, nil
  if parent and parent ~= "" then
    ok, message = fs.mkdir(parent)
  end
  if ok then
    ok, message = fs.write(self.path, json.encode(self.data, true) .. "\n")
  end
  return not ok and message or nil
end

--- Begins the diagnostics, and writes the file: one that can't be written is told before anything runs.
---@param path string where to write; parents are made
---@param report moonbird.reporter
---@param inputs table what the command line said, without secrets
---@return moonbird.artifact?
---@return moonbird.error? err code "io"
function M.new(path, report, inputs)
  local self = setmetatable({}, mt)
  rawset(self, "report", report)
  rawset(self, "path", path)
  rawset(self, "began", task.now())
  rawset(self, "due", 0)
  rawset(self, "data", { format = M.FORMAT, command = inputs.command, ok = false, state = "running",
    started_at = clock(), inputs = inputs, versions = { moonbird = embedded.version,
      libraries = embedded.libraries }, environment = { variables = variables(), host = sys.hostname(),
      user = sys.user() }, plan = { steps = json.array {}, held = json.array {} }, steps = json.array {},
    lock_waits = json.array {}, log = json.array {} })
  local message = write(self)
  if message then
    return nil, error_.new("io", "the artifact can't be written: " .. message,
      { hint = "nothing was run; --artifact FILE wants a file that can be made" })
  end
  return self
end

--- Writes the file as it is now, unless it was written a moment ago. The first failure is told, and kept for the
--- end.
---@param surely? boolean
function M:save(surely)
  local began = sys.monotonic()
  if not surely and began < rawget(self, "due") then
    return
  end
  local message = write(self)
  local ended = sys.monotonic()
  rawset(self, "due", ended + math.max(SAVE_EVERY_S, (ended - began) * SAVE_SHARE))
  if message and not rawget(self, "unwritten_artifact") then
    rawset(self, "unwritten_artifact", message)
    self.report:log("error", "the artifact could not be written: " .. message)
  end
end

--- Notes where the run goes.
---@param conf moonbird.config
---@param run? moonbird.run
---@param server? string the server's version
function M:where(conf, run, server)
  local environment = self.data.environment
  environment.name = conf.environment
  environment.protected = conf.protected ~= nil and conf.protected ~= false
  environment.database = { dbname = conf.url.params and conf.url.params.dbname, host = conf.url.params
    and conf.url.params.host, port = conf.url.params and conf.url.params.port, kind = conf.url.kind,
    origin = conf.url.origin }
  environment.migrations = json.array(table.move(conf.migrations, 1, #conf.migrations, 1, {}))
  environment.timeouts = conf.timeouts
  if run then
    self.data.run, environment.git_commit, environment.ci_run = run.id, run.facts.git_commit, run.facts.ci_run
  end
  self.data.versions.server = server
  self:save(true)
end

--- Ends the diagnostics. Not `finish`: that is the reporter's, which is called whenever a live line ends.
---@param result table|nil the command's
---@param err moonbird.error|nil
---@return moonbird.error? err when the file could not be written and nothing else failed
function M:conclude(result, err)
  local data = self.data
  data.ok, data.state, data.finished_at = err == nil, err and "failed" or "done", clock()
  data.result = result
  if err then
    data.error = redacted(failure.data(err))
    if err.code == "interrupted" then
      data.state = "interrupted"
    end
  end
  self:save(true)
  local message = rawget(self, "unwritten_artifact")
  return message and error_.new("io", "the artifact could not be written: " .. message,
    { hint = err == nil and "the run itself ended well" or nil }) or nil
end

-- What the engine tells -----------------------------------------------------------------------------------

--- See reporter.
---@param target moonbird.target
---@param steps moonbird.step[]
function M:plan(target, steps)
  local plan = self.data.plan
  plan.target, plan.head, plan.hash = target.name, target.head, steps[1] and steps[1].plan
  plan.steps = json.array {}
  for i, step in ipairs(steps) do
    plan.steps[i] = brief(step)
    plan.steps[i].statements = statements_of(step)
  end
  plan.held = json.array {}
  for i, item in ipairs(target.held or {}) do
    plan.held[i] = { id = item.migration.id, reason = item.reason, flags = item.flags }
  end
  self:save()
  self.report:plan(target, steps)
end

---@param step moonbird.step
function M:step_started(step)
  local entry = brief(step)
  entry.started_at, entry.outcome, entry.attempts = clock(), "running", json.array {}
  rawset(self, "entry", entry)
  table.insert(self.data.steps, entry)
  self:save()
  self.report:step_started(step)
end

---@param step moonbird.step
---@param ms integer
function M:step_done(step, ms)
  self.entry.outcome, self.entry.duration_ms, self.entry.statements = "done", ms, statements_of(step)
  self:save()
  self.report:step_done(step, ms)
end

---@param step moonbird.step
---@param err moonbird.error
---@param ms integer
function M:step_failed(step, err, ms, whole)
  self.entry.outcome, self.entry.duration_ms, self.entry.statements = "failed", ms, statements_of(step)
  self.entry.error = redacted(failure.data(err))
  self:save()
  self.report:step_failed(step, err, ms, whole)
end

---@param step moonbird.step
---@param err moonbird.error
---@param attempt integer
---@param lock integer
---@param blockers table[]|nil
function M:blocked(step, err, attempt, lock, blockers)
  table.insert(self.entry.attempts, { attempt = attempt, sqlstate = err.sqlstate, message = err.message,
    waited_ms = lock, blockers = redacted(json.array(blockers or {})) })
  self:save()
  self.report:blocked(step, err, attempt, lock, blockers)
end

---@param step moonbird.step
---@param blockers table[]
function M:running(step, blockers)
  for _, blocker in ipairs(blockers) do
    local waits = self.data.lock_waits
    local last = waits[#waits]
    if last and last.pid == blocker.pid and last.migration == step.migration.id then
      last.seen = last.seen + 1
    else
      table.insert(waits, redacted { migration = step.migration.id, pid = blocker.pid, at = clock(), seen = 1,
        application = blocker.application, user = blocker.user, state = blocker.state, client = blocker.client,
        transaction_s = blocker.xact_s, query = blocker.query })
      self:save()
    end
  end
  self:save() -- a step that lasts: whoever looks at the file sees it
  self.report:running(step, blockers)
end

---@param target moonbird.target
---@param holder table|nil
function M:waiting_for_lock(target, holder)
  local waits = self.data.lock_waits
  local last = waits[#waits]
  local pid = holder and holder.pid
  if last and last.target == target.name and last.pid == pid then
    last.seen = last.seen + 1
  else
    table.insert(waits, { target = target.name, pid = pid, application = holder and holder.application,
      client = holder and holder.client, at = clock(), seen = 1 })
    self:save()
  end
  self.report:waiting_for_lock(target, holder)
end

---@param level string
---@param message string
---@param step? moonbird.step
function M:log(level, message, step)
  if level == "warn" or level == "error" then
    table.insert(self.data.log, { at = clock(), level = level, message = url_of.redact(message),
      migration = step and step.migration.id })
  end
  self.report:log(level, message, step)
end

return M
