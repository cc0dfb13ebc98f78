--- The command line as data: what the parser, `help`, the completions and the reference are made from.
local argparse = require "argparse"
local duration = require "moonbird.util.duration"
local error_ = require "moonbird.core.error"
local failure = require "moonbird.report.failure"
local json = require "moonbird.core.json"
local nearest = require "moonbird.util.nearest"
local reporter = require "moonbird.report.reporter"
local sys = require "moonbird.core.sys"
local usage = require "moonbird.cli.usage"

local M = {}

---@class moonbird.cli.option
---@field long string
---@field short? string
---@field arg? string name of its value; a flag without
---@field help string
---@field choices? string[]
---@field convert? fun(text: string): any, string?
---@field many? boolean may be repeated
---@field key? string name in the result (default: long with _ for -)

local function milliseconds(text)
  if text:match("^%d+$") then
    return tonumber(text) * 1000 -- as MIGRATION_TIMEOUT_SECONDS and psql users expect: plain seconds
  end
  return duration.parse(text)
end

local function count(text)
  local n = math.tointeger(tonumber(text))
  if not n or n < 1 then
    return nil, ("\"%s\" is not a positive number"):format(text)
  end
  return n
end

local function version(text)
  if not text:match("^%d+$") or #text > 18 then
    return nil, ("\"%s\" is not a version (1 to 18 digits)"):format(text)
  end
  return math.tointeger(tonumber(text))
end

local function version_text(text)
  local good, wrong = version(text)
  return good and text, wrong -- its zeros count
end

M.GLOBAL = {
  { long = "env", short = "e", arg = "ENV", help = "environment of moonbird.lua to use" },
  { long = "url", short = "u", arg = "URL", help = "database to connect to (postgresql://..., embedded:)" },
  { long = "dir", short = "C", arg = "DIR", help = "run as if started in DIR" },
  { long = "json", help = "print the result as one JSON object" },
  { long = "verbose", short = "v", many = true, help = "log more; twice: every statement" },
  { long = "quiet", short = "q", help = "print errors and warnings only" },
  { long = "color", arg = "WHEN", choices = { "auto", "always", "never" }, default = "auto",
    help = "when to use colour" },
  { long = "log-format", arg = "FORMAT", choices = { "text", "json" }, default = "text",
    help = "format of the log on stderr" },
}

local LOCK_WAIT = { long = "lock-wait", arg = "TIME", convert = milliseconds,
  help = "how long to wait for another runner (default 60s)" }

local TIMES = {
  LOCK_WAIT,
  { long = "lock-timeout", arg = "TIME", convert = milliseconds,
    help = "longest single wait for a table lock (default 5s)" },
  { long = "statement-timeout", arg = "TIME", convert = milliseconds, help = "longest a statement may run" },
  { long = "timeout", arg = "TIME", convert = milliseconds, help = "longest the whole run may take" },
}

local TO = { long = "to", arg = "V", convert = version, help = "stop at this version" }
local DRY_RUN = { long = "dry-run", help = "run it in one transaction, print every statement, roll back" }
local OUT_OF_ORDER = { long = "allow-out-of-order", help = "apply migrations older than the newest applied" }

local ALLOW_CONTRACT = { long = "allow-contract", help = "apply contract migrations too" }
local ALLOW_BREAKING = { long = "allow-breaking", help = "apply contract-breaking ones, with --allow-contract" }
local BACKFILLS = { long = "backfills", arg = "HOW", choices = { "inline", "skip", "only" },
  help = "run backfills in their place, leave them for `backfill run`, or run nothing else" }
local RESTART = { long = "restart", help = "begin a backfill anew whose code was changed half-way" }
local ADOPT = { long = "adopt", help = "go on with a backfill whose code was changed half-way" }
local EMERGENCY = { long = "emergency", arg = "REASON",
  help = "act on a protected environment all the same; the reason is journaled" }

local OUTPUTS = {
  { long = "sarif", arg = "FILE", help = "write the findings as SARIF 2.1.0" },
  { long = "junit", arg = "FILE", help = "write the findings as JUnit XML" },
  { long = "github", help = "print annotations for GitHub Actions, and write the step's summary" },
}

