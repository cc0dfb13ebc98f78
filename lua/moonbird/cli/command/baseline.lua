--- moonbird baseline VERSION
local bootstrap = require "moonbird.exec.bootstrap"
local plan = require "moonbird.plan.plan"
local project = require "moonbird.cli.project"
local registry = require "moonbird.migration.registry"
local text = require "moonbird.util.text"
local up = require "moonbird.cli.command.up"

local M = {}

--- Journals every pending migration up to a version as being there already; runs nothing.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  local conf, gate, refused = up.gate(args)
  if not gate then
    return nil, refused
  end
  local detail = (args.reason or args.emergency) and { reason = args.reason, emergency = args.emergency } or nil
  return project.with_target(args, report, { config = conf, files = true }, function(run, target, entries)
    local ok, failure = bootstrap.ensure(target, { left = run.lock_wait })
    if not ok then
      return nil, failure
    end
    local comparison = plan.compare(entries, target.state)
    failure = plan.unknown(args.version, comparison, false)
    if failure then
      return nil, failure
    end
    local chosen = plan.select_up(comparison, { to = args.version })
    local migrations
    migrations, failure = registry.load_all(chosen)
    if not migrations then
      return nil, failure
    end
    local events, items = {}, { run.journal:enter_item(target.name, target.head) }
    for i, migration in ipairs(migrations) do
      events[i] = { version = migration.version, id = migration.id }
      items[i + 1] = run.journal:record_item(target.name, target.head + i, run:event {
        event = "baseline", applies = true, outcome = "done", version = migration.version,
        version_text = migration.version_text, id = migration.id, name = migration.name,
        phase = migration.phase, scope = migration.scope, compatibility = migration.compatibility,
        checksum = migration.checksum, detail = detail,
      })
    end
    if #migrations > 0 then
      local results
      results, failure = target.session:batch(items) -- all or none
      if not results then
        return nil, failure
      end
    end
    for _, event in ipairs(events) do
      report:print(("%s %s"):format(report.out.green("baseline"), event.id))
    end
    report:print(("%s marked as applied; nothing was run"):format(text.count(#events, "migration")))
    return { target = target.name, marked = require("moonbird.core.json").array(events) }
  end)
end

return M
