--- New columns of tables that people use.
local names = require "moonbird.policy.facts.names"
local text_util = require "moonbird.util.text"
local words = require "moonbird.policy.words"

local M = {}

--- Whether the functions of an expression are volatile on the server: true, false, nil when it can't be said.
local function ask_server(ctx, default)
  if not ctx.live or not default.text then
    return nil
  end
  for name in default.text:lower():gmatch("([%w_]+)\"?%s*%(") do
    local rows = ctx.live:query("select 1 as found from pg_proc where proname = $1 and provolatile = 'v' limit 1", name)
    if not rows then
      return nil
    elseif rows[1] then
      return true
    end
  end
  return false
end

M[#M + 1] = {
  id = "column-default", group = "shape", severity = "error", uses = { "live" },
  title = "a new column of an existing table has no default that is computed for each row",
  explain = text_util.trim [[
A default that gives another value for each row (random(), gen_random_uuid(), clock_timestamp(), a sequence, also
serial and identity) makes ADD COLUMN write the whole table anew, while nobody can even read it.

A constant is fine, and so is now(): since PostgreSQL 11 the value is kept once, in the catalog, and the table is
not touched. For the others: add the column without a default, set the default for new rows (ALTER COLUMN … SET
DEFAULT), and fill the old rows in a backfill. A function that moonbird does not know is told as an info; with a
database at hand the server is asked. Tables that the same migration creates are free, and so are empty ones.]],
  fix = "add the column without the default, then SET DEFAULT, then fill the old rows in a backfill",
  seeds = { "ADR 0007: Add columns without defaults, then update" },
  examples = {
    bad = [[
-- description: Give every order an id that customers may see
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up
alter table orders add column public_id uuid default gen_random_uuid();

-- migrate:down
alter table orders drop column public_id;
]],
    good = [[
-- description: Give every new order an id that customers may see
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up
alter table orders add column public_id uuid;
alter table orders alter column public_id set default gen_random_uuid();

-- migrate:down
alter table orders drop column public_id;
]],
  },
  check = function(ctx)
    for _, st in ipairs(ctx.statements) do
      local table_is_used = st.verb == "alter" and not st.new and not words.is_empty(ctx, st.relation)
      for _, action in ipairs(table_is_used and st.actions or {}) do
        if action.kind == "add_column" then
          local default, why, severity = action.default, nil, nil
          if action.identity or action.serial then
            why = "numbers every row"
          elseif default then
            local volatile = default.volatile
            if volatile == nil then
              volatile = ask_server(ctx, default)
            end
            if volatile then
              why = ("has a default that is computed for each row (%s)"):format(default.text or "volatile")
            elseif volatile == nil then
              why, severity = ("has a default that may be computed for each row (%s: is it volatile?)"):format(
                default.text or "a function"), "info"
            end
          end
          if why then
            ctx:report(("the new column %s.%s %s: then all of the table is written anew, and locked meanwhile"):format(
              names.shown(st.relation), action.column or "?", why), { at = st, severity = severity })
          end
        end
      end
    end
  end,
}

return M
