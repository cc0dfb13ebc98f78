-- Settings of luacheck; tests/run checks lua/, tests/, examples/ and bindings/embed.lua with them.
std = "lua54"
max_line_length = 120
cache = false
exclude_files = { "build*/", ".deps/", "examples/*/.moonbird/" }

files["tests/**/*_spec.lua"] = { std = "+busted", max_line_length = 130 }

-- Whole migrations stand there in one string each, which reads better unbroken.
files["tests/integration/*_spec.lua"] = { std = "+busted", max_line_length = 180 }

-- What a configuration may call.
files["examples/*/moonbird.lua"] = { read_globals = { "env", "tenants" } }

-- Only annotations: every name in them is there to be read by LuaLS.
files["lua/types"] = { ignore = { "111", "112", "113", "121", "122", "131", "211", "212", "241" } }
