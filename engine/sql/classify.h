/*
 * classify.h - what a statement is and how it may be sent, from its tokens alone.
 *
 * Never from a parse tree: a statement whose syntax this build's libpg_query does not know must run
 * all the same, and a class is needed for each statement of each run. Owns nothing, allocates
 * nothing.
 */
#ifndef MB_SQL_CLASSIFY_H
#define MB_SQL_CLASSIFY_H

#include "engine/sql/split.h"

typedef enum mb_sql_class {
    MB_SQL_PLAIN,   /* may go through a pipeline's implicit transaction */
    MB_SQL_ALONE,   /* can't run inside a transaction block */
    MB_SQL_CONTROL, /* begins or ends a transaction */
    MB_SQL_COPY,    /* COPY ... FROM stdin with its data in the text */
    MB_SQL_SESSION  /* changes the session's state, or needs a block that was begun */
} mb_sql_class;

/* What MB_SQL_ALONE acts on. Names are as the server reads them, "" where the tokens do not tell.
 */
typedef struct mb_sql_object {
    const char *kind; /* "index", "table", "database", "partition", ...; static; NULL: no object */
    char schema[MB_SQL_NAME_SIZE];
    char name[MB_SQL_NAME_SIZE];
    char relation_schema[MB_SQL_NAME_SIZE]; /* the table of an index, the parent of a partition */
    char relation[MB_SQL_NAME_SIZE];
    char partition_schema[MB_SQL_NAME_SIZE];
    char partition[MB_SQL_NAME_SIZE];
    bool unique;
    bool if_not_exists;
    bool if_exists;
    bool concurrently;
} mb_sql_object;

typedef struct mb_sql_kind {
    char tag[48]; /* the server's command tag, upper case: "CREATE INDEX"; WITH stays "WITH" */
    mb_sql_class class;
    const char *control; /* MB_SQL_CONTROL: "begin", "commit", "rollback", "prepare",
                            "commit_prepared", "rollback_prepared"; static, otherwise NULL */
    const char *copy;    /* COPY with the client: "in" or "out"; static, otherwise NULL */
    mb_sql_object object;
} mb_sql_kind;

/* Fills `kind` for a statement that the splitter found in `text`. */
void mb_sql_classify(const char *text, const mb_statement *statement, mb_sql_kind *kind);

/* "plain", "alone", "control", "copy", "session"; static. */
const char *mb_sql_class_name(mb_sql_class class);

#endif
