--- Finds secrets in text: keys and tokens by their form, passwords by the words in front of them. Placeholders
-- are none. What is found is never told, only its kind, its place and how it begins.
local M = {}

---@class moonbird.policy.secret
---@field kind string "an AWS access key"
---@field offset integer of its first byte
---@field shown string how it begins: no more than four characters, and no more than a quarter

-- Placeholders ---------------------------------------------------------------------------------------------

local PLACEHOLDER_WORDS = {}
for word in ([[none null nil n/a unset empty test todo tbd locked disabled invalid blocked redacted removed hidden
  secret pass passwd passphrase pw pwd unknown default]]):gmatch("%S+") do
  PLACEHOLDER_WORDS[word] = true
end

local PLACEHOLDER_PARTS = { "changeme", "change_me", "change-me", "change me", "placeholder", "example", "redacted",
  "replace_me", "replace-me", "replaceme", "dummy", "your_", "your-", "yourpass", "xxxx", "fill_in", "fill-in",
  "not_set", "not-set", "to_be_", "insert_" }

--- Whether a value only stands for a secret.
---@param value string
---@return boolean
function M.is_placeholder(value)
  local plain = value:match("^%s*(.-)%s*$")
  local lower = plain:lower()
  if not plain:find("%w") or PLACEHOLDER_WORDS[lower] or #plain < 3 then
    return true -- "", "***", "!", "..."
  elseif plain:find("^<.*>$") or plain:find("{{", 1, true) or plain:find("${", 1, true) or plain:find("^%$[%a_(]")
    or plain:find("^%%[%a(]") or plain:find("^:[%a_'\"]") or plain:find("^%[.*%]$") or plain:find("^{.*}$")
    or plain:find("^%$%d+$") or plain:find("^@") or plain:find("^#{") then
    return true -- <password>, {{ db.password }}, ${PASSWORD}, $PASSWORD, %s, :password, [password], $1
  elseif plain:find("^%u[%u%d]*_[%u%d_]*$") then
    return true -- DB_PASSWORD: the name of a variable
  elseif plain:find("^(.)%1+$") then
    return true
  end
  for _, part in ipairs(PLACEHOLDER_PARTS) do
    if lower:find(part, 1, true) then
      return true
    end
  end
  return false
end

-- By form ---------------------------------------------------------------------------------------------------

-- { kind, pattern of a whole word, least length }
local FORMS = {
  { "an AWS access key", "^A[KS]IA[%u%d]+$", 20 },
  { "a GitHub token", "^gh[pousr]_%w+$", 40 },
  { "a GitHub token", "^github_pat_[%w_]+$", 40 },
  { "a GitLab token", "^glpat%-[%w_-]+$", 26 },
  { "a Slack token", "^xox[abeoprs]%-[%w-]+$", 20 },
  { "a Stripe key", "^[rs]k_live_%w+$", 24 },
  { "a Google API key", "^AIza[%w_-]+$", 39 },
  { "an npm token", "^npm_%w+$", 40 },
  { "an API key", "^sk%-%a+%-[%w_-]+$", 40 },
  { "a SendGrid key", "^SG%.[%w_-]+%.[%w_-]+$", 50 },
  { "a JSON web token", "^eyJ[%w_-]+%.eyJ[%w_-]+%.[%w_-]+$", 40 },
}

-- One of them stands in every text with such a key, in small letters: most texts need no closer look.
local SIGNS = { "akia", "asia", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox", "k_live_",
  "aiza", "npm_", "sk-", "sg.", "eyj" }

local LONGEST = 4096 -- of a word that is looked at

local function has_any(lower, words)
  for _, word in ipairs(words) do
    if lower:find(word, 1, true) then
      return true
    end
  end
  return false
end

-- A hash of a password is no way in by itself, but a guess at a time is checked against it, offline.
local HASHES = {
  { sign = "$2", kind = "a hash of a password (bcrypt)", pattern = "()(%$2[abxy]?%$%d%d%$[%w./]+)", least = 59 },
  { sign = "$argon2", kind = "a hash of a password (Argon2)",
    pattern = "()(%$argon2i?d?%$[v=%d]*%$?m=%d+,t=%d+,p=%d+%$[%w+/]+%$[%w+/]+)", least = 40 },
}

