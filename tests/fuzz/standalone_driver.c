/*
 * standalone_driver.c - runs a fuzz target on files instead of libFuzzer: each argument is a file
 * or a folder of them. For compilers without libFuzzer, and for replaying the corpora as tests.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/buf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Runs one file; false if it can't be read. */
static bool run_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        return false;
    }
    mb_buf buf = MB_BUF_INIT;
    size_t got;
    do {
        got = fread(mb_buf_reserve(&buf, 65536), 1, 65536, file);
        buf.len += got;
    } while (got > 0);
    bool ok = !ferror(file);
    fclose(file);
    if (ok)
        LLVMFuzzerTestOneInput((const uint8_t *)buf.data, buf.len);
    mb_buf_free(&buf);
    return ok;
}

/* Runs a file or all files of a folder; returns how many, -1 if one can't be read. */
static int run_path(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir)
        return run_file(path) ? 1 : -1;
    int count = 0;
    struct dirent *entry;
    while (count >= 0 && (entry = readdir(dir))) {
        if (entry->d_name[0] == '.')
            continue;
        char *name = mb_sprintf("%s/%s", path, entry->d_name);
        count = run_file(name) ? count + 1 : -1;
        free(name);
    }
    closedir(dir);
    return count;
}

int main(int argc, char **argv)
{
    int total = 0;
    for (int i = 1; i < argc; i++) {
        int count = run_path(argv[i]);
        if (count < 0)
            return 1;
        total += count;
    }
    printf("%d inputs\n", total);
    return total > 0 ? 0 : 1; /* an empty corpus tests nothing */
}
