--- `moonbird deploy`: waiting, what it ends with, and the diagnostics it leaves behind, however it ends.
-- The same on every server.
local fs = require "moonbird.core.fs"
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local process = require "moonbird.core.process"
local sys = require "moonbird.core.sys"
local task = require "moonbird.core.task"
local texts = require "tests.texts"
local async = helper.async
local has, lacks = texts.has, texts.lacks

local PASSWORD = "pa55-w0rd-of-nobody"

local HEAD = [[
-- description: Made up for the test of a deployment
-- phase: expand
-- scope: global
-- compatibility: backward_compatible
-- purpose: the test of a deployment
-- owner: nobody
-- migrate:up
%s
-- migrate:down
%s
]]

local function expand(up, down)
  return HEAD:format(up, down)
end

local USERS = expand("create table users (id bigint primary key, fullname text);", "drop table users;")
local EMAIL = expand("alter table users add column email text;", "alter table users drop column email;")
local BROKEN = expand("create table half (id bigint primary key);\nselect * from nowhere;", "drop table half;")
local BREAKING = expand("alter table users drop column fullname;", "alter table users add column fullname text;")
local SLEEP = expand("create table sleepy (id bigint primary key);\nselect pg_sleep(30);", "drop table sleepy;")

--- The tester's own CI must not decide anything.
local CLEAN = { CI = false, GITHUB_ACTIONS = false, GITHUB_STEP_SUMMARY = false, GITHUB_SHA = false }

