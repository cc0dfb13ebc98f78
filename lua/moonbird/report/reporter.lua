--- What a run tells while it works: lines of progress, the log, a live line on a terminal.
--
-- Results go to stdout, the log and the live line to stderr. With --json nothing but the final object is
-- written to stdout; the log stays.
local duration = require "moonbird.util.duration"
local failure = require "moonbird.report.failure"
local json = require "moonbird.core.json"
local style_of = require "moonbird.report.style"
local sys = require "moonbird.core.sys"
local task = require "moonbird.core.task"

---@class moonbird.reporter
local M = {}
M.__index = M

local LEVELS = { error = 1, warn = 2, notice = 3, info = 3, debug = 4, trace = 5 }
local SPINNER = { "⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏" }

---@class moonbird.reporter.options
---@field json boolean
---@field level "error"|"warn"|"info"|"debug"|"trace" most that is logged
---@field quiet boolean no progress on stdout
---@field colour { out: boolean, err: boolean }
---@field live boolean a live line on stderr
---@field log_format "text"|"json"

--- Makes a reporter.
---@param options moonbird.reporter.options
---@return moonbird.reporter
function M.new(options)
  return setmetatable({
    options = options,
    level = LEVELS[options.level],
    out = style_of.new(options.colour.out),
    err = style_of.new(options.colour.err),
    live_shown = false,
    statements = false,
    notices = {},
  }, M)
end

-- Writing -----------------------------------------------------------------------------------------------

local function clear_live(self)
  if self.live_shown then
    sys.write(2, "\r\27[K")
    self.live_shown = false
  end
end

--- Writes results. A reader that has gone (`moonbird history | head`) is no failure; a full disk is one.
local function write_out(self, text)
  local ok, message, name = sys.write(1, text)
  if not ok and name ~= "EPIPE" then
    self.unwritten = self.unwritten or message
  end
end

--- The result as one JSON object.
---@param object table
function M:data(object)
  write_out(self, json.encode(object, true) .. "\n")
end

--- A line of results for people.
---@param text string
function M:print(text)
  if self.options.json or self.options.quiet then
    return
  end
  clear_live(self)
  write_out(self, text .. "\n")
end

--- A piece of results for people, written as it is; shown also with --quiet.
---@param text string
function M:write(text)
  if not self.options.json then
    clear_live(self)
    write_out(self, text)
  end
end

local function live(self, text)
  if self.options.live then
    sys.write(2, "\r\27[K" .. text)
    self.live_shown = true
  end
end

--- Shows a line that the next one replaces; nothing where stderr is no terminal.
---@param text string
function M:live(text)
  local columns = sys.columns(2) or 80
  if style_of.width(text) >= columns then
    text = text:sub(1, utf8.offset(text, columns) - 1)
  end
  live(self, text)
end

--- A line of the log.
---@param level "error"|"warn"|"notice"|"info"|"debug"|"trace"
---@param message string
---@param step? moonbird.step
function M:log(level, message, step)
  if LEVELS[level] > self.level then
    return
  end
  clear_live(self)
  local id = step and step.migration and step.migration.id
  if self.options.log_format == "json" then
    local t = sys.utc()
    sys.write(2, json.encode {
      time = ("%04d-%02d-%02dT%02d:%02d:%02dZ"):format(t.year, t.month, t.day, t.hour, t.min, t.sec),
      level = level, message = message, migration = id,
    } .. "\n")
    return
  end
  local colour = level == "warn" and self.err.yellow or level == "error" and self.err.red or self.err.dim
  sys.write(2, ("%s %s%s\n"):format(colour(level .. ":"), id and ("[%s] "):format(id) or "", message))
end

--- An error for people, on stderr.
---@param err moonbird.error
function M:failure(err)
  clear_live(self)
  if self.options.log_format == "json" then
    local data = failure.data(err)
    data.level = "error"
    sys.write(2, json.encode(data) .. "\n")
  else
    sys.write(2, failure.text(err, self.err))
  end
  if err.traceback and self.level >= LEVELS.debug then
    sys.write(2, tostring(err.traceback) .. "\n")
  end
end

-- What happens in a run -----------------------------------------------------------------------------------

local NOTICE_LEVELS = { WARNING = "warn", NOTICE = "notice", INFO = "info" }

--- A notice of the server.
---@param notice table
function M:notice(notice)
  if self.muted then
    return
  end
  local level = NOTICE_LEVELS[notice.severity] or "debug"
  local text = notice.message
  if notice.detail then
    text = text .. " (" .. notice.detail .. ")"
  end
  -- "relation already exists, skipping" is noise for those who wrote IF NOT EXISTS.
  if notice.sqlstate == "42P07" or notice.sqlstate == "42P06" or notice.sqlstate == "00000" and level == "debug" then
    level = "debug"
  end
  self:log(level, text, self.step)
end

