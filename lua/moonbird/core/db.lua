--- `db`: what a Lua migration, a script or a backfill talks to the database with.
--
-- Everything is a closure over the session, so that nothing below it can be reached from the sandbox.
-- Failures raise moonbird errors with a SQLSTATE; pcall catches them, inside `atomic` the transaction
-- lives on. See lua/types/db.lua for the annotations and docs/reference/db.md.
local json = require "moonbird.native.json"
local sql = require "moonbird.native.sql"
local cursor = require "moonbird.core.cursor"
local error_ = require "moonbird.core.error"
local literal = require "moonbird.core.literal"
local position = require "moonbird.core.position"
local statement = require "moonbird.core.statement"

local M = {}

local CHUNK = 64 * 1024
local MAX_PARAMS = 65535 -- of the protocol

--- Raises an error with the place in the script: it is known here, and no longer where it is caught.
local function raise(err, text, st)
  if not err.file then
    err.file, err.line = position.caller()
  end
  if text and st and err.position and not err.excerpt then
    local offset = sql.char_offset(text, st.first, err.position) or st.first
    err.excerpt = position.excerpt(text, offset)
  end
  error(err, 0)
end

--- Insists on a value's type, in words that name the function.
local function want(what, value, kind)
  if type(value) ~= kind then
    raise(error_.new("script", ("db:%s wants a %s, got %s"):format(what, kind, type(value))))
  end
  return value
end

--- Text of a name or a literal, which has no way to hold a zero byte.
local function want_text(what, value)
  if want(what, value, "string"):find("\0", 1, true) then
    raise(error_.new("script", ("db:%s can't hold a zero byte, nor can PostgreSQL's text"):format(what),
      { hint = "bytes are bytea: db:bytea(bytes)" }))
  end
  return value
end

--- What fn returns; what it raises as text becomes an error with its place.
local function convert(fn, ...)
  local result = table.pack(pcall(fn, ...))
  if not result[1] then
    raise(type(result[2]) == "string" and error_.new("script", result[2]) or result[2])
  end
  return table.unpack(result, 2, result.n)
end

local function literal_number(value)
  if math.type(value) == "integer" then
    -- In parentheses: a minus before it would make a comment of it. The least one would be a numeric without a cast.
    return value == math.mininteger and ("'%d'::int8"):format(value) or (value < 0 and "(%d)" or "%d"):format(value)
  elseif value ~= value or value == math.huge or value == -math.huge then
    return ("'%s'::float8"):format(value ~= value and "NaN" or value > 0 and "Infinity" or "-Infinity")
  end
  local text = ("%.15g"):format(value)
  return ("'%s'::float8"):format(tonumber(text) == value and text or ("%.17g"):format(value))
end

-- Options of COPY that leave the text format as literal.copy_row writes it.
local PLAIN = { freeze = true, on_error = true, log_verbosity = true, reject_limit = true, default = true }

--- The option of a COPY that makes its data another format than literal.copy_row writes; nil when there is none.
local function foreign_option(text)
  local tree = sql.tree(text) -- nil: the server will say what is wrong
  local copy = tree and tree.stmts[1].stmt.CopyStmt
  for _, option in ipairs(copy and copy.options or {}) do
    local name, arg = option.DefElem.defname, option.DefElem.arg
    local plain = PLAIN[name] or name == "format" and arg and arg.String and arg.String.sval == "text"
    if not plain then
      return name
    end
  end
end

local function check_sql(text, what)
  if type(text) ~= "string" then
    raise(error_.new("script", ("db:%s wants SQL as a string, got %s (call it with a colon: db:%s(...))")
      :format(what, type(text), what)))
  end
end

