--- The .env file, read as dbmate reads it (godotenv 1.5.1), quirks included, so that a project can use
-- both tools with one file:
--
--   export NAME=value      NAME: value      # a comment
--   NAME=text # comment    a comment needs white space before it; the last such "#" counts
--   NAME='raw $text'       single quotes: as it is
--   NAME="a\nb $OTHER"     double quotes: \n, \r, any other \x is x; may span lines
--   $NAME and ${NAME}      capital letters, digits, "_"; only what earlier lines of the file set, else "";
--                          "\$" is a dollar sign. Also in text without quotes.
--
-- A UTF-8 byte order mark is accepted (dbmate refuses it).
local error_of = require "moonbird.core.error"
local fs = require "moonbird.core.fs"
local sys = require "moonbird.core.sys"
local text_util = require "moonbird.util.text"

local M = {}

--- Replaces $NAME, ${NAME} as godotenv's expression `(\\)?(\$)(\()?\{?([A-Z0-9_]+)?\}?` does.
local function expand(value, vars)
  local out, at = {}, 1
  while true do
    local dollar = value:find("$", at, true)
    if not dollar then
      out[#out + 1] = value:sub(at)
      return table.concat(out)
    end
    local escaped = dollar > at and value:sub(dollar - 1, dollar - 1) == "\\"
    out[#out + 1] = value:sub(at, escaped and dollar - 2 or dollar - 1)
    local name, after = value:match("^%(?{?([A-Z0-9_]*)}?()", dollar + 1)
    local whole = value:sub(dollar, after - 1)
    if escaped or name == "" then
      out[#out + 1] = whole
    else
      out[#out + 1] = vars[name] or ""
    end
    at = after
  end
end

--- Double quotes: \n and \r become line ends, a backslash before anything but "$" goes away.
local function unescape(value)
  value = value:gsub("\\([^\n])", function(char)
    return (char == "n" and "\n") or (char == "r" and "\r") or nil
  end)
  return (value:gsub("\\([^$])", "%1"))
end

--- The value that starts at `at` (white space is skipped already) -> value, offset behind it.
local function read_value(text, at, vars)
  local quote = text:match("^[\"']", at)
  if not quote then
    local line, after = text:match("^([^\r\n]*)()", at)
    local kept = line:match("^(.*[ \t\v\f])#") -- greedy: the last one
    return expand(text_util.trim(kept or line), vars), after
  end
  local from = at + 1
  while true do
    local stop = text:find(quote, from, true)
    if not stop then
      return nil, "a quoted value has no closing quote"
    end
    if text:sub(stop - 1, stop - 1) ~= "\\" then
      -- all quotes at both ends go, as godotenv trims them
      local value = text:sub(at, stop - 1):gsub(quote .. "+$", ""):gsub("^" .. quote .. "+", "")
      return quote == '"' and expand(unescape(value), vars) or value, stop + 1
    end
    from = stop + 1
  end
end

--- The name that starts at `at` -> name, offset of its value.
local function read_name(text, at)
  local after_export = text:match("^export[ \t\v\f\r]+()", at)
  at = after_export or at
  local name, after = text:match("^([%w_. \t\v\f\r]*)[=:]()", at)
  if name then
    return text_util.trim(name), text:match("^[ \t\v\f\r]*()", after)
  end
  local odd_at, odd = text:match("()([^%w_. \t\v\f\r])", at)
  if not odd then
    return "", #text + 1 -- a bare word at the end of the file: godotenv ignores it
  end
  local shown = odd == "\n" and "the line ends before \"=\"" or ("unexpected \"%s\" in a name"):format(odd)
  return nil, shown, odd_at
end

--- Reads the text of a .env file.
---@param text string
---@return table<string, string>? vars
---@return string? message
---@return integer? line
function M.parse(text)
  text = text:gsub("^\239\187\191", "")
  local whole = text:gsub("\r\n", "\n")
  local vars, at = {}, 1
  while true do
    at = whole:match("^%s*()", at)
    if at > #whole then
      return vars
    end
    if whole:sub(at, at) == "#" then
      at = whole:find("\n", at, true) or #whole + 1
    else
      local name, value_at, odd = read_name(whole, at)
      if not name then
        return nil, value_at, text_util.line_at(whole, odd)
      end
      local value, after = read_value(whole, value_at, vars)
      if not value then
        return nil, after, text_util.line_at(whole, value_at)
      end
      if name ~= "" then
        vars[name] = value
      end
      at = after
    end
  end
end

---@class moonbird.env
---@field file? string the .env file, when there was one
---@field vars table<string, string> what it sets
local Env = {}
Env.__index = Env

--- A variable of the real environment, else of the .env file.
---@param name string
---@return string? value
---@return string? source "environment" or the file's name
function Env:get(name)
  local value = sys.getenv(name)
  if value then
    return value, "environment"
  end
  value = self.vars[name]
  if value then
    return value, self.file
  end
end

--- Hands PG* variables of the file to libpq, which only reads the process's environment. Everything
--- else of the file stays in this table: child processes do not inherit it.
function Env:apply_libpq()
  for name, value in pairs(self.vars) do
    if name:match("^PG") and not sys.getenv(name) then
      sys.setenv(name, value)
    end
  end
end

--- Opens an environment: the real one, completed by a file that may be missing.
---@param path? string
---@param shown? string the file's name in messages (default the path)
---@return moonbird.env?
---@return moonbird.error? err code "config"
function M.open(path, shown)
  local env = setmetatable({ vars = {} }, Env)
  if not path then
    return env
  end
  shown = shown or path
  local text, message, name = fs.read(path)
  if not text then
    if name == "ENOENT" or name == "ENOTDIR" then
      return env
    end
    return nil, error_of.new("config", message, { file = shown })
  end
  local vars, wrong, line = M.parse(text)
  if not vars then
    return nil, error_of.new("config", wrong, {
      file = shown, line = line, hint = "lines look like NAME=value",
    })
  end
  env.vars, env.file = vars, shown
  return env
end

return M
