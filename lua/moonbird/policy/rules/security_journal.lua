--- The engine's own schema: nothing of a migration's business.
local text_util = require "moonbird.util.text"
local words = require "moonbird.policy.words"

local M = {}

--- Whether a text names something in a schema: `moonbird.journal`, `"moonbird" . journal`.
local function names_schema(text, schema)
  local lower = text:lower()
  if not lower:find(schema:lower(), 1, true) and not lower:find('"', 1, true) then
    return false -- most texts: a bare search is cheap
  end
  local plain = lower:gsub('"', ""):gsub("%s*%.%s*", ".")
  return plain:find("%f[%w_]" .. schema:lower():gsub("%p", "%%%0") .. "%.") ~= nil
end

local function touches(st, schema)
  for _, name in ipairs(st.schemas or {}) do
    if name == schema then
      return true
    end
  end
  -- what a DO block or a function runs is text only; so is what can't be parsed here
  return (st.opaque or st.function_ or st.parsed == false) and names_schema(st.text or "", schema)
end

M[#M + 1] = {
  id = "own-schema", group = "security", severity = "error", hard = true, gate = true,
  title = "no migration names the schema that holds moonbird's journal",
  explain = text_util.trim [[
The journal says what was applied, when, by whom and from which commit, as a chain of hashes. Whoever migrates owns it,
so the server does not keep a migration from reading it, from switching its triggers off or from dropping it. After
that nobody can tell which migrations ran, nor whether somebody hid something; and what the journal knows of hosts
and people is not for a pull request from outside to copy.

Who is hurt: the auditor, and the next run.

Recipe: `moonbird history --json` for reading. What is wrong in the journal: `moonbird repair`. A role that may read
it for a dashboard is granted that by hand, once, by who owns the database.]],
  fix = "take it out; `moonbird history` reads the journal, `moonbird repair` settles what is wrong in it",
  seeds = {
    "ADR 0007: **Auditability**: Complete history of all schema changes",
    "ADR-002: Complete audit trail of schema evolution",
  },
  examples = {
    bad = [[
-- description: Keep what the journal says for the reports
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up
create view applied_migrations as select version, name, at from moonbird.journal;

-- migrate:down
drop view applied_migrations;
]],
    good = [[
-- description: Keep what the releases say for the reports
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up
create view applied_releases as select version, name, at from releases;

-- migrate:down
drop view applied_releases;
]],
  },
  check = function(ctx)
    if not ctx.journal_schema then
      return
    end
    local function look(statements)
      for _, st in ipairs(statements) do
        if touches(st, ctx.journal_schema) then
          ctx:report(("%s names the schema \"%s\", which is moonbird's own"):format(words.tag(st), ctx.journal_schema),
            { at = st })
        end
      end
    end
    look(ctx.statements)
    if ctx.moment == "check" and ctx.direction ~= "down" then
      look(ctx.down_statements)
    end
  end,
}

return M
