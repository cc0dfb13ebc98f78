--- One PostgreSQL server of the embedded kind: making its data folder, starting, watching, stopping.
--
-- No policy and no locks: who may do what when is decided in core/cluster.lua. Programs are started
-- without pg_ctl, whose polling alone would cost a tenth of a second.
local error_ = require "moonbird.core.error"
local fs = require "moonbird.core.fs"
local process = require "moonbird.core.process"
local sys = require "moonbird.core.sys"
local task = require "moonbird.core.task"

local M = {}

--- The port is only the end of the socket's name: nothing listens on the network.
M.PORT = 5432
M.SUPERUSER = "postgres"
M.DATABASE = "postgres"
M.LOG = "server.log"

--- Longest path of a Unix socket, in bytes (sun_path is 108 with its NUL).
M.SOCKET_PATH_MAX = 107
-- How long a server may take to write what it has in memory (16 MB) and end: a second at most, on a slow disk some.
M.FAST_SECONDS = 20

local INITDB = {
  "--username=" .. M.SUPERUSER,
  "--encoding=UTF8",
  "--auth-local=trust", -- the socket's folder is private to the server's user
  "--auth-host=reject",
  "--data-checksums",
  "--no-instructions",
}
local LOCALES = { "C.UTF-8", "C" }

local START_SECONDS = 120
local STOP_SECONDS = 60
local LOG_MAX = 1024 * 1024

---@class moonbird.identity who the server runs as
---@field uid? integer nil: as we are
---@field gid? integer
---@field name string

local HINTS = {
  { "No space left on device", "free some disk space, or put the cluster elsewhere (`embedded:DIR`)" },
  { "Permission denied", "the server's user may not read or write there" },
  { "shared memory", "the machine allows too little shared memory, or an old server still holds it" },
  { "lock file", "another server uses the same folder; stop it first" },
  { "incompatible with server", "use the PostgreSQL version that made the data (MOONBIRD_PG_BIN)" },
}

local function hint_for(text, default)
  for _, entry in ipairs(HINTS) do
    if text:find(entry[1], 1, true) then
      return entry[2]
    end
  end
  return default
end

--- What is left of our environment for PostgreSQL: no PG* settings, and no secrets such as DATABASE_URL
--- that a superuser could read from the server's process.
---@return table<string, string|false>
function M.environment()
  local keep = { PATH = true, HOME = true, TZ = true, LD_LIBRARY_PATH = true }
  local env = { LC_ALL = "C" } -- messages are matched
  for name in pairs(sys.environ()) do
    if not keep[name] and name ~= "LC_ALL" then
      env[name] = false
    end
  end
  return env
end

--- Options of initdb, without data folder and locale.
---@return string[]
function M.initdb_options()
  return { table.unpack(INITDB) }
end

--- Locales to try in turn.
---@return string[]
function M.locales()
  return { table.unpack(LOCALES) }
end

--- Collects the cancel that comes while something must not be left half done: `note` each error of a
--- wait, and `hand_on` makes the task's next wait end with it.
---@return table { note = function(err), hand_on = function() }
function M.shield()
  local code
  return {
    note = function(err)
      code = code or (err and err.code)
    end,
    hand_on = function()
      if code then
        task.current():cancel(code)
      end
    end,
  }
end

--- Runs a program that takes but a moment; a cancel waits until it is over.
---@param spec table as of process.run
---@return table|nil outcome
---@return moonbird.error? err
function M.run_briefly(spec)
  local child <close>, err = process.spawn(spec)
  if not child then
    return nil, err
  end
  local shield = M.shield()
  local outcome
  repeat
    outcome, err = child:wait()
    shield.note(err)
  until outcome
  shield.hand_on()
  return outcome
end

