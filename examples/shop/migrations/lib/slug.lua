--- Readable addresses.
local M = {}

local PLAIN = {
  ["à"] = "a", ["â"] = "a", ["ä"] = "a", ["ç"] = "c", ["è"] = "e", ["é"] = "e", ["ê"] = "e", ["ë"] = "e",
  ["î"] = "i", ["ï"] = "i", ["ô"] = "o", ["ö"] = "o", ["ù"] = "u", ["û"] = "u", ["ü"] = "u", ["ß"] = "ss",
}

--- Lower case, ASCII, words joined by "-".
---@param name string
---@return string
function M.of(name)
  local text = name:lower():gsub(utf8.charpattern, PLAIN)
  return (text:gsub("[^a-z0-9]+", "-"):gsub("^%-", ""):gsub("%-$", ""))
end

return M
