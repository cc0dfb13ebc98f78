--- File names of migrations: <digits>_<snake_case>.lua or .sql.
local text_util = require "moonbird.util.text"

local M = {}

M.MAX_DIGITS = 18 -- what fits a 64-bit integer with any digits

-- What stands beside migrations and is none, whatever its name starts with.
local other_kinds = {
  md = true, txt = true, rst = true, json = true, yml = true, yaml = true, toml = true, csv = true,
  png = true, svg = true, html = true, bak = true, orig = true, rej = true, swp = true, tmp = true,
}

--- Takes a file name apart. Called for every file of every run: returns values, not a table.
---@param file string without folder
---@return string? digits nil when it is no migration's name (see `problem`)
---@return string? name
---@return string? kind "lua" or "sql"
function M.split(file)
  local digits, name, kind = file:match("^(%d+)_([a-z0-9][a-z0-9_]*)%.(%l%l%l)$")
  if digits and (kind == "sql" or kind == "lua") and #digits <= M.MAX_DIGITS then
    return digits, name, kind
  end
end

---@class moonbird.migration.name
---@field version integer
---@field version_text string the digits as written
---@field name string
---@field id string version and name: "001_create_users"
---@field kind "lua"|"sql"

--- Reads a file name.
---@param file string without folder
---@return moonbird.migration.name? parsed nil when it is no migration
---@return { message: string, hint?: string }? problem nil when the file is to be ignored
function M.parse(file)
  local digits, name, kind = M.split(file)
  if not digits then
    return nil, M.problem(file)
  end
  return {
    version = math.tointeger(tonumber(digits)), version_text = digits, name = name,
    id = digits .. "_" .. name, kind = kind,
  }
end

--- A name that would do, as near as possible to a given one; nil when it has no digits or no use.
local function suggest(file)
  local digits, rest, extension = file:match("^(%d+)(.-)%.([^.]*)$")
  if not digits then
    return nil
  end
  digits = #digits > M.MAX_DIGITS and digits:sub(1, M.MAX_DIGITS) or digits
  local name = text_util.snake_case(rest)
  return ("%s_%s.%s"):format(digits, name == "" and "migration" or name, extension:lower())
end

--- What is wrong with a file name that M.parse did not take.
---@param file string
---@return { message: string, hint?: string }? nil: the file is clearly no migration
function M.problem(file)
  local extension = file:match("^.+%.([^.]*)$")
  extension = extension and extension:lower() or ""
  if file:match("^%.") or file:match("~$") or other_kinds[extension] then
    return nil
  end
  local looks_like = extension == "sql" or extension == "lua"
  if not looks_like and not file:match("^%d+[_-]") then
    return nil
  end
  local message = ("the file name does not look like <digits>_<snake_case>.%s"):format(
    looks_like and extension or "lua or .sql")
  if not looks_like then
    return { message = message, hint = "rename it, or move it out of the migrations folder" }
  end
  local digits = file:match("^%d+")
  if not digits then
    local hint = ("start it with a version (`moonbird new` makes one), or move it to a sub-folder%s"):format(
      extension == "lua" and ", from where migrations can require it" or "")
    return { message = "the file name does not start with a version: digits and \"_\"", hint = hint }
  end
  if #digits > M.MAX_DIGITS then
    return {
      message = ("the version has %d digits; at most %d are possible"):format(#digits, M.MAX_DIGITS),
    }
  end
  local pair = file:match("^(.*)%.up%.sql$") or file:match("^(.*)%.down%.sql$")
  if pair then
    return {
      message = message,
      hint = ("put both directions into one file \"%s\", below `-- migrate:up` and `-- migrate:down`"):format(
        suggest(pair .. ".sql")),
    }
  end
  local better = suggest(file)
  return { message = message, hint = better and ("rename it to \"%s\""):format(better) or nil }
end

return M
