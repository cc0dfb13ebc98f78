/*
 * test_base_error.c - errors as data, and the table of codes.
 */
#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "engine/base/error.h"

static void test_set_and_clear(void **state)
{
    (void)state;
    mb_error err = MB_ERROR_INIT;
    assert_int_equal(err.code, MB_OK);
    assert_int_equal(mb_error_set(&err, MB_CONNECT, "cannot reach \"%s\"", "h"), MB_CONNECT);
    assert_string_equal(err.message, "cannot reach \"h\"");
    err.detail = mb_strdup("d");
    mb_error_hint(&err, "try %d", 1);
    mb_error_hint(&err, "try %d", 2);
    assert_string_equal(err.hint, "try 1");

    /* setting again frees what was there, and may use it */
    mb_error_set(&err, MB_IO, "again: %s", err.message);
    assert_string_equal(err.message, "again: cannot reach \"h\"");
    assert_null(err.detail);
    assert_null(err.hint);
    mb_error_clear(&err);
    assert_int_equal(err.code, MB_OK);
    assert_null(err.message);
}

static void test_move(void **state)
{
    (void)state;
    mb_error from = MB_ERROR_INIT;
    mb_error to = MB_ERROR_INIT;
    mb_error_set(&to, MB_IO, "old");
    mb_error_set(&from, MB_SQL, "new");
    memcpy(from.sqlstate, "42P01", 6);
    mb_error_move(&to, &from);
    assert_int_equal(to.code, MB_SQL);
    assert_string_equal(to.message, "new");
    assert_string_equal(to.sqlstate, "42P01");
    assert_int_equal(from.code, MB_OK);
    assert_null(from.message);
    mb_error_clear(&to);
}

static void test_codes(void **state)
{
    (void)state;
    static const int statuses[] = {0, 1, 2, 3, 4, 5, 6, 7, 70, 75, 130};
    for (int code = 0; code < MB_CODE_COUNT; code++) {
        const char *name = mb_code_name((mb_code)code);
        for (const char *c = name; *c; c++)
            assert_true(islower((unsigned char)*c) || *c == '_');
        for (int other = 0; other < code; other++)
            assert_string_not_equal(name, mb_code_name((mb_code)other));
        assert_true(strlen(mb_code_meaning((mb_code)code)) > 0);
        assert_true(code == MB_OK || strlen(mb_code_advice((mb_code)code)) > 0);
        bool known = false;
        for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++)
            known = known || statuses[i] == mb_code_status((mb_code)code);
        assert_true(known);
    }
    assert_int_equal(mb_code_status(MB_OK), 0);
    assert_string_equal(mb_code_name(MB_MIGRATION_FILE), "migration_file");
    assert_int_equal(mb_code_status(MB_MIGRATION_FILE), 2);
    assert_int_equal(mb_code_status(MB_INTERRUPTED), 130);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set_and_clear),
        cmocka_unit_test(test_move),
        cmocka_unit_test(test_codes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
