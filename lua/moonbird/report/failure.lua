--- How an error is told: to people, and as data.
local json = require "moonbird.core.json"

local M = {}

-- What of an error is data for --json. Everything else stays inside.
local FIELDS = { "code", "message", "sqlstate", "severity", "detail", "hint", "context", "file", "line",
  "column", "migration", "target", "schema_name", "table_name", "column_name", "constraint_name", "excerpt" }

--- The error as a table for JSON.
---@param err moonbird.error
---@return table
function M.data(err)
  local data = {}
  for _, key in ipairs(FIELDS) do
    local value = err[key]
    if type(value) == "string" or type(value) == "number" then
      data[key] = value
    end
  end
  if err.problems then
    data.problems = json.array {}
    for i, problem in ipairs(err.problems) do
      data.problems[i] = { file = problem.file, line = problem.line, column = problem.column,
        message = problem.message, hint = problem.hint }
    end
  end
  if err.blockers then
    data.blockers = json.array(err.blockers)
  end
  return data
end

local function place(item)
  if not item.file then
    return ""
  end
  local text = item.file
  if item.line then
    text = text .. ":" .. item.line
    if item.column then
      text = text .. ":" .. item.column
    end
  end
  return text .. ": "
end

local function indent(text, by)
  return by .. text:gsub("\n", "\n" .. by)
end

--- One line about who blocks.
---@param blocker table of exec/monitor
---@return string
function M.blocker(blocker)
  return ("%s (pid %d, %s, %s%s)"):format(blocker.application ~= "" and blocker.application
    or blocker.backend_type or "a session", blocker.pid, blocker.user or "?", blocker.state or "?",
    blocker.xact_s and (", in a transaction for %.0fs"):format(blocker.xact_s) or "")
end

--- The error for people, several lines.
---@param err moonbird.error
---@param style table of report/style
---@return string ends in a newline
function M.text(err, style)
  local lines = {}
  local state = err.sqlstate and err.sqlstate ~= "" and (" (%s)"):format(err.sqlstate) or ""
  lines[1] = style.red("error: ") .. place(err) .. style.bold(err.message .. state)
  if err.excerpt then
    lines[#lines + 1] = indent(err.excerpt, "    ")
  end
  for _, problem in ipairs(err.problems or {}) do
    lines[#lines + 1] = "  " .. place(problem) .. problem.message
    if problem.hint then
      lines[#lines + 1] = "    " .. style.dim("fix: " .. problem.hint)
    end
  end
  if err.migration then
    lines[#lines + 1] = ("  migration: %s"):format(err.migration)
  end
  if err.target and err.target ~= "global" then
    lines[#lines + 1] = ("  target: %s"):format(err.target)
  end
  for _, blocker in ipairs(err.blockers or {}) do
    lines[#lines + 1] = "  blocked by: " .. M.blocker(blocker)
  end
  if err.detail then
    lines[#lines + 1] = indent("detail: " .. err.detail, "  ")
  end
  if err.context then
    lines[#lines + 1] = indent("context: " .. err.context, "  ")
  end
  if err.hint and not (err.problems and #err.problems == 1 and err.problems[1].hint == err.hint) then
    lines[#lines + 1] = indent("hint: " .. err.hint, "  ")
  end
  return table.concat(lines, "\n") .. "\n"
end

return M
