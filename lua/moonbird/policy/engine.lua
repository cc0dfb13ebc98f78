--- Runs rules over migrations at a moment, with the facts at hand, and settles waivers.
--
-- What a rule needs and is not there is told as "unchecked", never taken for passed. A project's own rule
-- runs in the sandbox with limits; one that fails is a finding itself.
local context = require "moonbird.policy.context"
local error_ = require "moonbird.core.error"
local head = require "moonbird.policy.head"
local nearest = require "moonbird.util.nearest"
local sandbox = require "moonbird.core.sandbox"
local settings_of = require "moonbird.policy.settings"
local view_of = require "moonbird.policy.view"
local waiver = require "moonbird.policy.waiver"

local M = {}

-- Of one call of a project's rule. Millions of instructions are milliseconds.
local LIMITS = { instructions = 50000000, memory = 64 << 20, seconds = 10 }

-- What a project's rule may report in a run, and how long a message may be.
local MOST_FINDINGS = 1000
local MOST_MESSAGE = 4096

local DEFAULT_MOMENTS = { "check", "before" }

-- Groups that look at every migration, however old: their findings are about the history itself.
local ALWAYS = { immutability = true, run_order = true, phase = true, waiver = true }

---@class moonbird.policy.rule
---@field id string
---@field group string
---@field severity "error"|"warning"|"info"
---@field title string
---@field explain string
---@field fix? string
---@field seeds? string[]
---@field needs? string[] of "history", "git", "live", "step", "recording"
---@field uses? string[] { "live" }: it does without, and says more with it; `deploy` asks it right before the step
---@field per? "migration"|"registry"
---@field moments? string[]
---@field hard? boolean
---@field gate? boolean
---@field last? boolean runs when waivers are settled
---@field options? table<string, table>
---@field applies? fun(ctx: table): boolean
---@field check fun(ctx: table)
---@field file? string of a project's own rule; it is sandboxed

---@class moonbird.policy.finding
---@field rule string
---@field group string
---@field severity "error"|"warning"|"info"
---@field message string
---@field file? string
---@field line? integer
---@field column? integer
---@field last_line? integer
---@field statement? string the text it is about
---@field version? integer
---@field migration? string
---@field fix? string
---@field waived? moonbird.policy.waiver
---@field hard? boolean
---@field gate? boolean

---@class moonbird.policy.outcome
---@field findings moonbird.policy.finding[]
---@field unchecked { rule: string, needs: string, count: integer }[]
---@field opaque table[] what no rule could look into: file, line, reason, recordable (it shows when it runs)
---@field waivers moonbird.policy.waiver[] each with `state`: used, unused, expired, unknown, hard, broken
---@field checked integer migrations looked at
---@field rules moonbird.policy.rule[] that were on

---@class moonbird.policy.options
---@field rules moonbird.policy.rule[]
---@field active? table[] of M.active, where it is made already
---@field settings moonbird.policy.settings
---@field migrations table[] loaded; those that are checked
---@field registry? table[] all migrations there are (default: migrations)
---@field moment "check"|"before"|"after"
---@field direction? "up"|"down"
---@field environment? table
---@field run? table
---@field history? table
---@field git? table
---@field live? table
---@field ledger? table
---@field tenants? table
---@field step? table
---@field now string "YYYY-MM-DD"
---@field limits? { instructions?: integer, memory?: integer } of a project's rule

local function has(list, value)
  for _, item in ipairs(list) do
    if item == value then
      return true
    end
  end
  return false
end

--- The rules that are on at a moment, with their severity and options in this environment. A run over many steps
--- makes the list once.
---@param rules moonbird.policy.rule[]
---@param settings moonbird.policy.settings
---@param moment string
---@return table[] active for `run`
function M.active(rules, settings, moment)
  local active = {}
  for _, rule in ipairs(rules) do
    local setting = settings.rules[rule.id]
    if has(rule.moments or DEFAULT_MOMENTS, moment) and not (setting and setting.off) then
      local values = {}
      for key, option in pairs(rule.options or {}) do
        values[key] = option.default
      end
      for key, value in pairs(setting and setting.options or {}) do
        values[key] = value
      end
      active[#active + 1] = { rule = rule, options = values, override = setting and setting.severity,
        severity = setting and setting.severity or rule.severity }
    end
  end
  return active
