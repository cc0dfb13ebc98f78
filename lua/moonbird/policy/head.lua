--- The head of a migration as rules speak of it: the line where it says a key, so that a finding about it names the
--- line, and how the file says one.
local header = require "moonbird.migration.header"
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

--- A text that names keys of the head, in the syntax of the file it is about: what rules write `key: value` (or
--- `-- key: value`) is `-- key: value` in SQL and `key = "value"` in Lua.
---@param text string
---@param kind "sql"|"lua"
---@return string
function M.in_syntax(text, kind)
  if kind == "lua" then
    text = text:gsub("behind `%-%- migrate:%l+ transaction:false`", "in a migration with `transaction = false`")
  end
  return (text:gsub("`%-?%-? ?([%l_]+): ([^`]*)`", function(key, value)
    if not header.keys[key] then
      return nil
    end
    return (kind == "lua" and "`%s = \"%s\"`" or "`-- %s: %s`"):format(key, value)
  end))
end

return M
