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
  local row, items, known
  local ok, err = worker.link:call(function(session)
    local wrong
    row, wrong = worker.fleet:show(session, name)
    if row then
      items, wrong = worker.fleet:items(session, name, "{waiting,running,failed,pinned,ahead}")
    end
    if items and context.options.deploy then
      known, wrong = worker.fleet:items(session, name, "{done}")
      items = known and items
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
  if known then -- a tenant that the run has not met was made meanwhile
    context.known = {}
    for _, item in ipairs(known) do
      context.known[item.tenant] = true
    end
  end
  context.failures, context.pinned, context.ahead = lists.failed, lists.pinned, lists.ahead
  context.left = table.move(lists.running, 1, #lists.running, #lists.waiting + 1, lists.waiting)
  context.finished, context.current = row.finished, math.max(0, #context.survey.tenants - row.met)
  context.halted = row.status ~= "done" and row.reason or nil
  context.fleet = { run = name, status = row.status, reason = row.reason, plan = row.plan, mine = worker.finished,
    made = worker.made or false, resumable = row.status == "halted" or row.status == "failed" }
  if (row.status == "halted" or row.status == "cancelled") and #context.failures + #context.left == 0 then
    return error_.new("tenants", ("the run \"%s\" is %s"):format(name, row.status), { detail = row.reason })
  end
end

return M
