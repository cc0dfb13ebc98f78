-- The sandbox: what a script can't do, how it ends when it tries, and what the error says.
local errors = require "moonbird.core.error"
local sandbox = require "moonbird.core.sandbox"

local FILE = "migrations/0001_x.lua"
local MIB = 1 << 20

-- Stands for an engine call: waits for the scheduler, counts how often it was resumed.
local waited
local function wait(...)
  coroutine.yield(sandbox.sentinel)
  waited = waited + 1
  return ...
end

local function fail_like_the_engine(fields)
  wait()
  error(errors.new("sql", "division by zero", fields or { sqlstate = "22012" }), 0)
end

local function environment(extra)
  local env = { wait = wait, fail = fail_like_the_engine }
  for k, v in pairs(extra or {}) do
    env[k] = v
  end
  return sandbox.environment { print = function() end, extra = env }
end

-- Runs text in a task of its own, resuming each wait as the scheduler would.
local function run(text, options)
  options = options or {}
  local chunk = assert(sandbox.load(text, options.name or FILE, options.env or environment(options.extra)))
  waited = 0
  local task = coroutine.create(function()
    return sandbox.run {
      fn = chunk,
      args = options.args,
      name = FILE,
      instructions = options.instructions or 10000000,
      memory = options.memory or 64 * MIB,
      seconds = options.seconds,
    }
  end)
  local answer = table.pack(coroutine.resume(task))
  while coroutine.status(task) == "suspended" do
    assert(answer.n == 2 and answer[2] == sandbox.sentinel, "something else than the sentinel came through")
    answer = table.pack(coroutine.resume(task))
  end
  assert(answer[1], answer[2])
  return table.unpack(answer, 2, answer.n)
end

local function fails(text, code, line, pattern, options)
  local ok, err = run(text, options)
  assert(ok == false, "the script got through")
  assert(errors.is(err), "no moonbird error: " .. tostring(err))
  assert.equal(code, err.code, tostring(err))
  assert.equal(FILE, err.file)
  assert.equal(line, err.line, tostring(err))
  if pattern then
    assert(err.message:find(pattern), err.message)
  end
  return err
end

local function gives(text, ...)
  local got = table.pack(run(text))
  assert(got[1] == true, tostring(got[2]))
  assert.same({ ... }, { table.unpack(got, 2, got.n) })
end

describe("results and arguments", function()
  it("go in and come out", function()
    local ok, a, b, c = run("local x, y, z = ... return z, y, x", { args = { 1, nil, 3, n = 3 } })
    assert.same({ true, 3, nil, 1 }, { ok, a, b, c })
  end)

  it("may be many", function()
    local got = table.pack(run("local t = {} for i = 1, 5000 do t[i] = i end return table.unpack(t)"))
    assert.equal(5001, got.n)
    assert.equal(5000, got[5001])
  end)

  it("can't overflow the engine's stack", function()
    local ok, err = run("return table.unpack({}, 1, 900000)")
    assert.is_false(ok)
    assert.equal("migrations/0001_x.lua: the script returned 900000 values", tostring(err))
  end)
end)

