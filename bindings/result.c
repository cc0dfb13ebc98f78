/*
 * result.c - one statement's answer as a userdata: rows are converted when they are asked for, so a
 * result of any size costs Lua one row at a time.
 *
 * Types: int2/4/8 and oid -> integer, bool -> boolean, float4/8 -> float, bytea -> byte string, NULL ->
 * nil, all else the server's exact text. The column names are kept as Lua strings in the user value.
 */
#include "bindings/result.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#include "engine/pg/result.h"

#define RESULT "moonbird.result"

typedef struct result_box {
    mb_result *result;
} result_box;

static result_box *check_at(lua_State *L, int index)
{
    result_box *box = luaL_checkudata(L, index, RESULT);
    luaL_argcheck(L, box->result, index, "the result is closed");
    return box;
}

static result_box *check(lua_State *L)
{
    return check_at(L, 1);
}

void *mbl_result_new(lua_State *L)
{
    result_box *box = lua_newuserdatauv(L, sizeof *box, 1);
    box->result = NULL;
    luaL_setmetatable(L, RESULT);
    return box;
}

void mbl_result_fill(void *slot, mb_result *result)
{
    ((result_box *)slot)->result = result;
}

/* The server's own text of an integer, which fits by definition. strtoll would look at the locale. */
static lua_Integer parse_integer(const char *text)
{
    const char *p = text + (*text == '-');
    uint64_t n = 0;
    for (; *p; p++)
        n = n * 10 + (uint64_t)(*p - '0');
    return (lua_Integer)(*text == '-' ? 0 - n : n);
}

static void push_value(lua_State *L, const mb_result *result, int row, int column)
{
    size_t len;
    const char *text = mb_result_value(result, row, column, &len);
    if (!text) {
        lua_pushnil(L);
        return;
    }
    switch (mb_result_type(result, column)) {
    case MB_OID_INT2:
    case MB_OID_INT4:
    case MB_OID_INT8:
    case MB_OID_OID:
        lua_pushinteger(L, parse_integer(text));
        break;
    case MB_OID_BOOL:
        lua_pushboolean(L, text[0] == 't');
        break;
    case MB_OID_FLOAT4:
    case MB_OID_FLOAT8:
        lua_pushnumber(L, strtod(text, NULL)); /* knows "Infinity" and "NaN" */
        break;
    case MB_OID_BYTEA: {
        size_t size;
        unsigned char *bytes = mb_bytea_decode(text, &size);
        /* lua_pushlstring may raise for want of memory, which ends the task; the bytes leak then. */
        lua_pushlstring(L, bytes ? (const char *)bytes : text, bytes ? size : len);
        mb_bytea_free(bytes);
        break;
    }
    default:
        lua_pushlstring(L, text, len);
    }
}

/* Pushes the table of column names, made once. */
static void push_names(lua_State *L, const mb_result *result)
{
    if (lua_getiuservalue(L, 1, 1) == LUA_TTABLE)
        return;
    lua_pop(L, 1);
    int columns = mb_result_columns(result);
    lua_createtable(L, columns, 0);
    for (int i = 0; i < columns; i++) {
        lua_pushstring(L, mb_result_name(result, i));
        lua_rawseti(L, -2, i + 1);
    }
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, 1, 1);
}

static void push_row(lua_State *L, const mb_result *result, int row, int names)
{
    int columns = mb_result_columns(result);
    lua_createtable(L, 0, columns);
    for (int i = 0; i < columns; i++) {
        lua_rawgeti(L, names, i + 1);
        push_value(L, result, row, i);
        lua_rawset(L, -3);
    }
}

/* result:count() -> number of rows */
static int l_result_count(lua_State *L)
{
    lua_pushinteger(L, mb_result_rows(check(L)->result));
    return 1;
}

/* result:columns() -> array of column names */
static int l_result_columns(lua_State *L)
{
    push_names(L, check(L)->result);
    return 1;
}

/* result:row(i) -> the i-th row (from 1) as a table by column name, or nil past the end */
static int l_result_row(lua_State *L)
{
    const mb_result *result = check(L)->result;
    lua_Integer row = luaL_checkinteger(L, 2);
    if (row < 1 || row > mb_result_rows(result))
        return 0;
    lua_settop(L, 2);
    push_names(L, result);
    push_row(L, result, (int)row - 1, 3);
    return 1;
}

