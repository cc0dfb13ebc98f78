/*
 * quote.h - names and texts as SQL, exactly as the server's quote_ident() and quote_literal() write
 * them. The text must be UTF-8 (or any encoding in which no byte of a character is ' " or \).
 */
#ifndef MB_SQL_QUOTE_H
#define MB_SQL_QUOTE_H

#include "engine/base/buf.h"

/* Adds an identifier, quoted if it must be: not only a-z, 0-9 and _, or a keyword of any server
 * from 14 to 18 that is not free for use as a name. */
void mb_sql_quote_ident(mb_buf *out, const char *name, size_t len);

/* Adds a string literal; E'...' when it holds a backslash, so that it means the same whatever
 * standard_conforming_strings says. */
void mb_sql_quote_literal(mb_buf *out, const char *text, size_t len);

/* Whether the lower-case word is a keyword that can't be every kind of name without quotes. */
bool mb_sql_is_keyword(const char *word, size_t len);

#endif
