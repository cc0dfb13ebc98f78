--- Which tenants are meant, and in which waves: the same everywhere and every time.
local select_ = require "moonbird.tenants.select"

local function tenants_of(count)
  local list = {}
  for i = 1, count do
    list[i] = { name = ("tenant_%03d"):format(i), labels = { region = i % 2 == 0 and "eu" or "us", odd = i % 2 == 1 } }
  end
  return list
end

local function names(list)
  local result = {}
  for i, tenant in ipairs(list) do
    result[i] = tenant.name:match("%d+$")
  end
  return table.concat(result, " ")
end

describe("tenants picked", function()
  local all = tenants_of(12)

  local function pick(options)
    return names(assert(select_.pick(all, options)))
  end

  it("by name, glob and label", function()
    assert.equal("003", pick { tenant = { "tenant_003" } })
    assert.equal("010 011 012", pick { tenant = { "tenant_01*" } })
    assert.equal("001 002", pick { tenant = { "tenant_002", "tenant_001" } })
    assert.equal("001 003 005 007 009 011", pick { tenant = { "@odd" } })
    assert.equal("002 004 006 008 010 012", pick { tenant = { "@region=eu" } })
    assert.equal("001 011", pick { tenant = { "tenant_0?1" } })
  end)

  it("less those excluded; all without a word", function()
    assert.equal("004 006", pick { tenant = { "tenant_004", "tenant_005", "tenant_006" }, exclude = { "@odd" } })
    assert.equal("002 004 006 008 010 012", pick { exclude = { "@odd" } })
    assert.equal(12, #assert(select_.pick(all, {})))
  end)

  it("take a pattern's magic characters for what they are", function()
    local odd = { { name = "a.b", labels = {} }, { name = "axb", labels = {} }, { name = "a%b", labels = {} } }
    assert.equal(1, #select_.pick(odd, { tenant = { "a.b" } }))
    assert.equal(1, #select_.pick(odd, { tenant = { "a.*" } }))
    assert.equal(1, #select_.pick(odd, { tenant = { "a%*" } }))
  end)

  it("not at all when a word matches nobody: the nearest is named", function()
    local got, err = select_.pick(all, { tenant = { "tenant_03" } })
    assert.is_nil(got)
    assert.equal("usage", err.code)
    assert.equal('--tenant "tenant_03" matches no tenant', err.message)
    assert.matches('did you mean "tenant_%d+"', err.hint)
    local _
    _, err = select_.pick(all, { exclude = { "@nobody" } })
    assert.matches('--exclude "@nobody" matches no tenant', err.message)
  end)

  it("in shards that make up the whole", function()
    local seen, count = {}, 0
    for i = 0, 3 do
      for _, tenant in ipairs(assert(select_.pick(all, { shard = i .. "/4" }))) do
        assert.is_nil(seen[tenant.name])
        seen[tenant.name] = true
        count = count + 1
      end
    end
    assert.equal(12, count)
    for _, bad in ipairs { "4/4", "x", "1/0", "-1/4" } do
      local got, err = select_.pick(all, { shard = bad })
      assert.is_nil(got)
      assert.matches("--shard wants I/N", err.message)
    end
  end)
end)

describe("waves", function()
  local all = tenants_of(300)

  it("are shares of all, each tenant in one of them", function()
    local waves = select_.waves(all, { { count = 1 }, { percent = 1 }, { percent = 10 } })
    local sizes, seen = {}, {}
    for i, wave in ipairs(waves) do
      sizes[i] = #wave.tenants
      for _, tenant in ipairs(wave.tenants) do
        assert.is_nil(seen[tenant])
        seen[tenant] = true
      end
    end
    assert.same({ 1, 3, 30, 266 }, sizes)
    assert.is_true(waves[3].canary)
    assert.is_false(waves[4].canary)
  end)

  it("have the same canaries in every order, and when others come and go", function()
    local first = select_.waves(all, { { count = 3 } })[1].tenants
    local backwards = {}
    for i, tenant in ipairs(all) do
      backwards[#all + 1 - i] = tenant
    end
    assert.equal(names(first), names(select_.waves(backwards, { { count = 3 } })[1].tenants))
    -- Which they are may never change: a rerun by the next release would have others.
    assert.equal("151 175 115", names(first))
    local without = {}
    for _, tenant in ipairs(all) do
      without[#without + 1] = tenant ~= first[2] and tenant or nil
    end
    local fewer = select_.waves(without, { { count = 2 } })[1].tenants
    assert.equal(first[1], fewer[1])
    assert.equal(first[3], fewer[2])
  end)

  it("take named ones first, and leave them out of the rest", function()
    local waves = assert(select_.waves(all, { { name = "tenant_007" }, { name = "@region=eu" } }))
    assert.equal("007", names(waves[1].tenants))
    assert.equal(150, #waves[2].tenants)
    assert.equal(149, #waves[3].tenants)
    local got, err = select_.waves(all, { { name = "nobody" } })
    assert.is_nil(got)
    assert.matches('the canary "nobody" matches no tenant', err.message)
  end)

  it("are one without shares, and the last is no canary", function()
    assert.equal(1, #select_.waves(all, {}))
    local waves = select_.waves(tenants_of(2), { { count = 1 }, { count = 5 } })
    assert.equal(2, #waves)
    assert.is_false(waves[2].canary)
  end)
end)
