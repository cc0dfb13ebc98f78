--- The sandbox of migrations and policies: the environment they see, and runs with limits.
--
-- Scripts are untrusted, and so is what they hand back: a table may carry metamethods that would run
-- without any limit in the engine. Look at results with `plain`; `run` cleans errors itself.
local native = require "moonbird.native.sandbox"
local errors = require "moonbird.core.error"
local task = require "moonbird.core.task"

local M = {}

--- Limits of one call. This many instructions take about a minute in a tight loop.
M.INSTRUCTIONS = 20000000000
M.MEMORY = 256 << 20
--- CPU time of one stretch without a wait. Lua code is ended by an error then; for a C function that does
--- not come back (a pathological pattern), which no hook can reach, the process is ended.
M.SECONDS = 60

--- What an engine call yields to the scheduler.
M.sentinel = native.sentinel

-- Names as Lua shortens them in messages -> whole names.
local known_files = {}

-- Messages of Lua show at most this much of a chunk name (LUA_IDSIZE - 1).
local SHORT = 59

local function refuse(message, hint)
  error(errors.new("sandbox", message, { hint = hint }), 0)
end

-- Read-only tables --------------------------------------------------------------------------------

--- A read-only view of a table; reading goes through, also with pairs. Tables inside are not covered.
---@param backing table
---@param what string named in the error, like 'library table "string"'
---@param missing? table<string, string> reasons why a field that one would expect is not there
---@return table
function M.readonly(backing, what, missing)
  local fields = setmetatable({}, {
    __index = function(_, key)
      local value = backing[key]
      if value == nil and missing and missing[key] then
        refuse(missing[key])
      end
      return value
    end,
  })
  for key, value in pairs(backing) do
    fields[key] = value
  end
  return setmetatable({}, {
    __index = fields,
    __newindex = function()
      refuse(what .. " is read-only")
    end,
    __pairs = function(view)
      return function(_, key)
        return next(backing, key)
      end, view, nil
    end,
    __len = function()
      return #backing
    end,
    __metatable = false,
  })
end

-- The environment ---------------------------------------------------------------------------------

local LIBRARIES = {
  string = {
    from = string,
    names = "byte char find format gmatch gsub len lower match pack packsize rep reverse sub unpack upper",
    missing = { dump = '"string.dump" is not available: bytecode is never loaded' },
  },
  table = { from = table, names = "concat insert move pack remove sort unpack" },
  math = {
    from = math,
    names = "abs acos asin atan ceil cos deg exp floor fmod huge log max maxinteger min mininteger modf pi "
      .. "rad sin sqrt tan tointeger type ult",
    missing = {
      random = '"math.random" is not available: a migration must do the same each time; use random() in SQL',
      randomseed = '"math.randomseed" is not available: a migration must do the same each time',
    },
  },
  utf8 = { from = utf8, names = "char charpattern codepoint codes len offset" },
  coroutine = { from = native.coroutine, names = "close create isyieldable resume running status wrap yield" },
}

local FORBIDDEN = {
  os = "it must do the same on every machine; take the time from the database (select now()), settings from "
    .. "the target's variables",
  io = "it can't reach files; keep the data in the migration or stream it with db:copy_in",
  debug = "it could reach the engine's own state",
  package = 'use "require" for modules below the migrations folder',
  require = "no module folder belongs to this script",
  dofile = 'use "require" for modules below the migrations folder',
  loadfile = 'use "require" for modules below the migrations folder',
  loadstring = 'use "load"',
  print = 'use the log of the db API',
  warn = "use the log of the db API",
  setfenv = "Lua 5.4 has _ENV instead",
  getfenv = "Lua 5.4 has _ENV instead",
  unpack = 'use "table.unpack"',
}

local function unknown_global(_, name)
  local reason = FORBIDDEN[name]
  if reason then
    refuse(('"%s" is not available in a migration: %s'):format(name, reason))
  end
  if type(name) == "string" then
    refuse(('there is no global variable "%s"'):format(name), "a typing error, or a missing \"local\"?")
  end
  refuse(("there is no global variable with a %s for a name"):format(type(name)))
end

local function count_only(option)
  if option ~= "count" then
    refuse('collectgarbage can only "count" here')
  end
  return collectgarbage("count")
end

