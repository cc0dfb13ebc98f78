/*
 * state.h - the Lua state both binaries run.
 */
#ifndef MBL_STATE_H
#define MBL_STATE_H

#include <lua.h>
#include <stdbool.h>

/* A new state with the standard libraries, the native modules and the embedded Lua layer to require.
 * `lua_path` NULL: embedded modules; else modules below that folder win (for developers). `outside`: also
 * modules from LUA_PATH and LUA_CPATH, as a plain interpreter finds them. Close it with
 * mbl_state_close(), which also shuts the scheduler down. NULL when there is no memory. */
lua_State *mbl_state_new(const char *lua_path, bool outside);
void mbl_state_close(lua_State *L);

#endif
