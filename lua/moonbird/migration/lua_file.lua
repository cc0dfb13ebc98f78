--- A .lua migration: a chunk that returns a table, loaded in the sandbox.
local fs = require "moonbird.core.fs"
local header = require "moonbird.migration.header"
local lua_source = require "moonbird.util.lua_source"
local sandbox = require "moonbird.core.sandbox"
local sql_check = require "moonbird.migration.sql_check"
local text_util = require "moonbird.util.text"

local M = {}

-- Loading a file makes a table. Many files of a stranger's branch are loaded one after the other, so none may
-- compute for a minute, as its functions may.
local LOADING = { instructions = 50000000, memory = 64 << 20, seconds = 10 }

--- Reads modules for `require`, but only files that really lie below the folder: a link could lead
--- anywhere.
local function module_reader(shown_folder, real_folder)
  return function(shown)
    local path = text_util.join_path(real_folder, shown:sub(#shown_folder + 2))
    local real, message = fs.realpath(path)
    local root = real and fs.realpath(real_folder)
    if not root then
      return nil, ("there is no file \"%s\""):format(shown), message
    end
    if real:sub(1, #root + 1) ~= root .. "/" then
      return nil, ("\"%s\" is a link that leads out of the migrations folder"):format(shown)
    end
    return fs.read(real)
  end
end

local function folder_of(path)
  return path:match("^(.*)/[^/]*$") or "."
end

--- One SQL string of the table as a STEP.
local function string_step(entry, key, text, transaction, report)
  local line, column = lua_source.string_position(entry.text, { key }, text)
  local step = { kind = "sql", text = text, origin_line = line, origin_column = column, blocks = {} }
  local block = { first = 1, last = #text, line = 1, transaction = transaction }
  local source = {
    file = entry.file, text = text, origin_line = line,
    report = function(problem)
      if problem.line == line and problem.column then
        problem.column = problem.column + column - 1
      end
      report(problem)
    end,
  }
  local zero = text:find("\0", 1, true)
  if zero then
    report { line = line, message = ("\"%s\" contains a zero byte, which no SQL text can hold"):format(key) }
    return nil
  end
  sql_check.block(source, block)
  step.blocks[1] = block
  return step
end

local function make_step(entry, fields, key, report)
  local value = fields[key]
  if type(value) == "function" then
    return { kind = "function", fn = value, line = debug.getinfo(value, "S").linedefined }
  elseif value then
    return string_step(entry, key, value, fields.transaction, report)
  end
end

---@class moonbird.migration.load_options
---@field extra? table<string, any> what the engine hands to the script besides the language
---@field print? function
---@field limits? { instructions?: integer, memory?: integer } of loading the file

--- Runs the file's chunk in a sandbox of its own.
---@return any value what it returned, without metatables
---@return table? problem
local function run(entry, options)
  local limits = options.limits or {}
  local extra = { extra = options.extra, print = options.print }
  local environment = { extra = options.extra, print = options.print }
  if entry.path then
    local shown = folder_of(entry.file)
    environment.require = sandbox.requirer(module_reader(shown, folder_of(entry.path)), shown, extra)
  end
  local chunk, err = sandbox.load(entry.text, entry.file, sandbox.environment(environment))
  if not chunk then
    return nil, { file = err.file, line = err.line, message = err.message, hint = err.hint }
  end
  local ok, value = sandbox.compute {
    fn = chunk, name = entry.file, instructions = limits.instructions or LOADING.instructions,
    memory = limits.memory or LOADING.memory, seconds = LOADING.seconds,
  }
  if not ok then
    -- after a tail call (`return require "x"`) no line of the script is left on the stack, and the place
    -- is one in the engine, which tells the author nothing
    local own = value.file and not value.file:find("^moonbird/") and not value.file:find("^%(load")
    return nil, {
      file = own and value.file or entry.file, line = own and value.line or nil,
      column = own and value.column or nil, message = value.message, hint = value.hint,
    }
  end
  if type(value) ~= "table" then
    return nil, {
      message = ("the file must return a table, not %s"):format(value == nil and "nothing" or "a " .. type(value)),
      hint = "it ends with `return { description = ..., up = ..., down = ... }`",
    }
  end
  local plain, reason = sandbox.plain(value, "the table it returns")
  if reason then
    return nil, { message = reason }
  end
  return plain
end

--- Reads a .lua migration: runs its chunk (not its up and down).
---@param entry table from the registry: file, path, text, ...
---@param options? moonbird.migration.load_options
---@return table? fields of the migration: header, up, down; nil with problems
---@return table[] problems { file, line, column, message, hint }
function M.read(entry, options)
  local problems = {}
  local function report(problem)
    problem.file = problem.file or entry.file
    problems[#problems + 1] = problem
  end
  local value, problem = run(entry, options or {})
  if not value then
    report(problem)
    return nil, problems
  end
  local fields = header.read(value, function(key, message, hint)
    report {
      line = lua_source.key_line(entry.text, { key or "return" }) or 1, message = message, hint = hint,
    }
  end)
  if not fields then
    return nil, problems
  end
  fields.up, fields.down = make_step(entry, fields, "up", report), make_step(entry, fields, "down", report)
  if fields.backfill and value.up == nil then
    fields.up = { kind = "sql", text = "", blocks = {} } -- the rows are all there is to do
  end
  fields.down_transaction = fields.down and fields.transaction
  if #problems > 0 then
    return nil, problems
  end
  return fields, problems
end

return M
