--- The subcommands of ALTER TABLE (also on views, indexes, composite types, …) as actions.
local constraint = require "moonbird.policy.facts.constraint"
local expression = require "moonbird.policy.facts.expression"
local names = require "moonbird.policy.facts.names"

local M = {}

-- Subcommands that need no more than their name; `name` goes to the given field.
local plain = {
  AT_DropColumn = { "drop_column", "column" }, AT_DropConstraint = { "drop_constraint", "name" },
  AT_ValidateConstraint = { "validate_constraint", "name" }, AT_SetNotNull = { "set_not_null", "column" },
  AT_DropNotNull = { "drop_not_null", "column" }, AT_DropIdentity = { "drop_identity", "column" },
  AT_DropExpression = { "drop_expression", "column" }, AT_SetTableSpace = { "set_tablespace", "to" },
  AT_SetLogged = { "set_logged" }, AT_SetUnLogged = { "set_unlogged" },
  AT_SetAccessMethod = { "set_access_method", "to" }, AT_ClusterOn = { "cluster_on", "name" },
  AT_EnableRowSecurity = { "enable_rls" }, AT_DisableRowSecurity = { "disable_rls" },
  AT_ForceRowSecurity = { "force_rls" },
  AT_EnableTrig = { "enable_trigger", "name" }, AT_EnableAlwaysTrig = { "enable_trigger", "name" },
  AT_EnableReplicaTrig = { "enable_trigger", "name" }, AT_EnableTrigAll = { "enable_trigger" },
  AT_EnableTrigUser = { "enable_trigger" }, AT_DisableTrig = { "disable_trigger", "name" },
  AT_DisableTrigAll = { "disable_trigger" }, AT_DisableTrigUser = { "disable_trigger" },
  AT_SetOptions = { "set_options", "column" }, AT_ResetOptions = { "set_options", "column" },
  AT_SetRelOptions = { "set_options" }, AT_ResetRelOptions = { "set_options" },
  AT_ReplaceRelOptions = { "set_options" }, AT_ReplicaIdentity = { "replica_identity" },
}

local identities = { d = "default", f = "full", n = "nothing", i = "index" }

local function default_elements(node)
  local options = {}
  for _, item in ipairs(node and node.List and node.List.items or {}) do
    local element = item.DefElem
    local arg = element.arg
    local value = true
    if arg then
      value = arg.String and arg.String.sval or arg.Integer and (arg.Integer.ival or 0)
        or arg.Float and tonumber(arg.Float.fval) or arg.Boolean and (arg.Boolean.boolval or false)
        or arg.TypeName and select(2, names.qualified(arg.TypeName.names))
    end
    options[element.defname] = value
  end
  return options
end

local full = {}

function full.AT_AddColumn(source, cmd, out)
  return constraint.column(source, cmd.def.ColumnDef, out)
end

