--- The annotations in lua/types name what is really there: no more, no less.
local db_module = require "moonbird.core.db"
local fs = require "moonbird.core.fs"
local header = require "moonbird.migration.header"
local sandbox = require "moonbird.core.sandbox"
local schema = require "moonbird.config.schema"

-- Reading the annotations ------------------------------------------------------------------------------

--- Classes, globals and functions of all files in lua/types.
local function read_types()
  local types = { classes = {}, globals = {}, deprecated = {} }
  for _, listed in ipairs(assert(fs.list("lua/types"))) do
    local class, locals, deprecated = nil, {}, false
    for line in (assert(fs.read("lua/types/" .. listed.name)) .. "\n"):gmatch("([^\n]*)\n") do
      local name, parent = line:match("^%-%-%-@class ([%w_.]+):?%s*([%w_.]*)")
      if name then
        class = { fields = {}, parent = parent ~= "" and parent or nil, types = {} }
        types.classes[name] = class
      end
      local field, kind = line:match("^%-%-%-@field ([%w_]+)%??%s+(.*)$")
      if field then
        assert(class, "a field without a class: " .. line)
        class.fields[field] = true
        class.types[field] = kind
      end
      local variable = line:match("^local ([%w_]+) = {}")
      if variable then
        locals[variable] = class
      end
      deprecated = deprecated or line:find("^%-%-%-@deprecated") ~= nil
      local owner, method = line:match("^function ([%w_]+)[.:]([%w_]+)%(")
      local global = line:match("^function ([%w_]+)%(") or line:match("^([%w_]+) = nil")
      if owner and locals[owner] then
        locals[owner].fields[method] = true
      elseif owner or global then
        local full = owner and owner .. "." .. method or global
        types[deprecated and "deprecated" or "globals"][full] = true
      end
      if line == "" or owner or global then
        deprecated = false
      end
    end
  end
  return types
end

local types = read_types()

