/*
 * sql_tree.c - the JSON of libpg_query's trees as Lua tables. Much faster than JSON in general
 * (bindings/json.c): it trusts the text, which libpg_query made.
 */
#include "bindings/sql_tree.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TREE_DEPTH 4000
#define ALL_ROWS (-1) /* leave nothing out */
#define ROW_DEPTH 3   /* how deep in valuesLists a row is: [{"List":{"items":[...]}}] */

/* The four hex digits at `at`; libpg_query writes well-formed JSON. */
static unsigned long hex4(const char *at)
{
    char digits[5] = {at[0], at[1], at[2], at[3], 0};
    return strtoul(digits, NULL, 16);
}

static void add_utf8(luaL_Buffer *buffer, unsigned long code)
{
    if (code < 0x80) {
        luaL_addchar(buffer, (char)code);
    } else if (code < 0x800) {
        luaL_addchar(buffer, (char)(0xc0 | code >> 6));
        luaL_addchar(buffer, (char)(0x80 | (code & 0x3f)));
    } else {
        luaL_addchar(buffer, (char)(0xe0 | code >> 12));
        luaL_addchar(buffer, (char)(0x80 | (code >> 6 & 0x3f)));
        luaL_addchar(buffer, (char)(0x80 | (code & 0x3f)));
    }
}

/* The rest of a string that has an escape at `at`; what is before it was added. */
static const char *push_escaped(lua_State *L, const char *begin, const char *at)
{
    luaL_Buffer buffer;
    luaL_buffinit(L, &buffer);
    luaL_addlstring(&buffer, begin, (size_t)(at - begin));
    while (*at && *at != '"') {
        if (*at != '\\') {
            luaL_addchar(&buffer, *at++);
            continue;
        }
        static const char letters[] = "nrtbf", meant[] = "\n\r\t\b\f";
        const char *letter = at[1] ? strchr(letters, at[1]) : NULL;
        if (at[1] == 'u' && strnlen(at, 6) == 6) {
            add_utf8(&buffer, hex4(at + 2)); /* control characters, < and > */
            at += 6;
        } else {
            luaL_addchar(&buffer, letter ? meant[letter - letters] : at[1]);
            at += 2;
        }
    }
    luaL_pushresult(&buffer);
    return at;
}

/* What ends a string's plain part, a value's, and the first field's name or value. */
static const bool IN_STRING[256] = {['\0'] = true, ['"'] = true, ['\\'] = true};
static const bool STRUCTURE[256] = {
    ['\0'] = true, ['{'] = true, ['}'] = true, ['['] = true, [']'] = true, ['"'] = true};
static const bool FIRST_FIELD[256] = {
    ['\0'] = true, [','] = true, ['{'] = true, ['['] = true, ['}'] = true};

/* strcspn() with a table. Spans are short here, and a checked strcspn() measures the whole text first. */
static size_t span(const char *at, const bool ends[256])
{
    size_t len = 0;
    while (!ends[(unsigned char)at[len]])
        len++;
    return len;
}

/* Pushes the string whose opening quote is at `at`; returns what follows the closing one. */
static const char *push_json_string(lua_State *L, const char *at)
{
    const char *begin = at + 1;
    size_t plain = span(begin, IN_STRING);
    at = begin + plain;
    if (*at == '\\')
        at = push_escaped(L, begin, at);
    else
        lua_pushlstring(L, begin, plain);
    return *at == '"' ? at + 1 : at;
}

/* What follows the value at `at`. */
static const char *skip_json(const char *at)
{
    int depth = 0;
    do {
        at += span(at, STRUCTURE);
        if (*at == '"') {
            at++;
            for (at += span(at, IN_STRING); *at == '\\'; at += span(at, IN_STRING))
                at += at[1] ? 2 : 1;
        } else if (*at) {
            depth += *at == '{' || *at == '[' ? 1 : -1;
        }
        at += *at != '\0';
    } while (*at && depth > 0);
    return at;
}

static bool starts_with(const char *at, const char *prefix)
{
    return strncmp(at, prefix, strlen(prefix)) == 0;
}

static const char *push_tree(lua_State *L, const char *at, int depth, int row_depth);

/* {"SelectStmt": {...}} wraps, {"sval": "a"} has one field, {"relname": ...} several. */
static int guess_fields(const char *at)
{
    bool wraps = at[1] == '"' && at[2] >= 'A' && at[2] <= 'Z';
    return wraps || at[1 + span(at + 1, FIRST_FIELD)] == '}' ? 1 : 4;
}

static const char *push_fields(lua_State *L, const char *at, int depth, int row_depth)
{
    lua_createtable(L, 0, guess_fields(at));
    at++;
    while (*at == '"') {
        bool rows = row_depth != ALL_ROWS && starts_with(at, "\"valuesLists\"");
        at = push_json_string(L, at) + 1; /* behind the ':' */
        at = push_tree(L, at, depth + 1, rows ? depth + 1 + ROW_DEPTH : row_depth);
        if (!at)
            return NULL;
        lua_rawset(L, -3);
        at += *at == ',';
    }
    return *at ? at + 1 : at;
}

static const char *push_items(lua_State *L, const char *at, int depth, int row_depth)
{
    lua_createtable(L, 1, 0);
    at++;
    for (lua_Integer i = 1; *at && *at != ']';) {
        if (depth == row_depth && starts_with(at, "{\"A_Const\"")) {
            at = skip_json(at);
        } else {
            at = push_tree(L, at, depth + 1, row_depth);
            if (!at)
                return NULL;
            lua_rawseti(L, -2, i++);
        }
        at += *at == ',';
    }
    return *at ? at + 1 : at;
}

/* Pushes the value at `at` and returns what follows it; NULL when it is nested too deep. Of the
 * lists at `row_depth`, the rows of VALUES, constants are left out. */
static const char *push_tree(lua_State *L, const char *at, int depth, int row_depth)
{
    if (depth > MAX_TREE_DEPTH || !lua_checkstack(L, 8))
        return NULL;
    if (*at == '{')
        return push_fields(L, at, depth, row_depth);
    if (*at == '[')
        return push_items(L, at, depth, row_depth);
    if (*at == '"')
        return push_json_string(L, at);
    if (*at == 't' || *at == 'f') {
        lua_pushboolean(L, *at == 't');
        return at + (*at == 't' ? 4 : 5);
    }
    char *end = NULL;
    long long number = strtoll(at, &end, 10);
    lua_pushinteger(L, number);
    return end > at ? end : NULL;
}

bool mbl_push_sql_tree(lua_State *L, const char *json, bool lean)
{
    return push_tree(L, json, 0, lean ? 0 : ALL_ROWS) != NULL; /* no list has depth 0 */
}
