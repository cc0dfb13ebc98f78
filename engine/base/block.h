/*
 * block.h - memory for objects that are many, small and short-lived, and whose size is known when
 * they are given back. Main thread only.
 */
#ifndef MB_BASE_BLOCK_H
#define MB_BASE_BLOCK_H

#include <stddef.h>

/* A block of at least `size` bytes (> 0), aligned for pointers and numbers; NULL without memory. */
void *mb_block_get(size_t size);

/* Takes back a block that was asked for with this size; NULL is nothing. */
void mb_block_give(void *block, size_t size);

/* Makes a block of `size` bytes one of `wanted` (> 0); it may move, and NULL becomes a new one.
 * NULL without memory: then the old one is as it was. */
void *mb_block_resize(void *block, size_t size, size_t wanted);

#endif
