--- What each tenant has of each version, as letters (report/matrix.lua says what they mean).
local overview_of = require "moonbird.exec.tenants.overview"
local pins = require "moonbird.exec.tenants.pins"

local M = {}

local function versions_of(tenants, own)
  local known, list = {}, {}
  for _, entry in ipairs(own) do
    known[entry.version] = true
    list[#list + 1] = { version = entry.version, id = entry.id, checksum = entry.checksum }
  end
  local seen = {}
  for _, tenant in ipairs(tenants) do
    local applied = tenant.state and tenant.state.applied
    if applied and not seen[applied] then
      seen[applied] = true
      for version, row in pairs(applied) do
        if not known[version] then
          known[version] = true
          list[#list + 1] = { version = version, id = row.id or row.version_text }
        end
      end
    end
  end
  table.sort(list, function(a, b)
    return a.version < b.version
  end)
  return list
end

local function failed_versions(state)
  local failed = {}
  for _, row in ipairs(state.open) do
    if row.event == "fail" and row.version then
      failed[row.version] = true
    end
  end
  return failed
end

local function cells_of(state, versions, held, pin)
  local failed, letters = failed_versions(state), {}
  for i, version in ipairs(versions) do
    local row = state.applied[version.version]
    if failed[version.version] then
      letters[i] = "!"
    elseif row then
      letters[i] = not version.checksum and "?" or row.checksum and row.checksum ~= version.checksum and "~" or "#"
    else
      letters[i] = pin and version.version > pin.to and "-" or held[version.version] and "h" or "."
    end
  end
  return table.concat(letters)
end

--- Makes the matrix of tenants whose states are read.
---@param survey moonbird.tenants.survey
---@param own table[] entries of tenant migrations
---@param options { allow: table, entries: table[], labels: fun(labels: table): string }
---@return table matrix versions, groups, tenants
function M.make(survey, own, options)
  local overview = overview_of.make(survey, own, options)
  local versions = versions_of(survey.tenants, own)
  local groups, by_cells, known, rows = {}, {}, {}, {}
  for i, tenant in ipairs(survey.tenants) do
    local state, index = tenant.state, 0
    if state then
      local plain = #state.open == 0
      local cells = plain and known[state.applied] or cells_of(state, versions, overview.held, pins.of(state))
      known[state.applied] = plain and cells or known[state.applied]
      index = by_cells[cells]
      if not index then
        index = #groups + 1
        groups[index], by_cells[cells] = { cells = cells, count = 0 }, index
      end
      groups[index].count = groups[index].count + 1
    end
    local row = overview.rows[i]
    rows[i] = { name = tenant.name, group = index, labels = options.labels(tenant.labels),
      note = row.state ~= "current" and row.state ~= "behind" and ("%s: %s"):format(row.state, row.note or "") or "" }
  end
  return { versions = versions, groups = groups, tenants = rows }
end

return M
