--- Rules of the registry: versions, ids, names of files, and what each file says of itself.
local head = require "moonbird.policy.head"
local text_util = require "moonbird.util.text"
local version_of = require "moonbird.migration.version"

-- What examples are made of.
local MAIL = [[
-- description: Letters to customers are kept until they are sent
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up
create table mail (id bigint generated always as identity primary key, address text not null);

-- migrate:down
drop table mail;
]]

local OTHER = "create table made_up (id bigint primary key);"

local function without(text, line)
  return (text:gsub("%-%- " .. line .. "[^\n]*\n", ""))
end

local function renumber(migration)
  return ("moonbird renumber %s"):format(migration.file)
end

-- version-unique ------------------------------------------------------------------------------------------

local version_unique = {
  id = "version-unique", group = "registry", severity = "error", per = "registry", gate = true,
  title = "every migration has a version of its own",
  explain = [[
Versions are the order in which migrations run and the key under which the journal keeps them. When two files have
one version, as after the merge of two branches that both took the next number, which of them runs first is chance,
and the journal would take one for the other: a database where one was applied seems to have both.

Who is hurt: whoever deploys next. One of the two files is skipped without a word.

Recipe: `moonbird renumber FILE` gives the one that is not merged yet a new version, takes its entry in checksums.json
along and rewrites what refers to it.]],
  fix = "moonbird renumber VERSION",
  seeds = { "ADR-0068: Every migration has a strictly increasing integer `version` and stable `id`." },
  examples = {
    bad = MAIL, bad_with = { others = { ["20250601120000_add_orders.sql"] = OTHER } },
    good = MAIL, good_with = { others = { ["20250601110000_add_orders.sql"] = OTHER } },
  },
  check = function(ctx)
    local first = {}
    for _, migration in ipairs(ctx.registry) do
      local other = first[migration.version]
      if other then
        ctx:report(("version %s is taken twice: by \"%s\" and by \"%s\""):format(migration.version_text, other.file,
          migration.file), { at = { file = migration.file, line = 1, version = migration.version },
          fix = ("%s gives it a new version (or the other file, if that one is not merged)"):format(
            renumber(migration)) })
      else
        first[migration.version] = migration
      end
    end
  end,
}

-- id-unique -----------------------------------------------------------------------------------------------

local id_unique = {
  id = "id-unique", group = "registry", severity = "error", per = "registry", gate = true,
  title = "every stable id is used once",
  explain = [[
The id in a migration's head stays when the file is renamed or renumbered; tickets, runbooks and other tools know the
migration by it. A head that was copied with its id makes two changes look like one.

Who is hurt: whoever looks a migration up by its id, and gets the other one.

Recipe: give the newer of the two an id of its own, or leave the id out: version and name are one already.]],
  fix = "give one of them an id of its own, or leave the line out",
  seeds = { "ADR-0068: Every migration has a strictly increasing integer `version` and stable `id`." },
  examples = {
    bad = "-- id: SHOP-7\n" .. MAIL, good = "-- id: SHOP-8\n" .. MAIL,
    others = { ["20250501120000_orders.sql"] = "-- id: SHOP-7\n-- migrate:up\n" .. OTHER
      .. "\n-- migrate:down\ndrop table made_up;\n" },
  },
  check = function(ctx)
    local by_name, first = {}, {}
    for _, migration in ipairs(ctx.registry) do
      by_name[migration.id] = migration
    end
    for _, migration in ipairs(ctx.registry) do
      local id = migration.stable_id
      local other = id and (first[id] or by_name[id])
      if id and other and other.file ~= migration.file then
        ctx:report(("the id \"%s\" of \"%s\" is %s \"%s\""):format(id, migration.file,
          first[id] and "also that of" or "what", other.file) .. (first[id] and "" or " is known by"),
          { at = { file = migration.file, line = 1, version = migration.version } })
      end
      if id and not first[id] then
        first[id] = migration
      end
    end
  end,
}

-- file-name -----------------------------------------------------------------------------------------------

local PRESETS = {
  ["3-digit"] = { says = "3 digits, from 001 on", digits = 3 },
  ["13-digit"] = { says = "13 digits, milliseconds since 1970", digits = 13 },
  ["14-digit"] = { says = "14 digits, YYYYMMDDHHMMSS in UTC", digits = 14 },
}

