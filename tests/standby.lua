--- A streaming standby of a server that a test owns.
local cluster = require "moonbird.core.cluster"
local fs = require "moonbird.core.fs"
local helper = require "tests.helper"
local process = require "moonbird.core.process"
local session = require "moonbird.core.session"

local M = {}

--- Runs a server program and gives its outcome; as root the cluster's own user has to be taken.
local function program(primary, file, args)
  local user = fs.stat(primary.dir .. "/data").uid
  local spec = { file = file, args = args }
  if fs.stat("/proc/self").uid == 0 then
    spec = { file = "setpriv", args = { "--reuid=" .. user, "--clear-groups", "--regid=" .. user, file,
      table.unpack(args) } }
  end
  local child <close> = assert(process.spawn(spec))
  local result = assert(child:wait(60000))
  assert(result.status == 0, result.stdout .. result.stderr)
  return result
end

local function value(on, sql)
  local result = assert(on:query(sql))
  return result:value(1, 1)
end

--- Makes a standby with a slot, starts it and waits until it streams. It is stopped at the test's end. The primary is
--- stopped for it: not every server that the tests run on brings pg_basebackup along.
---@param primary moonbird.cluster with a folder of its own that the test stops at its end
---@param name string application_name and slot
---@return { params: table<string, string>, url: string, both: string, promote: fun() } both: a URL that names the
---        primary first
function M.start(primary, name)
  local folder, from = primary.dir .. "/" .. name, primary.params
  local port = tostring(math.tointeger(from.port) + 1)
  assert(cluster.stop(primary.dir, { force = true }))
  program(primary, "cp", { "-a", primary.dir .. "/data", folder })
  program(primary, "touch", { folder .. "/standby.signal" })
  assert(cluster.start(primary.dir))
  local on <close> = assert(session.open(from, { application_name = "moonbird-tests" }))
  assert(on:query("select pg_create_physical_replication_slot($1, true)", { name }))
  local pg_ctl = value(on, "select setting from pg_config where name = 'BINDIR'") .. "/pg_ctl"
  program(primary, pg_ctl, { "-D", folder, "-w", "-l", folder .. "/log", "-o",
    ("-p %s -k %s -c listen_addresses='' -c hot_standby=on -c cluster_name=%s -c primary_slot_name=%s "
      .. "-c primary_conninfo='host=%s port=%s user=%s'"):format(port, from.host, name, name, from.host, from.port,
      from.user), "start" })
  helper.defer(function()
    program(primary, pg_ctl, { "-D", folder, "-m", "immediate", "stop" })
  end)
  helper.eventually("the standby streams", function()
    return value(on, ("select count(*) from pg_stat_replication where application_name = '%s' and state = 'streaming'")
      :format(name)) == 1
  end)
  local params = {}
  for key, item in pairs(from) do
    params[key] = item
  end
  params.port = port
  return { params = params, url = (primary.url:gsub("port=%d+", "port=" .. port)),
    both = (primary.url:gsub("host=[^&]*", ("host=%s,%s"):format(from.host, from.host))
      :gsub("port=%d+", ("port=%s,%s"):format(from.port, port))),
    promote = function()
      program(primary, pg_ctl, { "-D", folder, "-w", "promote" })
    end }
end

return M
