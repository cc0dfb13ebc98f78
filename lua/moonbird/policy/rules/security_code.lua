--- Code that runs with more rights, or with other people's text, than was meant.
local text_util = require "moonbird.util.text"
local words = require "moonbird.policy.words"

local M = {}

local function contains(list, value)
  for _, item in ipairs(list or {}) do
    if item == value then
      return true
    end
  end
  return false
end

-- security-definer-path --------------------------------------------------------------------------------------------

local ROUTINES = { ["function"] = true, procedure = true, routine = true }

--- The settings of a function by this statement: whether its search_path is fixed, and whether it is free again.
local function path_of(st)
  local function_ = st.function_
  local fixed = function_.settings.search_path ~= nil
  local freed = contains(function_.reset, "search_path") or contains(function_.reset, "all")
  -- A body in the SQL standard's form is resolved when it is created. It is no string, as `body` is.
  local node = not function_.body and st.tree and st.tree.CreateFunctionStmt
  return fixed or (node and node.sql_body ~= nil) or false, freed
end

local function key_of(st)
  return (st.schema or "") .. "\0" .. (st.name or "?")
end

M[#M + 1] = {
  id = "security-definer-path", group = "security", severity = "error",
  title = "a SECURITY DEFINER function has a search_path of its own",
  explain = text_util.trim [[
A SECURITY DEFINER function runs with its owner's rights, but finds tables, functions and operators by its caller's
search_path. A caller who may create objects anywhere puts a table or operator of the same name in front, and the
function uses that, with the owner's rights.

Write it into the function: `set search_path = pg_catalog, pg_temp`, with the names in the body qualified, or with
the one schema that only the owner may create in before pg_temp. pg_temp comes last, or it is searched first. For
functions that are there: `alter function f(integer) set search_path = …`. A body in the standard's form
(BEGIN ATOMIC, RETURN) needs none.]],
  fix = "add `set search_path = pg_catalog, pg_temp` and qualify the names in its body",
  seeds = {
    "ADR 0007: Review permissions and grants",
    "ADR 0007: **Safety**: Minimize risk of data loss or corruption",
  },
  examples = {
    bad = [[
-- description: Let customers cancel their own orders
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up
create function cancel_order(id bigint) returns void language sql security definer as $$
  update orders set status = 'cancelled' where orders.id = cancel_order.id;
$$;

-- migrate:down
drop function cancel_order(bigint);
]],
    good = [[
-- description: Let customers cancel their own orders
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up
create function cancel_order(id bigint) returns void language sql security definer
  set search_path = pg_catalog, pg_temp as $$
  update public.orders set status = 'cancelled' where orders.id = cancel_order.id;
$$;

-- migrate:down
drop function cancel_order(bigint);
]],
  },
  check = function(ctx)
    local open, order, path = {}, {}, {}
    for _, st in ipairs(ctx.statements) do
      if st.function_ and ROUTINES[st.kind] and (st.verb == "create" or st.verb == "alter") then
        local key = key_of(st)
        local fixed, freed = path_of(st)
        local definer = st.function_.security_definer
        local given = st.verb == "create" or st.function_.security_given
        if given and not definer then
          open[key] = nil
        elseif definer then
          open[key] = st
          order[#order + 1] = key
        end
        path[key] = fixed or (st.verb == "alter" and path[key] and not freed) or nil
      end
    end
    local told = {}
    for _, key in ipairs(order) do
      local st = open[key]
      if st and not path[key] and not told[st] then
        told[st] = true
        ctx:report(("%s %s runs with its owner's rights and its caller's search_path"):format(
          st.kind == "procedure" and "procedure" or "function", words.name(st)), { at = st })
      end
    end
  end,
}

-- bound-values ------------------------------------------------------------------------------------------------------

--- The string literal that a value stands in: its first and last byte, and its content.
local function literal_with(text, value)
  local quoted = tostring(value):gsub("'", "''")
  local at = 1
  while true do
    local first = text:find("'", at, true)
    if not first then
      return nil
    end
    local last = first
    repeat
      last = text:find("'", last + 1, true)
      local doubled = last and text:sub(last + 1, last + 1) == "'"
      last = last and (doubled and last + 1 or last)
    until not doubled
    if not last then
      return nil
    end
    local content = text:sub(first + 1, last - 1)
    if content:find(quoted, 1, true) then
      return first, last, content, quoted
    end
    at = last + 1
  end
end

--- How the statement looks with the value bound: its text with a parameter, and what is given for it.
local function bound(text, value)
  local first, last, content, quoted = literal_with(text, value)
  if first then
    local from, to = content:find(quoted, 1, true)
    local prefix, suffix = content:sub(1, from - 1), content:sub(to + 1)
    local given = (prefix ~= "" and ("%q .. "):format(prefix) or "") .. "value"
      .. (suffix ~= "" and (" .. %q"):format(suffix) or "")
    return text:sub(1, first - 1) .. "$1" .. text:sub(last + 1), given
  end
  local plain = tostring(value):gsub("%W", "%%%0")
  local result, count = text:gsub("%f[%w]" .. plain .. "%f[^%w]", "$1", 1)
  if count > 0 then
    return result, "value"
  end
end

local function shorten(text)
  local line = text:gsub("%s+", " ")
  return #line > 120 and line:sub(1, 117):gsub("[\128-\191]*$", "") .. "..." or line
end

M[#M + 1] = {
  id = "bound-values", group = "security", severity = "warning", needs = { "recording" },
  title = "values that a migration has read go into SQL as parameters",
  explain = text_util.trim [[
A Lua migration that reads a value and puts it into the text of the next statement works until the value holds a
quote: then it fails, or does what the person who chose the value wanted it to do. Names and comments are written
by strangers. This is seen when the migration runs on a throwaway database: a statement's text holds a literal that
an earlier answer held, and that the file itself does not.

Bind it: `db:exec("update users set plan = $1 where id = $2", plan, id)`. A list is one parameter as well
(`= any($1)`). Names of tables and columns can't be bound: db:ident quotes them.]],
  fix = "bind it: write $1 in the text and give the value behind it",
  seeds = { "ADR 0007: Use parameterized queries for data migrations" },
  examples = { run = true,
    bad = [[
return {
  description = "Give every user a page of their own",
  phase = "expand", scope = "global", compatibility = "backward_compatible",
  up = function(db)
    for user in db:rows("select id, name from users") do
      db:exec(("insert into pages (title) values ('%s')"):format(user.name))
    end
  end,
  down = "delete from pages where title in (select name from users)",
}
]],
    good = [[
return {
  description = "Give every user a page of their own",
  phase = "expand", scope = "global", compatibility = "backward_compatible",
  up = function(db)
    for user in db:rows("select id, name from users") do
      db:exec("insert into pages (title) values ($1)", user.name)
    end
  end,
  down = "delete from pages where title in (select name from users)",
}
]],
  },
  applies = function(ctx)
    return ctx.migration.kind == "lua"
  end,
  check = function(ctx)
    local told = {}
    for _, st in ipairs(ctx.statements) do
      local value = st.source == "function" and st.reads and st.reads[1]
      local place = (st.file or "") .. ":" .. tostring(st.line)
      if value ~= nil and value ~= false and not told[place] then
        told[place] = true
        local better, given = bound(st.text, value)
        ctx:report(("the text of this %s holds a value that the migration has read from the database%s"):format(
          words.tag(st), better and "; bound it is: " .. shorten(better) or ""), { at = st, fix = better
          and ("bind it: db:exec(\"%s\", %s)"):format(shorten(better), given) or nil })
      end
    end
  end,
}

return M