--- Splits, and insists on exactly one statement.
local function single(text, what)
  check_sql(text, what)
  local list, err = statement.split(text)
  if not list then
    raise(err)
  end
  if #list ~= 1 then
    raise(error_.new("script", ("db:%s takes exactly one statement, this text has %d%s"):format(what,
      #list, #list > 1 and "; parameters can be bound to one statement only" or "")))
  end
  return list[1]
end

--- How a script's statement is run: as it is, but what begins or ends a transaction is db:atomic's, which could not
--- keep its word otherwise.
local function send_of_script(session, text, st, params, count)
  if st.class == "control" then
    return nil, error_.new("transaction", ("%s is not allowed in a script"):format(st.tag),
      { hint = "use db:atomic(function() ... end), which is one transaction here" })
  end
  return statement.send(session, text, st, params, count)
end

---@class moonbird.db.options
---@field session moonbird.session
---@field target table { name, schema, vars }
---@field run? fun(text: string, st: table, params?: table, count?: integer): userdata|nil, moonbird.error?
---       how a statement is run (default: in the managed transaction)
---@field atomic? fun(fn: function): ... how atomic() runs (default: a savepoint)
---@field script? boolean no managed transaction around: statements commit on their own, atomic() is one
---@field log fun(level: string, message: string)
---@field observe? fun(text: string, st: table) told of each statement before it is sent
---@field record? moonbird.recorder told of each statement before it is sent, and of what scripts read

--- Makes the object. Its methods may be called with a colon.
---@param options moonbird.db.options
---@return table db read-only
function M.new(options)
  local session = options.session
  local run = options.run or function(text, st, params, count)
    return (options.script and send_of_script or statement.run)(session, text, st, params, count)
  end
  local observe = options.observe or function() end
  local record = options.record
  local depth = 0

  local function announce(text, st, params, count)
    observe(text, st)
    if record then
      record:statement(text, st, params, count)
    end
  end

  local function check_params(params, count)
    if (count or 0) > MAX_PARAMS then
      raise(error_.new("script", ("a statement takes at most %d parameters, not %d"):format(MAX_PARAMS, count)))
    end
    for i = 1, count or 0 do
      local kind = type(params[i])
      local bindable = kind == "string" or kind == "number" or kind == "boolean" or kind == "nil"
      if not bindable and params[i] ~= json.null then
        raise(error_.new("script", ("parameter $%d is a %s"):format(i, kind), {
          hint = "give a string, number, boolean, db.null, db:array{...} or db.json.encode(...)" }))
      end
    end
  end

  local function execute(text, st, params, count)
    check_params(params, count)
    announce(text, st, params, count)
    local result, err = run(text, st, params, count)
    if err then
      raise(err, text, st)
    end
    return result
  end

  local function one_result(what, text, ...)
    local st = single(text, what)
    local result = execute(text, st, { ... }, select("#", ...))
    if record and result then
      record:answered(result)
    end
    return result
  end

  local api = {}

  function api.exec(_, text, ...)
    check_sql(text, "exec")
    local count = select("#", ...)
    if count > 0 then
      local result = execute(text, single(text, "exec"), { ... }, count)
      return result and result:affected() or 0
    end
    local list, err = statement.split(text)
    if not list then
      raise(err)
    end
    local affected = 0
    for _, st in ipairs(list) do
      local result = execute(text, st)
      affected = result and result:affected() or 0
    end
    return affected
  end

  function api.query(_, text, ...)
    local result = one_result("query", text, ...)
    return result and result:rows() or {}
  end

  function api.one(_, text, ...)
    local result = one_result("one", text, ...)
    if result and result:count() > 1 then
      raise(error_.new("script", ("db:one got %d rows"):format(result:count()),
        { hint = "add a condition or a limit, or use db:query" }))
    end
    return result and result:row(1)
  end

  function api.value(_, text, ...)
    local result = one_result("value", text, ...)
    return result and result:value(1, 1)
  end

  function api.rows(_, text, ...)
    local st = single(text, "rows")
    local params, n = { ... }, select("#", ...)
    check_params(params, n)
    announce(text, st, params, n)
    local iterator, handle = cursor.open(session, text, st, params, n, record)
    if not iterator then
      raise(handle, text, st)
    end
    return iterator, handle
  end

  -- Only a COPY of that direction is sent: anything else would pass by the checks of statement.run.
  local function copy_statement(text, what, direction, example)
    local st = single(text, what)
    if st.copy ~= direction then
      raise(error_.new("script", ("db:%s wants a %s statement, got %s"):format(what, example, st.tag)))
    end
    return st
  end

  function api.copy_in(_, text, source)
    local st = copy_statement(text, "copy_in", "in", "COPY ... FROM stdin")
    if st.class == "copy" then
      raise(error_.new("script", "db:copy_in takes its data from its second argument, this text has some of its own",
        { hint = "leave it out, or run the text as it is with db:exec" }))
    elseif type(source) ~= "function" and type(source) ~= "table" then
      want("copy_in", source, "string")
    end
    local items = type(source) == "table" and convert(literal.length, source, "the list of rows")
    if session:state() == "idle" and not options.script then
      raise(error_.new("script", "db:copy_in needs a transaction here", { hint = "call it inside db:atomic" }))
    end
    announce(text, st)
    local _, err = session:query(text:sub(st.first, st.last))
    if err then
      raise(err, text, st)
    end
    local pending, size = {}, 0
    local function put(piece)
      pending[#pending + 1] = piece
      size = size + #piece
      if size >= CHUNK then
        local ok, put_err = session:copy_put(table.concat(pending))
        if not ok then
          raise(put_err)
        end
        pending, size = {}, 0
      end
    end
    local checked = false
    local function put_row(row)
      local foreign = not checked and foreign_option(text:sub(st.first, st.last))
      if foreign then
        local message = "rows as tables are written in COPY's plain text format, this one has the option "
        raise(error_.new("script", message .. foreign:upper(),
          { hint = "leave the option out, or give the data as strings in that format" }))
      end
      checked = true
      local ok, line = pcall(literal.copy_row, row)
      if not ok then
        raise(error_.new("script", line, { hint = "a row is a list of values in the order of the columns" }))
      end
      put(line)
    end
    local function put_any(piece)
      if type(piece) == "table" then
        put_row(piece)
      else
        put(want("copy_in", piece, "string"))
      end
    end
    local ok, failure = pcall(function()
      if type(source) == "function" then
        for piece in source do
          put_any(piece)
        end
      elseif type(source) == "table" then
        for i = 1, items do
          put_any(source[i])
        end
      else
        put_any(source)
      end
      if size > 0 then
        local sent, put_err = session:copy_put(table.concat(pending))
        if not sent then
          raise(put_err)
        end
      end
    end)
    if not ok then
      if session:state() == "copy_in" then
        session:copy_end("the source of the data failed")
      end
      error(failure, 0)
    end
    local result
    result, err = session:copy_end()
    if err then
      raise(err)
    end
    return result and result:affected() or 0
  end

  function api.copy_out(_, text)
    local st = copy_statement(text, "copy_out", "out", "COPY ... TO stdout")
    announce(text, st)
    local copy = {}
    local began, err = session:copy_out(text:sub(st.first, st.last), copy)
    if not began then
      raise(err, text, st)
    end
    local first = record
    return function()
      local chunk, get_err = session:copy_get(copy)
      if get_err then
        raise(get_err)
      end
      if first and chunk then
        first:copied(chunk)
        first = nil
      end
      return chunk
    end
  end

  -- COMMIT and RELEASE of a transaction that failed must not look like success.
  local function check_swallowed(result)
    session:settle()
    local unsaid = session.unsaid
    session.unsaid = nil -- what follows ends the failure
    if result[1] and session:state() ~= "in_txn" then
      return { false, session.doomed or unsaid
        or error_.new("transaction", "a statement failed inside db:atomic and its error was swallowed",
          { hint = "let the error through, or put the statement into a db:atomic of its own" }) }
    end
    return result
  end

  local function transaction(fn)
    local _, err = session:query("begin")
    if err then
      raise(err)
    end
    local result = check_swallowed(table.pack(pcall(fn)))
    if result[1] then
      _, err = session:query("commit")
      if not err then
        return table.unpack(result, 2, result.n)
      end
      result[2] = err
    end
    session:rollback()
    error(result[2], 0)
  end

  local function savepoint(fn)
    if options.script and session:state() == "idle" then
      return transaction(fn)
    end
    depth = depth + 1
    local name = "moonbird_" .. depth
    local function command(text)
      local _, err = session:query(text)
      if err then
        depth = depth - 1
        raise(err)
      end
    end
    command("savepoint " .. name)
    local result = check_swallowed(table.pack(pcall(fn)))
    if result[1] then
      command("release savepoint " .. name)
      depth = depth - 1
      return table.unpack(result, 2, result.n)
    end
    if not session.doomed then
      command("rollback to savepoint " .. name)
      command("release savepoint " .. name)
    end
    depth = depth - 1
    error(result[2], 0)
  end

  function api.atomic(_, fn)
    if type(fn) ~= "function" then
      raise(error_.new("script", "db:atomic wants a function"))
    end
    return (options.atomic or savepoint)(fn)
  end

  function api.ident(_, ...)
    local parts = { ... }
    for i = 1, math.max(1, select("#", ...)) do
      parts[i] = sql.ident(want_text("ident", parts[i]))
    end
    return table.concat(parts, ".")
  end

  function api.literal(_, value)
    if value == nil or value == json.null then
      return "NULL"
    elseif type(value) == "boolean" then
      return value and "true" or "false"
    elseif type(value) == "number" then
      return literal_number(value)
    end
    return sql.literal(want_text("literal", value))
  end

  function api.array(self, values)
    local list = want("array", values or self, "table")
    return (convert(literal.checked_array, list))
  end

  function api.bytea(_, bytes)
    return "\\x" .. want("bytea", bytes, "string"):gsub(".", function(c)
      return ("%02x"):format(c:byte())
    end)
  end

  function api.decode_array(_, text)
    local list, message = literal.decode_array(want("decode_array", text, "string"))
    if not list then
      raise(error_.new("script", message))
    end
    return list
  end

  local function text_of(what, message, ...)
    if select("#", ...) == 0 then
      return tostring(message)
    end
    local ok, text = pcall(string.format, want(what, message, "string"), ...)
    if not ok then
      raise(error_.new("script", ("db:%s: %s"):format(what, text)))
    end
    return text
  end

  function api.log(_, message, ...)
    options.log("info", text_of("log", message, ...))
  end

  function api.notice(_, message, ...)
    options.log("notice", text_of("notice", message, ...))
  end

  api.null = json.null
  api.json = {
    encode = function(...)
      return (convert(json.encode_exact, ...))
    end,
    decode = function(text)
      local value, message, offset = json.decode(want("json.decode", text, "string"))
      if value == nil then
        raise(error_.new("script", ("%s at byte %d"):format(message, offset)))
      end
      return value
    end,
    array = function(list)
      return json.array(want("json.array", list, "table"))
    end,
    null = json.null,
  }
  api.version = session:server_version()
  api.target = options.target

  return setmetatable({}, {
    __index = function(_, key)
      local value = api[key]
      if value == nil then
        raise(error_.new("script", ("db has no member %q"):format(tostring(key)),
          { hint = "see docs/reference/db.md for what it has" }))
      end
      return value
    end,
    __newindex = function()
      raise(error_.new("sandbox", "db is read-only"))
    end,
    __metatable = false,
    __name = "moonbird.db",
  })
end

return M
