/*
 * fuzz_grammar.c - any text that the server's parser accepts is split as the parser splits it.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/sql/parse.h"
#include "engine/sql/split.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition) ((condition) ? (void)0 : abort())

/* The first byte of text[begin, end) that is no white space, comment or semicolon; `end` if none.
 */
static size_t first_token(const char *text, size_t begin, size_t end)
{
    mb_scan scan;
    mb_token token;
    mb_scan_init(&scan, text, begin, end);
    do {
        token = mb_scan_next(&scan);
    } while (mb_token_is_char(text, &token, ';'));
    return token.begin;
}

/* libpg_query's scanner, unlike the server's, lets no -- comment stand inside a continued string.
 */
static bool has_line_comment(const char *text, size_t size)
{
    return size > 1 && memmem(text, size, "--", 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = mb_strndup((const char *)data, size);
    mb_parse_error error = {NULL, 0};
    size_t count = 0;
    mb_parse_range *ranges = mb_sql_parse_split(text, size, &count, &error);
    if (ranges && !(has_line_comment(text, size) && memchr(text, '\'', size))) {
        mb_split split;
        mb_split_init(&split, text, 0, size);
        for (size_t i = 0; i < count; i++) {
            mb_split_event event = mb_split_next(&split);
            if (event == MB_SPLIT_STATEMENT && split.statement.copy_stdin)
                goto done; /* its data lines are no SQL to the parser */
            CHECK(event == MB_SPLIT_STATEMENT || split.statement.copy_stdin);
            if (event != MB_SPLIT_STATEMENT)
                goto done;
            CHECK(split.statement.begin == first_token(text, ranges[i].begin, ranges[i].end));
            CHECK(first_token(text, split.statement.end, ranges[i].end) == ranges[i].end);
        }
        CHECK(mb_split_next(&split) == MB_SPLIT_END);
    }
done:
    free(ranges);
    free(error.message);
    free(text);
    return 0;
}
