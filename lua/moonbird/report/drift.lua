--- What `tenant drift` found, for people and as data.
local json = require "moonbird.core.json"
local number = require "moonbird.report.overview".number
local text = require "moonbird.util.text"

local M = {}

local NAMED = 5 -- tenants named of a group
local SHOWN = 20 -- differences shown of a group
local WIDTH = 160 -- of a definition

local function names_of(tenants)
  local names = {}
  for i = 1, math.min(#tenants, NAMED) do
    names[i] = tenants[i].name
  end
  return table.concat(names, ", ") .. (#tenants > NAMED and (" and %s more"):format(number(#tenants - NAMED)) or "")
end

local function short(definition)
  definition = definition:gsub("%s+", " ")
  if #definition > WIDTH then
    local at = WIDTH
    while at > 1 and (definition:byte(at + 1) or 0) & 0xC0 == 0x80 do
      at = at - 1 -- not in the middle of a character
    end
    definition = definition:sub(1, at) .. " ..."
  end
  return definition
end

--- Where two long texts first differ, so that what is shown is what matters.
local function around(one, other)
  one, other = one:gsub("%s+", " "), other:gsub("%s+", " ")
  local at = 1
  while at <= #one and one:byte(at) == other:byte(at) do
    at = at + 1
  end
  at = at - WIDTH // 2
  if at <= 1 or #one <= WIDTH and #other <= WIDTH then
    return short(one), short(other)
  end
  while at > 1 and ((one:byte(at) or 0) & 0xC0 == 0x80 or (other:byte(at) or 0) & 0xC0 == 0x80) do
    at = at - 1
  end
  return "... " .. short(one:sub(at)), "... " .. short(other:sub(at))
end

local function print_difference(report, item)
  local out = report.out
  if not item.before then
    report:write(("    %s %s%s\n"):format(out.red("more"), item.key, item.after ~= "" and ": " .. short(item.after)
      or ""))
  elseif not item.after then
    report:write(("    %s %s%s\n"):format(out.red("less"), item.key, item.before ~= "" and ": " .. short(item.before)
      or ""))
  else
    local before, after = around(item.before, item.after)
    report:write(("    %s %s\n      others: %s\n      here:   %s\n"):format(out.yellow("other"), item.key, before,
      after))
  end
end

local function print_group(report, set, odd)
  report:write(("  %s: %s\n"):format(report.out.red(text.count(#odd.tenants, "tenant differs", "tenants differ")),
    names_of(odd.tenants)))
  if odd.hash == "" then
    report:write("    the schema does not exist\n")
  elseif not odd.compared then
    report:write("    not compared: too many groups\n")
  elseif #odd.differences == 0 then
    report:write("    it was changed while it was looked at\n")
  end
  for i = 1, math.min(SHOWN, #(odd.differences or {})) do
    print_difference(report, odd.differences[i])
  end
  if #(odd.differences or {}) > SHOWN then
    report:write(("    and %d more differences from %s\n"):format(#odd.differences - SHOWN,
      set.reference.tenants[1].name))
  end
end

--- Shows it.
---@param report moonbird.reporter
---@param drift moonbird.tenants.drift
function M.print(report, drift)
  for _, set in ipairs(drift.sets) do
    report:write(("%s at %s: %s alike, as %s\n"):format(text.count(set.tenants, "tenant"),
      set.version and tostring(set.version) or "no version", number(#set.reference.tenants),
      set.reference.tenants[1].name))
    for _, odd in ipairs(set.groups) do
      print_group(report, set, odd)
    end
  end
  for _, lost in ipairs(drift.unreachable) do
    report:write(("%s can't be asked: %s\n"):format(lost.tenant.name, lost.err.message))
  end
  local parts = { ("%s compared"):format(text.count(drift.checked, "tenant")),
    drift.drifted == 0 and "none differs from the others at its version"
      or ("%s drifted"):format(number(drift.drifted)) }
  if #drift.alone > 0 then
    parts[#parts + 1] = ("%s alone with their versions, compared with nobody"):format(number(#drift.alone))
  end
  if #drift.pinned > 0 then
    parts[#parts + 1] = ("%s pinned, left out"):format(number(#drift.pinned))
  end
  report:write(table.concat(parts, "; ") .. "\n")
end

local function names(tenants)
  local list = json.array {}
  for i, tenant in ipairs(tenants) do
    list[i] = tenant.name
  end
  return list
end

--- As data.
---@param drift moonbird.tenants.drift
---@return table
function M.data(drift)
  local sets, lost = json.array {}, json.array {}
  for i, set in ipairs(drift.sets) do
    local groups = json.array {}
    for j, odd in ipairs(set.groups) do
      local differences = json.array {}
      for k, item in ipairs(odd.differences or {}) do
        differences[k] = { object = item.key, others = item.before, here = item.after }
      end
      groups[j] = { tenants = names(odd.tenants), missing = odd.hash == "", compared = odd.compared or false,
        differences = differences }
    end
    sets[i] = { version = set.version, tenants = set.tenants, alike = #set.reference.tenants,
      reference = set.reference.tenants[1].name, groups = groups }
  end
  for i, item in ipairs(drift.unreachable) do
    lost[i] = { tenant = item.tenant.name, error = item.err.message }
  end
  return { checked = drift.checked, drifted = drift.drifted, sets = sets, alone = json.array(drift.alone),
    pinned = json.array(drift.pinned), unreachable = lost }
end

return M
