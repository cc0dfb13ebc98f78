/*
 * quote.c - names and texts as SQL.
 */
#include "engine/sql/quote.h"

#include <stdlib.h>
#include <string.h>

/* pg_get_keywords() of 14 to 18, all but the unreserved ones; sorted bytewise. */
/* clang-format off */
static const char *const keywords[] = {
    "all", "analyse", "analyze", "and", "any", "array", "as", "asc", "asymmetric", "authorization",
    "between", "bigint", "binary", "bit", "boolean", "both", "case", "cast", "char", "character",
    "check", "coalesce", "collate", "collation", "column", "concurrently", "constraint", "create",
    "cross", "current_catalog", "current_date", "current_role", "current_schema", "current_time",
    "current_timestamp", "current_user", "dec", "decimal", "default", "deferrable", "desc",
    "distinct", "do", "else", "end", "except", "exists", "extract", "false", "fetch", "float",
    "for", "foreign", "freeze", "from", "full", "grant", "greatest", "group", "grouping", "having",
    "ilike", "in", "initially", "inner", "inout", "int", "integer", "intersect", "interval", "into",
    "is", "isnull", "join", "json", "json_array", "json_arrayagg", "json_exists", "json_object",
    "json_objectagg", "json_query", "json_scalar", "json_serialize", "json_table", "json_value",
    "lateral", "leading", "least", "left", "like", "limit", "localtime", "localtimestamp",
    "merge_action", "national", "natural", "nchar", "none", "normalize", "not", "notnull", "null",
    "nullif", "numeric", "offset", "on", "only", "or", "order", "out", "outer", "overlaps",
    "overlay", "placing", "position", "precision", "primary", "real", "references", "returning",
    "right", "row", "select", "session_user", "setof", "similar", "smallint", "some", "substring",
    "symmetric", "system_user", "table", "tablesample", "then", "time", "timestamp", "to",
    "trailing", "treat", "trim", "true", "union", "unique", "user", "using", "values", "varchar",
    "variadic", "verbose", "when", "where", "window", "with", "xmlattributes", "xmlconcat",
    "xmlelement", "xmlexists", "xmlforest", "xmlnamespaces", "xmlparse", "xmlpi", "xmlroot",
    "xmlserialize", "xmltable",
};
/* clang-format on */

typedef struct word {
    const char *text;
    size_t len;
} word;

static int compare(const void *key, const void *entry)
{
    const word *left = key;
    const char *right = *(const char *const *)entry;
    int order = strncmp(left->text, right, left->len);
    return order ? order : right[left->len] ? -1 : 0;
}

bool mb_sql_is_keyword(const char *text, size_t len)
{
    word key = {text, len};
    return bsearch(&key, keywords, sizeof keywords / sizeof *keywords, sizeof *keywords, compare);
}

static bool is_plain(const char *name, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        char c = name[i];
        bool letter = (c >= 'a' && c <= 'z') || c == '_';
        if (!letter && (i == 0 || c < '0' || c > '9'))
            return false;
    }
    return len > 0;
}

void mb_sql_quote_ident(mb_buf *out, const char *name, size_t len)
{
    if (is_plain(name, len) && !mb_sql_is_keyword(name, len)) {
        mb_buf_add(out, name, len);
        return;
    }
    mb_buf_addc(out, '"');
    for (size_t i = 0; i < len; i++) {
        if (name[i] == '"')
            mb_buf_addc(out, '"');
        mb_buf_addc(out, name[i]);
    }
    mb_buf_addc(out, '"');
}

void mb_sql_quote_literal(mb_buf *out, const char *text, size_t len)
{
    if (len && memchr(text, '\\', len))
        mb_buf_addc(out, 'E');
    mb_buf_addc(out, '\'');
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '\'' || text[i] == '\\')
            mb_buf_addc(out, text[i]);
        mb_buf_addc(out, text[i]);
    }
    mb_buf_addc(out, '\'');
}