--- A plan was made.
---@param target moonbird.target
---@param steps moonbird.step[]
function M:plan(target, steps)
  self.width = 0
  for _, step in ipairs(steps) do
    self.width = math.max(self.width, #step.migration.id)
  end
  self:log("debug", ("%d steps to do on %s, head %d"):format(#steps, target.name, target.head))
end

--- A step begins.
---@param step moonbird.step
function M:step_started(step)
  self.step = step
  self.started = task.now()
  self:log("debug", ("%s begins"):format(step.direction), step)
end

--- Ends a series of equal statements.
local function end_repeats(self)
  local n = self.repeats or 0
  self.repeats, self.last_statement = 0, nil
  if n > 0 then
    self:print(self.out.dim(("    -- the same %d more times"):format(n)))
  end
end

--- Whether statements are printed as results (a dry run does).
---@param on boolean
function M:show_statements(on)
  end_repeats(self)
  self.statements = on
end

--- A statement is about to be sent.
---@param step moonbird.step
---@param text string
---@param st table
function M:statement(step, text, st)
  if self.statements then
    local slice = text:sub(st.first, st.last)
    if slice == self.last_statement then
      self.repeats = self.repeats + 1
      return
    end
    end_repeats(self)
    self.last_statement = slice
    self:print(self.out.dim("    " .. slice:gsub("\n", "\n    ") .. ";"))
  elseif self.level >= LEVELS.trace then
    self:log("trace", text:sub(st.first, st.last), step)
  end
end

local VERBS = { up = "applied", down = "reverted" }

local function step_line(self, verb, step, ms, more)
  local id = step.migration.id
  self:print(("%s %s%s  %s"):format(verb, id, (" "):rep((self.width or 0) - #id),
    self.out.dim(duration.format(ms) .. (more or ""))))
end

local NOTHING = { up = ", nothing of it was kept", down = ", nothing of it was taken back" }

--- What is left of a step that failed. A lost connection leaves that open, and a backfill tells it itself.
local function left(step, err, whole)
  if err.code == "connection_lost" or step.direction == "up" and step.migration.backfill then
    return nil
  end
  return whole and NOTHING[step.direction] or ", what it did before the error stays"
end

--- A step was committed.
---@param step moonbird.step
---@param ms integer
function M:step_done(step, ms)
  self.step = nil
  step_line(self, self.out.green(VERBS[step.direction]), step, ms)
end

--- A step failed.
---@param step moonbird.step
---@param err moonbird.error
---@param ms integer
---@param whole boolean nothing of it is left
function M:step_failed(step, err, ms, whole)
  self.step = nil
  -- As wide as the other verb, so that the names stay in one column.
  local verb = self.out.red("failed") .. (" "):rep(#VERBS[step.direction] - #"failed")
  step_line(self, verb, step, ms, left(step, err, whole))
end

--- A step is running; called a few times a second.
---@param step moonbird.step
---@param blockers table[]
function M:running(step, blockers)
  if not self.options.live then
    return
  end
  local elapsed = task.now() - (self.started or task.now())
  local spin = SPINNER[(elapsed // 250) % #SPINNER + 1]
  local text = ("%s %s  %s"):format(spin, step.migration.id, duration.format(elapsed))
  if blockers[1] then
    text = text .. "  waiting for a lock held by " .. failure.blocker(blockers[1])
  end
  local columns = sys.columns(2) or 80
  if style_of.width(text) >= columns then
    text = text:sub(1, utf8.offset(text, columns) - 1)
  end
  live(self, self.err.cyan(text))
end

--- The target's lock is held by another runner.
---@param target moonbird.target
---@param holder table|nil
function M:waiting_for_lock(target, holder)
  local who = holder and ("%s (pid %d, on %s)"):format(holder.application, holder.pid, holder.client)
    or "another runner"
  local text = ("waiting for the lock of %s, held by %s"):format(target.name, who)
  if self.options.live then
    live(self, self.err.yellow(text .. (holder and (" for %.0fs"):format(holder.since_s or 0) or "")))
  elseif self.last_wait ~= text then
    self.last_wait = text
    self:log("info", text)
  end
end

--- An interrupted run's backend is still at work.
---@param pid? integer nil: it ended while it was looked for
function M:waiting_for_backend(pid)
  if pid and self.last_backend ~= pid then
    self.last_backend = pid
    self:log("info", ("waiting for backend %d, which still runs a statement of an interrupted run"):format(pid))
  end
end

--- An attempt failed on a lock and will be made again.
---@param step moonbird.step
---@param err moonbird.error
---@param attempt integer
---@param lock integer ms waited
---@param blockers table[]|nil
function M:blocked(step, err, attempt, lock, blockers)
  local who = blockers and blockers[1] and failure.blocker(blockers[1]) or "nobody seen"
  self:log("warn", ("attempt %d: %s after %s, blocked by %s; trying again"):format(attempt, err.message,
    duration.format(lock), who), step)
end

--- Ends the live line.
function M:finish()
  clear_live(self)
end

return M
