--- The ledger: `checksums.json` beside the migrations says what each file was when it was last agreed on.
--
--   {
--     "format": 1,
--     "algorithm": "sha256",
--     "migrations": {
--       "001_catalog.sql": "9f86d0...",
--       "002_orders.sql": "60303a..."
--     }
--   }
--
-- One file a line and sorted, so that branches merge by lines. It guards against a slip, not against a pull
-- request that changes both: that one is found by comparing with the base branch (policy/git.lua).
local error_ = require "moonbird.core.error"
local fs = require "moonbird.core.fs"
local json = require "moonbird.core.json"
local sorted = require "moonbird.util.sorted"
local text_util = require "moonbird.util.text"

local M = {}

M.FILE = "checksums.json"
M.FORMAT = 1
M.ALGORITHM = "sha256"

local REMAKE = "`moonbird check --update` writes it anew from the files"

---@alias moonbird.policy.ledger table<string, string> file name -> SHA-256, hex

--- The ledger's path.
---@param folder string
---@return string
function M.path(folder)
  return text_util.join_path(folder, M.FILE)
end

local function broken(path, message, fields)
  local err = error_.new("migration_file", message, { file = path,
    hint = "restore it from git, or delete it: " .. REMAKE })
  for key, value in pairs(fields or {}) do
    err[key] = value
  end
  return err
end

--- The line of a mark that git left where two branches disagree.
local function conflict_line(text)
  local number = 0
  for line in (text .. "\n"):gmatch("([^\n]*)\n") do
    number = number + 1
    if line:find("^<<<<<<<") or line:find("^>>>>>>>") or line:find("^=======\r?$") then
      return number
    end
  end
end

-- cJSON takes the last of two equal keys, silently.
local function duplicate(text)
  local seen = {}
  for at, name in text:gmatch('()"([^"\n]*)"%s*:%s*"') do
    if seen[name] then
      return name, text_util.line_at(text, at)
    end
    seen[name] = true
  end
end

local function decode(path, text)
  local line = conflict_line(text)
  if line then
    return nil, broken(path, "a merge conflict is left in the file", { line = line, conflict = true,
      hint = "`moonbird check --update` settles it: it takes each entry that fits its file" })
  end
  local value, message, offset = json.decode(text)
  if type(value) ~= "table" then
    return nil, broken(path, "the file is not the JSON that it should be" .. (message and ": " .. message or ""),
      { line = offset and text_util.line_at(text, offset) or nil })
  elseif value.format ~= M.FORMAT then
    return nil, broken(path, ("the file has format %s; this moonbird reads format %d"):format(
      tostring(value.format), M.FORMAT), { hint = "it was written by a newer moonbird, or is something else" })
  elseif value.algorithm ~= M.ALGORITHM then
    return nil, broken(path, ("the file's algorithm is not \"%s\""):format(M.ALGORITHM))
  elseif type(value.migrations) ~= "table" then
    return nil, broken(path, "the file has no \"migrations\"")
  end
  local entries = {}
  for name, checksum in pairs(value.migrations) do
    if type(name) ~= "string" or type(checksum) ~= "string" or not checksum:match("^%x+$") or #checksum ~= 64 then
      return nil, broken(path, ("the entry \"%s\" is no SHA-256 of a file"):format(tostring(name)))
    end
    entries[name] = checksum:lower()
  end
  local twice, at = duplicate(text)
  if twice then
    return nil, broken(path, ("\"%s\" is there twice"):format(twice), { line = at, conflict = true,
      hint = "`moonbird check --update` settles it: it takes the entry that fits the file" })
  end
  return entries
end

--- Reads the ledger of a folder.
---@param folder string as the process can open it
---@return moonbird.policy.ledger? ledger nil when there is none, or with an error
---@return moonbird.error? err code "migration_file" (broken; `conflict` when branches disagree) or "io"
function M.read(folder)
  local path = M.path(folder)
  local text, message, code = fs.read(path)
  if not text then
    if code == "ENOENT" or code == "ENOTDIR" then
      return nil
    end
    return nil, error_.new("io", message)
  end
  return decode(path, text)
end

--- The ledgers of all folders of a project as one; nil when none has one.
---@param conf moonbird.config
---@return moonbird.policy.ledger?
---@return moonbird.error? err as read() gives it
function M.of_folders(conf)
  local all
  for _, dir in ipairs(conf.migrations) do
    local entries, err = M.read(text_util.join_path(conf.dir, dir))
    if err then
      return nil, err
    end
    for name, checksum in pairs(entries or {}) do
      all = all or {}
      all[name] = checksum
    end
  end
  return all
