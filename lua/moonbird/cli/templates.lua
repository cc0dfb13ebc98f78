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
    -- production  = { url = env("PRODUCTION_DATABASE_URL"), protected = true }, -- only `deploy`, by the pipeline
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

  -- What `moonbird check` and `moonbird ci` compare with: nothing that is merged there may change.
  -- git = { base = "origin/main" },

  -- The rules: `moonbird policy list` shows them, `moonbird policy explain ID` tells why. Rules of your own stand in
  -- policies/*.lua.
  policy = {
    -- enforce_after = 20250101000000,   -- older migrations are looked at for the history's sake only
    rules = {
      -- ["file-name"] = { preset = "14-digit" },
      -- ["owner"] = { required = true },
      -- ["slow-step"] = "off",
    },
  },
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
# Checks the migrations of every change, and proves them on a throwaway PostgreSQL.
name: migrations

on:
  pull_request:
    paths: ["migrations/**", "policies/**", "moonbird.lua", ".github/workflows/migrations.yml"]
  push:
    branches: [main]

jobs:
  migrations:
    runs-on: ubuntu-latest
    container: debian:bookworm
    steps:
      - name: Install what moonbird is built with, and PostgreSQL
        run: |
          apt-get update
          apt-get install -y --no-install-recommends build-essential ca-certificates cmake git \
            libcjson-dev liblua5.4-dev libpg-query-dev libpq-dev libssl-dev libuv1-dev lua-argparse \
            lua5.4 ninja-build pkg-config postgresql

      # All of the history: what is merged is compared with what is here.
      - uses: actions/checkout@v4
        with:
          fetch-depth: 0

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

      - name: Let git read the checkout, which belongs to somebody else
        run: git config --global --add safe.directory "$GITHUB_WORKSPACE"

      - name: Test the project's own rules
        run: moonbird policy test

      # The rules, without a database; and nothing that is merged may change.
      - name: Check
        if: github.event_name == 'pull_request'
        run: moonbird check --base "origin/$GITHUB_BASE_REF" --github

      # On a throwaway PostgreSQL of its own: checked, applied, taken back, applied again.
      - name: Prove
        if: github.event_name == 'pull_request'
        run: moonbird ci --base "origin/$GITHUB_BASE_REF" --artifact .artifacts/ci.json

      - name: Prove what is merged
        if: github.event_name == 'push'
        run: moonbird ci --artifact .artifacts/ci.json

      - uses: actions/upload-artifact@v4
        if: always()
        with:
          name: migrations
          path: .artifacts
          include-hidden-files: true

      # Before a release, with the database of `production`:
      #   moonbird -e production deploy --artifact .artifacts/deploy.json
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
  description = "@TITLE@",      -- say in a sentence what it is for

  phase = "expand",             -- or "contract": removes what an older release still uses
  scope = "global",             -- or "tenant": runs once for each tenant
  compatibility = "backward_compatible", -- or "contract_breaking": the older release fails once it is applied

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
-- phase: expand
-- scope: global
-- compatibility: backward_compatible
--
-- What cannot run in a transaction (CREATE INDEX CONCURRENTLY, VACUUM, ...) goes into a migration of its
-- own that starts with `-- migrate:up transaction:false`.

-- migrate:up


-- migrate:down

]==]

return M
