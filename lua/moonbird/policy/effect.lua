--- Whether a step does anything: a `down` that only selects takes nothing back.
local M = {}

-- Statements that leave the database as it was. Of a SELECT see below.
local IDLE = { show = true, set = true, reset = true, transaction = true, explain = true, notify = true }

-- Functions that a SELECT may call without doing anything. Any other may be somebody's own that does.
local PURE = {
  now = true, version = true, count = true, sum = true, min = true, max = true, avg = true, lower = true,
  upper = true, length = true, concat = true, format = true, pg_sleep = true, clock_timestamp = true,
  set_config = true, current_setting = true, to_regclass = true, random = true, abs = true,
}

--- Whether a statement calls a function that may do something.
local function calls(statement)
  for _, name in ipairs(statement.functions or {}) do
    if not PURE[name] then
      return true
    end
  end
  return false
end

--- A DO block that only raises: "this can't be taken back", said in PL/pgSQL.
local function only_raises(text)
  local body = text:lower():gsub("%-%-[^\n]*", ""):match("%$[%w_]*%$(.*)%$[%w_]*%$")
  return body ~= nil and body:match("^%s*begin%s+raise%s[^;]*;%s*end%s*;?%s*$") ~= nil
end

--- Whether a statement does something.
---@param statement table
---@return boolean
function M.of(statement)
  local verb = statement.verb
  if verb == "select" then
    return (statement.writes_data or statement.changes_schema or calls(statement)) and true or false
  elseif verb == "do" then
    return not only_raises(statement.text or "")
  end
  return not IDLE[verb]
end

--- What a step amounts to.
---@param step table|false|nil { kind, opaque, statements }
---@return "none"|"nothing"|"opaque"|"something"
function M.of_step(step)
  if not step or step.kind == "none" then
    return "none"
  elseif step.opaque then
    return "opaque"
  elseif #step.statements == 0 and step.kind == "sql" then
    return "none"
  end
  local reads = false
  for _, statement in ipairs(step.statements) do
    if M.of(statement) then
      return "something"
    end
    reads = reads or #(statement.relations or {}) > 0
  end
  -- A function that looks at a table first may have found it empty where it was recorded.
  return step.kind == "function" and reads and "opaque" or "nothing"
end

return M
