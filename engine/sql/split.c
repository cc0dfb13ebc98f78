/*
 * split.c - where the statements of a text begin and end.
 *
 * psql's heuristics were the model, the server's grammar is the judge: psql counts BEGIN, CASE and
 * END in a CREATE FUNCTION, which a column named "end" or a label `AS end` upsets. By the grammar
 * the END of a BEGIN ATOMIC body can only stand behind a semicolon or behind ATOMIC, and no other
 * END can.
 */
#include "engine/sql/split.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "engine/sql/position.h"

/* How far the statement under way looks like one that needs care. */
typedef enum stage {
    STAGE_START,
    STAGE_CREATE,     /* CREATE */
    STAGE_OR,         /* CREATE OR */
    STAGE_OR_REPLACE, /* CREATE OR REPLACE */
    STAGE_ROUTINE,    /* CREATE [OR REPLACE] FUNCTION | PROCEDURE */
    STAGE_BEGIN,      /* ... and the word before this one was BEGIN, outside parentheses */
    STAGE_COPY,       /* COPY */
    STAGE_COPY_FROM,  /* COPY ... FROM */
    STAGE_OTHER
} stage;

typedef struct progress {
    stage stage;
    size_t parens;
    size_t bodies;   /* open BEGIN ATOMIC; a body may create a function that has one */
    bool body_start; /* in a body, at the start of one of its statements */
} progress;

static stage next_stage(const char *text, const mb_token *token, const progress *now)
{
    switch (now->stage) {
    case STAGE_START:
        if (mb_token_is(text, token, "create"))
            return STAGE_CREATE;
        return mb_token_is(text, token, "copy") ? STAGE_COPY : STAGE_OTHER;
    case STAGE_CREATE:
        if (mb_token_is(text, token, "or"))
            return STAGE_OR;
        /* fall through */
    case STAGE_OR_REPLACE:
        return mb_token_is(text, token, "function") || mb_token_is(text, token, "procedure")
                   ? STAGE_ROUTINE
                   : STAGE_OTHER;
    case STAGE_OR:
        return mb_token_is(text, token, "replace") ? STAGE_OR_REPLACE : STAGE_OTHER;
    case STAGE_ROUTINE:
    case STAGE_BEGIN:
        return now->parens == 0 && mb_token_is(text, token, "begin") ? STAGE_BEGIN : STAGE_ROUTINE;
    case STAGE_COPY:
        return now->parens == 0 && mb_token_is(text, token, "from") ? STAGE_COPY_FROM : STAGE_COPY;
    default:
        return STAGE_OTHER;
    }
}

/* Whether a word or quoted identifier is set_config, the one function that changes settings. */
static bool is_set_config(const char *text, const mb_token *token)
{
    if (token->end - token->begin == 10)
        return mb_token_is(text, token, "set_config");
    return token->kind == MB_TOKEN_QUOTED && token->end - token->begin == 12 &&
           memcmp(text + token->begin, "\"set_config\"", 12) == 0;
}

/* Takes one token of a statement into account. */
static void take_token(mb_split *split, progress *now, const mb_token *token)
{
    const char *text = split->scan.text;
    if (token->kind == MB_TOKEN_WORD || token->kind == MB_TOKEN_QUOTED)
        split->statement.set_config = split->statement.set_config || is_set_config(text, token);

    if (now->bodies > 0 && now->body_start && mb_token_is(text, token, "end")) {
        now->bodies--;
        now->stage = STAGE_OTHER;
    } else if (now->stage == STAGE_BEGIN && mb_token_is(text, token, "atomic")) {
        now->bodies++;
        now->stage = STAGE_START;
        now->body_start = true;
        return;
    } else if (now->stage == STAGE_COPY_FROM) {
        /* FROM stdout is the same to the server: its grammar does not tell the two apart. */
        split->statement.copy_stdin = now->bodies == 0 && (mb_token_is(text, token, "stdin") ||
                                                           mb_token_is(text, token, "stdout"));
        now->stage = STAGE_OTHER;
    } else {
        now->stage = next_stage(text, token, now);
    }
    now->body_start = false;

    if (mb_token_is_char(text, token, '('))
        now->parens++;
    else if (mb_token_is_char(text, token, ')') && now->parens > 0)
        now->parens--;
}

static mb_split_event problem(mb_split *split, size_t offset, const char *message, const char *hint)
{
    split->problem.offset = offset;
    snprintf(split->problem.message, sizeof split->problem.message, "%s", message);
    snprintf(split->problem.hint, sizeof split->problem.hint, "%s", hint);
    return MB_SPLIT_PROBLEM;
}

static size_t line_end(const mb_split *split, size_t pos)
{
    const char *found = memchr(split->scan.text + pos, '\n', split->scan.end - pos);
    return found ? (size_t)(found - split->scan.text) : split->scan.end;
}

static bool is_blank(const char *text, size_t begin, size_t end)
{
    while (begin < end && strchr(" \t\r\f\v\n", text[begin]) && text[begin])
        begin++;
    return begin == end;
}

/* Whether text[begin, end) is one argument as pg_dump writes it: letters and digits. */
static bool is_restrict_key(const char *text, size_t begin, size_t end)
{
    while (begin < end && is_blank(text, begin, begin + 1))
        begin++;
    while (begin < end && isalnum((unsigned char)text[begin]))
        begin++;
    return is_blank(text, begin, end);
}

/*
 * A backslash at `begin`, between two statements or inside one. Returns true when it is a line of
 * pg_dump's that means nothing here and was skipped; otherwise the problem is filled.
 */
