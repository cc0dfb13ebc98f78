/*
 * json.c - JSON by cJSON (module moonbird.native.json).
 *
 * Objects are written with sorted keys, so that equal data gives equal text. Integers keep all 64 bits
 * on the way out; on the way in a number past 2^53 is a float, as cJSON reads doubles. JSON null is the
 * light userdata `null`; an empty table is an object unless made by array().
 */
#include <cjson/cJSON.h>
#include <lauxlib.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bindings/natives.h"
#include "engine/base/base.h"

#define ARRAY "moonbird.json.array"
#define TREE "moonbird.json.tree"
#define MAX_DEPTH 200
#define MAX_EXACT 9007199254740992.0 /* 2^53 */

typedef struct tree_box {
    cJSON *root;
    char *text;
} tree_box;

static int l_tree_gc(lua_State *L)
{
    tree_box *box = luaL_checkudata(L, 1, TREE);
    cJSON_Delete(box->root);
    cJSON_free(box->text);
    box->root = NULL;
    box->text = NULL;
    return 0;
}

static tree_box *push_tree(lua_State *L)
{
    tree_box *box = lua_newuserdatauv(L, sizeof *box, 0);
    box->root = NULL;
    box->text = NULL;
    luaL_setmetatable(L, TREE);
    return box;
}

/* Encoding ---------------------------------------------------------------------------------------- */

static cJSON *encode_value(lua_State *L, int depth, cJSON *parent, const char *key);

static void attach(cJSON *parent, const char *key, cJSON *item)
{
    if (key)
        cJSON_AddItemToObject(parent, key, item);
    else
        cJSON_AddItemToArray(parent, item);
}

static bool is_array(lua_State *L, int index)
{
    if (lua_getmetatable(L, index)) {
        luaL_getmetatable(L, ARRAY);
        bool same = lua_rawequal(L, -1, -2);
        lua_pop(L, 2);
        if (same)
            return true;
    }
    return lua_rawlen(L, index) > 0;
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Adds the members of the table on top of the stack. Keys stay alive: the table holds them. */
static void encode_object(lua_State *L, int depth, cJSON *object)
{
    int table = lua_gettop(L);
    size_t count = 0;
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            luaL_error(L, "JSON objects have string keys only, this one has a %s",
                       luaL_typename(L, -2));
        count++;
    }
    const char **keys = lua_newuserdatauv(L, sizeof *keys * (count ? count : 1), 0);
    size_t i = 0;
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1))
        keys[i++] = lua_tostring(L, -2);
    qsort(keys, count, sizeof *keys, compare_keys);
    for (i = 0; i < count; i++) {
        lua_getfield(L, table, keys[i]);
        encode_value(L, depth + 1, object, keys[i]);
    }
    lua_pop(L, 1);
}

/* The length of the UTF-8 sequence at `p`, or 0 when there is none (also for NUL, which neither cJSON nor
 * jsonb can hold). */
static size_t utf8_length(const unsigned char *p, size_t left)
{
    if (p[0] < 0x80)
        return p[0] != 0;
    size_t len = p[0] >= 0xF0 && p[0] < 0xF5 ? 4 : p[0] >= 0xE0 && p[0] < 0xF0 ? 3
                 : p[0] >= 0xC2 && p[0] < 0xE0 ? 2 : 0;
    if (!len || len > left)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    bool overlong = (p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xF0 && p[1] < 0x90);
    bool outside = (p[0] == 0xED && p[1] >= 0xA0) || (p[0] == 0xF4 && p[1] >= 0x90);
    return overlong || outside ? 0 : len;
}

/* A JSON string is UTF-8: what is not becomes U+FFFD, so that a message of any origin can be journaled. */
static cJSON *encode_string(lua_State *L)
{
    size_t len;
    const char *text = lua_tolstring(L, -1, &len);
    const unsigned char *p = (const unsigned char *)text;
    size_t good = 0, step;
    while (good < len && (step = utf8_length(p + good, len - good)))
        good += step;
    if (good == len)
        return cJSON_CreateString(text);
    luaL_Buffer buffer;
    luaL_buffinit(L, &buffer);
    for (size_t i = 0; i < len; i += step ? step : 1) {
        step = utf8_length(p + i, len - i);
        if (step)
            luaL_addlstring(&buffer, text + i, step);
        else
            luaL_addstring(&buffer, "\xEF\xBF\xBD");
    }
    luaL_pushresult(&buffer);
    cJSON *item = cJSON_CreateString(lua_tostring(L, -1));
    lua_pop(L, 1);
    return item;
}

static cJSON *encode_number(lua_State *L)
{
    if (lua_isinteger(L, -1)) {
        char text[32];
        lua_Integer n = lua_tointeger(L, -1);
        snprintf(text, sizeof text, "%lld", (long long)n);
        return cJSON_CreateRaw(text);
    }
    double n = lua_tonumber(L, -1);
    if (!isfinite(n))
        luaL_error(L, "JSON has no number for inf or nan");
    return cJSON_CreateNumber(n);
}

