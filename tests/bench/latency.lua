--- How long pgbench's transactions take while something else works on the same table.
local binaries = require "moonbird.core.cluster_binaries"
local fs = require "moonbird.core.fs"
local process = require "moonbird.core.process"
local sys = require "moonbird.core.sys"
local task = require "moonbird.core.task"

local M = {}

local CLIENTS = 4
-- Transactions a second: what two cores leave room beside. As fast as they can the clients would measure the machine,
-- and those that wait would send nothing to be counted; with a rate the time counts from when it was due.
local RATE = 1000
local ALONE = 10000 -- milliseconds
local UNFINISHED = 75 -- of a backfill whose time was over
local MOST = 3600 -- seconds; it is ended when the other one is

local SCRIPT = [[
\set id random(1, %d)
select points, display from people where id = :id;
update people set points = points + 1 where id = :id;
]]

--- Transactions that began between two moments, by their latency in ms, sorted.
local function latencies(dir, from, to)
  local list = {}
  for _, name in ipairs(assert(fs.names(dir))) do
    for line in io.lines(dir .. "/" .. name) do
      local us, seconds, micros = line:match("^%d+ %d+ (%d+) %d+ (%d+) (%d+)")
      local at = seconds and tonumber(seconds) + (tonumber(micros) - tonumber(us)) / 1e6 or 0 -- the last may be cut off
      if at >= from and at <= to then
        list[#list + 1] = tonumber(us) / 1000
      end
    end
  end
  table.sort(list)
  return list
end

--- The 99th percentile and the longest, in ms, of pgbench's transactions while a command runs, or alone.
local function measure(b, dir, name, command)
  assert(fs.mkdir(dir))
  local writers <close> = assert(process.spawn { file = assert(binaries.find()).bin .. "/pgbench", args = { "-n",
    "-R", tostring(RATE), "-c", tostring(CLIENTS), "-j", "1", "-T", tostring(MOST), "-f", b.dir .. "/pgbench.sql", "-l",
    "--log-prefix=" .. dir .. "/log", b.url(name) } })
  task.sleep(1000) -- until all are connected and the caches are as they stay
  local from = sys.time()
  if command then
    local result = assert(process.run { file = command[1], args = { table.unpack(command, 2) } })
    assert(result.status == 0 or result.status == UNFINISHED, result.stderr)
  else
    task.sleep(ALONE)
  end
  local to = sys.time()
  task.sleep(1000) -- for those that waited
  writers:kill("INT")
  local ended = assert(writers:wait())
  local list = latencies(dir, from, to)
  assert(fs.remove_tree(dir))
  assert(#list > 0, ended.stderr)
  return list[math.max(1, math.floor(#list * 0.99))], list[#list], to - from, #list
end

--- Runs them in turns -> median p99 in ms by name.
---@param b table bench.lua's helpers
---@param rounds integer
---@param contenders { name: string, command: nil|fun(database: string): string[], rows: nil|fun(database: string):
---       integer }[] `rows` counts what the command did
---@param prepare fun(database: string)
---@return table<string, number>
function M.compare(b, rounds, contenders, prepare)
  local file = assert(io.open(b.dir .. "/pgbench.sql", "w"))
  file:write(SCRIPT:format(b.rows))
  file:close()
  local found, medians = {}, {}
  for round = 1, rounds do
    for k = 0, #contenders - 1 do
      local c = contenders[(round + k) % #contenders + 1]
      local name = "people_latency"
      prepare(name)
      local p99, longest, seconds, count = measure(b, b.dir .. "/log", name, c.command and c.command(name))
      local rows = c.rows and c.rows(name) or nil
      b.note(("  %s: p99 %.1f ms, longest %.1f ms, %.0f transactions/s for %.1f s%s"):format(c.name, p99, longest,
        count / seconds, seconds, rows and (", %.0f rows/s"):format(rows / seconds) or ""))
      found[c.name] = found[c.name] or {}
      table.insert(found[c.name], p99)
    end
  end
  for name, list in pairs(found) do
    table.sort(list)
    medians[name] = list[(#list + 1) // 2]
  end
  return medians
end

return M
