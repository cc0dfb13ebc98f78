--- What a policy outcome is told with: each finding's line and snippet, and its identity from run to run.
local findings_of = require "moonbird.report.findings"
local fs = require "moonbird.core.fs"
local sql = require "moonbird.core.sql"
local sys = require "moonbird.core.sys"
local text_util = require "moonbird.util.text"

local M = {}

-- A snippet in a report is there to be recognised, not to be read whole.
local MAX_SNIPPET = 2000

--- Hands out lines of texts; quick when asked in order.
local function line_reader()
  local text, number, at
  return function(wanted_text, wanted)
    if text ~= wanted_text or wanted < number then
      text, number, at = wanted_text, 1, 1
    end
    while number < wanted do
      local next_at = text:find("\n", at, true)
      if not next_at then
        return nil
      end
      number, at = number + 1, next_at + 1
    end
    return text:match("^[^\n]*", at)
  end
end

--- The line a finding is about, and the whole of its statement where it is short. Nothing of lines with what must
--- not be shown: a secret stays where it is.
local function add_excerpts(outcome, text_of)
  local hides, hidden = {}, {}
  for _, rule in ipairs(outcome.rules) do
    hides[rule.id] = rule.hides
  end
  for _, finding in ipairs(outcome.findings) do
    if hides[finding.rule] and finding.file then
      hidden[finding.file] = hidden[finding.file] or {}
      hidden[finding.file][finding.line or 1] = true
    end
  end
  local function shows_hidden(finding)
    local lines, first = hidden[finding.file], finding.line
    for line = first or 1, lines and (finding.last_line or first) or 0 do
      if lines[line] then
        return true
      end
    end
    return false
  end
  local line_of = line_reader()
  for _, finding in ipairs(outcome.findings) do
    local hide = shows_hidden(finding)
    if hide then
      finding.excerpt, finding.snippet = nil, nil
    end
    local text = not hide and not finding.excerpt and finding.file and finding.line and text_of(finding.file)
    local line = text and line_of(text, finding.line)
    if line and line:find("%S") then
      local statement = finding.statement
      finding.excerpt = text_util.trim(line):sub(1, MAX_SNIPPET)
      finding.snippet = statement and #statement <= MAX_SNIPPET and statement or finding.excerpt
    end
  end
end

--- A finding's identity, that stays when lines move: the rule, the file's name, what the statement is, and a number
--- where several are alike.
local function add_fingerprints(findings)
  local seen = {}
  for _, finding in ipairs(findings) do
    local about = ""
    if finding.statement then
      about = sql.fingerprint(finding.statement) or text_util.trim(finding.statement:gsub("%s+", " "))
    end
    local key = table.concat({ finding.rule, finding.file and finding.file:match("[^/]*$") or "", about }, "\0")
    seen[key] = (seen[key] or 0) + 1
    finding.fingerprint = sys.sha256(key .. "\0" .. seen[key]):sub(1, 32)
  end
end

--- Adds to an outcome what it is told with: excerpts, fingerprints, files, the number of errors. May be called again
--- when findings were added.
---@param outcome moonbird.policy.outcome
---@param text_of? fun(file: string): string? default: read from the file
---@return moonbird.policy.outcome outcome itself
function M.complete(outcome, text_of)
  if not outcome.files then
    local seen = {}
    outcome.files = {}
    for _, finding in ipairs(outcome.findings) do
      if finding.migration and finding.file and not seen[finding.file] then
        seen[finding.file] = true
        table.insert(outcome.files, finding.file)
      end
    end
  end
  local texts = {}
  add_excerpts(outcome, text_of or function(file)
    if not texts[file] then
      -- No link is followed out of where we are: what a stranger's branch shows must be its own.
      local real, here = fs.realpath(file), fs.realpath(".")
      texts[file] = real and real:sub(1, #here + 1) == here .. "/" and fs.read(real) or ""
    end
    return texts[file]
  end)
  add_fingerprints(outcome.findings)
  outcome.errors = findings_of.count(outcome).errors
  return outcome
end

return M
