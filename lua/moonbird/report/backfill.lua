--- What is told while backfills run, and what `backfill list|show|explain` print: a bar on a terminal, a line every few
-- seconds elsewhere, events with --json.
local clean = require "moonbird.report.clean"
local duration = require "moonbird.util.duration"
local json = require "moonbird.core.json"
local size = require "moonbird.util.size"
local style = require "moonbird.report.style"
local sys = require "moonbird.core.sys"
local task = require "moonbird.core.task"
local text = require "moonbird.util.text"

---@class moonbird.report.backfill
local M = {}
M.__index = M

local LIVE_MS, LINE_MS = 100, 5000
local BAR = 24
-- Seconds without a batch after which nobody may be at work any more.
local SILENT_S = 60
-- The rate is smoothed over about so many milliseconds.
local WINDOW = 5000

--- Makes an observer of backfills on top of a reporter.
---@param report moonbird.reporter
---@param tell? { event: fun(job: table, event: table) } what else is told of each event, as lines of the log
---@return moonbird.report.backfill
function M.new(report, tell)
  return setmetatable({ report = report, tell = tell, told = task.now(), shown = 0, meters = {}, count = 0 }, M)
end

--- Rows for people: "950", "12.3k", "4.1M".
---@param n number
---@return string
function M.rows(n)
  if n < 10000 then
    return ("%d"):format(math.floor(n))
  elseif n < 1e6 then
    return ("%.1fk"):format(n / 1000)
  end
  return n < 1e9 and ("%.1fM"):format(n / 1e6) or ("%.1fG"):format(n / 1e9)
end

--- A backfill's meter. Tenants take turns, and each turn is a job of its own: the meter is the backfill's.
local function meter(self, job)
  local name = ("%s\0%d"):format(job.target.name, job.step.migration.version)
  local one = self.meters[name]
  if not one then
    one = { seen = 0, base = 0, at = task.now(), rate = nil, level = "ok" }
    self.meters[name] = one
    self.count = self.count + 1
  end
  one.job = job
  return one
end

--- It begins, or goes on in another turn.
local function begin(one, rows)
  one.base, one.seen, one.ended = rows, 0, nil
  one.at, one.fresh = task.now(), 0
end

local function measure(one, rows)
  one.seen = one.seen + rows
  one.fresh = (one.fresh or 0) + rows
  local now = task.now()
  local passed = now - one.at
  if passed >= 250 then
    local rate = one.fresh * 1000 / passed
    local weight = math.min(1, passed / WINDOW)
    one.rate = one.rate and one.rate + weight * (rate - one.rate) or rate
    one.at, one.fresh = now, 0
  end
end

--- Where a job is, as data.
local function numbers(self, job)
  local one = meter(self, job)
  local done, total = one.base + one.seen, job.state.rows_estimated
  local decision = job.throttle and job.throttle.decision
  local left = math.max(0, total - done)
  return { migration = job.step.migration.id, target = job.target.name, rows = done, changed = job.counters.changed,
    total = total, share = total > 0 and math.min(1, done / total) or 0,
    rate = one.rate and math.floor(one.rate) or nil,
    eta_ms = one.rate and one.rate > 0 and math.floor(left / one.rate * 1000) or nil, batch = job.size:current(),
    lag_bytes = decision and decision.lag or nil, throttle = job.level, reason = job.reason }
end

local function sum(self)
  local total = { rows = 0, total = 0, rate = 0, batch = 0, running = 0 }
  for _, one in pairs(self.meters) do
    local n = numbers(self, one.job)
    total.rows, total.total = total.rows + n.rows, total.total + n.total
    total.rate = total.rate + (not one.ended and n.rate or 0)
    total.batch = math.max(total.batch, n.batch)
    total.lag_bytes = n.lag_bytes and math.max(n.lag_bytes, total.lag_bytes or 0) or total.lag_bytes
    if not one.ended and n.throttle ~= "ok" and total.throttle ~= "stop" then
      total.throttle, total.reason = n.throttle, n.reason
    end
    total.running = total.running + (one.ended and 0 or 1)
  end
  total.share = total.total > 0 and math.min(1, total.rows / total.total) or 0
  total.eta_ms = total.rate > 0 and math.floor(math.max(0, total.total - total.rows) / total.rate * 1000) or nil
  return total
end

