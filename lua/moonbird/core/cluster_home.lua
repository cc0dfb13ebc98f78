--- The folder of an embedded cluster ("home"): where it is, whose it is, and its locks.
--
-- A home holds the data folder, the server's log and socket, a marker that tells it is moonbird's, and
-- two lock files (see core/cluster.lua). As root it belongs to the user who runs the server.
local error_ = require "moonbird.core.error"
local fs = require "moonbird.core.fs"
local process = require "moonbird.core.process"
local server = require "moonbird.core.cluster_server"
local sys = require "moonbird.core.sys"
local task = require "moonbird.core.task"

local M = {}

M.MARKER = "moonbird.cluster"
M.START_LOCK = "start.lock"
M.USE_LOCK = "use.lock"

--- Where root puts clusters whose folder the server's user can't enter.
local ELSEWHERE = "/var/lib/moonbird"
local SOCKET_PREFIX = "/tmp/moonbird-socket-"
local LOCK_SECONDS = 150
local PRIVATE = 448 -- 0700

--- nil and an error of code "cluster".
function M.fail(message, fields)
  return nil, error_.new("cluster", message, fields)
end

--- Turns nil, message of core/fs into nil, err.
function M.io_fail(message)
  return M.fail(message, { hint = "the embedded cluster's folder must be writable (`embedded:DIR` names another)" })
end

local fail, io_fail = M.fail, M.io_fail

-- Folder -----------------------------------------------------------------------------------------------

local function parent_of(path)
  local parent = path:match("^(.*)/[^/]*$")
  return parent == "" and "/" or parent
end

--- The absolute form of a path, links kept.
---@param dir string
---@return string
function M.absolute(dir)
  if dir:sub(1, 1) ~= "/" then
    dir = assert(fs.cwd()) .. "/" .. dir
  end
  return (dir:gsub("/+", "/"):gsub("(.)/$", "%1"))
end

--- The first folder on the way to `dir` that the server's user can't enter, or nil.
local function barrier(dir, who)
  local at = dir
  while not fs.stat(at) do
    at = parent_of(at)
  end
  if server.can_enter(at, who) then
    return nil
  end
  local path = ""
  for part in at:gmatch("/[^/]+") do
    path = path .. part
    if not server.can_enter(path, who) then
      return path
    end
  end
  return at
end

--- Makes the folder elsewhere, and `dir` a link to it.
local function make_elsewhere(dir, who, blocked, log)
  local base = dir:match("[^/]+$")
  local real = fs.realpath(parent_of(dir)) .. "/" .. base
  local home = ("%s/%s-%s"):format(ELSEWHERE, base, sys.sha256(real):sub(1, 12))
  local ok, message = fs.mkdir(home, PRIVATE)
  if ok then
    ok, message = fs.chown(home, who.uid, who.gid)
  end
  if not ok or not server.can_enter(home, who) then
    return fail(('user "%s", which runs PostgreSQL, can\'t enter "%s"'):format(who.name, blocked), {
      detail = message,
      hint = ("`chmod o+x %s`, work in another folder, or name another user in MOONBIRD_PG_USER"):format(blocked),
    })
  end
  local result = server.run_briefly { file = "ln", args = { "-s", "-T", home, dir } }
  if not fs.stat(dir) then -- another moonbird may have been faster: its link is as good
    return io_fail(('cannot link "%s" to "%s": %s'):format(dir, home, result and result.stderr or "no ln"))
  end
  log(('data is in %s: user "%s" can\'t enter %s'):format(home, who.name, blocked))
  return true
end

local function make_folder(dir, who, log)
  local parent = parent_of(dir)
  local ok, message = fs.mkdir(parent)
  if not ok then
    return io_fail(message)
  end
  local blocked = who.uid and barrier(parent, who)
  if blocked then
    return make_elsewhere(dir, who, blocked, log)
  end
  ok, message = fs.mkdir(dir, PRIVATE)
  if ok and who.uid then
    ok, message = fs.chown(dir, who.uid, who.gid)
  end
  if not ok then
    return io_fail(message)
  end
  return true
end

--- Refuses a folder that holds something else.
local function check_content(home)
  if fs.stat(home .. "/" .. M.MARKER) then
    return true
  end
  if fs.stat(home .. "/PG_VERSION") then
    return fail(('"%s" is a PostgreSQL data folder that moonbird did not make'):format(home), {
      hint = "start that server yourself and give its URL, or name another folder",
    })
  end
  local entries, message = fs.list(home)
  if not entries then
    return io_fail(message)
  end
  for _, entry in ipairs(entries) do
    local ours = entry.name == M.START_LOCK or entry.name == M.USE_LOCK
    -- The marker is made first of all: whoever sees more without it has looked while another made it.
    if not ours and not fs.stat(home .. "/" .. M.MARKER) then
      return fail(('"%s" is not empty, and moonbird did not make what is in it'):format(home), {
        hint = "name an empty or a new folder",
      })
    end
  end
  return true
