--- What specs need to read machine outputs back: the official JSON schema of SARIF 2.1.0 with a validator, and an
--- XML parser. Neither is ours: the schema is in an npm package, the validator is Debian's python3-jsonschema, the
--- parser is Python's own.
local fs = require "moonbird.core.fs"
local json = require "moonbird.core.json"
local process = require "moonbird.core.process"
local sys = require "moonbird.core.sys"

local M = {}

-- Its lib/schemas holds the schema as OASIS published it (the file says "rtm.5").
local PACKAGE = "@microsoft/jest-sarif@1.0.0-beta.0"
local MEMBER = "package/lib/schemas/sarif-2.1.0-rtm.5.json"

local VALIDATE = [[
import json, sys
import jsonschema
schema = json.load(open(sys.argv[1], encoding="utf-8"))
jsonschema.Draft4Validator.check_schema(schema)
validator = jsonschema.Draft4Validator(schema, format_checker=jsonschema.FormatChecker())
for error in validator.iter_errors(json.loads(sys.stdin.buffer.read().decode("utf-8"))):
    print("/".join(str(part) for part in error.absolute_path) + ": " + error.message[:300])
]]

local PARSE = [[
import json, sys
from xml.etree import ElementTree
def plain(node):
    return {"tag": node.tag, "attributes": node.attrib, "text": node.text or "", "children": [plain(c) for c in node]}
json.dump(plain(ElementTree.fromstring(sys.stdin.buffer.read())), sys.stdout)
]]

local function run(spec)
  local result, err = process.run(spec)
  if not result then
    error(tostring(err), 0)
  end
  return result
end

--- The path of the schema; fetched from npm once, kept in .deps.
---@return string
local function schema()
  local path = fs.cwd() .. "/.deps/sarif/schema.json"
  if fs.stat(path) then
    return path
  end
  local dir = assert(fs.tempdir((sys.getenv("MOONBIRD_TEST_TMP") or "/tmp") .. "/moonbird-sarif-"))
  local packed = run { file = "npm", args = { "pack", "--silent", "--pack-destination", dir, PACKAGE }, cwd = dir }
  if packed.status ~= 0 then
    error(("npm could not fetch %s: %s"):format(PACKAGE, packed.stderr), 0)
  end
  local archive = dir .. "/" .. packed.stdout:match("(%S+)%s*$")
  local unpacked = run { file = "tar", args = { "-xzOf", archive, MEMBER } }
  if unpacked.status ~= 0 then
    error(("%s lacks %s: %s"):format(PACKAGE, MEMBER, unpacked.stderr), 0)
  end
  assert(fs.mkdir(path:match("^(.*)/")))
  -- In one step: another suite may fetch it at the same time.
  assert(fs.write(path .. "." .. sys.pid(), unpacked.stdout))
  assert(fs.rename(path .. "." .. sys.pid(), path))
  fs.remove_tree(dir)
  return path
end

-- Debian's Python has Debian's packages; another one that comes first on the PATH may have its own.
local function python_with_jsonschema()
  for _, file in ipairs { "/usr/bin/python3", "python3" } do
    local found = process.run { file = file, args = { "-W", "ignore", "-c", "import jsonschema" } }
    if found and found.status == 0 then
      return file
    end
  end
  error("the Python module jsonschema is missing (apt-get install python3-jsonschema)", 0)
end

--- What is wrong with a SARIF log by the official schema; "" when nothing is.
---@param text string
---@return string problems one a line
function M.sarif_problems(text)
  local path = schema()
  local result = run { file = python_with_jsonschema(), args = { "-W", "ignore", "-c", VALIDATE, path }, stdin = text }
  if result.status ~= 0 then
    error("the validator failed: " .. result.stderr, 0)
  end
  return result.stdout
end

--- A parsed XML document; raises when it is not well-formed.
---@param text string
---@return { tag: string, attributes: table, text: string, children: table[] }
function M.xml(text)
  local result = run { file = "python3", args = { "-c", PARSE }, stdin = text }
  if result.status ~= 0 then
    error("not well-formed XML: " .. result.stderr .. "\n" .. text, 0)
  end
  return json.decode(result.stdout)
end

return M
