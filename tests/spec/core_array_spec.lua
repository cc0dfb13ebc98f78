local array = require "moonbird.core.array"
local json = require "moonbird.core.json"

local function text(...)
  local list = array.new()
  for i = 1, select("#", ...) do
    list:add((select(i, ...)))
  end
  return list:text()
end

describe("core.array", function()
  it("writes values as elements of an array literal", function()
    assert.are.equal("{}", text())
    assert.are.equal('{"a","","NULL","a,b","{}"," "}', text("a", "", "NULL", "a,b", "{}", " "))
    assert.are.equal([[{"say \"hi\"","c:\\x\\"}]], text('say "hi"', "c:\\x\\"))
    assert.are.equal('{NULL,NULL}', text(nil, json.null))
    assert.are.equal('{"1","-9223372036854775808","0.1","Infinity","t","f"}',
      text(1, math.mininteger, 0.1, math.huge, true, false))
  end)

  it("writes bytes as the text of a bytea", function()
    local list = array.new()
    list:add("\0\xff\\", true)
    list:add("", true)
    assert.are.equal([[{"\\x00ff5c","\\x"}]], list:text())
  end)

  it("refuses what no array of texts can hold", function()
    local list = array.new()
    assert.has_error(function() list:add("a\0b") end, "text can't hold a NUL byte")
    assert.has_error(function() list:add({}) end)
    assert.has_error(function() list:add(print) end)
    assert.are.equal(0, list:count())
  end)

  it("goes on after its text was taken, and begins anew when cleared", function()
    local list = array.new()
    list:add("a")
    assert.are.equal('{"a"}', list:text())
    list:add("b")
    assert.are.equal('{"a","b"}', list:text())
    assert.are.same({ 2, 8 }, { list:count(), list:size() })
    list:clear()
    assert.are.same({ 0, 0, "{}" }, { list:count(), list:size(), list:text() })
    list:add(("x"):rep(100000))
    assert.are.equal(100004, #list:text())
  end)
end)
