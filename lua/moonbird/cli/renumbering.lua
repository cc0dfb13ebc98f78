--- Giving a migration another version: which file, which version, and the steps of doing it.
--
-- The order of the steps makes a broken-off run recoverable: the file is renamed first, the ledger is told last.
-- Until then the ledger has the old name with the content of a file that it does not know: `check` says that
-- it was renamed, and the same command once more finishes the rest.
local error_ = require "moonbird.core.error"
local failpoint = require "moonbird.core.failpoint"
local fs = require "moonbird.core.fs"
local ledger = require "moonbird.policy.ledger"
local name_of = require "moonbird.migration.name"
local references = require "moonbird.migration.references"
local registry = require "moonbird.migration.registry"
local sys = require "moonbird.core.sys"
local text_util = require "moonbird.util.text"
local version_of = require "moonbird.migration.version"

local M = {}

---@class moonbird.renumbering
---@field entry moonbird.migration.entry the file as it is now
---@field done boolean the file has its new name already: a run that broke off is finished
---@field old { version: integer, version_text: string, file: string, base_name: string }
---@field new { version: integer, version_text: string, file: string, path: string, base_name: string }
---@field folder string as the process can open it
---@field notes string[]

local function base_name(file)
  return file:match("([^/]*)$")
end

local function folder_of(path)
  return path:match("^(.*)/[^/]*$") or "."
end

local function is_merged(known, entry)
  return known ~= nil and known.files[entry.file] == "merged"
end

local function usage(message, hint)
  return nil, error_.new("usage", message, { hint = hint })
end

-- Which file --------------------------------------------------------------------------------------------------

local function quoted(entries)
  local names = {}
  for i, entry in ipairs(entries) do
    names[i] = ("\"%s\""):format(entry.file)
  end
  return table.concat(names, " and ")
end

