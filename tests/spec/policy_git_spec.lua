-- What git knows of the migrations, from real repositories.
local fs = require "moonbird.core.fs"
local git = require "moonbird.policy.git"
local helper = require "tests.helper"
local process = require "moonbird.core.process"
local sys = require "moonbird.core.sys"

local async = helper.async
local run = require("tests.git").run

local function commit(dir, message)
  run(dir, "add", "-A")
  run(dir, "commit", "-q", "--allow-empty", "-m", message)
end

--- A repository with two migrations on main, and a branch "feature" checked out.
local function repository()
  local dir = helper.tmpdir()
  run(dir, "init", "-q")
  helper.write(dir, { ["migrations/001_a.sql"] = "select 'a', 'a file long enough to be known again when it moves';\n",
    ["migrations/002_b.lua"] = "return { up = 'select 2' }\n", ["migrations/checksums.json"] = "{}\n",
    ["migrations/lib/x.lua"] = "return {}\n", ["README.md"] = "readme\n" })
  commit(dir, "first")
  run(dir, "switch", "-q", "-c", "feature")
  return dir
end

local function read(dir, more)
  local options = { dir = dir, folders = { "migrations" }, base = "main" }
  for key, value in pairs(more or {}) do
    options[key] = value
  end
  return git.read(options)
end

local function fails(pattern, code, facts, err)
  assert.is_nil(facts)
  assert.equal(code, err.code)
  assert.is_truthy(err.message:find(pattern), err.message)
  return err
end

