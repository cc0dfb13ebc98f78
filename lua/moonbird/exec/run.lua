--- One run of the binary: who runs it, where, for what; and the sessions it opens.
local embedded = require "moonbird.core.embedded"
local error_ = require "moonbird.core.error"
local fs = require "moonbird.core.fs"
local journal = require "moonbird.core.journal"
local sandbox = require "moonbird.core.sandbox"
local session = require "moonbird.core.session"
local sys = require "moonbird.core.sys"
local task = require "moonbird.core.task"

---@class moonbird.run
---@field id string
---@field command string
---@field config table
---@field params table<string, string> libpq keywords of the database
---@field journal moonbird.journal
---@field report table the reporter, see report/
---@field facts table columns that every event of this run carries
---@field deadline integer|nil task.now() at which the whole run is over
local M = {}
M.__index = M

-- Where CI systems say which run this is.
local CI_RUN = {
  { "GITHUB_RUN_ID", "github" }, { "CI_PIPELINE_ID", "gitlab" }, { "BUILDKITE_BUILD_ID", "buildkite" },
  { "CIRCLE_WORKFLOW_ID", "circleci" }, { "BUILD_TAG", "jenkins" }, { "BUILD_ID", "ci" },
}
local CI_COMMIT = { "GITHUB_SHA", "CI_COMMIT_SHA", "BUILDKITE_COMMIT", "CIRCLE_SHA1", "GIT_COMMIT" }

--- The commit checked out in a folder, read from .git without running git; nil outside a repository.
local function git_commit(dir)
  local path = fs.realpath(dir) or dir
  while path and path ~= "" do
    local git = path .. "/.git"
    local stat = fs.stat(git)
    if stat then
      if stat.type == "file" then -- a worktree: "gitdir: PATH"
        git = (fs.read(git) or ""):match("^gitdir: ([^\n]+)") or git
      end
      local head = fs.read(git .. "/HEAD") or ""
      local ref = head:match("^ref: ([^\n]+)")
      if not ref then
        return head:match("^%x+")
      end
      local common = (fs.read(git .. "/commondir") or "."):match("[^\n]+")
      common = common:sub(1, 1) == "/" and common or git .. "/" .. common
      local direct = (fs.read(common .. "/" .. ref) or ""):match("^%x+")
      if direct then
        return direct
      end
      for line in (fs.read(common .. "/packed-refs") or ""):gmatch("[^\n]+") do
        local sha, name = line:match("^(%x+) (.*)$")
        if name == ref then
          return sha
        end
      end
      return nil
    end
    path = path:match("^(.*)/[^/]*$")
  end
end

local function first_env(names)
  for _, name in ipairs(names) do
    local value = sys.getenv(name)
    if value and value ~= "" then
      return value
    end
  end
end

local function ci_run()
  for _, known in ipairs(CI_RUN) do
    local value = sys.getenv(known[1])
    if value and value ~= "" then
      return known[2] .. ":" .. value
    end
  end
end

local function new_id()
  local hex = sys.random(16):gsub(".", function(c)
    return ("%02x"):format(c:byte())
  end)
  return hex
end

--- Starts a run. Opens nothing.
---@param options { command: string, config: table, params: table, report: table, dir?: string, timeout_ms?: integer }
---@return moonbird.run
function M.new(options)
  local self = setmetatable({
    id = new_id(),
    command = options.command,
    config = options.config,
    params = options.params,
    report = options.report,
    journal = journal.new(options.config.journal.schema),
  }, M)
  self.facts = {
    os_user = sys.user(),
    host = sys.hostname(),
    git_commit = first_env(CI_COMMIT) or git_commit(options.dir or "."),
    ci_run = ci_run(),
    engine = embedded.version,
    run = self.id,
  }
  if options.timeout_ms and options.timeout_ms > 0 then -- 0 is no limit, as everywhere
    self.deadline = task.now() + options.timeout_ms
  end
  return self
end

--- An event of the journal: this run's facts and the fields given.
---@param fields table
---@return table
function M:event(fields)
  local event = {}
  for k, v in pairs(self.facts) do
    event[k] = v
  end
  for k, v in pairs(fields) do
    event[k] = v
  end
  return event
end

--- Opens a session to the run's database.
---@param target? string for application_name
---@param options? string more server settings for libpq's "options"
---@return moonbird.session|nil
---@return moonbird.error? err
function M:connect(target, options)
  local name = ("moonbird/%s/%s"):format(self.command, target or "global"):sub(1, 63)
  local report = self.report
  local params = self.params
  if options then
    params = { options = (params.options and params.options .. " " or "") .. options }
    for k, v in pairs(self.params) do
      params[k] = params[k] or v
    end
  end
  return session.open(params, {
    application_name = name,
    on_notice = function(notice)
      report:notice(notice)
    end,
  })
end

--- Milliseconds left of the whole run, or nil when it is not bounded.
---@return integer|nil
function M:time_left()
  return self.deadline and math.max(0, self.deadline - task.now())
end

--- How long a script may compute without a wait: the sandbox's own limit, and never beyond the run's end.
---@return integer|nil seconds nil: the sandbox's own
function M:script_seconds()
  local left = self:time_left()
  return left and math.min(sandbox.SECONDS, math.max(1, left // 1000)) or nil
end

--- An error when the run's time is over.
---@return moonbird.error|nil
function M:expired()
  if self.deadline and task.now() >= self.deadline then
    return error_.new("timeout", "the time allowed for the whole run is over")
  end
end

return M
