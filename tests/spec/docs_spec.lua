--- The documentation is true: generated pages are fresh, links lead somewhere, examples print what is shown.
local examples = dofile("docs/examples.lua")
local fs = require "moonbird.core.fs"
local generate = dofile("docs/generate.lua")
local helper = require "tests.helper"

--- All pages of the repository that people read.
local function pages()
  local list = {}
  local function add(folder)
    for _, listed in ipairs(assert(fs.list(folder))) do
      local path = folder == "." and listed.name or folder .. "/" .. listed.name
      if listed.type == "dir" and not listed.name:find("^%.") and not listed.name:find("^build") then
        add(path)
      elseif listed.type == "file" and listed.name:find("%.md$") then
        list[#list + 1] = path
      end
    end
  end
  add(".")
  return list
end

--- The page without its code, which may look like links.
local function prose(text)
  text = ("\n" .. text):gsub("\n```.-\n```", "\n")
  text = text:gsub("\n    [^\n]*", "\n")
  return (text:gsub("`[^`\n]*`", ""))
end

--- The anchors that GitHub makes of headings.
local function anchors(text)
  local set = {}
  for heading in ("\n" .. text):gsub("\n```.-\n```", "\n"):gmatch("\n#+ ([^\n]*)") do
    local anchor = heading:lower():gsub("[^%w%s_-]", ""):gsub("%s", "-")
    set[anchor] = true
  end
  return set
end

describe("the documentation", function()
  it("has fresh generated pages", function()
    for path, text in pairs(generate.pages()) do
      assert.equal(text, fs.read(path) or "", path .. " is stale: run `moonbird-lua docs/generate.lua`")
    end
  end)

  it("has every field of --json, and no other", helper.async(function()
    local seen = {}
    local dir = helper.tmpdir()
    local function run(command, ...)
      local json = require "moonbird.core.json"
      local result = helper.moonbird({ "--json", command, ... }, { cwd = dir })
      local object = assert(json.decode(result.stdout), command .. ": " .. result.stdout .. result.stderr)
      assert.equal(command, object.command)
      assert.equal("boolean", type(object.ok))
      assert.equal(not object.ok, object.error ~= nil)
      local documented = {}
      for _, field in ipairs(generate.JSON[command]) do
        documented[field[1]] = true
      end
      for name in pairs(object) do
        if name ~= "command" and name ~= "ok" and name ~= "error" then
          assert.is_true(documented[name] or false, ("%s gives %q, which is not documented"):format(command, name))
          seen[command .. "." .. name] = true
        end
      end
    end
    helper.defer(function()
      helper.moonbird({ "cluster", "stop" }, { cwd = dir })
    end)
    run("init")
    run("new", "create_things", "--sql", "--sequential")
    run("renumber", "1", "--to", "003")
    run("renumber", "3", "--to", "001")
    run("policy", "list")
    run("policy", "explain", "owner")
    run("policy", "test")
    run("policy", "waivers")
    run("policy", "facts", "migrations/001_create_things.sql")
    run("check", "--update")
    run("ci", "--no-undo")
    helper.write(dir, {
      ["migrations/001_create_things.sql"] = "-- description: things and what they are called\n-- phase: expand\n"
        .. "-- scope: global\n-- compatibility: backward_compatible\n-- migrate:up\ncreate table things (id int);\n"
        .. "-- migrate:down\ndrop table things;\n",
    })
    run("cluster", "start")
    run("deploy")
    run("down")
    helper.write(dir, {
      ["migrations/002_more.lua"] = "return { description = 'x', owner = 'o', irreversible = 'r', up = 'select 1' }",
      ["script.lua"] = "return function() return 0 end",
    })
    run("cluster", "status")
    run("cluster", "url")
    run("plan")
    run("up", "--dry-run")
    run("up")
    run("status")
    run("show", "2")
    run("show", "1")
    run("history")
    run("history", "--verify")
    run("repair", "2", "--mark", "reverted", "--reason", "test")
    run("redo")
    run("down", "--dry-run")
    run("down")
    run("baseline", "2")
    helper.write(dir, {
      ["migrations/004_fill.lua"] = "return { description = 'Fill what is empty', irreversible = 'it was not there', "
        .. "backfill = { table = 'rows_', where = 'b is null', set = 'b = a' } }",
      ["migrations/003_rows.sql"] = "-- migrate:up\ncreate table rows_ (a int primary key, b int);\n"
        .. "insert into rows_ values (1), (2);\n-- migrate:down\ndrop table rows_;\n",
    })
    run("up", "--backfills", "skip")
    run("backfill", "list")
    run("backfill", "explain", "4")
    run("backfill", "run", "4")
    run("backfill", "show", "4")
    run("repair", "4", "--mark", "reverted", "--reason", "test")
    run("down")
    assert(fs.remove(dir .. "/migrations/004_fill.lua"))
    assert(fs.remove(dir .. "/migrations/003_rows.sql"))
    local config = assert(fs.read(dir .. "/moonbird.lua"))
    helper.write(dir, {
      ["moonbird.lua"] = "return { tenants = tenants.schemas{ like = 't_%' } }",
      ["migrations/003_own.sql"] = "-- description: what is a tenant's own\n-- phase: expand\n-- scope: tenant\n"
        .. "-- compatibility: backward_compatible\n-- migrate:up\ncreate table own (id int);\n"
        .. "-- migrate:down\ndrop table own;\n",
    })
    run("tenant", "add", "t_a")
    run("tenant", "add", "t_b")
    run("tenant", "list")
    run("tenant", "status")
    run("tenant", "pin", "t_a", "--to", "3", "--reason", "test")
    run("tenant", "unpin", "t_a", "--reason", "test")
    run("tenant", "drift")
    run("tenant", "matrix", "--html", "matrix.html")
    run("status")
    run("down", "--dry-run")
    run("redo")
    run("down")
    run("plan")
    run("up")
    run("repair", "3", "--mark", "reverted", "--all-tenants", "--reason", "test")
    run("baseline", "3", "--all-tenants")
    helper.write(dir, { ["moonbird.lua"] = "return { tenants = tenants.list{ 't_a', 't_b' } }" })
    run("tenant", "add", "c")
    helper.write(dir, { ["moonbird.lua"] = config })
    run("create")
    run("drop")
    run("drop", "--yes", "-u", "embedded:?dbname=nothing")
    run("wait")
    run("run", "script.lua")
    run("completion", "bash")
    run("version")
    run("cluster", "stop")
    run("cluster", "destroy", "--yes")
    for command, list in pairs(generate.JSON) do
      for _, field in ipairs(list) do
        assert.is_true(seen[command .. "." .. field[1]] or false,
          ("%s never gave %q, which is documented"):format(command, field[1]))
      end
    end
    for _, command in ipairs(require("moonbird.cli.spec").COMMANDS) do
      assert.is_true(generate.JSON[command.name] ~= nil or command.name == "help", command.name)
    end
  end))

  it("names every error code once", function()
    local rows = generate.read_errors(assert(fs.read("engine/base/error.def")))
    local codes = require("moonbird.core.error").codes()
    local count = 0
    for _, row in ipairs(rows) do
      assert.equal(row.status, codes[row.name].status)
      count = count + 1
    end
    for _ in pairs(codes) do
      count = count - 1
    end
    assert.equal(0, count)
  end)

  it("has no dead relative link", function()
    local dead = {}
    for _, path in ipairs(pages()) do
      local text = assert(fs.read(path))
      local folder = path:match("^(.*/)[^/]*$") or ""
      for target in prose(text):gmatch("%]%(([^)%s]+)%)") do
        if not target:find("^%a+:") then
          local file, anchor = target:match("^([^#]*)#?(.*)$")
          local full = file == "" and path or folder .. file
          local found = fs.stat(full)
          if not found then
            dead[#dead + 1] = path .. ": " .. target
          elseif anchor ~= "" and not anchors(assert(fs.read(full)))[anchor] then
            dead[#dead + 1] = path .. ": " .. target .. " (no such heading)"
          end
        end
      end
    end
    assert.same({}, dead)
  end)

  it("has every page of docs/ linked from another", function()
    local linked = {}
    for _, path in ipairs(pages()) do
      local folder = path:match("^(.*/)[^/]*$") or ""
      for target in prose(assert(fs.read(path))):gmatch("%]%(([^)%s#]+)") do
        local full = folder .. target
        while full:find("[^/]+/%.%./") do
          full = full:gsub("[^/]+/%.%./", "", 1)
        end
        if full ~= path then
          linked[full] = true
        end
      end
    end
    for _, path in ipairs(pages()) do
      if path:find("^docs/") then
        assert.is_true(linked[path] or false, path .. " is linked from nowhere")
      end
    end
  end)

  describe("runs as shown:", function()
    for _, path in ipairs(examples.PAGES) do
      it(path, helper.async(function()
        local root = helper.tmpdir()
        local runner = examples.runner(root, helper.bin())
        helper.defer(function()
          runner:close()
        end)
        local commands = 0
        for _, item in ipairs(examples.read(assert(fs.read(path)))) do
          local actual, status = runner:run(item)
          if actual then
            commands = commands + 1
            local text = table.concat(actual, "\n")
            assert.is_nil(text:match("[^\n]*Sanitizer[^\n]*"), text)
            if not examples.same(item.expected, actual) then
              error(("%s:%d: $ %s\nshown:\n%s\nreal:\n%s"):format(path, item.line, item.command,
                table.concat(item.expected, "\n"), text), 0)
            end
            local failed = ("\n" .. text):find("\nerror: ") or ("\n" .. text):find("\nKilled")
            assert.equal(failed ~= nil, status ~= 0,
              ("%s:%d: $ %s ended with status %d"):format(path, item.line, item.command, status))
          end
        end
        assert.is_true(commands > 0, path .. " shows no command")
      end))
    end
  end)

  describe("masks", function()
    it("what differs from run to run", function()
      local function same(a, b)
        assert.equal(examples.mask(a), examples.mask(b))
      end
      same("applied 0001_a  3ms", "applied 0001_a    12ms  ")
      same("applied 3 migrations in 1m 4s", "applied 3 migrations in 31ms")
      same("2026-01-02 03:04:05 UTC  applied", "2025-11-21 14:02:04 UTC  applied")
      same("to apply on global (plan d7a177c732a8)", "to apply on global (plan 0123456789ab)")
      same("created migrations/20260102030405_a.lua", "created migrations/20271231235959_a.lua")
      same("postgres@laptop  -", "postgres@vm  -")
      same("info: starting PostgreSQL 15.20", "info: starting PostgreSQL 18.1")
    end)

    it("nothing else", function()
      for _, pair in ipairs({ { "applied 0001_a", "applied 0002_a" }, { "Applied: 3", "Applied: 4" },
        { "a b", "a  b" }, { "deadbeef", "deadbeee" } }) do
        assert.are_not.equal(examples.mask(pair[1]), examples.mask(pair[2]))
      end
    end)

    it("any lines with an ellipsis", function()
      assert.is_true(examples.same({ "a", "...", "z" }, { "a", "b", "c", "z" }))
      assert.is_true(examples.same({ "a", "..." }, { "a" }))
      assert.is_false(examples.same({ "a", "...", "z" }, { "a", "b" }))
      assert.is_false(examples.same({ "a" }, { "a", "b" }))
    end)
  end)
end)
