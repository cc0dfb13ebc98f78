--- Cases of the rule "secret". What looks like a key is put together here, so that no scanner takes this file for
--- one that holds a secret.
local function join(...)
  return table.concat({ ... })
end

local MIXED = "q7Rt2WvX9bN4mK8sLp3Z" -- nobody's
local AWS = join("AK", "IA", "Q7RT2WVX9BN4MK8S")
local GITHUB = join("gh", "p_", MIXED, "c5Df6Gh7Jk1Qw2Er")
local SLACK = join("xo", "xb-", "123456789012-", MIXED)
local STRIPE = join("sk", "_live_", MIXED, "c5Df")
local GOOGLE = join("AI", "za", MIXED, "c5Df6Gh7Jk1Qw2E")
local JWT = join("ey", "JhbGciOiJIUzI1NiJ9", ".ey", "JzdWIiOiIxMjM0NTY3ODkwIn0", ".", MIXED, MIXED)
local PEM = join("-----BEGIN ", "RSA PRIVATE", " KEY-----\nMIIEow", MIXED, MIXED, "\n-----END RSA PRIVATE KEY-----")
local PASSWORD = join("Tanger", "ine-4711")
-- Of nothing.
local BCRYPT = join("$2", "b$12$", "q7Rt2WvX9bN4mK8sLp3Zc.", "D6Gh7Jk1Qw2ErTy5Ui8Op/As3Df4Gh9")
local ARGON = join("$arg", "on2id$v=19$m=65536,t=3,p=4$", "q7Rt2WvX9bN4mK8s", "$",
  "D6Gh7Jk1Qw2ErTy5Ui8OpAs3Df4Gh9Jk1Qw2ErTy5Ui")
local HEX = join("9f86d081884c7d659a2f", "eaa0c55ad015a3bf4f1b")

local function insert(value)
  return ("insert into settings (name, value) values ('x', '%s');"):format(value)
end

