--- The section `tenants` of moonbird.lua: a source, a list of sources, a function, or a table of options with
-- one of these as `source`.
local duration = require "moonbird.util.duration"
local error_ = require "moonbird.core.error"
local nearest = require "moonbird.util.nearest"

local M = {}

---@class moonbird.tenants.settings
---@field sources (table|function)[]
---@field key? string column that every tenant table has
---@field shared string[] schemas behind the tenant's in its search_path
---@field jobs integer
---@field per_server? integer
---@field per_database? integer
---@field attempts integer
---@field max_failures { count?: integer, percent?: number }
---@field max_consecutive integer
---@field canary? table[] of { count } or { percent }, for `up`
---@field deploy_canary table[]
---@field soak integer milliseconds between waves
---@field health? string|function
---@field gate? "manual"
---@field lock_timeout? integer milliseconds
---@field control? string URL of the database that a fleet's runs are on
---@field lease? integer milliseconds after which a fleet takes a silent worker for dead

local DEFAULT_DEPLOY = { 1, "1%", "10%" }

--- "10%" or a count.
---@param value any
---@return { count?: integer, percent?: number }? share
function M.share(value)
  if math.type(value) == "integer" and value >= 0 then
    return { count = value }
  elseif type(value) == "string" then
    local percent = value:match("^(%d+%.?%d*)%%$")
    if percent and tonumber(percent) <= 100 then
      return { percent = tonumber(percent) }
    elseif value:match("^%d+$") then
      return { count = math.tointeger(tonumber(value)) }
    end
  end
end

--- How many of a total a share is; a percentage is rounded up.
---@param share { count?: integer, percent?: number }
---@param total integer
---@return integer
function M.count(share, total)
  return share.count or math.ceil(total * share.percent / 100)
end

local function count_from(low)
  return function(value)
    if math.type(value) == "integer" and value >= low then
      return value
    end
    return nil, ("must be a number from %d on"):format(low)
  end
end

local function shares(value)
  if type(value) ~= "table" then
    value = { value }
  end
  local list = {}
  for i, item in ipairs(value) do
    list[i] = M.share(item) or (type(item) == "string" and item ~= "" and { name = item })
    if not list[i] then
      return nil, "must be a list of counts, percentages like \"10%\" or names of tenants"
    end
  end
  return list
end

local function texts(value)
  local list = type(value) == "string" and { value } or value
  if type(list) ~= "table" then
    return nil, "must be a list of schemas"
  end
  for _, item in ipairs(list) do
    if type(item) ~= "string" or item == "" or #item > 63 then
      return nil, "must be a list of schemas"
    end
  end
  return list
end

local function text(value)
  if type(value) == "string" and value ~= "" then
    return value
  end
  return nil, "must be a string"
end

--- What the section may say, and how each key is read: the value kept, or nil and what is wrong.
M.readers = {
  source = function(value)
    return value
  end,
  key = text,
  shared = texts,
  jobs = count_from(1),
  per_server = count_from(1),
  per_database = count_from(1),
  attempts = count_from(1),
  max_failures = function(value)
    local share = M.share(value)
    if share then
      return share
    end
    return nil, "must be a number or a percentage like \"5%\""
  end,
  max_consecutive = count_from(1),
  canary = shares,
  soak = duration.parse,
  lock_timeout = duration.parse,
  control = text,
  lease = duration.parse,
  health = function(value)
    if type(value) == "string" or type(value) == "function" then
      return value
    end
    return nil, "must be SQL or a function(db)"
  end,
  gate = function(value)
    if value == "manual" then
      return value
    end
    return nil, "can only be \"manual\""
  end,
}

local function is_source(value)
  return type(value) == "function" or (type(value) == "table" and type(value.source) == "string")
end

local function sources_of(value, complain)
  local list = is_source(value) and { value } or type(value) == "table" and value or {}
  for _, item in ipairs(list) do
    if not is_source(item) then
      complain("a source must be made with tenants.schemas, query, list, file, databases, or be a function")
      return {}
    end
  end
  if #list == 0 then
    complain("no source: write tenants = tenants.schemas{ like = \"tenant_%\" }, or source = ... in a table of options")
  end
  return list
end

--- Reads the section.
---@param conf moonbird.config
---@return moonbird.tenants.settings? settings nil without err: there are no tenants
---@return moonbird.error? err code "config"
function M.read(conf)
  local raw = conf.tenants
  if raw == nil then
    return nil
  end
  local problem
  local function complain(message, hint)
    problem = problem or error_.new("config", "\"tenants\": " .. message, { file = conf.file, hint = hint })
  end
  local given = {}
  if is_source(raw) or (type(raw) == "table" and #raw > 0) then
    given.source = raw
  else
    for key, value in pairs(raw) do
      local reader = M.readers[key]
      if not reader then
        complain(("unknown key \"%s\""):format(tostring(key)), nearest.hint(tostring(key), M.readers))
      else
        local good, wrong = reader(value)
        if good == nil then
          complain(("\"%s\" %s"):format(key, wrong))
        end
        given[key] = good
      end
    end
  end
  local sources = sources_of(given.source, complain)
  if problem then
    return nil, problem
  end
  return { sources = sources, key = given.key, shared = given.shared or {}, jobs = given.jobs or 8,
    per_server = given.per_server, per_database = given.per_database, attempts = given.attempts or 5,
    max_failures = given.max_failures or { count = 0 }, max_consecutive = given.max_consecutive or 5,
    canary = given.canary, deploy_canary = given.canary or shares(DEFAULT_DEPLOY), soak = given.soak or 0,
    health = given.health, gate = given.gate, lock_timeout = given.lock_timeout,
    control = given.control, lease = given.lease }
end

return M
