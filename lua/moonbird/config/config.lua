--- The configuration of a run: moonbird.lua, .env, the environment and the command line's flags made
-- into one table, each setting from the first of
--   flag · (a migration's own) · the environment in moonbird.lua · moonbird.lua · variable · default.
--
-- moonbird.lua returns a table and runs in the sandbox, with `env("NAME" [, default])` for reading
-- variables (of the real environment, else of .env). Everything works without the file.
local dotenv = require "moonbird.config.dotenv"
local error_of = require "moonbird.core.error"
local fs = require "moonbird.core.fs"
local lua_source = require "moonbird.util.lua_source"
local nearest = require "moonbird.util.nearest"
local sandbox = require "moonbird.core.sandbox"
local schema = require "moonbird.config.schema"
local tenant_sources = require "moonbird.config.tenant_sources"
local text_util = require "moonbird.util.text"
local url_of = require "moonbird.config.url"

local M = {}

M.FILE = "moonbird.lua"

local LIMITS = { instructions = 50000000, memory = 64 << 20 }

--- Each setting: the variables that may say it, how they are read, the default.
local settings = {
  { path = { "migrations" }, variables = { "MOONBIRD_MIGRATIONS", "DBMATE_MIGRATIONS_DIR" }, read = "folders" },
  { path = { "journal", "schema" }, variables = { "MOONBIRD_JOURNAL_SCHEMA" }, read = "identifier",
    default = "moonbird" },
  { path = { "timeouts", "lock" }, variables = { "MOONBIRD_LOCK_TIMEOUT" }, read = "duration", default = 5000 },
  { path = { "timeouts", "statement" }, variables = { "MOONBIRD_STATEMENT_TIMEOUT" }, read = "duration" },
  { path = { "timeouts", "lock_total" }, variables = { "MOONBIRD_LOCK_TOTAL" }, read = "duration", default = 60000 },
  { path = { "timeouts", "lock_wait" }, variables = { "MOONBIRD_LOCK_WAIT" }, read = "duration",
    default = 60000 },
  { path = { "timeouts", "run" }, variables = { "MOONBIRD_TIMEOUT" }, read = "duration",
    seconds = "MIGRATION_TIMEOUT_SECONDS" },
  { path = { "limits", "instructions" }, variables = { "MOONBIRD_MAX_INSTRUCTIONS" }, read = "count" },
  { path = { "limits", "memory" }, variables = { "MOONBIRD_MAX_MEMORY" }, read = "bytes" },
  { path = { "search_path" }, variables = { "MOONBIRD_SEARCH_PATH" }, read = "names" },
  { path = { "policy" }, merge = true },
  { path = { "tenants" } },
  { path = { "backfill" } },
  { path = { "protected" } },
}

---@class moonbird.config
---@field dir string the project's folder, as given
---@field file? string moonbird.lua as shown, nil without one
---@field environment? string name of the environment in use
---@field environments string[] names of those that moonbird.lua has
---@field url moonbird.url where to connect; `origin` says who said it
---@field migrations string[] folders, relative to `dir` or absolute
---@field journal { schema: string }
---@field timeouts { lock: integer, statement?: integer, lock_total: integer, lock_wait: integer, run?: integer } ms
---@field limits { instructions?: integer, memory?: integer } nil: the sandbox's own
---@field search_path? string[]
---@field git? boolean|table
---@field policy? table
---@field tenants? table|function
---@field backfill? table
---@field protected? boolean|table
---@field origins table<string, string> "timeouts.lock" -> who said it ("--lock-timeout", "default", ...)
---@field env moonbird.env

local function get(from, path)
  for _, key in ipairs(path) do
    if type(from) ~= "table" then
      return nil
    end
    from = from[key]
  end
  return from
end

local function set(into, path, value)
  for i = 1, #path - 1 do
    into[path[i]] = into[path[i]] or {}
    into = into[path[i]]
  end
  into[path[#path]] = value
end

local function one_or_many(problems, what)
  if #problems == 1 then
    local only = problems[1]
    return error_of.new("config", only.message, {
      file = only.file, line = only.line, hint = only.hint, problems = problems,
    })
  end
  return error_of.new("config", ("%s in %s"):format(text_util.count(#problems, "problem"), what),
    { problems = problems })
end

-- moonbird.lua ------------------------------------------------------------------------------------

--- The function `env` of moonbird.lua; remembers which variables were asked for and not there.
local function env_function(env, unset)
  return function(name, default)
    if type(name) ~= "string" or name == "" then
      error(error_of.new("config", "env() takes the name of a variable"), 0)
    end
    local value = env:get(name)
    if value == nil then
      value = default
    end
    if value == nil then
      local caller = debug.getinfo(2, "l")
      unset[#unset + 1] = { name = name, line = caller and caller.currentline or 0 }
    end
    return value
  end
end

--- Runs moonbird.lua -> what it said (validated), the variables it missed; nil, err.
local function run_file(text, shown, env, sections)
  local unset = {}
  local function fail(err)
    if err.code ~= "config" and err.code ~= "limit" and err.code ~= "sandbox" then
      err.code = "config"
    end
    return nil, error_of.with(err, { file = shown })
  end
  local environment = sandbox.environment { extra = {
    env = env_function(env, unset), tenants = tenant_sources.constructors(),
  } }
  local chunk, err = sandbox.load(text, shown, environment)
  if not chunk then
    return fail(err)
  end
  local ok, value = sandbox.compute {
    fn = chunk, name = shown, instructions = LIMITS.instructions, memory = LIMITS.memory,
  }
  if not ok then
    return fail(value)
  end
  if type(value) ~= "table" then
    return fail(error_of.new("config", ("%s must return a table, not %s"):format(shown,
      value == nil and "nothing" or "a " .. type(value)), { hint = "it starts with \"return {\"" }))
  end
  local plain, reason = sandbox.plain(value, "the table that " .. shown .. " returns")
  if reason then
    return fail(error_of.new("config", reason))
  end
  local reading = { text = text, name = shown, problems = {} }
  local file = schema.read_file(reading, plain, sections)
  if #reading.problems > 0 then
    return nil, one_or_many(reading.problems, shown)
  end
  return file, unset
end

--- An environment that was to take its url from a variable must not fall back to another database
--- because the variable is missing: finds `url = env("X")` of this environment that gave nil.
local function missing_url(text, name, unset, environments)
  local own = lua_source.key_line(text, { "environments", name })
  if not own then
    return nil
  end
  local lines = text_util.split(text, "\n")
  for _, miss in ipairs(unset) do
    local nearest_name, nearest_line = nil, 0
    for other in pairs(environments) do
      local line = lua_source.key_line(text, { "environments", other }) or 0
      if line <= miss.line and line > nearest_line then
        nearest_name, nearest_line = other, line
      end
    end
    local source = lines[miss.line] or ""
    if nearest_name == name and source:find("%f[%w_]url%f[^%w_]%s*=") then
      return miss
    end
  end
end

-- Settings ----------------------------------------------------------------------------------------

local function from_variables(env, setting)
  local candidates = {}
  for _, name in ipairs(setting.variables or {}) do
    candidates[#candidates + 1] = { name, schema.readers[setting.read] }
  end
  if setting.seconds then
    candidates[#candidates + 1] = { setting.seconds, schema.readers.seconds }
  end
  for _, candidate in ipairs(candidates) do
    local name, read = candidate[1], candidate[2]
    local raw, source = env:get(name)
    if raw and raw ~= "" then
      local value, wrong = read(raw)
      if value == nil then
        return nil, nil, error_of.new("config", ("%s: %s"):format(name, wrong), {
          file = source ~= "environment" and source or nil,
        })
      end
      return value, source == "environment" and name or name .. " in " .. source
    end
  end
end

local function default_folders(dir)
  for _, name in ipairs({ "migrations", "db/migrations" }) do
    local found = fs.stat(text_util.join_path(dir, name))
    if found and found.type == "dir" then
      return { name }
    end
  end
  return { "migrations" }
end

--- An environment's table over the file's, key by key; a list replaces the other.
local function merged(below, above)
  if type(below) ~= "table" or type(above) ~= "table" or #below > 0 or #above > 0 then
    return above
  end
  local result = {}
  for key, value in pairs(below) do
    result[key] = value
  end
  for key, value in pairs(above) do
    result[key] = merged(result[key], value)
  end
  return result
end

local function resolve(config, file, chosen, flags)
  for _, setting in ipairs(settings) do
    local shown = table.concat(setting.path, ".")
    local value, origin = get(flags, setting.path), "the command line"
    if value == nil and chosen then
      value, origin = get(chosen, setting.path), ("environment \"%s\" in %s"):format(config.environment, config.file)
    end
    if value == nil then
      value, origin = get(file, setting.path), config.file
    end
    if setting.merge and chosen and get(chosen, setting.path) ~= nil and get(file, setting.path) ~= nil then
      value = merged(get(file, setting.path), value)
    end
    if value == nil then
      local err
      value, origin, err = from_variables(config.env, setting)
      if err then
        return nil, err
      end
    end
    if value == nil then
      value, origin = setting.default, "default"
      if shown == "migrations" then
        value = default_folders(config.dir)
      end
    end
    set(config, setting.path, value)
    config.origins[shown] = value ~= nil and origin or nil
  end
  config.git = file.git
  return true
end

--- Which URL, and who said it.
local function choose_url(config, file, chosen, flag)
  if flag then
    return flag, "--url"
  end
  if chosen and chosen.url then
    return chosen.url, ("environment \"%s\" in %s"):format(config.environment, config.file)
  end
  if file.url then
    return file.url, config.file
  end
  local value, source = config.env:get("DATABASE_URL")
  if value and value ~= "" then
    return value, source == "environment" and "DATABASE_URL" or "DATABASE_URL in " .. source
  end
  return "embedded:", "default"
end

--- The environment's name: the flag's, MOONBIRD_ENV's, or the default one of moonbird.lua.
local function choose_environment(config, file, wanted)
  local origin = "--env"
  if not wanted then
    local value = config.env:get("MOONBIRD_ENV")
    wanted, origin = value ~= "" and value or nil, "MOONBIRD_ENV"
  end
  wanted = wanted or file.default_environment
  if not wanted then
    return nil
  end
  local chosen = file.environments[wanted]
  if not chosen then
    local hint = nearest.hint(wanted, file.environments)
    if not config.file then
      hint = "there is no moonbird.lua here; `moonbird init` writes one"
    end
    return nil, error_of.new("config", ("there is no environment \"%s\" (%s)"):format(wanted, origin),
      { hint = hint, file = config.file })
  end
  config.environment = wanted
  return chosen
end

---@class moonbird.config.options
---@field dir? string the project's folder (default ".")
---@field environment? string from -e
---@field url? string from -u
---@field flags? table settings from flags in the shape of the result: { timeouts = { lock = <ms> }, ... }
---@field env_file? string|false default DIR/.env
---@field sections? table<string, fun(): table> gives the readers of a section by key, where a layer above knows them;
---       asked when moonbird.lua has the section, which is then kept as they read it

--- Loads the configuration. Variables of .env whose names start with PG are put into the process's
--- environment for libpq (the real environment wins); nothing else is changed.
---@param options? moonbird.config.options
---@return moonbird.config?
---@return moonbird.error? err code "config", with every problem of moonbird.lua in `problems`
function M.load(options)
  options = options or {}
  local dir = options.dir or "."
  local found = fs.stat(dir)
  if not found or found.type ~= "dir" then
    return nil, error_of.new("config", ("there is no folder \"%s\""):format(dir))
  end
  local env, err
  if options.env_file == false then
    env, err = dotenv.open()
  else
    local shown = options.env_file or ".env"
    env, err = dotenv.open(text_util.join_path(dir, shown), shown)
  end
  if not env then
    return nil, err
  end

  local config = { dir = dir, origins = {}, env = env, environments = {} }
  local file, unset = { environments = {} }, {}
  local text, message, name = fs.read(text_util.join_path(dir, M.FILE))
  if text then
    config.file = M.FILE
    file, unset = run_file(text, M.FILE, env, options.sections or {})
    if not file then
      return nil, unset
    end
  elseif name ~= "ENOENT" then
    return nil, error_of.new("config", message)
  end
  for environment in pairs(file.environments) do
    config.environments[#config.environments + 1] = environment
  end
  table.sort(config.environments)

  local chosen
  chosen, err = choose_environment(config, file, options.environment)
  if err then
    return nil, err
  end
  local ok
  ok, err = resolve(config, file, chosen, options.flags or {})
  if not ok then
    return nil, err
  end

  if chosen and not chosen.url and not options.url then
    local miss = missing_url(text, config.environment, unset, file.environments)
    if miss then
      return nil, error_of.new("config",
        ("environment \"%s\" takes its url from %s, which is not set"):format(config.environment, miss.name),
        { file = config.file, line = miss.line, hint = ("set %s, or pass --url"):format(miss.name) })
    end
  end
  local url, origin = choose_url(config, file, chosen, options.url)
  config.url, err = url_of.parse(url)
  if not config.url then
    return nil, error_of.with(err, { detail = "it comes from " .. origin })
  end
  config.url.origin = origin
  config.origins.url = origin
  config.flags = options.flags or {}
  env:apply_libpq()
  return config
end

--- The timeouts for one migration: flag, the migration's own, then the configuration's.
---@param config moonbird.config
---@param migration? table with `timeouts`
---@return { lock?: integer, statement?: integer } milliseconds; 0 = no limit
function M.timeouts(config, migration)
  local result = {}
  for _, key in ipairs({ "lock", "statement" }) do
    local flag = get(config.flags, { "timeouts", key })
    local own = get(migration, { "timeouts", key })
    if flag ~= nil then
      result[key] = flag
    elseif own ~= nil then
      result[key] = own
    else
      result[key] = config.timeouts[key]
    end
  end
  return result
end

return M
