--- What a statement does to others: is its relation new here, does it break an older release that still runs,
--- does it destroy data, is it heavy on what exists.
--
-- "New" is what the same step has created before: nobody else can have seen it. An object created with
-- IF NOT EXISTS may have been there; it counts as new, but not where data would be lost.
local made_of = require "moonbird.policy.facts.made"
local names = require "moonbird.policy.facts.names"

local M = {}

local shown = names.shown

---@class moonbird.policy.facts.context
---@field made moonbird.policy.facts.made

--- A context for one step.
---@return moonbird.policy.facts.context
function M.context()
  return { made = made_of.new() }
end

--- Whether a relation was created earlier in the step.
---@param context moonbird.policy.facts.context
---@param relation? table
---@return boolean new
---@return boolean sure it cannot have existed before
function M.is_new(context, relation)
  local entry = context.made:find("table", relation)
  return entry ~= nil, entry ~= nil and entry.sure
end

local part_kinds = { trigger = true, policy = true, rule = true, constraint = true }

local function object_of(st)
  return {
    schema = st.schema, name = st.name, relation = part_kinds[st.kind] and st.relation or nil,
    signature = st.signature,
  }
end

--- Notes what the statement creates, renames and drops, for those that follow.
local function note(context, st)
  if st.verb == "create" and st.name then
    -- OR REPLACE and IF NOT EXISTS may have found one
    local sure = not st.if_not_exists and not st.replace
    context.made:add(st.kind, object_of(st), sure, { table = st.relation })
  elseif st.verb == "drop" then
    for _, object in ipairs(st.objects or {}) do
      context.made:drop(st.kind, object)
    end
  end
  for _, action in ipairs(st.actions or {}) do
    local moves = action.kind == "rename" and { schema = st.schema, name = action.to }
      or action.kind == "set_schema" and { schema = action.to, name = st.name }
    if moves then
      context.made:rename(st.kind, object_of(st), moves.schema, moves.name)
    elseif action.kind == "add_column" and st.verb == "alter" and st.relation then
      context.made:add("column", { name = action.column, relation = st.relation }, not action.if_not_exists, {
        filled = action.default ~= nil or action.identity ~= nil or action.generated ~= nil or action.serial ~= nil,
        not_null = action.not_null,
      })
    elseif action.kind == "set_default" or action.kind == "drop_default" or action.kind == "set_not_null"
      or action.kind == "drop_not_null" then
      local column = context.made:find("column", { name = action.column, relation = st.relation })
      if column and action.kind:find("default", 1, true) then
        column.filled = action.kind == "set_default"
      elseif column then
        column.not_null = action.kind == "set_not_null"
      end
    elseif action.kind == "add_constraint" and action.constraint.name and st.relation then
      context.made:add("constraint", { name = action.constraint.name, relation = st.relation }, true)
    end
  end
end

--- Collects what the whole step creates, so that a DROP can see that its object comes back.
---@param context moonbird.policy.facts.context
---@param statements table[]
function M.look_ahead(context, statements)
  for at, st in ipairs(statements) do
    if st.verb == "create" and st.name then
      context.made:foresee(st.kind, object_of(st), at, st)
    end
  end
end

local replaceable = {
  ["function"] = true, procedure = true, routine = true, aggregate = true, view = true, materialized_view = true,
}

-- Kinds that an older release names in its statements. Constraints, indexes, triggers, policies, rules,
-- publications, statistics and the like it does not.
local read_kinds = {
  table = true, foreign_table = true, view = true, materialized_view = true, sequence = true, ["function"] = true,
  procedure = true, routine = true, aggregate = true, type = true, enum = true, domain = true, schema = true,
  database = true, extension = true, operator = true, cast = true, collation = true, server = true, owned = true,
  text_search_configuration = true, operator_class = true, operator_family = true, language = true,
}

local function words(kind)
  return (kind:gsub("_", " "))
end