describe("deploy", function()
  local db, dir, artifact

  before_each(async(function()
    db = helper.database()
    dir = helper.project { ["migrations/001_users.sql"] = USERS }
    artifact = dir .. "/out/of/the/run.json"
  end))

  local function url_with_password(database)
    local params = database.params
    return ("postgresql://%s:%s@/%s?host=%s&port=%s"):format(params.user, PASSWORD, database.name,
      params.host:gsub("/", "%%2F"), params.port)
  end

  local function options_of(options)
    local all = { cwd = dir, env = {} }
    for name, value in pairs(CLEAN) do
      all.env[name] = value
    end
    all.env.DATABASE_URL = url_with_password(db)
    for key, value in pairs(options or {}) do
      if key == "env" then
        for name, setting in pairs(value) do
          all.env[name] = setting
        end
      else
        all[key] = value
      end
    end
    return all
  end

  local function deploy(status, args, options)
    local all = options_of(options)
    all.status = status
    return helper.ok(args[1] == "--json" and args or { "deploy", table.unpack(args) }, all)
  end

  --- The diagnostics; holds no password, whatever the run met.
  local function diagnostics()
    local text = assert(fs.read(artifact))
    lacks(text, PASSWORD)
    local data = assert(json.decode(text))
    assert.are.equal(1, data.format)
    assert.are.equal("deploy", data.command)
    assert.is_string(data.versions.moonbird)
    assert.is_truthy(data.started_at:match("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%dZ$"))
    assert.are.equal("integer", math.type(data.duration_ms))
    return data
  end

  describe("ends with", function()
    it("0 when all is applied, and does nothing the second time", async(function()
      helper.write(dir, { ["migrations/002_email.sql"] = EMAIL })
      deploy(0, {})
      local events = db:value "select count(*) from moonbird.journal"
      local again = json.decode(deploy(0, { "--json", "deploy" }).stdout)
      assert.are.equal(0, #again.steps)
      assert.are.equal(2, again.status.applied)
      assert.are.equal(events, db:value "select count(*) from moonbird.journal")
    end))

    it("1 when a statement fails; nothing of that migration stays", async(function()
      helper.write(dir, { ["migrations/002_broken.sql"] = BROKEN })
      has(deploy(1, {}).stderr, "nowhere")
      assert.is_nil(db:value "select to_regclass('half')::text")
      assert.are.equal("users", db:value "select to_regclass('users')::text")
    end))

    it("3 when there is no server in the time given", async(function()
      local began = sys.monotonic()
      deploy(3, { "--wait", "600ms" }, { env = { DATABASE_URL = "postgres:///x?host=" .. dir } })
      local took = sys.monotonic() - began
      assert.is_true(took >= 0.5 and took < 5, took .. " s")
    end))

    it("6 when the policy refuses, with everything as it was", async(function()
      helper.write(dir, { ["migrations/002_drop.sql"] = BREAKING })
      has(deploy(6, {}).stderr, "expand-breaking")
      assert.is_nil(db:value "select to_regclass('users')::text")
      assert.is_nil(db:value "select to_regnamespace('moonbird')::text")
    end))

    it("6 when an applied file was changed, also with nothing else to do", async(function()
      deploy(0, {})
      helper.write(dir, { ["migrations/001_users.sql"] = USERS .. "-- a word more\n" })
      deploy(6, {})
    end))

    it("2 when the command line or moonbird.lua is wrong", async(function()
      deploy(2, { "--artefact", "x" })
      helper.write(dir, { ["moonbird.lua"] = "return { policy = { rules = { [\"no-such-rule\"] = \"off\" } } }" })
      has(deploy(2, {}).stderr, "no-such-rule")
      assert.is_nil(db:value "select to_regclass('users')::text")
    end))
  end)

  it("holds contract migrations back, and is content", async(function()
    helper.write(dir, { ["migrations/002_drop.sql"] = BREAKING:gsub("phase: expand", "phase: contract")
      :gsub("backward_compatible", "contract_breaking"):gsub("%-%- migrate:up", "-- completes: 1\n"
      .. "-- rationale: nobody reads it any more\n-- data_preservation: copied before\n%0"),
      ["migrations/003_email.sql"] = EMAIL })
    local answer = json.decode(deploy(0, { "--json", "deploy", "--artifact", artifact }).stdout)
    assert.are.equal(2, #answer.steps)
    assert.are.equal("002_drop", answer.held[1].id)
    assert.are.equal("002_drop", diagnostics().plan.held[1].id)
    deploy(0, {})
    deploy(0, { "--allow-contract" })
    assert.are.equal(2, db:value "select count(*) from moonbird.state where target = 'global' and applies")
    deploy(0, { "--allow-contract", "--allow-breaking" })
    assert.are.equal(3, db:value "select count(*) from moonbird.state where target = 'global' and applies")
  end))

  it("stops at --to, and is content with what comes after", async(function()
    helper.write(dir, { ["migrations/002_email.sql"] = EMAIL })
    deploy(0, { "--to", "1" })
    assert.are.equal(1, db:value "select count(*) from moonbird.state where target = 'global' and applies")
    deploy(2, { "--to", "7" })
  end))

  describe("waits", function()
    local socket

    --- A folder in which the server's socket appears later.
    local function folder()
      local params = db.params
      socket = "/.s.PGSQL." .. params.port
      return ("postgres://%s@/%s?host=%s&port=%s"):format(params.user, db.name, dir, params.port)
    end

    local function appear()
      local child <close> = assert(process.spawn { file = "ln",
        args = { "-s", db.params.host .. socket, dir .. socket } })
      assert.are.equal(0, assert(child:wait(5000)).status)
    end

    it("for a server that comes two seconds later", async(function()
      local child = helper.spawn({ "deploy", "--artifact", artifact }, options_of { env = { DATABASE_URL = folder() } })
      assert.is_false(child:wait(2000))
      appear()
      local result = child:wait(20000)
      assert.are.equal(0, result.status, result.stderr)
      has(result.stderr, "waiting for the server")
      assert.are.equal("users", db:value "select to_regclass('users')::text")
      assert.is_true(diagnostics().duration_ms >= 1900)
    end))

    it("no longer than MIGRATION_TIMEOUT_SECONDS", async(function()
      local began = sys.monotonic()
      deploy(3, {}, { env = { DATABASE_URL = folder(), MIGRATION_TIMEOUT_SECONDS = "1" } })
      local took = sys.monotonic() - began
      assert.is_true(took >= 0.9 and took < 5, took .. " s")
    end))

    it("and the time it waited is taken from the run's", async(function()
      helper.write(dir, { ["migrations/002_sleep.sql"] = SLEEP })
      local began = sys.monotonic()
      local child = helper.spawn({ "deploy", "--artifact", artifact }, options_of { env = { DATABASE_URL = folder(),
        MIGRATION_TIMEOUT_SECONDS = "3" } })
      task.sleep(1500)
      appear()
      local result = child:wait(20000)
      local took = sys.monotonic() - began
      assert.are.equal(1, result.status, result.stderr)
      assert.is_true(took < 4.5, took .. " s")
      assert.are.equal("timeout", diagnostics().error.code)
      assert.is_nil(db:value "select to_regclass('sleepy')::text")
    end))

    it("also where something listens that never answers", async(function()
      local child = assert(process.spawn { file = "python3", stdin = "", args = { "-c", [[
import socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen(20)
time.sleep(30)
]], dir .. "/.s.PGSQL.5999" } })
      helper.defer(function()
        child:kill("KILL")
        child:wait()
        child:close()
      end)
      helper.eventually("it listens", function()
        return fs.stat(dir .. "/.s.PGSQL.5999")
      end)
      local began = sys.monotonic()
      deploy(3, { "--artifact", artifact }, { env = { DATABASE_URL = "postgres://x@/x?host=" .. dir .. "&port=5999",
        MIGRATION_TIMEOUT_SECONDS = "2" } })
      local took = sys.monotonic() - began
      assert.is_true(took < 5, took .. " s")
    end))

    it("until it is told to stop", async(function()
      local child = helper.spawn({ "deploy", "--artifact", artifact }, options_of { env = { DATABASE_URL = folder() } })
      helper.eventually("the artifact is begun", function()
        return fs.stat(artifact)
      end)
      task.sleep(300)
      assert(child:kill("TERM"))
      local result = child:wait(10000)
      assert.are.equal(130, result.status, result.stderr)
      assert.are.equal("interrupted", diagnostics().state)
    end))
  end)

  it("is bounded by MIGRATION_TIMEOUT_SECONDS; what ran is rolled back", async(function()
    helper.write(dir, { ["migrations/002_sleep.sql"] = SLEEP })
    local began = sys.monotonic()
    deploy(1, { "--artifact", artifact }, { env = { MIGRATION_TIMEOUT_SECONDS = "1" } })
    assert.is_true(sys.monotonic() - began < 5)
    local data = diagnostics()
    assert.are.equal("timeout", data.error.code)
    assert.are.equal("1", data.environment.variables.MIGRATION_TIMEOUT_SECONDS)
    assert.are.equal("failed", data.steps[2].outcome)
    assert.is_nil(db:value "select to_regclass('sleepy')::text")
  end))

  describe("writes its diagnostics", function()
    it("in full when it succeeds", async(function()
      helper.write(dir, { ["migrations/002_email.lua"] = [[
return {
  description = "Let users have an e-mail address",
  phase = "expand",
  scope = "global",
  compatibility = "backward_compatible",
  up = function(db)
    db:exec("alter table users add column email text")
  end,
  down = function(db)
    db:exec("alter table users drop column email")
  end,
}
]] })
      deploy(0, { "--artifact", artifact, "--lock-timeout", "3s" }, { env = { PGPASSWORD = PASSWORD,
        GITHUB_SHA = "0123abc", GITHUB_TOKEN = PASSWORD, AWS_SECRET_ACCESS_KEY = PASSWORD } })
      local data = diagnostics()
      assert.is_true(data.ok)
      assert.are.equal("done", data.state)
      assert.are.equal(3000, data.inputs.lock_timeout_ms)
      assert.is_false(data.inputs.allow_contract)
      assert.are.equal("0123abc", data.environment.variables.GITHUB_SHA)
      assert.are.equal(db.name, data.environment.database.dbname)
      assert.is_string(data.versions.server)
      assert.are.equal(2, #data.plan.steps)
      assert.are.equal("001_users", data.plan.steps[1].id)
      assert.are.equal("expand", data.plan.steps[1].phase)
      assert.are.equal(64, #data.plan.steps[1].checksum)
      assert.are.equal(2, #data.steps)
      for _, step in ipairs(data.steps) do
        assert.are.equal("done", step.outcome)
        assert.are.equal("integer", math.type(step.duration_ms))
      end
      assert.are.same({ { tag = "CREATE TABLE", class = "plain", line = 8, transaction = true } },
        data.steps[1].statements)
      assert.are.equal(7, data.steps[2].statements[1].line)
      assert.are.equal("table", type(data.policy.findings))
      assert.are.equal("table", type(data.lock_waits))
      assert.is_nil(data.error)
      assert.are.equal(data.run, db:value "select max(run) from moonbird.journal")
    end))

    it("when a statement fails", async(function()
      helper.write(dir, { ["migrations/002_broken.sql"] = BROKEN })
      deploy(1, { "--artifact", artifact })
      local data = diagnostics()
      assert.is_false(data.ok)
      assert.are.equal("failed", data.state)
      assert.are.equal("42P01", data.error.sqlstate)
      assert.are.equal("migrations/002_broken.sql", data.error.file)
      assert.are.equal(9, data.error.line)
      assert.are.equal("done", data.steps[1].outcome)
      assert.are.equal("failed", data.steps[2].outcome)
      assert.are.equal("42P01", data.steps[2].error.sqlstate)
    end))

    it("when the policy refuses, with what it found", async(function()
      helper.write(dir, { ["migrations/002_drop.sql"] = BREAKING })
      deploy(6, { "--artifact", artifact })
      local data = diagnostics()
      assert.are.equal("policy", data.error.code)
      local found
      for _, finding in ipairs(data.policy.findings) do
        found = found or finding.rule == "expand-breaking" and finding
      end
      assert.is_table(found)
      assert.are.equal("migrations/002_drop.sql", found.file)
      assert.are.equal(8, found.line)
      assert.are.equal("error", found.severity)
    end))

    it("with the waivers that were used", async(function()
      helper.write(dir, { ["migrations/002_drop.sql"] = (BREAKING:gsub("\nalter table users drop",
        "\n-- moonbird:allow expand-breaking until=2999-12-31 reason=\"nobody reads it\" ticket=OPS-1"
        .. "\n-- moonbird:allow data-note until=2999-12-31 reason=\"nobody reads it\"%0")) })
      deploy(0, { "--artifact", artifact })
      local by_rule = {}
      for _, waiver in ipairs(diagnostics().policy.waivers) do
        by_rule[waiver.rule] = waiver
      end
      assert.are.equal("used", by_rule["expand-breaking"].state)
      assert.are.equal("OPS-1", by_rule["expand-breaking"].ticket)
      assert.are.equal("nobody reads it", by_rule["expand-breaking"].reason)
    end))

    it("when the server is not there", async(function()
      deploy(3, { "--artifact", artifact, "--wait", "300ms" }, { env = {
        DATABASE_URL = ("postgres://u:%s@/x?host=%s"):format(PASSWORD, dir) } })
      local data = diagnostics()
      assert.are.equal("failed", data.state)
      assert.are.equal("connect", data.error.code)
    end))

    it("when the database is not there", async(function()
      deploy(3, { "--artifact", artifact }, { env = { DATABASE_URL = url_with_password {
        name = "nowhere_" .. db.name, params = db.params } } })
      assert.are.equal("connect", diagnostics().error.code)
    end))

    it("when moonbird.lua is broken", async(function()
      helper.write(dir, { ["moonbird.lua"] = "return { urll = 1 }" })
      deploy(2, { "--artifact", artifact })
      assert.are.equal("config", diagnostics().error.code)
    end))

    it("when a migration file is broken", async(function()
      helper.write(dir, { ["migrations/002_x.lua"] = "return {" })
      local result = helper.moonbird({ "deploy", "--artifact", artifact }, options_of())
      assert.are_not.equal(0, result.status)
      assert.are.equal("migration_file", diagnostics().error.code)
    end))

    it("when it is refused outside the pipeline, with the finding", async(function()
      helper.write(dir, { ["moonbird.lua"] = "return { protected = true }" })
      deploy(6, { "--artifact", artifact, "--junit", dir .. "/junit.xml", "--sarif", dir .. "/out.sarif" })
      local data = diagnostics()
      assert.are.equal("policy", data.error.code)
      assert.is_true(data.environment.protected)
      assert.are.equal("protected-run", data.policy.findings[1].rule)
      has(assert(fs.read(dir .. "/junit.xml")), "protected-run")
      has(assert(fs.read(dir .. "/out.sarif")), "protected-run")
    end))

    it("what only the database knows: an index on an empty table is no error, one on a full table is", async(function()
      helper.write(dir, { ["migrations/002_index.sql"] = HEAD:format("create index pets_name on pets (name);",
        "drop index pets_name;") })
      db:exec "create table pets (name text); insert into pets values ('cat')"
      local refused = helper.moonbird({ "deploy" }, options_of())
      assert.are.equal(6, refused.status, refused.stderr)
      has(refused.stderr, "index-concurrently")
      db:exec "truncate pets"
      helper.ok({ "deploy" }, options_of())
    end))

    it("when a signal ends it during a long statement", async(function()
      helper.write(dir, { ["migrations/002_sleep.sql"] = SLEEP, ["migrations/003_email.sql"] = EMAIL })
      local child = helper.spawn({ "deploy", "--artifact", artifact }, options_of())
      helper.eventually("it sleeps", function()
        return db:value "select count(*) from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()"
          == 1
      end)
      local running = helper.eventually("the file knows of it", function()
        local data = diagnostics()
        return data.steps[2] and data
      end)
      assert.are.equal("running", running.state)
      assert.are.equal("running", running.steps[2].outcome)
      assert(child:kill("TERM"))
      local result = child:wait(10000)
      assert.are.equal(130, result.status, result.stderr)
      local data = diagnostics()
      assert.is_false(data.ok)
      assert.are.equal("interrupted", data.state)
      assert.are.equal("interrupted", data.error.code)
      assert.are.equal("done", data.steps[1].outcome)
      assert.are.equal("failed", data.steps[2].outcome)
      assert.are.equal(2, #data.steps)
      assert.are.equal(3, #data.plan.steps)
      assert.is_string(data.finished_at)
      assert.is_nil(db:value "select to_regclass('sleepy')::text")
    end))

    it("as far as it knew when it is killed", async(function()
      helper.write(dir, { ["migrations/002_sleep.sql"] = SLEEP })
      local child = helper.spawn({ "deploy", "--artifact", artifact }, options_of())
      local pid = helper.eventually("it sleeps", function()
        return db:value "select pid from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()"
      end)
      helper.eventually("the file knows of it", function()
        return diagnostics().steps[2]
      end)
      assert(child:kill("KILL"))
      child:wait(10000)
      local data = diagnostics()
      assert.are.equal("running", data.state)
      assert.is_false(data.ok)
      assert.are.equal("done", data.steps[1].outcome)
      assert.are.equal("running", data.steps[2].outcome)
      db:value("select pg_terminate_backend($1)", pid)
    end))

    it("with who held the table lock that it waited for", async(function()
      helper.write(dir, { ["migrations/002_email.sql"] = EMAIL })
      deploy(0, { "--to", "1" })
      local reader = db:connect { application_name = "quarterly-report" }
      assert(reader:simple "begin; select count(*) from users")
      deploy(5, { "--artifact", artifact, "--lock-timeout", "400ms" }, { env = { MOONBIRD_LOCK_TOTAL = "1500ms" } })
      local data = diagnostics()
      local step = data.steps[1]
      assert.are.equal("002_email", step.id)
      assert.is_true(#step.attempts >= 1)
      assert.are.equal("55P03", step.attempts[1].sqlstate)
      assert.are.equal("quarterly-report", step.attempts[1].blockers[1].application)
      assert.are.equal(reader:pid(), step.attempts[1].blockers[1].pid)
      assert.are.equal("quarterly-report", data.error.blockers[1].application)
    end))

    it("with a wait for a table lock that ended well", async(function()
      helper.write(dir, { ["migrations/002_email.sql"] = EMAIL })
      deploy(0, { "--to", "1" })
      local reader = db:connect { application_name = "quarterly-report" }
      assert(reader:simple "begin; select count(*) from users")
      local child = helper.spawn({ "deploy", "--artifact", artifact, "--lock-timeout", "20s" }, options_of())
      helper.eventually("it waits", function()
        return db:value "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()" == 1
      end)
      task.sleep(700)
      assert(reader:simple "commit")
      assert.are.equal(0, child:wait(20000).status)
      diagnostics()
      has(assert(fs.read(artifact)), "quarterly-report")
    end))

    it("with who kept CREATE INDEX CONCURRENTLY waiting", async(function()
      helper.write(dir, { ["migrations/002_index.sql"] = (EMAIL:gsub("migrate:(%a+)\n[^\n]*\n", {
        up = "migrate:up transaction:false\ncreate index concurrently if not exists users_n on users (fullname);\n",
        down = "migrate:down transaction:false\ndrop index concurrently if exists users_n;\n" })) })
      deploy(0, { "--to", "1" })
      local reader = db:connect { application_name = "quarterly-report" }
      assert(reader:simple "begin; insert into users values (1)")
      local child = helper.spawn({ "deploy", "--artifact", artifact, "--lock-timeout", "20s" }, options_of())
      helper.eventually("it waits", function()
        return db:value "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()" > 0
      end)
      task.sleep(1500)
      assert(reader:simple "commit")
      local result = child:wait(20000)
      assert.are.equal(0, result.status, result.stderr)
      local step = diagnostics().steps[1]
      assert.is_false(step.transactional)
      has(assert(fs.read(artifact)), "quarterly-report")
    end))

    it("without what a blocker's statement says of a password", async(function()
      helper.write(dir, { ["migrations/002_email.sql"] = EMAIL })
      deploy(0, { "--to", "1" })
      local other = db:connect { application_name = "admin" }
      assert(other:simple("begin; lock table users; select 'postgres://app:" .. PASSWORD .. "@db/x'"))
      deploy(5, { "--artifact", artifact, "--lock-timeout", "300ms" }, { env = { MOONBIRD_LOCK_TOTAL = "800ms" } })
      assert.are.equal("admin", diagnostics().steps[1].attempts[1].blockers[1].application)
    end))

    it("with the runner it waited for", async(function()
      helper.write(dir, { ["migrations/002_email.sql"] = EMAIL:gsub("migrate:up\n", "%0select pg_sleep(2);\n") })
      deploy(0, { "--to", "1" })
      local first = helper.spawn({ "up" }, options_of())
      local pid = helper.eventually("the other runner sleeps", function()
        return db:value "select pid from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()"
      end)
      deploy(0, { "--artifact", artifact })
      assert.are.equal(0, first:wait(20000).status)
      local data = diagnostics()
      assert.are.equal(pid, data.lock_waits[1].pid)
      has(data.lock_waits[1].application, "moonbird/up")
      assert.are.equal("global", data.lock_waits[1].target)
      assert.is_true(data.ok)
      assert.are.equal(2, data.result.status.applied)
    end))

    it("masks a password that a migration's text holds", async(function()
      helper.write(dir, { ["migrations/002_role.sql"] = expand(
        "create role app_of_nobody login password '" .. PASSWORD .. "';", "drop role app_of_nobody;") })
      local result = helper.moonbird({ "deploy", "--artifact", artifact, "--sarif", dir .. "/out.sarif", "--junit",
        dir .. "/junit.xml" }, options_of())
      assert.are.equal(6, result.status)
      diagnostics()
      for _, name in ipairs { "/out.sarif", "/junit.xml" } do
        lacks(assert(fs.read(dir .. name)), PASSWORD)
      end
      lacks(result.stdout .. result.stderr, PASSWORD)
    end))

    it("where an error quotes a URL with a password, without it", async(function()
      helper.write(dir, { ["migrations/002_url.lua"] = ([[
return {
  description = "Fail with a URL in the message",
  phase = "expand",
  scope = "global",
  compatibility = "backward_compatible",
  up = function(db)
    error("can't reach postgres://app:" .. "%s" .. "@db.example.org/x", 0)
  end,
  down = function(db)
    db:exec("select 1")
  end,
}
]]):format(PASSWORD) })
      local result = helper.moonbird({ "deploy", "--artifact", artifact }, options_of())
      assert.are.equal(1, result.status)
      diagnostics()
    end))
  end)

  describe("with an artifact that can't be written", function()
    local function untouched()
      assert.is_nil(db:value "select to_regclass('users')::text")
      assert.is_nil(db:value "select to_regclass('moonbird.journal')::text")
    end

    it("is refused before anything runs, whatever else is wrong", async(function()
      helper.write(dir, { blocked = "a file, no folder", ["migrations/002_drop.sql"] = BREAKING })
      for _, path in ipairs { "blocked/run.json", "/proc/run.json" } do
        local result = helper.moonbird({ "--json", "deploy", "--artifact", path, "--junit", "junit.xml" }, options_of())
        assert.are.equal(1, result.status)
        local answer = json.decode(result.stdout)
        assert.are.equal("io", answer.error.code)
        has(answer.error.message, "the artifact can't be written")
        has(answer.error.hint, "nothing was run")
        lacks(result.stderr, "policy")
        has(assert(fs.read(dir .. "/junit.xml")), "the artifact can&apos;t be written")
        untouched()
      end
      helper.ok({ "ci", "--artifact", "/proc/run.json" }, options_of { status = 1 })
    end))

    it("is not in the way of a folder of that name", async(function()
      assert(fs.mkdir(dir .. "/folder"))
      local result = helper.moonbird({ "deploy", "--artifact", "folder" }, options_of())
      assert.are.equal(1, result.status)
      untouched()
      assert.are.equal("dir", fs.stat(dir .. "/folder").type)
    end))

    --- Deploys with a folder that is gone half-way.
    local function lose_it(sql)
      helper.write(dir, { ["migrations/002_slow.sql"] = expand(sql, "drop table slow;") })
      local child = helper.spawn({ "--json", "deploy", "--artifact", artifact }, options_of())
      helper.eventually("it sleeps", function()
        return db:value "select count(*) from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()"
          == 1
      end)
      -- Renamed in one go: while a tree is removed the run may write into it.
      assert(fs.rename(dir .. "/out", dir .. "/gone"))
      helper.write(dir, { out = "a file, no folder" })
      return child:wait(20000)
    end

    it("since a moment ago, deploys all the same and ends with an error", async(function()
      local result = lose_it "create table slow (id bigint primary key);\nselect pg_sleep(1);"
      assert.are.equal(1, result.status)
      has(result.stderr, "the artifact could not be written")
      local answer = json.decode(result.stdout)
      assert.are.equal("io", answer.error.code)
      assert.are.equal("the run itself ended well", answer.error.hint)
      assert.are.equal("slow", db:value "select to_regclass('slow')::text")
    end))

    it("since a moment ago, tells the run's own error first", async(function()
      local result = lose_it "create table slow (id bigint primary key);\nselect pg_sleep(1);\nselect * from nowhere;"
      assert.are.equal(1, result.status)
      assert.are.equal("42P01", json.decode(result.stdout).error.sqlstate)
      has(result.stderr, "the artifact could not be written")
    end))
  end)

  describe("tells what the policy found", function()
    before_each(async(function()
      helper.write(dir, { ["migrations/002_drop.sql"] = BREAKING })
    end))

    it("as JUnit, SARIF and annotations of GitHub, all at once", async(function()
      local summary = dir .. "/summary.md"
      local result = deploy(6, { "--junit", "out/junit.xml", "--sarif", "out/found.sarif", "--github", "--artifact",
        artifact }, { env = { GITHUB_STEP_SUMMARY = summary } })
      has(assert(fs.read(dir .. "/out/junit.xml")), "expand-breaking")
      local sarif = json.decode(assert(fs.read(dir .. "/out/found.sarif")))
      assert.are.equal("2.1.0", sarif.version)
      local found = false
      for _, item in ipairs(sarif.runs[1].results) do
        found = found or item.ruleId == "expand-breaking"
      end
      assert.is_true(found)
      has(result.stdout, "::error file=migrations/002_drop.sql,line=8")
      has(assert(fs.read(summary)), "expand-breaking")
    end))

    it("with --json: one object on stdout", async(function()
      local answer = json.decode(deploy(6, { "--json", "deploy", "--github" }).stdout)
      assert.is_false(answer.ok)
      assert.are.equal("policy", answer.error.code)
      local rules = {}
      for _, finding in ipairs(answer.policy.findings) do
        rules[finding.rule] = true
      end
      assert.is_true(rules["expand-breaking"] or false)
    end))

    it("an output that can't be written is an error of the run, which is done", async(function()
      assert(fs.remove(dir .. "/migrations/002_drop.sql"))
      helper.write(dir, { blocked = "a file, no folder" })
      local result = helper.moonbird({ "deploy", "--junit", "blocked/x.xml", "--artifact", artifact }, options_of())
      assert.are_not.equal(0, result.status)
      assert.are.equal("users", db:value "select to_regclass('users')::text")
      assert.is_false(diagnostics().ok)
    end))
  end)

  it("looks at live facts right before each step", async(function()
    helper.write(dir, { ["policies/live.lua"] = [[
return { id = "no-rows-yet", severity = "error", needs = { "live" }, moments = { "before" },
  check = function(ctx)
    local users = ctx.live:relation(nil, "users")
    for _, st in ipairs(ctx.statements) do
      if users and users.kind == "table" and st.verb == "alter" then
        ctx:report("there is a table users already", { at = st })
      end
    end
  end }
]], ["migrations/002_email.sql"] = EMAIL })
    has(deploy(6, { "--artifact", artifact }).stderr, "no-rows-yet")
    assert.are.equal(1, db:value "select count(*) from moonbird.state where target = 'global' and applies")
    local data = diagnostics()
    assert.are.equal("done", data.steps[1].outcome)
    assert.are.equal("no-rows-yet", data.policy.findings[#data.policy.findings].rule)
    helper.ok({ "up" }, options_of()) -- it is no gate, and up does not ask the database
  end))

  it("tells a rule that finds something after the step; the step stays", async(function()
    helper.write(dir, { ["policies/after.lua"] = [[
return { id = "nothing-after", severity = "error", moments = { "after" },
  check = function(ctx)
    if ctx.migration.version == 1 then
      ctx:report("took " .. math.type(ctx.step.duration_ms))
    end
  end }
]], ["migrations/002_email.sql"] = EMAIL })
    local result = deploy(6, { "--artifact", artifact })
    has(result.stderr, "nothing-after")
    has(result.stderr, "it stays")
    assert.are.equal(1, db:value "select count(*) from moonbird.state where target = 'global' and applies")
    assert.are.equal("done", diagnostics().steps[1].outcome)
    deploy(0, {})
  end))
end)
