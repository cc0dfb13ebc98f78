/*
 * parse.c - parse trees and fingerprints; the only file that knows libpg_query.
 */
#include "engine/sql/parse.h"

#include <pg_query.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "engine/sql/position.h"
#include "engine/sql/scan.h"

/* libpg_query takes strings: a copy with a NUL, without a byte order mark (counted in `skipped`).
 * NULL and `error` filled if a zero byte would hide what follows it. */
static char *to_input(const char *text, size_t len, size_t *skipped, mb_parse_error *error)
{
    const char *zero = len ? memchr(text, '\0', len) : NULL;
    if (zero) {
        error->message = mb_strdup("a zero byte: PostgreSQL's text can't hold one");
        error->offset = (size_t)(zero - text);
        return NULL;
    }
    *skipped = len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    return mb_strndup(text + *skipped, len - *skipped);
}

/* libpg_query 15-4.0 takes a comment behind NOT, NULLS, WITH or before UESCAPE for a syntax error:
 * it looks ahead at raw tokens. Blanked, comments do no harm, and every byte stays where it is. */
static void blank_comments(char *input)
{
    mb_scan scan;
    mb_token token;
    mb_scan_init(&scan, input, 0, strlen(input));
    scan.comments = true;
    while ((token = mb_scan_next(&scan)).kind != MB_TOKEN_END) {
        for (size_t pos = token.begin; token.kind == MB_TOKEN_COMMENT && pos < token.end; pos++) {
            if (input[pos] != '\n' && input[pos] != '\r')
                input[pos] = ' ';
        }
    }
}

/* `input` is what was parsed: its characters are the ones that libpg_query counted. */
static void fill_error(mb_parse_error *error, const PgQueryError *from, const char *input,
                       size_t skipped)
{
    error->message = mb_strdup(from->message);
    error->offset = skipped;
    if (from->cursorpos > 0)
        error->offset += mb_position_of_character(input, strlen(input), 0, (size_t)from->cursorpos);
}

/* A chain of operators (a || b || ...) is a tree as deep as it is long, and libpg_query walks it by
 * recursion without a bound: 100,000 of them took 8 MB of stack (measured, 15-4.0: about 80 bytes for
 * each byte of text at worst). Longer texts get a thread whose stack is large enough for their length;
 * only what is touched of it takes memory. */
#define INLINE_MAX ((size_t)16 << 10)
#define TEXT_MAX ((size_t)4 << 20)
#define STACK_BASE ((size_t)8 << 20)
#define STACK_A_BYTE 256

typedef struct deep_call {
    const char *input;
    PgQueryParseResult parsed;
    PgQueryFingerprintResult fingerprint;
} deep_call;

static void *parse_here(void *call)
{
    deep_call *c = call;
    c->parsed = pg_query_parse(c->input);
    return NULL;
}

static void *fingerprint_here(void *call)
{
    deep_call *c = call;
    c->fingerprint = pg_query_fingerprint(c->input);
    return NULL;
}

static bool run_deep(void *(*fn)(void *), deep_call *call, mb_parse_error *error)
{
    size_t len = strlen(call->input);
    pthread_attr_t attr;
    pthread_t thread;
    if (len <= INLINE_MAX) {
        fn(call);
        return true;
    }
    bool done = false;
    if (len <= TEXT_MAX && pthread_attr_init(&attr) == 0) {
        done = pthread_attr_setstacksize(&attr, STACK_BASE + STACK_A_BYTE * len) == 0
            && pthread_create(&thread, &attr, fn, call) == 0;
        pthread_attr_destroy(&attr);
    }
    if (done)
        pthread_join(thread, NULL);
    else
        *error = (mb_parse_error){mb_strdup("too long to be looked into"), 0};
    return done;
}

char *mb_sql_parse(const char *text, size_t len, mb_parse_error *error)
{
    size_t skipped = 0;
    char *json = NULL;
    char *input = to_input(text, len, &skipped, error);
    if (!input)
        return NULL;
    blank_comments(input);
    deep_call call = {.input = input};
    if (!run_deep(parse_here, &call, error)) {
        free(input);
        return NULL;
    }
    PgQueryParseResult result = call.parsed;
    if (result.error)
        fill_error(error, result.error, input, skipped);
    else
        json = mb_strdup(result.parse_tree);
    pg_query_free_parse_result(result);
    free(input);
    return json;
}

char *mb_sql_fingerprint(const char *text, size_t len, mb_parse_error *error)
{
    size_t skipped = 0;
    char *hex = NULL;
    char *input = to_input(text, len, &skipped, error);
    if (!input)
        return NULL;
    blank_comments(input);
    deep_call call = {.input = input};
    if (!run_deep(fingerprint_here, &call, error)) {
        free(input);
        return NULL;
    }
    PgQueryFingerprintResult result = call.fingerprint;
    if (result.error)
        fill_error(error, result.error, input, skipped);
    else
        hex = mb_strdup(result.fingerprint_str);
    pg_query_free_fingerprint_result(result);
    free(input);
    return hex;
}

mb_parse_range *mb_sql_parse_split(const char *text, size_t len, size_t *count,
                                   mb_parse_error *error)
{
    size_t skipped = 0;
    mb_parse_range *ranges = NULL;
    *count = 0;
    char *input = to_input(text, len, &skipped, error);
    if (!input)
        return NULL;
    PgQuerySplitResult result = pg_query_split_with_parser(input);
    if (result.error) {
        fill_error(error, result.error, input, skipped);
    } else {
        *count = (size_t)result.n_stmts;
        ranges = mb_malloc((*count + 1) * sizeof *ranges);
        for (size_t i = 0; i < *count; i++) {
            size_t begin = skipped + (size_t)result.stmts[i]->stmt_location;
            ranges[i] = (mb_parse_range){begin, begin + (size_t)result.stmts[i]->stmt_len};
        }
    }
    pg_query_free_split_result(result);
    free(input);
    return ranges;
}

const char *mb_sql_library_version(void)
{
    return PG_VERSION;
}
