--- What a policy run found: for people, and as data.
--
-- An outcome is what cli/checking.lua hands over:
--
--   findings    list of { rule, group, severity "error"|"warning"|"info", message, file, line, column, last_line,
--               migration, version, fix, hard, gate, waived, excerpt, fingerprint }, by file and line
--   unchecked   list of { rule, needs, count }: rules whose facts were not at hand
--   opaque      list of { file, line, reason, unparsed, recordable }: what no rule could look into; recordable: a
--               Lua function, whose statements show in a rehearsal
--   waivers     list of { rule, file, line, expires, reason, ticket, state }
--   rules       the rules that were on
--   files       shown names of the migrations that were looked at
--   checked     how many these are
--   versions    their versions, ascending
--   failure     { message } when the run broke off
--
-- `data` is the same as stable JSON: `findings` (each rule, group, severity, message, file, line, column, last_line,
-- migration, version as text, fix, excerpt, fingerprint, waived { reason, until, ticket, file, line } or absent),
-- `not_checked` (rule, needs, count), `opaque` (file, line, reason), `waivers` (rule, file, line, until, reason,
-- ticket, state), `migrations`, `errors`, `warnings`, `notes`, `waived` (numbers).
local clean = require "moonbird.report.clean"
local json = require "moonbird.core.json"
local text_util = require "moonbird.util.text"

local M = {}

local MANY = 50 -- findings in old migrations, from which on a beginning is proposed

-- What to do for a fact that was not there.
local NEEDS = {
  git = "git (--base REF)",
  history = "the history of a database (ci, up, deploy)",
  live = "a database (ci, up, deploy)",
  step = "a step that runs (ci, up, deploy)",
  recording = "a recording of what the Lua functions send (ci)",
}

---@class moonbird.findings.counts
---@field errors integer unwaived
---@field warnings integer
---@field notes integer
---@field waived integer
---@field files integer migrations with an unwaived finding

--- Counts them.
---@param outcome moonbird.policy.outcome
---@return moonbird.findings.counts
function M.count(outcome)
  local counts = { errors = 0, warnings = 0, notes = 0, waived = 0, files = 0 }
  local names = { error = "errors", warning = "warnings", info = "notes" }
  local unseen = {}
  for _, file in ipairs(outcome.files) do
    unseen[file] = true
  end
  for _, finding in ipairs(outcome.findings) do
    if finding.waived then
      counts.waived = counts.waived + 1
    else
      local name = names[finding.severity]
      counts[name] = counts[name] + 1
      if unseen[finding.file] then
        unseen[finding.file] = nil
        counts.files = counts.files + 1
      end
    end
  end
  return counts
end

