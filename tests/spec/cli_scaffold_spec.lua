-- `moonbird init`, `moonbird new` and the completion scripts.
local completion = require "moonbird.cli.completion"
local config = require "moonbird.config.config"
local fs = require "moonbird.core.fs"
local registry = require "moonbird.migration.registry"
local scaffold = require "moonbird.cli.scaffold"

describe("cli.scaffold", function()
  local dir

  before_each(function()
    dir = assert(fs.tempdir("moonbird-scaffold-"))
  end)

  after_each(function()
    fs.remove_tree(dir)
  end)

  local function new(options)
    options.dir = dir
    return scaffold.new(options)
  end

  it("sets up a project that loads", function()
    local result = assert(scaffold.init(dir .. "/project"))
    local project = dir .. "/project"
    assert.are.same({
      project .. "/migrations/", project .. "/moonbird.lua", project .. "/.env.example",
      project .. "/.github/workflows/migrations.yml", project .. "/.gitignore",
    }, result.created)
    assert.are.same({}, result.kept)
    local c = assert(config.load { dir = project })
    assert.are.same({ "migrations" }, c.migrations)
    assert.are.same({}, (registry.scan(c.migrations, { root = project })))
  end)

  it("never overwrites", function()
    assert(fs.write(dir .. "/moonbird.lua", "return { migrations = 'm' }"))
    assert(fs.write(dir .. "/.gitignore", "/build/\n"))
    local result = assert(scaffold.init(dir))
    assert.are.same({ dir .. "/moonbird.lua", dir .. "/.gitignore" }, result.kept)
    assert.are.equal("return { migrations = 'm' }", fs.read(dir .. "/moonbird.lua"))
    assert.are.same({ "see that " .. dir .. "/.gitignore has .moonbird/ and .env" }, result.notes)
    local again = assert(scaffold.init(dir))
    assert.are.same({}, again.created)
    assert.are.equal(5, #again.kept)
  end)

  it("uncommented, every line of the configuration is valid", function()
    assert(scaffold.init(dir))
    local text = fs.read(dir .. "/moonbird.lua")
    local open = text:gsub("\n(%s*)%-%- ([%w_]+%s*= )", "\n%1%2")
      :gsub('env%("([%w_]+)"%)', 'env("%1", "embedded:")')
    assert.is_truthy(open:find("\n  search_path", 1, true))
    assert(fs.write(dir .. "/moonbird.lua", open))
    local c = assert(config.load { dir = dir })
    assert.are.equal("development", c.environment)
    assert.are.equal(1800000, c.timeouts.run)
  end)

  it("says why a folder can't be made", function()
    assert(fs.write(dir .. "/file", ""))
    local result, err = scaffold.init(dir .. "/file")
    assert.is_nil(result)
    assert.are.equal("io", err.code)
  end)

  it("writes migrations that are valid as they stand", function()
    local lua = assert(new { name = "create users", now = 1736501400 })
    assert.are.same({ dir .. "/migrations/20250110093000_create_users.lua" }, lua.created)
    assert.are.same({ 'the name is written "create_users"' }, lua.notes)
    assert.are.same({ "20250110093000", "create_users" }, { lua.version, lua.name })
    local sql = assert(new { name = "add_index", sql = true, now = 1736501400 })
    assert.are.equal("20250110093001", sql.version)
    assert.are.same(
      { "the highest version in the folder is 20250110093000, so this is 20250110093001" }, sql.notes)
    local entries, problems = registry.scan({ "migrations" }, { root = dir })
    assert.are.same({}, problems)
    local migrations = assert(registry.load_all(entries))
    assert.are.equal("Create users", migrations[1].description)
    assert.are.equal("Add index", migrations[2].description)
    assert.are.equal("function", migrations[1].down.kind)
  end)

  it("numbers in sequence, as wide as the folder", function()
    assert.are.equal("001", assert(new { name = "a", sequential = true }).version)
    assert.are.equal("002", assert(new { name = "b", sequential = true }).version)
    assert(fs.write(dir .. "/migrations/00099_c.sql", ""))
    assert.are.equal("00100", assert(new { name = "d", sequential = true }).version)
    assert(fs.write(dir .. "/migrations/999_e-odd name.sql", ""))
    assert.are.equal("1000", assert(new { name = "f", sequential = true }).version)
    assert(fs.write(dir .. "/migrations/README.md", ""))
    assert(fs.write(dir .. "/migrations/5000_notes.md", ""))
    assert.are.equal("1001", assert(new { name = "g", sequential = true }).version)
  end)

  it("looks at all folders and writes to the first", function()
    assert(fs.mkdir(dir .. "/b"))
    assert(fs.write(dir .. "/b/007_x.sql", ""))
    local result = assert(new { name = "y", sequential = true, dirs = { "a", "b" } })
    assert.are.same({ dir .. "/a/008_y.lua" }, result.created)
  end)

  it("normalises a name and says so", function()
    local result = assert(new { name = "AddUsersEMail.sql", sql = true, now = 0 })
    assert.are.equal("add_users_e_mail", result.name)
    assert.are.equal(1, #result.notes)
    local none, err = new { name = "***" }
    assert.is_nil(none)
    assert.are.equal("usage", err.code)
    none, err = new { name = ("x"):rep(300) }
    assert.is_nil(none)
    assert.are.equal("usage", err.code)
  end)

  it("knows when the versions are used up", function()
    assert(fs.mkdir(dir .. "/migrations"))
    assert(fs.write(dir .. "/migrations/999999999999999999_x.sql", ""))
    local none, err = new { name = "y" }
    assert.is_nil(none)
    assert.are.equal("migration_file", err.code)
  end)
end)

describe("cli.completion", function()
  local spec = {
    name = "moonbird",
    options = {
      { long = "env", short = "e", arg = "ENV", help = "the environment's name" },
      { long = "--color", arg = "WHEN", choices = { "auto", "always", "never" }, help = "colour [when]" },
      { short = "-C", arg = "DIR", help = "project folder" },
      { long = "--json", help = "as JSON" },
    },
    commands = {
      { name = "up", help = "apply", options = { { long = "--to", arg = "VERSION" }, { long = "--dry-run" } } },
      { name = "run", help = "run a script: yours", args = { "SCRIPT.lua", "ARGS" } },
      { name = "help", args = { { name = "COMMAND" } } },
      { name = "cluster", help = "the embedded server", choices = { "start", "stop" } },
    },
  }

  -- What bash offers for a command line.
  local function offered(line)
    local dir = assert(fs.tempdir("moonbird-completion-"))
    assert(fs.write(dir .. "/c.bash", completion.script("bash", spec)))
    assert(fs.write(dir .. "/t.bash", ([=[
      source %s/c.bash
      COMP_WORDS=(%s)
      [[ '%s' == *' ' ]] && COMP_WORDS+=('')
      COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
      _moonbird
      printf '%%s\n' "${COMPREPLY[@]}" | sort
    ]=]):format(dir, line, line)))
    local pipe = assert(io.popen("LC_ALL=C bash " .. dir .. "/t.bash 2>&1"))
    local words = pipe:read("a"):gsub("%s+", " ")
    pipe:close()
    fs.remove_tree(dir)
    return (words:gsub(" $", ""))
  end

  it("completes in bash", function()
    assert.are.equal("up", offered "moonbird u")
    assert.are.equal("--color --env --json -C -e cluster help run up", offered "moonbird ")
    assert.are.equal("--dry-run --to", offered "moonbird up --")
    assert.are.equal("always auto", offered "moonbird --color a")
    assert.are.equal("start stop", offered "moonbird -e up cluster ")
    assert.are.equal("", offered "moonbird up --to ")
    assert.are.equal("cluster help run up", offered "moonbird help ")
  end)

  it("makes scripts for zsh and fish", function()
    local zsh = completion.script("zsh", spec)
    assert.is_truthy(zsh:find("#compdef moonbird", 1, true))
    assert.is_truthy(zsh:find("'(--env -e)--env[the environment'\\''s name]:ENV:'", 1, true))
    assert.is_truthy(zsh:find("'--color[colour \\[when\\]]:WHEN:(auto always never)'", 1, true))
    assert.is_truthy(zsh:find("'run:run a script\\: yours'", 1, true))
    local fish = completion.script("fish", spec)
    assert.is_truthy(fish:find("complete -c moonbird -s e -l env -x -d 'the environment'\\''s name'", 1, true))
    assert.is_truthy(fish:find("-n '__fish_seen_subcommand_from cluster' -a 'start stop'", 1, true))
    assert.is_truthy(fish:find("-n '__fish_seen_subcommand_from run' -F", 1, true))
  end)

  it("knows three shells", function()
    local script, err = completion.script("bsh", spec)
    assert.is_nil(script)
    assert.are.equal("usage", err.code)
    assert.are.equal('did you mean "bash"?', err.hint)
  end)
end)
