/*
 * test_sql_text.c - positions, quoting, and libpg_query's trees and fingerprints.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "engine/sql/parse.h"
#include "engine/sql/position.h"
#include "engine/sql/quote.h"

static void check_place(const char *text, size_t offset, size_t line, size_t column)
{
    size_t found_line, found_column;
    mb_position_locate(text, strlen(text), offset, &found_line, &found_column);
    assert_int_equal(found_line, line);
    assert_int_equal(found_column, column);
}

static void test_locate(void **state)
{
    (void)state;
    check_place("", 0, 1, 1);
    check_place("ab\ncd", 0, 1, 1);
    check_place("ab\ncd", 2, 1, 3); /* the line feed ends its line */
    check_place("ab\ncd", 3, 2, 1);
    check_place("ab\ncd", 5, 2, 3);
    check_place("ab\ncd", 99, 2, 3);
    check_place("ab\r\ncd", 4, 2, 1);
    check_place("ab\r\ncd", 5, 2, 2);
    check_place("\n\n\nx", 3, 4, 1);
    check_place("\xc3\xa9\xe2\x82\xacx", 5, 1, 3); /* columns count characters */
    check_place("\xf0\x9f\x98\x80x", 4, 1, 2);
    check_place("\xef\xbb\xbfx", 0, 1, 1); /* the byte order mark has no column */
    check_place("\xef\xbb\xbfx", 3, 1, 1);
    check_place("\xef\xbb\xbfxy", 4, 1, 2);
    check_place("x\xef\xbb\xbfy", 4, 1, 3); /* elsewhere it is a character */
}

static void test_advance(void **state)
{
    (void)state;
    const char *text = "a\nb\xc3\xa9\n\nc";
    mb_position at;
    mb_position_init(&at, text);
    mb_position_advance(&at, 0);
    assert_int_equal(at.column, 1);
    mb_position_advance(&at, 5);
    assert_int_equal(at.line, 2);
    assert_int_equal(at.column, 3);
    mb_position_advance(&at, 5);
    assert_int_equal(at.column, 3);
    mb_position_advance(&at, 7);
    assert_int_equal(at.line, 4);
    assert_int_equal(at.column, 1);
}

static void test_characters(void **state)
{
    (void)state;
    const char *text = "a\xc3\xa9\xe2\x82\xac"
                       "b";
    assert_int_equal(mb_position_of_character(text, 7, 0, 1), 0);
    assert_int_equal(mb_position_of_character(text, 7, 0, 0), 0);
    assert_int_equal(mb_position_of_character(text, 7, 0, 2), 1);
    assert_int_equal(mb_position_of_character(text, 7, 0, 3), 3);
    assert_int_equal(mb_position_of_character(text, 7, 0, 4), 6);
    assert_int_equal(mb_position_of_character(text, 7, 0, 5), 7);
    assert_int_equal(mb_position_of_character(text, 7, 0, 99), 7);
    assert_int_equal(mb_position_of_character(text, 7, 3, 2), 6);
    assert_int_equal(mb_position_of_character(text, 7, 99, 1), 7);
}

static void test_clip(void **state)
{
    (void)state;
    assert_int_equal(mb_position_clip("abc", 3, 5), 3);
    assert_int_equal(mb_position_clip("abc", 3, 2), 2);
    assert_int_equal(mb_position_clip("a\xc3\xa9", 3, 2), 1);
    assert_int_equal(mb_position_clip("\xe2\x82\xac", 3, 2), 0);
}

static void check_ident(const char *name, const char *expected)
{
    mb_buf out = MB_BUF_INIT;
    mb_sql_quote_ident(&out, name, strlen(name));
    assert_string_equal(out.data, expected);
    mb_buf_free(&out);
}

