--- The project's own rules: policies/*.lua beside moonbird.lua, each returning a rule or a list of rules.
local error_ = require "moonbird.core.error"
local fs = require "moonbird.core.fs"
local sandbox = require "moonbird.core.sandbox"
local settings_of = require "moonbird.policy.settings"
local text_util = require "moonbird.util.text"

local M = {}

M.DIR = "policies"

local LIMITS = { instructions = 50000000, memory = 64 << 20, seconds = 10 }

local NEEDS = { history = true, git = true, live = true, step = true, recording = true }
local MOMENTS = { check = true, before = true, after = true }
local KEYS = { id = "string", group = "string", severity = "string", title = "string", explain = "string",
  fix = "string", per = "string", hard = "boolean", gate = "boolean", applies = "function", check = "function",
  needs = "table", uses = "table", moments = "table", options = "table", seeds = "table", examples = "table" }

local function listed(value, allowed)
  for key, item in pairs(value) do
    if math.type(key) ~= "integer" or type(item) ~= "string" or (allowed and not allowed[item]) then
      return false
    end
  end
  return true
end

--- What is wrong with a rule's table; nil when it can be used.
local function problem_of(rule)
  if type(rule) ~= "table" then
    return "a rule must be a table"
  end
  for key, value in pairs(rule) do
    if not KEYS[key] then
      return ("a rule has no key \"%s\""):format(tostring(key))
    elseif type(value) ~= KEYS[key] then
      return ("\"%s\" must be a %s"):format(key, KEYS[key])
    end
  end
  if not rule.id or not rule.id:match("^[a-z0-9][a-z0-9-]*$") then
    return "a rule needs an id of small letters, digits and \"-\""
  elseif not rule.check then
    return ("the rule \"%s\" has no check(ctx)"):format(rule.id)
  elseif rule.severity and not settings_of.SEVERITIES[rule.severity] then
    return ("the rule \"%s\": severity must be \"error\", \"warning\" or \"info\""):format(rule.id)
  elseif rule.needs and not listed(rule.needs, NEEDS) then
    return ("the rule \"%s\": needs is a list of \"history\", \"git\", \"live\", \"step\", \"recording\"")
      :format(rule.id)
  elseif rule.uses and not (listed(rule.uses, { live = true }) and #rule.uses == 1) then
    return ("the rule \"%s\": uses can be { \"live\" }"):format(rule.id)
  elseif rule.moments and not listed(rule.moments, MOMENTS) then
    return ("the rule \"%s\": moments is a list of \"check\", \"before\", \"after\""):format(rule.id)
  elseif rule.per and rule.per ~= "migration" and rule.per ~= "registry" then
    return ("the rule \"%s\": per is \"migration\" or \"registry\""):format(rule.id)
  end
  for name, option in pairs(rule.options or {}) do
    if type(name) ~= "string" or type(option) ~= "table" then
      return ("the rule \"%s\": options is a table of name to { default = ..., type = ..., help = ... }")
        :format(rule.id)
    end
  end
end

local function complete(rule, file)
  rule.file = file
  rule.group = rule.group or "project"
  rule.severity = rule.severity or "error"
  rule.title = rule.title or rule.id
  rule.explain = rule.explain or rule.title
  return rule
end

--- Runs a file of the folder in the sandbox.
---@param dir string the folder, as the process can open it
---@param shown string the folder as people know it
---@param name string file in it
---@return any value without metatables
---@return moonbird.error? err
function M.load(dir, shown, name)
  local file = text_util.join_path(shown, name)
  local function read(module)
    local real, why = fs.realpath(text_util.join_path(dir, module:sub(#shown + 2)))
    local root = real and fs.realpath(dir)
    if not root then
      return nil, why
    elseif real:sub(1, #root + 1) ~= root .. "/" then
      return nil, "it is a link that leads out of the folder"
    end
    return fs.read(real)
  end
  local text, message = read(file)
  if not text then
    return nil, error_.new("config", message or "the file can't be read", { file = file })
  end
  local environment = sandbox.environment { require = sandbox.requirer(read, shown) }
  local chunk, err = sandbox.load(text, file, environment)
  if not chunk then
    err.code = "config"
    return nil, err
  end
  local ok, value = sandbox.compute { fn = chunk, name = file, instructions = LIMITS.instructions,
    memory = LIMITS.memory, seconds = LIMITS.seconds }
  if not ok then
    value.code = "config"
    return nil, error_.with(value, { file = file })
  end
  local plain, reason = sandbox.plain(value, "what it returns")
  if reason then
    return nil, error_.new("config", reason, { file = file })
  end
  return plain
end

--- The Lua files of the folder: rules, and the tests of rules (`*_test.lua`).
---@param dir string
---@return string[] rules names, sorted
---@return string[] tests
function M.files(dir)
  local names, tests = {}, {}
  for _, name in ipairs(fs.names(dir) or {}) do
    if name:match("_test%.lua$") then
      tests[#tests + 1] = name
    elseif name:match("%.lua$") then
      names[#names + 1] = name
    end
  end
  table.sort(names)
  table.sort(tests)
  return names, tests
end

--- Loads the project's rules.
---@param root string folder of moonbird.lua
---@param shown string name of the folder of rules below it
---@param taken? table<string, true> ids that are in use (default none)
---@return moonbird.policy.rule[]?
---@return moonbird.error? err code "config"
function M.rules(root, shown, taken)
  local dir = text_util.join_path(root, shown)
  local rules, seen = {}, {}
  for id in pairs(taken or {}) do
    seen[id] = "moonbird itself"
  end
  for _, name in ipairs((M.files(dir))) do
    local value, err = M.load(dir, shown, name)
    if err then
      return nil, err
    end
    local file = text_util.join_path(shown, name)
    local list = type(value) == "table" and (value.id and { value } or value) or {}
    for key in pairs(list) do
      if math.type(key) ~= "integer" then
        list = {}
        break
      end
    end
    if #list == 0 and not (type(value) == "table" and next(value) == nil) then
      return nil, error_.new("config", "the file must return a rule or a list of rules", { file = file,
        hint = "a file that others require may return an empty list and keep its functions in a folder below" })
    end
    for _, rule in ipairs(list) do
      local problem = problem_of(rule)
      if not problem and seen[rule.id] then
        problem = ("the rule \"%s\" is there already, in %s"):format(rule.id, seen[rule.id])
      end
      if problem then
        return nil, error_.new("config", problem, { file = file })
      end
      seen[rule.id] = file
      rules[#rules + 1] = complete(rule, file)
    end
  end
  return rules
end

return M
