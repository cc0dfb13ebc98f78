-- What `init` and `new` write: it passes its own check, as soon as the template says what the migration is for.
-- The same on every server.
local fs = require "moonbird.core.fs"
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local process = require "moonbird.core.process"
local async = helper.async

local GIT = { GIT_CONFIG_GLOBAL = "/dev/null", GIT_CONFIG_NOSYSTEM = "1", GIT_AUTHOR_NAME = "a", GIT_AUTHOR_EMAIL = "a@b",
  GIT_COMMITTER_NAME = "a", GIT_COMMITTER_EMAIL = "a@b" }

describe("a new project", function()
  local dir

  local function rules_found()
    local result = helper.moonbird({ "check", "--json" }, { cwd = dir })
    local seen = {}
    for _, finding in ipairs(json.decode(result.stdout).findings) do
      seen[#seen + 1] = finding.rule
    end
    table.sort(seen)
    return table.concat(seen, " "), result.status
  end

  --- Puts text in place of another in the one migration of this name.
  local function fill(name, changes)
    for _, file in ipairs(fs.names(dir .. "/migrations")) do
      if file:find(name, 1, true) then
        local path = dir .. "/migrations/" .. file
        local text = assert(fs.read(path))
        for _, change in ipairs(changes) do
          local first, last = text:find(change[1], 1, true)
          assert(first, file .. " has no " .. change[1])
          text = text:sub(1, first - 1) .. change[2] .. text:sub(last + 1)
        end
        assert(fs.write(path, text))
      end
    end
  end

  before_each(async(function()
    dir = helper.tmpdir()
    helper.ok({ "init" }, { cwd = dir })
  end))

  it("is clean before it has a migration", async(function()
    assert.are.same({ "", 0 }, { rules_found() })
  end))

  it("is told what the templates leave open, and is clean when they are filled in", async(function()
    helper.ok({ "new", "create_users", "--sql" }, { cwd = dir })
    helper.ok({ "new", "fill_users" }, { cwd = dir })
    assert.are.same({ "description description reversible", 6 }, { rules_found() })
    fill("create_users", { { "Create users", "People who may log in" },
      { "-- migrate:up\n", "-- migrate:up\ncreate table users (id bigint primary key, name text not null);\n" },
      { "-- migrate:down\n", "-- migrate:down\ndrop table users;\n" } })
    fill("fill_users", { { "Fill users", "The first user, who invites all others" },
      { "SELECT 1", "INSERT INTO users VALUES (1, 'root')" }, { "SELECT 1", "DELETE FROM users WHERE id = 1" } })
    helper.ok({ "check", "--update" }, { cwd = dir })
    assert.are.same({ "", 0 }, { rules_found() })

    -- and the workflow's own commands prove it
    local function sh(command, env)
      local child <close> = assert(process.spawn { file = "/bin/sh", args = { "-c", command }, cwd = dir,
        env = env })
      local result = assert(child:wait(60000))
      assert.are.equal(0, result.status, command .. "\n" .. result.stdout .. result.stderr)
    end
    local env = { GITHUB_BASE_REF = "main", PATH = helper.bin():match("^(.*)/") .. ":/usr/bin:/bin" }
    for key, value in pairs(GIT) do
      env[key] = value
    end
    sh("git init -q -b main && git commit -q --allow-empty -m empty && git remote add origin . "
      .. "&& git fetch -q origin && git checkout -q -b users && git add . && git commit -q -m users", env)
    local workflow = assert(fs.read(dir .. "/.github/workflows/migrations.yml"))
    local count = 0
    for command in workflow:gmatch("run: (moonbird [^\n]+)") do
      sh(command, env)
      count = count + 1
    end
    assert.are.equal(4, count)
    assert.is_true(json.decode(assert(fs.read(dir .. "/.artifacts/ci.json"))).ok)
  end))
end)
