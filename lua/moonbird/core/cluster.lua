--- The embedded PostgreSQL: a private cluster per project, started on demand and stopped after use.
--
-- A cluster's folder ("home") holds the data folder, the server's log and socket, and two lock files.
-- `start.lock` is held exclusively by whoever starts, stops or removes; `use.lock` is shared by all who
-- use the server. Both are released by the kernel when their holder dies. Whoever leaves and gets
-- `use.lock` exclusively was the last and stops the server, unless `cluster start` marked it to stay.
-- A server whose users were all killed goes on, and the next user's leaving stops it.
-- docs/internals/cluster.md has the whole picture.
local binaries = require "moonbird.core.cluster_binaries"
local error_ = require "moonbird.core.error"
local fs = require "moonbird.core.fs"
local homes = require "moonbird.core.cluster_home"
local process = require "moonbird.core.process"
local server = require "moonbird.core.cluster_server"
local sys = require "moonbird.core.sys"
local task = require "moonbird.core.task"
local temp = require "moonbird.core.cluster_temp"

local M = {}

local MARKER_TEXT = "format 1\n"
local STAY = "stay"
local NEW_DATA = "data.new"
local RETRY_SECONDS = 10

local fail, io_fail = homes.fail, homes.io_fail

local function nothing() end

-- Server -----------------------------------------------------------------------------------------------

local function ensure_data(home, found, who, log)
  local data = home .. "/data"
  local version = fs.read(data .. "/PG_VERSION")
  if version then
    local major = version:match("^%d+")
    if tonumber(major) == found.major then
      return true
    end
    return fail(("the cluster was made by PostgreSQL %s, and the programs found are version %s"):format(
      major, found.version), {
      detail = ('data in "%s", programs in "%s"'):format(data, found.bin),
      hint = ("install PostgreSQL %s (`apt-get install postgresql-%s`), name its folder in MOONBIRD_PG_BIN, or "
        .. "start anew with `moonbird cluster destroy`"):format(major, major),
    })
  end
  log(("making a PostgreSQL %s cluster in %s"):format(found.version, home))
  local ok, message = true, nil
  if not fs.stat(home .. "/" .. homes.MARKER) then
    -- Not fs.write: its temporary file would be seen before the marker.
    ok, message = fs.append(home .. "/" .. homes.MARKER, MARKER_TEXT)
  end
  if not ok then
    return io_fail(message)
  end
  if who.uid then
    fs.chown(home .. "/" .. homes.MARKER, who.uid, who.gid)
  end
  for _, entry in ipairs(fs.list(home) or {}) do
    if entry.name:find(NEW_DATA, 1, true) == 1 then
      fs.remove_tree(home .. "/" .. entry.name) -- what a killed attempt left
    end
  end
  fs.remove_tree(data) -- without PG_VERSION it never was a cluster
  local new = server.fresh_name(home .. "/" .. NEW_DATA)
  local err
  ok, err = server.initdb(found, new, who)
  if not ok then
    return nil, err
  end
  ok, message = fs.rename(new, data)
  if not ok then
    return io_fail(message)
  end
  return true
end

local function start_server(home, who, log)
  local version = fs.read(home .. "/data/PG_VERSION")
  local found, err = binaries.find(version and math.tointeger(tonumber(version:match("^%d+"))))
  if not found then
    return nil, err
  end
  local ok, socket, state
  ok, err = ensure_data(home, found, who, log)
  if not ok then
    return nil, err
  end
  -- A crashed server's postmaster.pid still names the socket folder it had.
  local stale = fs.read(home .. "/data/postmaster.pid") or ""
  homes.remove_socket_folder(stale:match("^[^\n]*\n[^\n]*\n[^\n]*\n[^\n]*\n([^\n]*)"))
  socket, err = homes.socket_folder(home, who)
  if not socket then
    return nil, err
  end
  log("starting PostgreSQL " .. found.version)
  state, err = server.start(found, home, socket, who)
  if not state and socket ~= home then
    homes.remove_socket_folder(socket)
  end
  return state, err
end

--- Waits for a server that somebody started or stopped and was killed. Gives nil when it has stopped.
local function settle(data, state)
  if not state or state.status == "ready" then
    return state
  end
  local err
  state, err = server.wait_ready(data, function(ms)
    local slept, cancelled = task.sleep(ms)
    if not slept then
      return nil, cancelled
    end
    return server.state(data) == nil and {} or false
  end)
  return state, error_.is(err) and err or nil
end

