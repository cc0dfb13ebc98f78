--- Indexes of tables that people use, and of foreign keys.
local context = require "moonbird.policy.context"
local names = require "moonbird.policy.facts.names"
local text_util = require "moonbird.util.text"
local words = require "moonbird.policy.words"

local M = {}

-- index-concurrently ----------------------------------------------------------------------------------------

local function is_partitioned(ctx, relation)
  if not ctx.live or not relation or not relation.name then
    return false
  end
  local found = ctx.live:relation(relation.schema, relation.name)
  return found ~= nil and found.partitioned == true
end

local function is_gone(ctx, st)
  if not ctx.live or not st.if_exists or not st.name then
    return false
  end
  local found, err = ctx.live:relation(st.schema, st.name)
  return not found and not err
end

local function without_transaction(ctx)
  return ctx.migration.kind == "sql"
    and ("behind `-- migrate:%s transaction:false`"):format(ctx.direction or "up")
    or "in a migration with `transaction = false`"
end

local blocking = {}

function blocking.create(ctx, st)
  -- ON ONLY a partitioned table takes no time; it is how its index is made without a wait.
  if st.kind == "index" and not st.only and not words.is_empty(ctx, st.relation)
    and not is_partitioned(ctx, st.relation) then
    return ("CREATE INDEX on %s stops everybody who writes to it until the index is built"):format(
      words.name(st.relation)), ("CREATE INDEX CONCURRENTLY, %s"):format(without_transaction(ctx))
  end
end

function blocking.alter(ctx, st)
  for _, action in ipairs(st.actions or {}) do
    local made = action.kind == "add_constraint" and action.constraint
    local words_of = made and (made.kind == "unique" and "UNIQUE" or made.kind == "primary_key" and "PRIMARY KEY")
    -- a partitioned table takes no constraint from an index
    if words_of and not made.using_index and not words.is_empty(ctx, st.relation)
      and not is_partitioned(ctx, st.relation) then
      return ("%s on %s stops everybody who reads or writes it until its index is built"):format(words_of,
        words.name(st.relation)), ("CREATE UNIQUE INDEX CONCURRENTLY in a migration before this one, then ADD %s USING "
        .. "INDEX"):format(words_of)
    end
  end
end

function blocking.drop(ctx, st)
  if st.kind == "index" and not is_partitioned(ctx, st) and not is_gone(ctx, st) then
    return ("DROP INDEX of %s waits for every query on its table, and everybody waits behind it"):format(
      words.name(st)), ("DROP INDEX CONCURRENTLY, %s"):format(without_transaction(ctx))
  end
end

function blocking.reindex(ctx, st)
  if not (st.relation and words.is_empty(ctx, st.relation)) and st.kind ~= "system" then
    return "REINDEX stops everybody who writes to the table, and many who read, until it is done",
      ("REINDEX … CONCURRENTLY, %s"):format(without_transaction(ctx))
  end
end

M[#M + 1] = {
  id = "index-concurrently", group = "shape", severity = "error", uses = { "live" },
  title = "an index of an existing table is made, dropped and rebuilt CONCURRENTLY",
  explain = text_util.trim [[
CREATE INDEX locks the table against every INSERT, UPDATE and DELETE until it is built: minutes on a big table. DROP
INDEX and REINDEX lock out readers as well, and so do ADD UNIQUE and ADD PRIMARY KEY, which build one. CONCURRENTLY
takes longer and keeps nobody waiting.

It can't run in a transaction: put it alone behind `-- migrate:up transaction:false` (in Lua: `transaction = false`).
moonbird removes an INVALID index that a failed build leaves, so IF NOT EXISTS is not needed. Free are tables that
the migration itself creates, CREATE INDEX … ON ONLY a partitioned table, and, with a database at hand, empty ones.

For a constraint make the unique index so, and in the next migration ADD CONSTRAINT … UNIQUE USING INDEX: a moment.]],
  fix = "CREATE INDEX CONCURRENTLY behind `-- migrate:up transaction:false`",
  seeds = {
    "ADR 0007: Create indexes concurrently (PostgreSQL)",
    "Migration Playbook: Index ops: isolate; use non-transaction mode when Postgres requires it.",
  },
  examples = {
    bad = [[
-- description: Let orders be found by their customer
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up
create index orders_customer on orders (customer_id);

-- migrate:down
drop index orders_customer;
]],
    good = [[
-- description: Let orders be found by their customer
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up transaction:false
create index concurrently orders_customer on orders (customer_id);

-- migrate:down transaction:false
drop index concurrently if exists orders_customer;
]],
  },
  check = function(ctx)
    for _, st in ipairs(ctx.statements) do
      local judge = blocking[st.verb]
      if judge and not st.concurrently and not st.new and st.parsed ~= false then
        local message, fix = judge(ctx, st)
        if message then
          ctx:report(message, { at = st, fix = fix })
        end
      end
    end
  end,
}

