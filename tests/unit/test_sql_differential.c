/*
 * test_sql_differential.c - the splitter against the server's own parser (libpg_query) on samples
 * of the whole grammar of PostgreSQL 15: as written, with CRLF, and shuffled with all kinds of text
 * between.
 *
 * Both must see the same statements. The ranges differ in their trimmings only (the parser's
 * include what stands before a statement), so these are compared after removing white space and
 * comments by a skipper of this file's own, which shares nothing with the code under test.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/buf.h"
#include "engine/sql/parse.h"
#include "engine/sql/position.h"
#include "engine/sql/split.h"

typedef struct ranges {
    mb_parse_range *items;
    size_t count;
} ranges;

static void add_range(ranges *list, size_t begin, size_t end)
{
    list->items = mb_realloc(list->items, (list->count + 1) * sizeof *list->items);
    list->items[list->count++] = (mb_parse_range){begin, end};
}

/* The first byte from `pos` on that is neither white space nor inside of a comment. */
static size_t skip_blank(const char *text, size_t pos, size_t end)
{
    for (;;) {
        if (pos < end && strchr(" \t\n\r\f\v", text[pos])) {
            pos++;
        } else if (pos + 1 < end && text[pos] == '-' && text[pos + 1] == '-') {
            while (pos < end && text[pos] != '\n' && text[pos] != '\r')
                pos++;
        } else if (pos + 1 < end && text[pos] == '/' && text[pos + 1] == '*') {
            int depth = 0;
            do {
                if (text[pos] == '/' && text[pos + 1] == '*') {
                    depth++;
                    pos += 2;
                } else if (text[pos] == '*' && text[pos + 1] == '/') {
                    depth--;
                    pos += 2;
                } else {
                    pos++;
                }
            } while (depth > 0 && pos + 1 < end);
        } else {
            return pos;
        }
    }
}

static ranges split_ours(const char *text, size_t len, const char *name)
{
    ranges found = {NULL, 0};
    mb_split split;
    mb_split_event event;
    mb_split_init(&split, text, 0, len);
    while ((event = mb_split_next(&split)) == MB_SPLIT_STATEMENT)
        add_range(&found, split.statement.begin, split.statement.end);
    if (event != MB_SPLIT_END)
        fail_msg("%s: byte %zu: %s", name, split.problem.offset, split.problem.message);
    return found;
}

/* Fails with the place and both readings unless the two splitters agree. Returns the statements. */
static size_t compare(const char *text, size_t len, const char *name)
{
    mb_parse_error error = {NULL, 0};
    size_t count;
    size_t line, column;
    mb_parse_range *theirs = mb_sql_parse_split(text, len, &count, &error);
    if (!theirs) {
        mb_position_locate(text, len, error.offset, &line, &column);
        fail_msg("%s:%zu:%zu: the sample is no SQL: %s", name, line, column, error.message);
        return 0;
    }
    ranges ours = split_ours(text, len, name);
    for (size_t i = 0; i < count || i < ours.count; i++) {
        mb_parse_range them = i < count ? theirs[i] : (mb_parse_range){len, len};
        mb_parse_range us = i < ours.count ? ours.items[i] : (mb_parse_range){len, len};
        them.begin = skip_blank(text, them.begin, them.end);
        /* Empty statements before one belong to its range in the parser's eyes. */
        while (them.begin < them.end && text[them.begin] == ';')
            them.begin = skip_blank(text, them.begin + 1, them.end);
        if (us.begin != them.begin || skip_blank(text, us.end, them.end) != them.end) {
            mb_position_locate(text, len, them.begin, &line, &column);
            fail_msg("%s:%zu:%zu: statement %zu\n  parser: [%.*s]\n  ours:   [%.*s]", name, line,
                     column, i + 1, (int)(them.end - them.begin), text + them.begin,
                     (int)(us.end - us.begin), text + us.begin);
        }
    }
    free(theirs);
    free(ours.items);
    return count;
}

static char *read_file(const char *path, size_t *len)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        fail_msg("can't open %s", path);
    mb_buf buf = MB_BUF_INIT;
    size_t got;
    do {
        got = fread(mb_buf_reserve(&buf, 65536), 1, 65536, file);
        buf.len += got;
    } while (got > 0);
    fclose(file);
    *len = buf.len;
    return mb_buf_take(&buf);
}

