--- What is said of a command line that can't be read: the parser's messages in this program's words, with the help
--- of the command that was meant.
local nearest = require "moonbird.util.nearest"

local M = {}

local function listed(choices)
  return table.concat(choices, ", ")
end

--- Where to read on.
---@param command? string
---@param near? string what was probably meant
---@return string hint
function M.hint(command, near)
  local help = ("`moonbird help%s`"):format(command and " " .. command or "")
  return near and ("did you mean \"%s\"? see %s"):format(near, help) or "see " .. help
end

--- A converter that takes some words only. (The parser's own check does not tell which word was wrong.)
---@param shown string the option or argument, as the command line and the help name it
---@param choices string[]
---@return fun(text: string): string?, string?
function M.choice(shown, choices)
  return function(word)
    for _, choice in ipairs(choices) do
      if word == choice then
        return word
      end
    end
    local near = nearest.find(word, choices)
    return nil, ("%s must be one of %s, not \"%s\"%s"):format(shown, listed(choices), word,
      near and ("\nDid you mean '%s'?"):format(near) or "")
  end
end

--- A converter whose message names what it converts.
---@param shown string
---@param convert fun(text: string): any, string?
---@return fun(text: string): any, string?
function M.named(shown, convert)
  return function(word)
    local value, message = convert(word)
    if value == nil then
      return nil, ("%s: %s"):format(shown, message)
    end
    return value
  end
end

local function missing(command, key)
  for _, argument in ipairs(command and command.args or {}) do
    if argument.key == key then
      return ("%s is missing: %s"):format(argument.name, argument.choices and "one of " .. listed(argument.choices)
        or argument.help)
    end
  end
end

--- The option that an unknown one was probably meant to be.
local function near_option(word, ...)
  local known = { "--help" } -- the parser's own
  for _, options in ipairs { ... } do
    for _, option in ipairs(options) do
      known[#known + 1] = "--" .. option.long
    end
  end
  return nearest.find(word, known)
end

--- The parser's message as an error's message and hint.
---@param message string
---@param command? table of spec.COMMANDS
---@param global moonbird.cli.option[]
---@return string message
---@return string hint
function M.explain(message, command, global)
  local said, near = message:match("^(.*)\nDid you mean (.*)$")
  said, near = said or message, near and near:match("^'([^']*)'%?$")
  local key, unknown = said:match("^missing argument '(.*)'$"), said:match("^unknown option '(.*)'$")
  said = key and missing(command, key) or said
  near = not unknown and near or unknown and near_option(unknown, command and command.options or {}, global)
  if not said:find('"', 1, true) then -- the parser's own words, not a converter's
    said = said:gsub("'([^']*)'", '"%1"')
  end
  return said, M.hint(command and command.name, near)
end

return M