/* Pops a value and hangs it under `parent` (which its box owns, so a raise leaks nothing). */
static cJSON *encode_value(lua_State *L, int depth, cJSON *parent, const char *key)
{
    cJSON *item = NULL;
    if (depth > MAX_DEPTH)
        luaL_error(L, "JSON is nested deeper than %d levels", MAX_DEPTH);
    luaL_checkstack(L, 8, "JSON is nested too deep");
    switch (lua_type(L, -1)) {
    case LUA_TNIL:
    case LUA_TLIGHTUSERDATA:
        item = cJSON_CreateNull();
        break;
    case LUA_TBOOLEAN:
        item = cJSON_CreateBool(lua_toboolean(L, -1));
        break;
    case LUA_TNUMBER:
        item = encode_number(L);
        break;
    case LUA_TSTRING:
        item = encode_string(L);
        break;
    case LUA_TTABLE:
        if (is_array(L, lua_gettop(L))) {
            item = cJSON_CreateArray();
            attach(parent, key, item);
            lua_Integer len = (lua_Integer)lua_rawlen(L, -1);
            for (lua_Integer i = 1; i <= len; i++) {
                lua_rawgeti(L, -1, i);
                encode_value(L, depth + 1, item, NULL);
            }
        } else {
            item = cJSON_CreateObject();
            attach(parent, key, item);
            encode_object(L, depth, item);
        }
        lua_pop(L, 1);
        return item;
    default:
        luaL_error(L, "a %s can't be written as JSON", luaL_typename(L, -1));
    }
    attach(parent, key, item);
    lua_pop(L, 1);
    return item;
}

/* encode(value [, pretty]) -> text; raises on what JSON can't hold */
static int l_json_encode(lua_State *L)
{
    luaL_checkany(L, 1);
    bool pretty = lua_toboolean(L, 2);
    tree_box *box = push_tree(L);
    box->root = cJSON_CreateArray(); /* a holder for the one value */
    lua_pushvalue(L, 1);
    encode_value(L, 0, box->root, NULL);
    cJSON *value = cJSON_GetArrayItem(box->root, 0);
    box->text = pretty ? cJSON_Print(value) : cJSON_PrintUnformatted(value);
    lua_pushstring(L, box->text);
    return 1;
}

/* Decoding ---------------------------------------------------------------------------------------- */

static void push_decoded(lua_State *L, const cJSON *item)
{
    luaL_checkstack(L, 8, "JSON is nested too deep");
    if (cJSON_IsString(item)) {
        lua_pushstring(L, item->valuestring);
    } else if (cJSON_IsNumber(item)) {
        double n = item->valuedouble;
        if (n == floor(n) && fabs(n) <= MAX_EXACT)
            lua_pushinteger(L, (lua_Integer)n);
        else
            lua_pushnumber(L, n);
    } else if (cJSON_IsBool(item)) {
        lua_pushboolean(L, cJSON_IsTrue(item));
    } else if (cJSON_IsArray(item)) {
        lua_newtable(L);
        int i = 0;
        for (const cJSON *child = item->child; child; child = child->next) {
            push_decoded(L, child);
            lua_rawseti(L, -2, ++i);
        }
        luaL_setmetatable(L, ARRAY);
    } else if (cJSON_IsObject(item)) {
        lua_newtable(L);
        for (const cJSON *child = item->child; child; child = child->next) {
            push_decoded(L, child);
            lua_setfield(L, -2, child->string);
        }
    } else {
        lua_pushlightuserdata(L, NULL);
    }
}

/* decode(text) -> value, or nil, message, byte offset */
static int l_json_decode(lua_State *L)
{
    size_t len;
    const char *text = luaL_checklstring(L, 1, &len);
    const char *end = NULL;
    tree_box *box = push_tree(L);
    box->root = cJSON_ParseWithLengthOpts(text, len + 1, &end, 1);
    if (!box->root) {
        lua_pushnil(L);
        lua_pushstring(L, "not valid JSON");
        lua_pushinteger(L, end ? (lua_Integer)(end - text) + 1 : 1);
        return 3;
    }
    push_decoded(L, box->root);
    return 1;
}

/* array([table]) -> the table, marked to be written as an array even when empty */
static int l_json_array(lua_State *L)
{
    if (lua_isnoneornil(L, 1)) {
        lua_settop(L, 0);
        lua_newtable(L);
    }
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    luaL_setmetatable(L, ARRAY);
    return 1;
}

int luaopen_moonbird_native_json(lua_State *L)
{
    static const luaL_Reg functions[] = {{"encode", l_json_encode},
                                         {"decode", l_json_decode},
                                         {"array", l_json_array},
                                         {NULL, NULL}};
    luaL_newmetatable(L, ARRAY);
    if (luaL_newmetatable(L, TREE)) {
        lua_pushcfunction(L, l_tree_gc);
        lua_setfield(L, -2, "__gc");
    }
    luaL_newlib(L, functions);
    lua_pushlightuserdata(L, NULL);
    lua_setfield(L, -2, "null");
    return 1;
}
