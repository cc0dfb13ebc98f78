/*
 * json.c - JSON by cJSON (module moonbird.native.json).
 *
 * Objects are written with sorted keys, so that equal data gives equal text. Integers keep all 64 bits
 * both ways; cJSON reads doubles, so they are read from the text a second time. JSON null is the light
 * userdata `null`; an empty table is an object unless made by array().
 *
 * What people have in their rows must come back as it was or not at all: encode_exact() refuses what
 * JSON can't hold. encode() writes something for any text, because the message of an error has to be
 * journaled wherever it comes from.
 */
#include <cjson/cJSON.h>
#include <errno.h>
#include <lauxlib.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bindings/error.h"
#include "bindings/natives.h"
#include "engine/base/base.h"
#include "engine/base/number.h"

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

typedef struct place {
    cJSON *parent; /* owned by its box, so a raise leaks nothing */
    const char *key;
    int depth;
    bool exact;
} place;

static cJSON *encode_value(lua_State *L, place at);

static void attach(place at, cJSON *item)
{
    if (at.key)
        cJSON_AddItemToObject(at.parent, at.key, item);
    else
        cJSON_AddItemToArray(at.parent, item);
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

/* Whether the string at the top is what a JSON string can hold: UTF-8 without NUL. */
static bool is_text(lua_State *L)
{
    size_t len;
    const unsigned char *p = (const unsigned char *)lua_tolstring(L, -1, &len);
    size_t good = 0, step;
    while (good < len && (step = utf8_length(p + good, len - good)))
        good += step;
    return good == len;
}

static void check_key(lua_State *L, bool exact)
{
    if (lua_type(L, -1) != LUA_TSTRING)
        mbl_raise(L, "JSON objects have string keys only, this one has a %s", luaL_typename(L, -1));
    if (exact && !is_text(L))
        mbl_raise(L, "a key can't be written as JSON: it is not UTF-8, or has a NUL byte");
}

/* Adds the members of the table on top of the stack. Keys stay alive: the table holds them. */
static void encode_object(lua_State *L, cJSON *object, int depth, bool exact)
{
    int table = lua_gettop(L);
    size_t count = 0;
    for (lua_pushnil(L); lua_next(L, table); count++) {
        lua_pop(L, 1);
        check_key(L, exact);
    }
    const char **keys = lua_newuserdatauv(L, sizeof *keys * (count ? count : 1), 0);
    size_t i = 0;
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1))
        keys[i++] = lua_tostring(L, -2);
    qsort(keys, count, sizeof *keys, compare_keys);
    for (i = 0; i < count; i++) {
        lua_getfield(L, table, keys[i]);
        encode_value(L, (place){object, keys[i], depth + 1, exact});
    }
    lua_pop(L, 1);
}

/* Whether the table at the top has an item at each of 1 to len, and nothing else. */
static bool is_sequence(lua_State *L, lua_Integer len)
{
    lua_Integer count = 0;
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
        lua_Integer i = lua_isinteger(L, -2) ? lua_tointeger(L, -2) : 0;
        count += i >= 1 && i <= len ? 1 : len + 1;
    }
    return count == len;
}

/* Adds the items of the table on top of the stack. */
static void encode_array(lua_State *L, cJSON *array, int depth, bool exact)
{
    lua_Integer len = (lua_Integer)lua_rawlen(L, -1);
    if (exact && !is_sequence(L, len))
        mbl_raise(L, "a table can't be written as JSON: it has both items and keys, or nil among its items "
                  "(null is db.null)");
    for (lua_Integer i = 1; i <= len; i++) {
        lua_rawgeti(L, -1, i);
        encode_value(L, (place){array, NULL, depth + 1, exact});
    }
}

/* A JSON string is UTF-8: what is not becomes U+FFFD, or is refused. */
static cJSON *encode_string(lua_State *L, bool exact)
{
    if (is_text(L))
        return cJSON_CreateString(lua_tostring(L, -1));
    if (exact)
        mbl_raise(L, "a string can't be written as JSON: it is not UTF-8, or has a NUL byte");
    size_t len, step;
    const char *text = lua_tolstring(L, -1, &len);
    luaL_Buffer buffer;
    luaL_buffinit(L, &buffer);
    for (size_t i = 0; i < len; i += step ? step : 1) {
        step = utf8_length((const unsigned char *)text + i, len - i);
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
        mbl_raise(L, "JSON has no number for inf or nan");
    char text[MB_FLOAT_TEXT];
    mb_float_text(text, n); /* cJSON's own takes what is near enough for the same */
    return cJSON_CreateRaw(text);
}

/* Pops a value and hangs it where it belongs. */
static cJSON *encode_value(lua_State *L, place at)
{
    cJSON *item = NULL;
    if (at.depth > MAX_DEPTH)
        mbl_raise(L, "JSON is nested deeper than %d levels", MAX_DEPTH);
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
        item = encode_string(L, at.exact);
        break;
    case LUA_TTABLE:
        if (is_array(L, lua_gettop(L))) {
            item = cJSON_CreateArray();
            attach(at, item);
            encode_array(L, item, at.depth, at.exact);
        } else {
            item = cJSON_CreateObject();
            attach(at, item);
            encode_object(L, item, at.depth, at.exact);
        }
        lua_pop(L, 1);
        return item;
    default:
        mbl_raise(L, "a %s can't be written as JSON", luaL_typename(L, -1));
    }
    attach(at, item);
    lua_pop(L, 1);
    return item;
}

