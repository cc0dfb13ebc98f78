--- The policy around a run: which migrations it may apply, and the rules before, inside and after each step.
--
-- Before anything is touched, all steps are looked at with what the files tell. Right before a step the rules
-- that ask the journal or the database are run with what is true then. A Lua function is looked at again when
-- its statements are known: after it ran, before its transaction is committed.
local error_ = require "moonbird.core.error"
local sys = require "moonbird.core.sys"
local text = require "moonbird.util.text"

-- The policy's modules are loaded when there is something to judge: "nothing to do" is the most frequent run.

---@class moonbird.gate
---@field config moonbird.config
---@field run_facts table what rules see as ctx.run
---@field environment table
---@field allow { contract: boolean, breaking: boolean }
---@field strict boolean every error stops, not only those of gates
---@field outcomes moonbird.policy.outcome[] of this run, for its report
local M = {}
M.__index = M

-- Warnings shown of one look; the rest is counted.
local SHOWN = 5

local function today()
  local t = sys.utc()
  return ("%04d-%02d-%02d"):format(t.year, t.month, t.day)
end

local function proof(protected)
  local value = protected and sys.getenv(protected.variable)
  return value ~= nil and value ~= "" and value ~= "0" and value:lower() ~= "false"
end

---@class moonbird.gate.options
---@field command string
---@field allow_contract? boolean
---@field allow_breaking? boolean
---@field emergency? string
---@field strict? boolean

--- Opens the gate: in a protected environment the command itself is judged.
---@param conf moonbird.config
---@param options moonbird.gate.options
---@return moonbird.gate?
---@return moonbird.error? err
---@return moonbird.policy.outcome? outcome with the findings, where the policy refused
function M.open(conf, options)
  local protected, err
  if conf.protected then
    protected, err = require("moonbird.policy.settings").protected(conf)
  end
  if err then
    return nil, err
  end
  local raw = conf.policy or {}
  local self = setmetatable({
    config = conf,
    allow = { contract = options.allow_contract or raw.allow_contract == true,
      breaking = options.allow_breaking or raw.allow_breaking == true },
    environment = { name = conf.environment, protected = protected },
    strict = options.strict or raw.up == "all",
    outcomes = {}, told = {}, chosen = {}, checked = 0, today = today(),
  }, M)
  self.run_facts = { command = options.command, ci = proof(protected), emergency = options.emergency,
    allow = self.allow }
  if options.emergency and not options.emergency:find("%S") then
    return nil, error_.new("usage", "--emergency needs a reason",
      { hint = "--emergency \"what happened, who agreed\"" })
  end
  if protected then
    err = self:look("command", { moment = "before", migrations = {}, registry = {} }, function(rule)
      return rule.per == "registry" and rule.group == "run_order"
    end)
  end
  if err then
    return nil, err, self:outcome()
  end
  return self
end

