-- JSON: what rows hold comes back as it was or not at all; what is journaled can always be written.
local json = require "moonbird.core.json"

describe("JSON", function()
  local function refused(message, value)
    local ok, err = pcall(json.encode_exact, value)
    assert.is_false(ok)
    assert.are.equal(message, err)
  end

  it("comes back as it was", function()
    for _, text in ipairs {
      "9223372036854775807", "-9223372036854775808", "9007199254740993", "[]", "{}", "[{},[]]", "null", "true", "1.5",
      '{"\\"7":[1,"2\\\\",{"-3":9007199254740995}],"a":-4,"b":[9007199254740997,null,false,"x\\"9"]}',
      '"\\u0001\\u20ac"', '[0.1,1e+300,1.0000000000000002,0.30000000000000004,4503599627370495.5,4.94065645841247e-324]',
    } do
      local value = json.decode(text)
      assert.are.equal(text:gsub("\\u20ac", "€"), (json.encode_exact(value)))
    end
  end)

  it("has integers of 64 bits, and floats for the rest", function()
    local values = json.decode '[1, 1.0, 1e3, 0.5, -0, 9223372036854775808, 12345678901234567890, "9", 9007199254740993 ]'
    local kinds = {}
    for i, value in ipairs(values) do
      kinds[i] = math.type(value) or type(value)
    end
    assert.are.same({ "integer", "integer", "integer", "float", "integer", "float", "float", "string", "integer" }, kinds)
    assert.are.same({ 1, 1, 1000, 0.5, 0, 2.0 ^ 63, 12345678901234567890.0, "9", 9007199254740993 },
      setmetatable(values, nil))
  end)

  it("says where it is not valid, and does not cut a string off at a NUL", function()
    assert.are.same({ nil, "not valid JSON", 3 }, { json.decode "[1" })
    assert.are.same({ nil, "a string with a NUL character", 4 }, { json.decode '["a\\u0000b"]' })
    assert.are.same({ nil, "a string with a NUL character", 4 }, { json.decode '["a\0b"]' })
    assert.are.same({ "a\\u0000" }, setmetatable(json.decode '["a\\\\u0000"]', nil))
  end)

  it("refuses what it can't hold", function()
    refused("a string can't be written as JSON: it is not UTF-8, or has a NUL byte", { a = { "x", "\xff" } })
    refused("a string can't be written as JSON: it is not UTF-8, or has a NUL byte", "a\0b")
    refused("a key can't be written as JSON: it is not UTF-8, or has a NUL byte", { ["a\0b"] = 1 })
    refused("a table can't be written as JSON: it has both items and keys, or nil among its items (null is db.null)",
      { 1, x = 2 })
    refused("a table can't be written as JSON: it has both items and keys, or nil among its items (null is db.null)",
      { 1, nil, 3, [10] = 4 })
    refused("JSON objects have string keys only, this one has a number", { [2.5] = 1 })
    refused("JSON has no number for inf or nan", 1 / 0)
    refused("a function can't be written as JSON", { print })
    local deep = {}
    for _ = 1, 300 do
      deep = { deep }
    end
    refused("JSON is nested deeper than 200 levels", deep)
  end)

  it("is written for any text where it is for people", function()
    assert.are.equal('"a\u{FFFD}b\u{FFFD}"', json.encode "a\xffb\0")
  end)
end)
