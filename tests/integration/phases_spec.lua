--- Expand and contract against a real database: what `up` applies, what it holds back, what the history of a
--- target allows, and that a refusal leaves everything as it was.
-- The same on every server.
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local processes = require "tests.processes"
local texts = require "tests.texts"
local async = helper.async
local has, lacks = texts.has, texts.lacks

local HEAD = [[
-- description: Made up for the test of phases
-- phase: %s
-- scope: global
-- compatibility: %s
%s-- migrate:up
%s
-- migrate:down
%s
]]

local function expand(up, down, further)
  return HEAD:format("expand", "backward_compatible", further or "", up, down or "select 1;")
end

--- A contract migration; `completes` may be nil. Compatible when `compatible`.
local function contract(completes, up, down, compatible)
  local further = "-- rationale: no release that reads the old shape runs any more\n"
  if completes then
    further = further .. "-- completes: " .. completes .. "\n"
  end
  return HEAD:format("contract", compatible and "backward_compatible" or "contract_breaking", further, up, down)
end

local USERS = expand("create table users (id bigint primary key, fullname text);", "drop table users;")
local DISPLAY = expand("alter table users add column display_name text;",
  "alter table users drop column display_name;")
local DROP = contract(2, "alter table users drop column fullname;", "alter table users add column fullname text;")
local EMAIL = expand("alter table users add column email text;", "alter table users drop column email;")

--- users, display_name beside fullname, away with fullname, and something newer.
local function column_files()
  return { ["migrations/001_users.sql"] = USERS, ["migrations/002_display_name.sql"] = DISPLAY,
    ["migrations/003_drop_fullname.sql"] = DROP, ["migrations/004_email.sql"] = EMAIL }
end

local function columns(db)
  return db:value [[select string_agg(attname, ' ' order by attnum) from pg_attribute
    where attrelid = to_regclass('users') and attnum > 0 and not attisdropped]]
end

local function applied(db)
  return db:value [[select coalesce(string_agg(version::text, ' ' order by version), '') from moonbird.state
    where target = 'global' and applies]]
end

