--- moonbird tenant add
local add = require "moonbird.exec.tenants.add"
local duration = require "moonbird.util.duration"
local error_ = require "moonbird.core.error"
local json_of = require "moonbird.core.json"
local project = require "moonbird.cli.project"
local resolve = require "moonbird.tenants.resolve"
local task = require "moonbird.core.task"
local tenants = require "moonbird.cli.tenants.common"
local text = require "moonbird.util.text"

local M = {}

local function usage(message, hint)
  return error_.new("usage", message, { hint = hint })
end

local function labels_of(args)
  local labels = {}
  for _, word in ipairs(args.label) do
    local key, value = word:match("^([^=]+)=(.*)$")
    if not key and (word == "" or word:find("=", 1, true)) then
      return nil, usage(("--label wants KEY=VALUE or KEY, not \"%s\""):format(word))
    end
    labels[key or word] = key and value or true
  end
  return labels
end

local MATCHES = "select $1::text like $2 and ($3::text is null or $1::text not like $3)"

local function quoted(value)
  return ("%q"):format(value):gsub("\\\n", "\\n")
end

--- The entry that a source has to have for the tenant, in Lua.
local function entry_of(tenant)
  local function key(name)
    return name:find("^[%a_][%w_]*$") and name or ("[%s]"):format(quoted(name))
  end
  local labels = {}
  for name, value in pairs(tenant.labels) do
    labels[#labels + 1] = ("%s = %s"):format(key(name), value == true and "true" or quoted(value))
  end
  table.sort(labels)
  return ("{ name = %s, schema = %s%s }"):format(quoted(tenant.name), quoted(tenant.schema), labels[1]
    and (", labels = { %s }"):format(table.concat(labels, ", ")) or "")
end

-- What is still to be done for each kind of source that does not look at schemas.
local ADVICE = {
  list = function(tenant)
    return ("add %s to tenants.list in moonbird.lua"):format(entry_of(tenant))
  end,
  file = function(tenant, source)
    return ("add %s to %s"):format(json_of.encode { name = tenant.name, schema = tenant.schema,
      labels = next(tenant.labels) and tenant.labels or nil }, source.path)
  end,
  query = function(tenant)
    return ("see to it that the statement of tenants.query gives a row of name %s, schema %s"):format(
      quoted(tenant.name), quoted(tenant.schema))
  end,
  ["function"] = function(tenant)
    return ("see to it that the function in moonbird.lua gives %s"):format(entry_of(tenant))
  end,
}

--- Whether tenants.schemas would list a schema.
local function listed_by(source, session, schema)
  local result, err = session:query(MATCHES, { schema, source.like, source.not_like }, 3)
  if not result then
    return nil, err
  end
  return result:value(1, 1)
end

local function describe(source)
  return ("tenants.schemas{ like = %s%s }"):format(quoted(source.like), source.not_like
    and (", not_like = %s"):format(quoted(source.not_like)) or "")
end

--- Which source will list a tenant that none lists yet -> what a person has still to do; "" for nothing.
local function place(settings, session, tenant, args)
  local refusal, advice
  for _, source in ipairs(settings.sources) do
    local kind = type(source) == "function" and "function" or source.source
    if kind == "schemas" then
      local matches, err = listed_by(source, session, tenant.schema)
      if err then
        return nil, err
      elseif matches and tenant.schema ~= tenant.name then
        refusal = usage("tenants.schemas names a tenant after its schema", "leave --schema out")
      elseif matches and #args.label > 0 then
        refusal = usage("tenants.schemas knows no labels", "leave --label out, or keep tenants in tenants.list")
      elseif matches then
        return ""
      else
        refusal = refusal or usage(("\"%s\" would be no tenant: %s does not list it"):format(tenant.schema,
          describe(source)), "choose a name that it matches")
      end
    elseif kind == "databases" then
      refusal = refusal or usage("tenants.databases lists databases, not schemas",
        ("make the database, then `moonbird up --tenant %s`"):format(tenant.name))
    else
      advice = advice or ADVICE[kind](tenant, source)
    end
  end
  if advice then
    return advice
  end
  return nil, refusal
end

--- The tenant that a source lists already, its schema not yet there.
local function known(survey, args)
  for _, tenant in ipairs(survey.all) do
    if tenant.name == args.name then
      if not tenant.schema then
        return nil, usage(("tenant \"%s\" is a database of its own"):format(tenant.name),
          ("make the database, then `moonbird up --tenant %s`"):format(tenant.name))
      elseif args.schema and args.schema ~= tenant.schema then
        return nil, usage(("tenant \"%s\" has the schema \"%s\", says %s"):format(tenant.name, tenant.schema,
          tenant.from), "leave --schema out")
      elseif #args.label > 0 then
        return nil, usage(("%s lists \"%s\" already, with its labels"):format(tenant.from, tenant.name),
          "leave --label out")
      end
      return tenant
    end
  end
end

local function made_up(survey, settings, session, args)
  local labels, err = labels_of(args)
  if not labels then
    return nil, err
  end
  local tenant = { name = args.name, schema = args.schema or args.name, vars = {}, labels = labels,
    from = "tenant add" }
  local wrong = resolve.problem(tenant)
  if wrong then
    return nil, usage(wrong)
  end
  for _, other in ipairs(survey.all) do
    if not other.where and other.schema == tenant.schema then
      return nil, usage(("the schema \"%s\" is tenant \"%s\"'s"):format(tenant.schema, other.name))
    end
  end
  local advice
  advice, err = place(settings, session, tenant, args)
  if not advice then
    return nil, err
  end
  local ok
  ok, err = survey:adopt(tenant)
  return ok and tenant, err, advice ~= "" and advice or nil
end

local function work(args, report, run, target, entries, settings, gate)
  return tenants.with_survey({}, run, target, settings, { check_schemas = false }, function(survey)
    local advice
    local tenant, err = known(survey, args)
    if not tenant and not err then
      tenant, err, advice = made_up(survey, settings, target.session, args)
    end
    if not tenant then
      return nil, err
    end
    local ok
    ok, err = tenants.ensure_journal(run, target)
    if ok then
      ok, err = survey:read_states()
    end
    if not ok then
      return nil, err
    end
    local migrations, alike = add.migrations(survey, tenant.name, entries, target, gate.allow)
    if not migrations then
      return nil, alike
    end
    local started = task.now()
    local done
    done, err = add.run(survey, tenant, migrations, { gate = gate, alike = alike, entries = entries })
    if not done then
      return nil, err
    end
    report:print(("%s %s: schema %s, %s in %s"):format(report.out.green("added"), tenant.name, tenant.schema,
      text.count(done.steps, "migration"), duration.format(task.now() - started)))
    if advice then
      report:print("still to do: " .. advice)
    end
    return { action = "add", tenant = tenant.name, schema = tenant.schema, steps = done.steps,
      transactions = done.transactions, to_do = advice }
  end)
end

--- Makes a tenant's schema and brings it to where the others are.
---@param args table
---@param report moonbird.reporter
---@return table|nil
---@return moonbird.error? err
function M.run(args, report)
  local conf, settings, gate, err = tenants.gated(args, true)
  if err then
    return nil, err
  end
  return project.with_target(args, report, { config = conf, files = true }, function(run, target, entries)
    run.gate = gate
    return work(args, report, run, target, entries, settings, gate)
  end)
end

return M
