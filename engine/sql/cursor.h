/*
 * cursor.h - reading a statement token by token, with one token of look-ahead; for classify.c and
 * object.c only. A cursor is a value: a copy of it is a bookmark.
 */
#ifndef MB_SQL_CURSOR_H
#define MB_SQL_CURSOR_H

#include "engine/sql/classify.h"

typedef struct mb_cursor {
    mb_scan scan;
    mb_token token; /* the one not yet taken */
} mb_cursor;

static inline void mb_cursor_init(mb_cursor *at, const char *text, const mb_statement *statement)
{
    mb_scan_init(&at->scan, text, statement->begin, statement->end);
    at->token = mb_scan_next(&at->scan);
}

static inline bool mb_cursor_at_end(const mb_cursor *at)
{
    return at->token.kind == MB_TOKEN_END || at->token.kind == MB_TOKEN_UNTERMINATED;
}

static inline void mb_cursor_skip(mb_cursor *at)
{
    at->token = mb_scan_next(&at->scan);
}

static inline bool mb_cursor_is(const mb_cursor *at, const char *word)
{
    return mb_token_is(at->scan.text, &at->token, word);
}

static inline bool mb_cursor_is_char(const mb_cursor *at, char c)
{
    return mb_token_is_char(at->scan.text, &at->token, c);
}

/* Takes the word if it is the next one. */
static inline bool mb_cursor_accept(mb_cursor *at, const char *word)
{
    if (!mb_cursor_is(at, word))
        return false;
    mb_cursor_skip(at);
    return true;
}

static inline bool mb_cursor_accept_char(mb_cursor *at, char c)
{
    if (!mb_cursor_is_char(at, c))
        return false;
    mb_cursor_skip(at);
    return true;
}

/* Takes all the words if they are the next ones, in this order; `words` ends with NULL. */
bool mb_cursor_accept_all(mb_cursor *at, const char *const words[]);

/* Takes IF EXISTS, IF NOT EXISTS. (A lone IF is a name.) */
bool mb_cursor_accept_if_exists(mb_cursor *at);
bool mb_cursor_accept_if_not_exists(mb_cursor *at);

/* Takes a parenthesised group if one is next; stops at the statement's end when it does not close.
 */
void mb_cursor_skip_group(mb_cursor *at);

/* Takes name, schema.name or database.schema.name; false (and nothing written) if no name is next.
 */
bool mb_cursor_take_name(mb_cursor *at, char schema[MB_SQL_NAME_SIZE], char name[MB_SQL_NAME_SIZE]);

/* object.c: looks whether the statement can't run in a transaction block, and at what it acts on.
 * `at` stands behind the words of the tag. False: it can, and `object` is as it was. */
bool mb_sql_find_alone(mb_cursor at, const char *tag, mb_sql_object *object);

#endif
