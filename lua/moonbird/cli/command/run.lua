--- moonbird run SCRIPT.lua [ARGS], and run list|show|pause|resume|cancel RUN of a fleet
local db = require "moonbird.core.db"
local error_ = require "moonbird.core.error"
local fs = require "moonbird.core.fs"
local project = require "moonbird.cli.project"
local sandbox = require "moonbird.core.sandbox"
local up = require "moonbird.cli.command.up"

local M = {}

local WORDS = { list = true, show = true, pause = true, resume = true, cancel = true }

local function load_script(path, report)
  local text, message = fs.read(path)
  if not text then
    return nil, error_.new("usage", message)
  end
  local environment = sandbox.environment { print = function(...)
    local parts = table.pack(...)
    for i = 1, parts.n do
      parts[i] = tostring(parts[i])
    end
    report:write(table.concat(parts, "\t") .. "\n")
  end }
  local chunk, err = sandbox.load(text, path, environment)
  if not chunk then
    err.code = "script"
    return nil, err
  end
  local ok, fn = sandbox.compute { fn = chunk, args = {}, name = path }
  if not ok then
    return nil, fn
  elseif type(fn) ~= "function" then
    return nil, error_.new("script", ("the script returns a %s"):format(type(fn)), { file = path,
      hint = "return a function: return function(db, ...) ... end" })
  end
  return fn
end

--- A script may do anything, so the journal has to know of one that was let through. Before it runs: what it does is
--- committed by itself.
local function record_emergency(args, run, target)
  local ok, err = require("moonbird.exec.bootstrap").ensure(target, { left = run.lock_wait })
  if not ok then
    return nil, err
  end
  return target:append { event = "script", outcome = "done",
    detail = { emergency = args.emergency, script = args.script } }
end

--- Runs a script; an integer it returns is the exit status.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  local conf, err = project.config(args)
  if not conf then
    return nil, err
  elseif WORDS[args.script] and not fs.stat(args.script) then
    return require("moonbird.cli.fleet_runs").run(args, report, conf)
  end
  local fn, gate
  fn, err = load_script(args.script, report)
  if not fn then
    return nil, err
  end
  conf, gate, err = up.gate(args)
  if not gate then
    return nil, err
  end
  return project.with_target(args, report, { config = conf }, function(run, target)
    if args.emergency then
      local ok, failed = record_emergency(args, run, target)
      if not ok then
        return nil, failed
      end
    end
    local settled, problem = target:settle_formats()
    if not settled then
      return nil, problem
    end
    local handle = db.new {
      session = target.session,
      target = { name = target.name, schema = target.schema, vars = target.vars },
      script = true,
      log = function(level, message)
        report:log(level, message)
      end,
    }
    local limits = conf.limits or {}
    local ok, value = sandbox.run { fn = fn, args = { handle, table.unpack(args.script_args) },
      name = args.script, instructions = limits.instructions, memory = limits.memory }
    local doomed = target.session.doomed -- the script may have caught it; it still holds
    target.session:rollback()
    if ok and doomed then
      return nil, doomed
    elseif not ok then
      return nil, error_.with(value, { file = args.script })
    end
    local status = math.tointeger(value)
    return { exit_status = status and status & 255 or 0, returned = status }
  end)
end

return M
