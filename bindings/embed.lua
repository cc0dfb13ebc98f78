-- embed.lua OUT ROOT ARGPARSE: writes one C file that holds the Lua layer and the journal's migrations.
--
-- Modules are compiled here, with their line numbers: parsing them at each start took 5 ms of the 20 that
-- a run with nothing to do takes. That ties the binary to the build host's Lua, which is the very library
-- it is linked with (liblua5.4.a and lua5.4 are one Debian source); loading checks the format.
-- The shape (one array per module and an index of them) is the one Neovim's gen_char_blob uses.

local out_path, root, argparse = arg[1], arg[2], arg[3]

local function list(dir)
  local names = {}
  for name in assert(io.popen('find "' .. dir .. '" -type f | LC_ALL=C sort')):lines() do
    names[#names + 1] = name
  end
  return names
end

local function slurp(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read("a")
end

local function bytes(text)
  local parts = {}
  for i = 1, #text, 32 do
    parts[#parts + 1] = table.concat({ text:byte(i, math.min(i + 31, #text)) }, ",")
  end
  return table.concat(parts, ",\n")
end

local entries = {}
local function add(name, path, kind)
  local text = slurp(path)
  if kind == "module" then
    text = string.dump(assert(load(text, "@" .. name:gsub("%.", "/") .. ".lua", "t")))
  end
  entries[#entries + 1] = { name = name, text = text, kind = kind }
end

for _, path in ipairs(list(root .. "/lua/moonbird")) do
  local rel = path:sub(#root + #"/lua/" + 1)
  if rel:match("%.lua$") then
    add(rel:gsub("%.lua$", ""):gsub("/", "."), path, "module")
  end
end
add("argparse", argparse, "module")
for _, path in ipairs(list(root .. "/migrations")) do
  add(path:match("[^/]+$"), path, "journal")
end

local file <close> = assert(io.open(out_path, "wb"))
file:write('#include "bindings/embedded.h"\n\n')
for i, e in ipairs(entries) do
  file:write("static const unsigned char data_", i, "[] = {\n", bytes(e.text), "};\n")
end
file:write("\nconst mbl_embedded mbl_embedded_files[] = {\n")
for i, e in ipairs(entries) do
  file:write(("    {%q, %q, (const char *)data_%d, sizeof data_%d},\n"):format(e.kind, e.name, i, i))
end
file:write("    {0, 0, 0, 0},\n};\n")
