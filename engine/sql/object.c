/*
 * object.c - the statements that can't run in a transaction block, and what they act on.
 *
 * The list follows the calls of PreventInTransactionBlock() in the server's sources (14 to 18), as
 * far as tokens can tell: DROP SUBSCRIPTION and ALTER SUBSCRIPTION depend on the catalog too and
 * count as if they could not. Names are kept so that a rerun can look at what an interrupted one
 * left behind.
 */
#include <string.h>

#include "engine/sql/cursor.h"

bool mb_cursor_accept_if_exists(mb_cursor *at)
{
    return mb_cursor_accept_all(at, (const char *const[]){"if", "exists", NULL});
}

bool mb_cursor_accept_if_not_exists(mb_cursor *at)
{
    return mb_cursor_accept_all(at, (const char *const[]){"if", "not", "exists", NULL});
}

void mb_cursor_skip_group(mb_cursor *at)
{
    size_t depth = 0;
    while (!mb_cursor_at_end(at)) {
        if (mb_cursor_is_char(at, '('))
            depth++;
        else if (mb_cursor_is_char(at, ')') && depth > 0)
            depth--;
        else if (depth == 0)
            return;
        mb_cursor_skip(at);
        if (depth == 0)
            return;
    }
}

/* One identifier with the UESCAPE that may follow U&"". */
static bool take_identifier(mb_cursor *at, char name[MB_SQL_NAME_SIZE])
{
    mb_token token = at->token;
    if (token.kind != MB_TOKEN_WORD && token.kind != MB_TOKEN_QUOTED)
        return false;
    mb_cursor_skip(at);
    char escape = '\\';
    mb_cursor ahead = *at;
    if (token.kind == MB_TOKEN_QUOTED && at->scan.text[token.begin] != '"' &&
        mb_cursor_accept(&ahead, "uescape") && ahead.token.kind == MB_TOKEN_STRING &&
        ahead.token.end - ahead.token.begin == 3) {
        escape = at->scan.text[ahead.token.begin + 1];
        mb_cursor_skip(&ahead);
        *at = ahead;
    }
    if (!mb_token_name(at->scan.text, &token, escape, name))
        name[0] = '\0';
    return true;
}

bool mb_cursor_take_name(mb_cursor *at, char schema[MB_SQL_NAME_SIZE], char name[MB_SQL_NAME_SIZE])
{
    if (!take_identifier(at, name))
        return false;
    schema[0] = '\0';
    while (mb_cursor_accept_char(at, '.')) {
        memcpy(schema, name, MB_SQL_NAME_SIZE);
        if (!take_identifier(at, name))
            name[0] = '\0';
    }
    return true;
}

/* The truth value that a parameter of a list has, as the server reads it; absent means true. */
static bool is_false(const mb_cursor *at)
{
    const char *text = at->scan.text + at->token.begin;
    size_t len = at->token.end - at->token.begin;
    if (at->token.kind == MB_TOKEN_STRING && len >= 2) {
        text++;
        len -= 2;
    }
    return (len == 1 && *text == '0') || (len == 3 && strncasecmp(text, "off", 3) == 0) ||
           (len == 5 && strncasecmp(text, "false", 5) == 0);
}

/*
 * Whether a parameter list, which is next, sets the parameter to false (`off`) or has it at all and
 * not set to false (`on`). `at` is left where it is.
 */
static void find_parameter(mb_cursor at, const char *word, bool *off, bool *on)
{
    if (!mb_cursor_accept_char(&at, '('))
        return;
    while (!mb_cursor_at_end(&at) && !mb_cursor_is_char(&at, ')')) {
        if (!mb_cursor_accept(&at, word)) {
            mb_cursor_skip(&at);
            continue;
        }
        if (at.token.kind == MB_TOKEN_OPERATOR)
            mb_cursor_skip(&at); /* = */
        if (is_false(&at))
            *off = true;
        else
            *on = true;
    }
}

