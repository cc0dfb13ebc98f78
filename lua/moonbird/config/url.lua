--- Where to connect: connection URLs of libpq and of dbmate (lib/pq), key=value strings, and the
-- embedded server's "embedded:" forms, all brought to the keywords of PQconnectdbParams.
--
-- sslmode: nothing is set here, so libpq's default holds ("prefer": encrypted when the server can).
-- dbmate's is "require"; say `?sslmode=require` (or verify-full) where that matters.
local error_of = require "moonbird.core.error"
local nearest = require "moonbird.util.nearest"

local M = {}

local mask = "********"

-- The keywords of libpq up to PostgreSQL 18. One that the linked libpq does not know yet makes libpq
-- say so; what is not here is a run-time setting for the server.
local keywords = {}
for word in ([[
  service servicefile user password passfile channel_binding connect_timeout dbname host hostaddr port
  client_encoding options application_name fallback_application_name keepalives keepalives_idle
  keepalives_interval keepalives_count tcp_user_timeout sslmode sslnegotiation sslcompression sslcert
  sslkey sslcertmode sslpassword sslrootcert sslcrl sslcrldir sslsni sslkeylogfile requirepeer
  require_auth min_protocol_version max_protocol_version ssl_min_protocol_version
  ssl_max_protocol_version gssencmode krbsrvname gsslib gssdelegation replication
  target_session_attrs load_balance_hosts scram_client_key scram_server_key oauth_issuer
  oauth_client_id oauth_client_secret oauth_scope]]):gmatch("%S+") do
  keywords[word] = true
end

-- Keys of lib/pq that say something to the Go driver only.
local dropped = {
  binary_parameters = true, disable_prepared_binary_result = true, disable_prepared_binary_results = true,
}

local embedded_options = { temp = true, dbname = true }

---@class moonbird.url
---@field kind "postgres"|"embedded"
---@field text string fit to be shown: without passwords
---@field params table<string, string> libpq keyword -> value (kind "postgres")
---@field dir? string data folder (kind "embedded"; nil = the default one)
---@field temp? boolean a throwaway cluster (kind "embedded")
---@field dbname? string database to work in (kind "embedded")

local function unescape(text)
  local bad = text:find("%%%X") or text:find("%%%x%X") or text:find("%%%x?$") or text:find("%%00")
  if bad then
    return nil, "has a \"%\" that no two hex digits follow (write \"%25\" for a percent sign)"
  end
  return (text:gsub("%%(%x%x)", function(hex)
    return string.char(tonumber(hex, 16))
  end))
end

local function add_option(params, name, value)
  local escaped = (name .. "=" .. value):gsub("[\\%s]", "\\%0")
  local before = params.options and params.options ~= "" and params.options .. " " or ""
  params.options = before .. "-c " .. escaped
end

