--- Plans: what to run, from the files and the target's state. Pure: no database, no clock.
local error_ = require "moonbird.core.error"
local hash = require "moonbird.core.sys".sha256
local remedy = require "moonbird.plan.remedy"

local M = {}

---@class moonbird.step
---@field migration table
---@field direction "up"|"down"
---@field body table the migration's up or down
---@field transactional boolean
---@field durable boolean its commit waits for the disk (the last step of a run always does)
---@field plan string sha256 of the plan it belongs to

---@class moonbird.comparison
---@field applied table[] { entry = registry entry or nil, row = journal row }, by version
---@field pending table[] registry entries, by version
---@field changed table[] applied ones whose file changed
---@field missing table[] journal rows without a file
---@field out_of_order table[] pending ones older than the newest applied

--- Holds files against a target's state.
---@param entries table[] sorted by version
---@param state moonbird.journal.state
---@return moonbird.comparison
function M.compare(entries, state)
  local result = { applied = {}, pending = {}, changed = {}, missing = {}, out_of_order = {} }
  local files = {}
  local newest = nil
  for version in pairs(state.applied) do
    newest = (not newest or version > newest) and version or newest
  end
  for _, entry in ipairs(entries) do
    files[entry.version] = true
    local row = state.applied[entry.version]
    if row then
      local item = { entry = entry, row = row }
      result.applied[#result.applied + 1] = item
      if row.checksum and row.checksum ~= entry.checksum then
        result.changed[#result.changed + 1] = item
      end
    else
      result.pending[#result.pending + 1] = entry
      if newest and entry.version < newest then
        result.out_of_order[#result.out_of_order + 1] = entry
      end
    end
  end
  for version, row in pairs(state.applied) do
    if not files[version] then
      result.missing[#result.missing + 1] = row
      result.applied[#result.applied + 1] = { row = row }
    end
  end
  local function by_version(a, b)
    return a.row.version < b.row.version
  end
  table.sort(result.applied, by_version)
  table.sort(result.missing, function(a, b)
    return a.version < b.version
  end)
  return result
end

local function problem_list(code, message, hint, items, text)
  local problems = {}
  for i, item in ipairs(items) do
    problems[i] = { file = item.file or (item.entry and item.entry.file), message = text(item) }
  end
  return error_.new(code, message, { problems = problems, hint = hint })
end

--- Whether the kind of migration is one that this run leaves alone.
---@param migration table loaded
---@param backfills? "inline"|"skip"|"only"|fun(migration: table): boolean a function tells which run inline
---@return string? reason
---@return string? flags that would let it through
local function held_backfill(migration, backfills)
  if type(backfills) == "function" then
    backfills = migration.backfill and not backfills(migration) and "skip" or "inline"
  end
  if migration.backfill and backfills == "skip" then
    return "backfill", "`moonbird backfill run`"
  elseif not migration.backfill and backfills == "only" then
    return "not a backfill", "`moonbird up`"
  end
end

--- Why a migration is not applied in this run; nil when it may be.
---@param migration table loaded
---@param allow { contract?: boolean, breaking?: boolean }
---@param backfills? "inline"|"skip"|"only"|fun(migration: table): boolean
---@return string? reason
---@return string? flags that would let it through
function M.held(migration, allow, backfills)
  local reason, flags = held_backfill(migration, backfills)
  if reason then
    return reason, flags
  end
  if migration.phase ~= "contract" then
    return nil -- an expand migration that says it breaks is refused, not held back: see the rule "compatibility"
  end
  local breaking = migration.compatibility == "contract_breaking"
  local missing = {}
  if not allow.contract then
    missing[#missing + 1] = "--allow-contract"
  end
  if breaking and not allow.breaking then
    missing[#missing + 1] = "--allow-breaking"
  end
  if #missing > 0 then
    return breaking and "contract, breaking" or "contract", table.concat(missing, " ")
  end
end

--- Takes contract migrations and backfills out of those that are late: they are held back on purpose while newer
--- ones go on.
---@param comparison moonbird.comparison
---@param migrations table[] loaded
function M.excuse_contracts(comparison, migrations)
  local contracts, late = {}, {}
  for _, migration in ipairs(migrations) do
    contracts[migration.version] = migration.phase == "contract" or migration.backfill ~= nil
  end
  for _, entry in ipairs(comparison.out_of_order) do
    late[#late + 1] = not contracts[entry.version] and entry or nil
  end
  comparison.out_of_order = late
end

--- Why an `up` may not go on: changed files, or late ones.
---@param comparison moonbird.comparison
---@param options { allow_out_of_order?: boolean }
---@return moonbird.error|nil
function M.refusal(comparison, options)
  if #comparison.changed > 0 then
    local versions = {}
    for i, item in ipairs(comparison.changed) do
      versions[i] = item.entry.version_text
    end
    return problem_list("checksum", #comparison.changed == 1
      and "an applied migration was changed afterwards"
      or ("%d applied migrations were changed afterwards"):format(#comparison.changed),
      "restore the file and add a new migration, or accept the change: " .. remedy.accept(versions),
      comparison.changed, function(item)
        return ("applied as %s, the file is %s now"):format(item.row.checksum:sub(1, 12),
          item.entry.checksum:sub(1, 12))
      end)
  end
  if #comparison.out_of_order > 0 and not options.allow_out_of_order then
    local newest
    for _, item in ipairs(comparison.applied) do
      newest = item.row
    end
    return problem_list("out_of_order", ("older than %s, which is applied"):format(newest.version_text),
      "give it a newer version (rename the file), or run with --allow-out-of-order",
      comparison.out_of_order, function(entry)
        return ("%s is pending, but %s is applied already"):format(entry.version_text, newest.version_text)
      end)
  end
end

--- An error when something is half taken back, by a run that is at it or one that died: `up` must not go on above that.
---@param state moonbird.journal.state
---@return moonbird.error|nil
function M.half_reverted(state)
  for _, row in ipairs(state.open) do
    local applied = row.event == "start" and row.direction == "down" and state.applied[row.version]
    if applied then
      return error_.new("interrupted_step", ("%s is half taken back"):format(applied.id),
        { migration = applied.id, hint = "if no run is at it, `moonbird down` goes on; or settle it with "
          .. remedy.mark(applied.version_text, row.target) })
    end
  end
end

--- The newest version that was begun and is not applied.
---@param state moonbird.journal.state
---@return table|nil row the journal's, of its start
function M.begun(state)
  local newest
  for _, row in ipairs(state.open) do
    if row.event == "start" and row.direction == "up" and not state.applied[row.version]
      and (not newest or row.version > newest.version) then
      newest = row
    end
  end
  return newest
end

--- An error when something that is half applied stands on what is to be taken back.
---@param state moonbird.journal.state
---@param versions integer[] to be taken back
---@return moonbird.error|nil
function M.half_applied(state, versions)
  local begun = M.begun(state)
  for _, version in ipairs(begun and versions or {}) do
    if version < begun.version then
      local id = begun.id or begun.version_text
      return error_.new("interrupted_step", ("%s is half applied, and stands on what is to be taken back"):format(id),
        { migration = id, hint = "if its file is there `moonbird up` goes on with it (of a backfill: "
          .. "`moonbird backfill run`); or settle it with " .. remedy.mark(begun.version_text, begun.target) })
    end
  end
end

--- An error when a version that somebody named is nowhere: a typo must not decide how far to go.
---@param version integer|nil
---@param comparison moonbird.comparison
---@param only_applied boolean it has to be applied (for a down; 0 is before everything)
---@return moonbird.error|nil
function M.unknown(version, comparison, only_applied)
  if not version or (only_applied and version == 0) then
    return nil
  end
  for _, item in ipairs(comparison.applied) do
    if item.row.version == version then
      return nil
    end
  end
  for _, entry in ipairs(only_applied and {} or comparison.pending) do
    if entry.version == version then
      return nil
    end
  end
  return error_.new("usage", only_applied and ("version %d is not applied"):format(version)
    or ("there is no migration %d"):format(version),
    { hint = "`moonbird status` lists them" .. (only_applied and "; --to 0 takes everything back" or "") })
end

--- The pending entries that an `up` is to look at, whatever their phase.
---@param comparison moonbird.comparison
---@param options { to?: integer, only?: table<integer, boolean> }
---@return table[] entries
function M.select_up(comparison, options)
  local chosen = {}
  for _, entry in ipairs(comparison.pending) do
    if (not options.to or entry.version <= options.to)
      and (not options.only or options.only[entry.version]) then
      chosen[#chosen + 1] = entry
    end
  end
  return chosen
end

--- Parts what may run from what is held back.
---@param migrations table[] loaded, in order
---@param options { steps?: integer, allow?: { contract?: boolean, breaking?: boolean }, backfills?: any }
---@return table[] runnable
---@return { migration: table, reason: string, flags: string }[] held
function M.hold_back(migrations, options)
  local runnable, held = {}, {}
  for _, migration in ipairs(migrations) do
    local reason, flags = M.held(migration, options.allow or {}, options.backfills)
    if reason then
      held[#held + 1] = { migration = migration, reason = reason, flags = flags }
    elseif not options.steps or #runnable < options.steps then
      runnable[#runnable + 1] = migration
    end
  end
  return runnable, held
end

--- The applied items that a `down` is to take back, newest application first.
---@param comparison moonbird.comparison
---@param options { to?: integer, steps?: integer, only?: table<integer, boolean> } `to` stays applied itself; at most
---       `steps` are taken, without both one
---@return table[] items { entry, row }
function M.select_down(comparison, options)
  local items = {}
  for _, item in ipairs(comparison.applied) do
    if (not options.to or item.row.version > options.to) and (not options.only or options.only[item.row.version]) then
      items[#items + 1] = item
    end
  end
  table.sort(items, function(a, b)
    return a.row.applied_ordinal > b.row.applied_ordinal
  end)
  local wanted = options.steps or options.to and #items or 1
  return table.move(items, 1, math.min(wanted, #items), 1, {})
end

--- Whether a body runs as one transaction.
---@param migration table
---@param body table STEP of the migration
---@return boolean
function M.transactional(migration, body)
  if body.kind == "function" then
    return migration.transaction ~= false
  end
  for _, block in ipairs(body.blocks) do
    if not block.transaction then
      return false
    end
  end
  return true
end

--- Makes the steps and the plan's hash.
---@param migrations table[] loaded migrations in the order to run
---@param direction "up"|"down"
---@param target string
---@param head integer
---@return moonbird.step[]
---@return string hash
function M.steps(migrations, direction, target, head)
  local parts = { target, tostring(head), direction }
  for _, migration in ipairs(migrations) do
    parts[#parts + 1] = migration.id .. " " .. migration.checksum
  end
  local plan = hash(table.concat(parts, "\n"))
  local steps = {}
  for i, migration in ipairs(migrations) do
    local body = direction == "up" and migration.up or migration.down
    steps[i] = {
      migration = migration,
      direction = direction,
      body = body,
      transactional = M.transactional(migration, body),
      durable = i == #migrations,
      plan = plan,
    }
  end
  return steps, plan
end

return M