/* Moves to the next WITH outside of parentheses and takes it. */
static bool seek_with(mb_cursor *at)
{
    while (!mb_cursor_at_end(at)) {
        if (mb_cursor_is_char(at, '('))
            mb_cursor_skip_group(at);
        else if (mb_cursor_accept(at, "with"))
            return true;
        else
            mb_cursor_skip(at);
    }
    return false;
}

static bool parameter_is_off(mb_cursor at, const char *word)
{
    bool off = false;
    bool on = false;
    find_parameter(at, word, &off, &on);
    return off;
}

static bool create_index(mb_cursor *at, mb_sql_object *object)
{
    if (!mb_cursor_accept(at, "concurrently"))
        return false;
    object->kind = "index";
    object->concurrently = true;
    object->if_not_exists = mb_cursor_accept_if_not_exists(at);
    if (!mb_cursor_is(at, "on"))
        mb_cursor_take_name(at, object->schema, object->name);
    if (mb_cursor_accept(at, "on")) {
        mb_cursor_accept(at, "only");
        mb_cursor_take_name(at, object->relation_schema, object->relation);
    }
    return true;
}

static bool drop_index(mb_cursor *at, mb_sql_object *object)
{
    if (!mb_cursor_accept(at, "concurrently"))
        return false;
    object->kind = "index";
    object->concurrently = true;
    object->if_exists = mb_cursor_accept_if_exists(at);
    mb_cursor_take_name(at, object->schema, object->name);
    return true;
}

/* REINDEX [(options)] kind [CONCURRENTLY] name */
static bool reindex(mb_cursor *at, mb_sql_object *object)
{
    bool off = false;
    find_parameter(*at, "concurrently", &off, &object->concurrently);
    mb_cursor_skip_group(at);
    static const char *const kinds[] = {"index", "table", "schema", "database", "system"};
    size_t i = 0;
    while (i < 5 && !mb_cursor_accept(at, kinds[i]))
        i++;
    if (i == 5)
        return false;
    if (mb_cursor_accept(at, "concurrently"))
        object->concurrently = true;
    if (!object->concurrently && i < 2)
        return false;
    object->kind = kinds[i];
    mb_cursor_take_name(at, object->schema, object->name);
    return true;
}

/* VACUUM [(options) | FULL FREEZE VERBOSE ANALYZE] [table [(columns)], ...]: the first table. */
static bool vacuum(mb_cursor *at, mb_sql_object *object)
{
    object->kind = "table";
    mb_cursor_skip_group(at);
    while (mb_cursor_accept(at, "full") || mb_cursor_accept(at, "freeze") ||
           mb_cursor_accept(at, "verbose") || mb_cursor_accept(at, "analyze") ||
           mb_cursor_accept(at, "analyse"))
        ;
    mb_cursor_accept(at, "only"); /* since 18 */
    if (!mb_cursor_take_name(at, object->schema, object->name))
        object->kind = "database"; /* all the tables of the one connected to */
    return true;
}

/* CLUSTER [VERBOSE | (options)] without a table: every table that was clustered before. */
static bool cluster(mb_cursor *at, mb_sql_object *object)
{
    mb_cursor_skip_group(at);
    mb_cursor_accept(at, "verbose");
    if (!mb_cursor_at_end(at))
        return false;
    object->kind = "database";
    return true;
}

/* ALTER TABLE parent DETACH PARTITION part CONCURRENTLY */
static bool detach_partition(mb_cursor *at, mb_sql_object *object)
{
    object->if_exists = mb_cursor_accept_if_exists(at);
    mb_cursor_accept(at, "only");
    mb_cursor_take_name(at, object->relation_schema, object->relation);
    if (at->token.kind == MB_TOKEN_OPERATOR)
        mb_cursor_skip(at); /* parent * */
    if (!mb_cursor_accept_all(at, (const char *const[]){"detach", "partition", NULL}))
        return false;
    mb_cursor_take_name(at, object->partition_schema, object->partition);
    if (!mb_cursor_accept(at, "concurrently"))
        return false;
    object->kind = "partition";
    object->concurrently = true;
    return true;
}

