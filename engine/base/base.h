/*
 * base.h - what every file of the engine may count on: allocation that cannot fail, attributes.
 *
 * Out of memory aborts the process: kill -9 is safe at any point anyway, so giving up is safe too,
 * and a thousand branches that no test can reach disappear.
 */
#ifndef MB_BASE_H
#define MB_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MB_NODISCARD __attribute__((warn_unused_result))
#define MB_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define MB_NORETURN __attribute__((noreturn))
#define MB_UNUSED __attribute__((unused))

/* Allocation. The caller owns the result and frees it with free(). Never return NULL. */
void *mb_malloc(size_t size);
void *mb_calloc(size_t count, size_t size);
void *mb_realloc(void *ptr, size_t size);
char *mb_strdup(const char *text);
/* Copies `len` bytes and adds a NUL. */
char *mb_strndup(const char *text, size_t len);
/* A new string made as printf would; the caller frees it. */
char *mb_sprintf(const char *fmt, ...) MB_PRINTF(1, 2);

#endif
