--- moonbird renumber VERSION|FILE
local git = require "moonbird.policy.git"
local json = require "moonbird.core.json"
local project = require "moonbird.cli.project"
local registry = require "moonbird.migration.registry"
local renumbering = require "moonbird.cli.renumbering"

local M = {}

-- What a shell takes as one word.
local function word(text)
  return text:find("^[%w_./@%%+=:,-]+$") and text or "'" .. text:gsub("'", "'\\''") .. "'"
end

--- The command line that takes the rename back.
local function undo_of(plan, done, tracked)
  local parts = { ("%s %s %s"):format(tracked and "git mv" or "mv", word(plan.new.file), word(plan.old.file)) }
  local files = {}
  for i, reference in ipairs(done.references) do
    files[i] = word(reference.file)
  end
  if #files > 0 then
    parts[#parts + 1] = ("sed -i '/completes/s/%s/%s/' %s"):format(plan.new.version_text, plan.old.version_text,
      table.concat(files, " "))
  end
  if #done.ledgers > 0 then
    parts[#parts + 1] = "moonbird check --update"
  end
  return table.concat(parts, " && ")
end

local function tell(report, plan, done, undo)
  local out = report.out
  if plan.done then
    report:print(("%s%s was %s before: the rest is done now"):format(out.green("renamed "), plan.new.file,
      plan.old.base_name))
  else
    report:print(("%s%s -> %s"):format(out.green("renamed "), plan.old.file, plan.new.file))
  end
  for _, reference in ipairs(done.references) do
    report:print(("%s%s:%s completes %s now"):format(out.green("changed "), reference.file,
      table.concat(reference.lines, ","), plan.new.version_text))
  end
  for _, path in ipairs(done.ledgers) do
    report:print(out.dim("ledger  ") .. path)
  end
  for _, note in ipairs(plan.notes) do
    report:log("warn", note)
  end
  report:print(("A database where %s was applied takes it for a new migration. If there is one: undo this, take it "
    .. "back there (`moonbird down`), and renumber then."):format(plan.old.base_name))
  report:print("undo: " .. undo)
end

--- Gives a migration another version.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  local conf, err = project.config(args)
  if not conf then
    return nil, err
  end
  -- Its problems may be what this is for: two files of one version.
  local entries, problems = registry.scan(conf.migrations, { root = conf.dir })
  if not entries then
    return nil, problems
  end
  local known
  known, err = git.head_files { dir = conf.dir, folders = conf.migrations }
  if err and not err.no_git then
    return nil, err
  end
  local plan
  plan, err = renumbering.plan { word = args.which, to = args.to, entries = entries, conf = conf, known = known,
    short = git.short }
  if not plan then
    return nil, err
  end
  local done
  done, err = renumbering.apply(plan, entries, known)
  if not done then
    return nil, err
  end
  local tracked = known ~= nil and (known.tracked[plan.old.file] or known.tracked[plan.new.file]) or false
  local undo = undo_of(plan, done, tracked)
  tell(report, plan, done, undo)
  local references = json.array {}
  for i, reference in ipairs(done.references) do
    references[i] = { file = reference.file, lines = json.array(reference.lines) }
  end
  return { from = plan.old.version, to = plan.new.version, file = { from = plan.old.file, to = plan.new.file },
    finished = plan.done, references = references, ledgers = json.array(done.ledgers),
    notes = json.array(plan.notes), undo = undo }
end

return M
