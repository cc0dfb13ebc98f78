/*
 * dbmate.c - the .sql migration format: sections and their options.
 *
 * The splitter does the reading, with this parser as the judge of comments, so that both always
 * agree on what is a comment and what is inside of something else.
 */
#include "engine/sql/dbmate.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/sql/position.h"
#include "engine/sql/split.h"

typedef enum direction { DIRECTION_NONE, DIRECTION_UP, DIRECTION_DOWN } direction;

typedef struct parser {
    mb_dbmate *out;
    const char *text;
    size_t len;
    size_t section_room;
    size_t problem_room;
    bool broken;         /* a quote never ended: what follows was not seen */
    size_t down_first;   /* a down before any up, SIZE_MAX: none */
    size_t statement;    /* what stands before the first up, SIZE_MAX: nothing */
    size_t near_miss[3]; /* by direction: the first comment that looks like a directive, SIZE_MAX */
    bool open;           /* the newest block has no end yet */
} parser;

static MB_PRINTF(3, 4) void add_problem(parser *p, size_t offset, const char *fmt, ...)
{
    mb_dbmate *out = p->out;
    if (out->problem_count == p->problem_room) {
        p->problem_room = p->problem_room ? p->problem_room * 2 : 4;
        out->problems = mb_realloc(out->problems, p->problem_room * sizeof *out->problems);
    }
    mb_dbmate_problem *problem = &out->problems[out->problem_count++];
    *problem = (mb_dbmate_problem){.offset = offset};
    va_list args;
    va_start(args, fmt);
    vsnprintf(problem->message, sizeof problem->message, fmt, args);
    va_end(args);
}

/* Gives the problem just added its advice. */
static MB_PRINTF(2, 3) void add_hint(parser *p, const char *fmt, ...)
{
    mb_dbmate_problem *problem = &p->out->problems[p->out->problem_count - 1];
    va_list args;
    va_start(args, fmt);
    vsnprintf(problem->hint, sizeof problem->hint, fmt, args);
    va_end(args);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\f' || c == '\r';
}

static size_t skip_blanks(const char *text, size_t pos, size_t end)
{
    while (pos < end && is_blank(text[pos]))
        pos++;
    return pos;
}

static size_t skip_word(const char *text, size_t pos, size_t end)
{
    while (pos < end && !is_blank(text[pos]))
        pos++;
    return pos;
}

/* Whether `word` is at text[pos], whatever its case; moves behind it. */
static bool take_any_case(const char *text, size_t *pos, size_t end, const char *word)
{
    size_t len = strlen(word);
    if (end - *pos < len || strncasecmp(text + *pos, word, len) != 0)
        return false;
    *pos += len;
    return true;
}

/* "-- migrate:up" and "-- migrate:down" at the start of a line; `options` is where the rest starts.
 */
static direction directive(const char *text, size_t begin, size_t end, size_t *options)
{
    *options = end;
    bool line_start = begin == 0 || text[begin - 1] == '\n' ||
                      (begin == 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0);
    if (!line_start || text[begin] != '-')
        return DIRECTION_NONE;
    size_t pos = skip_blanks(text, begin + 2, end);
    size_t word = skip_word(text, pos, end);
    *options = word;
    if (word - pos == 10 && memcmp(text + pos, "migrate:up", 10) == 0)
        return DIRECTION_UP;
    if (word - pos == 12 && memcmp(text + pos, "migrate:down", 12) == 0)
        return DIRECTION_DOWN;
    return DIRECTION_NONE;
}

/* A comment that someone may have meant as a directive: indented, in capitals, with spaces. */
static direction near_miss(const char *text, size_t begin, size_t end)
{
    size_t pos = skip_blanks(text, begin + 2, end);
    if (!take_any_case(text, &pos, end, "migrate"))
        return DIRECTION_NONE;
    size_t gap = pos;
    while (pos < end && (is_blank(text[pos]) || strchr(":=-_", text[pos])) && text[pos])
        pos++;
    if (pos == gap)
        return DIRECTION_NONE;
    direction found = take_any_case(text, &pos, end, "up")     ? DIRECTION_UP
                      : take_any_case(text, &pos, end, "down") ? DIRECTION_DOWN
                                                               : DIRECTION_NONE;
    return pos < end && !is_blank(text[pos]) && text[pos] != '*' ? DIRECTION_NONE : found;
}

