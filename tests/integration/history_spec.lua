-- The journal as people meet it: drift, taking back, repair, verification, plans and rehearsals.
-- The same on every server.
local fs = require "moonbird.core.fs"
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local texts = require "tests.texts"
local async = helper.async
local has = texts.has

local function create(name)
  return ("-- migrate:up\ncreate table %s (i int);\n-- migrate:down\ndrop table %s;\n"):format(name, name)
end

-- All of a database that anybody could notice, as one text.
local CATALOG = [[
  select md5(string_agg(line, E'\n' order by line)) from (
    select format('class %s %s %s %s', relnamespace::regnamespace, relname, relkind, relnatts) as line from pg_class
      where relnamespace::regnamespace::text not like 'pg\_%' and relnamespace <> 'information_schema'::regnamespace
    union all select format('schema %s', nspname) from pg_namespace where nspname not like 'pg\_t%'
    union all select format('proc %s', oid::regprocedure) from pg_proc where oid > 16383
    union all select format('type %s', typname) from pg_type where oid > 16383 and typname not like 'pg\_t%'
    union all select format('role %s', rolname) from pg_roles
    union all select format('setting %s', s) from pg_db_role_setting s) x]]

describe("the history", function()
  local db, dir

  before_each(async(function()
    db = helper.database()
    dir = helper.project {}
  end))

  local function put(files)
    for name, text in pairs(files) do
      helper.write(dir, { ["migrations/" .. name] = text })
    end
  end

  local function put_three()
    put { ["001_a.sql"] = create "a", ["002_b.sql"] = create "b", ["003_c.sql"] = create "c" }
  end

  --- Runs moonbird, which has to end with `status`.
  local function moonbird(status, ...)
    return helper.ok({ ... }, { cwd = dir, db = db, status = status })
  end

  --- The object that --json prints; checks what all of them have.
  local function object(status, ...)
    local result = helper.ok({ "--json", ... }, { cwd = dir, db = db, status = status })
    local ok, answer = pcall(json.decode, result.stdout)
    assert(ok, "not one JSON object: " .. result.stdout)
    assert.is_boolean(answer.ok)
    assert.are.equal((...), answer.command)
    assert.are.equal(status == 0, answer.ok)
    if status ~= 0 and status ~= 4 then
      assert.is_string(answer.error.code)
      assert.is_string(answer.error.message)
    end
    return answer
  end

  local function tables()
    return db:values "select relname::text from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r' order by 1"
  end

  --- Directions and versions of all that was done, oldest first.
  local function done()
    return db:values [[select case direction when 'up' then '+' when 'down' then '-' else '?' end || version
      from moonbird.journal where target = 'global' and event in ('apply', 'revert') order by ordinal]]
  end

  local function states()
    local list = {}
    for i, item in ipairs(object(0, "status").migrations) do
      list[i] = item.id .. " " .. item.state
    end
    return list
  end

  describe("with a half applied migration whose file is gone", function()
    before_each(async(function()
      put { ["001_a.sql"] = create "a", ["002_b.sql"] =
        "-- migrate:up transaction:false\ncreate table b (i int);\nselect 1;\n-- migrate:down\ndrop table b;\n" }
      local killed = helper.moonbird({ "up" }, { cwd = dir, db = db, env = { MOONBIRD_FAILPOINT = "unit.done:1" } })
      assert.are.equal("SIGKILL", killed.signal, killed.stderr)
      assert(fs.remove(dir .. "/migrations/002_b.sql"))
    end))

    it("shows it and lets it be settled", async(function()
      has(moonbird(1, "down").stderr, "002_b is half applied")
      assert.are.same({ "001_a applied", "002_b interrupted" }, states())
      local said = moonbird(4, "status", "--exit-code").stdout
      has(said, "its file is gone")
      has(said, "`moonbird repair 002 --mark reverted --reason \"...\"`")
      moonbird(2, "repair", "2", "--mark", "applied", "--reason", "a file is needed for that")
      assert.are.equal("clear", object(0, "repair", "2", "--clear", "--reason", "taken back by hand").action)
      assert.are.same({ "001_a applied" }, states())
      moonbird(2, "repair", "2", "--clear", "--reason", "nothing is left")
      moonbird(0, "down")
      moonbird(0, "history", "--verify")
    end))

    it("lets it be marked as taken back", async(function()
      moonbird(0, "repair", "002", "--mark", "reverted", "--reason", "it is gone")
      moonbird(0, "down")
      assert.are.same({ "b" }, tables())
    end))
  end)

  describe("with a changed file", function()
    before_each(async(function()
      put_three()
      moonbird(0, "up", "--to", "2")
      put { ["002_b.sql"] = create "b" .. "-- a late thought\n" }
    end))

    it("refuses up (exit 6) and shows it", async(function()
      local said = moonbird(6, "up").stderr
      has(said, "migrations/002_b.sql")
      has(said, "repair")
      assert.are.same({ "a", "b" }, tables())
      assert.are.equal("checksum", object(6, "up").error.code)
      assert.are.same({ "001_a applied", "002_b changed", "003_c pending" }, states())
      has(moonbird(0, "status").stdout, "changed")
      moonbird(4, "status", "--exit-code")
      moonbird(6, "plan")
    end))

    it("goes on when the change is accepted, which says who and why", async(function()
      moonbird(2, "repair", "2", "--accept")
      moonbird(2, "repair", "1", "--accept", "--reason", "not changed")
      moonbird(2, "repair", "7", "--accept", "--reason", "not there")
      assert.are.equal("accept", object(0, "repair", "2", "--accept", "--reason", "only a comment").action)
      local row = db:query("select applied_by, os_user, host, detail->>'reason' as reason, detail->>'was' as was, checksum, applies "
        .. "from moonbird.journal where event = 'repair'")[1]
      assert.are.equal("only a comment", row.reason)
      assert.are.equal(db:value "select current_user::text", row.applied_by)
      assert.is_string(row.os_user)
      assert.is_string(row.host)
      assert.are_not.equal(row.was, row.checksum)
      assert.is_true(row.applies)
      moonbird(0, "up")
      assert.are.same({ "a", "b", "c" }, tables())
      moonbird(0, "history", "--verify")
      moonbird(0, "down")
      moonbird(0, "down")
      assert.are.same({ "a" }, tables())
    end))

    it("goes on when the file is restored", async(function()
      put { ["002_b.sql"] = create "b" }
      moonbird(0, "up")
    end))
  end)

  it("shows an applied version whose file is gone, and does not skip it silently", async(function()
    put_three()
    moonbird(0, "up")
    assert(fs.remove(dir .. "/migrations/002_b.sql"))
    assert.are.same({ "001_a applied", "002_b missing", "003_c applied" }, states())
    local answer = object(4, "status", "--exit-code")
    assert.are.equal(1, answer.missing)
    moonbird(0, "down")
    local result = helper.moonbird({ "down" }, { cwd = dir, db = db })
    assert.are_not.equal(0, result.status)
    has(result.stderr, "002_b")
    assert.are.same({ "a", "b" }, tables())
  end))

  it("says in `up` which applied version has no file", async(function()
    put_three()
    moonbird(0, "up")
    assert(fs.remove(dir .. "/migrations/002_b.sql"))
    local result = moonbird(0, "up")
    has(result.stdout .. result.stderr, "002_b")
  end))

  it("refuses what arrives late (exit 6) unless it is told to take it", async(function()
    put { ["001_a.sql"] = create "a", ["003_c.sql"] = create "c" }
    moonbird(0, "up")
    put { ["002_b.sql"] = create "b", ["004_d.sql"] = create "d" }
    local said = moonbird(6, "up").stderr
    has(said, "migrations/002_b.sql")
    has(said, "--allow-out-of-order")
    assert.are.equal("out_of_order", object(6, "up").error.code)
    assert.are.same({ "001_a applied", "002_b late", "003_c applied", "004_d pending" }, states())
    assert.are.same({ "a", "c" }, tables())
    assert.are.equal(2, #object(0, "plan", "--allow-out-of-order").steps)
    moonbird(0, "up", "--allow-out-of-order")
    assert.are.same({ "+1", "+3", "+2", "+4" }, done())
    -- Taken back in the order of application.
    moonbird(0, "down", "--steps", "3")
    assert.are.same({ "+1", "+3", "+2", "+4", "-4", "-2", "-3" }, done())
  end))

  it("is walked in the right order by --to, --steps and redo", async(function()
    put_three()
    put { ["004_d.sql"] = create "d", ["005_e.sql"] = create "e" }
    moonbird(0, "up", "--steps", "2")
    assert.are.same({ "+1", "+2" }, done())
    moonbird(0, "up", "--to", "4")
    assert.are.same({ "+1", "+2", "+3", "+4" }, done())
    moonbird(0, "redo", "--steps", "2")
    assert.are.same({ "+1", "+2", "+3", "+4", "-4", "-3", "+3", "+4" }, done())
    assert.are.same({ "a", "b", "c", "d" }, tables())
    moonbird(0, "down", "--to", "1")
    assert.are.same({ "a" }, tables())
    moonbird(0, "down")
    assert.are.same({}, tables())
    local last = done()
    assert.are.same({ "-4", "-3", "-2", "-1" }, table.move(last, #last - 3, #last, 1, {}))
    local nothing = moonbird(0, "down")
    assert.are.equal("", nothing.stderr)
    moonbird(0, "up")
    moonbird(0, "down", "--to", "0")
    assert.are.same({}, tables())
    moonbird(2, "down", "--to", "99")
    moonbird(2, "up", "--steps", "0")
    moonbird(2, "up", "--to", "x")
    moonbird(0, "history", "--verify")
  end))

  it("has no way back through what is irreversible", async(function()
    put { ["001_a.lua"] = "return { up = 'create table a (i int)', irreversible = 'data is gone' }\n",
      ["002_b.sql"] = create "b" }
    moonbird(0, "up")
    moonbird(0, "down")
    has(moonbird(1, "down").stderr, "data is gone")
    assert.are.equal("irreversible", object(1, "down").error.code)
    assert.are.same({ "a" }, tables())
  end))

  it("begins at a baseline", async(function()
    put_three()
    db:exec "create table a (i int); create table b (i int)"
    local answer = object(0, "baseline", "2", "--reason", "made by hand")
    assert.are.equal(2, #answer.marked)
    assert.are.same({ "001_a applied", "002_b applied", "003_c pending" }, states())
    moonbird(0, "up")
    assert.are.same({ "a", "b", "c" }, tables())
    assert.are.same({ "baseline", "baseline", "apply" },
      db:values "select event from moonbird.journal where target = 'global' order by ordinal")
    moonbird(0, "down", "--to", "0")
    assert.are.same({}, tables())
    moonbird(2, "baseline", "77")
  end))

  it("is told by repair --mark what only a person knows", async(function()
    put_three()
    moonbird(0, "up", "--to", "1")
    db:exec "create table b (i int)"
    has(moonbird(1, "up").stderr, "42P07")
    assert.are.equal("mark applied", object(0, "repair", "2", "--mark", "applied", "--reason", "by hand").action)
    moonbird(0, "up")
    assert.are.same({ "a", "b", "c" }, tables())
    db:exec "drop table c"
    moonbird(0, "repair", "3", "--mark", "reverted", "--reason", "by hand")
    assert.are.same({ "001_a applied", "002_b applied", "003_c pending" }, states())
    moonbird(0, "up")
    assert.are.same({ "a", "b", "c" }, tables())
    moonbird(2, "repair", "3", "--clear", "--reason", "nothing is open")
    moonbird(0, "history", "--verify")
  end))

  it("of a newer moonbird is refused with the version needed", async(function()
    put_three()
    moonbird(0, "up", "--to", "1")
    db:exec [[select moonbird.record('@journal', (select max(ordinal) + 1 from moonbird.journal where target = '@journal'),
      '{"event": "apply", "applies": true, "version": 999999, "version_text": "999999", "id": "999999_future",
        "name": "future", "direction": "up", "outcome": "done", "engine": "99.0.0", "run": "1"}')]]
    for _, args in ipairs { { "up" }, { "down" }, { "redo" }, { "status" }, { "plan" }, { "up", "--dry-run" },
      { "baseline", "2", "--reason", "x" } } do
      local said = moonbird(2, table.unpack(args)).stderr
      has(said, "999999")
    end
    local rows = db:value "select count(*) from moonbird.journal"
    has(moonbird(2, "repair", "1", "--mark", "reverted", "--reason", "x").stderr, "999999")
    assert.are.equal(rows, db:value "select count(*) from moonbird.journal")
    local failure = object(2, "up").error
    assert.are.equal("journal_newer", failure.code)
    has(failure.message .. (failure.hint or ""), "99.0.0")
    assert.are.same({ "a" }, tables())
  end))

  describe("--verify", function()
    before_each(async(function()
      put_three()
      moonbird(0, "up")
      moonbird(0, "down")
      has(moonbird(0, "history", "--verify").stdout, "every row follows")
      assert.is_true(object(0, "history", "--verify").verified)
    end))

    --- As a superuser who knows how.
    local function tamper(sql)
      db:exec("alter table moonbird.journal disable trigger all;" .. sql .. ";alter table moonbird.journal enable trigger all")
      local said = moonbird(1, "history", "--verify").stderr
      assert.are.equal("journal", object(1, "history", "--verify").error.code)
      return said
    end

    for _, column in ipairs { "checksum", "name", "applied_by", "host", "started_at", "detail", "git_commit", "direction" } do
      local new = ({ started_at = "now() + '1 day'", detail = "'{\"x\": 1}'", direction = "'down'" })[column] or "'forged'"
      it("finds an edited row: " .. column, async(function()
        has(tamper(("update moonbird.journal set %s = %s where target = 'global' and version = 2 and event = 'apply'")
          :format(column, new)), "event 2")
      end))
    end

    it("finds a deleted row in the middle, and in another target", async(function()
      has(tamper "delete from moonbird.journal where target = 'global' and ordinal = 2", "global")
    end))

    it("finds a row put in between", async(function()
      tamper [[update moonbird.journal set hash = 'ab' || substr(hash, 3) where target = 'global' and ordinal = 3]]
    end))

    it("finds a change of the journal's own history", async(function()
      has(tamper "update moonbird.journal set name = 'forged' where target = '@journal' and ordinal = 1", "@journal")
    end))
  end)

  it("refuses UPDATE, DELETE and TRUNCATE with MB004", async(function()
    put_three()
    moonbird(0, "up")
    for _, sql in ipairs { "update moonbird.journal set name = 'x'", "delete from moonbird.journal", "truncate moonbird.journal",
      "delete from moonbird.journal where false", "truncate moonbird.journal cascade" } do
      local _, err = db:session():query(sql)
      assert.are.equal("MB004", err and err.sqlstate, sql)
    end
    assert.are.equal(3, db:value "select count(*) from moonbird.journal where target = 'global'")
  end))

  it("fills each row", async(function()
    put { ["001_a.sql"] = create "a" }
    helper.ok({ "up" }, { cwd = dir, db = db, env = { GITHUB_ACTIONS = "true", GITHUB_RUN_ID = "4711",
      GITHUB_SHA = ("c0ffee"):rep(7):sub(1, 40) } })
    local row = db:query("select * from moonbird.journal where target = 'global'")[1]
    for _, column in ipairs { "target", "version", "id", "name", "direction", "phase", "scope", "compatibility", "checksum",
      "started_at", "finished_at", "outcome", "applied_by", "os_user", "host", "engine", "run", "plan", "hash" } do
      assert(row[column] ~= nil, column .. " is null")
    end
    assert.are.equal("github:4711", row.ci_run)
    assert.are.equal(("c0ffee"):rep(7):sub(1, 40), row.git_commit)
    assert.are.equal(64, #row.checksum)
    local event = object(0, "history").events[1]
    assert.are.equal(row.hash, event.hash)
    assert.are.equal(1, #object(0, "history", "--limit", "1").events)
  end))

  it("has a plan and a rehearsal that change nothing", async(function()
    put_three()
    put { ["004_idx.sql"] = "-- migrate:up transaction:false\ncreate index concurrently a_i on a (i);\n-- migrate:down\n",
      ["005_l.lua"] = "return { up = function(db) db:exec('insert into a values ($1)', 7) end }\n" }
    local before = db:value(CATALOG)
    local planned = object(0, "plan")
    assert.are.equal(5, #planned.steps)
    assert.are.equal("001_a", planned.steps[1].id)
    assert.are.equal(1, planned.steps[1].statements)
    assert.is_false(planned.steps[4].transactional)
    assert.is_false(planned.steps[5].reversible)
    has(moonbird(0, "plan").stdout, planned.plan:sub(1, 12))
    local said = moonbird(0, "up", "--dry-run", "--to", "3").stdout
    has(said, "create table a (i int)")
    local answer = object(0, "up", "--dry-run")
    assert.is_true(answer.dry_run)
    assert.are.equal("004_idx", answer.not_rehearsed[1].id)
    assert.is_string(answer.not_rehearsed[1].reason)
    assert.are.equal(before, db:value(CATALOG))
    assert.is_nil(db:value "select to_regnamespace('moonbird')::text")

    moonbird(0, "up", "--to", "2")
    before = db:value(CATALOG)
    local rows = db:value "select count(*) from moonbird.journal"
    has(moonbird(0, "down", "--dry-run").stdout, "drop table b")
    moonbird(0, "up", "--dry-run")
    put { ["003_c.sql"] = "-- migrate:up\ncreate table c (i int);\nselect 1/0;\n-- migrate:down\n" }
    local failed = object(1, "up", "--dry-run").error
    assert.are.same({ "22012", "003_c", "migrations/003_c.sql", 3 }, { failed.sqlstate, failed.migration, failed.file,
      failed.line })
    put { ["003_c.lua"] = "return { up = function(db) pcall(db.exec, db, 'select 1/0') end, irreversible = 'x' }" }
    assert(fs.remove(dir .. "/migrations/003_c.sql"))
    has(moonbird(1, "up", "--dry-run", "--to", "3").stderr, "error: migrations/003_c.lua: ")
    assert.are.equal(before, db:value(CATALOG))
    assert.are.equal(rows, db:value "select count(*) from moonbird.journal")
    moonbird(4, "status", "--exit-code")
    assert.are.equal(3, object(4, "status", "--exit-code").pending)
  end))

  it("and the header, statements and events of one migration", async(function()
    put { ["001_a.sql"] = "-- description: first of all\n" .. create "a",
      ["002_b.lua"] = "return { description = 'by Lua', phase = 'contract', up = function(db) end, down = 'select 1; select 2' }\n" }
    moonbird(0, "up")
    local shown = object(0, "show", "1")
    assert.are.equal("first of all", shown.description)
    assert.are.equal("sql", shown.kind)
    assert.are.equal("create table a (i int)", shown.up.statements[1].text)
    assert.are.equal(3, shown.up.statements[1].line)
    assert.are.equal("apply", shown.events[1].event)
    shown = object(0, "show", "002")
    assert.are.equal("contract", shown.phase)
    assert.are.equal("function", shown.up.kind)
    assert.are.equal(2, #shown.down.statements)
    has(moonbird(0, "show", "1").stdout, "first of all")
    moonbird(2, "show", "3")
    moonbird(2, "show", "abc")
  end))

  it("ends with the right status", async(function()
    put_three()
    moonbird(0, "up")
    put { ["004_bad.sql"] = "-- migrate:up\nselect * from missing;\n-- migrate:down\n" }
    moonbird(1, "up")
    put { ["004_bad.sql"] = "-- migrate:up\nselect 'open;\n-- migrate:down\n" }
    moonbird(2, "up")
    assert.are.equal(3, helper.moonbird({ "-u", "postgres:///?host=/nowhere", "up" }, { cwd = dir }).status)
    put { ["004_bad.sql"] = create "d" }
    moonbird(4, "status", "--exit-code")

    -- Another runner holds the target's lock.
    local other = db:connect()
    assert(other:query "begin")
    assert(other:query "set local search_path to moonbird")
    assert(other:query "select pg_advisory_xact_lock(lock_key('global'))")
    local said = moonbird(5, "up", "--lock-wait", "300ms").stderr
    has(said, "moonbird-tests")
    assert.are.equal("locked", object(5, "up", "--lock-wait", "300ms").error.code)
    assert(other:query "rollback")

    -- A reader that does not leave.
    put { ["004_bad.sql"] = "-- migrate:up\nalter table a add column s text;\n-- migrate:down\n" }
    helper.write(dir, { ["moonbird.lua"] = "return { timeouts = { lock_total = \"1s\" } }\n" })
    assert(other:query "begin")
    assert(other:query "select * from a")
    said = moonbird(5, "up", "--lock-timeout", "200ms").stderr
    has(said, "moonbird-tests")
    assert.are.equal("lock_timeout", object(5, "up", "--lock-timeout", "200ms").error.code)
    assert(other:query "rollback")
    moonbird(0, "up")
    put { ["001_a.sql"] = create "a" .. "\n-- changed\n" }
    moonbird(6, "up")
    moonbird(2, "up", "--bogus")
    assert.are.equal("timeout", (function()
      put { ["001_a.sql"] = create "a", ["005_slow.sql"] = "-- migrate:up\nselect pg_sleep(20);\n-- migrate:down\n" }
      return object(1, "up", "--timeout", "400ms").error.code
    end)())
  end))

  it("answers every command with one JSON object", async(function()
    put_three()
    for _, args in ipairs { { "plan" }, { "status" }, { "history" }, { "up" }, { "redo" }, { "status" }, { "show", "1" },
      { "history", "--verify" }, { "down" }, { "up", "--dry-run" }, { "baseline", "3", "--reason", "x" },
      { "repair", "3", "--mark", "reverted", "--reason", "x" }, { "create" }, { "wait" }, { "version" },
      { "completion", "bash" }, { "new", "thing" } } do
      object(0, table.unpack(args))
    end
    object(2, "show", "99")
    object(2, "drop")
    object(2, "run", "nowhere.lua")
    local _, lines = helper.ok({ "--json", "status" }, { cwd = dir, db = db }).stderr:gsub("\n", "")
    assert.are.equal(0, lines)
  end))

  it("answers a wrong command line with one JSON object", async(function()
    object(2, "up", "--bogus")
    object(2, "show", "abc")
    object(2, "new")
  end))

  describe("never tells a password", function()
    local SECRET = "s3cr3t-w0rd"

    local function silent(result)
      for _, text in ipairs { result.stdout, result.stderr } do
        assert(not text:find(SECRET, 1, true), "the password is in:\n" .. text)
      end
    end

    for _, url in ipairs { "postgres://u:" .. SECRET .. "@127.0.0.1:1/db", "postgres://u@127.0.0.1:1/db?password=" .. SECRET,
      "host=127.0.0.1 port=1 user=u password=" .. SECRET, "postgres://u:" .. SECRET .. "@127.0.0.1:bad/db",
      "postgres://u:" .. SECRET .. "@127.0.0.1:1/db?nonsense=1", "postgress://u:" .. SECRET .. "@h/db" } do
      it("of " .. url:gsub(SECRET, "..."), async(function()
        put_three()
        for _, args in ipairs { { "up" }, { "--json", "up" }, { "-vv", "status" }, { "--log-format", "json", "-vv", "plan" },
          { "wait", "--timeout", "300ms" }, { "create" }, { "drop", "--yes" } } do
          local result = helper.moonbird({ "-u", url, table.unpack(args) }, { cwd = dir })
          assert(result.status == 3 or result.status == 2, result.stderr)
          silent(result)
        end
        silent(helper.moonbird({ "-vv", "status" }, { cwd = dir, env = { DATABASE_URL = url } }))
      end))
    end

    it("of a server that is there, nor in what the server shows", async(function()
      put { ["001_seen.sql"] = [[
-- migrate:up
create table seen as select application_name as name, a::text as row from pg_stat_activity a where pid = pg_backend_pid();
-- migrate:down
]] }
      local url = db.url:gsub("^(%w+://)([^@/]*)@", "%1%2:" .. SECRET .. "@")
      assert.is_truthy(url:find(SECRET, 1, true))
      silent(helper.ok({ "-u", url, "-vv", "up" }, { cwd = dir }))
      silent(helper.ok({ "-u", url, "--json", "-vv", "status" }, { cwd = dir }))
      assert.are.equal("moonbird/up/global", db:value "select name from seen")
      assert.is_nil(db:value("select row from seen"):find(SECRET, 1, true))
      assert.are.equal(0, db:value("select count(*) from moonbird.journal j where strpos(j::text, $1) > 0", SECRET))
    end))
  end)
end)
