/*
 * result.c - reading a PGresult.
 */
#include "engine/pg/result.h"

#include <libpq-fe.h>
#include <stdlib.h>

#include "engine/pg/internal.h"

mb_result *mb_result_wrap(PGresult *res)
{
    mb_result *result = mb_malloc(sizeof *result);
    result->res = res;
    return result;
}

void mb_result_free(mb_result **result)
{
    if (!*result)
        return;
    PQclear((*result)->res);
    free(*result);
    *result = NULL;
}

int mb_result_rows(const mb_result *result)
{
    return PQntuples(result->res);
}

int mb_result_columns(const mb_result *result)
{
    return PQnfields(result->res);
}

const char *mb_result_name(const mb_result *result, int column)
{
    return PQfname(result->res, column);
}

uint32_t mb_result_type(const mb_result *result, int column)
{
    return PQftype(result->res, column);
}

const char *mb_result_value(const mb_result *result, int row, int column, size_t *len)
{
    if (PQgetisnull(result->res, row, column))
        return NULL;
    *len = (size_t)PQgetlength(result->res, row, column);
    return PQgetvalue(result->res, row, column);
}

const char *mb_result_tag(const mb_result *result)
{
    return PQcmdStatus(result->res);
}

int64_t mb_result_affected(const mb_result *result)
{
    const char *count = PQcmdTuples(result->res);
    return *count ? strtoll(count, NULL, 10) : -1;
}

size_t mb_result_memory(const mb_result *result)
{
    return PQresultMemorySize(result->res);
}

unsigned char *mb_bytea_decode(const char *text, size_t *len)
{
    return PQunescapeBytea((const unsigned char *)text, len);
}

void mb_bytea_free(unsigned char *bytes)
{
    PQfreemem(bytes);
}
