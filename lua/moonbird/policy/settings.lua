--- The sections `policy` and `protected` of moonbird.lua, read and checked.
local error_ = require "moonbird.core.error"
local fs = require "moonbird.core.fs"
local lua_source = require "moonbird.util.lua_source"
local nearest = require "moonbird.util.nearest"
local text_util = require "moonbird.util.text"
local waiver = require "moonbird.policy.waiver"

local M = {}

M.SEVERITIES = { error = 3, warning = 2, info = 1 }

---@class moonbird.policy.settings
---@field dir string folder of the project's own rules, relative to moonbird.lua
---@field rules table<string, { off?: boolean, severity?: string, options: table }> by rule id
---@field enforce_after integer migrations up to this version are looked at for immutability only
---@field waivers moonbird.policy.waiver[]
---@field allow_contract boolean
---@field allow_breaking boolean
---@field up "gates"|"all" which rules' errors stop `up` and `down`

local KEYS = { dir = true, rules = true, enforce_after = true, waivers = true, allow_contract = true,
  allow_breaking = true, up = true }

-- Problems are collected, each with its place in moonbird.lua.
local function collector(conf)
  local problems, source = {}, nil
  return problems, function(path, message, hint)
    if conf.file and not source then
      source = fs.read(text_util.join_path(conf.dir, conf.file)) or ""
    end
    problems[#problems + 1] = { file = conf.file, message = message, hint = hint,
      line = source and lua_source.key_line(source, path) }
  end
end