end

--- The real folder behind `dir` and who runs its server; makes it when asked to.
---@param dir string absolute
---@param told string|nil user asked for
---@param make boolean
---@param log fun(text: string)
---@return string|nil home nil without an error when there is none
---@return moonbird.identity|moonbird.error|nil
function M.resolve(dir, told, make, log)
  local st = fs.stat(dir)
  local ok, err
  if not st then
    if not make then
      return nil
    end
    local who
    who, err = server.identity(told)
    if not who then
      return nil, err
    end
    ok, err = make_folder(dir, who, log)
    if not ok then
      return nil, err
    end
    st = assert(fs.stat(dir))
  end
  if st.type ~= "dir" then
    return fail(('"%s" is not a folder'):format(dir))
  end
  local home = fs.realpath(dir)
  if sys.uid() ~= 0 and st.uid ~= sys.uid() then
    return fail(('the cluster in "%s" belongs to another user'):format(home), {
      hint = "run as root or as that user, or name another folder (`embedded:DIR`)",
    })
  end
  ok, err = check_content(home)
  if not ok then
    return nil, err
  end
  local who
  if sys.uid() == 0 and st.uid ~= 0 then
    -- An existing cluster keeps its owner.
    who = { uid = st.uid, gid = st.gid, name = tostring(st.uid) }
  else
    who, err = server.identity(told)
    if not who then
      return nil, err
    end
    if who.uid then -- an empty folder of root's
      local blocked = barrier(home, who)
      if blocked and blocked ~= home then
        return fail(('user "%s", which runs PostgreSQL, can\'t enter "%s"'):format(who.name, blocked), {
          hint = ("`chmod o+x %s`, or remove the empty folder %s"):format(blocked, dir),
        })
      end
      fs.chown(home, who.uid, who.gid)
    end
    fs.chmod(home, PRIVATE)
  end
  return home, who
end

-- Locks ------------------------------------------------------------------------------------------------

--- Takes a lock of the home; waits for its turn.
---@param home string
---@param name string START_LOCK or USE_LOCK
---@param mode "shared"|"exclusive"
---@param who moonbird.identity
---@param patient? boolean go on waiting when the task is cancelled: for leaving
---@return userdata|nil lock
---@return moonbird.error? err
function M.take(home, name, mode, who, patient)
  local path = home .. "/" .. name
  local deadline = sys.monotonic() + LOCK_SECONDS
  local shield = server.shield()
  local lock, message, errno
  repeat
    lock, message, errno = process.lock(path)
    if not lock then
      return fail(message, { errno = errno, hint = "the embedded cluster's folder must be writable" })
    end
    if who.uid then
      fs.chown(path, who.uid, who.gid) -- so that its owner can use it without root, too
    end
    local got
    repeat
      got, message, errno = lock:try(mode)
      if got then
        shield.hand_on()
        return lock
      end
      if got == false then
        local _, err = task.sleep(5 + sys.random(1):byte() % 8)
        if err and not patient then
          lock:close()
          return nil, err
        end
        shield.note(err)
      end
      if sys.monotonic() > deadline then
        lock:close()
        return fail(('"%s" has been locked for %d s'):format(path, LOCK_SECONDS), {
          hint = "another moonbird process starts or stops the cluster; is it stuck?",
        })
      end
    until got == nil
    lock:close()
  until errno ~= "ESTALE" -- removed by `destroy` meanwhile: a new file has to be locked
  return fail(message, { errno = errno })
end

-- Socket ------------------------------------------------------------------------------------------------

--- Where the socket goes: the home, or a folder of its own in /tmp when the path would be too long.
---@param home string
---@param who moonbird.identity
---@return string|nil dir
---@return moonbird.error? err
function M.socket_folder(home, who)
  if server.fits_socket(home) then
    return home
  end
  local dir, message = fs.tempdir(SOCKET_PREFIX)
  if not dir then
    return io_fail(message)
  end
  if who.uid then
    fs.chown(dir, who.uid, who.gid)
  end
  return dir
end

--- Removes a socket folder that socket_folder() made; leaves any other alone.
---@param dir string|nil
function M.remove_socket_folder(dir)
  if dir and dir:sub(1, #SOCKET_PREFIX) == SOCKET_PREFIX then
    fs.remove_tree(dir)
  end
end

return M
