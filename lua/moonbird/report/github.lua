--- A policy outcome for GitHub Actions: annotations (workflow commands on stdout), and a summary of the step in
--- Markdown. What an outcome is: report/findings.lua.
local clean = require "moonbird.report.clean"
local findings_of = require "moonbird.report.findings"

local M = {}

local COMMANDS = { error = "error", warning = "warning", info = "notice" }
local SHOWN = 200 -- rows of the summary; GitHub takes no more than 1 MiB

local DATA = { ["%"] = "%25", ["\r"] = "%0D", ["\n"] = "%0A" }
local PROPERTY = { ["%"] = "%25", ["\r"] = "%0D", ["\n"] = "%0A", [":"] = "%3A", [","] = "%2C" }

local function data(text)
  return clean.visible((clean.utf8(text):gsub("[%%\r\n]", DATA)))
end

local function property(text)
  return clean.visible((clean.utf8(text):gsub("[%%\r\n:,]", PROPERTY)))
end

--- Text that the runner does not take for the older form of a command, which may stand anywhere in a line.
---@param text string
---@return string
function M.shield(text)
  return (text:gsub("##%[", "# #["))
end

local function shown_file(file, prefix)
  return file:sub(1, 1) == "/" and file or prefix .. file
end

--- One annotation for each unwaived finding.
---@param outcome moonbird.policy.outcome
---@param options? { prefix?: string } prefix: from the repository's root to the folder that files are shown from
---@return string lines
function M.annotations(outcome, options)
  local prefix = options and options.prefix or ""
  local lines = {}
  for _, finding in ipairs(outcome.findings) do
    if not finding.waived then
      local properties = {}
      local function add(name, value)
        if value then
          properties[#properties + 1] = ("%s=%s"):format(name, property(tostring(value)))
        end
      end
      add("file", finding.file and shown_file(finding.file, prefix))
      if finding.file then
        add("line", finding.line)
        add("col", finding.column)
        add("endLine", finding.line and finding.last_line)
      end
      add("title", "moonbird: " .. finding.rule)
      lines[#lines + 1] = M.shield(("::%s %s::%s\n"):format(COMMANDS[finding.severity], table.concat(properties, ","),
        data(finding.message .. (finding.fix and "\nfix: " .. finding.fix or ""))))
    end
  end
  if outcome.failure then
    lines[#lines + 1] = M.shield(("::error title=moonbird::%s\n"):format(data(outcome.failure.message)))
  end
  return table.concat(lines)
end

-- Markdown and HTML signs as entities, so that a message is shown as it is and never becomes a link or an image.
local function markdown(text)
  return (clean.line(text):gsub("[&<>|`*_%[%]\\#!~@:]", function(char)
    return ("&#%d;"):format(char:byte())
  end))
end

--- The summary of the step.
---@param outcome moonbird.policy.outcome
---@param options? { prefix?: string, title?: string }
---@return string Markdown
function M.summary(outcome, options)
  local prefix = options and options.prefix or ""
  local out = { ("### %s\n\n"):format(options and options.title or "moonbird check") }
  if outcome.failure then
    out[#out + 1] = markdown(outcome.failure.message) .. "\n\n"
  end
  out[#out + 1] = markdown(findings_of.summary(outcome)) .. "\n"
  local rows = {}
  for _, finding in ipairs(outcome.findings) do
    if not finding.waived then
      local where = finding.file and markdown(shown_file(finding.file, prefix)) or ""
      rows[#rows + 1] = ("| %s | %s | %s | %s |\n"):format(finding.severity, markdown(finding.rule),
        where .. (finding.file and finding.line and ":" .. finding.line or ""),
        markdown(finding.message) .. (finding.fix and "<br>fix: " .. markdown(finding.fix) or ""))
    end
  end
  if #rows > 0 then
    out[#out + 1] = "\n| severity | rule | place | finding |\n|---|---|---|---|\n"
    out[#out + 1] = table.concat(rows, "", 1, math.min(#rows, SHOWN))
    if #rows > SHOWN then
      out[#out + 1] = ("\n%d more are in the log.\n"):format(#rows - SHOWN)
    end
  end
  if #outcome.unchecked > 0 or #outcome.opaque > 0 then
    local seen, names = {}, {}
    for _, entry in ipairs(outcome.unchecked) do
      if not seen[entry.rule] then
        seen[entry.rule] = true
        names[#names + 1] = markdown(entry.rule)
      end
    end
    out[#out + 1] = "\n"
    if #names > 0 then
      out[#out + 1] = "Not checked, for lack of facts: " .. table.concat(names, ", ") .. "\n"
    end
    if #outcome.opaque > 0 then
      out[#out + 1] = ("Places that could not be looked into: %d\n"):format(#outcome.opaque)
    end
  end
  return table.concat(out) .. "\n"
end

return M
