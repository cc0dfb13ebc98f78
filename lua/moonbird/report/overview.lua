--- Where the tenants stand, for people and as data: counts, and those that are not where they should be.
local backfill = require "moonbird.report.backfill"
local json = require "moonbird.core.json"
local style = require "moonbird.report.style"
local text = require "moonbird.util.text"

local M = {}

local SHOWN = 20

-- In the order in which they are told; the first is what is well.
local ORDER = { "current", "behind", "failed", "interrupted", "late", "changed", "missing", "unreachable", "running",
  "backfill", "pinned", "ahead" }

-- Those that `up` has to do with, or a person.
local OPEN = { behind = true, failed = true, interrupted = true, running = true, late = true, changed = true,
  missing = true, unreachable = true, ahead = true, backfill = true }

--- 10000 as "10,000".
---@param n integer
---@return string
function M.number(n)
  local digits = tostring(n):reverse():gsub("(%d%d%d)", "%1,"):reverse()
  return (digits:gsub("^,", ""))
end

--- Counts of rows by a key -> list of { key, count }, the most frequent first.
local function counted(rows, state, key_of)
  local counts, list = {}, {}
  for _, row in ipairs(rows) do
    if row.state == state then
      local key = key_of(row)
      if not counts[key] then
        counts[key] = { key = key, count = 0 }
        list[#list + 1] = counts[key]
      end
      counts[key].count = counts[key].count + 1
    end
  end
  table.sort(list, function(a, b)
    if a.count ~= b.count then
      return a.count > b.count
    end
    return a.key < b.key
  end)
  return list
end

local PHRASES = {
  current = function(rows, parts)
    for _, group in ipairs(counted(rows, "current", function(row)
      return row.version or 0
    end)) do
      parts[#parts + 1] = group.key == 0 and ("%s with nothing to apply"):format(M.number(group.count))
        or ("%s at %d"):format(M.number(group.count), group.key)
    end
  end,
  behind = function(rows, parts)
    for _, group in ipairs(counted(rows, "behind", function(row)
      return row.behind
    end)) do
      parts[#parts + 1] = ("%s behind by %d"):format(M.number(group.count), group.key)
    end
  end,
}

local WORDS = { backfill = "in a backfill" }

local function tally(rows)
  local counts = {}
  for _, row in ipairs(rows) do
    counts[row.state] = (counts[row.state] or 0) + 1
  end
  return counts
end

--- The sentence: "9,812 at 20250110093000, 187 behind by 2, 1 failed".
---@param rows moonbird.tenants.row[]
---@return string
function M.sentence(rows)
  local counts, parts = tally(rows), {}
  for _, state in ipairs(ORDER) do
    if PHRASES[state] then
      PHRASES[state](rows, parts)
    elseif counts[state] then
      parts[#parts + 1] = ("%s %s"):format(M.number(counts[state]), WORDS[state] or state)
    end
  end
  return #parts > 0 and table.concat(parts, ", ") or "none"
end

local RANK = {}
for i, state in ipairs(ORDER) do
  RANK[state] = state == "behind" and #ORDER + 1 or i -- many, and the least of worries
end

local function exceptions(rows)
  local list = {}
  for _, row in ipairs(rows) do
    if row.state ~= "current" then
      list[#list + 1] = row
    end
  end
  table.sort(list, function(a, b)
    if RANK[a.state] ~= RANK[b.state] then
      return RANK[a.state] < RANK[b.state]
    end
    return a.name < b.name
  end)
  return list
end

local function note_of(row)
  local note = row.note or row.behind > 0 and "behind by " .. row.behind or ""
  if row.pin and row.state ~= "pinned" then
    note = ("%s%spinned to %d: %s"):format(note, note ~= "" and "; " or "", row.pin.to, row.pin.reason)
  end
  return (note:gsub("%s+", " "))
end

--- Shows it.
---@param report moonbird.reporter
---@param overview moonbird.tenants.overview
---@param all? boolean every tenant, not only the exceptions
function M.print(report, overview, all)
  local out = report.out
  report:write(("Tenants: %s\n"):format(M.sentence(overview.rows)))
  local begun = overview.backfills
  if begun.tenants > 0 then
    report:write(("Backfills: unfinished on %s, %s of ~%s rows\n"):format(text.count(begun.tenants, "tenant"),
      backfill.rows(begun.rows), backfill.rows(begun.rows_estimated)))
  end
  local list = all and overview.rows or exceptions(overview.rows)
  local lines = {}
  for i = 1, all and #list or math.min(#list, SHOWN) do
    local row = list[i]
    local colour = row.state == "current" and out.green or (row.state == "pinned" and out.dim)
      or (row.state == "behind" or row.state == "backfill") and out.yellow or out.red
    lines[i] = { "  " .. row.name, colour(row.state), row.version and tostring(row.version) or "-", note_of(row) }
  end
  report:write(style.columns(lines))
  if #list > #lines then
    report:write(("  and %s more; --all lists every tenant\n"):format(M.number(#list - #lines)))
  end
  local held = 0
  for _ in pairs(overview.held) do
    held = held + 1
  end
  if held > 0 then
    report:write(("  %s of tenants held back\n"):format(text.count(held, "migration")))
  end
end

local function data_row(row)
  return { name = row.name, state = row.state, version = row.version, behind = row.behind, note = row.note,
    pin = row.pin and { to = row.pin.to, reason = row.pin.reason } or nil }
end

--- As data.
---@param overview moonbird.tenants.overview
---@param all? boolean
---@return table
function M.data(overview, all)
  local counts = tally(overview.rows)
  local summary = {}
  for _, state in ipairs(ORDER) do
    summary[state] = counts[state] or 0
  end
  local versions = json.array {}
  for i, group in ipairs(counted(overview.rows, "current", function(row)
    return row.version or 0
  end)) do
    versions[i] = { version = group.key > 0 and group.key or nil, count = group.count }
  end
  local list = json.array {}
  for i, row in ipairs(all and overview.rows or exceptions(overview.rows)) do
    list[i] = data_row(row)
  end
  return { total = #overview.rows, summary = summary, current = versions, backfills = overview.backfills,
    tenants = list }
end

--- Whether anything is to be done.
---@param overview moonbird.tenants.overview
---@return boolean
function M.open(overview)
  for _, row in ipairs(overview.rows) do
    if OPEN[row.state] then
      return true
    end
  end
  return false
end

return M
