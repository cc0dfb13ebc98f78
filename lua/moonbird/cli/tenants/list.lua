--- moonbird tenant list
local json = require "moonbird.core.json"
local style = require "moonbird.report.style"
local tenants = require "moonbird.cli.tenants.common"
local text = require "moonbird.util.text"

local M = {}

--- The labels as text: flags by their name, others as key=value.
---@param labels table<string, any>
---@return string
function M.labels(labels)
  local list = {}
  for key, value in pairs(labels) do
    list[#list + 1] = value == true and key or ("%s=%s"):format(key, tostring(value))
  end
  table.sort(list)
  return table.concat(list, " ")
end

--- Where a tenant's database is; no password, no user.
---@param tenant moonbird.tenant
---@return string
function M.database(tenant)
  local params = tenant.database.run.params
  local name = params.dbname or params.service or ""
  local elsewhere = tenant.where and (tenant.where.url or tenant.where.host)
  return elsewhere and params.host and ("%s/%s"):format(params.host, name) or name
end

--- Lists the tenants.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  return tenants.with_target(args, report, false, function(run, target, settings)
    return tenants.with_survey(args, run, target, settings, nil, function(survey)
      local rows, list = {}, json.array {}
      for i, tenant in ipairs(survey.tenants) do
        local database = M.database(tenant)
        rows[i] = { tenant.name, tenant.schema or "-", database, report.out.dim(M.labels(tenant.labels)) }
        list[i] = { name = tenant.name, schema = tenant.schema, database = database, labels = tenant.labels,
          vars = tenant.vars, from = tenant.from }
      end
      report:write(style.columns(rows))
      report:write(text.count(#rows, "tenant") .. "\n")
      return { action = "list", tenants = list }
    end)
  end)
end

return M