--- The running server of a home, started if need be. Needs start.lock.
---@return moonbird.server_state|nil
---@return boolean|moonbird.error started, or err
local function ensure_server(home, who, log)
  local data = home .. "/data"
  local deadline = sys.monotonic() + RETRY_SECONDS
  while true do
    local state, err = settle(data, server.state(data))
    if state then
      if state.socket_dir == "" then
        return fail("the server that runs on this cluster has no Unix socket", {
          hint = "somebody started it in another way; stop it first",
        })
      end
      return state, false
    elseif err then
      return nil, err
    end
    state, err = start_server(home, who, log)
    if state then
      return state, true
    end
    -- In the way may be a server that a killed moonbird had just started, processes that a killed server
    -- left, or nothing but an old process number.
    local detail = err.detail or ""
    local in_the_way = detail:find('lock file "postmaster.pid" already exists', 1, true)
    local orphans = detail:find("pre-existing shared memory block", 1, true)
    if not in_the_way and not orphans or sys.monotonic() > deadline then
      return nil, err
    end
    if orphans and not server.state(data) then
      server.end_orphans(data, sys.monotonic() < deadline - RETRY_SECONDS / 2 and "QUIT" or "KILL")
    end
    if not (in_the_way and server.remove_stale_pid(data)) then
      local slept, cancelled = task.sleep(50)
      if not slept then
        return nil, cancelled
      end
    end
  end
end

local function stop_server(home)
  local state = server.state(home .. "/data")
  local stopped, err = server.stop(home .. "/data")
  if stopped then
    homes.remove_socket_folder(state and state.socket_dir)
  end
  return stopped, err
end

-- Handle -----------------------------------------------------------------------------------------------

---@class moonbird.cluster
---@field dir string the cluster's real folder
---@field socket_dir string
---@field port integer
---@field params table libpq keywords
---@field url string
---@field started_by_us boolean
---@field temp boolean
local Cluster = {}
Cluster.__index = Cluster
Cluster.__close = function(self)
  self:release()
end

-- A cluster in use must not be collected because its user keeps no more than the URL.
local in_use = {}

local function new_handle(fields, state)
  local self = setmetatable(fields, Cluster)
  self.params, self.url = server.address(state)
  self.socket_dir, self.port = state.socket_dir, state.port
  in_use[self] = true
  return self
end

--- Ends the use. The last user stops the server (a throwaway cluster is removed), unless it was marked
--- to stay. May be called twice; waits.
---@return true|nil
---@return moonbird.error? err
function Cluster:release()
  if not in_use[self] then
    return true
  end
  in_use[self] = nil
  if self.temp then
    return self.stop_temp()
  end
  local lock <close>, err = homes.take(self.dir, homes.START_LOCK, "exclusive", self.who, true)
  local use <close> = self.use
  if not lock then
    return nil, err
  end
  if not self.keep and use:try("exclusive") and not fs.stat(self.dir .. "/" .. STAY) then
    local stopped
    stopped, err = stop_server(self.dir)
    if stopped == nil then
      return nil, err
    end
  end
  return true
end

--- Ends the use and the mark to stay; the server stops unless somebody else uses it.
---@return true|nil
---@return moonbird.error? err
function Cluster:stop()
  if in_use[self] and not self.temp then
    self.keep = false
    fs.remove(self.dir .. "/" .. STAY)
  end
  return self:release()
end

-- Public -----------------------------------------------------------------------------------------------

--- Finds the server programs: see core/cluster_binaries.lua.
M.find_binaries = binaries.find

local function open_temp(opts)
  local who, err = server.identity(opts.user)
  if not who then
    return nil, err
  end
  local found
  found, err = binaries.find()
  if not found then
    return nil, err
  end
  local made
  made, err = temp.open(found, who, opts.log or nothing)
  if not made then
    return nil, err
  end
  return new_handle({ dir = made.home, temp = true, started_by_us = true, stop_temp = made.stop }, made.state)
end

--- Opens a cluster: makes it if it is not there, starts its server if it is not running, waits until
--- that accepts connections. Waits, so only inside a task.
---@param opts table dir (folder), or temp=true (throwaway); keep=true (do not stop the server on release);
---  user (who runs it, when root; default MOONBIRD_PG_USER, "postgres", "nobody"); log=function(text)
---@return moonbird.cluster|nil
---@return moonbird.error? err code "cluster", or why the task was cancelled
function M.open(opts)
  if opts.temp then
    return open_temp(opts)
  end
  local log = opts.log or nothing
  local dir = homes.absolute(assert(opts.dir, "cluster.open: dir is missing"))
  local home, who = homes.resolve(dir, opts.user, true, log)
  if not home then
    return nil, who
  end
  local lock <close>, err = homes.take(home, homes.START_LOCK, "exclusive", who)
  if not lock then
    return nil, err
  end
  local use, state, started
  use, err = homes.take(home, homes.USE_LOCK, "shared", who)
  if not use then
    return nil, err
  end
  state, started = ensure_server(home, who, log)
  if not state then
    use:close()
    return nil, started
  end
  return new_handle({
    dir = home, who = who, use = use, keep = opts.keep or false, temp = false, started_by_us = started,
  }, state)
