/*
 * natives.h - the native modules that bindings/state.c puts into package.preload.
 * Each luaopen_ function is idempotent: a test runner that re-requires modules calls it again.
 */
#ifndef MBL_NATIVES_H
#define MBL_NATIVES_H

#include <lua.h>

int luaopen_moonbird_native_array(lua_State *L);
int luaopen_moonbird_native_conn(lua_State *L);
int luaopen_moonbird_native_error(lua_State *L);
int luaopen_moonbird_native_fingerprint(lua_State *L);
int luaopen_moonbird_native_fs(lua_State *L);
int luaopen_moonbird_native_json(lua_State *L);
int luaopen_moonbird_native_process(lua_State *L);
int luaopen_moonbird_native_sandbox(lua_State *L);
int luaopen_moonbird_native_sql(lua_State *L);
int luaopen_moonbird_native_sys(lua_State *L);
int luaopen_moonbird_native_task(lua_State *L);

#endif
