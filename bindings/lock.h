/*
 * lock.h - advisory file locks for Lua, part of module moonbird.native.process.
 */
#ifndef MBL_LOCK_H
#define MBL_LOCK_H

#include <lua.h>

/* lock(path) -> lock, or nil, message, errno name: the Lua function that opens a lock file. */
int mbl_lock_open(lua_State *L);
/* Makes the metatable; to be called once before mbl_lock_open(). */
void mbl_lock_register(lua_State *L);

#endif