static int encode(lua_State *L, bool exact)
{
    luaL_checkany(L, 1);
    bool pretty = lua_toboolean(L, 2);
    tree_box *box = push_tree(L);
    box->root = cJSON_CreateArray(); /* a holder for the one value */
    lua_pushvalue(L, 1);
    encode_value(L, (place){box->root, NULL, 0, exact});
    cJSON *value = cJSON_GetArrayItem(box->root, 0);
    box->text = pretty ? cJSON_Print(value) : cJSON_PrintUnformatted(value);
    lua_pushstring(L, box->text);
    return 1;
}

/* encode(value [, pretty]) -> text; writes U+FFFD for what is not UTF-8, raises on what JSON has no word for */
static int l_json_encode(lua_State *L)
{
    return encode(L, false);
}

/* encode_exact(value [, pretty]) -> text that decodes to the same; raises on what JSON can't hold */
static int l_json_encode_exact(lua_State *L)
{
    return encode(L, true);
}

/* Decoding ---------------------------------------------------------------------------------------- */

/* Pushes the number of an item: the next one of the text from *p on. The tree is walked in the order
 * of the text, so that its numbers and those of the text go together. */
static void push_number(lua_State *L, const cJSON *item, const char **p)
{
    const char *at = *p;
    while (*at != '-' && (*at < '0' || *at > '9')) {
        if (*at++ != '"')
            continue;
        for (; *at != '"'; at++) /* a string, or a key */
            at += *at == '\\';
        at++;
    }
    const char *whole = at + strspn(at, "-0123456789");
    *p = whole + strspn(whole, "+-.0123456789Ee");
    if (*p == whole) { /* an integer */
        errno = 0;
        long long n = strtoll(at, NULL, 10);
        if (errno == 0) {
            lua_pushinteger(L, (lua_Integer)n);
            return;
        }
    }
    double n = item->valuedouble;
    if (n == floor(n) && fabs(n) <= MAX_EXACT)
        lua_pushinteger(L, (lua_Integer)n);
    else
        lua_pushnumber(L, n);
}

static void push_decoded(lua_State *L, const cJSON *item, const char **p)
{
    luaL_checkstack(L, 8, "JSON is nested too deep");
    if (cJSON_IsString(item)) {
        lua_pushstring(L, item->valuestring);
    } else if (cJSON_IsNumber(item)) {
        push_number(L, item, p);
    } else if (cJSON_IsBool(item)) {
        lua_pushboolean(L, cJSON_IsTrue(item));
    } else if (cJSON_IsArray(item)) {
        lua_newtable(L);
        int i = 0;
        for (const cJSON *child = item->child; child; child = child->next) {
            push_decoded(L, child, p);
            lua_rawseti(L, -2, ++i);
        }
        luaL_setmetatable(L, ARRAY);
    } else if (cJSON_IsObject(item)) {
        lua_newtable(L);
        for (const cJSON *child = item->child; child; child = child->next) {
            push_decoded(L, child, p);
            lua_setfield(L, -2, child->string);
        }
    } else {
        lua_pushlightuserdata(L, NULL);
    }
}

/* Where a valid text has a NUL character, at which cJSON would end the string; NULL when nowhere. */
static const char *find_nul(const char *text, size_t len)
{
    const char *raw = memchr(text, 0, len);
    if (raw)
        return raw;
    for (const char *at = strchr(text, '\\'); at; at = strchr(at + 2, '\\'))
        if (strncmp(at, "\\u0000", 6) == 0)
            return at;
    return NULL;
}

/* decode(text) -> value, or nil, message, byte offset */
static int l_json_decode(lua_State *L)
{
    size_t len;
    const char *text = luaL_checklstring(L, 1, &len);
    const char *end = NULL, *nul;
    tree_box *box = push_tree(L);
    box->root = cJSON_ParseWithLengthOpts(text, len + 1, &end, 1);
    if (!box->root) {
        lua_pushnil(L);
        lua_pushstring(L, "not valid JSON");
        lua_pushinteger(L, end ? (lua_Integer)(end - text) + 1 : 1);
        return 3;
    }
    if ((nul = find_nul(text, len))) {
        lua_pushnil(L);
        lua_pushliteral(L, "a string with a NUL character");
        lua_pushinteger(L, (lua_Integer)(nul - text) + 1);
        return 3;
    }
    push_decoded(L, box->root, &text);
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
                                         {"encode_exact", l_json_encode_exact},
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