return {
  rule = "secret",
  flagged = {
    { name = "an AWS access key", sql = insert(AWS), line = 6,
      message = "an AWS access key stands on line 6 .*\"AKIA\"" },
    { name = "a GitHub token in a comment", sql = "select 1;\n-- try it with " .. GITHUB .. ", it works",
      line = 7, message = "GitHub token" },
    { name = "a Slack token in a body of a function",
      sql = "create function f() returns text language sql as $$\n  select '" .. SLACK .. "'\n$$;", line = 7,
      message = "Slack token" },
    { name = "a Slack webhook", message = "Slack webhook",
      sql = insert("https://hooks.slack.com/" .. "services/" .. "T0Q7RT2WV/B0X9BN4MK/" .. MIXED) },
    { name = "a Stripe key in JSON", sql = insert('{"stripe": "' .. STRIPE .. '"}'), message = "Stripe" },
    { name = "a Google key", sql = insert(GOOGLE), message = "Google" },
    { name = "a JSON web token", sql = insert("Bearer " .. JWT), message = "JSON web token" },
    { name = "a private key", sql = insert(PEM), message = "private key" },
    { name = "a bcrypt hash of a password", line = 7,
      sql = "insert into users (name, login) values\n  ('a', '" .. BCRYPT .. "');",
      message = "hash of a password %(bcrypt%) stands on line 7 .*\"%$2b%$\"" },
    { name = "an Argon2 hash in Lua", message = "hash of a password %(Argon2%)", lua = ("return { description = "
      .. "\"Made up for the test of a rule\", up = function(db)\n  db:exec(\"update users set login = $1\", %q)\n"
      .. "end, irreversible = \"made up\" }"):format(ARGON) },
    { name = "the password of a role", sql = "create role app login password '" .. PASSWORD .. "';",
      message = "a password stands" },
    { name = "of a user mapping, and of a subscription",
      sql = "create user mapping for app server s options (user 'app', password '" .. PASSWORD .. "');" },
    { name = "in a connection string", header = { transaction = false },
      sql = "create subscription s connection 'host=db dbname=shop password=" .. PASSWORD .. "' publication p;" },
    { name = "in an assignment", sql = "update users set password = '" .. PASSWORD .. "' where id = 1;" },
    { name = "with a word in front", sql = "insert into settings (v) values ('{\"smtp_password\": \"" .. PASSWORD
      .. "\"}');" },
    { name = "in a URL", sql = insert("postgres://app:" .. PASSWORD .. "@db.example.org/shop"),
      message = "URL with a password" },
    { name = "random letters behind a telling word", sql = insert("api_key=" .. MIXED .. "c5Df6Gh7"),
      message = "looks like a key or token" },
    { name = "hex behind a telling word", sql = "update hooks set secret = '" .. HEX .. "' where id = 1;" },
    { name = "in the down", sql = "select 1;", down = "alter role app password '" .. PASSWORD .. "';", line = 8 },
    { name = "in a variable of a Lua migration", lua = 'local password = "' .. PASSWORD .. [["
return { description = "Made up for the test of a rule",
  up = function(db) db:exec("select set_config('app.p', $1, true)", password) end, irreversible = "made up" }]],
      line = 1, message = "a password" },
    { name = "in a comment of a Lua migration", lua = "-- " .. GITHUB .. [[

return { description = "Made up for the test of a rule", up = "select 1", irreversible = "made up" }]], line = 1 },
  },
  clean = {
    { name = "a role without a password", sql = "create role app login;\nalter role app password null;" },
    { name = "placeholders", sql = "create role a password 'changeme';\ncreate role b password '<password>';\n"
      .. "create role c password '***';\ncreate role d password '{{ app_password }}';\n"
      .. "create role e password '${APP_PASSWORD}';\ncreate role f password 'APP_PASSWORD';\n"
      .. "create role g password ':password';\ncreate role h password '%s';\ncreate role i password '';" },
    { name = "columns and checks about passwords",
      sql = "alter table users add column password_hash text, add column password_changed timestamptz;\n"
        .. "alter table users add constraint p check (password <> '' and length(password) > 8) not valid;\n"
        .. "comment on column users.password is 'never the password itself';\n"
        .. "create type login as enum ('password', 'passkey', 'token');\n"
        .. "update users set reset_password = 'pending' where id = 1;\n"

        .. "update users set password = 'locked' where id = 1;\n"
        .. "alter table users alter column password set default '';" },
    { name = "URLs without one", sql = insert("https://example.org:8080/a@b")
      .. "\n-- postgres://user:password@host/db\n"
      .. "-- postgres://app@db.example.org/shop, mailto:a@example.org, postgres://app:$DB_PASSWORD@db/shop" },
    { name = "checksums and ids that no telling word stands before",
      sql = insert(HEX) .. "\n" .. insert("3f2504e0-4f89-11d3-9a0c-0305e82c3301") },
    { name = "names behind telling words",
      sql = "create index user_authentication_token_expires_at_2024\n"
        .. "on tokens (user_authentication_token_expires_at_2024);\n"

        .. "create table api_tokens (id uuid primary key, token_sha256 bytea,\n"
        .. "  secret_rotated_at timestamptz);\n"
        .. "insert into tokens (id) values ('3f2504e0-4f89-11d3-9a0c-0305e82c3301');" },
    { name = "translations, and hashes of secrets",
      sql = insert('{"password": "Passwort", "reset_password": "Passwort vergessen?"}') .. "\n"
        .. insert('{"confirm_password": "Bestätigen"}') .. "\n-- the token's sha256: " .. HEX .. "\n"
        .. "update oauth set grant_type = 'password' where id = 1;" },
    { name = "what is no hash: a parameter, and the form of one",
      sql = "create function f(a int, b int) returns int language sql as 'select $1+$2';\n"
        .. "alter table users add constraint h check (login like '$2b$12$%' or login like '$argon2id$v=19$%')\n"
        .. "not valid;" },
    { name = "a password that is taken from elsewhere",
      sql = "select dblink_connect('c', 'host=db dbname=shop password=' || current_setting('app.password'));\n"
        .. "select f(password := current_setting('app.password'));" },
    { name = "keys from the makers' documentation", sql = insert(join("AK", "IA", "IOSFODNN7EXAMPLE")) },
    { name = "the heading of a key alone",
      sql = "alter table keys add constraint k check (pem like '-----BEGIN PRIVATE KEY-----%') not valid;" },
    { name = "a parameter of a Lua migration", lua = [[
-- password: taken from the server's setting
return { description = "Made up for the test of a rule",
  up = function(db)
    local password = db:value("select current_setting('app.password')")
    db:exec("update users set password = $1 where id = $2", password, 1)
  end, irreversible = "made up" }]] },
  },
}