local function plausible(text)
  if #text == 14 and not version_of.is_datetime(text) then
    return "is no date and time (YYYYMMDDHHMMSS)"
  elseif #text == 13 and not version_of.is_milliseconds(text) then
    return "is no time in milliseconds since 1970"
  end
end

--- The version before this one is missing from a sequence.
local function gap(ctx, migration)
  local previous
  for _, other in ipairs(ctx.registry) do
    if other.version < migration.version and (not previous or other.version > previous) then
      previous = other.version
    end
  end
  previous = previous or 0
  if previous + 1 < migration.version then
    return ("%03d"):format(previous + 1)
  end
end

local function check_preset(ctx, preset)
  local migration = ctx.migration
  local text = migration.version_text
  local beyond_999 = preset.digits == 3 and #text > 3 and #text <= 6 and text:sub(1, 1) ~= "0"
  local wide = #text == preset.digits or beyond_999
  if not wide then
    return ctx:report(("the version %s of \"%s\" has %s; the names here have %s"):format(text, migration.file,
      text_util.count(#text, "digit"), preset.says), { at = { line = 1 }, fix = renumber(migration) })
  end
  local missing = preset.digits == 3 and gap(ctx, migration)
  if missing then
    ctx:report(("version %s is missing before \"%s\""):format(missing, migration.file), { at = { line = 1 },
      severity = "warning", fix = ("moonbird renumber %s --to %s"):format(migration.file, missing) })
  end
end

-- The same for every file of a registry: looked for once.
local widths = setmetatable({}, { __mode = "k" })

local function common_width(registry)
  local known = widths[registry]
  if not known then
    local texts = {}
    for i, other in ipairs(registry) do
      texts[i] = other.version_text
    end
    local width, count = version_of.width(texts)
    known = { width = width, count = count, total = #texts }
    widths[registry] = known
  end
  return known
end

local function check_majority(ctx)
  local migration, common = ctx.migration, common_width(ctx.registry)
  if #migration.version_text ~= common.width then
    ctx:report(("the version of \"%s\" has %s; %d of the %d files have %d"):format(migration.file,
      text_util.count(#migration.version_text, "digit"), common.count, common.total, common.width), { at = { line = 1 },
      severity = "warning", fix = renumber(migration) })
  end
end

local file_name = {
  id = "file-name", group = "registry", severity = "error",
  title = "names of files have one form",
  explain = [[
A name is <version>_<what_it_does>: the version sorts the files as they run, the rest says what one does without
opening it. One form for all keeps the order on screen, in reviews and in git the order in which they run. A version
that should be a time and is none (month 13, a digit lost) puts a file where nobody expects it: last for good, or
before all that was ever applied.

Without options, versions have as many digits as most of the folder's, 14 digits are a date and time that exist, and 13
are milliseconds. The option `preset` demands one form: "3-digit", "13-digit" or "14-digit"; numbers in a sequence
have no gaps (a warning). The option `pattern` is a Lua pattern that the name has to match, with or without its
extension: "^%d+_[a-z0-9_]+%.lua$" asks for Lua files.

Who is hurt: whoever looks for what ran when.

Recipe: `moonbird renumber FILE` for the version; rename the file for the rest, as long as it is not merged.]],
  fix = "moonbird renumber VERSION, or rename the file (before it is merged)",
  seeds = {
    "Migration Playbook: Filename: `^\\d{13}_[a-z0-9_]+\\.mjs$`", "Migration Playbook: Format: **`.mjs` only**",
    "Database Migration Strategy: Version numbers are sequential, zero-padded to 3 digits",
    "Database Migration Strategy: Description in snake_case, concise but descriptive",
    "ADR 0007: YYYYMMDDHHMMSS_description.sql",
  },
  options = {
    preset = { default = "", type = "string", help = "\"3-digit\", \"13-digit\" or \"14-digit\"" },
    pattern = { default = "", type = "string", help = "a Lua pattern that names have to match" },
  },
  examples = {
    bad = MAIL, bad_with = { file = "20251301120000_keep_mail.sql" },
    good = MAIL, good_with = { file = "20251201120000_keep_mail.sql" },
  },
  check = function(ctx)
    local migration, options = ctx.migration, ctx.options
    local stem = migration.base_name:gsub("%.%a+$", "")
    local preset, pattern = PRESETS[options.preset], options.pattern ~= "" and options.pattern or nil
    if options.preset ~= "" and not preset then
      return ctx:report(("the option \"preset\" of file-name is \"%s\"; it can be \"3-digit\", \"13-digit\" or "
        .. "\"14-digit\""):format(options.preset), { at = { line = 1 }, fix = "mend it in moonbird.lua" })
    end
    if pattern then
      local ok, found = pcall(function()
        return migration.base_name:find(pattern) or stem:find(pattern)
      end)
      if not ok then
        return ctx:report(("the option \"pattern\" of file-name is no Lua pattern: %s"):format(pattern),
          { at = { line = 1 }, fix = "mend it in moonbird.lua; a digit is %d there" })
      elseif not found then
        ctx:report(("the name \"%s\" does not match the pattern %s"):format(migration.base_name, pattern),
          { at = { line = 1 }, fix = "rename the file, as long as it is not merged" })
      end
    elseif not stem:find("^%d+_[a-z0-9_]+$") then
      ctx:report(("the name \"%s\" is not <digits>_<snake_case>"):format(migration.base_name), { at = { line = 1 } })
    end
    local why = plausible(migration.version_text)
    if why then
      return ctx:report(("the version %s of \"%s\" %s"):format(migration.version_text, migration.file, why),
        { at = { line = 1 }, fix = renumber(migration) })
    elseif preset then
      check_preset(ctx, preset)
    elseif not pattern then
      check_majority(ctx)
    end
  end,
}

-- header-complete -------------------------------------------------------------------------------------------

local CHOICES = {
  { "phase", "expand or contract" }, { "scope", "global or tenant" },
  { "compatibility", "backward_compatible or contract_breaking" },
}

local function say(migration, key, value)
  if migration.kind == "sql" then
    return ("-- %s: %s"):format(key, value)
  end
  return ("%s = \"%s\","):format(key, value)
end

local header_complete = {
  id = "header-complete", group = "registry", severity = "error", moments = { "check" },
  title = "every migration says its phase, scope and compatibility itself",
  explain = [[
Whether a migration may run while the old release still serves, on which databases it runs, and whether the old release
survives it, are decisions. A default makes them by chance, and a reviewer can't tell "expand" from "did not think
about it".

Who is hurt: the release that still runs, when a removing change went out with the adding ones.

Recipe: three lines in the head (.sql: `-- phase: expand`, `-- scope: global`, `-- compatibility:
backward_compatible`; Lua: the same keys in the table).]],
  fix = "say it in the file's head",
  seeds = {
    "ADR-0068: Every migration declares:", "ADR-0068: `phase`: `Expand` or `Contract`,",
    "ADR-0068: `scope`: `Global` or `Tenant`,",
    "ADR-0068: `compatibility`: `BackwardCompatible` or `ContractBreaking`,",
  },
  examples = {
    bad = without(without(MAIL, "phase"), "scope"), good = MAIL,
  },
  check = function(ctx)
    local migration = ctx.migration
    local missing, lines = {}, {}
    for _, choice in ipairs(CHOICES) do
      local key, words = choice[1], choice[2]
      if not (migration.declared or {})[key] then
        missing[#missing + 1] = ("%s (%s)"):format(key, words)
        lines[#lines + 1] = say(migration, key, migration[key] or words:match("^%S+"))
      end
    end
    if #missing > 0 then
      ctx:report("the migration does not say its " .. table.concat(missing, ", nor its "), { at = { line = 1 },
        fix = ("write `%s`%s"):format(table.concat(lines, "`, `"),
          migration.kind == "sql" and " above -- migrate:up" or "") })
    end
  end,
}

-- description -------------------------------------------------------------------------------------------------

local MIN_WORDS, MIN_LETTERS = 3, 15

-- What templates leave for the author to replace.
local PLACEHOLDERS = { "^todo%f[%W]", "^fixme%f[%W]", "^xxx%f[%W]", "^<.*>$", "^%[.*%]$", "^%.%.%.$",
  "^describe ", "one%-line description", "what it does" }

local function plain(text)
  return (text:lower():gsub("[^a-z0-9]+", ""))
end

local function problem_of_description(migration)
  local text = text_util.trim(migration.description or migration.purpose or "")
  if text == "" then
    return "the migration has no description"
  end
  local lower = text:lower()
  for _, pattern in ipairs(PLACEHOLDERS) do
    if lower:find(pattern) then
      return ("the description \"%s\" is a template's text"):format(text)
    end
  end
  local same = plain(text)
  if same == plain(migration.name) or same == plain(migration.id) or same == plain(migration.base_name) then
    return ("the description \"%s\" is the file's name again"):format(text)
  end
  local words = 0
  for _ in text:gmatch("%S+") do
    words = words + 1
  end
  -- Languages without spaces between words are measured by length alone.
  if #text < MIN_LETTERS or (words < MIN_WORDS and not text:find("[\224-\247]")) then
    return ("the description \"%s\" is shorter than a sentence (%d words, %d letters)"):format(text, MIN_WORDS,
      MIN_LETTERS)
  end
end

local description = {
  id = "description", group = "registry", severity = "error", moments = { "check" },
  title = "every migration has a description of at least a sentence",
  explain = [[
The SQL says what is changed; only the author knows what for. The description is what reviewers read first, what
`moonbird status` and the journal show, and what is left when nobody remembers.

Who is hurt: whoever has to decide at night whether this change may be taken back.

Recipe: `-- description: Orders remember the currency they were paid in` (Lua: `description = "..."`); `Purpose:` is
the same. At least three words and fifteen letters, and not the file's name again.]],
  fix = "say in a sentence what the migration is for",
  seeds = {
    "ADR-002: Include descriptive comments explaining the change",
    "ADR-002: **Requires Documentation**: All migrations must include comments explaining the change and rationale",
    "Database Migration Strategy: -- Purpose: <one-line description>",
  },
  examples = {
    bad = MAIL:gsub("Letters to customers[^\n]*", "Add mail"), good = MAIL,
  },
  check = function(ctx)
    local problem = problem_of_description(ctx.migration)
    if problem then
      local at = head.at(ctx.migration, "description")
      if at.line == 1 and not ctx.migration.description then
        at = head.at(ctx.migration, "purpose")
      end
      ctx:report(problem, { at = at })
    end
  end,
}

-- one-migration-per-file ----------------------------------------------------------------------------------

--- The line of the second `-- migrate:up`.
local function second_up(text)
  local number, seen = 0, 0
  for line in (text .. "\n"):gmatch("([^\n]*)\n") do
    number = number + 1
    if line:find("^%s*%-%-%s*migrate:up%f[%W]") then
      seen = seen + 1
      if seen == 2 then
        return number
      end
    end
  end
end

local one_per_file = {
  id = "one-migration-per-file", group = "registry", severity = "error", moments = { "check" },
  title = "a file holds one migration",
  explain = [[
A .sql file may have several pairs of `-- migrate:up` and `-- migrate:down`; they run as one migration all the same,
the ups first to last, under one version, one description and one row of the journal. What looks like two migrations can
neither be applied nor taken back one by one.

Who is hurt: whoever wants to take back the second and gets both.

Recipe: one file each (`moonbird new NAME --sql`).]],
  fix = "move each further pair of up and down to a file of its own (`moonbird new NAME --sql`)",
  seeds = { "Database Migration Strategy: One migration per file", "ADR 0007: One logical change per migration",
    "Migration Playbook: Keep migrations **small** and **single-purpose**." },
  examples = {
    bad = MAIL .. "\n-- migrate:up\ncreate table parcels (id bigint primary key);\n\n-- migrate:down\n"
      .. "drop table parcels;\n",
    good = MAIL,
  },
  check = function(ctx)
    local migration = ctx.migration
    if (migration.sections or 1) > 1 then
      ctx:report(("the file holds %d pairs of up and down"):format(migration.sections),
        { at = { line = second_up(migration.text or "") or 1 } })
    end
  end,
}

return { version_unique, id_unique, file_name, header_complete, description, one_per_file }
