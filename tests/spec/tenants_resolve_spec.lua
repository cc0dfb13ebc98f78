--- Asking the sources: what each kind gives, and every way in which an answer can be wrong.
local helper = require "tests.helper"
local resolve = require "moonbird.tenants.resolve"
local session_of = require "moonbird.core.session"
local sources = require "moonbird.config.tenant_sources".constructors()
local async = helper.async

describe("the tenants that there are", function()
  local db, dir, opened

  before_each(async(function()
    db = helper.database()
    dir = helper.tmpdir()
    opened = {}
  end))

  local function all(list, options)
    options = options or {}
    local tenants, err = resolve.all({ sources = list }, {
      dir = dir, env = options.env or {}, check_schemas = options.check_schemas,
      open = function(where)
        opened[#opened + 1] = where and where.key or ""
        local params = {}
        for key, value in pairs(db.params) do
          params[key] = value
        end
        params.dbname = where and where.dbname or params.dbname
        local session, failed = session_of.open(params, {})
        if session then
          helper.defer(function()
            session:close()
          end)
        end
        return session, failed
      end,
    })
    return tenants, err
  end

  local function problems(list, options)
    local tenants, err = all(list, options)
    assert.is_nil(tenants)
    assert.equal("config", err.code)
    local texts = {}
    for i, problem in ipairs(err.problems or {}) do
      texts[i] = problem.message
    end
    return table.concat(texts, "\n"), err
  end

  local function names(tenants)
    local list = {}
    for i, tenant in ipairs(tenants) do
      list[i] = tenant.name .. ":" .. (tenant.schema or "-")
    end
    return table.concat(list, " ")
  end

  local function schemas(...)
    for _, name in ipairs { ... } do
      db:query(('create schema "%s"'):format(name))
    end
  end

  describe("come from", function()
    it("schemas by a pattern, without the system's", async(function()
      schemas("t_b", "t_a", "t_a_old", "other")
      assert.equal("t_a:t_a t_b:t_b", names(all { sources.schemas { like = "t\\_%", not_like = "%\\_old" } }))
      local every = names(all { sources.schemas { like = "%" } })
      assert.is_nil(every:find("pg_", 1, true))
      assert.is_nil(every:find("information_schema", 1, true))
    end))

    it("a query: name, schema, vars and labels, as JSON or text", async(function()
      schemas("s1", "s2")
      local tenants = assert(all { sources.query { sql = [[select * from (values
        ('a', 's1', '{"plan": "gold", "seats": 3}'::jsonb, '{"eu": true}'::jsonb),
        ('b', 's2', null, '["canary"]')) v(name, schema, vars, labels)]] } })
      assert.equal("a:s1 b:s2", names(tenants))
      assert.same({ plan = "gold", seats = 3 }, tenants[1].vars)
      assert.same({ eu = true }, tenants[1].labels)
      assert.same({ canary = true }, tenants[2].labels)
      assert.same({}, tenants[2].vars or {})
    end))

    it("a list of names and of tables", async(function()
      schemas("a", "s_b")
      local tenants = assert(all { sources.list { "a", { name = "b", schema = "s_b", vars = { n = 1 },
        labels = { "eu", plan = "gold" } } } })
      assert.equal("a:a b:s_b", names(tenants))
      assert.same({ eu = true, plan = "gold" }, tenants[2].labels)
      assert.is_nil(tenants[1].where)
    end))

    it("a JSON file beside moonbird.lua", async(function()
      schemas("a", "s_b")
      helper.write(dir, { ["t.json"] = '["a", {"name": "b", "schema": "s_b", "labels": {"tier": 2}}]' })
      local tenants = assert(all { sources.file "t.json" })
      assert.equal("a:a b:s_b", names(tenants))
      assert.equal(2, tenants[2].labels.tier)
    end))

    it("databases of the server, each with a place of its own", async(function()
      local other = helper.database()
      local tenants = assert(all { sources.databases { like = other.name } })
      assert.equal(other.name .. ":-", names(tenants))
      assert.equal(other.name, tenants[1].where.dbname)
      tenants = assert(all { sources.databases { like = other.name, url = "postgresql://u@h/{name}" } })
      assert.equal("postgresql://u@h/" .. other.name, tenants[1].where.url)
    end))

    it("a function in the sandbox", async(function()
      schemas("eu_1", "eu_2")
      local tenants = assert(all({ function(env)
        local list = {}
        for i = 1, env.count do
          list[i] = { name = "n" .. i, schema = env.prefix .. i }
        end
        return list
      end }, { env = { count = 2, prefix = "eu_" } }))
      assert.equal("n1:eu_1 n2:eu_2", names(tenants))
    end))

    it("several sources together, by name", async(function()
      schemas("t_b", "x")
      assert.equal("t_b:t_b z:x", names(all { sources.list { { name = "z", schema = "x" } },
        sources.schemas { like = "t_%" } }))
    end))
  end)

  describe("are refused", function()
    it("when a name is there twice, with both sources", async(function()
      schemas("a", "b")
      local text = problems { sources.list { "a", { name = "a", schema = "b" } } }
      assert.equal('tenant "a" is there twice, by tenants.list and tenants.list', text)
      text = problems { sources.list { { name = "a", schema = "b" } }, sources.schemas { like = "a" } }
      assert.equal('tenant "a" is there twice, by tenants.list (source 1) and tenants.schemas (source 2)', text)
    end))

    it("when two have the same schema", async(function()
      schemas("a")
      local text = problems { sources.list { { name = "x", schema = "a" }, { name = "y", schema = "a" } } }
      assert.equal('tenants "x" and "y" have the same schema "a"', text)
    end))

    it("when schemas are missing: all of them, asked once", async(function()
      schemas("a")
      local text, err = problems { sources.list { "a", "gone", { name = "z", schema = "also gone" } } }
      assert.equal('the schema "also gone" of tenant "z" does not exist\nthe schema "gone" of tenant "gone" does not exist',
        text)
      assert.equal("`moonbird tenant add gone` makes it", err.problems[2].hint)
      assert.equal(1, #opened)
      assert.equal(3, #all({ sources.list { "a", "gone", "z" } }, { check_schemas = false }))
    end))

    it("when a name can't be one", async(function()
      local text = problems { sources.list { ("x"):rep(64), "a\nb", "global", "@eu", "", { schema = "s" },
        "pg_temp", "information_schema", { name = "long", schema = ("s"):rep(64) }, { name = "none", schema = "" } } }
      for _, part in ipairs { '"' .. ("x"):rep(64) .. '" can\'t be a tenant\'s name: 1 to 63 bytes', '"a?b" can\'t be',
        '"global" can\'t be a tenant\'s name: it is moonbird\'s own', '"@eu" can\'t be', "gave a tenant without a name",
        'the schema "pg_temp" is PostgreSQL\'s own', 'the schema "information_schema" is PostgreSQL\'s own',
        'tenant "long": "' .. ("s"):rep(64) .. '" can\'t be a schema\'s name', 'tenant "none": "" can\'t be' } do
        assert(text:find(part, 1, true), part .. "\nis not in\n" .. text)
      end
      local _, count = text:gsub("[^\n]+", "")
      assert.equal(10, count)
    end))

    it("when a tenant has keys that are none, or of another type", async(function()
      local text, err = problems { sources.list { { name = "a", shema = "b" }, { name = 1 }, true, 7 } }
      assert.matches('unknown key "shema"', text)
      assert.matches("name\" must be a string", text)
      assert.matches("gave a boolean for a tenant", text)
      assert.matches("gave a number for a tenant", text)
      assert.equal('did you mean "schema"?', err.problems[1].hint)
    end))

    it("with the server's message when a query fails", async(function()
      local tenants, err = all { sources.query { sql = "select nothing from nowhere" } }
      assert.is_nil(tenants)
      assert.equal("42P01", err.sqlstate)
      assert.matches("while asking tenants.query", err.detail)
    end))

    it("when the file is gone or no list", async(function()
      local _, err = all { sources.file "none.json" }
      assert.matches("tenants.file: ", err.message)
      helper.write(dir, { ["t.json"] = '[\n"a",\n' })
      _, err = all { sources.file "t.json" }
      assert.equal("config", err.code)
      assert.matches('"t.json" is no JSON list', err.message)
      assert.equal("t.json", err.file)
      helper.write(dir, { ["t.json"] = '"a"' })
      _, err = all { sources.file "t.json" }
      assert.matches("it is no list", err.message)
    end))

    it("when the function fails or gives something else", async(function()
      local _, err = all { function()
        error("no tenants today")
      end }
      assert.equal("config", err.code)
      assert.matches("no tenants today", err.message)
      _, err = all { function()
        return "a"
      end }
      assert.matches("must return a list", err.message)
      _, err = all { function()
        return os.execute
      end }
      assert.equal("config", err.code)
    end))
  end)
end)
