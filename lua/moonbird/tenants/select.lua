--- Which tenants of all, and in which waves.
local error_ = require "moonbird.core.error"
local hash = require "moonbird.core.sys".sha256
local nearest = require "moonbird.util.nearest"
local settings_of = require "moonbird.tenants.settings"

local M = {}

local function glob_pattern(glob)
  local pattern = glob:gsub("[%^%$%(%)%%%.%[%]%+%-]", "%%%0"):gsub("%*", ".*"):gsub("%?", ".")
  return "^" .. pattern .. "$"
end

--- The function that says whether a tenant is meant by a word: a name, a glob, or "@label" ("@key=value").
local function matcher(word)
  local label = word:match("^@(.+)$")
  if label then
    local key, value = label:match("^([^=]+)=(.*)$")
    return function(tenant)
      if key then
        return tostring(tenant.labels[key]) == value
      end
      local there = tenant.labels[label]
      return there ~= nil and there ~= false
    end
  elseif word:find("[*?]") then
    local pattern = glob_pattern(word)
    return function(tenant)
      return tenant.name:find(pattern) ~= nil
    end
  end
  return function(tenant)
    return tenant.name == word
  end
end

local function matching(tenants, words, what)
  local chosen, by_name = {}, {}
  for _, tenant in ipairs(tenants) do
    by_name[tenant.name] = true
  end
  for _, word in ipairs(words) do
    local matches, any = matcher(word), false
    if by_name[word] then -- a name that looks like a glob is a name
      matches = function(tenant)
        return tenant.name == word
      end
    end
    for _, tenant in ipairs(tenants) do
      if matches(tenant) then
        chosen[tenant], any = true, true
      end
    end
    if not any then
      local names = {}
      for _, tenant in ipairs(tenants) do
        names[#names + 1] = tenant.name
      end
      local near = #names <= 20000 and nearest.find(word, names)
      return nil, error_.new("usage", ("%s \"%s\" matches no tenant"):format(what, word),
        { hint = near and ("did you mean \"%s\"?"):format(near) or "`moonbird tenant list` shows them" })
    end
  end
  return chosen
end

--- Where a tenant stands among the others, the same on every host and in every run.
---@param name string
---@return string
function M.place(name)
  return hash("moonbird " .. name)
end

--- The share of a tenant list that one of N independent runners has.
local function shard_of(name, count)
  return tonumber(M.place(name):sub(1, 12), 16) % count
end

---@class moonbird.tenants.selection
---@field tenant? string[] names, globs, @labels
---@field exclude? string[]
---@field shard? string "I/N", I from 0

--- Picks tenants.
---@param tenants table[]
---@param options moonbird.tenants.selection
---@return table[]?
---@return moonbird.error? err code "usage"
function M.pick(tenants, options)
  local wanted, without, err
  if options.tenant and #options.tenant > 0 then
    wanted, err = matching(tenants, options.tenant, "--tenant")
    if not wanted then
      return nil, err
    end
  end
  if options.exclude and #options.exclude > 0 then
    without, err = matching(tenants, options.exclude, "--exclude")
    if not without then
      return nil, err
    end
  end
  local index, count
  if options.shard then
    index, count = options.shard:match("^(%d+)/(%d+)$")
    index, count = math.tointeger(tonumber(index)), math.tointeger(tonumber(count))
    if not index or count < 1 or index >= count then
      return nil, error_.new("usage", ("--shard wants I/N with I from 0 to N-1, not \"%s\""):format(options.shard))
    end
  end
  local list = {}
  for _, tenant in ipairs(tenants) do
    if (not wanted or wanted[tenant]) and not (without and without[tenant])
      and (not count or shard_of(tenant.name, count) == index) then
      list[#list + 1] = tenant
    end
  end
  return list
end

--- Parts tenants into waves. Each share is of all; what is left is the last wave.
---@param tenants table[]
---@param shares table[] { count } | { percent } | { name }
---@param all? table[] also those that were not picked: a canary of that name is none of these, but no mistake
---@return { name: string, tenants: table[], canary: boolean }[]
---@return moonbird.error? err a named canary that is no tenant
function M.waves(tenants, shares, all)
  if #shares == 0 then
    return { { name = "all", tenants = tenants, canary = false } }
  end
  local order, taken = table.move(tenants, 1, #tenants, 1, {}), {}
  local places = {}
  for _, tenant in ipairs(order) do
    places[tenant] = M.place(tenant.name)
  end
  table.sort(order, function(a, b)
    return places[a] < places[b]
  end)
  local waves, at = {}, 1
  for i, share in ipairs(shares) do
    local wave = { name = ("wave %d"):format(i), tenants = {}, canary = true }
    if share.name then
      local chosen, err = matching(all or tenants, { share.name }, "the canary")
      if not chosen then
        return nil, err
      end
      for _, tenant in ipairs(order) do
        if chosen[tenant] and not taken[tenant] then
          taken[tenant] = true
          wave.tenants[#wave.tenants + 1] = tenant
        end
      end
    else
      local size = settings_of.count(share, #tenants)
      while #wave.tenants < size and at <= #order do
        local tenant = order[at]
        at = at + 1
        if not taken[tenant] then
          taken[tenant] = true
          wave.tenants[#wave.tenants + 1] = tenant
        end
      end
    end
    if #wave.tenants > 0 then
      waves[#waves + 1] = wave
    end
  end
  local rest = { name = "the rest", tenants = {}, canary = false }
  for _, tenant in ipairs(tenants) do
    if not taken[tenant] then
      rest.tenants[#rest.tenants + 1] = tenant
    end
  end
  if #rest.tenants > 0 then
    waves[#waves + 1] = rest
  elseif waves[#waves] then
    waves[#waves].canary = false -- nobody comes after it
  end
  return waves
end

return M
