--- Statements that stand outside a transaction: can they be run again?
local names = require "moonbird.policy.facts.names"
local sql = require "moonbird.core.sql"
local text_util = require "moonbird.util.text"
local words = require "moonbird.policy.words"

local M = {}

-- Which statements have a transaction -------------------------------------------------------------------------

--- Whether a statement stands in a block with a transaction: a .sql file may have blocks of both kinds.
local function block_finder(ctx)
  local migration = ctx.migration
  if migration.kind ~= "sql" then
    return function()
      return migration.transaction ~= false
    end
  end
  local parsed = sql.dbmate(migration.text)
  local blocks = {}
  for _, section in ipairs(parsed and parsed.sections or {}) do
    blocks[#blocks + 1] = section[ctx.direction or "up"]
  end
  return function(st)
    local found = true
    for _, block in ipairs(blocks) do
      if st.line and block.line <= st.line then
        found = block.transaction
      end
    end
    return found
  end
end

-- What can be run again -----------------------------------------------------------------------------------------

-- What gives the same when it is done twice, or is looked after by moonbird's own probes.
local AGAIN = { set = true, reset = true, show = true, comment = true, grant = true, revoke = true, analyze = true,
  vacuum = true, cluster = true, reindex = true, refresh = true, lock = true, notify = true, explain = true,
  select = true, delete = true, merge = true, truncate = true, transaction = true, security_label = true,
  -- what they do can't be seen
  ["do"] = true, call = true, other = true }

-- Subcommands of ALTER TABLE that say what shall be, not what shall change.
local STATES = {}
for kind in ([[set_default drop_default set_not_null drop_not_null alter_type validate_constraint set_tablespace
  set_logged set_unlogged set_storage set_options replica_identity enable_trigger disable_trigger enable_rls
  disable_rls force_rls set_statistics owner cluster_on set_access_method set_generated other]]):gmatch("%S+") do
  STATES[kind] = true
end

-- Kinds whose interrupted CREATE or DROP moonbird finds out about itself, when they stand alone.
local PROBED = { index = true, database = true, tablespace = true, subscription = true }

-- Kinds whose names belong to a table; those that have OR REPLACE; those that have neither that nor IF NOT EXISTS.
local OWNED = { trigger = true, policy = true, rule = true }
local REPLACED = { ["function"] = true, procedure = true, view = true, trigger = true, rule = true }
local DROPPED_FIRST = { type = true, enum = true, domain = true, policy = true, role = true, cast = true }

-- Without schemas: whether one is written or not, the same thing is meant.
local function key_of(kind, name, relation)
  return table.concat({ names.family(kind or "?"), relation and relation.name or "", name or "" }, "\0")
end

--- Things that earlier statements took away if they were there; what is made after them can be made again.
local function note_cleared(cleared, st)
  if st.verb == "drop" and st.if_exists then
    cleared[key_of(st.kind, st.name, OWNED[st.kind] and st.relation or nil)] = true
  elseif st.verb == "truncate" and st.relation then
    cleared[key_of("rows", st.relation.name)] = true
  end
end

local function action_problem(st, action, cleared)
  local kind = action.kind
  if STATES[kind] or action.if_exists or action.if_not_exists then
    if kind == "drop_constraint" and st.relation then
      cleared[key_of("constraint", action.name, st.relation)] = true
    end
    return nil
  elseif kind == "add_column" then
    return "ADD COLUMN without IF NOT EXISTS"
  elseif kind == "drop_column" then
    return "DROP COLUMN without IF EXISTS"
  elseif kind == "drop_constraint" then
    return "DROP CONSTRAINT without IF EXISTS"
  elseif kind == "add_constraint" then
    local name = action.constraint and action.constraint.name
    if action.inline or (name and st.relation and cleared[key_of("constraint", name, st.relation)]) then
      return nil
    end
    return "ADD CONSTRAINT, which has no IF NOT EXISTS"
  elseif kind == "detach_partition" and action.concurrently then
    return nil
  elseif kind == "add_value" then
    return "ADD VALUE without IF NOT EXISTS"
  end
  return (kind or "it"):upper():gsub("_", " ")
end

-- Operators whose result is another one each time they are put on it.
local GROWS = { ["+"] = true, ["-"] = true, ["*"] = true, ["/"] = true, ["||"] = true, ["%"] = true }

local function mentions(node, column)
  if type(node) ~= "table" then
    return false
  elseif node.ColumnRef and select(2, names.qualified(node.ColumnRef.fields)) == column then
    return true
  end
  for _, item in pairs(node) do
    if mentions(item, column) then
      return true
    end
  end
  return false
end

local function grows(node, column)
  if type(node) ~= "table" then
    return false
  end
  local expr = node.A_Expr
  if expr and expr.kind == "AEXPR_OP" and GROWS[select(2, names.qualified(expr.name)) or ""]
    and mentions(expr, column) then
    return true
  end
  for _, item in pairs(node) do
    if grows(item, column) then
      return true
    end
  end
  return false
end

local problem = {}

function problem.update(st)
  local node = st.tree and st.tree.UpdateStmt
  for _, item in ipairs(node and node.targetList or {}) do
    local target = item.ResTarget
    if target and target.name and grows(target.val, target.name) and not mentions(node.whereClause, target.name) then
      return ("UPDATE that counts on what %q was before"):format(target.name)
    end
  end
end

function problem.insert(st, cleared)
  local node = st.tree and st.tree.InsertStmt
  if not node or node.onConflictClause or (st.relation
    and cleared[key_of("rows", st.relation.name)]) then
    return nil
  end
  local select = node.selectStmt and node.selectStmt.SelectStmt
  if select and select.whereClause then
    return nil -- "where not exists", or rows that are moved on
  end
  return "INSERT without ON CONFLICT"
end

function problem.copy(st, cleared)
  if st.writes_data and not (st.relation and cleared[key_of("rows", st.relation.name)]) then
    return "COPY into a table"
  end
end

function problem.create(st, cleared)
  if st.kind == "index" and st.concurrently and not st.name then
    return "CREATE INDEX CONCURRENTLY without a name, which can't be found again after a crash"
  elseif st.if_not_exists or st.replace or (st.class == "alone" and PROBED[st.kind]) then
    return nil
  end
  if cleared[key_of(st.kind, st.name, OWNED[st.kind] and st.relation or nil)] then
    return nil
  end
  return ("%s without %s"):format(words.tag(st), REPLACED[st.kind] and "OR REPLACE"
    or DROPPED_FIRST[st.kind] and "a DROP … IF EXISTS before it" or "IF NOT EXISTS")
end

function problem.drop(st)
  if st.if_exists or (st.class == "alone" and PROBED[st.kind]) then
    return nil
  end
  return words.tag(st) .. " without IF EXISTS"
end

function problem.rename(st)
  return not st.if_exists and words.tag(st) .. " … RENAME" or nil
end

function problem.alter(st, cleared)
  for _, action in ipairs(st.actions or {}) do
    local why = action_problem(st, action, cleared)
    if why then
      return why
    end
  end
  local text = st.kind == "subscription" and (st.text or ""):lower() or ""
  if text:find("%f[%a]add%s+publication") or text:find("%f[%a]drop%s+publication") then
    return "ALTER SUBSCRIPTION … ADD or DROP PUBLICATION"
  end
end

M[#M + 1] = {
  id = "repeatable", group = "shape", severity = "warning",
  title = "without a transaction, each statement can be run again",
  explain = text_util.trim [[
A migration without a transaction can stop in the middle: half of it is there. moonbird notes each statement that
is done and goes on behind it. Somebody who mends it by hand, runs the file with another tool, or marks it as not
applied (`moonbird repair`) runs the first half once more, and is stopped by "already exists".

Write IF [NOT] EXISTS, OR REPLACE, ON CONFLICT, or a DROP … IF EXISTS before it. Not needed for what moonbird looks
after itself: CREATE, DROP INDEX and REINDEX CONCURRENTLY, DETACH PARTITION CONCURRENTLY, CREATE and DROP DATABASE,
TABLESPACE and SUBSCRIPTION, VALIDATE CONSTRAINT, VACUUM, SET. Better still: what can have a transaction goes into a
migration that has one.]],
  fix = "make it repeatable, or move it to a migration with a transaction",
  seeds = {
    "ADR 0007: Make migrations idempotent (safe to run multiple times)",
    "Migration Playbook: Index ops: isolate; use non-transaction mode when Postgres requires it.",
  },
  examples = {
    bad = [[
-- description: Let orders carry the state that the warehouse reports
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up transaction:false
create table warehouse_states (code text primary key);

-- migrate:down transaction:false
drop table warehouse_states;
]],
    good = [[
-- description: Let orders carry the state that the warehouse reports
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up transaction:false
create table if not exists warehouse_states (code text primary key);

-- migrate:down transaction:false
drop table if exists warehouse_states;
]],
  },
  applies = function(ctx)
    local migration = ctx.migration
    if migration.kind == "sql" then
      return migration.text:find("transaction:false", 1, true) ~= nil
    end
    return migration.transaction == false
  end,
  check = function(ctx)
    local in_transaction, cleared = block_finder(ctx), {}
    for _, st in ipairs(ctx.statements) do
      local judge = not AGAIN[st.verb] and st.parsed ~= false and problem[st.verb]
      local why = judge and judge(st, cleared)
      if why and not in_transaction(st) then
        ctx:report(("%s: it can't be run a second time, and nothing takes it back when a later statement fails")
          :format(why), { at = st })
      end
      note_cleared(cleared, st)
    end
  end,
}

return M
