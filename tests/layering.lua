--- Checks the arrows of the architecture: who may include or require whom.
--
-- Run from the top folder by Lua 5.4: `lua5.4 tests/layering.lua`. Prints what is wrong, one line each, and
-- closes with `N passed, N failed` over the rules.

-- Which folder of engine/ may include which (itself always).
local ENGINE = {
  base = {},
  loop = { base = true },
  sql = { base = true },
  pg = { base = true, loop = true },
  core = { base = true, loop = true, sql = true, pg = true },
}

-- Libraries' headers, and the folder that alone may include them.
local LIBRARIES = {
  ["uv.h"] = "engine/loop/",
  ["libpq-fe.h"] = "engine/pg/",
  ["pg_query.h"] = "engine/sql/",
  ["lua.h"] = "bindings/",
  ["lauxlib.h"] = "bindings/",
  ["lualib.h"] = "bindings/",
  ["luaconf.h"] = "bindings/",
}

-- Which folder of lua/moonbird/ may require which (itself always).
local LUA = {}
do
  local function layer(names, below)
    local may = {}
    for _, name in ipairs(below) do
      may[name] = true
      for deeper in pairs(LUA[name]) do
        may[deeper] = true
      end
    end
    for _, name in ipairs(names) do
      LUA[name] = may
    end
  end
  layer({ "util" }, {})
  layer({ "core" }, { "util" })
  layer({ "config" }, { "core" })
  layer({ "migration", "report" }, { "config" })
  layer({ "tenants", "plan" }, { "migration" })
  layer({ "policy" }, { "plan", "tenants" })
  layer({ "exec" }, { "policy", "report" })
  layer({ "cli" }, { "exec" })
end

-- Files of lua/moonbird itself: what users of the engine's modules require.
local ROOT = { testing = { policy = true } }
for deeper in pairs(LUA.policy) do
  ROOT.testing[deeper] = true
end

-- Libraries that Lua modules may require, and where.
local LUA_LIBRARIES = { argparse = "lua/moonbird/cli/" }

local TOP_LEVEL = {
  ["bindings"] = true, ["docs"] = true, ["engine"] = true, ["examples"] = true, ["lua"] = true,
  ["migrations"] = true, ["tests"] = true,
}

