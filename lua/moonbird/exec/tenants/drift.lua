--- Tenants whose catalogs differ from those of others that have the same migrations.
--
-- The server makes one hash for each schema, so that the number of queries and the memory do not grow with what the
-- schemas hold. Only of one tenant of each group that differs is the catalog read.
local catalog = require "moonbird.exec.catalog"
local overview = require "moonbird.exec.tenants.overview"
local pins = require "moonbird.exec.tenants.pins"

local M = {}

-- Groups whose differences are told; of the others only who they are.
local MOST_DIFFS = 25

---@class moonbird.tenants.drift
---@field checked integer
---@field drifted integer
---@field sets { version: integer?, tenants: integer, reference: table, groups: table[] }[] where somebody differs
---@field alone string[] nobody else has the same migrations
---@field pinned string[]
---@field unreachable { tenant: moonbird.tenant, err: moonbird.error }[]

local function journal_of(survey)
  return { survey.run.journal.schema }
end

--- Puts the hash of its catalog at each tenant.
local function read_hashes(survey, result)
  local function failed(database, err)
    for _, tenant in ipairs(database.tenants) do
      tenant.unreachable = tenant.unreachable or err
    end
  end
  local databases = {}
  for _, database in ipairs(survey.databases) do
    databases[#databases + 1] = #database.tenants > 0 and not database.tenants[1].unreachable and database or nil
  end
  local ok, err = overview.each(survey, databases, function(session, database)
    local schemas, whole = {}, false
    for _, tenant in ipairs(database.tenants) do
      if tenant.schema then
        schemas[#schemas + 1] = tenant.schema
      else
        whole = true
      end
    end
    local hashes, all, wrong = {}, nil, nil
    if #schemas > 0 then
      hashes, wrong = catalog.hashes(session, schemas)
    end
    if hashes and whole then
      all, wrong = catalog.hashes(session, nil, journal_of(survey))
    end
    if wrong then
      return nil, wrong
    end
    for _, tenant in ipairs(database.tenants) do
      tenant.catalog = tenant.schema and (hashes[tenant.schema] or "") or not tenant.schema and all[""] or ""
    end
    return true
  end, failed)
  for _, tenant in ipairs(survey.tenants) do
    if tenant.unreachable then
      table.insert(result.unreachable, { tenant = tenant, err = tenant.unreachable })
    end
  end
  return ok, err
end

--- A name for what is applied: equal for equal histories.
local function history_key(applied, known)
  if not known[applied] then
    local list, newest = {}, nil
    for version, row in pairs(applied) do
      list[#list + 1] = ("%d %s"):format(version, row.checksum or "")
      newest = math.max(newest or version, version)
    end
    table.sort(list)
    known[applied] = { table.concat(list, "\n"), newest }
  end
  return table.unpack(known[applied], 1, 2)
end

--- Tenants by what is applied, then by their catalog.
local function group(survey, result)
  local by_key, sets, known = {}, {}, {}
  for _, tenant in ipairs(survey.tenants) do
    if tenant.state and tenant.catalog and pins.of(tenant.state) then
      table.insert(result.pinned, tenant.name)
    elseif tenant.state and tenant.catalog then
      local key, newest = history_key(tenant.state.applied, known)
      key = (tenant.schema and "schema\n" or "database\n") .. key
      local set = by_key[key]
      if not set then
        set = { version = newest, tenants = 0, groups = {}, by_hash = {} }
        by_key[key], sets[#sets + 1] = set, set
      end
      set.tenants = set.tenants + 1
      local same = set.by_hash[tenant.catalog]
      if not same then
        same = { tenants = {}, hash = tenant.catalog }
        set.by_hash[tenant.catalog], set.groups[#set.groups + 1] = same, same
      end
      table.insert(same.tenants, tenant)
    end
  end
  return sets
end

local function by_size(a, b)
  if #a.tenants ~= #b.tenants then
    return #a.tenants > #b.tenants
  end
  return a.tenants[1].name < b.tenants[1].name
end

--- Reads the catalogs of some tenants: one round trip for each of their databases.
local function read_catalogs(survey, tenants)
  local by_database, databases = {}, {}
  for _, tenant in ipairs(tenants) do
    local database = tenant.database
    if not by_database[database] then
      by_database[database], databases[#databases + 1] = { schemas = {}, tenants = {} }, database
    end
    local wanted = by_database[database]
    table.insert(wanted.tenants, tenant)
    if tenant.schema then
      table.insert(wanted.schemas, tenant.schema)
    else
      wanted.whole = true
    end
  end
  local failure
  local ok, err = overview.each(survey, databases, function(session, database)
    local wanted = by_database[database]
    local maps, all, wrong = {}, nil, nil
    if #wanted.schemas > 0 then
      maps, wrong = catalog.by_schema(session, { schemas = wanted.schemas, relative = true })
    end
    if maps and wanted.whole then
      all, wrong = catalog.read(session, { exclude = journal_of(survey) })
    end
    if wrong then
      return nil, wrong
    end
    for _, tenant in ipairs(wanted.tenants) do
      tenant.objects = tenant.schema and (maps[tenant.schema] or {}) or all
    end
    return true
  end, function(_, wrong)
    failure = failure or wrong
  end)
  return ok and not failure, err or failure
end

--- What each odd group has that its reference has not, and the other way round.
local function compare(survey, sets)
  local wanted, seen, left = {}, {}, MOST_DIFFS
  local function want(tenant)
    if not seen[tenant] then
      seen[tenant], wanted[#wanted + 1] = true, tenant
    end
  end
  for _, set in ipairs(sets) do
    for _, odd in ipairs(set.groups) do
      if left > 0 and odd.hash ~= "" then
        left = left - 1
        odd.compared = true
        want(set.reference.tenants[1])
        want(odd.tenants[1])
      end
    end
  end
  local ok, err = read_catalogs(survey, wanted)
  if not ok then
    return nil, err
  end
  for _, set in ipairs(sets) do
    for _, odd in ipairs(set.groups) do
      if odd.compared then
        odd.differences = catalog.diff(set.reference.tenants[1].objects, odd.tenants[1].objects)
      end
    end
  end
  for _, tenant in ipairs(wanted) do
    tenant.objects = nil
  end
  return true
end

--- Compares the chosen tenants with each other.
---@param survey moonbird.tenants.survey
---@return moonbird.tenants.drift?
---@return moonbird.error? err
function M.run(survey)
  local result = { checked = 0, drifted = 0, sets = {}, alone = {}, pinned = {}, unreachable = {} }
  local ok, err = overview.read(survey)
  if ok then
    ok, err = read_hashes(survey, result)
  end
  if not ok then
    return nil, err
  end
  for _, set in ipairs(group(survey, result)) do
    result.checked = result.checked + (set.tenants > 1 and set.tenants or 0)
    table.sort(set.groups, by_size)
    set.by_hash, set.reference = nil, table.remove(set.groups, 1)
    if set.tenants == 1 then
      table.insert(result.alone, set.reference.tenants[1].name)
    elseif #set.groups > 0 then
      table.insert(result.sets, set)
      result.drifted = result.drifted + set.tenants - #set.reference.tenants
    end
  end
  if #result.sets > 0 then
    table.sort(result.sets, function(a, b)
      return (a.version or 0) > (b.version or 0)
    end)
    ok, err = compare(survey, result.sets)
    if not ok then
      return nil, err
    end
  end
  return result
end

return M
