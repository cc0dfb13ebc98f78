--- Text of unknown origin made fit for where it is shown: what a migration, a rule or a file name says may hold
--- bytes that are no UTF-8, control characters, or words that the reader of the output takes for commands.
local M = {}

--- Valid UTF-8: each byte that is none becomes U+FFFD.
---@param text string
---@return string
function M.utf8(text)
  if utf8.len(text) then
    return text
  end
  local parts, from = {}, 1
  while from <= #text do
    local _, wrong = utf8.len(text, from)
    if not wrong then
      parts[#parts + 1] = text:sub(from)
      break
    end
    parts[#parts + 1] = text:sub(from, wrong - 1) .. "\u{FFFD}"
    from = wrong + 1
  end
  return table.concat(parts)
end

--- For a terminal: control characters are written out, tabs are spaces, lines stay.
---@param text string
---@return string
function M.visible(text)
  text = M.utf8(text):gsub("\r\n", "\n"):gsub("\t", "  "):gsub("[%z\1-\9\11-\31\127]", function(char)
    return ("\\x%02x"):format(char:byte())
  end)
  -- C1 controls: a terminal may take U+009B for the beginning of a colour code.
  return (text:gsub("\xC2[\x80-\x9F]", "?"))
end

--- One line of it.
---@param text string
---@return string
function M.line(text)
  return (M.visible(text):gsub("%s*\n%s*", " "))
end

--- For XML, in an element or in a quoted attribute. What XML 1.0 can't hold becomes U+FFFD.
---@param text string
---@return string
function M.xml(text)
  text = M.utf8(text):gsub("\r\n", "\n"):gsub("[%z\1-\8\11\12\14-\31]", "\u{FFFD}")
  -- U+FFFE and U+FFFF are characters that XML has not; so are the halves of surrogate pairs, which are no UTF-8.
  text = text:gsub("\u{FFFE}", "\u{FFFD}"):gsub("\u{FFFF}", "\u{FFFD}")
  return (text:gsub("[&<>\"'\n\t\r]", {
    ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&apos;",
    ["\n"] = "&#10;", ["\t"] = "&#9;", ["\r"] = "&#13;",
  }))
end

return M
