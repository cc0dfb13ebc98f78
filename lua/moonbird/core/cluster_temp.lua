--- Throwaway clusters: fast, not durable, gone when this process ends, also when it is killed.
--
-- A guard process owns the cluster: a shell in a session of its own whose stdin is a pipe from us. It
-- makes the data folder, starts the server as its child and waits. When the pipe closes (we closed it,
-- or the kernel did because we died), it stops the server at once and removes the folder.
-- initdb is the slow part, so its result is kept as a template and copied.
local error_ = require "moonbird.core.error"
local fs = require "moonbird.core.fs"
local process = require "moonbird.core.process"
local server = require "moonbird.core.cluster_server"
local sys = require "moonbird.core.sys"
local task = require "moonbird.core.task"

local M = {}

-- Arguments: home, template (or ""), folder of the programs, then those of the server. Signals meant for
-- the terminal's programs must not end it. The reader is a process of its own, so that the end of the
-- server by itself is noticed too. QUIT is repeated because the shell makes its background children ignore
-- it until the server has set its own handler; KILL is for a server that hangs.
local GUARD = [==[
trap '' HUP INT TERM PIPE
exec 3<&0 </dev/null
home=$1 template=$2 bin=$3
shift 3
make() {
  if [ -n "$template" ]; then
    cp -a --reflink=auto "$template" "$home/data"
  else
    for locale in $MOONBIRD_LOCALES; do
      "$bin/initdb" $MOONBIRD_INITDB --no-sync "--locale=$locale" -D "$home/data" && return
      rm -rf "$home/data"
    done
    return 1
  fi
}
if make >>"$home/server.log" 2>&1; then
  "$bin/postgres" "$@" >>"$home/server.log" 2>&1 3<&- &
  server=$!
  {
    read -r line <&3
    for tenth in 1 2 3 4 5 6 7 8 9 10 1 2 3 4 5 6 7 8 9 10 1 2 3 4 5 6 7 8 9 10; do
      kill -QUIT $server
      sleep 0.1
    done
    kill -KILL $server
  } &
  reader=$!
  wait $server
  kill -KILL $reader
else
  server=
fi 2>/dev/null
tail -n 40 "$home/server.log" >&2
rm -rf "$home" 2>/dev/null || { sleep 1; rm -rf "$home"; }
]==]

local SETTINGS = {
  fsync = "off",
  full_page_writes = "off",
  synchronous_commit = "off",
  shared_buffers = "16MB",
  max_connections = "100",
  -- The template's are those of the day it was made.
  timezone = "UTC",
  log_timezone = "UTC",
}

local BUILD_SECONDS = 60

--- The private folder for templates, made if missing; nil when there is no place for one. The server's
--- user must reach it, so root keeps it outside its home.
local function cache_folder(who)
  local dir
  if who.uid then
    dir = "/var/cache/moonbird/" .. who.uid
  else
    local base = sys.getenv("XDG_CACHE_HOME")
    local home = sys.getenv("HOME")
    if not base or base:sub(1, 1) ~= "/" then
      base = home and home:sub(1, 1) == "/" and home .. "/.cache"
    end
    dir = base and base .. "/moonbird"
  end
  if not dir or not fs.mkdir(dir, 448) then
    return nil
  end
  local st = fs.stat(dir)
  local owner = who.uid or sys.uid()
  if st.uid ~= owner and (not who.uid or not fs.chown(dir, who.uid, who.gid)) then
    return nil
  end
  return server.can_enter(dir, who) and dir or nil
end

--- Name of the template: one per program and options. The first part alone tells the program.
local function template_name(binaries)
  local st = fs.stat(binaries.postgres)
  local made_by = table.concat({
    binaries.version, st.size, st.mtime, table.concat(server.initdb_options(), " "),
  }, " ")
  return sys.sha256(binaries.bin):sub(1, 12) .. "-", sys.sha256(made_by):sub(1, 12)
end

local function exclusive(path)
  local lock = process.lock(path)
  local deadline = sys.monotonic() + BUILD_SECONDS
  while lock do
    local got = lock:try("exclusive")
    if got then
      return lock
    elseif got == nil or not task.sleep(10) or sys.monotonic() > deadline then
      lock:close()
      return nil
    end
  end
