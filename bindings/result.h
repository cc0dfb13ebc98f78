/*
 * result.h - results as userdata, for bindings/conn.c.
 */
#ifndef MBL_RESULT_H
#define MBL_RESULT_H

#include <lua.h>

#include "engine/pg/result.h"

/* Registers the metatable. Idempotent. */
void mbl_result_open(lua_State *L);
/* Pushes an empty result and returns its slot: made first, filled after, so that nothing leaks when the
 * push raises. */
void *mbl_result_new(lua_State *L);
/* Gives `result` over to the slot. */
void mbl_result_fill(void *slot, mb_result *result);

/* iterator(refill) -> function that returns the rows of the results refill() gives, until it gives none. */
int mbl_result_iterator(lua_State *L);

#endif
