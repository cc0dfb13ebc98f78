/*
 * error.h - the crossing of mb_error into Lua.
 */
#ifndef MBL_ERROR_H
#define MBL_ERROR_H

#include <lua.h>

#include "engine/base/error.h"

/* Marks calls that may raise a Lua error (longjmp): no malloc'd pointer may live in a C local across
 * one. The idea is HAProxy's MAY_LJMP(); the macro generates no code. */
#define MBL_MAY_RAISE(call) call

/* Pushes a table with the fields of `err` and the metatable "moonbird.error". Does not empty err. */
void mbl_push_error(lua_State *L, const mb_error *err);
/* Pushes nil and the error, empties err, returns 2: for `return mbl_fail(L, &err)`. Safe although the
 * pushes may raise only when err is reachable by a box; callers with stack-held errors accept that an
 * out-of-memory error of the Lua allocator leaks its strings, as it ends the task. */
int mbl_fail(lua_State *L, mb_error *err);
/* Raises a text without our caller's position: it is about a script's value, and the sandbox knows the script's
 * place. fmt as lua_pushfstring's. */
int mbl_raise(lua_State *L, const char *fmt, ...);

#endif
