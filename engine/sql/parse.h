/*
 * parse.h - parse trees and fingerprints by libpg_query: advice, never the gate to execution. What
 * its PostgreSQL 15 grammar does not know is "can't be parsed", not wrong.
 *
 * The results are malloc'd and the caller's. `offset` is the 0-based byte of the error in the text.
 */
#ifndef MB_SQL_PARSE_H
#define MB_SQL_PARSE_H

#include "engine/base/base.h"

typedef struct mb_parse_error {
    char *message; /* free it */
    size_t offset;
} mb_parse_error;

/* The tree of all statements as JSON, or NULL and `error` filled. */
char *mb_sql_parse(const char *text, size_t len, mb_parse_error *error);

/* A hash of the statements' shape, without constants, as 16 hex digits; or NULL and `error` filled.
 */
char *mb_sql_fingerprint(const char *text, size_t len, mb_parse_error *error);

typedef struct mb_parse_range {
    size_t begin;
    size_t end;
} mb_parse_range;

/* Statement ranges as the server's parser sees them (with white space and comments before them),
 * for the test that holds mb_split against it. Returns an array of *count, or NULL and `error`
 * filled. */
mb_parse_range *mb_sql_parse_split(const char *text, size_t len, size_t *count,
                                   mb_parse_error *error);

/* libpg_query's version: that of the grammar it carries, "15.1". */
const char *mb_sql_library_version(void);

#endif
