/*
 * test_sql_split.c - statement boundaries, COPY data, psql's lines, problems and their places.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/buf.h"
#include "engine/sql/position.h"
#include "engine/sql/split.h"

/* All statements in [], data in {}, a problem as !offset: message. */
static const char *pieces_of(const char *text, size_t len)
{
    static mb_buf line = MB_BUF_INIT;
    mb_buf_clear(&line);
    mb_buf_reserve(&line, 0);
    mb_split split;
    mb_split_event event;
    mb_split_init(&split, text, 0, len);
    while ((event = mb_split_next(&split)) == MB_SPLIT_STATEMENT) {
        const mb_statement *one = &split.statement;
        mb_buf_addc(&line, '[');
        mb_buf_add(&line, text + one->begin, one->end - one->begin);
        mb_buf_addc(&line, ']');
        if (one->has_data) {
            mb_buf_addc(&line, '{');
            mb_buf_add(&line, text + one->data_begin, one->data_end - one->data_begin);
            mb_buf_addc(&line, '}');
        }
    }
    if (event == MB_SPLIT_PROBLEM)
        mb_buf_addf(&line, "!%zu: %s", split.problem.offset, split.problem.message);
    return line.data;
}

static void check(const char *text, const char *expected)
{
    assert_string_equal(pieces_of(text, strlen(text)), expected);
}

static void test_plain(void **state)
{
    (void)state;
    check("", "");
    check(" \n ; ;; -- x\n /* y; */ ;", "");
    check("select 1", "[select 1]");
    check("select 1;select 2", "[select 1][select 2]");
    check("  select 1 ; -- a;\n /* b; */ select 2 /* c */ ; ", "[select 1][select 2]");
    check("select 1 /* a */ -- b\n", "[select 1]");
    check("/*+ hint */ select /*+ kept */ 1;", "[select /*+ kept */ 1]");
    check("select (1;2); select 3", "[select (1;2)][select 3]");
    check("select 1); select 2", "[select 1)][select 2]"); /* the server will say what is wrong */
    check("select (1; select 2", "[select (1; select 2]");
}

static void test_quotes(void **state)
{
    (void)state;
    check("select ';'; select 2", "[select ';'][select 2]");
    check("select '\\'; select 2", "[select '\\'][select 2]");
    check("select E'\\';'; select 2", "[select E'\\';'][select 2]");
    check("select \";\"; select 2", "[select \";\"][select 2]");
    check("do $$ begin; $$; do $a$ $$;$$ $a$; x", "[do $$ begin; $$][do $a$ $$;$$ $a$][x]");
    check("select a$$;$$", "[select a$$]!11: unterminated dollar-quoted string");
    check("select 'a'\n';'; b", "[select 'a'\n';'][b]");
    check("select 'a' ';'; b", "[select 'a' ';'][b]");
    check("select /* /* ; */ ; */ 1; b", "[select /* /* ; */ ; */ 1][b]");
    check("select 1 --;\n; b", "[select 1][b]");
    check("select 1 +--;\n2; b", "[select 1 +--;\n2][b]");
}