--- Who PostgreSQL runs as. It refuses to run as root, so root needs somebody else.
---@param told? string user asked for (default MOONBIRD_PG_USER)
---@return moonbird.identity|nil
---@return moonbird.error? err
function M.identity(told)
  told = told or sys.getenv("MOONBIRD_PG_USER")
  if told == "" then
    told = nil
  end
  if sys.uid() ~= 0 then
    if told and told ~= sys.user() then
      return nil,
        error_.new("cluster", ('only root can run PostgreSQL as user "%s"'):format(told), {
          hint = "unset MOONBIRD_PG_USER: it then runs as you",
        })
    end
    return { name = sys.user() }
  end
  for _, name in ipairs(told and { told } or { "postgres", "nobody" }) do
    local entry = sys.passwd(name)
    if entry and entry.uid ~= 0 then
      return { uid = entry.uid, gid = entry.gid, name = name }
    end
  end
  local hint = "PostgreSQL does not run as root: name an ordinary user in MOONBIRD_PG_USER"
  if told then
    return nil, error_.new("cluster", ('cannot run PostgreSQL as user "%s"'):format(told), { hint = hint })
  end
  return nil, error_.new("cluster", "there is no user to run PostgreSQL as", { hint = hint })
end

--- Whether the server's user can enter a folder; asks the kernel, so that ACLs count.
---@param dir string
---@param who moonbird.identity
---@return boolean
function M.can_enter(dir, who)
  if not who.uid then
    return fs.access(dir, "x")
  end
  local result = M.run_briefly {
    file = "/bin/sh",
    args = { "-c", 'test -x "$1/."', "sh", dir },
    uid = who.uid,
    gid = who.gid,
    cwd = "/",
    stdout = "null",
    stderr = "null",
  }
  return result ~= nil and result.status == 0
end

--- Turns a failure to start a program into an error that helps.
---@param err moonbird.error of process.run or process.spawn
---@param who moonbird.identity
---@return moonbird.error
function M.cannot_run(err, who)
  if err.code ~= "io" then
    return err -- the task was cancelled
  end
  local hint = err.errno == "EACCES" and who.uid
    and ('user "%s" must be able to enter the folder of the programs and all above it'):format(who.name)
  return error_.new("cluster", err.message, { cause = err, hint = hint or err.hint })
end

--- A name for a data folder in the making. Never the same twice: the initdb of a killed moonbird goes
--- on, and must not write into its successor's.
---@param prefix string
---@return string path
function M.fresh_name(prefix)
  return prefix .. "-" .. sys.sha256(sys.random(16)):sub(1, 12)
end