/* The splitter's question: does this comment separate statements? */
static bool is_boundary(void *context, const char *text, size_t begin, size_t end)
{
    parser *p = context;
    size_t options;
    if (directive(text, begin, end, &options) != DIRECTION_NONE)
        return true;
    direction like = near_miss(text, begin, end);
    if (like != DIRECTION_NONE && p->near_miss[like] == SIZE_MAX)
        p->near_miss[like] = begin;
    /* dbmate allows no block comment before the first up; a file must stay readable for both. */
    if (text[begin] == '/' && p->out->section_count == 0 && p->statement == SIZE_MAX)
        p->statement = begin;
    return false;
}

/* An option called transaction, at `pos`. Returns where the next word is; the line's end if broken.
 */
static size_t read_transaction(parser *p, mb_dbmate_block *block, size_t pos, size_t end)
{
    const char *text = p->text;
    size_t word = skip_word(text, pos, end);
    bool yes = word - pos == 16 && memcmp(text + pos, "transaction:true", 16) == 0;
    bool no = word - pos == 17 && memcmp(text + pos, "transaction:false", 17) == 0;
    if (yes || no) {
        block->transaction = yes;
        block->transaction_option = true;
        return word;
    }
    while (end > pos && is_blank(text[end - 1]))
        end--;
    int shown = (int)mb_position_clip(text + pos, end - pos, 40);
    add_problem(p, pos, "broken option \"%.*s\"", shown, text + pos);
    add_hint(p, "write \"transaction:false\" (or \"transaction:true\"), without spaces");
    return end;
}

/* Whether text[pos] starts the option transaction, rightly or wrongly written; not the mere word.
 */
static bool starts_transaction(const char *text, size_t pos, size_t end)
{
    if (!take_any_case(text, &pos, end, "transaction"))
        return false;
    pos = skip_blanks(text, pos, end);
    return pos < end && (text[pos] == ':' || text[pos] == '=');
}

/* The rest of a directive's line: options are words with one colon, all else is a remark. */
static void read_options(parser *p, mb_dbmate_block *block, size_t pos, size_t end)
{
    const char *text = p->text;
    for (pos = skip_blanks(text, pos, end); pos < end; pos = skip_blanks(text, pos, end)) {
        if (starts_transaction(text, pos, end)) {
            pos = read_transaction(p, block, pos, end);
            continue;
        }
        size_t word = skip_word(text, pos, end);
        const char *colon = memchr(text + pos, ':', word - pos);
        if (colon) {
            size_t name = (size_t)(colon - text) - pos;
            bool only = !memchr(colon + 1, ':', word - pos - name - 1);
            if (only) {
                int shown = (int)mb_position_clip(text + pos, name, 40);
                add_problem(p, pos, "unknown option \"%.*s\"", shown, text + pos);
                add_hint(p, "did you mean \"transaction:false\"? there is no other option");
            }
        }
        pos = word;
    }
}

static void add_section(parser *p)
{
    mb_dbmate *out = p->out;
    if (out->section_count == p->section_room) {
        p->section_room = p->section_room ? p->section_room * 2 : 1;
        out->sections = mb_realloc(out->sections, p->section_room * sizeof *out->sections);
    }
    out->sections[out->section_count++] = (mb_dbmate_section){0};
}

static void missing_down(parser *p)
{
    mb_dbmate *out = p->out;
    if (out->section_count == 0 || p->down_first != SIZE_MAX || p->broken)
        return;
    const mb_dbmate_section *last = &out->sections[out->section_count - 1];
    if (last->down.present)
        return;
    add_problem(p, last->up.directive_begin,
                "the .sql format requires each migration to define a down block with "
                "'-- migrate:down'");
    if (p->near_miss[DIRECTION_DOWN] != SIZE_MAX) {
        size_t line, column;
        mb_position_locate(p->text, p->len, p->near_miss[DIRECTION_DOWN], &line, &column);
        add_hint(p,
                 "line %zu looks like it, but only '-- migrate:down' at the start of a line counts",
                 line);
    } else {
        add_hint(p, "add '-- migrate:down'; the block below it may be empty");
    }
}

/* Ends the block under way, if any, where the next directive begins. */
static void close_block(parser *p, size_t end)
{
    if (!p->open)
        return;
    mb_dbmate_section *section = &p->out->sections[p->out->section_count - 1];
    *(section->down.present ? &section->down.end : &section->up.end) = end;
    p->open = false;
}

