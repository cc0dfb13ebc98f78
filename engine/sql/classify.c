/*
 * classify.c - what a statement is and how it may be sent, from its tokens alone.
 */
#include "engine/sql/classify.h"

#include <string.h>

#include "engine/sql/cursor.h"

/* One entry per first word that says more than its own tag. Sorted by nothing: 40 short compares.
 */
typedef struct verb {
    const char *word;
    const char *tag;
    mb_sql_class class;
} verb;

static const verb verbs[] = {
    {"analyse", "ANALYZE", MB_SQL_PLAIN},
    {"analyze", "ANALYZE", MB_SQL_PLAIN},
    {"call", "CALL", MB_SQL_SESSION},
    {"checkpoint", "CHECKPOINT", MB_SQL_PLAIN},
    {"close", "CLOSE CURSOR", MB_SQL_SESSION},
    {"comment", "COMMENT", MB_SQL_PLAIN},
    {"deallocate", "DEALLOCATE", MB_SQL_SESSION},
    {"delete", "DELETE", MB_SQL_PLAIN},
    {"declare", "DECLARE CURSOR", MB_SQL_SESSION},
    {"do", "DO", MB_SQL_SESSION},
    {"execute", "EXECUTE", MB_SQL_SESSION},
    {"explain", "EXPLAIN", MB_SQL_PLAIN},
    {"fetch", "FETCH", MB_SQL_SESSION},
    {"grant", "GRANT", MB_SQL_PLAIN},
    {"import", "IMPORT FOREIGN SCHEMA", MB_SQL_PLAIN},
    {"insert", "INSERT", MB_SQL_PLAIN},
    {"listen", "LISTEN", MB_SQL_SESSION},
    {"load", "LOAD", MB_SQL_SESSION},
    {"lock", "LOCK TABLE", MB_SQL_SESSION},
    {"merge", "MERGE", MB_SQL_PLAIN},
    {"move", "MOVE", MB_SQL_SESSION},
    {"notify", "NOTIFY", MB_SQL_SESSION},
    {"reassign", "REASSIGN OWNED", MB_SQL_PLAIN},
    {"refresh", "REFRESH MATERIALIZED VIEW", MB_SQL_PLAIN},
    {"release", "RELEASE", MB_SQL_SESSION},
    {"reset", "RESET", MB_SQL_SESSION},
    {"revoke", "REVOKE", MB_SQL_PLAIN},
    {"savepoint", "SAVEPOINT", MB_SQL_SESSION},
    {"security", "SECURITY LABEL", MB_SQL_PLAIN},
    {"select", "SELECT", MB_SQL_PLAIN},
    {"show", "SHOW", MB_SQL_PLAIN},
    {"table", "SELECT", MB_SQL_PLAIN},
    {"truncate", "TRUNCATE TABLE", MB_SQL_PLAIN},
    {"unlisten", "UNLISTEN", MB_SQL_SESSION},
    {"update", "UPDATE", MB_SQL_PLAIN},
    {"vacuum", "VACUUM", MB_SQL_PLAIN},
    {"with", "WITH", MB_SQL_PLAIN},
    {"reindex", "REINDEX", MB_SQL_PLAIN},
    {"cluster", "CLUSTER", MB_SQL_PLAIN},
    {"values", "SELECT", MB_SQL_PLAIN},
};

/* The kinds of objects whose names take more than one word, as CREATE, ALTER and DROP write them.
 */
static const char *const long_kinds[][4] = {
    {"access", "method", NULL},
    {"default", "privileges", NULL},
    {"event", "trigger", NULL},
    {"foreign", "data", "wrapper", NULL},
    {"foreign", "table", NULL},
    {"large", "object", NULL},
    {"materialized", "view", NULL},
    {"operator", "class", NULL},
    {"operator", "family", NULL},
    {"text", "search", "configuration", NULL},
    {"text", "search", "dictionary", NULL},
    {"text", "search", "parser", NULL},
    {"text", "search", "template", NULL},
    {"user", "mapping", NULL},
};

