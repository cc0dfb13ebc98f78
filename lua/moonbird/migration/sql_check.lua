--- Looks over SQL before anything is sent: what can be known to fail, or to break the promise that a step
--- and its journal row commit together, is found for every file at once.
local sql = require "moonbird.core.sql"

local M = {}

local control_hint = "remove it, or write `-- migrate:up transaction:false`"
local control_hint_lua = "remove it, or set `transaction = false`"

--- The name of a statement for a message: its tag with the word that makes it special.
local function shown(statement)
  local object = statement.object
  if object and object.concurrently and not statement.tag:find("CONCURRENTLY", 1, true) then
    return statement.tag .. " CONCURRENTLY"
  end
  return statement.tag
end

---@class moonbird.migration.source
---@field file string as shown
---@field text string what offsets refer to
---@field origin_line integer line of the text's first byte in the file
---@field directive? string "migrate:up" or "migrate:down" in a .sql file
---@field report fun(problem: table) called for each {file, line, column, message, hint}

--- Splits a block and checks its statements.
---@param source moonbird.migration.source
---@param block table with first, last, transaction; gets `statements`
---@return boolean good
function M.block(source, block)
  local function report(at, message, hint)
    source.report {
      file = source.file, line = at.line + source.origin_line - 1, column = at.column,
      message = message, hint = hint,
    }
  end
  local statements, wrong = sql.statements(source.text, block.first, block.last)
  if not statements then
    report(wrong, wrong.message, wrong.hint)
    return false
  end
  block.statements = statements
  local good = true
  for _, statement in ipairs(statements) do
    if statement.copy == "out" then
      report(statement, "COPY ... TO stdout has nowhere to go in a migration",
        "use db:copy_out in a Lua migration, or COPY ... TO a file of the server")
      good = false
    elseif statement.control and source.text:sub(statement.first, statement.last):upper():find("%f[%w]AND%s+CHAIN") then
      report(statement, ("%s AND CHAIN leaves a transaction open"):format(statement.tag), "write COMMIT; BEGIN;")
      good = false
    end
  end
  if not block.transaction then
    local alone, control
    for _, statement in ipairs(statements) do
      alone = alone or statement.class == "alone" and statement
      control = control or statement.class == "control" and statement
    end
    if alone and control then
      report(alone, ("%s and %s can't stand in one block"):format(shown(alone), control.tag),
        "split the migration: what needs a transaction goes into one of its own")
      good = false
    end
    return good
  end
  local directive = source.directive
  for _, statement in ipairs(statements) do
    if statement.class == "control" then
      local hint = directive and control_hint:gsub("migrate:up", directive) or control_hint_lua
      report(statement, ("%s inside a migration that moonbird runs in a transaction"):format(shown(statement)),
        hint)
      good = false
    elseif statement.class == "alone" then
      local hint = directive and ("write `-- %s transaction:false`"):format(directive)
        or "set `transaction = false`"
      report(statement, ("%s cannot run inside a transaction"):format(shown(statement)), hint)
      good = false
    end
  end
  return good
end

return M