--- A line of progress.
---@param n table rows, total, share, rate, eta_ms, batch, lag_bytes, throttle, reason
---@return string
function M.line(n)
  local parts = { ("%s of %s rows (%.0f%%)"):format(M.rows(n.rows), n.total > 0 and "~" .. M.rows(n.total) or "?",
    math.floor(n.share * 100)) }
  if n.rate then
    parts[#parts + 1] = M.rows(n.rate) .. "/s"
  end
  if n.eta_ms and n.share < 1 then
    parts[#parts + 1] = duration.format(n.eta_ms) .. " left"
  end
  parts[#parts + 1] = "batch " .. M.rows(n.batch)
  if n.lag_bytes then
    parts[#parts + 1] = "lag " .. size.format(math.max(0, n.lag_bytes))
  end
  if n.throttle and n.throttle ~= "ok" then
    parts[#parts + 1] = ("%s: %s"):format(n.throttle == "stop" and "waits" or "slow", clean.line(n.reason or "?"))
  end
  return table.concat(parts, ", ")
end

local function event(self, name, fields)
  if self.report.options.json then
    fields.event = name
    sys.write(2, json.encode(fields) .. "\n")
  end
end

local function show(self, job, force)
  local now = task.now()
  local live = self.report.options.live
  if not force and now - self.told < (live and LIVE_MS or LINE_MS) then
    return
  end
  self.told = now
  local n = self.count == 1 and numbers(self, job) or sum(self)
  local line = M.line(n)
  if live then
    local filled = math.floor(n.share * BAR)
    self.report:live(("%s%s %s"):format(("█"):rep(filled), ("░"):rep(BAR - filled), line))
  else
    self.report:log("info", line, self.count == 1 and job.step or nil)
  end
  event(self, "backfill_progress", n)
end

--- While nothing moves (a pause, a throttle that says stop) the line still has to: calls show now and then.
local function keep_showing(self, job)
  local one = meter(self, job)
  if one.ticker or not self.report.options.live then
    return
  end
  one.ticker = task.spawn(function()
    while task.sleep(500) and not one.ended do
      show(self, job)
    end
  end)
end

local QUIET = { batch = true }

--- Takes an event of a backfill.
---@param job moonbird.backfill.job
---@param what moonbird.backfill.event
function M:event(job, what)
  local one = meter(self, job)
  if self.tell then
    self.tell.event(job, what)
  end
  if not QUIET[what.kind] then
    event(self, "backfill_" .. what.kind, { migration = job.step.migration.id, target = job.target.name,
      rows = what.rows, changed = what.changed, level = what.level, reason = what.reason, worker = what.worker,
      key = what.key, batches = what.batches, errors = what.errors, status = what.status,
      error = what.error and what.error.message, sqlstate = what.error and what.error.sqlstate })
  end
  if what.kind == "start" then
    begin(one, 0)
    keep_showing(self, job)
  elseif what.kind == "resume" then
    begin(one, what.rows or 0)
    keep_showing(self, job)
  elseif what.kind == "batch" then
    measure(one, what.rows)
    show(self, job)
  elseif what.kind == "done" or what.kind == "stopped" then
    one.ended = true
    if one.ticker then
      one.ticker:cancel()
      one.ticker = nil
    end
    self.report:finish()
  end
end

--- What a backfill came to, of the journal's detail.
---@param detail table rows, changed, skipped, batches, errors
---@return string
function M.totals(detail)
  return ("%s looked at, %s changed in %s%s%s"):format(text.count(detail.rows, "row"), detail.changed,
    text.count(detail.batches, "batch", "batches"),
    detail.skipped > 0 and (", %d skipped"):format(detail.skipped) or "",
    detail.errors > 0 and (", %d passed over"):format(detail.errors) or "")
end

-- list, show, explain --------------------------------------------------------------------------------------

--- A backfill as data.
---@param row table
---@return table
function M.data(row)
  return { target = row.target, version = row.version, id = row.id, mode = row.mode, table = row.relation,
    status = row.status, want = row.want, limits = next(row.limits or {}) and row.limits or nil,
    rows = row.rows_seen, changed = row.rows_changed, skipped = row.rows_skipped, rows_estimated = row.rows_estimated,
    share = row.share, batches = row.batches, chunks = row.chunks, chunks_done = row.chunks_done, pass = row.pass,
    errors = row.errors, rate = row.rate and math.floor(row.rate), eta_ms = row.eta_ms, batch = row.batch,
    throttle = row.throttle,
    want_by = row.want_by, run = row.run, host = row.host, user = row.os_user, error = row.error,
    sqlstate = row.sqlstate, idle_s = row.idle_s }
end

--- What a backfill is doing, in a word or two.
---@param row table
---@return string
function M.status(row)
  if row.want == "cancel" and row.status ~= "done" then
    -- Who is at work ends in the next batch, or in a moment where it waits; else there is nobody to wait for.
    return row.status == "running" and (row.idle_s or 0) <= SILENT_S and "cancelling" or "cancelled"
  elseif row.want == "pause" and row.status == "running" then
    return "pausing"
  elseif row.status == "running" and (row.idle_s or 0) > SILENT_S then
    return "silent"
  end
  return row.status
end

local function share(row)
  return ("%d%%"):format(math.floor((row.share or 0) * 100))
end

--- Where a backfill is, in a few words: "running, 43%", "paused by ada on laptop, 43%", "failed, 43%: ...".
---@param row table of the view backfill_progress
---@return string
function M.words(row)
  local by = row.want ~= "run" and row.want_by and " by " .. row.want_by or ""
  local why = row.status == "failed" and row.error and ": " .. row.error or ""
  return clean.line(("%s%s, %s%s"):format(M.status(row), by, share(row), why))
end

--- Prints the list.
---@param report moonbird.reporter
---@param rows table[]
function M.list(report, rows)
  local lines, named = {}, false
  for _, row in ipairs(rows) do
    named = named or row.target ~= "global"
  end
  for i, row in ipairs(rows) do
    local line = { clean.line(row.id), M.status(row), row.rows_seen and share(row) or "",
      row.rows_seen and ("%s of ~%s rows"):format(M.rows(row.rows_seen), M.rows(row.rows_estimated)) or "",
      row.rate and M.rows(row.rate) .. "/s" or "", row.eta_ms and duration.format(row.eta_ms) .. " left" or "",
      row.errors and row.errors > 0 and report.out.red(text.count(row.errors, "error")) or "",
      row.status == "running" and row.throttle and row.throttle.level ~= "ok" and ("%s: %s"):format(row.throttle.level,
        clean.line(row.throttle.reason or "?")) or "" }
    if named then
      table.insert(line, 1, clean.line(row.target))
    end
    lines[i] = line
  end
  if #rows == 0 then
    report:print("no backfills")
  else
    report:write(style.columns(lines))
  end
end

--- Prints one backfill.
---@param report moonbird.reporter
---@param row table
---@param errors table[]
function M.show(report, row, errors)
  local lines = { { "status", M.status(row) }, { "target", clean.line(row.target) },
    { "table", clean.line(row.relation) },
    { "rows", ("%s of about %s looked at (%s), %s changed, %s skipped"):format(M.rows(row.rows_seen),
      M.rows(row.rows_estimated), share(row), M.rows(row.rows_changed), M.rows(row.rows_skipped)) },
    { "batches", ("%d, last of %s; %d of %d chunks done, pass %d"):format(row.batches,
      row.batch and text.count(row.batch, "row") or "?", row.chunks_done, row.chunks, row.pass) } }
  local function add(name, value)
    if value then
      lines[#lines + 1] = { name, value }
    end
  end
  add("rate", row.rate and ("%s rows/s while it works%s"):format(M.rows(row.rate),
    row.eta_ms and ", " .. duration.format(row.eta_ms) .. " left" or ""))
  add("wanted", row.want ~= "run" and row.status ~= "done"
    and ("%s, by %s"):format(row.want, clean.line(row.want_by or "?")))
  add("last batch", row.idle_s and row.status ~= "done" and duration.format(math.floor(row.idle_s * 1000)) .. " ago")
  local throttle = row.status == "running" and row.throttle or {}
  add("throttle", throttle.level and throttle.level ~= "ok" and ("%s: %s"):format(throttle.level,
    clean.line(throttle.reason or "?")))
  add("lag", throttle.lag_bytes and size.format(math.max(0, throttle.lag_bytes)))
  local limits = {}
  for name, value in pairs(row.limits or {}) do
    limits[#limits + 1] = ("%s=%s"):format(name, tostring(value))
  end
  table.sort(limits)
  add("limits", limits[1] and clean.line(table.concat(limits, " ")))
  add("run", ("%s by %s on %s"):format(row.run:sub(1, 8), clean.line(row.os_user or "?"), clean.line(row.host or "?")))
  add("error", row.error and clean.line(("%s%s"):format(row.error, row.sqlstate and " [" .. row.sqlstate .. "]" or "")))
  report:write(report.out.bold(clean.line(row.id)) .. "\n" .. style.columns(lines, "  "))
  local list = {}
  for i = 1, math.min(#errors, 20) do
    local e = errors[i]
    list[i] = { clean.line(e.relation), clean.line(e.key), e.sqlstate or "", clean.line(e.message),
      e.tries > 1 and text.count(e.tries, "try", "tries") or "" }
  end
  if #list > 0 then
    report:write(("\n%s passed over:\n"):format(text.count(#errors, "row")) .. style.columns(list, "  "))
    if #errors > #list then
      report:write(("  and %d more\n"):format(#errors - #list))
    end
  end
end

--- Prints what `explain` found.
---@param report moonbird.reporter
---@param found table
function M.explain(report, found)
  report:write(report.out.bold(clean.line(found.id)) .. "\n")
  local lines = { { "table", ("%s%s"):format(found.table, found.parts > 1 and (" in %d parts"):format(found.parts)
    or "") }, { "key", found.key[1] and table.concat(found.key, ", ") or "none: by ctid" },
    { "rows", ("about %s%s"):format(M.rows(found.rows), found.matching
      and (", %s of them match the where"):format(M.rows(found.matching)) or "") },
    { "time", found.empty and "none: the table is empty" or ("about %s%s"):format(duration.format(found.duration_ms),
      found.measured and ", as its batches so far tell" or ", roughly: nothing has run yet") },
    { "batches", ("%s each, %d to %d rows, %s"):format(duration.format(found.options.batch_target_ms),
      found.options.min, found.options.max, text.count(found.options.workers, "worker")) } }
  report:write(style.columns(lines, "  "))
  if found.plan then
    report:write("\nplan of a batch:\n")
    for _, line in ipairs(found.plan) do
      report:write("  " .. clean.line(line) .. "\n")
    end
  end
  for _, warning in ipairs(found.warnings) do
    report:write(report.out.yellow("warning: ") .. clean.line(warning) .. "\n")
  end
end

return M
