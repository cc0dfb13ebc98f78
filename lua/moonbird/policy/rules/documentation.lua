--- What a migration says about itself: why, what for, whose, and what becomes of the data.
local head = require "moonbird.policy.head"
local text_util = require "moonbird.util.text"
local words = require "moonbird.policy.words"

local M = {}

-- The migration that the example completes.
local EXPAND = { others = { ["20250501000000_display_name.sql"] = "alter table users add column display_name text;" } }

local function is_contract(ctx)
  return words.going_up(ctx) and ctx.migration.phase == "contract"
end

local CONTRACT = [[
-- description: Drop the column users.fullname, which display_name has replaced
-- phase: contract
-- scope: global
-- compatibility: contract_breaking
-- completes: 20250501000000
-- rationale: Releases since 2.4 read and write display_name only, and the last 2.3 is stopped
-- data_preservation: every value was copied to display_name by 20250501000000; the down copies it back

-- migrate:up
alter table users drop column fullname;

-- migrate:down
alter table users add column fullname text;
]]

M[#M + 1] = {
  id = "rationale", group = "documentation", severity = "error",
  title = "a contract migration says why it may run now",
  explain = text_util.trim [[
A contract migration takes something away for good. Whether that is safe depends on what the file does not show: which
releases still run, who has confirmed it, what the consumers read. The one who runs it months later, or undoes it at
night, needs that sentence.

`-- rationale: Releases since 2.4 read display_name only; the last 2.3 was stopped on 3 May` (in Lua:
`rationale = "…"`).]],
  fix = "say in a sentence why it is safe now: `rationale: …`",
  seeds = {
    "ADR-002: **Requires Documentation**: All migrations must include comments explaining the change and rationale",
    "ADR-002: Include contract mapping rationale (if applicable)",
    "ADR-0068: Contract cleanup becomes an explicit operational decision.",
  },
  options = { min_length = { default = 20, type = "integer", help = "characters that a sentence has at least" } },
  examples = { bad = CONTRACT:gsub("%-%- rationale:[^\n]*\n", ""), good = CONTRACT, good_with = EXPAND },
  applies = is_contract,
  check = function(ctx)
    local migration = ctx.migration
    if not migration.rationale then
      ctx:report("a contract migration must say why it may run: it has no rationale",
        { at = head.at(migration, "phase") })
    elseif not words.is_sentence(migration.rationale, ctx.options.min_length) then
      ctx:report(("the rationale is no sentence: \"%s\""):format(migration.rationale),
        { at = head.at(migration, "rationale") })
    end
  end,
}

local PURPOSE = [[
-- description: Let orders carry a note that the customer wrote
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up
alter table orders add column note text;

-- migrate:down
alter table orders drop column note;
]]

M[#M + 1] = {
  id = "purpose", group = "documentation", severity = "warning",
  title = "a migration says what it is for",
  explain = text_util.trim [[
The file's name is short, and the SQL says how, not what for. One line saves the reviewer the question and whoever
reads the history the search: `-- purpose: …` or `-- description: …` in the head (in Lua a key of the table). It is
shown by `plan`, `show` and in the artifact of `deploy`.]],
  fix = "add `-- purpose: what this is for` to the head",
  seeds = {
    "Database Migration Strategy: -- Purpose: <one-line description>",
    "ADR-002: Include descriptive comments explaining the change",
  },
  examples = { bad = PURPOSE:gsub("^[^\n]*\n", ""), good = PURPOSE },
  applies = words.going_up,
  check = function(ctx)
    local said = ctx.migration.purpose or ctx.migration.description
    local word = said and said:lower():match("^%s*[<%[]?%s*([%a%-_ ]-)%s*[>%]]?%s*$")
    if not said then
      ctx:report("the migration does not say what it is for", { at = { line = 1 } })
    elseif word == "todo" or word == "tbd" or word == "one-line description" or word == "description"
      or word == "purpose" or word == "" then
      ctx:report("the purpose is left as the template has it", { at = head.at(ctx.migration,
        ctx.migration.purpose and "purpose" or "description") })
    end
  end,
}

