-- examples/ci: the very commands of its workflow, run in a scratch repository as the CI system would.
-- The same on every server.
local examples = require "tests.examples"
local fs = require "moonbird.core.fs"
local helper = require "tests.helper"
local json = require "moonbird.core.json"
local process = require "moonbird.core.process"
local repository = require "tests.git"
local sys = require "moonbird.core.sys"
local async = helper.async

local WORKFLOW = ".github/workflows/migrations.yml"

--- As much of YAML as the workflow uses: each job's steps with name, run and env.
local function read_workflow(text)
  local jobs, job, step, block, in_jobs
  for line in (text .. "\n"):gmatch("([^\n]*)\n") do
    local indent, rest = line:match("^( *)(.*)$")
    if block and (rest == "" or #indent > block.indent) then
      block.own = block.own or #indent
      table.insert(block.lines, rest == "" and "" or line:sub(block.own + 1))
    else
      block = nil
      in_jobs = in_jobs or line == "jobs:"
      local name = in_jobs and line:match("^  ([%w_-]+):$")
      if name then
        jobs = jobs or {}
        job = { steps = {} }
        jobs[name] = job
      end
      local first = job and rest:match("^%- (.*)$")
      if first and #indent == 6 then
        step = { env = {} }
        table.insert(job.steps, step)
        rest, indent = first, indent .. "  "
      end
      local key, value = rest:match("^([%w_-]+): ?(.*)$")
      if step and key and #indent == 8 then
        if key == "run" and value == "|" then
          block = { indent = #indent, lines = {} }
          step.run = block
        elseif key ~= "env" then
          step[key] = value
        end
      elseif step and key and #indent == 10 and key:match("^%u") then
        step.env[key] = value:match('^"(.*)"$') or value
      end
    end
  end
  for _, one in pairs(jobs) do
    for _, item in ipairs(one.steps) do
      item.run = type(item.run) == "table" and table.concat(item.run.lines, "\n") or item.run
    end
  end
  return jobs
end

--- The steps of a job that are ours: the others get the machine ready.
local function moonbird_steps(job)
  local list = {}
  for _, step in ipairs(job.steps) do
    list[#list + 1] = step.run and step.run:match("^moonbird ") and step or nil
  end
  return list
end

describe("examples/ci", function()
  local dir, origin, jobs

  local function run(file, args, options)
    options = options or {}
    local env = { GIT_CONFIG_GLOBAL = "/dev/null", GIT_CONFIG_NOSYSTEM = "1", DATABASE_URL = false, CI = "true",
      GITHUB_STEP_SUMMARY = dir .. "/../summary.md", PATH = helper.bin():match("^(.*)/") .. ":" .. sys.getenv "PATH" }
    for name, value in pairs(options.env or {}) do
      env[name] = value
    end
    local child <close> = assert(process.spawn { file = file, args = args, cwd = options.cwd or dir, env = env })
    local result = assert(child:wait(90000), table.concat(args, " ") .. " did not end")
    local wanted = options.status or 0
    assert(result.status == wanted, ("%s: status %s, expected %d\n%s\n%s"):format(table.concat(args, " "), result.status,
      wanted, result.stdout, result.stderr))
    return result
  end

  local function git(...)
    return repository.run(dir, ...)
  end

  --- Runs a step as the CI system does: its text by bash, which ends at the first command that fails.
  local function run_step(step, status, secrets)
    local env = { GITHUB_BASE_REF = "main", GITHUB_SHA = git("rev-parse", "HEAD"), GITHUB_ACTIONS = "true" }
    for name, value in pairs(step.env) do
      env[name] = value:gsub("%${{ secrets%.([%w_]+) }}", secrets or {})
    end
    return run("bash", { "--noprofile", "--norc", "-eo", "pipefail", "-c", step.run }, { env = env, status = status })
  end

  before_each(async(function()
    dir, origin = examples.copy "ci", helper.tmpdir() .. "/origin.git"
    jobs = read_workflow(assert(fs.read(dir .. "/" .. WORKFLOW)))
    git("init", "-q", "-b", "main")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    git("clone", "-q", "--bare", ".", origin)
    git("remote", "add", "origin", origin)
    git("fetch", "-q", "origin")
  end))

  --- A branch with one more migration, as somebody would make it.
  local function branch(text)
    git("checkout", "-q", "-b", "topic")
    helper.write(dir, { ["migrations/20250401120000_book_author.sql"] = text })
    run(helper.bin(), { "check", "--update" }, { status = text:find "shelf" and 6 or 0 })
    git("add", ".")
    git("commit", "-q", "-m", "author")
  end

  local AUTHOR = [[
-- description: Who wrote a book, filled by the catalogue's next import.
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up
alter table book add column author text;

-- migrate:down
alter table book drop column author;
]]

  it("has a workflow whose steps are the ones that its README tells of", function()
    local commands = {}
    for _, name in ipairs { "prove", "deploy" } do
      for _, step in ipairs(moonbird_steps(jobs[name])) do
        commands[#commands + 1] = step.run:match("^moonbird (%a+)")
      end
    end
    assert.are.same({ "policy", "check", "ci", "deploy" }, commands)
    local readme = assert(fs.read("examples/ci/README.md"))
    for _, command in ipairs(commands) do
      assert.is_truthy(readme:find("\n    moonbird " .. command, 1, true), command)
    end
  end)

  it("proves a pull request", async(function()
    branch(AUTHOR)
    local said = {}
    for i, step in ipairs(moonbird_steps(jobs.prove)) do
      said[i] = run_step(step).stdout
    end
    assert.is_truthy(said[1]:find("6 passed, 0 failed", 1, true))
    assert.is_truthy(said[3]:find("ci: 3 migrations checked, applied, taken back and applied again in ", 1, true), said[3])
    local sarif = json.decode(assert(fs.read(dir .. "/.artifacts/check.sarif")))
    assert.are.equal("2.1.0", sarif.version)
    assert.is_truthy(fs.read(dir .. "/.artifacts/ci.xml"):find("<testsuites", 1, true))
    assert.is_true(json.decode(assert(fs.read(dir .. "/.artifacts/ci.json"))).ok)
    assert.are.equal("", git("status", "--porcelain"))
  end))

  it("stops a pull request that changes what is merged, or breaks the project's own rule", async(function()
    branch(AUTHOR:gsub("alter table book add column author text;", "create table shelf (id bigint primary key);")
      :gsub("alter table book drop column author;", "drop table shelf;"))
    helper.write(dir, { ["migrations/20250303091500_books.sql"] =
      fs.read(dir .. "/migrations/20250303091500_books.sql"):gsub("text not null unique", "text not null") })
    local steps = moonbird_steps(jobs.prove)
    run_step(steps[1])
    local said = run_step(steps[2], 6).stdout
    assert.is_truthy(said:find("table-comment", 1, true), said)
    assert.is_truthy(said:find("merged-unchanged", 1, true), said)
    assert.is_truthy(said:find("::error", 1, true), said)
    run_step(steps[3], 6)
  end))

  it("stops a pull request whose down does not work", async(function()
    branch((AUTHOR:gsub("drop column author", "drop column writer")))
    local said = run_step(moonbird_steps(jobs.prove)[3], 1).stdout
    assert.is_truthy(said:find("20250401120000_book_author: its down failed", 1, true), said)
  end))

  it("deploys after the merge, and only there", async(function()
    local db = helper.database()
    local secrets = { PRODUCTION_DATABASE_URL = db.url }
    local step = moonbird_steps(jobs.deploy)[1]
    run_step(step, 0, secrets)
    local sha = git("rev-parse", "HEAD")
    local artifact = json.decode(assert(fs.read(dir .. "/.artifacts/deploy/" .. sha .. "/migration.json")))
    assert.is_true(artifact.ok)
    assert.are.equal("production", artifact.environment.name)
    assert.are.equal(3, db:value "select count(*) from pg_inherits where inhparent = 'loan'::regclass")
    run_step(step, 0, secrets)
    -- By hand nothing goes there.
    local refused = run(helper.bin(), { "-e", "production", "up" },
      { env = { CI = false, PRODUCTION_DATABASE_URL = db.url }, status = 6 })
    assert.is_truthy(refused.stderr:find("protected", 1, true))
  end))
end)