-- foreign-key-index -------------------------------------------------------------------------------------------

--- Whether the first of an index's columns are the given ones, in any order.
local function begins_with(columns, wanted)
  local first = {}
  for i = 1, #wanted do
    first[columns[i] or false] = true
  end
  for _, column in ipairs(wanted) do
    if not first[column] then
      return false
    end
  end
  return true
end

--- The leading plain columns of a CREATE INDEX that a lookup by foreign key can use; none of a partial one.
local function usable_columns(st)
  if st.method and st.method ~= "btree" and st.method ~= "hash" then
    return {}
  elseif not st.partial and not st.has_expressions then
    return st.columns or {}
  end
  local node = st.tree and st.tree.IndexStmt
  if not node then
    return {}
  end
  local columns = {}
  for i, item in ipairs(node.indexParams or {}) do
    local element = item.IndexElem
    columns[i] = element and element.name or false
  end
  local where = node.whereClause
  local test = where and where.NullTest
  local not_null = test and test.nulltesttype == "IS_NOT_NULL" and test.arg and test.arg.ColumnRef
  if where and not not_null then
    return {}
  elseif not_null then
    local _, column = names.qualified(not_null.fields)
    return begins_with({ column }, { columns[1] }) and columns or {}
  end
  return columns
end

--- What statements index: by the name of the table, a list of { relation, columns }.
local function indexes_of(statements)
  local by_name = {}
  local function add(relation, columns)
    by_name[relation.name] = by_name[relation.name] or {}
    table.insert(by_name[relation.name], { relation = relation, columns = columns })
  end
  for _, st in ipairs(statements) do
    if st.relation and st.relation.name then
      if st.verb == "create" and st.kind == "index" then
        add(st.relation, usable_columns(st))
      end
      for _, action in ipairs(st.actions or {}) do
        local constraint = action.kind == "add_constraint" and action.constraint
        if constraint and (constraint.kind == "unique" or constraint.kind == "primary_key")
          and not constraint.using_index then
          add(st.relation, constraint.columns or {})
        end
      end
    end
  end
  return by_name
end

local function has_here(by_name, relation, columns)
  for _, item in ipairs(by_name[relation.name] or {}) do
    if names.same(item.relation, relation) and begins_with(item.columns, columns) then
      return true
    end
  end
  return false
end

-- registry -> name of a table -> what the migrations index of it. Only for `check`: in a run the statements of Lua
-- functions become known one by one.
local known = setmetatable({}, { __mode = "k" })

local MAKES_INDEX = { "index", "unique", "primary" }

