--- What specs demand of texts: the output of a command, a file.
local M = {}

--- The word that people put where they will write something later, and that rules look for. In two pieces, so that
--- nothing which searches these sources for unfinished work finds an input of a test.
M.LATER = "TO" .. "DO"

-- What a hostile script prints may be long.
local function shown(text)
  return #text <= 8000 and text or ("%s... (%d bytes)"):format(text:sub(1, 8000), #text)
end

--- Fails unless the text has the part, as it stands (no pattern).
---@param text string
---@param part string
function M.has(text, part)
  if not text:find(part, 1, true) then
    error(("%q is not in:\n%s"):format(part, shown(text)), 2)
  end
end

--- Fails if the text has the part.
---@param text string
---@param part string
function M.lacks(text, part)
  if text:find(part, 1, true) then
    error(("%q is in:\n%s"):format(part, shown(text)), 2)
  end
end

return M
