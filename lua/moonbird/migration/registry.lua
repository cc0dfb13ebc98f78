--- The folder of migrations: which there are (fast, every run), and what one says (when it is needed).
--
-- scan() hashes every file, because the checksum of an applied one is compared in each run; it keeps no text
-- and takes apart none. load() takes apart one, load_all() many, and finds every problem before giving up.
local error_of = require "moonbird.core.error"
local fs = require "moonbird.core.fs"
local lua_file = require "moonbird.migration.lua_file"
local name_of = require "moonbird.migration.name"
local sql_file = require "moonbird.migration.sql_file"
local sys = require "moonbird.core.sys"
local text_util = require "moonbird.util.text"

local M = {}

---@class moonbird.migration.entry
---@field version integer
---@field version_text string
---@field name string
---@field id string
---@field kind "lua"|"sql"
---@field file string as shown to people: "migrations/001_create_users.sql"
---@field path string as the process can open it
---@field checksum string SHA-256 of the file, hex
---@field text? string the file's text, read when it is first asked for (so pairs() need not show it)

-- Reads `text` on demand: of ten thousand files, a run looks into the few that are pending.
local entry_mt = {
  __index = function(entry, key)
    if key ~= "text" then
      return nil
    end
    local text = fs.read(entry.path)
    rawset(entry, "text", text)
    return text
  end,
}

--- Sorts problems by file and line.
---@param problems table[]
---@return table[] problems itself
function M.sort_problems(problems)
  table.sort(problems, function(a, b)
    if a.file ~= b.file then
      return (a.file or "") < (b.file or "")
    end
    if a.line ~= b.line then
      return (a.line or 0) < (b.line or 0)
    end
    if a.column ~= b.column then
      return (a.column or 0) < (b.column or 0)
    end
    return a.message < b.message
  end)
  return problems
end

