--- Colour and width of human output. Pure: where it goes is told by the caller.
local M = {}

local CODES = { red = 31, green = 32, yellow = 33, blue = 34, cyan = 36, dim = 2, bold = 1 }

--- A set of colouring functions; without colour they return the text unchanged.
---@param colour boolean
---@return table<string, fun(text: string): string>
function M.new(colour)
  local style = {}
  for name, code in pairs(CODES) do
    style[name] = colour and function(text)
      return ("\27[%dm%s\27[0m"):format(code, text)
    end or function(text)
      return text
    end
  end
  return style
end

--- Width of a text on a terminal: code points, colour codes not counted.
---@param text string
---@return integer
function M.width(text)
  local plain = text:gsub("\27%[%d+m", "")
  return utf8.len(plain) or #plain
end

--- Columns, left-aligned, two spaces between them; no trailing spaces.
---@param rows string[][]
---@param indent? string
---@return string with a newline after each row
function M.columns(rows, indent)
  local widths = {}
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do
      widths[i] = math.max(widths[i] or 0, M.width(cell))
    end
  end
  local lines = {}
  for _, row in ipairs(rows) do
    local parts = {}
    for i, cell in ipairs(row) do
      parts[i] = cell .. (" "):rep(widths[i] - M.width(cell))
    end
    lines[#lines + 1] = ((indent or "") .. table.concat(parts, "  ")):gsub("%s+$", "") .. "\n"
  end
  return table.concat(lines)
end

return M