end

--- Builds the template. Nobody sees a part of it: it is renamed into place when whole.
local function build(binaries, who, cache, program, name, log)
  local lock <close> = exclusive(cache .. "/lock")
  local path = cache .. "/" .. program .. name
  if not lock or fs.stat(path .. "/PG_VERSION") then
    return lock and path
  end
  log(("making a template of PostgreSQL %s in %s"):format(binaries.version, cache))
  for _, entry in ipairs(fs.list(cache) or {}) do
    if entry.name:find("^new%-") then
      fs.remove_tree(cache .. "/" .. entry.name) -- what a killed builder left
    end
  end
  local new = server.fresh_name(cache .. "/new")
  local ok, err = server.initdb(binaries, new, who)
  if not ok then
    return nil, err
  end
  for _, entry in ipairs(fs.list(cache) or {}) do
    if entry.name:sub(1, #program) == program then
      fs.remove_tree(cache .. "/" .. entry.name) -- of a version since replaced
    end
  end
  return fs.rename(new, path) and path
end

--- The template's folder; "" when none can be kept (no home folder, a read-only disk).
local function template(binaries, who, log)
  local cache = cache_folder(who)
  if not cache then
    return ""
  end
  local program, name = template_name(binaries)
  local path = cache .. "/" .. program .. name
  if fs.stat(path .. "/PG_VERSION") then
    return path
  end
  local built, err = build(binaries, who, cache, program, name, log)
  if err then
    return nil, err
  end
  return built or ""
end

--- A new private folder that the server's user owns and a socket's path fits into.
local function new_home(who)
  local why
  for _, prefix in ipairs { "moonbird-pg-", "/tmp/moonbird-pg-" } do
    local home, message = fs.tempdir(prefix)
    if home then
      home = fs.realpath(home)
      local ok = true
      if who.uid then
        ok, message = fs.chown(home, who.uid, who.gid)
      end
      if ok and server.fits_socket(home) and server.can_enter(home, who) then
        return home
      end
      fs.remove(home)
      message = message or ('user "%s" can\'t use "%s"'):format(who.name, home)
    end
    why = message
  end
  return nil, error_.new("cluster", "no folder for a temporary cluster: " .. why, {
    hint = "TMPDIR names the folder to use",
  })
end

---@class moonbird.temp_cluster
---@field home string
---@field state moonbird.server_state
---@field stop fun(): true|nil, moonbird.error|nil

--- Starts a throwaway cluster and waits until it accepts connections.
---@param binaries moonbird.binaries
---@param who moonbird.identity
---@param log fun(text: string)
---@return moonbird.temp_cluster|nil
---@return moonbird.error? err
function M.open(binaries, who, log)
  local from, home, guard, err
  from, err = template(binaries, who, log)
  if not from then
    return nil, err
  end
  home, err = new_home(who)
  if not home then
    return nil, err
  end
  local env = server.environment()
  env.MOONBIRD_INITDB = table.concat(server.initdb_options(), " ")
  env.MOONBIRD_LOCALES = table.concat(server.locales(), " ")
  local args = { "-c", GUARD, "moonbird-guard", home, from, binaries.bin }
  local more = server.arguments(home .. "/data", home, SETTINGS)
  guard, err = process.spawn {
    file = "/bin/sh",
    args = table.move(more, 1, #more, #args + 1, args),
    env = env,
    uid = who.uid,
    gid = who.gid,
    cwd = "/",
    stdin = "pipe",
    stdout = "null",
    detached = true,
  }
  if not guard then
    fs.remove_tree(home)
    return nil, server.cannot_run(err, who)
  end
  local state, why = server.wait_ready(home .. "/data", function(ms)
    return guard:wait(ms)
  end)
  if not state then
    guard:close() -- the guard stops what there is and removes the folder
    return nil, error_.is(why) and why or server.start_error(why.stderr)
  end
  local function stop()
    local shield = server.shield()
    guard:close_stdin()
    repeat
      local outcome, cancelled = guard:wait()
      shield.note(cancelled)
    until outcome
    guard:close()
    shield.hand_on()
    return true
  end
  return { home = home, state = state, stop = stop }
end

return M
