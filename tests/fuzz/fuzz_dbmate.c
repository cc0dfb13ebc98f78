/*
 * fuzz_dbmate.c - the .sql migration format on any bytes: either problems with places inside the
 * text, or sections whose directives and blocks, put together again, are the text.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/sql/dbmate.h"
#include "engine/sql/split.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition) ((condition) ? (void)0 : abort())

static void check_problems(const mb_dbmate *dbmate, size_t size)
{
    CHECK(dbmate->problem_count > 0);
    size_t before = 0;
    for (size_t i = 0; i < dbmate->problem_count; i++) {
        const mb_dbmate_problem *problem = &dbmate->problems[i];
        CHECK(problem->offset <= size && problem->offset >= before);
        CHECK(problem->line >= 1 && problem->column >= 1);
        CHECK(problem->message[0] && memchr(problem->message, '\0', sizeof problem->message));
        CHECK(memchr(problem->hint, '\0', sizeof problem->hint));
        before = problem->offset;
    }
}

/* Returns where the block ends; it must start with its directive at `begin`. */
static size_t check_block(const char *text, size_t begin, const mb_dbmate_block *block)
{
    CHECK(block->present);
    CHECK(block->directive_begin == begin);
    CHECK(memcmp(text + begin, "--", 2) == 0);
    CHECK(block->directive_begin < block->directive_end);
    CHECK(block->directive_end <= block->begin && block->begin <= block->end);
    CHECK(block->line >= 1);

    /* What was read as a whole is sound in parts too. */
    mb_split split;
    mb_split_event event;
    mb_split_init(&split, text, block->begin, block->end);
    while ((event = mb_split_next(&split)) != MB_SPLIT_END)
        CHECK(event == MB_SPLIT_STATEMENT);
    return block->end;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = mb_strndup((const char *)data, size);
    mb_dbmate dbmate = MB_DBMATE_INIT;
    if (mb_dbmate_parse(&dbmate, text, size)) {
        CHECK(dbmate.problem_count == 0 && dbmate.section_count > 0);
        size_t done = dbmate.header_end;
        for (size_t i = 0; i < dbmate.section_count; i++) {
            done = check_block(text, done, &dbmate.sections[i].up);
            done = check_block(text, done, &dbmate.sections[i].down);
        }
        CHECK(done == size);
    } else {
        check_problems(&dbmate, size);
    }
    mb_dbmate_free(&dbmate);
    free(text);
    return 0;
}
