--- A policy outcome as SARIF 2.1.0, for code scanning. What an outcome is: report/findings.lua.
--
-- A result keeps its identity when lines move: partialFingerprints["moonbird/v1"] is the finding's own, made of
-- the rule, the file's name, the statement and a number. Waived findings are there, suppressed. What was not
-- checked is told as notifications of the run.
local clean = require "moonbird.report.clean"
local embedded = require "moonbird.core.embedded"
local json = require "moonbird.core.json"

local M = {}

local LEVELS = { error = "error", warning = "warning", info = "note" }

M.SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"

--- A path as a relative reference of RFC 3986; an absolute one as a file: URI.
---@param path string
---@return string
function M.uri(path)
  local text = path:gsub("[^%w%-%._~/]", function(char)
    return ("%%%02X"):format(char:byte())
  end)
  return path:sub(1, 1) == "/" and "file://" .. text or text
end

local function message(text)
  return { text = clean.utf8(text) }
end

local function artifact(file, prefix)
  if file:sub(1, 1) == "/" then
    return { uri = M.uri(file) }
  end
  return { uri = M.uri(prefix .. file), uriBaseId = "%SRCROOT%" }
end

local function location(item, prefix)
  local physical = { artifactLocation = artifact(item.file, prefix) }
  if item.line then
    physical.region = { startLine = item.line, startColumn = item.column, endLine = item.last_line,
      snippet = item.snippet and message(item.snippet) or nil }
  end
  return { physicalLocation = physical }
end

--- The long help of a rule, as text and as Markdown.
local function help(rule)
  local text, markdown = { rule.explain or rule.title or rule.id }, { rule.explain or rule.title or rule.id }
  local function add(plain, marked)
    text[#text + 1], markdown[#markdown + 1] = plain, marked or plain
  end
  if rule.fix then
    add("Fix: " .. rule.fix, "**Fix:** " .. rule.fix)
  end
  local examples = rule.examples or {}
  for _, pair in ipairs { { "bad", "Flagged:" }, { "good", "Clean:" } } do
    local example = examples[pair[1]]
    if type(example) == "string" then
      local fence = ("`"):rep(3)
      while example:find(fence, 1, true) do
        fence = fence .. "`"
      end
      local language = example:find("-- migrate:up", 1, true) and "sql" or examples.run and "sh" or "lua"
      add(pair[2] .. "\n\n" .. example, ("%s\n\n%s%s\n%s\n%s"):format(pair[2], fence, language,
        example:gsub("\n+$", ""), fence))
    end
  end
  for _, seed in ipairs(rule.seeds or {}) do
    add("From " .. seed)
  end
  return { text = clean.utf8(table.concat(text, "\n\n")), markdown = clean.utf8(table.concat(markdown, "\n\n")) }
end

local function descriptor(rule)
  return {
    id = rule.id,
    shortDescription = message(rule.title or rule.id),
    fullDescription = message(rule.explain or rule.title or rule.id),
    help = help(rule),
    defaultConfiguration = { level = LEVELS[rule.severity or "error"] },
    properties = { group = rule.group, tags = json.array { "database", "migration", rule.group } },
  }
end

--- Descriptors of the rules that were on, and of those that only findings name.
local function descriptors(outcome)
  local list, index = json.array {}, {}
  local function add(rule)
    if not index[rule.id] then
      list[#list + 1] = descriptor(rule)
      index[rule.id] = #list - 1
    end
  end
  for _, rule in ipairs(outcome.rules) do
    add(rule)
  end
  for _, finding in ipairs(outcome.findings) do
    add { id = finding.rule, severity = finding.severity, group = finding.group }
  end
  return list, index
end

local function result(finding, index, prefix)
  local text = finding.message .. (finding.fix and "\n\nFix: " .. finding.fix or "")
  local waived = finding.waived
  return {
    ruleId = finding.rule,
    ruleIndex = index[finding.rule],
    level = LEVELS[finding.severity],
    message = message(text),
    locations = finding.file and { location(finding, prefix) } or nil,
    partialFingerprints = finding.fingerprint and { ["moonbird/v1"] = finding.fingerprint } or nil,
    suppressions = waived and { {
      kind = waived.config and "external" or "inSource",
      status = "accepted",
      justification = waived.reason and clean.utf8(waived.reason .. (waived.ticket and (" (%s)"):format(waived.ticket)
        or "")) or nil,
      location = waived.file and location({ file = waived.file, line = waived.line }, prefix) or nil,
    } } or nil,
  }
end

local function notifications(outcome, prefix)
  local list = json.array {}
  for _, entry in ipairs(outcome.unchecked) do
    list[#list + 1] = { level = "note", associatedRule = { id = entry.rule },
      message = message(("the rule %s was not checked: it needs %s"):format(entry.rule, entry.needs)) }
  end
  for _, item in ipairs(outcome.opaque) do
    list[#list + 1] = { level = "note", message = message("not looked into: " .. item.reason),
      locations = item.file and { location(item, prefix) } or nil }
  end
  if outcome.failure then
    list[#list + 1] = { level = "error", message = message(outcome.failure.message) }
  end
  return list
end

--- The log.
---@param outcome moonbird.policy.outcome
---@param options? { prefix?: string } prefix: from the source's root to the folder that files are shown from
---@return table for JSON
function M.log(outcome, options)
  local prefix = options and options.prefix or ""
  local rules, index = descriptors(outcome)
  local results = json.array {}
  for i, finding in ipairs(outcome.findings) do
    results[i] = result(finding, index, prefix)
  end
  return {
    ["$schema"] = M.SCHEMA,
    version = "2.1.0",
    runs = { {
      tool = { driver = { name = "moonbird", version = embedded.version, semanticVersion = embedded.version,
        rules = rules } },
      columnKind = "unicodeCodePoints",
      originalUriBaseIds = { ["%SRCROOT%"] = { description = message("the root of the source tree") } },
      invocations = { { executionSuccessful = outcome.failure == nil,
        toolExecutionNotifications = notifications(outcome, prefix) } },
      results = results,
    } },
  }
end

--- The text of the file.
---@param outcome moonbird.policy.outcome
---@param options? { prefix?: string }
---@return string
function M.text(outcome, options)
  return json.encode(M.log(outcome, options), true) .. "\n"
end

return M