local function integer_from(low)
  return function(text)
    local n = math.tointeger(tonumber(text))
    if not n or n < low then
      return nil, ("\"%s\" is not a number from %d on"):format(text, low)
    end
    return n
  end
end

local ALL = { long = "all", help = "list every tenant, not only those that need attention" }

local CANARY = { long = "canary", arg = "SHARE", many = true,
  help = "first these: a name, a number or P%; may be repeated for more waves" }

-- Which tenants.
local PICK = {
  { long = "tenant", arg = "NAME", many = true,
    help = "only this tenant: a name, a glob (acme*) or @label; may be repeated" },
  { long = "all-tenants", help = "all tenants (the default where moonbird.lua has a source)" },
  { long = "exclude", arg = "NAME", many = true, help = "not this tenant, as --tenant" },
}

-- The same where the global target is meant unless tenants are named.
local PICK_OTHERS = { PICK[1], { long = "all-tenants", help = "on every tenant, not on the global target" }, PICK[3] }

-- How they are run.
local ROLLOUT = {
  { long = "jobs", arg = "N", convert = integer_from(1), help = "tenants at the same time (default 8)" },
  CANARY,
  { long = "max-failures", arg = "N|P%",
    help = "failed tenants that do not stop the run (default 0; in a canary always)" },
  { long = "keep-going", help = "go on whatever fails, but for three equal errors in a canary" },
  { long = "shard", arg = "I/N", help = "only the tenants of shard I (from 0) of N, for runners that share nothing" },
}

local CONTROL = { long = "control", arg = "URL",
  help = "database that a fleet's runs are on (default: tenants.control of moonbird.lua, or the first database)" }

-- Together with other processes.
local FLEET = {
  { long = "fleet", arg = "RUN", help = "make the run of this name, or join it: processes that share the tenants" },
  CONTROL,
}

