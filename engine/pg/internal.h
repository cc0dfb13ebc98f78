/*
 * internal.h - what the files of engine/pg share; nobody else includes it (it needs libpq-fe.h).
 */
#ifndef MB_PG_INTERNAL_H
#define MB_PG_INTERNAL_H

#include <libpq-fe.h>

#include "engine/base/error.h"
#include "engine/pg/result.h"

struct mb_result {
    PGresult *res;
};

/* Takes `res` over. */
mb_result *mb_result_wrap(PGresult *res);

/* Fills `err` from a failed result; `lost`: the connection is gone as well. */
void mb_pg_error_from_result(mb_error *err, const PGresult *res, bool lost);
/* Fills `err` from libpq's own message on the connection (already without passwords). */
void mb_pg_error_from_conn(mb_error *err, const PGconn *pg, mb_code code);

#endif