local function by_version(entries, version)
  local list = {}
  for _, entry in ipairs(entries) do
    if entry.version == version then
      list[#list + 1] = entry
    end
  end
  return list
end

local function by_file(entries, word)
  local real = fs.realpath(word)
  local list = {}
  for _, entry in ipairs(entries) do
    if entry.file == text_util.join_path(word) or base_name(entry.file) == word
      or (real and fs.realpath(entry.path) == real) then
      list[#list + 1] = entry
    end
  end
  return list
end

--- The one of several files of a version that others do not have yet.
local function unmerged(list, known)
  local left = {}
  for _, entry in ipairs(list) do
    if not is_merged(known, entry) then
      left[#left + 1] = entry
    end
  end
  return left
end

--- Finds the file that is meant.
---@param word string a version or a file
---@param entries moonbird.migration.entry[]
---@param known moonbird.policy.git_files?
---@return moonbird.migration.entry? entry nil without an error: there is no such file
---@return moonbird.error? err code "usage"
function M.find(word, entries, known)
  local version = #word <= name_of.MAX_DIGITS and word:match("^%d+$") and math.tointeger(tonumber(word))
  local list = version and by_version(entries, version) or by_file(entries, word)
  if #list > 1 and version then
    local left = unmerged(list, known)
    if #left ~= 1 then
      return usage(("version %s has %d files: %s"):format(word, #list, quoted(list)),
        ("name the one that is to move: `moonbird renumber %s`"):format((left[1] or list[1]).file))
    end
    list = left
  elseif #list > 1 then
    return usage(("\"%s\" is the name of several files: %s"):format(word, quoted(list)), "name it with its folder")
  end
  return list[1]
end

--- Finds what a run that broke off left: a file with the content that the ledger has under another name.
local function find_renamed(word, entries, conf)
  local version = word:match("^(%d+)")
  version = version and #version <= name_of.MAX_DIGITS and math.tointeger(tonumber(version))
  for _, folder in ipairs(version and conf.migrations or {}) do
    local said, err = ledger.read(text_util.join_path(conf.dir, folder))
    if err then
      return nil, nil, err
    end
    for name, checksum in pairs(said or {}) do
      local digits = name:match("^(%d+)_")
      local there = digits and #digits <= name_of.MAX_DIGITS and math.tointeger(tonumber(digits)) == version
        and (name == base_name(word) or word:match("^%d+$"))
      for _, entry in ipairs(there and entries or {}) do
        local beside = text_util.join_path(folder, base_name(entry.file)) == entry.file
        if beside and entry.checksum == checksum and not said[base_name(entry.file)] then
          return entry, name
        end
      end
    end
  end
end

-- Which version -----------------------------------------------------------------------------------------------

local function taken_versions(entries, known, without)
  local texts = {}
  for _, entry in ipairs(entries) do
    if entry ~= without then
      texts[#texts + 1] = entry.version_text
    end
  end
  local width, style = (version_of.width(texts)), version_of.style(texts)
  for _, text in ipairs(known and known.versions or {}) do
    texts[#texts + 1] = text
  end
  return texts, style, width
end

local function choose(entries, known, entry, to)
  local taken, style, width = taken_versions(entries, known, entry)
  style = style or version_of.style { entry.version_text }
  if to then
    to = ("%0" .. (style == "sequential" and (width or #entry.version_text) or 1) .. "d"):format(
      math.tointeger(tonumber(to)))
    for _, text in ipairs(taken) do
      if math.tointeger(tonumber(text)) == math.tointeger(tonumber(to)) then
        return usage(("version %s is taken"):format(to), "leave out --to, and the next free one is used")
      end
    end
    return to
  end
  if #taken == 0 and style == "sequential" then
    taken = { ("0"):rep(#entry.version_text) } -- as wide as it is
  end
  local text, said = version_of.next { taken = taken, style = style }
  if not text then
    return nil, error_.new("migration_file", ("no version can follow \"%s\""):format(said))
  elseif math.tointeger(tonumber(text)) == entry.version then
    return usage(("\"%s\" has the next free version already"):format(entry.file), "say another one with --to")
  end
  return text
end

local function older_than_now(entries, plan, known)
  for _, entry in ipairs(entries) do
    if entry ~= plan.entry and entry.version > plan.old.version and entry.version < plan.new.version
      and not is_merged(known, entry) then
      plan.notes[#plan.notes + 1] = ("it runs behind \"%s\" now; if that one needs it, renumber that one, too")
        :format(entry.file)
    end
  end
end

--- Says what is to be done; nothing is changed yet.
---@param options { word: string, to?: string, entries: moonbird.migration.entry[], conf: table,
---        known?: moonbird.policy.git_files, short?: fun(base: string): string }
---@return moonbird.renumbering?
---@return moonbird.error? err
function M.plan(options)
  local word, entries, known = options.word, options.entries, options.known
  local entry, err = M.find(word, entries, known)
  if err then
    return nil, err
  end
  local old_name, done
  if not entry then
    entry, old_name, err = find_renamed(word, entries, options.conf)
    if err then
      return nil, err
    elseif not entry then
      return usage(("there is no migration \"%s\""):format(word), "`moonbird status` lists them; a file can be "
        .. "named, too")
    end
    done = true
  end
  if is_merged(known, entry) then
    return usage(("\"%s\" is merged into %s: its version can't change any more"):format(entry.file,
      options.short(known.base)), "what is merged may be applied already; write a new migration")
  end
  local plan = { entry = entry, done = done or false, notes = {}, folder = folder_of(entry.path) }
  local old_text = old_name and old_name:match("^%d+") or entry.version_text
  old_name = old_name or base_name(entry.file)
  plan.old = { version = math.tointeger(tonumber(old_text)), version_text = old_text, base_name = old_name,
    file = text_util.join_path(folder_of(entry.file), old_name) }
  local new_text = entry.version_text
  if done and options.to and math.tointeger(tonumber(options.to)) ~= entry.version then
    return usage(("an earlier run gave \"%s\" the version %s already"):format(old_name, new_text),
      ("finish it with `moonbird renumber %s`, then renumber \"%s\""):format(word, entry.file))
  elseif not done then
    new_text, err = choose(entries, known, entry, options.to)
    if not new_text then
      return nil, err
    end
  end
  local new_name = ("%s_%s.%s"):format(new_text, entry.name, entry.kind)
  plan.new = { version = math.tointeger(tonumber(new_text)), version_text = new_text, base_name = new_name,
    file = text_util.join_path(folder_of(entry.file), new_name), path = text_util.join_path(plan.folder, new_name) }
  older_than_now(entries, plan, known)
  return plan
end

-- Doing it ----------------------------------------------------------------------------------------------------

-- Whether a file completes a version; nil when it can't be read.
local function completes(entry, version)
  local migration = registry.load(entry)
  if not migration then
    return nil
  end
  for _, item in ipairs(migration and migration.completes or {}) do
    if item == version then
      return true
    end
  end
  return false
end

-- The entry with another text, as registry.load() takes it.
local function with_text(entry, text)
  local copy = {}
  for key, value in pairs(entry) do
    copy[key] = value
  end
  copy.text, copy.checksum = text, sys.sha256(text)
  return copy
end

--- The other files that complete the old version, each with its new text.
local function find_references(plan, entries, known)
  local list = {}
  local twice = #by_version(entries, plan.old.version) > (plan.done and 0 or 1)
  for _, entry in ipairs(entries) do
    local text = entry ~= plan.entry and entry.text
    local says = text and text:find("completes", 1, true) ~= nil and completes(entry, plan.old.version)
    local changed, lines
    if says ~= false then
      changed, lines = references.rewrite(text or "", entry.kind, plan.old.version, plan.new.version_text)
    end
    if says == nil and #lines > 0 and not is_merged(known, entry) then
      plan.notes[#plan.notes + 1] = ("\"%s\" can't be read and may complete %s: look at line %d"):format(entry.file,
        plan.old.version_text, lines[1])
    elseif says then
      local after = with_text(entry, changed)
      if is_merged(known, entry) then
        if not twice then
          plan.notes[#plan.notes + 1] = ("\"%s\" completes %s and is merged: it is left as it is"):format(entry.file,
            plan.old.version_text)
        end
      elseif #lines == 0 or completes(after, plan.old.version) or not completes(after, plan.new.version) then
        plan.notes[#plan.notes + 1] = ("\"%s\" completes %s in a way that is not rewritten: change it by hand"):format(
          entry.file, plan.old.version_text)
      else
        list[#list + 1] = { entry = entry, text = changed, lines = lines, checksum = after.checksum }
        if twice then
          plan.notes[#plan.notes + 1] = ("\"%s\" completes %s now; if it meant the other file of version %s, undo that")
            :format(entry.file, plan.new.version_text, plan.old.version_text)
        end
      end
    end
  end
  return list
end

local function note_own_mentions(plan)
  local number = 0
  for line in ((plan.entry.text or "") .. "\n"):gmatch("([^\n]*)\n") do
    number = number + 1
    if line:find(plan.old.base_name, 1, true) then
      plan.notes[#plan.notes + 1] = ("line %d of \"%s\" still says \"%s\""):format(number, plan.new.file,
        plan.old.base_name)
    end
  end
end

local function io_error(message)
  return error_.new("io", message)
end

local function rename(plan)
  if fs.stat(plan.new.path) then
    return nil, error_.new("usage", ("\"%s\" is there already"):format(plan.new.file))
  end
  local ok, message = fs.rename(plan.entry.path, plan.new.path)
  if not ok then
    return nil, io_error(message)
  end
  return true
end

-- Ledgers of other folders may know a rewritten file; each is read and written once.
local function tell_ledgers(plan, changed)
  local said = {}
  local function of(folder)
    if said[folder] == nil then
      local entries, err = ledger.read(folder)
      if err then
        return nil, err
      end
      said[folder] = entries or false
    end
    return said[folder]
  end
  local own, err = of(plan.folder)
  if err then
    return nil, err
  elseif own and own[plan.old.base_name] then
    own[plan.new.base_name] = own[plan.old.base_name]
    if not fs.stat(text_util.join_path(plan.folder, plan.old.base_name)) then
      own[plan.old.base_name] = nil
    end
  elseif own and not own[plan.new.base_name] then
    own[plan.new.base_name] = plan.entry.checksum
  end
  for _, reference in ipairs(changed) do
    local name = base_name(reference.entry.file)
    local entries, unread = of(folder_of(reference.entry.path))
    if unread then
      return nil, unread
    elseif entries and entries[name] == reference.entry.checksum then
      entries[name] = reference.checksum -- an entry that did not fit before does not fit now
    end
  end
  local paths = {}
  for folder, entries in pairs(said) do
    if entries then
      local path
      path, err = ledger.write(folder, entries)
      if not path then
        return nil, err
      end
      paths[#paths + 1] = path
    end
  end
  table.sort(paths)
  return paths
end

---@class moonbird.renumbered
---@field references { file: string, lines: integer[] }[]
---@field ledgers string[] paths

--- Does what a plan says.
---@param plan moonbird.renumbering gets notes
---@param entries moonbird.migration.entry[]
---@param known? moonbird.policy.git_files
---@return moonbird.renumbered?
---@return moonbird.error? err
function M.apply(plan, entries, known)
  local _, err = ledger.read(plan.folder)
  if err then
    return nil, err
  end
  note_own_mentions(plan)
  local changed, list = find_references(plan, entries, known), {}
  if not plan.done then
    local ok
    ok, err = rename(plan)
    if not ok then
      return nil, err
    end
  end
  failpoint("renumber.renamed")
  for i, reference in ipairs(changed) do
    local ok, message = fs.write(reference.entry.path, reference.text)
    if not ok then
      return nil, io_error(message)
    end
    list[i] = { file = reference.entry.file, lines = reference.lines }
  end
  failpoint("renumber.rewritten")
  local paths
  paths, err = tell_ledgers(plan, changed)
  if not paths then
    return nil, err
  end
  return { references = list, ledgers = paths }
end

return M
