--- pgbouncer in transaction mode in front of the shared cluster.
local fs = require "moonbird.core.fs"
local helper = require "tests.helper"
local process = require "moonbird.core.process"
local server = require "moonbird.core.cluster_server"

local M = {}

--- Starts it. It ends with the test.
---@param db tests.database
---@return string url of `db` through it
---@return table<string, string> params the same as libpq keywords
function M.start(db)
  local cluster = helper.cluster()
  local dir = helper.tmpdir()
  local who = assert(server.identity())
  assert(fs.write(dir .. "/pgbouncer.ini", table.concat({
    "[databases]",
    ("* = host=%s port=%d user=%s"):format(cluster.socket_dir, cluster.port, db.params.user),
    "[pgbouncer]",
    "listen_addr =", -- the socket only
    "listen_port = 6432",
    "unix_socket_dir = " .. dir,
    "auth_type = any",
    "pool_mode = transaction",
    "default_pool_size = 30",
    "max_client_conn = 200",
    "",
  }, "\n")))
  if who.uid then
    assert(fs.chown(dir, who.uid, who.gid))
    assert(fs.chmod(dir .. "/pgbouncer.ini", 420)) -- 0644
  end
  local found = "/usr/sbin/pgbouncer"
  local child = assert(process.spawn {
    file = fs.access(found, "x") and found or "pgbouncer",
    args = { dir .. "/pgbouncer.ini" }, cwd = dir, uid = who.uid, gid = who.gid,
  })
  helper.defer(function()
    child:kill("KILL")
    child:wait()
    child:close()
  end)
  helper.eventually("pgbouncer listens", function()
    local ended = child:wait(10)
    if ended then
      error("pgbouncer ended: " .. ended.stdout .. ended.stderr)
    end
    return fs.stat(dir .. "/.s.PGSQL.6432")
  end)
  return ("postgresql://%s@/%s?host=%s&port=6432"):format(db.params.user, db.name, (dir:gsub("/", "%%2F"))),
    { host = dir, port = "6432", user = db.params.user, dbname = db.name }
end

return M
