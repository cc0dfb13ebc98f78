--- Secrets in the files of migrations.
local secrets = require "moonbird.policy.secrets"
local text_util = require "moonbird.util.text"

-- The example must be found by the rule, and by no scanner that looks through this repository.
local BAD = [[
-- description: The role that writes reports, which only reads
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up
create role reporting login password 'Tangerine-%d';

-- migrate:down
drop role reporting;
]]

return { {
  id = "secret", group = "security", severity = "error", hard = true, hides = true,
  title = "no keys, passwords or tokens in a migration",
  explain = text_util.trim [[
A migration stays in the repository, in every clone and in the journal, for ever: a secret in it is known to all
who ever had one of them, and it can't be taken out again without rewriting history. Found are keys by their form
(AWS, GitHub, GitLab, Slack, Stripe, Google, npm, SendGrid, JSON web tokens, private keys), passwords in SQL, Lua,
JSON, connection strings and URLs, hashes of passwords (bcrypt, Argon2), and what looks random behind words like token
or secret. Comments are searched too. The message never holds the secret itself. Placeholders ('changeme',
'<password>', DB_PASSWORD, {{ … }}) are none.

Create roles without a password (`create role reporting login`) and let who runs the server set it. Take what a
migration must know from a setting of the session or from a table that is filled elsewhere. A secret that was
pushed is lost: change it, then remove it. This rule can't be waived.]],
  fix = "take it out, and change it: whoever has the repository has it",
  seeds = { "ADR 0007: Never include sensitive data in migrations" },
  examples = { bad = BAD:format(4711), good = BAD:gsub(" password '[^']*'", "") },
  check = function(ctx)
    local text = ctx.migration.text
    for _, found in ipairs(secrets.find(text, { double = ctx.migration.kind == "lua" })) do
      local line = text_util.line_at(text, found.offset)
      ctx:report(("%s stands on line %d%s"):format(found.kind, line, found.shown ~= ""
        and (" (it begins with \"%s\")"):format(found.shown) or ""), { at = { line = line } })
    end
  end,
} }
