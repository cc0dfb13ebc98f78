--- Columns and constraints of CREATE TABLE and ALTER TABLE as actions of one form: constraints written on a
--- column become constraints of the table with one column, except NOT NULL and DEFAULT.
local expression = require "moonbird.policy.facts.expression"
local names = require "moonbird.policy.facts.names"

local M = {}

local kinds = {
  CONSTR_CHECK = "check", CONSTR_FOREIGN = "foreign_key", CONSTR_UNIQUE = "unique",
  CONSTR_PRIMARY = "primary_key", CONSTR_EXCLUSION = "exclusion", CONSTR_NOTNULL = "not_null",
}

local on_delete = { c = "cascade", n = "set null", d = "set default", r = "restrict" }

local function at_location(source, node)
  local location = node.location
  return location and location >= 0 and source:line_at(location) or nil
end

--- A Constraint node as the `constraint` of an action; nil for what is none (NULL, DEFERRABLE, …).
---@param source moonbird.policy.facts.source
---@param node table Constraint
---@param column? string the column it is written on
---@return table?
function M.of(source, node, column)
  local kind = kinds[node.contype]
  if not kind then
    return nil
  end
  local columns
  if column then
    columns = { column }
  elseif kind == "exclusion" then
    columns = {}
    for _, pair in ipairs(node.exclusions or {}) do
      local element = pair.List and pair.List.items[1].IndexElem
      columns[#columns + 1] = element and element.name
    end
  else
    columns = names.strings(node.fk_attrs or node.keys)
  end
  local constraint = {
    name = node.conname, kind = kind, columns = columns, not_valid = node.skip_validation or false,
    using_index = node.indexname, line = at_location(source, node),
    deferrable = node.deferrable or nil, no_inherit = node.is_no_inherit or nil,
  }
  if kind == "foreign_key" then
    constraint.references = names.range(node.pktable)
    constraint.reference_columns = names.strings(node.pk_attrs)
    constraint.on_delete = on_delete[node.fk_del_action]
    constraint.on_update = on_delete[node.fk_upd_action]
  elseif kind == "check" then
    constraint.expression = expression.parenthesis(source.text, (node.location or 0) + 1)
  end
  return constraint
end

--- The end of the DEFAULT that begins at `location`: the next constraint of the column, or nil.
local function next_constraint(list, location)
  local nearest
  for _, item in ipairs(list) do
    local at = item.Constraint and item.Constraint.location
    if at and at > location and (not nearest or at < nearest) then
      nearest = at
    end
  end
  return nearest
end

local function default_of(source, list, node)
  local default = expression.default(node.raw_expr)
  local location = node.location or 0
  local keyword = source.text:sub(location + 1, location + 7):lower() == "default"
  if keyword then
    default.text = expression.slice(source.text, location + 8, next_constraint(list, location))
  end
  return default
end

--- A ColumnDef as an add_column action, and what its constraints make of it behind it.
---@param source moonbird.policy.facts.source
---@param node table ColumnDef
---@param out table[] actions are added to it
---@return table action the add_column
function M.column(source, node, out)
  local action = {
    kind = "add_column", column = node.colname, type = names.type(node.typeName), not_null = false,
    line = at_location(source, node),
  }
  if node.collClause then
    action.collate = select(2, names.qualified(node.collClause.collname))
  end
  out[#out + 1] = action
  local last
  for _, item in ipairs(node.constraints or {}) do
    local constraint = item.Constraint
    local kind = constraint.contype
    if kind == "CONSTR_NOTNULL" then
      action.not_null = true
    elseif kind == "CONSTR_DEFAULT" then
      action.default = default_of(source, node.constraints, constraint)
    elseif kind == "CONSTR_IDENTITY" then
      action.identity = constraint.generated_when == "a" and "always" or "by default"
      action.not_null = true
    elseif kind == "CONSTR_GENERATED" then
      action.generated = "stored" -- the only kind that this grammar knows
      action.expression = expression.parenthesis(source.text, (constraint.location or 0) + 1)
    elseif kind == "CONSTR_ATTR_DEFERRABLE" or kind == "CONSTR_ATTR_DEFERRED" then
      if last then
        last.deferrable = true
      end
    else
      last = M.of(source, constraint, node.colname)
      if last then
        if last.kind == "primary_key" then
          action.not_null = true
        end
        out[#out + 1] = {
          kind = "add_constraint", column = node.colname, constraint = last, inline = true, line = last.line,
        }
      end
    end
  end
  local serial = action.type and action.type.name:match("^%l*serial%d?$")
  if serial and not action.type.schema then
    action.serial, action.not_null = true, true
  end
  return action
end

--- The elements of CREATE TABLE as actions.
---@param source moonbird.policy.facts.source
---@param elements? table[]
---@return table[] actions
---@return table[] likes relations of LIKE clauses
function M.elements(source, elements)
  local actions, likes = {}, {}
  for _, element in ipairs(elements or {}) do
    if element.ColumnDef then
      M.column(source, element.ColumnDef, actions)
    elseif element.Constraint then
      local constraint = M.of(source, element.Constraint)
      if constraint then
        actions[#actions + 1] = { kind = "add_constraint", constraint = constraint, line = constraint.line }
      end
    elseif element.TableLikeClause then
      likes[#likes + 1] = names.range(element.TableLikeClause.relation)
    end
  end
  return actions, likes
end

return M
