--- Runs of a fleet: the rows on the control database that its workers share, and the statements that use them.
--
-- The mechanism is in the database (migrations/0003_run.sql); here is only how it is called. Every call is one
-- statement and leaves nothing in the session, so any of them may go through a transaction pooler, or over a new
-- connection.
local absent = require "moonbird.core.absent"
local sql = require "moonbird.native.sql"
local json = require "moonbird.native.json"

---@class moonbird.fleet
---@field quoted string the journal's schema
local M = {}
M.__index = M

--- The runs in a journal's schema. Opens nothing.
---@param schema string
---@return moonbird.fleet
function M.new(schema)
  return setmetatable({ quoted = sql.ident(schema) }, M)
end

-- "@run" stands for the table in the journal's schema.
local function placed(self, text)
  return (text:gsub("@", function()
    return self.quoted .. "."
  end))
end

-- One row of one statement.
local function row_of(self, session, text, params, count)
  local result, err = session:query(placed(self, text), params, count)
  if result then
    return result:count() > 0 and result:row(1) or false
  elseif absent.any(err) then
    return false -- no runs here yet
  end
  return nil, err
end

local function value_of(self, session, text, params, count)
  local result, err = session:query(placed(self, text), params, count)
  if not result then
    return nil, err
  end
  return result:value(1, 1)
end

local function rows_of(self, session, text, params, count)
  return absent.rows(session, absent.any, placed(self, text), params, count)
end

local function opened(row)
  if row then
    row.stages, row.settings = json.decode(row.stages), json.decode(row.settings)
  end
  return row
end

--- Makes a run, unless there is one of that name.
---@param session moonbird.session
---@param run table name, plan, newest, files, stages, settings, command, engine, host
---@return boolean|nil made
---@return moonbird.error? err
function M:make(session, run)
  local row, err = row_of(self, session, [[
    insert into @run (name, plan, newest, files, stages, settings, command, engine, host)
    values ($1, $2, $3, $4, $5::jsonb, $6::jsonb, $7, $8, $9) on conflict (name) do nothing returning name]],
    { run.name, run.plan, run.newest, run.files, json.encode(run.stages), json.encode(run.settings), run.command,
      run.engine, run.host }, 9)
  if row == nil then
    return nil, err
  end
  return row ~= false
end

--- A run's row.
---@param session moonbird.session
---@param name string
---@return table|false|nil row stages and settings decoded; false: there is none
---@return moonbird.error? err
function M:read(session, name)
  local row, err = row_of(self, session, "select * from @run where name = $1", { name })
  return opened(row), err
end

--- Announces a worker.
---@param session moonbird.session
---@param worker { run: string, owner: string, host?: string, pid: integer, lease: integer }
---@return table|false|nil
---@return moonbird.error? err
function M:join(session, worker)
  return row_of(self, session, [[
    insert into @run_worker (run, owner, host, pid, lease_until)
    values ($1, $2, $3, $4, clock_timestamp() + $5 * interval '1 millisecond')
    on conflict (run, owner) do update set lease_until = excluded.lease_until]],
    { worker.run, worker.owner, worker.host, worker.pid, worker.lease }, 5)
end

--- One turn of a worker: see run_turn().
---@param session moonbird.session
---@param worker { run: string, owner: string, lease: integer }
---@param at { stage: integer, wave: integer, want: integer } what is wanted
---@param results table[]
---@return table|nil reply
---@return moonbird.error? err
function M:turn(session, worker, at, results)
  local text, err = value_of(self, session, "select @run_turn($1, $2, $3, $4, $5, $6, $7::jsonb)",
    { worker.run, worker.owner, worker.lease, at.stage, at.wave, at.want, json.encode(json.array(results)) })
  if err then
    return nil, err
  end
  return text and json.decode(text) or {}
end