static void test_begin_atomic(void **state)
{
    (void)state;
    check("create function f() returns int begin atomic select 1; select 2; end; x",
          "[create function f() returns int begin atomic select 1; select 2; end][x]");
    check("CREATE OR REPLACE PROCEDURE p() BEGIN ATOMIC END; x",
          "[CREATE OR REPLACE PROCEDURE p() BEGIN ATOMIC END][x]");
    check("create function f() begin atomic; end; x", "[create function f() begin atomic; end][x]");
    check(
        "create function f() begin atomic select case when 1=1 then case 2 when 2 then 3 end end; "
        "end; x",
        "[create function f() begin atomic select case when 1=1 then case 2 when 2 then 3 end end; "
        "end][x]");
    /* END as a label, with AS and without, and as a column: psql itself gets these wrong. */
    check("create function f() begin atomic select 1 as end; select 1 end; select t.end from t; "
          "select 2 as case; end; x",
          "[create function f() begin atomic select 1 as end; select 1 end; select t.end from t; "
          "select 2 as case; end][x]");
    check("create function f() begin /* ; */ atomic /* end; */ select 'end;'; -- end;\n end; x",
          "[create function f() begin /* ; */ atomic /* end; */ select 'end;'; -- end;\n end][x]");
    check(
        "create function f() begin atomic create function g() begin atomic select 1; end; select "
        "2; "
        "end; x",
        "[create function f() begin atomic create function g() begin atomic select 1; end; select "
        "2; end][x]");
    check(
        "create function f() begin atomic create rule r as on insert to t do (a; end;); end; x",
        "[create function f() begin atomic create rule r as on insert to t do (a; end;); end][x]");
    check("create function f(a begin, atomic int) returns begin language sql as $$ $$; x",
          "[create function f(a begin, atomic int) returns begin language sql as $$ $$][x]");
    check("create function f() begin atomic select begin atomic from t; end; x",
          "[create function f() begin atomic select begin atomic from t; end][x]");
    /* Not a function: BEGIN is the transaction's. */
    check("begin; atomic; end", "[begin][atomic][end]");
    check("begin atomic; select 1; end;", "[begin atomic][select 1][end]");
    check("create table begin (atomic int); end; x", "[create table begin (atomic int)][end][x]");
    check("create or replace view v as select begin atomic; end",
          "[create or replace view v as select begin atomic][end]");
    check("create replace function f() begin atomic; end",
          "[create replace function f() begin atomic][end]");
    check("create \"function\" f() begin atomic; end",
          "[create \"function\" f() begin atomic][end]");
    check("create function f() begin \"atomic\"; end",
          "[create function f() begin \"atomic\"][end]");
    /* Without its END it takes all: the server names the mistake. */
    check("create function f() begin atomic select 1; select 2;",
          "[create function f() begin atomic select 1; select 2;]");
}

static void test_rules_and_schemas(void **state)
{
    (void)state;
    check("create rule r as on insert to t do also (insert into a values (1); notify b;); x",
          "[create rule r as on insert to t do also (insert into a values (1); notify b;)][x]");
    check("create schema s create table t (a int) create view v as select 1; x",
          "[create schema s create table t (a int) create view v as select 1][x]");
}

static void test_copy_data(void **state)
{
    (void)state;
    check("copy t from stdin;\n1\t;\n'\n\\.\nselect 1;",
          "[copy t from stdin]{1\t;\n'\n}[select 1]");
    check("COPY \"T\" (a, \"from\") FROM STDIN WITH (FORMAT csv);\na,b\n\\.\n",
          "[COPY \"T\" (a, \"from\") FROM STDIN WITH (FORMAT csv)]{a,b\n}");
    check("copy t from stdin; -- a comment\n1\n\\.", "[copy t from stdin]{1\n}");
    check("copy t from stdin; /* a comment */ \n1\n\\.", "[copy t from stdin]{1\n}");
    check("copy t from stdin;\n\\.\nx", "[copy t from stdin]{}[x]");
    check("copy t from stdin;\n\n\\.\nx", "[copy t from stdin]{\n}[x]");
    check("copy t from stdin;\r\n1\r\n\\.\r\nx", "[copy t from stdin]{1\r\n}[x]");
    check("copy t from stdin;\na\\.\n\\.b\n\\\\.\n \\.\n\\.\nx",
          "[copy t from stdin]{a\\.\n\\.b\n\\\\.\n \\.\n}[x]");
    check("copy t from stdout;\n1\n\\.\nx", "[copy t from stdout]{1\n}[x]");
    check("copy t from stdin;\n-- migrate:down\n\\connect\n$$\n\\.\nx",
          "[copy t from stdin]{-- migrate:down\n\\connect\n$$\n}[x]");
    /* No data in the text: nothing follows, or nothing ends the statement. */
    check("copy t from stdin", "[copy t from stdin]");
    check("copy t from stdin;", "[copy t from stdin]");
    check("copy t from stdin; \n\n", "[copy t from stdin]");
    /* Not from the client. */
    check("copy t from 'stdin'; select 1", "[copy t from 'stdin'][select 1]");
    check("copy t from program 'x'; select 1", "[copy t from program 'x'][select 1]");
    check("copy t to stdout; select 1", "[copy t to stdout][select 1]");
    check("copy (select 1 from stdin) to stdout; select 1",
          "[copy (select 1 from stdin) to stdout][select 1]");
    check("select 1 from stdin; x", "[select 1 from stdin][x]");
    check("copy t from \"stdin\"; x", "[copy t from \"stdin\"][x]");
    check("select 1;\ncopy t from stdin;\n1\n2\n",
          "[select 1]!10: the data of COPY ... FROM stdin has no end");
    check("copy t from stdin; select 1;\n1\n\\.\n",
          "!19: text behind COPY ... FROM stdin; on the same line");
}