end

local function severity_of(item, wanted)
  local known = settings_of.SEVERITIES
  if not known[wanted] then
    return item.severity
  elseif item.override and known[wanted] > known[item.override] then
    return item.override
  end
  return wanted
end

local function text_or_nil(value)
  return type(value) == "string" and value or nil
end

local function integer_or_nil(value)
  return math.type(value) == "integer" and value or nil
end

local function place_or_nil(value)
  return math.type(value) == "integer" and value >= 1 and value < 1 << 31 and value or nil
end

--- The file a finding names. Reports show lines of it, so a project's own rule names migrations only.
local function file_of(state, rule, file)
  if not file or not rule.file then
    return file
  end
  if not state.files then
    state.files = {}
    for _, migration in ipairs(state.registry) do
      state.files[migration.file] = true
    end
  end
  return state.files[file] and file or nil
end

--- What to do, in the syntax of the migration's file. A project's rule says it in its own words.
local function fix_of(rule, migration, said)
  local fix = said or rule.fix
  return fix and migration and not rule.file and head.in_syntax(fix, migration.kind) or fix
end

--- Makes the function behind ctx:report.
local function reporter(state)
  return function(_, message, options)
    if type(message) ~= "string" then
      error("ctx:report takes a message", 2)
    end
    if state.item.rule.file then
      local rule_item = state.item
      rule_item.reported = (rule_item.reported or 0) + 1
      if rule_item.reported > MOST_FINDINGS then
        error(("the rule reports more than %d findings"):format(MOST_FINDINGS), 2)
      end
      message = message:sub(1, MOST_MESSAGE)
    end
    options = type(options) == "table" and options or {}
    local item, migration = state.item, state.migration
    local at = view_of.original(rawget(options, "at") or {})
    if type(at) ~= "table" then
      error("\"at\" is a statement or { line = ... }", 2)
    end
    local rule = item.rule
    local finding = { rule = rule.id, group = rule.group, hard = rule.hard, gate = rule.gate, message = message,
      severity = severity_of(item, rawget(options, "severity")),
      fix = fix_of(rule, migration, text_or_nil(rawget(options, "fix"))),
      file = file_of(state, rule, text_or_nil(rawget(at, "file"))) or migration and migration.file,
      line = place_or_nil(rawget(at, "line")), column = place_or_nil(rawget(at, "column")),
      statement = text_or_nil(rawget(at, "text")),
      version = migration and migration.version or integer_or_nil(rawget(at, "version")),
      migration = migration and migration.id }
    if finding.statement and finding.line then
      local _, breaks = finding.statement:gsub("\n", "")
      finding.last_line = finding.line + breaks
    end
    state.findings[#state.findings + 1] = finding
  end
end

local function missing_fact(rule, options, migration)
  for _, need in ipairs(rule.needs or {}) do
    if need == "recording" then
      local step = migration and migration[options.direction or "up"]
      if step and step.kind == "function" and step.opaque then
        return need
      end
    elseif not options[need] then
      return need
    end
  end
end

--- A project's rule: what may call it is the sandbox only.
local function call_sandboxed(state, rule, fn, ctx, limits)
  state.view = state.view or view_of.of(ctx, { [ctx] = true, [ctx.live or false] = true })
  local ok, result = sandbox.compute { fn = fn, args = { state.view }, name = rule.file, seconds = LIMITS.seconds,
    instructions = limits and limits.instructions or LIMITS.instructions,
    memory = limits and limits.memory or LIMITS.memory }
  if ok then
    return result
  end
  local finding = { rule = rule.id, group = rule.group, severity = "error", hard = true, gate = rule.gate,
    message = ("the rule \"%s\" failed%s: %s"):format(rule.id,
      state.migration and " on " .. state.migration.base_name or "", result.message),
    file = result.file or rule.file, line = result.line, fix = result.hint or "mend the rule",
    version = state.migration and state.migration.version, failed = true }
  state.findings[#state.findings + 1] = finding
  return nil
end

local function call(state, rule, fn, ctx, limits)
  if rule.file then
    return call_sandboxed(state, rule, fn, ctx, limits)
  end
  local ok, result = xpcall(fn, function(raised)
    local err = error_.from(raised, type(raised) == "string" and "internal" or nil)
    err.traceback = err.traceback or debug.traceback(nil, 2)
    return error_.with(err, { detail = ("in the policy rule \"%s\""):format(rule.id), file = ctx.migration
      and ctx.migration.file })
  end, ctx)
  if not ok then
    error(result, 0)
  end
  return result
end

local function note_unchecked(state, rule, need)
  local key = rule.id .. " " .. need
  local entry = state.unchecked[key]
  if not entry then
    entry = { rule = rule.id, needs = need, count = 0 }
    state.unchecked[key] = entry
    state.unchecked[#state.unchecked + 1] = entry
  end
  entry.count = entry.count + 1
end

local function check_one(state, options, item, ctx)
  local rule = item.rule
  state.item = item
  ctx.options = item.options
  if rule.applies and not call(state, rule, rule.applies, ctx, options.limits) then
    return
  end
  local need = missing_fact(rule, options, state.migration)
  if need then
    note_unchecked(state, rule, need)
  else
    state.ran[rule.id] = state.ran[rule.id] or {}
    state.ran[rule.id][state.migration and state.migration.version or "registry"] = true
    call(state, rule, rule.check, ctx, options.limits)
  end
end

--- What could not be looked into: steps in Lua without a recording, statements that hide others, SQL that
--- libpg_query can't parse.
local function note_opaque(state, view, looked)
  local function note(line, reason, fields)
    state.dim[view.version] = true
    if looked then
      fields.file, fields.line, fields.reason = fields.file or view.file, line, reason
      state.opaque[#state.opaque + 1] = fields
    end
  end
  if not looked then
    state.dim[view.version] = true
  end
  for _, direction in ipairs { "up", "down" } do
    local step = rawget(view, direction)
    if step and step.opaque then
      note(context.loaded(view)[direction].line,
        ("%s is a Lua function; its statements show in a rehearsal only"):format(direction), { recordable = true })
    end
    for _, st in ipairs(step and step.statements or {}) do
      if rawget(st, "opaque") then
        note(st.line, ("%s: what it runs can't be seen"):format(st.tag), { file = st.file })
      elseif rawget(st, "parsed") == false then
        note(st.line, "the statement can't be parsed here: " .. tostring(st.problem),
          { file = st.file, unparsed = true })
      end
    end
  end
end

local function new_context(state, options, view)
  return context.new {
    moment = options.moment, now = options.now, direction = options.direction or "up",
    environment = options.environment or {}, run = options.run or { allow = {} }, migration = view,
    registry = state.registry, ledger = options.ledger, history = options.history, git = options.git,
    live = options.live, step = options.step, tenants = options.tenants, waivers = state.waivers,
    journal_schema = options.settings.journal_schema, report = state.report,
  }
end

--- Excuses findings, and says of each waiver what became of it.
local function settle_waivers(state, options)
  local known, ids = {}, {}
  for i, rule in ipairs(options.rules) do
    known[rule.id], ids[i] = rule, rule.id
  end
  for _, item in ipairs(state.waivers) do
    local rule = known[item.rule]
    if item.problem then
      item.state = "broken"
    elseif not rule then
      item.state = "unknown"
      local near = nearest.find(item.rule, ids)
      item.nearest = near and ("did you mean \"%s\"?"):format(near)
    elseif rule.hard then
      item.state = "hard"
    else
      item.state = item.expires < options.now and "expired" or "unused"
      -- "unused" is said only where the rule was asked, and could see all there is.
      local ran = state.ran[item.rule] or {}
      item.asked = (ran[item.version] or ran.registry or false) and not state.dim[item.version]
    end
  end
  for _, finding in ipairs(state.findings) do
    for _, item in ipairs(state.by_version[finding.version] or {}) do
      if (item.state == "unused" or item.state == "used") and not finding.failed and waiver.covers(item, finding) then
        item.state = "used"
        item.used = (item.used or 0) + 1
        finding.waived = finding.waived or item
      end
    end
  end
  for _, item in ipairs(state.waivers) do
    if item.state == "unused" and not item.asked then
      item.state = "unchecked"
    end
  end
  -- A waiver in the file that is over is not told of again when one in moonbird.lua renews it.
  for _, item in ipairs(state.waivers) do
    if item.state == "expired" then
      for _, other in ipairs(state.by_version[item.version]) do
        if other ~= item and other.rule == item.rule and other.state == "used" then
          item.state = "renewed"
        end
      end
    end
  end
end

--- The order of findings: by file and place.
---@param a moonbird.policy.finding
---@param b moonbird.policy.finding
---@return boolean before
function M.in_order(a, b)
  if (a.file or "") ~= (b.file or "") then
    return (a.file or "") < (b.file or "")
  elseif (a.line or 0) ~= (b.line or 0) then
    return (a.line or 0) < (b.line or 0)
  elseif (a.column or 0) ~= (b.column or 0) then
    return (a.column or 0) < (b.column or 0)
  elseif a.rule ~= b.rule then
    return a.rule < b.rule
  end
  return a.message < b.message
end

local function add_waivers(state, list)
  for _, item in ipairs(list) do
    state.waivers[#state.waivers + 1] = item
    state.by_version[item.version] = state.by_version[item.version] or {}
    table.insert(state.by_version[item.version], item)
  end
end

local function run_registry_rules(state, options, active, last)
  state.migration, state.view = nil, nil
  local ctx = new_context(state, options, nil)
  for _, item in ipairs(active) do
    local wanted = item.rule.per == "registry" or item.rule.last
    if wanted and (item.rule.last or false) == last then
      check_one(state, options, item, ctx)
    end
  end
end

--- Whether a migration is merged as it is: reviewed, and not to be edited any more. Only what is about the history
--- itself still looks at it.
local function settled(git, migration)
  if not git or not git.merged or not git.merged[migration.file] then
    return false
  end
  for _, change in ipairs(git.changes) do
    if change.file == migration.file or change.from == migration.file then
      return false
    end
  end
  return true
end

--- Runs the rules.
---@param options moonbird.policy.options
---@return moonbird.policy.outcome
function M.run(options)
  local state = { findings = {}, unchecked = {}, opaque = {}, waivers = {}, by_version = {}, ran = {}, dim = {},
    registry = context.registry(options.registry or options.migrations) }
  state.report = reporter(state)
  local active = options.active or M.active(options.rules, options.settings, options.moment)
  local files = {}
  for _, migration in ipairs(options.migrations) do
    add_waivers(state, waiver.of_migration(migration))
    files[migration.version] = true
  end
  for _, item in ipairs(options.settings.waivers) do
    if files[item.version] or not state.registry.by_version[item.version] then
      add_waivers(state, { { rule = item.rule, reason = item.reason, expires = item.expires, ticket = item.ticket,
        file = item.file, line = item.line, version = item.version, config = true,
        problem = item.problem or not files[item.version] and ("there is no migration %d"):format(item.version)
          or nil } })
    end
  end
  run_registry_rules(state, options, active, false)
  for _, migration in ipairs(options.migrations) do
    local view = context.migration(migration)
    local ctx = new_context(state, options, view)
    local old = migration.version <= options.settings.enforce_after or settled(options.git, migration)
    state.migration, state.view = view, nil
    for _, item in ipairs(active) do
      if item.rule.per ~= "registry" and not item.rule.last and not (old and not ALWAYS[item.rule.group]) then
        check_one(state, options, item, ctx)
      end
    end
    note_opaque(state, view, not old)
  end
  settle_waivers(state, options)
  run_registry_rules(state, options, active, true)
  table.sort(state.findings, M.in_order)
  local rules = {}
  for i, item in ipairs(active) do
    rules[i] = item.rule
  end
  return { findings = state.findings, unchecked = state.unchecked, opaque = state.opaque, waivers = state.waivers,
    checked = #options.migrations, rules = rules }
end

--- The findings that stop: errors nobody answers for.
---@param outcome moonbird.policy.outcome
---@param gates_only? boolean only those of gates
---@return moonbird.policy.finding[]
function M.errors(outcome, gates_only)
  local list = {}
  for _, finding in ipairs(outcome.findings) do
    if finding.severity == "error" and not finding.waived and (finding.gate or not gates_only) then
      list[#list + 1] = finding
    end
  end
  return list
end

return M
