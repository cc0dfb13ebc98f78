--- Rights, and what gives away more of them than was meant.
local names = require "moonbird.policy.facts.names"
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

local function upper_list(list)
  return table.concat(list or {}, ", "):upper()
end

-- grant-public -----------------------------------------------------------------------------------------------

-- Kinds whose USAGE everybody has anyway.
local FREE_USAGE = { type = true, domain = true, language = true }

--- What a GRANT is on, for the message.
local function granted_on(st)
  local grant = st.grant
  if grant.default then
    return "what will be created (ALTER DEFAULT PRIVILEGES)"
  elseif grant.all_in_schemas then
    return "all of schema \"" .. table.concat(grant.all_in_schemas, "\", \"") .. "\""
  end
  local list = {}
  for _, object in ipairs(grant.objects or {}) do
    list[#list + 1] = "\"" .. names.shown(object) .. "\""
  end
  return ("%s %s"):format((st.kind or "object"):gsub("_", " "), table.concat(list, ", "))
end

local function only_free_usage(st)
  local grant = st.grant
  local kind = grant.default and grant.object_kind or st.kind
  return FREE_USAGE[kind] and #grant.privileges == 1 and (grant.privileges[1] == "usage")
end

M[#M + 1] = {
  id = "grant-public", group = "security", severity = "error",
  title = "nothing is granted to PUBLIC",
  explain = text_util.trim [[
PUBLIC is every role there is and every role that will be: the reporting tool, the intern's login, the one that an
attacker got hold of. CREATE on a schema for PUBLIC lets any of them put a function or table there that others then
call by mistake; PostgreSQL 15 took that right away from "public" for this reason. ALTER DEFAULT PRIVILEGES does
it for everything that comes.

Grant to a role of its own: `create role reader; grant select on orders to reader; grant reader to reporting`.
USAGE of types and languages, which PUBLIC has anyway, is fine, and so is REVOKE.]],
  fix = "grant it to a role of its own",
  seeds = { "ADR 0007: Review permissions and grants" },
  examples = {
    bad = [[
-- description: Let the reports read the orders
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up
grant select on orders to public;

-- migrate:down
revoke select on orders from public;
]],
    good = [[
-- description: Let the reports read the orders
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up
grant select on orders to reporting;

-- migrate:down
revoke select on orders from reporting;
]],
  },
  check = function(ctx)
    for _, st in ipairs(ctx.statements) do
      local grant = st.grant
      if grant and not grant.revoke and not grant.roles and contains(grant.grantees, "public")
        and not only_free_usage(st) then
        ctx:report(("%s on %s is granted to PUBLIC, to every role there is and will be"):format(
          upper_list(grant.privileges), granted_on(st)), { at = st })
      end
    end
  end,
}

-- grant-review ---------------------------------------------------------------------------------------------------

local function changes_rights(st)
  if st.grant then
    return true
  end
  for _, action in ipairs(st.actions or {}) do
    if action.kind == "owner" then
      return true
    end
  end
  return false
end

M[#M + 1] = {
  id = "grant-review", group = "security", severity = "info",
  title = "changes of rights are looked at twice",
  explain = text_util.trim [[
GRANT, REVOKE, ALTER DEFAULT PRIVILEGES and a new OWNER change who may see and do what. A mistake is not noticed: what
should work works, and so does what should not. A program can't tell what was meant, so this is a note, one for each
migration: somebody who knows the roles should read it.

A project that wants it to be more than a note may set `policy = { rules = { ["grant-review"] = "warning" } }`.]],
  fix = "let somebody who knows the roles read it",
  seeds = { "ADR 0007: Review permissions and grants" },
  examples = {
    bad = [[
-- description: Let the reports read the orders
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up
grant select on orders to reporting;

-- migrate:down
revoke select on orders from reporting;
]],
    good = [[
-- description: Say what the orders are, for those who read the schema
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up
comment on table orders is 'What customers bought; one row for each checkout';

-- migrate:down
comment on table orders is null;
]],
  },
  check = function(ctx)
    local first, count = nil, 0
    for _, st in ipairs(ctx.statements) do
      if changes_rights(st) then
        first, count = first or st, count + 1
      end
    end
    if first then
      ctx:report(("the migration changes rights (%s%s): it needs a second look"):format(words.place(first),
        count > 1 and (", and %d more"):format(count - 1) or ""), { at = first })
    end
  end,
}

-- superuser -------------------------------------------------------------------------------------------------------

-- Roles that are superusers by custom, or as good as one.
local MIGHTY = {}
for name in ([[postgres rds_superuser rdsadmin cloudsqlsuperuser cloudsqladmin azure_pg_admin azure_superuser
  supabase_admin neon_superuser doadmin alloydbsuperuser pg_execute_server_program pg_read_server_files
  pg_write_server_files]]):gmatch("%S+") do
  MIGHTY[name] = true
end

local function judge_role(st, tell)
  local options = st.role.options or {}
  local name = "\"" .. (st.role.name or st.name or "?") .. "\""
  if options.superuser == true then
    tell(("role %s becomes a superuser: no right is checked for it"):format(name))
  end
  if options.bypassrls == true then
    tell(("role %s gets BYPASSRLS: row security is not checked for it"):format(name), "warning")
  end
  if options.replication == true then
    tell(("role %s gets REPLICATION: it can copy the whole cluster"):format(name), "warning")
  end
end

local function judge_setting(st, tell)
  local setting = st.setting
  local becomes = (setting.name == "role" or setting.name == "session_authorization") and not setting.reset
    and setting.value and setting.value:lower()
  if becomes and MIGHTY[becomes] then
    tell(("the migration goes on as \"%s\""):format(becomes))
  end
end

local function judge_membership(st, tell)
  for _, role in ipairs(st.grant.roles) do
    if MIGHTY[role] and not st.grant.revoke then
      tell(("membership in \"%s\" is as good as being a superuser"):format(role))
    end
  end
end

M[#M + 1] = {
  id = "superuser", group = "security", severity = "error",
  title = "no migration makes a superuser or acts as one",
  explain = text_util.trim [[
For a superuser no right is checked: it reads files of the server and runs programs there. A migration that makes
one, or that works only as one, means that the pipeline's own connection has all that power, and with it everybody
who may open a pull request. On hosted servers it fails anyway. BYPASSRLS and REPLICATION (warnings) see every row of
every tenant.

Give the role the rights it needs (`grant pg_monitor to metrics`), and leave what really takes a superuser to who
runs the server, once, outside of migrations.]],
  fix = "grant the rights that are needed instead",
  seeds = {
    "ADR 0007: Review permissions and grants",
    "ADR 0007: **Safety**: Minimize risk of data loss or corruption",
  },
  examples = {
    bad = [[
-- description: The role that collects metrics of the server
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up
create role metrics login superuser;

-- migrate:down
drop role metrics;
]],
    good = [[
-- description: The role that collects metrics of the server
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up
create role metrics login nosuperuser;
grant pg_monitor to metrics;

-- migrate:down
drop role metrics;
]],
  },
  check = function(ctx)
    for _, st in ipairs(ctx.statements) do
      local function tell(message, severity)
        ctx:report(message, { at = st, severity = severity })
      end
      if st.role and (st.verb == "create" or st.verb == "alter") then
        judge_role(st, tell)
      end
      if st.verb == "set" and st.setting then
        judge_setting(st, tell)
      end
      if st.grant and st.grant.roles then
        judge_membership(st, tell)
      end
    end
  end,
}

for _, rules in ipairs {
  require "moonbird.policy.rules.security_code",
  require "moonbird.policy.rules.security_secret",
  require "moonbird.policy.rules.security_journal",
} do
  table.move(rules, 1, #rules, #M + 1, M)
end

return M
