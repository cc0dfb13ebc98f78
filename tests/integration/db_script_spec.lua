-- What db refuses and how it writes values, seen by scripts of `moonbird run`.
local helper = require "tests.helper"
local texts = require "tests.texts"
local async = helper.async
local has = texts.has

-- Stands on the first line of each script: `fails(words, fn)` insists on an error of code "script" (or `code`) that has
-- the words, and the place in the script, whichever it is.
local PRELUDE = [[local function fails(words, fn, code) local ok, err = pcall(fn) ]]
  .. [[if ok then error("no error: " .. words, 2) end ]]
  .. [[if type(err) ~= "table" then error("not a table: " .. tostring(err), 2) end ]]
  .. [[local said = tostring(err) .. " " .. tostring(err.hint) ]]
  .. [[if not said:find(words, 1, true) or err.code ~= (code or "script") or err.file ~= "x.lua" or not err.line then ]]
  .. [[error(("%s (%s): %s"):format(err.file, err.code, said), 2) end end ]]
  .. [[local function eq(got, wanted) if got ~= wanted then error(("got %q, not %q"):format(got, wanted), 2) end end ]]

describe("a script", function()
  local db, dir

  before_each(async(function()
    db = helper.database()
    dir = helper.project {}
  end))

  --- Runs a script with this body, which begins on line 2.
  local function script(body, status)
    helper.write(dir, { ["x.lua"] = PRELUDE .. "return function(db)\n" .. body .. "\nend\n" })
    return helper.ok({ "run", "x.lua" }, { cwd = dir, db = db, status = status or 0 })
  end

  it("can't begin or end a transaction but by atomic", async(function()
    db:exec "create table t (i int)"
    local said = script([[
  for _, sql in ipairs { "begin", "commit", "rollback", "start transaction", "end", "abort", "commit and chain" } do
    fails("db:atomic", function() db:exec(sql) end, "transaction")
    fails("db:atomic", function() db:exec("select 1; " .. sql) end, "transaction")
    fails("db:atomic", function() db:query(sql) end, "transaction")
    db:atomic(function()
      db:exec "insert into t values (1)"
      fails("db:atomic", function() db:exec(sql) end, "transaction")
    end)
  end
  pcall(db.atomic, db, function()
    db:exec "insert into t values (2)"
    pcall(db.exec, db, "commit")
    error "out"
  end)
  db:exec "vacuum t"
  db:exec "begin"]], 1).stderr
    has(said, "x.lua:17")
    has(said, "BEGIN is not allowed in a script")
    assert.are.same({ 7, 1 }, { db:value "select count(*) from t", db:value "select max(i) from t" })
  end))
end)
