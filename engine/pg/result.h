/*
 * result.h - the answer to one statement. Wraps libpq's PGresult, which never leaves engine/pg.
 */
#ifndef MB_RESULT_H
#define MB_RESULT_H

#include "engine/base/base.h"

/* Type oids whose values become Lua numbers, booleans or byte strings (pg_type.dat; they never change). */
enum {
    MB_OID_BOOL = 16,
    MB_OID_BYTEA = 17,
    MB_OID_INT8 = 20,
    MB_OID_INT2 = 21,
    MB_OID_INT4 = 23,
    MB_OID_OID = 26,
    MB_OID_FLOAT4 = 700,
    MB_OID_FLOAT8 = 701
};

typedef struct mb_result mb_result;

void mb_result_free(mb_result **result);
int mb_result_rows(const mb_result *result);
int mb_result_columns(const mb_result *result);
/* Owned by the result. */
const char *mb_result_name(const mb_result *result, int column);
uint32_t mb_result_type(const mb_result *result, int column);
/* The value as text (owned by the result), or NULL for SQL NULL; `len` gets its length. */
const char *mb_result_value(const mb_result *result, int row, int column, size_t *len);
/* The command tag ("INSERT 0 3"), and the rows it changed or returned (-1: the tag has no count). */
const char *mb_result_tag(const mb_result *result);
int64_t mb_result_affected(const mb_result *result);
/* Bytes of memory that libpq holds for it. */
size_t mb_result_memory(const mb_result *result);
/* Decodes bytea text; the caller frees the bytes with mb_bytea_free(). NULL when it is not bytea text. */
unsigned char *mb_bytea_decode(const char *text, size_t *len);
void mb_bytea_free(unsigned char *bytes);

#endif
