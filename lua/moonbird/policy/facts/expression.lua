--- What can be said of an expression without a server: is it a constant, volatile, always true; where does
--- its text stand.
local names = require "moonbird.policy.facts.names"

local M = {}

-- The server's functions that give another value for each row (pg_proc.provolatile = 'v'), and those of the
-- extensions that people use in defaults. What is in neither list is not known.
M.volatile = {}
for name in ([[
  clock_timestamp currval gen_random_bytes gen_random_uuid lastval nextval pg_backend_pid pg_sleep random
  random_normal setval setseed timeofday txid_current pg_current_xact_id uuid_generate_v1 uuid_generate_v1mc
  uuid_generate_v4 uuidv4 uuidv7 uuid_generate_v7 lo_create
]]):gmatch("%S+") do
  M.volatile[name] = true
end

-- Stable or immutable ones: evaluated once for a whole ALTER TABLE … ADD COLUMN.
M.steady = {}
for name in ([[
  abs array_append array_cat array_fill array_length array_prepend array_to_string ascii btrim cardinality
  ceil ceiling chr concat concat_ws convert_from convert_to current_database current_query current_schema
  current_schemas current_setting date date_part date_trunc decode encode extract floor format greatest hashtext
  initcap inet json_array json_build_array json_build_object json_object jsonb_array jsonb_build_array
  jsonb_build_object jsonb_object least left length localtimestamp lower lpad ltrim make_date make_interval
  make_time make_timestamp make_timestamptz md5 mod now nullif numeric overlay position power regexp_replace
  repeat replace reverse right round row_to_json rpad rtrim sha256 sign split_part sqrt statement_timestamp
  string_to_array strpos substr substring timezone to_char to_date to_json to_jsonb to_number to_timestamp
  to_tsvector transaction_timestamp translate trim trunc upper xmlelement
]]):gmatch("%S+") do
  M.steady[name] = true
end

local function is_constant(node)
  if node.A_Const then
    return true
  elseif node.TypeCast then
    return is_constant(node.TypeCast.arg)
  elseif node.A_ArrayExpr or node.RowExpr then
    local inner = node.A_ArrayExpr or node.RowExpr
    for _, element in ipairs(inner.elements or inner.args or {}) do
      if not is_constant(element) then
        return false
      end
    end
    return true
  elseif node.CollateClause then
    return is_constant(node.CollateClause.arg)
  end
  return false
end

--- true: volatile; false: not; nil: calls something that is not known.
local function volatility(node)
  local known = false
  local call = node.FuncCall or rawget(node, "funcname") and node
  if call then
    local schema, name = names.qualified(call.funcname)
    local own = schema == nil or schema == "pg_catalog"
    if M.volatile[name] then
      return true
    elseif not (own and M.steady[name]) then
      known = nil
    end
  elseif node.SubLink then
    known = nil
  end
  for _, value in pairs(node) do
    if type(value) == "table" then
      local inner = volatility(value)
      if inner then
        return true
      elseif inner == nil then
        known = nil
      end
    end
  end
  return known
end

--- A default as { volatile, constant, null, calls }.
---@param node table expression
---@return { volatile?: boolean, constant: boolean, null?: boolean, text?: string }
function M.default(node)
  if is_constant(node) then
    return { volatile = false, constant = true, null = node.A_Const and node.A_Const.isnull or nil }
  end
  return { volatile = volatility(node), constant = false }
end

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then
    return a == b
  end
  for key, value in pairs(a) do
    if key ~= "location" and not same(value, b[key]) then
      return false
    end
  end
  for key in pairs(b) do
    if key ~= "location" and a[key] == nil then
      return false
    end
  end
  return true
end

local truth -- true, false, or nil when it depends on the row

local function truth_of_bool(expr)
  local is_and = expr.boolop == "AND_EXPR"
  if expr.boolop == "NOT_EXPR" then
    local inner = truth(expr.args[1])
    if inner == nil then
      return nil
    end
    return not inner
  end
  local all = true
  for _, arg in ipairs(expr.args) do
    local value = truth(arg)
    if value ~= nil and value ~= is_and then
      return value -- false AND x, true OR x
    elseif value == nil then
      all = false
    end
  end
  if all then
    return is_and
  end
  return nil
