--- moonbird tenant matrix
local error_ = require "moonbird.core.error"
local fs = require "moonbird.core.fs"
local labels = require "moonbird.cli.tenants.list".labels
local matrix_of = require "moonbird.exec.tenants.matrix"
local matrix_report = require "moonbird.report.matrix"
local tenants = require "moonbird.cli.tenants.common"

local M = {}

local function write(path, text)
  local ok, message = fs.write(path, text)
  if not ok then
    return error_.new("io", ("\"%s\" could not be written: %s"):format(path, message))
  end
end

local function show(args, report, target, entries)
  return function(survey)
    local global, own = tenants.read(survey, target, entries)
    if not global then
      return nil, own
    end
    local matrix = matrix_of.make(survey, own, { allow = tenants.allow(target.run.config, args), entries = entries,
      labels = labels })
    matrix.title = ("Tenants of %s"):format(target.run.params.dbname or "the database")
    if args.html then
      local err = write(args.html, matrix_report.html(matrix))
      if err then
        return nil, err
      end
      report:print(("wrote %s"):format(args.html))
    else
      matrix_report.print(report, matrix)
    end
    local result = matrix_report.data(matrix)
    result.action, result.file = "matrix", args.html
    return result
  end
end

--- Shows tenants times versions. Changes nothing.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  return tenants.with_target(args, report, true, function(run, target, settings, entries)
    return tenants.with_survey(args, run, target, settings, nil, show(args, report, target, entries))
  end)
end

return M
