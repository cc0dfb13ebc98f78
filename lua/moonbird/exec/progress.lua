--- The progress of a step that has no transaction of its own, as the journal knows it.
local error_ = require "moonbird.core.error"
local remedy = require "moonbird.plan.remedy"

---@class moonbird.progress
---@field target moonbird.target
---@field step moonbird.step
---@field timeouts { lock: integer, statement: integer, lock_total: integer }
---@field started table|nil the journal's row of an interrupted start
---@field units table<integer, table> unit -> its newest row
local M = {}
M.__index = M

--- Reads what an interrupted run left in the journal: the newest start of this step and its units.
---@param target moonbird.target
---@param step moonbird.step
---@param timeouts table
---@return moonbird.progress
function M.read(target, step, timeouts)
  local self = setmetatable({ target = target, step = step, timeouts = timeouts, units = {} }, M)
  for _, row in ipairs(target.state.open) do
    if row.version == step.migration.version then
      if row.event == "start" then
        self.started, self.units = row, {}
      elseif row.event == "unit" then
        self.units[row.detail.unit] = row
      end
    end
  end
  return self
end

local function event(self, fields)
  local migration = self.step.migration
  fields.version = migration.version
  fields.version_text = migration.version_text
  fields.id = migration.id
  fields.name = migration.name
  fields.direction = self.step.direction
  fields.checksum = migration.checksum
  fields.plan = self.step.plan
  return self.target.run:event(fields)
end

--- The statement that appends an event about this step.
---@param fields table
---@return table item for session:batch
function M:record_item(fields)
  return self.target.run.journal:record_item(self.target.name, self.target.head + 1, event(self, fields))
end

--- The same as SQL text.
---@param fields table
---@return string
function M:record_text(fields)
  return self.target.run.journal:record_text(self.target.name, self.target.head + 1, event(self, fields))
end

--- Appends an event; the lease holds the lock.
---@param fields table
---@return true|nil
---@return moonbird.error? err
function M:record(fields)
  local results, err = self.target.session:batch { self:record_item(fields) }
  if not results then
    return nil, err
  end
  self.target.head = self.target.head + 1
  return true
end

--- A unit's progress row.
---@param index integer
---@param sha string of its text
---@param outcome "started"|"done"|"failed"
---@param more? table further detail
---@return table fields
function M.unit_event(index, sha, outcome, more)
  local detail = { unit = index, sha = sha }
  for k, v in pairs(more or {}) do
    detail[k] = v
  end
  return { event = "unit", outcome = outcome, detail = detail }
end

--- The error of a step whose interruption only a person can settle.
---@param message string
---@param hint? string what to do, up to the command that settles it
---@return moonbird.error
function M:interrupted(message, hint)
  local migration = self.step.migration
  return error_.new("interrupted_step", ("%s: %s"):format(migration.id, message), {
    file = migration.file, hint = (hint or "look at the database, then ")
      .. remedy.mark(migration.version_text, self.target.name) })
end

--- A unit's row of an earlier run; refuses when the migration no longer says the same.
---@param index integer
---@param sha string
---@return table|nil row nil when the unit was not begun, or failed and left nothing
---@return moonbird.error? err code "interrupted_step"
function M:earlier(index, sha)
  local row = self.units[index]
  if row and row.outcome == "failed" then
    return nil -- it failed and left nothing: free to be written anew
  elseif row and row.detail.sha ~= sha then
    return nil, self:interrupted(("unit %d is not what the interrupted run was doing"):format(index),
      "restore the file as it was, or settle the step with ")
  end
  return row
end

return M