local function drop(context, st, at, found)
  for _, object in ipairs(st.objects or { { schema = st.schema, name = st.name } }) do
    local entry = context.made:find(st.kind, object)
    local back = replaceable[st.kind] and context.made:later(at, st.kind, object)
    local replaced = back and replaceable[back.kind]
    if read_kinds[st.kind] and not (entry and entry.sure) and not replaced then
      found:breaking(("drops %s %s"):format(words(st.kind), shown(object)))
    end
    if not (entry and entry.sure) then
      if st.kind == "table" or st.kind == "schema" or st.kind == "database" or st.kind == "owned" then
        found:destroys(("drops %s %s"):format(words(st.kind), shown(object)))
      elseif st.cascade and (names.family(st.kind) == "type" or st.kind == "extension") then
        found:destroys(("drops %s %s and, by CASCADE, the columns that use it"):format(words(st.kind), shown(object)))
      end
    end
  end
end

--- Whether a view takes the old name of a relation that is moved away, with the old columns.
local function shimmed(context, st, at, column)
  local function view_of(name)
    local entry = context.made:later(at, "view", { schema = name.schema, name = name.name })
    return entry and entry.kind == "view" and entry.st
  end
  local view = st.relation and view_of(st.relation)
  if not view then
    return false
  end
  return column == nil or view.outputs ~= nil and view.outputs[column] == true
end

local function rename(context, st, at, found)
  local action = st.actions[1]
  if action.kind == "rename_column" then
    local new_column = context.made:find("column", { name = action.column, relation = st.relation })
    if not (new_column and new_column.sure) and not shimmed(context, st, at, action.column) then
      found:breaking(("renames %s %s.%s to %s"):format(words(st.kind), shown(st.relation), action.column, action.to))
    end
  elseif action.kind == "rename" and read_kinds[st.kind] then
    if not shimmed(context, st, at) then
      found:breaking(("renames %s %s to %s"):format(words(st.kind), shown(st), action.to))
    end
  end
end

-- Types that hold every value of the types people widen to them.
local wide = {
  text = true, varchar = true, citext = true, numeric = true, int8 = true, timestamptz = true, jsonb = true,
}

local function free_type(action)
  local to = action.type
  return to and not to.array and not to.schema and #to.args == 0 and (to.name == "text" or to.name == "varchar")
    and (not action.using or action.using_cast)
end

-- A longer one of these takes what the shorter one held; how long the old one was is not in the statement.
local function may_widen(action)
  local to = action.type
  return to and not to.array and not to.schema and (to.name == "varchar" or to.name == "varbit") and #to.args == 1
    and (not action.using or action.using_cast)
end

local actions = {}

function actions.drop_column(st, action, found, new_column, sure)
  if not new_column and not sure then
    local what = ("drops column %s.%s"):format(shown(st), action.column)
    if st.kind == "type" then
      what = ("drops attribute %s.%s"):format(shown(st), action.column)
    end
    found:breaking(what)
    found:destroys(what)
  end
end

function actions.add_column(st, action, found, _, sure)
  if action.not_null and not action.default and not action.identity and not action.generated
    and not action.serial and not sure then
    found:breaking(("adds column %s.%s as NOT NULL without a default"):format(shown(st), action.column))
  end
  local default = action.default
  local why = default and default.volatile and "a volatile default" or action.identity and "an identity"
    or action.serial and "a serial" or action.generated == "stored" and "a stored generated column"
  if why then
    found:heavy(("rewrites %s for %s (%s)"):format(shown(st), why, action.column))
  end
end

