--- Rules of immutability: what is applied or merged stays as it is, and new migrations come after old ones.
local sorted = require "moonbird.util.sorted"

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

local NAME = "20250601120000_keep_mail.sql"
local FILE = "migrations/" .. NAME
local ANOTHER = ("5f2c"):rep(16)

--- Git facts of an example.
local function git_with(changes, newest, merged)
  return { base = "origin/main", merge_base = ("1d"):rep(20), changes = changes, ledger_in_base = false,
    base_versions = { { version = newest, version_text = tostring(newest), name = "orders",
      file = ("migrations/%d_orders.sql"):format(newest) } }, merged = merged or {} }
end

local LEDGER = "checksums.json"
local UPDATE = "moonbird check --update"

local function base_name(file)
  return file:match("([^/]*)$")
end

--- Where a file that is gone would be: as a place for a finding.
local function beside(ctx, name)
  local first = ctx.registry[1]
  local folder = first and first.file:match("^(.*/)[^/]*$") or ""
  return folder .. name
end

local function short(hash)
  return tostring(hash):sub(1, 12)
end

-- ledger ----------------------------------------------------------------------------------------------------

--- A file without an entry that has the content of an entry without a file: it was renamed.
local function find_renamed(ctx, checksum, taken)
  for _, migration in ipairs(ctx.registry) do
    if migration.checksum == checksum and not ctx.ledger[migration.base_name] and not taken[migration.file] then
      return migration
    end
  end
end

local function check_files(ctx, renamed)
  for _, migration in ipairs(ctx.registry) do
    local said = ctx.ledger[migration.base_name]
    local at = { file = migration.file, line = 1, version = migration.version }
    if said and said ~= migration.checksum then
      ctx:report(("\"%s\" is not what %s says: it is %s, the ledger has %s"):format(migration.file, LEDGER,
        short(migration.checksum), short(said)), { at = at,
        fix = ("merged: restore the file and write a new migration; still yours: `%s`"):format(UPDATE) })
    elseif not said and not renamed[migration.file] then
      ctx:report(("\"%s\" is not in %s"):format(migration.file, LEDGER), { at = at, fix = UPDATE })
    end
  end
end

local ledger = {
  id = "ledger", group = "immutability", severity = "error", per = "registry", moments = { "check" },
  title = "the files are those that checksums.json lists",
  explain = [[
checksums.json lists each migration with the SHA-256 of its file. `moonbird new` and `moonbird check --update` write it,
and only for files that are not merged or applied yet. So a merged migration that somebody edits, deletes or renames
shows at once, without a database and without git, and a conflict in this one file tells two branches of each other.

Who is hurt by an edited migration: the databases where it ran already. They keep the old result, new ones get the new
one, and no run tells the difference.

Recipe: your own new file: `moonbird check --update`. A merged one: restore it (`git checkout`), and write a new
migration. A pull request can change file and ledger together; what finds that is `merged-unchanged`
(`moonbird check --base REF`).]],
  fix = UPDATE,
  seeds = {
    "Migration Playbook: Integrity ledger: `db/migrations/checksums.json`",
    "Migration Playbook: **Immutable after merge:** never edit an existing migration; add a new one.",
    "Database Migration Strategy: checksum VARCHAR(64)  -- SHA256 of migration file",
  },
  examples = {
    file = NAME, bad = MAIL, bad_with = { ledger = { [NAME] = ANOTHER } }, good = MAIL,
  },
  check = function(ctx)
    if not ctx.ledger then
      if #ctx.registry > 0 and not (ctx.git and ctx.git.ledger_in_base) then
        ctx:report(("there is no %s beside the migrations"):format(LEDGER), { severity = "info",
          at = { file = beside(ctx, LEDGER) }, fix = ("`%s` makes one"):format(UPDATE) })
      end
      return
    end
    local files, renamed = {}, {}
    for _, migration in ipairs(ctx.registry) do
      files[migration.base_name] = true
    end
    for _, name in ipairs(sorted.keys(ctx.ledger)) do
      if not files[name] then
        local now = find_renamed(ctx, ctx.ledger[name], renamed)
        local at = { file = beside(ctx, LEDGER) }
        if now then
          renamed[now.file] = true
          at = { file = now.file, line = 1, version = now.version }
          ctx:report(("\"%s\" is \"%s\" in %s: it was renamed"):format(now.file, name, LEDGER), { at = at,
            fix = ("merged: give it its name back; still yours: `%s` (or finish a broken-off `moonbird renumber`)")
              :format(UPDATE) })
        else
          ctx:report(("\"%s\" is in %s, but there is no such file: it was deleted"):format(name, LEDGER), { at = at,
            fix = ("merged: restore the file; still yours: `%s`"):format(UPDATE) })
        end
      end
    end
    check_files(ctx, renamed)
  end,
}

