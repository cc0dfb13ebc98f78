--- Words that rules say about statements and relations, and small questions that several rules ask.
local names = require "moonbird.policy.facts.names"

local M = {}

--- A relation's name for messages, in quotes.
---@param relation? { schema?: string, name?: string }
---@return string
function M.name(relation)
  return "\"" .. names.shown(relation) .. "\""
end

--- What a statement is, in the server's words: "CREATE INDEX CONCURRENTLY".
---@param st table
---@return string
function M.tag(st)
  local tag = st.tag or "the statement"
  if st.concurrently and not tag:find("CONCURRENTLY", 1, true) then
    tag = tag .. " CONCURRENTLY"
  end
  return tag
end

--- "UPDATE on line 7"
---@param st table
---@return string
function M.place(st)
  return st.line and ("%s on line %d"):format(M.tag(st), st.line) or M.tag(st)
end

--- Whether the step that is looked at is `up`.
---@param ctx table
---@return boolean
function M.going_up(ctx)
  return ctx.direction ~= "down"
end

--- Whether live facts say that a relation holds no rows (then what is done to it takes no time).
---@param ctx table
---@param relation? { schema?: string, name?: string }
---@return boolean
function M.is_empty(ctx, relation)
  if not ctx.live or not relation or not relation.name then
    return false
  end
  local found = ctx.live:relation(relation.schema, relation.name)
  return found ~= nil and found.empty == true
end

--- Whether a statement works on an object that was there before this step.
---@param st table
---@return boolean
function M.existing(st)
  return not st.new
end

-- Verbs that neither change an object nor take a lock that anybody waits for.
local LIGHT = { comment = true, set = true, reset = true, show = true, transaction = true, analyze = true,
  notify = true, security_label = true }

--- Whether a statement is free beside anything else: SET, COMMENT, BEGIN and the like.
---@param st table
---@return boolean
function M.is_light(st)
  if LIGHT[st.verb] or st.class == "control" then
    return true
  end
  -- pg_dump and many others say SET by a function.
  return st.verb == "select" and (st.text or ""):lower():find("^select%s+[pg_catalog.]*set_config%s*%(") ~= nil
end

--- Whether a text says something: more than a word left over from a template.
---@param text? string
---@param least integer characters
---@return boolean
function M.is_sentence(text, least)
  local plain = type(text) == "string" and text:match("^%s*(.-)%s*$") or ""
  local word = plain:lower():match("^[%a/]+") or ""
  if word == "todo" or word == "tbd" or word == "fixme" or word == "n/a" then
    return false
  end
  return (utf8.len(plain) or #plain) >= least and select(2, plain:gsub("%S+", "")) >= 3
end

return M
