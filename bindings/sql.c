/*
 * sql.c - moonbird.native.sql: SQL text taken apart (engine/sql) for Lua. Offsets are 1-based
 * bytes, ranges inclusive, as string.sub() counts; an empty range ends before it begins.
 *
 * What the engine allocates lives in a userdata box with __gc before anything that may raise is
 * called; the splitter and the classifier allocate nothing, so statements() needs no box.
 */
#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "bindings/natives.h"
#include "bindings/sql_tree.h"
#include "engine/sql/classify.h"
#include "engine/sql/dbmate.h"
#include "engine/sql/parse.h"
#include "engine/sql/position.h"
#include "engine/sql/quote.h"

#define BOX "moonbird.sql.box"

/* Owner of what the engine allocated during one call. */
typedef struct box {
    mb_dbmate dbmate;
    mb_buf buf;
    char *text;
    mb_parse_error error;
} box;

/* Also called on the way out of each function: the memory need not wait for the collector. */
static void empty_box(box *owned)
{
    mb_dbmate_free(&owned->dbmate);
    mb_buf_free(&owned->buf);
    free(owned->text);
    free(owned->error.message);
    memset(owned, 0, sizeof *owned);
}

static int l_box_gc(lua_State *L)
{
    empty_box(luaL_checkudata(L, 1, BOX));
    return 0;
}