-- applied-unchanged ---------------------------------------------------------------------------------------

local applied_unchanged = {
  id = "applied-unchanged", group = "immutability", severity = "error", per = "registry", needs = { "history" },
  hard = true,
  title = "a migration that is applied is still there, as it was",
  explain = [[
The journal has the checksum of each file as it was applied. A file that differs, or is gone, means that this database
was made by something nobody can read any more: it can't be made again, and a new one comes out different.

Who is hurt: staging and production, which no longer are what the repository says.

A version newer than every file is not meant: that is an older release deployed again. `up` refuses a changed file by
itself and warns of one that is gone; `deploy` and `ci` refuse both.

Recipe: restore the file from git and put the change into a new migration. Where the change is harmless (a comment),
`moonbird repair VERSION --accept --reason "..."` writes that into the journal.]],
  fix = "restore the file and write a new migration",
  seeds = {
    "Database Migration Strategy: **Never modify applied migrations** - Create new migration to alter schema",
    "Database Migration Strategy: **Fix**: Create new migration to fix issue (do not modify original)",
    "Migration Playbook: **Never edit history.** Fix with a new migration.",
  },
  examples = {
    file = NAME, bad = MAIL,
    bad_with = { history = { applied = { { version = 20250601120000, checksum = ANOTHER } } } },
    good = MAIL, good_with = { history = { applied = { 20250601120000 } } },
  },
  check = function(ctx)
    local versions = {}
    for version in pairs(ctx.history.applied) do
      versions[#versions + 1] = version
    end
    table.sort(versions)
    local files, newest = {}, -1
    for _, migration in ipairs(ctx.registry) do
      newest = math.max(newest, migration.version)
      files[migration.version] = files[migration.version] or {}
      table.insert(files[migration.version], migration)
    end
    local target = ctx.history.target and ctx.history.target ~= "global" and (" on %s"):format(ctx.history.target) or ""
    for _, version in ipairs(versions) do
      local applied, same = ctx.history.applied[version], false
      for _, migration in ipairs(files[version] or {}) do
        same = same or not applied.checksum or migration.checksum == applied.checksum
      end
      local migration = files[version] and files[version][1]
      if not migration and version <= newest then
        ctx:report(("%s is applied%s, but its file is gone"):format(applied.id or tostring(version), target),
          { at = { version = version, file = beside(ctx, applied.id or tostring(version)) },
            fix = "restore the file from git" })
      elseif migration and not same then
        ctx:report(("\"%s\" is applied%s and was changed afterwards: it is %s, the journal has %s"):format(
          migration.file, target, short(migration.checksum), short(applied.checksum)),
          { at = { file = migration.file, line = 1, version = version } })
      end
    end
  end,
}

-- merged-unchanged ------------------------------------------------------------------------------------------

local merged_unchanged = {
  id = "merged-unchanged", group = "immutability", severity = "error", per = "registry", needs = { "git" },
  hard = true, moments = { "check" },
  title = "a migration that is merged is neither edited, deleted nor renamed",
  explain = [[
What the base branch has may be applied anywhere already. An edited file does not run again there; a deleted one is
missing when a new database is made; a renamed one is a different migration to every journal. The comparison is with
the commit where this branch left the base branch (its merge base), so that changes others made there meanwhile
are not held against it.

Who is hurt: every database the migration ran on.

Recipe: `git checkout MERGE_BASE -- FILE`, and a new migration with the change.]],
  fix = "restore the file and write a new migration",
  seeds = {
    "Migration Playbook: **Immutable after merge:** never edit an existing migration; add a new one.",
    "Migration Playbook: **Never edit history.** Fix with a new migration.",
    "Database Migration Strategy: **Never modify applied migrations** - Create new migration to alter schema",
  },
  examples = {
    file = NAME, bad = MAIL,
    bad_with = { git = git_with({ { status = "modified", file = FILE } }, 20250601110000, { [FILE] = true }) },
    good = MAIL, good_with = { git = git_with({ { status = "added", file = FILE } }, 20250601110000) },
  },
  check = function(ctx)
    local git = ctx.git
    local restore = ("git checkout %s -- "):format(short(git.merge_base))
    for _, change in ipairs(git.changes) do
      local file = change.from or change.file
      local version = math.tointeger(tonumber(base_name(file):match("^(%d+)_") or ""))
      local at = { file = change.file, version = version, line = change.status ~= "deleted" and 1 or nil }
      if base_name(file) == LEDGER and (change.status == "deleted" or change.status == "renamed") then
        if git.ledger_in_base then
          ctx:report(("\"%s\" is in %s and was deleted"):format(file, git.base), { at = { file = file },
            fix = restore .. file .. (", then `%s`"):format(UPDATE) })
        end
      elseif git.merged[file] and change.status == "renamed" then
        ctx:report(("\"%s\" is merged into %s and was renamed to \"%s\""):format(file, git.base, change.file),
          { at = at, fix = ("git mv %s %s"):format(change.file, file) })
      elseif git.merged[file] and change.status == "deleted" then
        ctx:report(("\"%s\" is merged into %s and was deleted"):format(file, git.base),
          { at = at, fix = restore .. file })
      elseif git.merged[file] and change.status ~= "added" then
        ctx:report(("\"%s\" is merged into %s and was changed"):format(file, git.base),
          { at = at, fix = restore .. file .. ", then `moonbird new` for the change" })
      end
    end
  end,
}

-- version-order ---------------------------------------------------------------------------------------------

local function newest_of(git)
  local newest
  for _, known in ipairs(git.base_versions) do
    if not newest or known.version > newest.version then
      newest = known
    end
  end
  return newest
end

--- The file on the base branch with this version, unless it is the file itself.
local function holder_of(git, version, file)
  local holder
  for _, known in ipairs(git.base_versions) do
    if known.file == file then
      return nil, true
    elseif known.version == version then
      holder = known
    end
  end
  return holder, false
end

local version_order = {
  id = "version-order", group = "immutability", severity = "error", per = "registry", needs = { "git" },
  moments = { "check" },
  title = "a new migration has a version above all on the base branch",
  explain = [[
Two branches take the next version; the one merged second is now older than, or equal to, what is there already. Where
the first was applied, the second is late: `up` refuses it, or, if it is let in, it runs after what it was written
before. A new database runs them in the other order.

Who is hurt: the next deployment, and every database that was migrated between the two merges.

Recipe: `moonbird renumber VERSION` gives the new file a version above all, takes its entry in checksums.json along
and rewrites what refers to it. Do it last, just before the merge, or let the merge queue check it.]],
  fix = "moonbird renumber VERSION",
  seeds = {
    "ADR-0068: Every migration has a strictly increasing integer `version` and stable `id`.",
    "ADR-0068: out-of-order upgrades,",
    "Migration Playbook: Ordered execution + lock controls.",
  },
  examples = {
    file = NAME, bad = MAIL, bad_with = { git = git_with({ { status = "added", file = FILE } }, 20250610080000) },
    good = MAIL, good_with = { git = git_with({ { status = "added", file = FILE } }, 20250531080000) },
  },
  check = function(ctx)
    local git = ctx.git
    local newest = newest_of(git)
    for _, change in ipairs(git.changes) do
      local digits = base_name(change.file):match("^(%d+)_[a-z0-9_]+%.[sl][qu][la]$")
      local version = digits and #digits <= 18 and math.tointeger(tonumber(digits))
      local is_new = change.status == "added" or (change.status == "renamed" and not git.merged[change.from])
      local holder, there
      if version and is_new then
        holder, there = holder_of(git, version, change.file)
      end
      local at = { file = change.file, line = 1, version = version or nil }
      if not (version and is_new) or there then
        goto continue
      elseif holder then
        ctx:report(("version %s of \"%s\" is taken on %s by \"%s\""):format(digits, change.file, git.base,
          holder.file), { at = at, fix = "moonbird renumber " .. change.file })
      elseif newest and version < newest.version then
        ctx:report(("version %s of \"%s\" is older than \"%s\", the newest on %s"):format(digits, change.file,
          newest.file, git.base), { at = at, fix = "moonbird renumber " .. digits })
      end
      ::continue::
    end
  end,
}

return { ledger, applied_unchanged, merged_unchanged, version_order }
