/*
 * test_sql_scan.c - tokens: each lexical rule of PostgreSQL that has ever fooled a splitter, and
 * names.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

#include "engine/base/buf.h"
#include "engine/sql/scan.h"

/*
 * The tokens of a text as one line: a letter for the kind (w word, q quoted, s string, n number,
 * p parameter, o operator, c comment, \ backslash, ! unterminated, nothing for punctuation) and the
 * text in <>, so that an expectation can be read.
 */
static const char *tokens(const char *text, bool comments)
{
    static mb_buf line = MB_BUF_INIT;
    static const char letters[] = {0, 'w', 'q', 's', 'n', 'p', 'o', 0, 'c', '\\', '!'};
    mb_scan scan;
    mb_token token;
    mb_buf_clear(&line);
    mb_scan_init(&scan, text, 0, strlen(text));
    scan.comments = comments;
    while ((token = mb_scan_next(&scan)).kind != MB_TOKEN_END) {
        if (letters[token.kind])
            mb_buf_addc(&line, letters[token.kind]);
        mb_buf_addc(&line, '<');
        mb_buf_add(&line, text + token.begin, token.end - token.begin);
        mb_buf_addc(&line, '>');
    }
    assert_int_equal(token.begin, strlen(text));
    mb_buf_reserve(&line, 0);
    return line.data;
}

static void check(const char *text, const char *expected)
{
    assert_string_equal(tokens(text, false), expected);
}

static void test_strings(void **state)
{
    (void)state;
    check("'a'", "s<'a'>");
    check("''", "s<''>");
    check("'it''s'", "s<'it''s'>");
    check("''''", "s<''''>");
    check("'a' 'b'", "s<'a'>s<'b'>");
    check("'\\'", "s<'\\'>"); /* a backslash is nothing special here ... */
    check("E'\\''", "s<E'\\''>");
    check("e'\\\\'", "s<e'\\\\'>");
    check("E'a''b\\'c'", "s<E'a''b\\'c'>");
    check("b'01' B'1' x'f' X'F'", "s<b'01'>s<B'1'>s<x'f'>s<X'F'>");
    check("n'x' N'\\'", "s<n'x'>s<N'\\'>");
    check("U&'d\\0061' u&'\\'", "s<U&'d\\0061'>s<u&'\\'>");
    check("u&b", "w<u>o<&>w<b>");
    check("u& 'x'", "w<u>o<&>s<'x'>");
    check("e 'x'", "w<e>s<'x'>");
    check("abce'x'", "w<abce>s<'x'>"); /* the prefix must be the whole word */
    check("'a", "!<'a>");
    check("E'a\\'", "!<E'a\\'>");
    check("E'a\\", "!<E'a\\>");
    check("'a''", "!<'a''>");
}

static void test_continuation(void **state)
{
    (void)state;
    check("'a'\n'b'", "s<'a'\n'b'>");
    check("'a' \t\r\n \n 'b' 'c'", "s<'a' \t\r\n \n 'b'>s<'c'>");
    check("'a'\r'b'", "s<'a'\r'b'>");
    check("'a' -- x\n'b'", "s<'a' -- x\n'b'>");
    check("'a'\n-- it's\n  -- two\n'b'", "s<'a'\n-- it's\n  -- two\n'b'>");
    check("'a' /* x */\n'b'", "s<'a'>s<'b'>"); /* only -- comments may lie between */
    check("'a'\n/* x */'b'", "s<'a'>s<'b'>");
    check("E'a'\n'\\''", "s<E'a'\n'\\''>"); /* the escapes go on too */
    check("'a'\nE'\\''", "s<'a'>s<E'\\''>");
    check("'a'\n", "s<'a'>");
    check("'a'\n-- end", "s<'a'>");
    check("'a'\n'b", "!<'a'\n'b>");
    check("$$a$$\n'b'", "s<$$a$$>s<'b'>");
    check("\"a\"\n\"b\"", "q<\"a\">q<\"b\">");
}

