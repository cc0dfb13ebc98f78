/*
 * error.h - errors are data: one struct, filled once where the error happens, enriched on the way up,
 * matched by code (never by message text).
 *
 * An mb_error lives where its owner put it (usually the stack or a request), starts as MB_ERROR_INIT
 * and is emptied with mb_error_clear(). All strings are owned by it.
 */
#ifndef MB_ERROR_H
#define MB_ERROR_H

#include "engine/base/base.h"

typedef enum mb_code {
#define MB_ERROR(NAME, name, status, meaning, advice) MB_##NAME,
#include "engine/base/error.def"
#undef MB_ERROR
    MB_CODE_COUNT
} mb_code;

typedef struct mb_error {
    mb_code code;
    char sqlstate[6]; /* "" when the server did not speak */
    char *severity;
    char *message;
    char *detail;
    char *hint;
    char *context; /* the server's CONTEXT: PL/pgSQL call stack and the like */
    char *schema;
    char *table;
    char *column;
    char *constraint;
    int position; /* server's 1-based character position in the statement sent, 0 = none */
} mb_error;

#define MB_ERROR_INIT {MB_OK, "", NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0}

/* Sets code and message (printf). What was there before is freed. Returns `code`. */
mb_code mb_error_set(mb_error *err, mb_code code, const char *fmt, ...) MB_PRINTF(3, 4);
/* Adds a hint if there is none yet. */
void mb_error_hint(mb_error *err, const char *fmt, ...) MB_PRINTF(2, 3);
void mb_error_clear(mb_error *err);
/* Moves `from` into `to` (freed first) and leaves `from` empty. */
void mb_error_move(mb_error *to, mb_error *from);

/* The table of error.def. Static strings. */
const char *mb_code_name(mb_code code);
const char *mb_code_meaning(mb_code code);
const char *mb_code_advice(mb_code code);
int mb_code_status(mb_code code);

#endif
