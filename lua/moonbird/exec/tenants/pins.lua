--- Pins: a tenant that is to stay at a version. A pin is an event of the tenant's journal that says nothing about
-- any version; the last of them counts.
local error_ = require "moonbird.core.error"
local nearest = require "moonbird.util.nearest"
local state_of = require "moonbird.exec.tenants.state"

local M = {}

--- The pin of a tenant.
---@param state table as state.read gives it
---@return { to: integer, reason: string }?
function M.of(state)
  local pin
  for _, row in ipairs(state.open) do
    if row.event == "pin" then
      pin = row.detail
    elseif row.event == "unpin" then
      pin = nil
    end
  end
  return pin
end

--- A tenant by its very name.
---@param survey moonbird.tenants.survey
---@param name string
---@return moonbird.tenant?
---@return moonbird.error? err code "usage"
function M.find(survey, name)
  local names = {}
  for i, tenant in ipairs(survey.all) do
    if tenant.name == name then
      return tenant
    end
    names[i] = tenant.name
  end
  local near = #names > 0 and #names <= 20000 and nearest.find(name, names)
  return nil, error_.new("usage", ("there is no tenant \"%s\""):format(name),
    { hint = near and ("did you mean \"%s\"?"):format(near) or "`moonbird tenant list` shows them" })
end

--- What is wrong with a pin, or with taking one away.
local function refuse(tenant, state, to)
  local pin = M.of(state)
  if not to then
    return not pin and error_.new("usage", ("tenant \"%s\" is not pinned"):format(tenant.name)) or nil
  end
  local highest
  for version in pairs(state.applied) do
    highest = math.max(highest or version, version)
  end
  if highest and highest > to then
    return error_.new("usage", ("tenant \"%s\" is beyond %d already: %d is applied"):format(tenant.name, to, highest),
      { hint = ("take it back first: moonbird down --tenant %s --to %d"):format(tenant.name, to) })
  end
end

--- Pins a tenant, or takes its pin away. The survey has to be of this one tenant.
---@param survey moonbird.tenants.survey
---@param tenant moonbird.tenant
---@param to integer|nil nil: unpin
---@param reason string
---@return { to: integer, reason: string }|nil was the pin before; {} for none
---@return moonbird.error? err
function M.set(survey, tenant, to, reason)
  local database = tenant.database
  return survey:with_session(database, function(session)
    local ok, err = survey.prepare(database, session)
    if not ok then
      return nil, err
    end
    local states
    states, err = state_of.read(database.run.journal, session, { tenant.name })
    if not states then
      return nil, err
    end
    local state = states[tenant.name] or state_of.empty()
    err = refuse(tenant, state, to)
    if err then
      return nil, err
    end
    local was = M.of(state)
    ok, err = database.run.journal:append(session, tenant.name, state.head, database.run:event {
      event = to and "pin" or "unpin", outcome = "done", scope = "tenant",
      detail = { to = to or was.to, reason = reason },
    })
    return ok and (was or {}), err
  end)
end

return M