static void test_dollar_quotes(void **state)
{
    (void)state;
    check("$$a;'b$$", "s<$$a;'b$$>");
    check("$$$$", "s<$$$$>");
    check("$a$ $$ $b$ $a$", "s<$a$ $$ $b$ $a$>");
    check("$a$ $A$ $a$", "s<$a$ $A$ $a$>"); /* tags have a case */
    check("$_1$x$_1$", "s<$_1$x$_1$>");
    check("$\xc3\xa9$x$\xc3\xa9$", "s<$\xc3\xa9$x$\xc3\xa9$>");
    check("$a$ $ab$a$", "s<$a$ $ab$a$>"); /* the last $ of another tag may open the closing one */
    check("$a$x$$a$", "s<$a$x$$a$>");
    check("a$$b$$", "w<a$$b$$>"); /* behind an identifier it belongs to it */
    check("a$b$c", "w<a$b$c>");
    check("select$$a$$", "w<select$$a$$>");
    check("1$$a$$", "n<1>s<$$a$$>");
    check("'x'$$a$$", "s<'x'>s<$$a$$>");
    check("\"x\"$$a$$", "q<\"x\">s<$$a$$>");
    check("$1", "p<$1>");
    check("$12+$3", "p<$12>o<+>p<$3>");
    check("$1$$a$$", "p<$1>s<$$a$$>");
    check("$1a$", "p<$1>w<a$>"); /* a tag can't start with a digit */
    check("$a b$", "<$>w<a>w<b$>");
    check("$", "<$>");
    check("$-$", "<$>o<-><$>");
    check("$$a", "!<$$a>");
    check("$a$ $$ $A$", "!<$a$ $$ $A$>");
}

static void test_comments(void **state)
{
    (void)state;
    check("a -- b\nc", "w<a>w<c>");
    check("a -- b\rc", "w<a>w<c>"); /* a carriage return ends it as well */
    check("a --", "w<a>");
    check("a/*b*/c", "w<a>w<c>");
    check("/* a /* b */ c */ d", "w<d>");
    check("/**/a/***/b", "w<a>w<b>");
    check("/*/ a */ b", "w<b>");
    check("/* /*/ */ */ b", "w<b>");
    check("/* -- */ b", "w<b>");
    check("-- /*\nb", "w<b>");
    check("/* ' */ b '", "w<b>!<'>");
    check("a /* b", "w<a>!</* b>");
    check("a /* /* b */", "w<a>!</* /* b */>");
    check("/*/", "!</*/>");
    assert_string_equal(tokens("a -- b\r\nc /* d /* e */ */", true),
                        "w<a>c<-- b>w<c>c</* d /* e */ */>");
}

static void test_operators(void **state)
{
    (void)state;
    check("a+b", "w<a>o<+>w<b>");
    check("a<=b>=c<>d!=e", "w<a>o<<=>w<b>o<>=>w<c>o<<>>w<d>o<!=>w<e>");
    check("a +-- b\n-c", "w<a>o<+>o<->w<c>"); /* a comment ends an operator */
    check("a */* b */ c", "w<a>o<*>w<c>");
    check("a @-- b", "w<a>o<@>");
    check("a*/b", "w<a>o<*/>w<b>");
    check("a=-1", "w<a>o<=>o<->n<1>"); /* a trailing sign belongs to what follows ... */
    check("a<-+1", "w<a>o<<>o<->o<+>n<1>");
    check("a@-1", "w<a>o<@->n<1>"); /* ... unless the operator can't be of standard SQL */
    check("a-~+1", "w<a>o<-~+>n<1>");
    check("+-", "o<+>o<->");
    check("->>", "o<->>>");
    check("#>>'{a}'", "o<#>>>s<'{a}'>");
    check("a::b[1:2].c", "w<a><:><:>w<b><[>n<1><:>n<2><]><.>w<c>");
    check("(a,b);", "<(>w<a><,>w<b><)><;>");
    check("`?&", "o<`?&>");
    check("{", "<{>");
}

static void test_numbers(void **state)
{
    (void)state;
    check("1 1.5 .5 5. 1e10 1.5e-3 1E+5", "n<1>n<1.5>n<.5>n<5.>n<1e10>n<1.5e-3>n<1E+5>");
    check("1..2", "n<1><..>n<2>");
    check("a.1", "w<a>n<.1>");
    check("a.b", "w<a><.>w<b>");
    check("1e", "n<1>w<e>");
    check("1e--x", "n<1>w<e>");
    check("1e'\\''", "n<1>s<e'\\''>");
    check("123abc", "n<123>w<abc>");
    check("0x1F 0b01 0o17 1_000", "n<0x1F>n<0b01>n<0o17>n<1_000>");
    check("0x", "n<0>w<x>");
    check("1-2", "n<1>o<->n<2>");
    check("1--2", "n<1>");
}