describe("the instruction limit", function()
  it("ends an endless loop and names the line", function()
    local err = fails("local x = 1\n\nwhile true do end", "limit", 3, "10,000,000 instructions")
    assert.equal("migrations/0001_x.lua:3: in main chunk", err.traceback)
  end)

  it("can't be caught", function()
    fails("while true do\n  pcall(function()\n    while true do end\n  end)\nend", "limit", 3)
    fails("return pcall(function()\nwhile true do end end)", "limit", 2)
    fails("return pcall(pcall, pcall, function()\nwhile true do end end)", "limit", 2)
    fails("while true do\nxpcall(function() while true do end end, print)\nend", "limit", 2)
  end)

  it("can't be escaped in a message handler, which Lua runs without hooks", function()
    fails("xpcall(function() while true do end end, function() while true do end end)", "limit", 1)
    fails("xpcall(error, function() while true do end end)", "limit", 1)
    fails("xpcall(error, function() error() end) while true do end", "limit", 1)
  end)

  it("can't be escaped in __close", function()
    fails([[
      local endless = setmetatable({}, { __close = function() while true do end end })
      local x <close> = endless
      while true do end]], "limit", 3)
    fails([[
      local endless = setmetatable({}, { __close = function() while true do end end })
      local x <close> = endless
      error("boom")]], "limit", 1)
    fails([[
      local co = coroutine.wrap(function()
        local x <close> = setmetatable({}, { __close = function() while true do end end })
        while true do end
      end)
      pcall(co) pcall(coroutine.close, co)
      while true do end]], "limit", 3)
    fails([[
      local co = coroutine.create(function()
        local x <close> = setmetatable({}, { __close = function() while true do end end })
        coroutine.yield()
      end)
      coroutine.resume(co)
      coroutine.close(co)]], "limit", 2)
  end)

  it("is shared by coroutines", function()
    fails("coroutine.wrap(function()\nwhile true do end end)()", "limit", 2)
    fails("while true do\ncoroutine.resume(coroutine.create(function() while true do end end))\nend", "limit", 2)
    fails("while true do pcall(coroutine.wrap(function() pcall(function()\nwhile true do end end) end)) end",
      "limit", 2)
    fails("local co = coroutine.wrap(function() while true do for i = 1, 500 do end coroutine.yield() end end)\n"
      .. "while true do co() end", "limit", 1)
  end)

  it("counts many short coroutines", function()
    local _, err = run("local n = 0\nwhile true do coroutine.wrap(function() for i = 1, 900 do end end)() end")
    assert.equal("limit", err.code)
    fails("while true do coroutine.create(function() end) end", "limit", 1)
  end)

  it("reaches into callbacks of C functions", function()
    fails("table.sort({ 1, 2, 3 }, function()\nwhile true do end end)", "limit", 2)
    fails("(('x'):rep(10)):gsub('.', function()\nwhile true do end end)", "limit", 2)
    fails("local t = setmetatable({}, { __index = function()\nwhile true do end end }) return t.x", "limit", 2)
    fails("tostring(setmetatable({}, { __tostring = function()\nwhile true do end end }))", "limit", 2)
    local _, err = run("load('while true do end', 'x')()")
    assert.same({ "limit", "(load x)", 1 }, { err.code, err.file, err.line })
  end)

  it("covers the text of an error", function()
    local err = fails("error(setmetatable({}, { __tostring = function()\nwhile true do end end }))", "limit", 2)
    assert(err.message:find("instructions"))
    fails("error(setmetatable({}, { __tostring = function()\nerror('again') end }))", "script", 2, "^again$")
    fails("local m = {} m.__tostring = function() error(setmetatable({}, m)) end error(setmetatable({}, m))",
      "script", 1)
  end)

  it("goes on over waits, and ends a script that waits in a loop", function()
    gives("for i = 1, 1000 do wait() end return 7", 7)
    assert.equal(1000, waited)
    fails("while true do pcall(function() wait() for i = 1, 1000 do end end) end", "limit", 1)
  end)

  it("leaves the engine alone afterwards", function()
    fails("while true do end", "limit", 1)
    local x = 0
    for i = 1, 20000000 do
      x = x + i
    end
    assert.equal(200000010000000, x)
    gives("return 1", 1)
  end)
end)

