--- moonbird show VERSION
local error_ = require "moonbird.core.error"
local json = require "moonbird.core.json"
local project = require "moonbird.cli.project"
local registry = require "moonbird.migration.registry"
local style = require "moonbird.report.style"
local times = require "moonbird.report.times"

local M = {}

local HEADER = { "file", "kind", "description", "phase", "scope", "compatibility", "transaction", "irreversible",
  "owner", "checksum" }

local function find(entries, version)
  for _, entry in ipairs(entries) do
    if entry.version == version then
      return entry
    end
  end
end

local function body_data(body)
  if not body then
    return nil
  elseif body.kind == "function" then
    return { kind = "function", line = body.line }
  end
  local list = json.array {}
  for _, block in ipairs(body.blocks) do
    for _, st in ipairs(block.statements) do
      list[#list + 1] = { tag = st.tag, class = st.class, line = st.line + (body.origin_line or 1) - 1,
        transaction = block.transaction, text = body.text:sub(st.first, st.last) }
    end
  end
  return { kind = "sql", statements = list }
end

local function print_body(report, name, body)
  if not body then
    report:write(("\n%s: none\n"):format(name))
  elseif body.kind == "function" then
    report:write(("\n%s: a Lua function, line %d\n"):format(name, body.line))
  else
    report:write(("\n%s:\n"):format(name))
    for _, st in ipairs(body.statements) do
      local first = st.text:match("^[^\n]*")
      report:write(("  %4d  %s%s\n"):format(st.line, first, #first < #st.text and " ..." or ""))
    end
  end
end

--- Shows one migration.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  local conf, err = project.config(args)
  if not conf then
    return nil, err
  end
  local entries
  entries, err = project.entries(conf)
  if not entries then
    return nil, err
  end
  local entry = find(entries, args.version)
  local migration, problems
  if entry then
    migration, problems = registry.load(entry)
    if not migration then
      return nil, registry.error(problems)
    end
  end
  return project.with_target(args, report, { config = conf }, function(run, target)
    local rows, failure = run.journal:history(target.session, { target.name }, 1000)
    if not rows then
      return nil, failure
    end
    local events, lines = json.array {}, {}
    for i = #rows, 1, -1 do
      if rows[i].version == args.version then
        events[#events + 1] = rows[i]
        lines[#lines + 1] = { times.human(rows[i].finished_at), rows[i].event,
          rows[i].outcome, rows[i].applied_by, rows[i].error or rows[i].detail and rows[i].detail.backfill
            and require("moonbird.report.backfill").totals(rows[i].detail.backfill) or "" }
      end
    end
    if not migration and #events == 0 then
      return nil, error_.new("usage", ("there is no migration %d, neither as a file nor in the journal")
        :format(args.version), { hint = "`moonbird status` lists them" })
    end
    local result = { version = args.version, events = events }
    if migration then
      report:write(report.out.bold(migration.id) .. "\n")
      local header = {}
      for _, key in ipairs(HEADER) do
        if migration[key] ~= nil then
          header[#header + 1] = { key, tostring(migration[key]) }
          result[key] = migration[key]
        end
      end
      report:write(style.columns(header, "  "))
      result.id = migration.id
      result.up, result.down = body_data(migration.up), body_data(migration.down)
      print_body(report, "up", result.up)
      print_body(report, "down", result.down)
    end
    local begun = migration and require("moonbird.cli.backfills.glance").open(target)[migration.version]
    if begun then
      local glance = require "moonbird.cli.backfills.glance"
      report:write(("\nbackfill: %s; `moonbird backfill show %d` tells more\n"):format(glance.words(begun),
        migration.version))
      result.backfill = glance.data(begun)
    end
    local none = "  not applied yet\n"
    if migration and migration.scope == "tenant" and conf.tenants then
      none = "  applied to tenants: `moonbird tenant status` shows how far they are\n"
    end
    report:write("\nhistory:\n" .. (#lines > 0 and style.columns(lines, "  ") or none))
    return result
  end)
end

return M
