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

/* The text of a value, of the result at `index` and the row and column (from 1) after it on the stack; NULL for SQL
 * NULL. Raises when there is no such value. Owned by the result. */
const char *mbl_result_cell(lua_State *L, int index, size_t *len);

/* iterator(refill) -> function that returns the rows of the results refill() gives, until it gives none. */
int mbl_result_iterator(lua_State *L);

#endif
