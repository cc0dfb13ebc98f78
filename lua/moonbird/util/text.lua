--- Small helpers over strings.
local M = {}

---@param text string
---@return string text without white space at both ends
function M.trim(text)
  return (text:match("^%s*(.-)%s*$"))
end

--- Splits at each occurrence of a separator (a plain string); empty parts are kept.
---@param text string
---@param separator string
---@return string[]
function M.split(text, separator)
  local parts, from = {}, 1
  while true do
    local first, last = text:find(separator, from, true)
    parts[#parts + 1] = text:sub(from, first and first - 1)
    if not first then
      return parts
    end
    from = last + 1
  end
end

--- Splits a comma list and trims its parts; empty parts are dropped.
---@param text string
---@return string[]
function M.list(text)
  local parts = {}
  for _, part in ipairs(M.split(text, ",")) do
    part = M.trim(part)
    if part ~= "" then
      parts[#parts + 1] = part
    end
  end
  return parts
end

--- "1 problem", "3 problems".
---@param count integer
---@param noun string
---@param plural? string when adding an "s" is wrong
---@return string
function M.count(count, noun, plural)
  return ("%d %s"):format(count, count == 1 and noun or plural or noun .. "s")
end

--- The line (1-based) of a byte offset (1-based). Lines end in "\n" ("\r\n" ends in one as well).
---@param text string
---@param offset integer
---@return integer
function M.line_at(text, offset)
  local line, from = 1, 1
  while true do
    local at = text:find("\n", from, true)
    if not at or at >= offset then
      return line
    end
    line, from = line + 1, at + 1
  end
end

--- A name in snake_case: "Add user's e-mail" and "AddHTTPServer" give "add_user_s_e_mail",
--- "add_http_server"; what is neither ASCII letter nor digit becomes "_".
---@param name string
---@return string may be empty
function M.snake_case(name)
  local text = name:gsub("(%l)(%u)", "%1_%2"):gsub("(%d)(%u%l)", "%1_%2"):gsub("(%u)(%u%l)", "%1_%2")
  text = text:lower():gsub("[^a-z0-9]+", "_")
  return (text:gsub("^_+", ""):gsub("_+$", ""))
end

--- Joins path parts with single slashes; an absolute part starts anew, "." and empty parts vanish.
---@param ... string
---@return string
function M.join_path(...)
  local path = ""
  for _, part in ipairs({ ... }) do
    part = part:gsub("^%./+", "")
    if part:sub(1, 1) == "/" then
      path = part
    elseif part ~= "" and part ~= "." then
      path = path == "" and part or path:gsub("/+$", "") .. "/" .. part
    end
  end
  return path == "" and "." or path
end

return M
