--- moonbird cluster start|stop|status|url|destroy
local cluster = require "moonbird.core.cluster"
local error_ = require "moonbird.core.error"
local project = require "moonbird.cli.project"

local M = {}

local actions = {}

function actions.start(dir, report)
  local status, err = cluster.start(dir, { log = function(message)
    report:log("info", message)
  end })
  if not status then
    return nil, err
  end
  report:print(("running at %s (until `moonbird cluster stop`)"):format(status.url))
  return status
end

function actions.stop(dir, report)
  local result, err = cluster.stop(dir)
  if not result then
    return nil, err
  end
  report:print(result.stopped and "stopped" or result.in_use and "in use: stops when its last user is done"
    or "was not running")
  return result
end

function actions.status(dir, report)
  local status, err = cluster.status(dir)
  if not status then
    return nil, err
  end
  if not status.exists then
    report:write(("no cluster in %s yet: `moonbird up` or `moonbird cluster start` makes it\n"):format(dir))
  else
    report:write(("%s  %s  %s\n"):format(status.running and report.out.green("running") or "stopped", dir,
      status.running and ("%s (pid %d)"):format(status.url, status.pid) or ""))
  end
  return status
end

function actions.url(dir, report)
  local status, err = cluster.status(dir)
  if not status then
    return nil, err
  elseif not status.running then
    return nil, error_.new("cluster", "the embedded cluster is not running",
      { hint = "start it: `moonbird cluster start`" })
  end
  report:write(status.url .. "\n")
  return { url = status.url }
end

function actions.destroy(dir, report, args)
  if not args.yes then
    return nil, error_.new("usage", ("this would remove %s with all its data"):format(dir),
      { hint = "say so with --yes" })
  end
  local ok, err = cluster.destroy(dir)
  if not ok then
    return nil, err
  end
  report:print("removed " .. dir)
  return { removed = dir }
end

--- Runs an action on the project's embedded cluster.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  local conf, err = project.config(args)
  if not conf then
    return nil, err
  elseif conf.url.kind ~= "embedded" or conf.url.temp then
    return nil, error_.new("usage", "the URL in use is not a lasting embedded cluster",
      { hint = "pass -u embedded: or -u embedded:DIR", detail = "it comes from " .. conf.url.origin })
  end
  return actions[args.action](project.cluster_dir(conf), report, args)
end

return M
