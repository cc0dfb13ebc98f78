--- What a backfill tells where nobody draws its progress: lines of the log.
local duration = require "moonbird.util.duration"
local task = require "moonbird.core.task"
local counted = require("moonbird.util.text").count

local M = {}

-- Milliseconds between lines about a throttle that says the same with other numbers.
local NEWS = 10000

local TEXTS = {
  start = function(job, event)
    return "info", ("walks over %s by %s in %s, about %s"):format(job.place.name,
      job.place.key.ctid and "ctid" or table.concat(job.place.key.columns, ", "), counted(event.chunks, "chunk"),
      counted(event.rows, "row"))
  end,
  resume = function(_, event)
    return "info", ("goes on: %d of %d chunks are done, %d rows were looked at"):format(event.chunks_done, event.chunks,
      event.rows)
  end,
  batch = function(_, event)
    return "debug", ("%d rows, %d changed, in %s; next %d"):format(event.rows, event.changed,
      duration.format(event.ms), event.size)
  end,
  blocked = function(_, event)
    return "debug", ("a batch of %d rows was undone, and is tried with fewer: %s"):format(event.rows,
      event.error.message)
  end,
  retry = function(_, event)
    return "debug", ("a batch of %d rows failed, and is tried again: %s"):format(event.rows, event.error.message)
  end,
  split = function(_, event)
    return "debug", ("a batch of %d rows failed, and is halved: %s"):format(event.rows, event.error.message)
  end,
  error = function(_, event)
    return "warn", ("passed over a row, %s: %s"):format(event.key, event.error.message)
  end,
  lost = function(_, event)
    return "warn", ("worker %d lost its connection: %s"):format(event.worker, event.error.message)
  end,
  reconnect = function(_, event)
    return "debug", ("worker %d could not connect: %s"):format(event.worker, event.error.message)
  end,
  paused = function()
    return "info", "paused from another terminal"
  end,
  resumed = function()
    return "info", "goes on"
  end,
  throttle = function(_, event)
    return "info", event.level == "ok" and "not throttled any more"
      or ("throttled (%s): %s"):format(event.level, event.reason or "?")
  end,
  limits = function()
    return "info", "limits were changed from another terminal"
  end,
  pass = function(_, event)
    return "info", ("walks over the table again: %d rows are left"):format(event.rows)
  end,
  verify = function()
    return "debug", "looks for rows that are left"
  end,
  done = function(_, event)
    return "info", ("done: %d rows looked at, %d changed in %d batches"):format(event.rows, event.changed,
      event.batches)
  end,
}

--- Whether a throttle says what it said a moment ago, but for the numbers in its reason.
local function stale(job, event)
  local told, now = job.told, task.now()
  if event.kind ~= "throttle" then
    return false
  elseif told and told.level == event.level and now - told.at < NEWS then
    return true
  end
  job.told = { level = event.level, at = now }
  return false
end

--- Writes an event to the log.
---@param job moonbird.backfill.job
---@param event moonbird.backfill.event
function M.event(job, event)
  local text = TEXTS[event.kind]
  if text and not stale(job, event) then
    local level, message = text(job, event)
    job.run.report:log(level, message, job.step)
  end
end

return M
