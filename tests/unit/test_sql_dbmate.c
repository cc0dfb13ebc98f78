/*
 * test_sql_dbmate.c - the .sql migration format: what dbmate accepts, what it silently gets wrong,
 * and every message.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

#include "engine/base/buf.h"
#include "engine/sql/dbmate.h"

/* Sections as up[text] down[text], with (nt) for transaction:false; problems as line:column
 * message. */
static const char *describe(const char *text)
{
    static mb_buf line = MB_BUF_INIT;
    mb_dbmate dbmate = MB_DBMATE_INIT;
    mb_buf_clear(&line);
    mb_buf_reserve(&line, 0);
    if (mb_dbmate_parse(&dbmate, text, strlen(text))) {
        assert_int_equal(dbmate.problem_count, 0);
        for (size_t i = 0; i < dbmate.section_count; i++) {
            const mb_dbmate_block *blocks[] = {&dbmate.sections[i].up, &dbmate.sections[i].down};
            for (int j = 0; j < 2; j++) {
                mb_buf_adds(&line, j ? " down" : i ? " up" : "up");
                mb_buf_adds(&line, blocks[j]->transaction ? "[" : "(nt)[");
                mb_buf_add(&line, text + blocks[j]->begin, blocks[j]->end - blocks[j]->begin);
                mb_buf_addc(&line, ']');
            }
        }
    } else {
        assert_int_not_equal(dbmate.problem_count, 0);
        for (size_t i = 0; i < dbmate.problem_count; i++)
            mb_buf_addf(&line, "%s%zu:%zu %s", i ? "\n" : "", dbmate.problems[i].line,
                        dbmate.problems[i].column, dbmate.problems[i].message);
    }
    mb_dbmate_free(&dbmate);
    return line.data;
}

static void check(const char *text, const char *expected)
{
    assert_string_equal(describe(text), expected);
}

static void check_hint(const char *text, const char *hint)
{
    mb_dbmate dbmate = MB_DBMATE_INIT;
    assert_false(mb_dbmate_parse(&dbmate, text, strlen(text)));
    assert_string_equal(dbmate.problems[0].hint, hint);
    mb_dbmate_free(&dbmate);
}

#define NO_UP "the .sql format requires each migration to define an up block with '-- migrate:up'"
#define NO_DOWN                                                                                    \
    "the .sql format requires each migration to define a down block with '-- migrate:down'"
#define SWAPPED "the .sql format requires '-- migrate:up' to appear before '-- migrate:down'"
#define BEFORE "the .sql format does not allow statements preceding the '-- migrate:up' block"
#define TWO_DOWNS                                                                                  \
    "the .sql format requires every '-- migrate:down' to be preceded by a '-- migrate:up'"

static void test_sections(void **state)
{
    (void)state;
    check("-- migrate:up\na;\n-- migrate:down\nb;\n", "up[a;\n] down[b;\n]");
    check("--migrate:up\na\n--migrate:down\nb", "up[a\n] down[b]");
    check("--   \t migrate:up\na\n--\tmigrate:down", "up[a\n] down[]");
    check("-- migrate:up\n-- migrate:down\n", "up[] down[]");
    check("-- migrate:up\n-- migrate:down", "up[] down[]");
    check("-- migrate:up \na\n-- migrate:down\t\n", "up[a\n] down[]");
    check("-- migrate:up\n1\n-- migrate:down\n2\n-- migrate:up\n3\n-- migrate:down\n4",
          "up[1\n] down[2\n] up[3\n] down[4]");
    check("-- about\n\n   -- it\n-- migrate:up\na\n-- migrate:down\n", "up[a\n] down[]");
    check("-- migrate:up\n-- a comment\n/* another */ a;\n-- migrate:down\n/* c */",
          "up[-- a comment\n/* another */ a;\n] down[/* c */]");
}

static void test_line_ends_and_byte_order_mark(void **state)
{
    (void)state;
    check("-- migrate:up\r\na;\r\n-- migrate:down\r\nb;\r\n", "up[a;\r\n] down[b;\r\n]");
    check("\xef\xbb\xbf-- migrate:up\na\n-- migrate:down\n", "up[a\n] down[]");
    check("\xef\xbb\xbf-- x\r\n-- migrate:up transaction:false\r\na\r\n-- migrate:down\r\n",
          "up(nt)[a\r\n] down[]");
}

