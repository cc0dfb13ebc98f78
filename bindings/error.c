/*
 * error.c - mb_error as a Lua table, and the table of codes (module moonbird.native.error).
 */
#include "bindings/error.h"

#include <lauxlib.h>
#include <stdarg.h>

#include "bindings/natives.h"

#define METATABLE "moonbird.error"

static void set_string(lua_State *L, const char *key, const char *value)
{
    if (value && *value) {
        lua_pushstring(L, value);
        lua_setfield(L, -2, key);
    }
}

void mbl_push_error(lua_State *L, const mb_error *err)
{
    lua_createtable(L, 0, 8);
    set_string(L, "code", mb_code_name(err->code));
    set_string(L, "message", err->message ? err->message : mb_code_meaning(err->code));
    set_string(L, "sqlstate", err->sqlstate);
    set_string(L, "severity", err->severity);
    set_string(L, "detail", err->detail);
    set_string(L, "hint", err->hint);
    set_string(L, "context", err->context);
    set_string(L, "schema_name", err->schema);
    set_string(L, "table_name", err->table);
    set_string(L, "column_name", err->column);
    set_string(L, "constraint_name", err->constraint);
    if (err->position > 0) {
        lua_pushinteger(L, err->position);
        lua_setfield(L, -2, "position");
    }
    luaL_newmetatable(L, METATABLE);
    lua_setmetatable(L, -2);
}

int mbl_fail(lua_State *L, mb_error *err)
{
    lua_pushnil(L);
    mbl_push_error(L, err);
    mb_error_clear(err);
    return 2;
}

int mbl_raise(lua_State *L, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    lua_pushvfstring(L, fmt, args);
    va_end(args);
    return lua_error(L);
}

int luaopen_moonbird_native_error(lua_State *L)
{
    lua_createtable(L, 0, 2);
    luaL_newmetatable(L, METATABLE);
    lua_setfield(L, -2, "metatable");
    lua_createtable(L, 0, MB_CODE_COUNT);
    for (int code = 0; code < MB_CODE_COUNT; code++) {
        lua_createtable(L, 0, 4);
        lua_pushinteger(L, mb_code_status((mb_code)code));
        lua_setfield(L, -2, "status");
        set_string(L, "meaning", mb_code_meaning((mb_code)code));
        set_string(L, "advice", mb_code_advice((mb_code)code));
        lua_pushinteger(L, code);
        lua_setfield(L, -2, "ordinal");
        lua_setfield(L, -2, mb_code_name((mb_code)code));
    }
    lua_setfield(L, -2, "codes");
    return 1;
}
