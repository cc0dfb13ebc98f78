--- The units of a step that has no transaction of its own: pieces that happen whole or not at all.
--
-- "atomic": one implicit or explicit transaction; its progress row commits with it.
-- "alone":  a statement that can't run in a transaction; an intent row before, a probe after a death.
-- "session": SET and its like, done in every run and never journaled: later statements stand on them.
-- "opaque": two-phase commit by hand, which nothing can make atomic with a journal row.
--
-- A transaction:false block is sent whole, as dbmate does, which makes it one implicit transaction; a
-- COMMIT of its own ends a unit there, with the progress row put in just before it. It is split into
-- single statements only when one of them can't run in a transaction: such a block can never have
-- worked elsewhere.
local error_ = require "moonbird.core.error"
local hash = require "moonbird.core.sys".sha256

local M = {}

---@class moonbird.unit
---@field kind "atomic"|"alone"|"session"|"opaque"
---@field statements table[]
---@field managed boolean the block asked for a transaction (mixed files): BEGIN and COMMIT are ours
---@field sha string of its text

local function make(kind, text, statements, managed)
  local parts = {}
  for i, st in ipairs(statements) do
    parts[i] = text:sub(st.first, st.data_last or st.last)
  end
  return { kind = kind, statements = statements, managed = managed or false,
    sha = hash(table.concat(parts, ";\n")) }
end

-- First words of statements that only change the session.
local SESSION = { SET = true, RESET = true, DISCARD = true, PREPARE = true, DEALLOCATE = true, LISTEN = true,
  UNLISTEN = true, LOAD = true }

--- Whether a statement only changes the session.
---@param st table
---@return boolean
function M.is_session(st)
  return st.class ~= "control" and SESSION[st.tag:match("^%a*")] or false
end

local TWO_PHASE = { prepare = true, commit_prepared = true, rollback_prepared = true }

--- Why a statement may not stand in a step without a transaction: the journal is written by the same
--- session, in the same transactions, and must not become somebody else's.
---@param text string
---@param st table
---@return moonbird.error|nil
function M.refusal(text, st)
  local upper = st.tag == "SET" and text:sub(st.first, st.last):upper() or ""
  if upper:find("^SET%s+ROLE%f[%W]") or upper:find("^SET%s+SESSION%s+ROLE%f[%W]")
    or upper:find("^SET%s+SESSION%s+AUTHORIZATION%f[%W]") then
    return error_.new("migration_file", "the role can't be changed for a session without a transaction",
      { line = st.line, column = st.column,
        hint = "write SET LOCAL ROLE between BEGIN and COMMIT, or connect as that role" })
  end
end

local function split_block(units, text, block)
  local alone, control, opaque
  for _, st in ipairs(block.statements) do
    local refused = M.refusal(text, st)
    if refused then
      return refused
    end
    alone = alone or (st.class == "alone" and st)
    control = control or (st.class == "control" and st)
    opaque = opaque or (st.control and TWO_PHASE[st.control])
  end
  if alone and control then
    return error_.new("migration_file", ("%s and %s can't stand in one block"):format(alone.tag, control.tag),
      { line = alone.line, column = alone.column,
        hint = "split the migration: what needs a transaction goes into one of its own" })
  end
  if opaque then
    units[#units + 1] = make("opaque", text, block.statements)
  elseif alone then
    for _, st in ipairs(block.statements) do
      local kind = M.is_session(st) and "session" or st.class == "alone" and "alone" or "atomic"
      units[#units + 1] = make(kind, text, { st })
    end
  else
    local group = {}
    for _, st in ipairs(block.statements) do
      if control and #group == 0 and M.is_session(st) then
        units[#units + 1] = make("session", text, { st })
      else
        group[#group + 1] = st
      end
      if st.control == "commit" then
        units[#units + 1] = make("atomic", text, group)
        group = {}
      end
    end
    if #group > 0 then
      units[#units + 1] = make("atomic", text, group)
    end
  end
end

--- The units of a SQL body.
---@param body table { text, blocks }
---@return moonbird.unit[]|nil
---@return moonbird.error? err
function M.of(body)
  local units = {}
  for _, block in ipairs(body.blocks) do
    if block.transaction then
      units[#units + 1] = make("atomic", body.text, block.statements, true)
    else
      local err = split_block(units, body.text, block)
      if err then
        return nil, err
      end
    end
  end
  return units
end

--- Whether a body without a transaction happens whole or not at all: of one that failed nothing is left.
---@param body table of any step
---@return boolean
function M.whole(body)
  local units = body.blocks and M.of(body) or {}
  return #units == 1 and units[1].kind ~= "opaque"
end

--- The text of an atomic unit as one simple query, with `record` (SQL) put in before its last COMMIT or
--- at its end; and where each statement stands in it.
---@param text string the whole file
---@param unit moonbird.unit
---@param prefix string statements to send before
---@param record string
---@return string query
---@return table[] places { at = character position of the statement, st = statement }
function M.query_text(text, unit, prefix, record)
  local parts, places = { prefix }, {}
  local at = utf8.len(prefix) + 1
  local function add(piece)
    parts[#parts + 1] = piece
    at = at + (utf8.len(piece) or #piece)
  end
  for i, st in ipairs(unit.statements) do
    if i == #unit.statements and st.control == "commit" then
      add(record .. ";\n")
      record = nil
    end
    places[#places + 1] = { at = at, st = st }
    add(text:sub(st.first, st.last))
    add(";\n")
  end
  if record then
    add(record .. ";\n")
  end
  return table.concat(parts), places
end

return M