--- The names of a table or set, sorted, in one line: what differs is easy to see in a failure.
local function names(set)
  local list = {}
  for name in pairs(set) do
    list[#list + 1] = tostring(name)
  end
  table.sort(list)
  return table.concat(list, " ")
end

local function fields(class)
  return names(assert(types.classes[class], "lua/types has no class " .. class).fields)
end

-- What is there ------------------------------------------------------------------------------------------

--- The members of a real db object. It is a proxy: they stand in an upvalue of its __index.
local function db_members()
  local stub = { server_version = function() return 150018 end, state = function() return "in_txn" end }
  local db = db_module.new { session = stub, target = { name = "global", vars = {} }, log = function() end }
  local index = debug.getmetatable(db).__index
  for i = 1, math.huge do
    local name, value = debug.getupvalue(index, i)
    assert(name, "db's __index has no upvalue api")
    if name == "api" then
      return value
    end
  end
end

describe("the annotations in lua/types", function()
  it("have every member of db, and no other", function()
    local members = db_members()
    assert.equal(names(members), fields("moonbird.db"))
    assert.equal(names(members.json), fields("moonbird.db.json"))
  end)

  it("have every field of db.target, and no other", function()
    local source = assert(fs.read("lua/moonbird/exec/transactional.lua"))
    local made = source:match("db%.new {.-target = {(.-)}")
    local set = {}
    for name in made:gmatch("([%w_]+) =") do
      set[name] = true
    end
    assert.equal(names(set), fields("moonbird.db.target"))
  end)

  it("have every key of a migration's table, and no other", function()
    assert.equal(names(header.keys), fields("moonbird.migration"))
    assert.same({ lock = 1000, statement = 1000 }, header.keys.timeouts { lock = "1s", statement = "1s" })
    assert.equal("lock statement", fields("moonbird.migration.timeouts"))
  end)

  it("have the words that a migration's keys may hold", function()
    for key, choices in pairs(header.choices) do
      local words = {}
      for word in types.classes["moonbird.migration"].types[key]:gmatch('"([%w_]+)"') do
        words[word] = true
      end
      local wanted = {}
      for _, word in ipairs(choices) do
        wanted[word] = true
      end
      assert.equal(names(wanted), names(words))
    end
  end)

  it("have every key of moonbird.lua, and no other", function()
    assert.equal(names(schema.environment), fields("moonbird.config_settings"))
    local both = { default_environment = true, environments = true, git = true }
    local file = types.classes["moonbird.config_file"]
    assert.equal("moonbird.config_settings", file.parent)
    assert.equal(names(both), names(file.fields))
    for key in pairs(types.classes["moonbird.config_settings"].fields) do
      both[key] = true
    end
    assert.equal(names(schema.file), names(both))
    for key, reader in pairs(schema.environment) do
      if type(reader) == "table" then
        assert.equal(names(reader), fields("moonbird.config_" .. key))
      end
    end
  end)

  it("have every option of tenants and of backfills, and no other", function()
    assert.equal(names(require("moonbird.tenants.settings").readers), fields("moonbird.config_tenants"))
    assert.equal(names(require("moonbird.migration.backfill").options), fields("moonbird.config_backfill"))
    for _, kind in pairs(types.classes["moonbird.config_settings"].types) do
      assert.is_nil(kind:find("reserved", 1, true), kind)
    end
  end)

  it("have env() of moonbird.lua", function()
    assert.is_true(types.globals.env)
    assert.truthy(assert(fs.read("lua/moonbird/config/config.lua")):find("env = env_function(", 1, true))
  end)

  it("have every constructor of tenants in moonbird.lua, and no other", function()
    local named = {}
    for full in pairs(types.globals) do
      named[full:match("^tenants%.(%w+)$") or ""] = true
    end
    named[""] = nil
    assert.equal(names(require("moonbird.config.tenant_sources").constructors()), names(named))
  end)

  describe("of the policy", function()
    --- The keys of a table that a module writes as `local NAME = { key = ..., ... }`.
    local function keys_of(path, name)
      local set = {}
      local body = assert(fs.read(path)):match("local " .. name .. " = {(.-)}\n")
      for key in body:gmatch("([%w_]+) = ") do
        set[key] = true
      end
      return names(set)
    end

    it("have every key of a project's rule and of its tests, and no other", function()
      assert.equal(keys_of("lua/moonbird/policy/project.lua", "KEYS"), fields("moonbird.policy.rule"))
      assert.equal(keys_of("lua/moonbird/policy/tests.lua", "KEYS"), fields("moonbird.policy.suite"))
    end)

    it("have every field of a case, and no other", function()
      local set = {}
      local class = assert(fs.read("lua/moonbird/policy/case.lua")):match("@class moonbird.policy.case\n(.-)\n\n")
      for name in class:gmatch("%-%-%-@field ([%w_]+)") do
        set[name] = true
      end
      assert.equal(names(set), fields("moonbird.policy.case"))
    end)

    it("have every field that a rule sees of a migration, and no other", function()
      local view = require("moonbird.policy.context").migration { file = "migrations/1_a.sql" }
      local set = { up = true, down = true, base_name = true, recorded = true }
      local source = assert(fs.read("lua/moonbird/policy/context.lua")):match("local FIELDS = {(.-)}")
      for name in source:gmatch('"([%w_]+)"') do
        set[name] = true
      end
      assert.equal("1_a.sql", view.base_name)
      assert.equal(names(set), fields("moonbird.policy.migration"))
    end)

    it("have every fact of the engine's context, and no other", function()
      local set = { options = true, statements = true, down_statements = true } -- made when asked for
      local made = assert(fs.read("lua/moonbird/policy/engine.lua")):match("context%.new {(.-)\n  }")
      for name in made:gmatch("([%w_]+) = ") do
        set[name] = true
      end
      set.waivers, set.allow = nil, nil -- for the one rule that settles them; inside of run
      assert.equal(names(set), fields("moonbird.policy.ctx"))
    end)

    it("have the keys of its settings and of a waiver", function()
      assert.equal(keys_of("lua/moonbird/policy/settings.lua", "KEYS"), fields("moonbird.config_policy_section"))
      assert.equal("commands variable", fields("moonbird.config_protection"))
      local waiver = require "moonbird.policy.waiver"
      local text = { rule = "a-rule", reason = "long enough", expires = "2099-01-31", ticket = "OPS-1" }
      for name in pairs(types.classes["moonbird.migration.waiver"].fields) do
        assert.truthy(text[name], name)
      end
      assert.equal("expires reason rule ticket", fields("moonbird.migration.waiver"))
      assert.is_nil(waiver.of_table(text, { file = "a.lua" }).problem)
      text.owner = "somebody"
      assert.truthy(waiver.of_table(text, { file = "a.lua" }).problem)
    end)
  end)

  it("have every field that the engine gives an error, and no other", function()
    local set = { position = true, index = true } -- integers; the others are set by name
    local body = assert(fs.read("bindings/error.c")):match("void mbl_push_error(.-)\n}")
    for name in body:gmatch('set_string%(L, "([%w_]+)"') do
      set[name] = true
    end
    for name in assert(fs.read("lua/moonbird/core/error.lua")):gmatch("%-%-%-@field ([%w_]+)%?? ") do
      set[name] = true
    end
    assert.equal(names(set), fields("moonbird.error"))
  end)

  describe("of the sandbox", function()
    local everywhere = { require = function() end, print = function() end }
    local env = sandbox.environment { require = everywhere.require, print = everywhere.print }

    --- Whether a name of plain Lua is there for a script.
    local function available(full)
      local owner, name = full:match("^(%w+)%.(%w+)$")
      local ok, value = pcall(function()
        if owner then
          return env[owner][name]
        end
        return env[full]
      end)
      return ok and value ~= nil
    end

    it("call gone what is gone, and nothing else", function()
      for full in pairs(types.deprecated) do
        assert.is_false(available(full), full .. " is there")
      end
      for full in pairs(types.globals) do
        local of_config = full == "env" or full == "tenants" or full:find("^tenants%.") ~= nil -- moonbird.lua's
        assert.is_true(of_config or available(full), full .. " is not there")
      end
    end)

    it("have everything of plain Lua that is not there", function()
      -- The standard library's own names; this interpreter's globals hold the test runner's, too.
      local plain = "assert collectgarbage dofile error getmetatable ipairs load loadfile next pairs pcall print "
        .. "rawequal rawget rawlen rawset require select setmetatable tonumber tostring type warn xpcall "
        .. "coroutine debug io math os package string table utf8"
      for name in plain:gmatch("%S+") do
        assert.equal(not available(name), types.deprecated[name] or false, name)
      end
      -- What Debian's Lua keeps of 5.2, and the manual of 5.4 does not have.
      local compat = { atan2 = true, cosh = true, sinh = true, tanh = true, pow = true, frexp = true, ldexp = true, log10 = true }
      for _, library in ipairs({ "coroutine", "math", "string", "table", "utf8" }) do
        for name in pairs(_G[library]) do
          local full = library .. "." .. name
          if not (library == "math" and compat[name]) then
            assert.equal(not available(full), types.deprecated[full] or false, full)
          end
        end
      end
    end)
  end)
end)