static void test_places(void **state)
{
    (void)state;
    const char *text = "\xef\xbb\xbf-- \xc3\xa9\r\n-- migrate:up transaction:true\r\na;\r\n\r\n"
                       "-- migrate:down transaction:false\r\n";
    mb_dbmate dbmate = MB_DBMATE_INIT;
    assert_true(mb_dbmate_parse(&dbmate, text, strlen(text)));
    assert_int_equal(dbmate.section_count, 1);
    const mb_dbmate_block *up = &dbmate.sections[0].up;
    const mb_dbmate_block *down = &dbmate.sections[0].down;
    assert_int_equal(dbmate.header_end, 10);
    assert_int_equal(up->directive_begin, 10);
    assert_int_equal(up->directive_end, 40);
    assert_int_equal(up->begin, 42);
    assert_int_equal(up->end, down->directive_begin);
    assert_int_equal(up->line, 3);
    assert_true(up->transaction && up->transaction_option);
    assert_int_equal(down->directive_end - down->directive_begin, 33);
    assert_int_equal(down->begin, strlen(text));
    assert_int_equal(down->end, strlen(text));
    assert_int_equal(down->line, 6);
    assert_true(!down->transaction && down->transaction_option);
    mb_dbmate_free(&dbmate);
    assert_null(dbmate.sections);
}

static void test_options(void **state)
{
    (void)state;
    check("-- migrate:up transaction:false\na\n-- migrate:down\n", "up(nt)[a\n] down[]");
    check("-- migrate:up transaction:true\na\n-- migrate:down transaction:false\n",
          "up[a\n] down(nt)[]");
    check("-- migrate:up   transaction:false  \na\n-- migrate:down\n", "up(nt)[a\n] down[]");
    check("-- migrate:up because CIC transaction:false and so on\na\n-- migrate:down\n",
          "up(nt)[a\n] down[]");
    check("-- migrate:up transaction:false transaction:true\na\n-- migrate:down\n",
          "up[a\n] down[]"); /* the last one counts */
    check("-- migrate:up creates the transaction table a:b:c\na\n-- migrate:down\n",
          "up[a\n] down[]"); /* prose; words with two colons are none of dbmate's options either */
}

static void test_broken_options(void **state)
{
    (void)state;
    static const char *const broken[] = {
        "transaction: false",  "transaction :false", "transaction : false", "transaction=false",
        "transaction = false", "Transaction:false",  "transaction:False",   "transaction:off",
        "transaction:",        "transaction:false:", "TRANSACTION:FALSE",
    };
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        mb_buf text = MB_BUF_INIT;
        mb_buf expected = MB_BUF_INIT;
        mb_buf_addf(&text, "-- migrate:up %s\na\n-- migrate:down\n", broken[i]);
        mb_buf_addf(&expected, "1:15 broken option \"%s\"", broken[i]);
        check(text.data, expected.data);
        check_hint(text.data,
                   "write \"transaction:false\" (or \"transaction:true\"), without spaces");
        mb_buf_free(&text);
        mb_buf_free(&expected);
    }
    check("-- migrate:up tranaction:false\na\n-- migrate:down\n",
          "1:15 unknown option \"tranaction\"");
    check_hint("-- migrate:up tranaction:false\na\n-- migrate:down\n",
               "did you mean \"transaction:false\"? there is no other option");
    check("-- migrate:up\na\n-- migrate:down :x y:z\n",
          "3:17 unknown option \"\"\n3:20 unknown option \"y\"");
    check(
        "-- migrate:up transaction: aaaaaaaaaaaaaaaaaaaaaaaaaa\xc3\xa9\xc3\xa9\n-- migrate:down\n",
        "1:15 broken option \"transaction: aaaaaaaaaaaaaaaaaaaaaaaaaa\"");
}

static void test_what_is_no_directive(void **state)
{
    (void)state;
    check("-- migrate:up\nselect '\n-- migrate:down\n';\n-- migrate:down\n",
          "up[select '\n-- migrate:down\n';\n] down[]");
    check("-- migrate:up\ndo $$\n-- migrate:down\n$$;\n-- migrate:down\n",
          "up[do $$\n-- migrate:down\n$$;\n] down[]");
    check("-- migrate:up\n/*\n-- migrate:down\n*/\n-- migrate:down\n",
          "up[/*\n-- migrate:down\n*/\n] down[]");
    check("-- migrate:up\nselect \"\n-- migrate:down\n\";\n-- migrate:down\n",
          "up[select \"\n-- migrate:down\n\";\n] down[]");
    check("-- migrate:up\ncopy t from stdin;\n-- migrate:down\n\\.\n-- migrate:down\n",
          "up[copy t from stdin;\n-- migrate:down\n\\.\n] down[]");
    check(
        "-- migrate:up\n  -- migrate:down\na; -- migrate:down\n-- migrate:downs\n-- "
        "migrate:upgrade\n"
        "-- migrate:down\n",
        "up[  -- migrate:down\na; -- migrate:down\n-- migrate:downs\n-- migrate:upgrade\n] down[]");
    check("--\nmigrate:up\n-- migrate:up\n-- migrate:down\n", "2:1 " BEFORE);
}

static void test_what_is_one_all_the_same(void **state)
{
    (void)state;
    /* A statement without its semicolon, parentheses or a body left open: the directive still
     * counts. */
    check("-- migrate:up\ncreate table a ()\n-- migrate:down\ndrop table a",
          "up[create table a ()\n] down[drop table a]");
    check("-- migrate:up\nselect (1;\n-- migrate:down\n;", "up[select (1;\n] down[;]");
    check("-- migrate:up\ncreate function f() begin atomic select 1;\n-- migrate:down\nend;",
          "up[create function f() begin atomic select 1;\n] down[end;]");
}