local function hashes(text, tell)
  for _, hash in ipairs(HASHES) do
    if text:find(hash.sign, 1, true) then
      for first, value in text:gmatch(hash.pattern) do
        if #value >= hash.least then
          tell(hash.kind, first, value)
        end
      end
    end
  end
end

local function by_form(text, lower, tell)
  if has_any(lower, SIGNS) then
    for first, value in text:gmatch("()([%w_.-]+)") do
      if #value >= 20 and #value <= LONGEST then
        value = value:gsub("[.-]+$", "")
        for _, form in ipairs(FORMS) do
          if #value >= form[3] and value:find(form[2]) and not M.is_placeholder(value) then
            tell(form[1], first, value)
          end
        end
      end
    end
  end
  local from = 1
  while true do -- of a key's heading, and what follows it
    local at, last = text:find("PRIVATE KEY-----", from, true)
    if not at then
      break
    end
    local first, value = text:match("^[\\nr%s]*()([%w+/=]+)", last + 1)
    if value and #value >= 20 and text:sub(math.max(1, at - 40), at - 1):find("%-%-%-%-%-BEGIN [%u ]*$") then
      tell("a private key", first, value)
    end
    from = last + 1
  end
  from = 1
  while true do
    local _, last = lower:find("hooks.slack.com/services/", from, true)
    if not last then
      break
    end
    local first, value = text:match("^()(T%w+/B%w+/%w+)", last + 1)
    if value and #value >= 30 and not M.is_placeholder(value) then
      tell("a Slack webhook", first, value)
    end
    from = last + 1
  end
end

-- Addresses with a password -------------------------------------------------------------------------------------

local URL_PLACEHOLDERS = { password = true, user = true, username = true, mypassword = true, token = true }

local function in_urls(text, tell)
  local from = 1
  while true do
    local at, stop = text:find("://", from, true)
    if not at then
      return
    end
    local first, value = text:match("^[^%s/:@'\"<>]*:()([^%s/@'\"<>]+)@[%w.%[%-]", stop + 1)
    if first and not M.is_placeholder(value) and not URL_PLACEHOLDERS[value:lower()] then
      tell("a URL with a password", first, value)
    end
    from = stop + 1
  end
end

-- Passwords -----------------------------------------------------------------------------------------------------

-- Words in front of "password" that make it something else: when it was reset, whether there is one.
local OTHER = { reset = true, forgot = true, forgotten = true, has = true, no = true, needs = true, requires = true,
  is = true, with = true, without = true, last = true, show = true, hide = true, invalid = true, wrong = true,
  use = true, uses = true, change = true, must = true, allow = true }

local function names_a_password(word)
  local lower = word:lower()
  local before = lower:match("^(.-)_?passwo?r?d$") or lower:match("^(.-)_?pwd$") or lower:match("^(.-)_?passphrase$")
  if not before then
    return false
  end
  for part in before:gmatch("%a+") do
    if OTHER[part] then
      return false
    end
  end
  return true
end

--- The quoted value at `at`: '...', E'...', $$...$$, and "..." where that is a string.
local function quoted_at(text, at, double)
  local first, value = text:match("^[eE]?'()([^'\n]*)'", at)
  if not first then
    first, value = text:match("^%$%$()([^\n]-)%$%$", at)
  end
  if not first and double then
    first, value = text:match("^\"()([^\"\n]*)\"", at)
  end
  return first, value
end

