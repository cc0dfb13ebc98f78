/*
 * test_base_buf.c - the growing byte buffer, and allocation helpers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/base/buf.h"

static void test_empty(void **state)
{
    (void)state;
    mb_buf buf = MB_BUF_INIT;
    mb_buf_clear(&buf);
    assert_null(buf.data);
    mb_buf_add(&buf, "", 0);
    assert_string_equal(buf.data, "");
    assert_int_equal(buf.len, 0);
    mb_buf_free(&buf);
    assert_null(buf.data);

    char *text = mb_buf_take(&buf);
    assert_string_equal(text, "");
    free(text);
}

static void test_grows(void **state)
{
    (void)state;
    mb_buf buf = MB_BUF_INIT;
    for (int i = 0; i < 1000; i++) {
        mb_buf_adds(&buf, "abc");
        mb_buf_addc(&buf, ' ');
        mb_buf_addf(&buf, "%03d;", i);
        assert_int_equal(buf.data[buf.len], '\0');
        assert_true(buf.cap > buf.len);
    }
    assert_int_equal(buf.len, 8000);
    assert_memory_equal(buf.data + 8 * 999, "abc 999;", 8);

    size_t cap = buf.cap;
    mb_buf_clear(&buf);
    assert_int_equal(buf.len, 0);
    assert_int_equal(buf.cap, cap);
    assert_string_equal(buf.data, "");
    mb_buf_free(&buf);
}

static void test_holds_any_byte(void **state)
{
    (void)state;
    mb_buf buf = MB_BUF_INIT;
    mb_buf_add(&buf, "a\0b", 3);
    mb_buf_addf(&buf, "%s", "");
    assert_int_equal(buf.len, 3);
    assert_memory_equal(buf.data, "a\0b\0", 4);

    char *at = mb_buf_reserve(&buf, 100000);
    assert_ptr_equal(at, buf.data + 3);
    memset(at, 'x', 100000);
    buf.len += 100000;
    mb_buf_addc(&buf, 'y');
    assert_int_equal(buf.len, 100004);

    char *text = mb_buf_take(&buf);
    assert_null(buf.data);
    assert_int_equal(text[100003], 'y');
    free(text);
}

static void test_allocation(void **state)
{
    (void)state;
    char *copy = mb_strndup("abcdef", 3);
    assert_string_equal(copy, "abc");
    copy = mb_realloc(copy, 10);
    assert_string_equal(copy, "abc");
    free(copy);
    copy = mb_sprintf("%s-%d", "x", 5);
    assert_string_equal(copy, "x-5");
    free(copy);
    int *zeros = mb_calloc(4, sizeof *zeros);
    assert_int_equal(zeros[3], 0);
    free(zeros);
    void *nothing = mb_malloc(0);
    assert_non_null(nothing);
    free(nothing);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_grows),
        cmocka_unit_test(test_holds_any_byte),
        cmocka_unit_test(test_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
