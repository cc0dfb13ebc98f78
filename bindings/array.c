/*
 * array.c - one-dimensional array literals, built value by value (module moonbird.native.array):
 * what a column of a batch is sent as. In C because a value costs Lua several strings, and a batch
 * has thousands of them.
 *
 * The text is outside of Lua's memory and of a sandbox's limit: whoever builds one looks at size().
 */
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

#include "bindings/error.h"
#include "bindings/natives.h"
#include "bindings/result.h"
#include "engine/base/buf.h"
#include "engine/base/number.h"

#define ARRAY "moonbird.array"

typedef struct array_box {
    mb_buf text; /* "{a,b": the end is added by text() */
    lua_Integer count;
} array_box;

static array_box *check(lua_State *L)
{
    return luaL_checkudata(L, 1, ARRAY);
}

static void begin_element(array_box *array)
{
    mb_buf_addc(&array->text, array->count++ ? ',' : '{');
}

static void add_null(array_box *array)
{
    begin_element(array);
    mb_buf_adds(&array->text, "NULL");
}

static void add_quoted(array_box *array, const char *text, size_t len)
{
    begin_element(array);
    char *to = mb_buf_reserve(&array->text, len * 2 + 2);
    char *p = to;
    *p++ = '"';
    for (const char *from = text, *end = text + len; from < end; from++) {
        if (*from == '"' || *from == '\\')
            *p++ = '\\';
        *p++ = *from;
    }
    *p++ = '"';
    array->text.len += (size_t)(p - to);
    *p = '\0';
}

static void add_hex(array_box *array, const char *bytes, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    begin_element(array);
    mb_buf_adds(&array->text, "\"\\\\x");
    char *p = mb_buf_reserve(&array->text, len * 2);
    for (size_t i = 0; i < len; i++) {
        unsigned char byte = (unsigned char)bytes[i];
        *p++ = digits[byte >> 4];
        *p++ = digits[byte & 15];
    }
    array->text.len += len * 2;
    mb_buf_addc(&array->text, '"');
}

/* new() -> an empty array */
static int l_array_new(lua_State *L)
{
    array_box *array = lua_newuserdatauv(L, sizeof *array, 0);
    *array = (array_box){MB_BUF_INIT, 0};
    luaL_setmetatable(L, ARRAY);
    return 1;
}

/* array:add(value [, bytes]): appends a string (with `bytes` as bytea), a number, a boolean, or
 * NULL for nil and json.null. Raises for everything else, and for a NUL byte in text, which no
 * server takes. */
static int l_array_add(lua_State *L)
{
    array_box *array = check(L);
    char number[48];
    size_t len;
    const char *text;
    switch (lua_type(L, 2)) {
    case LUA_TNONE:
    case LUA_TNIL:
    case LUA_TLIGHTUSERDATA:
        add_null(array);
        return 0;
    case LUA_TBOOLEAN:
        add_quoted(array, lua_toboolean(L, 2) ? "t" : "f", 1);
        return 0;
    case LUA_TNUMBER:
        if (lua_isinteger(L, 2))
            snprintf(number, sizeof number, LUA_INTEGER_FMT, (LUAI_UACINT)lua_tointeger(L, 2));
        else
            mb_float_text(number, lua_tonumber(L, 2));
        add_quoted(array, number, strlen(number));
        return 0;
    case LUA_TSTRING:
        text = lua_tolstring(L, 2, &len);
        if (lua_toboolean(L, 3))
            add_hex(array, text, len);
        else if (memchr(text, 0, len))
            return mbl_raise(L, "text can't hold a NUL byte");
        else
            add_quoted(array, text, len);
        return 0;
    default:
        return luaL_argerror(L, 2, "an array can't hold such a value");
    }
}

/* array:add_cell(result, row, column): appends a value of a result as the server wrote it. */
static int l_array_add_cell(lua_State *L)
{
    array_box *array = check(L);
    size_t len;
    const char *text = mbl_result_cell(L, 2, &len);
    if (text)
        add_quoted(array, text, len);
    else
        add_null(array);
    return 0;
}

/* array:count() -> elements */
static int l_array_count(lua_State *L)
{
    lua_pushinteger(L, check(L)->count);
    return 1;
}

/* array:size() -> bytes of its text */
static int l_array_size(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)check(L)->text.len);
    return 1;
}

/* array:text() -> "{...}" */
static int l_array_text(lua_State *L)
{
    array_box *array = check(L);
    if (!array->count) {
        lua_pushliteral(L, "{}");
        return 1;
    }
    mb_buf_addc(&array->text, '}');
    array->text.len--; /* the next element goes over it */
    lua_pushlstring(L, array->text.data, array->text.len + 1);
    return 1;
}

/* array:clear(): empty again; its memory stays for what comes next. */
static int l_array_clear(lua_State *L)
{
    array_box *array = check(L);
    mb_buf_clear(&array->text);
    array->count = 0;
    return 0;
}

/* __gc and __close */
static int l_array_free(lua_State *L)
{
    array_box *array = check(L);
    mb_buf_free(&array->text);
    array->count = 0;
    return 0;
}

int luaopen_moonbird_native_array(lua_State *L)
{
    static const luaL_Reg methods[] = {{"add", l_array_add},
                                       {"add_cell", l_array_add_cell},
                                       {"count", l_array_count},
                                       {"size", l_array_size},
                                       {"text", l_array_text},
                                       {"clear", l_array_clear},
                                       {NULL, NULL}};
    static const luaL_Reg functions[] = {{"new", l_array_new}, {NULL, NULL}};
    mbl_result_open(L);
    if (luaL_newmetatable(L, ARRAY)) {
        lua_newtable(L);
        luaL_setfuncs(L, methods, 0);
        lua_setfield(L, -2, "__index");
        lua_pushcfunction(L, l_array_free);
        lua_setfield(L, -2, "__gc");
        lua_pushcfunction(L, l_array_free);
        lua_setfield(L, -2, "__close");
        lua_pushboolean(L, false);
        lua_setfield(L, -2, "__metatable");
    }
    lua_pop(L, 1);
    luaL_newlib(L, functions);
    return 1;
}
