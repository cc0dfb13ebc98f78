--- Both releases work at every step of the rename. Copy this and put your own migrations and writers in:
--
--   busted --lua=$(which moonbird-lua) spec
--
-- from the project's folder. It runs on a private PostgreSQL of its own, or on the empty database that
-- TEST_DATABASE_URL names.
local URL = os.getenv("TEST_DATABASE_URL")

local function quoted(word)
  return "'" .. tostring(word):gsub("'", "'\\''") .. "'"
end

--- Runs a command of moonbird on the test's database; returns whether it worked, and all it said.
local function try(url, ...)
  local words = { "moonbird", "-u", quoted(url) }
  for _, word in ipairs { ... } do
    words[#words + 1] = quoted(word)
  end
  local pipe = assert(io.popen(table.concat(words, " ") .. " 2>&1"))
  local said = pipe:read("a")
  return pipe:close() == true, said
end

describe("the rename of users.fullname", function()
  local url, folder

  local function moonbird(...)
    local ok, said = try(url, ...)
    assert(ok, said)
    return said
  end

  local function old(...)
    return moonbird("-q", "run", "app/old_release.lua", ...)
  end

  local function new(...)
    return moonbird("-q", "run", "app/new_release.lua", ...)
  end

  setup(function()
    if not URL then
      local pipe = assert(io.popen("mktemp -d"))
      folder = pipe:read("l")
      pipe:close()
    end
    url = URL or "embedded:" .. folder .. "/pg"
  end)

  teardown(function()
    if folder then
      try(url, "cluster", "stop")
      os.execute("rm -rf " .. quoted(folder))
    end
  end)

  it("loses no name, whichever release writes", function()
    if folder then
      moonbird("cluster", "start")
    end
    moonbird("up", "--to", "20250106090000")
    old("ada@example.org", "Ada Byron")
    old("alan@example.org", "Alan Turing")

    -- Release 1 is being rolled out: the old one still runs, and what one writes the other reads.
    moonbird("up", "--to", "20250203090000")
    old("ada@example.org", "Ada Lovelace")
    assert.matches("ada@example.org\tAda Lovelace\n", new(), 1, true)
    new("grace@example.org", "Grace Hopper")
    assert.matches("grace@example.org\tGrace Hopper\n", old(), 1, true)
    assert.matches("alan@example.org\t?\n", new(), 1, true) -- nobody wrote it since

    -- Release 2 copies the rest, and holds back what the old release would not survive.
    local said = moonbird("up")
    assert.matches("held back 20250324090000_drop_fullname", said, 1, true)
    assert.equal(old(), new())
    old("alan@example.org", "Alan Mathison Turing")
    assert.equal(old(), new())

    -- Release 3: no old release runs any more.
    moonbird("up", "--allow-contract", "--allow-breaking")
    local names = new()
    assert.matches("alan@example.org\tAlan Mathison Turing\n", names, 1, true)
    assert.is_false((try(url, "run", "app/old_release.lua")))

    -- And if it came too early after all: the old release has its column back, with every name.
    moonbird("down")
    assert.equal(names, old())
    new("ada@example.org", "Ada King")
    assert.matches("ada@example.org\tAda King\n", old(), 1, true)
  end)
end)
