--- SQL text taken apart: statements and their classes, the .sql migration format, parse trees, positions
-- and quoting. The native module itself, for the layers that may not require natives.
--
-- Offsets are 1-based bytes and ranges inclusive, as `string.sub` counts; columns count characters.

---@class moonbird.sql.object
---@field kind "index"|"table"|"partition"|"schema"|"database"|"tablespace"|"subscription"|"system"|"session"
---@field schema? string names are as the server reads them: folded or unquoted
---@field name? string
---@field relation_schema? string the table of an index, the parent of a partition
---@field relation? string
---@field partition_schema? string
---@field partition? string
---@field unique? boolean
---@field if_not_exists? boolean
---@field if_exists? boolean
---@field concurrently? boolean

---@class moonbird.sql.statement
---@field first integer slice without white space and comments around it, without the ";"
---@field last integer
---@field line integer of `first`
---@field column integer
---@field tag string the server's command tag as far as tokens tell: "CREATE INDEX"
---@field class "plain"|"alone"|"control"|"copy"|"session" how it may be sent
---@field control? "begin"|"commit"|"rollback"|"prepare"|"commit_prepared"|"rollback_prepared"
---@field copy? "in"|"out" COPY with the client, whoever has the data
---@field data_first? integer class "copy": the data lines, without the line "\."
---@field data_last? integer less than data_first when there is no data
---@field object? moonbird.sql.object class "alone": what it acts on

---@class moonbird.sql.problem
---@field message string
---@field hint? string
---@field offset integer
---@field line integer
---@field column integer

---@class moonbird.sql.block
---@field first integer the text behind the directive's line, up to the next directive
---@field last integer
---@field line integer of `first`
---@field transaction boolean
---@field options table<string, string> as written
---@field directive_first integer
---@field directive_last integer

---@class moonbird.sql.section
---@field up moonbird.sql.block
---@field down moonbird.sql.block

---@class moonbird.sql.file
---@field header_last integer end of the comments before the first directive
---@field sections moonbird.sql.section[]

---@alias moonbird.sql.found moonbird.sql.statement[]?
---@alias moonbird.sql.split fun(s: string, first?: integer, last?: integer): moonbird.sql.found, moonbird.sql.problem?
---@alias moonbird.sql.parse fun(text: string): string?, { message: string, offset: integer }?

-- lean: without the constants in the rows of VALUES
---@alias moonbird.sql.tree fun(text: string, lean?: boolean): table?, { message: string, offset: integer }?

---@class moonbird.sql
---@field statements moonbird.sql.split
---@field dbmate fun(text: string): moonbird.sql.file?, moonbird.sql.problem[]? the .sql migration format
---@field parse moonbird.sql.parse JSON of libpg_query's tree
---@field tree moonbird.sql.tree the same as tables
---@field fingerprint moonbird.sql.parse 16 hex digits
---@field locate fun(text: string, offset: integer): integer, integer line and column
---@field char_offset fun(text: string, first: integer, n: integer): integer byte of the n-th character from `first` on
---@field ident fun(name: string): string raises on a zero byte
---@field literal fun(text: string): string raises on a zero byte
local M = require "moonbird.native.sql"

return M