--- One key of the query part. libpq takes "+" as it is; for a server setting it is a space, as in Go.
local function add_query(params, settings, key, raw)
  if key == "" then
    return "has a query part that is not key=value"
  end
  if key == "ssl" and raw == "true" then -- JDBC's spelling, libpq takes it too
    params.sslmode = "require"
    return
  end
  if dropped[key] then
    return
  end
  local known = keywords[key] or key == "socket"
  local value, wrong = unescape(known and raw or raw:gsub("%+", " "))
  if not value then
    return wrong
  end
  if key == "socket" then
    params.host = value
  elseif known then
    params[key] = value
  elseif not key:match("^[%a_][%w_.]*$") then
    return ("has the query key \"%s\", which names neither an option of libpq nor a setting of the server")
      :format(key)
  else
    settings[#settings + 1] = { key, value }
  end
end

local function parse_hosts(params, hosts)
  local names, ports, any_port = {}, {}, false
  for part in (hosts .. ","):gmatch("([^,]*),") do
    local host, port = part:match("^%[([^%]]*)%]:?(%d*)$")
    if not host then
      if part:find("[", 1, true) then
        return nil, "has an IPv6 address that is not in [brackets] or has more behind them"
      end
      host, port = part:match("^([^:]*):?(.*)$")
    end
    if not port:match("^%d*$") then
      -- not shown: it may be the start of a password with a "/" in it
      return nil, "has a port that is no number, or a \"/\", \"?\" or \"#\" in its password",
        "write %2F, %3F and %23 for them in a password"
    end
    local wrong
    host, wrong = unescape(host)
    if not host then
      return nil, wrong
    end
    names[#names + 1], ports[#ports + 1] = host, port
    any_port = any_port or port ~= ""
  end
  local joined = table.concat(names, ",")
  if joined:find("[^,]") then
    params.host = joined
  end
  if any_port then
    params.port = table.concat(ports, ",")
  end
  return true
end

local function parse_userinfo(params, info)
  local user, password = info:match("^([^:]*):(.*)$")
  for key, raw in pairs({ user = user or info, password = password }) do
    local value, wrong = unescape(raw)
    if not value then
      return nil, wrong
    end
    if value ~= "" then
      params[key] = value
    end
  end
  return true
end

local function parse_uri(rest)
  local params, settings = {}, {}
  local before, query = rest:match("^([^?]*)%??(.*)$")
  local authority, dbname = before:match("^([^/]*)/?(.*)$")
  -- the last "@": Go, and so dbmate, takes "user:p@ss@host"
  local info, hosts = authority:match("^(.*)@(.*)$")
  local ok, wrong, hint = true, nil, nil
  if info then
    ok, wrong = parse_userinfo(params, info)
  end
  if ok then
    ok, wrong, hint = parse_hosts(params, hosts or authority)
  end
  if not ok then
    return nil, wrong, hint
  end
  if dbname ~= "" then
    params.dbname, wrong = unescape(dbname)
    if not params.dbname then
      return nil, wrong
    end
  end
  for part in query:gmatch("[^&]+") do
    local key, value = part:match("^([^=]*)=(.*)$")
    key, wrong = unescape(key or "")
    wrong = wrong or add_query(params, settings, key, value or "")
    if wrong then
      return nil, wrong
    end
  end
  -- after `options`, whatever the order in the URL
  for _, setting in ipairs(settings) do
    add_option(params, setting[1], setting[2])
  end
  return params
end

--- One value of a key=value string -> value, offset behind it.
local function conninfo_value(text, at)
  local out = {}
  local quoted = text:sub(at, at) == "'"
  at = quoted and at + 1 or at
  while true do
    local char = text:sub(at, at)
    if char == "" then
      if quoted then
        return nil, "has a quoted value without a closing quote"
      end
      break
    end
    if quoted and char == "'" then
      at = at + 1
      break
    end
    if not quoted and char:match("%s") then
      break
    end
    if char == "\\" then
      at = at + 1
      char = text:sub(at, at)
    end
    out[#out + 1] = char
    at = at + 1
  end
  return table.concat(out), at
end

local function parse_conninfo(text)
  local params, at = {}, 1
  while true do
    at = text:match("^%s*()", at)
    if at > #text then
      return params
    end
    local key, value_at = text:match("^([^%s=]+)%s*=%s*()", at)
    if not key then
      return nil, "has something that is not key=value"
    end
    if not keywords[key] then
      return nil, ("has the unknown key \"%s\""):format(key), nearest.hint(key, keywords)
    end
    local value, after = conninfo_value(text, value_at)
    if not value then
      return nil, after
    end
    params[key], at = value, after
  end
end

local function parse_embedded(rest)
  local dir, query = rest:match("^([^?]*)%??(.*)$")
  local url = { kind = "embedded", dir = dir ~= "" and dir or nil, temp = false }
  for part in query:gmatch("[^&]+") do
    local key, value = part:match("^([^=]*)=?(.*)$")
    if not embedded_options[key] then
      return nil, ("has the unknown option \"%s\""):format(key), nearest.hint(key, embedded_options)
    end
    if key == "dbname" then
      url.dbname = value ~= "" and value or nil
    else
      url.temp = value ~= "false"
    end
  end
  if url.temp and url.dir then
    return nil, "names a folder for a throwaway cluster, which makes its own",
      "write \"embedded:?temp\" or \"embedded:" .. url.dir .. "\""
  end
  return url
end

--- Reads a connection URL or key=value string.
---@param text string
---@return moonbird.url?
---@return moonbird.error? err code "config"; its text holds no password
function M.parse(text)
  local function fail(wrong, hint)
    return nil, error_of.new("config",
      ("the connection URL \"%s\" %s"):format(M.redact_url(text), wrong), { hint = hint })
  end
  text = text:match("^%s*(.-)%s*$")
  if text == "" then
    return nil, error_of.new("config", "the connection URL is empty")
  end
  if text:find("%c") then
    return fail("contains a control character")
  end
  local rest = text:match("^embedded:(.*)$")
  if rest then
    local url, wrong, hint = parse_embedded(rest)
    if not url then
      return fail(wrong, hint)
    end
    url.text = text
    return url
  end
  local scheme
  scheme, rest = text:match("^(%a[%w+.-]*)://(.*)$")
  local params, wrong, hint
  if scheme == "postgres" or scheme == "postgresql" then
    params, wrong, hint = parse_uri(rest)
  elseif scheme then
    return fail(("has the scheme \"%s\""):format(scheme),
      "moonbird speaks to PostgreSQL: postgres://USER@HOST:PORT/DATABASE, or embedded:")
  elseif text:find("=", 1, true) then
    params, wrong, hint = parse_conninfo(text)
  else
    return fail("is neither a URL nor a key=value string",
      "write postgres://USER@HOST:PORT/DATABASE, \"host=... dbname=...\", or embedded:")
  end
  if not params then
    return fail(wrong, hint)
  end
  return { kind = "postgres", params = params, text = M.redact_url(text) }
end

--- Masks the password in what follows "scheme://". Errs on the side of masking: "@", "/", "?" and "#"
--- that someone forgot to escape in a password do not bring a part of it to light.
local function redact_after_scheme(rest)
  local authority = rest:match("^[^/?#]*")
  local at = authority:match("^.*()@")
  if not at and not authority:match("^[^:]*:%d*$") and authority:find(":", 1, true) then
    at = rest:match("^.*()@")
  elseif not at and authority:find(":", 1, true) then
    at = rest:match("^[^?#]*()@") -- digits, a slash and an "@" behind: a password, not a port
  end
  local colon = rest:find(":", 1, true)
  if at and colon and colon < at then
    return rest:sub(1, colon) .. mask .. rest:sub(at)
  end
  return rest
end

local function is_secret(key)
  return key:find("password", 1, true) or key:find("passwd", 1, true) or key:find("secret", 1, true)
    or key:find("^scram_%a+_key$")
end

--- The offset behind a value: up to its closing quote, or to white space ("&" too in a URL's query).
local function value_end(text, at, in_query)
  local quote = text:match("^[\"']", at)
  if not quote then
    return text:match(in_query and "^[^%s&\"'<>]*()" or "^[^%s\"'<>]*()", at)
  end
  at = at + 1
  while at <= #text and text:sub(at, at) ~= quote do
    at = at + (text:sub(at, at) == "\\" and 2 or 1)
  end
  return math.min(at + 1, #text + 1)
end

--- Values of password keys: "password=x", "password='x y'", "?sslpassword=x", "PGPASSWORD=x".
local function redact_keys(text)
  local out, at = {}, 1
  while true do
    local first, stop, key = text:find("([%w_]+)%s*=%s*", at)
    if not first then
      out[#out + 1] = text:sub(at)
      return table.concat(out)
    end
    out[#out + 1] = text:sub(at, stop)
    at = stop + 1
    if is_secret(key:lower()) then
      local after = value_end(text, at, first > 1 and text:find("^[?&]", first - 1) ~= nil)
      out[#out + 1] = after > at and mask or ""
      at = after
    end
  end
end

--- A whole connection URL or key=value string, fit to be shown.
---@param text string
---@return string
function M.redact_url(text)
  local scheme, rest = text:match("^%s*(%a[%w+.-]*://)(.*)$")
  if scheme then
    return redact_keys(scheme .. redact_after_scheme(rest))
  end
  return redact_keys(text)
end

--- Masks every password in URLs ("user:********@") and key=value strings ("password=********") that
--- occur anywhere in a text.
---@param text string
---@return string
function M.redact(text)
  local masked = text:gsub("(%a[%w+.-]*://)([^%s\"'<>]*)", function(scheme, rest)
    return scheme .. redact_after_scheme(rest)
  end)
  return redact_keys(masked)
end

return M
