--- moonbird check: the policy over the migration files, without a database.
local checking = require "moonbird.cli.checking"
local git = require "moonbird.policy.git"
local json = require "moonbird.core.json"
local ledger = require "moonbird.policy.ledger"
local project = require "moonbird.cli.project"
local registry = require "moonbird.migration.registry"
local text_util = require "moonbird.util.text"

local M = {}

local function print_update(report, path, update)
  for _, pair in ipairs { { "added", "added to" }, { "changed", "renewed in" }, { "removed", "removed from" } } do
    for _, name in ipairs(update[pair[1]]) do
      report:print(("%s %s %s"):format(name, pair[2], path))
    end
  end
  for _, item in ipairs(update.refused) do
    report:log("warn", ("%s stays in %s as it was: %s"):format(item.file, path, item.why))
  end
end

--- Brings the ledgers of all folders up to date with the files.
local function update_ledgers(conf, report)
  local entries, problems = registry.scan(conf.migrations, { root = conf.dir })
  if not entries then
    return nil, problems
  end
  local known, err = git.head_files { dir = conf.dir, folders = conf.migrations }
  if err and not err.no_git then
    return nil, err
  end
  local list = json.array {}
  for _, folder in ipairs(conf.migrations) do
    local files = {}
    for _, entry in ipairs(entries) do
      local parent, name = entry.file:match("^(.*)/([^/]*)$")
      if text_util.join_path(parent or ".") == text_util.join_path(folder) then
        files[name or entry.file] = entry.checksum
      end
    end
    local update
    update, err = ledger.update(text_util.join_path(conf.dir, folder), files, function(name)
      if known and known.files[text_util.join_path(folder, name)] == "merged" then
        return false, ("it is merged into %s"):format(git.short(known.base))
      end
      return true
    end)
    if not update then
      return nil, err
    end
    local path = ledger.path(folder)
    print_update(report, path, update)
    list[#list + 1] = { file = path, written = update.written, added = json.array(update.added),
      changed = json.array(update.changed), removed = json.array(update.removed), refused = json.array(update.refused) }
  end
  return list
end

local function check(args, report)
  local conf, err = project.config(args)
  if not conf then
    return nil, nil, err
  end
  local updated
  if args.update then
    updated, err = update_ledgers(conf, report)
    if err then
      return nil, nil, err
    end
  end
  local outcome
  outcome, err = checking.run { args = args, conf = conf, report = report }
  return outcome, updated, err
end

--- Checks the migrations.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err code "policy" when an unwaived error was found
function M.run(args, report)
  local outcome, updated, err = check(args, report)
  local result
  if outcome then
    result, err = checking.data(outcome), checking.error(outcome)
    result.ledger = updated
  end
  local _, unwritten = checking.write(args, report, outcome or checking.broken(err))
  if outcome and #outcome.versions + #outcome.findings == 0 then
    report:print(project.NO_MIGRATIONS)
  end
  if err and unwritten then
    report:log("error", unwritten.message)
  end
  return result, err or unwritten
end

return M