--- "3 errors, 2 warnings in 2 of 48 migrations; 1 waived".
---@param outcome moonbird.policy.outcome
---@return string
function M.summary(outcome)
  local counts = M.count(outcome)
  local parts = {}
  for _, kind in ipairs { "error", "warning", "note" } do
    local n = counts[kind .. "s"]
    if n > 0 then
      parts[#parts + 1] = text_util.count(n, kind)
    end
  end
  local checked = text_util.count(outcome.checked, "migration")
  local text
  if #parts == 0 then
    text = checked .. ", nothing found"
  elseif counts.files == 0 then -- moonbird.lua, the ledger, or a file whose name tells no version
    text = ("%s; %s"):format(table.concat(parts, ", "), checked)
  else
    text = ("%s in %d of %s"):format(table.concat(parts, ", "), counts.files, checked)
  end
  return text .. (counts.waived > 0 and ("; %d waived"):format(counts.waived) or "")
end

local function place(item)
  if not item.file then
    return ""
  end
  local text = clean.line(item.file)
  if item.line then
    text = text .. ":" .. item.line .. (item.column and ":" .. item.column or "")
  end
  return text .. ": "
end

-- A line never begins with somebody else's words: a CI system would take "::word::" for a command.
local function continued(text)
  return (text:gsub("\n", "\n    | "))
end

local function finding_lines(finding, style, lines)
  local colour = finding.severity == "error" and style.red or finding.severity == "warning" and style.yellow
    or style.cyan
  lines[#lines + 1] = ("%s%s: %s"):format(style.bold(place(finding)),
    colour(("%s[%s]"):format(finding.severity, finding.rule)), continued(clean.visible(finding.message)))
  if finding.excerpt then
    lines[#lines + 1] = style.dim("    | " .. clean.line(finding.excerpt))
  end
  if finding.fix then
    lines[#lines + 1] = "    " .. style.dim("fix: ") .. continued(clean.visible(finding.fix))
  end
end

--- What was not checked: one line for each kind of fact, or, for who does not ask, one that counts.
local function unchecked_lines(outcome, style, verbose, lines)
  local order, by_need, seen, count = {}, {}, {}, 0
  for _, entry in ipairs(outcome.unchecked) do
    local list = by_need[entry.needs]
    if not list then
      list = { seen = {} }
      by_need[entry.needs] = list
      order[#order + 1] = entry.needs
    end
    if not list.seen[entry.rule] then
      list.seen[entry.rule] = true
      list[#list + 1] = entry.rule
      count, seen[entry.rule] = count + (seen[entry.rule] and 0 or 1), true
    end
  end
  table.sort(order)
  if #order > 1 and not verbose then
    for i, need in ipairs(order) do
      order[i] = NEEDS[need] or need
    end
    lines[#lines + 1] = style.yellow("not checked: ") .. ("%s, for want of %s; --verbose names them"):format(
      text_util.count(count, "rule"), table.concat(order, ", "))
    return
  end
  for _, need in ipairs(order) do
    local list = by_need[need]
    lines[#lines + 1] = style.yellow("not checked: ") .. ("%s %s %s"):format(table.concat(list, ", "),
      #list == 1 and "needs" or "need", NEEDS[need] or need)
  end
end

--- What was not looked into. A line for each Lua function and each DO block of a long history is read by nobody.
local function opaque_lines(outcome, style, verbose, lines)
  local functions, places = {}, {}
  for _, item in ipairs(outcome.opaque) do
    table.insert(item.recordable and functions or places, item)
  end
  local function say(text)
    lines[#lines + 1] = style.yellow("not looked into: ") .. text
  end
  local function say_all(list)
    for _, item in ipairs(list) do
      say(place(item) .. clean.line(item.reason))
    end
  end
  if #places > 1 and not verbose then
    say(("%d places, the first is %s%s; --verbose lists them"):format(#places, place(places[1]),
      clean.line(places[1].reason)))
  else
    say_all(places)
  end
  if #functions > 1 and not verbose then
    say(("%d Lua functions; what they send shows in a rehearsal (`moonbird ci`); --verbose lists them")
      :format(#functions))
  else
    say_all(functions)
  end
end

--- The version to begin with, when an old folder is looked at for the first time.
---@param outcome moonbird.policy.outcome
---@return integer? version
---@return integer? count findings in migrations up to it
function M.beginning(outcome)
  local versions = outcome.versions or {}
  local last = #versions - math.max(1, math.ceil(#versions / 5))
  local newest = versions[last]
  if not newest then
    return nil
  end
  local count = 0
  for _, finding in ipairs(outcome.findings) do
    if not finding.waived and finding.version and finding.version <= newest then
      count = count + 1
    end
  end
  if count > MANY then
    return newest, count
  end
end

--- For people. The last line is the summary.
---@param outcome moonbird.policy.outcome
---@param style table of report/style
---@param verbose? boolean name each rule that was not checked and each place that was not looked into
---@return string ends in a newline
function M.text(outcome, style, verbose)
  local lines, file = {}, nil
  for _, finding in ipairs(outcome.findings) do
    if not finding.waived then
      if #lines > 0 and finding.file ~= file then
        lines[#lines + 1] = ""
      end
      file = finding.file
      finding_lines(finding, style, lines)
    end
  end
  local notes = {}
  if outcome.checked > 0 then
    opaque_lines(outcome, style, verbose, notes)
    unchecked_lines(outcome, style, verbose, notes)
  end
  local version, count = M.beginning(outcome)
  if version then
    notes[#notes + 1] = style.cyan("hint: ") .. ("%d findings are in old migrations; `policy = { enforce_after = %d }` "
      .. "in moonbird.lua looks at the newer ones"):format(count, version)
  end
  if #lines > 0 then
    lines[#lines + 1] = ""
  end
  table.move(notes, 1, #notes, #lines + 1, lines)
  local counts = M.count(outcome)
  local colour = counts.errors > 0 and style.red or counts.warnings > 0 and style.yellow or style.green
  lines[#lines + 1] = colour(M.summary(outcome))
  return table.concat(lines, "\n") .. "\n"
end

local function waiver_data(item)
  return { reason = item.reason and clean.utf8(item.reason), ["until"] = item.expires, ticket = item.ticket
    and clean.utf8(item.ticket), file = item.file and clean.utf8(item.file), line = item.line }
end

--- One finding as data.
---@param finding moonbird.policy.finding
---@return table
function M.finding_data(finding)
  local data = { rule = finding.rule, group = finding.group, severity = finding.severity, line = finding.line,
    column = finding.column, last_line = finding.last_line, fingerprint = finding.fingerprint,
    version = finding.version and tostring(finding.version), hard = finding.hard or nil, gate = finding.gate or nil,
    waived = finding.waived and waiver_data(finding.waived) or nil }
  for _, key in ipairs { "message", "file", "migration", "fix", "excerpt" } do
    data[key] = finding[key] and clean.utf8(finding[key])
  end
  return data
end

--- One waiver as data.
---@param item moonbird.policy.waiver
---@return table
function M.waiver_data(item)
  local data = waiver_data(item)
  data.rule, data.state, data.used = item.rule and clean.utf8(item.rule), item.state, item.used
  data.problem = item.problem and clean.utf8(item.problem)
  data.version = item.version and tostring(item.version)
  return data
end

--- The outcome as data, see the head of this file.
---@param outcome moonbird.policy.outcome
---@return table
function M.data(outcome)
  local counts = M.count(outcome)
  local data = { findings = json.array {}, not_checked = json.array {}, opaque = json.array {},
    waivers = json.array {}, migrations = outcome.checked, errors = counts.errors, warnings = counts.warnings,
    notes = counts.notes, waived = counts.waived }
  for i, finding in ipairs(outcome.findings) do
    data.findings[i] = M.finding_data(finding)
  end
  for i, entry in ipairs(outcome.unchecked) do
    data.not_checked[i] = { rule = entry.rule, needs = entry.needs, count = entry.count }
  end
  for i, item in ipairs(outcome.opaque) do
    data.opaque[i] = { file = clean.utf8(item.file), line = item.line, reason = clean.utf8(item.reason) }
  end
  for i, item in ipairs(outcome.waivers) do
    data.waivers[i] = M.waiver_data(item)
  end
  return data
end

return M