static bool skip_psql_line(mb_split *split, size_t begin, bool between)
{
    const char *text = split->scan.text;
    size_t line = line_end(split, begin);
    size_t name = begin + 1;
    /* psql's own rule: a command's name goes up to white space or another backslash. */
    while (name < line && !is_blank(text, name, name + 1) && text[name] != '\\')
        name++;
    split->scan.pos = line;

    size_t len = name - begin;
    bool restrict_line = (len == 9 && memcmp(text + begin, "\\restrict", 9) == 0) ||
                         (len == 11 && memcmp(text + begin, "\\unrestrict", 11) == 0);
    if (restrict_line && between && is_restrict_key(text, name, line))
        return true;

    char message[160];
    int shown = (int)mb_position_clip(text + begin, len, 40);
    const char *why = restrict_line ? "must stand on a line of its own between statements"
                                    : "is a command of psql, not SQL";
    snprintf(message, sizeof message, "\"%.*s\" %s", shown, text + begin, why);
    const char *hint =
        "remove it; only the \\restrict and \\unrestrict lines of pg_dump are skipped";
    if (len == 2 && text[begin + 1] == '.')
        hint = "it ends the data of COPY ... FROM stdin; no such statement comes before it";
    problem(split, begin, message, hint);
    return false;
}

/*
 * The data lines behind the semicolon of COPY ... FROM stdin. When nothing but white space follows,
 * it has none (the caller streams them); the last statement of a text may be meant so.
 */
static mb_split_event take_copy_data(mb_split *split)
{
    const char *text = split->scan.text;
    size_t begin = split->scan.pos;
    if (is_blank(text, begin, split->scan.end))
        return MB_SPLIT_STATEMENT;

    size_t line = line_end(split, begin);
    mb_scan rest = split->scan;
    rest.end = line;
    rest.comments = false;
    mb_token token = mb_scan_next(&rest);
    if (token.kind != MB_TOKEN_END) {
        /* psql would run what follows here after the data: nobody can mean that. */
        split->scan.pos = split->scan.end;
        return problem(split, token.begin, "text behind COPY ... FROM stdin; on the same line",
                       "the data starts on the next line and ends with a line \"\\.\"");
    }

    size_t pos = line < split->scan.end ? line + 1 : line;
    split->statement.data_begin = pos;
    while (pos < split->scan.end) {
        line = line_end(split, pos);
        size_t len = line - pos;
        if (len > 0 && text[line - 1] == '\r')
            len--;
        if (len == 2 && text[pos] == '\\' && text[pos + 1] == '.') {
            split->statement.has_data = true;
            split->statement.data_end = pos;
            split->scan.pos = line;
            return MB_SPLIT_STATEMENT;
        }
        pos = line < split->scan.end ? line + 1 : line;
    }
    split->scan.pos = split->scan.end;
    return problem(split, split->statement.begin, "the data of COPY ... FROM stdin has no end",
                   "end it with a line \"\\.\"");
}

static mb_split_event end_statement(mb_split *split, bool terminated)
{
    split->statement.terminated = terminated;
    if (terminated && split->statement.copy_stdin)
        return take_copy_data(split);
    return MB_SPLIT_STATEMENT;
}

void mb_split_init(mb_split *split, const char *text, size_t begin, size_t end)
{
    memset(split, 0, sizeof *split);
    mb_scan_init(&split->scan, text, begin, end);
    const char *zero = begin < end ? memchr(text + begin, '\0', end - begin) : NULL;
    split->zero = zero ? (size_t)(zero - text) : SIZE_MAX;
}

void mb_split_set_boundary(mb_split *split, mb_split_boundary boundary, void *context)
{
    split->boundary = boundary;
    split->context = context;
    split->scan.comments = true;
}

mb_split_event mb_split_next(mb_split *split)
{
    const char *text = split->scan.text;
    progress now = {STAGE_START, 0, 0, false};
    bool started = false;
    split->statement = (mb_statement){0};

    if (split->zero != SIZE_MAX) {
        size_t offset = split->zero;
        split->zero = SIZE_MAX;
        split->scan.pos = split->scan.end;
        return problem(split, offset, "a zero byte: PostgreSQL's text can't hold one",
                       "the file may be UTF-16 or no text at all; save it as UTF-8");
    }
    for (;;) {
        size_t before = split->scan.pos;
        mb_token token = mb_scan_next(&split->scan);
        switch (token.kind) {
        case MB_TOKEN_END:
            return started ? end_statement(split, false) : MB_SPLIT_END;
        case MB_TOKEN_UNTERMINATED:
            return problem(split, token.begin, token.what, "");
        case MB_TOKEN_BACKSLASH:
            if (!skip_psql_line(split, token.begin, !started))
                return MB_SPLIT_PROBLEM;
            continue;
        case MB_TOKEN_COMMENT:
            if (!split->boundary(split->context, text, token.begin, token.end))
                continue;
            if (started) {
                split->scan.pos = before;
                return end_statement(split, false);
            }
            split->boundary_begin = token.begin;
            split->boundary_end = token.end;
            return MB_SPLIT_BOUNDARY;
        default:
            break;
        }
        if (mb_token_is_char(text, &token, ';') && now.parens == 0) {
            if (now.bodies == 0) {
                if (started)
                    return end_statement(split, true);
                continue; /* an empty statement */
            }
            now.stage = STAGE_START;
            now.body_start = true;
        } else {
            if (!started)
                split->statement.begin = token.begin;
            take_token(split, &now, &token);
        }
        started = true;
        split->statement.end = token.end;
    }
}
