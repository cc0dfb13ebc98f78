--- Writes the pages that are made from the source: docs/reference/errors.md, docs/reference/commands.md, and the
-- list of rules in docs/reference/policy.md.
--
--   moonbird-lua docs/generate.lua               writes them
--   moonbird-lua docs/generate.lua --examples    runs the pages' examples and writes their real output
--
-- Run from the top folder. tests/spec/docs_spec.lua fails when a page is stale.
local lua_value = require "moonbird.util.lua_value"
local sorted = require "moonbird.util.sorted"

local M = {}

local NOTE = "<!-- Made by docs/generate.lua from %s. Do not edit. -->\n"

local function slurp(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read("a")
end

-- Markdown tables: a bar would end the cell.
local function cell(text)
  return (text:gsub("|", "\\|"))
end

-- Errors -------------------------------------------------------------------------------------------------

local STATUS = {
  [0] = "it worked", [1] = "something failed; what it had done was rolled back",
  [2] = "usage, configuration or a migration file: nothing was run", [3] = "the server can't be reached, or not be written",
  [4] = "pending or drifted, when asked by --exit-code", [5] = "a lock was not obtained in time",
  [6] = "refused: the history or a policy does not allow it", [7] = "some tenants failed",
  [70] = "a defect in moonbird", [75] = "a backfill has work left", [130] = "interrupted by a signal",
}

--- The rows of error.def.
---@param source string its text
---@return table[] { name, status, meaning, advice }
function M.read_errors(source)
  local rows = {}
  for line in source:gmatch("[^\n]+") do
    if line:find("^MB_ERROR%(") then
      local name, status, meaning, advice =
        line:match('^MB_ERROR%([%u_]+, "([%w_]+)", (%d+), "(.-)", "(.-)"%)$')
      assert(name, "error.def has a line of another form: " .. line)
      rows[#rows + 1] = { name = name, status = math.tointeger(tonumber(status)), meaning = meaning, advice = advice }
    end
  end
  return rows
end

--- The page of errors.
---@return string
function M.errors()
  local rows = M.read_errors(slurp("engine/base/error.def"))
  local out = { NOTE:format("engine/base/error.def"), [[
# Errors and exit statuses

Every error has a code. It is in the `code` field of `--json` output and of errors that `pcall` returns in a
Lua migration. Match on the code and on `sqlstate`, never on the message.

## Exit statuses

| status | meaning | codes |
|---|---|---|
]] }
  local codes, order = {}, {}
  for _, row in ipairs(rows) do
    if not codes[row.status] then
      codes[row.status] = {}
      order[#order + 1] = row.status
    end
    table.insert(codes[row.status], "`" .. row.name .. "`")
  end
  table.sort(order)
  for _, status in ipairs(order) do
    local meaning = assert(STATUS[status], "docs/generate.lua does not know status " .. status)
    out[#out + 1] = ("| %d | %s | %s |\n"):format(status, meaning, table.concat(codes[status], ", "))
  end
  out[#out + 1] = "\n## Codes\n\n| code | status | what happened | what to do |\n|---|---|---|---|\n"
  for _, row in ipairs(rows) do
    if row.status ~= 0 then
      out[#out + 1] = ("| `%s` | %d | %s | %s |\n"):format(row.name, row.status, cell(row.meaning), cell(row.advice))
    end
  end
  return table.concat(out)
end

-- Commands -------------------------------------------------------------------------------------------------

-- What the one-line help has no room for: Markdown, by command.
local MORE = {
  init = "Never overwrites: what is there already is kept and said so.",
  new = "The version is the present time in UTC (14 digits); with `--sequential` it is one more than the "
    .. "folder's newest, as wide. The file is entered in checksums.json, the "
    .. "[ledger](../guide/policies.md#the-ledger), when the folder has one or is empty.",
  renumber = "Renames the file, takes its entry in checksums.json along, and mends `completes` of others. A migration "
    .. "that is merged into the main branch is refused. See [policies](../guide/policies.md#two-branches-one-version).",
  up = "Applies expand migrations; contract ones wait for `--allow-contract` and, when they are contract-breaking, "
    .. "`--allow-breaking` besides. What is newer than one that waits is applied all the same. The policy's gates "
    .. "stop it (exit 6), its other findings are told; see [policies](../guide/policies.md#when). Applied files "
    .. "that were changed are refused (exit 6), so are late ones without `--allow-out-of-order`. See [transactions and "
    .. "locks](../internals/transactions-and-locks.md).",
  down = "Takes back in the order of application, newest first. A migration without a down is refused. So is a "
    .. "[protected environment](../guide/policies.md#protected-environments) without `--emergency`.",
  redo = "Takes back and applies the same migrations; other pending ones stay pending. Refused before anything is "
    .. "taken back when the way up would be.",
  deploy = "For a pipeline. Every error of the policy stops it, with the history and the database at hand; then it "
    .. "applies what is expand, as `up`, and verifies the status. See [policies](../guide/policies.md#in-a-pipeline).",
  check = "Exit 6 when there is an error that is not waived. What could not be looked into is told: Lua functions, "
    .. "statements that can't be parsed, rules whose facts are missing. See [policies](../guide/policies.md).",
  ci = "Without `--url` on a throwaway PostgreSQL; a database that is given must be empty. Everything is rehearsed, "
    .. "applied (contract migrations too), taken back and applied again, the catalog compared each time. See "
    .. "[policies](../guide/policies.md#in-a-pipeline).",
  policy = "`list` and `explain` show the rules as this environment sets them; all built-in ones are in "
    .. "[policy](policy.md). `test` runs policies/*_test.lua. `facts` prints what a rule would see of a file.",
  status = "States: `applied`, `pending`, `changed` (the file was changed after it was applied), `missing` "
    .. "(applied, its file is gone), `late` (older than what is applied), `interrupted` (a run died or failed inside a "
    .. "migration that has no transaction; `moonbird up` goes on), `running` (a run is inside one now), `held` "
    .. "(a contract migration that `up` holds back), `backfill` (one that has begun, with how far it is). With "
    .. "`--exit-code` the exit status is 4 when something is pending, changed or missing; what is held back is "
    .. "not pending.",
  history = "Events of the journal, see [the journal](journal.md). `--verify` checks every target's hash chain and "
    .. "fails with `journal` when a row does not fit.",
  plan = "Changes nothing, makes no journal.",
  show = "Also says what the journal knows about the version.",
  create = "Connects to the server's database `postgres` for it. A database that is there already is no error.",
  drop = "Refused without `--yes`, and in a protected environment. The server's own databases are never dropped.",
  wait = "For scripts that start a server. Exit 3 when the time is over.",
  baseline = "For a database that had the schema before moonbird: journals every pending migration up to VERSION "
    .. "as being there, runs nothing. Where there are tenants: the global ones, or with `--tenant`, `--all-tenants`, "
    .. "`--exclude` those of each chosen tenant.",
  repair = "`--accept`: the changed file counts from now on. `--mark applied`, `--mark reverted`: the version counts "
    .. "as being, or not being, in the database. `--clear`: what a failed or interrupted run left open in the "
    .. "journal is settled as it is. Nothing is deleted: each adds an event that says who and why. "
    .. "Tenants are named with `--tenant`, `--all-tenants`, `--exclude`; those with nothing to repair are passed over.",
  cluster = "Without `cluster start` the embedded PostgreSQL runs only while a command uses it. `destroy` removes its "
    .. "data and needs `--yes`. See [the embedded PostgreSQL](../internals/cluster.md).",
  run = "The script returns a function, called with [db](db.md) and the arguments (strings). An integer that it "
    .. "returns is the exit status. Statements commit one by one; `db:atomic` makes a transaction.",
}

local TENANTS = { "tenants", "where there are tenants: `total`, `migrated`, `current`, `failed`, `groups` (list of "
  .. "`error`, `code`, `sqlstate`, `migration`, `file`, `line`, `count`, `tenants`), `not_run`, `pinned`, `ahead`, "
  .. "`stopped` (why), `retry` (the command), `connections`" }
local STANDING = "`total`, `summary` (number by state), `current` (list of `version`, `count`), `backfills` "
  .. "(begun and not done: `tenants`, `rows`, `rows_estimated`), `tenants` (list of "
  .. "`name`, `state`, `version`, `behind`, `note`, `pin`; without `--all` those that are not current)"
local STEP = "`version`, `id`, `file`, `direction`, `duration_ms`"
local HELD = { "held", "what was held back: list of `version`, `id`, `file`, `reason`, `flags`" }

-- What `check` gives, and `ci` and `deploy` as `policy`.
local FOUND = {
  { "findings", "list: `rule`, `group`, `severity`, `message`, `file`, `line`, `column`, `last_line`, `migration`, "
    .. "`version` (text), `fix`, `excerpt`, `fingerprint`, `hard`, `gate`, `waived` (`reason`, `until`, `ticket`, "
    .. "`file`, `line`)" },
  { "not_checked", "list: `rule`, `needs`, `count`" }, { "opaque", "list: `file`, `line`, `reason`" },
  { "waivers", "list: `rule`, `file`, `line`, `until`, `reason`, `ticket`, `state`, `used`, `version`" },
  { "migrations", "number" }, { "errors", "number" }, { "warnings", "number" }, { "notes", "number" },
  { "waived", "number" },
}

--- The fields of each command's --json object, beside command, ok and error; { name, meaning }.
M.JSON = {
  init = { { "created", "list of paths" }, { "kept", "list of paths that were there already" } },
  new = { { "created", "list with the path" }, { "version", "text" }, { "name", "as used in the file's name" },
    { "ledger", "the checksums.json that has it now" } },
  renumber = {
    { "from", "version" }, { "to", "version" }, { "file", "`from`, `to`" },
    { "finished", "true: the file had its new name already, only the rest was done" },
    { "references", "list of `file`, `lines`: what said `completes` of it" }, { "ledgers", "list of paths" },
    { "notes", "list of text" }, { "undo", "the commands that take it back" },
  },
  up = {
    { "target", "`global`" }, { "run", "as in the journal" },
    { "steps", "list of what was done, also before a failure: " .. STEP }, HELD,
    { "dry_run", "with `--dry-run`: true" }, { "rehearsed", "with `--dry-run`: list of `id`" },
    { "not_rehearsed", "with `--dry-run`: list of `id`, `reason`" }, TENANTS,
  },
  redo = { { "target", "`global`" }, { "run", "as in the journal" }, { "steps", "list: " .. STEP },
    TENANTS },
  status = {
    { "target", "`global`" },
    { "migrations", "list: `version`, `id`, `file`, `state`, `how` (event), `applied_at`, `duration_ms`, "
      .. "`applied_by`, `phase`, `scope`, `failed` (`at`, `sqlstate`, `error`), `held` (`reason`, `flags`)" },
    { "applied", "number" }, { "pending", "number" }, { "held", "number" }, { "changed", "number" },
    { "missing", "number" }, { "tenants", "where there are tenants: " .. STANDING },
  },
  history = {
    { "events", "list: the columns of the [journal](journal.md), and `duration_ms`" },
    { "verified", "with `--verify`: true" },
  },
  plan = {
    { "target", "`global`" }, { "head", "newest ordinal of the target" }, { "plan", "hash" },
    { "steps", "list: `version`, `id`, `file`, `description`, `phase`, `scope`, `compatibility`, `transactional`, "
      .. "`statements` (number; not for Lua), `reversible`; where there are tenants `stages` instead" }, HELD,
    { "stages", "where there are tenants: list of `scope`, `migrations` (as `steps`); those of tenants with `tenants`, "
      .. "`current`, `pinned`, `ahead`, `late` (numbers), `groups` (list of `migrations`, `tenants`: who lacks what), "
      .. "`waves` (list of `name`, `count`, `canary`, `tenants`: the first of a canary)" },
    { "unreachable", "where there are tenants: number of those that can't be asked" },
  },
  tenant = {
    { "action", "as on the command line" },
    { "tenants", "`list`: list of `name`, `schema`, `database`, `labels`, `vars`, `from`; `status`: " .. STANDING
      .. "; `matrix`: list of `name`, `cells`" },
    { "tenant", "`add`, `pin`, `unpin`: its name" }, { "schema", "`add`" }, { "steps", "`add`: number" },
    { "transactions", "`add`: number" }, { "to_do", "`add`: what a person has to write where" },
    { "to", "`pin`: version" }, { "was", "`pin`, `unpin`: version of the pin before" }, { "reason", "`pin`, `unpin`" },
    { "checked", "`drift`: number" }, { "drifted", "`drift`: number" },
    { "sets", "`drift`: list of `version`, `tenants` (number), `alike` (number), `reference`, `groups`: list of "
      .. "`tenants`, `missing`, `compared`, `differences` (list of `object`, `others`, `here`)" },
    { "alone", "`drift`: list of names: nobody else has the same versions" }, { "pinned", "`drift`: list of names" },
    { "unreachable", "`drift`: list of `tenant`, `error`" },
    { "versions", "`matrix`: list of `version`, `id`" }, { "file", "`matrix`: with `--html`" },
  },
  backfill = {
    { "backfills", "all but `run` and `explain`: list of `target`, `version`, `id` and, as the action has it, `status`, "
      .. "`want`, `table`, `mode`, `rows`, `changed`, `share`, `rate`, `batch`, `throttle`, `errors`, `limits`, ..." },
    { "target", "`run`, `explain`" }, { "run", "`run`: its id" }, { "steps", "`run`: as of `up`" },
    { "id", "`explain`" }, { "version", "`explain`" }, { "table", "`explain`" }, { "key", "`explain`: list of columns" },
    { "mode", "`explain`: `set`, `rows` or `batch`" }, { "rows", "`explain`: estimated" },
    { "matching", "`explain`: estimated rows that need work" }, { "parts", "`explain`: relations" },
    { "options", "`explain`" }, { "plan", "`explain`: lines" }, { "duration_ms", "`explain`: estimated" },
    { "warnings", "`explain`: list of texts" },
  },
  deploy = {
    { "target", "`global`" }, { "run", "as in the journal" }, { "steps", "list: " .. STEP }, HELD,
    { "status", "`applied`, `pending`, `missing`: numbers after the run" }, { "policy", "as the object of `check`" },
  },
  check = { table.unpack(FOUND) },
  ci = {
    { "stages", "list: `name` (`policy`, `apply`, `undo`, `second apply`, `status`), `ok`, `duration_ms`, `problems`, "
      .. "`skipped` (why), and what each counts" },
    { "policy", "as the object of `check`" },
  },
  policy = {
    { "rules", "`list`: list of `id`, `group`, `title`, `severity`, `default_severity`, `source`, `options`, `needs`, "
      .. "`moments`, `hard`, `gate`" },
    { "rule", "`explain`: the same, and `explain`, `fix`, `seeds`, `examples`" },
    { "tests", "`test`: list of `rule`, `file`, `kind`, `name`, `passed`, `why`" }, { "passed", "`test`: number" },
    { "failed", "`test`: number" }, { "untested", "`test`: list of rules" },
    { "waivers", "`waivers`: as of `check`" },
    { "facts", "`facts`: of the migration, `up` and `down` with `statements`" },
  },
  show = {
    { "version", "number" }, { "id", "" }, { "file", "" }, { "kind", "`sql`, `lua`" }, { "checksum", "" },
    { "description", "" }, { "phase", "" }, { "scope", "" }, { "compatibility", "" }, { "transaction", "" },
    { "irreversible", "" }, { "owner", "" },
    { "up", "`kind` `function` with `line`, or `sql` with `statements`: list of `tag`, `class`, `line`, "
      .. "`transaction`, `text`" },
    { "down", "the same" }, { "events", "list: as of `history`, oldest first" },
  },
  create = { { "database", "name" }, { "created", "false: it was there" } },
  drop = { { "database", "name" }, { "dropped", "false: it was not there" } },
  wait = { { "waited_ms", "number" } },
  baseline = { { "target", "`global`" }, { "marked", "list of `version`, `id`" },
    { "tenants", "where tenants are chosen, in place of the others: as of `up`" } },
  repair = {
    { "version", "number" }, { "id", "" }, { "action", "`accept`, `mark applied`, `mark reverted`, `clear`" },
    { "tenants", "where tenants are chosen: as of `up`" },
  },
  cluster = {
    { "dir", "`start`, `status`: folder" }, { "exists", "`start`, `status`" }, { "running", "`start`, `status`" },
    { "stays", "`start`, `status`: until `cluster stop`" }, { "started", "`start`: false: it ran already" },
    { "pid", "`start`, `status`: of a running server" }, { "version", "`start`, `status`: major version" },
    { "url", "`start`, `status`, `url`" }, { "stopped", "`stop`" }, { "in_use", "`stop`: its last user stops it" },
    { "removed", "`destroy`: folder" },
  },
  run = { { "returned", "the integer that the script returned" } },
  completion = { { "script", "text" } },
  version = { { "moonbird", "" }, { "journal", "newest version of the journal's schema" }, { "lua", "" },
    { "libpq", "" }, { "libuv", "" }, { "libpg_query", "" } },
}
M.JSON.down = table.move(M.JSON.up, 1, #M.JSON.up, 1, {})
table.insert(M.JSON.down, { "plan", "with `--dry-run`, where there are tenants: list of `version`, `id`, `scope`, "
  .. "`tenants`" })
table.insert(M.JSON.check, { "ledger", "with `--update`: list of `file`, `written`, `added`, `changed`, `removed`, "
  .. "`refused`" })

local function argument_text(argument)
  local text = argument.name
  if argument.choices then
    text = table.concat(argument.choices, "\\|")
  end
  if argument.many then
    text = "[" .. text .. " ...]"
  elseif argument.optional then
    text = "[" .. text .. "]"
  end
  return text
end

local function option_rows(out, options)
  for _, option in ipairs(options) do
    local names = "`--" .. option.long .. (option.arg and " " .. option.arg or "") .. "`"
    if option.short then
      names = "`-" .. option.short .. "`, " .. names
    end
    local help = option.help
    if option.choices then
      help = help .. ": `" .. table.concat(option.choices, "`, `") .. "`"
    end
    if option.default then
      help = help .. (" (default `%s`)"):format(option.default)
    end
    out[#out + 1] = ("| %s | %s |\n"):format(names, cell(help))
  end
end

--- The page of commands. Needs an interpreter with the engine's modules (moonbird-lua).
---@return string
function M.commands()
  local spec = require "moonbird.cli.spec"
  local out = { NOTE:format("lua/moonbird/cli/spec.lua"), [[
# Commands

    moonbird [OPTIONS] COMMAND [ARGUMENTS]

Results go to stdout, the log and errors to stderr. `TIME` is a duration such as `400ms`, `5s`, `2m`, `1h30m`;
a plain number is seconds; `0` means no limit. Exit statuses: [errors](errors.md).

With `--json` a command prints one object: its result, and always `command`, `ok` and, when it failed, `error`
(`code`, `message`, `file`, `line`, `sqlstate`, `hint`, ...).

## Options of every command

| option | meaning |
|---|---|
]] }
  option_rows(out, spec.GLOBAL)
  local known = {}
  for _, command in ipairs(spec.COMMANDS) do
    known[command.name] = true
  end
  for name in pairs(MORE) do
    assert(known[name], "docs/generate.lua tells of a command that is not there: " .. name)
  end
  for _, command in ipairs(spec.COMMANDS) do
    local usage = { "moonbird " .. command.name }
    for _, argument in ipairs(command.args or {}) do
      usage[#usage + 1] = (argument_text(argument):gsub("\\|", "|"))
    end
    if command.options then
      usage[#usage + 1] = "[OPTIONS]"
    end
    out[#out + 1] = ("\n## %s\n\n    %s\n\n%s.\n"):format(command.name, table.concat(usage, " "),
      command.help:gsub("^%l", string.upper))
    if MORE[command.name] then
      out[#out + 1] = MORE[command.name] .. "\n"
    end
    local named = {}
    for _, argument in ipairs(command.args or {}) do
      if not argument.choices then
        named[#named + 1] = ("| `%s` | %s |\n"):format(argument.name, cell(argument.help))
      end
    end
    if #named > 0 or command.options then
      out[#out + 1] = "\n| | |\n|---|---|\n" .. table.concat(named)
      option_rows(out, command.options or {})
    end
    if M.JSON[command.name] then
      out[#out + 1] = "\n| `--json` | |\n|---|---|\n"
      for _, field in ipairs(M.JSON[command.name]) do
        out[#out + 1] = ("| `%s` | %s |\n"):format(field[1], cell(field[2]))
      end
    end
  end
  return table.concat(out)
end

-- Rules ----------------------------------------------------------------------------------------------------

local RULES_PAGE = "docs/reference/policy.md"
local RULES_BEGIN = "<!-- rules: made by docs/generate.lua from lua/moonbird/policy/rules. Do not edit up to the end. "
  .. "-->\n"
local RULES_END = "<!-- end of rules -->"

local GROUPS = {
  registry = "The registry", immutability = "Immutability", phase = "Expand and contract",
  reversibility = "Reversibility", shape = "Shape", documentation = "Documentation", security = "Security",
  tenancy = "Tenancy", run_order = "Run order", waiver = "Waivers",
}

local NEEDS = {
  history = "the target's history", git = "git (`--base REF`)", live = "a database", step = "a step that was run",
  recording = "what a Lua function sent (`ci`, `up`, `deploy`)",
}

local MOMENTS = { check = "`check`", before = "before a step", after = "after a step" }

local function listed(list, names)
  local parts = {}
  for i, item in ipairs(list) do
    parts[i] = names[item]
  end
  return table.concat(parts, ", ")
end

-- What an example's made-up facts come to.
local SAID = {
  ledger = { bad = "checksums.json says otherwise", good = "as checksums.json has it" },
  history = { bad = "the journal says otherwise", good = "as the journal has it" },
  git = { bad = "the base branch says otherwise", good = "the base branch agrees" },
}

--- An example as a block; those of the command line are no migrations.
local function example_block(rule, kind)
  local text = rule.examples[kind]
  local with = rule.examples[kind .. "_with"] or {}
  local notes = { with.file and ("`%s`"):format(with.file) }
  for _, key in ipairs { "others", "options", "tenants", "ledger", "history", "git" } do
    local value = with[key] or rule.examples[key]
    local names = sorted.keys(type(value) == "table" and value or {})
    for i, name in ipairs(names) do
      names[i] = key == "options" and ("%s = %s"):format(name, lua_value.text(value[name])) or tostring(name)
    end
    if key == "others" and #names > 0 then
      notes[#notes + 1] = "beside `" .. table.concat(names, "`, `") .. "`"
    elseif key == "options" and #names > 0 then
      notes[#notes + 1] = "where `" .. table.concat(names, ", ") .. "` is set"
    elseif key == "tenants" and value then
      notes[#notes + 1] = "where there are tenants"
    elseif SAID[key] and value then
      notes[#notes + 1] = SAID[key][kind]
    end
  end
  local language = rule.examples.run and "text" or text:find("-- migrate:up", 1, true) and "sql" or "lua"
  return ("%s%s:\n\n```%s\n%s\n```\n"):format(kind == "bad" and "Flagged" or "Clean",
    #notes > 0 and (" (%s)"):format(table.concat(notes, ", ")) or "", language, (text:gsub("\n+$", "")))
end

local function rule_section(rule)
  local out = { ("\n#### %s\n\n"):format(rule.id), rule.title:gsub("^%l", string.upper) .. ".\n\n" }
  local facts = { rule.severity, "looked at: " .. listed(rule.moments or { "check", "before" }, MOMENTS) }
  if #(rule.needs or {}) > 0 then
    facts[#facts + 1] = "needs " .. listed(rule.needs, NEEDS)
  end
  facts[#facts + 1] = rule.gate and "stops `up` and `down` too" or nil
  facts[#facts + 1] = rule.hard and "can't be waived" or nil
  out[#out + 1] = ("*%s*\n\n%s\n"):format(table.concat(facts, "; "), (rule.explain:gsub("\n+$", "")))
  if rule.fix then
    out[#out + 1] = ("\nFix: %s\n"):format(rule.fix)
  end
  for i, name in ipairs(sorted.keys(rule.options or {})) do
    local option = rule.options[name]
    out[#out + 1] = ("%s- option `%s`, default `%s`: %s\n"):format(i == 1 and "\n" or "", name,
      lua_value.text(option.default), option.help)
  end
  out[#out + 1] = "\n" .. example_block(rule, "bad") .. "\n" .. example_block(rule, "good")
  return table.concat(out)
end

--- The page of rules: what is made, in the page as it is.
---@return string
function M.policy()
  local rules = require("moonbird.policy.builtin").rules()
  local out, group = { "\n| rule | severity | what holds |\n|---|---|---|\n" }, nil
  for _, rule in ipairs(rules) do
    out[#out + 1] = ("| [%s](#%s) | %s%s%s | %s |\n"):format(rule.id, rule.id, rule.severity,
      rule.gate and ", gate" or "", rule.hard and ", hard" or "", cell(rule.title))
  end
  out[#out + 1] = "\nThe errors of a *gate* stop `up` and `down` too, all others only `check`, `ci` and `deploy`. A "
    .. "*hard* rule can't be waived.\n"
  for _, rule in ipairs(rules) do
    if rule.group ~= group then
      group = rule.group
      assert(GROUPS[group], "docs/generate.lua does not know the group " .. group)
      out[#out + 1] = ("\n### %s\n"):format(GROUPS[group])
    end
    out[#out + 1] = rule_section(rule)
  end
  out[#out + 1] = "\n"
  local page = slurp(RULES_PAGE)
  local _, before = page:find(RULES_BEGIN, 1, true)
  local after = page:find(RULES_END, 1, true)
  assert(before and after and before < after, RULES_PAGE .. " has lost the marks around its list of rules")
  return page:sub(1, before) .. table.concat(out) .. page:sub(after)
end

-- Writing ------------------------------------------------------------------------------------------------

--- The generated pages: path -> text.
---@return table<string, string>
function M.pages()
  return { ["docs/reference/errors.md"] = M.errors(), ["docs/reference/commands.md"] = M.commands(),
    [RULES_PAGE] = M.policy() }
end

local function write(path, text)
  local file <close> = assert(io.open(path, "wb"))
  file:write(text)
end

--- Runs a page's examples and puts the output that differs into the page.
local function refresh(examples, path)
  local fs = require "moonbird.core.fs"
  local text = slurp(path)
  local root = fs.realpath(assert(fs.tempdir("/tmp/moonbird-docs-")))
  assert(fs.chmod(root, 493)) -- 0755: as root the server runs as somebody else
  local runner = examples.runner(root, (fs.realpath("/proc/self/exe"):gsub("[^/]*$", "moonbird")))
  local lines = {}
  for line in (text:gsub("\n$", "") .. "\n"):gmatch("([^\n]*)\n") do
    lines[#lines + 1] = line
  end
  local changes = {}
  for _, item in ipairs(examples.read(text)) do
    local actual = runner:run(item)
    if actual and not examples.same(item.expected, actual) then
      changes[#changes + 1] = { item = item, actual = actual }
    end
  end
  runner:close()
  fs.remove_tree(root)
  for i = #changes, 1, -1 do
    local item = changes[i].item
    for _ = item.first, item.last do
      table.remove(lines, item.first)
    end
    for k, line in ipairs(changes[i].actual) do
      line = line:gsub("%s+$", ""):gsub("%f[%w]([%w_]+)@[%w][%w_.-]*", "%1@laptop")
        :gsub("on %S+ left off", "on laptop left off")
      table.insert(lines, item.first + k - 1, line)
    end
  end
  write(path, table.concat(lines, "\n") .. "\n")
  print(("%s: %d outputs changed"):format(path, #changes))
end

if arg and arg[0] and arg[0]:find("generate%.lua$") then
  if arg[1] == "--examples" then
    local task = require "moonbird.core.task"
    local examples = dofile("docs/examples.lua")
    local _, err = task.run(function()
      for _, path in ipairs(arg[2] and { table.unpack(arg, 2) } or examples.PAGES) do
        refresh(examples, path)
      end
    end)
    assert(not err, tostring(err))
  else
    for path, text in pairs(M.pages()) do
      write(path, text)
      print(path)
    end
  end
end

return M
