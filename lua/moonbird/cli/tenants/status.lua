--- moonbird tenant status: what `status` says of the tenants.
local error_ = require "moonbird.core.error"
local overview_report = require "moonbird.report.overview"
local tenants = require "moonbird.cli.tenants.common"

local M = {}

--- Shows where the tenants stand. Changes nothing.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  return tenants.with_target(args, report, true, function(run, target, settings, entries)
    return tenants.with_survey(args, run, target, settings, nil, function(survey)
      local overview, failure = tenants.overview(survey, target, entries, tenants.allow(run.config, args))
      if not overview then
        return nil, failure
      end
      overview_report.print(report, overview, args.all)
      local result = { action = "status", tenants = overview_report.data(overview, args.all) }
      if args.exit_code and overview_report.open(overview) then
        result.exit_status = error_.status(error_.new("pending", ""))
      end
      return result
    end)
  end)
end

return M
