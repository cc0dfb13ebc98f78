-- The recorder: what a Lua function sends, from which line, and which values it had read stand in the text.
local db_ = require "moonbird.core.db"
local helper = require "tests.helper"
local literals = require "moonbird.util.literals"
local recorder = require "moonbird.exec.recorder"
local sandbox = require "moonbird.core.sandbox"
local session = require "moonbird.core.session"
local sys = require "moonbird.core.sys"
local async = helper.async

local FILE = "migrations/001_x.lua"

describe("the literals of a text", function()
  local function of(text)
    local list = {}
    literals.each(text, function(token)
      list[#list + 1] = token
    end)
    return list
  end

  it("are strings, numbers and dollar-quoted bodies", function()
    assert.are.same({ "a", "it's", "12", "3.5", "1e9" }, of "select 'a', 'it''s', 12, 3.5, x1e9, t.c2, 1e9, $1, $22")
    assert.are.same({ "a'b", "c" }, of [[select E'a\'b', e'c']])
    assert.are.same({ [[a\]], "b" }, of [[select 'a\', 'b']])
    assert.are.same({ "insert 'x' 7", "x", "7", "9" }, of "do $f$insert 'x' 7$f$; select 9")
    assert.are.same({ "x" }, of [[select name'x' -- 'y' 5
      /* 'z' /* 6 */ 7 */ from "t 8"]])
  end)

  it("that never end do no harm", function()
    for _, text in ipairs { "'", "select 'a", "$x$", "$x$ 'a", "/* /*", "--", "E'\\", '"', "$" } do
      of(text)
    end
  end)

  it("are found in time linear in the text", function()
    for _, piece in ipairs { "'a'", "$a$ ", "/* ", "'", "1 ", "E'\\'", "$x", "a1", "-/", "$" } do
      local started = sys.monotonic()
      of(piece:rep(200000))
      assert(sys.monotonic() - started < 3, piece)
    end
  end)
end)

describe("a recording", function()
  local database, own

  setup(async(function()
    database = helper.database { scope = "file" }
    database:exec [[create table people (id int, email text, code text);
      insert into people values (7, 'ann@example.org', 'K-4711'), (812, 'true', 'xy')]]
  end))

  before_each(async(function()
    own = assert(session.open(database.params))
    helper.defer(function()
      own:close()
    end)
  end))

  --- Runs a script in a transaction that is rolled back.
  local function record(source, options)
    options = options or {}
    local rec = recorder.new { file = FILE, source = source }
    local handle = db_.new { session = own, target = {}, log = function() end, record = rec, script = options.script }
    local fn = assert(sandbox.load(source, FILE, sandbox.environment {
      extra = options.extra,
    }))
    if not options.script then
      assert(own:query("begin"))
    end
    local ok, err = sandbox.run { fn = fn, args = { handle }, name = FILE }
    own:rollback()
    if not options.fails then
      assert(ok, tostring(err))
    end
    return rec.entries, not rec.truncated, err
  end

  local function texts(entries)
    local list = {}
    for i, entry in ipairs(entries) do
      list[i] = entry.line .. ": " .. entry.text
    end
    return list
  end

  it("has each statement with its line, however it is sent", async(function()
    local entries, complete = record [[local db = ...
db:exec("create table t (a int); insert into t values (1)")
db:query("select a from t")
db:one "select 1"
local function deeper()
  local five = db:value("select $1::int", 5)
  return five
end
deeper()
for _ in db:rows("select 2 where $1", true) do end
db:copy_in("copy t from stdin", "3\n")
for _ in db:copy_out("copy t to stdout") do end
db:atomic(function()
  db:exec "select 3"
end)
coroutine.wrap(function() db:exec "select 4" end)()]]
    assert.is_true(complete)
    assert.are.same({ "2: create table t (a int)", "2: insert into t values (1)", "3: select a from t",
      "4: select 1", "6: select $1::int", "10: select 2 where $1", "11: copy t from stdin", "12: copy t to stdout",
      "14: select 3", "16: select 4" }, texts(entries))
    assert.are.same({ 5, n = 1 }, entries[5].params)
    assert.are.same({ true, n = 1 }, entries[6].params)
    for _, entry in ipairs(entries) do
      assert.are.same({}, entry.reads)
    end
  end))

  it("has the statement that failed", async(function()
    local entries, _, err = record("local db = ...\ndb:exec 'select 1/0'", { fails = true })
    assert.are.equal("22012", err.sqlstate)
    assert.are.same({ "2: select 1/0" }, texts(entries))
  end))

  it("has what runs outside a managed transaction", async(function()
    local entries = record("local db = ...\ndb:exec 'select 1'\ndb:atomic(function() db:exec 'select 2' end)",
      { script = true })
    assert.are.same({ "2: select 1", "3: select 2" }, texts(entries))
  end))

  it("keeps NULL and db.null as no value, and cuts long strings", async(function()
    local entries = record [[local db = ...
db:exec("select $1::text, $2::text, $3::text", nil, db.null, ("x"):rep(5000))]]
    assert.are.equal(3, entries[1].params.n)
    assert.is_nil(entries[1].params[1])
    assert.is_nil(entries[1].params[2])
    assert.are.equal(1024, #entries[1].params[3])
  end))

  it("merges the same text from the same line", async(function()
    local entries, complete = record [[local db = ...
for i = 1, 20000 do db:exec("select $1::int", i) end
db:exec("select $1::int", 1)]]
    assert.is_true(complete)
    assert.are.equal(2, #entries)
    assert.are.equal(20000, entries[1].times)
    assert.are.same({ 1, n = 1 }, entries[1].params)
    assert.are.equal(3, entries[2].line)
  end))

  it("ends after 10,000 entries, and says so", async(function()
    local entries, complete = record [[local db = ...
for i = 1, 10001 do db:exec("select " .. i) end]]
    assert.is_false(complete)
    assert.are.equal(10000, #entries)
  end))

  it("ends after 4 MiB of text, and says so", async(function()
    local entries, complete = record [[local db = ...
for i = 1, 6 do db:exec("select length('" .. ("x"):rep(1 << 20) .. i .. "')") end]]
    assert.is_false(complete)
    assert.are.equal(3, #entries)
  end))

  describe("tells a value that was read and spliced in", function()
    local function reads(body)
      local entries = record("local db = ...\n" .. body)
      return entries[#entries].reads
    end

    it("from each way of reading", async(function()
      assert.are.same({ "ann@example.org" },
        reads [[db:exec("select '" .. db:value("select email from people where id = 7") .. "'")]])
      assert.are.same({ "ann@example.org" },
        reads [[db:exec("select " .. db:literal(db:one("select * from people where id = 7").email))]])
      assert.are.same({ 812 },
        reads [[db:exec("delete from people where id = " .. db:query("select id from people order by id")[2].id)]])
      assert.are.same({ "K-4711" }, reads [[local code
for row in db:rows("select code from people where id = 7") do code = row.code end
db:exec("select 1 where 'a' like '%" .. code .. "%'")]])
      assert.are.same({ "K-4711" }, reads [[local text = ""
for chunk in db:copy_out("copy (select id, code from people where id = 7) to stdout") do text = text .. chunk end
db:exec("select '" .. text:match("K[^\n]*") .. "'")]])
      assert.are.same({ "ann@example.org" }, reads [[local v = db:value("select email from people where id = 7")
db:exec("do $x$ begin perform '" .. v .. "'; end $x$")]])
    end))

    it("also in a text that was sent before it was read", async(function()
      local entries = record [[local db = ...
local v = "812" .. ""
for i = 1, 2 do
  db:exec("select 7" .. ("000"):rep(1) .. "1 + " .. 8 .. "12")
  db:exec("select ".. 400 + 412)
  db:value("select 811 + 1")
end]]
      assert.are.same({}, entries[1].reads) -- "812" stands in the script
      entries = record [[local db = ...
for i = 1, 2 do
  db:exec("select ".. 400 + 412)
  db:value("select 811 + 1")
end]]
      assert.are.same({ 812 }, entries[1].reads)
    end))

    it("but not one that was bound, is a name, stands in the script, is short or a plain word", async(function()
      assert.are.same({}, reads [[db:exec("select $1::text", db:value("select email from people where id = 7"))]])
      assert.are.same({}, reads [[db:exec("select 1 as " .. db:ident(db:value("select 'some_name'")))]])
      assert.are.same({}, reads [[db:value("select email from people") db:exec("select 'ann@example.org'")]])
      assert.are.same({}, reads [[db:exec("select '" .. db:value("select code from people where id = 812") .. "'")]])
      assert.are.same({}, reads [[db:exec("select '" .. db:value("select email from people where id = 812") .. "'")]])
      assert.are.same({}, reads [[db:exec("select " .. db:value("select id from people where id = 7"))]])
      assert.are.same({}, reads [[db:exec("select 1 /* " .. db:value("select email from people where id = 7") .. " */")]])
    end))
  end)

  it("stays bounded whatever is read", async(function()
    local entries, complete = record [[local db = ...
for i = 1, 30 do
  db:query("select md5(i::text) || md5(i::text) a from generate_series(" .. i .. " * 1000, " .. i .. " * 1000 + 999) i")
end
for i = 1, 30 do db:value("select repeat(md5('" .. i .. "'), 1500) v") end
for row in db:rows("select i from generate_series(1, 100000) i") do end]]
    assert.is_true(complete)
    assert.are.equal(61, #entries)
  end))

  it("of a million streamed rows costs little", async(function()
    local function once(record_it)
      local rec = record_it and recorder.new { file = FILE, source = "" } or nil
      local handle = db_.new { session = own, target = {}, log = function() end, record = rec }
      assert(own:query("begin"))
      local rows, instructions = 0, 0
      debug.sethook(function()
        instructions = instructions + 1000
      end, "", 1000)
      for _ in handle:rows("select i, 'some text ' || i as t from generate_series(1, 1000000) i") do
        rows = rows + 1
      end
      debug.sethook()
      own:rollback()
      assert.are.equal(1000000, rows)
      return instructions
    end
    local plain, recorded = once(false), once(true)
    assert(plain > 1000000, "nothing was counted")
    assert(recorded <= plain * 1.1, ("%d instructions of Lua instead of %d"):format(recorded, plain))
  end))
end)
