--- A target under way: its session, its journal's head, and the settings its transactions begin with.
local error_ = require "moonbird.core.error"
local journal = require "moonbird.core.journal"
local sql = require "moonbird.core.sql"
local task = require "moonbird.core.task"

---@class moonbird.target
---@field run moonbird.run
---@field name string "global" or the tenant
---@field schema string|nil the tenant's schema
---@field vars table
---@field session moonbird.session
---@field state moonbird.journal.state
---@field head integer ordinal of the last event
---@field fingerprint string|false|nil
---@field unflushed boolean steps were committed with synchronous_commit off
local M = {}
M.__index = M

-- How long to wait between two looks at a locked target, milliseconds.
local POLL_MS = 200

--- Opens a target: connects and reads its state.
---@param run moonbird.run
---@param spec? { name?: string, schema?: string, vars?: table, full?: boolean, known?: integer } full: read what
---       is only shown; known: read only the fingerprint (journal.fingerprint), refresh() is to follow
---@return moonbird.target|nil
---@return moonbird.error? err
function M.open(run, spec)
  spec = spec or {}
  local self = setmetatable({
    run = run,
    name = spec.name or "global",
    schema = spec.schema,
    vars = spec.vars or {},
    full = spec.full,
    unflushed = false,
  }, M)
  local ok, err = self:reconnect()
  if not ok then
    return nil, err
  end
  if spec.known then
    self.fingerprint, err = run.journal:fingerprint(self.session, self.name, spec.known)
    ok = self.fingerprint ~= nil
  else
    ok, err = self:refresh()
  end
  if not ok then
    self:close()
    return nil, err
  end
  return self
end

--- A target on a session that is open already, its state known: one of many tenants of a database.
---@param run moonbird.run
---@param spec table name, schema?, shared? (schemas behind it), vars?, session (idle), state
---@return moonbird.target
function M.adopt(run, spec)
  return setmetatable({ run = run, name = spec.name, schema = spec.schema, shared = spec.shared, unflushed = false,
    vars = spec.vars or {}, session = spec.session, state = spec.state, head = spec.state.head }, M)
end

--- Opens the session anew, e.g. after it was lost.
---@return true|nil
---@return moonbird.error? err
function M:reconnect()
  if self.session then
    self.session:close()
  end
  local session, err = self.run:connect(self.name)
  if session and session:parameter("default_transaction_read_only") == "on" then
    -- Said in the start packet it survives RESET ALL; poolers may refuse `options`, so only where needed.
    session:close()
    session, err = self.run:connect(self.name, "-c default_transaction_read_only=off")
  end
  if not session then
    return nil, error_.with(err, { target = self.name })
  end
  self.session = session
  return true
end

--- Reads the journal again.
---@return true|nil
---@return moonbird.error? err
function M:refresh()
  local state, err = self.run.journal:read(self.session, self.name, self.full)
  if not state then
    return nil, error_.with(err, { target = self.name })
  end
  self.state = state
  self.head = state.head
  return true
end

--- An error when the journal is newer than this engine understands.
---@param known integer
---@return moonbird.error|nil
function M:too_new(known)
  return self.run.journal:too_new(self.session, self.state, known)
end

-- The settings of a step's transaction in their order; the texts that set them are the same for all targets.
local texts = {}

--- Raises unless what is made without a schema's name is made in this one: a search_path passes over schemas that are
--- not there or may not be entered, and those behind it are everybody's. Naming something in it makes the server say
--- why.
local function guard(value)
  return ("case when current_schema()::text is distinct from %s::text "
    .. "then (quote_ident(%s::text) || '.moonbird')::regclass::text end"):format(value, value)
end

-- What text means, both ways: a time or a float that a script reads must be the same when it is written back, and
-- quotes must mean to the server what they meant when the file was split. A database or a role may have it otherwise;
-- pg_dump settles the same. DateStyle keeps its order of day and month, which decides how dates are read.
local FORMATS = { { "datestyle", "ISO" }, { "intervalstyle", "postgres" }, { "extra_float_digits", "1" },
  { "bytea_output", "hex" }, { "standard_conforming_strings", "on" } }

--- The calls that settle what text means.
---@param transaction boolean for the transaction only; false: for the session
---@return string expressions to select
function M.formats(transaction)
  local calls = {}
  for i, pair in ipairs(FORMATS) do
    calls[i] = ("set_config('%s', '%s', %s)"):format(pair[1], pair[2], tostring(transaction))
  end
  return table.concat(calls, ", ")
end