static void take_directive(parser *p, const mb_split *split)
{
    mb_dbmate *out = p->out;
    size_t options;
    size_t begin = split->boundary_begin;
    size_t end = split->boundary_end;
    direction which = directive(p->text, begin, end, &options);
    close_block(p, begin);

    if (which == DIRECTION_UP) {
        if (out->section_count == 0)
            out->header_end = begin;
        missing_down(p);
        add_section(p);
    } else if (out->section_count == 0) {
        if (p->down_first == SIZE_MAX)
            p->down_first = begin;
        return;
    } else if (out->sections[out->section_count - 1].down.present) {
        add_problem(p, begin,
                    "the .sql format requires every '-- migrate:down' to be preceded by a "
                    "'-- migrate:up'");
        return;
    }
    mb_dbmate_section *section = &out->sections[out->section_count - 1];
    mb_dbmate_block *block = which == DIRECTION_UP ? &section->up : &section->down;
    size_t line = end;
    if (line < p->len && p->text[line] == '\r')
        line++;
    if (line < p->len && p->text[line] == '\n')
        line++;
    *block = (mb_dbmate_block){.present = true,
                               .directive_begin = begin,
                               .directive_end = end,
                               .begin = line,
                               .end = p->len,
                               .transaction = true};
    read_options(p, block, options, end);
    p->open = true;
}

static void missing_up(parser *p)
{
    if (p->broken)
        return;
    add_problem(
        p, 0, "the .sql format requires each migration to define an up block with '-- migrate:up'");
    if (p->near_miss[DIRECTION_UP] != SIZE_MAX) {
        size_t line, column;
        mb_position_locate(p->text, p->len, p->near_miss[DIRECTION_UP], &line, &column);
        add_hint(p,
                 "line %zu looks like it, but only '-- migrate:up' at the start of a line counts",
                 line);
    } else {
        add_hint(p, "add '-- migrate:up' above the first statement");
    }
}

static int by_offset(const void *a, const void *b)
{
    const mb_dbmate_problem *left = a;
    const mb_dbmate_problem *right = b;
    return (left->offset > right->offset) - (left->offset < right->offset);
}

/* Lines and columns of problems and blocks, in one pass each. */
static void locate(parser *p)
{
    mb_dbmate *out = p->out;
    mb_position at;
    mb_position_init(&at, p->text);
    if (out->problem_count > 1)
        qsort(out->problems, out->problem_count, sizeof *out->problems, by_offset);
    for (size_t i = 0; i < out->problem_count; i++) {
        mb_position_advance(&at, out->problems[i].offset);
        out->problems[i].line = at.line;
        out->problems[i].column = at.column;
    }
    mb_position_init(&at, p->text);
    for (size_t i = 0; i < out->section_count; i++) {
        mb_position_advance(&at, out->sections[i].up.begin);
        out->sections[i].up.line = at.line;
        if (out->sections[i].down.present) {
            mb_position_advance(&at, out->sections[i].down.begin);
            out->sections[i].down.line = at.line;
        }
    }
}

bool mb_dbmate_parse(mb_dbmate *out, const char *text, size_t len)
{
    parser p = {.out = out,
                .text = text,
                .len = len,
                .down_first = SIZE_MAX,
                .statement = SIZE_MAX,
                .near_miss = {SIZE_MAX, SIZE_MAX, SIZE_MAX}};
    mb_split split;
    mb_split_init(&split, text, 0, len);
    mb_split_set_boundary(&split, is_boundary, &p);

    mb_split_event event;
    while ((event = mb_split_next(&split)) != MB_SPLIT_END) {
        if (event == MB_SPLIT_BOUNDARY) {
            take_directive(&p, &split);
        } else if (event == MB_SPLIT_PROBLEM) {
            add_problem(&p, split.problem.offset, "%s", split.problem.message);
            add_hint(&p, "%s", split.problem.hint);
            p.broken = p.broken || split.scan.pos >= split.scan.end;
        } else if (out->section_count == 0 && p.down_first == SIZE_MAX && p.statement == SIZE_MAX) {
            p.statement = split.statement.begin;
        }
    }
    if (out->section_count == 0) {
        missing_up(&p);
    } else {
        missing_down(&p);
        if (p.down_first != SIZE_MAX)
            add_problem(&p, p.down_first,
                        "the .sql format requires '-- migrate:up' to appear before "
                        "'-- migrate:down'");
        if (p.statement != SIZE_MAX) {
            add_problem(&p, p.statement,
                        "the .sql format does not allow statements preceding the '-- migrate:up' "
                        "block");
            add_hint(&p, "only -- comments may stand there");
        }
    }
    locate(&p);
    return out->problem_count == 0;
}

void mb_dbmate_free(mb_dbmate *dbmate)
{
    free(dbmate->sections);
    free(dbmate->problems);
    *dbmate = (mb_dbmate)MB_DBMATE_INIT;
}
