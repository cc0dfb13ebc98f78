/*
 * base.c - allocation that aborts instead of failing. Runs in any thread.
 */
#include "engine/base/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static MB_NORETURN void out_of_memory(size_t size)
{
    fprintf(stderr, "moonbird: out of memory (%zu bytes asked for)\n", size);
    abort();
}

void *mb_malloc(size_t size)
{
    void *ptr = malloc(size ? size : 1);
    if (!ptr)
        out_of_memory(size);
    return ptr;
}

void *mb_calloc(size_t count, size_t size)
{
    void *ptr = calloc(count ? count : 1, size ? size : 1);
    if (!ptr)
        out_of_memory(size);
    return ptr;
}

void *mb_realloc(void *ptr, size_t size)
{
    void *grown = realloc(ptr, size ? size : 1);
    if (!grown)
        out_of_memory(size);
    return grown;
}

char *mb_strndup(const char *text, size_t len)
{
    char *copy = mb_malloc(len + 1);
    memcpy(copy, text, len);
    copy[len] = '\0';
    return copy;
}

char *mb_strdup(const char *text)
{
    return mb_strndup(text, strlen(text));
}

char *mb_sprintf(const char *fmt, ...)
{
    va_list args;
    char *text = NULL;
    va_start(args, fmt);
    int len = vasprintf(&text, fmt, args);
    va_end(args);
    if (len < 0)
        out_of_memory(0);
    return text;
}
