--- What `moonbird init` and `moonbird new` write.
local M = {}

M.config = [==[
-- The configuration of moonbird. Every line is optional; what is commented out shows the default or an
-- example. It runs in a sandbox: env("NAME" [, default]) reads a variable of the environment or of .env.
return {
  -- Where the migrations are: a folder or a list of folders.
  migrations = "migrations",

  -- Which database: without a url, DATABASE_URL counts; without that, a private PostgreSQL that moonbird
  -- starts itself ("embedded:", data in .moonbird/pg).
  -- url = env("DATABASE_URL"),

  -- One of these is chosen by `moonbird -e NAME` or MOONBIRD_ENV. They may set all that stands below, too.
  environments = {
    -- development = { url = "embedded:" },
    -- staging     = { url = env("STAGING_DATABASE_URL") },
    -- production  = { url = env("PRODUCTION_DATABASE_URL"), timeouts = { lock = "2s" } },
  },
  -- default_environment = "development",

  -- Where moonbird keeps its journal.
  -- journal = { schema = "moonbird" },

  timeouts = {
    -- lock = "5s",         -- a statement waits this long for a table lock, then the transaction is tried again
    -- lock_total = "60s",  -- such tries may take this long in all
    -- statement = "10m",   -- a single statement may run this long ("0", the default: no limit)
    -- lock_wait = "60s",   -- how long to wait for another moonbird that is migrating the same database
    -- run = "30m",         -- the whole run
  },

  -- What a Lua migration may use: instructions and memory above the engine's own.
  -- limits = { instructions = "2G", memory = "256MB" },

  -- The search_path of migrations (default: the server's).
  -- search_path = { "public" },
}
]==]

M.env_example = [==[
# Copy this file to .env (which must not get into the repository). The real environment wins over it.
# DATABASE_URL="postgres://app:secret@localhost:5432/app?sslmode=require"
# STAGING_DATABASE_URL=
# PRODUCTION_DATABASE_URL=

# The whole run may take this long.
# MIGRATION_TIMEOUT_SECONDS=1800
]==]

M.gitignore = [==[
/.moonbird/
/.env
]==]

M.workflow = [==[
# Applies the migrations to an empty PostgreSQL for every change to them.
name: migrations

on:
  pull_request:
    paths: ["migrations/**", "moonbird.lua", ".github/workflows/migrations.yml"]
  push:
    branches: [main]

jobs:
  migrations:
    runs-on: ubuntu-latest
    container: debian:bookworm
    services:
      postgres:
        image: postgres:15
        env:
          POSTGRES_PASSWORD: postgres
        options: >-
          --health-cmd pg_isready --health-interval 2s --health-timeout 5s --health-retries 30
    env:
      DATABASE_URL: postgres://postgres:postgres@postgres:5432/postgres
    steps:
      - name: Install what moonbird is built with
        run: |
          apt-get update
          apt-get install -y --no-install-recommends build-essential ca-certificates cmake git \
            libcjson-dev liblua5.4-dev libpg-query-dev libpq-dev libssl-dev libuv1-dev lua-argparse \
            lua5.4 ninja-build pkg-config

      - uses: actions/checkout@v4

      # The repository variable MOONBIRD_REPOSITORY names where moonbird's source is (owner/name).
      - uses: actions/checkout@v4
        with:
          repository: ${{ vars.MOONBIRD_REPOSITORY }}
          path: .moonbird/source

      - name: Build moonbird
        run: |
          cmake -G Ninja -S .moonbird/source -B .moonbird/build -DCMAKE_BUILD_TYPE=Release
          cmake --build .moonbird/build
          cmake --install .moonbird/build

      - name: Wait for the server
        run: moonbird wait --timeout 60

      - name: Rehearse
        run: moonbird up --dry-run

      - name: Apply
        run: moonbird up

      - name: A second run has nothing to do
        run: |
          moonbird up
          moonbird status --exit-code

      - name: The history's hash chain is whole
        run: moonbird history --verify
]==]

M.lua_migration = [==[
-- A migration in Lua. `db` runs SQL; values go in as parameters, never spliced into the text:
--
--   db:exec("UPDATE users SET active = $1 WHERE id = $2", true, 42)
--   for row in db:rows("SELECT id, name FROM users") do ... end
--   local count = db:value("SELECT count(*) FROM users")
--
-- up, down and the journal's row commit together, or not at all. Instead of a function, up and down may be
-- a string of SQL.
return {
  description = "@TITLE@",

  -- phase = "expand",          -- or "contract": removes what an older release still uses
  -- scope = "global",          -- or "tenant": runs once for each tenant
  -- transaction = true,        -- false for CREATE INDEX CONCURRENTLY and the like
  -- timeouts = { lock = "5s", statement = "1m" },

  up = function(db)
    db:exec([[
      SELECT 1
    ]])
  end,

  -- The way back. If there is none, say why instead: irreversible = "the old values are not kept",
  down = function(db)
    db:exec([[
      SELECT 1
    ]])
  end,
}
]==]

M.sql_migration = [==[
-- description: @TITLE@
--
-- What cannot run in a transaction (CREATE INDEX CONCURRENTLY, VACUUM, ...) goes into a migration of its
-- own that starts with `-- migrate:up transaction:false`.

-- migrate:up


-- migrate:down

]==]

return M
