-- Streams of db (rows, COPY) that other statements come between: nothing is lost silently, and the real error is said.
local helper = require "tests.helper"
local texts = require "tests.texts"
local async = helper.async
local has = texts.has

describe("a stream", function()
  local db, dir

  before_each(async(function()
    db = helper.database()
    dir = helper.project {}
    db:exec [[
      create table big as select i from generate_series(1, 100000) i;
      create table sink (n bigint)]]
  end))

  --- Runs a script with this body.
  local function script(body, status)
    helper.write(dir, { ["x.lua"] = "return function(db)\n" .. body .. "\nend\n" })
    return helper.ok({ "run", "x.lua" }, { cwd = dir, db = db, status = status or 0 })
  end

  --- Applies a migration with this body.
  local function migration(body, status, head)
    helper.write(dir, { ["migrations/001_x.lua"] = "return { " .. (head or "") .. " up = function(db)\n" .. body
      .. "\nend, irreversible = 'a test' }\n" })
    return helper.ok({ "up" }, { cwd = dir, db = db, status = status or 0 })
  end

  describe("of COPY out", function()
    it("raises when another statement has ended it", async(function()
      local said = script([[
  for chunk in db:copy_out "copy big to stdout" do
    db:exec("insert into sink values ($1)", #chunk)
  end]], 1).stderr
      has(said, "x.lua:2")
      has(said, "ended by another statement")
      has(said, "db:rows")
      migration([[
  local a = db:copy_out "copy big to stdout"
  local b = db:copy_out "copy (select 'b') to stdout"
  local ok, err = pcall(a)
  assert(not ok and err.code == "script" and err.line == 4, "a")
  assert(b() == "b\n" and b() == nil and b() == nil, "b")
  assert(not pcall(a))
  for _ in db:copy_out "copy big to stdout" do end
  db:exec "insert into sink values (1)"]])
      assert.are.same({ 1 }, { db:value "select count(*) from sink where n = 1" })
    end))

    it("can't be the source of a COPY in", async(function()
      local said = script([[
  db:exec "create table b (i int)"
  db:copy_in("copy b from stdin", db:copy_out "copy big to stdout")]], 1).stderr
      has(said, "x.lua:3")
      has(said, "ended by another statement")
    end))

    it("says what it failed with, wherever that is seen", async(function()
      db:exec "create table seen (n bigint)"
      local said = migration([[
  for chunk in db:copy_out "copy (select 1 / (50000 - i) from big) to stdout" do
    db:exec("insert into seen values ($1)", #chunk)
  end]], 1).stderr
      has(said, "division by zero")
      has(said, "001_x.lua:3")
      said = migration([[
  db:atomic(function()
    for _ in db:copy_out "copy (select 1 / (50000 - i) from big) to stdout" do break end
  end)]], 1).stderr
      has(said, "division by zero")
      migration [[
  assert(not pcall(db.atomic, db, function()
    for _ in db:copy_out "copy (select 1 / (50000 - i) from big) to stdout" do error "enough" end
  end))
  db:exec "insert into sink values (7)"]]
      assert.are.equal(1, db:value "select count(*) from sink where n = 7")
    end))
  end)

  describe("of rows", function()
    local LOOP = [[
  for row in db:rows "select 1000 / (300 - x) as y, x from generate_series(1, 400) x%s" do
    db:exec("insert into sink values ($1)", row.x)
    if row.x == %d then break end
  end]]

    it("says what it failed with", async(function()
      local said = migration(LOOP:format("", 0), 1).stderr
      has(said, "division by zero")
      has(said, "001_x.lua:2")
      assert.is_nil(said:find("aborted", 1, true))
      said = script("db:atomic(function()\n" .. LOOP:format("", 0) .. "\nend)", 1).stderr
      has(said, "division by zero")
      said = script(LOOP:format("", 0), 1).stderr
      has(said, "division by zero")
    end))

    it("fails the transaction, caught or not", async(function()
      local said = migration("pcall(function()\n" .. LOOP:format("", 0) .. "\nend)", 1).stderr
      has(said, "failed state")
      migration("pcall(db.atomic, db, function()\n" .. LOOP:format("", 0)
        .. "\nend)\ndb:exec 'insert into sink values (0)'")
      assert.are.same({ 0 }, db:values "select n from sink")
    end))

    it("that is left before a row that fails doesn't fail", async(function()
      migration(LOOP:format("", 3) .. "\ndb:exec 'insert into sink values (0)'")
      assert.are.same({ 0, 1, 2, 3 }, db:values "select n from sink order by n")
    end))

    it("begins with few of them, and takes at most twice as many each time", async(function()
      db:exec "create sequence made"
      migration [[
  local given = 0
  for _ in db:rows "select nextval('made'), repeat('x', 1000000) from generate_series(1, 30)" do
    given = given + 1
    local made = db:value "select last_value from made"
    if made > given + 8 then error(("%d made for %d"):format(made, given)) end
  end
  assert(given == 30)
  db:exec "alter sequence made restart"
  given = 0
  for _ in db:rows "select nextval('made') from generate_series(1, 3000)" do
    given = given + 1
    local made = given % 8 == 1 and db:value "select last_value from made" or 0
    if made > math.max(24, given * 7) then error(("%d made for %d"):format(made, given)) end
  end
  assert(given == 3000)]]
    end))

    it("that locks and is left before says it at the end of the migration", async(function()
      local said = migration([[
  db:exec "create table few (x int); insert into few select generate_series(1, 400)"
  for row in db:rows "select 1000 / (12 - x) as y, x from few order by x for update" do
    if row.x == 10 then break end
  end]], 1).stderr
      has(said, "division by zero")
    end))

    it("that locks says what it failed with", async(function()
      db:exec "create table held as select x from generate_series(1, 400) x"
      local loop = [[
  for row in db:rows "select 1000 / (300 - x) as y, x from held for update" do
    db:exec("insert into sink values ($1)", row.x)
  end]]
      has(migration(loop, 1).stderr, "division by zero")
    end))
  end)
end)
