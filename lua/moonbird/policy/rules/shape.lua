--- The shape of a migration: what stands alone, what is kept apart, how much it does, how long it took.
local duration = require "moonbird.util.duration"
local error_ = require "moonbird.core.error"
local names = require "moonbird.policy.facts.names"
local text_util = require "moonbird.util.text"
local words = require "moonbird.policy.words"

local M = {}

-- alone ---------------------------------------------------------------------------------------------------

--- Why a statement wants to stand alone; nil when it does not.
local function wants_to_be_alone(ctx, st)
  if words.is_light(st) then
    return nil
  elseif st.class == "alone" or st.transactional == false then
    return "it can't run in a transaction"
  elseif st.heavy and words.existing(st) and not words.is_empty(ctx, st.relation) then
    return st.heavy
  end
end

M[#M + 1] = {
  id = "alone", group = "shape", severity = "error", uses = { "live" },
  title = "a statement that is heavy or can't run in a transaction stands alone in its migration",
  explain = text_util.trim [[
A statement without a transaction can't be taken back together with the others: when the second of two fails, the
first has happened. A heavy one (a build, a scan, a rewrite of an existing table) takes minutes, and what stands
beside it waits for it with its own locks held, and with it everybody who uses those tables. Alone, it can be run
when there is time for it, tried again, and watched.

Give it a migration of its own; what comes before and after are migrations too. SET, COMMENT and ANALYZE may stand
beside it. A table made in the same migration is nobody's yet: its indexes are made without CONCURRENTLY, beside
it.]],
  fix = "move it to a migration of its own",
  seeds = {
    "Migration Playbook: Avoid mixing heavy/locking operations with other changes — split migrations.",
    "Migration Playbook: Index ops: isolate; use non-transaction mode when Postgres requires it.",
    "ADR 0007: Target < 30 seconds for production migrations",
  },
  examples = {
    bad = [[
-- description: Let orders be found by their customer and give them a note
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up transaction:false
alter table orders add column if not exists note text;
create index concurrently orders_customer on orders (customer_id);

-- migrate:down transaction:false
drop index concurrently if exists orders_customer;
alter table orders drop column if exists note;
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
  applies = words.going_up,
  check = function(ctx)
    local special, why, others = nil, nil, {}
    for _, st in ipairs(ctx.statements) do
      local reason = wants_to_be_alone(ctx, st)
      if reason and not special then
        special, why = st, reason
      elseif not words.is_light(st) then
        others[#others + 1] = st
      end
    end
    if not special or #others == 0 then
      return
    end
    local fix
    if special.verb == "create" and special.kind == "index" and special.new and special.concurrently then
      fix = "leave out CONCURRENTLY: the table is made here, nobody uses it yet"
    end
    ctx:report(("%s must stand alone in its migration (%s); here %s beside it: %s"):format(words.tag(special), why,
      #others == 1 and "1 statement stands" or #others .. " statements stand", words.place(others[1])),
      { at = special, fix = fix })
  end,
}

-- schema-data-apart -------------------------------------------------------------------------------------------

local SCHEMA_VERBS = { create = true, alter = true, drop = true, rename = true }

-- What belongs to a change of data: triggers off and on again, a sequence set behind the new rows.
local DATA_HELP = { enable_trigger = true, disable_trigger = true }

local function is_temporary(st)
  return st.temporary or st.schema == "pg_temp" or (st.relation ~= nil and st.relation.schema == "pg_temp")
end

--- Whether a statement changes the schema for good.
local function changes_shape(st)
  if not st.changes_schema or not SCHEMA_VERBS[st.verb] or is_temporary(st) or st.kind == "default_privileges" then
    return false
  elseif st.verb == "drop" and st.new then
    return false -- a helper that was made and goes again
  elseif st.verb == "alter" and st.kind == "sequence" then
    return false
  elseif st.verb == "alter" and st.actions and #st.actions > 0 then
    for _, action in ipairs(st.actions) do
      if not DATA_HELP[action.kind] then
        return true
      end
    end
    return false
  end
  return true
end

--- What a statement writes to a table that was there before.
local function writes_existing(st)
  for _, write in ipairs(SCHEMA_VERBS[st.verb] and {} or st.writes or {}) do
    if not write.new and write.schema ~= "pg_temp" then
      return write
    end
  end
end

M[#M + 1] = {
  id = "schema-data-apart", group = "shape", severity = "error",
  title = "schema changes and changes of existing data are in different migrations",
  explain = text_util.trim [[
ALTER TABLE takes the strongest lock, and a transaction keeps it until it ends. An UPDATE behind it in the same
migration runs for as long as the table is big, and all that time nobody can even read the table. And when the
data is not as expected, the change of the schema fails with it.

Take three migrations: one adds the column (a moment), one fills it (a backfill, in batches), one sets it NOT NULL
or drops what it replaces. Filling a table that the same migration creates is fine: nobody waits for it.]],
  fix = "move the change of data to a migration of its own, after this one",
  seeds = {
    "Migration Playbook: Keep migrations **small** and **single-purpose**.",
    "Migration Playbook: Avoid mixing heavy/locking operations with other changes — split migrations.",
    "ADR 0007: Add columns without defaults, then update",
    "ADR 0007: One logical change per migration",
  },
  examples = {
    bad = [[
-- description: Give every order a currency, which was euro until now
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up
alter table orders add column currency text;
update orders set currency = 'EUR' where currency is null;

-- migrate:down
alter table orders drop column currency;
]],
    good = [[
-- description: The currencies there are, with the two we start with
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up
create table currencies (code text primary key, name text not null);
insert into currencies (code, name) values ('EUR', 'Euro'), ('ISK', 'Icelandic króna');

-- migrate:down
drop table currencies;
]],
  },
  applies = words.going_up,
  check = function(ctx)
    local shape, data, write
    for _, st in ipairs(ctx.statements) do
      if not shape and changes_shape(st) then
        shape = st
      end
      local found = not data and writes_existing(st)
      if found then
        data, write = st, found
      end
    end
    if shape and data then
      ctx:report(("%s of %s changes data that was there before, beside a change of the schema (%s)"):format(
        write.verb:upper(), words.name(write), words.place(shape)), { at = data })
    end
  end,
}

-- one-change -----------------------------------------------------------------------------------------------

-- Words about objects, not changes of them.
local ASIDE = { grant = true, revoke = true, select = true, lock = true, ["do"] = true, call = true }

local function is_oldest(ctx)
  local first = ctx.registry and ctx.registry[1]
  return first ~= nil and first.version == ctx.migration.version
end

M[#M + 1] = {
  id = "one-change", group = "shape", severity = "warning",
  title = "a migration is small and has one purpose",
  explain = text_util.trim [[
A migration is reviewed, run, waited for and taken back as a whole. Each existing table that it changes stays
locked until the last statement is done: with one table users of that table wait, with five nearly everybody does,
and two migrations that lock in different orders deadlock. A big one that fails at its end has to do it all again.

Split it: one change, one migration. Options: max_tables, of existing tables (new ones are free), and
max_statements. The first migration of a project may be of any length: it is the schema as it was.]],
  fix = "split it into migrations of one change each",
  seeds = {
    "ADR 0007: One logical change per migration",
    "Migration Playbook: Keep migrations **small** and **single-purpose**.",
  },
  options = {
    max_tables = { default = 3, type = "integer", help = "existing tables that one migration may change" },
    max_statements = { default = 50, type = "integer", help = "statements that one migration may have" },
  },
  examples = {
    bad = [[
-- description: Add a note to everything that people look at
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up
alter table users add column note text;
alter table orders add column note text;
alter table invoices add column note text;
alter table products add column note text;

-- migrate:down
alter table users drop column note;
alter table orders drop column note;
alter table invoices drop column note;
alter table products drop column note;
]],
    good = [[
-- description: Add a note to orders, for what customers write to us
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up
alter table orders add column note text;

-- migrate:down
alter table orders drop column note;
]],
  },
  applies = words.going_up,
  check = function(ctx)
    local tables, seen, count = {}, {}, 0
    local fourth
    for _, st in ipairs(ctx.statements) do
      if not words.is_light(st) then
        count = count + 1
      end
      local changes = (st.changes_schema or st.writes_data) and not ASIDE[st.verb] and not words.is_light(st)
      if changes and not st.new and st.relation and st.relation.name then
        local known = false
        for _, other in ipairs(tables) do
          known = known or names.same(other, st.relation)
        end
        if not known then
          tables[#tables + 1] = st.relation
          seen[#seen + 1] = words.name(st.relation)
          fourth = fourth or (#tables > ctx.options.max_tables and st)
        end
      end
    end
    if fourth then
      ctx:report(("the migration changes %d existing tables (%s); %d are allowed"):format(#tables,
        table.concat(seen, ", "), ctx.options.max_tables), { at = fourth })
    end
    if count > ctx.options.max_statements and not is_oldest(ctx) then
      ctx:report(("the migration has %d statements; %d are allowed"):format(count, ctx.options.max_statements),
        { at = ctx.statements[1] })
    end
  end,
}

-- slow-step -----------------------------------------------------------------------------------------------------

M[#M + 1] = {
  id = "slow-step", group = "shape", severity = "warning", needs = { "step" }, moments = { "after" },
  title = "a step takes no longer than production can wait",
  explain = text_util.trim [[
The locks of a step are held until it ends, and a rollout waits for it. What took half a minute on this database
takes longer on a bigger or busier one.

Look which statement it was (`moonbird history --json`, the artifact of `deploy`). Rows belong into a backfill,
which commits in batches; an index into CREATE INDEX CONCURRENTLY; a constraint is added NOT VALID and validated in
the next migration. A step without a transaction holds no lock for all of its time, so there it is only told.]],
  fix = "split it, or do it in batches, before it reaches a bigger database",
  seeds = {
    "ADR 0007: **Performance**: Migrations should complete quickly (< 30s for production)",
    "ADR 0007: Target < 30 seconds for production migrations",
  },
  options = { max = { default = "30s", type = "string", help = "how long a step may take" } },
  examples = { run = true, bad = "applied 20250601120000_order_totals  2m 11s",
    good = "applied 20250601120000_order_total_column  14ms" },
  check = function(ctx)
    local most, wrong = duration.parse(ctx.options.max)
    if not most then
      error(error_.new("config", "\"policy.rules.slow-step.max\": " .. wrong), 0)
    end
    local took = ctx.step.duration_ms or 0
    if most > 0 and took > most then
      ctx:report(("the step took %.1fs; it should take no more than %s"):format(took / 1000, ctx.options.max),
        { at = ctx.statements[1], severity = ctx.step.transactional == false and "info" or nil })
    end
  end,
}

for _, rules in ipairs {
  require "moonbird.policy.rules.shape_dml",
  require "moonbird.policy.rules.shape_index",
  require "moonbird.policy.rules.shape_column",
  require "moonbird.policy.rules.shape_repeatable",
} do
  table.move(rules, 1, #rules, #M + 1, M)
end

return M