function full.AT_AlterColumnType(source, cmd, out)
  local def = cmd.def.ColumnDef
  local action = {
    kind = "alter_type", column = cmd.name, type = names.type(def.typeName),
    line = def.location and source:line_at(def.location),
  }
  if def.collClause then
    action.collate = select(2, names.qualified(def.collClause.collname))
  end
  if def.raw_default then
    action.using = expression.text(source.text, def.raw_default)
    -- "USING col" and "USING col::type" say no more than the type does
    local inner = def.raw_default
    while inner.TypeCast do
      inner = inner.TypeCast.arg
    end
    local _, column = names.qualified(inner.ColumnRef and inner.ColumnRef.fields)
    action.using_cast = column == cmd.name
  end
  out[#out + 1] = action
  return action
end

function full.AT_ColumnDefault(source, cmd, out)
  local action = { kind = cmd.def and "set_default" or "drop_default", column = cmd.name }
  if cmd.def then
    action.default = expression.default(cmd.def)
    action.default.text = expression.text(source.text, cmd.def)
    local start = expression.start(cmd.def)
    action.line = start and source:line_at(start)
  end
  out[#out + 1] = action
  return action
end

function full.AT_AddConstraint(source, cmd, out)
  local made = constraint.of(source, cmd.def.Constraint)
  local action = { kind = "add_constraint", constraint = made or {}, line = made and made.line }
  out[#out + 1] = action
  return action
end

function full.AT_AddIdentity(_, cmd, out)
  local when = cmd.def.Constraint.generated_when
  local action = { kind = "add_identity", column = cmd.name, identity = when == "a" and "always" or "by default" }
  out[#out + 1] = action
  return action
end

function full.AT_SetIdentity(_, cmd, out)
  local options = default_elements(cmd.def)
  local generated = options.generated
  local action = { kind = "set_generated", column = cmd.name, options = options }
  if generated then
    action.identity = generated == 97 and "always" or "by default" -- 'a', 'd'
  end
  out[#out + 1] = action
  return action
end

local function partition(kind)
  return function(_, cmd, out)
    local def = cmd.def.PartitionCmd
    local action = {
      kind = kind, partition = names.range(def.name), concurrently = def.concurrent or nil,
      default = def.bound and def.bound.is_default or nil,
      finalize = cmd.subtype == "AT_DetachPartitionFinalize" or nil,
    }
    out[#out + 1] = action
    return action
  end
end

full.AT_AttachPartition = partition("attach_partition")
full.AT_DetachPartition = partition("detach_partition")
full.AT_DetachPartitionFinalize = partition("detach_partition")

local function inherit(kind)
  return function(_, cmd, out)
    local action = { kind = kind, parent = names.range(cmd.def.RangeVar) }
    out[#out + 1] = action
    return action
  end
end

full.AT_AddInherit = inherit("inherit")
full.AT_DropInherit = inherit("no_inherit")

function full.AT_ChangeOwner(_, cmd, out)
  out[#out + 1] = { kind = "owner", to = names.role(cmd.newowner) }
  return out[#out]
end

function full.AT_SetStorage(_, cmd, out)
  out[#out + 1] = { kind = "set_storage", column = cmd.name, to = cmd.def.String and cmd.def.String.sval:lower() }
  return out[#out]
end

function full.AT_SetStatistics(_, cmd, out)
  out[#out + 1] = {
    kind = "set_statistics", column = cmd.name, to = cmd.def and cmd.def.Integer and (cmd.def.Integer.ival or 0),
  }
  return out[#out]
end

--- One AlterTableCmd; adds one action or, for a column with constraints, several.
---@param source moonbird.policy.facts.source
---@param cmd table AlterTableCmd
---@param out table[]
function M.command(source, cmd, out)
  local action
  local simple = plain[cmd.subtype]
  if full[cmd.subtype] then
    action = full[cmd.subtype](source, cmd, out)
  elseif simple then
    action = { kind = simple[1] }
    if simple[2] then
      action[simple[2]] = cmd.name
    end
    if simple[1] == "set_options" then
      action.options = default_elements(cmd.def)
      action.reset = cmd.subtype:find("Reset", 1, true) and true or nil
    elseif simple[1] == "replica_identity" then
      local identity = cmd.def.ReplicaIdentityStmt
      action.to, action.using_index = identities[identity.identity_type], identity.name
    end
    out[#out + 1] = action
  else
    action = { kind = "other", subtype = cmd.subtype, name = cmd.name }
    out[#out + 1] = action
  end
  if cmd.behavior == "DROP_CASCADE" then
    action.cascade = true
  end
  if cmd.missing_ok then
    action[cmd.subtype == "AT_AddColumn" and "if_not_exists" or "if_exists"] = true
  end
end

--- Gives each action that the tree has no place for the line where its column or name is written next.
---@param source moonbird.policy.facts.source
---@param actions table[] in the order of the text
---@param at integer 0-based byte behind which to look
function M.locate(source, actions, at)
  if not source.text:find("\n", 1, true) then
    return
  end
  local lower, first = source.text:lower(), at + 1
  first = select(2, lower:find("^[^%s,]+", first)) or first
  for _, action in ipairs(actions) do
    local name = action.column or action.name or action.to
    if not action.line and type(name) == "string" then
      local found, behind = lower:find("%f[%w_]" .. name:lower():gsub("%W", "%%%0") .. "%f[^%w_]", first + 1)
      if found then
        action.line, first = source:line_at(found - 1), behind
      end
    end
  end
end

return M