local function passwords(text, lower, options, tell)
  local from = 1
  local pass, pwd = 0, 0
  while true do
    pass = pass and pass < from and lower:find("pass", from, true) or pass
    pwd = pwd and pwd < from and lower:find("pwd", from, true) or pwd
    pass, pwd = pass and pass >= from and pass or nil, pwd and pwd >= from and pwd or nil
    local at = pass and pwd and math.min(pass, pwd) or pass or pwd
    if not at then
      return
    end
    -- the whole word it stands in
    local first = at
    while first > 1 and text:find("^[%w_]", first - 1) do
      first = first - 1
    end
    local word, behind = text:match("^([%w_]+)()", first)
    from = behind
    if names_a_password(word) then
      local quote, json_at = text:match("^([\"'])%s*:%s*()", behind)
      local sign, after = text:match("^%s*(:?=>?)%s*()", behind)
      local sql_at = text:match("^%s+()", behind)
      local place, value
      if json_at then
        place, value = quoted_at(text, json_at, true)
      elseif sign then
        place, value = quoted_at(text, after, options.double)
        if not place and sign == "=" and text:sub(behind, behind) == "=" then
          place, value = text:match("^()([^%s'\";,)]+)", after) -- of a connection string: password=...
          local around = lower:sub(math.max(1, first - 120), after + 120)
          local conninfo = around:find("host=", 1, true) or around:find("dbname=", 1, true)
            or around:find("user=", 1, true) or word == "PGPASSWORD"
          place = conninfo and place or nil
        end
      elseif sql_at and word:lower() == "password" then
        place, value = quoted_at(text, sql_at, false) -- PASSWORD '...'
      end
      -- a word in JSON is more likely a translation, one behind another name a state ("expired")
      local plain_word = value and (quote and not value:find("[%d%p]") or not quote and word:lower() ~= "password"
        and value:find("^%l+$"))
      -- 'host=... password=' || current_setting(...): the quote ends a string
      local ends = value and value:find("^%s*[|,;)]")
      if place and not plain_word and not ends and not M.is_placeholder(value)
        and not value:find("^%S+%s.*%s%S+$") then
        tell("a password", place, value)
      end
    end
  end
end

-- Random-looking values behind telling words ---------------------------------------------------------------------

local TELLING = { "secret", "token", "api_key", "apikey", "api-key", "access_key", "private_key", "signing_key",
  "encryption_key", "credential", "bearer", "auth_key", "passw" }

--- Bits for each character.
local function entropy(value)
  local counts, bits = {}, 0
  for char in value:gmatch(".") do
    counts[char] = (counts[char] or 0) + 1
  end
  for _, count in pairs(counts) do
    local share = count / #value
    bits = bits - share * math.log(share, 2)
  end
  return bits
end

local function looks_random(value)
  local digits = select(2, value:gsub("%d", ""))
  if value:find("^%x+$") then
    return #value >= 32 and digits >= 6 and digits < #value and entropy(value) >= 3
  end
  return #value >= 24 and digits >= 3 and value:find("%l") ~= nil and value:find("%u") ~= nil
    and select(2, value:gsub("[_-]", "")) < 3 and entropy(value) >= 4
end

local function random_values(text, lower, tell)
  if not has_any(lower, TELLING) then
    return
  end
  local offset = 1
  for line, next_offset in text:gmatch("([^\n]*)\n?()") do
    local small = #line >= 24 and line:lower() or ""
    local telling
    for _, word in ipairs(TELLING) do
      local _, last = small:find(word, 1, true)
      telling = last and math.min(telling or last, last) or telling
    end
    -- a hash of something is not the thing
    local hashed = telling and (small:find("sha%d") or small:find("md5", 1, true) or small:find("hash", 1, true)
      or small:find("digest", 1, true) or small:find("checksum", 1, true))
    if telling and not hashed then
      for first, value in line:gmatch("()([%w+/_=-]+)") do
        -- of `token=abc` only what is behind the sign
        local head = value:match("^[%a_]+=+()%w")
        if head then
          first, value = first + head - 1, value:sub(head)
        end
        if first > telling and #value >= 24 and looks_random(value) and not M.is_placeholder(value) then
          tell("what looks like a key or token", offset + first - 1, value)
        end
      end
    end
    offset = next_offset
    if offset > #text then
      break
    end
  end
end

local MOST = 100 -- that are told of one text

--- The secrets of a text, in the order they stand in it; each place once.
---@param text string
---@param options? { double?: boolean } double: "..." is a string too (Lua)
---@return moonbird.policy.secret[]
function M.find(text, options)
  local found, ends = {}, {}
  local lower = text:lower()
  local function tell(kind, offset, value)
    local last = offset + #value - 1
    if #found >= MOST then
      return
    end
    for first, other in pairs(ends) do
      if offset <= other and last >= first then
        return -- found in another way already
      end
    end
    ends[offset] = last
    local most = math.min(4, #value // 4)
    found[#found + 1] = { kind = kind, offset = offset, shown = value:sub(1, most) }
  end
  by_form(text, lower, tell)
  hashes(text, tell)
  in_urls(text, tell)
  passwords(text, lower, options or {}, tell)
  random_values(text, lower, tell)
  table.sort(found, function(a, b)
    return a.offset < b.offset
  end)
  return found
end

return M