/* Pushes an empty box. */
static box *push_box(lua_State *L)
{
    box *owned = lua_newuserdatauv(L, sizeof *owned, 0);
    memset(owned, 0, sizeof *owned);
    if (luaL_newmetatable(L, BOX)) {
        lua_pushcfunction(L, l_box_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    return owned;
}

static void set_integer(lua_State *L, const char *key, size_t value)
{
    lua_pushinteger(L, (lua_Integer)value);
    lua_setfield(L, -2, key);
}

static void set_string(lua_State *L, const char *key, const char *value)
{
    if (value && *value) {
        lua_pushstring(L, value);
        lua_setfield(L, -2, key);
    }
}

static void set_true(lua_State *L, const char *key, bool value)
{
    if (value) {
        lua_pushboolean(L, 1);
        lua_setfield(L, -2, key);
    }
}

/* A half-open 0-based range as inclusive 1-based fields. */
static void set_range(lua_State *L, const char *first, const char *last, size_t begin, size_t end)
{
    set_integer(L, first, begin + 1);
    set_integer(L, last, end);
}

static void push_object(lua_State *L, const mb_sql_object *object)
{
    lua_createtable(L, 0, 6);
    set_string(L, "kind", object->kind);
    set_string(L, "schema", object->schema);
    set_string(L, "name", object->name);
    set_string(L, "relation_schema", object->relation_schema);
    set_string(L, "relation", object->relation);
    set_string(L, "partition_schema", object->partition_schema);
    set_string(L, "partition", object->partition);
    set_true(L, "unique", object->unique);
    set_true(L, "if_not_exists", object->if_not_exists);
    set_true(L, "if_exists", object->if_exists);
    set_true(L, "concurrently", object->concurrently);
}

static void push_statement(lua_State *L, const char *text, const mb_statement *statement,
                           mb_position *at)
{
    mb_sql_kind kind;
    mb_sql_classify(text, statement, &kind);
    mb_position_advance(at, statement->begin);
    lua_createtable(L, 0, 8);
    set_range(L, "first", "last", statement->begin, statement->end);
    set_integer(L, "line", at->line);
    set_integer(L, "column", at->column);
    lua_pushstring(L, kind.tag); /* "" when the statement starts with no word */
    lua_setfield(L, -2, "tag");
    lua_pushstring(L, mb_sql_class_name(kind.class));
    lua_setfield(L, -2, "class");
    set_string(L, "control", kind.control);
    set_string(L, "copy", kind.copy);
    if (statement->has_data)
        set_range(L, "data_first", "data_last", statement->data_begin, statement->data_end);
    if (kind.object.kind) {
        push_object(L, &kind.object);
        lua_setfield(L, -2, "object");
    }
}

/* statements(text [, first, last]) -> list, or nil, problem */
static int l_sql_statements(lua_State *L)
{
    size_t len;
    const char *text = luaL_checklstring(L, 1, &len);
    lua_Integer first = luaL_optinteger(L, 2, 1);
    lua_Integer last = luaL_optinteger(L, 3, (lua_Integer)len);
    luaL_argcheck(L, first >= 1, 2, "not a byte of the text");
    luaL_argcheck(L, last >= first - 1 && last <= (lua_Integer)len, 3, "not a byte of the text");

    mb_split split;
    mb_position at;
    mb_split_event event;
    lua_Integer count = 0;
    mb_split_init(&split, text, (size_t)first - 1, (size_t)last);
    mb_position_init(&at, text);
    lua_newtable(L);
    while ((event = mb_split_next(&split)) == MB_SPLIT_STATEMENT) {
        push_statement(L, text, &split.statement, &at);
        lua_rawseti(L, -2, ++count);
    }
    if (event == MB_SPLIT_END)
        return 1;

    size_t line, column;
    mb_position_locate(text, len, split.problem.offset, &line, &column);
    lua_pushnil(L);
    lua_createtable(L, 0, 5);
    set_string(L, "message", split.problem.message);
    set_string(L, "hint", split.problem.hint);
    set_integer(L, "offset", split.problem.offset + 1);
    set_integer(L, "line", line);
    set_integer(L, "column", column);
    return 2;
}

/* Sets field `key` to the block, if there is one. */
static void set_block(lua_State *L, const char *key, const mb_dbmate_block *block)
{
    if (!block->present)
        return;
    lua_createtable(L, 0, 7);
    set_range(L, "first", "last", block->begin, block->end);
    set_range(L, "directive_first", "directive_last", block->directive_begin, block->directive_end);
    set_integer(L, "line", block->line);
    lua_pushboolean(L, block->transaction);
    lua_setfield(L, -2, "transaction");
    lua_createtable(L, 0, 1);
    if (block->transaction_option)
        set_string(L, "transaction", block->transaction ? "true" : "false");
    lua_setfield(L, -2, "options");
    lua_setfield(L, -2, key);
}

static void push_problems(lua_State *L, const mb_dbmate *dbmate)
{
    lua_createtable(L, (int)dbmate->problem_count, 0);
    for (size_t i = 0; i < dbmate->problem_count; i++) {
        const mb_dbmate_problem *problem = &dbmate->problems[i];
        lua_createtable(L, 0, 5);
        set_integer(L, "offset", problem->offset + 1);
        set_integer(L, "line", problem->line);
        set_integer(L, "column", problem->column);
        set_string(L, "message", problem->message);
        set_string(L, "hint", problem->hint);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
}

/* dbmate(text) -> { header_last, sections }, or nil, list of problems */
static int l_sql_dbmate(lua_State *L)
{
    size_t len;
    const char *text = luaL_checklstring(L, 1, &len);
    box *owned = push_box(L);
    if (!mb_dbmate_parse(&owned->dbmate, text, len)) {
        lua_pushnil(L);
        push_problems(L, &owned->dbmate);
        empty_box(owned);
        return 2;
    }
    lua_createtable(L, 0, 2);
    set_integer(L, "header_last", owned->dbmate.header_end);
    lua_createtable(L, (int)owned->dbmate.section_count, 0);
    for (size_t i = 0; i < owned->dbmate.section_count; i++) {
        lua_createtable(L, 0, 2);
        set_block(L, "up", &owned->dbmate.sections[i].up);
        set_block(L, "down", &owned->dbmate.sections[i].down);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "sections");
    empty_box(owned);
    return 1;
}

typedef char *(*parse_function)(const char *, size_t, mb_parse_error *);

static int parse_with(lua_State *L, parse_function parse)
{
    size_t len;
    const char *text = luaL_checklstring(L, 1, &len);
    box *owned = push_box(L);
    owned->text = parse(text, len, &owned->error);
    if (owned->text) {
        lua_pushstring(L, owned->text);
        empty_box(owned);
        return 1;
    }
    lua_pushnil(L);
    lua_createtable(L, 0, 2);
    set_string(L, "message", owned->error.message);
    set_integer(L, "offset", owned->error.offset + 1);
    empty_box(owned);
    return 2;
}

/* parse(text) -> JSON, or nil, { message, offset } */
static int l_sql_parse(lua_State *L)
{
    return parse_with(L, mb_sql_parse);
}

/* tree(text [, lean]) -> the parse tree as tables, or nil, { message, offset }. A lean one has the
 * rows of VALUES without their constants: most of the tree of an INSERT, and nothing is named in
 * them. */
static int l_sql_tree(lua_State *L)
{
    size_t len;
    const char *text = luaL_checklstring(L, 1, &len);
    bool lean = lua_toboolean(L, 2);
    lua_settop(L, 2);
    box *owned = push_box(L);
    owned->text = mb_sql_parse(text, len, &owned->error);
    if (owned->text && mbl_push_sql_tree(L, owned->text, lean)) {
        empty_box(owned);
        return 1;
    }
    lua_settop(L, 3); /* with the box */
    lua_pushnil(L);
    lua_createtable(L, 0, 2);
    set_string(L, "message", owned->text ? "nested too deep" : owned->error.message);
    set_integer(L, "offset", owned->error.offset + 1);
    empty_box(owned);
    return 2;
}

/* fingerprint(text) -> hex digits, or nil, { message, offset } */
static int l_sql_fingerprint(lua_State *L)
{
    return parse_with(L, mb_sql_fingerprint);
}

/* locate(text, offset) -> line, column */
static int l_sql_locate(lua_State *L)
{
    size_t len, line, column;
    const char *text = luaL_checklstring(L, 1, &len);
    lua_Integer offset = luaL_checkinteger(L, 2);
    luaL_argcheck(L, offset >= 1, 2, "offsets start at 1");
    mb_position_locate(text, len, (size_t)offset - 1, &line, &column);
    lua_pushinteger(L, (lua_Integer)line);
    lua_pushinteger(L, (lua_Integer)column);
    return 2;
}

/* char_offset(text, first, n) -> offset of the n-th character from byte `first` on */
static int l_sql_char_offset(lua_State *L)
{
    size_t len;
    const char *text = luaL_checklstring(L, 1, &len);
    lua_Integer first = luaL_checkinteger(L, 2);
    lua_Integer n = luaL_checkinteger(L, 3);
    luaL_argcheck(L, first >= 1, 2, "offsets start at 1");
    luaL_argcheck(L, n >= 0, 3, "characters are counted from 1");
    size_t offset = mb_position_of_character(text, len, (size_t)first - 1, (size_t)n);
    lua_pushinteger(L, (lua_Integer)offset + 1);
    return 1;
}

typedef void (*quote_function)(mb_buf *, const char *, size_t);

static int quote_with(lua_State *L, quote_function quote)
{
    size_t len;
    const char *text = luaL_checklstring(L, 1, &len);
    luaL_argcheck(L, !memchr(text, '\0', len), 1, "PostgreSQL's text can't hold a zero byte");
    box *owned = push_box(L);
    quote(&owned->buf, text, len);
    lua_pushlstring(L, owned->buf.data, owned->buf.len);
    empty_box(owned);
    return 1;
}

/* ident(name) -> the name as SQL, quoted when it must be */
static int l_sql_ident(lua_State *L)
{
    return quote_with(L, mb_sql_quote_ident);
}

/* literal(text) -> the text as a string literal */
static int l_sql_literal(lua_State *L)
{
    return quote_with(L, mb_sql_quote_literal);
}

int luaopen_moonbird_native_sql(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"statements", l_sql_statements},
        {"dbmate", l_sql_dbmate},
        {"parse", l_sql_parse},
        {"tree", l_sql_tree},
        {"fingerprint", l_sql_fingerprint},
        {"locate", l_sql_locate},
        {"char_offset", l_sql_char_offset},
        {"ident", l_sql_ident},
        {"literal", l_sql_literal},
        {NULL, NULL},
    };
    luaL_newlib(L, functions);
    return 1;
}
