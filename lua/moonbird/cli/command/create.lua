--- moonbird create, and what drop shares with it: the maintenance database.
local error_ = require "moonbird.core.error"
local project = require "moonbird.cli.project"
local session = require "moonbird.core.session"
local sql = require "moonbird.core.sql"
local sys = require "moonbird.core.sys"

local M = {}

--- Runs `work(session, name)` connected to the database "postgres" of the URL's server.
---@param args table
---@param report moonbird.reporter
---@param work fun(session: moonbird.session, name: string): table|nil, moonbird.error?
---@return table|nil
---@return moonbird.error? err
function M.with_maintenance(args, report, work)
  local conf, err = project.config(args)
  if not conf then
    return nil, err
  end
  local database
  database, err = project.database(conf, report)
  if not database then
    return nil, err
  end
  local name = database.params.dbname or sys.getenv("PGDATABASE") or database.params.user
    or sys.getenv("PGUSER") or sys.user()
  local params = {}
  for k, v in pairs(database.params) do
    params[k] = v
  end
  params.dbname = "postgres"
  local result
  local admin
  admin, err = session.open(params, { application_name = "moonbird/" .. args.command })
  if admin then
    result, err = work(admin, name)
    admin:close()
  end
  if database.handle then
    database.handle:release()
  end
  return result, err
end

--- Creates the database.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  return M.with_maintenance(args, report, function(admin, name)
    local _, err = admin:query("create database " .. sql.ident(name))
    if err and err.sqlstate == "42P04" then
      report:print(("database %q is there already"):format(name))
      return { database = name, created = false }
    elseif err then
      return nil, error_.with(err, { hint = "the role needs CREATEDB" })
    end
    report:print(("created database %q"):format(name))
    return { database = name, created = true }
  end)
end

return M
