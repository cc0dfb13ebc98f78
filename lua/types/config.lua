---@meta moonbird.config

--- The table that moonbird.lua returns. docs/guide/configuration.md.
---@class moonbird.config_file: moonbird.config_settings
---@field default_environment? string the environment that counts without -e and MOONBIRD_ENV
---@field environments? table<string, moonbird.config_settings> what `moonbird -e NAME` chooses from
---@field git? boolean|moonbird.config_git

--- What moonbird.lua and each of its environments may say.
---@class moonbird.config_settings
---@field url? string "postgres://...", "embedded:", "embedded:DIR", "embedded:?temp"
---@field migrations? string|string[] folder or folders, default "migrations"
---@field journal? moonbird.config_journal
---@field timeouts? moonbird.config_timeouts
---@field limits? moonbird.config_limits
---@field search_path? string|string[] schemas for the migrations, default the server's
---@field policy? moonbird.config_policy_section what the rules ask for here; an environment's is laid over the file's
---@field tenants? table|function the tenants' schemas, and the key their tables have
---@field backfill? table reserved
---@field protected? boolean|moonbird.config_protection true: only the pipeline migrates it, and it only goes forward

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

--- docs/guide/policies.md.
---@class moonbird.config_policy_section
---@field dir? string folder of the project's own rules, default "policies"
---@field rules? table<string, "off"|"error"|"warning"|"info"|false|table> by rule id: a severity, or a table with
---       `severity` and the rule's options
---@field enforce_after? integer|string migrations up to this version are not looked at, but for the history's sake
---@field waivers? moonbird.policy.config_waiver[] for files that can't be edited any more
---@field allow_contract? boolean as --allow-contract on every run, default false
---@field allow_breaking? boolean as --allow-breaking on every run, default false
---@field up? "gates"|"all" which errors stop `up` and `down`, default "gates"

--- A waiver in moonbird.lua.
---@class moonbird.policy.config_waiver: moonbird.migration.waiver
---@field migration integer|string the version it is for

---@class moonbird.config_protection
---@field variable? string the environment variable that proves the pipeline, default "CI"
---@field commands? ("deploy"|"up")[] what the pipeline may call, default { "deploy" }

---@class moonbird.config_git
---@field base? string what `moonbird check` compares with when --base is not given, e.g. "origin/main"

--- Where the tenants come from. Only in moonbird.lua; each makes a source for the key `tenants`.
tenants = {}

--- Every schema whose name is like a pattern of SQL.
---@param options { like: string, not_like?: string }
---@return table source
function tenants.schemas(options) end

--- What a query gives: a row with `name`, and perhaps `schema`, for each tenant.
---@param options { sql: string, url?: string }
---@return table source
function tenants.query(options) end

--- Every database whose name is like a pattern of SQL.
---@param options { like: string, not_like?: string, url?: string, hosts?: string[] }
---@return table source
function tenants.databases(options) end

--- These.
---@param items (string|table)[] names, or tables { name = ..., schema = ... }
---@return table source
function tenants.list(items) end

--- Those that a JSON file lists.
---@param path string
---@return table source
function tenants.file(path) end
