--- moonbird drop
local create = require "moonbird.cli.command.create"
local error_ = require "moonbird.core.error"
local sql = require "moonbird.core.sql"
local up = require "moonbird.cli.command.up"

local M = {}

--- Drops the database.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  local _, gate, refused = up.gate(args)
  if not gate then
    return nil, refused
  end
  return create.with_maintenance(args, report, function(admin, name)
    if not args.yes then
      return nil, error_.new("usage", ("this would drop database %q with everything in it"):format(name),
        { hint = "say so with --yes" })
    elseif name == "postgres" or name == "template1" or name == "template0" then
      return nil, error_.new("usage", ("%q belongs to the server and is not dropped"):format(name),
        { hint = "for the embedded cluster: `moonbird cluster destroy --yes`" })
    end
    local there, err = admin:query("select 1 from pg_database where datname = $1", { name })
    if not there then
      return nil, err
    end
    local _, drop_err = admin:query("drop database if exists " .. sql.ident(name))
    if drop_err then
      return nil, drop_err
    end
    report:print(there:count() > 0 and ("dropped database %q"):format(name)
      or ("there is no database %q"):format(name))
    return { database = name, dropped = there:count() > 0 }
  end)
end

return M
