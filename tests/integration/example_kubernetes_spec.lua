--- examples/kubernetes: its Jobs are read, and the very command lines of their pods run, as many at once as they say.
-- The same on every server.
local fleets = require "tests.crash.fleets"
local fs = require "moonbird.core.fs"
local helper = require "tests.helper"
local async = helper.async

local DIR = assert(fs.realpath("examples/kubernetes"))

-- As much of YAML as the files use, strictly: mappings, sequences, plain and quoted scalars, ["a", "b"]. Anything
-- else is an error, not a guess.
local function scalar(text, where)
  local quoted = text:match('^"([^"\\]*)"$')
  if quoted then
    return quoted
  end
  local list = text:match("^%[(.*)%]$")
  if list then
    local items = {}
    for item in (list .. ","):gmatch("%s*([^,]*),") do
      items[#items + 1] = scalar(item, where)
    end
    return items
  end
  assert(text:find("^[%w/]") and not text:find(": ") and not text:find(" #") and not text:find("[{}%[%]&*!|>'\"]"),
    where .. ": not a plain scalar: " .. text)
  assert(not text:find("^[yYnN]$") and not text:find("^0%d"), where .. ": YAML may read this otherwise: " .. text)
  return math.tointeger(tonumber(text)) or text
end

local function read_lines(text)
  local lines, number = {}, 0
  for line in text:gmatch("([^\n]*)\n") do
    number = number + 1
    assert(not line:find("\t"), number .. ": a tab")
    assert(not line:find(" $"), number .. ": a space at the end")
    local indent, rest = line:match("^( *)(.*)$")
    if rest ~= "" and rest:sub(1, 1) ~= "#" then
      lines[#lines + 1] = { indent = #indent, text = rest, where = "line " .. number }
    end
  end
  return lines
end

local function parse(lines, at, indent)
  local result, kind = {}, nil
  while lines[at] and lines[at].indent >= indent do
    local line = lines[at]
    assert(line.indent == indent, line.where .. ": the indentation")
    local item = line.text:match("^%- (.*)$")
    kind = kind or (item and "sequence" or "mapping")
    assert((item ~= nil) == (kind == "sequence"), line.where .. ": neither a mapping nor a sequence")
    if item then
      if item:match("^[%w_.-]+:") then -- a mapping that begins in the line of its dash
        line.indent, line.text = indent + 2, item
        result[#result + 1], at = parse(lines, at, indent + 2)
      else
        result[#result + 1], at = scalar(item, line.where), at + 1
      end
    else
      local key, value = line.text:match("^([%w_.-]+):%s?(.*)$")
      assert(key, line.where .. ": not a key")
      assert(result[key] == nil, line.where .. ": twice: " .. key)
      if value ~= "" then
        result[key], at = scalar(value, line.where), at + 1
      else
        assert(lines[at + 1] and lines[at + 1].indent > indent, line.where .. ": nothing in it")
        result[key], at = parse(lines, at + 1, lines[at + 1].indent)
      end
    end
  end
  return result, at
end

local function read_yaml(path)
  local lines = read_lines(assert(fs.read(path)))
  local document, at = parse(lines, 1, 0)
  assert(not lines[at], path .. ": more than was read")
  return document
end

--- What must be true of a pod, so that the command line run here is what Kubernetes would run.
local function container_of(job)
  assert.are.equal("batch/v1", job.apiVersion)
  assert.are.equal("Job", job.kind)
  assert.matches("^[a-z][a-z0-9-]*$", job.metadata.name)
  local pod = job.spec.template.spec
  assert.are.equal("Never", pod.restartPolicy) -- podFailurePolicy allows no other
  assert.are.equal(1, #pod.containers)
  local container = pod.containers[1]
  assert.are.same({ "moonbird" }, container.command)
  assert.are.equal("DATABASE_URL", container.env[1].name)
  for _, rule in ipairs(job.spec.podFailurePolicy.rules) do
    if rule.onExitCodes then
      assert.are.equal(container.name, rule.onExitCodes.containerName)
    end
  end
  return container
end

--- Runs the pods of a job at once.
local function run_pods(job, db, dir)
  local container = container_of(job)
  local children = {}
  for i = 1, job.spec.parallelism do
    local args = {}
    for n, arg in ipairs(container.args) do
      args[n] = arg:gsub("%$%(([%w_]+)%)", { JOB_COMPLETION_INDEX = tostring(i - 1) })
      assert(not args[n]:find("$(", 1, true), "not a variable of the pod: " .. args[n])
    end
    children[i] = helper.spawn(args, { cwd = dir, env = { DATABASE_URL = db.url } })
  end
  local results = {}
  for i, child in ipairs(children) do
    results[i] = assert(child:wait(60000), "a pod did not end")
  end
  return results
end

local function all_zero(results)
  for i, result in ipairs(results) do
    assert(result.status == 0, ("pod %d: exit %s\n%s%s"):format(i, result.status, result.stdout, result.stderr))
  end
end

describe("examples/kubernetes", function()
  local dir, db

  before_each(async(function()
    dir = helper.tmpdir()
    for _, path in ipairs { "moonbird.lua", "migrations/20250401090000_invoices.sql",
      "migrations/20250408101500_invoices_paid_at.sql" } do
      helper.write(dir, { [path] = assert(fs.read(DIR .. "/" .. path)) })
    end
    db = helper.database()
    for i = 1, 60 do
      db:exec(("create schema tenant_%02d"):format(i))
    end
  end))

  local function everywhere_once()
    assert.are.equal(60, db:value "select count(*) from information_schema.columns where column_name = 'paid_at'")
    assert.are.equal(120, db:value [[select count(*) from moonbird.journal
      where event = 'apply' and target like 'tenant%']])
    assert.are.equal(120, db:value [[select count(distinct (target, version)) from moonbird.journal
      where event = 'apply' and target like 'tenant%']])
  end

  it("job.yaml: the pods share the tenants of a run", async(function()
    local job = read_yaml(DIR .. "/job.yaml")
    assert.is_nil(job.spec.completions)
    assert.are.equal(4, job.spec.parallelism)
    fleets.hold_until_shared(db, 3, 4)
    local results, made = run_pods(job, db, dir), 0
    all_zero(results)
    for _, result in ipairs(results) do
      local word = result.stdout:match("^(%a+) the run release%-42 ")
      assert(word == "made" or word == "joined" or word == "found", result.stdout)
      made = made + (word == "made" and 1 or 0)
    end
    assert.are.equal(1, made)
    everywhere_once()
    assert.are.same({ { name = "release-42", status = "done" } }, db:query "select name, status from moonbird.run")
    assert.are.same({ 1, 6, 53 }, db:values "select count(*) from moonbird.run_item group by wave order by wave")
    assert.are.equal(4, db:value "select count(distinct owner) from moonbird.run_item")
    all_zero(run_pods(job, db, dir)) -- pods that come late
    everywhere_once()
  end))

  it("job.yaml: failed tenants fail the job with a status that its policy knows", async(function()
    local job = read_yaml(DIR .. "/job.yaml")
    for i = 1, 60 do
      db:exec(("create table tenant_%02d.invoices (n int)"):format(i))
    end
    local final = {}
    for _, rule in ipairs(job.spec.podFailurePolicy.rules) do
      if rule.action == "FailJob" then
        for _, status in ipairs(rule.onExitCodes.values) do
          final[status] = true
        end
      end
    end
    for _, result in ipairs(run_pods(job, db, dir)) do
      assert(final[result.status], ("exit %s\n%s"):format(result.status, result.stderr))
    end
    assert.are.equal("halted", db:value "select status from moonbird.run")
    assert(db:value "select count(*) from moonbird.run_item where state = 'failed'" <= 3 + 32)
  end))

  it("indexed-job.yaml: each pod has its shard, and no run is made", async(function()
    local job = read_yaml(DIR .. "/indexed-job.yaml")
    assert.are.equal("Indexed", job.spec.completionMode)
    assert.are.equal(job.spec.completions, job.spec.parallelism)
    local shard = container_of(job).args[3]
    assert.are.equal("$(JOB_COMPLETION_INDEX)/" .. job.spec.completions, shard)
    all_zero(run_pods(job, db, dir))
    everywhere_once()
    assert.are.equal(0, db:value "select count(*) from moonbird.run")
  end))

  it("the README says what is there", async(function()
    local text = assert(fs.read(DIR .. "/README.md"))
    local job = read_yaml(DIR .. "/job.yaml")
    for name in text:gmatch("job/([%w-]+)") do
      assert.are.equal(job.metadata.name, name)
    end
    for file in text:gmatch("`([%w-]+%.yaml)`") do
      assert(fs.stat(DIR .. "/" .. file), file)
    end
  end))
end)
