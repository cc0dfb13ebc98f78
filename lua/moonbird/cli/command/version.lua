--- moonbird version
local bootstrap = require "moonbird.exec.bootstrap"
local embedded = require "moonbird.core.embedded"
local style = require "moonbird.report.style"

local M = {}

--- Prints versions.
---@param _ table
---@param report moonbird.reporter
---@return table
function M.run(_, report)
  local result = { moonbird = embedded.version, lua = embedded.libraries.lua, journal = bootstrap.known() }
  for name, version in pairs(embedded.libraries) do
    result[name] = version
  end
  report:write(("moonbird %s\n"):format(result.moonbird))
  report:write(style.columns({
    { "journal", tostring(result.journal) }, { "Lua", result.lua }, { "libpq", result.libpq },
    { "libuv", result.libuv }, { "libpg_query", result.libpg_query },
  }, "  "))
  return result
end

return M