static void test_messages(void **state)
{
    (void)state;
    check("", "1:1 " NO_UP);
    check("create table a ();\n", "1:1 " NO_UP);
    check("-- migrate:down\n", "1:1 " NO_UP);
    check_hint("", "add '-- migrate:up' above the first statement");
    check("-- migrate:up\na\n", "1:1 " NO_DOWN);
    check_hint("-- migrate:up\na\n", "add '-- migrate:down'; the block below it may be empty");
    check("-- x\n-- migrate:up\na\n-- migrate:up\nb\n-- migrate:down\n", "2:1 " NO_DOWN);
    check("-- migrate:up\n-- migrate:up\n", "1:1 " NO_DOWN "\n2:1 " NO_DOWN);
    check("-- migrate:down\na\n-- migrate:up\nb\n", "1:1 " SWAPPED);
    check("-- x\ncreate table a ();\n-- migrate:up\n-- migrate:down\n", "2:1 " BEFORE);
    check("/* x */\n-- migrate:up\n-- migrate:down\n", "1:1 " BEFORE);
    check("\xef\xbb\xbfx\n-- migrate:up\n-- migrate:down\n", "1:1 " BEFORE);
    check("-- migrate:up\n-- migrate:down\n-- migrate:down\n", "3:1 " TWO_DOWNS);
}

static void test_near_misses(void **state)
{
    (void)state;
    static const char *const down[] = {
        "  -- migrate:down",  "-- Migrate:Down",    "-- migrate: down", "-- migrate down",
        "/* migrate:down */", "a; -- migrate:down", "-- migrate_down",
    };
    for (size_t i = 0; i < sizeof down / sizeof *down; i++) {
        mb_buf text = MB_BUF_INIT;
        mb_buf_addf(&text, "-- migrate:up\na\n%s\n", down[i]);
        check_hint(
            text.data,
            "line 3 looks like it, but only '-- migrate:down' at the start of a line counts");
        mb_buf_free(&text);
    }
    check_hint("-- migrate up\na\n-- migrate:down\n",
               "line 1 looks like it, but only '-- migrate:up' at the start of a line counts");
    check_hint("-- migrate:up\n-- migrate the downs\n-- migrated:down\n",
               "add '-- migrate:down'; the block below it may be empty");
}

static void test_broken_sql(void **state)
{
    (void)state;
    /* What a quote swallows is not reported as missing too. */
    check("-- migrate:up\nselect 'a;\n-- migrate:down\n", "2:8 unterminated quoted string");
    check("select $$\n-- migrate:up\n", "1:8 unterminated dollar-quoted string");
    check("-- migrate:up\ncopy t from stdin;\n-- migrate:down\n",
          "2:1 the data of COPY ... FROM stdin has no end");
    check("-- migrate:up\n\\set a\nb;\n  \\echo b\n-- migrate:down\n",
          "2:1 \"\\set\" is a command of psql, not SQL\n4:3 \"\\echo\" is a command of psql, not "
          "SQL");
    check("-- migrate:up\n\\restrict a\nb;\n\\unrestrict a\n-- migrate:down\n",
          "up[\\restrict a\nb;\n\\unrestrict a\n] down[]");
}

static void test_several_problems_in_order(void **state)
{
    (void)state;
    check("x;\n-- migrate:up transaction: false\n\\q\n-- migrate:up foo:bar\n",
          "1:1 " BEFORE "\n2:1 " NO_DOWN "\n2:15 broken option \"transaction: false\"\n"
          "3:1 \"\\q\" is a command of psql, not SQL\n4:1 " NO_DOWN
          "\n4:15 unknown option \"foo\"");
}

static void test_many_sections(void **state)
{
    (void)state;
    mb_buf text = MB_BUF_INIT;
    for (int i = 0; i < 20000; i++)
        mb_buf_adds(&text, "-- migrate:up\nselect 1;\n-- migrate:down\nselect 2;\n");
    mb_dbmate dbmate = MB_DBMATE_INIT;
    assert_true(mb_dbmate_parse(&dbmate, text.data, text.len));
    assert_int_equal(dbmate.section_count, 20000);
    assert_int_equal(dbmate.sections[19999].down.line, 80000);
    mb_dbmate_free(&dbmate);
    mb_buf_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sections),
        cmocka_unit_test(test_line_ends_and_byte_order_mark),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_broken_options),
        cmocka_unit_test(test_what_is_no_directive),
        cmocka_unit_test(test_what_is_one_all_the_same),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_near_misses),
        cmocka_unit_test(test_broken_sql),
        cmocka_unit_test(test_several_problems_in_order),
        cmocka_unit_test(test_many_sections),
    };
    return cmocka_run_group_tests_name("sql: the .sql migration format", tests, NULL, NULL);
}
