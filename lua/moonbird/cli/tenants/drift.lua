--- moonbird tenant drift
local drift = require "moonbird.exec.tenants.drift"
local drift_report = require "moonbird.report.drift"
local error_ = require "moonbird.core.error"
local tenants = require "moonbird.cli.tenants.common"

local M = {}

--- Compares the tenants' catalogs with each other. Changes nothing.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  return tenants.with_target(args, report, false, function(run, target, settings)
    return tenants.with_survey(args, run, target, settings, { check_schemas = false }, function(survey)
      local found, failure = drift.run(survey)
      if not found then
        return nil, failure
      end
      drift_report.print(report, found)
      local result = drift_report.data(found)
      result.action = "drift"
      if args.exit_code and found.drifted + #found.unreachable > 0 then
        result.exit_status = error_.status(error_.new("pending", ""))
      end
      return result
    end)
  end)
end

return M
