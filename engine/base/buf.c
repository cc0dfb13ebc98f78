/*
 * buf.c - a growing byte buffer.
 */
#include "engine/base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *mb_buf_reserve(mb_buf *buf, size_t extra)
{
    size_t need = buf->len + extra + 1;
    if (need > buf->cap) {
        size_t cap = buf->cap ? buf->cap * 2 : 64;
        while (cap < need)
            cap *= 2;
        buf->data = mb_realloc(buf->data, cap);
        buf->cap = cap;
    }
    buf->data[buf->len] = '\0';
    return buf->data + buf->len;
}

void mb_buf_add(mb_buf *buf, const void *bytes, size_t len)
{
    char *at = mb_buf_reserve(buf, len);
    if (len)
        memcpy(at, bytes, len);
    buf->len += len;
    buf->data[buf->len] = '\0';
}

void mb_buf_adds(mb_buf *buf, const char *text)
{
    mb_buf_add(buf, text, strlen(text));
}

void mb_buf_addc(mb_buf *buf, char c)
{
    mb_buf_add(buf, &c, 1);
}

void mb_buf_addf(mb_buf *buf, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int len = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (len <= 0)
        return;
    char *at = mb_buf_reserve(buf, (size_t)len);
    va_start(args, fmt);
    vsnprintf(at, (size_t)len + 1, fmt, args);
    va_end(args);
    buf->len += (size_t)len;
}

void mb_buf_clear(mb_buf *buf)
{
    buf->len = 0;
    if (buf->data)
        buf->data[0] = '\0';
}

char *mb_buf_take(mb_buf *buf)
{
    mb_buf_reserve(buf, 0);
    char *text = buf->data;
    *buf = (mb_buf)MB_BUF_INIT;
    return text;
}

void mb_buf_free(mb_buf *buf)
{
    free(buf->data);
    *buf = (mb_buf)MB_BUF_INIT;
}