end

--- The ledger as text.
---@param entries moonbird.policy.ledger
---@return string
function M.encode(entries)
  local names, lines = {}, {}
  for name in pairs(entries) do
    names[#names + 1] = name
  end
  table.sort(names)
  for i, name in ipairs(names) do
    lines[i] = ("    %s: \"%s\"%s\n"):format(json.encode(name), entries[name], i < #names and "," or "")
  end
  return ('{\n  "format": %d,\n  "algorithm": "%s",\n  "migrations": {\n%s  }\n}\n'):format(M.FORMAT, M.ALGORITHM,
    table.concat(lines))
end

--- Writes the ledger; readers see the old one or the new one.
---@param folder string
---@param entries moonbird.policy.ledger
---@return string? path
---@return moonbird.error? err code "io"
function M.write(folder, entries)
  local path = M.path(folder)
  local ok, message = fs.write(path, M.encode(entries))
  if not ok then
    return nil, error_.new("io", message)
  end
  return path
end

--- Takes a file into the ledger that is there. Without one, makes it only when asked: a first ledger that
--- lacks the other files would accuse them.
---@param folder string
---@param name string the file's name
---@param checksum string
---@param create? boolean make a ledger when there is none
---@return string? path nil when there is no ledger, or with an error
---@return moonbird.error? err
function M.add(folder, name, checksum, create)
  local entries, err = M.read(folder)
  if err or not (entries or create) then
    return nil, err
  end
  entries = entries or {}
  entries[name] = checksum
  return M.write(folder, entries)
end

-- All that a ledger in conflict says of each file.
local function candidates(text)
  local said = {}
  for name, checksum in text:gmatch('"([^"\n]*)"%s*:%s*"(%x+)"') do
    if #checksum == 64 then
      said[name] = said[name] or {}
      said[name][checksum:lower()] = true
    end
  end
  return said
end

-- What the ledger says, in the form of `candidates`.
local function said_of(folder)
  local entries, err = M.read(folder)
  if err and err.conflict then
    local text, message = fs.read(M.path(folder))
    if not text then
      return nil, error_.new("io", message)
    end
    return candidates(text), nil, true
  elseif err then
    return nil, err
  end
  local said = {}
  for name, checksum in pairs(entries or {}) do
    said[name] = { [checksum] = true }
  end
  return said, nil, entries == nil
end

---@class moonbird.policy.ledger_update
---@field added string[] names of files
---@field changed string[]
---@field removed string[]
---@field refused { file: string, why: string, change: "changed"|"removed" }[] their entries stay as they were
---@field written boolean

--- Brings the ledger up to date with the files. An entry of a file that must not change any more is kept as
--- it was, so that the check goes on finding it.
---@param folder string
---@param files moonbird.policy.ledger the files there are: name -> checksum
---@param may_change fun(name: string): boolean, string? may the entry change or go; if not, why
---       ("it is merged into main")
---@return moonbird.policy.ledger_update?
---@return moonbird.error? err
function M.update(folder, files, may_change)
  local said, err, rewrite = said_of(folder)
  if not said then
    return nil, err
  end
  local result = { added = {}, changed = {}, removed = {}, refused = {}, written = false }
  local entries = {}
  local function refuse(name, why, change)
    result.refused[#result.refused + 1] = { file = name, why = why or "it must not change any more",
      change = change }
    entries[name] = sorted.keys(said[name])[1]
  end
  for _, name in ipairs(sorted.keys(files)) do
    if not said[name] then
      result.added[#result.added + 1] = name
      entries[name] = files[name]
    elseif said[name][files[name]] then
      entries[name] = files[name]
    else
      local may, why = may_change(name)
      if may then
        result.changed[#result.changed + 1] = name
        entries[name] = files[name]
      else
        refuse(name, why, "changed")
      end
    end
  end
  for _, name in ipairs(sorted.keys(said)) do
    if not files[name] then
      local may, why = may_change(name)
      if may then
        result.removed[#result.removed + 1] = name
      else
        refuse(name, why, "removed")
      end
    end
  end
  if rewrite or #result.added + #result.changed + #result.removed > 0 then
    local path
    path, err = M.write(folder, entries)
    if not path then
      return nil, err
    end
    result.written = true
  end
  return result
end

return M