end

--- What is in a folder; changes nothing and does not wait.
---@param dir string
---@return table status { exists, running, pid, version (major, text), url, stays, dir }
---@return moonbird.error? err when the folder is not a cluster of moonbird's
function M.status(dir)
  local home = fs.realpath(homes.absolute(dir))
  if not home or not fs.stat(home .. "/" .. homes.MARKER) then
    local blocked = home and not fs.access(home, "x")
    local _, err = fail(('there is no embedded cluster in "%s"'):format(dir), {
      hint = blocked and "its folder belongs to another user" or "`moonbird cluster start` makes one",
    })
    return { exists = false, running = false, dir = home or homes.absolute(dir) }, err
  end
  local state = server.state(home .. "/data")
  local status = {
    exists = true,
    running = state ~= nil and state.status == "ready",
    dir = home,
    version = (fs.read(home .. "/data/PG_VERSION") or ""):match("^%d+"),
    stays = fs.stat(home .. "/" .. STAY) ~= nil,
  }
  if state then
    local _, url = server.address(state)
    status.pid, status.url = state.pid, url
  end
  return status
end

--- Opens a cluster and leaves its server running until `stop`.
---@param dir string
---@param opts? table as of open
---@return table|nil status as of status(), with started (whether it was not running before)
---@return moonbird.error? err
function M.start(dir, opts)
  local handle <close>, err = M.open { dir = dir, user = opts and opts.user, log = opts and opts.log }
  if not handle then
    return nil, err
  end
  local path = handle.dir .. "/" .. STAY
  local ok, message = fs.write(path, "`moonbird cluster start` was called; `moonbird cluster stop` removes this\n")
  if not ok then
    return io_fail(message)
  end
  if handle.who.uid then
    fs.chown(path, handle.who.uid, handle.who.gid)
  end
  local status = M.status(dir)
  status.started = handle.started_by_us
  return status
end

--- Opens home and locks for an existing cluster. `in_use` is true when others use the server.
local function seize(dir)
  local abs = homes.absolute(dir)
  local home, who = homes.resolve(abs, nil, false, nothing)
  if not home and who then
    return nil, who
  end
  if not home or not fs.stat(home .. "/" .. homes.MARKER) then
    return fail(('there is no embedded cluster in "%s"'):format(dir))
  end
  local lock, err = homes.take(home, homes.START_LOCK, "exclusive", who)
  if not lock then
    return nil, err
  end
  local use, message = process.lock(home .. "/" .. homes.USE_LOCK)
  if not use then
    lock:close()
    return io_fail(message)
  end
  return { home = home, lock = lock, use = use, in_use = not use:try("exclusive"), path = abs }
end

local function let_go(held)
  held.use:close()
  held.lock:close()
end

--- Takes back `start` and stops the server. While others use it, the last of them stops it instead.
---@param dir string
---@param opts? table force=true: stop it under its users
---@return table|nil result { stopped = boolean, in_use = boolean }
---@return moonbird.error? err
function M.stop(dir, opts)
  local held, err = seize(dir)
  if not held then
    return nil, err
  end
  fs.remove(held.home .. "/" .. STAY)
  local stopped = false
  if not held.in_use or (opts and opts.force) then
    stopped, err = stop_server(held.home)
  end
  let_go(held)
  if stopped == nil then
    return nil, err
  end
  return { stopped = stopped, in_use = held.in_use }
end

--- Stops the server and removes the cluster with all its data. Only what moonbird made is removed.
---@param dir string
---@return true|nil
---@return moonbird.error? err
function M.destroy(dir)
  local held, err = seize(dir)
  if not held then
    return nil, err
  end
  local stopped, ok, message
  if held.in_use then
    let_go(held)
    return fail(('the cluster in "%s" is in use'):format(dir), { hint = "end the moonbird processes that use it" })
  end
  stopped, err = stop_server(held.home)
  if stopped == nil then
    let_go(held)
    return nil, err
  end
  -- The marker goes last: a killed destroy can be repeated.
  local ours = { "data", server.LOG, server.LOG .. ".1", STAY, homes.USE_LOCK, homes.START_LOCK, homes.MARKER }
  for _, entry in ipairs(fs.list(held.home) or {}) do
    if entry.name:find(NEW_DATA, 1, true) == 1 then
      table.insert(ours, 1, entry.name)
    end
  end
  for _, name in ipairs(ours) do
    ok, message = fs.remove_tree(held.home .. "/" .. name)
    if not ok and fs.stat(held.home .. "/" .. name) then
      let_go(held)
      return io_fail(message)
    end
  end
  fs.remove(held.home) -- stays when somebody put something of his own there
  if held.path ~= held.home and not fs.stat(held.path) then
    fs.remove(held.path) -- the link to it
  end
  let_go(held)
  return true
end

return M
