--- Looks at backfills and steers them from outside: what there are, which one a name means, what they are to do.
-- Workers read what is written here in their next batch, or when the throttle looks (signals.lua).
local definition_of = require "moonbird.migration.backfill"
local error_ = require "moonbird.core.error"
local json = require "moonbird.core.json"
local nearest = require "moonbird.util.nearest"
local task = require "moonbird.core.task"

local M = {}

--- What a command says about the backfills of its run (run.backfill). The throttle is made when a backfill begins.
---@param options { restart?: boolean, adopt?: boolean, max_runtime?: integer, workers?: integer, observer?: table }
---@return moonbird.backfill.settings
function M.settings(options)
  local until_ = options.max_runtime and task.now() + options.max_runtime
  local settings = { restart = options.restart, adopt = options.adopt, observer = options.observer,
    workers = options.workers, throttle = function(job)
      return require("moonbird.exec.backfill.signals").throttle(job)
    end }
  -- The time is the command's, however many backfills share it.
  return setmetatable(settings, { __index = function(_, name)
    if name == "max_runtime" and until_ then
      return math.max(1, until_ - task.now())
    end
  end })
end

--- Whether a name means a file or a row: by its version, with zeros in front or without, its id or the id's words.
---@param row { version: integer, id: string|nil }
---@param name string
---@return boolean
function M.matches(row, name)
  local version = name:match("^%d+$") and math.tointeger(tonumber(name))
  return version == row.version or row.id == name or row.id ~= nil and row.id:match("^%d+[_-](.*)$") == name
end

--- The error of a word that several migrations have; nil where it is one's.
---@param name string
---@param rows { version: integer, id: string }[]
---@return moonbird.error|nil
function M.ambiguous(name, rows)
  local ids, seen = {}, {}
  for _, row in ipairs(rows) do
    if not seen[row.version] then
      seen[row.version] = true
      ids[#ids + 1] = row.id
    end
  end
  if #ids > 1 then
    return error_.new("usage", ("\"%s\" is the name of several: %s"):format(name, table.concat(ids, ", ")),
      { hint = "say its version or its id" })
  end
end

--- The backfills of a journal that a name means: a version, an id, or the id's words; all without one.
---@param store moonbird.backfill.store
---@param session moonbird.session
---@param name? string
---@param targets? table<string, boolean> of these targets only
---@return table[]|nil rows as core/backfill.lua's progress gives them, with `rate` (rows/s) and `eta_ms`
---@return moonbird.error? err
function M.find(store, session, name, targets)
  local rows, err = store:progress(session)
  if not rows then
    return nil, err
  end
  local found = {}
  for _, row in ipairs(rows) do
    if (not name or M.matches(row, name)) and (not targets or targets[row.target]) then
      found[#found + 1] = M.measure(row)
    end
  end
  return found
end

--- Adds a rate and what is left of the time, as far as the batches so far tell.
---@param row table
---@return table row
function M.measure(row)
  if row.busy_ms > 0 and row.rows_seen > 0 then
    row.rate = row.rows_seen * 1000 / row.busy_ms
    local left = math.max(0, row.rows_estimated - row.rows_seen)
    if row.status ~= "done" and left > 0 then
      row.eta_ms = math.floor(left / row.rate * 1000)
    end
  end
  return row
end

--- The error of a name that no backfill has.
---@param name string
---@param rows table[] all that there are
---@param entries? table[] files
---@return moonbird.error
function M.unknown(name, rows, entries)
  for _, entry in ipairs(entries or {}) do
    if M.matches(entry, name) then
      return error_.new("backfill", ("%s has not begun"):format(entry.id),
        { hint = "`moonbird backfill run` begins it; what it may do is in its options" })
    end
  end
  local ids = {}
  for _, row in ipairs(rows) do
    ids[row.id] = true
  end
  local hint = nearest.hint(name, ids)
  return error_.new("usage", ("there is no backfill \"%s\""):format(name),
    { hint = hint or "`moonbird backfill list` names them" })
end

local WORDS = { pause = "paused", resume = "resumed", cancel = "cancelled" }
local WANTS = { pause = "pause", resume = "run", cancel = "cancel" }

--- Says what a backfill is to do. Its workers do so in their next batch.
---@param store moonbird.backfill.store
---@param session moonbird.session
---@param row table
---@param action "pause"|"resume"|"cancel"
---@param facts { os_user?: string, host?: string } of the run that says so
---@return true|nil
---@return moonbird.error? err
function M.steer(store, session, row, action, facts)
  if row.status == "done" or action ~= "cancel" and row.want == "cancel" then
    return nil, error_.new("backfill", ("%s is %s: it can't be %s"):format(row.id,
      row.status == "done" and "done" or "cancelled", WORDS[action]),
      { hint = row.want == "cancel" and "`moonbird backfill run VERSION --restart` begins anew" or nil })
  end
  local found, err = store:set_want(session, row.target, row.version, WANTS[action],
    ("%s on %s"):format(facts.os_user or "?", facts.host or "?"))
  return found and true, err
end

--- Reads limits as a command line gives them: "max_lag=128MB", "min=" (back to the migration's).
---@param words string[]
---@return table<string, any>|nil raw values, json.null for "back"
---@return moonbird.error? err
function M.limits(words)
  local limits = {}
  for _, word in ipairs(words) do
    local name, value = word:match("^([%w_]+)=(.*)$")
    if not name then
      return nil, error_.new("usage", ("\"%s\" is no limit: write it as name=value"):format(word),
        { hint = "such as max_lag=128MB; max_lag= goes back to what the migration says" })
    elseif value == "" or value == "default" then
      if not definition_of.options[name] then
        return nil, error_.new("usage", ("there is no option \"%s\""):format(name),
          { hint = nearest.hint(name, definition_of.options) })
      end
      limits[name] = json.null
    else
      local _, wrong, hint = definition_of.read_options { [name] = value }
      if wrong then
        return nil, error_.new("usage", wrong, { hint = hint })
      end
      limits[name] = value
    end
  end
  if next(limits) == nil then
    return nil, error_.new("usage", "backfill throttle wants limits: NAME key=value ...",
      { hint = "such as max_lag=128MB or between=22:00-06:00" })
  end
  return limits
end

return M
