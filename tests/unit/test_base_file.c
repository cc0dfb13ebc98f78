/*
 * test_base_file.c - files and folders: what is kept, what is replaced, what is never followed.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/base/file.h"

static char *dir;

static int set_up(void **state)
{
    (void)state;
    return mb_file_tempdir("moonbird-unit-", &dir);
}

static int tear_down(void **state)
{
    (void)state;
    int code = mb_file_remove_tree(dir);
    free(dir);
    dir = NULL;
    return code;
}

/* A path in the test's folder; one of four static buffers. */
static const char *at(const char *name)
{
    static char paths[4][4096];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

static void assert_content(const char *name, const char *expected)
{
    mb_buf buf = MB_BUF_INIT;
    assert_int_equal(mb_file_read(at(name), &buf), 0);
    assert_string_equal(buf.data, expected);
    assert_int_equal(buf.len, strlen(expected));
    mb_buf_free(&buf);
}

static void test_read_adds_to_the_buffer(void **state)
{
    (void)state;
    mb_buf buf = MB_BUF_INIT;
    mb_buf_adds(&buf, "before ");
    assert_int_equal(mb_file_write(at("a"), "text", 4, 0), 0);
    assert_int_equal(mb_file_read(at("a"), &buf), 0);
    assert_string_equal(buf.data, "before text");
    mb_buf_clear(&buf);

    size_t size = 5 * 1024 * 1024 + 3;
    char *big = mb_malloc(size);
    for (size_t i = 0; i < size; i++)
        big[i] = (char)(i * 7 + i / 256);
    assert_int_equal(mb_file_write(at("big"), big, size, 0), 0);
    assert_int_equal(mb_file_read(at("big"), &buf), 0);
    assert_int_equal(buf.len, size);
    assert_memory_equal(buf.data, big, size);
    free(big);
    mb_buf_free(&buf);

    assert_int_equal(mb_file_read(at("none"), &buf), ENOENT);
    assert_int_equal(mb_file_read(dir, &buf), EISDIR);
    mb_buf_free(&buf);
}

static void test_write_replaces_in_one_step(void **state)
{
    (void)state;
    assert_int_equal(mb_file_write(at("a"), "one", 3, 0), 0);
    int before = open(at("a"), O_RDONLY);
    assert_true(before >= 0);
    assert_int_equal(chmod(at("a"), 0640), 0);
    assert_int_equal(mb_file_write(at("a"), "two", 3, 0), 0);
    assert_content("a", "two");

    /* who had the old file open still reads the old content */
    char old[8] = "";
    assert_int_equal(read(before, old, sizeof old), 3);
    assert_memory_equal(old, "one", 3);
    close(before);

    mb_file_stat st;
    assert_int_equal(mb_file_stat_path(at("a"), &st), 0);
    assert_int_equal(st.mode, 0640);
    assert_int_equal(st.size, 3);
    assert_int_equal(st.type, MB_FILE_REGULAR);

    assert_int_equal(mb_file_write(at("a"), "x", 1, MB_FILE_EXCLUSIVE), EEXIST);
    assert_int_equal(mb_file_write(at("b"), "x", 1, MB_FILE_EXCLUSIVE), 0);
    assert_int_equal(mb_file_write(at("none/b"), "x", 1, 0), ENOENT);
    assert_int_equal(mb_file_write(dir, "x", 1, 0), EISDIR);
}

static void test_write_through_links_and_devices(void **state)
{
    (void)state;
    assert_int_equal(mb_file_write(at("real"), "1", 1, 0), 0);
    assert_int_equal(symlink("real", at("link")), 0);
    assert_int_equal(symlink("gone", at("dangling")), 0);
    assert_int_equal(mb_file_write(at("link"), "2", 1, 0), 0);
    assert_content("real", "2");
    assert_int_equal(mb_file_write(at("dangling"), "2", 1, 0), ENOENT);
    assert_int_equal(mb_file_write(at("dangling"), "2", 1, MB_FILE_EXCLUSIVE), EEXIST);
    assert_int_equal(mb_file_write("/dev/null", "x", 1, 0), 0);
    mb_file_stat st;
    assert_int_equal(mb_file_stat_path("/dev/null", &st), 0);
    assert_int_equal(st.type, MB_FILE_OTHER);
    assert_int_equal(mb_file_write("/dev/full", "x", 1, 0), ENOSPC);
}

static void test_nothing_is_left_of_a_failed_write(void **state)
{
    (void)state;
    assert_int_equal(mb_file_mkdirs(at("sub"), 0755), 0);
    assert_int_equal(mb_file_write(at("sub/a"), "1", 1, 0), 0);
    assert_int_equal(mb_file_write(at("sub/a"), "2", 1, MB_FILE_EXCLUSIVE), EEXIST);
    mb_file_list list = MB_FILE_LIST_INIT;
    assert_int_equal(mb_file_list_dir(at("sub"), &list), 0);
    assert_int_equal(list.count, 1);
    mb_file_list_free(&list);
}

static void test_append(void **state)
{
    (void)state;
    assert_int_equal(mb_file_append(at("log"), "a", 1), 0);
    assert_int_equal(mb_file_append(at("log"), "b", 1), 0);
    assert_content("log", "ab");
}

static void test_list(void **state)
{
    (void)state;
    mb_file_list list = MB_FILE_LIST_INIT;
    assert_int_equal(mb_file_list_dir(dir, &list), 0);
    assert_int_equal(list.count, 0);
    char name[16];
    for (int i = 199; i >= 0; i--) {
        snprintf(name, sizeof name, "%03d", i);
        assert_int_equal(mb_file_append(at(name), "", 0), 0);
    }
    assert_int_equal(mb_file_mkdirs(at("dir"), 0755), 0);
    assert_int_equal(symlink("dir", at("link")), 0);
    assert_int_equal(mkfifo(at("pipe"), 0644), 0);
    assert_int_equal(mb_file_list_dir(dir, &list), 0);
    assert_int_equal(list.count, 203);
    for (size_t i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "%03zu", i);
        assert_string_equal(list.entries[i].name, name);
        assert_int_equal(list.entries[i].type, MB_FILE_REGULAR);
    }
    assert_int_equal(list.entries[200].type, MB_FILE_DIR);
    assert_int_equal(list.entries[201].type, MB_FILE_LINK);
    assert_int_equal(list.entries[202].type, MB_FILE_OTHER);
    mb_file_list_free(&list);
    assert_int_equal(mb_file_list_dir(at("none"), &list), ENOENT);
    assert_int_equal(mb_file_list_dir(at("000"), &list), ENOTDIR);
}