function actions.alter_type(st, action, found, new_column, sure)
  sure = sure or new_column
  local to = action.type and action.type.text or "?"
  if not free_type(action) then
    if st.kind ~= "type" then
      found:heavy(("changes the type of %s.%s to %s, which rewrites the table unless the old type is stored alike")
        :format(shown(st), action.column, to))
    end
    if not sure then
      found:breaking(("changes the type of %s.%s to %s%s"):format(shown(st), action.column, to, may_widen(action)
        and " (unless the old one was shorter: a waiver may say so)" or ""))
    end
  end
  local holds = action.type and not action.type.array and #action.type.args == 0 and wide[action.type.name]
  if not sure and (not holds or (action.using and not action.using_cast)) then
    found:destroys(("changes the type of %s.%s to %s, which may not hold every old value")
      :format(shown(st), action.column, to))
  end
end

function actions.set_not_null(st, action, found, new_column, sure)
  -- an older release does not fill a column that it does not know
  if not sure and not (new_column and new_column.filled) then
    found:breaking(("sets NOT NULL on %s"):format(action.column and shown(st) .. "." .. action.column or shown(st)))
  end
end

-- Without a policy that lets them, readers see no rows and writers are refused; and a policy is made for the new
-- release.
function actions.enable_rls(st, _, found, _, sure)
  if not sure then
    found:breaking(("turns on row level security of %s, which hides rows from those who read it now"):format(shown(st)))
  end
end

function actions.force_rls(st, _, found, _, sure)
  if not sure then
    found:breaking(("forces row level security of %s on its owner, which hides rows from those who read it now")
      :format(shown(st)))
  end
end

function actions.drop_default(st, action, found, new_column, sure)
  -- Django adds a column so: the default fills the rows there are, and goes again. An older release's INSERT fails.
  if not sure and new_column and new_column.not_null and new_column.filled then
    found:breaking(("leaves the new column %s.%s NOT NULL without a default"):format(shown(st), action.column))
  end
end

function actions.drop_identity(st, action, found, _, sure)
  if not sure then
    found:breaking(("drops the identity of %s.%s"):format(shown(st), action.column))
  end
end

function actions.set_schema(st, action, found, _, sure)
  if not sure and read_kinds[st.kind] then
    found:breaking(("moves %s %s to schema %s"):format(words(st.kind), shown(st), action.to))
  end
end

function actions.rename_value(st, action, found, _, sure)
  if not sure then
    found:breaking(("renames value '%s' of %s"):format(action.value, shown(st)))
  end
end

--- Whether the constraint stands on a column that the same statement adds, empty.
local function on_empty_column(st, action)
  if action.inline then
    for _, other in ipairs(st.actions) do
      if other.kind == "add_column" and other.column == action.column then
        return not other.default and not other.generated and not other.identity and not other.serial
      end
    end
  end
  return false
end

function actions.add_constraint(st, action, found)
  local made = action.constraint
  local kind = made.kind
  local what = made.name or kind and words(kind) or "a constraint"
  if kind == "unique" or kind == "primary_key" or kind == "exclusion" then
    if not made.using_index then
      found:heavy(("builds an index on %s for %s"):format(shown(st), what))
    end
  elseif kind == "check" and not made.not_valid then
    found:heavy(("checks every row of %s for %s"):format(shown(st), what))
  elseif kind == "foreign_key" and not made.not_valid and not on_empty_column(st, action) then
    found:heavy(("checks every row of %s for %s"):format(shown(st), what))
  end
end

function actions.validate_constraint(st, action, found)
  found:heavy(("validates %s on every row of %s"):format(action.name or "a constraint", shown(st)))
end

function actions.set_tablespace(st, action, found)
  found:heavy(("moves %s to tablespace %s"):format(st.name and shown(st) or "everything", action.to or "?"))
end

function actions.set_logged(st, _, found)
  found:heavy(("rewrites %s to make it logged"):format(shown(st)))
end

function actions.set_unlogged(st, _, found)
  found:heavy(("rewrites %s to make it unlogged"):format(shown(st)))
end

function actions.set_access_method(st, action, found)
  found:heavy(("rewrites %s for access method %s"):format(shown(st), action.to or "?"))
end

