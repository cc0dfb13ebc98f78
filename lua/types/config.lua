---@meta moonbird.config

--- The table that moonbird.lua returns. docs/guide/configuration.md.
---@class moonbird.config_file: moonbird.config_settings
---@field default_environment? string the environment that counts without -e and MOONBIRD_ENV
---@field environments? table<string, moonbird.config_settings> what `moonbird -e NAME` chooses from
---@field git? boolean|table reserved

--- What moonbird.lua and each of its environments may say.
---@class moonbird.config_settings
---@field url? string "postgres://...", "embedded:", "embedded:DIR", "embedded:?temp"
---@field migrations? string|string[] folder or folders, default "migrations"
---@field journal? moonbird.config_journal
---@field timeouts? moonbird.config_timeouts
---@field limits? moonbird.config_limits
---@field search_path? string|string[] schemas for the migrations, default the server's
---@field policy? table reserved
---@field tenants? table|function reserved
---@field backfill? table reserved
---@field protected? boolean|table reserved

---@class moonbird.config_journal
---@field schema? string default "moonbird"

--- Durations: "400ms", "5s", "2m", "1h30m"; "0" for no limit.
---@class moonbird.config_timeouts
---@field lock? string|0 longest single wait for a table lock, default "5s"
---@field lock_total? string|0 how long the waits for table locks of one migration may add up to, default "60s"
---@field statement? string|0 longest a statement may run, default none
---@field run? string|0 longest the whole run may take, default none
---@field lock_wait? string|0 how long to wait for another runner, default "60s"

--- What a Lua migration may use.
---@class moonbird.config_limits
---@field instructions? integer|string instructions of Lua: 50000000 or "50M"
---@field memory? integer|string bytes: 67108864 or "64MB"

--- Reads a variable of the process's environment, or else of .env. Only in moonbird.lua.
---@param name string
---@param default? string
---@return string|nil
function env(name, default) end