describe("policy.git.read", function()
  it("sees nothing where nothing changed", async(function()
    local dir = repository()
    local facts = assert(read(dir))
    assert.equal("main", facts.base)
    assert.equal(run(dir, "rev-parse", "main"), facts.merge_base)
    assert.same({}, facts.changes)
    assert.same({ ["migrations/001_a.sql"] = true, ["migrations/002_b.lua"] = true }, facts.merged)
    assert.is_true(facts.ledger_in_base)
    assert.same({ { version = 1, version_text = "001", file = "migrations/001_a.sql", name = "a" },
      { version = 2, version_text = "002", file = "migrations/002_b.lua", name = "b" } }, facts.base_versions)
  end))

  it("sees what changed: committed, staged, and not told to git", async(function()
    local dir = repository()
    helper.write(dir, { ["migrations/003_c.sql"] = "committed\n" })
    commit(dir, "third")
    helper.write(dir, { ["migrations/004_d.sql"] = "staged\n", ["migrations/002_b.lua"] = "edited\n" })
    run(dir, "add", "migrations/004_d.sql")
    helper.write(dir, { ["migrations/005_e.sql"] = "untracked\n", ["migrations/notes.md"] = "no migration\n",
      ["migrations/.gitignore"] = "006*\n", ["migrations/006_f.sql"] = "ignored by git, not by moonbird\n",
      ["migrations/lib/y.lua"] = "no migration\n" })
    assert(fs.remove(dir .. "/migrations/checksums.json"))
    assert.same({ { status = "modified", file = "migrations/002_b.lua" }, { status = "added", file = "migrations/003_c.sql" },
      { status = "added", file = "migrations/004_d.sql" }, { status = "added", file = "migrations/005_e.sql" },
      { status = "added", file = "migrations/006_f.sql" }, { status = "deleted", file = "migrations/checksums.json" } },
      assert(read(dir)).changes)
  end))

  it("sees a rename, told to git or not, and a move out of the folder", async(function()
    local dir = repository()
    run(dir, "mv", "migrations/001_a.sql", "migrations/007_a.sql")
    assert(fs.rename(dir .. "/migrations/002_b.lua", dir .. "/migrations/008_b.lua"))
    assert.same({ { status = "renamed", file = "migrations/007_a.sql", from = "migrations/001_a.sql" },
      { status = "renamed", file = "migrations/008_b.lua", from = "migrations/002_b.lua" } }, assert(read(dir)).changes)
    assert(fs.mkdir(dir .. "/migrations/old"))
    run(dir, "mv", "migrations/007_a.sql", "migrations/old/001_a.sql")
    local changes = assert(read(dir)).changes
    assert.same({ status = "renamed", file = "migrations/old/001_a.sql", from = "migrations/001_a.sql" }, changes[2])
  end))

  it("sees a rename that changed the text", async(function()
    local dir = repository()
    run(dir, "mv", "migrations/001_a.sql", "migrations/007_a.sql")
    helper.write(dir, { ["migrations/007_a.sql"] =
      "select 'a', 'a file long enough to be known again when it moves';\n-- one line more\n" })
    assert.same({ { status = "renamed", file = "migrations/007_a.sql", from = "migrations/001_a.sql" } },
      assert(read(dir)).changes)
  end))

  it("compares with the merge base, and tells the versions of the tip", async(function()
    local dir = repository()
    run(dir, "switch", "-q", "main")
    helper.write(dir, { ["migrations/003_c.sql"] = "by others\n", ["migrations/001_a.sql"] = "edited by others\n" })
    commit(dir, "others")
    run(dir, "switch", "-q", "feature")
    local facts = assert(read(dir))
    assert.same({}, facts.changes)
    assert.is_nil(facts.merged["migrations/003_c.sql"])
    assert.equal("migrations/003_c.sql", facts.base_versions[3].file)
    assert.equal(run(dir, "rev-parse", "main^"), facts.merge_base)
  end))

  it("knows a project below the top folder, several folders, and odd names", async(function()
    local dir = helper.tmpdir()
    run(dir, "init", "-q")
    helper.write(dir, { ["app/db/001_a.sql"] = "a\n", ["app/more *?[/002_b.sql"] = "b\n", ["db/003_c.sql"] = "c\n",
      ["app/db2/004_d.sql"] = "d\n", [":!odd/001_a.sql"] = "a\n" })
    commit(dir, "first")
    helper.write(dir, { ["app/db/001_a.sql"] = "aa\n", ["app/more *?[/002_b.sql"] = "bb\n", ["db/003_c.sql"] = "cc\n",
      ["app/db/005_e\nf.sql"] = "e\n", ["app/db2/004_d.sql"] = "dd\n" })
    local facts = assert(git.read { dir = dir .. "/app", folders = { "./db", "more *?[", "../db" }, base = "HEAD" })
    assert.same({ { status = "modified", file = "../db/003_c.sql" }, { status = "modified", file = "db/001_a.sql" },
      { status = "added", file = "db/005_e\nf.sql" }, { status = "modified", file = "more *?[/002_b.sql" } }, facts.changes)
    assert.same({ ["db/001_a.sql"] = true, ["more *?[/002_b.sql"] = true, ["../db/003_c.sql"] = true }, facts.merged)
    facts = assert(git.read { dir = dir .. "/db", folders = { "." }, base = "HEAD" })
    assert.same({ { status = "modified", file = "003_c.sql" } }, facts.changes)
    helper.write(dir, { [":!odd/001_a.sql"] = "aa\n" })
    facts = assert(git.read { dir = dir, folders = { ":!odd" }, base = "HEAD" })
    assert.same({ { status = "modified", file = ":!odd/001_a.sql" } }, facts.changes)
    facts = assert(git.read { dir = dir, folders = { dir .. "/db" }, base = "HEAD" })
    assert.same({ { status = "modified", file = dir .. "/db/003_c.sql" } }, facts.changes)
  end))

  it("is not misled by a link in the folder's place", async(function()
    local dir = repository()
    assert(fs.rename(dir .. "/migrations", dir .. "/others"))
    helper.write(dir, { ["others/001_a.sql"] = "edited\n" })
    assert(process.run { file = "ln", args = { "-s", "others", dir .. "/migrations" } })
    local seen = {}
    for _, change in ipairs(assert(read(dir)).changes) do
      seen[(change.from or change.file) .. " " .. change.status] = true
    end
    assert.is_true(seen["migrations/001_a.sql deleted"])
  end))

  it("sees a file that became a link", async(function()
    local dir = repository()
    assert(fs.remove(dir .. "/migrations/001_a.sql"))
    assert(process.run { file = "ln", args = { "-s", "../README.md", dir .. "/migrations/001_a.sql" } })
    assert.same({ { status = "modified", file = "migrations/001_a.sql" } }, assert(read(dir)).changes)
  end))

  it("reads more than a process's output holds", async(function()
    local dir = helper.tmpdir()
    run(dir, "init", "-q")
    local lines = { "blob\nmark :1\ndata 2\nx\n\ncommit refs/heads/main\ncommitter A <a@b.c> 1 +0000\ndata 1\nm\n" }
    local tail = ("long_"):rep(30)
    for i = 1, 9000 do
      lines[#lines + 1] = ("M 100644 :1 migrations/%05d_%sx.sql\n"):format(i, tail)
    end
    local result = assert(process.run { file = "git", args = { "fast-import", "--quiet" }, cwd = dir,
      stdin = table.concat(lines) .. "\n" })
    assert.equal(0, result.status, result.stderr)
    local facts = assert(read(dir))
    assert.equal(9000, #facts.base_versions)
    assert.equal(9000, #facts.changes) -- no file is in the working tree
    assert.equal("deleted", facts.changes[1].status)
  end))

  it("runs nothing that the repository names", async(function()
    local dir = repository()
    local mark = dir .. "/ran"
    helper.write(dir, { ["evil.sh"] = "#!/bin/sh\ntouch " .. mark .. "\ncat\n",
      [".gitattributes"] = "*.sql diff=evil\n*.lua diff=evil\n" })
    assert(fs.chmod(dir .. "/evil.sh", 493))
    for _, key in ipairs { "core.fsmonitor", "diff.external", "diff.evil.command", "diff.evil.textconv", "core.pager" } do
      run(dir, "config", key, dir .. "/evil.sh")
    end
    run(dir, "config", "core.hooksPath", dir)
    assert(fs.rename(dir .. "/evil.sh", dir .. "/post-index-change"))
    assert(fs.write(dir .. "/evil.sh", fs.read(dir .. "/post-index-change")))
    assert(fs.chmod(dir .. "/evil.sh", 493))
    fs.remove(mark)
    helper.write(dir, { ["migrations/001_a.sql"] = "edited\n" })
    sys.setenv("GIT_EXTERNAL_DIFF", dir .. "/evil.sh")
    local facts = read(dir)
    sys.setenv("GIT_EXTERNAL_DIFF", nil)
    assert.equal("migrations/001_a.sql", assert(facts).changes[1].file)
    assert(git.head_files { dir = dir, folders = { "migrations" } })
    assert.is_nil(fs.stat(mark))
  end))

  it("takes no folder of the project for a repository", async(function()
    local dir = repository()
    run(dir, "clone", "-q", "--bare", dir, dir .. "/migrations/inner")
    for _, name in ipairs { "HEAD", "config", "objects", "refs" } do
      assert(fs.rename(dir .. "/migrations/inner/" .. name, dir .. "/migrations/" .. name))
    end
    run(dir .. "/migrations", "--git-dir", dir .. "/migrations", "config", "core.worktree", dir)
    fails("bare repository", "usage", git.read { dir = dir .. "/migrations", folders = { "." }, base = "main" })
    assert(read(dir))
  end))

  it("writes nothing", async(function()
    local dir = repository()
    assert(process.run { file = "touch", args = { "-d", "2001-01-01", dir .. "/migrations/001_a.sql" } })
    local before = fs.read(dir .. "/.git/index")
    assert.same({}, assert(read(dir)).changes)
    assert.equal(before, fs.read(dir .. "/.git/index"))
  end))

  it("goes by the folder, not by what a hook left in the environment", async(function()
    local dir, other = repository(), repository()
    helper.write(other, { ["migrations/001_a.sql"] = "another\n" })
    commit(other, "another")
    run(other, "branch", "-f", "main", "HEAD")
    helper.write(dir, { ["migrations/003_c.sql"] = "new\n" })
    sys.setenv("GIT_DIR", other .. "/.git")
    sys.setenv("GIT_INDEX_FILE", other .. "/.git/index")
    local facts = read(dir)
    sys.setenv("GIT_DIR", nil)
    sys.setenv("GIT_INDEX_FILE", nil)
    assert.same({ { status = "added", file = "migrations/003_c.sql" } }, assert(facts).changes)
  end))

  it("refuses a base that is none", async(function()
    local dir = repository()
    fails('"%-%-output=x" is no name', "usage", read(dir, { base = "--output=x" }))
    fails("is no name", "usage", read(dir, { base = "" }))
    fails("is no name", "usage", read(dir, { base = "main\n" }))
    fails('no branch or commit "nonesuch"', "usage", read(dir, { base = "nonesuch" }))
    fails('no branch or commit "main:README.md"', "usage", read(dir, { base = "main:README.md" }))
    assert(read(dir, { base = "main~0" }))
  end))

  it("refuses a name of two things, which a pull request's branch can make", async(function()
    local dir = repository()
    run(dir, "update-ref", "refs/remotes/origin/main", "main")
    helper.write(dir, { ["migrations/001_a.sql"] = "edited\n" })
    commit(dir, "edited")
    assert.equal(1, #assert(read(dir, { base = "origin/main" })).changes)
    run(dir, "branch", "origin/main")
    local err = fails('"origin/main" is the name of several things', "usage", read(dir, { base = "origin/main" }))
    assert.is_truthy(err.hint)
    local facts = assert(read(dir, { base = "refs/remotes/origin/main" }))
    assert.equal("origin/main", facts.base)
    assert.equal(1, #facts.changes)
  end))

  it("says what a shallow clone lacks", async(function()
    local dir = repository()
    helper.write(dir, { ["migrations/003_c.sql"] = "new\n" })
    commit(dir, "third")
    run(dir, "switch", "-q", "main")
    commit(dir, "by others")
    local clone = helper.tmpdir()
    run(clone, "clone", "-q", "--depth", "1", "--branch", "feature", "file://" .. dir, "c")
    local err = fails('no branch or commit "origin/main"', "usage", read(clone .. "/c", { base = "origin/main" }))
    assert.is_truthy(err.hint:find("fetch-depth: 0", 1, true))
    run(clone .. "/c", "fetch", "-q", "--depth", "1", "origin", "main:refs/remotes/origin/main")
    err = fails("the clone is shallow", "usage", read(clone .. "/c", { base = "origin/main" }))
    assert.is_truthy(err.hint:find("fetch-depth: 0", 1, true))
  end))

  it("says that histories have nothing in common, and that there is none", async(function()
    local dir = repository()
    run(dir, "switch", "-q", "--orphan", "elsewhere")
    local err = fails("", "usage", read(dir))
    assert.is_truthy(err.message:find("no commit to compare", 1, true), err.message)
    commit(dir, "alone")
    fails("no commit in common", "usage", read(dir))
  end))

  it("says that it is no repository, that git is missing, that git does not trust it", async(function()
    local plain = helper.tmpdir()
    assert(fs.mkdir(plain .. "/migrations"))
    assert.is_true(fails("is not in a git repository", "usage", read(plain)).none)
    local path = sys.getenv("PATH")
    sys.setenv("PATH", plain)
    local facts, err = read(plain)
    sys.setenv("PATH", path)
    err = fails("the program git is needed", "usage", facts, err)
    assert.is_true(err.no_git)
    fails("is not in the repository", "usage", read(repository(), { folders = { "/usr" } }))
    if sys.uid() == 0 then
      local dir = repository()
      assert(process.run { file = "chown", args = { "-R", "1:1", dir } })
      err = fails("does not trust", "usage", read(dir))
      assert.is_truthy(err.hint:find("safe.directory " .. dir, 1, true), err.hint)
    end
  end))
end)

describe("policy.git.default_base", function()
  it("is what origin/HEAD says, else main or master of the origin", async(function()
    local dir = repository()
    assert.equal("refs/heads/main", git.default_base { dir = dir })
    run(dir, "branch", "-m", "main", "master")
    assert.equal("refs/heads/master", git.default_base { dir = dir })
    run(dir, "update-ref", "refs/remotes/origin/topic", "master")
    assert.is_nil(git.default_base { dir = dir }) -- a branch called master may be anybody's
    run(dir, "update-ref", "refs/remotes/origin/master", "master")
    assert.equal("refs/remotes/origin/master", git.default_base { dir = dir })
    run(dir, "update-ref", "refs/remotes/origin/main", "master")
    assert.equal("refs/remotes/origin/main", git.default_base { dir = dir })
    run(dir, "update-ref", "refs/remotes/origin/trunk", "master")
    run(dir, "symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/trunk")
    assert.equal("refs/remotes/origin/trunk", git.default_base { dir = dir })
    run(dir, "symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/gone")
    assert.equal("refs/remotes/origin/main", git.default_base { dir = dir })
    assert.equal("origin/main", git.short("refs/remotes/origin/main"))
  end))

  it("is nil outside a repository", async(function()
    local base, err = git.default_base { dir = helper.tmpdir() }
    assert.is_nil(base)
    assert.is_nil(err)
  end))
end)

describe("policy.git.head_files", function()
  it("tells merged files from committed ones", async(function()
    local dir = repository()
    helper.write(dir, { ["migrations/003_c.sql"] = "committed\n" })
    commit(dir, "third")
    helper.write(dir, { ["migrations/004_d.sql"] = "staged\n", ["migrations/005_e.sql"] = "untracked\n" })
    run(dir, "add", "migrations/004_d.sql")
    run(dir, "switch", "-q", "main")
    helper.write(dir, { ["migrations/003_x.sql"] = "by others\n" })
    run(dir, "add", "migrations/003_x.sql")
    run(dir, "rm", "-q", "migrations/002_b.lua")
    run(dir, "commit", "-q", "-m", "others", "--", "migrations/003_x.sql", "migrations/002_b.lua")
    run(dir, "switch", "-q", "feature")
    local known = assert(git.head_files { dir = dir, folders = { "migrations" } })
    assert.equal("refs/heads/main", known.base)
    assert.same({ ["migrations/001_a.sql"] = "merged", ["migrations/002_b.lua"] = "merged",
      ["migrations/003_x.sql"] = "merged", ["migrations/003_c.sql"] = "committed",
      ["migrations/checksums.json"] = "merged" }, known.files)
    assert.same({ "001", "003" }, known.versions)
    assert.is_true(known.tracked["migrations/004_d.sql"])
    assert.is_nil(known.tracked["migrations/005_e.sql"])
  end))

  it("knows nothing to be merged without a base, and nothing before the first commit", async(function()
    local dir = repository()
    run(dir, "branch", "-m", "main", "trunk")
    local known = assert(git.head_files { dir = dir, folders = { "migrations" } })
    assert.is_nil(known.base)
    assert.equal("committed", known.files["migrations/001_a.sql"])
    local fresh = helper.tmpdir()
    run(fresh, "init", "-q")
    assert.same({}, assert(git.head_files { dir = fresh, folders = { "migrations" } }).files)
    local nothing, err = git.head_files { dir = helper.tmpdir(), folders = { "migrations" } }
    assert.is_nil(nothing)
    assert.is_nil(err)
  end))
end)
