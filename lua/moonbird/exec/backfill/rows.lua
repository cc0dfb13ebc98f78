--- Row-based batches: the page's rows are read and locked, a Lua function sees them one by one, what it returns is
-- written back by one UPDATE joined with arrays of the keys and the new values.
--
-- The rows stay locked (FOR NO KEY UPDATE) from the read to the commit, so that nobody's change in between is
-- overwritten with what was computed from the old row. Values travel as text and are cast to the column's type
-- without its length, so that the assignment still refuses what is too long, as any UPDATE does.
local error_ = require "moonbird.core.error"
local failpoint = require "moonbird.core.failpoint"
local json = require "moonbird.core.json"
local key_of = require "moonbird.exec.backfill.key"
local literal = require "moonbird.core.literal"
local sandbox = require "moonbird.core.sandbox"
local sql = require "moonbird.core.sql"

local M = {}

local COLUMNS = [[
  select a.attname as name, quote_ident(a.attname) as quoted, format_type(a.atttypid, -1) as type,
         case when t.oid = 'bytea'::regtype then 'bytea' when t.oid in ('json'::regtype, 'jsonb'::regtype) then 'json'
              when t.typcategory = 'A' then 'array' else 'plain' end as kind,
         a.attgenerated <> '' as generated
  from pg_attribute a join pg_type y on y.oid = a.atttypid
       join pg_type t on t.oid = case when y.typtype = 'd' then (
         with recursive base(oid, typtype, typbasetype) as (
           select y.oid, y.typtype, y.typbasetype
           union all select u.oid, u.typtype, u.typbasetype from base b join pg_type u on u.oid = b.typbasetype
             where b.typtype = 'd')
         select oid from base where typtype <> 'd') else y.oid end
  where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped]]

--- Looks the columns of a backfill's table up: name -> { quoted, type, kind, generated }.
---@param target moonbird.target
---@param session moonbird.session
---@param place moonbird.backfill.place
---@return table<string, table>|nil
---@return moonbird.error? err
function M.columns(target, session, place)
  local results, err = session:batch { target:settings_item({ lock = 0, statement = 0 }, true),
    { COLUMNS, place.oid } }
  if not results then
    return nil, err
  end
  local columns = {}
  for _, row in ipairs(results[2]:rows()) do
    columns[row.name] = row
  end
  return columns
end

--- An error for columns of the definition that are not there.
---@param definition moonbird.backfill.definition
---@param columns table<string, table>
---@param place moonbird.backfill.place
---@return moonbird.error|nil
function M.missing(definition, columns, place)
  for _, name in ipairs(definition.columns or {}) do
    if not columns[name] then
      return error_.new("backfill", ("table %s has no column \"%s\""):format(place.name, name),
        { hint = require("moonbird.util.nearest").hint(name, columns) })
    end
  end
end

