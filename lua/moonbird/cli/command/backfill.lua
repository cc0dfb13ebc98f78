--- moonbird backfill list|show|run|pause|resume|cancel|throttle|retry-errors|verify|explain
local actions = require "moonbird.cli.actions"
local error_ = require "moonbird.core.error"

local M = {}

-- Actions about one backfill that has begun, which a name is needed for; and what takes more words than that.
local NAMED = { show = true, pause = true, resume = true, cancel = true, throttle = true, ["retry-errors"] = true,
  verify = true, explain = true }
local MANY = { run = true, throttle = true }

-- What each option is for.
local ONLY = { max_runtime = { run = true }, workers = { run = true }, restart = { run = true }, adopt = { run = true },
  jobs = { run = true }, emergency = { run = true, ["retry-errors"] = true } }

local function misused(args)
  local action, words = args.action, args.words
  if NAMED[action] and not words[1] then
    return error_.new("usage", ("backfill %s wants a backfill: its version or its id"):format(action),
      { hint = "`moonbird backfill list` names them" })
  elseif words[1] and not NAMED[action] and not MANY[action] then
    return error_.new("usage", ("backfill %s takes no name"):format(action))
  elseif words[2] and not MANY[action] then
    return error_.new("usage", ("backfill %s takes one name"):format(action))
  elseif args.restart and args.adopt then
    return error_.new("usage", "--restart and --adopt exclude one another")
  end
end

local function module(action)
  if action == "run" then
    return require "moonbird.cli.backfills.run"
  end
  return require "moonbird.cli.backfills.steer"
end

--- Does it.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  return actions.run(args, report, { misused = misused, only = ONLY, module = module })
end

return M
