--- What the workers of one backfill share: its definition, where it is, its size of batch, and why it stops.
local definition_of = require "moonbird.migration.backfill"
local error_ = require "moonbird.core.error"
local json = require "moonbird.core.json"
local size_of = require "moonbird.exec.backfill.size"
local sql = require "moonbird.core.sql"
local task = require "moonbird.core.task"

---@class moonbird.backfill.settings what a command says about the backfills of its run (run.backfill)
---@field restart? boolean begin anew
---@field adopt? boolean go on although the code was changed
---@field max_runtime? integer milliseconds after which a backfill is left for the next run
---@field workers? integer instead of the migration's, until somebody changes the limit
---@field one_worker? boolean one whatever is said: slots that take turns with tenants are the workers
---@field observer? { event: fun(self: table, job: moonbird.backfill.job, event: moonbird.backfill.event) }
---@field throttle? fun(job: moonbird.backfill.job): moonbird.backfill.throttle|nil

---@class moonbird.backfill.throttle
---@field verdict fun(self): "ok"|"slow"|"stop", string|nil, integer|nil level, reason, and for "slow" how many
---       milliseconds to wait before the next batch. Asked before each batch; must not wait itself.
---@field admit fun(self): boolean, string|nil lets one batch through, right before it begins; may wait for others'
---       turn and for batches under way. false: ask again, and why if that is worth telling.
---@field ended fun(self) a batch that was let through is over, whatever came of it
---@field configure fun(self, options: table)|nil options were changed from another terminal
---@field resumed fun(self)|nil a worker that somebody had told to wait may go on
---@field close fun(self)|nil

---@class moonbird.backfill.event
---@field kind string docs/internals/backfill.md lists them with their fields
---@field worker? integer
---@field error? moonbird.error
---@field rows? integer
---@field ms? integer

---@class moonbird.backfill.job
---@field target moonbird.target
---@field run moonbird.run
---@field step moonbird.step
---@field def moonbird.backfill.definition
---@field options table<string, any> as settled
---@field store moonbird.backfill.store
---@field state moonbird.backfill.state
---@field place moonbird.backfill.place
---@field columns table<string, table>|nil
---@field size moonbird.backfill.size
---@field throttle moonbird.backfill.throttle|nil
---@field workers moonbird.backfill.worker[]
---@field counters { seen: integer, changed: integer, skipped: integer, batches: integer } of this run
---@field stopping moonbird.error|nil
---@field outcome string|nil the status that follows from stopping
---@field density number|nil rows of a block, for tables without a key
---@field told { level: string, at: integer }|nil the last line of the log about the throttle
---@field paused boolean|nil its state says "paused" until a worker goes on
---@field grow fun()|nil starts the workers that are missing
local M = {}
M.__index = M

--- The options of a backfill, as the limits, the command and the migration have them.
---@param def moonbird.backfill.definition
---@param limits table|nil raw
---@param run moonbird.run
---@param settings moonbird.backfill.settings
---@return table<string, any>
function M.options(def, limits, run, settings)
  local options = definition_of.settle(def, limits, run.config.backfill)
  if settings.one_worker then
    options.workers = 1
  elseif settings.workers and not (limits and limits.workers) then
    options.workers = settings.workers
  end
  return options
end

---@param fields { target: table, step: table, store: table, state: table, place: table, settings: table }
---@return moonbird.backfill.job
function M.new(fields)
  local self = setmetatable({ target = fields.target, run = fields.target.run, step = fields.step,
    def = fields.step.migration.backfill, store = fields.store, state = fields.state, place = fields.place,
    settings = fields.settings, texts = {}, handles = setmetatable({}, { __mode = "k" }), workers = {},
    counters = { seen = 0, changed = 0, skipped = 0, batches = 0 }, started = task.now(), level = "ok" }, M)
  self.literal_target = sql.literal(fields.target.name)
  self.options = M.options(self.def, fields.state.limits, self.run, self.settings)
  self.limits_text = nil
  self.size = size_of.new { target = self.options.batch_target, min = self.options.min, max = self.options.max,
    start = self.options.start or fields.batch }
  if fields.settings.max_runtime then
    self.deadline = task.now() + fields.settings.max_runtime
  end
  local rows, pages = 0, 0
  for _, leaf in ipairs(self.place.leaves) do
    rows, pages = rows + leaf.rows, pages + leaf.pages
  end
  self.density = rows > 0 and pages > 0 and math.max(1, rows / pages) or nil
  return self
end

--- Tells whoever watches.
---@param event moonbird.backfill.event
function M:emit(event)
  local observer = self.settings.observer
  if observer then
    observer:event(self, event)
  else
    require("moonbird.exec.backfill.tell").event(self, event)
  end
end

--- Ends the work after the batches that are under way.
---@param err moonbird.error why
---@param outcome "paused"|"failed"|"cancelled"
function M:stop(err, outcome)
  if not self.stopping then
    self.stopping, self.outcome = err, outcome
  end
end

--- Looks whether it is time to stop. Called between batches, and while one is waited for.
function M:check()
  if self.deadline and task.now() >= self.deadline then
    self:stop(error_.new("unfinished", "the time for the backfill is over and work remains",
      { hint = "run it again: it goes on from here" }), "paused")
  end
end

--- A batch is committed.
---@param worker moonbird.backfill.worker
---@param chunk moonbird.backfill.chunk
---@param result moonbird.backfill.result
function M:counted(worker, chunk, result)
  local counters = self.counters
  counters.seen = counters.seen + result.seen
  counters.changed = counters.changed + result.changed
  counters.skipped = counters.skipped + result.skipped
  counters.batches = counters.batches + 1
  self:emit { kind = "batch", worker = worker.index, rows = result.seen, changed = result.changed, ms = result.ms,
    size = self.size:current(), relation = chunk.relation, done = result.done }
end

--- The limits as a batch read them: when they changed, they count from the next batch on.
---@param text string JSON
function M:limit(text)
  if text == self.limits_text then
    return
  end
  local first = self.limits_text == nil
  self.limits_text = text
  self.state.limits = json.decode(text) or {}
  self.options = M.options(self.def, self.state.limits, self.run, self.settings)
  self.size:configure { target = self.options.batch_target, min = self.options.min, max = self.options.max }
  if self.throttle and self.throttle.configure then
    self.throttle:configure(self.options)
  end
  if self.grow then
    self.grow()
  end
  if not first then
    self:emit { kind = "limits", limits = self.state.limits }
  end
end

--- What the throttle said.
---@param level "ok"|"slow"|"stop"
---@param reason? string
function M:throttled(level, reason)
  if level == self.level and reason == self.reason then
    return
  end
  -- slow halves the size once until all is well again; between slow and stop it stays.
  if level == "slow" and not self.slowed then
    self.size:throttled(true)
  elseif level == "ok" then
    self.size:throttled(false)
  end
  self.slowed = level == "slow" or level == "stop" and self.slowed
  self.level, self.reason = level, reason
  self:emit { kind = "throttle", level = level, reason = reason }
end

return M