local function with(options, ...)
  for _, group in ipairs { ... } do
    table.move(group, 1, #group, #options + 1, options)
  end
  return options
end

local function steps(default)
  return { long = "steps", arg = "N", convert = count, help = "at most N migrations" .. (default or "") }
end

local function with_times(options)
  return table.move(TIMES, 1, #TIMES, #options + 1, options)
end

M.COMMANDS = {
  { name = "init", help = "make a project: moonbird.lua, migrations/, .env.example, a CI workflow",
    args = { { name = "DIR", key = "folder", optional = true, help = "where (default: here)" } } },
  { name = "new", help = "write a new migration",
    args = { { name = "NAME", key = "name", help = "what it does, e.g. add_email_to_users" } },
    options = {
      { long = "sql", help = "write .sql (dbmate's format) instead of .lua" },
      { long = "sequential", help = "number on from the folder's newest, with its width" },
    } },
  { name = "renumber", help = "give a migration that is not merged a new version",
    args = { { name = "VERSION", key = "which", help = "its version, or its file" } },
    options = { { long = "to", arg = "V", convert = version_text, help = "the new version (default: a free one)" } } },
  { name = "up", help = "apply the pending migrations",
    options = with_times(with({ TO, steps(), DRY_RUN, OUT_OF_ORDER, ALLOW_CONTRACT, ALLOW_BREAKING, EMERGENCY,
      BACKFILLS, RESTART, ADOPT },
      PICK, ROLLOUT, FLEET)) },
  { name = "down", help = "take back the newest migration (or more)",
    options = with_times(with({
      { long = "to", arg = "V", convert = version, help = "take back everything newer than V" },
      steps(" (default 1)"), DRY_RUN, EMERGENCY }, PICK, ROLLOUT)) },
  { name = "redo", help = "take back and apply again",
    options = with_times(with({ steps(" (default 1)"), ALLOW_CONTRACT, ALLOW_BREAKING, EMERGENCY },
      PICK, ROLLOUT)) },
  { name = "deploy", help = "wait for the server, check, apply what is expand, verify: for a pipeline",
    options = with_times(with({ TO, ALLOW_CONTRACT, ALLOW_BREAKING, EMERGENCY, BACKFILLS, RESTART, ADOPT,
      { long = "wait", arg = "TIME", convert = milliseconds, help = "how long to wait for the server (default 60s)" },
      { long = "artifact", arg = "FILE", help = "write the run's diagnostics as JSON, also when it fails" },
      { long = "sarif", arg = "FILE", help = "write the policy's findings as SARIF 2.1.0" },
      { long = "junit", arg = "FILE", help = "write them as JUnit XML" },
      { long = "github", help = "print them as annotations of GitHub, with a step summary" } }, PICK, ROLLOUT,
      FLEET)) },
  { name = "status", help = "show what is applied and what is pending",
    options = with({ { long = "exit-code", help = "exit 4 when something is pending or has drifted" }, ALL }, PICK) },
  { name = "history", help = "show the journal, newest first",
    options = with({
      { long = "limit", arg = "N", convert = count, help = "at most N events (default 20)" },
      { long = "verify", help = "check the hash chain" } }, PICK) },
  { name = "plan", help = "show what `up` would do, without doing it",
    options = with({ TO, steps(), OUT_OF_ORDER, ALLOW_CONTRACT, ALLOW_BREAKING }, PICK, { CANARY }) },
  { name = "tenant", help = "the tenants: list, status, add, drift, matrix, pin, unpin",
    args = {
      { name = "ACTION", key = "action", choices = { "list", "status", "add", "drift", "matrix", "pin", "unpin" },
        help = "what to do" },
      { name = "NAME", key = "name", optional = true, help = "add, pin, unpin: which tenant" } },
    options = with({
      { long = "schema", arg = "S", help = "add: its schema (default: its name)" },
      { long = "label", arg = "K=V", many = true, help = "add: a label; may be repeated" },
      { long = "to", arg = "V", convert = version, help = "pin: the newest version it may have" },
      { long = "reason", arg = "TEXT", help = "pin, unpin: why, for the journal (required)" },
      { long = "html", arg = "FILE", help = "matrix: write it as one HTML page" },
      { long = "exit-code", help = "status: exit 4 when something is pending; drift: when there is drift" },
      ALL, EMERGENCY }, PICK) },
  { name = "check", help = "check the migrations against the policy, without a database",
    args = { { name = "FILES", key = "files", many = true, help = "report on these only (default: all)" } },
    options = {
      { long = "base", arg = "REF", help = "compare with this branch or commit: nothing merged may change" },
      { long = "update", help = "bring checksums.json up to date first" },
      table.unpack(OUTPUTS) } },
  { name = "ci", help = "prove the migrations on an empty database: check, apply, take back, apply again",
    options = {
      { long = "base", arg = "REF", help = "compare with this branch or commit, and apply what it has first" },
      { long = "no-undo", help = "do not take back and apply again" },
      { long = "superuser", help = "on the throwaway cluster, run as its superuser: only for files you trust" },
      { long = "artifact", arg = "FILE", help = "write the result as JSON, also when it fails" },
      TIMES[#TIMES],
      table.unpack(OUTPUTS) } },
  { name = "policy", help = "the policy's rules: list, explain, test, waivers, facts",
    args = {
      { name = "ACTION", key = "action", choices = { "list", "explain", "test", "waivers", "facts" },
        help = "what to do" },
      { name = "SUBJECT", key = "subject", optional = true,
        help = "explain: a rule's id; test: the folder of rules; facts: a migration's file" } },
    options = {
      { long = "tree", help = "facts: with the parse trees" },
      { long = "junit", arg = "FILE", help = "test: write the results as JUnit XML" } } },
  { name = "backfill", help = "data migrations: list, show, run, pause, resume, cancel, throttle, verify, explain ...",
    args = {
      { name = "ACTION", key = "action", choices = { "list", "show", "run", "pause", "resume", "cancel", "throttle",
        "retry-errors", "verify", "explain" }, help = "what to do" },
      { name = "NAME", key = "words", many = true,
        help = "which: its version or its id; run: several, or all; throttle: NAME key=value ..." } },
    options = with_times(with({
      { long = "max-runtime", arg = "TIME", convert = milliseconds,
        help = "run: stop after this long; exit 75 when work remains" },
      { long = "workers", arg = "N", convert = integer_from(1), help = "run: connections that work on one backfill" },
      { long = "jobs", arg = "N", convert = integer_from(1), help = "run: tenants at the same time (default 8)" },
      RESTART, ADOPT, EMERGENCY }, PICK)) },
  { name = "show", help = "show one migration: its header, statements and history",
    args = { { name = "VERSION", key = "version", convert = version, help = "its version" } } },
  { name = "create", help = "create the database of the URL" },
  { name = "drop", help = "drop the database of the URL",
    options = { { long = "yes", help = "really" } } },
  { name = "wait", help = "wait until the server accepts connections",
    options = { { long = "timeout", arg = "TIME", convert = milliseconds, help = "give up after (default 60s)" } } },
  { name = "baseline", help = "say that everything up to VERSION is there already",
    args = { { name = "VERSION", key = "version", convert = version, help = "newest version that is there" } },
    options = with({ { long = "reason", arg = "TEXT", help = "why, for the journal" }, EMERGENCY, LOCK_WAIT },
      PICK_OTHERS) },
  { name = "repair", help = "settle what only a person can: accept a changed file, mark a version",
    args = { { name = "VERSION", key = "version", convert = version, optional = true, help = "its version" } },
    options = with({
      { long = "accept", help = "accept the changed file of an applied migration" },
      { long = "mark", arg = "STATE", choices = { "applied", "reverted" },
        help = "say that the version is, or is not, in the database" },
      { long = "clear", help = "forget what an interrupted run left in the journal" },
      { long = "reason", arg = "TEXT", help = "why, for the journal (required)" }, EMERGENCY, LOCK_WAIT },
      PICK_OTHERS) },
  { name = "cluster", help = "the embedded PostgreSQL: start, stop, status, url, destroy",
    args = { { name = "ACTION", key = "action", choices = { "start", "stop", "status", "url", "destroy" },
      help = "what to do" } },
    options = { { long = "yes", help = "really destroy" } } },
  { name = "run", help = "run a Lua script with the engine's API; or list, show, pause, resume, cancel a fleet's run",
    args = { { name = "SCRIPT", key = "script",
        help = "a .lua file returning a function(db, ...); or list, show, pause, resume, cancel" },
      { name = "ARGS", key = "script_args", many = true, help = "handed to the script; or the RUN" } },
    options = { EMERGENCY, CONTROL } },
  { name = "completion", help = "print a completion script",
    args = { { name = "SHELL", key = "shell", choices = { "bash", "zsh", "fish" }, help = "for which shell" } } },
  { name = "version", help = "print the versions of moonbird and of what it stands on" },
  { name = "help", help = "show help for a command",
    args = { { name = "COMMAND", key = "topic", optional = true, help = "which" } } },
}

local function key_of(option)
  return option.key or option.long:gsub("%-", "_")
end

local function add_option(parser, option)
  local names = (option.short and ("-" .. option.short .. " ") or "") .. "--" .. option.long
  local item = option.arg and parser:option(names) or parser:flag(names)
  item:description(option.help):target(key_of(option))
  if option.arg then
    item:argname(option.arg)
  end
  if option.default then
    item:default(option.default):show_default(false)
  end
  local convert = option.choices and usage.choice("--" .. option.long, option.choices)
    or option.convert and usage.named("--" .. option.long, option.convert)
  if convert then
    item:convert(convert)
  end
  if option.many and not option.arg then
    item:count("0-3"):init(0)
  elseif option.many then
    item:count("*")
  end
end

local function add_argument(parser, argument)
  local item = parser:argument(argument.key):argname(argument.name):description(argument.help)
  if argument.many then
    item:args("*")
  elseif argument.optional then
    item:args("?")
  end
  local convert = argument.choices and usage.choice(argument.name, argument.choices)
    or argument.convert and usage.named(argument.name, argument.convert)
  if convert then
    item:convert(convert)
  end
end

-- -h is looked for before parsing, so that it works whatever else is missing; here it is only listed.
local function add_help(parser)
  parser:add_help { description = "show this help" }
end

local function asks_for_help(argv)
  for _, word in ipairs(argv) do
    if word == "--" then
      return false
    elseif word == "-h" or word == "--help" then
      return true
    end
  end
  return false
end

-- Only the command that is called gets its options: building all parsers takes as long as a query.
local function build(wanted)
  local parser = argparse("moonbird", "Migrations for PostgreSQL in Lua and SQL, crash-safe.")
    :add_help(false):require_command(false):command_target("command")
    :epilog("Settings come from flags, moonbird.lua, .env and the environment (DATABASE_URL, PG*).\n"
      .. "`moonbird help COMMAND` tells more about one.")
  add_help(parser)
  for _, option in ipairs(M.GLOBAL) do
    add_option(parser, option)
  end
  local commands = {}
  for _, command in ipairs(M.COMMANDS) do
    local sub = parser:command(command.name):summary(command.help):description(command.help .. ".")
      :add_help(false)
    add_help(sub)
    local needed = command.name == wanted or wanted == "help"
    for _, argument in ipairs(needed and command.args or {}) do
      add_argument(sub, argument)
    end
    for _, option in ipairs(needed and command.options or {}) do
      add_option(sub, option)
    end
    commands[command.name] = sub
  end
  parser._commands_by_name = commands
  return parser
end

local function names()
  local list = {}
  for i, command in ipairs(M.COMMANDS) do
    list[i] = command.name
  end
  return list
end

--- The command's name as typed: the first word that is neither an option nor an option's value.
local function command_word(argv)
  local takes_value = {}
  for _, option in ipairs(M.GLOBAL) do
    if option.arg then
      takes_value["--" .. option.long] = true
      if option.short then
        takes_value["-" .. option.short] = true
      end
    end
  end
  local i = 1
  while argv[i] do
    if takes_value[argv[i]] then
      i = i + 1
    elseif argv[i]:sub(1, 1) ~= "-" then
      return argv[i]
    end
    i = i + 1
  end
end

local function wants_json(argv)
  for _, word in ipairs(argv) do
    if word == "--" then
      return false
    elseif word == "--json" then
      return true
    end
  end
  return false
end

local function usage_error(argv, message, hint)
  local err = error_.new("usage", message, { hint = hint })
  if wants_json(argv) then
    local object = { command = command_word(argv), ok = false, error = failure.data(err) }
    sys.write(1, json.encode(object, true) .. "\n")
  end
  local report = reporter.new { json = false, quiet = false, level = "info",
    colour = { out = false, err = sys.isatty(2) }, live = false, log_format = "text" }
  report:failure(err)
end

local function find_command(word)
  for _, command in ipairs(M.COMMANDS) do
    if command.name == word then
      return command
    end
  end
end

local function unknown_command(argv, word)
  usage_error(argv, ("there is no command \"%s\""):format(word), usage.hint(nil, nearest.find(word, names())))
  return nil, 2
end

--- Parses the command line. Prints help and usage errors itself.
---@param argv string[]
---@return table|nil args nil when the program is to end with the status
---@return integer? status
function M.parse(argv)
  local word = command_word(argv)
  local command = find_command(word)
  if word and not command then
    return unknown_command(argv, word)
  end
  local parser = build(word)
  if asks_for_help(argv) then
    sys.write(1, (parser._commands_by_name[word] or parser):get_help() .. "\n")
    return nil, 0
  end
  local parsed, result = parser:pparse(argv)
  if not parsed then
    usage_error(argv, usage.explain(result, command, M.GLOBAL))
    return nil, 2
  end
  if not result.command and wants_json(argv) then
    usage_error(argv, "a command is missing", usage.hint())
    return nil, 2
  elseif not result.command or result.command == "help" then
    local topic = result.topic
    local chosen = topic and parser._commands_by_name[topic] or parser
    if topic and not parser._commands_by_name[topic] then
      return unknown_command(argv, topic)
    end
    sys.write(1, chosen:get_help() .. "\n")
    return nil, result.command and 0 or 2
  end
  return result
end

return M