local function lines_of(command)
  local pipe = assert(io.popen(command))
  local list = {}
  for line in pipe:lines() do
    list[#list + 1] = line
  end
  return list, pipe:close()
end

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("a")
  file:close()
  return text
end

local function files(dir, ...)
  local names = {}
  for _, pattern in ipairs { ... } do
    names[#names + 1] = ("-name '%s'"):format(pattern)
  end
  return lines_of(("find %s -type f \\( %s \\) | LC_ALL=C sort"):format(dir, table.concat(names, " -o ")))
end

--- Calls fn(file, line number, header, quoted) for every #include below a folder.
local function includes(dir, fn)
  for _, path in ipairs(files(dir, "*.c", "*.h")) do
    local number = 0
    for line in read(path):gmatch("[^\n]*") do
      number = number + 1
      local open, header = line:match('^%s*#%s*include%s*([<"])([^>"]+)')
      if open then
        fn(path, number, header, open == '"')
      end
    end
  end
end

--- Calls fn(file, line number, module) for every require of a literal name below a folder. A name that
--- ends in a dot is the beginning of a computed one.
local function requires(dir, fn)
  for _, path in ipairs(files(dir, "*.lua")) do
    local number = 0
    for line in read(path):gmatch("[^\n]*") do
      number = number + 1
      for module in line:gsub("%-%-.*", ""):gmatch('require[%s(]*"([^"]+)"') do
        fn(path, number, module)
      end
    end
  end
end

local passed, failed = 0, 0

--- One rule: `check` calls its argument once for each problem.
local function rule(name, check)
  local problems = {}
  check(function(format, ...)
    problems[#problems + 1] = format:format(...)
  end)
  if #problems == 0 then
    passed = passed + 1
  else
    failed = failed + 1
    print("layering: " .. name)
    for _, problem in ipairs(problems) do
      print("  " .. problem)
    end
  end
end

rule("engine/ folders include only folders below them", function(problem)
  includes("engine", function(path, number, header, quoted)
    if not quoted then
      return
    end
    local own = path:match("^engine/([^/]+)/")
    local other = header:match("^engine/([^/]+)/")
    if not ENGINE[own] then
      problem("%s: engine/%s is not a folder of the architecture", path, own)
    elseif not other then
      problem('%s:%d: "%s" is not named from the top folder as "engine/..."', path, number, header)
    elseif other ~= own and not ENGINE[own][other] then
      problem("%s:%d: engine/%s must not include engine/%s", path, number, own, other)
    end
  end)
end)

rule("bindings/ include bindings/ and engine/ only", function(problem)
  includes("bindings", function(path, number, header, quoted)
    if quoted and not header:find("^bindings/") and not header:find("^engine/") then
      problem('%s:%d: "%s"', path, number, header)
    elseif header:find("internal%.h$") then
      problem("%s:%d: %s is private to its module", path, number, header)
    end
  end)
end)

rule("a library's header is included in its own place only", function(problem)
  for _, dir in ipairs { "engine", "bindings", "tests/unit", "tests/fuzz" } do
    includes(dir, function(path, number, header)
      local place = LIBRARIES[header]
      if place and path:sub(1, #place) ~= place then
        problem("%s:%d: <%s> belongs to %s", path, number, header, place)
      end
    end)
  end
end)

rule("lua/moonbird folders require only folders below them", function(problem)
  requires("lua/moonbird", function(path, number, module)
    local own = path:match("^lua/moonbird/([^/]+)/")
    local other = module:match("^moonbird%.([^.]+)")
    local may = LUA[own] or ROOT[path:match("^lua/moonbird/([^/]+)%.lua$")]
    if not may then
      problem("%s: %s is not a folder of the architecture", path, own or "it")
    elseif other == "native" then
      return
    elseif not other then
      local place = LUA_LIBRARIES[module]
      if not place or path:sub(1, #place) ~= place then
        problem('%s:%d: "%s" is not a module of moonbird', path, number, module)
      end
    elseif other ~= own and not may[other] then
      problem("%s:%d: %s must not require %s", path, number, own or "it", module)
    end
  end)
end)

rule("only lua/moonbird/core requires natives", function(problem)
  requires("lua/moonbird", function(path, number, module)
    if module:find("^moonbird%.native%.") and not path:find("^lua/moonbird/core/") then
      problem("%s:%d: %s", path, number, module)
    end
  end)
end)

rule("every required module is there", function(problem)
  requires("lua/moonbird", function(path, number, module)
    if module:find("^moonbird%..*[^.]$") and not module:find("^moonbird%.native%.") then
      local file = io.open("lua/" .. module:gsub("%.", "/") .. ".lua")
      if file then
        file:close()
      else
        problem("%s:%d: there is no module %s", path, number, module)
      end
    end
  end)
end)

rule("no folder joins the top level", function(problem)
  -- Git says what belongs to the project; what it ignores (build folders) does not.
  local tracked, ok = lines_of("git ls-files --cached --others --exclude-standard 2>/dev/null")
  local seen = {}
  for _, path in ipairs(ok and tracked or {}) do
    local top = path:match("^([^/]+)/")
    if top and not seen[top] and not TOP_LEVEL[top] and top:sub(1, 1) ~= "." then
      problem("%s/", top)
    end
    seen[top or ""] = true
  end
end)

rule("every header compiles alone", function(problem)
  local flags = table.concat(lines_of("pkg-config --cflags lua5.4 libpq libuv libcjson"), " ")
  local cc = os.getenv("CC") or "cc"
  for _, dir in ipairs { "engine", "bindings" } do
    for _, header in ipairs(files(dir, "*.h")) do
      local said, ok = lines_of(("echo '#include \"%s\"' | %s -std=gnu11 -D_GNU_SOURCE -I. %s -Wall -Werror "
        .. "-fsyntax-only -x c - 2>&1"):format(header, cc, flags))
      if not ok then
        problem("%s: %s", header, said[1] or "the compiler failed")
      end
    end
  end
end)

print(("%d passed, %d failed"):format(passed, failed))
os.exit(failed == 0)
