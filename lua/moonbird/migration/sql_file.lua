--- A .sql migration: dbmate's format, with what a Lua migration says in its table said in comments of the
--- file's head (before the first directive):
--
--   -- description: ...      (or "Purpose:")      -- phase: contract       -- scope: tenant
--   -- compatibility: contract_breaking           -- irreversible: reason
--   -- timeouts: lock=2s statement=5m             -- owner: ...   -- rationale: ...   -- tags: a, b
--   -- completes: 20250101000000                  -- id: ...      -- barrier: false
--   -- data_preservation: ...
local duration = require "moonbird.util.duration"
local header = require "moonbird.migration.header"
local nearest = require "moonbird.util.nearest"
local sql = require "moonbird.core.sql"
local sql_check = require "moonbird.migration.sql_check"
local text_util = require "moonbird.util.text"

local M = {}

local function read_choice(key)
  return function(value)
    local word = header.choice(key, value)
    if word then
      return word
    end
    local near = nearest.find(value, header.choices[key])
    if near then
      return nil, ("must be \"%s\", not \"%s\""):format(table.concat(header.choices[key], "\" or \""), value),
        ("did you mean \"%s\"?"):format(near)
    end
    -- "-- Phase: 2, billing" is somebody's project plan: free text
    return nil
  end
end

local function read_timeouts(value)
  local result = {}
  for part in value:gmatch("[^%s,]+") do
    local key, text = part:match("^(%a+)=(.+)$")
    if key ~= "lock" and key ~= "statement" then
      return nil, "must look like `lock=2s statement=5m`"
    end
    local ms, wrong = duration.parse(text)
    if not ms then
      return nil, wrong
    end
    result[key] = ms
  end
  return result
end

local function read_versions(value)
  return header.keys.completes(text_util.list(value:gsub("%s+", ",")))
end

local function read_boolean(value)
  if value == "true" or value == "false" then
    return value == "true"
  end
  return nil, ("must be true or false, not \"%s\""):format(value)
end

local function as_text(value)
  return value
end

local readers = {
  description = as_text, purpose = as_text, owner = as_text, rationale = as_text, id = as_text,
  irreversible = as_text, data_preservation = as_text, phase = read_choice("phase"), scope = read_choice("scope"),
  compatibility = read_choice("compatibility"), timeouts = read_timeouts, completes = read_versions,
  barrier = read_boolean, tags = text_util.list,
}

-- Words whose misspelling would change what happens; prose like "-- note: x" is left alone.
local watched = { "phase", "scope", "compatibility", "irreversible", "timeouts", "completes", "barrier" }

local function misspelt(key)
  if #key < 4 then
    return nil
  end
  for _, known in ipairs(watched) do
    local distance = nearest.distance(key, known)
    if distance > 0 and distance <= (#known > 5 and 2 or 1) then
      return known
    end
  end
end

--- Reads `-- key: value` comments of the head.
local function read_head(head, report)
  local fields, line_number = {}, 0
  for line in (head .. "\n"):gmatch("([^\n]*)\n") do
    line_number = line_number + 1
    local key, value = line:match("^%s*%-%-+%s*([%a_]+)%s*:%s*(.-)%s*$")
    key = key and key:lower()
    if key == "irreversible" and value == "" then -- it would be reverted as if nothing had been said
      report { line = line_number, column = 1, message = "\"irreversible\" has no reason",
        hint = "say why there is no way back: -- irreversible: the rows are gone" }
    elseif key and value ~= "" then
      local reader = readers[key]
      if reader and fields[key] == nil then
        local good, wrong, hint = reader(value)
        if wrong then
          report { line = line_number, column = 1, message = ("\"%s\" %s"):format(key, wrong), hint = hint }
        end
        fields[key] = good
      elseif not reader then
        local meant = misspelt(key)
        -- a typo matters when the value would have meant something
        local choice = meant and header.choices[meant]
        if meant and (not choice or header.choice(meant, value)) then
          report {
            line = line_number, column = 1, message = ("unknown key \"%s\" in the file's head"):format(key),
            hint = ("did you mean \"%s\"?"):format(meant),
          }
        end
      end
    end
  end
  fields.description = fields.description or fields.purpose
  return fields
end

--- Blocks of one direction over all sections -> STEP, whether all of it is transactional, and whether
--- there is a statement in it.
local function make_step(entry, sections, direction, report)
  local source = {
    file = entry.file, text = entry.text, origin_line = 1, report = report,
    directive = "migrate:" .. direction,
  }
  local step = { kind = "sql", text = entry.text, origin_line = 1, blocks = {} }
  local transaction, any = true, false
  for _, section in ipairs(sections) do
    local block = section[direction]
    if block then
      local own = { first = block.first, last = block.last, line = block.line, transaction = block.transaction }
      sql_check.block(source, own)
      step.blocks[#step.blocks + 1] = own
      transaction = transaction and block.transaction
      any = any or (own.statements and #own.statements > 0) or false
    end
  end
  return step, transaction, any
end

--- Reads a .sql migration.
---@param entry table from the registry: file, text, ...
---@return table? fields of the migration: header, up, down, sections; nil with problems
---@return table[] problems { file, line, column, message, hint }
function M.read(entry)
  local problems = {}
  local function report(problem)
    problem.file = entry.file
    problems[#problems + 1] = problem
  end
  if entry.text:find("\0", 1, true) then
    report {
      line = text_util.line_at(entry.text, entry.text:find("\0", 1, true)),
      message = "the file contains a zero byte, which no SQL text can hold",
    }
    return nil, problems
  end
  local parsed, wrong = sql.dbmate(entry.text)
  if not parsed then
    for _, problem in ipairs(wrong) do
      report { line = problem.line, column = problem.column, message = problem.message, hint = problem.hint }
    end
    return nil, problems
  end
  local head = entry.text:sub(1, parsed.header_last):gsub("^\239\187\191", "")
  local fields = read_head(head, report)
  local any_down
  fields.up, fields.transaction = make_step(entry, parsed.sections, "up", report)
  fields.down, fields.down_transaction, any_down = make_step(entry, parsed.sections, "down", report)
  fields.sections = #parsed.sections
  if fields.irreversible then
    if any_down then
      report {
        line = fields.down.blocks[1].line, column = 1,
        message = "the migration has a down and says it is irreversible",
        hint = "empty the down block, or remove the comment",
      }
    end
    fields.down, fields.down_transaction = nil, nil
  end
  if #problems > 0 then
    return nil, problems
  end
  return header.defaults(fields), problems
end

return M
