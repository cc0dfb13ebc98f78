/*
 * buf.h - a growing byte buffer. The owner of the struct frees it with mb_buf_free(); `data` always
 * ends in a NUL that `len` does not count (NULL while nothing was added).
 */
#ifndef MB_BUF_H
#define MB_BUF_H

#include "engine/base/base.h"

typedef struct mb_buf {
    char *data;
    size_t len;
    size_t cap;
} mb_buf;

#define MB_BUF_INIT {NULL, 0, 0}

void mb_buf_add(mb_buf *buf, const void *bytes, size_t len);
void mb_buf_adds(mb_buf *buf, const char *text);
void mb_buf_addc(mb_buf *buf, char c);
void mb_buf_addf(mb_buf *buf, const char *fmt, ...) MB_PRINTF(2, 3);
/* Makes room for `extra` more bytes and returns where they go; add to `len` what was written. */
char *mb_buf_reserve(mb_buf *buf, size_t extra);
void mb_buf_clear(mb_buf *buf);
/* Hands the string over to the caller (who frees it) and empties the buffer; never NULL. */
char *mb_buf_take(mb_buf *buf);
void mb_buf_free(mb_buf *buf);

#endif