--- Makes the one error of several problems.
---@param problems table[] not empty
---@return moonbird.error code "migration_file"
function M.error(problems)
  M.sort_problems(problems)
  if #problems == 1 then
    local only = problems[1]
    return error_of.new("migration_file", only.message, {
      file = only.file, line = only.line, column = only.column, hint = only.hint, problems = problems,
    })
  end
  return error_of.new("migration_file", ("%d problems in the migrations"):format(#problems),
    { problems = problems })
end

--- Whether a listed thing is a file, links followed.
local function is_file(dir_path, name, type_name)
  if type_name ~= "link" then
    return type_name == nil
  end
  local found = fs.stat(text_util.join_path(dir_path, name))
  return not found or found.type == "file" -- a dangling link is a file that can't be read
end

local function below(path, folder)
  local real = fs.realpath(folder)
  return real ~= nil and path:sub(1, #real + 1) == (real == "/" and "" or real) .. "/"
end

--- Whether a link leads to a file that is neither the project's nor in the folder: errors show lines of files, and
--- a link in somebody's branch could lead to any file of the machine that checks it.
local function leads_out(dir_path, name, root)
  local real = fs.realpath(text_util.join_path(dir_path, name))
  return real and not below(real, root) and not below(real, dir_path)
end

--- Lists one folder -> entries that lack the checksum, and the files' names (same order).
local function list_folder(dir, dir_path, root, problems)
  local listing, types, code = fs.names(dir_path)
  if not listing then
    if code == "ENOENT" then
      return nil, error_of.new("migration_file", ("the migrations folder \"%s\" does not exist"):format(dir), {
        hint = "run `moonbird init` to set up a project, or `moonbird new NAME` for a first migration",
      })
    end
    return nil, error_of.new("migration_file", types)
  end
  local file_prefix = text_util.join_path(dir, "x"):sub(1, -2)
  local path_prefix = text_util.join_path(dir_path, "x"):sub(1, -2)
  local same = file_prefix == path_prefix
  local entries, files, count = {}, {}, 0
  local split, integer = name_of.split, math.tointeger
  for i, name in ipairs(listing) do
    local digits, base, kind = split(name)
    local problem = not digits and name_of.problem(name)
    if digits and types[i] == "link" and leads_out(dir_path, name, root) then
      digits, problem = nil, { message = "it is a link that leads out of the project" }
    end
    if (digits or problem) and is_file(dir_path, name, types[i]) then
      local shown = file_prefix .. name
      if digits then
        count = count + 1
        files[count] = name
        entries[count] = setmetatable({
          version = integer(digits), version_text = digits, name = base, id = name:sub(1, -5), kind = kind,
          file = shown, path = same and shown or path_prefix .. name, checksum = false,
        }, entry_mt)
      else
        problem.file = shown
        problems[#problems + 1] = problem
      end
    end
  end
  return entries, files
end

local function scan_folder(dir, root, entries, problems)
  local dir_path = text_util.join_path(root, dir)
  local listed, files = list_folder(dir, dir_path, root, problems)
  if not listed then
    return nil, files
  end
  local hashes, failed = fs.hash_files(dir_path, files)
  if not hashes then
    return nil, error_of.new("migration_file", failed)
  end
  local count = #entries
  for i, entry in ipairs(listed) do
    if hashes[i] then
      count = count + 1
      entry.checksum = hashes[i]
      entries[count] = entry
    else
      problems[#problems + 1] = { file = entry.file, message = "the file can't be read: " .. failed[i].error }
    end
  end
  return true
end

local function in_order(a, b)
  if a.version ~= b.version then
    return a.version < b.version
  end
  return a.file < b.file
end

--- Sorts by version. Most folders are in order as listed, and looking is much cheaper than sorting.
local function sort_entries(entries)
  for i = 2, #entries do
    if in_order(entries[i], entries[i - 1]) then
      table.sort(entries, in_order)
      return
    end
  end
end

local function find_duplicates(entries, problems)
  for i = 2, #entries do
    local before, entry = entries[i - 1], entries[i]
    if before.version == entry.version then
      problems[#problems + 1] = {
        file = entry.file,
        message = ("version %s is taken by \"%s\""):format(entry.version_text, before.file),
        hint = "give one of them a new version (`moonbird new` makes one)",
        duplicate = true,
      }
    end
  end
end

--- Lists the folders: every migration with its checksum, in the order of versions.
---@param dirs string[] folders, relative to `root` or absolute
---@param options? { root?: string }
---@return moonbird.migration.entry[]? entries nil when a folder can't be read
---@return table[]|moonbird.error problems of names, versions and unreadable files (may be empty); or the error
function M.scan(dirs, options)
  local entries, problems = {}, {}
  -- All that is made here lives on: the collector would only walk over it again and again.
  local collecting = collectgarbage("isrunning")
  collectgarbage("stop")
  local failed
  for _, dir in ipairs(dirs) do
    local ok, err = scan_folder(dir, options and options.root or ".", entries, problems)
    if not ok then
      failed = err
      break
    end
  end
  if collecting then
    collectgarbage("restart")
  end
  if failed then
    return nil, failed
  end
  sort_entries(entries)
  find_duplicates(entries, problems)
  return entries, M.sort_problems(problems)
end

--- Takes one migration apart.
---@param entry moonbird.migration.entry `path` may be nil (no `require` then)
---@param options? moonbird.migration.load_options
---@return table? migration the entry's fields and the file's; nil with problems
---@return table[] problems { file, line, column, message, hint }
function M.load(entry, options)
  if not entry.text then
    return nil, { { file = entry.file, message = "the file can't be read any more" } }
  end
  if entry.checksum and sys.sha256(entry.text) ~= entry.checksum then
    return nil, { {
      file = entry.file, message = "the file was changed while moonbird was reading the folder", hint = "run again",
    } }
  end
  local reader = entry.kind == "sql" and sql_file or lua_file
  local fields, problems = reader.read(entry, options)
  if not fields then
    return nil, M.sort_problems(problems)
  end
  local migration = {}
  for key, value in pairs(entry) do
    migration[key] = value
  end
  for key, value in pairs(fields) do
    if key == "id" then
      migration.stable_id = value -- `id` stays version and name, as the file says
    else
      migration[key] = value
    end
  end
  return migration, problems
end

--- Takes many apart; all problems of all files are collected.
---@param entries moonbird.migration.entry[]
---@param options? moonbird.migration.load_options
---@param earlier? table[] problems that scan() found
---@return table[]? migrations in the same order
---@return moonbird.error? err code "migration_file", with `problems`
function M.load_all(entries, options, earlier)
  local migrations, problems = {}, table.move(earlier or {}, 1, #(earlier or {}), 1, {})
  for i, entry in ipairs(entries) do
    local migration, own = M.load(entry, options)
    migrations[i] = migration
    table.move(own, 1, #own, #problems + 1, problems)
  end
  if #problems > 0 then
    return nil, M.error(problems)
  end
  return migrations
end

return M