--- The statement that reads a page: the key's columns, then those the transform is to see.
local function read_text(job, chunk)
  local key, def, place = job.place.key, job.def, job.place
  local list, seen = {}, {}
  for i, name in ipairs(key.columns) do
    list[i], seen[name] = key.quoted[i], true
  end
  for _, name in ipairs(def.columns) do
    if not seen[name] then
      list[#list + 1], seen[name] = sql.ident(name), true
    end
  end
  local order = key.list
  return ("select %s from only %s as %s where %s >= %s and %s <= %s and (%s\n) order by %s for no key update"):format(
    table.concat(list, ", "), chunk.relation, place.alias, key_of.row(key, place.alias), key_of.bound(key, "$1"),
    key_of.row(key, place.alias), key_of.bound(key, "$2"), def.where or "true", order)
end

-- Values as text ------------------------------------------------------------------------------------------

local function hex(bytes)
  return "\\x" .. bytes:gsub(".", function(c)
    return ("%02x"):format(c:byte())
  end)
end

--- A value as the text the server reads for a column; nil for NULL.
local function text_of(value, column)
  local kind = type(value)
  if value == json.null then
    return nil
  elseif kind == "string" then
    return column.kind == "bytea" and hex(value) or value
  elseif kind == "number" then
    return math.type(value) == "integer" and ("%d"):format(value) or ("%.17g"):format(value)
  elseif kind == "boolean" then
    return value and "t" or "f"
  elseif kind == "table" and column.kind == "json" then
    return json.encode(value)
  elseif kind == "table" and column.kind == "array" then
    return literal.array(value)
  end
  error(error_.new("script", ("column \"%s\" can't hold a %s"):format(column.name, kind)), 0)
end

local function quoted(text)
  if not text then
    return "NULL"
  elseif text:find('[\\"]') then
    text = text:gsub('[\\"]', "\\%0")
  end
  return '"' .. text .. '"'
end

-- The transform -------------------------------------------------------------------------------------------

---@class moonbird.backfill.written
---@field count integer rows to write
---@field keys string[][] texts by key column, as array elements
---@field values table<string, table<integer, string>> column -> row -> array element
---@field order string[] columns in the order they came

--- Checks a row that the transform returned and takes its values. Runs in the sandbox: nothing here may be
--- trusted to have no metamethods.
local function take(job, written, row)
  if type(row) ~= "table" then
    error(error_.new("script", ("the transform must return a table or nil, not a %s"):format(type(row))), 0)
  end
  for name, value in next, row do
    local list = written.values[name]
    local column = job.columns[name]
    if not list then
      if not column then
        error(error_.new("script", ("the transform returned \"%s\", which is no column of %s"):format(tostring(name),
          job.place.name), { hint = type(name) == "string" and require("moonbird.util.nearest").hint(name, job.columns)
          or nil }), 0)
      elseif column.generated then
        error(error_.new("script", ("column \"%s\" is generated and can't be written"):format(name)), 0)
      end
      list = {}
      written.values[name] = list
      written.order[#written.order + 1] = name
    end
    list[written.count + 1] = quoted(text_of(value, column))
  end
end

--- Runs the transform over a page's rows.
---@return moonbird.backfill.written|nil
---@return moonbird.error? err names the row's key
local function transform(job, result, handle)
  local key, fn = job.place.key, job.def.transform
  local written = { count = 0, keys = {}, values = {}, order = {} }
  for i = 1, #key.columns do
    written.keys[i] = {}
  end
  local texts -- of the key of the row being worked on
  local function each()
    for i = 1, result:count() do
      local row = result:row(i)
      texts = {}
      for k, name in ipairs(key.columns) do
        texts[k] = text_of(row[name], job.columns[name] or { kind = "plain", name = name })
      end
      local new = fn(row, handle)
      if new ~= nil then
        take(job, written, new)
        if next(new) ~= nil then
          written.count = written.count + 1
          for k, text in ipairs(texts) do
            written.keys[k][written.count] = quoted(text)
          end
        end
      end
    end
  end
  local limits = job.run.config.limits or {}
  local ok, err = sandbox.run { fn = each, name = job.step.migration.file, instructions = limits.instructions,
    memory = limits.memory }
  if ok then
    return written
  end
  if texts and err.code ~= "interrupted" and err.code ~= "timeout" and err.code ~= "connection_lost" then
    local named = {}
    for k, name in ipairs(key.columns) do
      named[k] = name .. " = " .. texts[k]
    end
    err.message = ("the row with %s: %s"):format(table.concat(named, ", "), err.message)
  end
  return nil, err
end

-- Writing back --------------------------------------------------------------------------------------------

local function write_text(job, chunk, written, partial)
  local key, place = job.place.key, job.place
  local args, names, sets, joins = {}, {}, {}, {}
  local function add(type_, name)
    args[#args + 1] = ("$%d::%s[]"):format(#args + 3, type_) -- $1 and $2 are the page's bounds
    names[#names + 1] = name
  end
  for i, column in ipairs(key.quoted) do
    add("text", "k" .. i)
    joins[i] = ("%s.%s = moonbird_new.k%d::%s"):format(place.alias, column, i, key.types[i])
  end
  for i, name in ipairs(written.order) do
    local column = job.columns[name]
    add("text", "v" .. i)
    local value = ("moonbird_new.v%d::%s"):format(i, column.type)
    if partial[name] then -- some rows are to keep theirs
      add("bool", "h" .. i)
      value = ("case when moonbird_new.h%d then %s else %s.%s end"):format(i, value, place.alias, column.quoted)
    end
    sets[i] = ("%s = %s"):format(column.quoted, value)
  end
  -- The bounds are said once more, so that whatever the planner joins with is the page and not the table.
  return ("update only %s as %s set %s from unnest(%s) as moonbird_new(%s) where %s and %s >= %s and %s <= %s"):format(
    chunk.relation, place.alias, table.concat(sets, ", "), table.concat(args, ", "), table.concat(names, ", "),
    table.concat(joins, " and "), key_of.row(key, place.alias), key_of.bound(key, "$1"),
    key_of.row(key, place.alias), key_of.bound(key, "$2"))
end

local function array(list)
  return "{" .. table.concat(list, ",") .. "}"
end

local function write_item(job, chunk, page, written)
  local partial = {}
  local n = written.count
  for _, name in ipairs(written.order) do
    local list = written.values[name]
    for i = 1, n do
      if not list[i] then
        partial[name] = true
        break
      end
    end
  end
  table.sort(written.order) -- one text for all batches that set the same columns
  local item = { write_text(job, chunk, written, partial), page.first, page.last }
  for _, list in ipairs(written.keys) do
    item[#item + 1] = array(list)
  end
  for _, name in ipairs(written.order) do
    local list = written.values[name]
    if partial[name] then
      local has = {}
      for i = 1, n do
        has[i] = list[i] and "t" or "f"
        list[i] = list[i] or "NULL"
      end
      item[#item + 1], item[#item + 2] = array(list), array(has)
    else
      item[#item + 1] = array(list)
    end
  end
  return item
end

--- Works on a page in the transaction that is open.
---@param job moonbird.backfill.job
---@param session moonbird.session
---@param chunk moonbird.backfill.chunk
---@param page { seen: integer, first: string, last: string }
---@param handle fun(job: table, session: table): table makes `db`
---@return { changed: integer, skipped: integer, bytes: integer }|nil
---@return moonbird.error? err
function M.run(job, session, chunk, page, handle)
  local result, err = session:query(read_text(job, chunk), { page.first, page.last })
  if not result then
    return nil, err
  end
  failpoint("backfill.read")
  local count, bytes = result:count(), result:memory()
  if count == 0 then
    return { changed = 0, skipped = 0, bytes = bytes }
  end
  local written
  written, err = transform(job, result, handle(job, session))
  result:close()
  if not written then
    return nil, err
  end
  session:settle()
  local changed = 0
  if written.count > 0 then
    if session:state() ~= "in_txn" then
      return nil, session.doomed or error_.new("transaction", "the transform left its transaction in a failed state",
        { hint = "an error was caught with pcall outside db:atomic; wrap the statement in db:atomic" })
    end
    failpoint("backfill.transformed")
    local item = write_item(job, chunk, page, written)
    result, err = session:query(item[1], table.move(item, 2, #item, 1, {}))
    if not result then
      return nil, err
    end
    changed = result:affected()
  end
  -- Text, Lua's strings and the arrays: the page is in memory about three times.
  return { changed = changed, skipped = count - written.count, bytes = bytes * 3 }
end

return M