--- The rules and their settings, loaded once.
---@return true|nil
---@return moonbird.error? err
function M:load()
  if self.rules then
    return true
  end
  local project_rules = require "moonbird.policy.project"
  local rules, taken = {}, {}
  for i, rule in ipairs(require("moonbird.policy.builtin").rules()) do
    rules[i], taken[rule.id] = rule, true
  end
  local raw = self.config.policy or {}
  local dir = type(raw.dir) == "string" and raw.dir or project_rules.DIR
  local own, err = project_rules.rules(self.config.dir, dir, taken)
  if not own then
    return nil, err
  end
  table.move(own, 1, #own, #rules + 1, rules)
  local settings
  settings, err = require("moonbird.policy.settings").read(self.config, rules)
  if not settings then
    return nil, err
  end
  self.rules, self.settings = rules, settings
  return true
end

--- The error that findings make.
---@param findings moonbird.policy.finding[] not empty
---@return moonbird.error
function M.error(findings)
  local problems = {}
  for i, finding in ipairs(findings) do
    problems[i] = { file = finding.file, line = finding.line, column = finding.column, hint = finding.fix,
      message = ("%s [%s]"):format(finding.message, finding.rule) }
  end
  local first = findings[1]
  return error_.new("policy", #findings == 1 and ("refused by the policy rule \"%s\""):format(first.rule)
    or ("refused by the policy: %s"):format(text.count(#findings, "error")), { problems = problems,
      migration = #findings == 1 and first.migration or nil,
      hint = ("`moonbird policy explain %s` tells why"):format(first.rule) })
end

-- What no rule could look into and was not told yet: one line, however long the history is.
local function warn_opaque(self, report, opaque)
  local first, count = nil, 0
  for _, item in ipairs(opaque) do
    local key = ("%s:%s %s"):format(item.file, item.line, item.reason)
    if not self.told[key] then
      self.told[key], first, count = true, first or item, count + 1
    end
  end
  if first then
    report:log("warn", ("%s:%s: the policy can't look into it: %s%s"):format(first.file, first.line or "?",
      first.reason, count > 1 and ("; and %s more, `moonbird check --verbose` lists them"):format(
        text.count(count - 1, "place")) or ""))
  end
end

-- Errors that do not stop this command are told as warnings; warnings are for `check`, `ci` and `deploy`. What was
-- told in an earlier look is not told again.
local function warn(self, report, outcome, stopping)
  local list = {}
  local stops = {}
  for _, finding in ipairs(stopping) do
    stops[finding] = true
  end
  for _, finding in ipairs(outcome.findings) do
    local key = table.concat({ finding.rule, finding.file or "", finding.line or "", finding.message }, "\0")
    if not finding.waived and not stops[finding] and not self.told[key]
      and (finding.severity == "error" or (finding.severity == "warning" and (self.strict or finding.gate))) then
      self.told[key] = true
      list[#list + 1] = finding
    end
  end
  for i = 1, math.min(#list, SHOWN) do
    local finding = list[i]
    report:log("warn", ("%s%s [%s]"):format(finding.file and finding.file
      .. (finding.line and ":" .. finding.line or "") .. ": " or "", finding.message, finding.rule))
  end
  if self.strict then
    warn_opaque(self, report, outcome.opaque)
  end
  if #list > SHOWN then
    report:log("warn", ("and %s more of the policy; `moonbird check` lists them"):format(
      text.count(#list - SHOWN, "finding")))
  end
end

--- The rules of a kind of look, chosen once.
local function chosen(self, kind, moment, wanted)
  local known = self.chosen[kind]
  if not known then
    local rules = {}
    for _, rule in ipairs(self.rules) do
      rules[#rules + 1] = wanted(rule) and rule or nil
    end
    known = { rules = rules, active = require("moonbird.policy.engine").active(rules, self.settings, moment) }
    self.chosen[kind] = known
  end
  return known
end

--- Runs some of the rules.
---@param kind string names the look: its rules are chosen once
---@param options table for engine.run
---@param wanted fun(rule: moonbird.policy.rule): boolean
---@param report? moonbird.reporter told of what does not stop
---@return moonbird.error? err
function M:look(kind, options, wanted, report)
  local ok, err = self:load()
  if not ok then
    return err
  end
  local rules = chosen(self, kind, options.moment, wanted)
  if #rules.active == 0 then
    return nil
  end
  local engine = require "moonbird.policy.engine"
  options.rules, options.active, options.settings = self.rules, rules.active, self.settings
  options.run, options.environment, options.now = self.run_facts, self.environment, self.today
  options.limits = self.config.limits
  local outcome = engine.run(options)
  if options.live then
    require("moonbird.exec.live").settle(options.live)
  end
  for i = #outcome.opaque, 1, -1 do
    if outcome.opaque[i].recordable then -- looked at before its transaction is committed
      table.remove(outcome.opaque, i)
    end
  end
  if #outcome.findings + #outcome.unchecked + #outcome.opaque + #outcome.waivers > 0 then
    self.outcomes[#self.outcomes + 1] = outcome
  end
  self.checked = math.max(self.checked, outcome.checked)
  local stopping = engine.errors(outcome, not self.strict)
  if report then
    warn(self, report, outcome, stopping)
  end
  return #stopping > 0 and M.error(stopping) or nil
end

local function asks(rule, ...)
  for _, name in ipairs { ... } do
    for _, need in ipairs(rule.needs or {}) do
      if need == name then
        return true
      end
    end
  end
  return false
end

--- Whether a rule can do without the database and says more with it: where it is asked, it is asked then only.
local function uses_live(self, rule)
  return self.strict and rule.uses ~= nil and rule.uses[1] == "live"
end

-- A history is asked for before every step, and looked into by few rules: its list is made when it is.
local history_mt = {
  __index = function(history, key)
    if key ~= "applied" and key ~= "newest" then
      return nil
    end
    local applied, newest = {}, nil
    for version, row in pairs(history.rows()) do
      applied[version] = { version = version, id = row.id, phase = row.phase, checksum = row.checksum }
      newest = (not newest or version > newest) and version or newest
    end
    rawset(history, "applied", applied)
    rawset(history, "newest", newest)
    return rawget(history, key)
  end,
}

--- How far backfills are, asked where a contract migration is to complete something.
local function backfills_of(target, step)
  local backfills = {}
  local wanted = step and step.direction == "up" and step.migration.phase == "contract" and step.migration.completes
  if wanted and target.state.exists then
    local store = require("moonbird.core.backfill").new(target.run.journal)
    for _, row in ipairs(store:progress(target.session, target.name) or {}) do
      backfills[row.version] = { done = row.status == "done", share = row.share }
    end
  end
  return backfills
end

--- What rules see of a target's journal.
---@param target moonbird.target
---@param step? moonbird.step the one that is looked at
---@return table
function M.history(target, step)
  return setmetatable({ target = target.name, exists = target.state.exists, backfills = backfills_of(target, step),
    rows = function()
      return target.state.applied
    end }, history_mt)
end

--- All files with what is known of them: a loaded migration, or its entry and what the journal says.
local function registry_of(target, entries, migrations)
  local loaded, list = {}, {}
  for _, migration in ipairs(migrations) do
    loaded[migration.version] = migration
  end
  for i, entry in ipairs(entries) do
    local row = target.state.applied[entry.version]
    list[i] = loaded[entry.version] or { version = entry.version, version_text = entry.version_text,
      name = entry.name, file = entry.file, id = entry.id, kind = entry.kind, checksum = entry.checksum,
      phase = row and row.phase }
  end
  return list
end

local function migrations_of(steps)
  local list = {}
  for i, step in ipairs(steps) do
    list[i] = step.migration
  end
  return list
end

--- Before anything is touched: every step, by what the files tell.
---@param target moonbird.target
---@param steps moonbird.step[] not empty
---@param entries table[] the registry
---@return moonbird.error? err
function M:before(target, steps, entries)
  local entries_of_ledger, err = require("moonbird.policy.ledger").of_folders(self.config)
  if err then
    return err
  end
  self.ledger, self.registry = entries_of_ledger, registry_of(target, entries, migrations_of(steps))
  return self:look("files", {
    moment = "before", direction = steps[1].direction, migrations = migrations_of(steps),
    registry = self.registry, ledger = self.ledger,
  }, function(rule)
    return not asks(rule, "history", "live", "git", "step", "recording") and not uses_live(self, rule)
  end, target.run.report) or self:look("history", {
    moment = "before", direction = steps[1].direction, migrations = {}, registry = self.registry,
    ledger = self.ledger, history = M.history(target),
  }, function(rule)
    return rule.per == "registry" and asks(rule, "history") and not asks(rule, "live", "git", "step", "recording")
  end, target.run.report)
end

--- Gives a step what lets the policy see a function's statements, and the journal how it came to be allowed.
---@param target moonbird.target
---@param step moonbird.step
function M:attach(target, step)
  if step.body.kind == "function" then
    step.begin_recording = function() -- anew for every attempt
      step.recorder = require("moonbird.exec.recorder").new { file = step.migration.file, source = step.migration.text }
      return step.recorder
    end
    step.vet = function()
      return self:vet(target, step)
    end
  end
  step.describe = function() -- asked when the journal's row is made: a waiver may be used as late as in vet
    return self:detail(step)
  end
end

--- Right before a step: what the journal and the database say now.
---@param target moonbird.target
---@param step moonbird.step
---@return moonbird.error? err
function M:step(target, step)
  -- Tenants with the same history, before the same step: the answer is the same. A strict look asks the database.
  local shared, hash = step.shared, target.state.hash
  local passed = shared and hash and not self.strict and shared.passed
  if passed and passed[hash] then
    if step.body.kind == "function" or shared.event == nil then
      self:attach(target, step)
    end
    return nil
  end
  self:attach(target, step)
  local err = self:ask(target, step)
  if shared and hash and not err then
    shared.passed = shared.passed or {}
    shared.passed[hash] = true
  end
  return err
end

--- Asks the rules that need the journal or the database.
---@param target moonbird.target
---@param step moonbird.step
---@return moonbird.error? err
function M:ask(target, step)
  return self:look("step", {
    moment = "before", direction = step.direction, migrations = { step.migration }, registry = self.registry,
    ledger = self.ledger, history = M.history(target, step),
    live = self.strict and require("moonbird.exec.live").new(target) or nil,
  }, function(rule)
    return rule.per ~= "registry" and (asks(rule, "history", "live") or uses_live(self, rule))
      and not asks(rule, "git", "step", "recording") and (self.strict or rule.gate)
  end, target.run.report)
end

--- A Lua function has run and its statements are known; its transaction is still open.
---@param target moonbird.target
---@param step moonbird.step with its recorder
---@return moonbird.error? err
function M:vet(target, step)
  local recorder = step.recorder
  if recorder.truncated and step.direction == "up" and step.migration.phase ~= "contract" then
    return error_.new("policy", "the function sends more different statements than the policy can look at",
      { migration = step.migration.id, file = step.migration.file,
        hint = "bind values as parameters ($1), so that statements are the same; or split the migration" })
  end
  local migration = setmetatable({ recorded = { [step.direction] = recorder.entries } }, { __index = step.migration })
  return self:look("vet", {
    moment = "before", direction = step.direction, migrations = { migration }, registry = self.registry,
    ledger = self.ledger,
  }, function(rule)
    return rule.per ~= "registry" and not rule.last and not asks(rule, "history", "git", "step")
  end, target.run.report)
end

--- After a step was committed.
---@param target moonbird.target
---@param step moonbird.step
---@param duration_ms integer
---@return moonbird.error? err
function M:after(target, step, duration_ms)
  local err
  if step.vet and not step.transactional then
    err = step.vet() -- each statement was committed as it ran
  end
  err = err or self:look("after", {
    moment = "after", direction = step.direction, migrations = { step.migration }, registry = self.registry,
    ledger = self.ledger, history = M.history(target),
    live = self.strict and require("moonbird.exec.live").new(target) or nil,
    step = { direction = step.direction, duration_ms = duration_ms, transactional = step.transactional },
  }, function(rule)
    return rule.per ~= "registry" and not asks(rule, "git") and (self.strict or not asks(rule, "live"))
  end, target.run.report)
  if err then
    err.detail = ("%s was applied; it stays"):format(step.migration.id)
  end
  return err
end

--- All that was found in this run, as one outcome.
---@return moonbird.policy.outcome
function M:outcome()
  local all = { findings = {}, unchecked = {}, opaque = {}, waivers = {}, checked = self.checked,
    rules = self.rules or {} }
  local seen = {}
  for _, outcome in ipairs(self.outcomes) do
    for _, list in ipairs { "findings", "unchecked", "opaque", "waivers" } do
      for _, item in ipairs(outcome[list]) do
        local key = table.concat({ list, item.rule or "", item.file or "", tostring(item.line), item.message
          or item.reason or item.needs or "" }, "\0")
        local first = seen[key]
        if not first then
          seen[key] = item
          table.insert(all[list], item)
        elseif list == "waivers" and item.state == "used" then
          first.state, first.used = "used", item.used
        end
      end
    end
  end
  return all
end

--- What the journal keeps of how a step came to be allowed; nil when nothing was out of the ordinary.
---@param step moonbird.step
---@return table?
function M:detail(step)
  local detail = {}
  if step.direction == "up" and step.migration.phase == "contract" then
    detail.allowed = step.migration.compatibility == "contract_breaking" and "contract, breaking" or "contract"
  end
  detail.emergency = self.run_facts.emergency
  local waived = {}
  for _, outcome in ipairs(self.outcomes) do
    for _, item in ipairs(outcome.waivers) do
      if item.state == "used" and item.version == step.migration.version then
        waived[item.rule] = { rule = item.rule, reason = item.reason, expires = item.expires, ticket = item.ticket }
      end
    end
  end
  for _, item in pairs(waived) do
    detail.waivers = detail.waivers or {}
    table.insert(detail.waivers, item)
  end
  if detail.waivers then
    table.sort(detail.waivers, function(a, b)
      return a.rule < b.rule
    end)
  end
  return next(detail) and detail or nil
end

return M
