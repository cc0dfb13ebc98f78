--- The nearest known name to a misspelt one, for "did you mean" in error messages.
local M = {}

--- Edit distance: insertions, deletions, substitutions and swaps of neighbours (optimal string
--- alignment), over bytes.
---@param a string
---@param b string
---@return integer
function M.distance(a, b)
  local before, previous = {}, {}
  for j = 0, #b do
    previous[j] = j
  end
  for i = 1, #a do
    local current = { [0] = i }
    for j = 1, #b do
      local same = a:byte(i) == b:byte(j)
      local best = math.min(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + (same and 0 or 1))
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        best = math.min(best, before[j - 2] + 1)
      end
      current[j] = best
    end
    before, previous = previous, current
  end
  return previous[#b]
end

-- A list longer than this is not read in an error message.
local LISTED = 12
-- From so many letters on, a beginning says which name is meant.
local PREFIX = 3

--- The only candidate that begins with the word.
local function completed(word, names, plain)
  local only
  for _, name in ipairs(#word >= PREFIX and names or {}) do
    if plain(name):sub(1, #word) == plain(word) then
      if only then
        return nil
      end
      only = name
    end
  end
  return only
end

--- The candidate that is near enough to be what was meant: misspelt, or the only one that begins so. Case and "-"
--- against "_" count as equal.
---@param word string
---@param candidates string[]|table<string, any> a list, or a table whose keys are the candidates
---@return string? name nil when nothing is near
function M.find(word, candidates)
  local names = candidates
  if #candidates == 0 then
    names = {}
    for name in pairs(candidates) do
      names[#names + 1] = name
    end
    table.sort(names) -- pairs has no order, a message should have one
  end
  local function plain(text)
    return (text:lower():gsub("%-", "_"))
  end
  local limit = math.max(1, #word // 3)
  local best, best_distance
  for _, name in ipairs(names) do
    local distance = M.distance(plain(word), plain(name))
    if distance <= limit and (not best_distance or distance < best_distance) then
      best, best_distance = name, distance
    end
  end
  return best or completed(word, names, plain)
end

--- The sentence for an unknown name: which one was meant, or which there are.
---@param word string
---@param candidates string[]|table<string, any>
---@param otherwise? string said where there are too many to list
---@return string hint
function M.hint(word, candidates, otherwise)
  local near = M.find(word, candidates)
  if near then
    return ("did you mean \"%s\"?"):format(near)
  end
  local names = {}
  if #candidates > 0 then
    table.move(candidates, 1, #candidates, 1, names)
  else
    for name in pairs(candidates) do
      names[#names + 1] = name
    end
    table.sort(names)
  end
  if #names == 0 then
    return "there are none"
  elseif otherwise and #names > LISTED then
    return otherwise
  end
  return "known are: " .. table.concat(names, ", ")
end

return M
