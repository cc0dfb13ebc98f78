--- Changes of existing rows: with a condition, and in batches.
local dml = require "moonbird.policy.dml"
local text_util = require "moonbird.util.text"
local words = require "moonbird.policy.words"

local M = {}

M[#M + 1] = {
  id = "dml-where", group = "shape", severity = "error", uses = { "live" },
  title = "UPDATE and DELETE of an existing table say which rows",
  explain = text_util.trim [[
An UPDATE or DELETE whose WHERE was forgotten, or is always true, changes every row there is. It can't be told from
one that was meant so, neither by the reviewer nor by this rule.

Say which rows are meant. To set a column everywhere: `where column is distinct from 'value'` changes only rows
that are not right yet, and does nothing when it is run again. To empty a table on purpose, TRUNCATE says so.
Tables that the same migration creates are free.]],
  fix = "add a WHERE that says which rows are meant",
  seeds = {
    "ADR 0007: **Safety**: Minimize risk of data loss or corruption",
    "ADR 0007: Make migrations idempotent (safe to run multiple times)",
    "Database Migration Strategy: **No data loss migrations without backup** - Require explicit backup step in PR",
  },
  examples = {
    bad = [[
-- description: Put the orders without a status on hold
-- phase: expand
-- scope: global
-- compatibility: backward_compatible
-- data_preservation: orders had no status before, so nothing is overwritten

-- migrate:up
update orders set status = 'on hold';

-- migrate:down
update orders set status = null where status = 'on hold';
]],
    good = [[
-- description: Put the orders without a status on hold
-- phase: expand
-- scope: global
-- compatibility: backward_compatible
-- data_preservation: orders had no status before, so nothing is overwritten

-- migrate:up
update orders set status = 'on hold' where status is null;

-- migrate:down
update orders set status = null where status = 'on hold';
]],
  },
  check = function(ctx)
    for _, st in ipairs(ctx.statements) do
      for _, write in ipairs(dml.writes(st)) do
        local verb, where = write.verb, write.where
        if (verb == "update" or verb == "delete") and (where == "none" or where == "always")
          and not words.is_empty(ctx, write) then
          ctx:report(where == "none"
            and ("%s of %s has no WHERE: it changes every row"):format(verb:upper(), words.name(write))
            or ("the WHERE of this %s of %s is always true: it changes every row"):format(verb:upper(),
              words.name(write)),
            { at = st, fix = verb == "delete" and "add a WHERE; to empty the table on purpose: TRUNCATE"
              or "add a WHERE; to set it everywhere: WHERE column IS DISTINCT FROM the new value" })
        end
      end
    end
  end,
}

-- unbatched-dml ----------------------------------------------------------------------------------------------

--- Columns that alone make a unique index, by live facts.
local function unique_columns(ctx, relation)
  local unique = {}
  if ctx.live and relation.name then
    for _, index in ipairs(ctx.live:indexes(relation.schema, relation.name) or {}) do
      if index.unique and index.valid ~= false and not index.partial and #(index.columns or {}) == 1 then
        unique[index.columns[1]] = true
      end
    end
  end
  return unique
end

--- Whether live facts say that a table is small.
local function is_small(ctx, relation)
  local found = ctx.live and ctx.live:relation(relation.schema, relation.name)
  return found ~= nil and (found.empty or (found.rows ~= nil and found.rows >= 0
    and found.rows <= ctx.options.max_rows))
end

local function describe(item, over)
  if item.verb == "insert" then
    return ("INSERT … SELECT reads all of %s in one statement"):format(words.name(over))
  end
  return ("%s goes over %s in one statement"):format(item.verb:upper(), words.name(over))
end

M[#M + 1] = {
  id = "unbatched-dml", group = "shape", severity = "warning", uses = { "live" },
  title = "existing rows are changed in batches",
  explain = text_util.trim [[
One statement over a big table is one transaction: every row it has changed stays locked until the last one is
done, replicas fall behind, vacuum can't clean up, and an error after an hour takes all of it back.

Use a backfill, which walks over the key in batches that commit. Changing a few rows is fine, and known by its form:
an equality or IN with values for a key-like column (id, code, key, name …), a subselect with LIMIT, a join with
VALUES. With a database at hand the size of the table is looked at (option max_rows) instead of guessed.]],
  fix = "make it a backfill: batches along the key, each with its own commit",
  seeds = {
    "ADR 0007: Batch large data migrations",
    "ADR 0007: Use transactions for data migrations",
  },
  options = { max_rows = { default = 10000, type = "integer",
    help = "with live facts: a table of so many rows may be changed at once" } },
  examples = {
    bad = [[
-- description: Write the e-mail addresses of users in small letters
-- phase: expand
-- scope: global
-- compatibility: backward_compatible
-- data_preservation: only the case of letters is lost, which mail servers ignore

-- migrate:up
update users set email = lower(email) where email <> lower(email);

-- migrate:down
update users set email = initcap(email) where email = lower(email);
]],
    good = [[
-- description: Rename the two plans that are no longer sold
-- phase: expand
-- scope: global
-- compatibility: backward_compatible
-- data_preservation: the old names are in the down

-- migrate:up
update plans set title = 'Starter (2023)' where code = 'starter';
update plans set title = 'Team (2023)' where code = 'team';

-- migrate:down
update plans set title = 'Starter' where code = 'starter';
update plans set title = 'Team' where code = 'team';
]],
  },
  check = function(ctx)
    for _, st in ipairs(ctx.statements) do
      for _, item in ipairs(dml.of(ctx, st)) do
        local over = not item.new and dml.goes_over(item, unique_columns(ctx, item.relation))
        if over and not is_small(ctx, over) then
          ctx:report(describe(item, over), { at = st })
        end
      end
    end
  end,
}

return M