static void test_psql_lines(void **state)
{
    (void)state;
    check("\\restrict aB1\n\nselect 1;\n\\unrestrict aB1\n", "[select 1]");
    check("\\restrict aB1\r\nselect 1;\r\n\\unrestrict aB1", "[select 1]");
    check("select 1; \\restrict x\nselect 2", "[select 1][select 2]");
    check("select 1;\n\\connect foo", "[select 1]!10: \"\\connect\" is a command of psql, not SQL");
    check("select 1 \\gset", "!9: \"\\gset\" is a command of psql, not SQL");
    check("\\restricted", "!0: \"\\restricted\" is a command of psql, not SQL");
    check("\\;", "!0: \"\\;\" is a command of psql, not SQL");
    check("\\.", "!0: \"\\.\" is a command of psql, not SQL");
    check("\\", "!0: \"\\\" is a command of psql, not SQL");
    check("select \\restrict x\n1",
          "!7: \"\\restrict\" must stand on a line of its own between statements");
    check("\\restrict x \\\\ drop table t;",
          "!0: \"\\restrict\" must stand on a line of its own between statements");
    check("\\restrict x; drop table t;",
          "!0: \"\\restrict\" must stand on a line of its own between statements");
    check("select '\\connect', \"\\x\", $$\\y$$ /* \\z */; -- \\q",
          "[select '\\connect', \"\\x\", $$\\y$$]");
}

static void test_goes_on_behind_psql_lines(void **state)
{
    (void)state;
    const char *text = "\\set a\nselect 1;\n\\if x\nselect 2;";
    mb_split split;
    mb_split_init(&split, text, 0, strlen(text));
    assert_int_equal(mb_split_next(&split), MB_SPLIT_PROBLEM);
    assert_string_not_equal(split.problem.hint, "");
    assert_int_equal(mb_split_next(&split), MB_SPLIT_STATEMENT);
    assert_int_equal(mb_split_next(&split), MB_SPLIT_PROBLEM);
    assert_int_equal(split.problem.offset, 17);
    assert_int_equal(mb_split_next(&split), MB_SPLIT_STATEMENT);
    assert_int_equal(mb_split_next(&split), MB_SPLIT_END);
}

static void test_problems(void **state)
{
    (void)state;
    check("select 1; select 'a;", "[select 1]!17: unterminated quoted string");
    check("select \"a", "!7: unterminated quoted identifier");
    check("do $a$ x; $b$;", "!3: unterminated dollar-quoted string");
    check("select 1 /* a", "!9: unterminated /* comment");
    static const char zero[] = "select 1;\0select 2";
    assert_string_equal(pieces_of(zero, sizeof zero - 1),
                        "!9: a zero byte: PostgreSQL's text can't hold one");
}

static void test_byte_order_mark_and_crlf(void **state)
{
    (void)state;
    const char *text = "\xef\xbb\xbf-- \xc3\xa9\r\n  select\r\n 1;\r\nselect 2;";
    check(text, "[select\r\n 1][select 2]");
    mb_split split;
    size_t line, column;
    mb_split_init(&split, text, 0, strlen(text));
    assert_int_equal(mb_split_next(&split), MB_SPLIT_STATEMENT);
    mb_position_locate(text, strlen(text), split.statement.begin, &line, &column);
    assert_int_equal(line, 2);
    assert_int_equal(column, 3);
    check("\xef\xbb\xbf", "");
    check("\xef\xbb\xbfselect 1", "[select 1]");
}