--- Everything in the catalog that belongs to no system schema and not to the journal, and the journal's rows.
local function picture(db)
  local catalog = db:values [[
    select format('%s.%s %s %s %s %s', n.nspname, c.relname, c.relkind, a.attname, a.atttypid::regtype, a.attnotnull)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace left join pg_attribute a on a.attrelid = c.oid
      and a.attnum > 0
    where n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast', 'moonbird') order by 1]]
  local journal = db:value "select to_regclass('moonbird.journal') is not null" and db:values [[
    select row_to_json(j)::text from moonbird.journal j order by target, ordinal]] or { "no journal" }
  return table.concat(catalog, "\n") .. "\n--\n" .. table.concat(journal, "\n")
end

describe("expand and contract:", function()
  local db, dir

  before_each(async(function()
    db = helper.database()
  end))

  local function project(files)
    dir = helper.project(files)
  end

  local function moonbird(status, ...)
    return helper.ok({ ... }, { db = db, cwd = dir, status = status })
  end

  local function answer(status, ...)
    return json.decode(moonbird(status, "--json", ...).stdout)
  end

  describe("up", function()
    before_each(async(function()
      project(column_files())
    end))

    it("applies what is expand, also past a contract migration, and tells what it holds back", async(function()
      local out = moonbird(0, "up").stdout
      has(out, "held back")
      has(out, "003_drop_fullname")
      has(out, "--allow-contract --allow-breaking")
      assert.are.equal("1 2 4", applied(db))
      assert.are.equal("id fullname display_name email", columns(db))
    end))

    it("tells the same as data", async(function()
      local result = answer(0, "up")
      assert.are.equal(3, #result.steps)
      assert.are.equal(1, #result.held)
      assert.are.equal("003_drop_fullname", result.held[1].id)
      assert.are.equal("--allow-contract --allow-breaking", result.held[1].flags)
      assert.are.equal("contract, breaking", result.held[1].reason)
      result = answer(0, "up")
      assert.are.equal(0, #result.steps)
      assert.are.equal(1, #result.held)
    end))

    it("needs both flags for a breaking one, and applies it late without calling it out of order",
      async(function()
        moonbird(0, "up")
        for _, flags in ipairs { { "--allow-contract" }, { "--allow-breaking" } } do
          local out = moonbird(0, "up", table.unpack(flags)).stdout
          has(out, flags[1] == "--allow-contract" and "): --allow-breaking applies it"
            or "): --allow-contract applies it")
          assert.are.equal("1 2 4", applied(db))
        end
        moonbird(0, "up", "--allow-contract", "--allow-breaking")
        assert.are.equal("1 2 3 4", applied(db))
        assert.are.equal("id display_name email", columns(db))
        moonbird(0, "status", "--exit-code")
      end))

    it("applies all in one run with the flags: the history is looked at right before the step", async(function()
      moonbird(0, "up", "--allow-contract", "--allow-breaking")
      assert.are.equal("1 2 3 4", applied(db))
      assert.are.equal("id display_name email", columns(db))
    end))

    it("goes on with what is new while one is held back", async(function()
      moonbird(0, "up")
      helper.write(dir, { ["migrations/005_phone.sql"] = expand("alter table users add column phone text;",
        "alter table users drop column phone;") })
      moonbird(0, "up")
      assert.are.equal("1 2 4 5", applied(db))
      helper.write(dir, { ["migrations/0035_late.sql"] = "-- migrate:up\nselect 1;\n-- migrate:down\nselect 1;\n" })
      moonbird(0, "up")
      assert.are.equal("1 2 4 5 35", applied(db))
    end))

    it("still refuses a late expand migration beside one that is held back", async(function()
      assert(os.rename(dir .. "/migrations/002_display_name.sql", dir .. "/002"))
      helper.write(dir, { ["migrations/003_drop_fullname.sql"] = contract(1, "alter table users drop column fullname;",
        "alter table users add column fullname text;") })
      moonbird(0, "up")
      assert.are.equal("1 4", applied(db))
      assert(os.rename(dir .. "/002", dir .. "/migrations/002_display_name.sql"))
      local err = moonbird(6, "up").stderr
      has(err, "002_display_name")
      lacks(err, "003_drop_fullname")
      assert.are.equal("1 4", applied(db))
    end))

    it("keeps to --to and --steps, which count what is really applied", async(function()
      moonbird(0, "up", "--to", "3")
      assert.are.equal("1 2", applied(db))
      moonbird(0, "up", "--steps", "1")
      assert.are.equal("1 2 4", applied(db))
      moonbird(0, "up", "--to", "3", "--allow-contract", "--allow-breaking")
      assert.are.equal("1 2 3 4", applied(db))
    end))

    it("--steps with the flags takes them in order", async(function()
      moonbird(0, "up", "--steps", "3", "--allow-contract", "--allow-breaking")
      assert.are.equal("1 2 3", applied(db))
    end))

    it("--dry-run tells of the held ones too", async(function()
      moonbird(0, "up")
      local out = moonbird(0, "up", "--dry-run").stdout
      has(out, "003_drop_fullname")
      out = moonbird(0, "up", "--dry-run", "--allow-contract", "--allow-breaking").stdout
      has(out, "drop column fullname")
      assert.are.equal("1 2 4", applied(db))
    end))

    it("needs only --allow-contract for a compatible one", async(function()
      helper.write(dir, { ["migrations/003_drop_fullname.sql"] = contract(2,
        "drop index if exists users_fullname;", "create index users_fullname on users (fullname);", true) })
      has(moonbird(0, "up").stdout, "): --allow-contract applies it")
      assert.are.equal("1 2 4", applied(db))
      moonbird(0, "up", "--allow-contract")
      assert.are.equal("1 2 3 4", applied(db))
    end))

    it("journals that a contract migration was allowed", async(function()
      moonbird(0, "up", "--allow-contract", "--allow-breaking")
      for _, event in ipairs(answer(0, "history").events) do
        if event.event == "apply" then
          assert.are.equal(event.id == "003_drop_fullname" and "contract, breaking" or nil,
            event.detail and event.detail.allowed, event.id)
        end
      end
    end))
  end)

  it("an expand migration that calls itself breaking is refused, not held back for ever", async(function()
    project { ["migrations/001_users.sql"] = USERS,
      ["migrations/002_odd.sql"] = HEAD:format("expand", "contract_breaking", "", "select 1;", "select 1;"),
      ["migrations/003_email.sql"] = EMAIL }
    for _, flags in ipairs { {}, { "--allow-contract", "--allow-breaking" } } do
      has(moonbird(6, "up", table.unpack(flags)).stderr, "migrations/002_odd.sql:4")
      assert.is_nil(columns(db))
    end
    assert.are.equal(0, #answer(0, "plan").held)
  end))

  describe("plan and status", function()
    before_each(async(function()
      project(column_files())
    end))

    it("show what is held back with the flags, and status is clean when nothing else is left", async(function()
      local out = moonbird(0, "plan").stdout
      has(out, "held back")
      has(out, "--allow-contract --allow-breaking applies it")
      local plan = answer(0, "plan")
      assert.are.equal(3, #plan.steps)
      assert.are.equal("003_drop_fullname", plan.held[1].id)
      assert.are.equal(4, #answer(0, "plan", "--allow-contract", "--allow-breaking").steps)
      moonbird(4, "status", "--exit-code")
      moonbird(0, "up")
      local status = moonbird(0, "status", "--exit-code").stdout
      has(status, "Held back: 1")
      has(status, "Pending: 0")
      has(status, "--allow-contract --allow-breaking applies it")
      local data = answer(0, "status")
      assert.are.equal(0, data.pending)
      assert.are.equal(1, data.held)
      assert.are.equal("held", data.migrations[3].state)
      assert.are.equal("--allow-contract --allow-breaking", data.migrations[3].held.flags)
    end))

    it("count a contract migration as pending where the environment allows it, and not as late", async(function()
      moonbird(0, "up")
      helper.write(dir, { ["moonbird.lua"] = "return { policy = { allow_contract = true, allow_breaking = true } }" })
      local status = answer(4, "status", "--exit-code")
      assert.are.equal(1, status.pending)
      assert.are.equal("pending", status.migrations[3].state)
      assert.are.equal(1, #answer(0, "plan").steps)
    end))

    it("never change anything", async(function()
      local before = picture(db)
      moonbird(0, "plan")
      moonbird(0, "status")
      assert.are.equal(before, picture(db))
    end))
  end)

  it("one environment's settings let contract migrations through there, and only there", async(function()
    local files, other = column_files(), helper.database()
    files["moonbird.lua"] = ([[return { environments = {
      test = { url = %q, policy = { allow_contract = true, allow_breaking = true } },
      half = { url = %q, policy = { allow_contract = true } },
      production = { url = %q } } }]]):format(db.url, other.url, other.url)
    project(files)
    local function run(...)
      return helper.ok({ ... }, { cwd = dir }).stdout
    end
    has(run("-e", "production", "up"), "--allow-contract --allow-breaking")
    assert.are.equal("1 2 4", applied(other))
    has(run("-e", "half", "up"), "): --allow-breaking applies it")
    assert.are.equal("1 2 4", applied(other))
    run("-e", "test", "up")
    assert.are.equal("1 2 3 4", applied(db))
    run("-e", "half", "up", "--allow-breaking")
    assert.are.equal("1 2 3 4", applied(other))
  end))

  describe("down and redo", function()
    before_each(async(function()
      project(column_files())
      moonbird(0, "up")
      moonbird(0, "up", "--allow-contract", "--allow-breaking")
    end))

    it("take the newest application back, which is the late contract one", async(function()
      moonbird(0, "down")
      assert.are.equal("1 2 4", applied(db))
      assert.are.equal("id display_name email fullname", columns(db))
      moonbird(0, "up")
      assert.are.equal("1 2 4", applied(db))
    end))

    it("redo asks for the flags before anything is taken back", async(function()
      local before = picture(db)
      for _, flags in ipairs { {}, { "--allow-contract" }, { "--allow-breaking" } } do
        local err = moonbird(6, "redo", table.unpack(flags)).stderr
        has(err, "003_drop_fullname")
        assert.are.equal(before, picture(db))
      end
      moonbird(0, "redo", "--allow-contract", "--allow-breaking")
      assert.are.equal("1 2 3 4", applied(db))
    end))

    it("redo of several ends where it began", async(function()
      moonbird(0, "redo", "--steps", "4", "--allow-contract", "--allow-breaking")
      assert.are.equal("1 2 3 4", applied(db))
      assert.are.equal(nil, (columns(db):match("fullname")))
    end))
  end)

  it("redo takes nothing back that another run applied meanwhile", async(function()
    project(column_files())
    moonbird(0, "up")
    local redo = helper.spawn({ "redo" }, { db = db, cwd = dir,
      env = { MOONBIRD_FAILPOINT = "step.before_send:1:stop" } })
    helper.eventually("it stands still", function()
      return processes.stopped(redo:pid())
    end)
    moonbird(0, "up", "--allow-contract", "--allow-breaking")
    redo:kill("CONT")
    local result = redo:wait(30000)
    assert.are.equal(1, result.status, result.stdout)
    has(result.stderr, "another run applied 003_drop_fullname meanwhile")
    assert.are.equal("1 2 3 4", applied(db))
    assert.is_nil((columns(db):match("fullname")))
  end))

  it("redo whose way up fails says what brings back what it took", async(function()
    project { ["migrations/001_users.sql"] = USERS, ["migrations/002_more.sql"] = expand(
      "create table more (id int);", "select 1;") }
    moonbird(0, "up")
    has(moonbird(1, "redo").stderr, "002_more is taken back and not applied again: `moonbird up` applies it again")
    assert.are.equal("1", applied(db))
    db:exec "drop table more"
    moonbird(0, "up")
    assert.are.equal("1 2", applied(db))
    helper.write(dir, { ["migrations/002_more.sql"] = expand("create table more (id int);",
      "drop table more;"), ["migrations/001_users.sql"] = expand(
      "create table users (id bigint primary key, fullname text);", "select missing from users;") })
    local said = moonbird(1, "redo", "--steps", "2").stderr
    has(said, "002_more is taken back and not applied again: `moonbird up` applies it again")
    assert.are.equal("1", applied(db))
  end))

  it("redo takes nothing back when the policy would not let it up again", async(function()
    project { ["migrations/001_users.sql"] = USERS, ["migrations/002_swap.sql"] = expand(
      "-- moonbird:allow expand-breaking until=2999-01-01 reason=\"nobody reads it yet\"\n"
      .. "alter table users drop column fullname;", "alter table users add column fullname text;") }
    moonbird(0, "up")
    assert.are.equal("id", columns(db))
    helper.write(dir, { ["moonbird.lua"] = [[return { policy = { rules = { ["contract-down"] = "error" } } }]],
      ["policies/no_drops.lua"] = [[return { id = "no-drops", gate = true, severity = "error",
        check = function(ctx)
          for _, st in ipairs(ctx.statements) do
            if ctx.direction == "up" and st.breaking then ctx:report("no drops here", { at = st }) end
          end
        end }]] })
    local before = picture(db)
    moonbird(6, "redo")
    assert.are.equal(before, picture(db))
  end))

  describe("the history of the target", function()
    it("stops a contract migration whose expand one is not applied there", async(function()
      local files = column_files()
      files["migrations/003_drop_fullname.sql"] = contract(4, "alter table users drop column fullname;",
        "alter table users add column fullname text;")
      project(files)
      moonbird(0, "up", "--to", "2")
      local before = picture(db)
      local result = moonbird(6, "up", "--to", "3", "--allow-contract", "--allow-breaking")
      has(result.stderr, "contract-history")
      has(result.stderr, "004_email")
      has(result.stderr, "migrations/003_drop_fullname.sql:6")
      assert.are.equal(before, picture(db))
      local err = answer(6, "up", "--to", "3", "--allow-contract", "--allow-breaking").error
      assert.are.equal("policy", err.code)
      assert.are.equal("003_drop_fullname", err.migration)
    end))

    it("asks for any expand migration where nothing is named", async(function()
      project { ["migrations/001_drop.sql"] = contract(nil, "drop table if exists old;", "create table old (i int);") }
      db:exec "create table old (i int)"
      local before = picture(db)
      has(moonbird(6, "up", "--allow-contract", "--allow-breaking").stderr, "contract-history")
      -- The journal is made by then; the target's history is still empty.
      assert.are.equal("old", db:value "select to_regclass('old')::text")
      assert.are.equal("", applied(db))
      assert.is_not_nil(before)
      helper.write(dir, { ["migrations/000_users.sql"] = USERS })
      moonbird(0, "up", "--allow-contract", "--allow-breaking")
      assert.are.equal("0 1", applied(db))
    end))

    it("counts versions that a baseline said are there", async(function()
      project(column_files())
      db:exec "create table users (id bigint primary key, fullname text, display_name text)"
      moonbird(0, "baseline", "2")
      moonbird(0, "up", "--allow-contract", "--allow-breaking")
      assert.are.equal("1 2 3 4", applied(db))
    end))

    it("is not waived", async(function()
      local text = contract(4, "-- moonbird:allow contract-history until=2999-01-01 reason=\"it is urgent\"\n"
        .. "alter table users drop column fullname;", "alter table users add column fullname text;")
      project { ["migrations/001_users.sql"] = USERS, ["migrations/003_drop.sql"] = text,
        ["migrations/004_email.sql"] = EMAIL }
      moonbird(6, "up", "--to", "3", "--allow-contract", "--allow-breaking")
      assert.are.equal("1", applied(db))
    end))
  end)

  it("two targets of one registry: applied where the expand is, refused where it is not", async(function()
    project(column_files())
    local second = helper.database()
    local function on(database, status, ...)
      return helper.ok({ ... }, { db = database, cwd = dir, status = status })
    end
    on(db, 0, "up")
    on(second, 0, "up", "--to", "2")
    on(second, 0, "down") -- display_name is taken back there: its readers were never moved
    on(second, 0, "up", "--to", "1")
    second:exec "insert into users values (1, 'Ada Lovelace')"
    -- The file of the expand one is newer than the contract one that completes it only on paper: move it away.
    assert(os.rename(dir .. "/migrations/002_display_name.sql", dir .. "/002"))
    local before = picture(second)
    for _, command in ipairs { "up", "deploy" } do
      local err = on(second, 6, command, "--to", "3", "--allow-contract", "--allow-breaking").stderr
      if command == "up" then
        has(err, "contract-history")
      end
      assert.are.equal(before, picture(second))
    end
    assert.are.equal("Ada Lovelace", second:value "select fullname from users")
    assert(os.rename(dir .. "/002", dir .. "/migrations/002_display_name.sql"))
    on(db, 0, "up", "--allow-contract", "--allow-breaking")
    assert.are.equal("1 2 3 4", applied(db))
    on(second, 0, "up", "--allow-contract", "--allow-breaking")
    assert.are.equal("1 2 3 4", applied(second))
    assert.are.equal("id display_name email", columns(second))
  end))

  describe("an expand migration that breaks", function()
    it("stops the whole run before anything is made, also the journal", async(function()
      local files = column_files()
      files["migrations/004_email.sql"] = expand("alter table users add column email text;\n"
        .. "alter table users drop column fullname;")
      project(files)
      local before = picture(db)
      local result = moonbird(6, "up")
      has(result.stderr, "expand-breaking")
      has(result.stderr, "migrations/004_email.sql:7")
      has(result.stderr, "users.fullname")
      assert.are.equal(before, picture(db))
      assert.is_nil(db:value "select to_regnamespace('moonbird')::text")
      moonbird(6, "up", "--dry-run")
      assert.are.equal(before, picture(db))
      moonbird(0, "up", "--to", "2") -- up to there nothing is wrong
      before = picture(db)
      moonbird(6, "up", "--allow-contract", "--allow-breaking")
      assert.are.equal(before, picture(db))
    end))

    it("says so of a string in Lua, with its line", async(function()
      project { ["migrations/001_users.sql"] = USERS, ["migrations/002_drop.lua"] =
        "return {\n  phase = \"expand\",\n  up = [[\n    alter table users\n      drop column fullname]],\n"
        .. "  down = \"alter table users add column fullname text\",\n}\n" }
      local before = picture(db)
      has(moonbird(6, "up").stderr, "migrations/002_drop.lua:4")
      assert.are.equal(before, picture(db))
    end))

    local FUNCTION = [[
return {
  description = "Drop a column from a function",
  phase = "expand",
  scope = "global",
  compatibility = "backward_compatible",%s
  up = function(db)
    db:exec("create table made (i int)")
    local column = "full" .. "name"
    db:exec("alter table users drop column " .. column)
  end,
  down = function(db)
    db:exec("alter table users add column fullname text")
    db:exec("drop table made")
  end,
}
]]

    it("is seen in a Lua function when it ran, before the commit", async(function()
      project { ["migrations/001_users.sql"] = USERS, ["migrations/002_drop.lua"] = FUNCTION:format(""),
        ["migrations/003_email.sql"] = EMAIL }
      local result = moonbird(6, "up")
      has(result.stderr, "expand-breaking")
      has(result.stderr, "migrations/002_drop.lua:9")
      assert.are.equal("1", applied(db))
      assert.are.equal("id fullname", columns(db))
      assert.is_nil(db:value "select to_regclass('made')::text")
      assert.are.equal(0, db:value "select count(*) from moonbird.journal where target = 'global' and version = 2 and applies")
      assert.are.equal(0, db:value "select count(*) from moonbird.verify()")
      local failed = answer(6, "up").error
      assert.are.equal("policy", failed.code)
      assert.are.equal(9, failed.problems[1].line)
    end))

    it("--dry-run refuses what the run would refuse", async(function()
      project { ["migrations/001_users.sql"] = USERS, ["migrations/002_drop.lua"] = FUNCTION:format("") }
      moonbird(0, "up", "--to", "1")
      has(moonbird(6, "up", "--dry-run").stderr, "migrations/002_drop.lua:9")
      assert.are.equal("id fullname", columns(db))
    end))

    it("is seen through every call that sends a statement", async(function()
      local drop = "alter table users drop column fullname"
      for _, call in ipairs { "db:exec(S)", "db:exec(S .. '; select 1')", "db:query(S)", "pcall(db.value, db, S)",
        "pcall(function() for _ in db:rows(S) do end end)", "db:atomic(function() db:exec(S) end)",
        "pcall(function() db:copy_out(S) end) db:exec(S)", "load('local db, s = ... db:exec(s)')(db, S)",
        "coroutine.wrap(function() db:exec(S) end)()", "setmetatable({}, { __index = function() db:exec(S) end }).x()",
        "db:exec('ALTER /* -- */ TABLE \"users\" DROP fullname')" } do
        local project_db = helper.database()
        project { ["migrations/001_users.sql"] = USERS, ["migrations/002_drop.lua"] =
          "return { up = function(db)\n  local S = '" .. drop .. "'\n  local db = db\n  pcall(function() "
          .. call .. " end)\nend, down = function(db) db:exec('select 1') end }\n" }
        local result = helper.moonbird({ "up" }, { db = project_db, cwd = dir })
        local gone = columns(project_db) ~= "id fullname"
        assert(not gone, call .. ": " .. result.stdout .. result.stderr)
        project_db:drop()
      end
    end))

    it("is told of a function without a transaction, which stays applied", async(function()
      project { ["migrations/001_users.sql"] = USERS,
        ["migrations/002_drop.lua"] = FUNCTION:format("\n  transaction = false,"),
        ["migrations/003_email.sql"] = EMAIL }
      local result = moonbird(6, "up")
      has(result.stderr, "migrations/002_drop.lua:10")
      has(result.stderr, "it stays")
      assert.are.equal("1 2", applied(db))
      assert.are.equal("id", columns(db))
      moonbird(0, "up")
      assert.are.equal("1 2 3", applied(db))
    end))

    it("may go back: a down that drops is no expand", async(function()
      project { ["migrations/001_users.sql"] = USERS, ["migrations/002_add.lua"] = [[
return {
  up = function(db) db:exec("alter table users add column email text") end,
  down = function(db) db:exec("alter table users drop column email") end,
}
]] }
      moonbird(0, "up")
      moonbird(0, "redo")
      moonbird(0, "down", "--to", "0")
      assert.are.equal("", applied(db))
    end))

    it("passes with a waiver in the function's table, which the journal keeps", async(function()
      project { ["migrations/001_users.sql"] = USERS, ["migrations/002_drop.lua"] = FUNCTION:format(
        "\n  waivers = { { rule = \"expand-breaking\", expires = \"2999-12-31\", reason = \"nobody reads it\","
        .. " ticket = \"OPS-7\" } },") }
      moonbird(0, "up")
      assert.are.equal("1 2", applied(db))
      local event = answer(0, "history").events[1]
      assert.are.equal("002_drop", event.id)
      assert.are.equal("expand-breaking", event.detail.waivers[1].rule)
      assert.are.equal("OPS-7", event.detail.waivers[1].ticket)
    end))
  end)

  describe("what hides a statement", function()
    it("is no way past the gate: so many statements that the recording ends", async(function()
      project { ["migrations/001_users.sql"] = USERS, ["migrations/002_many.lua"] = [[
return {
  up = function(db)
    for i = 1, 10500 do
      db:exec("select " .. i)
    end
    db:exec("alter table users drop column fullname")
  end,
  down = "alter table users add column fullname text",
}
]] }
      moonbird(6, "up")
      assert.are.equal("id fullname", columns(db))
      assert.are.equal("1", applied(db))
    end))

    for name, text in pairs {
      ["a DO block"] = "do $$ begin alter table users drop column fullname; end $$;",
      ["EXECUTE in a DO block"] = "do $$ begin execute 'alter table users drop column fullname'; end $$;",
    } do
      it("is told of at least: " .. name, async(function()
        project { ["migrations/001_users.sql"] = USERS, ["migrations/002_hidden.sql"] = expand(text,
          "alter table users add column fullname text;") }
        local result = helper.moonbird({ "deploy" }, { db = db, cwd = dir, env = { CI = false } })
        local told = (result.stdout .. result.stderr):find("002_hidden", 1, true)
          and (result.stdout .. result.stderr):find("migrations/002_hidden.sql:", 1, true)
        assert(result.status == 6 or told, result.stdout .. result.stderr)
      end))
    end
  end)

  it("a contract migration without a down is refused, whatever the flags", async(function()
    local text = contract(1, "alter table users drop column fullname;", "alter table users add column fullname text;")
    for _, wrong in ipairs { (text:gsub("alter table users add[^\n]*", "-- nothing to do")),
      (text:gsub("%-%- migrate:down.*", "-- migrate:down\n")),
      (text:gsub("%-%- migrate:up", "-- irreversible: the column is gone\n%0"):gsub("%-%- migrate:down.*",
        "-- migrate:down\n")) } do
      project { ["migrations/001_users.sql"] = USERS, ["migrations/002_drop.sql"] = wrong }
      has(moonbird(6, "up", "--allow-contract", "--allow-breaking").stderr, "contract-down")
      assert.is_nil(columns(db))
    end
  end))

  it("an environment may lower a gate; deploy tells it still", async(function()
    project { ["migrations/001_users.sql"] = USERS, ["migrations/002_drop.sql"] = expand(
      "alter table users drop column fullname;", "alter table users add column fullname text;"),
      ["moonbird.lua"] = [[return { environments = { late = {}, early = { policy = {
        rules = { ["expand-breaking"] = "warning", ["data-note"] = "off" } } } } }]] }
    moonbird(6, "-e", "late", "up")
    moonbird(0, "-e", "early", "up")
    assert.are.equal("1 2", applied(db))
    moonbird(0, "down")
    local result = moonbird(0, "-e", "early", "deploy")
    has(result.stdout .. result.stderr, "expand-breaking")
  end))

  it("a gate of the project's own that fails lets nothing through", async(function()
    project { ["migrations/001_users.sql"] = USERS,
      ["policies/own.lua"] = "return { id = 'own', gate = true, severity = 'info', check = function() error('oh') end }" }
    has(moonbird(6, "up").stderr, "policies/own.lua")
    assert.is_nil(columns(db))
    helper.write(dir, { ["policies/own.lua"] = "return { id = 'own', gate = true, check = function(ctx)" })
    moonbird(2, "up")
    assert.is_nil(columns(db))
  end))

  it("a gate of the project's own may ask the history and the database", async(function()
    project { ["migrations/001_users.sql"] = USERS, ["migrations/002_email.sql"] = EMAIL, ["policies/own.lua"] = [[
return { id = "own", gate = true, needs = { "history", "live" }, moments = { "before" }, check = function(ctx)
  local users = ctx.live:relation(nil, "users")
  if ctx.migration.version == 2 and not (ctx.history.applied[1] and users and users.kind == "table") then
    ctx:report("no users here")
  elseif ctx.migration.version == 1 and users then
    ctx:report("users too early")
  end
end }]] }
    moonbird(0, "up")
    assert.are.equal("1 2", applied(db))
  end))

  describe("rules that are no gates", function()
    local UNDESCRIBED = "-- migrate:up\ncreate table t (i int primary key);\n"
      .. "create table kids (t int references t (i));\n-- migrate:down\ndrop table kids;\ndrop table t;\n"

    it("warn at up, which goes on", async(function()
      project { ["migrations/001_t.sql"] = UNDESCRIBED }
      local result = moonbird(0, "up")
      has(result.stderr, "warn")
      has(result.stderr, "foreign-key-index")
      assert.are.equal("1", applied(db))
    end))

    it("stop up where the environment says so, and deploy always", async(function()
      project { ["migrations/001_t.sql"] = UNDESCRIBED, ["moonbird.lua"] =
        "return { environments = { strict = { policy = { up = \"all\" } }, loose = {} } }" }
      has(moonbird(6, "-e", "strict", "up").stderr, "foreign-key-index")
      moonbird(6, "-e", "loose", "deploy")
      -- A rule that asks the database is asked right before its step, when the journal is there already.
      assert.are.equal(0, db:value "select count(*) from pg_class where relnamespace = 'public'::regnamespace")
      assert.are.equal("", applied(db))
      moonbird(0, "-e", "loose", "up")
    end))

    it("warn once of a Lua function, though it is looked at twice", async(function()
      project { ["migrations/001_t.lua"] = "return {\n  up = function(db)\n    db:exec('create table t (i int)')\n"
        .. "  end,\n  down = function(db)\n    db:exec('drop table t')\n  end,\n}\n" }
      local seen = {}
      for line in moonbird(0, "up").stderr:gmatch("[^\n]+") do
        assert.is_nil(seen[line], "told twice: " .. line)
        seen[line] = true
      end
    end))
  end)

  describe("waivers", function()
    local function swap(words, head)
      return { ["migrations/001_users.sql"] = USERS, ["migrations/002_swap.sql"] = expand((head and "" or words .. "\n")
        .. "alter table users drop column fullname;", "alter table users add column fullname text;",
        head and words .. "\n" or "") }
    end

    for name, head in pairs { ["above the statement"] = false, ["in the head"] = true } do
      it(name .. " let it through and are kept in the journal", async(function()
        project(swap('-- moonbird:allow expand-breaking until=2999-01-31 reason="nobody reads it" ticket=OPS-12', head))
        moonbird(0, "up")
        local event = answer(0, "history").events[1]
        assert.are.same({ { rule = "expand-breaking", reason = "nobody reads it", expires = "2999-01-31",
          ticket = "OPS-12" } }, event.detail.waivers)
        for _, other in ipairs(answer(0, "history").events) do
          if other.version ~= event.version then
            assert.is_nil(other.detail and other.detail.waivers)
          end
        end
      end))
    end

    it("of another statement do not", async(function()
      project { ["migrations/001_users.sql"] = USERS, ["migrations/002_swap.sql"] = expand(
        '-- moonbird:allow expand-breaking until=2999-01-31 reason="nobody reads it"\n'
        .. "alter table users add column a text;\nalter table users drop column fullname;") }
      moonbird(6, "up")
    end))

    it("that are over, or without a reason, or of the wrong rule excuse nothing", async(function()
      for _, words in ipairs { '-- moonbird:allow expand-breaking until=2020-01-31 reason="nobody reads it"',
        "-- moonbird:allow expand-breaking until=2999-01-31", '-- moonbird:allow expand-breaking reason="no end"',
        '-- moonbird:allow unique-id until=2999-01-31 reason="another rule"',
        '-- moonbird:allow expand-breaking until=2999-13-31 reason="no such month"' } do
        project(swap(words))
        moonbird(6, "up")
        assert.is_nil(db:value "select to_regclass('users')::text", words)
      end
    end))

    it("of moonbird.lua renew one that is over, in the environment that says so", async(function()
      local files = swap('-- moonbird:allow expand-breaking until=2020-01-31 reason="nobody reads it"')
      files["moonbird.lua"] = [[return { environments = { strict = {}, renewed = { policy = { waivers = {
        { migration = 2, rule = "expand-breaking", expires = "2999-01-31", reason = "still nobody reads it" } } } } } }]]
      project(files)
      moonbird(6, "-e", "strict", "up")
      moonbird(0, "-e", "renewed", "up")
      assert.are.equal("still nobody reads it", answer(0, "history").events[1].detail.waivers[1].reason)
    end))
  end)
end)
