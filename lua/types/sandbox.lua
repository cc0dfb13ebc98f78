---@meta moonbird.sandbox

-- What plain Lua 5.4 has and the sandbox of migrations, scripts and moonbird.lua has not, or has otherwise.
-- Deprecated here means: not there at all; using it is an error that says what to use instead.

--- Loads a module below the migrations folder, once: require "lib.names" is migrations/lib/names.lua.
--- Only in migrations and their modules.
---@param name string
---@return any
function require(name) end

--- Writes a line to stdout. Only in scripts of `moonbird run`; a migration uses db:log.
---@param ... any
function print(...) end

--- Compiles text; bytecode is refused.
---@param text string
---@param name? string
---@param mode? "t"
---@param env? table
---@return function?
---@return string? message
function load(text, name, mode, env) end

--- Only `collectgarbage "count"`.
---@param option "count"
---@return number kilobytes
function collectgarbage(option) end

--- Metatables of strings and of the engine's objects are not reached; `__gc` is refused.
---@param value table
---@param metatable table|nil
---@return table value
function setmetatable(value, metatable) end

---@deprecated take the time from the database (select now()), settings from moonbird.lua
os = nil
---@deprecated keep the data in the migration, or stream it with db:copy_in
io = nil
---@deprecated it could reach the engine's own state
debug = nil
---@deprecated use require
package = nil
---@deprecated use require
function dofile() end
---@deprecated use require
function loadfile() end
---@deprecated use db:log
function warn() end
---@deprecated bytecode is never loaded
function string.dump() end
---@deprecated a migration must do the same each time; use random() in SQL
function math.random() end
---@deprecated a migration must do the same each time
function math.randomseed() end
