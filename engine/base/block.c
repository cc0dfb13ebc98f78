/*
 * block.c - small blocks from free lists, one for each multiple of 8 bytes; larger ones by malloc.
 *
 * The Lua state lives here. A check of thousands of migrations makes and drops millions of tables
 * and strings of a few sizes; with a general malloc a quarter of its time went into looking for
 * chunks and joining them. A block has no header, as Lua says its size when it gives it back, and
 * getting one is a few instructions. What was small once stays so: the memory goes to the system
 * when the process ends.
 */
#include "engine/base/block.h"

#include <stdlib.h>
#include <string.h>

#define STEP 8
#define LARGEST 512
#define SLAB ((size_t)64 << 10)

typedef struct free_block {
    struct free_block *next;
} free_block;

static free_block *lists[LARGEST / STEP];
static char *fresh; /* of the newest slab: what was never given out */
static size_t fresh_left;

static size_t list_of(size_t size)
{
    return (size - 1) / STEP;
}

/* The rest of the slab before is left alone: less than a block of the largest size. */
static void *cut(size_t size)
{
    if (fresh_left < size) {
        char *slab = malloc(SLAB);
        if (!slab)
            return NULL;
        fresh = slab;
        fresh_left = SLAB;
    }
    void *block = fresh;
    fresh += size;
    fresh_left -= size;
    return block;
}

void *mb_block_get(size_t size)
{
    if (size > LARGEST)
        return malloc(size);
    size_t list = list_of(size);
    free_block *block = lists[list];
    if (!block)
        return cut((list + 1) * STEP);
    lists[list] = block->next;
    return block;
}

void mb_block_give(void *block, size_t size)
{
    if (!block)
        return;
    if (size > LARGEST) {
        free(block);
        return;
    }
    free_block *given = block;
    given->next = lists[list_of(size)];
    lists[list_of(size)] = given;
}

void *mb_block_resize(void *block, size_t size, size_t wanted)
{
    if (!block)
        return mb_block_get(wanted);
    if (size > LARGEST && wanted > LARGEST)
        return realloc(block, wanted);
    if (size <= LARGEST && wanted <= LARGEST && list_of(size) == list_of(wanted))
        return block;
    void *moved = mb_block_get(wanted);
    if (moved) {
        memcpy(moved, block, size < wanted ? size : wanted);
        mb_block_give(block, size);
    }
    return moved;
}
