--- Sessions for slots: kept by database, reused, never more than the caps, renewed now and then.
--
-- A backend keeps what it saw of every tenant's catalog (about 1 kB for one altered table, 9 kB for a journal of
-- its own; measured on 15): after RECYCLE tenants the session is closed and a new one opened, which costs about
-- 1 %.
local error_ = require "moonbird.core.error"
local task = require "moonbird.core.task"

---@class moonbird.tenants.pool
---@field open integer sessions that are open now
---@field most integer the most that were
local M = {}
M.__index = M

local RECYCLE = 1000
-- How long a slot waits for a session of a server that is at its cap, between two looks.
local PAUSE_MS = 20

---@class moonbird.tenants.pool.options
---@field per_database? integer
---@field per_server? integer

--- Makes a pool. Opens nothing.
---@param options moonbird.tenants.pool.options
---@return moonbird.tenants.pool
function M.new(options)
  return setmetatable({ idle = {}, counts = {}, servers = {}, open = 0, most = 0,
    uses = setmetatable({}, { __mode = "k" }),
    per_database = options.per_database or math.huge, per_server = options.per_server or math.huge,
    jobs = math.huge, each = 1 }, M)
end

--- Says what a stage needs: how many slots there are, and how many connections each takes at most (two for a step
--- without a transaction, whose lease is a second one).
---@param jobs integer
---@param each integer
function M:expect(jobs, each)
  self.jobs, self.each = jobs, each
end

--- A connection to a server that is open outside the pool counts there, too.
---@param server string
function M:reserve(server)
  self.servers[server] = (self.servers[server] or 0) + 1
end

local function count(self, database, by)
  self.counts[database.key] = (self.counts[database.key] or 0) + by
  self.servers[database.server] = (self.servers[database.server] or 0) + by
  self.open = self.open + by
  self.most = math.max(self.most, self.open)
end

--- How a session is closed: leave() where another may be opened after it, since the server counts a backend until
--- it has ended.
local function close(self, database, session, how)
  if self.lent ~= session then
    session[how](session)
  end
  count(self, database, -1)
end

--- Lends a session that is open already and whose owner closes it.
---@param database moonbird.tenants.database
---@param session moonbird.session idle
function M:lend(database, session)
  self.lent = session
  count(self, database, 1)
  self.idle[database.key] = { { database = database, session = session } }
end

--- Closes an idle session (of a server), so that one more fits under a cap.
local function make_room(self, server)
  for _, list in pairs(self.idle) do
    local item = list[#list]
    if item and item.session ~= self.lent and (not server or item.database.server == server) then
      list[#list] = nil
      close(self, item.database, item.session, "leave")
      return true
    end
  end
  return false
end

--- Whether the caps leave room for one more: to the database, and to its server. One session is always allowed: a cap
--- below what a slot needs would be waited for in vain.
local function fits(self, database)
  local here, there = self.counts[database.key] or 0, self.servers[database.server] or 0
  return here == 0 or (here + 1) * self.each <= self.per_database,
    there == 0 or (there + 1) * self.each <= self.per_server or (self.open == 0 and there <= 1)
end

--- A session to a database; waits while a cap is reached.
---@param database moonbird.tenants.database
---@return moonbird.session?
---@return moonbird.error? err
function M:take(database)
  while true do
    local list = self.idle[database.key]
    local item = list and table.remove(list)
    if item then
      return item.session
    end
    local here, there = fits(self, database)
    local one_more = here and there
    -- Idle sessions of databases that had their turn are closed for it. That takes a while: all is asked again.
    local made_room = one_more and self.open - (self.lent and 1 or 0) >= self.jobs and make_room(self, nil)
      or here and not there and make_room(self, database.server)
    if one_more and not made_room then
      break
    elseif not made_room then
      local ok, err = task.sleep(PAUSE_MS)
      if not ok then
        return nil, err
      end
    end
  end
  count(self, database, 1) -- before the wait, so that no other slot goes over the cap
  local session, err = database.run:connect(database.label)
  if not session then
    count(self, database, -1)
    return nil, err
  end
  return session
end

--- Gives a session back. One that can't be used any more, or is old, is closed.
---@param database moonbird.tenants.database
---@param session moonbird.session
function M:give(database, session)
  local uses = (self.uses[session] or 0) + 1
  self.uses[session] = uses
  if not session.doomed and session:state() ~= "idle" then
    session:rollback()
  end
  if session.doomed or (uses >= RECYCLE and session ~= self.lent) then
    close(self, database, session, "leave")
    return
  end
  local list = self.idle[database.key] or {}
  self.idle[database.key] = list
  list[#list + 1] = { database = database, session = session }
end

--- A database of a server (by its system identifier) that an idle session is open to.
---@param system string
---@return moonbird.tenants.database?
function M:open_of(system)
  for _, list in pairs(self.idle) do
    local item = list[1]
    if item and item.database.system == system then
      return item.database
    end
  end
end

--- Closes a session that is not to be used again.
---@param database moonbird.tenants.database
---@param session moonbird.session
function M:drop(database, session)
  close(self, database, session, "leave")
end

--- Closes the session of a tenant in whose turn something was raised, if it has one: nobody knows what it is in the
--- middle of.
---@param tenant table
function M:abandon(tenant)
  local session = tenant.session
  tenant.session = nil
  if not session then
    return
  elseif session == self.lent then
    session:close() -- its owner sees that, and opens another
  end
  self:drop(tenant.database, session)
end

local function close_all(self, how)
  local idle = self.idle
  self.idle = {}
  for _, list in pairs(idle) do
    for _, item in ipairs(list) do
      close(self, item.database, item.session, how)
    end
  end
end

--- Closes all that is idle, and waits until the servers have ended the backends.
function M:leave()
  close_all(self, "leave")
end

--- Closes all that is idle, at once: for the end, when nothing is opened after it.
function M:close()
  close_all(self, "close")
end

--- An error when sessions were not given back: a defect.
---@return moonbird.error?
function M:leaked()
  if self.open > 0 then
    return error_.new("internal", ("%d sessions of the pool were not given back"):format(self.open))
  end
end

return M
