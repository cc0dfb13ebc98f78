--- The program: parses the command line, runs the command as the root task, turns errors into exit
--- statuses. One module per command in cli/command/, loaded when it is asked for.
local error_ = require "moonbird.core.error"
local failure = require "moonbird.report.failure"
local json = require "moonbird.core.json"
local reporter = require "moonbird.report.reporter"
local spec = require "moonbird.cli.spec"
local sys = require "moonbird.core.sys"
local task = require "moonbird.core.task"

local M = {}

local function wants_colour(args, fd)
  if args.color == "always" then
    return true
  elseif args.color == "never" then
    return false
  end
  local no = sys.getenv("NO_COLOR")
  return sys.isatty(fd) and sys.getenv("TERM") ~= "dumb" and (no == nil or no == "")
end

local function make_reporter(args)
  local level = args.quiet and "warn" or args.verbose >= 2 and "trace" or args.verbose == 1 and "debug" or "info"
  return reporter.new {
    json = args.json or false,
    quiet = args.quiet or false,
    level = level,
    colour = { out = wants_colour(args, 1), err = wants_colour(args, 2) },
    live = sys.isatty(2) and not args.quiet and args.log_format == "text" and sys.getenv("TERM") ~= "dumb",
    log_format = args.log_format,
  }
end

--- Cancels the root task at the first SIGINT or SIGTERM; a second one ends the process at once, which is
--- safe: the server rolls back what was not committed.
---@param stop fun() cancels it
local function watch_signals(stop, report)
  task.spawn(function()
    local name = task.wait_signal()
    if not name then
      return
    end
    report:log("warn", ("%s: stopping, what runs is rolled back (once more to stop at once)"):format(name))
    stop()
    if task.wait_signal() then
      report:finish()
      sys.exit(130)
    end
  end)
end

local function run_command(args, report)
  local command = require("moonbird.cli.command." .. args.command:gsub("-", "_"))
  -- A command returns its result as data (for --json) and, when it failed, the error.
  return command.run(args, report)
end

local function finish(args, report, result, err)
  report:finish()
  if err then
    report:failure(err)
  end
  local status = err and error_.status(err) or (result and result.exit_status) or 0
  if args.json then
    local object = result or {}
    object.exit_status = nil
    object.command = args.command
    object.ok = status == 0
    object.error = err and failure.data(err) or nil
    report:data(object)
  end
  if report.unwritten and status == 0 then
    sys.write(2, ("moonbird: the result could not be written: %s\n"):format(report.unwritten))
    status = error_.status(error_.new("io", ""))
  end
  return status
end

--- Runs the program.
---@param argv string[] argv[0] is the program
---@return integer status
function M.run(argv)
  local args, status = spec.parse(argv)
  if not args then
    return status
  end
  local report = make_reporter(args)
  local exit_status
  local root
  -- First, so that signals are watched before a command begins that computes and lets nobody else run.
  watch_signals(function()
    root:cancel("interrupted")
  end, report)
  root = task.spawn(function()
    local ok, result, err = xpcall(run_command, function(raised)
      local e = error_.from(raised, type(raised) == "string" and "internal" or nil)
      e.traceback = e.traceback or debug.traceback(nil, 2)
      return e
    end, args, report)
    if not ok then
      result, err = nil, result
    end
    exit_status = finish(args, report, result, err)
  end)
  task.turn_until(function()
    return exit_status ~= nil or root:done()
  end)
  if exit_status == nil then -- the report itself failed: a defect, but never a program that does not end
    local err = error_.new("internal", tostring(root.result[2]))
    sys.write(2, "moonbird: internal error: " .. err.message .. "\n")
    if args.json then
      sys.write(1, json.encode({ command = args.command, ok = false, error = failure.data(err) }, true) .. "\n")
    end
    exit_status = error_.status(err)
  end
  return exit_status
end

return M
