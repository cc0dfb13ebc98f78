--- Completion scripts for bash, zsh and fish, made from one description of commands and options.
local error_of = require "moonbird.core.error"
local nearest = require "moonbird.util.nearest"

local M = {}

---@class moonbird.completion.option
---@field long? string "url" or "--url"
---@field short? string "u" or "-u"
---@field arg? string name of its value, nil for a switch; "FILE", "DIR" and "SCRIPT" complete paths
---@field choices? string[] values
---@field help? string

---@class moonbird.completion.command
---@field name string
---@field help? string
---@field options? moonbird.completion.option[]
---@field args? (string|{name: string, choices?: string[]})[] its arguments; "COMMAND" offers the commands
---@field choices? string[] words its first argument may be

---@class moonbird.completion.spec
---@field name string the program
---@field options moonbird.completion.option[]
---@field commands moonbird.completion.command[]

local function quoted(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function flags_of(options)
  local flags = {}
  for _, option in ipairs(options or {}) do
    if option.long then
      flags[#flags + 1] = option.long
    end
    if option.short then
      flags[#flags + 1] = option.short
    end
  end
  return flags
end

local function is_path(arg)
  return arg and arg:find("FILE", 1, true) or arg and arg:find("DIR", 1, true)
    or arg and arg:find("SCRIPT", 1, true)
end

--- Words for a command's arguments.
local function words_of(command)
  if command.choices then
    return command.choices
  end
  local words = {}
  for _, arg in ipairs(command.args or {}) do
    local choices = type(arg) == "table" and arg.choices or {}
    table.move(choices, 1, #choices, #words + 1, words)
  end
  return words
end

local function takes_path(command)
  for _, arg in ipairs(command.args or {}) do
    if is_path(type(arg) == "table" and arg.name or arg) then
      return true
    end
  end
  return false
end

local function command_names(spec)
  local names = {}
  for i, command in ipairs(spec.commands) do
    names[i] = command.name
  end
  return names
end

-- bash --------------------------------------------------------------------------------------------

--- Case branches that complete the value of an option.
local function bash_values(out, options, indent)
  for _, option in ipairs(options or {}) do
    if option.arg or option.choices then
      local flags = table.concat(flags_of({ option }), "|")
      local reply = "COMPREPLY=()"
      if option.choices then
        reply = ("COMPREPLY=($(compgen -W %s -- \"$cur\"))"):format(quoted(table.concat(option.choices, " ")))
      elseif is_path(option.arg) then
        reply = ("COMPREPLY=($(compgen %s -- \"$cur\"))"):format(option.arg:find("DIR", 1, true) and "-d" or "-f")
      end
      out[#out + 1] = ("%s%s) %s; return ;;"):format(indent, flags, reply)
    end
  end
end

local function with_value(options, into)
  for _, option in ipairs(options or {}) do
    if option.arg or option.choices then
      for _, flag in ipairs(flags_of({ option })) do
        into[#into + 1] = flag
      end
    end
  end
end

local function bash(spec)
  local fn = "_" .. spec.name:gsub("%W", "_")
  local out = {
    ("# bash completion for %s: source it, or put it into /etc/bash_completion.d/"):format(spec.name),
    fn .. "() {",
    "    local cur prev command word i",
    "    COMPREPLY=()",
    '    cur=${COMP_WORDS[COMP_CWORD]}',
    '    prev=${COMP_WORDS[COMP_CWORD-1]}',
    "    command=",
    "    for ((i = 1; i < COMP_CWORD; i++)); do",
    "        word=${COMP_WORDS[i]}",
    "        case $word in",
  }
  local valued = {}
  with_value(spec.options, valued)
  if #valued > 0 then
    out[#out + 1] = ("        %s) ((i++)) ;;"):format(table.concat(valued, "|"))
  end
  out[#out + 1] = "        -*) ;;"
  out[#out + 1] = "        *) command=$word; break ;;"
  out[#out + 1] = "        esac"
  out[#out + 1] = "    done"
  out[#out + 1] = "    case $prev in"
  bash_values(out, spec.options, "    ")
  out[#out + 1] = "    esac"
  out[#out + 1] = "    case $command in"
  out[#out + 1] = "    '')"
  out[#out + 1] = ("        COMPREPLY=($(compgen -W %s -- \"$cur\"))"):format(quoted(
    table.concat(command_names(spec), " ") .. " " .. table.concat(flags_of(spec.options), " ")))
  out[#out + 1] = "        ;;"
  for _, command in ipairs(spec.commands) do
    out[#out + 1] = ("    %s)"):format(command.name)
    out[#out + 1] = "        case $prev in"
    bash_values(out, command.options, "        ")
    out[#out + 1] = "        esac"
    local words = table.move(words_of(command), 1, #words_of(command), 1, {})
    table.move(flags_of(command.options), 1, #flags_of(command.options), #words + 1, words)
    local files = takes_path(command) and " -f" or ""
    out[#out + 1] = ("        COMPREPLY=($(compgen%s -W %s -- \"$cur\"))"):format(files,
      quoted(table.concat(words, " ")))
    out[#out + 1] = "        ;;"
  end
  out[#out + 1] = "    esac"
  out[#out + 1] = "}"
  out[#out + 1] = ("complete -F %s %s"):format(fn, spec.name)
  return table.concat(out, "\n") .. "\n"
end

-- zsh ---------------------------------------------------------------------------------------------

local function zsh_text(text)
  return (text or ""):gsub("[%[%]:\\]", "\\%0")
end

local function zsh_option(option)
  local lines = {}
  local flags = flags_of({ option })
  for _, flag in ipairs(flags) do
    local exclude = #flags > 1 and "(" .. table.concat(flags, " ") .. ")" or ""
    local value = ""
    if option.choices then
      value = (":%s:(%s)"):format(zsh_text(option.arg or "value"), table.concat(option.choices, " "))
    elseif option.arg then
      local action = is_path(option.arg) and (option.arg:find("DIR", 1, true) and "_files -/" or "_files") or ""
      value = (":%s:%s"):format(zsh_text(option.arg), action)
    end
    lines[#lines + 1] = quoted(("%s%s[%s]%s"):format(exclude, flag, zsh_text(option.help), value))
  end
  return lines
end

local function zsh(spec)
  local fn = "_" .. spec.name:gsub("%W", "_")
  local out = {
    ("#compdef %s"):format(spec.name),
    ("# zsh completion: put it into a folder of $fpath as _%s"):format(spec.name),
    fn .. "() {",
    "  local context state state_descr line",
    "  typeset -A opt_args",
    "  local -a commands",
    "  commands=(",
  }
  for _, command in ipairs(spec.commands) do
    out[#out + 1] = "    " .. quoted(command.name .. ":" .. zsh_text(command.help))
  end
  out[#out + 1] = "  )"
  out[#out + 1] = "  _arguments -C \\"
  for _, option in ipairs(spec.options) do
    for _, line in ipairs(zsh_option(option)) do
      out[#out + 1] = "    " .. line .. " \\"
    end
  end
  out[#out + 1] = "    '1:command:->command' '*::argument:->argument'"
  out[#out + 1] = "  case $state in"
  out[#out + 1] = "  command) _describe -t commands command commands ;;"
  out[#out + 1] = "  argument)"
  out[#out + 1] = "    case $words[1] in"
  for _, command in ipairs(spec.commands) do
    local words = words_of(command)
    local last = takes_path(command) and "'*:file:_files'" or "'*:argument:'"
    if #words > 0 then
      last = quoted("*:argument:(" .. table.concat(words, " ") .. ")")
    end
    out[#out + 1] = ("    %s)"):format(command.name)
    out[#out + 1] = "      _arguments \\"
    for _, option in ipairs(command.options or {}) do
      for _, line in ipairs(zsh_option(option)) do
        out[#out + 1] = "        " .. line .. " \\"
      end
    end
    out[#out + 1] = "        " .. last .. " ;;"
  end
  out[#out + 1] = "    esac ;;"
  out[#out + 1] = "  esac"
  out[#out + 1] = "}"
  -- autoloaded from $fpath the file is the function's body; sourced, the function is registered
  out[#out + 1] = ("if [ \"$funcstack[1]\" = %s ]; then %s \"$@\"; else compdef %s %s; fi"):format(
    quoted(fn), fn, fn, spec.name)
  return table.concat(out, "\n") .. "\n"
end

-- fish --------------------------------------------------------------------------------------------

local function fish_option(spec, condition, option)
  local parts = { "complete -c " .. spec.name }
  if condition then
    parts[#parts + 1] = "-n " .. quoted(condition)
  end
  if option.short then
    parts[#parts + 1] = "-s " .. option.short:gsub("^%-", "")
  end
  if option.long then
    parts[#parts + 1] = "-l " .. option.long:gsub("^%-%-", "")
  end
  if option.choices then
    parts[#parts + 1] = "-x -a " .. quoted(table.concat(option.choices, " "))
  elseif option.arg then
    parts[#parts + 1] = is_path(option.arg) and "-r -F" or "-x"
  end
  if option.help then
    parts[#parts + 1] = "-d " .. quoted(option.help)
  end
  return table.concat(parts, " ")
end

local function fish(spec)
  local out = {
    ("# fish completion for %s: put it into ~/.config/fish/completions/%s.fish"):format(spec.name, spec.name),
    ("complete -c %s -f"):format(spec.name),
  }
  for _, option in ipairs(spec.options) do
    out[#out + 1] = fish_option(spec, nil, option)
  end
  for _, command in ipairs(spec.commands) do
    out[#out + 1] = ("complete -c %s -n __fish_use_subcommand -a %s%s"):format(spec.name, quoted(command.name),
      command.help and " -d " .. quoted(command.help) or "")
    local condition = "__fish_seen_subcommand_from " .. command.name
    for _, option in ipairs(command.options or {}) do
      out[#out + 1] = fish_option(spec, condition, option)
    end
    local words = words_of(command)
    if #words > 0 then
      out[#out + 1] = ("complete -c %s -n %s -a %s"):format(spec.name, quoted(condition),
        quoted(table.concat(words, " ")))
    end
    if takes_path(command) then
      out[#out + 1] = ("complete -c %s -n %s -F"):format(spec.name, quoted(condition))
    end
  end
  return table.concat(out, "\n") .. "\n"
end

local function dashed(name, dashes)
  return name and (name:sub(1, 1) == "-" and name or dashes .. name) or nil
end

local function dashed_options(options)
  local result = {}
  for i, option in ipairs(options or {}) do
    result[i] = {
      long = dashed(option.long, "--"), short = dashed(option.short, "-"), arg = option.arg,
      choices = option.choices, help = option.help,
    }
  end
  return result
end

--- The description with what the makers above count on: options with their dashes, choices resolved.
local function complete(spec)
  local result = { name = spec.name, options = dashed_options(spec.options), commands = {} }
  for i, command in ipairs(spec.commands) do
    local choices = command.choices
    for _, arg in ipairs(command.args or {}) do
      if (type(arg) == "table" and arg.name or arg) == "COMMAND" then
        choices = command_names(spec)
      end
    end
    result.commands[i] = {
      name = command.name, help = command.help, args = command.args, choices = choices,
      options = dashed_options(command.options),
    }
  end
  return result
end

M.shells = { bash = bash, zsh = zsh, fish = fish }

--- The completion script for a shell.
---@param shell string "bash", "zsh" or "fish"
---@param spec moonbird.completion.spec
---@return string? script
---@return moonbird.error? err code "usage"
function M.script(shell, spec)
  local make = M.shells[shell]
  if not make then
    return nil, error_of.new("usage", ("there is no completion for the shell \"%s\""):format(shell),
      { hint = nearest.hint(shell, M.shells) })
  end
  return make(complete(spec))
end

return M
