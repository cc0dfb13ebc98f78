/*
 * test_base_block.c - blocks of known size: apart, used again, whole after a resize.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/base/block.h"

#define BLOCKS 4000
#define SIZES 700 /* past the largest that is kept in lists */

static unsigned char *blocks[BLOCKS];
static size_t sizes[BLOCKS];

static void fill(size_t i)
{
    memset(blocks[i], (int)(i % 251), sizes[i]);
}

static void assert_filled(size_t i, size_t size)
{
    for (size_t at = 0; at < size; at++)
        assert_int_equal(blocks[i][at], i % 251);
}

static void test_apart(void **state)
{
    (void)state;
    for (size_t i = 0; i < BLOCKS; i++) {
        sizes[i] = i % SIZES + 1;
        blocks[i] = mb_block_get(sizes[i]);
        assert_non_null(blocks[i]);
        assert_int_equal((uintptr_t)blocks[i] % sizeof(void *), 0);
        fill(i);
    }
    for (size_t i = 0; i < BLOCKS; i++)
        assert_filled(i, sizes[i]);
    for (size_t i = 0; i < BLOCKS; i++)
        mb_block_give(blocks[i], sizes[i]);
}

static void test_used_again(void **state)
{
    (void)state;
    void *block = mb_block_get(40);
    mb_block_give(block, 40);
    assert_ptr_equal(mb_block_get(33), block); /* of the same multiple of 8 */
    mb_block_give(block, 33);
    mb_block_give(NULL, 33);
    void *other = mb_block_get(41);
    assert_ptr_not_equal(other, block);
    mb_block_give(other, 41);
}

static void test_resize(void **state)
{
    (void)state;
    for (size_t i = 0; i < BLOCKS; i++) {
        sizes[i] = i * 7 % SIZES + 1;
        blocks[i] = mb_block_resize(NULL, 0, sizes[i]);
        fill(i);
    }
    for (size_t i = 0; i < BLOCKS; i++) {
        size_t wanted = i * 13 % SIZES + 1;
        size_t kept = wanted < sizes[i] ? wanted : sizes[i];
        blocks[i] = mb_block_resize(blocks[i], sizes[i], wanted);
        assert_non_null(blocks[i]);
        assert_filled(i, kept);
        sizes[i] = wanted;
        fill(i);
    }
    for (size_t i = 0; i < BLOCKS; i++) {
        assert_filled(i, sizes[i]);
        mb_block_give(blocks[i], sizes[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_apart),
        cmocka_unit_test(test_used_again),
        cmocka_unit_test(test_resize),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
