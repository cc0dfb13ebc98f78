/*
 * embedded.h - the files that bindings/embed.lua compiled in: the Lua layer and the journal's own
 * migrations. Static data, never freed.
 */
#ifndef MBL_EMBEDDED_H
#define MBL_EMBEDDED_H

#include <stddef.h>

typedef struct mbl_embedded {
    const char *kind; /* "module" or "journal" */
    const char *name; /* module name, or file name */
    const char *data;
    size_t len;
} mbl_embedded;

/* Ends with an entry whose kind is NULL. */
extern const mbl_embedded mbl_embedded_files[];

#endif