/* result:rows() -> array of all rows */
static int l_result_rows(lua_State *L)
{
    const mb_result *result = check(L)->result;
    int count = mb_result_rows(result);
    lua_settop(L, 1);
    push_names(L, result);
    lua_createtable(L, count, 0);
    for (int i = 0; i < count; i++) {
        push_row(L, result, i, 2);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

/* An iterator over the rows of results that come one after the other: upvalues are the present result (or
 * nil), the number of rows given, the column names and `refill`, which returns the next result or nil. In C,
 * because a million rows would spend most of their time in a Lua iterator's instructions. */
enum { UP_RESULT = 1, UP_GIVEN, UP_NAMES, UP_REFILL };

static int give_row(lua_State *L, const mb_result *result, lua_Integer given)
{
    lua_pushinteger(L, given + 1);
    lua_replace(L, lua_upvalueindex(UP_GIVEN));
    push_row(L, result, (int)given, lua_upvalueindex(UP_NAMES));
    return 1;
}

static int refilled_k(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    (void)ctx;
    result_box *box = luaL_testudata(L, -1, RESULT);
    if (!box || !box->result || mb_result_rows(box->result) == 0)
        return 0;
    lua_replace(L, lua_upvalueindex(UP_RESULT));
    lua_settop(L, 0);
    lua_pushvalue(L, lua_upvalueindex(UP_RESULT));
    push_names(L, box->result);
    lua_replace(L, lua_upvalueindex(UP_NAMES));
    return give_row(L, box->result, 0);
}

static int l_next_row(lua_State *L)
{
    result_box *box = lua_touserdata(L, lua_upvalueindex(UP_RESULT));
    lua_Integer given = lua_tointeger(L, lua_upvalueindex(UP_GIVEN));
    if (box && box->result && given < mb_result_rows(box->result))
        return give_row(L, box->result, given);
    lua_settop(L, 0);
    lua_pushvalue(L, lua_upvalueindex(UP_REFILL));
    lua_callk(L, 0, 1, 0, refilled_k);
    return refilled_k(L, LUA_OK, 0);
}

int mbl_result_iterator(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_settop(L, 1);
    lua_pushnil(L);
    lua_pushinteger(L, 0);
    lua_pushnil(L);
    lua_pushvalue(L, 1);
    lua_pushcclosure(L, l_next_row, 4);
    return 1;
}

/* result:value(i, column) -> one value by row and column number (from 1), nil past the end */
static int l_result_value(lua_State *L)
{
    const mb_result *result = check(L)->result;
    lua_Integer row = luaL_checkinteger(L, 2);
    lua_Integer column = luaL_optinteger(L, 3, 1);
    if (row < 1 || row > mb_result_rows(result) || column < 1 ||
        column > mb_result_columns(result))
        return 0;
    push_value(L, result, (int)row - 1, (int)column - 1);
    return 1;
}

const char *mbl_result_cell(lua_State *L, int index, size_t *len)
{
    const mb_result *result = check_at(L, index)->result;
    lua_Integer row = luaL_checkinteger(L, index + 1);
    lua_Integer column = luaL_checkinteger(L, index + 2);
    luaL_argcheck(L, row >= 1 && row <= mb_result_rows(result), index + 1, "no such row");
    luaL_argcheck(L, column >= 1 && column <= mb_result_columns(result), index + 2, "no such column");
    return mb_result_value(result, (int)row - 1, (int)column - 1, len);
}

/* result:text(i, column) -> a value as the server wrote it, nil for NULL */
static int l_result_text(lua_State *L)
{
    size_t len;
    const char *text = mbl_result_cell(L, 1, &len);
    if (!text)
        return 0;
    lua_pushlstring(L, text, len);
    return 1;
}

/* result:tag() -> command tag, e.g. "INSERT 0 3" */
static int l_result_tag(lua_State *L)
{
    lua_pushstring(L, mb_result_tag(check(L)->result));
    return 1;
}

/* result:affected() -> rows changed or returned, or nil when the command has no count */
static int l_result_affected(lua_State *L)
{
    int64_t count = mb_result_affected(check(L)->result);
    if (count < 0)
        return 0;
    lua_pushinteger(L, count);
    return 1;
}

/* result:memory() -> bytes libpq holds for it */
static int l_result_memory(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)mb_result_memory(check(L)->result));
    return 1;
}

/* result:close(), also __gc and __close */
static int l_result_close(lua_State *L)
{
    result_box *box = luaL_checkudata(L, 1, RESULT);
    mb_result_free(&box->result);
    return 0;
}

void mbl_result_open(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"count", l_result_count}, {"columns", l_result_columns},   {"row", l_result_row},
        {"rows", l_result_rows},   {"value", l_result_value},       {"text", l_result_text},
        {"tag", l_result_tag},
        {"close", l_result_close}, {"affected", l_result_affected},
        {"memory", l_result_memory}, {NULL, NULL}};
    if (luaL_newmetatable(L, RESULT)) {
        lua_newtable(L);
        luaL_setfuncs(L, methods, 0);
        lua_setfield(L, -2, "__index");
        lua_pushcfunction(L, l_result_close);
        lua_setfield(L, -2, "__gc");
        lua_pushcfunction(L, l_result_close);
        lua_setfield(L, -2, "__close");
        lua_pushboolean(L, false);
        lua_setfield(L, -2, "__metatable");
    }
    lua_pop(L, 1);
}