M[#M + 1] = {
  id = "owner", group = "documentation", severity = "error",
  title = "a migration names who answers for it, where that is asked for",
  explain = text_util.trim [[
When a migration stops at night, the one on call needs a team to ask, not a name from the version control who has
left since. This is off until the project asks for it: `policy = { rules = { owner = { required = true } } }`, for
all environments or one. The head then says `-- owner: billing team` (in Lua: `owner = "…"`).]],
  fix = "add `-- owner: team or person` to the head",
  seeds = {
    "ADR-002: Reviewable (peer review process)",
    "ADR-002: Traceable (version history)",
  },
  options = { required = { default = false, type = "boolean", help = "whether every migration must have an owner" } },
  examples = { options = { required = true }, bad = PURPOSE,
    good = PURPOSE:gsub("\n", "\n-- owner: the team of the shop\n", 1) },
  applies = function(ctx)
    return words.going_up(ctx) and ctx.options.required
  end,
  check = function(ctx)
    local owner = ctx.migration.owner
    if not owner or not owner:find("%w") then
      ctx:report("the migration names no owner", { at = { line = 1 } })
    end
  end,
}

-- data-note ----------------------------------------------------------------------------------------------------

local DROPS = { drop = true, truncate = true }

--- Whether a statement takes data away as a whole: a table, a column, all rows.
local function drops_data(st)
  if not st.destroys then
    return false
  elseif DROPS[st.verb] then
    return true
  end
  for _, action in ipairs(st.actions or {}) do
    if action.kind == "drop_column" then
      return true
    end
  end
  return false
end

local CHANGES = { update = true, delete = true, merge = true }

--- What a statement does to rows that are there: nil, or in words.
local function transforms_data(st)
  for _, write in ipairs(st.writes or {}) do
    if CHANGES[write.verb] and not write.new then
      return ("%s of %s"):format(write.verb:upper(), words.name(write))
    end
  end
  return st.destroys
end

M[#M + 1] = {
  id = "data-note", group = "documentation", severity = "error",
  title = "where data is dropped or changed, the head says how it is kept",
  explain = text_util.trim [[
A down brings back a column, not what was in it. Before data goes, somebody should have asked: is it somewhere else, is
there a backup, who needs it, for how long? The answer is one line: `-- data_preservation: copied to display_name by
20250501000000` (in Lua: `data_preservation = "…"`). "None needed: the table was never written to" is an answer too.

It is an error where a table, a column or all rows go, and a warning where rows are changed or deleted, or a type
change may lose something. What the same migration has created is nobody's data yet.]],
  fix = "say in the head what becomes of the data: `data_preservation: …`",
  seeds = {
    "Database Migration Strategy: **Data preservation strategy** if migration involves data transformation",
    "Database Migration Strategy: **No data loss migrations without backup** - Require explicit backup step in PR",
    "ADR 0007: **Safety**: Minimize risk of data loss or corruption",
  },
  examples = { bad = CONTRACT:gsub("%-%- data_preservation:[^\n]*\n", ""), good = CONTRACT, good_with = EXPAND },
  applies = words.going_up,
  check = function(ctx)
    local migration = ctx.migration
    if migration.data_preservation and migration.data_preservation:find("%w") then
      return
    end
    local change, what
    for _, st in ipairs(ctx.statements) do
      if drops_data(st) then
        ctx:report(("this %s, and the head does not say what becomes of the data"):format(st.destroys), { at = st })
        return
      end
      local found = not change and transforms_data(st)
      if found then
        change, what = st, found
      end
    end
    if not change and migration.backfill then
      change, what = head.at(migration, "backfill"), "a backfill"
    end
    if change then
      ctx:report(("data is transformed (%s), and the head does not say how it is kept"):format(what),
        { at = change, severity = "warning" })
    end
  end,
}

return M
