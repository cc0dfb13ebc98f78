--- Where a migration says a key of its head, so that a finding about it names the line.
local lua_source = require "moonbird.util.lua_source"

local M = {}

local function sql_line(text, key)
  local number = 0
  for line in (text .. "\n"):gmatch("([^\n]*)\n") do
    number = number + 1
    local directive = line:match("^%s*%-%-%s*migrate:(%a+)")
    local found = line:match("^%s*%-%-+%s*([%a_]+)%s*:")
    if directive == key then
      return number
    elseif directive and key ~= "down" then
      return nil
    elseif not directive and found and found:lower() == key then
      return number
    end
  end
end

--- The line of a key ("up" and "down": where they begin), or of the next one, or the first one of the file.
---@param migration table as a rule sees it
---@param ... string "phase", "scope", ...
---@return { line: integer } at for ctx:report
function M.at(migration, ...)
  for _, key in ipairs { ... } do
    local line
    if migration.kind == "sql" then
      line = sql_line(migration.text or "", key)
    else
      line = lua_source.key_line(migration.text or "", { key })
    end
    if line then
      return { line = line }
    end
  end
  return { line = 1 }
end

return M
