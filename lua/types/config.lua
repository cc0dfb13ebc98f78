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
---@field tenants? moonbird.config_tenants|table|function a source (tenants.schemas{...} and the like), a list of them,
---       a function that returns the tenants, or a table of options with one of these as `source`
---@field backfill? moonbird.config_backfill for every backfill that does not say its own
---@field protected? boolean|moonbird.config_protection true: only the pipeline migrates it, and it only goes forward

---@class moonbird.config_journal
---@field schema? string default "moonbird"

--- Durations: "100ms", "5s", "2m", "1h30m"; "0" for no limit.
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

--- How tenants are migrated. docs/guide/tenants.md.
---@class moonbird.config_tenants
---@field source table|function a source, a list of them, or a function that returns the tenants
---@field key? string column that every tenant's row carries
---@field shared? string|string[] schemas behind the tenant's in its search_path
---@field jobs? integer tenants at the same time, default 8
---@field per_server? integer most connections to one server
---@field per_database? integer most connections to one database
---@field attempts? integer how often a tenant is tried when what fails may pass, default 5
---@field max_failures? integer|string failed tenants that are borne: a number or "5%", default 0
---@field max_consecutive? integer failures in a row that stop the run, default 5
---@field canary? (integer|string)[] shares or names that go first, one wave each
---@field soak? string pause between two waves, default "0s"
---@field lock_timeout? string how long a statement waits for a lock before its tenant goes to the back, default "1s"
---@field health? string|fun(db: moonbird.db): boolean asked between two waves
---@field gate? "manual" the run ends after each wave; the same command goes on with the next
---@field control? string URL of the database that a fleet's runs are on, default the first database
---@field lease? string after so long a fleet takes a silent worker for dead

--- Options of backfills. docs/guide/data-migrations.md.
---@class moonbird.config_backfill
---@field batch_target? string time that a batch should take, default "100ms"
---@field min? integer fewest rows of a batch, default 100
---@field max? integer most rows of a batch, default 50000
---@field start? integer rows of the first batch
---@field workers? integer connections that work on one backfill, default 1
---@field durable? boolean wait until each batch is on disk, default false
---@field max_errors? integer rows that may fail and are set aside, default 0
---@field retries? integer how often a failed row is tried again, default 1
---@field reconnect? string how long a server that went away is waited for, default "10m"
---@field lock_timeout? string longest wait for a lock, default "500ms"
---@field statement_timeout? string longest a statement may run, default "30s"
---@field max_lag? integer|string bytes a standby may be behind, default "64MB"
---@field max_lag_time? string time a standby may be behind, default "30s"
---@field max_retained? integer|string bytes of WAL that a slot may hold, default "10GB"
---@field max_archive? integer WAL files that may wait for the archiver, default 32
---@field max_wal_rate? integer|string bytes of WAL per second, default 0: not looked at
---@field max_blocked? integer sessions that may wait for a lock, default 5
---@field max_active? integer sessions that may be at work, default 0: not looked at
---@field max_delay? string how late others may get the processor because of batches, default "0.5ms"
---@field max_snapshot? string age of the oldest snapshot, default "1h"
---@field yield_to_vacuum? boolean wait while the table is vacuumed, default true
---@field ignore_standbys? string|string[] standbys and slots that are not looked at
---@field between? string times of the day: "22:00-06:00"
---@field time_zone? string of `between`: "Europe/Berlin"
---@field throttle? fun(db: moonbird.db): string, string? "ok", "slow" or "stop", and why

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