--- Frees what the rows say the worker holds and it does not: the answer to a claim was lost.
---@param session moonbird.session
---@param worker { run: string, owner: string }
---@param stage integer
---@param held string array of the places that it holds
---@return table|false|nil
---@return moonbird.error? err
function M:release(session, worker, stage, held)
  return row_of(self, session, [[
    update @run_item set state = 'waiting', owner = null
    where run = $1 and owner = $2 and state = 'running' and (stage <> $3 or place <> all ($4::int[]))]],
    { worker.run, worker.owner, stage, held })
end

--- A worker leaves: its items are free at once.
---@param session moonbird.session
---@param worker { run: string, owner: string }
---@return table|false|nil
---@return moonbird.error? err
function M:leave(session, worker)
  local done, err = self:release(session, worker, -1, "{}")
  if done == nil then
    return nil, err
  end
  return row_of(self, session, "delete from @run_worker where run = $1 and owner = $2", { worker.run, worker.owner })
end

--- Opens the stage after `stage`.
---@param session moonbird.session
---@param name string
---@param stage integer the one that is over, 0 before the first
---@param tail table[] the stage to open and those behind it: scope, versions
---@param waves table[]
---@param items table[] in order: wave, tenant, state, code, migration, error
---@return boolean|nil opened false: another worker was faster
---@return moonbird.error? err
function M:open_stage(session, name, stage, tail, waves, items)
  return value_of(self, session, "select @run_open_stage($1, $2, $3::jsonb, $4::jsonb, $5::jsonb)",
    { name, stage, json.encode(json.array(tail)), json.encode(json.array(waves)), json.encode(json.array(items)) })
end

---@param session moonbird.session
---@param name string
---@param stage integer
---@param wave integer
---@return boolean|nil
---@return moonbird.error? err
function M:next_wave(session, name, stage, wave)
  return value_of(self, session, "select @run_next_wave($1, $2, $3)", { name, stage, wave })
end

---@param session moonbird.session
---@param worker { run: string, owner: string }
---@param stage integer
---@param wave integer
---@return boolean|nil mine
---@return moonbird.error? err
function M:take_gate(session, worker, stage, wave)
  return value_of(self, session, "select @run_take_gate($1, $2, $3, $4)", { worker.run, stage, wave, worker.owner })
end

---@param session moonbird.session
---@param worker { run: string, owner: string }
---@param stage integer
---@param wave integer
---@param refusal string|nil what the check said
---@return boolean|nil
---@return moonbird.error? err
function M:pass_gate(session, worker, stage, wave, refusal)
  return value_of(self, session, "select @run_pass_gate($1, $2, $3, $4, $5)",
    { worker.run, stage, wave, worker.owner, refusal }, 5)
end

--- Ends a run after its last stage.
---@param session moonbird.session
---@param name string
---@param stage integer
---@param reason string|nil why stages are left
---@return boolean|nil
---@return moonbird.error? err
function M:finish(session, name, stage, reason)
  return value_of(self, session, "select @run_end($1, $2, $3)", { name, stage, reason }, 3)
end

-- What is asked from other terminals ---------------------------------------------------------------------

--- Keeps workers from taking more, until resume.
---@param session moonbird.session
---@param name string
---@param reason string
---@return table|false|nil row false: it does not run
---@return moonbird.error? err
function M:pause(session, name, reason)
  return row_of(self, session, [[update @run set status = 'paused', reason = $2
    where name = $1 and status = 'running' returning name]], { name, reason })
end

--- Ends a run for good; what runs is finished.
---@param session moonbird.session
---@param name string
---@param reason string
---@return table|false|nil row false: it is over already
---@return moonbird.error? err
function M:cancel(session, name, reason)
  return row_of(self, session, [[update @run set status = 'cancelled', reason = $2, ended_at = clock_timestamp()
    where name = $1 and status in ('running', 'paused', 'halted', 'failed') returning name]], { name, reason })
end

