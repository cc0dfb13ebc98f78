--- A streaming standby of a server that a test owns.
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

--- Makes a standby with a slot, starts it and waits until it streams. It is stopped at the test's end.
---@param primary moonbird.cluster released by a helper.defer of before: its folder holds the standby
---@param name string application_name and slot
---@return { params: table<string, string>, url: string, both: string, promote: fun() } both: a URL that names the
---        primary first
function M.start(primary, name)
  local on <close> = assert(session.open(primary.params, { application_name = "moonbird-tests" }))
  local bin = value(on, "select setting from pg_config where name = 'BINDIR'")
  local folder, from = primary.dir .. "/" .. name, primary.params
  program(primary, bin .. "/pg_basebackup", { "-D", folder, "-h", from.host, "-p", from.port, "-U", from.user,
    "-X", "stream", "-c", "fast", "-R", "-C", "-S", name }) -- with a slot
  local port = tostring(math.tointeger(from.port) + 1)
  program(primary, bin .. "/pg_ctl", { "-D", folder, "-w", "-l", folder .. "/log", "-o",
    ("-p %s -c hot_standby=on -k %s -c listen_addresses='' -c cluster_name=%s"):format(port, from.host, name),
    "start" })
  helper.defer(function()
    program(primary, bin .. "/pg_ctl", { "-D", folder, "-m", "immediate", "stop" })
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
      program(primary, bin .. "/pg_ctl", { "-D", folder, "-w", "promote" })
    end }
end

return M
