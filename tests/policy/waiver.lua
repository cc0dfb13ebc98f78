--- Cases of the rule waiver.
local index = "create index users_created_at on users (created_at);"

local function allowed(words, body)
  return "-- moonbird:allow " .. words .. "\n" .. (body or index)
end

--- A Lua migration with waivers; what they excuse is one plain index.
local function in_lua(waivers)
  return "return {\n  waivers = {\n    " .. waivers .. ",\n  },\n"
    .. "  up = \"create index users_created_at on users (created_at)\",\n"
    .. "  down = \"drop index users_created_at\",\n}\n"
end

local GOOD = "index-concurrently until=2025-12-31 reason=\"users has 40 rows\""

return {
  rule = "waiver",
  flagged = {
    { name = "it has no reason", sql = allowed "index-concurrently until=2025-12-31", line = 6, severity = "error",
      message = "waiver of index%-concurrently can't be used: it has no reason" },
    { name = "its reason is empty", sql = allowed "index-concurrently until=2025-12-31 reason=\"  \"", line = 6,
      message = "it has no reason" },
    { name = "it has no end", sql = allowed "index-concurrently reason=\"users has 40 rows\"", line = 6,
      message = "it has no end" },
    { name = "its end is no day of the calendar", line = 6, message = "\"2025%-02%-30\" is no day",
      sql = allowed "index-concurrently until=2025-02-30 reason=\"users has 40 rows\"" },
    { name = "its end is no date", line = 6, message = "\"next%-year\" is no day",
      sql = allowed "index-concurrently until=next-year reason=\"users has 40 rows\"" },
    { name = "it names no rule", sql = allowed "until=2025-12-31 reason=\"users has 40 rows\"", line = 6,
      severity = "error" },
    { name = "a word of it is unknown", line = 6, message = "unknown word \"expiry\"",
      sql = allowed "index-concurrently expiry=2025-12-31 reason=\"users has 40 rows\"" },
    { name = "its quotes are not closed", line = 6, message = "can't be read",
      sql = allowed "index-concurrently until=2025-12-31 reason=\"users has" },
    { name = "it is over since yesterday", line = 6, severity = "error", message = "is over since 2025%-06%-14",
      sql = allowed "index-concurrently until=2025-06-14 reason=\"users has 40 rows\"" },
    { name = "the rule is unknown", line = 6, severity = "error", message = "there is no such rule",
      sql = allowed "index-concurently until=2025-12-31 reason=\"users has 40 rows\"" },
    { name = "the rule is hard", line = 6, severity = "error", message = "can't be waived",
      sql = allowed "contract-history until=2025-12-31 reason=\"users has 40 rows\"" },
    { name = "the rule is this one", line = 6, message = "can't be waived",
      sql = allowed "waiver until=2025-12-31 reason=\"users has 40 rows\"" },
    { name = "it excuses nothing", line = 6, severity = "warning", message = "excuses nothing",
      sql = allowed(GOOD, "create table users (created_at timestamptz);") },
    { name = "it stands above another statement", line = 6, severity = "warning", message = "excuses nothing",
      sql = allowed(GOOD, "select 1;\n" .. index) },
    { name = "one of two directions only", line = 9, severity = "warning", message = "excuses nothing",
      sql = allowed(GOOD), down = allowed(GOOD, "select 1;") },
    { name = "no statement follows it", line = 9, message = "no statement follows it", severity = "error",
      sql = index, down = "drop index users_created_at;\n-- moonbird:allow " .. GOOD },
    { name = "a Lua migration's has no reason", severity = "error", line = 2, message = "it has no reason",
      lua = in_lua "{ rule = \"index-concurrently\", expires = \"2025-12-31\" }" },
    { name = "a Lua migration's has an unknown key", line = 2, message = "unknown key \"until_\"",
      lua = in_lua "{ rule = \"index-concurrently\", until_ = \"2025-12-31\", reason = \"users has 40 rows\" }" },
    { name = "a Lua migration's is over", line = 2, message = "is over since 2024%-12%-31",
      lua = in_lua "{ rule = \"index-concurrently\", expires = \"2024-12-31\", reason = \"users has 40 rows\" }" },
    { name = "a Lua migration's reason is a number", line = 2, message = "\"reason\" must be a string",
      lua = in_lua "{ rule = \"index-concurrently\", expires = \"2025-12-31\", reason = 40 }" },
    { name = "a comment in a Lua migration is none", line = 1, message = "waivers stand in its table",
      lua = "-- moonbird:allow " .. GOOD .. "\nreturn {\n"
        .. "  up = \"create index users_created_at on users (created_at)\",\n"
        .. "  down = \"drop index users_created_at\",\n}\n" },
  },
  clean = {
    { name = "there is none", sql = index },
    { name = "it excuses the statement below it", sql = allowed(GOOD) },
    { name = "it holds on its last day", now = "2025-12-31", sql = allowed(GOOD) },
    { name = "with a ticket, in the statement's line", sql = index .. " -- moonbird:allow " .. GOOD .. " ticket=OPS-12"
      .. "\nselect 1;" },
    { name = "in the head it holds for the whole file", sql = "-- description: Find users by the day they came\n"
      .. "-- phase: expand\n-- scope: global\n-- compatibility: backward_compatible\n-- moonbird:allow " .. GOOD
      .. "\n-- migrate:up\nselect 1;\n" .. index .. "\n-- migrate:down\ndrop index if exists users_created_at;\n" },
    { name = "inside a statement of several lines", sql = "create index users_created_at\n  -- moonbird:allow " .. GOOD
      .. "\n  on users (created_at);" },
    { name = "a text that only speaks of it", sql = "select '-- moonbird:allow nothing';" },
    { name = "in a string of several lines", sql = "select '\n-- moonbird:allow nothing\n';" },
    { name = "what a Lua function sends is not known yet", lua = [[
return {
  waivers = { { rule = "expand-breaking", expires = "2025-12-31", reason = "nobody reads it" } },
  up = function(db)
    db:exec("alter table users drop column fullname")
  end,
  down = function(db)
    db:exec("alter table users add column fullname text")
  end,
}
]] },
    { name = "what a Lua function sent, in a recording", lua = [[
return {
  waivers = { { rule = "expand-breaking", expires = "2025-12-31", reason = "nobody reads it" } },
  up = function(db)
    db:exec("alter table users drop column fullname")
  end,
  down = "alter table users add column fullname text",
}
]], recorded = { up = { { text = "alter table users drop column fullname", line = 4, params = {}, reads = {} } } } },
    { name = "of a rule that only a step shows", sql = allowed("slow-step until=2025-12-31 reason=\"a rare one\"") },
    { name = "of a rule that is off in this environment", sql = allowed(GOOD),
      rules = { ["index-concurrently"] = "off" } },
    { name = "in the table of a Lua migration", lua = in_lua("{ rule = \"index-concurrently\", "
      .. "expires = \"2025-12-31\", reason = \"users has 40 rows\", ticket = \"OPS-1\" }") },
    { name = "with `until` in the table", lua = in_lua
      "{ rule = \"index-concurrently\", [\"until\"] = \"2025-12-31\", reason = \"users has 40 rows\" }" },
    { name = "a run does not tell of waivers, it only does without those that are over", moment = "before",
      sql = allowed "index-concurrently until=2025-06-14 reason=\"users has 40 rows\"" },
  },
}