--- Lets a run go on.
---@param session moonbird.session
---@param name string
---@return { again: integer|nil }|nil again: failed tenants that wait again; nil: there is nothing to resume
---@return moonbird.error? err
function M:resume(session, name)
  local row, err = row_of(self, session, "select @run_resume($1) as again", { name })
  return row or nil, err
end

local TIME = [[to_char(%s at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')]]
local BRIEF = "name, plan, newest, files, status, reason, stage, wave, gate, command, engine, host, made_by, "
  .. TIME:format("made_at") .. " as made_at, " .. TIME:format("ended_at") .. " as ended_at, "
  .. "(extract(epoch from coalesce(ended_at, clock_timestamp()) - made_at) * 1000)::bigint as took_ms"

--- All runs, newest first.
---@param session moonbird.session
---@return table[]|nil rows with counts
---@return moonbird.error? err
function M:list(session)
  return rows_of(self, session, "select " .. BRIEF .. [[,
    (select count(*) from @run_item i where i.run = r.name and state = 'done') as done,
    (select count(*) from @run_item i where i.run = r.name and state = 'failed') as failed,
    (select count(*) from @run_item i where i.run = r.name and state in ('waiting', 'running')) as left,
    (select count(*) from @run_worker w where w.run = r.name and lease_until > clock_timestamp()) as workers
    from @run r order by r.made_at desc, name]])
end

--- One run, with what is counted in it.
---@param session moonbird.session
---@param name string
---@return table|false|nil row as list(), and counts (by state), stages, waves, alive (workers), met
---         and finished (tenants)
---@return moonbird.error? err
function M:show(session, name)
  local row, err = row_of(self, session, "select " .. BRIEF .. ", stages, settings from @run where name = $1", { name })
  if not row then
    return row, err
  end
  opened(row)
  row.counts = {}
  local rows
  rows, err = rows_of(self, session, [[select stage, wave, state, count(*) as n from @run_item where run = $1
    group by stage, wave, state order by stage, wave, state]], { name })
  if not rows then
    return nil, err
  end
  local sums
  sums, err = row_of(self, session, [[select count(distinct tenant) filter (where state = 'done') as finished,
    count(distinct tenant) as met from @run_item where run = $1 and tenant <> 'global']], { name })
  if not sums then
    return nil, err
  end
  row.parts, row.finished, row.met = rows, sums.finished, sums.met
  for _, part in ipairs(rows) do
    row.counts[part.state] = (row.counts[part.state] or 0) + part.n
  end
  row.alive, err = rows_of(self, session, "select w.owner, w.host, w.pid, "
    .. TIME:format("w.joined_at") .. [[ as joined_at, (select count(*) from @run_item i where i.run = w.run
      and i.owner = w.owner and i.state = 'running') as running
    from @run_worker w where w.run = $1 and w.lease_until > clock_timestamp() order by w.joined_at, w.owner]], { name })
  if not row.alive then
    return nil, err
  end
  return row
end

--- Items in one of some states.
---@param session moonbird.session
---@param name string
---@param states string array, e.g. "{failed}"
---@return table[]|nil rows { tenant, stage, state, attempts, code, sqlstate, migration, file, line, error }
---@return moonbird.error? err
function M:items(session, name, states)
  return rows_of(self, session, [[select tenant, stage, wave, state, attempts, code, sqlstate, migration, file, line,
    error from @run_item where run = $1 and state = any ($2) order by stage, place]], { name, states })
end

--- How many items are in which state, in a stage's wave.
---@param session moonbird.session
---@param name string
---@param stage integer
---@param wave integer
---@return table|nil counts { total, done, failed, waiting, running }
---@return moonbird.error? err
function M:counts(session, name, stage, wave)
  local row, err = row_of(self, session, [[select count(*) as total,
    count(*) filter (where state = 'done') as done, count(*) filter (where state = 'failed') as failed,
    count(*) filter (where state = 'waiting') as waiting, count(*) filter (where state = 'running') as running
    from @run_item where run = $1 and stage = $2 and wave = $3]], { name, stage, wave })
  return row or nil, err
end

return M
