/*
 * dbmate.h - the .sql migration format: "-- migrate:up" and "-- migrate:down" sections, as dbmate
 * reads them, without its traps.
 *
 * A directive is a -- comment that starts its line. Unlike dbmate, what only looks like one, inside
 * a quote, a dollar-quoted body, a block comment or the data of COPY, is none; a byte order mark is
 * accepted; an option that would be ignored silently is a problem. All problems are found, not only
 * the first. Offsets are 0-based bytes, ranges half-open.
 */
#ifndef MB_SQL_DBMATE_H
#define MB_SQL_DBMATE_H

#include "engine/base/base.h"

typedef struct mb_dbmate_block {
    bool present; /* false: the section has no such directive (only ever with a problem) */
    size_t directive_begin; /* the directive's comment, without its line end */
    size_t directive_end;
    size_t begin; /* what follows the directive's line, up to the next directive or the end */
    size_t end;
    size_t line;             /* of `begin`, from 1 */
    bool transaction;        /* false after the option transaction:false */
    bool transaction_option; /* whether the option is written at all */
} mb_dbmate_block;

typedef struct mb_dbmate_section {
    mb_dbmate_block up;
    mb_dbmate_block down;
} mb_dbmate_section;

typedef struct mb_dbmate_problem {
    size_t offset;
    size_t line; /* from 1 */
    size_t column;
    char message[200];
    char hint[200]; /* "" when there is no advice */
} mb_dbmate_problem;

/* What was found. The owner empties it with mb_dbmate_free(). */
typedef struct mb_dbmate {
    size_t header_end; /* comments before the first directive: [0, header_end) */
    mb_dbmate_section *sections;
    size_t section_count;
    mb_dbmate_problem *problems; /* by their place in the text */
    size_t problem_count;
} mb_dbmate;

#define MB_DBMATE_INIT                                                                             \
    {                                                                                              \
        0, NULL, 0, NULL, 0                                                                        \
    }

/* Reads a file's text into `out` (empty before). True if it has no problem. */
bool mb_dbmate_parse(mb_dbmate *out, const char *text, size_t len);
void mb_dbmate_free(mb_dbmate *dbmate);

#endif