static void test_folders(void **state)
{
    (void)state;
    assert_int_equal(mb_file_mkdirs(at("a/b//c/"), 0700), 0);
    assert_int_equal(mb_file_mkdirs(at("a/b/c"), 0700), 0);
    assert_int_equal(mb_file_mkdirs("", 0700), ENOENT);
    assert_int_equal(mb_file_append(at("file"), "", 0), 0);
    assert_int_equal(mb_file_mkdirs(at("file"), 0700), ENOTDIR);
    assert_int_equal(mb_file_mkdirs(at("file/x/y"), 0700), ENOTDIR);
    assert_int_equal(mb_file_remove(at("a")), ENOTEMPTY);
    assert_int_equal(mb_file_remove(at("a/b/c")), 0);
    assert_int_equal(mb_file_remove(at("file")), 0);
    assert_int_equal(mb_file_remove(at("file")), ENOENT);
}

static void test_remove_tree_follows_no_link(void **state)
{
    (void)state;
    assert_int_equal(mb_file_mkdirs(at("tree/x/y"), 0755), 0);
    assert_int_equal(mb_file_mkdirs(at("outside"), 0755), 0);
    assert_int_equal(mb_file_append(at("outside/kept"), "k", 1), 0);
    assert_int_equal(mb_file_append(at("tree/x/file"), "", 0), 0);
    assert_int_equal(symlink(at("outside"), at("tree/x/y/link")), 0);
    assert_int_equal(symlink(at("tree"), at("alias")), 0);
    assert_int_equal(mb_file_remove_tree(at("alias")), 0); /* only the link */
    assert_int_equal(access(at("tree/x/file"), F_OK), 0);
    assert_int_equal(mb_file_remove_tree(at("tree")), 0);
    assert_int_equal(access(at("tree"), F_OK), -1);
    assert_content("outside/kept", "k");
    assert_int_equal(mb_file_remove_tree(at("tree")), ENOENT);
}

