--- What became of a run, read from the shared rows into the context of a command: its report tells of the whole
-- fleet's work, whoever did it.
local error_ = require "moonbird.core.error"

local M = {}

--- An item's error as it was.
---@param item table
---@return moonbird.error
function M.error(item)
  local code = item.code and error_.codes()[item.code] and item.code or "migration"
  return error_.new(code, item.error or "failed", { sqlstate = item.sqlstate, migration = item.migration,
    file = item.file, line = item.line, target = item.tenant })
end

--- Fills the context of a worker whose run has ended.
---@param worker moonbird.fleet.member
---@return moonbird.error? err also that of a run which ended early with nobody failed
function M.read(worker)
  local context, name = worker.context, worker.name
  local row, items
  local ok, err = worker.link:call(function(session)
    local wrong
    row, wrong = worker.fleet:show(session, name)
    if row then
      items, wrong = worker.fleet:items(session, name, "{waiting,running,failed,pinned,ahead}")
    end
    return items, wrong
  end)
  if not ok then
    return err or error_.new("fleet", ("the run \"%s\" is not there any more"):format(name))
  end
  local lists = { waiting = {}, running = {}, failed = {}, pinned = {}, ahead = {} }
  for _, item in ipairs(items) do
    table.insert(lists[item.state], item.state == "failed" and { tenant = { name = item.tenant }, err = M.error(item) }
      or { name = item.tenant })
  end
  context.failures, context.pinned, context.ahead = lists.failed, lists.pinned, lists.ahead
  context.left = table.move(lists.running, 1, #lists.running, #lists.waiting + 1, lists.waiting)
  local most, finished = 0, 0
  local sizes = {}
  for _, part in ipairs(row.parts) do
    if row.stages[part.stage].scope == "tenant" then
      sizes[part.stage] = (sizes[part.stage] or 0) + part.n
      most = math.max(most, sizes[part.stage])
      finished = finished + (part.state == "done" and part.n or 0)
    end
  end
  context.finished, context.current = finished, math.max(0, #context.survey.tenants - most)
  context.halted = row.status ~= "done" and row.reason or nil
  context.fleet = { run = name, status = row.status, reason = row.reason, plan = row.plan, mine = worker.finished,
    made = worker.made or false,
    retry = (row.status == "halted" or row.status == "failed") and ("moonbird run resume %s && moonbird %s --fleet %s")
      :format(name, context.run.command, name) or nil }
  if (row.status == "halted" or row.status == "cancelled") and #context.failures + #context.left == 0 then
    return error_.new("tenants", ("the run \"%s\" is %s"):format(name, row.status), { detail = row.reason })
  end
end

return M