describe("the memory limit", function()
  it("refuses 10 GB and names the line", function()
    local err = fails("local a = 1\nlocal s = ('x'):rep(10000000000)\nreturn #s", "limit", 2, "64 MiB")
    assert(err.traceback:find("0001_x.lua:2: in main chunk", 1, true), err.traceback)
    fails("local function f()\n  return string.rep('x', 1 << 40)\nend\nreturn #f()", "limit", 2)
  end)

  it("ends what grows step by step", function()
    fails("local t = {}\nwhile true do\n  t[#t + 1] = {}\nend", "limit", 3)
    fails("local s = 'x'\nwhile true do s = s .. s end", "limit", 2)
    fails("local t = {}\nwhile true do t[#t + 1] = coroutine.wrap(function() end) end", "limit", 2,
      nil, { instructions = 1000000000 })
  end)

  it("names the line in a coroutine", function()
    fails("local co = coroutine.wrap(function()\n  return ('x'):rep(10000000000)\nend)\nco()", "limit", 2)
  end)

  it("may be caught: nothing was taken", function()
    gives("local ok, message = pcall(string.rep, 'x', 10000000000) return ok, message", false, "not enough memory")
  end)

  it("is not reached by garbage", function()
    gives("local n = 0 for i = 1, 300 do n = n + #('x'):rep(1000000 + i) end return n", 300045150)
  end)

  it("is gone after the run", function()
    local before = sandbox.memory()
    fails("local t = {}\nwhile true do\n  t[#t + 1] = {}\nend", "limit", 3)
    collectgarbage()
    assert(sandbox.memory() < before + 2 * MIB)
    assert.equal(100 * MIB, #("x"):rep(100 * MIB))
    collectgarbage()
  end)

  it("is the sum for runs that are open together", function()
    local chunk = assert(sandbox.load("local s = ('x'):rep(40 << 20) wait() return #s", FILE, environment()))
    waited = 0
    local tasks = {}
    for i = 1, 4 do
      tasks[i] = coroutine.create(function()
        return sandbox.run { fn = chunk, name = FILE, memory = 50 * MIB }
      end)
      assert(coroutine.resume(tasks[i]))
    end
    for i = 1, 4 do
      local _, ok, size = coroutine.resume(tasks[i])
      assert(ok, tostring(size))
    end
  end)

  it("holds for the whole state when asked", function()
    sandbox.set_memory_limit(sandbox.memory() + 10 * MIB)
    local ok = pcall(string.rep, "x", 20 * MIB)
    sandbox.set_memory_limit(nil)
    assert.is_false(ok)
    assert(pcall(string.rep, "x", 20 * MIB))
  end)
end)

describe("the environment", function()
  it("names what is missing and what to use instead", function()
    fails("\nos.execute('true')", "sandbox", 2, '"os" is not available in a migration')
    fails("io.open('/etc/passwd')", "sandbox", 1, '"io" is not available')
    for _, name in ipairs { "debug", "package", "require", "dofile", "loadfile", "loadstring" } do
      fails("return " .. name, "sandbox", 1, '"' .. name .. '" is not available')
    end
    fails("return math.random()", "sandbox", 1, '"math.random" is not available')
    fails("local x = 1\nreturn valeu", "sandbox", 2, 'no global variable "valeu"')
    fails("return _ENV[1]", "sandbox", 1, "number for a name")
  end)

  it("has the language", function()
    gives("local t = {} for k in pairs(string) do t[#t + 1] = k end return #t", 16)
    gives("return string.format('%d', 7), ('x'):rep(3, ','), utf8.char(228), math.pi > 3, #table.pack(1, 2)",
      "7", "x,x,x", "ä", true, 2)
    gives("local n = 0 for i = 1, 10 do if i % 2 == 0 then goto continue end n = n + i ::continue:: end return n", 25)
    gives("return load('return 1 + 1')()", 2)
    gives("return load('return x', 'c', 't', { x = 5 })()", 5)
    gives("return type(collectgarbage('count'))", "number")
    gives("return select('#', pcall(error)), (''):rep(1 << 62), #('ab'):rep(1000, ', ')", 2, "", 3998)
    gives("return xpcall(error, function(m) return m .. '!' end, 'a', 0)", false, "a!")
    gives("return xpcall(function(...) return ... end, print, 1, 2)", true, 1, 2)
    fails("collectgarbage('stop')", "sandbox", 1)
  end)

  it("keeps globals in the file's own environment", function()
    local one, two = environment(), environment()
    assert(run("counter = 1 _G.other = 2", { env = one }))
    local ok, a, b = run("return counter, other", { env = one })
    assert.same({ true, 1, 2 }, { ok, a, b })
    fails("return counter", "sandbox", 1, '"counter"', { env = two })
    assert.is_nil(rawget(_G, "counter"))
  end)

  it("has read-only libraries", function()
    fails("string.rep = nil", "sandbox", 1, 'library table "string" is read%-only')
    fails("string.new = 1", "sandbox", 1, "read%-only")
    fails("rawset(string, 'rep', nil)", "sandbox", 1, "rawset")
    fails("table.insert(string, 'x')", "sandbox", 1, "read%-only")
    fails("setmetatable(string, {})", "sandbox", 1, "metatable")
    fails("setmetatable(_ENV, {})", "sandbox", 1, "metatable")
    gives("return getmetatable(string), getmetatable(_ENV), getmetatable('')", false, false, false)
    fails("getmetatable('').__index = {}", "script", 1)
    gives("return pcall(next, string)", true, nil)
    fails("local f = pairs(string) local k, v = f(nil, nil) string[k] = 1", "sandbox", 1, "read%-only")
  end)

  it("has no bytecode", function()
    fails("string.dump(print)", "sandbox", 1, "string.dump")
    fails("(''):dump()", "sandbox", 1, "string.dump")
    fails("return ('x').dump(load)", "sandbox", 1, "string.dump")
    gives("return load('\\27Lua')", nil, "bytecode is never loaded")
    gives("return load('return 1', 'x', 'b')", nil, "bytecode is never loaded")
    fails("load(function() return '\\27Lua' end)", "sandbox", 1, "load takes text")
  end)

  it("has no finalizers", function()
    fails("setmetatable({}, { __gc = function() end })", "sandbox", 1, "__gc")
    fails("setmetatable({}, { __gc = true })", "sandbox", 1, "__gc")
    gives("local m = {} setmetatable({}, m) m.__gc = function() ran = true end "
      .. "local t = {} for i = 1, 100000 do t = {} end return rawget(_G, 'ran')", nil)
  end)

  it("respects the script's own metatables", function()
    gives("local m = { __index = { x = 1 } } local t = setmetatable({}, m) return t.x, getmetatable(t) == m", 1, true)
    gives("return getmetatable(setmetatable({}, { __metatable = 'mine' }))", "mine")
    fails("setmetatable(setmetatable({}, { __metatable = 'mine' }), nil)", "script", 1, "protected")
    gives("local t = setmetatable(setmetatable({}, {}), nil) return getmetatable(t)", nil)
    fails("setmetatable(1, {})", "script", 1, "bad argument #1 to 'setmetatable'")
  end)

  it("keeps the engine's errors whole", function()
    gives("local ok, err = pcall(fail) return getmetatable(err), err.sqlstate, err.file, err.line",
      false, "22012", FILE, 1)
    fails("local ok, err = pcall(fail) setmetatable(err, { __tostring = os })", "sandbox", 1)
    local ok, err = run([[
      local ok, err = pcall(fail)
      err.code, err.message, err.line = "no such", setmetatable({}, { __tostring = print }), "x"
      err.cause = setmetatable({}, { __index = print })
      err.problems = { { message = "forged", bad = print } }
      error(err)]])
    assert.is_false(ok)
    assert.equal("script", err.code)
    assert.equal("an error without a message", err.message)
    assert.is_nil(err.cause)
    assert.is_nil(err.problems) -- only the engine lists problems
    assert.is_nil(err.line)
  end)
end)

describe("load", function()
  local env = environment()

  it("refuses bytecode", function()
    local chunk, err = sandbox.load("\27Lua\x54", FILE, env)
    assert.is_nil(chunk)
    assert.equal("migration_file", err.code)
    assert.equal(FILE .. ":1: the file is Lua bytecode; only source text is accepted", tostring(err))
  end)

  it("names file and line of a syntax error", function()
    local _, err = sandbox.load("local x = 1\nlocal y = = 2", FILE, env)
    assert.same({ "migration_file", FILE, 2 }, { err.code, err.file, err.line })
    assert(err.message:find("unexpected symbol", 1, true))
    local long = ("a"):rep(30) .. "/" .. ("b"):rep(60) .. ".lua"
    _, err = sandbox.load("\n\n\nx x", long, env)
    assert.same({ long, 4 }, { err.file, err.line })
    assert.is_nil(err.message:find("bbb", 1, true))
  end)

  it("names a long file in full also at run time", function()
    local long = ("a"):rep(30) .. "/" .. ("b"):rep(60) .. ".lua"
    local _, err = run("\nerror('boom')", { name = long })
    assert.same({ long, 2, "boom" }, { err.file, err.line, err.message })
  end)

  it("skips a byte order mark and a # line", function()
    fails("\xEF\xBB\xBF#!/usr/bin/lua\nerror('x')", "script", 2, "^x$")
    fails("#!/usr/bin/lua\r\nerror('x')", "script", 2, "^x$")
    fails("\xEF\xBB\xBFerror('x')", "script", 1)
    gives("# only this")
  end)
end)

describe("errors", function()
  it("of each kind have file, line and traceback", function()
    local err = fails("local function f()\n  error('boom')\nend\nlocal function g()\n  f()\nend\ng()", "script", 2, "^boom$")
    assert.equal('migrations/0001_x.lua:2: in upvalue "f"\nmigrations/0001_x.lua:5: in local "g"\n'
      .. "migrations/0001_x.lua:7: in main chunk", err.traceback)
    fails("\nerror()", "script", 2, "without a value")
    fails("\nerror(nil)", "script", 2, "without a value")
    fails("\nerror({})", "script", 2, "with a table")
    fails("\nerror({ message = 'mine' })", "script", 2, "^mine$")
    fails("\nerror(42)", "script", 2, "^42$")
    fails("\nerror(print)", "script", 2, "with a function")
    fails("\nerror(setmetatable({}, { __tostring = function() return 'made' end }))", "script", 2, "^made$")
    fails("error('not enough memory', 0)", "script", nil, "^not enough memory$")
    fails("\nlocal x = nil + 1", "script", 2, "arithmetic on a nil value")
    fails("\nlocal x\nx.y = 1", "script", 3, "local 'x'")
    fails("error('a:1: b', 0)", "script", 1, "^a:1: b$")
  end)

  it("of the engine are enriched", function()
    local err = fails("local function f()\n  fail()\nend\nf()", "sql", 2, "division by zero")
    assert.equal("22012", err.sqlstate)
    local ok, located = run("fail({ file = 'a.sql', line = 9 })")
    assert.is_false(ok)
    assert.same({ "a.sql", 9 }, { located.file, located.line })
  end)

  it("keep the line where they were raised when a script catches and raises them again", function()
    fails("local ok, err = pcall(function()\n  fail()\nend)\n\nerror(err)", "sql", 2)
    fails("local f = coroutine.wrap(function()\n  fail()\nend)\n\nf()", "sql", 2)
    fails("local co = coroutine.create(function()\n  fail()\nend)\nlocal _, e = coroutine.resume(co)\nerror(e)", "sql", 2)
    fails("xpcall(function()\n  fail()\nend, function(e)\n  error(e)\nend)\nfail()", "sql", 6)
  end)

  it("of a recursion without an end name the line", function()
    fails("local function f()\n  return 1 + f()\nend\nf()", "script", 2, "^stack overflow$", { memory = 256 * MIB })
    fails("local t = setmetatable({}, {})\ngetmetatable(t).__index = function(_, k) return t[k] end\nreturn t.x",
      "script", 2, "stack overflow")
    fails("local function f() return coroutine.wrap(f)() end\nf()", "script", 1, "stack overflow")
    fails("local function f() return pcall(f) end\nreturn string.gsub('x', 'x', error, f())", "script", 2)
  end)

  it("come through wrap as they are", function()
    gives("local t = {} local ok, e = pcall(coroutine.wrap(function() error(t) end)) return ok, e == t", false, true)
    gives("local ok, e = pcall(coroutine.wrap(function() error('a', 0) end)) return ok, e", false, "a")
    gives("local f = coroutine.wrap(function() end) f() return pcall(f)", false, "cannot resume dead coroutine")
    gives("local f f = coroutine.wrap(function() return pcall(f) end) return f()",
      false, "cannot resume non-suspended coroutine")
  end)
end)

describe("coroutines", function()
  it("work as in Lua", function()
    gives([[
      local co = coroutine.create(function(a, ...)
        local b, c = coroutine.yield(a, ...)
        return coroutine.isyieldable(), select(2, coroutine.running()), b, c
      end)
      local r = { coroutine.status(co), select(2, coroutine.resume(co, 1, 2)) }
      r[#r + 1] = coroutine.status(co)
      for _, v in ipairs { select(2, coroutine.resume(co, 3, 4)) } do r[#r + 1] = tostring(v) end
      r[#r + 1] = coroutine.status(co)
      return table.concat(r, " ")]], "suspended 1 2 suspended true false 3 4 dead")
    gives("return coroutine.isyieldable(), select(2, coroutine.running())", false, true)
    gives("return coroutine.resume(coroutine.running())", false, "cannot resume non-suspended coroutine")
    fails("coroutine.close(coroutine.running())", "script", 1, "cannot close a running coroutine")
    fails("coroutine.resume(1)", "script", 1, "coroutine expected")
    fails("coroutine.create(1)", "script", 1, "bad argument #1 to 'create'")
    gives([[
      local log = {}
      local co = coroutine.create(function()
        local x <close> = setmetatable({}, { __close = function() log[1] = "closed" end })
        coroutine.yield()
      end)
      coroutine.resume(co)
      return coroutine.close(co), log[1], coroutine.status(co)]], true, "closed", "dead")
    gives([[
      local co = coroutine.create(function()
        local x <close> = setmetatable({}, { __close = function() error("in close", 0) end })
        coroutine.yield()
      end)
      coroutine.resume(co)
      return coroutine.close(co)]], false, "in close")
    gives([[
      local f = coroutine.wrap(function()
        local x <close> = setmetatable({}, { __close = function() error("in close", 0) end })
        error("first", 0)
      end)
      return pcall(f)]], false, "in close")
  end)

  it("can't yield at the top", function()
    fails("local x\ncoroutine.yield(1)", "script", 2, "yield outside a coroutine")
    fails("pcall(coroutine.yield, 1) error(select(2, pcall(coroutine.yield)), 0)", "script", 1, "yield outside")
    local ok, err = run("leak(5)", { extra = { leak = function(v) coroutine.yield(v) end } })
    assert.is_false(ok)
    assert.equal("yield outside a coroutine", err.message)
  end)

  it("pass waits through three levels", function()
    gives([[
      local function three() return wait(3) + coroutine.yield(30) end
      local function two()
        local co = coroutine.create(three)
        local _, a = coroutine.resume(co)
        wait()
        local _, b = coroutine.resume(co, 4)
        return a, b, coroutine.yield(300)
      end
      local one = coroutine.wrap(function()
        local co = coroutine.wrap(two)
        local got = co()
        local a, b, c = co(5)
        return got, a, b, c, wait(9)
      end)
      return one()]], 300, 30, 7, 5, 9)
    assert.equal(3, waited)
  end)

  it("pass waits through wrap in a generic for", function()
    gives([[
      local function rows(n)
        return coroutine.wrap(function() for i = 1, n do coroutine.yield(wait(i)) end end)
      end
      local sum = 0
      for a in rows(10) do for b in rows(a) do sum = sum + wait(b) end end
      return sum]], 220)
  end)

  it("pass waits through pcall, xpcall, metamethods and <close>", function()
    gives([[
      local log = {}
      local function closer(name)
        return setmetatable({}, { __close = function() log[#log + 1] = wait(name) end })
      end
      local t = setmetatable({}, { __index = function(_, k) return wait(k) end })
      local co = coroutine.wrap(function()
        local ok, e = pcall(function()
          local a <close> = closer("a")
          local b <close> = closer("b")
          error(wait("boom"), 0)
        end)
        return e, t.key, select(2, xpcall(function() return wait("x") end, print))
      end)
      local e, key, x = co()
      return e, key, x, table.concat(log, ",")]], "boom", "key", "x", "b,a")
  end)

  it("let <close> variables wait when an error ends the script", function()
    local log = {}
    fails([[
      local x <close> = setmetatable({}, { __close = function() note(wait("closed")) end })
      error("boom")]], "script", 2, "^boom$", { extra = { note = function(v) log[#log + 1] = v end } })
    assert.same({ "closed" }, log)
  end)

  it("close over each other only so deep", function()
    gives([[
      local co = false
      for i = 1, 5000 do
        local previous = co
        co = coroutine.create(function()
          local x <close> = setmetatable({}, { __close = function()
            if previous then assert(coroutine.close(previous)) end
          end })
          coroutine.yield()
        end)
        coroutine.resume(co)
      end
      local ok, message = coroutine.close(co)
      return ok, message:match("closed inside each other too deeply")]], false, "closed inside each other too deeply")
  end)

  it("can't wait inside callbacks of C functions, and say so", function()
    fails("table.sort({ 1, 2 }, function()\n  wait()\nend)", "script", 2, "C%-call boundary")
    fails("table.sort({ 1, 2 }, function()\n  coroutine.wrap(wait)()\nend)", "script", 2, "callback of a C function")
  end)
end)

describe("a run", function()
  it("that is abandoned closes the script's variables", function()
    local log = {}
    local env = environment { note = function(v) log[#log + 1] = v end }
    local chunk = assert(sandbox.load(
      "local x <close> = setmetatable({}, { __close = function() note('closed') end })\nwait()", FILE, env))
    local task = coroutine.create(function()
      return sandbox.run { fn = chunk, name = FILE }
    end)
    coroutine.resume(task)
    assert(coroutine.close(task))
    assert.same({ "closed" }, log)
  end)

  it("can be inside another", function()
    local inner = function(text)
      local chunk = assert(sandbox.load(text, "policies/p.lua", environment()))
      return sandbox.run { fn = chunk, name = "policies/p.lua", instructions = 100000 }
    end
    local ok, a, err, b = run([[
      local a, err = inner("\nwhile true do end")
      local _, b = inner("return wait(7)")
      return a, err, b]], { extra = { inner = inner } })
    assert(ok, tostring(a))
    assert.is_false(a)
    assert.same({ "limit", "policies/p.lua", 2 }, { err.code, err.file, err.line })
    assert.equal(7, b)
  end)

  it("outside a task can't wait", function()
    local chunk = assert(sandbox.load("wait()", FILE, environment()))
    local main = coroutine.running
    if select(2, main()) then
      assert.has_error(function() sandbox.run { fn = chunk, name = FILE } end)
    end
    assert(sandbox.run { fn = assert(sandbox.load("return 1", FILE, environment())), name = FILE })
  end)

  it("takes only functions and positive limits", function()
    assert.has_error(function() sandbox.run { fn = 1, name = FILE } end)
    assert.has_error(function() sandbox.run { fn = print, name = FILE, instructions = -1 } end)
    assert(sandbox.run { fn = function() end, name = FILE, instructions = 0, memory = 0, seconds = 0 })
  end)
end)

describe("plain", function()
  it("copies data", function()
    local f = function() end
    local t = { a = 1, b = { "x", { true } }, f = f }
    local copy = sandbox.plain(t, "the migration")
    assert.same(t, copy)
    assert.are_not.equal(t.b, copy.b)
  end)

  it("refuses what could run code or never end", function()
    local loop = {}
    loop.a = { loop }
    for text, value in pairs {
      ["m has a metatable"] = setmetatable({}, { __index = error }),
      ["m.x has a metatable"] = { x = setmetatable({}, { __metatable = false }) },
      ["m.a[1] contains itself"] = loop,
      ["m[1] is a thread"] = { coroutine.create(print) },
      ["m has a table for a key"] = { [{}] = 1 },
    } do
      local copy, reason = sandbox.plain(value, "m")
      assert.is_nil(copy)
      assert.equal(text, reason)
    end
  end)
end)

describe("require", function()
  local function with(files, text)
    local reads = {}
    local require_ = sandbox.requirer(function(path)
      reads[#reads + 1] = path
      if files[path] then
        return files[path]
      end
      return nil, "no such file"
    end, "migrations/lib", { extra = { wait = wait } })
    local env = sandbox.environment { require = require_ }
    return reads, table.pack(run(text, { env = env }))
  end

  it("finds modules below the folder, once each, with environments of their own", function()
    local reads, got = with({
      ["migrations/lib/a/b.lua"] = "shared = 1\nlocal c = require 'c-1'\nreturn { c = c, name = ... }",
      ["migrations/lib/c-1.lua"] = "wait() loaded = true return 5",
      ["migrations/lib/none.lua"] = "",
    }, "local m = require 'a.b' return m == require 'a.b', m.c, m.name, require 'none', rawget(_G, 'shared')")
    assert.same({ true, true, 5, "a.b", true, n = 6 }, got)
    assert.same({ "migrations/lib/a/b.lua", "migrations/lib/c-1.lua", "migrations/lib/none.lua" }, reads)
  end)

  it("can't leave the folder", function()
    for _, name in ipairs { "..", "a..b", "../x", "/etc/passwd", "a/b", "a\\b", "", ".", ".a", "a.", "a\0b", "a b", "ä" } do
      local reads, got = with({}, ("require %q"):format(name))
      assert.is_false(got[1])
      assert.equal("sandbox", got[2].code, name)
      assert.same({ FILE, 1 }, { got[2].file, got[2].line })
      assert.same({}, reads)
    end
    local _, got = with({}, "require(1)")
    assert.equal("sandbox", got[2].code)
  end)

  it("tells what is missing, broken or circular", function()
    local _, got = with({}, "\nrequire 'a'")
    assert.equal(FILE .. ':2: module "a" can\'t be read: no such file', tostring(got[2]))
    _, got = with({ ["migrations/lib/a.lua"] = "x x" }, "require 'a'")
    assert.same({ "migration_file", "migrations/lib/a.lua", 1 }, { got[2].code, got[2].file, got[2].line })
    _, got = with({ ["migrations/lib/a.lua"] = "\nerror('boom')" }, "require 'a'")
    assert.same({ "script", "migrations/lib/a.lua", 2, "boom" }, { got[2].code, got[2].file, got[2].line, got[2].message })
    _, got = with({ ["migrations/lib/a.lua"] = "require 'b'", ["migrations/lib/b.lua"] = "require 'a'" }, "require 'a'")
    assert.equal("migrations/lib/b.lua:1: modules require each other: a -> b -> a", tostring(got[2]))
    _, got = with({ ["migrations/lib/a.lua"] = "require 'a'" }, "require 'a'")
    assert(got[2].message:find("a -> a", 1, true), got[2].message)
    _, got = with({ ["migrations/lib/a.lua"] = "\nwhile true do end" }, "pcall(require, 'a') while true do end")
    assert.same({ "limit", "migrations/lib/a.lua", 2 }, { got[2].code, got[2].file, got[2].line })
  end)
end)

describe("a shared require", function()
  local files = {
    ["lib/slow.lua"] = "wait() return {}",
    ["lib/endless.lua"] = "if endless then while true do end end return 1",
  }
  local extra = { wait = wait, endless = true }
  local require_ = sandbox.requirer(function(path) return files[path] end, "lib", { extra = extra })
  local function task(text)
    local chunk = assert(sandbox.load(text, FILE, sandbox.environment { require = require_ }))
    return coroutine.create(function()
      return sandbox.run { fn = chunk, name = FILE, instructions = 100000 }
    end)
  end

  it("may be in the middle of a module in two tasks", function()
    local one, two = task("return require 'slow'"), task("return require 'slow'")
    coroutine.resume(one)
    coroutine.resume(two)
    assert.is_true(select(2, coroutine.resume(one)))
    assert.is_true(select(2, coroutine.resume(two)))
  end)

  it("works again after a limit ended a module", function()
    local _, ok, err = coroutine.resume(task("require 'endless'"))
    assert.is_false(ok)
    assert.equal("limit", err.code)
    extra.endless = false
    assert.same({ true, true, 1 }, { coroutine.resume(task("return require 'endless'")) })
  end)
end)

describe("the aggressive collector", function()
  it("changes nothing", function()
    local pause, step = collectgarbage("incremental", 0, 10000)
    local before = { collectgarbage("incremental", 0, 10000) }
    finally(function()
      collectgarbage("incremental", 200, 100)
    end)
    assert(pause and step == nil and before)
    gives("local t = {} for i = 1, 200 do t[i] = coroutine.wrap(function() coroutine.yield(wait(i)) end) end "
      .. "local n = 0 for i = 1, 200 do n = n + t[i]() end return n", 20100)
    fails("local t = {}\nwhile true do\n  t[#t + 1] = ('x'):rep(1000) .. #t\nend", "limit", 3, nil, { memory = 4 * MIB })
    fails("while true do pcall(function()\nwhile true do end end) end", "limit", 2, nil, { instructions = 100000 })
    fails("local f = coroutine.wrap(function()\n  fail()\nend)\n\nf()", "sql", 2)
  end)
end)

describe("the watchdog", function()
  -- In a process of its own, because it may end the process.
  local function other_process(text)
    local i = 0
    while arg[i - 1] do
      i = i - 1
    end
    local script = os.tmpname()
    finally(function()
      os.remove(script)
    end)
    local file = assert(io.open(script, "w"))
    file:write(([[
      local sandbox = require "moonbird.core.sandbox"
      local chunk = assert(sandbox.load(%q, "migrations/slow.lua", sandbox.environment {}))
      print(select(2, sandbox.run { fn = chunk, name = "migrations/slow.lua", seconds = 1 }))]]):format(text))
    file:close()
    local pipe = assert(io.popen(("'%s' '%s' 2>&1"):format(arg[i], script)))
    local output = pipe:read("a")
    return output, select(3, pipe:close())
  end

  it("ends a C function that does not come back, and names the script", function()
    local output, status = other_process("local s = ('a'):rep(100) return s:find(('a*'):rep(30) .. 'b')")
    assert.equal("moonbird: migrations/slow.lua used 1 s of CPU in one call: killed; nothing of it was committed\n",
      output)
    assert.equal(70, status)
  end)

  it("ends Lua code by an error", function()
    local output, status = other_process("\nwhile true do pcall(function() end) end")
    assert.equal("migrations/slow.lua:2: the script computed for 1 s without waiting for the database\n", output)
    assert.equal(0, status)
  end)
end)
