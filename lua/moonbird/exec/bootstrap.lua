--- The journal's own schema, which is a folder of moonbird migrations: makes it, and brings it up to date.
local embedded = require "moonbird.core.embedded"
local failpoint = require "moonbird.core.failpoint"
local journal = require "moonbird.core.journal"
local hash = require "moonbird.core.sys".sha256
local standby = require "moonbird.exec.standby"

local M = {}

local loaded

--- The migrations of the journal's schema, by version.
---@return table[]
function M.migrations()
  if not loaded then
    loaded = {}
    for i, file in ipairs(embedded.journal_migrations()) do
      local version, name = file.name:match("^(%d+)_(.+)%.sql$")
      local entry = {
        version = math.tointeger(tonumber(version)), version_text = version, name = name,
        id = version .. "_" .. name, file = "moonbird:" .. file.name, kind = "sql",
        text = file.text, checksum = hash(file.text),
      }
      local migration, problems = require("moonbird.migration.registry").load(entry)
      assert(migration, problems and problems[1] and problems[1].message)
      loaded[i] = migration
    end
  end
  return loaded
end

--- The newest version of the journal's schema that this engine knows.
---@return integer
function M.known()
  local newest = 0
  for _, file in ipairs(embedded.journal_migrations()) do
    newest = math.max(newest, math.tointeger(tonumber(file.name:match("^%d+"))))
  end
  return newest
end

--- One migration of the journal in one transaction: lock, look again, run, record, commit.
local function apply(target, migration)
  local run, session = target.run, target.session
  local q = run.journal.quoted
  local results, err = session:batch {
    { "begin isolation level read committed read write" },
    run.journal:try_lock_item(journal.SELF),
    { "select to_regclass($1) is not null", q .. ".journal" },
    { "select to_regnamespace($1) is not null", q },
  }
  if not results then
    return nil, err
  end
  if not results[2]:value(1, 1) then
    return "locked"
  end
  local has_schema = results[4]:value(1, 1)
  local head = 0
  if results[3]:value(1, 1) then
    local result
    result, err = session:query(("select coalesce(max(ordinal), 0), coalesce(max(version) "
      .. "filter (where applies), 0) from %s.journal where target = $1"):format(q), { journal.SELF })
    if not result then
      return nil, err
    end
    head = result:value(1, 1)
    if result:value(1, 2) >= migration.version then
      return "there" -- another runner was faster
    end
  end
  failpoint("journal.locked")
  local items = {
    -- pg_temp last: left out it would be looked in first, and a temporary "journal" be taken for ours.
    { "select set_config('search_path', $1, true)", q .. ", pg_temp" },
  }
  if not has_schema then -- looked for first: a role that may not create schemas can be given one
    table.insert(items, 1, { "create schema " .. q })
  end
  for _, block in ipairs(migration.up.blocks) do
    for _, st in ipairs(block.statements) do
      items[#items + 1] = { migration.text:sub(st.first, st.last) }
    end
  end
  items[#items + 1] = run.journal:record_item(journal.SELF, head + 1, run:event {
    event = "apply", applies = true, version = migration.version, version_text = migration.version_text,
    id = migration.id, name = migration.name, direction = "up", checksum = migration.checksum,
    outcome = "done",
  })
  results, err = session:batch(items)
  if not results then
    return nil, err
  end
  failpoint("journal.before_commit")
  results, err = session:query("commit")
  failpoint("journal.after_commit")
  if not results then
    return nil, err
  end
  return "done"
end

--- Makes sure that the journal is there and current. The target's state is read again if it changed.
---@param target moonbird.target
---@param budget { left: integer } milliseconds to wait for another runner's lock
---@return true|nil
---@return moonbird.error? err
function M.ensure(target, budget)
  local known = M.known()
  local err = target:too_new(known)
  if err then
    return nil, err
  end
  if target.state.exists and target.state.format == known then
    return true
  end
  err = standby.refusal(target.session, target.run.params)
  if err then
    return nil, err
  end
  for _, migration in ipairs(M.migrations()) do
    while migration.version > target.state.format do
      local outcome
      outcome, err = apply(target, migration)
      if outcome ~= "done" then
        target.session:rollback()
      end
      if not outcome then
        return nil, err
      elseif outcome ~= "locked" then
        break
      end
      local ok
      ok, err = target:wait_for_lock(budget, journal.SELF)
      if not ok then
        return nil, err
      end
    end
  end
  return target:refresh()
end

return M
