/*
 * pgerror.c - from libpq's diagnostics to an mb_error.
 */
#include <string.h>

#include "engine/pg/internal.h"

static char *field(const PGresult *res, int code)
{
    const char *value = PQresultErrorField(res, code);
    return value ? mb_strdup(value) : NULL;
}

/* What a SQLSTATE means to moonbird. MBxxx are raised by the journal's own functions. */
static mb_code code_of(const char *sqlstate)
{
    static const struct {
        const char *sqlstate;
        mb_code code;
    } table[] = {
        {"55P03", MB_LOCK_TIMEOUT}, {"MB001", MB_LOCKED},  {"MB002", MB_MOVED},
        {"MB003", MB_JOURNAL_NEWER}, {"MB004", MB_JOURNAL},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (!strcmp(sqlstate, table[i].sqlstate))
            return table[i].code;
    return MB_SQL;
}

static void trim(char *text)
{
    size_t len = strlen(text);
    while (len && (text[len - 1] == '\n' || text[len - 1] == ' '))
        text[--len] = '\0';
}

void mb_pg_error_from_result(mb_error *err, const PGresult *res, bool lost)
{
    const char *sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    const char *message = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
    mb_code code = lost ? MB_CONNECTION_LOST : sqlstate ? code_of(sqlstate) : MB_CONNECTION_LOST;
    mb_error_set(err, code, "%s", message ? message : PQresultErrorMessage(res));
    trim(err->message);
    if (sqlstate)
        strncpy(err->sqlstate, sqlstate, sizeof err->sqlstate - 1);
    err->severity = field(res, PG_DIAG_SEVERITY_NONLOCALIZED);
    err->detail = field(res, PG_DIAG_MESSAGE_DETAIL);
    err->hint = field(res, PG_DIAG_MESSAGE_HINT);
    err->context = field(res, PG_DIAG_CONTEXT);
    err->schema = field(res, PG_DIAG_SCHEMA_NAME);
    err->table = field(res, PG_DIAG_TABLE_NAME);
    err->column = field(res, PG_DIAG_COLUMN_NAME);
    err->constraint = field(res, PG_DIAG_CONSTRAINT_NAME);
    const char *position = PQresultErrorField(res, PG_DIAG_STATEMENT_POSITION);
    if (position)
        for (const char *p = position; *p >= '0' && *p <= '9'; p++)
            err->position = err->position * 10 + (*p - '0');
}

void mb_pg_error_from_conn(mb_error *err, const PGconn *pg, mb_code code)
{
    const char *message = PQerrorMessage(pg);
    mb_error_set(err, code, "%s", message && *message ? message : "connection to the server was lost");
    trim(err->message);
}