static void test_ident(void **state)
{
    (void)state;
    check_ident("a", "a");
    check_ident("_a1", "_a1");
    check_ident("users", "users");
    check_ident("1a", "\"1a\"");
    check_ident("A", "\"A\"");
    check_ident("a b", "\"a b\"");
    check_ident("a$", "\"a$\""); /* as quote_ident() does */
    check_ident("a\"b", "\"a\"\"b\"");
    check_ident("\xc3\xa9", "\"\xc3\xa9\"");
    check_ident("", "\"\"");
    check_ident("select", "\"select\"");             /* reserved */
    check_ident("left", "\"left\"");                 /* may be a function */
    check_ident("char", "\"char\"");                 /* may be a column */
    check_ident("merge_action", "\"merge_action\""); /* since 17 */
    check_ident("json_table", "\"json_table\"");
    check_ident("system_user", "\"system_user\""); /* since 16 */
    check_ident("begin", "begin");                 /* unreserved */
    check_ident("atomic", "atomic");
    check_ident("selec", "selec");
    check_ident("selects", "selects");
    check_ident("all", "\"all\""); /* the first and the last of the list */
    check_ident("xmltable", "\"xmltable\"");
}

static void check_literal(const char *text, const char *expected)
{
    mb_buf out = MB_BUF_INIT;
    mb_sql_quote_literal(&out, text, strlen(text));
    assert_string_equal(out.data, expected);
    mb_buf_free(&out);
}

static void test_literal(void **state)
{
    (void)state;
    check_literal("", "''");
    check_literal("a", "'a'");
    check_literal("it's", "'it''s'");
    check_literal("'", "''''");
    check_literal("\\", "E'\\\\'");
    check_literal("a\\'b", "E'a\\\\''b'");
    check_literal("a\nb$$--", "'a\nb$$--'");
}

static void test_parse(void **state)
{
    (void)state;
    mb_parse_error error = {NULL, 0};
    char *json = mb_sql_parse("select 1", 8, &error);
    assert_non_null(json);
    assert_non_null(strstr(json, "\"SelectStmt\""));
    free(json);

    const char *broken = "\xef\xbb\xbfselect '\xc3\xa9', from";
    assert_null(mb_sql_parse(broken, strlen(broken), &error));
    assert_string_equal(error.message, "syntax error at or near \"from\"");
    assert_int_equal(error.offset, strlen(broken) - 4);
    free(error.message);

    /* Comments change neither the outcome nor the places. */
    const char *commented =
        "with /* \xc3\xa9 */ a as (select 1) select x is not -- \xc3\xa9\n null, from";
    assert_null(mb_sql_parse(commented, strlen(commented), &error));
    assert_int_equal(error.offset, strlen(commented) - 4);
    free(error.message);
    commented = "select 1 order by 1 nulls /* x */ first; select u&'!0061' /* y */ uescape '!'";
    json = mb_sql_parse(commented, strlen(commented), &error);
    assert_non_null(json);
    free(json);

    assert_null(mb_sql_parse("select 1;\0x", 11, &error));
    assert_int_equal(error.offset, 9);
    free(error.message);
}

static void test_fingerprint(void **state)
{
    (void)state;
    mb_parse_error error = {NULL, 0};
    char *one = mb_sql_fingerprint("select a from t where b = 1", 27, &error);
    char *two = mb_sql_fingerprint("SELECT a FROM t WHERE b=23", 26, &error);
    char *three = mb_sql_fingerprint("select a from u where b = 1", 27, &error);
    assert_int_equal(strlen(one), 16);
    assert_string_equal(one, two);
    assert_string_not_equal(one, three);
    free(one);
    free(two);
    free(three);
    assert_null(mb_sql_fingerprint("selec", 5, &error));
    assert_string_equal(error.message, "syntax error at or near \"selec\"");
    free(error.message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_locate),     cmocka_unit_test(test_advance),
        cmocka_unit_test(test_characters), cmocka_unit_test(test_clip),
        cmocka_unit_test(test_ident),      cmocka_unit_test(test_literal),
        cmocka_unit_test(test_parse),      cmocka_unit_test(test_fingerprint),
    };
    return cmocka_run_group_tests_name("sql: positions, quoting, trees", tests, NULL, NULL);
}