--- Collects the reasons of a statement, which shows all, and of the action that is looked at, if one is.
local reasons = {}
reasons.__index = reasons

local function add(found, field, why)
  local st, action = found.st, found.action
  if action then
    action[field] = action[field] or why
  end
  if st[field] ~= why then
    st[field] = st[field] and st[field] .. "; " .. why or why
  end
end

function reasons.breaking(found, why)
  add(found, "breaking", why)
end

function reasons.destroys(found, why)
  add(found, "destroys", why)
end

function reasons.heavy(found, why)
  if not found.new then -- nothing is heavy on what nobody has
    add(found, "heavy", why)
  end
end

local function alter(context, st, at, found, sure)
  for _, action in ipairs(st.actions or {}) do
    local judge = actions[action.kind]
    found.action = action
    if judge and not (action.kind == "set_schema" and shimmed(context, st, at)) then
      local column = action.column and st.relation
        and context.made:find("column", { name = action.column, relation = st.relation })
      judge(st, action, found, column and column.sure and column or nil, sure)
    end
  end
  found.action = nil
end

local function writes(context, st, found)
  for _, write in ipairs(st.writes or {}) do
    local new, sure = M.is_new(context, write)
    write.new = new
    if not sure then
      if write.verb == "truncate" then
        found:breaking(("empties table %s"):format(shown(write)))
        found:destroys(("empties table %s"):format(shown(write)))
      elseif write.verb == "delete" or write.verb == "merge" and write.deletes then
        found:destroys(("deletes rows of %s"):format(shown(write)))
      end
    end
  end
end

local function heavy(st, found)
  local on = shown(st.relation or st)
  if st.verb == "create" and st.kind == "index" then
    -- ON ONLY a partitioned table makes an empty, invalid index
    if not st.only then
      found:heavy(("builds an index on %s%s"):format(on, st.concurrently and " concurrently" or ""))
    end
  elseif st.verb == "vacuum" and st.full then
    found:heavy(st.name and ("rewrites %s (VACUUM FULL)"):format(on) or "rewrites every table (VACUUM FULL)")
  elseif st.verb == "cluster" then
    found:heavy(st.name and ("rewrites %s (CLUSTER)"):format(on) or "rewrites every clustered table (CLUSTER)")
  elseif st.verb == "reindex" then
    found:heavy(("rebuilds the indexes of %s %s"):format(st.kind or "", st.name and shown(st) or ""))
  elseif st.verb == "refresh" and not st.with_no_data then
    found:heavy(("runs the query of materialized view %s again"):format(shown(st)))
  end
end

--- Judges one statement and notes what it changes. Call in the order of the statements, once each.
---@param context moonbird.policy.facts.context
---@param st table
---@param at integer its place in the step, as look_ahead() saw it
function M.statement(context, st, at)
  if st.kind == "index" and not st.relation and st.name then
    local made = context.made:find("index", st)
    st.relation = made and made.table
  end
  local target = st.relation or st
  local target_kind = st.relation and "table" or st.kind or "table"
  local entry = context.made:find(target_kind, target)
  if not entry and st.kind and st.kind ~= "column" and st.kind ~= "constraint" then
    entry = context.made:find(st.kind, object_of(st))
  end
  local creates = st.verb == "create" and st.relation ~= nil and st.relation.name == st.name
    and names.family(st.kind) == "relation" and not st.replace and st.kind ~= "index"
  local new = entry ~= nil or creates
  local sure = entry ~= nil and entry.sure or false
  st.new = new
  local found = setmetatable({ st = st, new = new, action = nil }, reasons)
  if st.verb == "drop" then
    drop(context, st, at, found)
  elseif st.verb == "rename" then
    if not sure then
      rename(context, st, at, found)
    end
  elseif st.verb == "alter" then
    alter(context, st, at, found, sure)
  end
  writes(context, st, found)
  if not new then
    heavy(st, found)
  end
  note(context, st)
end

return M
