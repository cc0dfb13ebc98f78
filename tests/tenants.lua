--- Projects with tenants and what specs ask of their databases.
local cluster = require "moonbird.core.cluster"
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local session = require "moonbird.core.session"

local M = {}

local HEAD = "-- description: made up\n-- phase: %s\n-- scope: %s\n-- compatibility: %s\n%s"
  .. "-- migrate:up%s\n%s\n-- migrate:down%s\n%s\n"

--- The text of a migration in SQL.
---@param scope "global"|"tenant"
---@param up string
---@param options? table down, head (further header lines), phase, compatibility, alone (transaction:false)
---@return string
function M.sql(scope, up, options)
  options = options or {}
  local outside = options.alone and " transaction:false" or ""
  return HEAD:format(options.phase or "expand", scope, options.compatibility or "backward_compatible",
    options.head or "", outside, up, outside,
    options.down or "select 1;")
end

--- The text of a migration in Lua.
---@param scope "global"|"tenant"
---@param body string of up(db)
---@param more? string further fields
---@return string
function M.lua(scope, body, more)
  return ("return { description = 'made up', phase = 'expand', scope = %q, compatibility = 'backward_compatible',\n"
    .. "%s\nup = function(db)\n%s\nend, down = function(db) end }\n"):format(scope, more or "", body)
end

--- The configuration of a project whose tenants are the schemas of a pattern.
---@param more? string further options
---@return string
function M.config(more)
  return ("return { tenants = { source = tenants.schemas{ like = [[t\\_%%]] }, %s } }\n"):format(more or "")
end

--- A project folder: M.config() unless the files have another.
---@param files table<string, string> names below migrations/ -> text; "moonbird.lua"
---@param options? table as of helper.project
---@return string dir
function M.project(files, options)
  local all = { ["moonbird.lua"] = files["moonbird.lua"] or M.config() }
  for name, text in pairs(files) do
    if name ~= "moonbird.lua" then
      all["migrations/" .. name] = text
    end
  end
  return helper.project(all, options)
end

--- A project and its tenants: project(), then schemas().
---@param db tests.database
---@param count integer tenants
---@param files table<string, string> as of project()
---@param more? string further options of M.config(), where the files have no moonbird.lua
---@return string dir
function M.given(db, count, files, more)
  files["moonbird.lua"] = files["moonbird.lua"] or M.config(more)
  local dir = M.project(files)
  M.schemas(db, 1, count)
  return dir
end

--- Makes schemas t_001 and so on. Each holds a counter, which a migration can prove itself with.
---@param db tests.database
---@param from integer
---@param to integer
function M.schemas(db, from, to)
  for first = from, to, 500 do
    db:exec(([[do $$ begin for i in %d .. %d loop
      execute format('create schema %%I', 't_' || to_char(i, 'FM99999000'));
    end loop; end $$]]):format(first, math.min(first + 499, to)))
  end
end

--- Which versions a target has, as "1 2 3".
---@param db tests.database
---@param target string
---@return string
function M.versions(db, target)
  return db:value([[select coalesce(string_agg(version::text, ' ' order by version), '') from moonbird.state
    where target = $1 and applies]], target)
end

--- How many tenants have exactly these versions.
---@param db tests.database
---@param wanted string "1 2"
---@return integer
function M.count_at(db, wanted)
  return db:value([[select count(*) from (select string_agg(version::text, ' ' order by version) as has
    from moonbird.state where applies and target not in ('global', '@journal') group by target) s
    where has = $1]], wanted)
end

--- How often each tenant's version was applied, other than once: "" when every one was once.
---@param db tests.database
---@return string
function M.not_once(db)
  return db:value [[select coalesce(string_agg(format('%s %s: %s times', target, version, n), ', '), '') from (
    select target, version, count(*) as n from moonbird.journal
    where event = 'apply' and applies group by target, version having count(*) <> 1) s]]
end

--- Runs the binary.
---@param status integer expected
---@param options table as of helper.ok
---@param ... string arguments
---@return table result
function M.moonbird(status, options, ...)
  local all = { status = status }
  for key, value in pairs(options) do
    all[key] = value
  end
  return helper.ok({ ... }, all)
end

--- The same with --json -> the answer, the events.
---@return table answer
---@return table[] events
---@return table result
function M.answer(status, options, ...)
  local result = M.moonbird(status, options, "--json", ...)
  local events = {}
  for line in result.stderr:gmatch("[^\n]+") do
    local event = line:sub(1, 1) == "{" and json.decode(line)
    if event and event.event then
      events[#events + 1] = event
    end
  end
  return assert(json.decode(result.stdout), result.stdout), events, result
end

--- Asks again and again in the background for the highest value a query gives, until the function it returns
--- is called.
---@param db tests.database
---@param sql string
---@return fun(): integer stop gives the highest
function M.sample(db, sql)
  local task = require "moonbird.core.task"
  local own = db:connect { application_name = "sampler" }
  local most, over = 0, false
  local job = task.spawn(function()
    while not over do
      local result, err = own:query(sql)
      if not result then
        error(err, 0)
      end
      most = math.max(most, result:value(1, 1) or 0)
      result:close()
      task.sleep(3)
    end
  end)
  return function()
    over = true
    local _, err = job:join()
    assert(not err, err)
    return most
  end
end

--- A server of the test's own, with settings; it may be stopped and started. Ends with the test.
---@param settings table<string, string>
---@return table server params, url, stop(), start(), session()
function M.server(settings)
  local home = helper.tmpdir() .. "/cluster"
  local self = {}
  function self.start()
    self.url = assert(cluster.start(home)).url
  end
  function self.stop()
    assert(cluster.stop(home, { force = true }))
  end
  helper.defer(function()
    cluster.stop(home, { force = true })
  end)
  local opened = assert(cluster.open { dir = home, keep = true })
  self.params = opened.params
  self.start()
  opened:release()
  local own = assert(session.open(self.params))
  for name, value in pairs(settings) do
    assert(own:query(("alter system set %s = '%s'"):format(name, value)))
  end
  own:close()
  function self.session()
    local made = assert(session.open(self.params, { application_name = "moonbird-tests" }))
    helper.defer(function()
      made:close()
    end)
    return made
  end
  self.stop()
  self.start()
  return self
end

return M
