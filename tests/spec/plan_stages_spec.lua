--- The order of global and tenant migrations.
local stages = require "moonbird.plan.stages"

local function list(...)
  local migrations = {}
  for i, version in ipairs { ... } do
    migrations[i] = { version = version }
  end
  return migrations
end

--- Stages as text: "g1 g2 | t3".
local function told(global, tenant)
  local parts = {}
  for i, stage in ipairs(stages.make(global, tenant)) do
    local words = {}
    for k, migration in ipairs(stage.migrations) do
      words[k] = stage.scope:sub(1, 1) .. migration.version
    end
    parts[i] = table.concat(words, " ")
  end
  return table.concat(parts, " | ")
end

describe("stages", function()
  it("are none when nothing is pending", function()
    assert.equal("", told({}, {}))
  end)

  it("are one where only one scope has something to do", function()
    assert.equal("g1 g2", told(list(1, 2), {}))
    assert.equal("t1 t2", told({}, list(1, 2)))
  end)

  it("change at each change of scope, by version", function()
    assert.equal("g1 | t2 t3 | g4 | t5", told(list(1, 4), list(2, 3, 5)))
    assert.equal("t1 | g2 | t3", told(list(2), list(1, 3)))
    assert.equal("t1 t2 | g3", told(list(3), list(1, 2)))
    assert.equal("g1 g2 | t3", told(list(1, 2), list(3)))
  end)

  it("leave out what is not pending: an applied global migration is no border", function()
    assert.equal("t1 t3 t5", told({}, list(1, 3, 5)))
  end)

  it("keep every migration once and never go back, whatever is mixed", function()
    math.randomseed(7)
    for _ = 1, 200 do
      local global, tenant, all = {}, {}, 0
      for version = 1, math.random(0, 30) do
        local dice = math.random(3)
        if dice == 1 then
          global[#global + 1] = { version = version }
        elseif dice == 2 then
          tenant[#tenant + 1] = { version = version }
        end
        all = all + (dice < 3 and 1 or 0)
      end
      local last, seen, before = 0, 0, nil
      for _, stage in ipairs(stages.make(global, tenant)) do
        assert.is_true(stage.scope ~= before)
        before = stage.scope
        for _, migration in ipairs(stage.migrations) do
          assert.is_true(migration.version > last)
          last, seen = migration.version, seen + 1
        end
      end
      assert.equal(all, seen)
    end
  end)
end)
