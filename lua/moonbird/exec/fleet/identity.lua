--- What a run of a fleet is: the files and the options that decide what is done. Who brings the same joins it.
local error_ = require "moonbird.core.error"
local hash = require "moonbird.core.sys".sha256

local M = {}

local MOST_NAME = 100

--- Whether a text can name a run.
---@param name string
---@return true|nil
---@return moonbird.error? err code "usage"
function M.name(name)
  if name == "" or #name > MOST_NAME or name:find("[%c%s]") then
    return nil, error_.new("usage", ("--fleet wants a name of 1 to %d characters without spaces"):format(MOST_NAME))
  end
  return true
end

local function sorted(words)
  local list = table.move(words or {}, 1, #(words or {}), 1, {})
  table.sort(list)
  return table.concat(list, ",")
end

--- The identity of what a command is to do.
---@param entries table[] the registry
---@param options moonbird.tenants.options
---@return { plan: string, newest: integer, files: integer }
function M.of(entries, options)
  local lines, newest = {}, -1
  for i, entry in ipairs(entries) do
    lines[i] = entry.id .. " " .. entry.checksum
    newest = math.max(newest, entry.version)
  end
  local allow = options.allow or {}
  lines[#lines + 1] = ("to %s steps %s contract %s breaking %s late %s"):format(options.to, options.steps,
    not not allow.contract, not not allow.breaking, not not options.allow_out_of_order)
  lines[#lines + 1] = ("tenant %s exclude %s shard %s"):format(sorted(options.tenant), sorted(options.exclude),
    options.shard)
  return { plan = hash(table.concat(lines, "\n")), newest = newest, files = #entries }
end

--- The error of a command that is not what the run of that name is; nil when it may join.
---@param row table the run
---@param mine table of M.of
---@return moonbird.error?
function M.refusal(row, mine)
  if row.plan == mine.plan then
    return nil
  end
  local detail = ("the run's plan is %s, this one's %s"):format(row.plan, mine.plan)
  if row.newest > mine.newest then
    return error_.new("ahead", ("the run \"%s\" is of newer files: up to %d, these know %d"):format(row.name,
      row.newest, mine.newest), { detail = detail, hint = "use the release that began the run" })
  end
  return error_.new("fleet", ("there is another run \"%s\", of other files or options"):format(row.name),
    { detail = detail, hint = "give this one another name; a name with the release in it is never taken" })
end

return M