/* Words between CREATE and the kind of object, which the tag leaves out. */
static const char *const modifiers[] = {
    "constraint", "default", "global",  "local",     "or",     "procedural", "recursive",
    "replace",    "temp",    "trusted", "temporary", "unique", "unlogged",
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void set_tag(mb_sql_kind *kind, const char *tag)
{
    size_t len = strlen(tag);
    memcpy(kind->tag, tag, len + 1); /* every tag written in this file fits */
}

/* Adds a space and the word, in upper case, cut to what fits. */
static void add_to_tag(mb_sql_kind *kind, const char *word, size_t len)
{
    size_t at = strlen(kind->tag);
    if (at > 0 && at < sizeof kind->tag - 1)
        kind->tag[at++] = ' ';
    for (size_t i = 0; i < len && at < sizeof kind->tag - 1; i++) {
        char c = word[i];
        kind->tag[at++] = c >= 'a' && c <= 'z' ? (char)(c - ('a' - 'A')) : c;
    }
    kind->tag[at] = '\0';
}

static void add_token_to_tag(mb_sql_kind *kind, mb_cursor *at)
{
    if (at->token.kind != MB_TOKEN_WORD)
        return;
    add_to_tag(kind, at->scan.text + at->token.begin, at->token.end - at->token.begin);
    mb_cursor_skip(at);
}

bool mb_cursor_accept_all(mb_cursor *at, const char *const words[])
{
    mb_cursor ahead = *at;
    for (size_t i = 0; words[i]; i++) {
        if (!mb_cursor_accept(&ahead, words[i]))
            return false;
    }
    *at = ahead;
    return true;
}

static bool accept_modifier(mb_cursor *at)
{
    for (size_t i = 0; i < COUNT(modifiers); i++) {
        if (mb_cursor_accept(at, modifiers[i]))
            return true;
    }
    return false;
}

/* Whether AS stands outside of parentheses in the rest: CREATE TABLE ... AS query. */
static bool has_outer_as(mb_cursor at)
{
    while (!mb_cursor_at_end(&at)) {
        if (mb_cursor_is_char(&at, '('))
            mb_cursor_skip_group(&at);
        else if (mb_cursor_accept(&at, "as"))
            return true;
        else
            mb_cursor_skip(&at);
    }
    return false;
}

/* CREATE, ALTER, DROP: the tag is the verb and the kind of object. */
static void classify_ddl(mb_cursor *at, const char *action, mb_sql_kind *kind)
{
    bool create = strcmp(action, "CREATE") == 0;
    set_tag(kind, action);
    while (create && accept_modifier(at))
        ;
    bool found = false;
    for (size_t i = 0; i < COUNT(long_kinds) && !found; i++) {
        found = mb_cursor_accept_all(at, long_kinds[i]);
        for (size_t word = 0; found && long_kinds[i][word]; word++)
            add_to_tag(kind, long_kinds[i][word], strlen(long_kinds[i][word]));
    }
    if (!found && (mb_cursor_is(at, "user") || mb_cursor_is(at, "group"))) {
        add_to_tag(kind, "role", 4); /* as the server's tag has it */
        mb_cursor_skip(at);
    } else if (!found) {
        if (mb_cursor_is(at, "procedural") || mb_cursor_is(at, "trusted"))
            mb_cursor_skip(at); /* DROP PROCEDURAL LANGUAGE */
        add_token_to_tag(kind, at);
    }
    if (strcmp(kind->tag, "CREATE TABLE") == 0 && has_outer_as(*at))
        set_tag(kind, "CREATE TABLE AS");
}

static void control(mb_sql_kind *kind, const char *tag, const char *what)
{
    set_tag(kind, tag);
    kind->class = MB_SQL_CONTROL;
    kind->control = what;
}

/* COMMIT and ROLLBACK with all their endings. */
static void classify_end(mb_cursor *at, mb_sql_kind *kind, bool commit)
{
    if (mb_cursor_accept(at, "prepared")) {
        control(kind, commit ? "COMMIT PREPARED" : "ROLLBACK PREPARED",
                commit ? "commit_prepared" : "rollback_prepared");
        return;
    }
    if (!mb_cursor_accept(at, "work"))
        mb_cursor_accept(at, "transaction");
    if (!commit && mb_cursor_is(at, "to")) {
        set_tag(kind, "ROLLBACK TO SAVEPOINT");
        kind->class = MB_SQL_SESSION;
        return;
    }
    control(kind, commit ? "COMMIT" : "ROLLBACK", commit ? "commit" : "rollback");
}

/* COPY: the class depends on where the data is; `copy` tells who would stream it. */
static void classify_copy(mb_cursor at, const mb_statement *statement, mb_sql_kind *kind)
{
    set_tag(kind, "COPY");
    kind->class = statement->has_data ? MB_SQL_COPY : MB_SQL_SESSION;
    if (statement->copy_stdin) {
        kind->copy = "in";
        return;
    }
    while (!mb_cursor_at_end(&at)) {
        if (mb_cursor_is_char(&at, '(')) {
            mb_cursor_skip_group(&at);
        } else if (mb_cursor_accept(&at, "to")) {
            if (mb_cursor_is(&at, "stdout") || mb_cursor_is(&at, "stdin"))
                kind->copy = "out";
            return;
        } else {
            mb_cursor_skip(&at);
        }
    }
}

static void classify_set(mb_cursor *at, mb_sql_kind *kind)
{
    set_tag(kind, mb_cursor_is(at, "constraints") ? "SET CONSTRAINTS" : "SET");
    kind->class = MB_SQL_SESSION;
}

/* PREPARE TRANSACTION 'id', or PREPARE of a statement (which may be called transaction). */
static void classify_prepare(mb_cursor *at, mb_sql_kind *kind)
{
    set_tag(kind, "PREPARE");
    kind->class = MB_SQL_SESSION;
    if (mb_cursor_accept(at, "transaction") && at->token.kind == MB_TOKEN_STRING)
        control(kind, "PREPARE TRANSACTION", "prepare");
}

static void classify_discard(mb_cursor *at, mb_sql_kind *kind)
{
    bool all = mb_cursor_is(at, "all");
    set_tag(kind, "DISCARD");
    add_token_to_tag(kind, at);
    if (strcmp(kind->tag, "DISCARD TEMPORARY") == 0)
        set_tag(kind, "DISCARD TEMP");
    kind->class = all ? MB_SQL_ALONE : MB_SQL_SESSION;
    if (all)
        kind->object.kind = "session";
}

/* Every verb that is not handled by a function of its own. One that is not known may do anything, also
 * commit in an implicit transaction: it never goes into a pipeline. */
static void classify_by_table(mb_cursor *at, mb_sql_kind *kind)
{
    for (size_t i = 0; i < COUNT(verbs); i++) {
        if (mb_cursor_accept(at, verbs[i].word)) {
            set_tag(kind, verbs[i].tag);
            kind->class = verbs[i].class;
            return;
        }
    }
    if (mb_cursor_is_char(at, '('))
        set_tag(kind, "SELECT"); /* only a query can start so */
    else {
        add_token_to_tag(kind, at);
        kind->class = MB_SQL_SESSION;
    }
}

void mb_sql_classify(const char *text, const mb_statement *statement, mb_sql_kind *kind)
{
    mb_cursor at;
    mb_cursor_init(&at, text, statement);
    memset(kind, 0, sizeof *kind);
    kind->class = MB_SQL_PLAIN;

    if (mb_cursor_accept(&at, "create")) {
        bool unique = mb_cursor_is(&at, "unique");
        classify_ddl(&at, "CREATE", kind);
        kind->object.unique = unique;
    } else if (mb_cursor_accept(&at, "alter")) {
        classify_ddl(&at, "ALTER", kind);
    } else if (mb_cursor_accept(&at, "drop")) {
        classify_ddl(&at, "DROP", kind);
    } else if (mb_cursor_accept(&at, "begin")) {
        control(kind, "BEGIN", "begin");
    } else if (mb_cursor_accept(&at, "start")) {
        control(kind, "START TRANSACTION", "begin");
    } else if (mb_cursor_accept(&at, "commit") || mb_cursor_accept(&at, "end")) {
        classify_end(&at, kind, true);
    } else if (mb_cursor_accept(&at, "rollback") || mb_cursor_accept(&at, "abort")) {
        classify_end(&at, kind, false);
    } else if (mb_cursor_accept(&at, "prepare")) {
        classify_prepare(&at, kind);
    } else if (mb_cursor_accept(&at, "set")) {
        classify_set(&at, kind);
    } else if (mb_cursor_accept(&at, "copy")) {
        classify_copy(at, statement, kind);
    } else if (mb_cursor_accept(&at, "discard")) {
        classify_discard(&at, kind);
    } else {
        classify_by_table(&at, kind);
    }

    if (kind->class == MB_SQL_PLAIN) {
        if (mb_sql_find_alone(at, kind->tag, &kind->object))
            kind->class = MB_SQL_ALONE;
        else if (statement->set_config)
            kind->class = MB_SQL_SESSION;
    }
    if (kind->class != MB_SQL_ALONE)
        memset(&kind->object, 0, sizeof kind->object);
}

const char *mb_sql_class_name(mb_sql_class class)
{
    static const char *const names[] = {"plain", "alone", "control", "copy", "session"};
    return names[class];
}