local function build_base()
  local base = setmetatable({
    assert = assert,
    collectgarbage = count_only,
    error = error,
    getmetatable = native.getmetatable,
    ipairs = ipairs,
    next = next,
    pairs = pairs,
    pcall = native.pcall,
    rawequal = rawequal,
    rawget = rawget,
    rawlen = rawlen,
    rawset = native.rawset,
    select = select,
    setmetatable = native.setmetatable,
    tonumber = tonumber,
    tostring = tostring,
    type = type,
    xpcall = native.xpcall,
    _VERSION = _VERSION,
  }, { __index = unknown_global })
  native.coroutine.status = coroutine.status
  for name, library in pairs(LIBRARIES) do
    local fields = {}
    for field in library.names:gmatch("%S+") do
      fields[field] = assert(library.from[field], field)
    end
    base[name] = M.readonly(fields, ('library table "%s"'):format(name), library.missing)
  end
  return base
end

local base_environment

-- The chunk name of text: "=" marks a script's code (bindings/sandbox.c tells it so from the engine's).
local function chunk_name(name)
  known_files[name:sub(1, SHORT)] = name
  return "=" .. name
end

local function loader(env)
  return function(text, name, mode, chunk_env)
    if type(text) ~= "string" then
      refuse("load takes text, not a " .. type(text))
    end
    if text:byte(1) == 27 or mode == "b" then
      return nil, "bytecode is never loaded"
    end
    if chunk_env ~= nil and type(chunk_env) ~= "table" then
      refuse("the environment for load must be a table, not a " .. type(chunk_env))
    end
    local shown = type(name) == "string" and (" " .. name:match("^[=@]?([^\r\n]*)"):sub(1, 40)) or ""
    return load(text, "=(load" .. shown .. ")", "t", chunk_env or env)
  end
end

--- Builds the global environment of one file: the allow-list, and what the engine hands over. New
--- globals stay in this environment.
---@param options { require?: function, print?: function, extra?: table<string, any> }
---@return table
function M.environment(options)
  base_environment = base_environment or build_base()
  local env = {}
  for name, value in pairs(options.extra or {}) do
    env[name] = value
  end
  env._G = env
  env.load = loader(env)
  env.print = options.print
  env.require = options.require
  return setmetatable(env, { __index = base_environment, __metatable = false })
end

-- Loading -----------------------------------------------------------------------------------------