static bool alter_database(mb_cursor *at, mb_sql_object *object)
{
    mb_cursor_take_name(at, object->schema, object->name);
    if (!mb_cursor_accept_all(at, (const char *const[]){"set", "tablespace", NULL}))
        return false;
    object->kind = "database";
    return true;
}

/* ALTER SYSTEM SET | RESET parameter */
static bool alter_system(mb_cursor *at, mb_sql_object *object)
{
    object->kind = "system";
    if (!mb_cursor_accept(at, "set"))
        mb_cursor_accept(at, "reset");
    mb_cursor_take_name(at, object->schema, object->name);
    return true;
}

/* It makes a replication slot unless told not to (or not to connect at all). */
static bool create_subscription(mb_cursor *at, mb_sql_object *object)
{
    object->kind = "subscription";
    mb_cursor_take_name(at, object->schema, object->name);
    return !seek_with(at) ||
           !(parameter_is_off(*at, "create_slot") || parameter_is_off(*at, "connect"));
}

/* Whatever refreshes the list of tables, and the settings that change the publisher's slot. */
static bool alter_subscription(mb_cursor *at, mb_sql_object *object)
{
    object->kind = "subscription";
    mb_cursor_take_name(at, object->schema, object->name);
    if (mb_cursor_is(at, "refresh"))
        return true;
    bool set = mb_cursor_accept(at, "set");
    if (set && mb_cursor_is_char(at, '(')) {
        bool off = false;
        bool on = false;
        find_parameter(*at, "failover", &off, &on);
        find_parameter(*at, "two_phase", &off, &on);
        return off || on;
    }
    if (!set && !mb_cursor_accept(at, "add") && !mb_cursor_accept(at, "drop"))
        return false;
    return mb_cursor_is(at, "publication") && !(seek_with(at) && parameter_is_off(*at, "refresh"));
}

/* CREATE and DROP of what is shared by the cluster. */
static bool shared_object(mb_cursor *at, mb_sql_object *object, const char *kind)
{
    object->kind = kind;
    object->if_exists = mb_cursor_accept_if_exists(at);
    mb_cursor_take_name(at, object->schema, object->name);
    return true;
}

static bool fill(mb_cursor *at, const char *tag, mb_sql_object *object)
{
    if (strcmp(tag, "CREATE INDEX") == 0)
        return create_index(at, object);
    if (strcmp(tag, "DROP INDEX") == 0)
        return drop_index(at, object);
    if (strcmp(tag, "ALTER TABLE") == 0)
        return detach_partition(at, object);
    if (strcmp(tag, "REINDEX") == 0)
        return reindex(at, object);
    if (strcmp(tag, "VACUUM") == 0)
        return vacuum(at, object);
    if (strcmp(tag, "CLUSTER") == 0)
        return cluster(at, object);
    if (strcmp(tag, "CREATE DATABASE") == 0 || strcmp(tag, "DROP DATABASE") == 0)
        return shared_object(at, object, "database");
    if (strcmp(tag, "CREATE TABLESPACE") == 0 || strcmp(tag, "DROP TABLESPACE") == 0)
        return shared_object(at, object, "tablespace");
    if (strcmp(tag, "ALTER DATABASE") == 0)
        return alter_database(at, object);
    if (strcmp(tag, "ALTER SYSTEM") == 0)
        return alter_system(at, object);
    if (strcmp(tag, "CREATE SUBSCRIPTION") == 0)
        return create_subscription(at, object);
    if (strcmp(tag, "ALTER SUBSCRIPTION") == 0)
        return alter_subscription(at, object);
    return strcmp(tag, "DROP SUBSCRIPTION") == 0 && shared_object(at, object, "subscription");
}

bool mb_sql_find_alone(mb_cursor at, const char *tag, mb_sql_object *object)
{
    mb_sql_object found = *object;
    if (!fill(&at, tag, &found))
        return false;
    *object = found;
    return true;
}
