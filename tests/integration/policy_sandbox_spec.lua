-- A pull request from a stranger: its migrations and rules must not read a file, the environment or the journal, not
-- run forever, and not hide what other rules found. All through `moonbird check`, as CI runs it.
-- The same on every server.
local fs = require "moonbird.core.fs"
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local texts = require "tests.texts"
local async = helper.async
local has = texts.has

local CANARY = "canary7f3a9c"
local HEAD = [[phase = "expand", scope = "global", compatibility = "backward_compatible", id = "%s",
  description = "Adds a table that this test looks at.", owner = "team", ]]

describe("a stranger's", function()
  local dir, outside

  before_each(async(function()
    outside = helper.tmpdir()
    helper.write(outside, { ["secret.txt"] = CANARY .. " is the secret\n", ["module.lua"] = "return '" .. CANARY .. "'\n",
      ["secret.lua"] = CANARY .. " is the secret\n" })
    dir = helper.project {}
    -- What a built-in rule finds here has to be told whatever the stranger's rules do.
    helper.write(dir, { ["migrations/20250101000000_bad.sql"] = [[
-- moonbird:phase expand
-- migrate:up
create table flags (id int primary key);
grant select on flags to public;
-- migrate:down
drop table flags;
]], ["policies/aa_helper.lua"] = "return {}\n" })
  end))

  local function listing()
    local names = {}
    local pipe = assert(io.popen(("cd %q && find . | LC_ALL=C sort"):format(dir)))
    for name in pipe:lines() do
      names[#names + 1] = name
    end
    pipe:close()
    return table.concat(names, "\n")
  end

  --- Runs the check; whatever happens, no secret is told, nothing is written, and it ends: the kernel kills it when it
  -- has computed for too long, which does not count what else the machine does.
  local function check(options)
    options = options or {}
    local before = listing()
    local args = { "-c", ('ulimit -t %d; exec "$0" "$@"'):format(options.seconds or 30), helper.bin(), "check" }
    for _, arg in ipairs(options.args or {}) do
      args[#args + 1] = arg
    end
    local result = helper.moonbird(args, { bin = "/bin/sh", cwd = dir, timeout = 240, env = {
      MOONBIRD_TEST_CANARY = CANARY, MOONBIRD_MAX_INSTRUCTIONS = options.instructions or "30000000",
    } })
    local all = result.stdout .. result.stderr
    assert(not all:find(CANARY, 1, true), "the secret was told:\n" .. all)
    assert.are.equal(before, listing())
    assert(result.status, ("it was ended by %s:\n%s"):format(result.signal, all))
    assert(result.status ~= 0, "it was let through:\n" .. all)
    return result, all
  end

  -- What one may try in Lua, and words of what comes of it. $OUT is the folder outside.
  local ATTEMPTS = {
    { [[return io.open("$OUT/secret.txt"):read("a")]], '"io" is not available' },
    { [[for line in io.lines("$OUT/secret.txt") do return line end]], '"io" is not available' },
    { [[return os.getenv("MOONBIRD_TEST_CANARY")]], '"os" is not available' },
    { [[return os.execute("cat $OUT/secret.txt")]], '"os" is not available' },
    { [[return debug.getregistry()]], '"debug" is not available' },
    { [[return package.loaded["moonbird.core.fs"].read("$OUT/secret.txt")]], '"package" is not available' },
    { [[return dofile("$OUT/module.lua")]], '"dofile" is not available' },
    { [[return loadfile("$OUT/module.lua")()]], '"loadfile" is not available' },
    { [[return require("moonbird.core.fs").read("$OUT/secret.txt")]], "can't be read" },
    { [[return require("moonbird.native.fs")]], "can't be read" },
    { [[return require("io")]], "can't be read" },
    { [[return require("$OUT/module")]], "is no module name" },
    { [[return require("..module")]], "is no module name" },
    { [[return require("leads_out")]], "leads out of the" },
    { [[return load(string.dump(function() return io end))]], "bytecode is never loaded" },
    { [[return assert(load("\27Lua\x54\0\x19\x93\r\n\x1a\n"))]], "bytecode is never loaded" },
    { [[return assert(load("return 1", "x", "b"))]], "bytecode is never loaded" },
    { [[return load(function() return "return io" end)]], "load takes text" },
    { [[return load("return io.open('$OUT/secret.txt'):read('a')")()]], '"io" is not available' },
    { [[return load("return os", "x", "t", setmetatable({}, { __index = _G }))().getenv("MOONBIRD_TEST_CANARY")]],
      '"os" is not available' },
    { [[return getmetatable("").__index.dump(print)]], "attempt to index a boolean" },
    { [[return getmetatable(string).__index]], "attempt to index a boolean" },
    { [[return getmetatable(_G).__index]], "attempt to index a boolean" },
    { [[setmetatable(string, {})]], "can't be changed" },
    { [[setmetatable(_G, {})]], "can't be changed" },
    { [[string.format = function() return "" end]], "is read-only" },
    { [[rawset(table, "concat", error)]], "rawset can't change" },
    { [[setmetatable({}, { __gc = function() end })]], "can't have __gc" },
    { [[collectgarbage("stop")]], 'can only "count"' },
    { [[while true do end]], "instructions" },
    { [[repeat until pcall(function() while true do end end) == nil]], "instructions" },
    { [[coroutine.wrap(function() while true do pcall(function() while true do end end) end end)()]], "instructions" },
    { [[local function again() return again() end again()]], "instructions" },
    { [[local co co = coroutine.create(function() while true do coroutine.resume(coroutine.create(function()
      for i = 1, 900 do end end)) end end) coroutine.resume(co)]], "instructions" },
    { [[local function deeper() return 1 + deeper() end return deeper()]], "" },
    { [[coroutine.yield()]], "outside a coroutine" },
    { [[coroutine.yield(nil, 1, {})]], "outside a coroutine" },
    { [[local x <close> = setmetatable({}, { __close = function() while true do end end }) error("end")]], "instructions" },
    { [[error(setmetatable({}, { __tostring = function() while true do end end }))]], "instructions" },
    { [[return ("x"):rep(1 << 40)]], "memory" },
    { [[return ("x"):rep(math.maxinteger)]], "" },
    { [[return ("x"):rep(1e9)]], "memory" },
    { [[local t = {} for i = 1, 1e9 do t[i] = ("x"):rep(1e6) .. i end]], "memory" },
    { [[local s = "x" while true do s = s .. s end]], "memory" },
    { [[return ("x"):rep(1e6, ("y"):rep(1e6))]], "memory" },
    { [[local s = ("x"):rep(1e7) return (s:gsub("x", ("y"):rep(1e4)))]], "memory" },
    { [[return table.concat(setmetatable({}, { __len = function() return 1e9 end, __index = function() return "x" end }))]],
      "" },
    { [[return string.format("%" .. ("9"):rep(20) .. "d", 1)]], "invalid" },
    { [[return table.unpack({}, 1, 1e9)]], "too many results" },
  }

  --- The attempts that give something give nothing of value; that is looked at by check() above.
  local function body(attempt)
    return (attempt[1]:gsub("%$OUT", outside))
  end

  local function link(target, path)
    assert(os.execute(("ln -s %q %q"):format(target, dir .. "/" .. path)))
  end

  it("rule gets at nothing while it checks, and hides nothing", async(function()
    link(outside .. "/module.lua", "policies/leads_out.lua.off")
    assert(fs.mkdir(dir .. "/policies/lib"))
    local rules, wanted = {}, {}
    for i, attempt in ipairs(ATTEMPTS) do
      if not attempt[1]:find("leads_out", 1, true) then
        rules[#rules + 1] = ("{ id = \"try-%d\", check = function(ctx) local function try() %s\nend\n"
          .. "ctx:report(\"GOT \" .. tostring(try())) end }"):format(i, body(attempt))
        wanted[i] = attempt[2]
      end
    end
    helper.write(dir, { ["policies/evil.lua"] = "return {\n" .. table.concat(rules, ",\n") .. "\n}\n" })
    local result = check { args = { "--json" } }
    assert.are.equal(6, result.status)
    local said = {}
    for _, finding in ipairs(assert(json.decode(result.stdout), result.stderr).findings) do
      said[finding.rule] = (said[finding.rule] or "") .. finding.message
    end
    for i, words in pairs(wanted) do
      local message = said[("try-%d"):format(i)]
      assert(message, ATTEMPTS[i][1] .. ": nothing was said")
      assert(message:find(words, 1, true), ATTEMPTS[i][1] .. ": " .. message)
      assert(message:find(" failed", 1, true), ATTEMPTS[i][1] .. ": " .. message)
    end
    assert(said["grant-public"], "what the built-in rule finds is gone")
  end))

  it("rule file gets at nothing while it is loaded", async(function()
    assert(fs.mkdir(dir .. "/policies/leads_out"))
    assert(os.execute(("rmdir %q"):format(dir .. "/policies/leads_out")))
    for _, attempt in ipairs(ATTEMPTS) do
      helper.write(dir, { ["policies/evil.lua"] = "local function try() " .. body(attempt)
        .. "\nend\nerror('G' .. 'OT ' .. tostring(try()))" })
      if attempt[1]:find("leads_out", 1, true) then
        link(outside .. "/module.lua", "policies/leads_out.lua")
      end
      local result, all = check()
      assert.are.equal(2, result.status, attempt[1] .. ": " .. all)
      if attempt[1]:find("leads_out", 1, true) then
        assert(os.execute(("rm %q"):format(dir .. "/policies/leads_out.lua")))
      end
      has(all, attempt[2])
      assert(not all:find("GOT", 1, true), attempt[1] .. ": " .. all)
    end
  end))

  it("migration gets at nothing while it is loaded", async(function()
    link(outside .. "/module.lua", "migrations/leads_out.lua")
    for _, attempt in ipairs(ATTEMPTS) do
      helper.write(dir, { ["migrations/20250102000000_evil.lua"] = "local function try() " .. body(attempt)
        .. "\nend\nerror('G' .. 'OT ' .. tostring(try()))" })
      local result, all = check()
      assert.are.equal(6, result.status, attempt[1] .. ": " .. all)
      has(all, "20250102000000_evil.lua")
      has(all, attempt[2])
      assert(not all:find("GOT", 1, true), attempt[1] .. ": " .. all)
    end
  end))

  it("migration's up and down are not run", async(function()
    helper.write(dir, { ["migrations/20250102000000_evil.lua"] = "return { " .. HEAD:format("evil") .. [[
      up = function(db) error("it ran") end, down = function(db) while true do end end }]] })
    local _, all = check { args = { "--verbose" } }
    assert(not all:find("it ran", 1, true), all)
    has(all, "20250102000000_evil.lua")
  end))

  it("rule can't change what others see and find", async(function()
    local tries = {
      "ctx.report = function() end", "ctx.statements = {}", "ctx.statements[1] = nil", "ctx.migration.up.statements = {}",
      "ctx.migration.phase = 'contract'", "table.remove(ctx.statements)", "table.insert(ctx.statements, 1)",
      "table.sort(ctx.statements, function() return true end)", "table.move({ 1, 2, 3 }, 1, 3, 1, ctx.statements)",
      "for _, st in ipairs(ctx.statements) do st.verb = 'select' end", "ctx.statements[1].tree.x = 1",
      "for k, v in pairs(ctx.statements) do v.grant = nil end", "rawset(ctx, 'statements', {})",
      "rawset(ctx.statements[1], 'verb', 'select')", "setmetatable(ctx, { __index = {} })", "ctx.waivers[1] = {}",
      "ctx.registry[1].file = 'x'", "ctx.registry.by_version[20250101000000] = nil", "ctx.run.allow.contract = true",
      "ctx.environment.protected = false", "ctx.options.x = 1", "ctx.now = '1970-01-01'",
      "ctx.ledger['20250101000000_bad.sql'] = 'x'", "getmetatable(ctx).__index = nil",
      "ctx.migration.loaded_.text = ''", "_G.ipairs, _G.pairs = nil, nil error('own globals only')",
      "for k in pairs(string) do string[k] = nil end",
    }
    local rules = {}
    for i, text in ipairs(tries) do
      rules[i] = ("{ id = \"try-%d\", check = function(ctx) %s\nctx:report('GOT through') end }"):format(i, text)
    end
    helper.write(dir, {
      ["policies/evil.lua"] = "return {\n" .. table.concat(rules, ",\n") .. "\n}\n",
      ["policies/zz_good.lua"] = [[return { id = "good", check = function(ctx)
        for _, st in ipairs(ctx.statements) do
          if st.grant then ctx:report("a grant in " .. ctx.migration.phase, { at = st }) end
        end end }]],
    })
    local result = check { args = { "--json" } }
    local said = {}
    for _, finding in ipairs(assert(json.decode(result.stdout), result.stderr).findings) do
      said[finding.rule] = (said[finding.rule] or "") .. finding.message
    end
    for i, text in ipairs(tries) do
      local message = said[("try-%d"):format(i)] or "nothing"
      assert(message:find(" failed", 1, true) and not message:find("GOT", 1, true), text .. ": " .. message)
    end
    has(said["grant-public"] or "", "PUBLIC")
    has(said.good or "", "a grant in expand")
  end))

  it("rule hands back what can't hurt", async(function()
    helper.write(dir, { ["policies/evil.lua"] = [[
local function loop() while true do end end
local trap = setmetatable({}, { __index = loop, __tostring = loop, __len = loop, __pairs = loop, __name = "x" })
local function rule(id, check) return { id = id, check = check } end
return {
  rule("trap-a", function(ctx) ctx:report("GOT a", trap) end),
  rule("trap-b", function(ctx) ctx:report("GOT b", { at = trap, fix = trap, severity = trap }) end),
  rule("trap-c", function(ctx) ctx:report(trap) end),
  rule("trap-d", function(ctx) error(trap) end),
  rule("trap-e", function(ctx) return trap end),
  rule("file-a", function(ctx) ctx:report("x", { at = { file = "]] .. outside .. [[/secret.txt", line = 1 } }) end),
  rule("file-b", function(ctx) ctx:report("x", { at = { file = "]] .. ("../"):rep(12) .. outside:sub(2)
      .. [[/secret.txt", line = 1 } }) end),
  rule("file-c", function(ctx) ctx:report("x", { at = { file = "/proc/self/environ", line = 1 } }) end),
  rule("file-d", function(ctx) ctx:report("x", { at = { line = math.maxinteger } })
    ctx:report("x", { at = { line = -1, column = math.mininteger } }) end),
  rule("screen", function(ctx) ctx:report("\27[2J\27]0;x\7hidden\r::error::x\n::add-mask::y\n::stop-commands::z") end),
} ]] })
    for _, args in ipairs { {}, { "--json" }, { "--github" }, { "--sarif", outside .. "/o.sarif" },
      { "--junit", outside .. "/o.xml" } } do
      local result, all = check { args = args }
      assert.are.equal(6, result.status, all)
      assert(not all:find("\27%[2J") and not all:find("\27%]0"), table.concat(args, " ") .. ": the terminal is told what to do")
      for line in (all .. "\n"):gmatch("[^\r\n]*") do
        assert(not line:find("^::add%-mask") and not line:find("^::stop"), "the runner is told what to do: " .. line)
      end
    end
    for _, name in ipairs { "o.sarif", "o.xml" } do
      local written = assert(fs.read(outside .. "/" .. name))
      assert(not written:find(CANARY, 1, true), name .. " tells the secret")
      assert(not written:find("\27", 1, true))
    end
  end))

  it("rule that reports without end is ended", async(function()
    helper.write(dir, { ["policies/evil.lua"] = [[return {
      { id = "flood", check = function(ctx) while true do ctx:report(("x"):rep(1000)) end end } }]] })
    local result, all = check()
    assert.are.equal(6, result.status)
    has(all, '"flood" failed')
    has(all, "grant-public")
  end))

  it("rule that never comes back from C ends the check, which fails", async(function()
    helper.write(dir, { ["policies/evil.lua"] = [[return {
      { id = "pattern", check = function(ctx) return (("a"):rep(100000)):find((".-"):rep(50) .. "b") end } }]] })
    local result = check { args = { "--json" }, seconds = 40 }
    assert.are.equal(70, result.status)
  end))

  it("links lead to no file outside", async(function()
    local targets = { outside .. "/secret.txt", outside .. "/secret.lua", "/proc/self/environ" }
    for _, target in ipairs(targets) do
      for _, path in ipairs { "policies/evil.lua", "policies/evil_test.lua", "migrations/20250102000000_evil.lua",
        "migrations/20250102000000_evil.sql", "migrations/checksums.json", ".env", "moonbird.lua" } do
        link(target, path)
        check()
        check { args = { "--json" } }
        assert(os.execute(("rm %q"):format(dir .. "/" .. path)))
      end
    end
  end))

  it("policies and migrations folders that are links lead to no file outside", async(function()
    assert(fs.mkdir(outside .. "/folder"))
    helper.write(outside, { ["folder/evil.lua"] = CANARY .. " is the secret\n",
      ["folder/20250102000000_evil.sql"] = CANARY .. " is the secret\n" })
    assert(os.execute(("rm -r %q"):format(dir .. "/policies")))
    link(outside .. "/folder", "policies")
    check()
  end))
end)