--- Compiles the text of a file. A byte order mark and a first line that starts with "#" are skipped; line
--- numbers stay right.
---@param text string
---@param name string the file as people know it; errors name it
---@param env table from `environment`
---@return function? chunk run it with `run`
---@return moonbird.error? err code "migration_file"
function M.load(text, name, env)
  if text:sub(1, 3) == "\xEF\xBB\xBF" then
    text = text:sub(4)
  end
  if text:byte(1) == 27 then
    return nil, errors.new("migration_file", "the file is Lua bytecode; only source text is accepted", {
      file = name,
      line = 1,
    })
  end
  if text:byte(1) == 35 then
    text = text:gsub("^[^\r\n]*", "", 1)
  end
  local chunk, message = load(text, chunk_name(name), "t", env)
  if chunk then
    return chunk
  end
  local prefix = name:sub(1, SHORT) .. ":"
  local line
  if message:sub(1, #prefix) == prefix then
    line, message = message:match("^(%d+): (.*)$", #prefix + 1)
  end
  return nil, errors.new("migration_file", message, { file = name, line = math.tointeger(tonumber(line)) })
end

local function module_path(folder, name)
  if type(name) ~= "string" then
    refuse("require takes a name, not a " .. type(name))
  end
  if name:find("[^%w_.-]") or name == "" then
    refuse(('"%s" is no module name: letters, digits, "_", "-" and "." only'):format(name))
  end
  if name:find("..", 1, true) or name:find("^%.") or name:find("%.$") then
    refuse(('"%s" is no module name: a part of it is empty'):format(name))
  end
  return folder .. "/" .. name:gsub("%.", "/") .. ".lua"
end

--- Makes a `require` for the modules below one folder: "a.b" is a/b.lua there. Each module is loaded once
--- and has an environment of its own. It runs inside the limits of the script that requires it.
---@param read fun(path: string): string?, any returns the text, or nil and a reason. It must not follow
---  links out of the folder
---@param folder string
---@param env_options? table as for `environment`, without `require`
---@return fun(name: string): any
function M.requirer(read, folder, env_options)
  local loaded, loading = {}, {}
  local require_from

  local function load_module(name)
    local path = module_path(folder, name)
    local text, reason = read(path)
    if not text then
      local detail = type(reason) == "table" and reason.message or reason
      refuse(('module "%s" can\'t be read: %s'):format(name, tostring(detail or path)))
    end
    local options = { require = require_from(name) }
    for k, v in pairs(env_options or {}) do
      options[k] = options[k] or v
    end
    local chunk, err = M.load(text, path, M.environment(options))
    if not chunk then
      error(err, 0)
    end
    local value = chunk(name, path)
    return value == nil or value
  end

  -- A module whose load was ended by a limit, or goes on in another task, is no cycle.
  local function refuse_cycle(name, by)
    local entry = loading[name]
    if not entry or (entry.co ~= coroutine.running() and coroutine.status(entry.co) ~= "normal") then
      return
    end
    local chain = { name }
    while by and by ~= name do
      table.insert(chain, 1, by)
      by = loading[by] and loading[by].by
    end
    refuse(("modules require each other: %s -> %s"):format(name, table.concat(chain, " -> ")))
  end

  function require_from(by)
    return function(name)
      if type(name) == "string" and loaded[name] ~= nil then
        return loaded[name]
      end
      module_path(folder, name)
      refuse_cycle(name, by)
      loading[name] = { co = coroutine.running(), by = by }
      -- The sandbox's own pcall: a script that is being ended still ends.
      local ok, value = native.pcall(load_module, name)
      loading[name] = nil
      if not ok then
        error(value, 0)
      end
      loaded[name] = value
      return value
    end
  end

  return require_from(nil)
end

-- Runs --------------------------------------------------------------------------------------------

local function grouped(n)
  return (("%d"):format(n):reverse():gsub("(%d%d%d)", "%1,"):reverse():gsub("^,", ""))
end

local PLAIN = { string = true, number = true, boolean = true }

-- Scripts can write into an error that they caught: keep what the engine can look at without running code
-- of theirs.
local function clean(err, depth)
  for key, value in next, err do
    local kind = type(value)
    local keep = PLAIN[kind]
    if kind == "table" and depth < 4 then
      local foreign = getmetatable(value) ~= nil and not errors.is(value)
      keep = not foreign and clean(value, depth + 1)
    end
    if not keep or type(key) ~= "string" and type(key) ~= "number" then
      err[key] = nil
    end
  end
  return true
end

local TYPES = { file = "string", line = "integer", column = "integer", hint = "string", detail = "string",
  sqlstate = "string", excerpt = "string" }

local function clean_error(err)
  clean(err, 0)
  if not errors.codes()[err.code] then
    err.code = "script"
  end
  if type(err.message) ~= "string" then
    err.message = "an error without a message"
  end
  -- What only the engine fills in, and takes at its word.
  err.problems, err.blockers, err.holder, err.cause = nil, nil, nil, nil
  for key, wanted in pairs(TYPES) do
    local value = rawget(err, key)
    if (wanted == "integer" and math.type(value) or type(value)) ~= wanted then
      err[key] = nil
    end
  end
  return err
end

-- Splits "file:line: text" when the file is one that we know.
local function split_position(message, file, short)
  local name, line, text = message:match("^(.-):(%d+): (.*)$")
  if not name then
    return message
  end
  local whole = known_files[name] or (name == short and file) or (name:find("^%(load") and name)
  if not whole then
    return message
  end
  return text, whole, math.tointeger(tonumber(line))
end

local function describe(value, file, short)
  local kind = type(value)
  if kind == "string" then
    return split_position(value, file, short)
  end
  if kind == "table" then
    local message = rawget(value, "message")
    if type(message) == "string" then
      return message
    end
  end
  if value == nil then
    return "an error without a value (nil) was raised"
  end
  if kind == "number" or kind == "boolean" then
    return tostring(value)
  end
  return ("an error was raised with a %s instead of a message"):format(kind)
end

local function failure(options, limits, kind, value, file, line, traceback, short)
  file = file or options.name
  local fields = { file = file, line = line, traceback = traceback ~= "" and traceback or nil }
  if kind == "instructions" then
    fields.hint = "a loop without an end? else raise the limit in moonbird.lua"
    local message = "the script ran more than %s instructions"
    return errors.new("limit", message:format(grouped(limits.instructions)), fields)
  elseif kind == "time" then
    fields.hint = "a loop without an end? else raise the limit in moonbird.lua"
    local message = "the script computed for %d s without waiting for the database"
    return errors.new("limit", message:format(limits.seconds), fields)
  elseif kind == "interrupted" then
    return errors.new("interrupted", "interrupted while the script computed", fields)
  elseif kind == "memory" then
    fields.hint = "stream large data (db:rows, db:copy_in) instead of collecting it, or raise the limit in "
      .. "moonbird.lua"
    local size = limits.memory and ("%.4g MiB"):format(limits.memory / (1 << 20)) or "there is"
    return errors.new("limit", ("the script needs more memory than %s"):format(size), fields)
  elseif errors.is(value) then
    clean_error(value)
    if value.file then
      fields.line = nil -- of another file
    end
    return errors.with(value, fields)
  end
  local message, in_file, at = describe(value, file, short)
  if in_file then
    fields.file, fields.line = in_file, at
  end
  if message:find("stack overflow", 1, true) then
    message = "stack overflow"
    fields.hint = "a recursion without an end?"
  end
  return errors.new("script", message, fields)
end

-- Milliseconds in which the loop, once it turns, has told the tasks of a signal.
local TOLD_MS = 1000

local function finish(options, limits, ok, ...)
  if ok then
    return true, ...
  end
  local err = failure(options, limits, ...)
  if (...) == "interrupted" and options.waits ~= false then
    -- Takes the request to stop that the signal is about to become: the next wait may be the ROLLBACK.
    task.sleep(TOLD_MS)
  end
  return false, err
end

-- nil: the default; 0: none.
local function limit(value, default)
  if value == nil then
    return default
  end
  return value ~= 0 and value or nil
end

---@class moonbird.sandbox.run
---@field fn function the script's function
---@field args? table its arguments (`n` counts when some are nil)
---@field name string the file, for errors that have no position
---@field instructions? integer for the whole call; default INSTRUCTIONS, 0 = no limit
---@field memory? integer bytes above what is used now; default MEMORY, 0 = no limit
---@field seconds? integer of CPU time between two waits; default SECONDS, 0 = no limit
---@field waits? boolean false: the script only computes, and may run outside any task (M.compute)

--- Runs a script's function within limits. Its waits for the engine pass through to the running task.
---@param options moonbird.sandbox.run
---@return boolean ok
---@return any ... the function's results, or one moonbird.error: code "limit", "sandbox", "script", or
---  whatever the engine raised in the script; with file, line and traceback
function M.run(options)
  local args = options.args or {}
  local limits = {
    instructions = limit(options.instructions, M.INSTRUCTIONS),
    memory = limit(options.memory, M.MEMORY),
    seconds = limit(options.seconds, M.SECONDS),
  }
  local run <close> = native.new(options.fn, options.name, limits.instructions, limits.memory, limits.seconds)
  return finish(options, limits, native.call(run, table.unpack(args, 1, args.n or #args)))
end

--- Runs a script's function that only computes: loads a file, asks a rule. As run(), but a signal raises, so that it
--- is not told as a defect of that script.
---@param options moonbird.sandbox.run
---@return boolean ok
---@return any ...
function M.compute(options)
  options.waits = false
  local results = table.pack(M.run(options))
  if not results[1] and results[2].code == "interrupted" then
    error(results[2], 0)
  end
  return table.unpack(results, 1, results.n)
end

local function copy(value, path, seen)
  local kind = type(value)
  if value == nil or PLAIN[kind] or kind == "function" then
    return value
  end
  if kind ~= "table" then
    return nil, ("%s is a %s"):format(path, kind)
  end
  if getmetatable(value) ~= nil then
    return nil, ("%s has a metatable"):format(path)
  end
  if seen[value] then
    return nil, ("%s contains itself"):format(path)
  end
  seen[value] = true
  local result = {}
  for key, item in next, value do
    if type(key) == "table" or type(key) == "function" then
      return nil, ("%s has a %s for a key"):format(path, type(key))
    end
    local item_path = path .. (type(key) == "string" and "." .. key or "[" .. tostring(key) .. "]")
    local copied, reason = copy(item, item_path, seen)
    if reason then
      return nil, reason
    end
    result[key] = copied
  end
  seen[value] = nil
  return result
end

--- A copy of a script's result that is safe to look at: strings, numbers, booleans, functions, and tables
--- of them without metatables.
---@param value any
---@param what string names the value in the reason
---@return any copy nil also when the value is nil: look at the reason
---@return string? reason why it is refused
function M.plain(value, what)
  return copy(value, what, {})
end

--- Bytes that Lua holds now.
---@return integer
function M.memory()
  return native.memory()
end

--- Limits the memory of the whole state, beside the limits of runs.
---@param bytes? integer nil: no limit
function M.set_memory_limit(bytes)
  native.set_memory_limit(bytes)
end

return M
