--- The projects in examples/, for the specs that run them.
local fs = require "moonbird.core.fs"
local helper = require "tests.helper"

local M = {}

local function copy(from, to)
  assert(fs.mkdir(to))
  for _, entry in ipairs(assert(fs.list(from))) do
    -- What runs by hand left behind is not the example.
    if entry.type == "dir" and entry.name ~= ".moonbird" and entry.name ~= ".artifacts" then
      copy(from .. "/" .. entry.name, to .. "/" .. entry.name)
    elseif entry.type == "file" then
      assert(fs.write(to .. "/" .. entry.name, assert(fs.read(from .. "/" .. entry.name))))
    end
  end
end

--- A copy of an example, so that its folder stays as it is. It is removed at the test's end.
---@param name string of the folder below examples/
---@return string dir
function M.copy(name)
  local dir = helper.tmpdir() .. "/" .. name
  copy("examples/" .. name, dir)
  return dir
end

return M
