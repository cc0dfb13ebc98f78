/*
 * error.c - the error struct and the table of codes.
 */
#include "engine/base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    int status;
    const char *meaning;
    const char *advice;
} codes[] = {
#define MB_ERROR(NAME, name, status, meaning, advice) {name, status, meaning, advice},
#include "engine/base/error.def"
#undef MB_ERROR
};

void mb_error_clear(mb_error *err)
{
    free(err->severity);
    free(err->message);
    free(err->detail);
    free(err->hint);
    free(err->context);
    free(err->schema);
    free(err->table);
    free(err->column);
    free(err->constraint);
    *err = (mb_error)MB_ERROR_INIT;
}

mb_code mb_error_set(mb_error *err, mb_code code, const char *fmt, ...)
{
    char *message = NULL;
    va_list args;
    va_start(args, fmt);
    if (vasprintf(&message, fmt, args) < 0)
        message = mb_strdup("out of memory");
    va_end(args);
    mb_error_clear(err);
    err->code = code;
    err->message = message;
    return code;
}

void mb_error_hint(mb_error *err, const char *fmt, ...)
{
    if (err->hint)
        return;
    va_list args;
    va_start(args, fmt);
    if (vasprintf(&err->hint, fmt, args) < 0)
        err->hint = NULL;
    va_end(args);
}

void mb_error_move(mb_error *to, mb_error *from)
{
    mb_error_clear(to);
    *to = *from;
    *from = (mb_error)MB_ERROR_INIT;
}

const char *mb_code_name(mb_code code)
{
    return codes[code].name;
}

const char *mb_code_meaning(mb_code code)
{
    return codes[code].meaning;
}

const char *mb_code_advice(mb_code code)
{
    return codes[code].advice;
}

int mb_code_status(mb_code code)
{
    return codes[code].status;
}
