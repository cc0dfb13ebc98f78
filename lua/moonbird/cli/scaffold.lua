--- `moonbird init` and `moonbird new`: writes files, never over existing ones, and tells what it did.
-- Printing is the caller's.
local error_of = require "moonbird.core.error"
local fs = require "moonbird.core.fs"
local ledger = require "moonbird.policy.ledger"
local name_of = require "moonbird.migration.name"
local sys = require "moonbird.core.sys"
local templates = require "moonbird.cli.templates"
local text_util = require "moonbird.util.text"
local version_of = require "moonbird.migration.version"

local M = {}

---@class moonbird.scaffold.result
---@field created string[] paths as shown
---@field kept string[] what was there already
---@field version? string of `new`
---@field name? string of `new`, as used
---@field ledger? string of `new`: the checksums.json that knows the file now
---@field notes string[] what the user should be told

local function io_error(message)
  return error_of.new("io", message)
end

--- Writes one file unless it is there.
local function place(result, dir, relative, text)
  local shown = text_util.join_path(dir, relative)
  local parent = shown:match("^(.*)/[^/]*$")
  if parent and parent ~= "" then
    local ok, message = fs.mkdir(parent)
    if not ok then
      return nil, io_error(message)
    end
  end
  local ok, message, code = fs.write(shown, text, { exclusive = true })
  if ok then
    result.created[#result.created + 1] = shown
  elseif code == "EEXIST" then
    result.kept[#result.kept + 1] = shown
  else
    return nil, io_error(message)
  end
  return true
end

--- Sets up a project: moonbird.lua, migrations/, .env.example, a CI workflow, and .moonbird/ kept out of
--- the repository.
---@param dir? string made when missing (default ".")
---@return moonbird.scaffold.result?
---@return moonbird.error? err code "io"
function M.init(dir)
  dir = dir or "."
  local result = { created = {}, kept = {}, notes = {} }
  local ok, message = fs.mkdir(dir)
  if not ok then
    return nil, io_error(message)
  end
  local migrations = text_util.join_path(dir, "migrations")
  local found = fs.stat(migrations)
  if found and found.type == "dir" then
    result.kept[#result.kept + 1] = migrations .. "/"
  else
    ok, message = fs.mkdir(migrations)
    if not ok then
      return nil, io_error(message)
    end
    result.created[#result.created + 1] = migrations .. "/"
  end
  for _, file in ipairs({
    { "moonbird.lua", templates.config },
    { ".env.example", templates.env_example },
    { ".github/workflows/migrations.yml", templates.workflow },
    { ".gitignore", templates.gitignore },
  }) do
    local err
    ok, err = place(result, dir, file[1], file[2])
    if not ok then
      return nil, err
    end
  end
  for _, kept in ipairs(result.kept) do
    if kept:match("%.gitignore$") then
      local text = fs.read(kept) or ""
      if not text:find("%.moonbird") or not text:find("%.env") then
        result.notes[#result.notes + 1] = ("see that %s has .moonbird/ and .env"):format(kept)
      end
    end
  end
  return result
end

--- Adds the versions in a folder to a list.
local function collect_versions(dir, texts)
  local listing, message, code = fs.list(dir)
  if not listing then
    if code == "ENOENT" then
      return true
    end
    return nil, io_error(message)
  end
  for _, listed in ipairs(listing) do
    -- loosely: also a file whose name is not quite right has taken its version
    local digits, extension = listed.name:lower():match("^(%d+).*%.(%a+)$")
    if digits and listed.type ~= "dir" and #digits <= name_of.MAX_DIGITS
      and (extension == "sql" or extension == "lua") then
      texts[#texts + 1] = digits
    end
  end
  return true
end

--- A version higher than all in the folders -> version and a note, or nil and an error.
local function next_version(taken, sequential, now)
  local style = sequential and "sequential" or version_of.style(taken)
  local version, said = version_of.next { taken = taken, now = now,
    style = not sequential and style == "sequential" and "datetime" or style }
  if not version then
    return nil, error_of.new("migration_file",
      ("no version can follow \"%s\": at most %d digits are possible"):format(said, name_of.MAX_DIGITS))
  end
  return version, said
end

--- Enters the new file in its folder's ledger. A folder that has migrations and no ledger does without.
local function enter_in_ledger(result, folder, file, text, first)
  local path, err = ledger.add(folder, file, sys.sha256(text), first)
  if path then
    result.ledger = path
  elseif err then
    result.notes[#result.notes + 1] = ("the file is not in %s yet: %s%s"):format(ledger.path(folder), err.message,
      err.hint and "; " .. err.hint or "")
  end
end

---@class moonbird.scaffold.new_options
---@field name string as typed
---@field dir? string project folder (default ".")
---@field dirs? string[] migration folders, relative to `dir`; the file goes to the first (default {"migrations"})
---@field sql? boolean write a .sql file instead of a .lua one
---@field sequential? boolean the next number of the folder instead of the UTC time
---@field now? number wall clock (default now)

--- Writes a new migration from a template.
---@param options moonbird.scaffold.new_options
---@return moonbird.scaffold.result?
---@return moonbird.error? err code "usage", "migration_file" or "io"
function M.new(options)
  local result = { created = {}, kept = {}, notes = {} }
  local base = options.name:gsub("%.sql$", ""):gsub("%.lua$", "")
  local name = text_util.snake_case(base)
  if name == "" then
    return nil, error_of.new("usage", ("no file name can be made of \"%s\""):format(options.name), {
      hint = "use ASCII letters and digits: moonbird new add_users",
    })
  end
  if #name > 200 then
    return nil, error_of.new("usage", "the name is too long; at most 200 letters are possible")
  end
  if name ~= options.name then
    result.notes[#result.notes + 1] = ("the name is written \"%s\""):format(name)
  end
  local dirs, taken, in_first = {}, {}, 0
  for i, dir in ipairs(options.dirs or { "migrations" }) do
    dirs[i] = text_util.join_path(options.dir or ".", dir)
    local read, unread = collect_versions(dirs[i], taken)
    if not read then
      return nil, unread
    end
    in_first = i == 1 and #taken or in_first
  end
  local version, note = next_version(taken, options.sequential, options.now)
  if not version then
    return nil, note
  end
  result.notes[#result.notes + 1] = note
  local file = ("%s_%s.%s"):format(version, name, options.sql and "sql" or "lua")
  local title = name:gsub("_", " "):gsub("^%l", string.upper)
  local template = options.sql and templates.sql_migration or templates.lua_migration
  local text = template:gsub("@TITLE@", title)
  local ok, err = place(result, dirs[1], file, text)
  if not ok then
    return nil, err
  end
  if #result.created == 0 then
    return nil, error_of.new("io", ("\"%s\" exists already"):format(result.kept[1]))
  end
  enter_in_ledger(result, dirs[1], file, text, in_first == 0)
  result.version, result.name = version, name
  return result
end

return M
