/*
 * split.h - where the statements of a text begin and end.
 *
 * The rules are the server's: a semicolon ends a statement outside of quotes, comments, parentheses
 * and the BEGIN ATOMIC body of a function. Of psql it knows what a plain pg_dump needs: the data
 * lines behind COPY ... FROM stdin; and the \restrict and \unrestrict lines; every other \command
 * is a problem that names it.
 *
 * An iterator without memory of its own: the text must outlive it, nothing is to be freed, a loop
 * may be left at any time. One pass, whatever the size. Offsets are 0-based, ranges half-open.
 */
#ifndef MB_SQL_SPLIT_H
#define MB_SQL_SPLIT_H

#include "engine/sql/scan.h"

typedef enum mb_split_event {
    MB_SPLIT_END,
    MB_SPLIT_STATEMENT, /* `statement` is filled */
    MB_SPLIT_BOUNDARY,  /* a comment that the owner's `boundary` claimed: `boundary_begin`, _end */
    MB_SPLIT_PROBLEM    /* `problem` is filled; calling on goes on behind it, if anything is left */
} mb_split_event;

typedef struct mb_statement {
    size_t begin; /* without white space and comments around it, without the semicolon */
    size_t end;
    bool terminated;   /* a semicolon follows */
    bool set_config;   /* one of its words is set_config: it may change session settings */
    bool copy_stdin;   /* COPY ... FROM stdin */
    bool has_data;     /* ... whose data lines follow in the text: */
    size_t data_begin; /* whole lines, with their line ends */
    size_t data_end;   /* behind the last data line: where the line "\." begins */
} mb_statement;

typedef struct mb_sql_problem {
    size_t offset;
    char message[160];
    char hint[160]; /* "" when there is no advice */
} mb_sql_problem;

/* Decides whether text[begin, end), a comment, separates statements (and is an event of its own).
 */
typedef bool (*mb_split_boundary)(void *context, const char *text, size_t begin, size_t end);

typedef struct mb_split {
    mb_scan scan;
    mb_split_boundary boundary;
    void *context;
    size_t zero; /* where the first zero byte is, SIZE_MAX when there is none (left) */
    mb_statement statement;
    mb_sql_problem problem;
    size_t boundary_begin;
    size_t boundary_end;
} mb_split;

/* Splits text[begin, end). A statement that `end` cuts off is a statement; a quote is a problem. */
void mb_split_init(mb_split *split, const char *text, size_t begin, size_t end);

/* Has every comment shown to `boundary` from now on. */
void mb_split_set_boundary(mb_split *split, mb_split_boundary boundary, void *context);

mb_split_event mb_split_next(mb_split *split);

#endif