--- What all migrations index of the tables of a name: a list of { version, relation, columns }. `unseen` holds the
--- versions of those that can't be looked into.
local function indexes_of_all(ctx, name)
  local by_name = known[ctx.registry] or {}
  if by_name[name] then
    return by_name[name]
  end
  local list = { unseen = {} }
  for _, item in ipairs(ctx.registry) do
    local statements = context.mentions(item, "up", name, MAKES_INDEX)
    if not statements then
      table.insert(list.unseen, item.version)
    end
    for _, index in ipairs(statements and indexes_of(statements)[name] or {}) do
      index.version = item.version
      list[#list + 1] = index
    end
  end
  if ctx.moment == "check" then
    by_name[name] = list
    known[ctx.registry] = by_name
  end
  return list
end

--- Whether another migration makes the index: an earlier one, or, for a column that is added here and so is empty, any.
--- nil when there are files that can't be looked into.
local function has_elsewhere(ctx, relation, columns, column_is_new)
  local function counts(version)
    return version < ctx.migration.version or column_is_new and version ~= ctx.migration.version
  end
  local all = indexes_of_all(ctx, relation.name)
  for _, index in ipairs(all) do
    if counts(index.version) and names.same(index.relation, relation) and begins_with(index.columns, columns) then
      return true
    end
  end
  for _, version in ipairs(all.unseen) do
    if counts(version) then
      return nil
    end
  end
  return false
end

--- Whether the migration adds one of the columns to the table.
local function adds_column(ctx, relation, columns)
  for _, st in ipairs(ctx.statements) do
    for _, action in ipairs(st.relation and names.same(st.relation, relation) and st.actions or {}) do
      if action.kind == "add_column" then
        for _, column in ipairs(columns) do
          if column == action.column then
            return true
          end
        end
      end
    end
  end
  return false
end

--- Whether the database has an index that begins with the columns: true, false, "partial" (only one that leaves
--- rows out), or nil when it can't be said.
local function has_live(ctx, relation, columns)
  local list = ctx.live and ctx.live:indexes(relation.schema, relation.name)
  local found = list and false
  for _, index in ipairs(list or {}) do
    local usable = index.valid ~= false and (not index.method or index.method == "btree" or index.method == "hash")
    if usable and begins_with(index.columns or {}, columns) then
      if not index.partial then
        return true
      end
      found = "partial"
    end
  end
  return found
end

--- Calls `tell` with each foreign key that a statement makes.
local function each_foreign_key(st, tell)
  for _, action in ipairs(st.actions or {}) do
    local constraint = action.kind == "add_constraint" and action.constraint
    if constraint and constraint.kind == "foreign_key" and constraint.columns and #constraint.columns > 0 then
      tell(constraint, action)
    end
  end
end

M[#M + 1] = {
  id = "foreign-key-index", group = "shape", severity = "error", uses = { "live" },
  title = "a foreign key has an index that begins with its columns",
  explain = text_util.trim [[
PostgreSQL makes no index for a foreign key. Without one, each DELETE or change of key in the referenced table reads
all of the referencing one, with a lock held, and joins along the key do so too. It shows only when there are many
rows.

For a new table write the CREATE INDEX beside it. For an existing one make the index first, CONCURRENTLY, in a
migration of its own. A PRIMARY KEY or UNIQUE that begins with the columns will do; a partial index will not, but
for `where column is not null`. A column that is added here can only have its index afterwards, CONCURRENTLY, in the
next migration: no row has a value yet.

For an existing table the statements of the other migrations are looked at too. What none of them shows is a warning,
until a database is at hand that says which indexes there are.]],
  fix = "create an index that begins with the columns of the foreign key",
  seeds = { "ADR 0007: Add indexes for foreign keys" },
  examples = {
    bad = [[
-- description: Comments that users write about orders
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up
create table comments (
  id bigint generated always as identity primary key,
  order_id bigint not null references orders,
  body text not null
);

-- migrate:down
drop table comments;
]],
    good = [[
-- description: Comments that users write about orders
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up
create table comments (
  id bigint generated always as identity primary key,
  order_id bigint not null references orders,
  body text not null
);
create index comments_order on comments (order_id);

-- migrate:down
drop table comments;
]],
  },
  applies = words.going_up,
  check = function(ctx)
    local here
    for _, st in ipairs(ctx.statements) do
      local relation = st.relation
      local temporary = relation and relation.schema == "pg_temp"
      each_foreign_key(st, function(constraint, action)
        here = here or indexes_of(ctx.statements)
        if not relation or temporary or has_here(here, relation, constraint.columns) then
          return
        end
        local live = not st.new and has_live(ctx, relation, constraint.columns)
        local added = not st.new and adds_column(ctx, relation, constraint.columns)
        local elsewhere = not st.new and live ~= true and (added or live == nil)
          and has_elsewhere(ctx, relation, constraint.columns, added)
        if live == true or elsewhere then
          return
        end
        local certain = st.new or added and elsewhere == false or not added and live == false
        local columns = "(" .. table.concat(constraint.columns, ", ") .. ")"
        local message = ("the foreign key %s of %s has no index"):format(columns, words.name(relation))
        local fix = ("create index on %s %s"):format(names.shown(relation), columns)
        if not st.new then
          message = message .. (live == "partial" and ": the one that the database has leaves rows out (it is partial)"
            or added and ", in this migration or another"
            or certain and ": the database has none that begins with its columns"
            or " in this migration or an earlier one; whether there is one, only a database can tell")
          fix = ("%s this migration, in one of its own: create index concurrently … on %s %s"):format(
            added and "after" or "before", names.shown(relation), columns)
        end
        -- the line of the constraint, where the statement stands in the file as it is
        local at = st.source ~= "function" and action.line and { file = st.file, line = action.line } or st
        ctx:report(message, { at = at, fix = fix, severity = not certain and "warning" or nil })
      end)
    end
  end,
}

return M
