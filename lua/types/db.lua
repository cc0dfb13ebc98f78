---@meta moonbird.db

-- What a migration's up and down, and a script of `moonbird run`, are handed as their first argument.
-- docs/reference/db.md explains it with examples. Every call that fails raises a moonbird.error.

--- The database. Read-only; call its methods with a colon.
---@class moonbird.db
---@field null lightuserdata SQL NULL, for places where nil would leave a hole (rows of copy_in, arrays, JSON)
---@field json moonbird.db.json JSON to and from Lua values
---@field version integer the server's version: 150018 is 15.18
---@field target moonbird.db.target what this run works on
local db = {}

--- A value that can be bound to a parameter ($1, $2, ...). Strings go as text, so the parameter's type
--- decides how they are read; nil and db.null are NULL.
---@alias moonbird.db.value string|number|boolean|lightuserdata|nil

--- A row: values by column name. Integers, booleans and floats (real, double precision) are Lua's own,
--- bytea is a byte string, NULL is nil (the key is absent), everything else is the server's exact text.
---@alias moonbird.db.row table<string, string|number|boolean>

--- Runs SQL. Without parameters the text may hold several statements; with parameters exactly one.
---@param sql string
---@param ... moonbird.db.value
---@return integer affected rows that the (last) statement changed or returned; 0 when it has no count
function db:exec(sql, ...) end

--- Runs one statement and returns all its rows.
---@param sql string
---@param ... moonbird.db.value
---@return moonbird.db.row[] rows empty when the statement returns none
function db:query(sql, ...) end

--- Runs one statement that returns at most one row. More than one is an error.
---@param sql string
---@param ... moonbird.db.value
---@return moonbird.db.row|nil row nil when there is none
function db:one(sql, ...) end

--- Runs one statement and returns the first column of its first row.
---@param sql string
---@param ... moonbird.db.value
---@return string|number|boolean|nil value nil for NULL and for no row
function db:value(sql, ...) end

--- Streams the rows of one query (SELECT, VALUES, TABLE, WITH). Memory stays bounded whatever the size;
--- other statements may run inside the loop. An error of rows that were read ahead is raised when they are asked for.
---@param sql string
---@param ... moonbird.db.value
---@return fun(): moonbird.db.row|nil iterator for `for row in db:rows(...) do`
---@return { close: fun() } cursor for a loop that is left early: closes it before the transaction ends
function db:rows(sql, ...) end

--- Streams data into `COPY ... FROM stdin`. Text goes as it is (COPY's own format); a table is one row, a
--- list of values in the order of the columns (`n` tells its length when it holds nils). Rows are written in COPY's
--- plain text format, and refused when the statement asks for another (csv, binary, delimiter, null, ...). The source
--- can't use db. In a migration without a transaction call it inside db:atomic.
---@param sql string
---@param source string|table[]|fun(): string|table|nil all the data; a list of rows; or an iterator of pieces
---@return integer rows that were copied
function db:copy_in(sql, source) end

--- Streams the data of `COPY ... TO stdout` in chunks of whole rows. Any other statement ends it: asking for more
--- is then an error.
---@param sql string
---@return fun(): string|nil iterator for `for chunk in db:copy_out(...) do`
function db:copy_out(sql) end

--- Runs `fn` in a savepoint: when it raises, what it did is undone and the error goes on; caught with
--- pcall around atomic, the migration lives on. In a migration without a transaction, and outside any
--- in a script, it is a transaction of its own.
---@generic T
---@param fn fun(): T?
---@return T? ... what fn returned
function db:atomic(fn) end

--- Quotes names where they need it: db:ident("public", "My Table") is public."My Table".
---@param ... string
---@return string
function db:ident(...) end

--- Writes a value as an SQL literal. Parameters are better; this is for places that take none (DDL). Negative integers
--- stand in parentheses, floats are written as float8.
---@param value moonbird.db.value
---@return string
function db:literal(value) end

--- Writes a list as an array for a parameter: db:array{1, 2} is {1,2}. Tables inside are dimensions; tables
--- with names raise.
---@param values table `n` tells its length when it holds nils
---@return string
function db:array(values) end

--- Writes a byte string for a bytea parameter, as hex. What db:query returns of a bytea column can go back
--- this way; a plain string would be read as text.
---@param bytes string
---@return string
function db:bytea(bytes) end

--- Reads an array that the server returned; raises for other text. Elements stay text, NULL becomes db.null.
---@param text string
---@return table
function db:decode_array(text) end

--- Writes a line to the log (stderr), formatted with string.format when there are arguments.
---@param message string
---@param ... any
function db:log(message, ...) end

--- As log, as a notice.
---@param message string
---@param ... any
function db:notice(message, ...) end

--- What this run works on.
---@class moonbird.db.target
---@field name string "global"
---@field schema string|nil the target's schema; nil for "global"
---@field vars table<string, any> settings of the target; empty for "global"

--- JSON. Columns of type json and jsonb are text until they are decoded.
---@class moonbird.db.json
---@field null lightuserdata JSON's null, the same as db.null
local json = {}

--- Writes a value as JSON, object keys sorted. Raises for what JSON can't hold: functions, inf and nan, strings that
--- are not UTF-8 or have a NUL byte, tables with both items and keys or with nil among the items.
---@param value any
---@param pretty? boolean over several lines
---@return string
function json.encode(value, pretty) end

--- Reads JSON; raises when it is not valid, or has a string with a NUL character. Integers of up to 64 bits are
--- exact; larger ones and numbers with more than 17 digits become floats, which have no more.
---@param text string
---@return any
function json.decode(text) end

--- Marks a table as an array, which matters when it is empty ([] instead of {}).
---@generic T: table
---@param list T
---@return T
function json.array(list) end
