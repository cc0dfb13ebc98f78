/*
 * fuzz_split.c - the splitter and the classifier on any bytes: whatever comes, statements lie
 * inside the text, in order, without overlap, and nothing but white space, comments and semicolons
 * lies between.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/sql/classify.h"
#include "engine/sql/position.h"
#include "engine/sql/quote.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition) ((condition) ? (void)0 : abort())

/* Between statements only semicolons (and the psql lines that are skipped) are no comment. */
static void check_gap(const char *text, size_t begin, size_t end)
{
    mb_scan scan;
    mb_token token;
    mb_scan_init(&scan, text, begin, end);
    while ((token = mb_scan_next(&scan)).kind != MB_TOKEN_END) {
        if (token.kind == MB_TOKEN_BACKSLASH) {
            CHECK(strncmp(text + token.begin, "\\restrict", 9) == 0 ||
                  strncmp(text + token.begin, "\\unrestrict", 11) == 0 ||
                  strncmp(text + token.begin, "\\.", 2) == 0);
            while (scan.pos < end && text[scan.pos] != '\n')
                scan.pos++;
        } else {
            CHECK(mb_token_is_char(text, &token, ';'));
        }
    }
}

static void check_statement(const char *text, size_t len, const mb_statement *statement)
{
    CHECK(statement->begin < statement->end && statement->end <= len);
    if (statement->has_data) {
        CHECK(statement->copy_stdin && statement->terminated);
        CHECK(statement->end < statement->data_begin);
        CHECK(statement->data_begin <= statement->data_end);
        CHECK(text[statement->data_begin - 1] == '\n');
        CHECK(text[statement->data_end] == '\\' && text[statement->data_end + 1] == '.');
        CHECK(text[statement->data_end - 1] == '\n');
    }
    /* A statement alone is the same statement. */
    mb_split again;
    mb_split_init(&again, text, statement->begin, statement->end);
    CHECK(mb_split_next(&again) == MB_SPLIT_STATEMENT);
    CHECK(again.statement.begin == statement->begin && again.statement.end == statement->end);
    CHECK(mb_split_next(&again) == MB_SPLIT_END);

    mb_sql_kind kind;
    mb_sql_classify(text, statement, &kind);
    CHECK(memchr(kind.tag, '\0', sizeof kind.tag));
    CHECK((kind.class == MB_SQL_CONTROL) == (kind.control != NULL));
    CHECK((kind.class == MB_SQL_ALONE) == (kind.object.kind != NULL));
    CHECK((kind.class == MB_SQL_COPY) == statement->has_data);
    CHECK(memchr(kind.object.name, '\0', MB_SQL_NAME_SIZE));
    CHECK(memchr(kind.object.relation, '\0', MB_SQL_NAME_SIZE));
    CHECK(mb_sql_class_name(kind.class)[0]);
}

/* What quote_ident writes is read as one token, and as the same name. */
static void check_quote(const char *text, size_t len)
{
    mb_buf quoted = MB_BUF_INIT;
    mb_scan scan;
    mb_sql_quote_literal(&quoted, text, len);
    mb_scan_init(&scan, quoted.data, 0, quoted.len);
    mb_token token = mb_scan_next(&scan);
    CHECK(token.kind == MB_TOKEN_STRING && token.begin == 0 && token.end == quoted.len);

    mb_buf_clear(&quoted);
    mb_sql_quote_ident(&quoted, text, len);
    mb_scan_init(&scan, quoted.data, 0, quoted.len);
    token = mb_scan_next(&scan);
    CHECK(token.begin == 0 && token.end == quoted.len);
    char name[MB_SQL_NAME_SIZE];
    bool ascii = true;
    for (size_t i = 0; i < len; i++)
        ascii = ascii && (unsigned char)text[i] < 0x80;
    if (ascii && len > 0 && len < MB_SQL_NAME_SIZE) {
        CHECK(mb_token_name(quoted.data, &token, '\\', name));
        CHECK(memcmp(name, text, len) == 0 && name[len] == '\0');
    }
    mb_buf_free(&quoted);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = mb_strndup((const char *)data, size);
    size_t done = 0;
    size_t column;
    size_t line_before = 1;
    mb_split split;
    mb_split_event event;
    mb_split_init(&split, text, 0, size);
    while ((event = mb_split_next(&split)) == MB_SPLIT_STATEMENT) {
        const mb_statement *statement = &split.statement;
        CHECK(statement->begin >= done);
        check_gap(text, done, statement->begin);
        check_statement(text, size, statement);
        size_t line;
        mb_position_locate(text, size, statement->begin, &line, &column);
        CHECK(line >= line_before && column >= 1);
        line_before = line;
        done = statement->has_data ? statement->data_end : statement->end;
    }
    if (event == MB_SPLIT_END) {
        check_gap(text, done, size);
    } else {
        CHECK(event == MB_SPLIT_PROBLEM);
        CHECK(split.problem.offset < size && split.problem.message[0]);
        size_t limit = size + 2; /* going on behind a problem comes to an end */
        while (mb_split_next(&split) != MB_SPLIT_END)
            CHECK(limit-- > 0);
    }
    size_t middle = mb_position_of_character(text, size, 0, size / 2 + 1);
    CHECK(middle <= size);
    if (!memchr(text, '\0', size))
        check_quote(text, size);
    free(text);
    return 0;
}
