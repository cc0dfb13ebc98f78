--- Tenants times versions: as text, or as one HTML page that needs nothing from elsewhere.
local json = require "moonbird.core.json"
local number = require "moonbird.report.overview".number
local style = require "moonbird.report.style"
local text = require "moonbird.util.text"

local M = {}

---@class moonbird.matrix
---@field title string
---@field versions { version: integer, id: string }[]
---@field groups { cells: string, count: integer }[] one letter of CELLS for each version
---@field tenants { name: string, group: integer, labels: string, note: string }[] group: index, 0 for not reachable

-- What a cell's letter means, in the order of the legend.
M.CELLS = {
  { "#", "applied", "#2e9e5b" }, { ".", "pending", "#d9dce1" }, { "!", "failed", "#d43c3c" },
  { "~", "applied, the file was changed afterwards", "#e08a1e" }, { "?", "applied, the file is gone", "#a05bd0" },
  { "-", "kept away by a pin", "#8fa6c4" }, { "h", "held back", "#b9c7a3" },
}

local FEW = 60 -- tenants that get a line each

local function legend(report, matrix)
  local used, parts = {}, {}
  for _, group in ipairs(matrix.groups) do
    for cell in group.cells:gmatch(".") do
      used[cell] = true
    end
  end
  for _, cell in ipairs(M.CELLS) do
    if used[cell[1]] then
      parts[#parts + 1] = ("%s %s"):format(cell[1], cell[2])
    end
  end
  if #parts > 0 then
    report:write(table.concat(parts, ", ") .. "\n")
  end
end

local COLOURS = { ["#"] = "green", ["."] = "yellow", ["!"] = "red", ["~"] = "red", ["?"] = "red", ["-"] = "dim",
  h = "dim" }

local function painted(report, cells)
  return (cells:gsub("(.)(%1*)", function(cell, more)
    return report.out[COLOURS[cell]](cell .. more)
  end))
end

--- The matrix as text: a line for each tenant, or for each group where there are many.
---@param report moonbird.reporter
---@param matrix moonbird.matrix
function M.print(report, matrix)
  local rows = {}
  for i, version in ipairs(matrix.versions) do
    rows[i] = { ("%d."):format(i), version.id }
  end
  report:write(style.columns(rows))
  legend(report, matrix)
  report:write("\n")
  rows = {}
  if #matrix.tenants <= FEW then
    for i, tenant in ipairs(matrix.tenants) do
      local group = matrix.groups[tenant.group]
      rows[i] = { tenant.name, group and painted(report, group.cells) or report.out.red("not reachable"), tenant.note }
    end
  else
    local example = {}
    for _, tenant in ipairs(matrix.tenants) do
      example[tenant.group] = example[tenant.group] or tenant.name
    end
    for i, group in ipairs(matrix.groups) do
      rows[i] = { text.count(group.count, "tenant"), painted(report, group.cells), report.out.dim("as " .. example[i]) }
    end
    if example[0] then
      rows[#rows + 1] = { "some", report.out.red("not reachable"), report.out.dim("as " .. example[0]) }
    end
  end
  report:write(style.columns(rows))
  if #matrix.tenants > FEW then
    report:write(("%s tenants; --html FILE shows each\n"):format(number(#matrix.tenants)))
  end
end

local ENTITIES = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&#39;" }

local function escaped(value)
  return (value:gsub("[&<>\"']", ENTITIES))
end

-- Only the rows in sight are elements, so that ten thousand tenants are no more work than forty.
local PAGE = [==[
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>$TITLE</title>
<style>
body { margin: 0; font: 13px/1.4 system-ui, sans-serif; color: #1c2330; background: #fff; display: flex;
  flex-direction: column; height: 100vh; }
header { padding: 10px 14px; border-bottom: 1px solid #d9dce1; }
h1 { font-size: 16px; margin: 0 0 6px; }
input { font: inherit; padding: 3px 6px; width: 22em; }
.legend span { margin-right: 14px; white-space: nowrap; }
.legend i, .row i { display: inline-block; width: 14px; height: 14px; border-radius: 2px; }
.legend i { vertical-align: -2px; margin-right: 4px; }
#box { flex: 1; overflow: auto; position: relative; }
#head { position: sticky; top: 0; background: #fff; z-index: 1; display: flex; align-items: end;
  border-bottom: 1px solid #d9dce1; width: max-content; min-width: 100%; }
#head b { width: 260px; flex: none; padding-left: 14px; }
#head span { width: 18px; flex: none; writing-mode: vertical-rl; transform: rotate(180deg); max-height: 220px;
  overflow: hidden; font: 11px ui-monospace, monospace; padding: 4px 0; }
#rows { position: relative; }
.row { position: absolute; left: 0; height: 20px; display: flex; align-items: center; white-space: nowrap; }
.row b { width: 260px; flex: none; padding-left: 14px; font-weight: normal; overflow: hidden;
  text-overflow: ellipsis; }
.row i { margin: 0 2px; flex: none; }
.row em { color: #6a7382; margin-left: 12px; }
</style>
</head>
<body>
<header>
<h1>$TITLE</h1>
<p class="legend">$LEGEND</p>
<label>Filter <input id="filter" type="search" placeholder="name, label or note"></label> <span id="count"></span>
</header>
<div id="box"><div id="head"><b>tenant</b></div><div id="rows"></div></div>
<noscript><p>$SUMMARY</p></noscript>
<script type="application/json" id="data">$DATA</script>
<script>
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const cells = new Map(data.cells.map(c => [c[0], { what: c[1], colour: c[2] }]));
const [box, rows, head] = ["box", "rows", "head"].map(id => document.getElementById(id));
const HEIGHT = 20;
let shown = data.tenants;
for (const version of data.versions) {
  const label = document.createElement("span");
  label.textContent = version[1];
  label.title = version[1];
  head.append(label);
}
function row(tenant, index) {
  const line = document.createElement("div");
  line.className = "row";
  line.style.top = index * HEIGHT + "px";
  const name = document.createElement("b");
  name.textContent = name.title = tenant[0];
  line.append(name);
  const group = data.groups[tenant[1] - 1];
  if (group) {
    Array.from(group).forEach((letter, at) => {
      const cell = document.createElement("i");
      cell.style.background = cells.get(letter).colour;
      cell.title = data.versions[at][1] + ": " + cells.get(letter).what;
      line.append(cell);
    });
  }
  const note = document.createElement("em");
  note.textContent = [tenant[2], group ? tenant[3] : "not reachable. " + tenant[3]].filter(Boolean).join("  ");
  line.append(note);
  return line;
}
function draw() {
  const first = Math.max(0, Math.floor((box.scrollTop - head.offsetHeight) / HEIGHT) - 5);
  const last = Math.min(shown.length, first + Math.ceil(box.clientHeight / HEIGHT) + 10);
  rows.style.height = shown.length * HEIGHT + "px";
  rows.replaceChildren(...shown.slice(first, last).map((tenant, i) => row(tenant, first + i)));
  document.getElementById("count").textContent = shown.length + " of " + data.tenants.length;
}
document.getElementById("filter").addEventListener("input", event => {
  const word = event.target.value.trim().toLowerCase();
  shown = data.tenants.filter(t => (t[0] + "\n" + t[2] + "\n" + t[3]).toLowerCase().includes(word));
  box.scrollTop = 0;
  draw();
});
box.addEventListener("scroll", () => requestAnimationFrame(draw));
addEventListener("resize", draw);
draw();
</script>
</body>
</html>
]==]

--- The matrix as an HTML page.
---@param matrix moonbird.matrix
---@return string
function M.html(matrix)
  local data = { cells = json.array {}, versions = json.array {}, groups = json.array {}, tenants = json.array {} }
  local legends = {}
  for i, cell in ipairs(M.CELLS) do
    data.cells[i] = json.array { cell[1], cell[2], cell[3] }
    legends[i] = ("<span><i style=\"background:%s\"></i>%s</span>"):format(cell[3], escaped(cell[2]))
  end
  for i, version in ipairs(matrix.versions) do
    data.versions[i] = json.array { tostring(version.version), version.id }
  end
  for i, group in ipairs(matrix.groups) do
    data.groups[i] = group.cells
  end
  for i, tenant in ipairs(matrix.tenants) do
    data.tenants[i] = json.array { tenant.name, tenant.group, tenant.labels, tenant.note }
  end
  local values = {
    TITLE = escaped(matrix.title), LEGEND = table.concat(legends, "\n"),
    SUMMARY = ("%s tenants, %s versions; the table needs JavaScript."):format(number(#matrix.tenants),
      number(#matrix.versions)),
    -- Inside a script element only "<" can end it.
    DATA = json.encode(data):gsub("<", "\\u003c"):gsub("\u{2028}", "\\u2028"):gsub("\u{2029}", "\\u2029"),
  }
  return (PAGE:gsub("%$(%u+)", values))
end

--- The matrix as data.
---@param matrix moonbird.matrix
---@return table
function M.data(matrix)
  local versions, list = json.array {}, json.array {}
  for i, version in ipairs(matrix.versions) do
    versions[i] = { version = version.version, id = version.id }
  end
  for i, tenant in ipairs(matrix.tenants) do
    local group = matrix.groups[tenant.group]
    list[i] = { name = tenant.name, cells = group and group.cells or nil }
  end
  return { versions = versions, tenants = list }
end

return M