/* All samples; called once for each test, which frees nothing it did not add. */
static int load(void **state)
{
    mb_buf *all = mb_calloc(1, sizeof *all);
    struct dirent **names;
    int count = scandir(MB_UNIT_DIR "/grammar", &names, NULL, alphasort);
    assert_true(count > 2);
    for (int i = 0; i < count; i++) {
        size_t name_len = strlen(names[i]->d_name);
        if (name_len > 4 && strcmp(names[i]->d_name + name_len - 4, ".sql") == 0) {
            char *path = mb_sprintf("%s/%s", MB_UNIT_DIR "/grammar", names[i]->d_name);
            size_t len;
            char *text = read_file(path, &len);
            compare(text, len, names[i]->d_name);
            mb_buf_add(all, text, len);
            mb_buf_adds(all, "\n;\n"); /* a file may end without a semicolon */
            free(text);
            free(path);
        }
        free(names[i]);
    }
    free(names);
    *state = all;
    return 0;
}

static int unload(void **state)
{
    if (*state)
        mb_buf_free(*state);
    free(*state);
    return 0;
}

static void test_samples(void **state)
{
    const mb_buf *all = *state;
    size_t count = compare(all->data, all->len, "all samples");
    assert_true(count >= 400);
    print_message("%zu statements split alike\n", count);
}

static void test_crlf_and_bom(void **state)
{
    const mb_buf *all = *state;
    mb_buf text = MB_BUF_INIT;
    mb_buf_adds(&text, "\xef\xbb\xbf");
    for (size_t i = 0; i < all->len; i++) {
        if (all->data[i] == '\n')
            mb_buf_addc(&text, '\r');
        mb_buf_addc(&text, all->data[i]);
    }
    compare(text.data, text.len, "all samples with CRLF");
    mb_buf_free(&text);
}

/* A fixed sequence (xorshift): a failure must come back on the next run. */
static uint32_t next_random(uint32_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    *seed ^= *seed << 5;
    return *seed;
}

static void test_shuffled(void **state)
{
    static const char *const between[] = {
        ";",        ";\n", "\n;\n\n",        " ; -- it's\n",
        ";/* ; */", ";;",  "/* /* ; */ */;", "-- $$\n;\r\n",
        ";\f\t",
    };
    const mb_buf *all = *state;
    ranges ours = split_ours(all->data, all->len, "all samples");
    uint32_t seed = 20150515;
    for (int round = 0; round < 400; round++) {
        mb_buf text = MB_BUF_INIT;
        size_t count = 1 + next_random(&seed) % 12;
        for (size_t i = 0; i < count; i++) {
            mb_parse_range *one = &ours.items[next_random(&seed) % ours.count];
            mb_buf_add(&text, all->data + one->begin, one->end - one->begin);
            mb_buf_adds(&text, between[next_random(&seed) % (sizeof between / sizeof *between)]);
        }
        assert_int_equal(compare(text.data, text.len, "shuffled samples"), count);
        mb_buf_free(&text);
    }
    free(ours.items);
}

/* Words whose next token decides on the grammar's reading: there libpg_query (unlike the server)
 * takes a comment for that token. */
static bool looks_ahead(const char *text, const mb_token *token)
{
    static const char *const words[] = {"not", "nulls", "with", "uescape"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (mb_token_is(text, token, words[i]))
            return true;
    }
    return false;
}

/* Other white space and comments at each place where a sample has some. */
static void test_respaced(void **state)
{
    static const char *const spaces[] = {
        " ", "\n", "\r\n\t", "/*;*/", " /* /* $$; */ ' */ ", " -- ;'\n", "\f--\"$a$;\r\n",
    };
    const mb_buf *all = *state;
    ranges ours = split_ours(all->data, all->len, "all samples");
    uint32_t seed = 19960708;
    for (int round = 0; round < 20; round++) {
        mb_buf text = MB_BUF_INIT;
        for (size_t i = 0; i < ours.count; i++) {
            mb_scan scan;
            mb_token token;
            size_t before = ours.items[i].begin;
            bool plain = false;
            mb_scan_init(&scan, all->data, before, ours.items[i].end);
            while ((token = mb_scan_next(&scan)).kind != MB_TOKEN_END) {
                size_t which = next_random(&seed) % (sizeof spaces / sizeof *spaces);
                if (plain || mb_token_is(all->data, &token, "uescape"))
                    which = 1;
                if (token.begin > before)
                    mb_buf_adds(&text, spaces[which]);
                plain = looks_ahead(all->data, &token);
                mb_buf_add(&text, all->data + token.begin, token.end - token.begin);
                before = token.end;
            }
            mb_buf_addc(&text, ';');
        }
        assert_int_equal(compare(text.data, text.len, "respaced samples"), ours.count);
        mb_buf_free(&text);
    }
    free(ours.items);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_samples),
        cmocka_unit_test(test_crlf_and_bom),
        cmocka_unit_test(test_shuffled),
        cmocka_unit_test(test_respaced),
    };
    return cmocka_run_group_tests_name("sql: splitter against the parser", tests, load, unload);
}