local function sorted_keys(value)
  local keys = {}
  for key in pairs(value) do
    keys[#keys + 1] = tostring(key)
  end
  table.sort(keys)
  return keys
end

local function read_version(value)
  if math.type(value) == "integer" and value >= 0 then
    return value
  elseif type(value) == "string" and value:match("^%d+$") and #value <= 18 then
    return math.tointeger(tonumber(value))
  end
end

local function read_option(option, value)
  local wanted = option.type or type(option.default)
  if wanted == "integer" then
    return math.type(value) == "integer"
  elseif wanted == "list" then
    if type(value) ~= "table" then
      return false
    end
    for _, item in ipairs(value) do
      if type(item) ~= "string" then
        return false
      end
    end
    return true
  end
  return type(value) == wanted
end

local function read_rule(id, value, rule, complain)
  local path = { "policy", "rules", id }
  if value == "off" or value == false then
    return { off = true, options = {} }
  elseif M.SEVERITIES[value] then
    return { severity = value, options = {} }
  elseif type(value) ~= "table" then
    complain(path, ("\"policy.rules.%s\" must be \"off\", \"error\", \"warning\", \"info\" or a table of options")
      :format(id))
    return nil
  end
  local setting = { options = {} }
  for _, key in ipairs(sorted_keys(value)) do
    local item, option = value[key], rule.options and rule.options[key]
    if key == "severity" then
      if item == "off" then
        setting.off = true
      elseif M.SEVERITIES[item] then
        setting.severity = item
      else
        complain(path, ("\"policy.rules.%s.severity\" must be \"off\", \"error\", \"warning\" or \"info\""):format(id))
      end
    elseif not option then
      complain(path, ("the rule \"%s\" has no option \"%s\""):format(id, key),
        nearest.hint(key, rule.options or {}) or ("see `moonbird policy explain %s`"):format(id))
    elseif not read_option(option, item) then
      complain(path, ("\"policy.rules.%s.%s\" must be %s"):format(id, key, option.type == "list"
        and "a list of strings" or "a " .. (option.type or type(option.default))))
    else
      setting.options[key] = item
    end
  end
  return setting
end

local function read_rules(value, known, complain)
  local result = {}
  if value == nil then
    return result
  elseif type(value) ~= "table" then
    complain({ "policy", "rules" }, "\"policy.rules\" must be a table, rule id to severity or options")
    return result
  end
  for _, id in ipairs(sorted_keys(value)) do
    if not known[id] then
      complain({ "policy", "rules", id }, ("there is no policy rule \"%s\""):format(id),
        nearest.hint(id, known, "`moonbird policy list` shows them"))
    else
      result[id] = read_rule(id, value[id], known[id], complain)
    end
  end
  return result
end

local function read_waivers(value, file, complain)
  if value == nil then
    return {}
  elseif type(value) ~= "table" then
    complain({ "policy", "waivers" }, "\"policy.waivers\" must be a list of tables")
    return {}
  end
  local list = {}
  for i, item in ipairs(value) do
    local version = type(item) == "table" and read_version(item.migration)
    if not version then
      complain({ "policy", "waivers" }, ("\"policy.waivers[%d]\" must be a table with the version it is for: "
        .. "{ migration = 20250101120000, rule = \"...\", reason = \"...\", expires = \"YYYY-MM-DD\" }"):format(i))
    else
      local read = waiver.of_table(item, { file = file, keys = { migration = true } })
      read.version = version
      list[#list + 1] = read
    end
  end
  return list
end

--- Reads the settings.
---@param conf moonbird.config
---@param rules moonbird.policy.rule[] all rules there are
---@return moonbird.policy.settings?
---@return moonbird.error? err code "config", with every problem
function M.read(conf, rules)
  local raw = conf.policy or {}
  local problems, complain = collector(conf)
  local known = {}
  for _, rule in ipairs(rules) do
    known[rule.id] = rule
  end
  for _, key in ipairs(sorted_keys(raw)) do
    if not KEYS[key] then
      complain({ "policy", key }, ("unknown key \"policy.%s\""):format(key), nearest.hint(key, KEYS))
    end
  end
  local settings = {
    dir = raw.dir or "policies",
    rules = read_rules(raw.rules, known, complain),
    enforce_after = -1,
    waivers = read_waivers(raw.waivers, conf.file, complain),
    allow_contract = raw.allow_contract or false,
    allow_breaking = raw.allow_breaking or false,
    up = raw.up or "gates",
    journal_schema = conf.journal and conf.journal.schema or "moonbird",
  }
  if type(settings.dir) ~= "string" then
    complain({ "policy", "dir" }, "\"policy.dir\" must be the name of a folder")
  end
  for _, key in ipairs { "allow_contract", "allow_breaking" } do
    if type(settings[key]) ~= "boolean" then
      complain({ "policy", key }, ("\"policy.%s\" must be true or false"):format(key))
    end
  end
  if settings.up ~= "gates" and settings.up ~= "all" then
    complain({ "policy", "up" }, "\"policy.up\" must be \"gates\" or \"all\"")
  end
  if raw.enforce_after ~= nil then
    settings.enforce_after = read_version(raw.enforce_after)
    if not settings.enforce_after then
      complain({ "policy", "enforce_after" }, "\"policy.enforce_after\" must be a version")
    end
  end
  if #problems > 0 then
    local only = problems[1]
    return nil, error_.new("config", #problems == 1 and only.message
      or text_util.count(#problems, "problem") .. " in the policy settings",
      { file = only.file, line = only.line, hint = #problems == 1 and only.hint or nil, problems = problems })
  end
  return settings
end

--- The section `protected`: nil when the environment is not protected.
---@param conf moonbird.config
---@return { variable: string, commands: string[] }? protected
---@return moonbird.error? err code "config"
function M.protected(conf)
  local raw = conf.protected
  if not raw then
    return nil
  end
  raw = raw == true and {} or raw
  local variable, commands = raw.variable or "CI", raw.commands or { "deploy" }
  local good = type(variable) == "string" and variable:match("^[%a_][%w_]*$") and type(commands) == "table"
    and #commands > 0
  for key in pairs(raw) do
    good = good and (key == "variable" or key == "commands")
  end
  for _, command in ipairs(good and commands or {}) do
    good = good and (command == "up" or command == "deploy")
  end
  if not good then
    return nil, error_.new("config", "\"protected\" must be true or a table like "
      .. "{ variable = \"CI\", commands = { \"deploy\" } }", { file = conf.file,
      hint = "variable: the environment variable that proves the pipeline; commands: \"deploy\", \"up\"" })
  end
  return { variable = variable, commands = commands }
end

return M
