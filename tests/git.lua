--- git for the specs, untouched by the tester's own settings.
local process = require "moonbird.core.process"

local M = {}

local ENV = { GIT_CONFIG_GLOBAL = "/dev/null", GIT_CONFIG_NOSYSTEM = "1" }

--- Runs git in a folder; fails the test when it fails.
---@param dir string
---@param ... string arguments
---@return string stdout without the last line's end
function M.run(dir, ...)
  local result = assert(process.run { file = "git", cwd = dir, args = { "-c", "user.name=A", "-c", "user.email=a@b.c",
    "-c", "init.defaultBranch=main", "-c", "commit.gpgsign=false", ... }, env = ENV })
  if result.status ~= 0 then
    error(("git %s: %s"):format(table.concat({ ... }, " "), result.stderr), 2)
  end
  return (result.stdout:gsub("\n$", ""))
end

return M