static void test_tempdir_is_private(void **state)
{
    (void)state;
    struct stat st;
    assert_int_equal(stat(dir, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    char *inside = NULL;
    assert_int_equal(mb_file_tempdir(at("x-"), &inside), 0);
    assert_memory_equal(inside, dir, strlen(dir));
    free(inside);
    inside = NULL;
    assert_int_equal(mb_file_tempdir(at("none/x-"), &inside), ENOENT);
    assert_null(inside);
}

static void *drain(void *arg)
{
    int fd = *(int *)arg;
    char bytes[4096];
    size_t total = 0;
    for (ssize_t got; (got = read(fd, bytes, sizeof bytes)) > 0; total += (size_t)got)
        usleep(100);
    return (void *)total;
}

/* A full pipe in non-blocking mode, as a parent process may leave stdout. */
static void test_write_fd_waits(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(fcntl(ends[1], F_SETFL, O_NONBLOCK), 0);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, drain, &ends[0]), 0);
    size_t size = 1024 * 1024;
    char *bytes = mb_calloc(1, size);
    assert_int_equal(mb_file_write_fd(ends[1], bytes, size), 0);
    free(bytes);
    close(ends[1]);
    void *total = NULL;
    assert_int_equal(pthread_join(thread, &total), 0);
    assert_int_equal((size_t)total, size);
    close(ends[0]);
    assert_int_equal(mb_file_write_fd(-1, "x", 1), EBADF);
}

static void test_read_at(void **state)
{
    (void)state;
    int fd = -1;
    mb_buf buf = MB_BUF_INIT;
    assert_int_equal(mb_file_append(at("a"), "x", 1), 0);
    assert_int_equal(mb_file_open_dir(dir, &fd), 0);
    assert_int_equal(mb_file_read_at(fd, "a", &buf), 0);
    assert_string_equal(buf.data, "x");
    assert_int_equal(mb_file_read_at(fd, "none", &buf), ENOENT);
    close(fd);
    mb_buf_free(&buf);
    assert_int_equal(mb_file_open_dir(at("a"), &fd), ENOTDIR);
}

static void test_names_of_errors(void **state)
{
    (void)state;
    char text[64];
    assert_string_equal(mb_errno_name(ENOENT), "ENOENT");
    assert_string_equal(mb_errno_name(123456), "EUNKNOWN");
    assert_string_equal(mb_errno_text(EACCES, text, sizeof text), "permission denied");
    assert_string_equal(mb_errno_text(EDOTDOT, text, sizeof text), "RFS specific error");
}

static void test_random(void **state)
{
    (void)state;
    unsigned char a[32] = {0};
    unsigned char b[32] = {0};
    assert_int_equal(mb_random_bytes(a, sizeof a), 0);
    assert_int_equal(mb_random_bytes(b, sizeof b), 0);
    assert_memory_not_equal(a, b, sizeof a);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_read_adds_to_the_buffer),
        TEST(test_write_replaces_in_one_step),
        TEST(test_write_through_links_and_devices),
        TEST(test_nothing_is_left_of_a_failed_write),
        TEST(test_append),
        TEST(test_list),
        TEST(test_folders),
        TEST(test_remove_tree_follows_no_link),
        TEST(test_tempdir_is_private),
        TEST(test_write_fd_waits),
        TEST(test_read_at),
        TEST(test_names_of_errors),
        TEST(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