--- Makes a data folder. A failed attempt leaves nothing.
---@param binaries moonbird.binaries
---@param data string path that must not exist
---@param who moonbird.identity
---@return true|nil
---@return moonbird.error? err
function M.initdb(binaries, data, who)
  local result, err
  for _, locale in ipairs(LOCALES) do
    local args = M.initdb_options()
    table.move({ "--locale=" .. locale, "--pgdata=" .. data }, 1, 2, #args + 1, args)
    result, err = process.run {
      file = binaries.initdb,
      args = args,
      env = M.environment(),
      uid = who.uid,
      gid = who.gid,
      cwd = "/",
    }
    if not result then
      fs.remove_tree(data)
      return nil, M.cannot_run(err, who)
    end
    if result.status == 0 then
      return true
    end
    fs.remove_tree(data)
    if not result.stderr:find("locale", 1, true) then
      break
    end
  end
  local said = result.stderr .. result.stdout
  local why = said:match("error: ([^\n]+)") or said:match("FATAL:%s*([^\n]+)") or said:match("([^\n]+)\n*$")
  return nil,
    error_.new("cluster", ('initdb could not make "%s": %s'):format(data, why or result.signal or "no reason given"), {
      detail = said ~= "" and said or nil,
      hint = hint_for(said, "detail has all that initdb said"),
    })
end

---@class moonbird.server_state
---@field pid integer
---@field port integer
---@field socket_dir string
---@field status string "starting", "ready", "stopping", "standby"

--- Whether `pid` is a server on `data`: a stale postmaster.pid may name any process, also one that was killed and that
--- the kernel is taking away. That has no memory any more, and with it no command line, while it still has its folder.
local function serves(pid, data)
  if (fs.read(("/proc/%d/cmdline"):format(pid)) or "") == "" then
    return false
  end
  local cwd, _, errno = fs.realpath(("/proc/%d/cwd"):format(pid))
  if cwd then
    return cwd == data
  end
  -- Another user's process does not show its folder; its name it does.
  return errno == "EACCES" and (fs.read(("/proc/%d/comm"):format(pid)) or ""):find("postgres", 1, true) ~= nil
end

--- Reads postmaster.pid.
---@param data string real path of the data folder
---@return moonbird.server_state|nil nil when no server runs there
function M.state(data)
  local text = fs.read(data .. "/postmaster.pid")
  local lines = {}
  for line in (text or ""):gmatch("([^\n]*)\n?") do
    lines[#lines + 1] = line
  end
  local pid = math.tointeger(tonumber(lines[1]))
  if not pid or pid <= 1 or not serves(pid, data) then
    return nil
  end
  return {
    pid = pid,
    port = math.tointeger(tonumber(lines[4])) or M.PORT,
    socket_dir = lines[5] or "",
    status = (lines[8] or "starting"):match("^%S+") or "starting",
  }
end

--- Arguments of the server program.
---@param data string
---@param socket_dir string
---@param settings? table<string, string> more settings
---@return string[]
function M.arguments(data, socket_dir, settings)
  local args = { "-D", data }
  local all = {
    listen_addresses = "",
    port = tostring(M.PORT),
    -- A list of names: quoted, for the comma or space a folder's name may have.
    unix_socket_directories = '"' .. socket_dir:gsub('"', '""') .. '"',
    unix_socket_permissions = "0700",
  }
  for name, value in pairs(settings or {}) do
    all[name] = value
  end
  local names = {}
  for name in pairs(all) do
    names[#names + 1] = name
  end
  table.sort(names)
  for _, name in ipairs(names) do
    args[#args + 1] = "-c"
    args[#args + 1] = name .. "=" .. all[name]
  end
  return args
end

--- Whether clients can be told this folder as a socket's: libpq splits its host at commas.
---@param dir string
---@return boolean
function M.fits_socket(dir)
  return #(dir .. "/.s.PGSQL." .. M.PORT) <= M.SOCKET_PATH_MAX and not dir:find(",", 1, true)
end

--- Why a server ended at once, from what it wrote to its log.
---@param log string
---@return moonbird.error
function M.start_error(log)
  local why = log:match("FATAL:%s*([^\n]+)") or log:match("PANIC:%s*([^\n]+)") or log:match("error: ([^\n]+)")
    or log:match("([^\n]+)\n*$") or "no reason given"
  local hint = log:match("HINT:%s*([^\n]+)")
  return error_.new("cluster", "PostgreSQL did not start: " .. why, {
    detail = log ~= "" and log or nil,
    hint = hint_for(log, hint or "detail has the server's log"),
  })
end

--- Waits until a server accepts connections.
---@param data string
---@param ended fun(ms: integer): any waits so long for the server's process; what it returns unless
---  false ends the wait (an outcome, or nil, err when the task is cancelled)
---@return moonbird.server_state|nil
---@return moonbird.error|table|nil err an error, or the outcome of the process that ended
function M.wait_ready(data, ended)
  local deadline = sys.monotonic() + START_SECONDS
  local ms = 2
  repeat
    local outcome, err = ended(ms)
    if outcome ~= false then
      return nil, outcome or err
    end
    local state = M.state(data)
    if state and state.status == "ready" then
      return state
    end
    ms = math.min(ms + 1, 20)
  until sys.monotonic() > deadline
  return nil,
    error_.new("cluster", ("PostgreSQL did not accept connections within %d s"):format(START_SECONDS), {
      hint = "see " .. M.LOG .. " next to the data folder",
    })
end

local function log_size(path)
  local st = fs.stat(path)
  return st and st.size or 0
end

--- Starts a server that outlives this process.
---@param binaries moonbird.binaries
---@param home string folder of data, log and perhaps socket
---@param socket_dir string
---@param who moonbird.identity
---@return moonbird.server_state|nil
---@return moonbird.error? err
function M.start(binaries, home, socket_dir, who)
  local data, log = home .. "/data", home .. "/" .. M.LOG
  if log_size(log) > LOG_MAX then
    fs.rename(log, log .. ".1")
  end
  local before = log_size(log)
  local args = M.arguments(data, socket_dir)
  table.move({ "-c", 'exec "$@" >>"$0" 2>&1', log, binaries.postgres }, 1, 4, 1, table.move(args, 1, #args, 5))
  local child <close>, err = process.spawn {
    file = "/bin/sh",
    args = args,
    env = M.environment(),
    uid = who.uid,
    gid = who.gid,
    cwd = "/",
    stdout = "null",
    stderr = "null",
    detached = true,
  }
  if not child then
    return nil, M.cannot_run(err, who)
  end
  local state, why = M.wait_ready(data, function(ms)
    return child:wait(ms)
  end)
  if state then
    return state
  end
  if error_.is(why) then
    -- Cancelled or too slow: nobody would know of this server.
    child:kill("INT")
    return nil, why
  end
  return nil, M.start_error((fs.read(log) or ""):sub(before + 1))
end

--- Stops a server and waits until it is gone: running transactions are rolled back, data is written. One that does not
--- end so in FAST_SECONDS is stopped at once; its next start takes what was committed from its log. (17 can wait for
--- its checkpointer for ever when it was starting again after a crash.)
---@param data string
---@return boolean|nil stopped false when none ran
---@return moonbird.error? err
function M.stop(data)
  local state = M.state(data)
  if not state then
    return false
  end
  local began, at_once = sys.monotonic(), false
  local ok, message = process.signal(state.pid, "INT")
  if not ok and M.state(data) then
    return nil,
      error_.new("cluster", "cannot stop PostgreSQL: " .. message, {
        hint = "stop it as root or as the user it runs under",
      })
  end
  local shield, ms = M.shield(), 2
  local runs
  repeat
    local _, err = task.sleep(ms)
    shield.note(err)
    ms = math.min(ms + 1, 20)
    runs = serves(state.pid, data) -- the process, not its file: that is removed a moment before
    local waited = sys.monotonic() - began
    if runs and not at_once and waited > M.FAST_SECONDS then
      at_once = true
      process.signal(state.pid, "QUIT") -- one that is gone meanwhile is fine
    end
  until not runs or waited > STOP_SECONDS
  shield.hand_on()
  if runs then
    return nil,
      error_.new("cluster", ("PostgreSQL (process %d) did not stop within %d s"):format(state.pid, STOP_SECONDS), {
        hint = "its log tells what it waits for",
      })
  end
  return true
end

--- Processes whose working folder is the data folder.
local function processes(data)
  local pids = {}
  for _, entry in ipairs(fs.list("/proc") or {}) do
    local pid = math.tointeger(tonumber(entry.name))
    if pid and fs.realpath(("/proc/%d/cwd"):format(pid)) == data then
      pids[#pids + 1] = pid
    end
  end
  return pids
end

--- Removes a postmaster.pid whose process number now is somebody else's (after a crash, or in a
--- restarted container): PostgreSQL itself refuses to, as it can't tell. Only when no process at all
--- has the data folder as its own, so no backend is left either.
---@param data string real path
---@return boolean removed
function M.remove_stale_pid(data)
  return #processes(data) == 0 and fs.remove(data .. "/postmaster.pid") ~= nil
end

--- Ends what a killed server left: most of its processes notice and go by themselves, some (a launcher
--- that waits for statistics) only after minutes. The data is as after any crash: its log restores it.
---@param data string real path; no server may run there
---@param signal "QUIT"|"KILL"
function M.end_orphans(data, signal)
  for _, pid in ipairs(processes(data)) do
    process.signal(pid, signal) -- one that is gone meanwhile is fine
  end
end

local function escape(text)
  return (text:gsub("[^%w%-%._~/]", function(c)
    return ("%%%02X"):format(c:byte())
  end))
end

--- How to connect.
---@param state moonbird.server_state
---@return table params libpq keywords: host, port, user, dbname
---@return string url
function M.address(state)
  local params = {
    host = state.socket_dir,
    port = tostring(state.port),
    user = M.SUPERUSER,
    dbname = M.DATABASE,
  }
  local url = ("postgresql://%s@/%s?host=%s&port=%d"):format(
    M.SUPERUSER, M.DATABASE, escape(state.socket_dir), state.port)
  return params, url
end

return M
