/*
 * sql_tree.h - parse trees for Lua.
 */
#ifndef MBL_SQL_TREE_H
#define MBL_SQL_TREE_H

#include <lua.h>
#include <stdbool.h>

/* Pushes the tree that mb_sql_parse() gave; a lean one has the rows of VALUES without their
 * constants. False, with any number of values pushed, when it is nested too deep. */
bool mbl_push_sql_tree(lua_State *L, const char *json, bool lean);

#endif