end

function truth(node)
  local const = node.A_Const
  if const then
    if const.boolval then
      return const.boolval.boolval == true
    elseif const.sval then
      local word = (const.sval.sval or ""):lower()
      return (word == "t" or word == "true") or nil
    end
    return nil
  elseif node.TypeCast then
    return truth(node.TypeCast.arg)
  elseif node.BoolExpr then
    return truth_of_bool(node.BoolExpr)
  elseif node.A_Expr and node.A_Expr.kind == "AEXPR_OP" then
    local _, operator = names.qualified(node.A_Expr.name)
    local left, right = node.A_Expr.lexpr, node.A_Expr.rexpr
    if not left or not right then
      return nil
    elseif (operator == "=" or operator == "<=" or operator == ">=") and same(left, right) then
      return true
    elseif operator == "<>" and left.A_Const and right.A_Const and not same(left, right) then
      return true
    end
  end
  return nil
end

--- What a WHERE says: "none", "always" or "some".
---@param node? table
---@return "none"|"always"|"some"
function M.where(node)
  if not node then
    return "none"
  end
  return truth(node) and "always" or "some"
end

--- The smallest location (0-based byte) below a node.
---@param node table
---@return integer?
function M.start(node)
  local least
  local at = rawget(node, "location")
  if type(at) == "number" and at >= 0 then
    least = at
  end
  for _, value in pairs(node) do
    if type(value) == "table" then
      local inner = M.start(value)
      if inner and (not least or inner < least) then
        least = inner
      end
    end
  end
  return least and math.tointeger(least)
end

-- Where the quoted thing that begins at `at` ends.
local function skip_quoted(text, at, char)
  if char == "'" or char == "\"" then
    local stop = text:find(char, at + 1, true)
    return stop or #text
  elseif char == "$" then
    local tag = text:match("^%$[%w_]*%$", at)
    if tag then
      local _, stop = text:find(tag, at + #tag, true)
      return stop or #text
    end
  elseif char == "-" and text:sub(at + 1, at + 1) == "-" then
    return text:find("\n", at, true) or #text
  elseif char == "/" and text:sub(at + 1, at + 1) == "*" then
    local _, stop = text:find("*/", at, true)
    return stop or #text
  end
  return at
end

--- The text from byte `first` (1-based) to the comma or closing parenthesis that ends it, or to `limit`.
---@param text string
---@param first integer
---@param limit? integer last byte
---@return string
function M.slice(text, first, limit)
  local depth, at = 0, first
  limit = limit or #text
  while true do
    at = text:find("[][(),'\"$/-]", at) or limit + 1
    if at > limit then
      break
    end
    local char = text:sub(at, at)
    if char == "(" or char == "[" then
      depth = depth + 1
    elseif char == ")" or char == "]" then
      depth = depth - 1
      if depth < 0 then
        break
      end
    elseif char == "," and depth == 0 then
      break
    else
      at = skip_quoted(text, at, char)
    end
    at = at + 1
  end
  return (text:sub(first, math.min(at - 1, limit)):match("^%s*(.-)%s*$"))
end

--- The text of the parenthesis that opens at or after byte `first`, without it.
---@param text string
---@param first integer
---@return string?
function M.parenthesis(text, first)
  local open = text:find("(", first, true)
  return open and M.slice(text, open + 1) or nil
end

--- The text of an expression that ends at a comma: what ALTER … SET DEFAULT and USING take.
---@param text string
---@param node table
---@return string?
function M.text(text, node)
  local start = M.start(node)
  if not start then
    return nil
  end
  local first = start + 1
  while true do -- parentheses and signs around it have no location
    local before = text:sub(1, first - 1):match("^.*()%(%s*$")
    if not before then
      break
    end
    first = before
  end
  return M.slice(text, first)
end

return M