static void test_range(void **state)
{
    (void)state;
    const char *text = "select 1; select 2; select 'a";
    mb_split split;
    mb_split_init(&split, text, 9, 19);
    assert_int_equal(mb_split_next(&split), MB_SPLIT_STATEMENT);
    assert_int_equal(split.statement.begin, 10);
    assert_int_equal(split.statement.end, 18);
    assert_true(split.statement.terminated);
    assert_int_equal(mb_split_next(&split), MB_SPLIT_END);
    assert_int_equal(mb_split_next(&split), MB_SPLIT_END);
}

static void test_set_config(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool found;
    } cases[] = {
        {"select SET_CONFIG('a', 'b', false)", true},
        {"insert into t select pg_catalog.\"set_config\"('a', 'b', true)", true},
        {"select 'set_config'", false},
        {"select set_configs()", false},
        {"select \"SET_CONFIG\"()", false},
        {"select 1 -- set_config", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mb_split split;
        mb_split_init(&split, cases[i].text, 0, strlen(cases[i].text));
        assert_int_equal(mb_split_next(&split), MB_SPLIT_STATEMENT);
        assert_int_equal(split.statement.set_config, cases[i].found);
    }
}

/* Splits and counts; the clock is only a guard against quadratic behaviour (tens of seconds then).
 */
static void check_large(const mb_buf *text, size_t expected)
{
    mb_split split;
    mb_position at;
    size_t count = 0;
    mb_split_init(&split, text->data, 0, text->len);
    mb_position_init(&at, text->data);
    while (mb_split_next(&split) == MB_SPLIT_STATEMENT) {
        mb_position_advance(&at, split.statement.begin);
        count++;
    }
    assert_int_equal(count, expected);
}

static void test_large_files(void **state)
{
    (void)state;
    mb_buf text = MB_BUF_INIT;
    for (int i = 0; i < 200000; i++)
        mb_buf_addf(&text, "insert into t values (%d, 'it''s; %d');\r\n", i, i);
    check_large(&text, 200000);
    mb_split split;
    mb_split_init(&split, text.data, 0, text.len);
    for (int i = 0; i < 150000; i++)
        assert_int_equal(mb_split_next(&split), MB_SPLIT_STATEMENT);
    size_t line, column;
    mb_position_locate(text.data, text.len, split.statement.begin, &line, &column);
    assert_int_equal(line, 150000);
    assert_int_equal(column, 1);

    mb_buf_clear(&text); /* one line, one statement, many strings */
    mb_buf_adds(&text, "select 1");
    for (int i = 0; i < 200000; i++)
        mb_buf_adds(&text, ", 'a;b' -- c\n   \n");
    check_large(&text, 1);

    mb_buf_clear(&text); /* deep nesting */
    for (int i = 0; i < 300000; i++)
        mb_buf_adds(&text, "(/*");
    for (int i = 0; i < 300000; i++)
        mb_buf_adds(&text, "*/");
    check_large(&text, 1);

    mb_buf_clear(&text); /* a body of a megabyte, with dollars that close nothing */
    mb_buf_adds(&text, "do $a$");
    for (int i = 0; i < 100000; i++)
        mb_buf_adds(&text, "$$;$b$;$aa$");
    mb_buf_adds(&text, "$a$;select 1;");
    check_large(&text, 2);
    mb_buf_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_quotes),
        cmocka_unit_test(test_begin_atomic),
        cmocka_unit_test(test_rules_and_schemas),
        cmocka_unit_test(test_copy_data),
        cmocka_unit_test(test_psql_lines),
        cmocka_unit_test(test_goes_on_behind_psql_lines),
        cmocka_unit_test(test_problems),
        cmocka_unit_test(test_byte_order_mark_and_crlf),
        cmocka_unit_test(test_range),
        cmocka_unit_test(test_set_config),
        cmocka_unit_test(test_large_files),
    };
    return cmocka_run_group_tests_name("sql: split", tests, NULL, NULL);
}