static void test_words(void **state)
{
    (void)state;
    check("abc _a a1 a$ \xc3\xa9t\xc3\xa9", "w<abc>w<_a>w<a1>w<a$>w<\xc3\xa9t\xc3\xa9>");
    check("\"a\" \"a\"\"b\" \"\"", "q<\"a\">q<\"a\"\"b\">q<\"\">");
    check("U&\"a\\0062\" u&\"x\"", "q<U&\"a\\0062\">q<u&\"x\">");
    check("U& \"x\"", "w<U>o<&>q<\"x\">");
    check("\"a--b/*c;'\"", "q<\"a--b/*c;'\">");
    check("\"a", "!<\"a>");
    check("\"a\"\"", "!<\"a\"\">");
    check("a\\b", "w<a>\\<\\>w<b>");
    check("\xef\xbb\xbf"
          "a",
          "w<a>"); /* a byte order mark at the start is nothing ... */
    check("a \xef\xbb\xbf"
          "b",
          "w<a>w<\xef\xbb\xbf"
          "b>"); /* ... elsewhere it is a letter */
    check(" \t\n\r\f\v", "");
    check("", "");
}

static void test_unterminated_names_itself(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"'a", "unterminated quoted string"},      {"E'a\\'", "unterminated quoted string"},
        {"\"a", "unterminated quoted identifier"}, {"$a$ x", "unterminated dollar-quoted string"},
        {"/* x", "unterminated /* comment"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mb_scan scan;
        mb_scan_init(&scan, cases[i][0], 0, strlen(cases[i][0]));
        mb_token token = mb_scan_next(&scan);
        assert_int_equal(token.kind, MB_TOKEN_UNTERMINATED);
        assert_int_equal(token.begin, 0);
        assert_string_equal(token.what, cases[i][1]);
        assert_int_equal(mb_scan_next(&scan).kind, MB_TOKEN_END);
    }
}

static void test_token_is(void **state)
{
    (void)state;
    const char *text = "Select \"select\" selects sel";
    mb_scan scan;
    mb_scan_init(&scan, text, 0, strlen(text));
    mb_token token = mb_scan_next(&scan);
    assert_true(mb_token_is(text, &token, "select"));
    assert_false(mb_token_is(text, &token, "selects"));
    assert_false(mb_token_is(text, &token, "sel"));
    token = mb_scan_next(&scan);
    assert_false(mb_token_is(text, &token, "select")); /* quoted: a name, never a keyword */
    token = mb_scan_next(&scan);
    assert_false(mb_token_is(text, &token, "select"));
}

static void check_name(const char *text, char escape, const char *expected)
{
    char name[MB_SQL_NAME_SIZE];
    mb_scan scan;
    mb_scan_init(&scan, text, 0, strlen(text));
    mb_token token = mb_scan_next(&scan);
    assert_int_equal(token.end, strlen(text));
    bool ok = mb_token_name(text, &token, escape, name);
    if (!expected) {
        assert_false(ok);
        return;
    }
    assert_true(ok);
    assert_string_equal(name, expected);
}

static void test_names(void **state)
{
    (void)state;
    check_name("Users", '\\', "users");
    check_name("\xc3\x89t\xc3\xa9", '\\', "\xc3\x89t\xc3\xa9"); /* only ASCII is folded */
    check_name("\"Users\"", '\\', "Users");
    check_name("\"a\"\"b\"", '\\', "a\"b");
    check_name("U&\"d\\0061t\\+000061\"", '\\', "data");
    check_name("U&\"d!0061t!!\"", '!', "dat!");
    check_name("U&\"\\00e9\\20AC\\d83d\\de00\"", '\\', "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
    check_name("U&\"a\"\"b\"", '\\', "a\"b");
    check_name("U&\"\\00\"", '\\', NULL);
    check_name("U&\"\\0000\"", '\\', NULL);
    check_name("U&\"\\d83d\"", '\\', NULL); /* half a pair */
    check_name("U&\"\\de00\"", '\\', NULL);
    check_name("U&\"\\d83dx\"", '\\', NULL);
    check_name("U&\"\\+110000\"", '\\', NULL);
    check_name("U&\"\\zzzz\"", '\\', NULL);
    check_name("\"\"", '\\', NULL);
    check_name("'a'", '\\', NULL);
    check_name("A23456789012345678901234567890123456789012345678901234567890123x", '\\',
               "a23456789012345678901234567890123456789012345678901234567890123");
    /* Cut at 63 bytes, but not inside a character. */
    check_name("a234567890123456789012345678901234567890123456789012345678901\xc3\xa9\xc3\xa9",
               '\\', "a234567890123456789012345678901234567890123456789012345678901\xc3\xa9");
    check_name("a2345678901234567890123456789012345678901234567890123456789012\xc3\xa9", '\\',
               "a2345678901234567890123456789012345678901234567890123456789012");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strings),       cmocka_unit_test(test_continuation),
        cmocka_unit_test(test_dollar_quotes), cmocka_unit_test(test_comments),
        cmocka_unit_test(test_operators),     cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_words),         cmocka_unit_test(test_unterminated_names_itself),
        cmocka_unit_test(test_token_is),      cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests_name("sql: scan", tests, NULL, NULL);
}