local function settings_text(names, guarded, last)
  local calls, count = { M.formats(true) }, #names
  for i, name in ipairs(names) do
    calls[i + 1] = ("set_config('%s', $%d, true)"):format(name, i)
  end
  if guarded then
    count = count + 1
    calls[#calls + 1] = guard("$" .. count)
  end
  calls[#calls + 1] = last and last:gsub("%$(%d)", function(n)
    return "$" .. math.tointeger(count + n)
  end) or nil
  return "select " .. table.concat(calls, ", ")
end

--- The settings' values as an item for session:batch, which lacks its text; and what the text depends on.
local function settings(self, timeouts, durable, guarded)
  local item = { false, ("%dms"):format(timeouts.lock or 0), ("%dms"):format(timeouts.statement or 0), "0" }
  local names = { "lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout" }
  if not durable then
    names[4], item[5] = "synchronous_commit", "off"
  end
  local path = self:search_path()
  if path then
    names[#names + 1], item[#item + 1] = "search_path", path
  end
  if guarded then
    item[#item + 1] = self.schema
  end
  return item, names, (durable and "d" or "-") .. (path and "p" or "-") .. (guarded and "s" or "-")
end

--- The statement that settles how a step's transaction runs, transaction-locally.
---@param timeouts { lock: integer, statement: integer } milliseconds, 0 for none
---@param durable boolean false: synchronous_commit off (the journal row shares the transaction, and WAL
---       is ordered, so a crash of the server loses the step and its row together)
---@return table item for session:batch
function M:settings_item(timeouts, durable)
  local guarded = self.schema ~= nil
  local item, names, key = settings(self, timeouts, durable, guarded)
  texts[key] = texts[key] or settings_text(names, guarded)
  item[1] = texts[key]
  return item
end

--- The same, and then passes the door.
---@param timeouts table
---@param durable boolean
---@param unmade? boolean the schema is not there yet: what follows in this transaction makes it
---@return table item for session:batch
function M:enter_item(timeouts, durable, unmade)
  local guarded = self.schema ~= nil and not unmade
  local item, names, key = settings(self, timeouts, durable, guarded)
  local enter = self.run.journal:enter_item(self.name, self.head)
  key = key .. enter[1]
  texts[key] = texts[key] or settings_text(names, guarded, (enter[1]:gsub("^select ", "")))
  item[1] = texts[key]
  table.move(enter, 2, #enter, #item + 1, item)
  return item
end

--- Settles what text means for the whole session: for what runs outside of a step's transaction. Behind a transaction
--- pooler, which would hand it on to anybody, nothing is settled.
---@return true|nil
---@return moonbird.error? err
function M:settle_formats()
  local result, err = self.session:query "select pg_backend_pid()"
  if result and result:value(1, 1) == self.session:pid() then
    result, err = self.session:query("select " .. M.formats(false))
  end
  return result and true, err
end

--- What raises where the search_path does not lead into this target's schema, for the simple protocol.
---@return string|nil expression
function M:guard_text()
  return self.schema and guard(sql.literal(self.schema)) or nil
end

--- Sets the search_path for the whole session, and sees to it that it leads where it says.
---@param path string of search_path()
---@return true|nil
---@return moonbird.error? err
function M:settle_path(path)
  local text = "select set_config('search_path', $1, false)"
  local result, err
  if self.schema then
    result, err = self.session:query(text .. ", " .. guard "$2", { path, self.schema })
  else
    result, err = self.session:query(text, { path })
  end
  return result and true, err
end

--- The search_path of this target's steps: the tenant's schema, those that tenants share, then what is configured;
--- nil: the session's own.
---@return string|nil
function M:search_path()
  local parts = { self.schema and sql.ident(self.schema) }
  for _, schema in ipairs(self.shared or {}) do
    parts[#parts + 1] = sql.ident(schema)
  end
  for _, schema in ipairs(self.run.config.search_path or {}) do
    parts[#parts + 1] = sql.ident(schema)
  end
  return parts[1] and table.concat(parts, ", ")
end

--- Waits while somebody else holds the target's lock. Polls from outside any transaction.
---@param budget { left: number, orphan?: boolean } left: milliseconds that may still be spent, counted down here;
---       orphan: the holder is what an interrupted run left in the server
---@param name? string another target's lock
---@return true|nil
---@return moonbird.error? err code "locked", naming the holder, when the budget is spent
function M:wait_for_lock(budget, name)
  local holder = self.run.journal:holder(self.session, name or self.name)
  if budget.left <= 0 then
    local who = holder
      and (": held by %s (pid %d, %s, on %s, for %ds)"):format(holder.application, holder.pid,
        holder.user, holder.client, math.floor(holder.since_s or 0)) or ""
    return nil, error_.new("locked", ("target %q is locked by another runner%s"):format(self.name, who),
      { target = self.name, hint = "wait for it, or give more time with --lock-wait", holder = holder })
  end
  if budget.orphan then
    self.run.report:waiting_for_backend(holder and holder.pid)
  else
    self.run.report:waiting_for_lock(self, holder)
  end
  -- Jitter, so that eight runners do not come back in step.
  local pause = math.min(budget.left, POLL_MS // 2 + math.random(POLL_MS))
  budget.left = budget.left - pause
  return task.sleep(pause)
end

--- Waits until nobody holds the target's lock (or another, by name).
---@param name? string
---@param budget? { left: number, orphan?: boolean } as wait_for_lock's; without it as long as --lock-wait says
---@return true|nil
---@return moonbird.error? err
function M:wait_until_free(name, budget)
  budget = budget or { left = self.run.lock_wait }
  while true do
    -- An implicit transaction: the lock is released at once.
    local results, err = self.session:batch { self.run.journal:try_lock_item(name or self.name) }
    if not results then
      return nil, err
    elseif results[1]:value(1, 1) then
      return true
    end
    local ok
    ok, err = self:wait_for_lock(budget, name)
    if not ok then
      return nil, err
    end
  end
end

--- Makes sure that what was committed without waiting for the disk is there now.
---@return true|nil
---@return moonbird.error? err
function M:flush()
  if not self.unflushed then
    return true
  end
  -- A transaction that writes WAL and commits synchronously flushes all WAL before it.
  local _, err = self.session:query("select pg_logical_emit_message(true, 'moonbird', 'flush')")
  if err then
    return nil, err
  end
  self.unflushed = false
  return true
end

--- Appends an event about a migration in a transaction of its own.
---@param fields table
---@return true|nil
---@return moonbird.error? err
function M:append(fields)
  local ok, err = self.run.journal:append(self.session, self.name, self.head, self.run:event(fields))
  if not ok then
    return nil, err
  end
  self.head = self.head + 1
  self.unflushed = false
  return true
end

--- Closes the session.
function M:close()
  if self.session then
    self.session:close()
  end
end

M.JOURNAL = journal.SELF

return M
